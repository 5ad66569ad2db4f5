from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medray.nn.backbone import Backbone
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.task import IDENTIFIERS, SliceTask
from medray.systems.ich.views import Views, view

pytestmark = pytest.mark.usefixtures("one_thread")

FLIPS = ("flip", "flip-vertical", "flip-both", "transpose")


class Averages(nn.Module):
    """The features are the mean of each channel; every class reads all of them. Blind to where a pixel stands."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3, 6)

    def features(self, images: Tensor) -> Tensor:
        return images.double().mean(dim=(2, 3)).float() / 255

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.features(images))
        assert isinstance(logits, Tensor)
        return logits


class Corner(nn.Module):
    """The one feature is the upper left pixel / 10; logits are 1, 2, ... 6 times it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 6, bias=False)
        self.head.weight.data = torch.arange(1.0, 7.0).reshape(6, 1)

    def features(self, images: Tensor) -> Tensor:
        return images[:, :1, 0, 0].float() / 10


def batch_of(images: Tensor) -> dict[str, Any]:
    count = len(images)
    names = {name: np.array([f"{name}{i}" for i in range(count)], dtype=object) for name in IDENTIFIERS}
    labels = torch.arange(count * 6).reshape(count, 6) % 2
    return {**names, "image": images, "labels": labels.float()}


def noise(count: int = 3, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def answers(network: Any, images: Tensor, **fields: Any) -> tuple[np.ndarray, np.ndarray]:
    """(batch, 6) probabilities and (batch, features)."""
    with torch.inference_mode():
        out = Views(**fields).outputs(SliceTask(), network, batch_of(images))
    return np.stack([out[name] for name in PROBABILITIES], axis=1), np.stack(list(out["feature"]))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("plain", [[1, 2, 3], [4, 5, 6]]),
        ("flip", [[3, 2, 1], [6, 5, 4]]),
        ("flip-vertical", [[4, 5, 6], [1, 2, 3]]),
        ("flip-both", [[6, 5, 4], [3, 2, 1]]),
        ("transpose", [[1, 4], [2, 5], [3, 6]]),
    ],
)
def test_views_by_hand(name: str, wanted: list[list[int]]) -> None:
    first = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)
    images = torch.stack([torch.stack([first, first + 10]), torch.stack([first + 20, first + 30])])
    seen = view(images, name)
    assert seen.dtype == torch.uint8
    expected = torch.tensor(wanted, dtype=torch.uint8)
    for i in range(2):
        for channel in range(2):
            assert torch.equal(seen[i, channel], expected + 20 * i + 10 * channel)


def test_a_crop_shows_only_the_inside_at_the_whole_size() -> None:
    images = torch.full((1, 2, 16, 24), 200, dtype=torch.uint8)
    images[:, :, 4:12, 6:18] = 50
    seen = view(images, "crop-50")
    assert seen.shape == images.shape
    assert seen.dtype == torch.uint8
    assert (seen == 50).all()
    assert (view(images, "crop-80") == 200).any()  # more than the inside


def test_a_crop_is_central_and_enlarged() -> None:
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8)
    seen = view(ramp.expand(1, 1, 32, 32), "crop-50")[0, 0].int()
    assert (seen.diff(dim=1) >= 0).all()
    assert (seen == seen[0]).all()
    assert seen[0, 0] == ramp[8]
    assert seen[0, -1] == ramp[23]
    assert (seen[0] + seen[0].flip(0) == 248).all()  # as far from the left as from the right


