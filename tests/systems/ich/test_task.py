from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medray.engine.train.device import to_device
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.recipes import FOUR, FREE, RECIPES, any_backbone, ladder, recipe
from medray.systems.ich.task import IDENTIFIERS, SliceTask, head_square
from medray.tasks.task import At

pytestmark = pytest.mark.usefixtures("one_thread")

STORED = ("brain", "subdural", "bone", "soft")
SIZE = 32


def pixels(seed: int = 0, shape: tuple[int, int] = (SIZE, SIZE), windows: int = len(STORED)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (*shape, windows), dtype=np.uint8)


def row_of(image: np.ndarray, **labels: float | None) -> dict[str, Any]:
    names = {name: f"a {name}" for name in IDENTIFIERS}
    place = {"index": 4, "position_mm": 20.0, "rows": image.shape[0], "columns": image.shape[1]}
    return {**names, **place, "image": image.tobytes(), **dict.fromkeys(CLASSES, 0), **labels}


def task_of(**fields: Any) -> SliceTask:
    return SliceTask(**{"backbone": "test_resnet", "pretrained": False, "size_px": SIZE, "stored": STORED} | fields)


def still(**fields: Any) -> SliceTask:
    """A task whose augmentation does nothing: its training example is its example."""
    return task_of(flip=False, shift=0.0, zoom=0.0, rotate_deg=0.0, brightness=0.0, **fields)


@pytest.mark.parametrize(
    ("windows", "channels"),
    [
        (("brain", "subdural", "bone"), [0, 1, 2]),
        (("bone", "brain"), [2, 0]),
        (("soft", "40/80", "75/215"), [3, 0, 1]),
        (("600/2800.0",), [2]),
        (("brain", "brain", "soft"), [0, 0, 3]),
        (STORED, [0, 1, 2, 3]),
        (STORED[::-1], [3, 2, 1, 0]),
    ],
)
def test_windows_choose_and_order_the_channels(windows: tuple[str, ...], channels: list[int]) -> None:
    image, task = pixels(), still(windows=windows)
    assert task.channels == len(windows)
    wanted = image[..., channels].transpose(2, 0, 1)
    assert np.array_equal(task.example(row_of(image))["image"], wanted)
    assert np.array_equal(task.train_example(row_of(image), np.random.default_rng(0))["image"], wanted)
    assert task.example_input().shape == (2, len(windows), SIZE, SIZE)


def test_names_and_numbers_of_a_window_are_the_same_on_both_sides() -> None:
    image = pixels(windows=2)
    by_name = task_of(windows=("soft", "brain"), stored=("40/80", "40/375"))
    assert np.array_equal(by_name.example(row_of(image))["image"], image[..., [1, 0]].transpose(2, 0, 1))


def test_one_window_gives_one_channel_to_the_network() -> None:
    task = task_of(windows=("subdural",), size_px=48)
    example = task.example(row_of(pixels()))
    assert example["image"].shape == (1, 48, 48)
    assert task.train_example(row_of(pixels()), np.random.default_rng(0))["image"].shape == (1, 48, 48)
    network = task.network().eval()
    with torch.inference_mode():
        assert network(torch.from_numpy(example["image"][None])).shape == (1, 6)


