from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medray.imaging.window import Window, parse_window
from medray.systems.ich.source import HeadCT

LEVELS = st.one_of(st.integers(-2000, 4000), st.floats(-2000, 4000, allow_nan=False))
WIDTHS = st.one_of(st.integers(1, 6000), st.floats(1e-3, 6000, allow_nan=False))
TEXTS = st.one_of(
    st.sampled_from(["brain", "subdural", "bone", "soft", "Brain", "40/80", "40.0/80"]),
    st.builds(lambda level, width: f"{level}/{width}", LEVELS, WIDTHS),
)


def of(*windows: str) -> HeadCT:
    return HeadCT(windows=windows)


def held(folder: str, **fields: Any) -> dict[str, Any]:
    """Identity of the source of such a folder, as the shards in it have it."""
    windows = tuple(name.replace("x", "/") for name in folder.split("_"))
    return json.loads(json.dumps(HeadCT(windows=windows, **fields).identity()))


def windows_of(source: HeadCT) -> list[Window]:
    return [parse_window(window) for window in source.windows]


@pytest.mark.parametrize(
    ("windows", "folder"),
    [
        (("brain",), "40x80"),
        (("brain", "subdural", "bone"), "40x80_75x215_600x2800"),
        (("bone", "brain"), "600x2800_40x80"),
        (("40.0/80", "soft"), "40x80_40x375"),
        (("-100.5/300", "-20/0.25"), "-100.5x300_-20x0.25"),
    ],
)
def test_the_folder_is_named_by_its_windows_in_hu(windows: tuple[str, ...], folder: str) -> None:
    assert of(*windows).folder == folder


def test_a_name_and_its_numbers_are_the_same_folder_and_another_order_is_not() -> None:
    assert of("brain", "subdural").folder == of("40/80", "75/215.0").folder
    assert of("brain", "subdural").folder != of("subdural", "brain").folder


@given(windows=st.lists(TEXTS, min_size=1, max_size=4))
def test_windows_survive_the_round_trip_through_the_shards(windows: list[str]) -> None:
    source = of(*windows)
    back = HeadCT().holding(windows, [json.loads(json.dumps(source.identity()))])
    assert windows_of(back) == windows_of(source)
    assert back.folder == source.folder
    assert "/" not in source.folder


def test_windows_that_differ_little_have_folders_of_their_own() -> None:
    assert of("40.000001/80").folder != of("40.000002/80").folder


@pytest.mark.parametrize(
    ("wanted", "folders", "windows"),
    [
        (("brain",), ["40x80"], [(40, 80)]),
        (("bone", "40/80"), ["75x215", "40x80_75x215_600x2800"], [(40, 80), (75, 215), (600, 2800)]),
        (("subdural",), ["40x80_75x215", "75x215"], [(40, 80), (75, 215)]),  # the first that will do
        (("subdural", "brain"), ["40x80_75x215"], [(40, 80), (75, 215)]),  # its order, not the wanted one
        (("-100.5/300",), ["40x80", "-100.5x300_40x80"], [(-100.5, 300), (40, 80)]),
    ],
)
def test_a_folder_that_holds_all_wanted_windows_is_used_again(
    wanted: tuple[str, ...], folders: list[str], windows: list[tuple[float, float]]
) -> None:
    source = HeadCT().holding(wanted, [held(folder) for folder in folders])
    assert windows_of(source) == [Window(*numbers) for numbers in windows]
    assert source.folder in folders


@pytest.mark.parametrize("folders", [[], ["75x215"], ["40x80", "600x2800"], ["40x81_600x2800"], ["-40x80_600x2800"]])
def test_without_such_a_folder_the_wanted_windows_are_made(folders: list[str]) -> None:
    assert set(windows_of(of("soft").holding(("brain", "bone"), [held(folder) for folder in folders]))) == {
        Window(40, 80),
        Window(600, 2800),
    }


def test_what_several_models_want_is_made_once() -> None:
    wanted = ("brain", "subdural", "bone", "brain", "40/80", "75/215", "40/380")
    windows = windows_of(HeadCT().holding(wanted, ()))
    assert len(windows) == 4
    assert set(windows) == {Window(40, 80), Window(75, 215), Window(600, 2800), Window(40, 380)}
    assert HeadCT().holding(wanted, ()) == HeadCT().holding(wanted, ())


def test_wanted_windows_keep_their_order() -> None:
    assert HeadCT().holding(("bone", "brain", "600/2800", "soft"), ()).windows == ("bone", "brain", "soft")
    assert HeadCT().holding(("brain", "subdural", "bone"), ()).windows == HeadCT().windows


def test_the_rest_of_the_source_stays_as_it_is() -> None:
    for there in ([], [held("40x80", remove_hardware=False)]):
        assert not HeadCT(remove_hardware=False).holding(("brain",), there).remove_hardware


def test_shards_that_differ_in_anything_else_are_not_used() -> None:
    wide = held("40x80_75x215")
    assert HeadCT().holding(("brain",), [wide]).folder == "40x80_75x215"
    for other in (
        wide | {"version": 1},
        wide | {"source": "Radiograph"},
        wide | {"more": 1},
        held("40x80_75x215", remove_hardware=False),
        {},
    ):
        assert HeadCT().holding(("brain",), [other]).folder == "40x80"


@pytest.mark.parametrize(("windows", "message"), [((), "--windows: at least one"), (("brian",), "did you mean brain")])
def test_windows_that_there_are_not(windows: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadCT(windows=windows)
