"""What a hyper-parameter search is: its flags, its folder, its plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from medray.engine.job.claim import claim
from medray.engine.job.options import Options
from medray.engine.job.progress import say, warn
from medray.engine.nodes.cluster import Resources
from medray.engine.tuning.space import Dimension
from medray.shards.address import check_address
from medray.shards.folders import search_store
from medray.shards.names import check_name
from medray.shards.store import Store
from medray.tasks.system import Direction
from medray.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Search:
    """How to search; what to search are the job's fields."""

    search: tuple[str, ...] = ()
    """Fields and ranges: learning-rate=1e-5..1e-2:log weight-decay=0..0.1 size-px=224|300."""
    name: str = "search"
    """Folder below searches/ in --out. Given again, the search goes on there."""
    trials: int = 50
    """How many values to try. A finished search goes on with new values where more are asked for."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How new values are chosen: by Optuna's TPE from the trials before, or at random."""
    prune: bool = True
    """Stop trials early that are behind at a rung (ASHA)."""
    first_rung: int = 1
    """Epochs after which trials are first compared."""
    reduction: int = 3
    """Of the trials at a rung, the best one in this many goes on; each rung is this many times as long."""
    search_seed: int = 0
    """Of the sampler. With several trials at once the order in which they end also decides what is tried next."""
    study_storage: str | None = None
    """Optuna's database: sqlite:///FILE, or a URL that SQLAlchemy opens. Where not given, a file beside MLflow's."""

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("trials", self.trials, 1), ("first-rung", self.first_rung, 1), ("reduction", self.reduction, 2)
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"--{flag} {value}: must be at least {least}")
        if not self.name:
            raise ValueError("--name: may not be empty; it names a folder")
        check_name("--name", self.name)
        check_address("--study-storage", self.study_storage or "")

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs after which a trial reports."""
        found, epoch = [], self.first_rung
        while self.prune and epoch < epochs:
            found.append(epoch)
            epoch *= self.reduction
        return (*found, epochs)

    def resources(self, options: Options, folds: Sequence[int]) -> Resources:
        """Trials beside each other rather than workers on one: many small runs keep every GPU busy, and nothing is
        spent on gradients between them."""
        workers = 0 if options.workers is None else options.workers
        return replace(options, workers=workers).resources(self.trials * len(folds))

    def expected_epochs(self, rungs: tuple[int, ...]) -> float:
        """Epochs that all trials come to, if one in ``reduction`` is kept at each rung."""
        kept = [self.trials / self.reduction**i for i in range(len(rungs))]
        return sum(n * (rung - before) for n, rung, before in zip(kept, rungs, (0, *rungs), strict=False))


def claim_search(
    out: Store,
    search: Search,
    space: Sequence[Dimension],
    bases: Mapping[str, Task],
    objectives: Mapping[str, Direction],
    folds: Sequence[int],
) -> Store:
    """The folder of the search, in ``out``.

    Raises:
        ValueError: it is another search's, or the bases have unlike epochs.
    """
    if len({task.epochs for task in bases.values()}) > 1:
        epochs = ", ".join(f"{name} {task.epochs}" for name, task in bases.items())
        raise ValueError(f"--backbones: unlike epochs ({epochs}) cannot be compared by rungs; name --epochs too")
    names = ("sampler", "prune", "first_rung", "reduction", "search_seed")
    store = search_store(out, search.name)
    identity = {name: getattr(search, name) for name in names} | {
        "space": list(map(str, space)),
        "objectives": list(objectives),
        "folds": list(folds),
        "bases": {name: task.identity() for name, task in bases.items()},
    }
    try:
        claim(store, identity)
    except ValueError as error:
        raise ValueError(f"{error}; for another search, choose another --name") from None
    return store


def show_search(
    search: Search,
    space: Sequence[Dimension],
    rungs: tuple[int, ...],
    images: int,
    options: Options,
    resources: Resources,
    schedule: str = "",
) -> None:
    """The plan, before anything is spent. Images are at most what the files can give."""
    folds = options.fold_list()
    of_epoch = images * (options.folds - 1) // options.folds
    compared = f"{rungs[-1]} epochs each"
    if len(rungs) > 1:
        compared = f"compared after {', '.join(map(str, rungs))} epochs, one in {search.reduction} goes on"
    trained, most = search.expected_epochs(rungs) * len(folds), search.trials * rungs[-1] * len(folds)
    say(f"\nPlan → {options.out}/searches/{search.name}")
    say(f"  space     {'  '.join(map(str, space))}")
    say(f"  trials    {search.trials} on fold{'s' * (len(folds) > 1)} {' '.join(map(str, folds))}, {compared}")
    say(
        f"  training  about {trained:.0f} epochs × {of_epoch:,} images = {trained * of_epoch:,.0f}, {most} epochs at most"
    )
    say(f"  cluster   {resources}\n")
    if schedule == "one-cycle" and rungs[0] < 0.3 * rungs[-1]:
        warn(
            f"after {rungs[0]} of {rungs[-1]} epochs a one-cycle rate still rises: who is behind there may lead at the end; "
            f"--schedule cosine, --first-rung {math.ceil(0.4 * rungs[-1])} or --no-prune"
        )
