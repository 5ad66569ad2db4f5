from __future__ import annotations

from pathlib import Path

import pandas as pd

from medray.report.about import About
from medray.report.card import card
from medray.shards.store import Store


def about(tmp_path: Path, **more: object) -> About:
    inventory = pd.DataFrame({"path": list("abcde"), "status": ["ok", "ok", "repaired", "quarantined", "unlabelled"]})
    index = pd.DataFrame(
        {"patient_id": ["ANNA", "ANNA", "p2", "p3"], "study_id": ["s1", "s2", "s3", "s4"], "fold": [0, 0, 1, -1]}
    )
    return About(Store(tmp_path), inventory, inventory, index, {}, {"epochs": 3, "windows": ("a|b", "c")}, **more)  # type: ignore[arg-type]


def test_the_flow_from_files_to_patients_the_figures_and_the_limits(tmp_path: Path) -> None:
    text = card("Hands", "Films go in.", about(tmp_path), ["AUC 0.9 (95% 0.8 to 0.95)"])
    for line in (
        "# Model card: Hands", "1. 5 files or frames were found", "2. left out: 1 quarantined (`inventory.parquet` has each reason)",
        "3. 4 were used, as 4 rows", "4. 4 studies", "5. 3 patients", "6. fold 0: 2 rows of 1 patients",
        "AUC 0.9 (95% 0.8 to 0.95)", "| windows | a\\|b, c |", "- It is no medical device",
    ):  # fmt: skip
        assert line in text, line
    assert "phantoms" not in text
    assert "ANNA" not in text
    assert text == card("Hands", "Films go in.", about(tmp_path), ["AUC 0.9 (95% 0.8 to 0.95)"])


def test_what_makes_figures_flatter_stands_first(tmp_path: Path) -> None:
    text = card("Hands", "Films go in.", about(tmp_path, phantom=True, searched={"rates": [0]}), [])
    assert (
        text.index("drawn by a program") < text.index("The search rates has chosen") < text.index("## What it is for")
    )
