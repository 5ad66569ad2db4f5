from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.features import STACK_SCHEMA, check_slices, pack_stacks, unpack_slices

FEATURES = 3
NUMBERS = ["index", "position_mm", *PROBABILITIES, *CLASSES]


def slices_of(lengths: dict[str, int], seed: int = 0) -> pd.DataFrame:
    """One row a slice of series with these lengths, in stack order; a third of the slices is unlabelled."""
    rng = np.random.default_rng(seed)
    rows = []
    for series, length in lengths.items():
        for i in range(length):
            labels = np.full(6, np.nan) if rng.uniform() < 0.3 else rng.integers(0, 2, 6)
            rows.append(
                {
                    "stack_id": series,
                    "study_id": f"study of {series}",
                    "patient_id": f"patient of {series}",
                    "slice_id": f"{series}{i}",
                    "index": i,
                    "position_mm": 5.0 * i - 70.1,
                    "feature": rng.normal(size=FEATURES).astype(np.float32),
                    **dict(zip(PROBABILITIES, rng.uniform(size=6), strict=True)),
                    **dict(zip(CLASSES, labels.astype(np.float32), strict=True)),
                }
            )
    return pd.DataFrame(rows)


def test_one_row_a_series_in_the_order_in_which_they_first_appear() -> None:
    table = pack_stacks(slices_of({"b": 3, "a": 1, "c": 2}))
    assert table.schema.equals(STACK_SCHEMA, check_metadata=True)
    assert table["stack_id"].to_pylist() == ["b", "a", "c"]
    assert table["patient_id"].to_pylist() == ["patient of b", "patient of a", "patient of c"]
    assert table["slice_id"].to_pylist() == [["b0", "b1", "b2"], ["a0"], ["c0", "c1"]]
    assert table["feature_count"].to_pylist() == [FEATURES] * 3


def test_units_stand_in_the_schema() -> None:
    assert STACK_SCHEMA.field("position_mm").metadata == {b"unit": b"mm"}
    assert STACK_SCHEMA.field("feature").metadata == {b"axes": b"slices, features", b"dtype": b"float16"}


@pytest.mark.parametrize("shuffled", [False, True])
def test_round_trip(shuffled: bool) -> None:
    slices = slices_of({"b": 30, "a": 1, "c": 12})
    given = slices.sample(frac=1, random_state=1) if shuffled else slices
    back = unpack_slices(pack_stacks(given))
    order = list(dict.fromkeys(given["stack_id"]))
    wanted = slices.sort_values("stack_id", key=lambda s: s.map(order.index), kind="stable")
    for name in ("stack_id", "study_id", "patient_id", "slice_id"):
        assert back[name].tolist() == wanted[name].tolist(), name
    assert wanted["any"].isna().any()
    assert np.array_equal(back[NUMBERS].to_numpy(float), wanted[NUMBERS].to_numpy(float), equal_nan=True)
    assert (back[[*PROBABILITIES, *CLASSES]].dtypes == np.float64).all()
    assert not any(name.startswith("feature") for name in back)


def test_features_are_fp16_in_the_order_of_the_slices() -> None:
    slices = slices_of({"a": 5})
    packed = pack_stacks(slices.sample(frac=1, random_state=1))
    stored = np.frombuffer(packed["feature"][0].as_py(), dtype=np.float16).reshape(5, FEATURES)
    assert np.array_equal(stored, np.stack(slices["feature"].tolist()).astype(np.float16))


def test_an_unlabelled_slice_is_null() -> None:
    slices = slices_of({"a": 3})
    slices[list(CLASSES)] = [[1.0] * 6, [np.nan] * 6, [0.0] * 6]
    packed = pack_stacks(slices)
    assert packed["subdural"].to_pylist() == [[1, None, 0]]
    assert unpack_slices(packed)["subdural"].isna().tolist() == [False, True, False]


def test_tables_of_several_files_unpack_together() -> None:
    # chunks: the parent of a flattened entry must count rows of the whole table
    parts = [slices_of({"a": 3, "b": 2}), slices_of({"c": 4})]
    back = unpack_slices(pa.concat_tables([pack_stacks(part) for part in parts]))
    assert back["stack_id"].tolist() == ["a"] * 3 + ["b"] * 2 + ["c"] * 4
    assert back["slice_id"].tolist() == [i for part in parts for i in part["slice_id"]]


def test_no_slices_are_no_stacks() -> None:
    packed = pack_stacks(slices_of({"a": 1}).iloc[:0])
    assert packed.num_rows == 0
    assert list(unpack_slices(packed)) == list(unpack_slices(pack_stacks(slices_of({"a": 1}))))


@pytest.mark.parametrize("value", [65519.0, -1e6, np.inf, np.nan])
def test_a_feature_that_fp16_cannot_hold_is_named(value: float) -> None:
    slices = slices_of({"a": 3, "b": 3})
    slices["feature"].iloc[4][1] = value
    with pytest.raises(ValueError, match="feature.*b1") as caught:
        pack_stacks(slices)
    assert "\n" not in str(caught.value)


def test_the_largest_number_of_fp16_is_kept() -> None:
    slices = slices_of({"a": 2})
    slices["feature"].iloc[1][2] = 65504.0
    stored = np.frombuffer(pack_stacks(slices)["feature"][0].as_py(), dtype=np.float16)
    assert stored.max() == 65504.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_probability_that_is_no_number_is_named(value: float) -> None:
    slices = slices_of({"a": 3, "b": 3})
    slices.loc[2, "p_subdural"] = value
    with pytest.raises(ValueError, match="prediction.*a2") as caught:
        pack_stacks(slices)
    assert "\n" not in str(caught.value)


def test_20_000_stacks_unpack_in_seconds() -> None:
    one = pack_stacks(slices_of({f"s{i}": 35 for i in range(20)}))
    table = pa.concat_tables([one] * 1000)
    start = time.monotonic()
    assert len(unpack_slices(table)) == 20_000 * 35
    assert time.monotonic() - start < 10  # about 1 s on two idle cores


def test_the_same_slices_in_another_order_are_fine() -> None:
    check_slices(pd.Series(["c", "a", "b"]), ["a", "b", "c"], "features/fold0")
    check_slices(["c", "a", "b"], ["a", "b", "c"], "features/fold0")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (["a", "b"], "missing (c, d, e, …)"),
        ([*"abcde", "x", "y"], "not in the shards (x, y)"),
        ([*"abcdef", "a", "a"], "repeated (a)"),
        ([], "missing (a, b, c, …)"),
    ],
)
def test_other_slices_are_counted_named_and_there_is_a_way_out(found: list[str], message: str) -> None:
    with pytest.raises(ValueError, match="delete that folder, and the job embeds again") as caught:
        check_slices(found, list("abcdef"), "features/fold0")
    text = str(caught.value)
    assert text.startswith("features/fold0: ")
    assert message in text
    assert "of 6 slices" in text
    assert "\n" not in text
