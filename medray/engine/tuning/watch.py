"""The eyes of a search: what its trials do, from their folders to the terminal and to MLflow."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from medray.engine.job.progress import say, warn
from medray.engine.job.tracking import Tracker
from medray.engine.tuning.trial import Sweep, read_trials
from medray.shards.folders import run_store
from medray.shards.store import reason

_POLL_SECONDS = 2.0


class Watcher(threading.Thread):
    """Says each rung of each trial as it ends and mirrors trials and their folds to MLflow, from the trials' folders."""

    def __init__(self, sweep: Sweep, tracker: Tracker) -> None:
        super().__init__(name="watch-trials", daemon=True)
        self.sweep, self.tracker = sweep, tracker
        self.shown: dict[str, int] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            self.look()

    def stop(self) -> None:
        self._over.set()
        self.join()
        self.look(ended=True)

    def look(self, ended: bool = False) -> None:
        try:
            trials = read_trials(self.sweep.store, self.sweep.rungs)
        except (OSError, ValueError) as error:  # storage that is down for a moment is no reason to go blind
            warn(f"trials cannot be read now ({reason(error)})")
            return
        for trial in trials:
            name, steps = trial["name"], len(trial["rungs"]) + (trial["state"] == "failed")
            if steps == self.shown.get(name, -1) and not ended:
                continue
            self._track(trial, ended)
            new = trial["rungs"][max(0, self.shown.get(name, 0)) :] if name in self.shown else []
            for rung in new:
                scores = "  ".join(f"{n} {v:.4f}" for n, v in rung["scores"].items() if isinstance(v, float))
                say(f"  trial {name}  epoch {rung['epoch']}/{self.sweep.rungs[-1]}  {scores}  {shown(trial['values'])}")
            if trial["state"] == "failed" and steps != self.shown.get(name):
                say(f"  trial {name}  failed, {trial['reason']}")
            self.shown[name] = steps

    def _track(self, trial: dict[str, Any], ended: bool) -> None:
        name, over = trial["name"], ended or trial["state"] != "stopped"
        history = [
            {"epoch": rung["epoch"], "metrics": _numbers(rung["scores"]), "system": {}} for rung in trial["rungs"]
        ]
        self.tracker.want(name, f"trial {name}", parent="", params=trial["values"], history=history, finished=over)
        if not trial["rungs"]:
            return
        params = self.sweep.task(trial["values"]).identity()
        for fold in self.sweep.folds:
            key = f"{name}/fold{fold}"
            history = run_store(self.sweep.store, name, fold).read_json("history.json", [])
            self.tracker.want(key, key, parent=name, params=params, history=history, finished=over)


def shown(values: Mapping[str, Any]) -> str:
    """Values in a few words."""
    return " ".join(f"{n.replace('_', '-')}={f'{v:.3g}' if isinstance(v, float) else v}" for n, v in values.items())


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if isinstance(value, float) and value == value}
