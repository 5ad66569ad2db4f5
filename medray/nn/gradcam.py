"""Grad-CAM (Selvaraju et al., ICCV 2017): where in an image a network found what it says.

By hand, since no library fits: grad-cam brings another build of OpenCV, which breaks the headless one, and captum wants
numpy below 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medray.nn.backbone import Backbone


def grad_cam(network: Backbone, images: Tensor, outputs: Sequence[int]) -> Tensor:
    """Maps of the evidence for some of the network's outputs.

    The gradient of an output's logit is averaged over the last feature maps' places; these averages weigh the maps, and what
    speaks against the output is cut off (section 3, equations 1 and 2). After global average pooling and one linear layer
    the weights are the layer's own divided by the number of places: it is CAM (Zhou et al., CVPR 2016) up to a constant.

    Args:
        network: in evaluation mode.
        images: (batch, channels, height, width) uint8, as the network takes them.
        outputs: indices of logits.
    Returns:
        (batch, outputs, rows, columns) float32, 0 or more, in units of the logit: places that add up. Row 0 and column 0
        are at the image's top left, and the places share the image evenly.
    Raises:
        ValueError: the backbone has no feature maps in space, such as a transformer's tokens.
    """
    with torch.inference_mode(False), torch.no_grad():
        maps = network.maps(images)
    places = network.places_of(maps)
    (channels,) = {1, 2, 3} - set(places)
    with torch.inference_mode(False), torch.enable_grad():  # the last layer alone needs a gradient
        maps = maps.detach().requires_grad_(True)
        logits = network.of_maps(maps)
        found = []
        for output in outputs:
            (gradient,) = torch.autograd.grad(logits[:, output].sum(), maps, retain_graph=True)
            found.append(torch.relu((gradient.mean(places, keepdim=True) * maps).sum(channels)))
    return torch.stack(found, 1).detach().float()
