"""Whole jobs on labels that say only some of the classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chest_films import noise, write_png

from medray.imaging.phantom import PhantomSet
from medray.systems.chest.classes import FINDINGS
from medray.systems.ich.classes import CLASSES

Job = Callable[..., tuple[int, str]]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def test_hemorrhage_of_any_alone(phantoms: PhantomSet, run_in_process: Job, tmp_path: Path) -> None:
    labels = pd.read_csv(phantoms.labels_csv)
    labels[labels["ID"].str.endswith("_any")].to_csv(tmp_path / "labels.csv", index=False)
    out = tmp_path / "out"
    status, text = run_in_process(
        "ich_cv", "--dicom", phantoms.dicom, "--labels", tmp_path / "labels.csv", "--out", out, "--key-dir",
        tmp_path / "key", "--folds", 2, "--rows-per-shard", 64, "--threads", 1, "--backbones", "test_resnet",
        "--no-pretrained", "--size-px", 32, "--epochs", 1, "--batch-size", 8, "--repeat-epidural", 2,
        "--sequence.epochs", 1, "--sequence.hidden", 8, "--views", "plain", "--blend-trials", 4,
    )  # fmt: skip
    assert status == 0, text
    assert f"no label of {', '.join(CLASSES[:-1])}: nothing is learned of it" in text
    assert "of 1 of 6 classes: any" in text
    assert "RuntimeWarning" not in text
    metrics = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["classes"] == ["any"]
    assert metrics["auc"]["any"]["value"] is not None
    assert all(metrics["log_loss"][name]["value"] is None for name in CLASSES[:-1])
    oof = pd.read_parquet(out / "oof.parquet")
    assert metrics["counts"]["slices"] == len(oof) > 100
    assert oof["any"].notna().all()
    assert oof[list(CLASSES[:-1])].isna().all(axis=None)
    assert np.isfinite(oof[[f"p_{name}" for name in CLASSES]].to_numpy()).all()
    assert "No slice has a label of subdural" in (out / "report.html").read_text()


@pytest.mark.parametrize("findings", [("Mass",), ("Mass", "Edema")])
def test_chest_films(findings: tuple[str, ...], run_in_process: Job, tmp_path: Path) -> None:
    rows = []
    for number in range(48):
        write_png(tmp_path / "films" / f"f{number}.png", noise(number, 72, 64))
        labels = dict.fromkeys(findings, number % 2) | ({"Edema": "" if number % 3 else number % 2} if number else {})
        rows.append({"image": f"f{number}.png", "patient": f"p{number}"} | {name: labels[name] for name in findings})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    out = tmp_path / "out"
    status, text = run_in_process(
        "chest_cv", "--images", tmp_path / "films", "--labels", tmp_path / "labels.csv", "--out", out, "--key-dir",
        tmp_path / "key", "--folds", 2, "--recipe", "small", "--epochs", 1, "--threads", 1, "--workers", 0,
        "--rows-per-shard", 32,
    )  # fmt: skip
    assert status == 0, text
    absent = [name for name in FINDINGS if name not in findings]
    assert f"no label of {', '.join(absent)}: nothing is learned of it" in text
    metrics = json.loads((out / "models" / "small-findings" / "metrics.json").read_text())
    assert metrics["mean_auc"]["over"] == ["Mass"]
    assert metrics["targets"]["Mass"]["auc"]["value"] is not None
    for name in absent:
        assert metrics["targets"][name]["auc"]["value"] is None
        assert metrics["targets"][name]["log_loss"]["value"] is None
    assert (out / "models" / "small-findings" / "report.html").exists()
