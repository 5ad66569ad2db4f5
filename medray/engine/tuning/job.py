"""The search of any system as a job: flags, plan, trials, page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, make_dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from medray.engine.data.prepare import Ingest
from medray.engine.data.samples import Shards
from medray.engine.job.dataset import Dataset
from medray.engine.job.options import Options, flags_over, run_job
from medray.engine.job.progress import say
from medray.engine.train.sweep import CrossValidation
from medray.engine.tuning.page import best_trials, write_search
from medray.engine.tuning.search import Search, claim_search, show_search
from medray.engine.tuning.space import Dimension, parse_space
from medray.engine.tuning.trial import Sweep
from medray.engine.tuning.tuner import run_search
from medray.shards.folders import held_shards
from medray.shards.store import Store
from medray.tasks.system import SearchSetup, System
from medray.tasks.task import Task

RowsOf = Callable[[Dataset, Ingest, Mapping[str, Any]], Shards]
"""Data of a job, its shards and folds, and name → task that is searched → the rows that the trials learn from."""


def tune(
    system: System, searched: SearchSetup, on_phantoms: SearchSetup | None = None, rows_of: RowsOf | None = None
) -> None:
    """Search as the command line says; on phantoms where it names no files and there are some.

    Args:
        rows_of: what is to be made of the shards first; they are taken as they are where it is not given.
    """
    fields = [flag.removeprefix("--").replace("-", "_") for flag in system.flags]

    def each(job: Any) -> None:
        what = searched
        if on_phantoms is not None and getattr(job, fields[0]) is None:
            what, job = on_phantoms, flags_over(_flags(system, on_phantoms))
        kind = _flags(system, what)
        bases = {n: replace(kind(), task=what.recipe(n)) for n in job.backbones}
        tasks = {n: flags_over(kind, base).task for n, base in bases.items()}  # the flags over the recipe of each
        _search(job, tasks, system, what, [None, *(getattr(job, name) for name in fields)][-2:], rows_of)

    run_job(_flags(system, searched), each)


def _flags(system: System, what: SearchSetup) -> type[Any]:
    """The command line of a system's search."""
    options, search = Options(**what.options), Search(search=what.space, trials=what.trials)
    task = what.recipe(what.backbones[0])
    first = (next(iter(what.objectives)),)
    every = " or ".join(what.objectives)
    each = zip(system.flags, system.about_flags, strict=True)
    strings = [
        (f.removeprefix("--").replace("-", "_"), Annotated[str | None, tyro.conf.arg(help=h)], None) for f, h in each
    ]
    about_backbones = "Recipes or timm names; where several are named, the backbone is searched too."
    about_objective = (
        f"{every}, of the held-out rows. The first one named decides who is stopped early; several give a Pareto front."
    )
    objective: Any = tuple[Literal[tuple(what.objectives)], ...]  # type: ignore[misc]
    return make_dataclass(
        "Tune",
        [
            *strings,
            ("backbones", Annotated[tuple[str, ...], tyro.conf.arg(help=about_backbones)], what.backbones),
            ("objective", Annotated[objective, tyro.conf.arg(help=about_objective)], first),
            ("options", tyro.conf.OmitArgPrefixes[Options], field(default=options)),
            ("source", tyro.conf.OmitArgPrefixes[type(system.source)], field(default=system.source)),  # type: ignore[misc]
            ("search", tyro.conf.OmitArgPrefixes[Search], field(default=search)),
            ("task", tyro.conf.OmitArgPrefixes[type(task)], field(default=task)),  # type: ignore[misc]
        ],
        frozen=True,
        kw_only=True,
    )


def _search(
    job: Any,
    tasks: dict[str, Task],
    system: System,
    what: SearchSetup,
    places: Sequence[str | None],
    rows_of: RowsOf | None,
) -> None:
    search, out = job.search, Store(job.options.out)
    job.options.fold_list()
    space = parse_space(search.search, tasks)
    source = system.source_for(job.source, next(iter(tasks.values())), places[1])
    source = source.holding(_needs(tasks, space), held_shards(job.options.out))
    bases: dict[str, Task] = {name: task.reading(source) for name, task in tasks.items()}
    for task in bases.values():
        task.without_weights().network()  # an error for a backbone that timm does not know
    # where the data comes with lists, a search looks at the validation list and never at the test list
    data = Dataset(system, source, job.options, places[0], places[1], what.phantoms, "val")
    data.use_lists()
    options, folds = data.options, data.options.fold_list()
    data.claim()
    objectives = {str(name): what.objectives[name] for name in job.objective}
    store = claim_search(out, search, space, bases, objectives, folds)
    initial = {name: data.write_initial(task, store.sub("initial", name)) for name, task in bases.items()}
    data.find()
    resources = search.resources(options, folds)
    rungs = search.rungs(next(iter(bases.values())).epochs)
    show_search(search, space, rungs, len(data.files), options, resources, next(iter(bases.values())).schedule)
    tracker = options.tracker(search.name)
    tracker.want("", f"search {search.name}", params={d.field: str(d) for d in space} | {"objective": job.objective})
    prepared = data.prepare()
    rows = Shards(prepared.rows, prepared.index) if rows_of is None else rows_of(data, prepared, bases)
    sweep = Sweep(
        bases, initial, space, objectives, rungs, what.score, rows,
        CrossValidation(store, folds, replace(options, monitor="none"), resources, system.strata),
    )  # fmt: skip
    trials = run_search(search, sweep, tracker)
    script, *more = what.job
    recipe_flag, name_flag = what.job_flags
    command = ["uv", "run", script, *data.flags(f"{search.name}-best", name_flag), *more, recipe_flag]
    lines, artifacts = write_search(trials, sweep, command, {n: what.reference(n) for n in bases}, data.of_phantoms)
    say("\n".join(lines))
    last = best_trials(trials, objectives)[0]["rungs"][-1]["scores"]
    scores = {f"best/{name}": value for name, value in last.items()}
    tracker.want("", "", metrics=scores, artifacts=artifacts, finished=True)
    tracker.close()
    say(f"  uv run mlflow ui --backend-store-uri {tracker.uri}")


def _needs(tasks: dict[str, Task], space: Sequence[Dimension]) -> list[str]:
    """What the shards must hold for any value of the space."""
    choices = [{d.field: choice} for d in space for choice in d.choices if hasattr(next(iter(tasks.values())), d.field)]
    every = [task if not change else replace(task, **change) for task in tasks.values() for change in [{}, *choices]]
    return [need for task in every for need in task.shard_needs]
