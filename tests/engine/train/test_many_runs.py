"""What is said of many runs: the end of each, and now and then where all of them are."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from medray.engine.train import fit
from medray.engine.train.run import Run


@dataclass
class Begun:
    """A run as far as it is looked at here."""

    name: str
    entries: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    task: Any = field(default_factory=lambda: SimpleNamespace(epochs=4))
    resources: Any = field(default_factory=lambda: SimpleNamespace(workers=0))

    def history(self) -> list[dict[str, Any]]:
        return self.entries

    def learn(self, epochs: int) -> None:
        for _ in range(epochs):
            epoch = len(self.entries) + 1
            self.entries.append(
                {"epoch": epoch, "workers": [1], "system": {"images_per_s": 5}, "metrics": {"train_loss": 1 / epoch}}
            )
        self.finished = len(self.entries) == self.task.epochs


def test_of_many_runs_the_end_of_each_is_said_and_how_long_all_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(fit.time, "monotonic", lambda: clock.now)
    begun = [Begun("a/fold0"), Begun("a/fold1")]
    runs = cast(list[Run], begun)
    together, first = fit._Together(runs), fit._Watched(runs[0], lambda run: None, each_epoch=False)
    begun[0].learn(2)
    first.look()
    together.look(2)
    assert capsys.readouterr().out == ""
    clock.now = 60
    first.look()
    together.look(2)
    assert capsys.readouterr().out == "  0 of 2 runs finished, 2 in progress; epoch 2 of 8, 0:03:00 left\n"
    begun[0].learn(2)
    first.look()
    first.say_end()
    assert capsys.readouterr().out == "  a/fold0  4 epochs  train_loss 0.2500  in 0:01:00\n"
    clock.now = 120
    together.look(1)
    assert "1 of 2 runs finished, 1 in progress; epoch 4 of 8, 0:02:00 left" in capsys.readouterr().out


def test_of_few_runs_every_epoch_is(capsys: pytest.CaptureFixture[str]) -> None:
    run = Begun("a/fold0")
    watched = fit._Watched(cast(Run, run), lambda run: None)
    run.learn(1)
    watched.look()
    assert "a/fold0  epoch 1/4  train_loss 1.0000  5 images/s" in capsys.readouterr().out
