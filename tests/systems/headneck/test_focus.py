"""The parts for small organs: regions, heatmaps, the networks' shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medray.systems.headneck.focus import FocusNet, ShapeCoder, box_at, heatmaps_of, in_boxes
from medray.systems.headneck.networks import DenseASPP, InstanceNorm, SNet
from medray.systems.headneck.recipes import snet as snet_recipe
from medray.systems.headneck.task import Grid, pools_of

pytestmark = pytest.mark.usefixtures("one_thread")


def snet(outputs: int = 3) -> SNet:
    return SNet(1, outputs, (4, 8, 8), ((1, 2, 2), (2, 2, 2)), ((1, 1, 1), (1, 2, 2)))


def test_snet_pools_in_plane_first_and_keeps_the_resolution() -> None:
    network = snet()
    assert network.factor == (2, 4, 4)
    features, logits = network(torch.randn(2, 1, 4, 8, 12))
    assert features.shape == (2, 4, 4, 8, 12)
    assert logits.shape == (2, 3, 4, 8, 12)
    assert not isinstance(snet().wide, torch.nn.Identity)
    plain = SNet(1, 3, (4, 8), ((1, 2, 2),), ())
    assert isinstance(plain.wide, torch.nn.Identity)


@pytest.mark.parametrize(
    ("grid_mm", "first"),
    [
        ((2.5, 1.0, 1.0), (1, 2, 2)),
        ((3.0, 2.5, 2.5), (1, 2, 2)),
        ((2.5, 3.9, 3.9), (2, 2, 2)),
        ((1.0, 0.98, 0.98), (2, 2, 2)),
        ((1.0, 1.0, 1.0), (2, 2, 2)),
    ],
)
def test_only_slices_that_are_thick_wait(grid_mm: Grid, first: tuple[int, int, int]) -> None:
    assert pools_of(grid_mm, 2) == [first, (2, 2, 2)]
    task = replace(snet_recipe(), grid_mm=grid_mm, organs=("Brainstem",), widths=(4, 4, 4), blocks=1)
    assert task.snet().factor == tuple(2 * side for side in first)


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last_3d])
def test_the_norm_is_torchs_and_leaves_channels_where_they_are(format: torch.memory_format) -> None:
    torch.manual_seed(0)
    ours, theirs = InstanceNorm(4, affine=True), torch.nn.InstanceNorm3d(4, affine=True)
    torch.nn.init.uniform_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    inputs = [torch.randn(3, 4, 5, 6, 7).contiguous(memory_format=format).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    weigh = torch.randn(3, 4, 5, 6, 7)
    found = [norm(one) for norm, one in zip((ours, theirs), inputs, strict=True)]
    for one in found:
        (one * weigh).sum().backward()
    torch.testing.assert_close(*found)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)
    assert found[0].is_contiguous(memory_format=format)


def test_dense_aspp_sees_as_far_as_its_dilations_and_no_farther_along_the_slices() -> None:
    """A voxel's gradient reaches 1 + 2 + 4 in plane, and one slice a convolution (norms of one value a channel aside)."""
    block = DenseASPP(2, 2, ((1, 1, 1), (1, 2, 2), (1, 4, 4)), dropout=0.0)
    for module in block.modules():
        if isinstance(module, torch.nn.Sequential):
            for i, layer in enumerate(module):
                if isinstance(layer, torch.nn.InstanceNorm3d):
                    module[i] = torch.nn.Identity()
    x = torch.randn(1, 2, 9, 21, 21, requires_grad=True)
    block(x)[0, :, 4, 10, 10].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(0) > 0
    for axis, far in ((0, 3), (1, 7), (2, 7)):
        others = [a for a in range(3) if a != axis]
        there = torch.nonzero(reached.sum(others)).ravel()
        middle = (4, 10, 10)[axis]
        assert int(there.max()) - middle == middle - int(there.min()) == far


