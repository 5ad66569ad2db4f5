"""Writing beside training: a checkpoint of a gigabyte is not waited for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Saver:
    """Pieces of writing in a thread, in the order in which they are given; two may wait.

    What was not written when the process is killed is as if training had not come so far: it goes on from the state
    before, and does that part again in the same way.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: list[Future[object]] = []

    def write(self, work: Callable[[], object]) -> None:
        """Begin ``work`` once what was given before is written. Raises what that raised."""
        self._wait(at_most=1)
        self.pending.append(self.pool.submit(work))

    def wait(self) -> None:
        """Until all is written. Raises what the writing raised."""
        self._wait(at_most=0)

    def _wait(self, at_most: int) -> None:
        while self.pending and (len(self.pending) > at_most or self.pending[0].done()):
            self.pending.pop(0).result()
