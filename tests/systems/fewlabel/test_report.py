"""The page where little is known: an organ that is absent everywhere, and nowhere found, has no Dice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from medray.report import page
from medray.report.about import About
from medray.shards.store import Store
from medray.systems.fewlabel.report.sections import lead, report_sections
from medray.systems.fewlabel.scores import by_organ, ladder, means, organ_table

ORGANS, LABELLED = ("Liver", "Spleen"), {"a": ("Liver",), "b": ("Spleen",)}


def table(found_ml: float, liver: float = 0.8) -> pd.DataFrame:
    """Six scans without a spleen; where nothing is found of it its Dice is not defined."""
    scans = [f"s{i}" for i in range(6)]
    outputs: dict[str, Any] = {"scan_id": scans, "patient_id": scans, "fold": 0}
    spleen = {"dice": 0.0 if found_ml else np.nan, "hd95_mm": np.nan, "ml": found_ml, "true_ml": 0.0}
    for organ, own in (("Liver", {"dice": liver, "hd95_mm": 3.0, "ml": 9.0, "true_ml": 10.0}), ("Spleen", spleen)):
        outputs |= {f"{name}_{organ}": value for name, value in own.items()}
    return organ_table(pd.DataFrame(outputs), ORGANS, dict(zip(scans, "ababab", strict=True)), LABELLED)


@pytest.mark.parametrize("liver", [0.8, np.nan])
def test_an_organ_that_is_absent_in_every_scan_ends_no_page(liver: float, tmp_path: Any) -> None:
    tables = {"marginal": table(0.0, liver), "cotraining": table(2.0, liver)}
    metrics: dict[str, Any] = {
        "counts": {"scans": 6, "scored_scans": 6, "patients": 6, "organs": 2, "known": 12, "not_found": 0},
        "final": "marginal", "small": ["Spleen"], "answers": {}, "means": means(tables, ["Spleen"]),
        "by_organ": {rung: by_organ(one) for rung, one in tables.items()}, "ladder": ladder(tables, ["Spleen"]),
    }  # fmt: skip
    inventory = pd.DataFrame({"path": ["x"], "scan_id": ["s0"], "status": ["ok"], "reason": [None]})
    about = About(Store(tmp_path), inventory, inventory, inventory, {}, {"epochs": 1}, False)
    nothing = pd.DataFrame()
    sections = report_sections(metrics, [], nothing, nothing, nothing, about)
    text = page.render("t", lead(metrics), sections)
    assert "Spleen" in text
    assert ("Dice not known" in text) == bool(np.isnan(liver))
