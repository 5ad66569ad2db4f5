from __future__ import annotations

import pytest
import torch

from medray.nn.backbone import Backbone


@pytest.mark.usefixtures("one_thread")
def test_a_grey_picture_is_normalised_as_three_colours() -> None:
    torch.manual_seed(0)
    grey = Backbone("resnet10t", 3, 2, pretrained=False, grey=True).eval()
    torch.manual_seed(0)
    windows = Backbone("resnet10t", 3, 2, pretrained=False).eval()
    assert windows.state_dict().keys() == grey.state_dict().keys()
    pictures = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    three = pictures.repeat(1, 3, 1, 1)
    assert torch.equal(grey(pictures), grey(three))
    config = grey.body.pretrained_cfg
    mean, deviation = (torch.tensor(config[name])[None, :, None, None] for name in ("mean", "std"))
    assert len(set(config["mean"])) == 3
    own = grey.body.forward_head(grey.body.forward_features((three / 255 - mean) / deviation), pre_logits=True)
    assert torch.allclose(grey.features(pictures), own, atol=1e-5)
    assert not torch.allclose(windows.features(three), own, atol=1e-3)
