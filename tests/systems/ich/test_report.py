from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pydicom
import pytest

from medray.imaging.phantom import PhantomSet
from medray.metrics.binary import Ranking
from medray.report.about import About
from medray.report.charts import learning_curves, roc_and_precision
from medray.report.page import PALETTE, PHANTOM_WARNING, render
from medray.report.sections import learning, settings, versions
from medray.shards.folders import searched_folds
from medray.shards.inventory import renamed
from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.inventory import assemble
from medray.systems.ich.labels import read_labels
from medray.systems.ich.method import Ensemble, Method, Predictions, combine
from medray.systems.ich.report import Pictures, collect_pictures, report_sections, write_report
from medray.systems.ich.report.pictures import SERIES_AT_MOST
from medray.systems.ich.results import summary, write_results
from medray.systems.ich.scores import score
from medray.systems.ich.source import HeadCT
from medray.systems.ich.study import study_table
from medray.systems.ich.task import SliceTask

COLOURS = dict(zip(CLASSES, PALETTE, strict=False))
TITLES = [
    "Scores", "What each step added", "Ensemble", "Classes", "One slice under each window", "Before and after the head mask", "Learning curves",
    "ROC and precision-recall", "Calibration", "Slices with the highest loss", "Examples of each type", "Studies",
    "Files set aside", "How it was made",
]  # fmt: skip


def history(epochs: int = 3) -> list[dict]:
    return [
        {
            "epoch": epoch,
            "metrics": {"train_loss": 1 / epoch, "held_out_weighted_log_loss": 1.1 / epoch, "held_out_auc_any": 0.8},
            "system": {"epoch_seconds": 2.0},
        }
        for epoch in range(1, epochs + 1)
    ]


@dataclass(frozen=True)
class Finished:
    """What a job has at hand when it comes to the report."""

    out: Store
    folder: Store
    private: pd.DataFrame
    labels: pd.DataFrame
    predictions: pd.DataFrame

    @property
    def oof(self) -> pd.DataFrame:
        return self.out.read_table("oof.parquet").to_pandas()

    @property
    def inventory(self) -> pd.DataFrame:
        return self.out.read_table("inventory.parquet").to_pandas()


def finish(out: Path, dicom: Path, labels: Path, key: bytes | None = b"k" * 32, folds: int = 2) -> Finished:
    """Scan, pseudonymise, invent predictions and score them: a job without shards and training."""
    source, folder = HeadCT(), Store(dicom)
    rows = []
    for file in folder.files():
        found = {"path": file.path, "size_bytes": file.size_bytes, "status": "ok", "reason": None}
        try:
            with Path(file.path).open("rb") as stream:
                rows += [found | header for header in source.scan(stream)]
        except ValueError as error:
            rows.append(found | {"status": "quarantined", "reason": str(error)})
    scan = pd.DataFrame(rows, columns=["path", "size_bytes", "status", "reason", *source.scan_schema.names])
    inventory = assemble(scan, read_labels(str(labels)))
    pseudonyms = Pseudonyms(key)
    table = renamed(inventory.rows, pseudonyms, HeadCT.kinds())
    patients = {name: i % folds for i, name in enumerate(sorted(table["patient_id"].unique()))}
    table["fold"] = table["patient_id"].map(patients)
    columns = ["slice_id", "patient_id", "study_id", "stack_id", "index", "fold", *CLASSES]
    predictions = table[columns].reset_index(drop=True)
    rng = np.random.default_rng(0)
    for name, column in zip(CLASSES, PROBABILITIES, strict=True):
        logits = rng.normal(-3, 1, len(predictions)) + 3 * predictions[name].fillna(0)
        predictions[column] = 1 / (1 + np.exp(-logits))
    store = Store(out)
    shown = renamed(inventory.table, pseudonyms, HeadCT.kinds()).rename(columns={"item_id": "slice_id"})
    shown = shown[["path", "size_bytes", "frame", "slice_id", "status", "reason"]]
    store.write_table("inventory.parquet", pa.Table.from_pandas(shown, preserve_index=False))
    write_results(store, method(predictions))
    return Finished(store, folder, inventory.table, predictions, predictions)


def method(predictions: pd.DataFrame) -> Method:
    """A run of one model, without its later stages."""
    views = {int(fold): predictions for fold in predictions["fold"].unique()}
    model = Predictions(SliceTask(pretrained=False), predictions, inner={}, views=views)
    return combine({"net": model}, {}, Ensemble(blend_trials=2), views=("plain",))