def context_of(*images: np.ndarray) -> dict[str, Any]:
    """The middle one's row with all of them around it."""
    rows = [row_of(image) for image in images]
    middle = rows[len(rows) // 2]
    middle["context"] = rows
    return middle


def test_neighbours_are_previous_this_and_next_of_one_window() -> None:
    stack = [pixels(seed) for seed in range(3)]
    task = still(neighbours=True, windows=("bone",))
    assert (task.channels, task.context) == (3, 1)
    wanted = np.stack([image[..., 2] for image in stack])
    assert np.array_equal(task.example(context_of(*stack))["image"], wanted)
    assert np.array_equal(task.train_example(context_of(*stack), np.random.default_rng(0))["image"], wanted)
    assert still(windows=("bone",)).context == 0


def test_at_an_end_of_the_stack_the_slice_stands_for_its_neighbour() -> None:
    from medray.engine.data.rows import in_stack

    rows = [row_of(pixels(seed)) | {"stack_id": f"series {seed // 2}"} for seed in range(4)]  # two of two
    images = [pixels(seed)[..., 0] for seed in range(4)]
    task = still(neighbours=True, windows=("brain",))
    for middle, wanted in enumerate([(0, 0, 1), (0, 1, 1), (2, 2, 3), (2, 3, 3)]):
        row = rows[middle] | {"context": in_stack(rows, middle, task.context, "stack_id")}
        assert np.array_equal(task.example(row)["image"], np.stack([images[i] for i in wanted]))


def test_a_neighbour_of_another_size_is_brought_to_this_ones() -> None:
    flat = [np.full((side, side, len(STORED)), value, np.uint8) for side, value in ((64, 10), (SIZE, 20), (16, 30))]
    image = task_of(neighbours=True, windows=("brain",)).example(context_of(*flat))["image"]
    assert [np.unique(channel).tolist() for channel in image] == [[10], [20], [30]]


def head(seed: int, shape: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """Air with a full rectangle (top, bottom, left, right) of other values."""
    image = np.zeros((*shape, len(STORED)), np.uint8)
    image[box[0] : box[1], box[2] : box[3]] = pixels(seed, (box[1] - box[0], box[3] - box[2]))
    return image


def test_the_head_is_cut_out_at_the_same_place_in_all_neighbours() -> None:
    middle = head(1, (64, 64), (10, 42, 20, 52))  # 32 × 32: the square is the rectangle
    around = [pixels(0, (64, 64)), pixels(2, (64, 64))]
    task = task_of(neighbours=True, windows=("soft",), head_crop=True)
    image = task.example(context_of(around[0], middle, around[1]))["image"]
    wanted = [part[10:42, 20:52, 3] for part in (around[0], middle, around[1])]
    assert np.array_equal(image, np.stack(wanted))


def test_the_head_fills_the_picture_without_its_surroundings() -> None:
    image = head(0, (64, 64), (10, 42, 20, 52))
    task = task_of(windows=("brain", "bone"), head_crop=True)
    assert np.array_equal(task.example(row_of(image))["image"], image[10:42, 20:52, [0, 2]].transpose(2, 0, 1))
    whole = task_of(windows=("brain", "bone"), size_px=64)
    assert np.array_equal(whole.example(row_of(image))["image"], image[..., [0, 2]].transpose(2, 0, 1))


def test_where_the_head_is_cut_out_does_not_depend_on_what_else_the_shards_hold() -> None:
    rich = head(0, (64, 64), (10, 42, 20, 52))
    rich[0, 0, 2] = 1  # the bone window alone reaches into the corner
    task = task_of(windows=("brain",), head_crop=True)
    poor = replace(task, stored=("brain",))
    assert task.identity() == poor.identity()
    wanted = poor.example(row_of(rich[..., :1]))["image"]
    assert np.array_equal(task.example(row_of(rich))["image"], wanted)
    near = replace(task, neighbours=True), replace(poor, neighbours=True)
    context, lean = context_of(rich, rich, rich), context_of(*[rich[..., :1]] * 3)
    assert np.array_equal(near[0].example(context)["image"], near[1].example(lean)["image"])


@given(data=st.data(), shape=st.tuples(st.integers(8, 70), st.integers(8, 70)))
@settings(max_examples=200, deadline=None)
def test_the_square_holds_the_head_and_lies_in_the_slice(data: st.DataObject, shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 2), np.uint8)
    dots = st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1), st.integers(0, 1))
    for dot in data.draw(st.lists(dots, min_size=1, max_size=5)):
        image[dot] = 1
    rows, columns = head_square(image)
    outside = image.copy()
    outside[rows, columns] = 0
    assert not outside.any()
    assert 0 <= rows.start < rows.stop <= shape[0]
    assert 0 <= columns.start < columns.stop <= shape[1]
    sides = rows.stop - rows.start, columns.stop - columns.start
    assert min(sides) >= min(shape) // 2
    assert sides[0] == sides[1] or max(sides) > min(shape)  # a square, unless the slice has no room for one
    spots = [np.flatnonzero(image.any(axis=2).any(axis=axis)) for axis in (1, 0)]
    assert max(sides) == max(min(shape) // 2, *(int(np.ptp(s)) + 1 for s in spots))  # and no larger than needed


def test_the_square_is_around_the_middle_of_the_head() -> None:
    image = np.zeros((100, 100, 1), np.uint8)
    image[40:50, 30:90] = 1  # 60 wide, 10 high
    assert head_square(image) == (slice(15, 75), slice(30, 90))


def test_the_square_moves_inwards_at_an_edge() -> None:
    image = np.zeros((100, 100, 1), np.uint8)
    image[95:, :5] = 1
    assert head_square(image) == (slice(50, 100), slice(0, 50))


def test_an_empty_slice_is_kept_whole() -> None:
    empty = np.zeros((40, 40, len(STORED)), np.uint8)
    rows, columns = head_square(empty)
    assert empty[rows, columns].shape == empty.shape
    assert not task_of(head_crop=True).example(row_of(empty))["image"].any()


def test_the_middle_is_kept_of_each_side() -> None:
    image = pixels(shape=(64, 48))
    kept = still(crop=0.5, size_px=32, windows=("brain",)).example(row_of(image[:, :, :]))["image"]
    assert kept.shape == (1, 32, 32)
    inside = image[16:48, 12:36, 0]  # 32 × 24
    assert np.array_equal(kept[0][:, 0], inside[:, 0])
    assert np.array_equal(kept[0][:, -1], inside[:, -1])


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"neighbours": True}, "--windows brain subdural bone: one is needed"),
        ({"neighbours": True, "windows": ()}, "--windows"),
        ({"windows": ()}, "--windows"),
        ({"windows": ("brain", "brian")}, "--windows brian"),
        ({"windows": ("40/0",)}, "--windows 40/0"),
        ({"windows": ("40/wide",)}, "--windows 40/wide"),
        ({"epidural_weight": -0.5}, "--epidural-weight -0.5"),
        ({"any_weight": -1.0}, "--any-weight -1"),
        ({"repeat_epidural": 0}, "--repeat-epidural 0"),
        ({"negatives": 0.0}, "--negatives 0.0: above 0, and at most 1"),
        ({"negatives": 1.5}, "--negatives 1.5: above 0, and at most 1"),
        ({"size_px": 64, "early_size_px": 32}, "--early-size-px 32, --early-epochs 0: both are needed, or neither"),
        ({"early_epochs": 1}, "--early-size-px None, --early-epochs 1: both are needed, or neither"),
        ({"early_size_px": 16, "early_epochs": 1}, "--early-size-px 16: at least 32, and smaller than --size-px"),
        ({"early_size_px": 512, "early_epochs": 1}, "--early-size-px 512: at least 32, and smaller than --size-px"),
        (
            {"size_px": 64, "early_size_px": 32, "early_epochs": 5},
            "--early-epochs 5: 0 or more, and fewer than --epochs 5",
        ),
        ({"crop": 0.05}, "--crop 0.05"),
        ({"crop": 1.1}, "--crop 1.1"),
        ({"size_px": 31}, "--size-px 31"),
    ],
)
def test_a_value_that_a_field_cannot_have(fields: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=flag) as error:
        task_of(**fields)
    assert "\n" not in str(error.value)


