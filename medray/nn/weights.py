"""Weights of a backbone from a local file: safetensors, or a torch file that holds tensors only."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor

from medray.nn.backbone import Backbone, first_line
from medray.shards.store import Store, read_file


def load_weights(network: Backbone, name: str, channels: int, uri: str) -> None:
    """Load a file into ``network``: a model.pt of a medray run, or tensors by name as timm and torchvision keep them.

    The classifier of a hub's file is for other classes: it is left out, and the last layer keeps its random weights.

    Args:
        name: of the timm model. channels: of its input; another number than the file's is adapted by timm's rule.
    Raises:
        ValueError: no such file, a file of more than tensors, weights of another architecture, or a medray model of
            another number of classes.
    """
    shown = Store(uri).uri
    state = _read(uri, shown)
    if isinstance(state.get("weights"), Mapping):  # a run's model.pt
        state = dict(state["weights"])
        own = network.state_dict()
        unlike = [
            n for n in own.keys() | state.keys() if n not in own or n not in state or own[n].shape != state[n].shape
        ]
        if any(n.startswith("head.") for n in unlike) and len(unlike) <= 2:
            classes = len(state["head.bias"]) if "head.bias" in state else 0
            raise ValueError(f"--weights {shown}: a model of {classes} classes, {len(own['head.bias'])} are needed")
        _refuse(unlike, len(own), shown, name)
        network.load_state_dict(state)
        return
    state = {str(n).removeprefix("module."): value for n, value in state.items() if isinstance(value, Tensor)}
    random = _create(name, channels)
    try:
        loaded = _create(name, channels, state)
    except Exception as error:  # timm's filters raise many types for tensors that are not theirs
        raise ValueError(
            f"--weights {shown}: weights of another architecture than {name} ({first_line(error)})"
        ) from None
    # timm lets missing tensors pass: whatever still equals its random start was not in the file
    before = random.state_dict()
    left = [n for n, value in loaded.state_dict().items() if value.ndim > 1 and torch.equal(value, before[n])]
    _refuse(left, sum(value.ndim > 1 for value in before.values()), shown, name)
    network.body.load_state_dict(loaded.state_dict())


def _create(name: str, channels: int, state: dict[str, Tensor] | None = None) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        more: dict[str, Any] = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": state}}
        return timm.create_model(name, pretrained=state is not None, in_chans=channels, num_classes=0, **more)


def _refuse(unlike: list[str], count: int, shown: str, name: str) -> None:
    if unlike:
        raise ValueError(
            f"--weights {shown}: weights of another architecture than {name}: {len(unlike)} of its {count} tensors do not "
            f"fit, such as {min(unlike)}"
        )


def _read(uri: str, shown: str) -> dict[str, Any]:
    try:
        data = read_file(uri)
    except OSError:
        raise ValueError(f"--weights {shown}: there is no such file, or it cannot be read") from None
    try:
        if shown.endswith(".safetensors"):
            return dict(safetensors.torch.load(data))
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types for a file that is not theirs
        raise ValueError(
            f"--weights {shown}: not a file of tensors, safetensors or torch ({first_line(error)})"
        ) from None
    for key in ("state_dict", "model"):  # as training scripts wrap it
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"--weights {shown}: holds {type(state).__name__}, expected tensors by name")
    return dict(state)
