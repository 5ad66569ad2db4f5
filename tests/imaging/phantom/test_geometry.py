"""Stacks: each kind as DICOM describes it, and the oddities of real series."""

from __future__ import annotations

import numpy as np
import pytest

from medray.imaging.phantom.geometry import Stack, draw_stack


@pytest.fixture(scope="module")
def stacks() -> list[Stack]:
    return [draw_stack(np.random.default_rng(k), (20, 24), 256) for k in range(300)]


def test_all_kinds_and_oddities_occur(stacks: list[Stack]) -> None:
    assert {s.kind for s in stacks} == {"upright", "sheared", "oblique"}
    assert any(s.gap_before is not None for s in stacks)
    assert any(s.duplicate_of is not None for s in stacks)
    assert {s.says_thickness for s in stacks} == {True, False}
    upward = [float((s.positions_mm[3] - s.positions_mm[2]) @ s.normal) > 0 for s in stacks]
    assert 0.3 < np.mean(upward) < 0.7
    right = [s.instance_numbers == tuple(range(1, len(s.positions_mm) + 1)) for s in stacks]
    absent = [s.instance_numbers[0] is None for s in stacks]
    assert any(right)
    assert any(absent)
    assert not all(r or a for r, a in zip(right, absent, strict=True))  # wrong numbers occur


def test_counts_are_as_asked(stacks: list[Stack]) -> None:
    assert all(20 <= len(s.positions_mm) == len(s.instance_numbers) <= 24 for s in stacks)


def test_planes_are_evenly_spaced_along_the_normal_but_for_the_gap(stacks: list[Stack]) -> None:
    for s in stacks:
        assert np.linalg.norm(s.normal) == pytest.approx(1)
        planes = s.positions_mm[:-1] if s.duplicate_of is not None else s.positions_mm
        steps = np.abs(np.diff(planes @ s.normal))
        if s.gap_before is not None:
            assert steps[s.gap_before - 1] == pytest.approx(2 * s.spacing_mm)
            steps = np.delete(steps, s.gap_before - 1)
        assert steps == pytest.approx(np.full(len(steps), s.spacing_mm))
        if s.duplicate_of is not None:
            assert np.array_equal(s.positions_mm[-1], s.positions_mm[s.duplicate_of])


def test_a_sheared_stack_moves_along_the_table_and_an_oblique_one_along_its_normal(stacks: list[Stack]) -> None:
    for s in stacks:
        step = s.positions_mm[2] - s.positions_mm[1]
        if s.kind == "sheared":
            tilt = np.degrees(np.arccos(s.normal[2]))
            assert 5 <= tilt <= 14
            assert step[:2] == pytest.approx([0, 0])
            assert abs(step[2]) > np.linalg.norm(step @ s.normal)
        else:
            assert abs(step @ s.normal) == pytest.approx(np.linalg.norm(step))
