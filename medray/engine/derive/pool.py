"""Pieces of work on actors that keep what they have loaded: one a GPU, as many as the cluster has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import ray

RESTARTS = 3
"""Of an actor whose node was lost, and of a piece of work that was lost with it."""
ACTORS_OF_A_PIECE = 2
"""That a piece is tried on before it is held to be what they die of, each with its restarts."""
WAITING = 16
"""Actors that wait for room: what an autoscaler sees, four nodes of four GPUs at a time."""


class Kind(Protocol):
    """Of the pieces of work that a pool does."""

    def actor(self) -> Any:
        """A new actor that can do any piece."""

    def start(self, actor: Any, number: int) -> ray.ObjectRef:
        """Begin a piece on an actor."""


def placed(actor_class: type, cpus: float, gpu: bool) -> Any:
    """``actor_class`` as an actor with one GPU, or without.

    A process that has initialised one GPU must not meet another one. A task of Ray's may land in any idle process
    (``max_calls`` has no effect in ``options``); an actor stays where it is, and so does its network.
    """
    return ray.remote(actor_class).options(
        num_cpus=cpus, num_gpus=1 if gpu else 0, max_restarts=RESTARTS, max_task_retries=RESTARTS
    )


def done_by_actors(
    work: Kind, groups: Sequence[str], died: Callable[[int], None] | None = None
) -> Iterator[tuple[int, Any]]:
    """Do every piece of work, and yield its number and what it gave as it is done.

    Actors come as the cluster has room for them, also when it grows meanwhile, at most one for each piece that has not
    begun; those without work are ended. An actor takes pieces of the group of its last one, as long as there are any.

    Args:
        groups: group of each piece, such as the network that it takes.
        died: what to do with a piece of which actors have died, or run out of memory, each time that it was tried; the
            work then goes on. An exception where not given.
    Raises:
        Exception: of the first piece that failed; all actors are ended first.
    """
    left = list(range(len(groups)))
    begun = dict.fromkeys(groups, 0)  # group → actors that have begun with it
    starting: dict[ray.ObjectRef, Any] = {}
    busy: dict[ray.ObjectRef, tuple[Any, int]] = {}
    deaths: dict[int, int] = {}  # piece → actors that have died of it for good
    try:
        while left or busy:
            while len(starting) < min(WAITING, len(left)):
                actor = work.actor()
                starting[actor.__ray_ready__.remote()] = actor
            while len(starting) > len(left):
                ray.kill(starting.popitem()[1])
            (ready,), _ = ray.wait([*busy, *starting])
            actor, last = busy[ready] if ready in busy else (starting[ready], None)
            try:
                result = ray.get(ready)
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
                if died is None or last is None:
                    raise
                busy.pop(ready)
                ray.kill(actor)
                deaths[last] = deaths.get(last, 0) + 1
                if deaths[last] < ACTORS_OF_A_PIECE:  # this one's restarts may have been used up by others
                    left.insert(0, last)
                    continue
                died(last)
                yield last, None
                continue
            busy.pop(ready, None)
            starting.pop(ready, None)
            if left:
                number = _next(left, groups, None if last is None else groups[last], begun)
                busy[work.start(actor, number)] = actor, number
            else:
                ray.kill(actor)
            if last is not None:
                yield last, result
    finally:
        for actor in [*starting.values(), *(actor for actor, _ in busy.values())]:
            ray.kill(actor)


def _next(left: list[int], groups: Sequence[str], last: str | None, begun: dict[str, int]) -> int:
    """Take the next piece of the last group off ``left``; of the group that the fewest have begun with where none is."""
    same = [number for number in left if groups[number] == last]
    number = same[0] if same else min(left, key=lambda n: (begun[groups[n]], n))
    begun[groups[number]] += not same
    left.remove(number)
    return number
