"""A process of its own for decoders, which may die without taking a run with it.

Decoders are libraries in C: a damaged stream makes one abort, fault, loop without end or ask for all memory, and none of
that can be caught where it happens. So each process that reads pixels keeps one child, which decodes for it. The child's
processor time and memory are limited; where it dies, a new one takes its place, and the stream is tried once more there,
alone, before it is given up: a stream before it may have done the damage.

The stream goes there and the pixels come back through memory that both share. What is said beside it is JSON, never a
pickle, and pixels are taken in the type and size that were asked for: nothing that the child says is executed. It is no
sandbox: a decoder that a file has taken over has the rights of the user who reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import math
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from medray.imaging.types import Unreadable

CPU_SECONDS = 20
"""Of one decoding: a thousand times what a slice takes."""
WALL_SECONDS = 300.0
"""For one that waits for something that never comes, which costs no processor time."""
START_SECONDS = 120.0
READY = b"ready"
MOST_WORDS_BYTES = 1 << 24  # that a library may write to standard error
BASE_BYTES = 1 << 30  # of address space: Python, numpy, the libraries
BYTES_PER_BYTE = 16  # of decoded pixels: wide integers, tiles, copies

Work = Callable[..., tuple[np.ndarray, dict[str, Any]]]
"""The encoded bytes and arguments → pixels, and facts about them that JSON can hold. Raises Unreadable."""


class _Died(Exception):
    """The child ended, or was ended, before it answered. The text says how."""

    def __init__(self, how: str, again: bool = True) -> None:
        super().__init__(how)
        self.again = again  # whether a fresh child may do better


def guarded(work: Work, data: bytes, most_bytes: int, **arguments: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Run ``work(data, **arguments)`` in this process's child.

    Args:
        work: a function of a module below medray.imaging.
        most_bytes: of the pixels that may come back; the child's memory follows from it.
        arguments: what JSON can hold.
    Returns:
        What ``work`` returns, and among the facts, as "warning", what its library wrote to standard error, if anything.
    Raises:
        Unreadable: as ``work``; or the child died of it, twice.
        RuntimeError: no child can be started, which is no file's fault.
    """
    with _lock:
        for last in (False, True):
            try:
                return _child().ask(work, data, most_bytes, arguments)
            except Unreadable:
                raise
            except _Died as error:
                _drop()
                if last or not error.again:
                    raise Unreadable(f"the decoder {error}") from None
            except BaseException:  # an interruption: the answer to this stream must not be taken for the next one's
                _drop()
                raise
    raise AssertionError("unreachable")


# ---- this side --------------------------------------------------------------------------------------------------------

_GRAIN = 4 << 20  # of the shared memory: a slice and its stream
_lock = threading.Lock()
_current: _Child | None = None


def _child() -> _Child:
    global _current
    if _current is None:
        _current = _Child()
    return _current


def _drop() -> None:
    global _current
    if _current is not None:
        _current.end()
    _current = None


