from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from medray.systems.boneage.films.labels import Labels, labels_for, read_labels
from medray.systems.boneage.films.source import HandFilm

AGES = "id,boneage,male\n1437,136,False\n1440,120,True\n"
VIA_HEAD = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"


def region(name: str, x: float, y: float) -> dict[str, object]:
    return {"shape_attributes": {"name": "point", "cx": x, "cy": y}, "region_attributes": {"point": name}}


OUTLINE = {
    "shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]}, "region_attributes": {},
}  # fmt: skip


def export(**films: list[dict[str, object]]) -> str:
    return json.dumps({name: {"filename": f"{name}.png", "size": 1, "regions": own} for name, own in films.items()})


def folder(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_labels(str(path))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("--labels ")


def test_a_csv_alone_has_no_points(tmp_path: Path) -> None:
    labels = read_labels(str(folder(tmp_path, a__csv=AGES) / "a.csv"))
    assert labels.table.index.tolist() == ["1437", "1440"]
    assert list(labels.table.columns) == ["patient_id", "age_months", "sex", "calendar_months", "points", "outline_px"]
    assert labels.table.loc["1437", ["patient_id", "age_months", "sex", "points", "outline_px"]].tolist() == [
        None, 136, "F", None, None,
    ]  # fmt: skip
    assert labels.warnings == ()
    assert labels.masks == "masks"


def test_a_folder_has_one_csv_of_ages_and_exports_of_any_number(tmp_path: Path) -> None:
    shape = '"{""name"":""point"",""cx"":4,""cy"":5}","{""n"":""capitate""}"'
    labels = read_labels(
        str(
            folder(
                tmp_path,
                ages__csv=AGES,
                first__json=export(**{"1437": [region("tip", 1, 2), OUTLINE]}),
                second__csv=f"{VIA_HEAD}1437.png,1,{{}},1,0,{shape}\n9.png,1,{{}},1,0,{shape}\n",
                readme__txt="no label",
            )
        )
    )
    assert labels.table.index.tolist() == ["1437", "1440", "9"]
    points = labels.table["points"]
    assert pd.Series(points["1437"]).equals(pd.Series([1, 2, float("nan"), float("nan"), 4, 5]))
    assert points["1440"] is None
    assert labels.table["outline_px"].tolist() == [[1, 1, 9, 1, 9, 9], None, None]
    assert labels.table["age_months"].isna().tolist() == [False, False, True]  # only an export names the last
    assert labels.table["sex"].tolist() == ["F", "M", None]


def test_one_project_saved_both_ways_counts_once(tmp_path: Path) -> None:
    shape = '"{""name"":""point"",""cx"":1,""cy"":2}","{""n"":""tip""}"'
    labels = read_labels(
        str(folder(tmp_path, a__csv=AGES, b__json=export(**{"1437": [region("tip", 1, 2)]}), c__csv=f"{VIA_HEAD}1437.png,1,{{}},1,0,{shape}\n"))
    )  # fmt: skip
    assert labels.table.loc["1437", "points"][:2] == [1, 2]


def test_a_folder_without_a_csv_of_ages_or_with_two_is_refused(tmp_path: Path) -> None:
    refused(
        folder(tmp_path / "none", b__json=export(**{"1": [OUTLINE]})),
        "there is no CSV of ages in this folder; put one bes",
    )
    refused(
        folder(tmp_path / "two", a__csv=AGES, b__tsv=AGES.replace(",", "\t")),
        r"a\.csv and b\.tsv are both a CSV of ages",
    )


def test_an_export_alone_has_no_ages(tmp_path: Path) -> None:
    folder(tmp_path, b__json="\ufeff" + export(**{"1": [OUTLINE]}), c__csv=VIA_HEAD + '1.png,1,{},0,0,"{}","{}"\n')
    for name in ("b.json", "c.csv"):
        refused(tmp_path / name, f"{name}: an export of VIA has no ages; name a folder that holds it and a CSV of ages")


def test_what_is_not_there_or_too_large_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "nothing.csv", "cannot be read")
    monkeypatch.setattr("medray.systems.boneage.films.via.MOST_BYTES", 10)
    refused(folder(tmp_path, a__csv=AGES, b__json=export(**{"1": [OUTLINE]})), "b.json: larger than any export of VIA")


