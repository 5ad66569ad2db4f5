"""What a job says of files that it does not plainly use."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from medray.engine.data.prepare import _say_statuses
from medray.shards.store import Store


def test_what_was_odd_about_files_that_are_used_is_said_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("ok", None), ("repaired", "metal: 0.4 mL above 2500 HU"), ("repaired", "metal: 12.1 mL above 2500 HU")]
    _say_statuses(pd.DataFrame([*rows, ("quarantined", "cut short")], columns=["status", "reason"]), Store(tmp_path))
    said = capsys.readouterr().out
    assert "2 repaired" in said
    assert "repaired: 2 × metal: … mL above … HU" in said
    assert "quarantined: 1 × cut short" in said
