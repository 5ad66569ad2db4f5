from __future__ import annotations

import math

import pandas as pd
import pytest

from medray.shards.cells import read_cells
from medray.systems.boneage.films.table import films_of, meaning


def films(text: str, needs_ages: bool = True) -> pd.DataFrame:
    return films_of(read_cells(text.encode(), "t.csv", "--labels", meaning), "t.csv", needs_ages)[0]


def refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        films(text)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("--labels t.csv: ")


def test_the_challenges_table_is_read_and_false_is_not_true() -> None:
    found = films("id,boneage,male\n1377,180,False\n1380,120,True\n")
    assert found["key"].tolist() == ["1377", "1380"]
    assert found["age_months"].tolist() == [180, 120]
    assert found["sex"].tolist() == ["F", "M"]
    assert found["patient_id"].isna().all()
    assert found["calendar_months"].isna().all()
    assert found.index.tolist() == [2, 3]  # lines of the file


@pytest.mark.parametrize(
    "header",
    [
        "id,boneage,male", "Image ID,Bone Age,Male", "Case ID,Ground truth bone age (months),male", "image,boneage (months),MALE",
        "filename,bone_age_months,male", "File,age months,male", "path,Bone Age (Months),Male", "IMAGE_ID,boneage_months,male",
    ],
)  # fmt: skip
def test_columns_are_known_by_plain_names(header: str) -> None:
    found = films(f"{header}\na/1.png,120,1\n")
    assert found.iloc[0, :4].tolist() == ["a/1", None, 120, "M"]


def test_years_become_months_where_the_name_says_years() -> None:
    found = films("id,bone_age_years,chronological age (years)\n1,10.5,11\n")
    assert found.loc[2, ["age_months", "calendar_months"]].tolist() == [126, 132]


def test_of_several_names_of_a_film_the_file_is_taken_and_ids_are_patients_where_they_say_so() -> None:
    found = films("id,filename,boneage,Patient ID\n1,a.png,100,p1\n2,b.png,90,\n")
    assert found["key"].tolist() == ["a", "b"]
    assert found["patient_id"].tolist() == ["p1", None]


@pytest.mark.parametrize(
    ("column", "cells", "expected"),
    [
        ("male", ["True", "FALSE", "1", "0", "yes", "No", "1.0", "t", "m", "F"], "MFMFMFMMMF"),
        ("sex", ["M", "f", "Male", "FEMALE", "boy", "Girl"], "MFMFMF"),
        ("gender", ["girls", "boys"], "FM"),
    ],
)
def test_every_way_to_write_a_sex(column: str, cells: list[str], expected: str) -> None:
    rows = "".join(f"{i},100,{cell}\n" for i, cell in enumerate(cells))
    assert "".join(films(f"id,boneage,{column}\n{rows}")["sex"]) == expected


def test_an_empty_cell_is_unknown() -> None:
    found = films("id,boneage,sex,calendar age months\n1,,,\n2,n/a,unknown,NaN\n3,100,F,99\n")
    assert found["sex"].tolist() == [None, None, "F"]
    assert found["age_months"].isna().tolist() == [True, True, False]
    assert found["calendar_months"].tolist()[2] == 99


def test_a_german_spreadsheet_is_read() -> None:
    found = films("\ufeffid;boneage;sex\n1;100,5;F\n2;7;M\n")
    assert found["age_months"].tolist() == [100.5, 7]


def test_another_naming_is_an_error_that_names_what_is_there_and_what_is_known() -> None:
    refused(
        "nr,boneage,sex\n1,100,M\n",
        r"no column names the films; its columns are nr, boneage, sex; known names are, of fi",
    )
    refused(
        "id,age,sex\n1,100,M\n",
        r"no column holds bone ages; its columns are id, age, sex; .* boneage, bone age \(months\)",
    )
    refused("id,boneage,bone_age_years\n1,100,9\n", "2 columns are named bone age; keep one")
    refused("id,boneage,male,sex\n1,100,True,M\n", "2 columns are named sex; keep one")


def test_new_films_need_no_ages() -> None:
    found = films("id,male\n1,False\n", needs_ages=False)
    assert found["sex"].tolist() == ["F"]
    assert math.isnan(found["age_months"].iloc[0])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            "-1",
            'line 3: boneage is "-1", no number of months from 0 to 240; correct it, or leave the cell empty where nob',
        ),
        ("240.5", 'line 3: boneage is "240.5", no number of months from 0 to 240'),
        ("ten", 'line 3: boneage is "ten", no number'),
        ("inf", 'line 3: boneage is "inf", no number'),
        ("1_0", 'line 3: boneage is "1_0", no number'),
        ("0x10", 'line 3: boneage is "0x10", no number'),
    ],
)
def test_an_age_that_no_hand_has_names_its_line(cell: str, message: str) -> None:
    refused(f"id,boneage\n1,100\n2,{cell}\n", message)


def test_the_ends_of_the_range_are_ages() -> None:
    assert films("id,boneage,calendar_age\n1,0,300\n2,240,0\n")["age_months"].tolist() == [0, 240]
    refused(
        "id,boneage,calendar_age_months\n1,100,301\n",
        'line 2: calendar_age_months is "301", no number of months from 0 to 300',
    )


def test_years_in_a_column_of_months_are_asked_about_and_not_guessed() -> None:
    refused(
        "id,boneage\n1,18.3\n2,7\n",
        r"the largest boneage is 18.3: are these years\? name the column boneage_years; or boneage_months where they are months",
    )
    refused(
        "id,boneage,calendar age\n1,183,15\n",
        r"the largest calendar age is 15: are .* calendar_age_years; or calendar_age_mon",
    )
    assert films("id,boneage\n1,18.3\n2,22\n")["age_months"].tolist() == [18.3, 22]  # one of 22 is no number of years
    found, notes = films_of(read_cells(b"id,boneage_months\n1,18.3\n", "t.csv", meaning=meaning), "t.csv")
    assert found["age_months"].tolist() == [18.3]
    assert notes == ["--labels: the largest boneage_months is 18.3; it is taken for months, as the column's name says"]


def test_months_in_a_column_of_years_are_asked_about() -> None:
    refused(
        "id,boneage_years\n1,9\n2,120\n",
        'line 3: boneage_years is "120", no number of years from 0 to 20; .*; if these are months, name the column boneage_months$',
    )
    refused("id,boneage_years\n1,-2\n", "from 0 to 20; correct it, or leave the cell empty where nobody knows$")


def test_a_sex_that_is_neither_names_its_line() -> None:
    refused("id,boneage,male\n1,100,True\n2,90,perhaps\n", 'line 3: male is "perhaps", not True or False')
    refused("id,boneage,sex\n1,100,1\n", r'line 2: sex is "1", not M or F \(numbers only in a column named male')


def test_a_line_without_a_film_is_an_error() -> None:
    refused("id,boneage\n1,100\n,90\n", "line 3 names no film; fill it in or drop the line")


@pytest.mark.parametrize(
    "text",
    [
        "DOE_JANE_19990101,120,True\nROE_RICHARD_20010101,60,False\n",
        "id,boneage,male\n1,120,DOE JANE\n",
        "id,boneage,male\n1,DOE^JANE,True\n",
    ],
)
def test_no_name_of_a_patient_is_in_an_error(text: str) -> None:
    """A table without a header, or a column that has moved."""
    with pytest.raises(ValueError, match="--labels") as refused:
        films(text)
    assert "DOE" not in str(refused.value)
    assert "JANE" not in str(refused.value)
