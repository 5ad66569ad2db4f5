"""BackboneTask: what the tasks that train one timm backbone have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import tyro

from medray.shards.store import place
from medray.tasks.task import Task

if TYPE_CHECKING:
    from medray.nn.backbone import Backbone

SomeTask = TypeVar("SomeTask", bound="BackboneTask")


@dataclass(frozen=True, kw_only=True)
class BackboneTask(Task):
    """A task whose network is a timm backbone with one linear layer."""

    backbone_flag: ClassVar[str] = "--backbones"  # what a job calls ``backbone``, for errors
    backbone: tyro.conf.Suppress[str]  # any timm model name
    pretrained: bool = True
    """Start from timm's pretrained weights (needs the internet once); --no-pretrained starts from random ones."""
    weights: str | None = None
    """Start from this file (safetensors, or a torch file of tensors) by path or URI; {backbone} in it becomes the
    backbone's name."""
    dropout: float = 0.0
    """Before the last layer."""

    @property
    def starts_from_weights(self) -> bool:
        return self.pretrained or self.weights is not None

    @property
    def _weights_uri(self) -> str | None:
        return None if self.weights is None else self.weights.replace("{backbone}", self.backbone)

    def without_weights(self: SomeTask) -> SomeTask:
        return replace(self, pretrained=False, weights=None)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"weights": place(self._weights_uri)}  # without keys

    def training_gigabytes(self) -> float | None:
        return self.counted_gigabytes()

    def make_backbone(self, channels: int, outputs: int, grey: bool = False) -> Backbone:
        """The network, with the weights that it starts from.

        Args:
            grey: as ``Backbone``'s.
        Raises:
            ValueError: timm has no such model, or the weights cannot be had or do not fit.
        """
        from medray.nn.backbone import Backbone
        from medray.nn.weights import load_weights

        pretrained = self.pretrained and self.weights is None
        network = Backbone(self.backbone, channels, outputs, pretrained, self.dropout, grey, self.backbone_flag)
        if self._weights_uri is not None:
            load_weights(network, self.backbone, channels, self._weights_uri)
        return network
