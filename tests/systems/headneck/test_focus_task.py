"""The stages for small organs: which weights they start from, what is frozen, when an organ's own answer counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from organ_scans import ORGANS, organ_row

from medray.engine.train.outputs import evaluate
from medray.systems.headneck import recipes
from medray.systems.headneck.focus_task import FROM_FOCUS, FROM_SNET, FocusTask, peak_of
from medray.systems.headneck.task import OrganTask

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ORGANS[1:]
CPU = torch.device("cpu")


def base() -> OrganTask:
    return replace(recipes.small(), organs=ORGANS, patch_DHW=(12, 12, 12), widths=(8, 16), batch_size=2)


def task(stage: Literal["sol", "sos"] = "sos", **changes: Any) -> FocusTask:
    return recipes.stage(FocusTask, base(), SMALL, stage=stage, region_mm=(20.0, 32.0, 32.0), **changes)


def test_every_weight_of_snet_has_its_place_in_the_next_stages() -> None:
    first, second = base().network().state_dict(), task("sol").network().state_dict()
    (old, new), *_ = FROM_SNET.items()
    assert {name.replace(old, new, 1) for name in first} == {name for name in second if name.startswith(new)}
    for name, weight in first.items():
        assert second[name.replace(old, new, 1)].shape == weight.shape
    third = task("sos").network().state_dict()
    assert {*FROM_FOCUS} == {"snet.", "sol."}
    assert {name for name in third if not name.startswith(tuple(FROM_FOCUS))} == {
        name for name in third if name.startswith("sos.")
    }


@pytest.mark.parametrize(("stage", "trained"), [("sol", "sol."), ("sos", "sos.")])
def test_a_stage_trains_its_own_part_alone(stage: Literal["sol", "sos"], trained: str) -> None:
    for name, parameter in task(stage).network().named_parameters():
        assert parameter.requires_grad == name.startswith(trained), name


class Told(torch.nn.Module):
    """In place of a trained FocusNet: S-Net finds nothing, heatmaps have a peak of a given height, outlines are everything."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height

    def maps(self, voxels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch, _, *shape = voxels.shape
        logits = torch.full((batch, len(ORGANS), *shape), -9.0)
        return (
            torch.zeros(batch, 8, *shape),
            logits,
            self.height * (voxels >= 1).float().expand(-1, len(SMALL), *shape),
        )

    def outline(self, k: int, features: torch.Tensor, heatmap: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        assert features.shape[2:] == heatmap.shape[2:] == voxels.shape[2:]
        return torch.full_like(heatmap, 9.0)


def predicted(height: float, **changes: Any) -> pd.Series:
    row = organ_row(0)
    row["voxels"] = (np.frombuffer(row["voxels"], np.float32) + _spot(row)).astype(np.float32).tobytes()
    one = task(**changes)
    return evaluate(one, Told(height), [one.collate([one.example(row)])], CPU).iloc[0]


def _spot(row: dict[str, Any]) -> np.ndarray:
    """One very bright voxel in the middle of Parotid_L."""
    d, h, w = (b - a for a, b in zip(row["box_DHW"][::2], row["box_DHW"][1::2], strict=True))
    spot = np.zeros((d, h, w), np.float32)
    spot[7, 9, 13] = 9  # of the box, which begins at 1
    return spot.ravel()


def test_an_organs_own_answer_counts_where_its_peak_is_confident() -> None:
    sure, unsure = predicted(0.9), predicted(0.5)
    assert (sure["peak_Parotid_L"], unsure["peak_Parotid_L"]) == pytest.approx((0.9, 0.5), abs=1e-3)
    assert sure["ml_Parotid_R"] > 0 or sure["ml_Parotid_L"] > 0
    assert unsure["ml_Parotid_L"] == unsure["ml_Parotid_R"] == 0
    d, h, w = task().region_DHW
    box_ml = min(d, 14) * min(h, 18) * min(w, 22) * 2.5 / 1000
    assert (
        sure["ml_Parotid_L"] == sure["ml_Parotid_R"] == pytest.approx(box_ml, rel=0.35)
    )  # each by itself: they overlap
    assert sure["ml_Brainstem"] == 0
    assert sure["peak_mm_Parotid_L"] < 4  # the balls move by a voxel
    assert predicted(0.9, stage="sol")["ml_Parotid_L"] == 0  # no outline has been learned yet


def test_a_peak_is_the_middle_of_its_hill_and_no_other_hill_moves_it() -> None:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (12, 24, 24)), indexing="ij"), -1)
    hill = np.exp(-0.5 * (((grid - np.array((5, 10, 11))) / 2.5) ** 2).sum(-1))
    noisy = hill.copy()
    noisy[6, 11, 12] = 1.01  # higher than the middle
    noisy += 0.9 * np.exp(-0.5 * (((grid - np.array((5, 22, 22))) / 2.5) ** 2).sum(-1))
    assert peak_of(noisy, (2.5, 2.5, 2.5)) == (pytest.approx(1.01), (5, 10, 11))
    assert peak_of(np.zeros((4, 5, 6)), (1.0, 1.0, 1.0)) == (0.0, (0, 0, 0))
    assert peak_of(hill[5:], (2.5, 2.5, 2.5))[1] == (1, 10, 11)  # cut by the image's edge: half of the hill is seen


def test_a_gate_at_another_height() -> None:
    assert predicted(0.5, gate=0.4)["ml_Parotid_L"] + predicted(0.5, gate=0.4)["ml_Parotid_R"] > 0


def test_figures_are_of_the_small_organs() -> None:
    one = task("sol")
    table = pd.DataFrame({
        **{f"dice_{organ}": [0.5, 0.7] for organ in ORGANS}, "peak_mm_Parotid_L": [2.0, 6.0], "peak_mm_Parotid_R": [4.0, np.nan],
        "peak_Parotid_L": [0.9, 0.2], "peak_Parotid_R": [0.9, 0.8],
    })  # fmt: skip
    found = one.metrics(table)
    assert next(iter(found)) == "peak_mm"
    assert (found["peak_mm"], found["confident_Parotid_L"], found["confident_Parotid_R"]) == (4.0, 0.5, 1.0)
    assert next(iter(replace(one, stage="sos").metrics(table).items())) == ("one_minus_dice_small", pytest.approx(0.4))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"small": ("Lens_L",)}, "--small Lens_L: the run learns Brainstem, Parotid_L, Parotid_R"),
        ({"gate": 1.0}, "--gate 1.0"),
        ({"architecture": "unet"}, "--architecture unet: the stages for small organs stand on snet"),
        ({"patch_DHW": (12, 12, 13)}, "--patch-DHW 12 12 13: multiples of 2 with 2 widths"),
        ({"test_flips": True}, "--test-flips, --context-padding"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(task(), **changes)


def test_without_small_organs_there_is_no_network() -> None:
    with pytest.raises(ValueError, match="--small: name the organs"):
        replace(task(), small=()).network()