def _after_fork() -> None:
    """A forked process must not talk to its parent's child."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class _Child:
    def __init__(self) -> None:
        self.memory = _Shared(_new_file())
        ours, theirs = socket.socketpair()
        # an answer that breaks off half way must not be waited for without end either
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(WALL_SECONDS), 0))
        self.connection = Connection(ours.detach())
        with theirs:
            handed = (theirs.fileno(), self.memory.descriptor)
            try:
                self.process = subprocess.Popen(
                    # no variable and no file of the user's changes it; and the site's start-up files take their time
                    [sys.executable, "-I", "-S", "-c", _START, json.dumps(_paths()), *map(str, handed)],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    pass_fds=handed, cwd=os.sep, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                )  # fmt: skip
            except OSError as error:
                self.connection.close()
                os.close(self.memory.descriptor)
                raise RuntimeError(f"the decoders' process cannot be started ({error.strerror})") from error
        if not self.connection.poll(START_SECONDS) or not self._is_ready():
            self.end()
            raise RuntimeError("the decoders' process does not start")

    def _is_ready(self) -> bool:
        try:
            return self.connection.recv_bytes(16) == READY
        except (EOFError, OSError):
            return False

    def ask(
        self, work: Work, data: bytes, most_bytes: int, arguments: dict[str, Any]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        request = {
            "work": f"{work.__module__}:{work.__qualname__}",  # type: ignore[attr-defined]
            "arguments": arguments,
            "bytes": len(data),
            "most_bytes": most_bytes,
            "cpu_seconds": CPU_SECONDS,
            "address_space": BASE_BYTES + BYTES_PER_BYTE * most_bytes + 2 * len(data),
        }
        try:
            self.memory.hold(_after(len(data)) + most_bytes)[: len(data)] = data
            self.connection.send_bytes(json.dumps(request).encode())
            if not self.connection.poll(WALL_SECONDS):
                raise _Died(f"gave no answer for {WALL_SECONDS:.0f} seconds", again=False)
            answer = json.loads(self.connection.recv_bytes(1 << 20))
            if "reason" in answer:
                raise Unreadable(_printable(answer["reason"]))
            if "wants" in answer:  # a fresh child has more room than one that libraries have littered
                raise _Died(f"wants more than {int(answer['wants']) >> 20} MB of memory")
            facts = {str(name): _plain(fact) for name, fact in answer["facts"].items()}
            if answer["warning"]:
                facts["warning"] = _printable(answer["warning"])
            dtype, shape = np.dtype(answer["dtype"]), tuple(answer["shape"])
            if dtype.kind not in "iuf" or not 0 <= dtype.itemsize * math.prod(shape) <= most_bytes:
                raise _Died("gave other pixels than it was asked for")
            view = np.frombuffer(self.memory.map, dtype, math.prod(shape), _after(len(data)))
            pixels = view.reshape(shape).copy()
        except Unreadable:
            raise
        except (EOFError, OSError) as error:
            raise self._how_it_ended(error) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise _Died("gave no answer that can be read") from None
        return pixels, facts

    def _how_it_ended(self, error: Exception) -> _Died:
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return _Died(f"gave no answer ({type(error).__name__})")
        if code == -signal.SIGXCPU:
            return _Died(f"took more than {CPU_SECONDS} seconds", again=False)
        return _Died(f"ended with {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}")

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()
        os.close(self.memory.descriptor)


class _Shared:
    """Memory of this process and its child: an anonymous file that grows as it is needed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.ftruncate(descriptor, _GRAIN)
        self.map = mmap.mmap(descriptor, _GRAIN)

    def hold(self, size: int) -> mmap.mmap:
        """The memory, with at least so many bytes."""
        if len(self.map) < size:
            size = -(-size // _GRAIN) * _GRAIN
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)
            self.map = mmap.mmap(self.descriptor, size)
        return self.map


def _new_file() -> int:
    if hasattr(os, "memfd_create"):  # Linux; sealed, since memory that shrinks under its reader ends the reader
        descriptor = os.memfd_create("medray", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return descriptor
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _after(size: int) -> int:
    """Where the pixels begin, behind so many bytes of a stream."""
    return -(-size // 64) * 64


def _paths() -> list[str]:
    return [str(Path(__file__).parents[3]), *(path for path in sys.path if path)]


def _plain(fact: Any) -> Any:
    return fact if isinstance(fact, bool | int | float | None) else _printable(fact)


def _printable(text: Any) -> str:
    return "".join(c for c in str(text)[:500] if c.isprintable() or c == "\n")


# ---- the child's side ---------------------------------------------------------------------------------------------------

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from medray.imaging.decoding.guard import serve; serve(*map(int, sys.argv[2:]))"
)


def serve(descriptor: int, memory_descriptor: int) -> None:
    """Decode what comes, until the parent is gone."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patients' pixels
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WORDS_BYTES, MOST_WORDS_BYTES))
    connection, memory = Connection(descriptor), _Shared(memory_descriptor)
    with tempfile.TemporaryFile() as written, contextlib.suppress(EOFError, OSError):
        os.dup2(written.fileno(), 2)
        connection.send_bytes(READY)
        while True:
            request = json.loads(connection.recv_bytes())
            _limit(request["cpu_seconds"], request["address_space"])
            start, most = _after(request["bytes"]), request["most_bytes"]
            shared = memory.hold(start + most)
            try:
                pixels, facts = _work(request["work"])(shared[: request["bytes"]], **request["arguments"])
                if pixels.nbytes > most:
                    raise Unreadable("more pixels than the header says")
                np.frombuffer(shared, pixels.dtype, pixels.size, start).reshape(pixels.shape)[...] = pixels
                answer = {"shape": pixels.shape, "dtype": pixels.dtype.str, "facts": facts, "warning": _written()}
            except Unreadable as error:
                answer = {"reason": str(error)}
            except MemoryError:
                answer = {"wants": request["address_space"]}
            _written()
            connection.send_bytes(json.dumps(answer).encode())


def _work(name: str) -> Work:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _limit(cpu_seconds: int, address_space: int) -> None:
    """Of this process, from now on: processor time, and address space."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted = {
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds,
        resource.RLIMIT_AS: address_space,
    }
    for kind, soft in wanted.items():
        with contextlib.suppress(ValueError, OSError):  # macOS refuses a limit of address space
            resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def _written() -> str:
    """What a library wrote to standard error since the last call, its first 4 KB."""
    if not os.lseek(2, 0, os.SEEK_CUR):
        return ""
    os.lseek(2, 0, os.SEEK_SET)
    text = os.read(2, 4096).decode("ascii", "replace")
    os.lseek(2, 0, os.SEEK_SET)
    os.ftruncate(2, 0)
    return text.strip()
