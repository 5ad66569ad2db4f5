"""Batches on their way to the device: in order, ahead, and what stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from fake_gpu import GPU, OnGpu, fake_gpu

from medray.engine.train.device import Late, ahead, on_device, to_device

CPU = torch.device("cpu")


def batch() -> dict[str, object]:
    return {
        "image": np.zeros((2, 3, 8, 8), np.uint8), "labels": np.zeros((2, 6), np.float32),
        "slice_id": np.array(["a", "b"], dtype=object), "index": np.arange(2),
    }  # fmt: skip


def test_what_the_host_keeps_stays_an_array() -> None:
    with fake_gpu():
        there = to_device(batch(), GPU, ("index", "slice_id"))
    assert {name for name, value in there.items() if isinstance(value, OnGpu)} == {"image", "labels"}
    assert isinstance(there["index"], np.ndarray)


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_come_in_the_layout_of_the_kernels(channels_last: bool) -> None:
    (there,) = on_device([batch()], CPU, (), channels_last)
    assert there["image"].is_contiguous(memory_format=torch.channels_last) == channels_last
    assert there["image"].is_contiguous() != channels_last


def test_items_come_in_order_and_are_prepared_ahead_by_another_thread() -> None:
    began: list[int] = []

    def work(item: int) -> tuple[int, str]:
        began.append(item)
        return item, threading.current_thread().name

    found = ahead(range(6), work, depth=2)
    first = next(found)
    deadline = time.monotonic() + 10
    while len(began) < 4 and time.monotonic() < deadline:  # one that was taken, two that wait, one that found no room
        time.sleep(0.01)
    time.sleep(0.1)
    assert began == [0, 1, 2, 3]
    rest = list(found)
    assert [item for item, _ in (first, *rest)] == list(range(6))
    assert {name for _, name in (first, *rest)} == {"batches ahead"}


def test_an_error_of_the_source_is_raised_where_the_items_are_used() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("a shard is gone")

    found = ahead(source(), lambda item: item)
    assert next(found) == 1
    with pytest.raises(ValueError, match="a shard is gone"):
        next(found)


def test_the_thread_ends_with_its_iterator() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    found = ahead(source(), lambda item: item)
    next(found)
    found.close()
    assert closed.wait(10)


def test_numbers_are_read_once_and_with_what_they_are_about() -> None:
    late = Late(CPU, 2)
    assert late.take() is None
    late.put(torch.tensor([1.5, 2.0], dtype=torch.float64), "a step")
    assert late.take() == ([1.5, 2.0], "a step")
    assert late.take() is None
