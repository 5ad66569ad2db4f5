"""Weights of a backbone from a local file, under the names that whichever training script gave them."""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import timm
import torch
from torch import Tensor, nn

from medray.nn.backbone import Backbone, first_line
from medray.nn.weights_file import read_weights_file, tensors_in
from medray.shards.store import Store

_TRIES = 8
_SHOWN = 3


class WeightsWarning(UserWarning):
    """What of a file was not used. The text is one line."""


def load_weights(network: Backbone, name: str, channels: int, uri: str) -> None:
    """Load a file into ``network``: a model.pt of a medray run, or tensors by name as training scripts keep them.

    Tensors may lie in a mapping in the file (``state_dict``, ``model_state_dict``, ``ema``, …), and their names may begin
    with those of modules around the backbone (``module.``, ``backbone.``, ``densenet121.``, …): every one that enough
    names share is tried. timm's hub is never asked. The classifier of a hub's file is for other classes: it is left out,
    and the last layer keeps its random weights.

    Args:
        name: of the timm model. channels: of its input; another number than the file's is adapted by timm's rule.
    Raises:
        ValueError: no such file, a file of more than tensors, weights of another architecture, or a medray model of
            another number of classes.
    Warns:
        WeightsWarning: tensors of the file have no place in the network, or several sets of them would fit.
    """
    shown, found = Store(uri).uri, read_weights_file(uri)
    if isinstance(found.get("weights"), Mapping) and "task" in found:  # a run's model.pt
        _load_run(network, name, dict(found["weights"]), shown)
        return
    own = {n: value for n, value in network.body.state_dict().items() if value.is_floating_point()}
    sets = _sets(found, own)
    tried: list[tuple[_Set, _Fit]] = []
    for one in sets[:_TRIES]:
        tried.append((one, _fit(name, channels, network.body, one.tensors, own)))
        if not tried[-1][1].lacking:
            break
    chosen, fit = min(tried, key=lambda pair: pair[1].lacking)
    if fit.lacking:
        raise ValueError(
            f"--weights {shown}: weights of another architecture than {name}: {_why(fit, own, chosen.tensors)}"
        )
    network.body.load_state_dict(fit.state, strict=False)
    left = [*(f"{chosen.prefix}{n}" for n in fit.left), *chosen.beside]
    if left:
        names = ", ".join(left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
        warnings.warn(
            f"--weights {shown}: {len(left)} of its tensors have no place in {name} and are left out: {names}",
            WeightsWarning,
            stacklevel=2,
        )
    rivals = [one for one in sets if one is not chosen and one.known == chosen.known > 0]
    if rivals:
        others = ", ".join(f"{one.where}{one.prefix}*" for one in rivals[:_SHOWN])
        warnings.warn(
            f"--weights {shown}: {chosen.where}{chosen.prefix}* is taken; the names of {others} would fit as well",
            WeightsWarning,
            stacklevel=2,
        )


def _load_run(network: Backbone, name: str, state: dict[str, Any], shown: str) -> None:
    own = network.state_dict()
    unlike = [n for n in own.keys() | state.keys() if n not in own or n not in state or own[n].shape != state[n].shape]
    if any(n.startswith("head.") for n in unlike) and len(unlike) <= 2:
        classes = len(state["head.bias"]) if "head.bias" in state else 0
        raise ValueError(f"--weights {shown}: a model of {classes} classes, {len(own['head.bias'])} are needed")
    if unlike:
        raise ValueError(
            f"--weights {shown}: weights of another architecture than {name}: {len(unlike)} of its {len(own)} tensors do not "
            f"fit, such as {min(unlike)}"
        )
    network.load_state_dict(state)


# ------------------------------------------------------------ which of the file's tensors


@dataclass(frozen=True)
class _Set:
    """Tensors of one mapping of the file whose names begin alike, without that beginning."""

    where: str  # keys of the mapping
    prefix: str
    tensors: dict[str, Tensor]
    beside: list[str]  # tensors of the same mapping under other names
    known: int  # names that are the network's as they stand


def _sets(found: Mapping[str, Any], own: Mapping[str, Tensor]) -> list[_Set]:
    """What may be the network's tensors, the likeliest first. Of two that are alike, averaged ones, as timm chooses."""
    sets = []
    for where, tensors in tensors_in(found):
        for prefix in _prefixes(tensors, len(own) // 2):
            inside = {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
            beside = [n for n in tensors if not n.startswith(prefix)]
            sets.append(_Set(where, prefix, inside, beside, len(inside.keys() & own.keys())))
    return sorted(
        sets, key=lambda one: (-one.known, "ema" not in re.split(r"[^a-z]+", (one.where + one.prefix).lower()))
    )


def _prefixes(names: Mapping[str, Tensor], least: int) -> list[str]:
    """Whole modules' names that at least so many ``names`` begin with; also "", which all do."""
    counts = Counter({"": len(names)})
    for name in names:
        modules = name.split(".")[:-1]
        counts.update(".".join(modules[: i + 1]) + "." for i in range(len(modules)))
    return [prefix for prefix, count in counts.items() if not prefix or count >= least]


# ------------------------------------------------------------ how they fit


@dataclass(frozen=True)
class _Fit:
    state: dict[str, Tensor]  # of the network, by its own names
    missing: list[str]  # of the network, not in the file
    unlike: list[str]  # of the network, of another shape in the file, with both shapes
    left: list[str]  # of the file, not in the network
    why: str = ""  # timm cannot read them

    @property
    def lacking(self) -> int:
        return len(self.missing) + len(self.unlike)


def _fit(name: str, channels: int, body: nn.Module, tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> _Fit:
    try:
        found = _by_timm(name, channels, type(body), tensors)
    except Exception as error:  # timm's filters raise many types for tensors that are not theirs
        return _Fit({}, list(own), [], [], first_line(error))
    known = body.state_dict()
    return _Fit(
        state={n: value for n, value in found.items() if n in known and value.shape == known[n].shape},
        missing=[n for n in own if n not in found],
        unlike=[
            f"{n} ({_shape(own[n])} needed, {_shape(found[n])} in the file)"
            for n in own
            if n in found and found[n].shape != own[n].shape
        ],
        left=[n for n in found if n not in known],
    )


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def _by_timm(name: str, channels: int, kind: type[nn.Module], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` by the names that timm's filter for older files of this architecture gives them, without the classifier,
    adapted to the input's channels.

    timm has this only within ``create_model``, which then lets missing tensors pass: what it is about to load is kept.
    """
    found: dict[str, Tensor] = {}
    # no way to the hub is left; a state that is not empty is taken before all others anyway
    overlay = {"state_dict": dict(tensors), "hf_hub_id": None, "url": "", "file": None, "source": None}
    with torch.random.fork_rng(devices=[]), _loading_into(kind, found), _quiet_timm():
        timm.create_model(name, pretrained=True, in_chans=channels, num_classes=0, pretrained_cfg_overlay=overlay)
    return found


@contextmanager
def _loading_into(kind: type[nn.Module], found: dict[str, Tensor]) -> Iterator[None]:
    """Within it a state that a module of ``kind`` is given to load goes into ``found`` instead."""

    def keep(module: nn.Module, state: Mapping[str, Tensor], *args: Any, **options: Any) -> SimpleNamespace:
        found.update(state)
        return SimpleNamespace(missing_keys=[], unexpected_keys=[])

    own = vars(kind).get("load_state_dict")
    kind.load_state_dict = keep  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        if own is None:
            del kind.load_state_dict
        else:
            kind.load_state_dict = own  # type: ignore[method-assign]


@contextmanager
def _quiet_timm() -> Iterator[None]:
    log = logging.getLogger("timm")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _why(fit: _Fit, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Whether it is the names or the shapes."""
    if fit.why:
        return fit.why
    if len(fit.missing) == len(own):
        return (
            f"none of its {len(own)} tensors is in the file by name; they are named like {min(own)}, the file's like "
            f"{min(tensors)}"
        )
    parts = []
    if fit.missing:
        parts.append(
            f"{len(fit.missing)} of its {len(own)} tensors are not in the file by name, such as {min(fit.missing)}"
        )
    if fit.unlike:
        parts.append(f"{len(fit.unlike)} of its {len(own)} tensors have another shape, such as {min(fit.unlike)}")
    return "; ".join(parts)
