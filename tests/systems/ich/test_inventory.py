from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pydicom
import pytest
from ct_files import CORONAL, REFORMAT, SAGITTAL, SCOUT, ct, dose_report, encode, enhanced, write
from pydicom.dataset import Dataset

from medray.engine.derive.scan import scan_here
from medray.imaging.dicom import read_headers
from medray.imaging.phantom import PhantomSet
from medray.shards.inventory import Inventory, Refused
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.features import pack_stacks
from medray.systems.ich.inventory import assemble
from medray.systems.ich.labels import Labels, read_labels
from medray.systems.ich.source import HeadCT, headers_of, row_of

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


# ---- stacks ----------------------------------------------------------------------------------------------------------


def of(folder: Path, files: dict[str, Dataset]) -> Inventory:
    write(folder, files)
    return inventory_of(folder, None)


def by_name(found: Inventory, folder: Path) -> pd.DataFrame:
    names = found.table["path"].map(lambda path: str(Path(path).relative_to(folder)))
    return found.table.set_index(names)


def stacks(found: Inventory) -> dict[str, list[str]]:
    """Stack → names of its files, lowest slice first."""
    rows = found.rows.sort_values(["stack_id", "index"])
    return {str(stack): [Path(p).stem for p in own["path"]] for stack, own in rows.groupby("stack_id")}


def test_a_scout_in_the_series_falls_out_of_it(tmp_path: Path) -> None:
    files = {f"a/{i:02d}.dcm": ct(i, z=5 * i) for i in range(1, 11)}
    files["a/00.dcm"] = ct(99, ImageOrientationPatient=SAGITTAL, ImageType=SCOUT)
    files |= {f"b/{i:02d}.dcm": ct(100 + i, z=5 * i, series=2, study=2, patient="P2") for i in range(1, 11)}
    found = of(tmp_path, files)
    aside = by_name(found, tmp_path).query("status != 'ok'")
    assert aside["reason"].to_dict() == {"a/00.dcm": "a scout (its image type is LOCALIZER)"}
    series = found.rows.groupby("series_id")
    assert [own["index"].tolist() for _, own in series] == [list(range(10))] * 2
    assert (found.rows["stack_id"] == found.rows["series_id"]).all()
    assert found.warnings == ()


def test_two_patients_with_one_series_uid_have_stacks_of_their_own(tmp_path: Path) -> None:
    files = {f"a/{i}.dcm": ct(i, z=5 * i) for i in range(1, 4)}
    files |= {f"b/{i}.dcm": ct(100 + i, z=5 * i + 1, study=2, patient="P2") for i in range(1, 4)}
    found = of(tmp_path, files)
    assert found.rows.groupby("stack_id")["patient_id"].nunique().tolist() == [1, 1]
    assert found.rows["index"].tolist() == [0, 1, 2, 0, 1, 2]
    assert found.rows["series_id"].nunique() == 1
    assert found.warnings[0] == "1 series id is shared by several patients: each has stacks of its own"
    table = found.rows.assign(**dict.fromkeys(PROBABILITIES, 0.5), feature=[np.zeros(4, np.float32)] * 6)
    assert [row["patient_id"] for row in pack_stacks(table).to_pylist()] == ["P1", "P2"]


def test_a_slice_that_names_another_patient_costs_its_study_no_other_slice(tmp_path: Path) -> None:
    files = {f"{i:02d}.dcm": ct(i, z=5 * i, patient="P9" if i == 7 else "P1") for i in range(1, 21)}
    found = of(tmp_path / "one", files)
    assert by_name(found, tmp_path / "one")["reason"].dropna().to_dict() == {
        "07.dcm": "most slices of its study name another patient"
    }
    assert len(found.rows) == 19
    half = {f"{i:02d}.dcm": ct(i, z=5 * i, patient="P9" if i < 4 else "P1") for i in range(1, 21)}
    with pytest.raises(Refused, match="its study names more than one patient"):
        of(tmp_path / "half", half)


def test_two_phases_of_one_series_are_two_stacks(tmp_path: Path) -> None:
    def phases(**apart: tuple[object, object]) -> dict[str, Dataset]:
        return {
            f"{phase}-{i}.dcm": ct(10 * i + phase, z=5 * i, **{tag: v[phase - 1] for tag, v in apart.items()})
            for phase in (1, 2)
            for i in range(1, 5)
        }

    for number, apart in enumerate(({"AcquisitionNumber": (1, 2)}, {"ConvolutionKernel": ("H30s", "H60s")})):
        found = of(tmp_path / str(number), phases(**apart))
        assert list(stacks(found).values()) == [[f"{phase}-{i}" for i in range(1, 5)] for phase in (1, 2)]
        series = found.rows["series_id"].iloc[0]
        assert list(stacks(found)) == [f"{series}/stack1", f"{series}/stack2"]
        assert found.warnings[0].startswith("1 series holds more than one stack, 2 in all")
    alike = of(tmp_path / "alike", phases())
    assert len(stacks(alike)) == 1
    (line,) = alike.warnings
    assert line == "4 places hold two slices each, and nothing in their headers separates them (1 stack in all)"


