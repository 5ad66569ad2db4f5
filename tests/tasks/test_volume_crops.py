"""Crops: the stated share holds foreground, labels follow the voxels, what lies outside stays 0."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from lesion_scans import row_of, scan_row

from medray.systems.lesion.task import LesionTask
from medray.tasks.volume_crops import is_foreground_turn
from medray.tasks.volume_rows import UNKNOWN, VolumeRow, in_box, whole

MOVED = {
    "rotation_deg": 30.0, "scaling": 0.2, "deformation_mm": 1.5, "subvoxel_shift": True, "flip_axes": ("D", "W"),
}  # fmt: skip
VARIED = {"noise": 0.1, "mean_shift": 0.3, "deviation_shift": 0.2, "gamma": 0.5}
CHANNELS = range(4)


def rngs(first: int, count: int) -> list[np.random.Generator]:
    """Of the examples of a reading, as the engine makes them."""
    return [np.random.default_rng((0, 2, first + i)) for i in range(count)]


def small_task(**fields: object) -> LesionTask:
    return replace(LesionTask(architecture="unet", patch_DHW=(8, 10, 9), crops=8), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("moved", [{}, MOVED])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("margin", [0, 3])
def test_exactly_the_stated_share_holds_lesion_in_each_reading(
    moved: dict[str, object], share: float, margin: int
) -> None:
    task = small_task(foreground_share=share, context_padding=margin, **moved)
    for scan in range(6):
        row = scan_row(scan, (40, 36, 44), lesions=1)
        examples = task.train_examples(row, rngs(8 * scan, 8))
        assert [bool((e["mask"] == 1).any()) for e in examples].count(True) == round(8 * share)
        assert {e["voxels"].shape for e in examples} == {(4, *(p + 2 * margin for p in task.patch_DHW))}
        assert {e["mask"].shape for e in examples} == {task.patch_DHW}


def test_any_run_of_crops_has_the_share_to_the_next_whole_one() -> None:
    for share in (0.1, 1 / 3, 0.5, 0.7):
        turns = np.array([is_foreground_turn(share, n) for n in range(300)])
        for count in (3, 4, 10):
            for start in range(0, 300 - count, count):
                assert abs(turns[start : start + count].sum() - count * share) < 1


@pytest.mark.parametrize("moved", [{}, MOVED])
def test_the_share_of_a_chosen_class(moved: dict[str, object]) -> None:
    """Of a rare one, which the stored places may miss; and the others hold none of it, but may hold the common one."""
    task = small_task(classes=("common", "rare"), **moved)
    task = replace(task, foreground_class=2)
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[4:30, 4:30, 4:30] = 1
    mask[20, 20, 20] = 2
    row = row_of("a", "a", np.ones((4, *mask.shape), np.float32), np.ones_like(mask), mask)
    row["foreground"] = [place for place in row["foreground"] if mask.flat[place] == 1]
    examples = task.train_examples(row, rngs(0, 40))
    assert sum((e["mask"] == 2).any() for e in examples) == 20
    assert any((e["mask"] == 1).any() and not (e["mask"] == 2).any() for e in examples)


def test_anywhere_may_hold_lesion_too() -> None:
    task = small_task(foreground_share=0.0, elsewhere="anywhere")
    found = [(e["mask"] == 1).any() for e in task.train_examples(scan_row(0, (14, 14, 14)), rngs(0, 40))]
    assert any(found)
    where_empty = task.train_examples(scan_row(0, (40, 40, 40), lesions=0), rngs(0, 4))
    assert not any(e["mask"].any() for e in where_empty)


def test_an_example_depends_on_its_own_generator_only() -> None:
    task, row = small_task(**MOVED, **VARIED), scan_row(0, (30, 30, 30))
    together = task.train_examples(row, rngs(0, 8))
    alone = [task.train_example(row, rngs(0, 8)[i]) for i in (5, 2)]
    for i, example in zip((5, 2), alone, strict=True):
        assert np.array_equal(example["voxels"], together[i]["voxels"])
        assert np.array_equal(example["mask"], together[i]["mask"])


def test_without_augmentation_a_crop_is_a_part_of_the_volume_with_its_context() -> None:
    task = small_task(context_padding=2)
    row = scan_row(3, (20, 21, 22))
    volume = VolumeRow.of(row, CHANNELS)
    padded = np.pad(whole(row), ((0, 0), *((2, 2),) * 3))
    drawn = volume.mask_DHW
    assert drawn is not None
    for example in task.train_examples(row, rngs(0, 8)):
        size = example["voxels"].shape[1:]
        windows = np.lib.stride_tricks.sliding_window_view(padded[0], size)
        found = np.argwhere((windows == example["voxels"][0]).all((3, 4, 5)))
        assert len(found) == 1
        box = tuple(slice(a, a + p) for a, p in zip(found[0], task.patch_DHW, strict=True))
        assert np.array_equal(example["mask"], drawn[box])
        assert example["voxels"].base is None  # a copy: a view would keep the whole volume in memory


def test_labels_follow_the_voxels_however_they_move() -> None:
    """A channel that is the mask itself: where it is interpolated to 1 the label is 1, where to 0 it is 0."""
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[14:26, 10:30, 16:24] = 1
    row = row_of("a", "a", np.repeat(mask[None], 4, 0), np.ones_like(mask), mask, (2.0, 1.0, 1.0))
    task = small_task(patch_DHW=(20, 20, 20), **MOVED)
    changed = 0
    for example in task.train_examples(row, rngs(0, 12)):
        shown = example["voxels"][0]
        assert (example["mask"][shown > 0.999] == 1).all()
        assert (example["mask"][shown < 0.001] == 0).all()
        changed += bool(((shown > 0.01) & (shown < 0.99)).any())
    assert changed >= 6


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0)])
def test_a_rotation_is_one_in_space(spacing_mm: tuple[float, ...]) -> None:
    """A ball of 6 mm stays a ball, whatever the spacing."""
    shape = tuple(round(36 / s) for s in spacing_mm)
    grid = np.stack(
        np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing_mm, strict=True)), indexing="ij")
    )
    mask = (np.linalg.norm(grid - 18, axis=0) < 6).astype(np.uint8).reshape(shape)
    row = row_of("a", "a", np.repeat(mask[None], 4, 0), np.ones_like(mask), mask, spacing_mm)
    size = tuple(round(34 / s) for s in spacing_mm)
    task = replace(small_task(patch_DHW=size, rotation_deg=90.0), foreground_share=0.0, elsewhere="anywhere")
    for example in task.train_examples(row, rngs(0, 6)):
        deviation_mm = np.argwhere(example["mask"]).std(0) * spacing_mm
        assert deviation_mm == pytest.approx(np.full(3, 6 / np.sqrt(5)), rel=0.12)


def test_intensities_vary_inside_only() -> None:
    row = scan_row(1, (24, 24, 24))
    plain = small_task(patch_DHW=(24, 24, 24))
    for name, value in VARIED.items():
        for still, varied in zip(
            plain.train_examples(row, rngs(0, 2)),
            replace(plain, **{name: value}).train_examples(row, rngs(0, 2)),  # type: ignore[arg-type]
            strict=True,
        ):
            inside = (still["voxels"] != 0).any(0)
            assert not varied["voxels"][:, ~inside].any(), name
            assert not np.array_equal(varied["voxels"], still["voxels"]), name
            if name == "gamma":  # normalisation is kept
                for a, b in zip(varied["voxels"], still["voxels"], strict=True):
                    assert a[inside].mean() == pytest.approx(b[inside].mean(), abs=1e-4)
                    assert a[inside].std() == pytest.approx(b[inside].std(), rel=1e-3)


def test_a_channel_is_dropped_as_often_as_stated_and_never_all() -> None:
    task = small_task(channel_dropout=0.5)
    examples = task.train_examples(scan_row(1, (24, 24, 24)), rngs(0, 200))
    missing = np.array([[not c.any() for c in e["voxels"]] for e in examples])
    assert missing.mean() == pytest.approx(0.5, abs=0.08)
    assert not missing.all(1).any()


@pytest.mark.parametrize("fields", [{}, MOVED, {"context_padding": 4}])
def test_crops_are_those_of_the_whole_volume_though_only_the_box_of_the_brain_is_stored(fields: dict[str, Any]) -> None:
    row = scan_row(3, (30, 31, 32))
    volume = VolumeRow.of(row, CHANNELS)
    brain = volume.inside_DHW.copy()
    brain[:9], brain[:, 22:], brain[..., :3] = 0, 0, 0
    voxels = volume.whole() * brain
    small = row | in_box(voxels, brain) | {"brain": np.packbits(brain).tobytes()}
    large = small | {"box_DHW": None, "voxels": voxels.tobytes()}
    task = small_task(foreground_share=1.0, **fields)  # where they are cut does not depend on the box
    for ours, theirs in zip(
        task.train_examples(small, rngs(0, 8)), task.train_examples(large, rngs(0, 8)), strict=True
    ):
        np.testing.assert_allclose(ours["voxels"], theirs["voxels"], atol=1e-5)
        assert np.array_equal(ours["mask"], theirs["mask"])
    assert np.array_equal(task.example(small)["voxels"], voxels)


def test_a_missing_channel_stays_missing() -> None:
    row = scan_row(1, (24, 24, 24))
    volume = VolumeRow.of(row, CHANNELS)
    voxels = volume.whole().copy()
    voxels[2] = 0
    for example in small_task(**MOVED, **VARIED).train_examples(row | in_box(voxels, volume.inside_DHW), rngs(0, 4)):
        assert not example["voxels"][2].any()


def test_a_volume_that_is_smaller_than_the_patch_is_padded() -> None:
    row = scan_row(1, (6, 40, 7))
    for moved in ({}, MOVED):
        for example in small_task(patch_DHW=(12, 12, 12), context_padding=2, **moved).train_examples(row, rngs(0, 4)):
            assert example["voxels"].shape == (4, 16, 16, 16)
            assert example["mask"].shape == (12, 12, 12)


def test_a_scan_without_a_mask_is_unknown_everywhere() -> None:
    row = scan_row(1, (24, 24, 24)) | {"mask": None, "foreground": None}
    for moved in ({}, MOVED):
        assert all((e["mask"] == UNKNOWN).all() for e in small_task(**moved).train_examples(row, rngs(0, 4)))


def test_an_unknown_region_stays_unknown_and_is_no_foreground() -> None:
    row = scan_row(1, (24, 24, 24), lesions=0)
    mask = np.frombuffer(row["mask"], np.uint8).copy().reshape(24, 24, 24)
    mask[:12] = UNKNOWN
    task = small_task(**MOVED)
    found = np.concatenate(
        [e["mask"].ravel() for e in task.train_examples(row | {"mask": mask.tobytes()}, rngs(0, 16))]
    )
    assert set(np.unique(found)) == {0, UNKNOWN}
