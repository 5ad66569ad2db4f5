"""A file of weights: safetensors, or a torch file that holds tensors and plain values only."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from medray.nn.backbone import first_line
from medray.shards.store import Store, read_file

_DEPTH = 5
_OBJECT = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# scores beside the tensors, such as a best AUC, are often NumPy's; of these types nothing but a number is made
_NUMBERS: list[Any] = [np.dtype, *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdg"}]
_SCALAR: Any = np.float64(0).__reduce__()[0]  # numpy._core.multiarray.scalar
_SCALAR_OF_NUMPY_1 = "numpy.core.multiarray.scalar"


def read_weights_file(uri: str) -> dict[str, Any]:
    """What the file holds. Nothing in it is executed.

    Raises:
        ValueError: there is no such file, or it holds something else than tensors by name and plain values.
    """
    shown = Store(uri).uri
    try:
        data = read_file(uri)
    except OSError:
        raise ValueError(f"--weights {shown}: there is no such file, or it cannot be read") from None
    try:
        if shown.endswith(".safetensors"):
            return dict(safetensors.torch.load(data))
        with torch.serialization.safe_globals([*_NUMBERS, _SCALAR, (_SCALAR, _SCALAR_OF_NUMPY_1)]):
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types for a file that is not theirs
        why = first_line(ValueError(_COLOURS.sub("", str(error))))
        if isinstance(error, pickle.UnpicklingError) and (named := _OBJECT.search(str(error))):
            why = (
                f"beside tensors it holds {named[1][:80]}, as a whole pickled model or the arguments of its training do, and "
                "nothing in a file is executed; save the model's state_dict() alone"
            )
        raise ValueError(f"--weights {shown}: not a file of tensors, safetensors or torch ({why})") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"--weights {shown}: holds {type(found).__name__}, expected tensors by name")
    if next(tensors_in(found), None) is None:
        raise ValueError(f"--weights {shown}: holds no tensor, expected tensors by name")
    return dict(found)


def tensors_in(
    found: Mapping[Any, Any], where: str = "", depth: int = _DEPTH
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The mappings that hold tensors by name, in the order of the file: training scripts wrap them once or twice.

    Yields:
        The keys that lead to the mapping, such as "state_dict: " ("" for the file itself); its tensors.
    """
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    for name, value in found.items():
        if isinstance(value, Mapping) and depth:
            yield from tensors_in(value, f"{where}{name}: ", depth - 1)