@pytest.mark.parametrize(("name", "size"), [("scale-150", (48, 36)), ("scale-50", (16, 12)), ("scale-200", (64, 48))])
def test_a_scale_gives_another_size_of_the_same_picture(name: str, size: tuple[int, int]) -> None:
    images = torch.full((2, 3, 32, 24), 9, dtype=torch.uint8)
    images[:, :, :16] = 255
    seen = view(images, name)
    assert seen.shape == (2, 3, *size)
    assert seen.dtype == torch.uint8
    assert (seen[:, :, : size[0] // 2 - 2] == 255).all()
    assert (seen[:, :, size[0] // 2 + 2 :] == 9).all()


def test_resizing_stays_between_black_and_white() -> None:
    checks = torch.zeros((1, 1, 32, 32), dtype=torch.uint8)
    checks[:, :, ::2, ::2] = 255
    for name in ("scale-70", "scale-130", "crop-70"):
        mean = view(checks, name).float().mean()
        assert mean == pytest.approx(255 / 4, abs=12), name  # a value that wraps round would move it


@pytest.mark.parametrize("mean", ["logit", "probability"])
def test_a_network_that_is_blind_to_places_gives_the_same_answer_for_all_flips(mean: str) -> None:
    network, images = Averages(), noise()
    plain, feature = answers(network, images, views=("plain",), view_mean=mean)
    for views in ([name] for name in FLIPS):
        flipped, flipped_feature = answers(network, images, views=tuple(views), view_mean=mean)
        np.testing.assert_allclose(flipped, plain, atol=1e-12)
        np.testing.assert_allclose(flipped_feature, feature, atol=1e-12)
    together, _ = answers(network, images, views=("plain", *FLIPS), view_mean=mean)
    np.testing.assert_allclose(together, plain, atol=1e-6)


def two_corners() -> Tensor:
    """The upper left pixel is 4, the upper right one 24: features .4 and 2.4."""
    images = torch.zeros((1, 3, 4, 4), dtype=torch.uint8)
    images[0, 0, 0, 0], images[0, 0, 0, 3] = 4, 24
    return images


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_logits_are_averaged_and_then_become_probabilities() -> None:
    probabilities, feature = answers(Corner(), two_corners(), views=("plain", "flip"), view_mean="logit")
    times = np.arange(1, 7)
    np.testing.assert_allclose(probabilities[0], sigmoid(times * (0.4 + 2.4) / 2), atol=1e-6)
    np.testing.assert_allclose(feature, [[1.4]], atol=1e-6)


def test_probabilities_are_averaged_as_they_are() -> None:
    probabilities, feature = answers(Corner(), two_corners(), views=("plain", "flip"), view_mean="probability")
    times = np.arange(1, 7)
    np.testing.assert_allclose(probabilities[0], (sigmoid(times * 0.4) + sigmoid(times * 2.4)) / 2, atol=1e-6)
    np.testing.assert_allclose(feature, [[1.4]], atol=1e-6)


def test_three_views_weigh_a_third_each() -> None:
    views = ("plain", "flip", "flip-vertical")  # the lower left pixel is 0
    probabilities, feature = answers(Corner(), two_corners(), views=views)
    np.testing.assert_allclose(probabilities[0], sigmoid(np.arange(1, 7) * 2.8 / 3), atol=1e-6)
    np.testing.assert_allclose(feature, [[2.8 / 3]], atol=1e-6)


@pytest.mark.parametrize("mean", ["logit", "probability"])
def test_plain_alone_is_what_the_task_predicts(mean: str) -> None:
    task = SliceTask(backbone="test_resnet", pretrained=False, size_px=32, dropout=0.5)
    torch.manual_seed(0)
    network = task.network().eval()
    assert isinstance(network, Backbone)
    batch = batch_of(noise())
    with torch.inference_mode():
        wanted, features = task.outputs(network, batch), network.features(batch["image"]).numpy()
        out = Views(views=("plain",), view_mean=mean).outputs(task, network, batch)  # type: ignore[arg-type]
    assert set(out) == {*wanted, "feature"}
    for name in PROBABILITIES:
        assert out[name].dtype == np.float64
        np.testing.assert_allclose(out[name], wanted[name], rtol=0, atol=1e-12)
    for name in (*IDENTIFIERS, *CLASSES):
        assert out[name].tolist() == wanted[name].tolist()
    assert out["feature"].dtype == object
    assert [f.dtype for f in out["feature"]] == [np.float32] * 3
    assert np.array_equal(np.stack(list(out["feature"])), features)


def test_views_of_other_sizes_go_through_a_real_network() -> None:
    torch.manual_seed(0)
    network = Backbone("test_resnet", 3, 6, pretrained=False).eval()
    views = ("plain", "transpose", "crop-90", "scale-120", "scale-75")
    probabilities, features = answers(network, noise(), views=views)
    alone = [answers(network, noise(), views=(name,)) for name in views]
    logits = np.mean([np.log(p / (1 - p)) for p, _ in alone], axis=0)
    np.testing.assert_allclose(probabilities, sigmoid(logits), atol=1e-6)
    np.testing.assert_allclose(features, np.mean([f for _, f in alone], axis=0), atol=1e-5)
    assert not np.allclose(alone[0][0], alone[3][0], atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["flop", "Flip", "", "crop", "crop-49", "crop-100", "crop-5", "scale-49", "scale-201", "scale-1000", "scale-120%",
     "scale--90", "crop-9.5", "flip flip"],
)  # fmt: skip
def test_an_unknown_view_or_size_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="unknown; there are plain, flip") as error:
        Views(views=("plain", name))
    assert str(error.value).startswith(f"--views {name}: ")
    assert "\n" not in str(error.value)


def test_the_ends_of_the_ranges_are_views() -> None:
    assert len(Views(views=("crop-50", "crop-99", "scale-50", "scale-99", "scale-100", "scale-200")).views) == 6


def test_no_view_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="--views: at least one"):
        Views(views=())


def test_the_identity_is_json_and_tells_views_apart() -> None:
    identity = Views(views=("plain", "crop-90"), view_mean="probability").identity()
    assert json.loads(json.dumps(identity)) == {"views": ["plain", "crop-90"], "view_mean": "probability"}
    assert identity != Views(views=("plain", "crop-90")).identity()
    assert identity != Views(views=("plain", "crop-91"), view_mean="probability").identity()
