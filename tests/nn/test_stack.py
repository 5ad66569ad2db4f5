from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medray.nn.stack import StackLSTM, reverse

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES, CLASSES = 5, 6


@pytest.fixture
def network() -> StackLSTM:
    torch.manual_seed(0)
    return StackLSTM(FEATURES, 8, 2, CLASSES, dropout=0.3).eval()


def stack(length: int, seed: int = 0) -> Tensor:
    return torch.randn(length, FEATURES, generator=torch.Generator().manual_seed(seed))


def padded(stacks: list[Tensor], filler: float = 0.0) -> tuple[Tensor, Tensor]:
    """(batch, longest, features) with ``filler`` after each stack's end, and the lengths."""
    lengths = torch.tensor([len(s) for s in stacks])
    out = torch.full((len(stacks), int(lengths.max()), FEATURES), filler)
    for place, s in enumerate(stacks):
        out[place, : len(s)] = s
    return out, lengths


def normed(network: StackLSTM, features: Tensor, lengths: Tensor) -> Tensor:
    """What enters the LayerNorm: (batch, length, 3 · features)."""
    seen: list[Tensor] = []
    hook = network.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    network(features, lengths)
    hook.remove()
    return seen[0]


def test_padding_changes_nothing(network: StackLSTM) -> None:
    short = stack(4)
    alone = network(*padded([short]))
    beside = network(*padded([stack(9, 1), short, stack(1, 2)]))
    assert beside.shape == (3, 9, CLASSES)
    torch.testing.assert_close(beside[1, :4], alone[0], atol=1e-6, rtol=0)


def test_what_stands_in_the_padding_is_not_seen(network: StackLSTM) -> None:
    stacks = [stack(9, 1), stack(4)]
    torch.testing.assert_close(network(*padded(stacks, filler=1e3)), network(*padded(stacks)), atol=1e-6, rtol=0)


def test_logits_at_padded_places_are_0(network: StackLSTM) -> None:
    logits = network(*padded([stack(9, 1), stack(4)]))
    assert (logits[1, 4:] == 0).all()
    assert (logits[1, :4] != 0).all()


def test_a_stack_does_not_see_its_neighbours_in_the_batch(network: StackLSTM) -> None:
    beside, lengths = padded([stack(4), stack(7, 1)])
    first = network(beside, lengths)[0]
    beside[1] += 1
    torch.testing.assert_close(network(beside, lengths)[0], first, atol=0, rtol=0)


def test_differences_by_hand_and_0_at_the_ends_of_each_stack(network: StackLSTM) -> None:
    short = torch.tensor([[1.0], [4.0], [9.0]]).expand(3, FEATURES)
    joined = normed(network, *padded([short, stack(6, 1)], filler=1e3))[0]
    assert joined[:3, 0].tolist() == [1, 4, 9]
    assert joined[:3, FEATURES].tolist() == [0, 3, 5]  # to the previous one
    assert joined[:3, 2 * FEATURES].tolist() == [-3, -5, 0]  # to the next one
    single = normed(network, *padded([stack(1), stack(6, 1)], filler=1e3))[0, 0]
    assert (single[FEATURES:] == 0).all()


def test_each_answer_is_informed_by_both_neighbours(network: StackLSTM) -> None:
    features, lengths = padded([stack(9)])
    before = network(features, lengths)[0]
    features[0, 4] += 1
    changed = (network(features, lengths)[0] - before).abs().amax(dim=1)
    assert (changed > 1e-6).all()  # from the first to the last element of the stack


def test_reverse_turns_each_stack_within_its_own_length() -> None:
    values = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 0, 0]]).unsqueeze(2)
    lengths = torch.tensor([4, 2, 1])
    turned = reverse(values, lengths)
    assert turned.squeeze(2).tolist() == [[4, 3, 2, 1], [6, 5, 0, 0], [7, 0, 0, 0]]
    assert torch.equal(reverse(turned, lengths), values)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("lengths", [[1], [400], [1, 400]])
def test_gradients_are_finite_and_reach_every_parameter(lengths: list[int], layers: int) -> None:
    torch.manual_seed(0)
    network = StackLSTM(FEATURES, 8, layers, CLASSES, dropout=0.3)
    logits = network(*padded([stack(n, n) for n in lengths]))
    assert logits.shape == (len(lengths), max(lengths), CLASSES)
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    # a single element has no past: only the weights between steps may be left without a gradient
    unmoved = {n for n, p in network.named_parameters() if p.grad is not None and not p.grad.any()}
    assert all("weight_hh" in name for name in unmoved) if lengths == [1] else not unmoved


def test_the_embedding_goes_past_the_lstm(network: StackLSTM) -> None:
    for parameter in network.lstm.parameters():
        torch.nn.init.zeros_(parameter)
    features, lengths = padded([stack(4)])
    embedded = torch.relu(network.embedding(network.norm(normed(network, features, lengths))))
    torch.testing.assert_close(network(features, lengths), network.head(embedded), atol=1e-6, rtol=0)
