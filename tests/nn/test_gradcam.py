from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medray.nn.backbone import Backbone
from medray.nn.gradcam import grad_cam

pytestmark = pytest.mark.usefixtures("one_thread")


def network(name: str, classes: int = 3) -> Backbone:
    torch.manual_seed(0)
    made = Backbone(name, 3, classes, pretrained=False, grey=True).eval()
    torch.nn.init.normal_(made.head.weight)  # random weights' logits differ too little to tell classes apart
    return made


def films(side_px: int = 96) -> Tensor:
    return torch.randint(
        0, 256, (2, 1, side_px, side_px), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("name", ["resnet10t", "densenet121"])
def test_after_global_average_pooling_it_is_cam_over_the_number_of_places(name: str) -> None:
    made = network(name)
    with torch.no_grad():
        maps = made.maps(films())
        cam = torch.einsum("oc,bchw->bohw", made.head.weight, maps)
    found = grad_cam(made, films(), [0, 1, 2])
    places = maps.shape[2] * maps.shape[3]
    assert places > 1
    assert found.shape == cam.shape
    assert (cam < 0).any()  # what is cut off
    assert torch.allclose(found, torch.relu(cam) / places, rtol=1e-4, atol=1e-6)
    # before the cut the places add up to the logit without its bias
    with torch.no_grad():
        logits = made(films())
    assert torch.allclose(cam.sum((2, 3)) / places, logits - made.head.bias, rtol=1e-3, atol=1e-4)


def test_maps_differ_between_classes_and_follow_the_order_asked_for() -> None:
    made = network("resnet10t")
    with torch.no_grad():
        made.head.weight.zero_()
        for output in range(3):  # each class reads feature maps of its own
            made.head.weight[output, 5 * output : 5 * output + 5] = 1
    found = grad_cam(made, films(), [2, 0])
    assert torch.equal(found[:, 1], grad_cam(made, films(), [0])[:, 0])
    one, other = (found[:, i] / found[:, i].amax((1, 2), keepdim=True) for i in (0, 1))
    assert (one - other).abs().max() > 0.1  # not one map, scaled
    assert found.min() >= 0


def test_the_network_is_left_as_it_was() -> None:
    made = network("resnet10t")
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with torch.inference_mode():  # a caller that predicts
        found = grad_cam(made, films(), [0])
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in made.parameters())
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "mobilenetv3_small_050", "swin_s3_tiny_224"])
def test_maps_lead_to_the_same_logits(name: str) -> None:
    made = network(name)
    images = films(224 if name.startswith("swin") else 64)[:1]
    with torch.inference_mode():
        maps = made.maps(images)
        assert torch.equal(made.of_maps(maps), made(images))
        assert made.features(images).shape == (1, made.feature_count)


def test_channels_that_come_last_are_no_rows() -> None:
    made = network("swin_s3_tiny_224")
    image = films(224)[:1]
    with torch.no_grad():
        maps = made.maps(image)
        cam = torch.einsum("oc,bhwc->bohw", made.head.weight, maps)
    assert maps.shape == (1, 7, 7, 768)
    found = grad_cam(made, image, [0, 1])
    assert found.shape == (1, 2, 7, 7)
    assert torch.allclose(found, torch.relu(cam[:, :2]) / 49, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["test_vit", "mixer_s32_224"])
def test_tokens_are_refused_in_one_line(name: str) -> None:
    made = network(name)
    side_px = made.body.pretrained_cfg["input_size"][-1]
    with pytest.raises(
        ValueError, match=r"^the backbone's last features are \d+ × \d+, no maps in space.*densenet121$"
    ):
        grad_cam(made, films(side_px)[:1], [0])
