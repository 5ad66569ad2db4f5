"""Writing beside training: a checkpoint of a gigabyte is not waited for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Saver:
    """One piece of writing at a time, in a thread, in the order in which they are given.

    What was not written when the process is killed is as if training had not come so far: it goes on from the state
    before, and does that part again in the same way.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.last: Future[object] | None = None

    def write(self, work: Callable[[], object]) -> None:
        """Begin ``work`` once what was given before is written. Raises what that raised."""
        self.wait()
        self.last = self.pool.submit(work)

    def wait(self) -> None:
        """Until all is written. Raises what the writing raised."""
        if self.last is not None:
            last, self.last = self.last, None
            last.result()
