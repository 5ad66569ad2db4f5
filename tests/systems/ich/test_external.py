from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from medray.metrics.binary import CLIP
from medray.shards.leakage import seen_in_training
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.external import Truth, bleeding_slices, read_truth, score_external, summary
from medray.systems.ich.scores import score
from medray.systems.ich.study import study_table

TYPES = CLASSES[:-1]
ORDER = ["patient_id", "study_id", "stack_id", "index", "slice_id"]


def write(path: Path, header: str, *rows: str) -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def predictions(patients: int = 24, per_study: int = 6) -> pd.DataFrame:
    """Two studies of every third patient, with labels: noisy, every class with both values, few ties."""
    rng = np.random.default_rng(5)
    rows = []
    for patient in range(patients):
        for visit in range(2 if patient % 3 == 0 else 1):
            for index in range(per_study):
                types = (rng.random(5) < (0.3 if (patient + visit) % 2 else 0.0)).astype(float)
                labels = dict(zip(CLASSES, [*types, types.max()], strict=True))
                p = {f"p_{c}": round(float(np.clip(0.3 * v + 0.7 * rng.random(), 0, 1)), 2) for c, v in labels.items()}
                study = f"p{patient:02d}v{visit}"
                ids = {
                    "slice_id": f"1.2.{patient}.{visit}.{index}",
                    "study_id": study,
                    "stack_id": f"{study}s",
                    "patient_id": f"p{patient:02d}",
                    "index": index,
                }
                rows.append(ids | p | labels)
    table = pd.DataFrame(rows)
    table.loc[0, "p_any"] = 0.0  # what clipping is for
    return table


def truth_of(table: pd.DataFrame, *classes: str, by: str = "slice_id") -> Truth:
    labels = table.groupby(by)[list(classes)].max()
    return Truth("slice" if by == "slice_id" else "study", classes, labels, ())


def asked(table: pd.DataFrame) -> pd.DataFrame:
    """What a job hands over: predictions without labels."""
    return table.drop(columns=list(CLASSES))


def assert_same(found: object, expected: object) -> None:
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    else:
        assert found == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_with_all_six_classes_the_figures_are_those_of_the_runs_own_scores() -> None:
    table = predictions().sort_values(ORDER)
    found = score_external(asked(table), truth_of(table, *CLASSES), samples=50)
    own = score(table, study_table(table.assign(fold=0)), samples=50)
    for key in ("weighted_log_loss", "auc", "average_precision", "log_loss"):
        assert_same(found["slice"][key], own[key])
    for key in ("observed_rate", "mean_probability"):
        assert_same(found["slice"][key], own["counts"][key])
    for key in ("slices", "studies", "patients", "positive_slices"):
        assert found["counts"][key] == own["counts"][key]
    assert_same(found["study"]["auc"]["any"], own["study"]["auc"])
    for key in ("auc_of_maximum", "auc_of_mean"):
        assert_same(found["study"][key], own["study"][key])
    assert found["counts"]["positive_studies"]["any"] == own["study"]["positive"]
    assert found["notes"] == []


def test_the_figures_are_scikit_learns() -> None:
    table = predictions()
    found = score_external(asked(table), truth_of(table, *CLASSES), samples=2)
    losses = []
    for name, p in zip(CLASSES, PROBABILITIES, strict=True):
        losses.append(log_loss(table[name], np.clip(table[p].to_numpy(dtype=np.float64), CLIP, 1 - CLIP)))
        assert found["slice"]["log_loss"][name]["value"] == pytest.approx(losses[-1], abs=1e-9)
        auc, precision = roc_auc_score(table[name], table[p]), average_precision_score(table[name], table[p])
        assert found["slice"]["auc"][name]["value"] == pytest.approx(auc, abs=1e-9)
        assert found["slice"]["average_precision"][name]["value"] == pytest.approx(precision, abs=1e-9)
        by_study = study_table(table).set_index("study_id")
        labels = table.groupby("study_id")[name].max().reindex(by_study.index)
        auc = roc_auc_score(labels, by_study[f"score_{name}"])
        assert found["study"]["auc"][name]["value"] == pytest.approx(auc, abs=1e-9)
    weighted = (sum(losses) + losses[-1]) / 7
    assert found["slice"]["weighted_log_loss"]["value"] == pytest.approx(weighted, abs=1e-9)
    bins = found["slice"]["calibration"]["any"]
    assert sum(b["slices"] for b in bins) == len(table)
    assert np.average([b["observed_rate"] for b in bins], weights=[b["slices"] for b in bins]) == pytest.approx(
        table["any"].mean(), abs=1e-12
    )


