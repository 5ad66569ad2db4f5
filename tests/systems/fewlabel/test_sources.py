"""The table of sources: what each labels and how its labels are written, and tables that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from medray.systems.fewlabel.phantoms import DEMO, PhantomSources, PhantomSpec
from medray.systems.fewlabel.sources import Origin, read_sources

HEAD = "name,images,masks,organs,mapping,scored,scored mapping,patient\n"


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touched(
        tmp_path,
        *(f"lits/images/v-{i}_0000.nii.gz" for i in (1, 2)), *(f"lits/labels/v-{i}.nii.gz" for i in (1, 2)),
        "kits/case_1/ct.nii.gz", "kits/case_1/organs/kidney.nii.gz", "kits/case_1/organs/tumour.nii.gz",
        "plan/p1/0001.dcm", "plan/p1/0002.dcm", "plan_masks/p1/Liver.nii.gz",
    )  # fmt: skip
    return tmp_path


def table(folder: Path, *lines: str, head: str = HEAD) -> str:
    (folder / "sources.csv").write_text(head + "".join(f"{line}\n" for line in lines))
    return str(folder / "sources.csv")


LITS = "lits,lits/images,lits/labels,Liver,1=Liver 2=none,,,"
KITS = "kits,kits,kits,Kidney_L Kidney_R,kidney=Kidney_L+Kidney_R tumour=none,,,"
SIDES = "sides,lits/images,lits/labels,Kidney_L Kidney_R,1=Kidney_L 2=Kidney_R,,,"


def test_three_ways_of_files_and_of_labels(folder: Path) -> None:
    found = read_sources(table(folder, LITS, KITS, SIDES, "plan,plan,plan_masks,Liver,,,,"))
    assert found.organs == ("Liver", "Kidney_L", "Kidney_R")
    cases = {(case["source"], case["case"]): case for case in found.cases}
    assert {*cases} == {
        ("lits", "v-1"), ("lits", "v-2"), ("kits", "case_1"), ("sides", "v-1"), ("sides", "v-2"), ("plan", "p1")
    }  # fmt: skip
    assert cases["lits", "v-1"]["labels"] == {"": f"{folder}/lits/labels/v-1.nii.gz"}
    assert {*cases["kits", "case_1"]["labels"]} == {"kidney", "tumour"}
    assert cases["plan", "p1"]["ct"] == [f"{folder}/plan/p1/0001.dcm", f"{folder}/plan/p1/0002.dcm"]
    kits = found.origins[1]
    assert kits.groups == (("Kidney_L", "Kidney_R"),)
    assert (kits.organs_of("KIDNEY"), kits.organs_of("tumour"), kits.organs_of("cyst")) == (kits.organs, (), None)
    assert Origin("x", ("Liver",)).organs_of("1") == ("Liver",)  # one organ, and nothing else is said


def test_what_else_lies_in_a_cases_folder_is_no_part_of_its_ct(folder: Path) -> None:
    touched(folder, "kits/case_1/.DS_Store", "kits/case_1/info.txt", "plan/p1/.DS_Store")
    found = read_sources(table(folder, KITS, SIDES, "plan,plan,plan_masks,Liver,,,,"))
    cases = {case["case"]: case["ct"] for case in found.cases}
    assert cases["case_1"] == [f"{folder}/kits/case_1/ct.nii.gz"]
    assert cases["p1"] == [f"{folder}/plan/p1/0001.dcm", f"{folder}/plan/p1/0002.dcm"]


def test_a_name_that_one_case_alone_has_may_be_its_patients_and_is_not_said(folder: Path) -> None:
    touched(folder, "lits/labels/v-1/Meyerhans_seg.nii.gz")
    with pytest.raises(ValueError, match="has a mask by a name that only one case has") as error:
        read_sources(table(folder, LITS))
    assert "Meyerhans" not in str(error.value)


def test_patients_are_those_that_a_pattern_finds(folder: Path) -> None:
    own = read_sources(table(folder, LITS, KITS, SIDES))
    assert {case["patient"] for case in own.cases} == {None}
    same = read_sources(table(folder, LITS + r"v-(\d)", KITS + r"case_(\d)", SIDES + r"\d"))
    assert {case["case"]: case["patient"] for case in same.cases} == {"v-1": "1", "v-2": "2", "case_1": "1"}


def test_the_phantoms_table_says_what_their_origins_are(tmp_path: Path) -> None:
    made = PhantomSources(PhantomSpec(cases=1))
    written = [made.write(tmp_path, piece) for piece in made.pieces(tmp_path)]
    uri, _ = made.finish(tmp_path, written)
    assert read_sources(uri).origins == DEMO.origins() == made.origins()
    assert made.pieces(tmp_path) == []


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["lits,lits/images,lits/labels,Liver,1=Leber,,,"], "mapping 1=Leber: Leber is not among the organs of lits; add it, or 1=none"),
        (["lits,lits/images,lits/labels,Liver,1,,,"], "mapping 1: write label=organ"),
        (["lits,lits/images,lits/labels,Liver,1=Liver 1=none,,,"], "each label once"),
        (["lits,lits/images,lits/labels,Liver Duodenum,1=Liver,,,"], "organ Duodenum: no mask of lits can hold it"),
        (["lits,nowhere,lits/labels,Liver,,,,"], 'images "nowhere": no files there; name a folder in the table'),
        (["lits,lits/images,../secret,Liver,,,,"], 'masks "../secret": no files there'),
        (["../x,lits/images,lits/labels,Liver,,,,"], 'name "../x": letters, digits'),
        (["lits,lits/images,lits/labels,../Liver,,,,"], 'organ "../Liver": letters, digits'),
        ([LITS, LITS], "source lits is there already"),
        ([KITS], "no source draws Kidney_L by itself, so nothing can tell it from what it is drawn with"),
        (["kits,kits,kits,Kidney_L,kidney=Kidney_L,,,"], "kits has masks called tumour, of 1 cases, and nobody has declared it"),
        (["lits,lits/images,,,,lits/labels,1=Liver,"], "mapping to Liver: an organ that no source labels"),
        (["lits,lits/images,,,,,,"], "no source labels an organ"),
        ([LITS + "case"], "patient case: finds none in the name of some case of lits"),
        ([LITS + "(v"], "no regular expression"),
        ([LITS + "(x)?"], "patient (x)?: finds none in the name of some case of lits"),
        ([LITS, "low,lits/images,lits/labels,liver,1=liver,,,"], "Liver is written in two ways"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used(folder: Path, lines: list[str], why: str) -> None:
    with pytest.raises(ValueError, match="--sources .*sources.csv: ") as error:
        read_sources(table(folder, *lines))
    assert why in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "why"),
    [("name,images,masks\n", "no column organs"), (HEAD.replace("patient", "split"), "column split is not read")],
)
def test_columns(folder: Path, head: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_sources(table(folder, "a" + "," * head.count(","), head=head))