def test_a_misspelt_window_gets_a_hint() -> None:
    with pytest.raises(ValueError, match="did you mean brain"):
        task_of(windows=("brian",))


def test_only_slices_with_an_epidural_bleed_are_repeated_and_only_known_negatives_left_out() -> None:
    index = pd.DataFrame({"epidural": [0.0, 1.0, np.nan, 1.0], "subdural": [1.0, 0.0, 1.0, 1.0], "any": 1.0})
    assert task_of(repeat_epidural=3).times_per_epoch(index).tolist() == [1, 3, 1, 3]
    assert task_of().times_per_epoch(index).tolist() == [1, 1, 1, 1]
    whole = pd.DataFrame({"epidural": np.array([0, 1, 0], dtype=np.int8), "any": np.array([0, 1, 1], dtype=np.int8)})
    assert task_of(repeat_epidural=2).times_per_epoch(whole).tolist() == [1, 2, 1]
    assert task_of(repeat_epidural=2, negatives=0.5).times_per_epoch(whole).tolist() == [0.5, 2, 1]
    unknown = pd.DataFrame({"epidural": [0.0, np.nan, 1.0, 0.0], "any": [np.nan, np.nan, np.nan, 0.0]})
    assert task_of(negatives=0.25).times_per_epoch(unknown).tolist() == [1, 1, 1, 0.25]
    assert [task_of(**{k: v}).changes_rates for k, v in (("negatives", 0.5), ("repeat_epidural", 2), ("size_px", 64))] == [
        True, True, False,
    ]  # fmt: skip


