from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

from medray.report.page import Section, plots, render
from medray.systems.ich.recalibrate import Recalibration
from medray.systems.ich.report import about_ladder
from medray.systems.ich.report.published import PRIVATE_BOARD, RESULTS, VALIDATION


def interval(value: float | None, half: float = 0.002) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "reason": "no label is positive"}
    return {"value": value, "low": value - half, "high": value + half}


def row(name: str, loss: float, change: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "adds": f"what {name} adds", "weighted_log_loss": interval(loss),
        "change": None if change is None else interval(change, 0.0005),
        "auc_any": interval(0.9512), "average_precision_epidural": interval(0.4321),
        "log_loss_epidural": interval(0.01),
        "mean_probability_epidural": 0.005, "observed_rate_epidural": 0.004,
        "slices": 12345, "patients": 678, "own_slices": 12345, "folds": [0, 1, 2],
    } | changes  # fmt: skip


ROWS = [
    row("backbone", 0.0712, None),
    row("views", 0.0702, -0.001),
    row("LSTM <2.5D>", 0.0610, -0.0092),
]


def rare(name: str, ratio: float | None, change: float | None, positives: int = 21) -> dict[str, Any]:
    return {
        "name": name, "adds": f"what {name} does", "class": "epidural", "log_loss": interval(0.0123),
        "change": None if change is None else interval(change, 0.0001),
        "average_precision": interval(0.345 if positives else None),
        "mean_probability": 0.01234, "observed_rate": 0.0041, "ratio": ratio,
        "slices": 5000, "patients": 140, "positives": positives, "positive_patients": min(7, positives),
    }  # fmt: skip


def page(section: Section) -> str:
    """The rendered page, its escaped characters as they are read."""
    return html.unescape(render("t", "l", [section]))


def cells(text: str) -> str:
    return re.sub(r"<[^>]+>", "|", text)


def test_the_ladder_says_what_each_step_added() -> None:
    text = page(about_ladder.ladder(json.loads(json.dumps(ROWS)), RESULTS, phantom=False))
    assert "What each step added" in text
    assert "12,345 held-out slices of 678 patients" in text
    assert "change against the step before" in text
    flat = cells(text)
    assert "|0.0610|" in flat
    assert "0.0590 to 0.0630" in flat
    assert "|−0.0092|" in flat
    assert "−0.0097 to −0.0087" in flat
    assert "|0.951|" in flat
    assert "|0.432|" in flat
    assert "(folds 0, 1, 2)" in text
    assert "|folds|" not in flat  # the text says what all steps share
    assert "|slices|" not in flat
    assert "also differ by training chance, which the interval does not contain" in text
    assert '<th class="wide">what it adds</th>' in text
    assert "LSTM <2.5D>" in text  # escaped, not swallowed
    assert "<svg" in text
    assert "Only slices that every step has count" not in text


def test_validation_stands_beside_validation_only() -> None:
    text = page(about_ladder.ladder(ROWS, RESULTS, phantom=False))
    for one in RESULTS:
        assert (one.system in text) == (one.on == VALIDATION)
    assert text.index(".06336") < text.index(".05758") < text.index(".0567<")  # from the first step to the last
    assert PRIVATE_BOARD not in text
    assert "Hollow diamonds" in text
    assert "phantoms" not in text
    assert text.index("change against the step before") < text.index("published step") < text.index("<svg")


def test_on_phantoms_nothing_may_be_compared() -> None:
    section = about_ladder.ladder(ROWS, RESULTS, phantom=True)
    text = page(section)
    assert "nothing here may be compared with a published figure" in text
    assert "no: phantoms" not in text
    assert "|comparable|" not in cells(text)
    assert text.count(VALIDATION) == 1 + sum(one.on == VALIDATION for one in RESULTS)
    assert "yes, on the challenge's data" not in text
    assert "Hollow diamonds" not in text
    assert "published, validation" not in text  # nor drawn


def test_steps_that_predicted_more_slices_are_named() -> None:
    text = page(about_ladder.ladder([ROWS[0] | {"own_slices": 20000, "folds": None}, *ROWS[1:]]))
    assert "|folds|" in cells(text)
    assert "(folds" not in text
    assert "Only slices that every step has count; more were predicted by backbone (20,000)." in text


def test_undefined_scores_and_a_lone_step() -> None:
    lone = row("alone", 0.07, None, average_precision_epidural=interval(None))
    lone["weighted_log_loss"] |= {"low": None, "high": None, "reason": "3 positive patients, fewer than 5"}
    section = about_ladder.ladder([lone])
    assert "undefined: no label is positive" in page(section)
    assert "no interval: 3 positive patients, fewer than 5" in page(section)
    assert plots([section])["what-each-step-added.png"].startswith(b"\x89PNG")
    assert "No step has been scored yet." in page(about_ladder.ladder([]))


