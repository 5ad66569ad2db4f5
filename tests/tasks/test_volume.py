"""VolumeTask: what a window shows and what counts of it, scores and bytes of the outputs, how often patients are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lesion_scans import row_of, scan_row
from torch import nn

from medray.engine.data.samples import Rows, TrainingPlan
from medray.engine.train.device import to_device
from medray.engine.train.outputs import evaluate
from medray.engine.train.step import Trainer
from medray.shards.store import Store
from medray.systems.lesion.task import LesionTask
from medray.tasks.volume_rows import UNKNOWN, VolumeRow, mask_of, probability_of, whole
from medray.tasks.volume_scores import THRESHOLDS, Drawn, best_threshold, dice_by_threshold, voxel_scores

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def task_of(**fields: object) -> LesionTask:
    base = LesionTask(architecture="unet", width=4, levels=2, patch_DHW=(12, 12, 12), crops=4, batch_size=4)
    return replace(base, **fields)  # type: ignore[arg-type]


class Pointwise(nn.Module):
    """Logits that depend on one channel's own voxel, and on whether the window shows 2 voxels around it."""

    def __init__(self, reach: int = 0) -> None:
        super().__init__()
        self.reach = reach
        self.windows: list[tuple[int, ...]] = []

    def forward(self, voxels: torch.Tensor) -> torch.Tensor:
        self.windows.append(tuple(voxels.shape))
        shown = voxels[:, :1].clone()
        if self.reach:  # what has too little context is wrong
            r = self.reach
            inner = torch.zeros_like(shown)
            inner[:, :, r:-r, r:-r, r:-r] = 1
            shown = torch.where(inner > 0, shown, torch.full_like(shown, 50.0))
        return shown


def predicted(task: LesionTask, network: nn.Module, row: dict[str, object]) -> pd.Series:
    return evaluate(task, network, [task.collate([task.example(row)])], CPU).iloc[0]


@pytest.mark.parametrize("shape", [(18, 20, 22), (5, 30, 13), (12, 12, 12)])
@pytest.mark.parametrize("margin", [0, 2, 3])
@pytest.mark.parametrize("flips", [False, True])
def test_the_windows_give_each_voxel_its_own_answer_with_its_context(
    shape: tuple[int, int, int], margin: int, flips: bool
) -> None:
    """Of the margin, which has too little context, nothing is in the answer; on the grid of the shards, however large."""
    task = task_of(context_padding=margin, test_flips=flips, flip_axes=("D", "W"), keep="float16")
    row = scan_row(1, shape)
    network = Pointwise(reach=margin)
    found = predicted(task, network, row)
    voxels = whole(row)
    brain = np.unpackbits(np.frombuffer(row["brain"], np.uint8), count=int(np.prod(shape))).reshape(shape)
    expected = brain / (1 + np.exp(-voxels[0]))
    np.testing.assert_allclose(probability_of(found)[0], expected, atol=1e-3)
    assert np.array_equal(mask_of(found), ((expected >= 0.5) & (brain > 0)).astype(np.uint8))
    assert {window[2:] for window in network.windows} == {(12 + 2 * margin,) * 3}
    assert found["shape_DHW"] == list(shape)


def test_only_the_brain_is_looked_at() -> None:
    shape = (16, 16, 60)
    brain = np.zeros(shape, np.uint8)
    brain[2:14, 2:14, 20:32] = 1
    row = row_of("a", "a", np.ones((4, *shape), np.float32) * brain, brain, np.zeros(shape, np.uint8))
    network = Pointwise()
    assert mask_of(predicted(task_of(keep="uint8"), network, row)).sum() == brain.sum()
    assert sum(window[0] for window in network.windows) == 1
    empty = row_of("a", "a", np.zeros((4, *shape), np.float32), 0 * brain, 0 * brain)
    assert not mask_of(predicted(task_of(keep="uint8"), network, empty)).any()


def test_probabilities_are_kept_as_asked_for() -> None:
    row = scan_row(0)
    given = [predicted(task_of(keep=keep), Pointwise(), row) for keep in ("uint8", "float16", "nothing")]
    np.testing.assert_allclose(probability_of(given[0]), probability_of(given[1]), atol=1 / 255)
    assert len(given[1]["probability"]) == 2 * len(given[0]["probability"]) == 2 * 18 * 20 * 22
    assert "probability" not in given[2]
    assert "mask" not in given[2]


