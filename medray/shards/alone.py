"""Files one by one in a process of their own, after a process that read many of them has died.

What kills it is not known then: a library's fault, or memory. A file at a time tells: what dies alone, twice, is set aside,
and the others go on. Decoders die in ``medray.imaging.decoding.guard``, at no cost; this is for all else.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, TypeVar

import cloudpickle  # a source may be of a module that only the driver has
import psutil

from medray.imaging.types import Unreadable

SECONDS = 600.0
"""For one file, its process's start included."""
SHARE_OF_MEMORY = 0.5
"""Of the machine's, for the process: less than what would endanger its neighbours."""

Result = TypeVar("Result")


class Alone:
    """A context in which ``run`` calls functions in one process of their own, which is replaced where it dies."""

    def __enter__(self) -> Alone:
        self._pool: ProcessPoolExecutor | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Raises Unreadable where the process dies of it, twice, or gives no answer; and what the function raises."""
        for last in (False, True):
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_limit_memory)
            try:
                return self._pool.submit(_call, cloudpickle.dumps((function, arguments))).result(SECONDS)
            except BrokenProcessPool:
                self._end()
                if last:
                    raise Unreadable("the process that read it died of it, twice") from None
            except TimeoutError:
                self._end()
                raise Unreadable(f"reading it took more than {SECONDS:.0f} seconds") from None
            except MemoryError:
                self._end()
                raise Unreadable(f"reading it takes more than {_most_memory() >> 20} MB of memory") from None
        raise AssertionError("unreachable")

    def _end(self) -> None:
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):  # a pool cannot end a task that hangs
                process.kill()
            self._pool.shutdown(cancel_futures=True)
        self._pool = None


def _call(pickled: bytes) -> Any:
    function, arguments = cloudpickle.loads(pickled)
    return function(*arguments)


def _most_memory() -> int:
    return int(psutil.virtual_memory().total * SHARE_OF_MEMORY)


def _limit_memory() -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):  # macOS refuses a limit of address space
        resource.setrlimit(resource.RLIMIT_AS, (_most_memory(), resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
