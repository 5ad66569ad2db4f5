"""Losses on voxels that may be of several classes: by hand, and the plain ones where each voxel is of one class."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from two_workers import of_two_workers

from medray.nn import volume_losses
from medray.nn.volume_truth import Truth
from medray.systems.fewlabel import losses
from medray.systems.fewlabel.possible import UNTRUE, Possible, numbers_of, set_of
from medray.tasks.task import At
from medray.tasks.volume_rows import UNKNOWN

AT = At()
CLASSES = 4  # background, and three organs
LABELS_ONE = [(0, 2, 3), (1,)]
"""Of a source that labels organ 1: its numbers 0 and 1."""
LABELS_ALL = [(0,), (1,), (2,), (3,)]


def table(*sources: list[tuple[int, ...]]) -> Tensor:
    rows = [[set_of(own) for own in source] for source in sources]
    return torch.tensor([row + [0] * (numbers_of(CLASSES) - len(row)) for row in rows])


def possible(mask: Tensor, *sources: list[tuple[int, ...]]) -> Possible:
    return Possible.of(mask, table(*sources), CLASSES)


def of_probabilities(*voxels: list[float]) -> Tensor:
    """Logits (1, classes, 1, 1, voxels)."""
    return torch.tensor(voxels).log().T[None, :, None, None, :].requires_grad_()


def row(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)[None, None, None, :]


def random(samples: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, CLASSES, 5, 6, 7, generator=made, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(0, CLASSES, (samples, 5, 6, 7), generator=made, dtype=torch.uint8)


def test_the_marginal_loss_of_two_voxels_by_hand() -> None:
    """One voxel of organ 1, found at .2; one of anything but it, found at .4 + .1 + .2."""
    logits = of_probabilities([0.5, 0.2, 0.2, 0.1], [0.4, 0.3, 0.1, 0.2])
    own = possible(row(1, 0), LABELS_ONE)
    assert float(losses.cross_entropy(logits, own, AT)) == pytest.approx(-(math.log(0.2) + math.log(0.7)) / 2, rel=1e-6)
    by_hand = -(0.8**2 * math.log(0.2) + 0.3**2 * math.log(0.7)) / 2
    assert float(losses.focal(logits, own, AT)) == pytest.approx(by_hand, rel=1e-5)
    overlap = 1 - (2 * 0.2 + 1e-5) / (0.2**2 + 0.3**2 + 1 + 1e-5)
    assert float(losses.dice(logits, own, AT)) == pytest.approx(overlap, rel=1e-5)


def test_the_exclusion_loss_of_two_voxels_by_hand() -> None:
    """Where organ 1 is drawn, organs 2 and 3, which its source has not labelled, lie at .2 and .1."""
    logits = of_probabilities([0.5, 0.2, 0.2, 0.1], [0.4, 0.3, 0.1, 0.2])
    each = [
        2 * p / (p * p + q * q + 1) + math.log(1 + p)
        for p, q in ((0.2, 0.1), (0.1, 0.2))  # on the organ, and elsewhere
    ]
    assert float(losses.exclusion(logits, possible(row(1, 0), LABELS_ONE), AT)) == pytest.approx(
        sum(each) / 2, rel=1e-4
    )


def test_a_certain_and_right_answer_has_no_loss() -> None:
    truth = torch.randint(0, 2, (2, 4, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    logits = torch.where(truth[:, None] == torch.arange(CLASSES)[None, :, None, None, None], 60.0, -60.0)
    own = possible(truth, LABELS_ONE, LABELS_ONE)
    for loss in (losses.cross_entropy, losses.focal, losses.dice):
        assert float(loss(logits, own, AT)) == pytest.approx(0, abs=1e-6)


def test_with_all_organs_labelled_the_losses_are_the_plain_ones() -> None:
    logits, mask = random()
    own, truth = possible(mask, LABELS_ALL, LABELS_ALL), Truth.of_numbers(mask, CLASSES - 1)
    pairs = {
        "entropy": (losses.cross_entropy(logits, own, AT), functional.cross_entropy(logits, mask.long())),
        "focal": (losses.focal(logits, own, AT), volume_losses.focal_loss(logits, truth, "softmax", AT)),
        "dice": (losses.dice(logits, own, AT), volume_losses.dice_loss(logits, truth, "softmax", AT)),
    }
    for name, (found, plain) in pairs.items():
        torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-12, msg=name)
        gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, plain)]
        torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-14, msg=name)
    assert float(losses.exclusion(logits, own, AT)) == 0
    same = own.as_background()
    assert float(losses.cross_entropy(logits, same, AT)) == float(losses.cross_entropy(logits, own, AT))


def test_probability_may_move_among_what_is_not_labelled() -> None:
    one = of_probabilities([0.5, 0.2, 0.2, 0.1], [0.4, 0.3, 0.1, 0.2])
    other = of_probabilities([0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.2, 0.3])
    own = possible(row(1, 0), LABELS_ONE)
    for loss in (losses.cross_entropy, losses.focal, losses.dice):
        assert float(loss(one, own, AT)) == pytest.approx(float(loss(other, own, AT)), rel=1e-6)
    # taken for background it may not
    wrong = own.as_background()
    assert float(losses.cross_entropy(one, wrong, AT)) != pytest.approx(float(losses.cross_entropy(other, wrong, AT)))


def test_a_group_that_was_drawn_as_one_is_any_of_it() -> None:
    kidneys = [(0, 3), (1, 2)]
    logits = of_probabilities([0.1, 0.3, 0.4, 0.2], [0.4, 0.1, 0.1, 0.4])
    own = possible(row(1, 0), kidneys)
    assert float(losses.cross_entropy(logits, own, AT)) == pytest.approx(-(math.log(0.7) + math.log(0.8)) / 2, rel=1e-6)
    swapped = logits[:, [0, 2, 1, 3]]
    for loss in (losses.cross_entropy, losses.dice):
        assert float(loss(swapped, own, AT)) == pytest.approx(float(loss(logits, own, AT)), rel=1e-6)


def test_what_nobody_has_looked_at_changes_nothing() -> None:
    logits, mask = random()
    with torch.no_grad():
        alone = [loss(logits[:1], possible(mask[:1] % 2, LABELS_ONE), AT) for loss in
                 (losses.cross_entropy, losses.focal, losses.dice, losses.exclusion)]  # fmt: skip
    both = torch.stack([mask[0] % 2, torch.full_like(mask[1], UNKNOWN)])
    for loss, expected in zip((losses.cross_entropy, losses.focal, losses.dice, losses.exclusion), alone, strict=True):
        found = loss(logits, possible(both, LABELS_ONE, LABELS_ALL), AT)
        assert float(found) == pytest.approx(float(expected), rel=1e-12)
        assert float(torch.autograd.grad(found, logits)[0][1].abs().max()) == 0


def test_soft_labels_are_zero_where_a_class_cannot_be() -> None:
    logits, mask = random()
    own = possible(mask % 2 + UNTRUE * (mask % 2 == 0), LABELS_ONE, LABELS_ONE)
    labels = losses.soft_labels(logits, own)
    assert float(labels[:, 1][own.numbers != 1].detach().abs().max()) == 0
    assert float((labels.sum(1) - 1).abs().max().detach()) < 1e-9
    assert float((labels[:, 1][own.numbers == 1] - 1).abs().max().detach()) < 1e-9


def test_the_soft_loss_by_hand_and_where_nobody_teaches() -> None:
    logits = of_probabilities([0.5, 0.2, 0.2, 0.1], [0.4, 0.3, 0.1, 0.2])
    own = possible(row(1, UNTRUE), LABELS_ONE)
    labels = losses.soft_labels(of_probabilities([0.1, 0.6, 0.2, 0.1], [0.2, 0.5, 0.2, 0.1]), own)
    expected = -(0.4 * math.log(0.4) + 0.4 * math.log(0.1) + 0.2 * math.log(0.2))
    assert float(losses.soft(logits, labels, own, AT)) == pytest.approx(expected, rel=1e-5)
    nowhere = losses.soft(logits, labels, possible(row(1, 0), LABELS_ONE), AT)
    assert float(nowhere) == 0
    assert float(torch.autograd.grad(nowhere, logits)[0].abs().max()) == 0


def test_the_soft_loss_teaches_true_voxels_nothing() -> None:
    logits, mask = random()
    own = possible(mask % 2 + UNTRUE * (mask == 2), LABELS_ONE, LABELS_ONE)
    found = losses.soft(logits, losses.soft_labels(logits.detach() * 2, own), own, AT)
    gradient = torch.autograd.grad(found, logits)[0].abs().amax(1)
    assert float(gradient[mask != 2].max()) == 0
    assert float(gradient[mask == 2].min()) > 0


SOFT = {"soft": lambda logits, own, at: losses.soft(logits, losses.soft_labels(logits.detach() * 2, own), own, at)}


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice", "exclusion", "soft"])
def test_two_workers_have_the_loss_and_gradient_of_one(name: str, log: bool) -> None:
    """Of parts that show unequal numbers of organs, and of voxels that are known or taught."""
    loss = SOFT.get(name) or getattr(losses, name)
    if name == "dice":
        loss = partial(loss, log=log)
    logits, mask = random(4)
    mask[0, :, :, 2:] = UNKNOWN
    mask[1] = 0
    mask[2] = mask[2] % 2 + UNTRUE * (mask[2] == 2)
    mask[3] = UNKNOWN
    sources = [LABELS_ALL, LABELS_ONE, LABELS_ONE, LABELS_ALL]

    def of(part: slice, at: At) -> Tensor:
        found: Tensor = loss(logits[part], possible(mask[part], *sources[part]), at)
        return found

    expected = of(slice(0, 4), AT)
    (gradient,) = torch.autograd.grad(expected, logits)
    value, (of_two,) = of_two_workers(of, [logits], (slice(0, 1), slice(1, 4)))
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(of_two, gradient, rtol=1e-4, atol=1e-10)
    assert gradient.abs().max() > 0
