"""The trials of a search → best values, a table, charts and a page."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from medray.engine.tuning.space import Dimension, differences, flags
from medray.engine.tuning.trial import Sweep
from medray.report import page
from medray.tasks.system import Direction
from medray.tasks.task import Task

Trial = dict[str, Any]
FEW_TRIALS = 20
_FEW = " So few trials tell little: another search may order the fields otherwise."
_BOTH_MODES = ListedColormap(mpl.colormaps["viridis"](np.linspace(0.3, 0.8, 64)))
"""Neither end is lost on white or on black."""


def write_search(
    trials: Sequence[Trial], sweep: Sweep, job: Sequence[str], references: Mapping[str, Task], phantom: bool
) -> tuple[list[str], dict[str, bytes]]:
    """Write trials.parquet, search.json and search.html into the search's folder.

    Args:
        job: command of the cross-validation on the same data, up to the name of the variant.
        references: variant → the task that this command trains where no flag says otherwise.
        phantom: the images are phantoms, and the page says so.
    Returns:
        Lines for a terminal, the best values as a command among them; artifacts for MLflow: file name → content.
    """
    found, store = best_trials(trials, sweep.objectives), sweep.store
    commands = [shlex.join(_command(trial, sweep, job, references)) for trial in found]
    table = trial_table(trials)
    store.write_table("trials.parquet", pa.Table.from_pandas(table, preserve_index=False))
    best = [
        {"trial": t["name"], "scores": _last(t), "values": t["values"], "command": command}
        for t, command in zip(found, commands, strict=True)
    ]
    store.write_json("search.json", {"best": best, "trials": len(trials), "rungs": list(sweep.rungs)})
    sections = search_sections(trials, sweep, commands[0], [page.PHANTOM_WARNING] if phantom else [])
    html = page.render("Hyper-parameter search", store.uri.rsplit("/", 1)[-1], sections).encode()
    store.write_bytes("search.html", html)
    states = table["state"].value_counts()
    lines = ["", "trials: " + ", ".join(f"{states.get(s, 0)} {s}" for s in ("complete", "stopped", "failed"))]
    for trial, command in zip(found, commands, strict=True):
        scores = "  ".join(f"{name} {_last(trial)[name]:.4f}" for name in sweep.objectives)
        lines += [f"{'best' if len(found) == 1 else 'on the front'}: trial {trial['name']}  {scores}", f"  {command}"]
    return [*lines, f"  {store.uri}/search.html"], page.plots(sections) | {"search.html": html}


def _command(trial: Trial, sweep: Sweep, job: Sequence[str], references: Mapping[str, Task]) -> list[str]:
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in trial["values"].items()}
    variant, task = sweep.variant(values), sweep.task(values)
    return [*job, variant, *flags(differences(task, references[variant]))]


def best_trials(trials: Sequence[Trial], objectives: Mapping[str, Direction]) -> list[Trial]:
    """The best trial, or the Pareto front of several objectives sorted by the first one, of those that went furthest."""
    furthest = max(trial["rungs"][-1]["epoch"] for trial in trials if trial["rungs"])
    ended = [trial for trial in trials if trial["rungs"] and trial["rungs"][-1]["epoch"] == furthest]
    first, direction = next(iter(objectives.items()))
    ended.sort(key=lambda trial: _last(trial)[first] * (1 if direction == "min" else -1))
    if len(objectives) == 1:
        return ended[:1]
    signs = np.array([1 if mode == "min" else -1 for mode in objectives.values()])
    costs = np.array([[_last(trial)[name] for name in objectives] for trial in ended]) * signs
    beaten = [(np.all(costs <= cost, axis=1) & np.any(costs < cost, axis=1)).any() for cost in costs]
    return [trial for trial, worse in zip(ended, beaten, strict=True) if not worse]


def trial_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """One row a trial: name, state, epochs, its scores at the last rung, its values."""
    return pd.DataFrame(
        [
            {"trial": trial["name"], "state": trial["state"], "epochs": trial["rungs"][-1]["epoch"] if trial["rungs"] else 0}
            | (_last(trial) if trial["rungs"] else {})
            | {name: ",".join(v) if isinstance(v, (list, tuple)) else v for name, v in trial["values"].items()}
            | {"reason": trial["reason"]}
            for trial in trials
        ]
    )  # fmt: skip


def _folds(folds: Sequence[int]) -> str:
    return f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}"


def search_sections(
    trials: Sequence[Trial], sweep: Sweep, command: str, notes: Sequence[str] = ()
) -> list[page.Section]:
    """What was found, what each trial came to, which fields matter."""
    space, objectives, rungs = sweep.space, sweep.objectives, sweep.rungs
    found = best_trials(trials, objectives)
    table = trial_table(trials).drop(columns="reason")
    names = list(objectives)
    scores = _last(found[0])
    tiles = tuple((name.replace("_", " "), f"{scores[name]:.4f}", f"trial {found[0]['name']}") for name in names)
    states = table["state"].value_counts()
    counts = ", ".join(f"{states.get(state, 0)} {state}" for state in ("complete", "stopped", "failed"))
    top: list[page.Block] = [page.Notice(note) for note in notes]
    top += [page.Figures(tiles), f"{len(trials)} trials: {counts}. The best values as a command:", command]
    top.append(
        "The best trial was chosen on the very images that it is scored on: the number flatters it. The command above trains every "
        f"fold with these values. Report its score without {_folds(sweep.validation.folds)}, by which they were chosen: as the best of "
        "some 20 trials, such a fold flattered by .006 to .008 of a log loss in an outside audit. Reports name these folds."
    )
    shown = table.sort_values(["epochs", names[0]], ascending=[False, objectives[names[0]] == "min"]).head(50)
    sections = [page.Section("What was found", more=tuple(top)), page.Section("History", more=(
        page.Picture(_history(trials, names[0], objectives[names[0]], rungs),
                     f"Each trial's {names[0]} at its last rung; the line is the best so far of those that ended."),
    ))]  # fmt: skip
    if len(names) > 1:
        front = page.Picture(_front(trials, found, names), "Orange: no other trial is better in both.")
        sections.append(page.Section("Pareto front", more=(front,)))
    study = _study(trials, space, names[0], objectives[names[0]])
    caption = f"All trials after {rungs[0]} epoch{'s' * (rungs[0] > 1)}, where every one of them was compared"
    if len(study.trials) > 3:
        drawn = _optuna(optuna.visualization.matplotlib.plot_parallel_coordinate, study, names[0])
        sections.append(page.Section("Parallel coordinates", more=(page.Picture(drawn, caption + "."),)))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            drawn = _optuna(
                optuna.visualization.matplotlib.plot_param_importances, study, names[0], evaluator=evaluator
            )
            text = (
                f"{caption} (n = {len(study.trials)}): the part of the objective's variance that a field explains (fANOVA, Hutter "
                "et al. 2014)."
            ) + _FEW * (len(study.trials) < FEW_TRIALS)
            sections.append(page.Section("Importances", more=(page.Picture(drawn, text),)))
        except (RuntimeError, ValueError):  # all trials alike
            sections.append(page.Section("Importances", "All trials scored alike: no field can be told to matter."))
    sections.append(page.Section("Trials", more=(page.Table(shown, "The furthest and best first; at most 50."),)))
    return sections


def _last(trial: Trial) -> dict[str, float]:
    return dict(trial["rungs"][-1]["scores"])


def _history(trials: Sequence[Trial], name: str, direction: Direction, rungs: Sequence[int]) -> Figure:
    figure, axes = page.chart(9, 3.2)
    axis = axes[0, 0]
    for i, rung in enumerate(rungs):
        at = [(n, _last(t)[name]) for n, t in enumerate(trials) if t["rungs"] and t["rungs"][-1]["epoch"] == rung]
        label = f"ended, epoch {rung}" if rung == rungs[-1] else f"stopped after epoch {rung}"
        if at:
            axis.scatter(*zip(*at, strict=True), s=22, color=page.PALETTE[i % len(page.PALETTE)], label=label)
    pick = np.fmin if direction == "min" else np.fmax
    values = [_last(t)[name] if t["state"] == "complete" else np.nan for t in trials]
    axis.step(range(len(trials)), pick.accumulate(values), where="post", color=page.INK, linewidth=1.2)
    axis.set_xlabel("trial")
    axis.set_ylabel(name.replace("_", " "))
    page.legend(axis)
    return figure


def _front(trials: Sequence[Trial], front: Sequence[Trial], names: Sequence[str]) -> Figure:
    figure, axes = page.chart(6, 4)
    for which, colour in ((trials, page.PALETTE[1]), (front, page.PALETTE[0])):
        points = [[_last(t)[name] for name in names[:2]] for t in which if t["state"] == "complete"]
        if points:
            axes[0, 0].scatter(*zip(*points, strict=True), s=26, color=colour)
    axes[0, 0].set_xlabel(names[0].replace("_", " "))
    axes[0, 0].set_ylabel(names[1].replace("_", " "))
    return figure


def _study(trials: Sequence[Trial], space: Sequence[Dimension], name: str, direction: Direction) -> optuna.Study:
    """All trials at the first rung: there they are comparable, later only the better ones are left."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize" if direction == "min" else "maximize")
    distributions = {dimension.field: dimension.distribution() for dimension in space}
    for trial in trials:
        if trial["rungs"]:
            values = {n: ",".join(v) if isinstance(v, list) else v for n, v in trial["values"].items()}
            study.add_trial(
                optuna.trial.create_trial(
                    params=values, distributions=distributions, value=trial["rungs"][0]["scores"][name]
                )
            )
    return study


