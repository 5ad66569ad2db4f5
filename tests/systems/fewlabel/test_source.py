"""What becomes of a CT and of what its source has labelled on it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from volume_files import nifti

from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume_grid import reoriented
from medray.shards.files import Files
from medray.systems.fewlabel.possible import set_of
from medray.systems.fewlabel.source import FewLabelCT, source_of
from medray.systems.fewlabel.sources import Origin
from medray.tasks.volume_rows import mask_of

ORGANS = ("Liver", "Kidney_L", "Kidney_R")
ORIGINS = (
    Origin("liver", ("Liver",), (("1", ("Liver",)), ("2", ()))),
    Origin("sides", ("Kidney_L", "Kidney_R"), (("1", ("Kidney_L",)), ("2", ("Kidney_R",)))),
    Origin("both", ("Kidney_L", "Kidney_R"), (("kidney", ("Kidney_L", "Kidney_R")),)),
    Origin("names", ("Liver", "Kidney_L")),
    Origin("test", (), (), tuple((str(k), (organ,)) for k, organ in enumerate(ORGANS, 1))),
)
SOURCE = FewLabelCT(organs=ORGANS, origins=ORIGINS)
SHAPE = (8, 16, 20)
LPS_UP = np.array([[0, 0, -1.5, 0], [0, -2.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]], np.float64)
HU = np.full(SHAPE, -1000, np.int16)
HU[1:7, 2:14, 2:18] = 40
NUMBERS = np.zeros(SHAPE, np.uint8)
NUMBERS[2:5, 4:8, 4:8], NUMBERS[2:5, 4:8, 10:14] = 1, 2


def encoded(origin: str, source: FewLabelCT = SOURCE, **files: bytes) -> tuple[dict[str, Any], str | None]:
    given = Files({"ct": [nifti(HU, LPS_UP)], **{name.replace("_", " ", 1): [data] for name, data in files.items()}})
    (one,) = source.encode(given, [{"origin": origin}])
    assert one.columns is not None
    return one.columns, one.note


def bits(row: dict[str, Any]) -> np.ndarray:
    """What each voxel may be."""
    return np.array(row["sets"])[mask_of(row)]


def test_where_a_source_labels_an_organ_all_other_voxels_are_known_not_to_be_it() -> None:
    row, note = encoded("liver", labels_=nifti(NUMBERS, LPS_UP))
    assert np.array_equal(bits(row), np.where(NUMBERS == 1, set_of([1]), set_of([0, 2, 3])))  # 2 is left out
    assert (row["organs_labelled"], row["organs_ml"]) == (1, [pytest.approx(48 * 9 / 1000), None, None])
    assert row["scored_organs"] == [1, 0, 0]
    assert note is None


def test_left_and_right_drawn_as_one_may_be_either_and_are_not_scored() -> None:
    row, _ = encoded("both", labels_kidney=nifti((NUMBERS > 0).astype(np.uint8), LPS_UP))
    assert np.array_equal(bits(row), np.where(NUMBERS > 0, set_of([2, 3]), set_of([0, 1])))
    assert row["scored_organs"] == [0, 0, 0]
    assert row["scored"] is None


def test_an_organ_without_a_mask_is_unknown_in_that_case_and_an_empty_mask_says_that_it_is_absent() -> None:
    liver = nifti((NUMBERS == 1).astype(np.uint8), LPS_UP)
    row, _ = encoded("names", labels_Liver=liver)
    assert set(np.unique(bits(row))) == {set_of([1]), set_of([0, 2, 3])}
    empty, _ = encoded("names", labels_Liver=liver, labels_kidney_l=nifti(0 * NUMBERS, LPS_UP))
    assert set(np.unique(bits(empty))) == {set_of([1]), set_of([0, 3])}
    assert empty["scored_organs"] == [1, 1, 0]
    numbers, _ = encoded("sides", labels_=nifti((NUMBERS == 1).astype(np.uint8), LPS_UP))
    assert set(np.unique(bits(numbers))) == {set_of([2]), set_of([0, 1])}


def test_masks_for_scores_are_no_labels() -> None:
    row, _ = encoded("test", scored_=nifti(NUMBERS, LPS_UP))
    assert (row["mask"], row["organs_labelled"], row["scored_organs"]) == (None, 0, [1, 1, 1])
    assert np.array_equal(mask_of(row, "scored"), NUMBERS)
    both, _ = encoded(
        "liver", labels_=nifti(NUMBERS, LPS_UP), scored_Kidney_L=nifti((NUMBERS == 2).astype(np.uint8), LPS_UP)
    )
    assert both["scored_organs"] == [0, 1, 0]
    assert np.array_equal(bits(both), np.where(NUMBERS == 1, set_of([1]), set_of([0, 2, 3])))


def test_an_organ_that_is_absent_is_scored_as_such_however_masks_for_scores_are_mapped() -> None:
    """In no voxel of a mask of numbers: whatever is found of it is wrong."""
    absent = np.where(NUMBERS == 2, 0, NUMBERS)
    row, _ = encoded("sides", labels_=nifti(NUMBERS, LPS_UP), scored_=nifti(absent, LPS_UP))
    assert row["scored_organs"] == [0, 1, 1]


def test_labels_that_overlap_go_to_the_first_of_the_sources_organs() -> None:
    wide = NUMBERS.copy()
    wide[2:5, 4:8, 6:14] = 2
    row, note = encoded("names", labels_Liver=nifti((NUMBERS == 1).astype(np.uint8), LPS_UP),
                        labels_Kidney_L=nifti((wide == 2).astype(np.uint8), LPS_UP))  # fmt: skip
    assert np.array_equal(bits(row) == set_of([1]), NUMBERS == 1)
    assert note == "labels overlap in 24 voxels: the first of the source's organs has them"


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PLI"])
def test_sources_of_other_orientations_have_common_axes(codes: str) -> None:
    straight, _ = encoded("liver", labels_=nifti(NUMBERS, LPS_UP))
    turned = {}
    for name, voxels in (("ct", HU), ("labels ", NUMBERS)):
        other = reoriented(Volume(voxels, LPS_UP), codes)
        turned[name] = [nifti(other.voxels, other.affine)]
    (one,) = SOURCE.encode(Files(turned), [{"origin": "liver"}])
    assert one.columns is not None
    for name in ("mask", "voxels", "scored", "sets"):
        assert one.columns[name] == straight[name], name


def test_on_a_common_spacing_volumes_stay() -> None:
    row, _ = encoded("liver", replace(SOURCE, spacing_mm=(1.5, 1.0, 1.5)), labels_=nifti(NUMBERS, LPS_UP))
    assert row["shape_DHW"] == [16, 32, 20]
    assert row["organs_ml"][0] == pytest.approx(48 * 9 / 1000)


def test_an_organ_that_the_grid_cannot_hold_is_unknown_and_not_absent() -> None:
    tiny = np.zeros_like(NUMBERS)
    tiny[3, 3, 3] = 1
    row, note = encoded("liver", replace(SOURCE, spacing_mm=(9.0, 9.0, 9.0)), labels_=nifti(tiny, LPS_UP))
    assert row["organs_ml"][0] is None
    assert "Liver: no voxel of the grid it was resampled to; taken as unknown" in (note or "")


@pytest.mark.parametrize(
    ("origin", "files", "why"),
    [
        ("liver", {"labels_": nifti(NUMBERS + 4 * (NUMBERS == 2).astype(np.uint8), LPS_UP)}, "label 6 of liver is declared nowhere"),
        ("liver", {"labels_": nifti(NUMBERS[:7], LPS_UP)}, "labels: another grid than the CT"),
        ("names", {"labels_Liver": nifti(NUMBERS, LPS_UP)}, r"Liver: a mask with the values \[1, 2\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_says_why(origin: str, files: dict[str, bytes], why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        encoded(origin, **files)


def test_the_source_is_known_again_by_its_identity() -> None:
    one = replace(SOURCE, spacing_mm=(2.0, 1.0, 1.0))
    assert source_of(json.loads(json.dumps(one.identity()))) == one
    with pytest.raises(ValueError, match="version 0; train it again"):
        source_of(one.identity() | {"version": 0})
