"""What is said of sources, of the network that answers, and of masks that a person has locked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medray.shards.store import Store
from medray.systems.fewlabel.chain import Chain, Ladder
from medray.systems.fewlabel.pseudo import Merged
from medray.systems.fewlabel.recipes import phantom
from medray.systems.fewlabel.results import better, conclude, source_lines
from medray.systems.fewlabel.scores import Chosen
from medray.systems.fewlabel.source import FewLabelCT
from medray.systems.fewlabel.sources import Origin

SOURCE = FewLabelCT(
    organs=("Liver", "Spleen", "Pancreas"), origins=(Origin("a", ("Liver", "Spleen")), Origin("b", ("Pancreas",)))
)
INDEX = pd.DataFrame({
    "scan_id": [f"s{i}" for i in range(6)], "origin": list("aaabbb"), "fold": [0, 1, 1, 0, 1, 1],
    "organs_labelled": [2, 2, 2, 1, 1, 1], "shape_DHW": [[8, 9, 10]] * 6, "spacing_mm": [[3.0, 2.0, 2.0]] * 6,
    "body_hu": [[-110.0, 30.0, 180.0]] * 6,
    "organs_ml": [[90.0, 0.0, None]] * 3 + [[None, None, 8.0], [None, None, 0.0], [None, None, 7.0]],
})  # fmt: skip


def test_an_organ_that_no_case_of_its_source_holds_is_warned_of() -> None:
    """Nothing refuses it: a set may say of a removed spleen that it is absent. Of all cases that is rather a mistake."""
    lines = source_lines(INDEX, SOURCE)
    assert "Liver (3), Spleen (0)" in "\n".join(lines)
    assert "Pancreas (2)" in "\n".join(lines)
    (warning,) = [line for line in lines if line.startswith("! ")]
    assert warning.startswith("! source a: Spleen is in no voxel of its masks")


def figures(**dice: float) -> dict[str, Any]:
    return {rung: {"all": {"dice": {"value": value}}} for rung, value in dice.items()}


def test_where_another_network_is_better_the_way_to_its_answers_is_shown() -> None:
    means = figures(apart=0.70, background=0.4, marginal=0.72, cotraining=0.69)
    (line,) = better({"means": means, "final": "cotraining", "ladder": []})
    assert "marginal has the better mean Dice on these scans (0.720, cotraining 0.690)" in line
    assert "--rungs background apart marginal trains nothing anew" in line
    kept = ("background", "apart", "marginal")
    assert Chain("x", phantom(), Ladder(rungs=kept)).final == "marginal"  # type: ignore[arg-type]
    assert better({"means": means | figures(cotraining=0.8), "final": "cotraining", "ladder": []}) == []
    for high, lines in ((0.01, 0), (-0.01, 1)):
        gain = {"value": -0.03, "low": -0.05, "high": high}
        step = {"rung": "cotraining", "against": "marginal", "groups": {"all": {"dice": gain}}}
        assert len(better({"means": means, "final": "cotraining", "ladder": [step]})) == lines


def test_what_the_run_leaves_says_what_chose_the_answer_and_how_many_masks_are_a_persons(tmp_path: Any) -> None:
    chain = Chain("x", phantom().reading(SOURCE), Ladder())
    held = INDEX[INDEX["fold"] == 0]
    outputs: dict[str, Any] = {"scan_id": held["scan_id"], "patient_id": held["scan_id"], "fold": 0}
    for organ in SOURCE.organs:
        own = {"dice": 0.5, "hd95_mm": 3.0, "ml": 4.0, "true_ml": 5.0}
        outputs |= {f"{prefix}{name}_{organ}": value for name, value in own.items() for prefix in ("", "second_")}
    tables = dict.fromkeys(("apart", "cotraining"), pd.DataFrame(outputs).reset_index(drop=True))
    merged = Merged(SOURCE.organs, locked={"s1": {"Pancreas": "one"}, "s2": {"Pancreas": "two"}})
    chosen = {0: Chosen("second", 2, ("Liver",))}
    metrics = conclude(Store(tmp_path), chain, SOURCE, tables, chosen, INDEX, (0,), merged)
    assert metrics["answers"] == {"0": "second"}
    assert metrics["chosen_by"] == {"0": {"scans": 2, "organs": ["Liver"]}}
    method = Store(tmp_path).read_json("method.json")
    assert (method["locked"], method["answers"]) == (2, {"0": "second"})
    assert np.isclose(metrics["means"]["cotraining"]["all"]["dice"]["value"], 0.5)
