"""A timm backbone with pooled features and one linear layer."""

from __future__ import annotations

import difflib
import logging
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from huggingface_hub import constants, get_session
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn

FLAG = "--backbones"
"""What names a backbone on the command line of most jobs."""
_PROBES, _PROBE_SECONDS = 2, 5.0


class Backbone(nn.Module):
    """Images → globally averaged features → logits.

    ``forward`` takes uint8 images (batch, channels, height, width) and returns (batch, classes);
    ``features`` returns the pooled (batch, feature_count), the input of later stages.

    Args:
        channels: of the network's input.
        pretrained: start from timm's weights.
        dropout: before the last layer.
        grey: the channels are one grey picture three times, normalised as the pretrained weights saw colours: each
            channel by its own mean and deviation. ``forward`` then also takes (batch, 1, height, width). Without it a
            channel is a window and no colour, and all share one mean and deviation.
        flag: that a user names it with, for errors.

    Raises:
        ValueError: timm does not know ``name`` (near names are given), or the pretrained weights cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        classes: int,
        pretrained: bool,
        dropout: float = 0.0,
        grey: bool = False,
        flag: str = FLAG,
    ) -> None:
        super().__init__()
        check_backbone(name, flag)
        options: dict[str, Any] = {"pretrained": pretrained, "in_chans": channels, "num_classes": 0}
        self.body: Any = _pretrained(name, flag, **options) if pretrained else timm.create_model(name, **options)
        body: Any = self.body
        self.map_channels: int = body.num_features
        self.feature_count: int = getattr(body, "head_hidden_size", None) or body.num_features  # MobileNets widen it
        mean, deviation = body.pretrained_cfg["mean"], body.pretrained_cfg["std"]
        self.mean: float | Tensor = float(sum(mean) / 3)
        self.deviation: float | Tensor = float(sum(deviation) / 3)
        if grey:  # of the weights, not of a state: a checkpoint is the same with either
            del self.mean, self.deviation
            self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
            self.register_buffer("deviation", torch.tensor(deviation).reshape(1, 3, 1, 1), persistent=False)
        self.head_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.feature_count, classes)

    def maps(self, images: Tensor) -> Tensor:
        """The last features before pooling, as the backbone lays them out: see ``places_of``."""
        images = (images.float() / 255 - self.mean) / self.deviation
        found = self.body.forward_features(images)
        assert isinstance(found, Tensor)
        return found

    def places_of(self, maps: Tensor) -> tuple[int, int]:
        """Axes of rows and columns in ``maps``: (2, 3) of a convolutional backbone, (1, 2) where channels come last (Swin).

        Raises:
            ValueError: they lie in no plane, as a transformer's tokens do.
        """
        if maps.ndim == 4 and maps.shape[1] == self.map_channels:
            return 2, 3
        if maps.ndim == 4 and maps.shape[3] == self.map_channels:
            return 1, 2
        raise ValueError(
            f"the backbone's last features are {' × '.join(map(str, maps.shape[1:]))}, no maps in space; Grad-CAM needs a "
            "convolutional backbone, such as densenet121"
        )

    def _pooled(self, maps: Tensor) -> Tensor:
        pooled = self.body.forward_head(maps, pre_logits=True)
        assert isinstance(pooled, Tensor)
        return pooled

    def features(self, images: Tensor) -> Tensor:
        return self._pooled(self.maps(images))

    def of_maps(self, maps: Tensor) -> Tensor:
        """The logits that ``forward`` gives for an image with these ``maps``."""
        logits = self.head(self.head_dropout(self._pooled(maps)))
        assert isinstance(logits, Tensor)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.of_maps(self.maps(images))


def _pretrained(name: str, flag: str, **options: Any) -> nn.Module:
    with _asking_the_hub() as unreachable:
        try:
            return timm.create_model(name, **options)
        except Exception as error:  # timm lets every hub and network failure through as it comes
            why = first_line(error)
            if unreachable and isinstance(error, LocalEntryNotFoundError):
                why = f"{constants.ENDPOINT} cannot be reached: {unreachable}; the cache does not hold them"
            raise ValueError(
                f"{flag} {name}: its pretrained weights cannot be loaded ({why}); go online once to fill the cache, "
                "give a local file with --weights FILE_OR_URI, or train from random weights with --no-pretrained"
            ) from None


@contextmanager
def _asking_the_hub() -> Iterator[str | None]:
    """Within it the hub's client logs no retries, and does not even try where the hub cannot be reached.

    Left alone it retries each of several file names six times, for about a minute; no setting of its own is for that.

    Yields:
        Why the hub cannot be reached, or None.
    """
    log = logging.getLogger("huggingface_hub")
    level, offline = log.level, constants.HF_HUB_OFFLINE
    log.setLevel(logging.ERROR)
    try:
        unreachable = _unreachable()
        constants.HF_HUB_OFFLINE = offline or unreachable is not None
        yield unreachable
    finally:
        log.setLevel(level)
        constants.HF_HUB_OFFLINE = offline


def _unreachable() -> str | None:
    why = ""
    for probe in range(_PROBES):
        time.sleep(probe)
        try:
            get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
            return None
        except Exception as error:  # of whichever client this version of the hub's library has
            why = first_line(error)
    return why


def first_line(error: BaseException, characters: int = 160) -> str:
    """The first line of an error's text, shortened between words."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return textwrap.shorten(line, characters, placeholder=" …")


def licence_of(name: str) -> str | None:
    """The licence of the pretrained weights that ``name`` stands for in timm; None where it says none."""
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return None if known is None else known.license


def check_backbone(name: str, flag: str = FLAG) -> None:
    """Raise ValueError, with near names, where timm does not know ``name``."""
    if timm.is_model(name.split(".")[0]):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() names them all"
    raise ValueError(f"{flag} {name}: timm has no such model; {hint}")
