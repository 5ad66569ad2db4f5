"""On phantoms with more noise than usual one slice says less than it might, and its neighbours must help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medray.imaging.phantom import PhantomSpec, write_phantoms

pytestmark = pytest.mark.on_demand  # minutes; tests/benchmarks/bench_sequence.py has it over seeds


@pytest.mark.usefixtures("local_ray")
def test_the_sequence_stage_improves_the_log_loss_of_its_backbone(
    run_in_process: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    spec = PhantomSpec(patients=120, seed=1, matrix_px=64, slices=(20, 24), noise_hu=(10.0, 15.0), positive_rate=0.6)
    phantoms = write_phantoms(tmp_path / "phantoms", spec)
    status, text = run_in_process(
        "ich_cv", "--dicom", phantoms.dicom, "--labels", phantoms.labels_csv, "--out", tmp_path / "out", "--public-ids",
        "--folds", 2, "--monitor", "none", "--backbones", "test_efficientnet", "--no-pretrained", "--size-px", 64,
        "--crop", 0.86, "--threads", 1, "--epochs", 8, "--batch-size", 32, "--optimizer", "adamw", "--learning-rate", 1e-2,
        "--weight-decay", 0.05, "--schedule", "one-cycle", "--clip-norm", 1, "--repeat-epidural", 1,
        "--epidural-weight", 1, "--no-flip-vertical", "--views", "plain", "--sequence.hidden", 48, "--sequence.epochs", 16,
        "--sequence.optimizer", "adamw", "--sequence.learning-rate", 2e-3, "--sequence.weight-decay", 0.01,
        "--sequence.schedule", "one-cycle", "--sequence.ema-decay", "None",
    )  # fmt: skip
    assert status == 0, text
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "metrics.json").read_text())["ladder"]}
    alone, averaged, informed = (
        rows[n]["weighted_log_loss"]["value"] for n in ("3 windows", "mean over neighbours", "sequence")
    )
    assert informed < averaged - 0.005, "an average over the neighbours does as well"
    assert informed < alone - 0.01
