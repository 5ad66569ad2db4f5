from __future__ import annotations

from pathlib import Path

import pytest
from lesion_files import las, lesion, write, write_table

from medray.shards.case_table import files_of
from medray.systems.lesion.cases import in_order, read_cases, site_names
from medray.systems.lesion.phantoms import PhantomPatients, PhantomSpec

DATA = las(lesion())


def refused(folder: Path, text: str, message: str) -> None:
    (folder / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_cases(str(folder / "t.csv"))
    assert "\n" not in str(error.value)


def test_a_table_names_cases_with_channels_in_its_order_and_empty_cells(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        [
            {"Patient": "p1", "Visit": "a", "T1": "x/t1.nii", "FLAIR": "flair.nii", "mask": "mask.nii"},
            {"Patient": "p1", "Visit": "b", "T1": "", "FLAIR": "x/../f.nii", "mask": ""},
        ],
    )
    cases = read_cases(str(table))
    assert cases.channels == ("t1", "flair")
    one, other = cases.table.to_dict("records")
    assert one == {
        "patient": "p1", "visit": "a", "t1": f"{tmp_path}/x/t1.nii", "flair": f"{tmp_path}/flair.nii",
        "mask": f"{tmp_path}/mask.nii",
    }  # fmt: skip
    assert other == {"patient": "p1", "visit": "b", "t1": None, "flair": f"{tmp_path}/f.nii", "mask": None}
    assert files_of(str(table)) == str(tmp_path)


def test_a_table_without_visits_and_masks_has_one_visit_a_patient(tmp_path: Path) -> None:
    cases = read_cases(str(write_table(tmp_path, [{"patient": "p1", "flair": "f.nii"}], "table.tsv")))
    assert cases.table.to_dict("records") == [
        {"patient": "p1", "visit": "", "flair": f"{tmp_path}/f.nii", "mask": None}
    ]


def test_a_table_that_cannot_be_meant_says_what_is_found_and_what_is_wanted(tmp_path: Path) -> None:
    refused(
        tmp_path, "subject,flair,mask\np,f,m\n",
        r"--images .*t\.csv: no column patient; found subject, flair, mask; wanted patient, visit, a column for each",
    )  # fmt: skip
    refused(tmp_path, "patient,visit,mask\np,1,m\n", "no column names a channel; found patient, visit, mask")
    refused(tmp_path, "patient,t1 (new)\np,f\n", r"the column 't1 \(new\)' is no channel's name")
    refused(tmp_path, "patient,flair,FLAIR\np,f,g\n", "2 columns are named flair; keep one")
    refused(tmp_path, "patient,flair\np,f\n,g\n", "line 3 names no patient")
    refused(tmp_path, "patient,visit,flair\n", "there is no row in it")


def test_a_visit_that_is_listed_twice_and_two_cases_of_one_id_name_their_lines(tmp_path: Path) -> None:
    refused(
        tmp_path, "patient,visit,flair\np,1,f\nq,1,f\nq,1,g\n",
        "lines 3 and 4 are the same visit of one patient; keep one",
    )  # fmt: skip
    refused(tmp_path, "patient,flair\np,f\np,g\n", "lines 2 and 3 are the same visit of one patient")
    refused(
        tmp_path, "patient,visit,flair\na_b,c,f\nx,1,f\na,b_c,g\n",
        "lines 2 and 4 are both called a_b_c by patient and visit; rename one of them",
    )  # fmt: skip


def test_the_layout_and_the_table_of_the_phantoms_are_the_same_cases(tmp_path: Path) -> None:
    phantoms = PhantomPatients(PhantomSpec(patients=2))
    table, _ = phantoms.finish(tmp_path, [phantoms.write(tmp_path, piece) for piece in phantoms.pieces(tmp_path)])
    told, found = read_cases(table), read_cases(str(tmp_path))
    assert found.channels == told.channels
    assert found.table["patient"].tolist() == told.table["patient"].str.removeprefix("sub-").tolist()
    assert found.table["visit"].tolist() == told.table["visit"].str.removeprefix("ses-").tolist()
    names = [*told.channels, "mask"]
    assert found.table[names].to_numpy().tolist() == told.table[names].to_numpy().tolist()
    assert found.doubtful == {}


def test_the_layout_takes_masks_of_lesions_only_and_no_derived_scans(tmp_path: Path) -> None:
    kept = {
        "flair": "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
        "t1": "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii",
        "t1c": "sub-01/ses-1/anat/sub-01_ses-1_ce-gadolinium_T1w.nii.gz",
        "mask": "derivatives/raters/sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz",
    }
    others = [
        "derivatives/prep/sub-01/ses-1/anat/sub-01_ses-1_space-MNI_FLAIR.nii.gz",
        "derivatives/prep/sub-01/ses-1/anat/sub-01_ses-1_desc-brain_mask.nii.gz",
        "derivatives/prep/sub-01/ses-1/anat/sub-01_ses-1_label-GM_mask.nii.gz",
        "derivatives/prep/sub-01/ses-1/anat/sub-01_ses-1_dseg.nii.gz",
        "sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.nii.gz",
        "sub-01/ses-1/anat/notes.txt",
    ]
    for name in [*kept.values(), *others]:
        write(tmp_path, name, DATA)
    cases = read_cases(str(tmp_path))
    assert cases.channels == ("flair", "t1", "t1c")
    assert cases.doubtful == {}
    (case,) = cases.table.to_dict("records")
    assert case == {"patient": "01", "visit": "1"} | {name: f"{tmp_path}/{path}" for name, path in kept.items()}


def test_two_files_of_a_channel_in_a_visit_make_it_doubtful_and_no_other(tmp_path: Path) -> None:
    for name in ("sub-1_run-1_FLAIR.nii.gz", "sub-1_run-2_FLAIR.nii.gz", "sub-2_FLAIR.nii.gz"):
        write(tmp_path, f"{name.split('_')[0]}/anat/{name}", DATA)
    cases = read_cases(str(tmp_path))
    assert cases.doubtful == {("1", ""): {"flair": "2 files of its flair; name one in a table"}}
    assert cases.table["patient"].tolist() == ["1", "2"]


def test_what_is_not_asked_for_leaves_no_doubt(tmp_path: Path) -> None:
    for name in ("sub-1_FLAIR.nii.gz", "sub-1_run-1_T2w.nii.gz", "sub-1_run-2_T2w.nii.gz", "sub-1_T1w.nii.gz"):
        write(tmp_path, f"sub-1/anat/{name}", DATA)
    for rater in ("a", "b"):
        write(tmp_path, f"derivatives/{rater}/sub-1/anat/sub-1_label-lesion_mask.nii.gz", DATA)
    write(tmp_path, "sourcedata/sub-1/anat/sub-1_FLAIR.nii.gz", DATA)
    cases = read_cases(str(tmp_path))
    assert cases.doubtful[("1", "")].keys() == {"t2", "mask"}
    assert cases.having(("flair", "t1"), masks=False).doubtful == {}
    assert cases.having(("flair", "t1"), masks=True).doubtful[("1", "")].keys() == {"mask"}


def test_only_files_that_a_case_names_are_its_own(tmp_path: Path) -> None:
    cases = read_cases(str(write_table(tmp_path, [{"patient": "p", "flair": "f.nii", "t1": "series", "mask": ""}])))
    named = ("f.nii", "series/1.dcm", "series/deeper/1.dcm", "predictions/scan00001_mask.nii.gz", "table.csv")
    assert [name for name in named if cases.uses(f"{tmp_path}/{name}")] == ["f.nii", "series/1.dcm"]


def test_commas_at_the_ends_of_lines_are_no_channel(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("patient,flair,,\np,f.nii,,\n")
    assert read_cases(str(tmp_path / "t.csv")).channels == ("flair",)


def test_a_folder_of_no_layout_says_what_it_should_be(tmp_path: Path) -> None:
    write(tmp_path, "a.nii.gz", DATA)
    with pytest.raises(ValueError, match=r"neither a table \(\.csv, \.tsv\) nor a folder in the BIDS layout"):
        read_cases(str(tmp_path))
    write(tmp_path, "sub-1_label-lesion_mask.nii.gz", DATA)
    with pytest.raises(ValueError, match="there are masks and no scans beside them"):
        read_cases(str(tmp_path))


def test_a_run_takes_its_own_channels_of_new_cases_in_its_own_order_and_no_mask(tmp_path: Path) -> None:
    rows = [{"patient": "p", "t1": "a.nii", "pd": "b.nii", "flair": "c.nii", "mask": "m.nii"}]
    cases = read_cases(str(write_table(tmp_path, rows)))
    had = cases.having(("flair", "t1", "t2"), masks=False)
    assert had.channels == ("flair", "t1", "t2")
    (case,) = had.table.to_dict("records")
    assert (case["flair"], case["t1"]) == (f"{tmp_path}/c.nii", f"{tmp_path}/a.nii")
    assert "pd" not in case
    assert case["t2"] is None
    assert case["mask"] is None
    with pytest.raises(ValueError, match="--images: has t1, pd, flair, and the run wants t2"):
        cases.having(("t2",), masks=False)
    assert cases.having(("t1",), masks=True).table["mask"].tolist() == [f"{tmp_path}/m.nii"]


def test_visits_are_ordered_as_a_person_would(tmp_path: Path) -> None:
    assert in_order(["ses-10", "ses-2", "", "²", "2020-01-05", "2019-12-31"]) == [
        "", "2019-12-31", "2020-01-05", "ses-2", "ses-10", "²",
    ]  # fmt: skip


def test_names_of_sites() -> None:
    assert site_names(["1=periventricular", "3=infra=tentorial"]) == {1: "periventricular", 3: "infra=tentorial"}
    with pytest.raises(ValueError, match="--site-names pons: write a number and a name"):
        site_names(["pons"])
