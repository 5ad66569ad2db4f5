"""Stacks out of series with known answers: whole ones, mixed ones, ones that lost their positions, and the real one."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medray.imaging.dicom import read_headers
from medray.imaging.geometry import tilt_degrees
from medray.imaging.stacks import Stack, stacks_of
from medray.imaging.types import Header

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def series(count: int, tilt: float = 0.0, step_mm: float = 5.0, name: str = "slice", **more: object) -> list[Header]:
    """Slices of a gantry tilted by ``tilt`` degrees over a table that moves along z: a sheared stack, foot to head."""
    c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    plain = Header("", "p", "s", "r", 0, 4, 4, (0, 0, 0), (1.0, 0.0, 0.0, 0.0, c, -s), (0.5, 0.5))
    headers = []
    for k in range(count):
        own = {n: v[k] if isinstance(v, list) else v for n, v in more.items()}
        place = {"slice_id": f"{name}{k:03d}", "position_xyz_mm": (-125.0, -120.0, k * step_mm / c)}
        headers.append(replace(plain, **place | own))  # type: ignore[arg-type]
    return headers


def ids(headers: Sequence[Header], stacks: Sequence[Stack] | None = None) -> list[list[str]]:
    """The slices of each stack, lowest first."""
    found = stacks_of(headers) if stacks is None else stacks
    return [[headers[i].slice_id for i in stack.members] for stack in found]


def the_stack(headers: Sequence[Header]) -> Stack:
    (stack,) = stacks_of(headers)
    return stack


def names(*parts: Sequence[Header]) -> list[list[str]]:
    return [[header.slice_id for header in part] for part in parts]


@pytest.mark.parametrize("tilt", [0.0, 8.0, -25.0])
def test_a_whole_series_is_one_stack_whatever_order_it_comes_in(tilt: float) -> None:
    headers = series(20, tilt)
    for seed in range(5):
        shuffled = [headers[i] for i in np.random.default_rng(seed).permutation(20)]
        assert ids(shuffled) == names(headers)
        assert np.diff(the_stack(shuffled).position_mm) == pytest.approx(np.full(19, 5.0))
    assert the_stack(headers).ordered_by == "ImagePositionPatient"
    assert the_stack(headers).shared_places == ()


def test_a_single_slice_is_a_stack() -> None:
    assert the_stack(series(1)).ordered_by == "ImagePositionPatient"
    assert the_stack(series(1)).members.tolist() == [0]
    assert stacks_of([]) == []


def test_other_planes_matrices_and_spacings_stand_apart() -> None:
    main = series(9)
    jittered = [replace(h, orientation_rc=series(1, 0.1 * (k % 3))[0].orientation_rc) for k, h in enumerate(main)]
    assert ids(jittered) == names(main)  # scanners round
    for odd in (
        series(3, 10, name="tilted"),
        [replace(h, orientation_rc=CORONAL) for h in series(2, name="coronal")],
        series(4, rows=8, columns=8, name="matrix"),
        series(4, spacing_rc_mm=(0.4, 0.4), name="spacing"),
        [replace(h, orientation_rc=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)) for h in series(4, name="mirrored")],
    ):
        found = ids([*odd, *main])
        assert found[0] == names(main)[0]
        assert sorted(found[1]) == sorted(names(odd)[0])
        assert len(found) == 2


def test_patients_and_studies_never_share_a_stack() -> None:
    first = series(3, name="a")
    other = [replace(h, patient_id="q") for h in series(3, name="b")]
    later = [replace(h, study_id="t") for h in series(3, name="c")]
    assert ids([*later, *other, *first]) == names(first, later, other)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("frame_of_reference_id", ("1.2", "1.3")),
        ("series_number", (2.0, 3.0)),
        ("stack_name", ("1", "2")),
        ("temporal_index", (1.0, 2.0)),
        ("acquisition_number", (1.0, 2.0)),
        ("acquisition_number", (None, 2.0)),
        ("image_type", (("DERIVED", "SECONDARY", "AXIAL"), ("ORIGINAL", "PRIMARY", "AXIAL"))),
        ("kernel", ("H30s", "H60s")),
        ("peak_kv", (80.0, 140.0)),
        ("thickness_mm", (0.6, 5.0)),
    ],
)
@pytest.mark.parametrize("offset_mm", [0.0, 1.0])
def test_two_volumes_at_the_same_places_or_between_each_other(
    field: str, values: tuple[object, object], offset_mm: float
) -> None:
    first, second = (series(4, name=n, **{field: v}) for n, v in zip("ab", values, strict=True))
    second = [replace(h, position_xyz_mm=(-125, -120, h.position_xyz_mm[2] + offset_mm)) for h in second]
    assert ids([*second, *first]) == names(first, second)


def test_times_part_what_was_acquired_one_after_the_other() -> None:
    first = series(4, name="a", acquired=[f"2020010112000{k}" for k in range(4)])
    second = series(4, name="b", acquired=[f"2020010112010{k}" for k in range(4)])
    assert ids([*second, *first]) == names(first, second)
    # where they alternate, they would take the stack to pieces
    mixed = [*series(4, name="a", acquired=["1", "4", "5", "8"]), *series(4, name="b", acquired=["2", "3", "6", "7"])]
    assert len(stacks_of(mixed)) == 1


def test_rotations_along_the_patient_are_one_stack() -> None:
    """Scans step by step count AcquisitionNumber up as they go; a second phase begins where the count comes back."""
    steps = series(8, acquisition_number=[1, 1, 2, 2, 3, 3, 4, 4], name="a")
    assert ids(steps) == names(steps)
    again = series(8, acquisition_number=[5, 5, 6, 6, 7, 7, 8, 8], name="b")
    assert ids([*again, *steps]) == names(steps, again)
    base = series(4, step_mm=2.5, kernel="H40s", thickness_mm=2.5, name="base")
    brain = [replace(h, position_xyz_mm=(-125, -120, 10 + h.position_xyz_mm[2])) for h in series(5, kernel="H30s")]
    assert ids([*brain, *base]) == names([*base, *brain])


def test_one_slice_that_differs_in_a_field_stays_in_its_gap() -> None:
    headers = series(7, image_type=[("ORIGINAL",)] * 3 + [("DERIVED",)] + [("ORIGINAL",)] * 3)
    assert ids(headers) == names(headers)


def test_two_phases_under_two_kernels_are_four_stacks() -> None:
    parts = [series(3, acquisition_number=a, kernel=k, name=f"{a}{k}") for a in (1.0, 2.0) for k in ("H30s", "H60s")]
    assert ids([h for part in reversed(parts) for h in part]) == names(*parts)


def test_places_that_nothing_separates_are_counted() -> None:
    twice = [
        h for k in range(4) for h in (series(4, instance_number=2.0)[k], series(4, name="a", instance_number=1.0)[k])
    ]
    stack = the_stack(twice)
    assert stack.shared_places == (2, 2, 2, 2)
    assert ids(twice)[0][:4] == ["a000", "slice000", "a001", "slice001"]  # by InstanceNumber within a place
    assert the_stack([*series(3), *series(1, name="a"), *series(1, name="b")]).shared_places == (3,)


def same_place(count: int, **more: object) -> list[Header]:
    return [replace(h, position_xyz_mm=(0.0, 0.0, 0.0)) for h in series(count, **more)]  # type: ignore[arg-type]


def test_one_position_for_all_slices() -> None:
    numbers = [11.0, 2.0, 10.0, 1.0]
    by_location = the_stack(same_place(4, slice_location_mm=[-5 * n for n in numbers], instance_number=numbers))
    assert by_location.ordered_by == "SliceLocation"
    assert by_location.members.tolist() == [0, 2, 1, 3]
    assert by_location.position_mm.tolist() == [-55, -50, -10, -5]
    by_number = the_stack(same_place(4, instance_number=numbers, slice_location_mm=0.0, acquired=["1", "2", "3", "4"]))
    assert by_number.ordered_by == "InstanceNumber"
    assert by_number.members.tolist() == [3, 1, 2, 0]
    assert np.isnan(by_number.position_mm).all()
    thick = the_stack(same_place(4, instance_number=numbers, thickness_mm=2.5))
    assert thick.position_mm.tolist() == [2.5, 5, 25, 27.5]
    partly = the_stack(same_place(4, instance_number=[1.0, 2.0, None, 4.0]))
    assert partly.ordered_by == "nothing"
    assert partly.members.tolist() == [0, 1, 3, 2]
    assert np.isnan(partly.position_mm).all()
    assert the_stack(same_place(2, instance_number=1.0)).ordered_by == "nothing"


@pytest.fixture(scope="module")
def by_file(head_ct_dir: Path) -> dict[str, Header]:
    """File name -> header, in the order of the file names."""
    paths = sorted((head_ct_dir / "rsna2019_series").glob("*.dcm"))
    return {path.name: read_headers(path.read_bytes())[0] for path in paths}


@pytest.mark.real_data
class TestTheRealSeries:
    def test_spacing_and_tilt(self, by_file: dict[str, Header]) -> None:
        headers = list(by_file.values())
        stack = the_stack(headers)
        assert len(stack.members) == 36
        assert np.diff(stack.position_mm) == pytest.approx(np.full(35, 5.0), abs=0.001)
        assert {round(tilt_degrees(h.orientation_rc), 2) for h in headers} == {8.0}
        z = [headers[i].position_xyz_mm[2] for i in stack.members]
        assert np.diff(z) == pytest.approx(np.full(35, 5.049), abs=0.0011)
        assert stack.shared_places == ()

    def test_the_bleeding_is_one_run_in_stack_order_and_not_in_file_order(
        self, by_file: dict[str, Header], head_ct_dir: Path
    ) -> None:
        with (head_ct_dir / "stage_2_train.csv").open() as file:
            positive = {row["ID"] for row in csv.DictReader(file) if float(row["Label"]) == 1}
        headers = list(by_file.values())
        (in_order,) = ids(headers)

        def indices(kind: str, names: list[str]) -> list[int]:
            return [i for i, name in enumerate(names) if f"{name}_{kind}" in positive]

        assert indices("any", in_order) == list(range(13, 24))
        assert indices("intraventricular", in_order) == list(range(13, 21))
        assert indices("intraparenchymal", in_order) == list(range(15, 24))
        in_file_order = indices("any", [header.slice_id for header in headers])
        assert in_file_order != list(range(in_file_order[0], in_file_order[0] + 11))

    def test_a_foreign_scout_with_its_uid_changes_nothing(self, by_file: dict[str, Header]) -> None:
        headers = list(by_file.values())
        scout = replace(headers[5], slice_id="ID_0", orientation_rc=CORONAL)
        assert ids([scout, *headers]) == [*ids(headers), ["ID_0"]]
