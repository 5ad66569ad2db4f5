"""Slices of head CT whose files unpack to gigabytes, or are a million of something: done with in seconds, with little memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bombs import deflated, elements, huge, megabytes, nested, run_lengths
from ct_files import ct
from measured import SLICE, measured
from volume_files import as_bytes

MOST_BYTES = 1.2e9
"""Of the process and its decoder above what they take for a plain slice."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (lambda: deflated(ct(1), 3 << 30), "no pixels within 64 MB"),
        (lambda: deflated(ct(1), 3 << 30, pixels=True), "a deflated data set of more than"),
        (lambda: run_lengths(ct(1)), "bytes in an RLE stream|gives up"),
        (lambda: elements(ct(1)), "read"),
        (lambda: nested(ct(1)), "nested more than 64 deep"),
        (lambda: huge(ct(1), 8000), "8000 × 8000 pixels in 1 frames: no image has so many"),
        (lambda: huge(ct(1), 4096), "read"),
        (lambda: megabytes(ct(1), 300 << 20), "no pixels within 64 MB"),
    ],
    ids=["deflated", "deflated pixels", "rle", "elements", "nested", "huge", "largest", "megabytes"],
)
def test_it_is_done_with_in_little_memory(bomb: Callable[[], bytes], reason: str, tmp_path: Path) -> None:
    found = measured(SLICE, as_bytes(ct(1)), bomb(), tmp_path)
    assert found["plain"] == "read"
    assert any(part in found["why"] for part in reason.split("|")), found
    assert found["more_bytes"] < MOST_BYTES, found