def report(run: Finished, **changes: object) -> tuple[str, dict[str, bytes]]:
    histories: dict = {"net/fold0": history(), "net/fold1": history()}
    about = About(run.folder, run.inventory, run.private, run.labels, histories, {"epochs": 3})
    of_about: dict = {
        name: changes.pop(name) for name in ("histories", "settings", "phantom", "searched") if name in changes
    }
    more: dict = dict(changes)
    plots = write_report(run.out, HeadCT(), replace(about, **of_about), **more)
    return run.out.read_bytes("report.html").decode(), plots


def pictures(run: Finished, oof: pd.DataFrame | None = None) -> Pictures:
    return collect_pictures(HeadCT(), run.folder, run.inventory, run.private, run.oof if oof is None else oof)


@pytest.fixture(scope="module")
def run(phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finish(tmp_path_factory.mktemp("report"), phantoms.folder / "dicom", phantoms.folder / "labels.csv")


@pytest.fixture(scope="module")
def made(run: Finished) -> tuple[str, dict[str, bytes]]:
    return report(run, phantom=True, notes=("Optimistic: a search has used these folds.",))


def identifiers(run: Finished) -> set[str]:
    """The files' own names for everything, whole and in part."""
    table = run.private
    names = {str(v) for c in ("item_id", "patient_id", "study_id", "series_id", "stack_id") for v in table[c].dropna()}
    names |= {part for path in table["path"] for part in (path, Path(path).stem)} | {run.folder.root}
    return {name for name in names if len(name) >= 5}


def test_every_section_is_there(made: tuple[str, dict[str, bytes]]) -> None:
    html, plots = made
    assert re.findall(r"<h2>([^<]*)</h2>", html) == TITLES
    assert PHANTOM_WARNING in html
    assert "Optimistic: a search" in html
    assert re.search(r'(src|href)="(?!data:|#)', html) is None
    assert "<script" not in html
    assert len(html) < 5e6
    assert html.count("<svg") >= 7
    assert {"scores.png", "roc-and-precision-recall.png", "images/before-and-after-the-head-mask.png"} <= set(plots)
    assert all(data.startswith(b"\x89PNG") for data in plots.values())


def test_private_identifiers_never_appear(made: tuple[str, dict[str, bytes]], run: Finished, tmp_path: Path) -> None:
    names = identifiers(run)
    assert len(names) > 200
    html, _ = made
    assert [name for name in names if name in html] == []
    assert re.search(r"slice-[0-9a-f]{20}", html) is not None  # slices are named, by their pseudonyms
    # the search finds them where they may be shown
    public = finish(tmp_path, Path(run.folder.root), Path(run.folder.root).parent / "labels.csv", key=None)
    html, _ = report(public)
    assert len([name for name in identifiers(public) if name in html]) > 10
    assert run.folder.root not in html


@pytest.mark.slow
def test_scores_stand_beside_the_published_ones(made: tuple[str, dict[str, bytes]], run: Finished) -> None:
    metrics = run.out.read_json("metrics.json")
    html, _ = made
    assert f"<b>{metrics['weighted_log_loss']['value']:.4f}</b>" in html
    assert html.count(f"{metrics['auc']['epidural']['value']:.3f}") >= 2
    assert ".0567" in html
    assert "no: phantoms" not in html
    assert ">comparable<" not in html
    assert "yes, on the challenge" not in html
    html, _ = report(run)
    assert PHANTOM_WARNING not in html
    assert (
        html.count("yes, on the challenge") == 2 * 5
    )  # the validation figures, none of the others, among the scores and beside the ladder
    assert html.count("no: other test slices") == 3


def test_the_hardest_slice_comes_first(run: Finished) -> None:
    oof = run.oof
    victim = oof.index[oof["any"] == 1][3]
    oof.loc[victim, "p_any"] = 1e-9
    found = pictures(run, oof)
    assert found.hardest[0][0].slice_id == oof.loc[victim, "slice_id"]
    assert found.hardest[0][1] > 2 * -math.log(1e-9) / 7
    losses = [loss for _, loss in found.hardest]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 12
    html = render("", "", report_sections(
        run.out.read_json("metrics.json"), oof, run.out.read_table("studies.parquet").to_pandas(), {}, run.inventory,
        run.labels, found,
    ))  # fmt: skip
    tile = html[html.index("Slices with the highest loss</h2>") :]
    tile = tile.split('<div class="tile">')[1]
    assert oof.loc[victim, "slice_id"] in tile
    shown = set(re.findall(r'<i class="on">(\w+) ', tile))
    short = dict(zip(CLASSES, ("EDH", "IPH", "IVH", "SAH", "SDH", "any"), strict=True))
    assert shown == {short[name] for name in CLASSES if oof.loc[victim, name] == 1}


def test_examples_have_the_type_or_no_bleed(run: Finished) -> None:
    rows = run.oof.set_index("slice_id")
    found = pictures(run).examples
    assert [name for name, *_ in found] == list(CLASSES[:-1])
    seen = 0
    for name, positive, negative in found:
        if positive is None:
            assert not rows[name].any()
            continue
        assert negative is not None
        assert rows.loc[positive.slice_id, name] == 1
        assert rows.loc[negative.slice_id, "any"] == 0
        assert rows.loc[negative.slice_id, "patient_id"] != rows.loc[positive.slice_id, "patient_id"]
        seen += 1
    assert seen >= 3


def test_files_that_vanish_or_break_say_so(run: Finished, tmp_path: Path) -> None:
    dicom = tmp_path / "dicom"
    shutil.copytree(run.folder.root, dicom)
    again = finish(tmp_path / "out", dicom, Path(run.folder.root).parent / "labels.csv")
    whole = pictures(again)
    own = dict(zip(again.inventory["slice_id"], again.private["path"], strict=True))
    Path(own[whole.hardest[0][0].slice_id]).unlink()
    broken = Path(own[whole.hardest[1][0].slice_id])
    broken.write_bytes(broken.read_bytes()[:-500])
    found = pictures(again)
    assert found.hardest[0][0].image is None
    assert "cannot be read" in found.hardest[0][0].problem
    assert found.hardest[1][0].image is None
    assert "truncated" in found.hardest[1][0].problem
    assert found.hardest[2][0].image is not None
    for file in dicom.iterdir():
        file.unlink()
    html, plots = report(again)
    assert re.findall(r"<h2>([^<]*)</h2>", html) == TITLES
    assert html.count("No picture: the file cannot be read any more") > 20
    assert "slices-with-the-highest-loss.png" not in plots
    assert [name for name in identifiers(again) if name in html] == []


def test_what_is_undefined_is_said(run: Finished, tmp_path: Path) -> None:
    """No epidural at all, one fold of two trained, some slices unlabelled, one study only, no epoch."""
    labels = run.labels.copy()
    labels["epidural"] = np.where(labels["epidural"].isna(), np.nan, 0)
    labels.loc[labels.index[:5], list(CLASSES)] = np.nan
    study = labels.loc[(labels["any"] == 1) & (labels["fold"] == 0), "study_id"].iloc[0]
    predictions = labels[labels["study_id"] == study]
    store = Store(tmp_path)
    store.write_bytes("inventory.parquet", run.out.read_bytes("inventory.parquet"))
    metrics = write_results(store, method(predictions))
    assert metrics["auc"]["epidural"]["value"] is None
    assert metrics["study"]["auc"]["value"] is None
    few = Finished(store, run.folder, run.private, labels, predictions)
    html, _ = report(few, histories={"net/fold0": []}, settings={})
    assert re.findall(r"<h2>([^<]*)</h2>", html) == TITLES[:-1]
    assert "No slice is labelled epidural" in html
    assert "No curve of epidural" in html
    assert "1 of 2 folds" in html
    unlabelled = int(labels[list(CLASSES)].isna().any(axis=1).sum())
    assert unlabelled >= 5
    assert f"The other {unlabelled:,} are predicted but neither learned from nor scored" in html
    assert "No epoch has ended yet" in html
    assert ">nan<" not in html.lower()


@pytest.mark.slow
@pytest.mark.filterwarnings("error:invalid value:RuntimeWarning", "error:Mean of empty:RuntimeWarning")
def test_of_any_alone_the_page_says_what_is_absent(run: Finished, phantoms: PhantomSet, tmp_path: Path) -> None:
    labels = pd.read_csv(phantoms.folder / "labels.csv")
    labels[labels["ID"].str.endswith("_any")].to_csv(tmp_path / "any.csv", index=False)
    alone = finish(tmp_path / "out", phantoms.folder / "dicom", tmp_path / "any.csv")
    assert len(alone.oof) == len(run.oof)
    assert alone.oof["any"].tolist() == run.oof["any"].tolist()
    assert alone.oof[list(CLASSES[:-1])].isna().all(axis=None)
    schema = alone.out.read_table("oof.parquet").schema
    assert {schema.field(name).type for name in CLASSES} == {pa.int8()}
    metrics = alone.out.read_json("metrics.json")
    assert metrics["classes"] == ["any"]
    assert metrics["auc"]["any"] == run.out.read_json("metrics.json")["auc"]["any"]
    assert metrics["ensemble"]["comparison"]["plain average"]["weighted_log_loss"] == pytest.approx(
        metrics["log_loss"]["any"]["value"]
    )
    assert summary(metrics)[0].endswith("  of 1 of 6 classes: any")
    html, _ = report(alone)
    assert re.findall(r"<h2>([^<]*)</h2>", html) == TITLES
    for name in CLASSES[:-1]:
        assert f"No slice has a label of {name}: nothing was learned of it, and it has no score." in html
        assert f"No curve of {name}: its held-out slices have no label of it." in html
    assert "Here it is over any alone, 1 of 6 classes" in html
    assert "nan" not in re.sub(r"<(style|svg)\b.*?</\1>|data:[^\"]*", "", html, flags=re.DOTALL).lower()


@pytest.mark.slow
def test_slices_of_which_some_classes_are_unknown_count_by_the_others(
    run: Finished, phantoms: PhantomSet, tmp_path: Path
) -> None:
    """Two sets of labels: of every other study any alone is known."""
    labels = pd.read_csv(phantoms.folder / "labels.csv")
    half = set(run.private["study_id"].dropna().unique()[::2])
    slices = set(run.private.loc[run.private["study_id"].isin(half), "item_id"])
    parts = labels["ID"].str.rsplit("_", n=1)
    labels[parts.str[1].eq("any") | ~parts.str[0].isin(slices)].to_csv(tmp_path / "half.csv", index=False)
    partly = finish(tmp_path / "out", phantoms.folder / "dicom", tmp_path / "half.csv")
    metrics, whole = (one.out.read_json("metrics.json") for one in (partly, run))
    assert metrics["classes"] == list(CLASSES)
    counts = metrics["counts"]
    assert counts["slices"] == counts["labelled_slices"]["any"] == whole["counts"]["slices"]
    # of a slice without a bleed the types are known to be 0
    unknown = int(partly.oof["subdural"].isna().sum())
    assert 0 < unknown == int(((partly.oof["any"] == 1) & partly.oof["epidural"].isna()).sum())
    assert counts["labelled_slices"]["subdural"] == counts["slices"] - unknown
    html, _ = report(partly)
    assert "Where a slice&#39;s label of a class is unknown, the others make its loss" in html
    assert f"Of {unknown:,} some classes are unknown: these are left out of loss and scores, class by class." in html


def test_files_set_aside_are_counted(run: Finished, made: tuple[str, dict[str, bytes]]) -> None:
    section = made[0][made[0].index("Files set aside</h2>") :]
    counts = run.inventory["status"].value_counts()
    assert {"ok", "quarantined", "unlabelled"} <= set(counts.index)
    for status, count in counts.items():
        assert re.search(rf'<td>{status}</td><td class="right">{count:,}</td>', section), status
    assert "not a DICOM file" in section
    all_used = run.inventory.assign(status="ok", reason=None)
    sections = report_sections(
        run.out.read_json("metrics.json"), run.oof, run.out.read_table("studies.parquet").to_pandas(), {}, all_used,
        run.labels, Pictures(),
    )  # fmt: skip
    assert "Every file was used." in render("", "", sections)


@pytest.mark.slow
def test_images_keep_their_proportions(run: Finished, tmp_path: Path) -> None:
    """A slice cut to 48 of its 96 rows fills half the height, and all of the width, of its square picture."""
    oof = run.oof
    series = oof[oof["stack_id"] == oof["stack_id"].iloc[0]]
    own = dict(zip(run.inventory["slice_id"], run.private["path"], strict=True))
    dicom = tmp_path / "dicom"
    dicom.mkdir()
    for slice_id in series["slice_id"]:
        data = pydicom.dcmread(own[slice_id])
        pixels = data.pixel_array[24:72]
        data.Rows, data.PixelData = 48, np.ascontiguousarray(pixels).tobytes()
        data.save_as(dicom / Path(own[slice_id]).name)
    cut = finish(tmp_path / "out", dicom, Path(run.folder.root).parent / "labels.csv", folds=1)
    found = pictures(cut)
    picture = found.windows[0][2].image
    assert picture is not None
    assert picture.shape[0] == picture.shape[1]
    rows = np.flatnonzero(picture.max(axis=1) > 20)
    assert 0.4 * len(picture) < len(rows) <= 0.5 * len(picture) + 4
    assert abs(rows.mean() - len(picture) / 2) < 0.06 * len(picture)
    html, _ = report(cut)
    assert re.findall(r"<h2>([^<]*)</h2>", html) == TITLES


def test_a_long_series_is_thinned_evenly(run: Finished) -> None:
    """One patient's files stand for a series of 200: its places run against the order of the table."""
    path = run.private.loc[run.private["status"] == "ok", "path"].iloc[0]
    names = [f"slice-{i:03d}" for i in range(200)]
    public = pd.DataFrame({"slice_id": names, "status": "ok"})
    private = pd.DataFrame({"path": path, "frame": 0, "stack_id": "s", "index": range(199, -1, -1)})  # fmt: skip
    found = collect_pictures(HeadCT(), run.folder, public, private, run.oof.iloc[:0])
    shown = sorted(int(one.shot.slice_id[-3:]) for one in found.series)
    assert len(shown) == SERIES_AT_MOST
    assert (shown[0], shown[-1]) == (0, 199)
    assert SERIES_AT_MOST <= 8
    assert max(np.diff(shown)) <= 199 / (SERIES_AT_MOST - 1) + 1
    assert sorted(one.index for one in found.series) == sorted(199 - place for place in shown)  # places in the stack
    assert found.hardest == ()


def test_drawn_curves_are_thin_and_true() -> None:
    rng = np.random.default_rng(1)
    count = 100_000
    table = pd.DataFrame({name: (rng.random(count) < 0.05).astype(np.int8) for name in CLASSES})
    for name, column in zip(CLASSES, PROBABILITIES, strict=True):
        table[column] = 1 / (1 + np.exp(-(rng.normal(-3, 1, count) + 2 * table[name])))
    table["epidural"] = 0
    figure = roc_and_precision(table, COLOURS)
    lines = {str(line.get_label()).split()[0]: line for line in figure.axes[0].lines}
    assert len(lines["epidural"].get_xdata()) == 0
    for name in CLASSES[1:]:
        x, y = (np.asarray(values, dtype=float) for values in lines[name].get_data())
        assert len(x) < 600
        true = Ranking(table[f"p_{name}"].to_numpy(), table[name].to_numpy()).auc()
        assert abs(np.trapezoid(y, x) - true) < 2e-3


@pytest.mark.slow
@pytest.mark.real_data
def test_the_mask_on_the_real_series(head_ct_dir: Path, tmp_path: Path) -> None:
    dicom = head_ct_dir / "rsna2019_series"
    run = finish(tmp_path, dicom, head_ct_dir / "stage_2_train.csv", folds=1)
    found = pictures(run).series
    assert len(found) == SERIES_AT_MOST
    assert [one.index for one in found] == np.linspace(0, 35, SERIES_AT_MOST).round().astype(int).tolist()
    index = run.oof.set_index("slice_id")["index"]
    assert [index[one.shot.slice_id] for one in found] == [one.index for one in found]
    assert [one.index for one in found if not one.head] in ([35], [0])
    for one in found:
        assert one.shot.image is not None
        side = one.shot.image.shape[0]
        before, after = (one.shot.image[:, part].astype(int) for part in (slice(side), slice(-side, None)))
        kept = (np.ptp(before, axis=-1) == 0) & (before[..., 0] > 0)
        orange = np.ptp(before, axis=-1) > 80
        assert orange.sum() > 20 or 12 < one.index < 24  # plates at both ends
        # at the head's edge the smaller picture mixes both
        assert np.median(np.abs(before - after)[kept]) == 0 if kept.any() else not one.head
        assert (after[orange].max(axis=-1) > 60).mean() < 0.15
    html, _ = report(run, histories={"net/fold0": history(1)})
    assert re.findall(r"<h2>([^<]*)</h2>", html) == TITLES
    assert "1 of them hold no head" in html
    assert "No slice is labelled epidural" in html
    assert [name for name in identifiers(run) if name in html] == []


def test_where_nothing_was_scored_in_training_there_is_no_empty_chart() -> None:
    noise = {"train_gradient_norm": 7.0, "train_dice": 0.8}  # in history.json, and on no chart
    bare = [entry | {"metrics": {"train_loss": 0.5, "learning_rate": 1e-3} | noise} for entry in history()]
    unwatched, watched = {"net/fold0": bare, "net/fold1": bare}, {"net/fold0": history(), "net/fold1": history()}
    assert [axis.get_title(loc="left") for axis in learning_curves(unwatched, "AUC of any").axes] == [
        "net: loss",
        "learning rate",
    ]
    drawn = [
        {float(y) for line in axis.lines for y in line.get_ydata()} for axis in learning_curves(unwatched, "").axes
    ]
    assert drawn == [{0.5}, {1e-3}]
    assert len(learning_curves(watched, "AUC of any").axes) == 3
    words = ("weighted log loss", "whole slices", "AUC of any")
    text = learning(unwatched, *words).text
    assert "solid line" not in text
    assert "--monitor none" in text
    assert "solid line" in learning(watched, *words).text
    assert "--monitor none" not in learning(watched, *words).text
    mixed = learning_curves(unwatched | {"net-sequence/fold0": history()}, "AUC of any")
    hidden = [axis for axis in mixed.axes if not axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in hidden] == ["AUC of any"]


def test_the_legend_of_precision_and_recall_lies_beside_the_curves(run: Finished) -> None:
    figure = roc_and_precision(run.oof, COLOURS)
    figure.canvas.draw()
    legends = [axis.get_legend() for axis in figure.axes]
    assert legends[1] is None
    assert legends[2] is not None
    box = legends[2].get_window_extent()
    assert box.x0 >= figure.axes[1].get_window_extent().x1
    assert box.x1 <= figure.bbox.x1
    assert [text.get_text().split()[0] for text in legends[2].get_texts()] == list(CLASSES)


def test_calibration_is_said_in_words_of_the_field(made: tuple[str, dict[str, bytes]]) -> None:
    assert "Above the diagonal the model underestimates, below it overestimates." in made[0]


def test_how_it_was_made_says_whose_settings_and_with_what() -> None:
    section = settings({"backbone": "net", "epochs": 3}, ["net", "other"], folds=5)
    assert "The settings of the first backbone, net" in section.text
    assert "Models of the ensemble: net, other." in section.text
    assert section.table is not None
    rows = dict(section.table.itertuples(index=False, name=None))
    assert rows["folds"] == "5"
    assert rows["epochs"] == "3"
    assert {"Python", "torch", "ray", "timm"} <= set(versions())
    assert rows["version of torch"] == versions()["torch"]


@pytest.mark.slow
def test_a_fold_that_a_search_has_chosen_by_is_named_and_left_out_of_a_second_score(
    run: Finished, phantoms: PhantomSet, tmp_path: Path
) -> None:
    copy = finish(tmp_path / "out", phantoms.folder / "dicom", phantoms.folder / "labels.csv")
    copy.out.write_json("searches/rates/config.json", {"folds": [0]})
    searched = searched_folds(copy.out)
    assert searched == {"rates": [0]}
    metrics = write_results(copy.out, method(copy.oof), searched=searched)
    rest = copy.oof[copy.oof["fold"] != 0]
    found = metrics["without_searched_folds"]
    assert (found["folds"], found["searches"], found["slices"]) == ([0], ["rates"], len(rest))
    alone = score(rest, study_table(rest), samples=5)
    assert found["weighted_log_loss"]["value"] == pytest.approx(alone["weighted_log_loss"]["value"])
    assert found["auc_any"]["value"] == pytest.approx(alone["auc"]["any"]["value"])
    assert any(line.startswith("without fold 0, by which a search has chosen: 0.") for line in summary(metrics))
    html, _ = report(copy, searched=searched)
    assert "The search rates has chosen its settings by the held-out rows of fold 0" in html
    assert "Without fold 0, by which the search rates has chosen" in html
    every = write_results(copy.out, method(copy.oof), searched={"rates": [0, 1]})
    assert "slices" not in every["without_searched_folds"]
    assert any(line.endswith("no fold is left") for line in summary(every))
