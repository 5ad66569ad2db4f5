from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medray.engine.data.inputs import Input
from medray.engine.job.dataset import Dataset
from medray.engine.job.options import KEY_DIR, Options
from medray.shards.inventory import Inventory
from medray.shards.store import Store
from medray.systems.chest.system import FILMS
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.system import HEAD_CT
from medray.systems.lesion.system import BRAIN_MR
from medray.tasks.system import System
from medray.tasks.volume_rows import SCANS_PER_SHARD


def warnings_of(system: System, folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is said when the labels are read, which is before anything is spent."""
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "a.dcm").write_text("")
    (folder / "labels.csv").write_text(text)
    options = replace(Options(out=str(folder / "out")), public_ids=True)
    Dataset(system, system.source, options, str(folder / "images"), str(folder / "labels.csv"))
    assert not (folder / "out").exists()
    return capsys.readouterr().err.splitlines()


def test_classes_without_a_label_are_said_to_be_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = warnings_of(HEAD_CT, tmp_path, "ID,Label\na_any,1\nb_any,0\n", capsys)
    absent = ", ".join(CLASSES[:-1])
    assert lines == [f"! --labels: no label of {absent}: nothing is learned of it, and it has no score"]
    lines = warnings_of(FILMS, tmp_path, "image,patient,Mass,Edema\na,1,1,\nb,2,0,-1\n", capsys)
    assert len(lines) == 1
    assert "no label of Atelectasis, " in lines[0]
    assert "Edema" in lines[0]
    assert "Mass" not in lines[0]


def test_a_class_of_which_only_positives_are_known_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = warnings_of(HEAD_CT, tmp_path, "slice_id,subdural\na,1\nb,0\n", capsys)
    assert lines[1:] == ["! --labels: every known label of any is 1: nothing is learned without one of 0"]


def test_where_all_is_known_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["a,1,0,0,0,0,1", "b,0,1,1,1,1,1", "c,0,0,0,0,0,0"]
    assert warnings_of(HEAD_CT, tmp_path, "\n".join([f"slice_id,{','.join(CLASSES)}", *rows]), capsys) == []


def test_a_search_shows_the_flags_that_change_what_is_read_and_where_the_key_is(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_text("")
    (tmp_path / "labels.csv").write_text("image,patient,Mass\na.png,1,1\nb.png,2,0\n")
    keys = tmp_path / "keys"
    options = Options(out=str(tmp_path / "out"), key_dir=keys)
    given = (str(tmp_path / "images"), str(tmp_path / "labels.csv"))
    shown = Dataset(FILMS, replace(FILMS.source, allow_burned_in=True), options, *given).flags("best", "--name")
    assert "--allow-burned-in" in shown
    assert shown[shown.index("--key-dir") + 1] == str(keys)
    plain = Dataset(FILMS, FILMS.source, replace(options, public_ids=True, key_dir=KEY_DIR), *given).flags(
        "best", "--name"
    )
    assert not {"--allow-burned-in", "--key-dir"} & set(plain)


def test_another_source_beside_the_first_is_another_configuration(tmp_path: Path) -> None:
    for name in ("images", "others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_text("")
    (tmp_path / "labels.csv").write_text("image,patient,Mass\na.png,1,1\nb.png,2,0\n")
    options = replace(Options(out=str(tmp_path / "out")), public_ids=True)
    folder = Store(tmp_path / "others")
    other = Input("others", folder, folder.files(), lambda scan: Inventory(scan, scan, ()))

    def dataset(**more: Any) -> Dataset:
        images, labels = str(tmp_path / "images"), str(tmp_path / "labels.csv")
        return Dataset(FILMS, FILMS.source, options, images, labels, **more)

    both = dataset(name="images", others=(other,))
    both.claim()
    Store(options.out).sub("runs", "r", "fold0").write_json("history.json", [])
    both.claim()
    with pytest.raises(ValueError, match=r"holds a run with sources = .*others"):
        dataset().claim()


def test_films_that_may_hold_text_are_another_configuration_and_a_folder_of_before_the_flag_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_text("")
    (tmp_path / "labels.csv").write_text("image,patient,Mass\na.png,1,1\nb.png,2,0\n")
    options = replace(Options(out=str(tmp_path / "out")), public_ids=True)

    def dataset(allow_burned_in: bool = False) -> Dataset:
        source = replace(FILMS.source, allow_burned_in=allow_burned_in)
        return Dataset(FILMS, source, options, str(tmp_path / "images"), str(tmp_path / "labels.csv"))

    dataset().claim()
    out = Store(options.out)
    out.sub("runs", "r", "fold0").write_json("history.json", [])
    before = out.read_json("config.json")
    out.write_json("config.json", {name: value for name, value in before.items() if name != "allow_burned_in"})
    dataset().claim()
    assert out.read_json("config.json") == before
    with pytest.raises(ValueError, match="holds a run with allow_burned_in = None, this one has True; give the same"):
        dataset(allow_burned_in=True).claim()


def test_a_shard_holds_what_suits_the_system_where_the_user_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_text("")
    (tmp_path / "labels.csv").write_text("image,patient,Mass\na.png,1,1\n")
    few_rows = replace(FILMS, rows_per_shard=4)

    def rows(system: System, **more: Any) -> int | None:
        options = Options(out=str(tmp_path / "out"), public_ids=True, **more)
        return Dataset(
            system, system.source, options, str(tmp_path), str(tmp_path / "labels.csv")
        ).options.rows_per_shard

    assert rows(few_rows) == 4
    assert rows(few_rows, rows_per_shard=7) == 7
    assert rows(FILMS) == 1024
    assert BRAIN_MR.rows_per_shard == SCANS_PER_SHARD  # of volumes: every core has some
    with pytest.raises(ValueError, match="--rows-per-shard 0: at least 1"):
        rows(FILMS, rows_per_shard=0)
