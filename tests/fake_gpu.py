"""A GPU's manners on a CPU: tensors that refuse numpy, numbers and company from another device.

A test on a CPU passes code that takes an array from a batch, or asks for a loss's value in every step; on a GPU the first
ends the run and the second makes it wait. Here both raise.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")


class OnGpu(Tensor):
    """Lies in the CPU's memory, and says that it does not."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # the mode does it all

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        own: Any = self.detach().clone()
        memo[id(self)] = nn.Parameter(own, self.requires_grad) if isinstance(self, nn.Parameter) else own
        return memo[id(self)]


class Pinned(Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl


T: Any = Tensor
_ARRAYS = {T.numpy, T.__array__}
_WAITS = {T.item, T.tolist, T.__float__, T.__int__, T.__bool__, T.__index__, T.nonzero}
_PACKS = {"_pack_padded_sequence", "_pad_packed_sequence"}  # the second of what they give lies on the CPU
# what takes a tensor of the CPU beside one of the GPU: the plan of an LSTM's steps
_MIXED = _PACKS | {"lstm", "gru"}
_FACTORIES = {"tensor", "as_tensor"}  # of numbers that the CPU has: a copy that is waited for


class FakeGpu(TorchFunctionMode):
    """Args: waits: let a tensor be copied to the CPU, or a pageable one to the GPU; both make the process wait."""

    def __init__(self, waits: bool = True) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        found = list(_tensors((args, kwargs)))
        name = getattr(func, "__name__", "")
        if func == T.device.__get__:
            return GPU if isinstance(args[0], OnGpu) else CPU
        if func == T.is_cuda.__get__:
            return isinstance(args[0], OnGpu)
        there = any(isinstance(t, OnGpu) for t in found)
        # libraries may ask for a number: a GPU gives it, and only makes them wait
        library = self.waits and "site-packages" in sys._getframe(1).f_code.co_filename
        if there and (func in _ARRAYS or (func in _WAITS and not library)):
            raise TypeError(f"{name} of a tensor on the GPU: copy it to host memory first, with .cpu()")
        if func is T.pin_memory:
            return args[0].as_subclass(Pinned)
        wanted = _device(func, name, args, kwargs)
        if wanted is not None:
            return self._moved(func, name, args, kwargs, wanted)
        strangers = [t for t in found if not isinstance(t, OnGpu) and t.ndim]
        mixed = name in _MIXED or (name == "copy_" and self.waits) or func in {T.data.__set__, T.grad.__set__}
        if there and strangers and not mixed:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cuda:0 and cpu")
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **kwargs)
        if name in _PACKS:
            return (_marked(out[0]), *out[1:])
        return _marked(out) if there else out

    def _moved(self, func: Any, name: str, args: Any, kwargs: dict[str, Any], wanted: torch.device) -> Any:
        source = args[0] if args and isinstance(args[0], Tensor) else None
        if not self.waits:
            if isinstance(source, OnGpu) and wanted.type == "cpu":
                raise RuntimeError(f"{name}: the process waits for the GPU")
            pageable = source is not None and not isinstance(source, OnGpu | Pinned)
            if wanted.type == "cuda" and (pageable or name in _FACTORIES):
                raise RuntimeError(f"{name}: the process waits for a copy from pageable memory")
        if "device" in kwargs:
            kwargs["device"] = CPU
        args = tuple(CPU if isinstance(a, torch.device | str) else a for a in args)
        with torch._C.DisableTorchFunctionSubclass():
            out = source.clone() if source is not None and name in {"cuda", "cpu"} else func(*args, **kwargs)
        plain: Tensor = out.as_subclass(Tensor)
        return plain.as_subclass(OnGpu) if wanted.type == "cuda" else plain


def _device(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> torch.device | None:
    """Where a function that moves or makes a tensor is asked to put it."""
    if name in {"cuda", "cpu"} and args and isinstance(args[0], Tensor):
        return torch.device(name)
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    if func is T.to:
        for value in args[1:]:
            if isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in {"cuda", "cpu"}):
                return torch.device(value)
    return None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _marked(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if isinstance(value, OnGpu) else value.as_subclass(OnGpu)
    if type(value) in {list, tuple}:
        return type(value)(_marked(item) for item in value)
    return value


def moved(network: nn.Module) -> nn.Module:
    """The network with its parameters and buffers on the GPU. Called within the mode."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            on_gpu = parameter.data.as_subclass(OnGpu)
            setattr(module, name, nn.Parameter(on_gpu, parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.as_subclass(OnGpu))
    return network


@contextlib.contextmanager
def fake_gpu(waits: bool = True) -> Iterator[None]:
    """Within it ``GPU`` is a device; see ``FakeGpu``."""
    group = clip_grad._group_tensors_by_device_and_dtype

    def grouped(*args: Any, **kwargs: Any) -> Any:  # C code, which knows where they lie in truth
        return {(GPU, dtype): found for (_, dtype), found in group(*args, **kwargs).items()}

    patches = (
        mock.patch.object(clip_grad, "_group_tensors_by_device_and_dtype", grouped),
        mock.patch.object(nn.RNNBase, "flatten_parameters", return_value=None),  # it calls cuDNN
        mock.patch.object(Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(grouped)),
    )
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(FakeGpu(waits))
        yield
