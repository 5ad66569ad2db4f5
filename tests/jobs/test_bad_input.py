"""A user's mistake is one line, a non-zero exit, and costs nothing that was done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import the_error
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value

import medray.systems.ich.task
from medray.imaging.phantom import PhantomSet
from medray.shards.pseudonym import read_map

Run = Callable[..., tuple[int, str]]
SMALL = ("--backbones", "test_resnet", "--no-pretrained", "--size-px", 32, "--epochs", 1, "--folds", 2)


@pytest.fixture
def flags(phantoms: PhantomSet, tmp_path: Path) -> list[object]:
    dicom, labels = phantoms.folder / "dicom", phantoms.folder / "labels.csv"
    private = ("--key-dir", tmp_path / "private")
    return ["--dicom", dicom, "--labels", labels, "--out", tmp_path / "out", *private, *SMALL]


def with_flag(flags: list[object], name: str, *values: object) -> list[object]:
    """The flags with one of them changed or added."""
    if name not in flags:
        return [*flags, name, *values]
    place = flags.index(name)
    return [*flags[: place + 1], *values, *flags[place + 2 :]]  # the flags of this file have one value each


@pytest.mark.parametrize(
    ("flag", "values", "message"),
    [
        ("--backbones", ["resnet181"], "timm has no such model; did you mean .*resnet18"),
        ("--train-folds", [5], "--train-folds 5: with --folds 2 they are 0 to 1"),
        ("--labels", ["absent.csv"], "absent.csv: cannot be read"),
        ("--dicom", ["nowhere"], "nowhere: no such folder"),
        ("--weights", ["absent.safetensors"], "--weights absent.safetensors: there is no such file"),
        ("--embedding", ["out-of-fold", "--train-folds", 0], "--embedding out-of-fold: needs a network for every fold"),
    ],
)
def test_before_anything_starts(
    flag: str, values: list[object], message: str, flags: list[object], run_in_process: Run
) -> None:
    import re

    assert re.search(message, the_error(run_in_process("ich_cv", *with_flag(flags, flag, *values))))


@pytest.mark.parametrize(
    ("flag", "values", "message"),
    [
        ("--windows", ["brian"], "brain"),
        ("--learning-rate", [0], "learning_rate 0.0: must be above 0"),
        ("--epidural-weight", [-1], "--epidural-weight -1.0, --any-weight 2.0: 0 or more"),
        ("--backbones", ["test_resnet", "test_resnet"], "each once"),
        ("--repeat-epidural", [0], "--repeat-epidural 0: must be at least 1"),
        ("--views", ["flop"], "--views flop: unknown; there are plain, flip"),
        ("--neighbours", [], "--windows brain subdural bone: one is needed"),
        ("--epocs", [1], "--epochs"),
    ],
)
def test_a_value_that_a_flag_cannot_have(
    flag: str, values: list[object], message: str, flags: list[object], run_in_process: Run
) -> None:
    status, text = run_in_process("ich_cv", *with_flag(flags, flag, *values))
    assert status == 2
    assert message in " ".join(text.split())
    assert "Traceback" not in text


def test_pretrained_weights_that_cannot_be_had(
    flags: list[object], run_in_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    create = timm.create_model

    def offline(*args: object, pretrained: bool = False, **kwargs: object) -> object:
        if pretrained:
            raise ConnectionError("no route to the hub")
        return create(*args, pretrained=False, **kwargs)

    monkeypatch.setattr("timm.create_model", offline)
    online = [f for f in with_flag(flags, "--backbones", "resnet18") if f != "--no-pretrained"]
    error = the_error(run_in_process("ich_cv", *online, "--pretrained"))
    assert "cannot be loaded (no route to the hub)" in error
    assert "--no-pretrained" in error
    assert "--weights FILE_OR_URI" in error


def test_files_without_labels(flags: list[object], run_in_process: Run) -> None:
    place = flags.index("--labels")
    error = the_error(run_in_process("ich_cv", *flags[:place], *flags[place + 2 :]))
    assert "--dicom and --labels: both are needed to train" in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,Label\na_any,\n", "there is no label in it that can be used"),
        ("slice_id,any\na,1\na,0\n", "there is no label in it that can be used; 1 slices whose labels contradict"),
        ("study_id,any\na,1\n", "a table by study does not say which slices bleed"),
        ("a_any,1\nb_any,0\n", "its first line is a row of labels"),
    ],
)
def test_labels_that_cannot_be_learned_from_end_it_before_the_cluster_starts(
    text: str, message: str, flags: list[object], run_in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medray.engine.job.dataset.connect", lambda: pytest.fail("the cluster was started"))
    (tmp_path / "l.csv").write_text(text)
    error = the_error(run_in_process("ich_cv", *with_flag(flags, "--labels", tmp_path / "l.csv")))
    assert "--labels" in error
    assert message in error


def test_an_output_that_cannot_be_written(flags: list[object], run_in_process: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    result = run_in_process("ich_cv", *with_flag(flags, "--out", tmp_path / "taken" / "out"))
    assert "choose another --out" in the_error(result)


def test_a_key_below_the_output(flags: list[object], run_in_process: Run, tmp_path: Path) -> None:
    result = run_in_process("ich_cv", *with_flag(flags, "--key-dir", tmp_path / "out" / "key"))
    assert "lies below --out" in the_error(result)


def the_traceback(result: tuple[int, str]) -> str:
    """What the file says that the job names when it ends by a mistake of its own."""
    status, text = result
    (line,) = [line for line in text.splitlines() if line.startswith("! error: ")]
    assert status == 1, text
    assert "Traceback" not in text
    assert "a mistake of this program, not of the command (ValueError at " in line
    path = Path(line.rsplit(" is in ", 1)[1])
    found = path.read_text()
    path.unlink()
    return found


def broken(*args: object, **kwargs: object) -> None:
    np.zeros(3) + np.zeros(4)


def test_a_mistake_of_the_programs_own_leaves_its_traceback(
    flags: list[object], run_in_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medray.engine.job.dataset.Dataset.claim", broken)
    found = the_traceback(run_in_process("ich_cv", *flags))
    assert "in broken" in found
    assert "operands could not be broadcast together" in found


@pytest.mark.usefixtures("local_ray")
def test_a_mistake_of_the_programs_own_in_a_worker_leaves_its_traceback(
    flags: list[object], run_in_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (medray.systems.ich.task, sys.modules[__name__]):  # the workers get them as they are here
        register_pickle_by_value(module)
    monkeypatch.setattr(medray.systems.ich.task.SliceTask, "losses", broken)
    try:
        found = the_traceback(run_in_process("ich_cv", *flags, "--until", "backbones"))
    finally:
        for module in (medray.systems.ich.task, sys.modules[__name__]):
            unregister_pickle_by_value(module)
    assert "in broken" in found
    assert "operands could not be broadcast together" in found


@pytest.mark.usefixtures("local_ray")
def test_a_folder_without_dicom(flags: list[object], run_in_process: Run, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(3):
        (tmp_path / "texts" / f"{i}.dcm").write_text("no image")
    result = run_in_process("ich_cv", *with_flag(flags, "--dicom", tmp_path / "texts"))
    error = the_error(result)
    assert "none of 3 files is a usable CT slice; most often: not a DICOM file" in error
    assert f"{tmp_path}/out/inventory.parquet says what became of each file" in error
    inventory = pd.read_parquet(tmp_path / "out" / "inventory.parquet")
    assert inventory["status"].tolist() == ["quarantined"] * 3
    assert inventory["reason"].str.startswith("not a DICOM file").all()
    names = read_map(tmp_path / "private", str(tmp_path / "out")).set_index("pseudonym")["identifier"]
    assert sorted(Path(names[name]).name for name in inventory["path"]) == ["0.dcm", "1.dcm", "2.dcm"]


@pytest.mark.usefixtures("local_ray")
def test_labels_of_other_slices(flags: list[object], run_in_process: Run, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("ID,Label\nID_unknown_any,0\n")
    result = run_in_process("ich_cv", *with_flag(flags, "--labels", tmp_path / "other.csv"))
    assert "none of its 1 ids belongs to one of" in (error := the_error(result))
    assert f"{tmp_path}/out/inventory.parquet says" in error
    assert pd.read_parquet(tmp_path / "out" / "inventory.parquet")["status"].eq("ok").any()


@pytest.mark.usefixtures("local_ray")
def test_fewer_patients_than_folds_keeps_the_shards(flags: list[object], run_in_process: Run, tmp_path: Path) -> None:
    result = run_in_process("ich_cv", *with_flag(flags, "--folds", 40))
    assert "--folds 40: only 13 patients have usable images; use fewer folds" in (error := the_error(result))
    assert f"{tmp_path}/out/inventory.parquet says" in error
    assert list((tmp_path / "out" / "shards").rglob("*.parquet"))


def test_another_configurations_output(flags: list[object], run_in_process: Run, tmp_path: Path) -> None:
    from medray.engine.job.claim import claim
    from medray.shards.store import Store

    claim(Store(tmp_path / "out"), {"epochs": 7})
    Store(tmp_path / "out").sub("runs", "net", "fold0").write_json("history.json", [])
    assert "holds a run with" in the_error(run_in_process("ich_cv", *flags))


@pytest.mark.usefixtures("local_ray")
def test_an_output_whose_files_were_read_otherwise(flags: list[object], run_in_process: Run, tmp_path: Path) -> None:
    """An earlier version's stacks and pixels do not mix with this one's."""
    from medray.shards.store import Store

    out = Store(tmp_path / "out")
    status, text = run_in_process("ich_cv", *flags, "--until", "shards")
    assert status == 0, text
    out.sub("runs", "net", "fold0").write_json("history.json", [])
    configuration = out.read_json("config.json")
    out.write_json("config.json", {k: v for k, v in configuration.items() if k != "data_version"})
    error = the_error(run_in_process("ich_cv", *flags, "--until", "shards"))
    assert f"holds a run with data_version = None, this one has {configuration['data_version']}" in error
    assert error.rstrip().endswith("or choose another --out")


@pytest.mark.usefixtures("local_ray")
def test_a_mistake_can_be_corrected_in_the_same_folder(
    flags: list[object], run_in_process: Run, tmp_path: Path
) -> None:
    stop = ["--until", "shards"]
    assert "no such folder" in the_error(run_in_process("ich_cv", *with_flag(flags, "--dicom", tmp_path / "typo")))
    weights = ["--weights", tmp_path / "absent.safetensors"]
    assert "absent.safetensors" in the_error(run_in_process("ich_cv", *flags, *weights, *stop))
    assert "too few" in the_error(run_in_process("ich_cv", *with_flag(flags, "--folds", 1), *stop))
    assert "use fewer folds" in the_error(run_in_process("ich_cv", *with_flag(flags, "--folds", 40), *stop))
    status, text = run_in_process("ich_cv", *flags, *stop)
    assert status == 0, text


def test_a_run_that_is_none(run_in_process: Run, tmp_path: Path) -> None:
    result = run_in_process("ich_predict", "--run", tmp_path, "--dicom", tmp_path, "--to", tmp_path / "to")
    assert "holds no config.json" in the_error(result)
