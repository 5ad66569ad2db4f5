from __future__ import annotations

import pandas as pd

from medray.shards.films import column_of, film_names, first_known, image_keys, mark, plain_name, rows_of


def test_names_are_compared_without_case_blanks_and_underscores() -> None:
    assert plain_name("Bone_Age (Months)") == "boneagemonths"
    table = pd.DataFrame(columns=["Image ID", "file_name"])
    assert column_of(table, ("filename", "imageid")) == "file_name"
    assert column_of(table, ("path",)) is None


def test_images_are_compared_without_suffix_and_with_slashes() -> None:
    assert image_keys(pd.Series([" a\\1.PNG", "1.2.3", "b/2.dcm"], dtype="str")).tolist() == ["a/1", "1.2.3", "b/2"]


def test_a_film_belongs_to_a_row_by_its_uid_by_its_folders_or_by_its_name_alone() -> None:
    paths = pd.Series(["/d/a/1", "/d/b/1", "/d/x/2", "/d/x/3", "/d/4"])
    items = pd.Series(["a", "b", "1.2.3", "c", "d"])
    index = pd.Index(["a/1", "b/1", "1.2.3", "elsewhere/3", "5"], dtype="str")
    assert rows_of(items, paths, index).tolist() == ["a/1", "b/1", "1.2.3", "elsewhere/3", None]
    alike = pd.Index(["p/3", "q/3"], dtype="str")
    assert rows_of(items, paths, alike).tolist() == [None] * 5


def test_no_row_at_all_belongs_to_nobody() -> None:
    assert rows_of(pd.Series(["a"]), pd.Series(["/d/1"]), pd.Index([], dtype="str")).tolist() == [None]


def test_a_film_is_called_as_little_as_tells_it_from_others() -> None:
    table = pd.DataFrame(
        {
            "path": ["/d/a/1.png", "/d/b/1.png", "/d/2.dcm", "/d/3.png"],
            "kind": ["png", "png", "dicom", "png"],
            "item_id": "1.2",
        }
    )
    keys = pd.Series([None, None, "x", "row"], dtype=object)
    assert film_names(table, image_keys(table["path"]), keys).tolist() == ["a/1", "b/1", "1.2", "row"]


def test_the_first_text_that_is_known() -> None:
    assert first_known(pd.Series(["a", None, None]), pd.Series(["x", "y", None])).tolist() == ["a", "y", None]


def test_marks_have_a_status_and_a_reason() -> None:
    table = pd.DataFrame({"status": ["ok", "ok"], "reason": [None, None]}, dtype=object)
    mark(table, pd.Series([False, True]), "unused", "why")
    assert table.to_numpy().tolist() == [["ok", None], ["unused", "why"]]
