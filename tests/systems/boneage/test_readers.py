from __future__ import annotations

import pytest

from medray.systems.boneage.predict.readers import group_of, readers, regions_of
from medray.systems.boneage.scores.ensemble import Ensemble, Group


def test_models_without_a_weight_are_not_asked() -> None:
    girls = Group(("A-regression-girls", "B-regression-both"), (1.0, 0.0))
    unknown = Group((), ())
    assert readers(Ensemble({"girls": girls, "unknown": unknown})) == {"girls": ["A-regression-girls"], "unknown": []}


@pytest.mark.parametrize(
    ("sex", "group"), [("F", "girls"), ("M", "boys"), (None, "unknown"), (float("nan"), "unknown")]
)
def test_groups(sex: object, group: str) -> None:
    assert group_of(sex) == group


def test_regions_are_named_once_and_in_order() -> None:
    assert regions_of(["C-regression-both", "A-regression-girls", "C-classification-both"]) == ["A", "C"]
    assert regions_of([]) == []