def test_an_export_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    refused(folder(tmp_path, a__csv=AGES, b__json="{"), "^--labels .*/b.json: not JSON as VIA writes it")


def test_a_film_twice_counts_once_and_with_other_values_names_both_lines(tmp_path: Path) -> None:
    labels = read_labels(str(folder(tmp_path, a__csv="id,boneage\n1,100\n2,90\n1.png,100.0\n") / "a.csv"))
    assert labels.table.index.tolist() == ["1", "2"]
    assert labels.warnings == ("1 repeated label rows, merged",)
    refused(
        folder(tmp_path, a__csv="id,boneage\n1,100\n2,90\n1.png,101\n") / "a.csv",
        "lines 2 and 4 are one film with other val",
    )
    refused(
        folder(tmp_path, a__csv="id,boneage,sex\n1,100,F\n1,100,\n") / "a.csv",
        "lines 2 and 3 are one film with other values",
    )


def test_odd_regions_and_ages_are_said(tmp_path: Path) -> None:
    box = {"shape_attributes": {"name": "rect"}, "region_attributes": {}}
    labels = read_labels(str(folder(tmp_path, a__csv="id,boneage_months\n1,18\n", b__json=export(**{"1": [box]}))))
    assert labels.warnings == (
        "--labels: the largest boneage_months is 18; it is taken for months, as the column's name says",
        "1 regions of the exports of VIA are neither points nor polygons: they are not read",
    )


def test_labels_of_new_films_have_no_ages(tmp_path: Path) -> None:
    path = folder(tmp_path, a__csv="id,sex\n1,F\n") / "a.csv"
    refused(path, "no column holds bone ages")
    assert read_labels(str(path), new_films=True).table["sex"].tolist() == ["F"]


def test_errors_and_notes_name_the_flag_that_users_gave(tmp_path: Path) -> None:
    months = folder(tmp_path / "a", a__csv="id,calendar_age_months\n1,18\n") / "a.csv"
    (note,) = read_labels(str(months), new_films=True, flag="--table").warnings
    assert note.startswith("--table: the largest calendar_age_months is 18; it is taken for months")
    for name, files, flags in (
        ("none", {"b__txt": ""}, {"new_films": True}),
        ("two", {"a__csv": AGES, "b__csv": AGES}, {"new_films": True}),
        ("odd", {"a__csv": "id,male\n1,maybe\n"}, {"new_films": True}),
        ("twice", {"a__csv": "id,male\n1,0\n1,1\n"}, {"new_films": True}),
        ("json", {"a__csv": AGES, "b__json": "{"}, {}),
        ("csv", {"a__csv": AGES, "b__csv": f"{VIA_HEAD}a.png,1,{{}},1,0,{{,{{}}\n"}, {}),
        (
            "both",
            {"a__csv": AGES, "b__json": export(x=[region("tip", 1, 2)]), "c__json": export(x=[region("tip", 2, 2)])},
            {},
        ),
    ):
        with pytest.raises(ValueError, match=f"^--table .*/{name}") as error:
            read_labels(str(folder(tmp_path / name, **files)), flag="--table", **flags)  # type: ignore[arg-type]
        assert "--labels" not in str(error.value)


def test_the_source_says_where_masks_lie(tmp_path: Path) -> None:
    labels = read_labels(str(folder(tmp_path, a__csv=AGES) / "a.csv"))
    found = labels_for(labels, HandFilm(masks="hands"))
    assert isinstance(found, Labels)
    assert found.masks == "hands"
    assert found.table is labels.table
