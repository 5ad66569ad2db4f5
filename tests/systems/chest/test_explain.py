"""A small network learns, from films made here, that a bright square is a mass: is the heat where the square is?"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from fake_gpu import fake_gpu, moved

from medray.nn.backbone import Backbone
from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.explain import check_targets, explain, on_film, overlay
from medray.systems.chest.task import FilmTask
from medray.systems.chest.views import seen
from medray.tasks.task import At

pytestmark = pytest.mark.usefixtures("one_thread")

TASK = FilmTask(backbone="test_resnet", pretrained=False, targets=("Mass", "Edema"), resize_px=160, crop_px=140)


def film(rng: np.random.Generator, rows: int, columns: int, square: tuple[int, int, int] | None) -> np.ndarray:
    """Noise, and a square (top, left, side) or none."""
    pixels = rng.normal(90, 5, (rows, columns))
    if square is not None:
        top, left, side = square
        pixels[top : top + side, left : left + side] += 110
    return pixels.clip(0, 255).astype(np.uint8)


def row_of(pixels: np.ndarray, mass: bool) -> dict[str, Any]:
    names = {"image_id": "i", "patient_id": "p", "view": "PA", "image": pixels.tobytes()}
    size = {"rows": pixels.shape[0], "columns": pixels.shape[1]}
    return {**names, **size, **dict.fromkeys(FINDINGS, 0), "Mass": int(mass), "Edema": int(not mass)}


@pytest.fixture(scope="module")
def learned(one_thread: None) -> Backbone:
    """A mass is a square anywhere, an edema is none."""
    rng, side_px = np.random.default_rng(0), TASK.resize_px
    torch.manual_seed(0)
    network: Any = TASK.network().train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.3  # there are few steps for its running means
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(40):
        rows = []
        for mass in [True, False] * 6:
            top, left = (int(v) for v in rng.integers(0, side_px - 40, 2))
            rows.append(row_of(film(rng, side_px, side_px, (top, left, 40) if mass else None), mass))
        batch = TASK.collate([TASK.train_example(row, rng) for row in rows])
        batch |= {name: torch.from_numpy(batch[name]) for name in ("image", "labels")}
        loss = TASK.losses(network, batch, At())["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    assert isinstance(network, Backbone)
    return network


def middle(heat: np.ndarray) -> tuple[float, float]:
    """Row and column of its centre of mass."""
    hot = np.nan_to_num(heat)
    rows, columns = np.indices(hot.shape)
    return float((hot * rows).sum() / hot.sum()), float((hot * columns).sum() / hot.sum())


@pytest.mark.parametrize(
    ("rows", "columns", "square"),
    [
        (300, 300, (180, 60, 75)),
        (200, 400, (100, 120, 60)),  # landscape: the sides are cut off, left and right of the square differently
        (200, 400, (40, 240, 60)),
        (400, 200, (240, 100, 60)),  # portrait
        (400, 200, (120, 40, 60)),
        (500, 300, (200, 60, 80)),
    ],
)
def test_the_heat_lies_on_the_square(learned: Backbone, rows: int, columns: int, square: tuple[int, int, int]) -> None:
    pixels = film(np.random.default_rng(5), rows, columns, square)
    found = explain(TASK, [learned], pixels, row_of(pixels, True), ["Mass"])
    assert found.probabilities["Mass"] > 0.5 > found.probabilities["Edema"]
    heat = found.heat["Mass"]
    assert heat.shape == pixels.shape
    assert np.nanmax(heat) == pytest.approx(1, abs=0.02)
    top, left, side = square
    row, column = middle(heat)
    assert top <= row < top + side
    assert left <= column < left + side


def test_a_film_that_was_shrunk_for_the_shards_is_explained_on_its_own_pixels(learned: Backbone) -> None:
    import cv2

    pixels = film(np.random.default_rng(6), 640, 960, (330, 480, 160))
    stored = cv2.resize(pixels, (240, 160), interpolation=cv2.INTER_AREA)
    heat = explain(TASK, [learned], pixels, row_of(stored, True), ["Mass"]).heat["Mass"]
    assert heat.shape == (640, 960)
    row, column = middle(heat)
    assert 330 <= row < 490
    assert 480 <= column < 640


def test_maps_of_two_targets_differ(learned: Backbone) -> None:
    pixels = film(np.random.default_rng(7), 300, 300, (180, 60, 75))
    heat = explain(TASK, [learned], pixels, row_of(pixels, True), ["Mass", "Edema"]).heat
    assert np.abs(np.nan_to_num(heat["Mass"]) - np.nan_to_num(heat["Edema"])).max() > 0.5


def test_the_most_probable_targets_are_drawn_where_none_is_named(learned: Backbone) -> None:
    pixels = film(np.random.default_rng(8), 200, 200, None)
    found = explain(TASK, [learned], pixels, row_of(pixels, False), top=1)
    assert found.top(2) == ["Edema", "Mass"]
    assert list(found.heat) == ["Edema"]
    assert list(explain(TASK, [learned], pixels, row_of(pixels, False), top=1, also=["Mass"]).heat) == ["Edema", "Mass"]


def test_folds_are_averaged(learned: Backbone) -> None:
    torch.manual_seed(3)
    other: Any = TASK.network().eval()
    pixels = film(np.random.default_rng(9), 200, 300, (60, 120, 60))
    row = row_of(pixels, True)
    alone = [explain(TASK, [network], pixels, row, ["Mass"]) for network in (learned, other)]
    both = explain(TASK, [learned, other], pixels, row, ["Mass"])
    for name in TASK.names:
        assert both.probabilities[name] == pytest.approx(np.mean([found.probabilities[name] for found in alone]))
    twice = explain(TASK, [learned, learned], pixels, row, ["Mass"])
    np.testing.assert_allclose(twice.heat["Mass"], alone[0].heat["Mass"], atol=1e-5)


def test_probabilities_are_those_of_validation(learned: Backbone) -> None:
    """As ``outputs`` gives them, views and all; the map is of the central crop with any views."""
    pixels = film(np.random.default_rng(10), 200, 300, (60, 120, 60))
    row = row_of(pixels, True)
    heats = []
    for views in ("centre", "flip", "ten"):
        task = replace(TASK, views=views)
        found = explain(task, [learned], pixels, row, ["Mass"])
        batch = task.collate([task.example(row)])
        batch |= {name: torch.from_numpy(batch[name]) for name in ("image", "labels")}
        with torch.inference_mode():
            assert found.probabilities["Mass"] == task.outputs(learned, batch)["p_Mass"][0]
        heats.append(found.heat["Mass"])
    np.testing.assert_array_equal(heats[0], heats[1])
    np.testing.assert_array_equal(heats[0], heats[2])


@pytest.mark.parametrize(("rows", "columns"), [(300, 300), (200, 400), (400, 200), (1024, 1024), (2500, 2048)])
def test_each_place_of_a_map_lies_where_the_network_saw_it(rows: int, columns: int) -> None:
    top, left, height, width = seen(rows, columns, TASK.resize_px, TASK.crop_px)
    for place in [(0, 0), (0, 4), (3, 1), (4, 4)]:
        evidence = np.zeros((5, 5), np.float32)
        evidence[place] = 7
        heat = on_film(evidence, (rows, columns), TASK)
        inside = ~np.isnan(heat)
        assert inside.sum() == pytest.approx(height * width, rel=0.02)
        assert np.flatnonzero(inside.any(1))[0] == pytest.approx(top, abs=1)
        assert np.flatnonzero(inside.any(0))[0] == pytest.approx(left, abs=1)
        row, column = (float(axis.mean()) for axis in np.nonzero(np.nan_to_num(heat) > 0.99 * np.nanmax(heat)))
        # a place at the edge is as hot up to the edge
        assert top + place[0] * height / 5 <= row <= top + (place[0] + 1) * height / 5
        assert left + place[1] * width / 5 <= column <= left + (place[1] + 1) * width / 5


def test_no_evidence_is_no_heat() -> None:
    heat = on_film(np.zeros((5, 5), np.float32), (200, 400), TASK)
    assert np.nanmax(heat) == 0
    assert np.isnan(heat[:, 0]).all()
    pixels = film(np.random.default_rng(0), 200, 400, None)
    shown = overlay(pixels, heat)
    inner = (slice(60, 140), slice(160, 240))
    np.testing.assert_array_equal(shown[inner], np.repeat(pixels[inner][..., None], 3, axis=2))


def test_the_overlay_has_the_films_size_and_colours_only_the_heat() -> None:
    pixels = film(np.random.default_rng(0), 200, 400, None)
    evidence = np.zeros((5, 5), np.float32)
    evidence[1, 3] = 1
    heat = on_film(evidence, pixels.shape, TASK)
    shown = overlay(pixels, heat)
    assert shown.shape == (200, 400, 3)
    assert shown.dtype == np.uint8
    row, column = np.unravel_index(int(np.nan_to_num(heat).argmax()), heat.shape)
    red, _, blue = shown[row, column].astype(int)
    assert red > blue + 30
    outside = np.isnan(heat)
    np.testing.assert_array_equal(shown[outside], np.repeat(pixels[outside][:, None], 3, axis=1))


def test_a_target_that_the_model_has_not_is_one_line() -> None:
    with pytest.raises(ValueError, match="^--target Hernia: this model answers for Mass, Edema$"):
        check_targets(TASK, ["Mass", "Hernia"])


def test_a_backbone_without_maps_is_one_line() -> None:
    task = replace(TASK, backbone="test_vit")
    pixels = film(np.random.default_rng(0), 160, 160, None)
    network: Any = replace(task, crop_px=160).network().eval()
    with pytest.raises(ValueError, match="no maps in space"):
        explain(replace(task, crop_px=160), [network], pixels, row_of(pixels, False), ["Mass"])


@pytest.mark.parametrize("views", ["centre", "ten"])
def test_a_film_is_explained_on_a_gpu_as_on_a_cpu(learned: Backbone, views: Literal["centre", "ten"]) -> None:
    task, pixels = replace(TASK, views=views), film(np.random.default_rng(5), 170, 160, (30, 40, 40))
    row = row_of(pixels, True)
    wanted = explain(task, [learned], pixels, row)
    with fake_gpu():
        found = explain(task, [moved(copy.deepcopy(learned))], pixels, row)  # type: ignore[list-item]
    assert found.probabilities == pytest.approx(wanted.probabilities)
    for name in wanted.heat:
        np.testing.assert_allclose(found.heat[name], wanted.heat[name], atol=1e-4)
