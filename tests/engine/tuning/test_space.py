from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from medray.engine.tuning.space import differences, flags, parse_space
from medray.systems.ich.recipes import phantom

BASES = {"test_efficientnet": phantom()}


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("learning-rate=1e-5..1e-2:log", FloatDistribution(1e-5, 1e-2, log=True)),
        ("learning_rate=1.5e-5..0.015:log", FloatDistribution(1.5e-5, 0.015, log=True)),
        ("weight-decay=0..0.1", FloatDistribution(0, 0.1)),
        ("clip-norm=.5..2.5", FloatDistribution(0.5, 2.5)),
        ("repeat-epidural=1..4", IntDistribution(1, 4)),
        ("size-px=64|96", CategoricalDistribution([64, 96])),
        ("optimizer=adam|sgd", CategoricalDistribution(["adam", "sgd"])),
        ("flip=true|false", CategoricalDistribution([True, False])),
        ("ema-decay=none|0.99", CategoricalDistribution([None, 0.99])),
        ("windows=brain|brain,bone", CategoricalDistribution(["brain", "brain,bone"])),
    ],
)
def test_a_field_with_its_range(text: str, distribution: object) -> None:
    (dimension,) = parse_space([text], BASES)
    assert dimension.distribution() == distribution
    assert str(parse_space([str(dimension)], BASES)[0]) == str(dimension)  # what is shown can be typed


def test_a_choice_of_several_windows_is_a_tuple_again() -> None:
    (dimension,) = parse_space(["windows=brain|brain,bone"], BASES)
    assert dimension.value("brain,bone") == ("brain", "bone")


def test_several_bases_are_a_dimension_of_their_own() -> None:
    found = parse_space([], BASES | {"test_byobnet": phantom("test_byobnet")})
    assert [str(d) for d in found] == ["backbone=test_efficientnet|test_byobnet"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr=1e-5..1e-2", r"lr=1e-5\.\.1e-2: no such field; .*learning-rate"),
        ("epochs=1..9", "no such field"),
        ("pretrained=true|false", "no such field"),
        ("size-px=8..64", "--size-px 8: must be at least 32"),
        ("batch-size=1.5..3", "'1.5' is not a whole number"),
        ("learning-rate=0..1:log", "above 0 with :log"),
        ("learning-rate=1..0.1", "lower end must lie below"),
        ("optimizer=adam|lion", "'lion' is none of adam, adamw"),
        ("flip=1..2", "not a range"),
        ("learning-rate=1e-3", "two values"),
        ("learning-rate=fast..slow", "not a number"),
        ("windows=brain|liver!", "liver"),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_starts(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_space([text], BASES)


def test_nothing_to_search_and_a_field_named_twice() -> None:
    with pytest.raises(ValueError, match="nothing to search"):
        parse_space([], BASES)
    with pytest.raises(ValueError, match="named twice"):
        parse_space(["zoom=0..1", "zoom=0..2"], BASES)


def test_values_as_flags() -> None:
    values = {"backbone": "b", "learning_rate": 1e-5, "flip": False, "windows": ("brain", "bone"), "size_px": 64}
    text = "--backbones b --learning-rate 1e-05 --no-flip --windows brain bone --size-px 64"
    assert flags(values) == text.split()


def test_differences_of_two_tasks() -> None:
    from dataclasses import replace

    task = replace(phantom(), learning_rate=0.5, windows=("brain",))
    assert differences(task, phantom()) == {"learning_rate": 0.5, "windows": ("brain",)}
