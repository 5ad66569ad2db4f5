"""Figures by organ and by network, and the files of a finished model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medray.metrics.intervals import intervals
from medray.metrics.organs import over_organs
from medray.shards.store import Store
from medray.systems.headneck import recipes
from medray.systems.headneck.chain import Chain, SmallOrgans
from medray.systems.headneck.names import small_ones
from medray.systems.headneck.scores.ladder import by_organ, ladder, means, organ_table, peaks
from medray.systems.headneck.scores.results import conclude, flat, summary
from medray.systems.headneck.source import PlanningCT
from medray.systems.headneck.yardstick import HUMAN, OTHERS_MM, tolerance_mm
from medray.tasks.new_scans.answers import training_ml
from medray.tasks.packed_masks import packed, unpacked

ORGANS = ("Brainstem", "Lens_L")


def predictions(shift: float = 0.0, scans: int = 8, undrawn: int = 0) -> pd.DataFrame:
    """Of scans in which the lens is drawn in all but the first few."""
    rng, own_rng = np.random.default_rng(0), np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for i in range(scans):
        row: dict[str, Any] = {"scan_id": f"s{i}", "patient_id": f"p{i}", "visit": "1", "fold": i % 2}
        for organ, dice in (("Brainstem", 0.8), ("Lens_L", 0.4 + shift * own_rng.normal(1, 0.01))):
            known = organ == "Brainstem" or i >= undrawn
            own = {"ml": 1.0, "true_ml": 1.0, "dice": dice + rng.normal(0, 0.02), "surface_dice": dice, "hd95_mm": 2.0}
            row |= {f"{name}_{organ}": value if known or name == "ml" else np.nan for name, value in own.items()}
        row |= {"peak_Lens_L": 0.9 if i % 4 else 0.3, "peak_mm_Lens_L": 3.0 * i}
        rows.append(row)
    return pd.DataFrame(rows)


def test_a_mean_over_organs_counts_each_once_however_often_it_is_drawn() -> None:
    values, organs = np.array([1.0, 1.0, 1.0, 0.0, np.nan]), np.array(["a", "a", "a", "b", "c"])
    score = over_organs(values, organs)
    assert score.value(np.ones(5)) == 0.5
    assert np.isnan(
        score.value(np.array([1.0, 0, 0, 0, 5]))
    )  # of a draw of patients without organ b it is another figure


def test_an_interval_of_organs_that_few_have_comes_from_draws_that_hold_them_all() -> None:
    """A poor organ that 4 of 12 patients have: in draws without it the mean over the rest is far above every whole one."""
    rng = np.random.default_rng(0)
    values = np.r_[0.9 + rng.normal(0, 0.01, 12), 0.2 + rng.normal(0, 0.01, 4)]
    organs = np.array(["Liver"] * 12 + ["Gallbladder"] * 4)
    patients = np.array([f"p{i}" for i in [*range(12), *range(4)]])
    (found,) = intervals({"dice": over_organs(values, organs)}, patients).values()
    assert found["value"] == pytest.approx(0.55, abs=0.02)
    assert found["high"] < 0.6
    alone = np.array([f"o{i}" for i in range(6)])  # each in one patient: hardly a draw holds them all
    (few,) = intervals({"dice": over_organs(rng.normal(0.5, 0.1, 6), alone)}, patients[:6]).values()
    assert (few["low"], few["reason"]) == (None, "its patients do not differ, or it is undefined without one of them")
    assert few["value"] is not None


def test_what_nobody_has_drawn_is_not_scored() -> None:
    table = organ_table(predictions(undrawn=3), ORGANS)
    found = by_organ(table)
    assert (found["Brainstem"]["scans"], found["Lens_L"]["scans"]) == (8, 5)
    assert found["Lens_L"]["dice"]["low"] is not None
    few = by_organ(organ_table(predictions(undrawn=5), ORGANS))["Lens_L"]["dice"]
    assert few["low"] is None
    assert "3 patients, fewer than 5" in few["reason"]


def test_rungs_are_compared_on_the_same_scans_small_and_large_apart() -> None:
    tables = {rung: organ_table(predictions(shift), ORGANS) for rung, shift in (("snet", 0.0), ("outlines", 0.2))}
    (step,) = ladder(tables, ("Lens_L",))
    assert (step["rung"], step["against"]) == ("outlines", "snet")
    small, large = step["groups"]["small"]["dice"], step["groups"]["large"]["dice"]
    assert small["value"] == pytest.approx(0.2, abs=0.002)
    assert small["low"] > 0.19
    assert large == {
        "value": 0.0,
        "low": None,
        "high": None,
        "reason": "its patients do not differ, or it is undefined without one of them",
    }
    assert step["groups"]["all"]["dice"]["value"] == pytest.approx(0.1, abs=0.001)
    assert {*means(tables, ("Lens_L",))["snet"]} == {"all", "small", "large"}
    assert {*means(tables, ())["snet"]} == {"all"}


def test_peaks_count_where_the_organ_is_drawn() -> None:
    found = peaks(organ_table(predictions(undrawn=1), ORGANS), gate=0.6)
    assert found == {"Lens_L": {"scans": 7, "confident": 6, "near": 2, "median_mm": 12.0}}


def test_bits_of_a_box_lead_back_to_the_mask() -> None:
    mask = np.random.default_rng(0).random((5, 6, 7)) < 0.2
    assert np.array_equal(unpacked(packed(mask), mask.shape), mask)
    assert packed(np.zeros((5, 6, 7), bool)) == {"box_DHW": None, "bits": None}
    assert not unpacked({"box_DHW": None, "bits": None}, (5, 6, 7)).any()


def test_tables_and_the_ranges_that_a_prediction_needs(tmp_path: Path) -> None:
    chain = Chain("m", recipes.phantom().reading(PlanningCT(organs=ORGANS)), SmallOrgans())
    shards = pd.DataFrame({"scan_id": ["a", "b", "c"], "organs_ml": [[20.0, 0.2], [25.0, None], [None, 0.3]]})
    out = Store(tmp_path / "models" / "m")
    tables = {"snet": predictions(), "outlines": predictions(0.2), "joint": predictions(0.25)}
    metrics = conclude(out, chain, PlanningCT(organs=ORGANS), tables, shards, (1, 0), {"s0": "scan00001"})
    method = out.read_json("method.json")
    assert (method["runs"], method["kind"], method["folds"]) == ("m-joint", "joint", [0, 1])
    assert method["training_ml"] == {
        "Brainstem": {"least": 20.0, "most": 25.0, "scans": 2}, "Lens_L": {"least": 0.2, "most": 0.3, "scans": 2},
    }  # fmt: skip
    assert training_ml(shards, ORGANS) == method["training_ml"]
    assert metrics["counts"]["drawn"] == 16
    assert [f"{s['rung']} {s['against']}" for s in metrics["ladder"]] == [
        "outlines snet",
        "joint outlines",
        "joint snet",
    ]
    organs = pd.read_csv(tmp_path / "models" / "m" / "organs.csv")
    assert len(organs) == 48
    assert {*organs["network"]} == {"snet", "outlines", "joint"}
    assert any("joint against snet" in text for text in summary(metrics))
    assert flat(metrics)["oof/dice_small"] == pytest.approx(0.65, abs=0.02)
    assert flat(metrics)["oof_snet/dice_small"] == pytest.approx(0.4, abs=0.02)


def test_without_a_drawn_organ_nothing_can_be_scored(tmp_path: Path) -> None:
    chain = Chain("m", recipes.phantom().reading(PlanningCT(organs=ORGANS)), SmallOrgans(small=()))
    bare = predictions().assign(**{f"true_ml_{organ}": np.nan for organ in ORGANS})
    with pytest.raises(ValueError, match="no held-out scan has an organ drawn"):
        conclude(Store(tmp_path), chain, PlanningCT(organs=ORGANS), {"snet": bare}, pd.DataFrame(), (0,), {})


def test_tolerances_are_what_two_raters_lie_within() -> None:
    assert tolerance_mm("Parotid_L") == tolerance_mm("Parotid_R") == 3.43
    assert tolerance_mm("Brainstem") == HUMAN["Brainstem"].apart_mm
    assert tolerance_mm("OpticChiasm") == OTHERS_MM


def test_small_in_everyone() -> None:
    assert small_ones(("Brain", "Lens_R", "OpticChiasm", "Parotid_L")) == ("Lens_R", "OpticChiasm")
