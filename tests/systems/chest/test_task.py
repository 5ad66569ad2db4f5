from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from chest_films import film_row, noise
from safetensors.torch import save_file
from torch import nn

from medray.engine.train.device import to_device
from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.recipes import RECIPES, TARGETS, recipe
from medray.systems.chest.task import FilmTask, labels_of
from medray.systems.chest.views import centre, resized, seen
from medray.tasks.task import At

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def tiny(**fields: Any) -> FilmTask:
    defaults: dict[str, Any] = {
        "backbone": "test_resnet", "pretrained": False, "resize_px": 48, "crop_px": 40, "targets": ("tumour", "Edema"),
    }  # fmt: skip
    return FilmTask(**defaults | fields)


def batch_of(task: FilmTask, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return to_device(task.collate([task.example(row) for row in rows]), CPU, task.host)


@pytest.mark.parametrize(
    ("mass", "nodule", "expected"),
    [(1, 0, 1), (1, None, 1), (None, 1, 1), (0, 0, 0), (0, None, np.nan), (None, None, np.nan), (0.0, np.nan, np.nan)],
)
def test_a_group_is_one_unknown_or_zero(mass: Any, nodule: Any, expected: float) -> None:
    row = film_row(0) | {"Mass": mass, "Nodule": nodule}
    np.testing.assert_array_equal(labels_of(row, ("tumour", "x=Nodule|Mass")), [expected, expected])


def test_abnormal_is_any_of_the_fourteen() -> None:
    assert labels_of(film_row(0), ("abnormal",)).tolist() == [0]
    for place in range(14):
        assert labels_of(film_row(1 << place), ("abnormal", FINDINGS[place])).tolist() == [1, 1]


@pytest.mark.parametrize("views", ["centre", "flip"])
def test_an_example_is_the_central_crop(views: Any) -> None:
    row = film_row(5, rows=96, columns=120)
    example = tiny(views=views).example(row)
    film = noise(5, 96, 120)
    assert np.array_equal(example["image"][0], centre(resized(film, 48), 40))
    assert example["image"].shape == (1, 40, 40)
    assert resized(film, 48).shape == (48, 60)


def test_training_crops_anywhere_and_flips() -> None:
    task, row = tiny(resize_px=48, crop_px=46), film_row(3, rows=48, columns=48)
    film = noise(3, 48, 48)
    crops = {film[a : a + 46, b : b + 46][:, ::d].tobytes() for a in range(3) for b in range(3) for d in (1, -1)}
    found = {task.train_example(row, np.random.default_rng(seed))["image"].tobytes() for seed in range(200)}
    assert found == crops
    fixed = replace(task, random_crop=False, flip=False)
    examples = {fixed.train_example(row, np.random.default_rng(seed))["image"].tobytes() for seed in range(5)}
    assert examples == {fixed.example(row)["image"].tobytes()}


def test_an_affine_is_off_until_it_is_asked_for() -> None:
    row = film_row(3, rows=48, columns=48)
    task = tiny(flip=False, random_crop=False, rotate_deg=20.0)
    images = [task.train_example(row, np.random.default_rng(seed))["image"] for seed in range(6)]
    assert any(not np.array_equal(image, task.example(row)["image"]) for image in images)
    assert all(image.shape == (1, 40, 40) for image in images)


class Corner(nn.Module):
    """Logits that tell which pixels it was shown."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[:, 0, 0, 0], images[:, 0, -1, -1]], dim=1).float() / 64 - 2


@pytest.mark.parametrize("views", ["centre", "flip", "ten"])
def test_probabilities_are_means_over_the_views(views: Any) -> None:
    task, rows = tiny(views=views), [film_row(n, rows=48, columns=48) for n in (1, 2)]
    table = task.outputs(Corner(), batch_of(task, rows))
    for i, number in enumerate((1, 2)):
        film = noise(number, 48, 48)
        starts = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)] if views == "ten" else [(4, 4)]
        crops = [film[a : a + 40, b : b + 40] for a, b in starts]
        shown = crops if views == "centre" else [c[:, ::d] for c in crops for d in (1, -1)]
        assert len(shown) == {"centre": 1, "flip": 2, "ten": 10}[views]
        for name, place in (("p_tumour", (0, 0)), ("p_Edema", (-1, -1))):
            expected = np.mean([1 / (1 + np.exp(-(float(crop[place]) / 64 - 2))) for crop in shown])
            assert table[name][i] == pytest.approx(expected, rel=1e-6)
    assert table["view"].tolist() == ["AP", "PA"]


def test_a_batch_of_ten_views_has_a_loss_too() -> None:
    task = tiny(views="ten")
    batch = batch_of(task, [film_row(n, rows=48, columns=48) for n in (1, 32)])
    assert batch["image"].shape == (2, 1, 48, 48)
    centred = replace(task, views="centre")
    other = batch_of(centred, [film_row(n, rows=48, columns=48) for n in (1, 32)])
    network = task.network().eval()
    with torch.inference_mode():
        assert float(task.losses(network, batch, At())["loss"]) == float(centred.losses(network, other, At())["loss"])


def test_a_view_that_is_unknown_is_empty_text() -> None:
    task = tiny()
    with torch.inference_mode():
        table = task.outputs(task.network().eval(), batch_of(task, [film_row(1) | {"view": None}, film_row(2)]))
    assert table["view"].tolist() == ["", "PA"]


def test_positive_weight_changes_the_loss_of_positives_only() -> None:
    network = tiny().network().eval().requires_grad_(False)
    for row, factor in ((film_row(0), 1.0), (film_row((1 << 4) | (1 << 9)), 3.0)):
        batch = batch_of(tiny(), [row])
        plain = tiny().losses(network, batch, At())["loss"]
        assert float(tiny(positive_weight=3.0).losses(network, batch, At())["loss"]) == pytest.approx(
            factor * float(plain)
        )


def test_identity_and_weights(tmp_path: Path) -> None:
    state = {n: v + 0.25 for n, v in timm.create_model("test_resnet", num_classes=10).state_dict().items()}
    save_file(state, tmp_path / "test_resnet.safetensors")
    task = tiny(weights=str(tmp_path / "{backbone}.safetensors"), pretrained=True)
    assert task.starts_from_weights
    assert not task.without_weights().starts_from_weights
    assert task.identity()["weights"] == str(tmp_path / "test_resnet.safetensors")
    loaded: Any = task.network()
    found = {name: value for name, value in loaded.body.state_dict().items() if value.is_floating_point()}
    assert all(torch.equal(value, state[name]) for name, value in found.items())
    assert (
        tiny(weights="s3://bucket/w.pt?endpoint_override=host:1&scheme=http").identity()["weights"]
        == "s3://bucket/w.pt"
    )


def test_the_example_input_fits_the_network() -> None:
    task = tiny()
    assert task.has_example_input
    assert task.network()(torch.from_numpy(task.example_input())).shape == (2, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"targets": ()}, "--targets: one or more"),
        ({"targets": ("Mass", "mass")}, "--targets: Mass is asked for more than once"),
        ({"targets": ("Lump",)}, "--targets Lump:"),
        ({"targets": ("view=Mass",)}, "view is the name of another column"),
        ({"crop_px": 300}, "--crop-px 300, --resize-px 48"),
        ({"crop_px": 16}, "--crop-px 16"),
        ({"positive_weight": 0}, "--positive-weight 0"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1.0"),
        ({"zoom": 2.0}, "--shift 0.0, --zoom 2.0"),
    ],
)
def test_fields_that_cannot_be_are_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**fields)


def test_the_seen_part_of_a_film_undoes_resize_and_crop() -> None:
    assert seen(1024, 1024, 256, 224) == (64, 64, 896, 896)
    top, left, height, width = seen(3000, 2000, 256, 224)
    assert (left, width) == (16 * 2000 / 256, 224 * 2000 / 256)
    assert top == pytest.approx(80 * 3000 / 384)
    assert height == pytest.approx(1750)
    # pixel for pixel: a square of the film is where the crop says it is
    film = np.zeros((400, 300), np.uint8)
    film[200:240, 140:180] = 255
    crop = centre(resized(film, 150), 120)
    rows, columns = np.flatnonzero(crop.max(axis=1) > 127), np.flatnonzero(crop.max(axis=0) > 127)
    top, left, height, width = seen(400, 300, 150, 120)
    assert top + rows[0] / 120 * height == pytest.approx(200, abs=2)
    assert left + (columns[-1] + 1) / 120 * width == pytest.approx(180, abs=2)


def test_recipes_are_the_methods() -> None:
    for name in RECIPES:
        for targets, expected in TARGETS.items():
            assert recipe(name, targets).names == expected  # type: ignore[arg-type]
    chexnet, sgd = recipe("chexnet"), recipe("sgd")
    assert (chexnet.backbone, chexnet.resize_px, chexnet.crop_px, chexnet.batch_size) == ("densenet121", 256, 224, 16)
    assert (chexnet.optimizer, chexnet.learning_rate, chexnet.targets) == ("adam", 1e-3, FINDINGS)
    assert replace(chexnet, optimizer="sgd") == sgd
    with pytest.raises(ValueError, match="--recipe chexnat: no such recipe; did you mean chexnet"):
        recipe("chexnat")
    assert recipe("small").shard_needs == ("64px",)
