"""From flags to what is trained: what fits together, what does not, and what a restart finds again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from medray.engine.job.claim import claim
from medray.imaging.window import parse_window
from medray.shards.store import Store
from medray.systems.ich import recipes
from medray.systems.ich.pipeline import Pipeline, Stages, phantoms, plan, sequence_of
from medray.systems.ich.sequence import SequenceTask
from medray.systems.ich.source import HeadCT
from medray.systems.ich.task import SliceTask
from medray.systems.ich.views import Views

SEQUENCE = SequenceTask(hidden=8)
DEFAULT = "40x80_75x215_600x2800"  # brain, subdural, bone


def of(folder: str) -> HeadCT:
    return HeadCT(windows=tuple(name.replace("x", "/") for name in folder.split("_")))


def slice_task(backbone: str = "test_resnet", **fields: Any) -> SliceTask:
    return replace(SliceTask(backbone=backbone, pretrained=False, size_px=32), **fields)


def planned(
    *tasks: SliceTask,
    there: tuple[HeadCT, ...] = (),
    source: HeadCT | None = None,
    all_folds: bool = True,
    **fields: Any,
) -> Stages:
    by_name = {task.backbone: task for task in tasks or (slice_task(),)}
    pipeline = Pipeline(backbones=tuple(by_name), **fields)
    return plan(pipeline, by_name, SEQUENCE, source or HeadCT(), [other.identity() for other in there], all_folds)


def notices(name: str, **fields: Any) -> list[str]:
    """Of a recipe, without making its network."""
    task = replace(recipes.recipe(name), **fields)
    return Stages(HeadCT(), (name,), {name: task}, {name: 1}, {}).notices()


# ---- what does not fit ---------------------------------------------------------------------------------------------


def test_an_unknown_backbone_is_answered_with_near_names() -> None:
    with pytest.raises(
        ValueError, match=r"^--backbones resnet5o: timm has no such model; did you mean resnet50"
    ) as error:
        planned(slice_task("resnet5o"))
    assert "\n" not in str(error.value)


def test_out_of_fold_embedding_needs_every_fold() -> None:
    with pytest.raises(ValueError, match=r"--embedding out-of-fold: needs a network for every fold; .*--train-folds"):
        planned(embedding="out-of-fold", all_folds=False)
    assert planned(embedding="out-of-fold", all_folds=True).models == ("test_resnet",)
    assert planned(embedding="within-fold", all_folds=False).models == ("test_resnet",)


@pytest.mark.parametrize("names", [(), ("test_resnet", "test_efficientnet", "test_resnet")])
def test_backbones_are_named_and_each_once(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=rf"--backbones {' '.join(names)}: one or more are needed, each once"):
        Pipeline(backbones=names)


# ---- windows and shards --------------------------------------------------------------------------------------------


def test_the_shards_hold_the_windows_of_all_backbones_and_each_backbone_knows_what_they_hold() -> None:
    tasks = slice_task(windows=("brain", "bone")), slice_task("test_efficientnet", windows=("40/80", "80/200"))
    found = planned(*tasks)
    windows = [parse_window(w) for w in found.source.windows]
    assert set(windows) == {parse_window(w) for w in ("brain", "bone", "80/200")}
    assert len(windows) == 3  # brain is 40/80
    assert list(found.backbones) == ["test_resnet", "test_efficientnet"]
    for task in tasks:
        assert found.backbones[task.backbone] == replace(task, stored=found.source.windows)
    images = {task.backbone: torch.zeros((1, task.channels, 32, 32), dtype=torch.uint8) for task in tasks}
    widths = {task.backbone: task.network().eval().features(images[task.backbone]).shape[1] for task in tasks}  # type: ignore[operator]
    assert found.feature_counts == widths
    assert found.sequences == {n: replace(SEQUENCE, feature_count=c) for n, c in found.feature_counts.items()}


def test_shards_with_more_windows_are_used_again() -> None:
    found = planned(
        slice_task(windows=("brain", "80/200")), there=tuple(map(of, ("40x80_75x215", "40x80_80x200_40x380", DEFAULT)))
    )
    assert found.source.folder == "40x80_80x200_40x380"
    assert found.backbones["test_resnet"].stored == found.source.windows
    assert len(found.source.windows) == 3


def test_shards_that_lack_a_window_are_not_used() -> None:
    found = planned(slice_task(windows=("brain", "80/200")), there=(of("40x80_75x215"), of("80x200")))
    assert found.source.folder == "40x80_80x200"


@pytest.mark.parametrize("windows", [("brain", "subdural", "bone"), ("40/80", "80/200", "40/380"), ("40.0/80", "soft")])
@pytest.mark.parametrize("ladder", [False, True])
def test_a_restart_plans_the_same_shards(windows: tuple[str, ...], ladder: bool) -> None:
    task = slice_task(windows=windows, repeat_epidural=2)
    first = planned(task, ladder=ladder, source=HeadCT(remove_hardware=False))
    again = planned(task, ladder=ladder, source=HeadCT(remove_hardware=False), there=(first.source,))
    assert again == first
    assert again.source.identity() == first.source.identity()  # which the names of the shards are made from
    assert not first.source.remove_hardware


# ---- what is trained -----------------------------------------------------------------------------------------------


def test_the_ladder_adds_the_first_backbone_without_its_later_steps_and_only_for_the_slices() -> None:
    lead = slice_task(repeat_epidural=3, epidural_weight=2.0)
    found = planned(lead, slice_task("test_efficientnet"), ladder=True)
    assert found.models == ("test_resnet", "test_efficientnet")
    assert set(found.sequences) == set(found.feature_counts) == set(found.models)
    stored = found.source.windows
    bare = replace(lead, repeat_epidural=1, epidural_weight=1.0, stored=stored)
    assert found.backbones == {
        "test_resnet": replace(lead, stored=stored),
        "test_efficientnet": slice_task("test_efficientnet", stored=stored),
        "single-window": replace(bare, windows=("brain",)),
        "no-remedy": bare,
        "repeat-only": replace(bare, repeat_epidural=3),
    }
    assert list(planned(lead, slice_task("test_efficientnet")).backbones) == ["test_resnet", "test_efficientnet"]


def test_a_ladder_without_remedies_has_nothing_to_take_away_but_windows() -> None:
    assert list(planned(slice_task(), ladder=True).backbones) == ["test_resnet", "single-window"]


def test_what_makes_it_faster_is_compared_and_said_to_be_another_method() -> None:
    lead = slice_task(negatives=0.5, size_px=64, early_size_px=32, early_epochs=2)
    found = planned(lead, ladder=True)
    assert set(found.backbones) == {"test_resnet", "single-window", "no-remedy", "full-resolution"}
    (line,) = found.notices()
    for part in ("test_resnet: ", "50% of the slices without any bleed (--negatives)", "2 of 5 epochs are at 32 px",
                 "fewer images than the plan counts", "another method", "--ladder"):  # fmt: skip
        assert part in line
    assert planned().notices() == []


def test_without_a_sequence_stage_none_is_planned() -> None:
    assert planned(sequence_stage=False).sequences == {}


def test_the_phantoms_pipeline_fits_together() -> None:
    pipeline = phantoms()
    tasks = {name: recipes.phantom(name) for name in pipeline.backbones}
    found = plan(pipeline, tasks, recipes.phantom_sequence(), HeadCT(), [], True)
    assert found.models == pipeline.backbones
    assert set(found.backbones) == {*found.models, "single-window", "no-remedy"}  # it has one remedy
    assert found.notices() == []


# ---- folders that belong to one configuration ----------------------------------------------------------------------


def test_every_folder_of_runs_is_claimed_and_no_two_are_the_same() -> None:
    found = planned(slice_task(repeat_epidural=2), slice_task("test_efficientnet"), ladder=True)
    claims = found.claims(Pipeline(backbones=found.models, ladder=True))
    assert set(claims) == {*found.backbones, *(sequence_of(name) for name in found.models)}
    texts = [json.dumps(claim, sort_keys=True) for claim in claims.values()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"views": Views(views=("plain",))}, "views"),
        ({"views": Views(view_mean="probability")}, "view_mean"),
        ({"embedding": "out-of-fold"}, "embedding"),
    ],
)
def test_other_views_or_another_embedding_are_another_sequence_stage_and_the_same_backbone(
    fields: dict[str, Any], name: str, tmp_path: Any
) -> None:
    pipeline = Pipeline(backbones=("test_resnet",))
    found = planned()
    one, other = found.claims(pipeline), found.claims(replace(pipeline, **fields))
    assert one["test_resnet"] == other["test_resnet"]
    assert one["test_resnet-sequence"] != other["test_resnet-sequence"]
    claim(Store(tmp_path), one["test_resnet-sequence"])
    claim(Store(tmp_path), one["test_resnet-sequence"])
    with pytest.raises(ValueError, match=rf"holds a run with {name} = "):
        claim(Store(tmp_path), other["test_resnet-sequence"])


def test_shards_with_more_windows_leave_a_backbones_claim_as_it_is() -> None:
    pipeline = Pipeline(backbones=("test_resnet",))
    wider = planned(there=(of(DEFAULT + "_40x375"),))
    assert len(wider.source.windows) == 4
    assert wider.claims(pipeline) == planned().claims(pipeline)


# ---- licences ------------------------------------------------------------------------------------------------------


def test_weights_for_non_commercial_use_are_named_with_the_free_alternative() -> None:
    (line,) = notices("resnext101_32x8d")
    assert line.startswith("resnext101_32x8d.fb_wsl_ig1b_ft_in1k: its pretrained weights are cc-by-nc-4.0, ")
    assert line.endswith("; free of that: --backbones resnext101_32x8d.tv_in1k")
    assert notices("second_place") == [line]


@pytest.mark.parametrize("name", ["resnext101_32x8d.tv_in1k", "inception_v3", "efficientnet_b3", "seresnext50_32x4d"])
def test_free_weights_are_not_talked_about(name: str) -> None:
    assert notices(name) == []


@pytest.mark.parametrize("fields", [{"weights": "mine.safetensors"}, {"pretrained": False}])
def test_weights_of_ones_own_and_random_ones_are_not_talked_about(fields: dict[str, Any]) -> None:
    assert notices("resnext101_32x8d", **fields) == []


def test_the_free_alternative_is_trained_as_the_recipe_is() -> None:
    free = recipes.FREE[recipes.resnext101_32x8d().backbone]
    assert recipes.recipe(free) == replace(recipes.resnext101_32x8d(), backbone=free)


def test_a_notice_comes_once_and_not_for_the_ladder() -> None:
    task = recipes.resnext101_32x8d()
    steps = recipes.ladder(task)
    names = ("resnext101_32x8d",)
    found = Stages(HeadCT(), names, {names[0]: task, **steps}, {}, {})
    assert len(steps) == 3
    assert len(found.notices()) == 1
