"""Nobody runs the benchmarks from day to day: what they import is to be there all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_each_can_be_imported(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {script}"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
