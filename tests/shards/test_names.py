from __future__ import annotations

import pytest

from medray.shards.names import bare, check_name, file_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1.2.840.113619.2.55.4", "1.2.840.113619.2.55.4"),
        ("1.2.840.113619.2.55.4.dcm", "1.2.840.113619.2.55.4"),
        ("IM.0001", "IM.0001"),
        ("IM.0001.DCM", "IM.0001"),
        ("IM.0001.ima", "IM.0001"),
        ("00000013_005.png", "00000013_005"),
        ("a.JPEG", "a"),
        ("a.dicom", "a"),
        ("a.png.dcm", "a.png"),
        ("scan.old", "scan.old"),
        (".dcm", ".dcm"),
        ("", ""),
    ],
)
def test_only_the_suffix_of_an_image_goes(name: str, expected: str) -> None:
    assert bare(name) == expected
    assert file_name(f"/x.dcm/1.2/{name}") == expected


@pytest.mark.parametrize("name", [".", "..", ".hidden", "a/b", "a b", "x" * 101, "ä/.."])
def test_names_that_no_folder_may_have_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="^--name "):
        check_name("--name", name)


@pytest.mark.parametrize("name", ["", "a", "run-1.2", "-x", "résumé"])
def test_other_names_are_taken(name: str) -> None:
    check_name("--name", name)