def test_the_first_epochs_see_smaller_slices_and_evaluation_does_not() -> None:
    task = task_of(size_px=64, early_size_px=32, early_epochs=2, epochs=5)
    row = row_of(pixels())
    sides = [task.in_epoch(e).train_example(row, np.random.default_rng(0))["image"].shape[1] for e in range(5)]
    assert sides == [32, 32, 64, 64, 64]
    assert task.example(row)["image"].shape[1] == 64
    assert task.in_epoch(2) is task
    alone = task_of(size_px=32, epochs=5).train_example(row, np.random.default_rng(3))["image"]
    assert np.array_equal(task.in_epoch(1).train_example(row, np.random.default_rng(3))["image"], alone)


def test_the_identity_is_json_and_ignores_what_else_the_shards_hold() -> None:
    task = task_of(windows=("brain",), weights="hub/{backbone}.safetensors")
    assert json.loads(json.dumps(task.identity()))["windows"] == ["brain"]
    assert "stored" not in task.identity()
    assert task.identity() == replace(task, stored=("brain",)).identity()


@pytest.mark.parametrize(
    "change",
    [{"windows": ("subdural",)}, {"windows": ("brain", "bone")}, {"neighbours": True}, {"head_crop": True},
     {"repeat_epidural": 2}, {"negatives": 0.5}, {"early_size_px": 32, "early_epochs": 1}, {"epidural_weight": 2.0}, {"any_weight": 1.0}, {"weights": "other.pt"},
     {"backbone": "test_byobnet"}],
)  # fmt: skip
def test_another_task_has_another_identity(change: dict[str, Any]) -> None:
    task = task_of(windows=("brain",), size_px=64)
    assert replace(task, **change).identity() != task.identity()


@pytest.mark.parametrize("name", ["x.pt", "{backbone}.pt"])
def test_keys_of_the_weights_are_not_in_the_identity(name: str) -> None:
    weights = f"s3://key:secret@bucket/{name}?region=us-east-1&endpoint_override=host:9000"
    identity = task_of(weights=weights).identity()
    assert identity["weights"] == f"s3://bucket/{name.replace('{backbone}', 'test_resnet')}"
    text = json.dumps(identity)
    assert "secret" not in text
    assert "key" not in text


def labelled(labels: list[list[float]]) -> dict[str, Any]:
    return {"image": torch.zeros(len(labels), 1), "labels": torch.tensor(labels)}