def _optuna(draw: Any, study: optuna.Study, name: str, **options: Any) -> Figure:
    """A chart of Optuna's, which draws through pyplot, without a window."""
    import matplotlib.pyplot as plt

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        plt.switch_backend("agg")
        axes = draw(study, target=_value, target_name=name.replace("_", " "), **options)
        figure = axes.get_figure()
        plt.close(figure)
    figure.set_size_inches(9, 3.8)
    figure.set_layout_engine("tight")  # names of fields are long
    _suit_page(figure)
    return figure


def _suit_page(figure: Figure) -> None:
    """Optuna's colours are for white paper; the page's own follow the reader's light or dark mode."""
    for axis in figure.axes:
        axis.set_facecolor("none")
        for side in ("left", "center"):
            axis.set_title("", loc=side)  # the section has one
        if legend := axis.get_legend():
            legend.remove()
        axis.grid(False)
        axis.tick_params(which="both", colors=page.FAINT)
        for spine in axis.spines.values():
            spine.set_color(page.FAINT)
        for lines in axis.collections:
            if lines.get_array() is not None:
                lines.set_cmap(_BOTH_MODES)
        for bar in axis.patches:
            bar.set_facecolor(page.PALETTE[1])
    for text in figure.findobj(Text):
        text.set_color(page.INK)  # type: ignore[attr-defined]
    for line in figure.findobj(Line2D):
        line.set_color(page.FAINT)  # type: ignore[attr-defined]


def _value(trial: optuna.trial.FrozenTrial) -> float:
    return float(trial.value if trial.value is not None else np.nan)
