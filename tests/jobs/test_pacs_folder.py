"""A folder as a PACS sends it, through the jobs: axial stacks go on, each by itself, and all else has its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ct_files import head, pacs_folder

from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES

Run = Callable[..., tuple[int, str]]

# stack → how many slices, of each patient; the ids of the folder
STACKS = {
    "3.1": 6, "3.2/stack1": 12, "3.2/stack2": 3,
    "3.1001/stack1": 6, "3.1001/stack2": 6, "3.1002": 12,
    "3.2001": 6, "3.2002": 12,
}  # fmt: skip
ASIDE = {"a scout (its image type is LOCALIZER)": 7, "a coronal plane, 90 degrees from axial": 3} | {
    "a sagittal plane, 90 degrees from axial": 3,
    "a secondary capture (such as a dose report or a screenshot), not a CT image": 3,
}
WARNINGS = (
    "! 2 series hold more than one stack, 4 in all",
    "! 1 stack with one position for all slices: they are in the order of InstanceNumber",
)


def short(stack_id: str) -> str:
    return stack_id.removeprefix("1.2.826.0.1.3680043.8.498.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studies, and labels of the thick slices of each: the other series of a study have none."""
    folder = tmp_path_factory.mktemp("pacs")
    ids = pacs_folder(folder / "dicom")
    lines = [f"{slice_id}_{name},{i % 2}" for i, slice_id in enumerate(ids) for name in CLASSES]
    (folder / "labels.csv").write_text("\n".join(["ID,Label", *lines]))
    return folder


@pytest.mark.usefixtures("local_ray")
def test_it_becomes_shards(folder: Path, run_in_process: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = [
        "--dicom",
        folder / "dicom",
        "--labels",
        folder / "labels.csv",
        "--out",
        out,
        "--key-dir",
        tmp_path / "key",
    ]
    flags += ["--public-ids", "--backbones", "test_resnet", "--no-pretrained", "--size-px", 32, "--folds", 2]
    status, text = run_in_process("ich_cv", *flags, "--until", "shards")
    assert status == 0, text
    for line in WARNINGS:
        assert line in text
    inventory = pd.read_parquet(out / "inventory.parquet")
    assert len(inventory) == sum(STACKS.values()) + sum(ASIDE.values())
    assert inventory.loc[inventory["status"] == "quarantined", "reason"].value_counts().to_dict() == ASIDE
    assert inventory["status"].value_counts().to_dict() == {"quarantined": 16, "unlabelled": 45, "ok": 18}

    store = Store(out).sub("shards", "40x80_75x215_600x2800")
    rows = pd.concat([store.read_table(name).to_pandas() for name in store.names(".parquet")], ignore_index=True)
    assert {short(stack): n for stack, n in rows["stack_id"].value_counts().items()} == STACKS
    assert (rows["stack_id"] != rows["stack_id"].shift()).sum() == len(STACKS)  # each in one piece
    for _, stack in rows.groupby("stack_id", sort=False):
        assert stack["index"].tolist() == list(range(len(stack)))
        assert stack["position_mm"].is_monotonic_increasing
        assert stack["patient_id"].nunique() == 1
    thin = rows[rows["stack_id"].str.endswith("3.1002")]
    brain = np.frombuffer(thin["image"].iloc[0], np.uint8).reshape(64, 64, 3)[..., 0]
    inside = np.abs(head(1101) - 35) <= 3
    assert np.ptp(brain[inside].astype(int)) > 10  # not one value: the noise of its own
    assert thin["slice_id"].iloc[0].endswith(".1101")


def test_it_is_predicted(
    folder: Path, finished: Callable[[str | None], Path], run_in_process: Run, tmp_path: Path
) -> None:
    to = tmp_path / "to"
    status, text = run_in_process(
        "ich_predict", "--run", finished("somewhere"), "--dicom", folder / "dicom", "--to", to, "--montages", 1
    )
    assert status == 0, text
    for line in WARNINGS:
        assert line in text
    slices = pd.read_csv(to / "slices.csv")
    assert {short(stack): n for stack, n in slices["stack_id"].value_counts().items()} == STACKS
    assert slices["series_id"].equals(slices["stack_id"].str.replace(r"/stack\d$", "", regex=True))
    aside = pd.read_csv(to / "set_aside.csv")
    assert aside["reason"].value_counts().to_dict() == ASIDE
    studies = pd.read_csv(to / "studies.csv")
    assert studies["slices"].tolist() == [21, 24, 18]
    assert studies["maximum"].tolist() == slices.groupby("study_id", sort=False)["p_any"].max().tolist()
