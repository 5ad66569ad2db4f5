from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"


def load(name: str) -> ModuleType:
    """A job's script as a module, without running it."""
    spec = importlib.util.spec_from_file_location(name, JOBS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a job with flags, as its script would; gives the exit status and all that it printed."""

    def run(name: str, *flags: object) -> tuple[int, str]:
        module = load(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, flags)])
        status = 0
        try:
            module.start()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out + err

    return run
