from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from medray.systems.boneage.recipes import MODELS, RECIPES, Recipe, chosen, model_task, recipe
from medray.systems.boneage.task import MONTHS, AgeTask
from medray.tasks.task import At

SMALL = AgeTask(scale=0.02, channels=(4,), dense=8, dropout=0.0, batch_size=2)


class Fixed(torch.nn.Module):
    """Answers what it is given."""

    def __init__(self, answers: Any) -> None:
        super().__init__()
        self.answers = torch.tensor(answers)

    def forward(self, images: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        return self.answers


def batch(months: list[float]) -> dict[str, Any]:
    count = len(months)
    ids = np.array([f"film{i}" for i in range(count)], dtype=object)
    return {
        "film_id": ids, "patient_id": ids, "sex": np.array(["F"] * count, dtype=object), "image": torch.zeros(count, 1, 4, 4),
        "beside": torch.zeros(count, 0), "months": torch.tensor(months), "calendar": torch.full((count,), float("nan")),
    }  # fmt: skip


def test_the_regressions_scale_is_the_sources() -> None:
    task = replace(SMALL, head="regression")
    network = Fixed([[-1.0], [0.0], [0.5]])
    given = batch([0.0, 120.0, 192.0])
    assert task.outputs(network, given)["p_months"].tolist() == [0.0, 120.0, 180.0]
    assert float(task.losses(network, given, At())["loss"]) == pytest.approx(12 / 120 / 3)


def test_class_0_is_a_bone_age_of_one_month_and_the_last_of_240() -> None:
    task = replace(SMALL, head="classification")
    logits = np.full((3, MONTHS), -50.0, np.float32)
    logits[0, 0] = logits[1, 239] = logits[2, 9] = 50.0
    logits[2, 19] = 50.0  # between 10 and 20 months
    network, given = Fixed(logits), batch([1.0, 240.0, 15.0])
    assert task.outputs(network, given)["p_months"] == pytest.approx([1.0, 240.0, 15.0], abs=1e-4)
    assert float(task.losses(network, given, At())["loss"]) == pytest.approx(0, abs=1e-6)
    assert task.network()(torch.zeros(2, 1, *task.image_px, dtype=torch.uint8)).shape == (2, MONTHS)


def row(sex: str | None, calendar: float | None) -> dict[str, Any]:
    rows, columns = SMALL.image_px
    image = np.zeros((rows, columns), np.uint8)
    about = {"film_id": "a", "patient_id": "p", "age_months": 30.0, "sex": sex, "calendar_months": calendar}
    return about | {"rows": rows, "columns": columns, "image": image.tobytes()}


@pytest.mark.parametrize(
    ("sex", "calendar", "told"),
    [("F", 240.0, [-1, 1, 1]), ("M", 0.0, [1, -1, 1]), (None, None, [0, 0, 0]), (None, float("nan"), [0, 0, 0])],
)
def test_what_the_network_is_told(sex: str | None, calendar: float | None, told: list[float]) -> None:
    task = replace(SMALL, inputs=("sex", "calendar"))
    assert task.example(row(sex, calendar))["beside"].tolist() == told
    assert replace(SMALL, inputs=()).example(row(sex, calendar))["beside"].size == 0
    assert replace(SMALL, inputs=("calendar",)).example(row(sex, calendar))["beside"].tolist() == told[1:]


def test_whose_films_a_model_reads() -> None:
    index = pd.DataFrame({"sex": ["F", "M", None, "F"], "age_months": [1.0, None, 3.0, 4.0]})
    assert replace(SMALL, sexes="girls").reads(index).tolist() == [True, False, False, True]
    assert replace(SMALL, sexes="boys").reads(index).tolist() == [False, True, False, False]
    assert replace(SMALL, sexes="both").reads(index).all()
    assert SMALL.labelled(index).tolist() == [True, False, True, True]


def test_training_never_mirrors_a_registered_hand() -> None:
    task = replace(SMALL, scale=0.05, rotate_deg=5.0, contrast=0.0)
    rows, columns = task.image_px
    image = np.zeros((rows, columns), np.uint8)
    image[:, : columns // 4] = 200
    given = row("F", None) | {"image": image.tobytes(), "rows": rows, "columns": columns}
    for seed in range(20):
        made = task.train_example(given, np.random.default_rng(seed))["image"][0].astype(float)
        assert made[:, : columns // 2].mean() > made[:, columns // 2 :].mean()


def test_eighteen_models_and_names_of_some() -> None:
    assert len(MODELS) == len(set(MODELS)) == 18
    assert {model_task(SMALL, model).model for model in MODELS} == set(MODELS)
    assert len(chosen(("A",))) == 6
    assert chosen(("girls", "A-regression")) == tuple(m for m in MODELS if "girls" in m or m.startswith("A-regression"))
    assert chosen(("B-classification-both",)) == ("B-classification-both",)
    for wrong in ("D", "A-girls-boys", "a"):
        with pytest.raises(ValueError, match=f"--models {wrong}: no model is called so"):
            chosen((wrong,))
    with pytest.raises(ValueError, match="--models: name one or more"):
        Recipe(models=())
    assert Recipe(("C", "A-regression-both")).models[0] == "A-regression-both"
    with pytest.raises(ValueError, match="--registered --no-register"):
        Recipe(registered=True, register=False)


def test_regions_have_the_sources_sizes() -> None:
    sizes = {m[0]: model_task(RECIPES["published"]().age, m).image_px for m in MODELS}
    assert sizes == {"A": (500, 375), "B": (375, 375), "C": (300, 700)}
    with pytest.raises(ValueError, match="--recipe x: no such recipe; there are published, modern, phantom"):
        recipe("x")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scale": 0.0}, "--scale 0.0"),
        ({"pretrained": True}, "starts from random weights"),
        ({"zoom": 1.0}, "--zoom 1.0"),
        ({"copies": 0}, "--copies 0"),
        ({"dropout": 2.0}, "--dropout 2.0"),
        ({"channels": (0,)}, "--channels 0"),
        ({"dense": 0}, "--dense 0"),
    ],
)
def test_wrong_values_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(SMALL, **changes)


def test_an_unknown_backbone_is_answered_by_the_flag_that_named_it() -> None:
    with pytest.raises(ValueError, match="^--backbone nothing: timm has no such model"):
        AgeTask(backbone="nothing", epochs=1, batch_size=4, learning_rate=1e-3).network()
