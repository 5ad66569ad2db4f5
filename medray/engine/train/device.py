"""What the device of a run can do, and how batches come to it. Plain torch, without Ray."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medray.engine.train.stop import StopRun

AHEAD = 2
"""Batches that are on the device before they are needed, or on their way."""
CLOSE_S = 60.0
"""Longest wait for the thread of a closed iterator, which may be waiting for a batch."""


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """None means fp32. A V100 has no bf16 units: torch would emulate it slowly."""
    if precision == "auto":
        if device.type == "cpu":
            return None
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def check_gpu(device: torch.device) -> None:
    """Raise StopRun where this build of torch has no code for the GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    built = torch.cuda.get_arch_list()
    if not any(arch.startswith(f"sm_{major}") and int(arch[4:].rstrip("a")[-1]) <= minor for arch in built):
        raise StopRun(
            f"{torch.cuda.get_device_name(device)} is sm_{major}{minor}, this torch {torch.__version__} is built for "
            f"{' '.join(built)}; torch 2.10.0 from the default index serves sm_70 to sm_120"
        )


def to_device(
    batch: dict[str, Any], device: torch.device, host: Collection[str] = (), channels_last: bool = True
) -> dict[str, Any]:
    """Numbers become tensors on the device; text, and what ``host`` names, stays as it is.

    Args:
        channels_last: the layout of images, (batch, channels, rows, columns); a network wants that of its kernels.

    On a GPU the copies are under way, not done, when this returns: they are in order with what the current stream is
    given next.
    """
    out: dict[str, Any] = {}
    for name, values in batch.items():
        if name in host or not isinstance(values, np.ndarray) or values.dtype.kind in "OUS":
            out[name] = values
            continue
        tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
        if device.type == "cuda":
            tensor = tensor.pin_memory().to(device, non_blocking=True)
        images = channels_last and tensor.ndim == 4
        out[name] = tensor.contiguous(memory_format=torch.channels_last) if images else tensor
    return out


def on_device(
    batches: Iterable[dict[str, Any]], device: torch.device, host: Collection[str] = (), channels_last: bool = True
) -> Generator[dict[str, Any]]:
    """Batches as ``to_device`` makes them, in their order.

    On a GPU a thread takes them from ``batches`` and copies them from pinned memory on a stream of its own, while the
    GPU works on those before. Raises what ``batches`` raises.
    """
    if device.type != "cuda":
        for batch in batches:
            yield to_device(batch, device, host, channels_last)
        return
    copies = _copies(device)

    def copied(batch: dict[str, Any]) -> tuple[dict[str, Any], torch.cuda.Event]:
        with torch.cuda.device(device), torch.cuda.stream(copies):
            there = to_device(batch, device, host, channels_last)
            return there, copies.record_event()

    for there, done in ahead(batches, copied):
        current = torch.cuda.current_stream(device)
        current.wait_event(done)  # the GPU waits, this process does not
        for value in there.values():
            if isinstance(value, Tensor):
                value.record_stream(current)  # its memory is not given to the next copy before it was used
        yield there


@functools.lru_cache(maxsize=8)
def _copies(device: torch.device) -> torch.cuda.Stream:
    """One for all streams of batches of a process: torch keeps the memory of each apart."""
    return torch.cuda.Stream(device)


def ahead(items: Iterable[Any], work: Any, depth: int = AHEAD) -> Iterator[Any]:
    """``work(item)`` for each item, in order, done by a thread that is ``depth`` of them ahead.

    The thread ends with the items, with an error of theirs, which is raised here, or when this iterator is closed.
    """
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    end, closed = object(), threading.Event()

    def put(value: Any, error: BaseException | None = None) -> None:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((value, error), timeout=0.5)
                return

    def run() -> None:
        try:
            for item in items:
                put(work(item))
                if closed.is_set():
                    return
        except BaseException as error:  # for the other thread, whatever it is
            put(None, error)
        else:
            put(end)

    thread = threading.Thread(target=run, name="batches ahead", daemon=True)
    thread.start()
    try:
        while True:
            value, error = ready.get()
            if error is not None:
                raise error
            if value is end:
                return
            yield value
    finally:
        closed.set()
        thread.join(CLOSE_S)  # what it takes from may have to be closed before Ray is


class Late:
    """A few numbers of a step, read a step later: to read them at once the process would wait for the GPU."""

    def __init__(self, device: torch.device, count: int) -> None:
        self.cuda = device.type == "cuda"
        self.host = torch.empty(count, dtype=torch.float64, pin_memory=self.cuda)
        self.about: Any = None
        self.full = False

    def put(self, values: Tensor, about: Any) -> None:
        """Begin to copy ``values``, (count,) on the device; ``about`` comes back with them."""
        self.host.copy_(values, non_blocking=True)
        if self.cuda:
            self.event = torch.cuda.Event(blocking=True)  # who waits for it leaves the core to a reader
            self.event.record(torch.cuda.current_stream(values.device))
        self.about, self.full = about, True

    def take(self) -> tuple[list[float], Any] | None:
        """The numbers that were put last, once; None where there are none."""
        if not self.full:
            return None
        if self.cuda:
            self.event.synchronize()  # of the step that put them: what was launched since is not waited for
        self.full = False
        return self.host.tolist(), self.about
