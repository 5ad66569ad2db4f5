"""Predictions of new studies by a finished run that was put together by hand: one small network that knows nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import the_error
from ct_files import CORONAL, SCOUT, ct, dose_report, write
from left_files import finish

from medray.imaging.phantom import PhantomSet
from medray.shards.store import Store
from medray.systems.ich.answers import TRAINED_ON_PHANTOMS
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.source import HeadCT

Run = Callable[..., tuple[int, str]]


def a_study(phantoms: PhantomSet, folder: Path) -> list[str]:
    """Copy the first patient's first study into ``folder``; gives the stems of its files."""
    files: dict[str, list[Path]] = {}
    for path in sorted((phantoms.folder / "dicom").glob("ID_*.dcm")):
        with path.open("rb") as stream, suppress(ValueError):  # there are broken files among them
            files.setdefault(next(iter(HeadCT().scan(stream)))["study_id"], []).append(path)
    chosen = next(paths for paths in files.values() if len(paths) >= 6)
    folder.mkdir()
    for path in chosen:
        shutil.copy(path, folder)
    return [path.stem for path in chosen]


def predict(run_in_process: Run, run: Path, tmp_path: Path, *more: object) -> tuple[str, pd.DataFrame]:
    """What was printed, and the submission."""
    status, text = run_in_process(
        "ich_predict", "--run", run, "--dicom", tmp_path / "new", "--to", tmp_path / "to", *more
    )
    assert status == 0, text
    return text, pd.read_csv(tmp_path / "to" / "submission.csv")


def test_what_is_no_dicom_file_is_not_in_the_submission(
    finished: Callable[[str | None], Path], phantoms: PhantomSet, run_in_process: Run, tmp_path: Path
) -> None:
    stems = a_study(phantoms, tmp_path / "new")
    cut = tmp_path / "new" / "ID_truncated.dcm"
    cut.write_bytes((tmp_path / "new" / f"{stems[2]}.dcm").read_bytes()[:400])  # before its identifiers
    (tmp_path / "new" / "ID_empty.dcm").write_bytes(b"")  # by its name an image, however short
    (tmp_path / "new" / "stage_2_train").write_text("ID,Label\n")
    (tmp_path / "new" / "labels.csv").write_text("ID,Label\n")
    text, submission = predict(run_in_process, finished("somewhere"), tmp_path)
    assert "! submission.csv: left out as not DICOM: 2 files" in text
    assert len(submission) == 6 * (len(stems) + 2)
    images = set(submission["ID"].str.rsplit("_", n=1).str[0])
    assert {"ID_truncated", "ID_empty"} <= images
    assert not images & {"stage_2_train", "labels"}
    assert set(submission.loc[submission["ID"].str.startswith("ID_truncated"), "Label"]) == {0.125}
    assert TRAINED_ON_PHANTOMS not in text


def test_a_run_that_was_trained_on_phantoms_says_so(
    finished: Callable[[str | None], Path],
    phantoms: PhantomSet,
    run_in_process: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stems = a_study(phantoms, tmp_path / "new")
    (tmp_path / "any.csv").write_text("\n".join(["ID,Label", *(f"{stem}_any,{i % 2}" for i, stem in enumerate(stems))]))
    drawn: list[tuple[Any, ...]] = []

    def draw(*given: Any) -> bytes:
        drawn.append(given)
        return b""

    monkeypatch.setattr("medray.systems.ich.new_studies.draw_study", draw)
    text, _ = predict(run_in_process, finished(None), tmp_path, "--labels", tmp_path / "any.csv")
    assert text.count(f"! {TRAINED_ON_PHANTOMS}") == 1
    assert TRAINED_ON_PHANTOMS in json.loads((tmp_path / "to" / "scores.json").read_text())["notes"]
    ((_, _, _, title, bleeding),) = drawn
    assert title == f"study 1 of 1: {TRAINED_ON_PHANTOMS}"
    assert bleeding.tolist().count(1) == len(stems) // 2
    assert f"scored: {len(stems)} slices of 1 study of 1 patient" in text
    assert "(95%" not in text


def test_files_that_cannot_be_used_leave_their_reasons_and_can_be_replaced(
    finished: Callable[[str | None], Path], run_in_process: Run, tmp_path: Path
) -> None:
    new, run = tmp_path / "new", finished("somewhere")
    write(new, {"scout.dcm": ct(1, ImageOrientationPatient=CORONAL, ImageType=SCOUT), "dose.dcm": dose_report(2)})
    error = the_error(run_in_process("ich_predict", "--run", run, "--dicom", new, "--to", tmp_path / "to"))
    assert "none of 2 files is a usable CT slice" in error
    assert f"{tmp_path}/to/set_aside.csv says what became of each file" in error

    def reasons() -> dict[str, str]:
        table = pd.read_csv(tmp_path / "to" / "set_aside.csv")
        return {Path(path).name: reason for path, reason in zip(table["path"], table["reason"], strict=True)}

    assert reasons() == {
        "dose.dcm": "a secondary capture (such as a dose report or a screenshot), not a CT image",
        "scout.dcm": "a scout (its image type is LOCALIZER)",
    }
    write(new, {"slice.dcm": ct(3)})
    _, submission = predict(run_in_process, run, tmp_path)
    assert len(reasons()) == 2
    assert len(submission) == 6 * 3


def test_slices_that_cannot_be_decoded_leave_their_reasons(
    finished: Callable[[str | None], Path], run_in_process: Run, tmp_path: Path
) -> None:
    write(tmp_path / "new", {"cut.dcm": ct(3, PixelData=b"12"), "scout.dcm": ct(1, ImageType=SCOUT)})
    flags = ("--run", finished("somewhere"), "--dicom", tmp_path / "new", "--to", tmp_path / "to")
    assert "no slice could be decoded; first reason: truncated pixels" in the_error(
        run_in_process("ich_predict", *flags)
    )
    aside = pd.read_csv(tmp_path / "to" / "set_aside.csv")
    assert sorted(Path(path).name for path in aside["path"]) == ["cut.dcm", "scout.dcm"]


def test_a_run_without_labels_of_a_class_says_that_it_knows_nothing_of_it(
    finished: Callable[[str | None], Path], phantoms: PhantomSet, run_in_process: Run, tmp_path: Path
) -> None:
    stems = a_study(phantoms, tmp_path / "new")
    for place, name in (
        (0, "1.2.840.4"),
        (1, "1.2.840.5"),
    ):  # as an archive names them, and cut before their identifiers
        (tmp_path / "new" / name).write_bytes((tmp_path / "new" / f"{stems[place]}.dcm").read_bytes()[:400])
    run = finished("somewhere")
    rates = dict.fromkeys(CLASSES, 0.125) | {"epidural": None, "subdural": None}
    Store(run).write_json("metrics.json", {"counts": {"observed_rate": rates}})
    finish(Store(run))
    text, submission = predict(run_in_process, run, tmp_path)
    assert "! this run had no label of epidural, subdural: its probabilities of it say nothing" in text
    labels = submission.set_index("ID")["Label"]
    for name in ("1.2.840.4", "1.2.840.5"):
        assert [labels[f"{name}_{c}"] for c in CLASSES] == [0.5, 0.125, 0.125, 0.125, 0.5, 0.125]
