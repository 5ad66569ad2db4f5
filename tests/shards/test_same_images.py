from __future__ import annotations

import numpy as np

from medray.shards.same_images import MOST_PATIENTS, shared


def test_patients_with_an_image_in_common_are_one_group_through_others_too() -> None:
    patients = np.array(["a", "a", "b", "b", "c", "d", "e", "e"])
    hashes = np.array(
        ["1", "2", "2", "3", "3", "4", "5", "5"], dtype=object
    )  # e has one image twice, which is its own matter
    found = shared(patients, hashes, np.arange(8).astype(str))
    assert found.example == ("1", "2")
    assert found.group.to_dict() == {"a": 0, "b": 0, "c": 0, "d": 1, "e": 2}
    assert (found.images, found.patients, found.common) == (2, 3, 0)


def test_what_says_nothing_holds_nobody_together() -> None:
    patients = np.array([f"p{i}" for i in range(MOST_PATIENTS + 1)] * 2)
    hashes = np.array(["test picture"] * (MOST_PATIENTS + 1) + [None] * (MOST_PATIENTS + 1), dtype=object)
    found = shared(patients, hashes, patients)
    assert found.group.nunique() == MOST_PATIENTS + 1
    assert (found.images, found.patients, found.common) == (0, 0, 1)
    alone = shared(np.array(["a", "b", "c"]), np.array(["", None, ""], dtype=object), np.arange(3))
    assert alone.group.to_dict() == {"a": 0, "b": 1, "c": 2}