def scores_of(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return voxel_scores(found == 1, *Drawn(truth).of(1), 0.001)


def test_scores_and_their_rules_for_empty_masks() -> None:
    truth, found = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    assert np.isnan(scores_of(found, truth)["dice"])  # both empty
    found[0, 0, :2] = 1
    assert scores_of(found, truth)["dice"] == 0
    truth[0, 0, 1:] = 1
    scores = scores_of(found, truth)
    assert (scores["dice"], scores["ppv"], scores["sensitivity"]) == pytest.approx((2 / 5, 1 / 2, 1 / 3))
    assert (scores["ml"], scores["true_ml"]) == pytest.approx((0.002, 0.003))
    truth[0, 0, 0] = UNKNOWN  # a finding of which nobody knows is neither right nor wrong
    assert scores_of(found, truth)["ppv"] == 1
    unknown = scores_of(found, np.full_like(truth, UNKNOWN))
    assert [name for name, value in unknown.items() if not np.isnan(value)] == ["ml"]


def test_classes_that_overlap_are_drawn_as_numbers_of_sets() -> None:
    """Number 1 is both classes, 2 the second alone; the third nobody has drawn."""
    mask = np.array([0, 1, 2, UNKNOWN], np.uint8).reshape(1, 1, 4)
    drawn = Drawn(mask, np.array([0, 0b011, 0b010]), np.array([1, 1, 0]))
    assert [drawn.of(number)[0].ravel().tolist() for number in (1, 2, 3)] == [
        [False, True, False, False], [False, True, True, False], [False] * 4,
    ]  # fmt: skip
    assert [drawn.of(number)[1].ravel().tolist() for number in (1, 3)] == [[True, True, True, False], [False] * 4]
    scores = voxel_scores(mask == 1, *drawn.of(3), 0.001)
    assert np.isnan(scores["dice"])


def test_the_threshold_is_where_dice_is_best() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((10, 10, 10)).astype(np.float32)
    truth = (probability > 0.7).astype(np.uint8)
    truth[0] = UNKNOWN
    table = dice_by_threshold(probability, truth)
    for threshold, dice in zip(THRESHOLDS, table, strict=True):
        expected = scores_of((probability >= np.float32(threshold)).astype(np.uint8), truth)["dice"]
        assert dice == pytest.approx(expected), threshold
    assert best_threshold([table, [np.nan] * len(THRESHOLDS)]) == 0.7
    assert best_threshold([]) == 0.5


def test_small_components_are_dropped_by_volume() -> None:
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[1, 1, 1] = mask[2, 2, 1] = 1  # one component of two voxels, 18-connected
    mask[5, 5, 5] = 1
    task = task_of(smallest_mm3=4.0)
    assert np.argwhere(task.finished(mask, np.array([2.0, 1.0, 1.0]))).tolist() == [[1, 1, 1], [2, 2, 1]]
    assert task.finished(mask, np.array([4.0, 1.0, 1.0])).sum() == 3
    assert mask.sum() == 3


def test_patients_have_equal_parts_of_an_epoch_of_so_many_steps() -> None:
    index = pd.DataFrame({"patient_id": ["a"] * 5 + ["b", "c"]})
    task = task_of(steps_per_epoch=30)
    times = task.times_per_epoch(index)
    assert times.sum() * task.crops == 30 * task.batch_size
    assert pd.Series(times).groupby(index["patient_id"]).sum().tolist() == [10, 10, 10]
    assert task_of().times_per_epoch(index).sum() == len(index)
    few = task_of(steps_per_epoch=2).times_per_epoch(
        index
    )  # two readings of three patients: each in two of three epochs
    assert pd.Series(few).groupby(index["patient_id"]).sum().tolist() == pytest.approx([2 / 3] * 3)


def test_the_crops_of_a_reading_have_numbers_that_follow_on_each_other(tmp_path: Path) -> None:
    """By which the share of crops with lesion is exact in each reading; of any number of workers and any part of a run."""
    crops, rows = 4, 6
    place = np.repeat(np.arange(rows, dtype=np.int32), crops)
    all_rows = Rows(Store(str(tmp_path)), ("a",), 0 * place, place, 0 * place, together=crops)
    plan = TrainingPlan(all_rows, batch_size=4, epochs=2, seed=0)
    for epoch, step in plan.units():
        places, numbers = plan.samples(epoch, step)
        readings = pd.Series(numbers).groupby(place[places]).agg(["min", "max", "size"])
        assert (readings["max"] - readings["min"] == readings["size"] - 1).all()
        assert (readings["min"] % crops == 0).all()


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    task = task_of(dropout=0.2, drop_connect=0.1, rotation_deg=10.0, deformation_mm=1.0, noise=0.1)
    row = scan_row(0)

    def steps(trainer: Trainer, numbers: range) -> None:
        trainer.train()
        for step in numbers:
            rngs = [np.random.default_rng((0, 0, 4 * step + i)) for i in range(4)]
            trainer.step(to_device(task.collate(task.train_examples(row, rngs)), CPU), 0, step, 6)

    torch.manual_seed(0)
    whole = Trainer(task, task.network(), CPU)
    steps(whole, range(6))
    torch.manual_seed(0)
    first = Trainer(task, task.network(), CPU)
    steps(first, range(3))
    second = Trainer(task, task.network(), CPU)
    second.load(first.state())
    steps(second, range(3, 6))
    for one, other in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_memory_grows_with_the_patch_and_its_context() -> None:
    def gigabytes(**fields: object) -> float:
        found = task_of(**fields).training_gigabytes()
        assert found is not None
        return found

    assert gigabytes() < gigabytes(context_padding=4) < gigabytes(patch_DHW=(48, 48, 48))
    assert gigabytes(drop_connect=0.5) == gigabytes()


def test_a_finished_task_knows_its_network_without_the_shards() -> None:
    task = task_of(channels=("flair", "t1post"))  # which the task's own list of stored channels has not
    found = task.network()(torch.zeros(1, 2, 12, 12, 12))
    assert found.shape[1] == 1


def test_a_mask_is_that_of_the_probabilities_that_are_kept() -> None:
    row = scan_row(1)
    for threshold in (0.3, 0.5, 0.65):
        found = predicted(task_of(keep="uint8", threshold=threshold), Pointwise(), row)
        kept, inside = probability_of(found)[0], VolumeRow.of(row, range(4)).inside_DHW > 0
        assert np.array_equal(mask_of(found) > 0, (kept >= np.float32(threshold)) & inside)


def test_channels_are_picked_by_name_whatever_else_the_shards_hold() -> None:
    class Source:
        stored_channels = ("t2", "flair")

    row = scan_row(0, channels=2)
    voxels = whole(row)
    task = task_of(channels=("flair",)).reading(Source())
    assert np.array_equal(task.example(row)["voxels"], voxels[1:])
    assert task.identity() == task_of(channels=("flair",)).identity()
    assert task_of().reading(Source()).used == ("t2", "flair")
    with pytest.raises(ValueError, match="^--channels pd: the scans have t2, flair; name some of these$"):
        task_of(channels=("pd",)).reading(Source())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"foreground_share": 1.5}, "--foreground-share 1.5: from 0 to 1"),
        ({"foreground_class": 2}, "--foreground-class 2: from 1 to 1"),
        ({"dice_weight": 0.0, "cross_entropy_weight": 0.0}, "and one of them above 0"),
        ({"threshold": 0.0}, "--threshold 0.0: between 0 and 1"),
        ({"overlap": 1.0}, "--overlap 1.0: from 0 to below 1"),
        ({"crops": 0}, "at least 1 voxel, 0 voxels and 1 crop"),
        ({"scaling": 1.0}, "--scaling 1.0: must be below 1"),
        ({"rotation_deg": -1.0}, "--rotation-deg -1.0: must be 0 or more"),
        ({"channel_dropout": 2.0}, "--channel-dropout 2.0: from 0 to 1"),
        ({"steps_per_epoch": 0}, "--steps-per-epoch 0: must be at least 1"),
        ({"flip_axes": ("D", "D")}, "--flip-axes D D: each axis once"),
        ({"classes": ("a", "a")}, "--classes a a: one or more, each once"),
        ({"smallest_mm3": -1.0}, "--smallest-mm3 -1.0: must be 0 or more"),
    ],
)
def test_fields_out_of_range_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_of(**fields)


@pytest.mark.parametrize("name", ["dice_weight", "cross_entropy_weight", "focal_weight", "focal_gamma"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_weights_of_the_loss_are_numbers(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} {value}"):
        task_of(**{name: value})
