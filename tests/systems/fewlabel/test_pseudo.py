"""Pseudo-labels: rows that hold true and pseudo-labels, what a person has locked, and files to look at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from few_scans import ORGANS, SOURCES, few_row
from volume_files import nifti

from medray.engine.train.device import to_device
from medray.imaging.types import Unreadable
from medray.shards.store import Store
from medray.systems.fewlabel import recipes
from medray.systems.fewlabel.methods import ApartTask
from medray.systems.fewlabel.possible import UNTRUE, set_of
from medray.systems.fewlabel.pseudo import Merged, PseudoLabels
from medray.systems.fewlabel.pseudo_files import names_of_scans, with_locked, write_pseudo
from medray.systems.fewlabel.source import FewLabelCT
from medray.tasks.volume_rows import mask_of

SCAN = names_of_scans(pd.DataFrame({"scan_id": ["scan0"]}))["scan0"]
CLASSES = {organ: number for number, organ in enumerate(ORGANS, 1)}


def index_of(*rows: dict[str, Any]) -> pd.DataFrame:
    """Of the shards, with a scan beside them."""
    names = ("scan_id", "shape_DHW", "affine", "origin", "organs_labelled")
    found = [{name: row[name] for name in names} | {"organs_ml": ml_of(row), "fold": 1} for row in rows]
    return pd.DataFrame([*found, found[0] | {"scan_id": "other"}])


def ml_of(row: dict[str, Any]) -> list[float | None]:
    return [1.0 if organ in SOURCES[row["origin"]] else None for organ in ORGANS]


def joined(number: int = 0, **more: Any) -> dict[str, Any]:
    """A row of the shards with pseudo-labels: all organs, as they are, one voxel further to the left."""
    row = few_row(number)
    found = np.roll(mask_of(row, "scored"), 1, axis=2)
    names = FewLabelCT.shard_schema.names
    return (
        dict.fromkeys(names)
        | row
        | {"pseudo": found.tobytes(), "confidence": [0.9, 0.8, 0.6], "told": [1, 1, 1]}
        | more
    )


def bits(row: dict[str, Any]) -> np.ndarray:
    return np.array(row["sets"])[mask_of(row) % UNTRUE]


def test_rows_hold_true_labels_and_pseudo_labels_of_the_other_organs() -> None:
    row = joined()
    (one,) = Merged(ORGANS).rows(row)
    assert {*one} == {*Merged.schema.names}
    truth, pseudo = mask_of(row, "scored"), np.frombuffer(row["pseudo"], np.uint8).reshape(row["shape_DHW"])
    liver, found = truth == CLASSES["Liver"], bits(one)  # of source "one", which labels the liver alone
    assert np.array_equal(found == set_of([1]), liver)
    for organ in ("Spleen", "Pancreas"):
        assert np.array_equal(found == set_of([CLASSES[organ]]), (pseudo == CLASSES[organ]) & ~liver)
    assert set(np.unique(found)) == {set_of([c]) for c in range(4)}
    assert set(one["foreground_class"]) == {1, 2, 3}


def test_networks_teach_each_other_in_a_band_about_pseudo_labels_and_never_on_true_ones() -> None:
    row = joined()
    pseudo = np.frombuffer(row["pseudo"], np.uint8).reshape(row["shape_DHW"])
    true = np.array(row["sets"])[mask_of(row)] != set_of([0, 2, 3])
    previous = 0
    for mm in (0.0, 2.5, 6.0):
        (one,) = Merged(ORGANS, band_mm=mm).rows(row)
        taught = mask_of(one) >= UNTRUE
        assert not (taught & true).any()
        assert (taught[(pseudo > 1) & ~true]).all()
        assert taught.sum() > previous
        previous = int(taught.sum())
    (one,) = Merged(ORGANS, region="everywhere").rows(row)
    assert np.array_equal(mask_of(one) >= UNTRUE, ~true)


def test_an_unsure_organ_is_left_out_and_a_scan_without_labels_stays_as_it_is() -> None:
    (one,) = Merged(ORGANS, least_confidence=0.7).rows(joined())
    assert not (bits(one) == set_of([3])).any()
    assert (bits(one) == set_of([2])).any()
    (bare,) = Merged(ORGANS).rows(joined(mask=None, sets=None))
    assert bare["mask"] is None


def test_what_a_person_has_locked_replaces_a_networks_and_not_a_true_label(tmp_path: Path) -> None:
    row = joined()
    index = index_of(row)
    scan = names_of_scans(index)[row["scan_id"]]
    drawn = np.zeros(row["shape_DHW"], np.uint8)
    drawn[2:6, 2:6, 2:22] = 1
    (tmp_path / scan).mkdir()
    (tmp_path / scan / "Spleen.nii.gz").write_bytes(nifti(drawn, np.array(row["affine"]).reshape(4, 4)))
    plain = Merged(ORGANS)
    locked = with_locked(plain, str(tmp_path), index)
    assert locked.identity() != plain.identity()
    (one,) = locked.rows(row)
    liver = mask_of(row, "scored") == 1
    assert np.array_equal(bits(one) == set_of([2]), (drawn > 0) & ~liver)
    assert (one["made_by_person"], one["confidence"][1]) == ([0, 1, 0], 1.0)
    taught = mask_of(one) >= UNTRUE
    assert taught.any()
    assert not (taught & (drawn > 0)).any()
    assert one["sets"][0] == set_of([0, 3])  # elsewhere no network may say that there is more of the spleen
    (tmp_path / scan / "Pancreas.nii.gz").write_bytes(nifti(drawn, np.array(row["affine"]).reshape(4, 4)))
    with pytest.raises(
        ValueError, match=r"Spleen.nii.gz: 320 voxels of it are Pancreas's, too; a voxel is of one organ"
    ):
        with_locked(plain, str(tmp_path), index)
    (tmp_path / scan / "Pancreas.nii.gz").unlink()
    (tmp_path / scan / "Spleen.nii.gz").write_bytes(nifti(drawn[1:], np.eye(4)))
    with pytest.raises(Unreadable, match="^locked pseudo-label: Spleen: another grid than the CT"):
        locked.rows(row)  # changed while the job runs
    with pytest.raises(ValueError, match=f"--locked .*: {scan}/Spleen.nii.gz: Spleen: another grid than the CT"):
        with_locked(plain, str(tmp_path), index)  # before anything is trained
    assert with_locked(plain, None, index) is plain


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("scan-9/Spleen.nii.gz", "scan-9/Spleen.nii.gz: no scan of this run"),
        (f"{SCAN}/Milz.nii.gz", "no organ of this run; there are Liver, Spleen, Pancreas"),
        (f"{SCAN}/Liver.nii.gz", "Liver.nii.gz: the scan's own source labels it, and true labels win; leave it out"),
        (f"{SCAN}/Spleen.nii.gz", "Spleen.nii.gz: "),
        ("notes.txt", "no mask in it; wanted scan-…/<organ>.nii.gz"),
        (
            "pseudo-labels.csv",
            "networks write there, and not all in it has been looked at; copy what has been corrected",
        ),
        (
            "../pseudo-labels.csv",
            "networks write there, and not all in it has been looked at; copy what has been corrected",
        ),
    ],
)
def test_a_folder_of_locked_masks_that_fits_nothing(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"--locked .*{why}"):
        with_locked(Merged(ORGANS), str(tmp_path), index_of(few_row(0)))


def test_a_network_a_source_finds_what_its_source_draws_and_is_as_sure_as_it_says() -> None:
    task = recipes.method(
        ApartTask, recipes.small(), organs=ORGANS, patch_DHW=(12, 12, 12), width=4, levels=3, largest_part=False,
        drawn_by=tuple(f"{source}:{organ}" for source, own in SOURCES.items() for organ in own),
    )  # fmt: skip
    torch.manual_seed(0)
    network, row = task.network().eval(), few_row(0)
    batch = to_device(task.collate([task.example(row)]), torch.device("cpu"), task.host)
    with torch.inference_mode():
        outputs = PseudoLabels(threshold=0.01).outputs(task, network, batch)
    table = PseudoLabels().pack(pd.DataFrame({name: list(values) for name, values in outputs.items()}))
    (found,) = table.to_pylist()
    voxels = np.frombuffer(found["pseudo"], np.uint8).reshape(found["shape_DHW"])
    each = {organ: voxels == number for organ, number in CLASSES.items()}
    assert found["pseudo_ml"] == pytest.approx([float(one.sum()) * 2.5 / 1000 for one in each.values()])
    assert voxels.any()
    assert all((sure is None) != bool(one.any()) for sure, one in zip(found["confidence"], each.values(), strict=True))
    truth = mask_of(row, "scored")
    for number, dice in enumerate(found["dice"], 1):
        one, other = voxels == number, truth == number
        assert dice == pytest.approx(2 * (one & other).sum() / (one.sum() + other.sum()))


def written(folder: Path, row: dict[str, Any], pseudo: np.ndarray, **more: Any) -> tuple[int, int]:
    kept = {"scan_id": [row["scan_id"]], "shape_DHW": [row["shape_DHW"]], "pseudo": [pseudo.tobytes()],
            "confidence": [[0.9, 0.8, None]], "pseudo_ml": [[1.0, 2.0, 0.0]]}  # fmt: skip
    store = SimpleNamespace(read_table=lambda name, columns: pa.table(kept))
    stored: Any = SimpleNamespace(store=store, files=["fold0/part-1.parquet", "fold1/part-1.parquet"])
    return write_pseudo(Store(folder), stored, index_of(row), ORGANS, **more)


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj) > 0


def test_they_are_written_for_organs_that_nobody_has_labelled_in_the_scan(tmp_path: Path) -> None:
    row = few_row(0)
    made = mask_of(row, "scored")
    assert written(tmp_path, row, made, locked={"scan0": {"Spleen": "somewhere"}}) == (2, 0)
    table = pd.read_csv(tmp_path / "pseudo-labels.csv")
    assert table["organ"].tolist() == ["Pancreas", "Spleen"]  # not the liver, which its source has labelled
    assert table["fold"].tolist() == [0, 0]  # fold 1 holds it out
    assert table["locked"].tolist() == [0, 1]
    assert np.array_equal(voxels(tmp_path / "fold0" / SCAN / "Spleen.nii.gz"), made == 2)


def test_names_stay_when_scans_come_and_go() -> None:
    few, more = (names_of_scans(pd.DataFrame({"scan_id": ids})) for ids in (["b", "c"], ["a", "b", "c"]))
    assert all(more[scan] == name for scan, name in few.items())
    assert len({*more.values()}) == 3


def test_a_mask_that_somebody_has_changed_stays_and_those_of_an_earlier_start_go(tmp_path: Path) -> None:
    row = few_row(0)
    made = mask_of(row, "scored")
    written(tmp_path, row, made)
    home = tmp_path / "fold0" / SCAN
    mine = nifti((np.roll(made, 1) == 2).astype(np.uint8), np.array(row["affine"]).reshape(4, 4))
    (home / "Spleen.nii.gz").write_bytes(mine)
    assert written(tmp_path, row, np.where(made == 2, 2, 0).astype(np.uint8)) == (1, 1)
    assert (home / "Spleen.nii.gz").read_bytes() == mine
    assert not (home / "Pancreas.nii.gz").exists()
    assert written(tmp_path, row, made) == (2, 1)  # and again
    assert (home / "Spleen.nii.gz").read_bytes() == mine


def test_an_organ_of_which_nobody_is_sure_stays_possible() -> None:
    """Its voxels are not background: that would be the wrong lesson."""
    row = joined()
    pseudo = np.frombuffer(row["pseudo"], np.uint8).reshape(row["shape_DHW"])
    untold = np.array(row["sets"])[mask_of(row)] == set_of([0, 2, 3])
    nowhere = untold & ~np.isin(pseudo, [2])
    for told in (Merged(ORGANS, least_confidence=0.7).rows(row), Merged(ORGANS).rows(row | {"told": [1, 1, 0]})):
        assert (bits(told[0])[nowhere] == set_of([0, 3])).all()
        assert (bits(told[0])[untold & (pseudo == 2)] == set_of([2])).all()


def test_what_a_source_knows_hides_no_organ_that_may_be_there() -> None:
    """The network takes all for liver, and nearly as much for spleen; the source knows that there is no liver but its own."""
    task = recipes.method(ApartTask, recipes.small(), organs=ORGANS, largest_part=False, drawn_by=("two:Spleen",))
    row = few_row(0)
    shape = tuple(row["shape_DHW"])
    batch: Any = task.collate([task.example(row)])

    class Sure(ApartTask):
        def answered(self, network: Any, voxels: torch.Tensor, notes: dict[str, Any]) -> torch.Tensor:
            some = torch.ones(1, 1, *voxels.shape[2:])
            return torch.cat([0.7 * some, 0.65 * some, 0 * some], 1)

    sure = recipes.method(Sure, task, drawn_by=task.drawn_by)
    out = PseudoLabels().outputs(sure, None, to_device(batch, torch.device("cpu"), task.host))
    found = np.frombuffer(out["pseudo"][0], np.uint8).reshape(shape)
    liver, body = (
        mask_of(row, "scored") == 1,
        np.unpackbits(np.frombuffer(row["brain"], np.uint8))[: int(np.prod(shape))],
    )
    inside = body.reshape(shape) > 0
    assert (found[liver] == 1).all()
    assert (found[inside & ~liver] == 2).all()
    assert out["told"][0] == [0, 1, 0]
