from __future__ import annotations

import pandas as pd

from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.new_studies import NOT_DICOM, images_of, submission


def test_an_image_without_an_id_goes_by_the_whole_name_of_its_file() -> None:
    names = ["1.2.840.113619.4", "1.2.840.113619.5", "IM.0001.DCM", "ID_a.dcm", "list.txt", "ID_b.dcm"]
    table = pd.DataFrame({"path": [f"x/1.2/{name}" for name in names], "item_id": None, "reason": "the header ends"})
    table.loc[3, ["item_id", "reason"]] = ["1.2.3", None]
    table.loc[4:, "reason"] = f"{NOT_DICOM}: no DICM at byte 128"
    assert images_of(table) == (["1.2.840.113619.4", "1.2.840.113619.5", "IM.0001", "1.2.3", "ID_b"], 1)


def test_an_image_that_could_not_be_read_gets_the_rates_and_where_there_is_none_one_half() -> None:
    answered = pd.DataFrame([["a", *[0.25] * 6]], columns=["slice_id", *PROBABILITIES])
    rates = dict.fromkeys(CLASSES, 0.125) | {"epidural": None}
    text, guessed = submission(["a", "b", "a"], answered, rates)
    assert guessed == 1
    rows = [line.split(",") for line in text.splitlines()]
    assert rows[0] == ["ID", "Label"]
    assert [label for name, label in rows[1:] if name.startswith("a_")] == ["0.25"] * 6
    assert [label for name, label in rows[1:] if name.startswith("b_")] == ["0.5", *["0.125"] * 5]