class Constant(nn.Module):
    """The same six logits for every image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


def loss_and_gradient(task: SliceTask, logits: list[float], labels: list[list[float]]) -> tuple[float, list[float]]:
    network = Constant(logits)
    loss = task.losses(network, labelled(labels), At())["loss"]
    loss.backward()
    assert network.logits.grad is not None
    return loss.item(), network.logits.grad.tolist()


LOGITS = [0.5, -1.0, 2.0, 0.1, -0.3, 1.2]
LABELS = [[1.0, 0.0, 1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]


def test_the_loss_is_the_challenges_score_by_default() -> None:
    from medray.systems.ich.classes import SCORE_WEIGHTS

    z, y = np.array(LOGITS), np.array(LABELS)
    each = np.logaddexp(0, z) - y * z
    wanted = (each.mean(axis=0) * np.array(SCORE_WEIGHTS)).sum() / 7
    assert loss_and_gradient(task_of(), LOGITS, LABELS)[0] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("field", "column"), [("epidural_weight", 0), ("any_weight", 5)])
def test_a_column_of_weight_0_does_not_reach_the_loss(field: str, column: int) -> None:
    task = task_of(**{field: 0.0})
    other = [9.0 if i == column else value for i, value in enumerate(LOGITS)]
    loss, gradient = loss_and_gradient(task, LOGITS, LABELS)
    assert loss == pytest.approx(loss_and_gradient(task, other, LABELS)[0], rel=1e-6)
    assert [i for i, g in enumerate(gradient) if g == 0] == [column]
    plain = loss_and_gradient(task_of(), LOGITS, LABELS)[0]
    assert plain != pytest.approx(loss_and_gradient(task_of(), other, LABELS)[0], rel=1e-3)


def test_a_column_of_weight_4_counts_four_times_for_positives_and_negatives_alike() -> None:
    before, after = (loss_and_gradient(task_of(epidural_weight=w, any_weight=1.0), LOGITS, LABELS)[1] for w in (1.0, 4))
    ratio = np.array(after) / np.array(before)
    np.testing.assert_allclose(ratio, np.array([4, 1, 1, 1, 1, 1]) * 6 / 9, rtol=1e-5)


# ../shared/spec/ich.md, step 6; "224+" is 224 here
COMMON = {"batch_size": 64, "optimizer": "adam", "any_weight": 2.0, "pretrained": True, "weights": None}
OURS = {"learning_rate": 1e-4, "windows": ("brain", "subdural", "bone"), "flip": True, "flip_vertical": True,
        "repeat_epidural": 3, "epidural_weight": 2.0, "head_crop": False, "neighbours": False}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "resnext101_32x8d": OURS | {
        "backbone": "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", "size_px": 224, "epochs": 6, "schedule": "constant",
        "clip_norm": None, "label_smoothing": 0.0,
    },
    "inception_v3": OURS | {
        "backbone": "inception_v3", "size_px": 299, "epochs": 5, "schedule": "constant", "clip_norm": None,
        "label_smoothing": 0.1,
    },
    "efficientnet_b3": OURS | {
        "backbone": "efficientnet_b3", "size_px": 300, "epochs": 6, "schedule": "constant", "clip_norm": None,
        "label_smoothing": 0.0,
    },
    "seresnext50_32x4d": OURS | {
        "backbone": "seresnext50_32x4d", "size_px": 224, "epochs": 3, "schedule": "exponential",
        "schedule_gamma": 0.5, "clip_norm": 1.0, "label_smoothing": 0.0,
    },
    "second_place": {
        "backbone": "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", "size_px": 480, "epochs": 5, "learning_rate": 2e-5,
        "windows": ("40/80", "80/200", "40/380"), "head_crop": True, "neighbours": False, "flip": True,
        "flip_vertical": True, "transpose": True, "epidural_weight": 1.0, "repeat_epidural": 1, "clip_norm": None,
        "label_smoothing": 0.0, "schedule": "constant",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", [*PUBLISHED])
def test_a_recipe_is_what_its_source_published(name: str) -> None:
    task = recipe(name)
    wanted = COMMON | PUBLISHED[name]
    assert {field: getattr(task, field) for field in wanted} == wanted
    assert task == RECIPES[name]()


def test_every_published_recipe_is_there() -> None:
    assert set(RECIPES) - {"second_place_quick"} == set(PUBLISHED) == {*FOUR, "second_place"}
    quick = recipe("second_place_quick")
    assert quick == replace(recipe("second_place"), negatives=0.5, early_size_px=320, early_epochs=2)
    assert min(recipe("second_place").shift, recipe("second_place").zoom, recipe("second_place").rotate_deg) > 0


def test_free_weights_keep_the_recipe() -> None:
    (licensed, free), *none = FREE.items()
    assert not none
    assert (recipe("resnext101_32x8d").backbone, free) == (licensed, "resnext101_32x8d.tv_in1k")
    assert recipe(free) == replace(recipe("resnext101_32x8d"), backbone=free)
    assert recipe("inception_v3.tf_in1k") == replace(recipe("inception_v3"), backbone="inception_v3.tf_in1k")


@pytest.mark.parametrize("name", ["test_resnet", "resnet18.a1_in1k", "convnext_tiny"])
def test_any_other_timm_name_has_a_recipe(name: str) -> None:
    task = recipe(name)
    assert task == any_backbone(name)
    assert (task.backbone, task.size_px, task.epochs) == (name, 224, 5)


@pytest.mark.parametrize("name", ["resnext101_32x8d.tv_in1k", "test_resnet", *RECIPES])
def test_timm_knows_every_recipes_backbone_and_its_weights(name: str) -> None:
    import timm

    assert timm.get_pretrained_cfg(recipe(name).backbone).has_weights


def test_the_ladder_takes_the_lead_models_later_steps_away() -> None:
    lead = recipe("seresnext50_32x4d")
    steps = ladder(lead)
    assert list(steps) == ["single-window", "no-remedy", "repeat-only"]
    bare = replace(lead, repeat_epidural=1, epidural_weight=1.0)
    assert steps["single-window"] == replace(bare, windows=("brain",))
    assert steps["no-remedy"] == bare
    assert steps["repeat-only"] == replace(lead, epidural_weight=1.0)


def test_a_lead_model_without_remedies_has_a_shorter_ladder() -> None:
    lead = recipe("second_place")
    assert ladder(lead) == {"single-window": replace(lead, windows=("40/80",))}
    weighted = replace(lead, epidural_weight=2.0)
    assert ladder(weighted)["no-remedy"] == lead
    assert "repeat-only" not in ladder(weighted)
    assert "repeat-only" not in ladder(replace(lead, repeat_epidural=3))


def test_the_ladder_takes_what_makes_it_faster_away_one_by_one() -> None:
    slow = recipe("seresnext50_32x4d")
    fewer = replace(slow, negatives=0.5)
    lead = replace(fewer, early_size_px=128, early_epochs=1)
    bare = replace(slow, repeat_epidural=1, epidural_weight=1.0)
    assert ladder(lead) == {
        "single-window": replace(bare, windows=("brain",)),
        "no-remedy": bare,
        "full-resolution": fewer,
        "all-negatives": slow,
        "repeat-only": replace(slow, epidural_weight=1.0),
    }
    assert {*ladder(fewer)} == {"single-window", "no-remedy", "all-negatives", "repeat-only"}
    early = ladder(replace(lead, negatives=1.0))
    assert {*early} == {"single-window", "no-remedy", "full-resolution", "repeat-only"}
    assert early["full-resolution"] == ladder(fewer)["all-negatives"] == slow
    assert {*ladder(recipe("second_place_quick"))} == {"single-window", "no-remedy", "full-resolution"}


@pytest.mark.parametrize("neighbours", [False, True])
def test_the_ladder_trains_nothing_twice(neighbours: bool) -> None:
    lead = replace(recipe("test_resnet"), windows=("brain",), neighbours=neighbours)
    steps = ladder(lead)
    assert list(steps) == ["no-remedy", "repeat-only"]
    assert lead not in steps.values()
    assert ladder(steps["no-remedy"]) == {}


def test_every_orientation_occurs_when_all_flips_are_on() -> None:
    task = SliceTask(
        pretrained=False, windows=("brain",), stored=("brain",), size_px=32, flip=True, flip_vertical=True, transpose=True,
        shift=0, zoom=0, rotate_deg=0, brightness=0,
    )  # fmt: skip
    image = np.arange(32 * 32, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 1)
    image[0, :7], image[1, 0] = 200, 100  # unlike all of its mirror images
    row = {name: "x" for name in task.columns} | dict.fromkeys(CLASSES, 0)
    row |= {"rows": 32, "columns": 32, "image": image.tobytes(), "index": 0, "position_mm": 0.0}
    seen = [task.train_example(row, np.random.default_rng(seed))["image"].tobytes() for seed in range(300)]
    counts = sorted(seen.count(one) for one in set(seen))
    assert len(counts) == 8
    assert counts[0] > 15


def test_a_slice_of_unknown_position_is_as_good_as_others() -> None:
    task = still()
    rows = [row_of(pixels(seed)) | {"position_mm": mm} for seed, mm in enumerate((None, 20.0, float("nan")))]
    batch = task.collate([task.example(row) for row in rows])
    positions = task.columns_of(np.full((3, len(CLASSES)), 0.5), to_device(batch, torch.device("cpu"), task.host))[
        "position_mm"
    ]
    assert np.array_equal(np.asarray(positions, dtype=np.float64), [np.nan, 20, np.nan], equal_nan=True)