def test_the_rare_class_and_what_its_recalibration_rests_on() -> None:
    rows = [rare("none", 3.01, None), rare("repeated", 2.2, 0.0031)]
    fits = {
        "fold 0": Recalibration((0.9,) * 6, (-1.2345,) * 6, 4321, 98, (17,) * 6, repeats=3).to_json(),
        "fold 1": Recalibration((1.0,) * 6, (-1.0986,) * 6, 4000, 91, (0,) * 6, repeats=3).to_json(),
    }
    text = page(about_ladder.rare_class(rows, fits))
    flat = cells(text)
    assert "The rare class: epidural" in text
    assert "change against none" in text
    assert "|+0.0031|" in flat
    assert "1.234%" in flat
    assert "0.410%" in flat
    assert "|3.01|" in flat
    assert "5,000 held-out slices of 140 patients, 21 of them, of 7 patients, labelled epidural" in text
    for shown in ("|0.900|", "|−1.234|", "|98|", "|4,321|", "|17|"):
        assert shown in flat
    assert "|bias by theory|" in flat
    assert flat.count("|−1.099|") == 3  # in both folds, and as the bias of the fold without positives
    assert "No inner slice with epidural in fold 1: its recalibration is what theory says" in text
    assert "Nothing was recalibrated" not in text


def test_a_rare_class_without_positives_or_recalibration() -> None:
    text = page(about_ladder.rare_class([rare("none", None, None, positives=0)], None))
    assert "No held-out slice is labelled epidural" in text
    assert "Nothing was recalibrated here." in text
    assert "inner patients" not in text
    assert "No remedy has been scored yet." in page(about_ladder.rare_class([]))


@pytest.mark.parametrize("key", [int, str])  # JSON makes texts of folds
def test_the_ensemble_shows_weights_and_what_they_were_worth(key: type) -> None:
    weights = {"a": {key(2): 0.25, key(10): 0.5}, "b": {key(2): 0.75, key(10): 0.5}}
    losses = {"plain average": 0.06001, "searched weights, nested": 0.0598, "b alone": 0.0712}
    text = page(about_ladder.ensemble(weights, compared(losses)))
    flat = cells(text)
    assert text.index("fold 2") < text.index("fold 10")
    assert "|0.375|" in flat  # the mean of a
    assert "|0.0600|" in flat
    assert "|b alone||0.0712|" in flat
    assert "one fold only" not in text


def compared(losses: dict[str, float], half: float = 0.001) -> dict[str, Any]:
    """As ``Method.comparison``, with intervals of one width."""
    plain = losses["plain average"]
    return {
        name: {
            "weighted_log_loss": loss,
            "change": None
            if name == "plain average"
            else {"value": loss - plain, "low": loss - plain - half, "high": loss - plain + half},
        }
        for name, loss in losses.items()
    }


def test_an_ensemble_of_one_fold() -> None:
    text = page(about_ladder.ensemble({"a": {0: 0.5}, "b": {0: 0.5}}, {}, "1 fold, fewer than 3"))
    assert "There is one fold only" in text
    assert "The answer is the plain average of the models (1 fold, fewer than 3)." in text
    assert "|mean|" not in cells(text)


@pytest.mark.parametrize(
    ("searched", "verdict"),
    [
        (
            0.1505,
            "Searched weights score 0.1505 and the plain average 0.1454: worse by +0.0051 (95% +0.0041 to +0.0061).",
        ),
        (
            0.1400,
            "Searched weights score 0.1400 and the plain average 0.1454: better by −0.0054 (95% −0.0064 to −0.0044).",
        ),
        (
            0.1450,
            "0.1450 and the plain average 0.1454: a change of −0.0004 (95% −0.0014 to +0.0006), which leaves open which of the two "
            "is better.",
        ),
    ],
)
def test_the_ensemble_says_whether_searching_was_worth_it_and_how_sure_that_is(searched: float, verdict: str) -> None:
    weights = {"a": {0: 0.2, 1: 0.9}, "b": {0: 0.8, 1: 0.1}}
    losses = {
        "searched weights, nested": searched,
        "searched by descent, nested": 0.1509,
        "plain average": 0.1454,
        "a": 0.1430,
        "b": 0.2,
    }
    text = page(about_ladder.ensemble(weights, compared(losses), "2 folds, fewer than 3"))
    assert verdict in text
    assert "That flatters the search" in text
    assert "with two folds most of the luck" in text
    assert "The answer is the plain average of the models (2 folds, fewer than 3)." in text
    assert (
        "One model alone, a, has a lower loss than the plain average: better by −0.0024 (95% −0.0034 to −0.0014)."
        in text
    )
    table = cells(text[text.index("blend or model") :])
    shown = [float(loss) for loss in re.findall(r"\|(0\.\d{4})", table)]
    assert shown == sorted(shown)
    assert len(shown) == 5


def test_one_model_has_no_weights_to_judge() -> None:
    losses = {"searched weights, nested": 0.15, "plain average": 0.15, "a": 0.15}
    text = page(about_ladder.ensemble({"a": {0: 1.0, 1: 1.0}}, compared(losses)))
    assert "Searched weights score" not in text
    assert "There is one model, which is the answer." in text