def test_one_position_for_all_slices_is_ordered_by_what_still_counts(tmp_path: Path) -> None:
    def lost(**tags: object) -> dict[str, Dataset]:
        return {f"{i}.dcm": ct(i, **tags) for i in (1, 2, 3, 9, 10, 11)}

    by_number = of(tmp_path / "number", lost())
    assert list(stacks(by_number).values()) == [["1", "2", "3", "9", "10", "11"]]
    assert by_number.rows["position_mm"].isna().all()
    assert by_number.warnings == ("1 stack with one position for all slices: they are in the order of InstanceNumber",)
    files = lost()
    for ds in files.values():
        ds.SliceLocation = 5 * ds.InstanceNumber
    by_location = of(tmp_path / "location", files)
    assert list(stacks(by_location).values()) == list(stacks(by_number).values())
    assert by_location.rows.set_index("index")["position_mm"].sort_index().tolist() == [5, 10, 15, 45, 50, 55]
    assert by_location.warnings == ("1 stack with one position for all slices: they are in the order of SliceLocation",)
    (line,) = of(tmp_path / "nothing", lost(InstanceNumber=None)).warnings
    assert line.startswith("1 stack with one position for all slices: their order is unknown")


def test_a_study_as_a_pacs_sends_it(tmp_path: Path) -> None:
    files = {f"ax/{i}.dcm": ct(i, z=5 * i) for i in range(1, 5)}
    files["scout.dcm"] = ct(20, series=2, ImageOrientationPatient=CORONAL, ImageType=SCOUT)
    files["cor.dcm"] = ct(30, series=3, ImageOrientationPatient=CORONAL, ImageType=REFORMAT)
    files["sag.dcm"] = ct(40, series=4, ImageOrientationPatient=SAGITTAL, ImageType=REFORMAT)
    files["dose.dcm"] = dose_report(50, series=5)
    files["alone.dcm"] = ct(60, series=6)
    found = of(tmp_path, files)
    assert sorted(Path(path).stem for path in found.rows["path"]) == ["1", "2", "3", "4", "alone"]
    assert by_name(found, tmp_path)["reason"].dropna().to_dict() == {
        "cor.dcm": "a coronal plane, 90 degrees from axial",
        "dose.dcm": "a secondary capture (such as a dose report or a screenshot), not a CT image",
        "sag.dcm": "a sagittal plane, 90 degrees from axial",
        "scout.dcm": "a scout (its image type is LOCALIZER)",
    }


def test_a_gantry_may_be_tilted(tmp_path: Path) -> None:
    c, s = np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30))
    files = {f"{i}.dcm": ct(i, z=5 * i, ImageOrientationPatient=[1, 0, 0, 0, c, -s]) for i in range(3)}
    assert of(tmp_path, files).rows["index"].tolist() == [0, 1, 2]


def test_frames_of_one_file_are_slices_like_others(tmp_path: Path) -> None:
    axial = [{"z": 5.0 * k, "stack": "1"} for k in range(3)]
    sagittal = [{"z": 5.0 * k, "stack": "2", "orientation": SAGITTAL} for k in range(2)]
    found = of(tmp_path / "planes", {"a.dcm": enhanced(1, [*sagittal, *axial])})
    assert found.rows.sort_values("index")["frame"].tolist() == [3, 4, 5]
    assert found.table["reason"].dropna().tolist() == ["a sagittal plane, 90 degrees from axial"] * 2
    scout = {"z": 0.0, "image_type": SCOUT}
    assert of(tmp_path / "scout", {"a.dcm": enhanced(1, [scout, *axial])}).rows["frame"].tolist() == [2, 3, 4]
    for name in ("acquisition", "time", "stack"):
        phases = [{"z": 5.0 * k, name: str(p) if name == "stack" else p} for k in range(3) for p in (1, 2)]
        two = of(tmp_path / name, {"a.dcm": enhanced(1, phases)})
        frames = two.rows.sort_values("index").groupby("stack_id")["frame"].apply(list)
        assert frames.tolist() == [[1, 3, 5], [2, 4, 6]]


def test_what_is_refused_has_its_table(phantoms: PhantomSet, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="none of 1 files is a usable CT slice; most often: a scout") as refused:
        of(tmp_path, {"scout.dcm": ct(1, ImageOrientationPatient=CORONAL, ImageType=SCOUT)})
    assert refused.value.table["reason"].tolist() == ["a scout (its image type is LOCALIZER)"]
    unknown = Labels(pd.DataFrame([[0.0] * 6], ["ID_unknown"], list(CLASSES)), 0, {})
    with pytest.raises(Refused, match="belongs to one of") as refused:
        inventory_of(phantoms.dicom, unknown)
    assert len(refused.value.table) == len(list(phantoms.dicom.iterdir()))


def test_headers_survive_their_way_through_a_table(tmp_path: Path) -> None:
    """The table of headers is kept as Parquet, and read through pandas."""
    frames = [{"z": 0.0, "stack": "1", "acquisition": 2, "time": 1}, {"z": 5.0}]
    files = [encode(ct(1, AcquisitionNumber=3, ImageType=SCOUT)), encode(ct(2, InstanceNumber=None))]
    headers = [h for file in (*files, encode(enhanced(3, frames))) for h in read_headers(file)]
    Store(tmp_path).write_table("h", pa.Table.from_pylist([row_of(h) for h in headers], schema=HeadCT.scan_schema))
    table = Store(tmp_path).read_table("h").to_pandas()
    assert list(headers_of(table, [np.array([0, 1]), np.array([3, 2])])) == [headers[:2], headers[:1:-1]]


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
