"""Hounsfield units to grey values: PS3.3 C.11.2.1.2 (Window Center and Width) and C.11.2.1.3 (VOI LUT Function).

Every function rounds once, at the end, to the nearest grey value with halves going up: floor(grey + 0.5). The linear
ones multiply before they divide, so that whole Hounsfield units hit the halves exactly.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import cv2
import numpy as np


@dataclass(frozen=True)
class Window:
    """A range of Hounsfield units: [level - width / 2, level + width / 2] becomes 0 to 255."""

    level: float  # HU
    width: float  # HU, > 0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.level) and np.isfinite(self.width) and self.width > 0):
            raise ValueError(f"a window needs a finite level and a width above 0, not {self.level}/{self.width}")


WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        "brain": Window(40, 80),
        "subdural": Window(75, 215),
        "bone": Window(600, 2800),
        "soft": Window(40, 375),
    }
)


def parse_window(text: str) -> Window:
    """Read a window from its name ("brain") or its level and width in HU ("40/80").

    Raises:
        ValueError: neither; the message names the windows that come close.
    """
    name = text.strip().lower()
    if name in WINDOWS:
        return WINDOWS[name]
    level, slash, width = name.partition("/")
    if slash:
        try:
            return Window(float(level), float(width))
        except ValueError as error:
            raise ValueError(f"'{text}' is not a window: expected level/width in HU, such as 40/80") from error
    near = difflib.get_close_matches(name, WINDOWS, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(WINDOWS)}"
    raise ValueError(f"unknown window '{text}': {hint} (or give level/width in HU, such as 40/80)")


def apply_window(pixels_hu: np.ndarray, window: Window) -> np.ndarray:
    """Grey values under one window: PS3.3 C.11.2.1.3.2 (LINEAR_EXACT).

    Args:
        pixels_hu: any shape, HU, int16 (fast, through a table) or any other number type.

    Returns:
        uint8 of the same shape.
    """
    if pixels_hu.dtype == np.int16:
        return np.take(_tables((window,))[0], _table_index(pixels_hu))
    return _to_uint8(_linear_exact(pixels_hu, window.level, window.width))


def apply_windows(pixels_hu: np.ndarray, windows: Sequence[Window]) -> np.ndarray:
    """Grey values under several windows, one channel each: ``apply_window`` stacked along a last axis.

    Args:
        pixels_hu: (rows, columns), HU, int16 (fast, through a table) or any other number type.
        windows: n of them, n >= 1.

    Returns:
        uint8 (rows, columns, n), C-contiguous.
    """
    if not windows:
        raise ValueError("apply_windows needs at least one window")
    if pixels_hu.dtype != np.int16:
        return np.stack([apply_window(pixels_hu, window) for window in windows], axis=-1)
    index = _table_index(pixels_hu)
    if len(windows) == 3:
        # One lookup of four bytes costs as much as one of a single byte, and dropping the fourth is nearly free.
        return cv2.cvtColor(np.take(_packed_table(tuple(windows)), index).view(np.uint8).reshape(*index.shape, 4),
                            cv2.COLOR_BGRA2BGR)  # fmt: skip
    grey = np.empty((*pixels_hu.shape, len(windows)), np.uint8)
    for channel, table in enumerate(_tables(tuple(windows))):
        grey[..., channel] = np.take(table, index)
    return grey


def apply_file_window(pixels_hu: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Grey values under a window that a file's own tags give, by the file's own function.

    Args:
        pixels_hu: any shape, HU.
        center, width: Window Center (0028,1050) and Window Width (0028,1051).
        function: VOI LUT Function (0028,1056): "LINEAR" (what the standard says where the tag is absent, PS3.3
            C.11.2.1.2.1), "LINEAR_EXACT" (C.11.2.1.3.2) or "SIGMOID" (C.11.2.1.3.1).

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: an unknown function, or a width that the function does not allow.
    """
    if function not in _FUNCTIONS:
        raise ValueError(f"unknown VOI LUT function '{function}': expected {', '.join(_FUNCTIONS)}")
    if not np.isfinite(center) or not np.isfinite(width) or width <= 0 or (function == "LINEAR" and width < 1):
        raise ValueError(f"{function} does not allow a window of center {center} and width {width}")
    return _to_uint8(_FUNCTIONS[function](pixels_hu, center, width))


def _linear(pixels_hu: np.ndarray, center: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1: width counts grey steps, so its edges lie half a unit inwards."""
    x = np.asarray(pixels_hu, dtype=np.float64)
    if width == 1:  # a step, without 0 / 0
        return np.where(x <= center - 0.5, 0.0, 255.0)
    return (x - (center - 0.5) + (width - 1) / 2) * 255.0 / (width - 1)


def _linear_exact(pixels_hu: np.ndarray, center: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.3.2."""
    return (np.asarray(pixels_hu, dtype=np.float64) - (center - width / 2)) * 255.0 / width


def _sigmoid(pixels_hu: np.ndarray, center: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.3.1."""
    exponent = -4.0 * (np.asarray(pixels_hu, dtype=np.float64) - center) / width
    return 255.0 / (1.0 + np.exp(np.minimum(exponent, 700.0)))  # exp(710) overflows, and 255 / exp(700) is 0 already


_FUNCTIONS: Mapping[str, Callable[[np.ndarray, float, float], np.ndarray]] = MappingProxyType(
    {"LINEAR": _linear, "LINEAR_EXACT": _linear_exact, "SIGMOID": _sigmoid}
)


def _to_uint8(grey: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(grey + 0.5), 0, 255).astype(np.uint8)


def _table_index(pixels_hu: np.ndarray) -> np.ndarray:
    # numpy looks up by intp whatever it is given; converting once serves every channel
    return np.ascontiguousarray(pixels_hu).view(np.uint16).astype(np.intp)


@lru_cache(maxsize=16)
def _tables(windows: tuple[Window, ...]) -> np.ndarray:
    """(n, 65536) uint8: the grey value of each int16, in the order of its bits read as uint16."""
    every_hu = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
    tables = np.stack([_to_uint8(_linear_exact(every_hu, window.level, window.width)) for window in windows])
    tables.setflags(write=False)
    return tables


@lru_cache(maxsize=16)
def _packed_table(windows: tuple[Window, Window, Window]) -> np.ndarray:
    """(65536,) uint32 whose bytes are the three grey values and one that is dropped."""
    packed = np.zeros((1 << 16, 4), np.uint8)
    packed[:, :3] = _tables(windows).T
    table = packed.view(np.uint32).ravel()
    table.setflags(write=False)
    return table