def test_a_long_file_that_says_only_any(tmp_path: Path) -> None:
    table = predictions()
    rows = [f"{s}_any,{int(v)}" for s, v in zip(table["slice_id"], table["any"], strict=True)]
    truth = read_truth(write(tmp_path / "l.csv", "ID,Label", *rows, rows[0], "gone_any,1"))
    assert (truth.level, truth.classes) == ("slice", ("any",))
    assert truth.notes == ("1 repeated label rows, merged",)
    found = score_external(asked(table), truth, samples=5)
    assert list(found["slice"]["auc"]) == ["any"]
    assert found["slice"]["auc"]["any"]["value"] == pytest.approx(roc_auc_score(table["any"], table["p_any"]))
    assert found["slice"]["weighted_log_loss"] is None
    assert f"no weighted log loss: the labels do not say {', '.join(TYPES)}" in found["notes"]
    assert found["counts"]["labelled_ids_without_prediction"] == 1
    assert found["counts"]["slices_without_label"] == 0


def test_a_table_by_study(tmp_path: Path) -> None:
    table = predictions()
    by_study = table.groupby("study_id")[["any", "subdural"]].max().astype(int)
    rows = [f"somewhere,{s},{by_study.at[s, 'subdural']},{by_study.at[s, 'any']}" for s in by_study.index]
    truth = read_truth(write(tmp_path / "s.csv", "site,studyinstanceuid,Subdural,ANY", *rows))
    assert (truth.level, truth.classes) == ("study", ("subdural", "any"))
    found = score_external(asked(table), truth, samples=5)
    assert found["slice"] is None
    assert found["counts"]["positive_slices"] is None
    assert found["counts"]["positive_studies"] == by_study[["subdural", "any"]].sum().to_dict()
    same = score_external(asked(table), truth_of(table, "subdural", "any"), samples=5)
    assert found["study"] == same["study"]  # a study bleeds where one of its slices does


@pytest.mark.parametrize("form", ["wide", "long"])
def test_of_five_types_any_is_the_or(tmp_path: Path, form: str) -> None:
    table = predictions()
    if form == "wide":
        path = tmp_path / "w.csv"
        table[["slice_id", *TYPES]].to_csv(path, index=False)
    else:
        long = table.melt("slice_id", list(TYPES), "name", "Label").astype({"Label": int})
        path = tmp_path / "l.csv"
        long.assign(ID=long["slice_id"] + "_" + long["name"])[["ID", "Label"]].to_csv(path, index=False)
    truth = read_truth(str(path))
    assert truth.classes == CLASSES
    assert truth.table.loc[table["slice_id"], "any"].tolist() == table["any"].tolist()
    assert truth.notes == ('the file does not say "any": it is the OR of the five types',)


def test_unknown_cells_stay_unknown(tmp_path: Path) -> None:
    header = f"SOPInstanceUID,{','.join(TYPES)}"
    truth = read_truth(write(tmp_path / "w.csv", header, "001,1,,,,", "002,0,,0,0,0", "003,0,0,0,0,0", "004,,,,,"))
    assert truth.table["any"].to_dict() == pytest.approx({"001": 1, "002": np.nan, "003": 0}, nan_ok=True)
    assert np.isnan(truth.table.loc["001", "subdural"])

    table = predictions()
    labels = truth_of(table, *CLASSES).table
    labels.loc[labels.index[::3], "subdural"] = np.nan
    labels.loc[labels.index[::4], :] = np.nan
    found = score_external(asked(table), Truth("slice", CLASSES, labels, ()), samples=5)
    joined = asked(table).join(labels, on="slice_id")
    rows = joined.dropna(subset=["subdural"])
    expected = roc_auc_score(rows["subdural"], rows["p_subdural"])
    assert found["slice"]["auc"]["subdural"]["value"] == pytest.approx(expected, abs=1e-9)
    labelled = joined.dropna(subset=list(CLASSES), how="all")
    own = score(labelled, study_table(labelled.assign(fold=0)), samples=5)
    assert found["slice"]["weighted_log_loss"]["value"] == pytest.approx(own["weighted_log_loss"]["value"], abs=1e-12)
    partly = int(labelled["subdural"].isna().sum())
    assert f"weighted log loss: {partly} slices of which some classes are unknown count by the others" in found["notes"]
    assert found["counts"]["slices_without_label"] == len(labels.index[::4])


