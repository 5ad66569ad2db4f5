"""The order of a stack: synthetic series with known answers, and the real one."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medray.imaging.dicom import read_headers
from medray.imaging.geometry import (
    duplicate_positions,
    positions_along_normal_mm,
    slice_normal,
    spacing_mm,
    stack_order,
    tilt_degrees,
)
from medray.imaging.types import Header


def series(count: int, tilt: float = 0.0, step_mm: float = 5.0) -> list[Header]:
    """Slices of a gantry tilted by ``tilt`` degrees over a table that moves along z: a sheared stack, foot to head."""
    c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    return [
        Header(
            slice_id=f"slice{k:03d}",
            patient_id="p",
            study_id="s",
            series_id="r",
            frame=0,
            rows=4,
            columns=4,
            position_xyz_mm=(-125.0, -120.0, k * step_mm / c),
            orientation_rc=(1.0, 0.0, 0.0, 0.0, c, -s),
            spacing_rc_mm=(0.5, 0.5),
        )
        for k in range(count)
    ]


@pytest.mark.parametrize("tilt", [0.0, 8.0, -25.0])
def test_tilt_and_spacing_of_a_sheared_stack(tilt: float) -> None:
    headers = series(9, tilt)
    assert tilt_degrees(headers) == pytest.approx(abs(tilt), abs=1e-6)
    assert spacing_mm(headers) == pytest.approx(5.0)
    assert stack_order(headers).tolist() == list(range(9))


def test_the_order_does_not_depend_on_the_order_it_is_given() -> None:
    headers = series(20, 12)
    for seed in range(5):
        shuffle = np.random.default_rng(seed).permutation(20)
        shuffled = [headers[i] for i in shuffle]
        assert [shuffled[i].slice_id for i in stack_order(shuffled)] == [h.slice_id for h in headers]


def test_always_foot_to_head_however_rows_and_columns_run() -> None:
    # turned upside down in the image plane's axes, the cross product points to the feet: the stack must not
    flipped = [replace(h, orientation_rc=(-1.0, 0.0, 0.0, *h.orientation_rc[3:])) for h in series(5, 8)]
    assert np.cross(flipped[0].orientation_rc[:3], flipped[0].orientation_rc[3:])[2] < 0
    assert slice_normal(flipped)[2] > 0
    assert stack_order(flipped).tolist() == [0, 1, 2, 3, 4]
    assert positions_along_normal_mm(flipped)[4] > positions_along_normal_mm(flipped)[0]


def test_the_same_place_falls_back_on_the_id() -> None:
    first, second, third = series(3)
    twin = replace(second, slice_id="a twin")
    assert stack_order([third, second, twin, first]).tolist() == [3, 2, 1, 0]
    assert duplicate_positions([third, second, twin, first]).tolist() == [1]
    assert duplicate_positions([first, second, third]).tolist() == []
    assert spacing_mm([third, second, twin, first]) == pytest.approx(5.0)


def test_a_missing_slice_does_not_change_the_spacing() -> None:
    headers = series(10)
    assert spacing_mm(headers[:4] + headers[5:]) == pytest.approx(5.0)
    assert spacing_mm(headers[:1]) == 0.0


def test_a_sagittal_stack_has_an_order_too() -> None:
    sagittal = [
        replace(h, orientation_rc=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0), position_xyz_mm=(float(k), 0.0, 0.0))
        for k, h in enumerate(series(4))
    ]
    assert stack_order(sagittal[::-1]).tolist() == [3, 2, 1, 0]  # towards the patient's left
    assert tilt_degrees(sagittal) == pytest.approx(90)


def test_what_is_no_stack() -> None:
    with pytest.raises(ValueError, match="no headers"):
        stack_order([])
    with pytest.raises(ValueError, match="more than one series"):
        stack_order([series(1)[0], replace(series(1)[0], series_id="other")])
    with pytest.raises(ValueError, match="not parallel"):
        stack_order(series(2, 0) + series(2, 10))


@pytest.fixture(scope="module")
def by_file(head_ct_dir: Path) -> dict[str, Header]:
    """File name -> header, in the order of the file names."""
    paths = sorted((head_ct_dir / "rsna2019_series").glob("*.dcm"))
    return {path.name: read_headers(path.read_bytes())[0] for path in paths}


@pytest.mark.real_data
class TestTheRealSeries:
    def test_spacing_tilt_and_columns(self, by_file: dict[str, Header]) -> None:
        headers = [list(by_file.values())[i] for i in stack_order(list(by_file.values()))]
        assert len(headers) == 36
        assert np.diff(positions_along_normal_mm(headers)) == pytest.approx(np.full(35, 5.0), abs=0.001)
        assert spacing_mm(headers) == pytest.approx(5.0, abs=0.001)
        assert tilt_degrees(headers) == pytest.approx(8.0, abs=0.005)
        x, y, z = np.array([header.position_xyz_mm for header in headers]).T
        assert (x == -125).all()
        assert (y == -123.784).all()
        assert np.diff(z) == pytest.approx(np.full(35, 5.049), abs=0.0011)
        assert duplicate_positions(headers).size == 0

    def test_the_bleeding_is_one_run_in_stack_order_and_not_in_file_order(
        self, by_file: dict[str, Header], head_ct_dir: Path
    ) -> None:
        with (head_ct_dir / "stage_2_train.csv").open() as file:
            positive = {row["ID"] for row in csv.DictReader(file) if float(row["Label"]) == 1}
        headers = list(by_file.values())
        ids = [headers[i].slice_id for i in stack_order(headers)]

        def indices(kind: str, names: list[str]) -> list[int]:
            return [i for i, name in enumerate(names) if f"{name}_{kind}" in positive]

        assert indices("any", ids) == list(range(13, 24))
        assert indices("intraventricular", ids) == list(range(13, 21))
        assert indices("intraparenchymal", ids) == list(range(15, 24))
        in_file_order = indices("any", [header.slice_id for header in headers])
        assert in_file_order != list(range(in_file_order[0], in_file_order[0] + 11))

    def test_shuffling_and_renaming_change_nothing(self, by_file: dict[str, Header]) -> None:
        headers = list(by_file.values())
        expected = [headers[i].slice_id for i in stack_order(headers)]
        shuffled = [headers[i] for i in np.random.default_rng(1).permutation(36)]
        assert [shuffled[i].slice_id for i in stack_order(shuffled)] == expected
