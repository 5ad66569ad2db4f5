"""True labels and pseudo-labels in one mask: the true ones win, whatever another source's network has found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medray.systems.fewlabel.possible import UNTRUE, Possible, numbers_of, set_of, with_pseudo
from medray.tasks.volume_rows import UNKNOWN

CLASSES = 4


def sets(*groups: tuple[int, ...]) -> list[int]:
    return [set_of(group) for group in groups]


def merged(mask: np.ndarray, own: list[int], pseudo: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each voxel may be after merging (bits), and where networks may teach each other."""
    numbers, table = with_pseudo(mask, own, pseudo, near, CLASSES)
    return np.array(table)[numbers % UNTRUE], numbers >= UNTRUE


@pytest.mark.parametrize("seed", range(20))
def test_true_labels_win_and_are_taught_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labelled = sorted(rng.permutation(np.arange(1, CLASSES))[: rng.integers(0, CLASSES)].tolist())
    rest = tuple(c for c in range(CLASSES) if c not in labelled)
    own = sets(rest, *((c,) for c in labelled))
    mask = rng.integers(0, len(own), (4, 5, 6)).astype(np.uint8)
    pseudo, near = rng.integers(0, CLASSES, mask.shape).astype(np.uint8), rng.random(mask.shape) < 0.5
    bits, taught = merged(mask, own, pseudo, near)
    true = np.array(own)[mask]
    certain = (true & (true - 1)) == 0
    assert (bits[certain] == true[certain]).all()
    assert not taught[certain].any()
    assert (taught[~certain] == near[~certain]).all()
    for organ in labelled:  # a source that labels an organ knows that all else is not it
        assert ((bits >> organ & 1 > 0) == (true >> organ & 1 > 0)).all()
    counted = ~certain & (pseudo > 0) & ~np.isin(pseudo, labelled)
    assert (bits[counted] == 1 << pseudo[counted]).all()
    assert (bits[~certain & ~counted] == 1).all()


def test_a_group_becomes_the_class_that_a_network_tells_or_stays_a_group() -> None:
    own = sets((0, 3), (1, 2))
    mask, pseudo = np.array([[[1, 1, 1, 0, 0]]], np.uint8), np.array([[[1, 3, 0, 3, 1]]], np.uint8)
    bits, taught = merged(mask, own, pseudo, np.ones(mask.shape, bool))
    assert taught.ravel().tolist() == [False, False, False, True, True]  # a group is a true label
    assert bits.ravel().tolist() == sets((1,), (1, 2), (1, 2), (3,), (0,))


def test_what_a_source_has_not_labelled_is_still_known_after_merging() -> None:
    own = sets((0, 2, 3), (1,))
    mask = np.array([[[0, 1, 0]]], np.uint8)
    numbers, table = with_pseudo(mask, own, np.array([[[2, 0, 0]]], np.uint8), np.ones(mask.shape, bool), CLASSES)
    assert table[0] == own[0]
    padded = torch.tensor([table + [0] * (numbers_of(CLASSES) - len(table))])
    found = Possible.of(torch.tensor(numbers)[None], padded, CLASSES)
    assert found.unlabelled.tolist() == [[False, False, True, True]]
    assert found.taught.flatten().tolist() == [True, False, True]
    # the other network may say background or organ 3 where a pseudo-label says organ 2, and never what the source knows it is not
    assert found.teachable[0, :, 0, 0].T.tolist() == [
        [True, False, True, True], [False, True, False, False], [True, False, True, True]
    ]  # fmt: skip


def test_never_more_numbers_than_there_is_room_for() -> None:
    for own in (sets((0, 1, 2, 3)), sets((0,), (1,), (2,), (3,)), sets((0, 3), (1, 2)), sets((0, 2), (1,), (3,))):
        mask = np.arange(len(own), dtype=np.uint8).repeat(CLASSES)[None, None]
        pseudo = np.tile(np.arange(CLASSES, dtype=np.uint8), len(own))[None, None]
        _, table = with_pseudo(mask, own, pseudo, np.zeros(mask.shape, bool), CLASSES)
        assert len(table) <= numbers_of(CLASSES)


def test_pseudo_labels_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pseudo-labels of \(1, 1, 2\) voxels for a scan of \(1, 1, 3\)"):
        with_pseudo(np.zeros((1, 1, 3), np.uint8), [1], np.zeros((1, 1, 2), np.uint8), np.ones((1, 1, 3), bool), 2)


def test_a_voxel_that_nobody_has_looked_at_may_be_anything() -> None:
    mask = torch.tensor([[[[UNKNOWN, 0, 1]]]], dtype=torch.uint8)
    table = torch.tensor([sets((0, 2, 3), (1,)) + [0] * (numbers_of(CLASSES) - 2)])
    found = Possible.of(mask, table, CLASSES)
    assert found.known.flatten().tolist() == [0, 1, 1]
    assert found.allowed[0, :, 0, 0].T.tolist() == [
        [True] * 4, [True, False, True, True], [False, True, False, False]
    ]  # fmt: skip
    assert not found.taught.any()
