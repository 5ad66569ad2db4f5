"""A finished run for jobs that go on from one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from left_files import finish

from medray.engine.train import checkpoint
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.task import SliceTask
from medray.systems.ich.views import Views


@pytest.fixture
def finished(tmp_path: Path, tiny_task: SliceTask) -> Callable[[str | None], Path]:
    """Makes the folder of a finished jobs/ich_cv.py, put together by hand: one small network that knows nothing; ``dicom`` is what it was trained on, None for phantoms."""

    def make(dicom: str | None) -> Path:
        out = Store(tmp_path / "run")
        out.write_json("config.json", {"dicom": dicom, "remove_hardware": True})
        model = {"folds": [0], "runs": "net", "sequence": None, "recalibration": {}}
        blend = {"names": ["net"], "weights": [1.0], "space": "logit"}
        views = Views(views=("plain",)).identity()
        out.write_json("method.json", {"models": {"net": model}, "views": views, "blend": blend})
        out.write_json("metrics.json", {"counts": {"observed_rate": dict.fromkeys(CLASSES, 0.125)}})
        state = {"weights": tiny_task.network().state_dict(), "task": json.dumps(tiny_task.identity())}
        checkpoint.write_weights(out.sub("runs", "net", "fold0"), "model.pt", state)
        finish(out)
        return tmp_path / "run"

    return make
