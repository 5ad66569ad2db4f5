from __future__ import annotations

from medray.report.figures import line, texts

FEW = {"value": 0.84219, "low": None, "high": None, "reason": "3 positive patients, fewer than 5"}
NONE = {"value": None, "low": None, "high": None, "reason": "no label is positive"}
WHOLE = {"value": -0.84219, "low": -0.9, "high": 0.8}


def test_a_figure_its_interval_or_the_reason() -> None:
    assert texts(FEW, 3) == ("0.842", "no interval: 3 positive patients, fewer than 5")
    assert texts(NONE, 3) == ("–", "undefined: no label is positive")
    assert texts(WHOLE, 2, signed=True) == ("−0.84", "−0.90 to +0.80")
    assert texts({"value": 0.5, "low": None, "high": None}, 2) == ("0.50", "")  # files of before reasons were written


def test_one_line_for_a_terminal() -> None:
    assert line(FEW, 3) == "0.842  (no interval: 3 positive patients, fewer than 5)"
    assert line(NONE, 3) == "undefined: no label is positive"
    assert line(WHOLE, 2) == "-0.84  (95% -0.90 to 0.80)"