def test_contradictions_are_set_aside_and_repeats_merged(tmp_path: Path) -> None:
    rows = ["a,1,1", "a,1,1.0", "b,1,0", "b,1,1", "c,1,0", "d,0,1", "e,0,", "e,,0"]
    truth = read_truth(write(tmp_path / "w.csv", "slice_id,epidural,any", *rows))
    assert truth.table.index.tolist() == ["a", "d", "e"]
    assert truth.table.loc["e"].tolist() == [0, 0]
    assert truth.notes == (
        "1 repeated label rows, merged",
        "2 slices whose labels contradict each other: their labels are set aside",
    )


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("ID,Label", ["a_bleeding,1"], "line 2: no class in this ID"),
        ("ID,Label", ["a_any,3"], 'line 2: label is "3", neither 0 nor 1'),
        ("sliceid,any", ["a,1"], "did you mean slice_id by sliceid?"),
        ("key,any", ["a,1"], "its columns are key, any; rename the column that holds the ids"),
        ("slice_id,Sub-dural", ["a,1"], "did you mean subdural by Sub-dural?"),
        ("slice_id,site", ["a,1"], "rename the columns that hold the labels"),
        ("slice_id,any", ["a,1", "", "b,yes"], 'line 4: any is "yes", neither 0 nor 1; leave the cell empty'),
        ("slice_id,any", ['a,"0', '1"'], 'any is "0 1", neither 0 nor 1'),
        ("slice_id,any", ["a,1", ",0"], "line 3: slice_id is empty"),
        ("slice_id,any", ["a,1,1"], "line 2 has 3 cells, the header has 2"),
        ("slice_id,any,Any", ["a,1,1"], "2 columns are named any; keep one"),
        ("slice_id,any", [], "there is no row in it"),
        ("slice_id,any", ["a,"], "there is no label in it that can be used"),
        ("slice_id,any", ["a,1", "a,0"], "contradict each other"),
        ("slice_id,any", ['a,"1'], "not a CSV file"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    path = write(tmp_path / "l.csv", header, *rows)
    with pytest.raises(ValueError, match="^--labels .*l.csv: ") as caught:
        read_truth(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line_without_its_content(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent.csv: cannot be read \(No such file or directory\)$"):
        read_truth(str(tmp_path / "absent.csv"))
    with pytest.raises(ValueError, match=r"cannot be read \(OSError\)$"):
        read_truth(str(tmp_path))
    (tmp_path / "l.csv.gz").write_bytes(b"\x1f\x8b\x08\x00\xff\xfe")
    with pytest.raises(ValueError, match="l.csv.gz: a damaged gzip file"):
        read_truth(str(tmp_path / "l.csv.gz"))


def test_a_study_of_which_a_slice_was_trained_on_is_left_out_whole() -> None:
    table = predictions()
    truth = truth_of(table, *CLASSES)
    leaked = table["slice_id"].isin(["1.2.3.0.2", "1.2.7.0.0", "1.2.7.0.1"])
    found = score_external(asked(table).assign(leaked=leaked), truth, samples=5)
    assert found["counts"]["left_out_as_leaked"] == {"slices": 12, "studies": 2}
    rest = table[~table["study_id"].isin(["p03v0", "p07v0"])]
    expected = score_external(asked(rest), truth_of(rest, *CLASSES), samples=5)
    assert (found["slice"], found["study"]) == (expected["slice"], expected["study"])
    assert found["counts"]["labelled_ids_without_prediction"] == 0
    assert any("left out, trained on: 12 slices of 2 studies" in line for line in summary(found))


@pytest.mark.parametrize("by", ["slice_id", "study_id"])
def test_where_all_was_trained_on_nothing_is_scored(by: str) -> None:
    table = predictions()
    found = score_external(asked(table).assign(leaked=True), truth_of(table, *CLASSES, by=by), samples=5)
    assert found["counts"]["slices"] == 0
    assert found["study"]["auc"]["any"]["value"] is None
    assert any(note.startswith("nothing is left to score") for note in found["notes"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert summary(found)


@pytest.mark.parametrize(
    ("by", "ids", "message"),
    [
        ("slice_id", "other", "none of its 192 ids belongs to one of 192 predicted slices; they must be SOP"),
        ("study_id", "other", "none of its 32 ids belongs to one of 32 predicted studies; they must be Study"),
        ("slice_id", "study_id", "they are ids of studies: name their column study_id"),
        ("study_id", "slice_id", "they are ids of slices: name their column slice_id"),
    ],
)
def test_labels_of_something_else_are_refused(by: str, ids: str, message: str) -> None:
    table = predictions()
    other = table[by] + "x" if ids == "other" else table[ids]
    with pytest.raises(ValueError, match=message):
        score_external(asked(table), truth_of(table.assign(**{by: other}), "any", by=by))


def test_a_class_of_one_value_has_no_auc() -> None:
    table = predictions().assign(epidural=0.0)
    table["any"] = table[list(TYPES)].max(axis=1)
    found = score_external(asked(table), truth_of(table, *CLASSES), samples=5)
    for figure in (found["slice"]["auc"], found["slice"]["average_precision"], found["study"]["auc"]):
        assert figure["epidural"] == {"value": None, "low": None, "high": None, "reason": "no label is positive"}
        assert figure["subdural"]["value"] is not None
    assert found["slice"]["log_loss"]["epidural"]["value"] is None
    assert found["slice"]["log_loss"]["subdural"]["value"] > 0
    assert found["notes"] == ["no AUC where all labels are alike; slices all 0: epidural; studies all 0: epidural"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found

    bleeding = table[table["any"] == 1].assign(subdural=1.0)
    found = score_external(asked(bleeding), truth_of(bleeding, "subdural", "any"), samples=5)
    assert found["slice"]["average_precision"]["any"]["value"] is None
    assert found["study"]["auc_of_mean"] is None
    assert any(line.startswith("AUC any") and "undefined" in line for line in summary(found))
    assert (
        "no AUC where all labels are alike; slices all 1: subdural, any; studies all 1: subdural, any" in found["notes"]
    )


def test_labels_may_call_a_slice_by_the_name_of_its_file() -> None:
    table = predictions()
    stems = {s: f"ID_{i}" for i, s in enumerate(table["slice_id"])}
    named = truth_of(table.assign(slice_id=table["slice_id"].map(stems)), *CLASSES)
    found = score_external(asked(table), named, stems, samples=5)
    assert found == score_external(asked(table), truth_of(table, *CLASSES), samples=5)

    # the same name in two folders says nothing of either
    stems["1.2.0.0.1"] = stems["1.2.0.0.0"]
    found = score_external(asked(table), named, stems, samples=5)
    assert found["counts"]["slices"] == len(table) - 2
    assert "2 slices share a file name with another: labels under it are not used" in found["notes"]


def test_a_study_is_what_its_labelled_slices_say_and_that_is_said() -> None:
    table = predictions()
    labelled = table[table["index"] < 3]
    found = score_external(asked(table), truth_of(labelled, "any"), samples=5)
    by_study = study_table(table).set_index("study_id")  # its score is of all slices
    labels = labelled.groupby("study_id")["any"].max().reindex(by_study.index)
    assert found["study"]["auc"]["any"]["value"] == pytest.approx(roc_auc_score(labels, by_study["score"]), abs=1e-9)
    assert f"{len(labels)} studies with slices without a label: the others make the study's label" in found["notes"]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), by=st.sampled_from(["slice_id", "study_id"]))
def test_the_order_of_rows_does_not_matter(seed: int, by: str) -> None:
    table = predictions(patients=8)
    table["leaked"] = table["slice_id"] == "1.2.3.0.2"
    truth = truth_of(table, *CLASSES, by=by)
    stems = dict(zip(table["slice_id"], table["slice_id"], strict=True))
    shuffled = Truth(truth.level, truth.classes, truth.table.sample(frac=1, random_state=seed % 1000), ())
    found = score_external(asked(table).sample(frac=1, random_state=seed), shuffled, stems, samples=10)
    assert found == score_external(asked(table), truth, stems, samples=10)


def test_one_patient_makes_no_interval_worth_the_name() -> None:
    table = predictions().assign(patient_id="anonymous")
    found = score_external(asked(table), truth_of(table, "any"), samples=5)
    assert "all slices name one patient: there is no interval" in found["notes"]
    for figure in (found["slice"]["auc"]["any"], found["slice"]["log_loss"]["any"], found["study"]["auc"]["any"]):
        assert figure["value"] is not None
        assert (figure["low"], figure["high"]) == (None, None)
        assert figure["reason"].startswith("1 ")
    assert not any("95%" in line for line in summary(found))


def test_summary_says_what_was_scored() -> None:
    table = predictions()
    found = score_external(asked(table), truth_of(table, *CLASSES), samples=20, thresholds={"0.95": 0.5})
    lines = summary(found)
    assert lines[0] == "scored: 192 slices of 32 studies of 24 patients"
    starts = [
        "weighted log loss ",
        "AUC any ",
        "AUC of studies any ",
        "sensitivity, aim 0.95 ",
        "specificity, aim 0.95 ",
    ]
    point, by_study = found["study"]["operating_points"]["0.95"], study_table(table)
    answers, labels = by_study["score"] >= 0.5, by_study["label"]  # at the run's threshold, whatever it comes to here
    assert point["sensitivity"]["value"] == pytest.approx(answers[labels == 1].mean())
    assert point["specificity"]["value"] == pytest.approx(1 - answers[labels == 0].mean())
    assert point["counts"]["true_positives"] == int((answers & (labels == 1)).sum())
    assert all(any(line.startswith(start) for line in lines) for start in starts)


def test_summary_counts_one_and_keeps_its_columns_apart() -> None:
    table = predictions()
    one = table[table["study_id"] == "p01v0"]
    lines = summary(score_external(asked(one), truth_of(one, *CLASSES), samples=5))
    assert lines[0] == "scored: 6 slices of 1 study of 1 patient"
    assert sum(line.startswith("note: no AUC where") for line in lines) == 1
    lines = summary(score_external(asked(table), truth_of(table, *CLASSES), samples=5))
    assert any(line.startswith("AUC of studies intraparenchymal  0.") for line in lines)
    values = [line for line in lines if line.startswith(("AUC", "weighted", "sensitivity"))]
    assert len({len(re.match(r".*?  +", line)[0]) for line in values}) == 1  # type: ignore[index]


def test_which_slices_bleed_by_id_or_by_name_of_file() -> None:
    labels = pd.DataFrame({"any": [1.0, 0.0, 1.0]}, index=["1.2", "IM1", "IM2"])
    stems = {"1.2": "IM9", "1.3": "IM1", "1.4": "IM2", "1.5": "IM2", "1.6": "IM7"}
    found = bleeding_slices(Truth("slice", ("any",), labels, ()), stems)
    assert found is not None
    assert found.to_dict() == pytest.approx(
        {"1.2": 1, "1.3": 0, "1.4": np.nan, "1.5": np.nan, "1.6": np.nan}, nan_ok=True
    )
    assert bleeding_slices(Truth("study", ("any",), labels, ()), stems) is None
    assert bleeding_slices(Truth("slice", ("epidural",), labels.set_axis(["epidural"], axis=1), ()), stems) is None


def test_an_image_is_known_by_its_pixels_but_not_an_empty_one() -> None:
    slices = pd.DataFrame({"pixels_hash": ["aa", "", None, "bb"]}, index=[3, 1, 2, 0])
    seen = seen_in_training(slices, ["aa", "", "cc"])
    assert seen.dtype == bool
    assert seen.to_dict() == {3: True, 1: False, 2: False, 0: False}
