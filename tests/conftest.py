"""Fixtures that every test may use."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import medray.engine  # noqa: F401  # before any test: it sets what Ray reads when it is imported
from medray.imaging.phantom import PhantomSet, PhantomSpec, write_phantoms
from medray.shards.address import ALLOWED

if TYPE_CHECKING:  # torch and Ray are imported by the tests that want them
    from medray.engine.data.prepare import Ingest
    from medray.systems.ich.task import SliceTask

os.environ.setdefault(ALLOWED, "1")  # the keys of the storage that tests start are none
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With two processes, one has all tests that want Ray, which starts once, and the other the rest, file by file."""
    from xdist.scheduler import LoadScopeScheduling

    class RayTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "Ray" if wants_ray(config.rootpath / file) else file

    return RayTogether(config, log)


@functools.cache
def wants_ray(file: Path) -> bool:
    return bool(re.search(r"\b(local_ray|prepared)\b", file.read_text()))


def shared_data(name: str) -> Path:
    """A folder of real data beside the checkout. Its terms forbid to ship it, so a user's machine has none."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"wants real data that medray may not ship: ../shared/data/{name} is not on this machine")
    return folder


@pytest.fixture(scope="session")
def head_ct_dir() -> Path:
    """The folder with one real head-CT series and its labels; medray never ships it."""
    return shared_data("head_ct")


@pytest.fixture(scope="session")
def ms_mri_dir() -> Path:
    """The folder with two real patients with multiple sclerosis; medray never ships it."""
    return shared_data("ms_mri")


@pytest.fixture(scope="session")
def chest_dir() -> Path:
    """The folder with real ChestX-ray14 films and lists; medray never ships it."""
    return shared_data("chest_xray")


@pytest.fixture(scope="session")
def hand_dir() -> Path:
    """40 real hand films (RSNA Pediatric Bone Age 2017)."""
    return shared_data("hand_xray")


@pytest.fixture(scope="session")
def two_raters_dir() -> Path:
    return shared_data("organ_masks_two_raters")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> PhantomSet:
    """A dozen small phantom patients as DICOM files, with broken files among them."""
    spec = PhantomSpec(patients=12, seed=3, matrix_px=96, slices=(8, 10))
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), spec, broken=True)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray on this machine, for a whole test session."""
    import ray

    from medray.engine.nodes.cluster import connect

    connect()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def prepared(phantoms: PhantomSet, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Ingest:
    """The phantoms' shards, inventory and three folds; read-only."""
    from ingested import ingested

    from medray.engine.data.inputs import Input
    from medray.shards.store import Store
    from medray.systems.ich.classes import CLASSES
    from medray.systems.ich.inventory import assemble
    from medray.systems.ich.labels import read_labels
    from medray.systems.ich.source import HeadCT
    from medray.systems.ich.system import strata

    dicom = Store(phantoms.folder / "dicom")
    labels = read_labels(str(phantoms.folder / "labels.csv"))
    return ingested(
        tmp_path_factory.mktemp("ingested"),
        HeadCT(),
        [Input("", dicom, dicom.files(), lambda scan: assemble(scan, labels))],
        CLASSES,
        strata,
        folds=3,
        rows_per_shard=32,
    )


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch with one thread: what a batch adds up to then depends on nothing else that runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_task() -> SliceTask:
    """Learns next to nothing, in a second an epoch."""
    from medray.systems.ich.task import SliceTask

    return SliceTask(
        backbone="test_resnet", pretrained=False, size_px=32, epochs=3, batch_size=8, learning_rate=3e-3, dropout=0.2
    )


JOBS = Path(__file__).resolve().parents[1] / "jobs"


def load(name: str) -> ModuleType:
    """A job's script as a module, without running it."""
    spec = importlib.util.spec_from_file_location(name, JOBS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def the_error(result: tuple[int, str]) -> str:
    """The one line with which a job ended."""
    status, text = result
    lines = [line for line in text.splitlines() if line.startswith("! error: ")]
    assert status == 2, text
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


@pytest.fixture
def run_in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a job with flags, as its script would; gives the exit status and all that it printed."""

    def run(name: str, *flags: object) -> tuple[int, str]:
        module = load(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, flags)])
        status = 0
        try:
            module.start()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out + err

    return run