@pytest.mark.parametrize(
    ("peak", "box"),
    [((5, 5, 5), (3, 7, 2, 8, 2, 8)), ((0, 9, 5), (0, 4, 4, 10, 2, 8)), ((9, 0, 0), (6, 10, 0, 6, 0, 6))],
)
def test_a_region_is_moved_into_the_volume(peak: tuple[int, int, int], box: tuple[int, ...]) -> None:
    found = box_at(peak, (10, 10, 10), (4, 6, 6))
    assert tuple(end for part in found for end in (part.start, part.stop)) == box
    volumes = torch.randn(2, 3, 10, 10, 10)
    flat = torch.tensor([(peak[0] * 10 + peak[1]) * 10 + peak[2]] * 2)
    assert torch.equal(in_boxes(volumes, flat, (4, 6, 6)), volumes[(slice(None), slice(None), *found)])


def test_a_short_axis_is_taken_whole() -> None:
    assert box_at((1, 5, 5), (3, 10, 10), (8, 6, 6))[0] == slice(0, 3)
    assert in_boxes(torch.zeros(1, 1, 3, 10, 10), torch.tensor([155]), (8, 6, 6)).shape == (1, 1, 3, 6, 6)


def test_heatmaps_are_of_the_middle_and_only_where_it_can_be_told() -> None:
    members = torch.zeros(2, 3, 9, 11, 13)
    members[0, 0, 3:6, 4:7, 5:8] = 1  # its middle is 4, 5, 6
    members[0, 1, 0:2, 4, 4] = 1  # cut by the border
    members[1, 0, 4, 5, 12] = 1  # likewise
    found, told = heatmaps_of(members, (1.0, 2.0, 2.0))
    assert told.tolist() == [[1, 0, 1], [0, 1, 1]]
    assert found[0, 0].argmax() == (4 * 11 + 5) * 13 + 6
    assert found[0, 0, 4, 5, 6] == 1
    assert found[0, 0, 5, 5, 6] == pytest.approx(2.718281828**-0.5)
    assert found[0, 0, 4, 7, 6] == pytest.approx(2.718281828**-0.5)
    assert not found[0, 2].any()
    assert not found[1, 1].any()


@pytest.mark.parametrize("sees", [(True, True, True), (False, False, True), (True, True, False)])
def test_an_organs_own_network_sees_what_it_is_to_see(sees: tuple[bool, bool, bool]) -> None:
    network = FocusNet(snet(), (0, 2), (4, 8, 8), 4, *sees)
    voxels = torch.randn(2, 1, 4, 8, 12)
    features, logits, heat = network.maps(voxels)
    outlines = network(voxels).outlines
    assert outlines is not None
    assert outlines.shape == (2, 2, 4, 8, 8)
    assert network(voxels, outlines=False).outlines is None
    assert (logits.shape[1], heat.shape[1]) == (3, 2)
    region = tuple(in_boxes(part, torch.tensor([50, 100]), (4, 8, 8)) for part in (features, heat[:, :1], voxels))
    given = [part.detach().requires_grad_() for part in region]
    found = network.outline(1, *given)
    assert found.shape == (2, 1, 4, 8, 8)
    found.sum().backward()
    assert [part.grad is not None for part in given] == [*sees]


def test_the_coder_gives_a_mask_of_the_same_shape_and_learns_one() -> None:
    torch.manual_seed(0)
    coder = ShapeCoder((4, 16, 16), width=4, code=16)
    masks = torch.zeros(2, 1, 4, 16, 16)
    masks[0, 0, 1:3, 4:10, 5:12] = 1
    masks[1, 0, :, 8:12, 3:6] = 1
    optimizer = torch.optim.Adam(coder.parameters(), 3e-3)
    for _ in range(150):
        logits, features, code = coder(masks)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logits.shape == masks.shape
    assert code.shape == (2, 16)
    assert len(features) == 3
    assert ((logits > 0) == (masks > 0)).float().mean() > 0.99
    with pytest.raises(ValueError, match="a multiple of 2, 8 and 8"):
        ShapeCoder((3, 16, 16))
