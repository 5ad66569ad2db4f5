from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from medray.engine.predict import scan_here
from medray.ich.classes import CLASSES
from medray.ich.inventory import assemble
from medray.ich.labels import Labels, read_labels
from medray.ich.source import HeadCT
from medray.imaging.phantom import PhantomSet
from medray.shards.inventory import Inventory
from medray.shards.store import Store

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"


def inventory_of(folder: Path, labels: Labels | None) -> Inventory:
    store = Store(folder)
    return assemble(scan_here(HeadCT(), store, store.files()), labels)


def test_every_broken_phantom_has_its_status(phantoms: PhantomSet) -> None:
    found = inventory_of(phantoms.dicom, read_labels(str(phantoms.labels_csv)))
    by_name = found.table.assign(name=found.table["path"].str.rsplit("/", n=1).str[1]).set_index("name")
    assert len(by_name) == len(list(phantoms.dicom.iterdir()))
    # what only the pixels tell (truncated, wrapped, genuine unsigned) is for the shards
    for name, kind in phantoms.broken_files.items():
        expected = "quarantined" if kind in ("text", "modality", "no rescale") else "ok"
        assert by_name.loc[name, "status"] in (expected, "unlabelled" if expected == "ok" else expected), kind
    quarantined = by_name[by_name["status"] == "quarantined"]
    assert len(quarantined) == 3
    assert quarantined["reason"].str.len().gt(5).all()
    for slice_id, kind in phantoms.broken_labels.items():
        if kind == "conflicting":
            assert "the label file says both 0 and 1" in by_name.loc[f"{slice_id}.dcm", "reason"]
        if kind == "unlabelled":
            assert by_name.loc[f"{slice_id}.dcm", "reason"] == "not in the label file"


def test_the_same_slice_twice_counts_once(phantoms: PhantomSet, tmp_path: Path) -> None:
    files = sorted(phantoms.dicom.glob("ID_*.dcm"))[:5]
    for path in files:
        shutil.copy(path, tmp_path / path.name)
    shutil.copy(files[0], tmp_path / "zz-copy.dcm")
    found = inventory_of(tmp_path, None)
    assert found.table["status"].tolist() == ["ok"] * 5 + ["duplicate"]
    assert len(found.rows) == 5


def test_a_study_of_two_patients_is_set_aside(phantoms: PhantomSet) -> None:
    store = Store(phantoms.dicom)
    scan = scan_here(HeadCT(), store, store.files())
    ok = scan[scan["status"] == "ok"]
    study = ok["study_id"].iloc[0]
    scan.loc[ok.index[0], "patient_id"] = "somebody else"
    table = assemble(scan, None).table
    assert set(table.loc[table["study_id"] == study, "reason"]) == {"its study names more than one patient"}


def test_labels_join_by_file_name_where_the_uid_is_unknown(phantoms: PhantomSet, tmp_path: Path) -> None:
    path = sorted(phantoms.dicom.glob("ID_*.dcm"))[0]
    shutil.copy(path, tmp_path / "ID_renamed.dcm")
    labels = Labels(pd.DataFrame([[0, 1, 0, 0, 0, 1.0]], ["ID_renamed"], list(CLASSES)), 0, {})
    found = inventory_of(tmp_path, labels)
    assert found.rows[list(CLASSES)].to_numpy().tolist() == [[0, 1, 0, 0, 0, 1]]


def with_labels(folder: Path, ids: list[str], values: list[list[float]]) -> Inventory:
    return inventory_of(folder, Labels(pd.DataFrame(values, pd.Index(ids), list(CLASSES)), 0, {}))


BLEEDS, NONE, ANY = [0, 1, 0, 0, 0, 1.0], [0.0] * 6, [np.nan] * 5 + [1.0]


def test_labels_find_files_that_are_named_without_a_suffix(phantoms: PhantomSet, tmp_path: Path) -> None:
    paths = sorted(phantoms.dicom.glob("ID_*.dcm"))
    for path, name in zip(paths, ["IM.0001", "IM.0002", "c.IMA"], strict=False):
        shutil.copy(path, tmp_path / name)
    uid = paths[2].name  # the phantoms' files are named by SOPInstanceUID, with .dcm
    found = with_labels(tmp_path, ["IM.0001", "IM.0002", uid], [BLEEDS, NONE, ANY])
    assert found.table["status"].tolist() == ["ok"] * 3
    np.testing.assert_array_equal(found.table[list(CLASSES)], [BLEEDS, NONE, ANY])
    assert found.warnings == (
        "1 slices have labels of some of the classes only: they are learned from where a label is known",
    )


def test_a_name_that_two_files_share_joins_neither(phantoms: PhantomSet, tmp_path: Path) -> None:
    for path, name in zip(sorted(phantoms.dicom.glob("ID_*.dcm")), ["a/IM1", "b/IM1", "b/IM2"], strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / name)
    found = with_labels(tmp_path, ["IM1", "IM2"], [BLEEDS, NONE])
    assert found.table["status"].tolist() == ["unlabelled", "unlabelled", "ok"]
    assert "2 slices share a file name with another: labels under it are not used" in found.warnings


def test_slices_without_any_known_class_are_unlabelled_and_some_label_is_needed(
    phantoms: PhantomSet, tmp_path: Path
) -> None:
    for path, name in zip(sorted(phantoms.dicom.glob("ID_*.dcm")), ["a.dcm", "b.dcm"], strict=False):
        shutil.copy(path, tmp_path / name)
    found = with_labels(tmp_path, ["a", "b"], [ANY, [np.nan] * 6])
    assert found.table["status"].tolist() == ["ok", "unlabelled"]
    assert found.table["reason"].iloc[1] == "the label file knows no class of it"
    message = r"--labels: none of 2 slices has a label that can be used; most often: .* \(1\)"
    with pytest.raises(ValueError, match=message):
        with_labels(tmp_path, ["a", "c"], [[np.nan] * 6, ANY])


@pytest.mark.filterwarnings("error")
def test_pydicoms_own_odd_files_are_all_accounted_for() -> None:
    files = [path for path in PACKAGED.rglob("*") if path.is_file()]
    scan = scan_here(HeadCT(), Store(PACKAGED), Store(PACKAGED).files())
    assert set(scan["path"]) == {str(path) for path in files}
    assert (scan["status"].eq("ok") | scan["reason"].fillna("").ne("")).all()
    assert scan["status"].eq("ok").any()


@pytest.mark.real_data
def test_the_real_series_is_one_run_of_positives_in_stack_order(head_ct_dir: Path, tmp_path: Path) -> None:
    labels = read_labels(str(head_ct_dir / "stage_2_train.csv"))
    found = inventory_of(head_ct_dir / "rsna2019_series", labels).rows
    assert len(found) == 36
    positive = np.sort(found.loc[found["any"] == 1, "index"])
    assert positive.tolist() in (list(range(13, 24)), list(range(12, 23)))
    # other names and another order of the files change no row
    for number, path in enumerate(sorted((head_ct_dir / "rsna2019_series").iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / f"{number}.dcm")
    columns = ["slice_id", "index", "position_mm", *CLASSES]
    again = inventory_of(tmp_path, labels).rows[columns].sort_values("slice_id", ignore_index=True)
    pd.testing.assert_frame_equal(again, found[columns].sort_values("slice_id", ignore_index=True))
