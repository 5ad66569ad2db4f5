"""`ray job submit` as medray/engine/README.md has it: with a token, packaged, submitted again, and its driver lost.

The cluster is a head of its own, with ports, a folder and a home of its own; it ends by the ids of its processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray_processes import MARK, free_port, other_ray, processes

from medray.imaging.phantom import PhantomSet

pytestmark = pytest.mark.on_demand
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent  # where the packages are: the job's `python` is the one that is found first
PACKAGED_MB = 5.0
EPOCHS = 4
RUNS = ("test_resnet/fold0", "test_resnet/fold1")


@dataclass(frozen=True)
class Head:
    environment: dict[str, str]  # of whoever may submit
    folder: Path  # of the cluster's home and sessions
    private: Path  # of the jobs' keys

    def submit(self, *words: str) -> list[str]:
        return [str(BIN / "ray"), "job", "submit", "--working-dir", ".", *words]

    def run(self, words: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=environment or self.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=200, check=False,
        )  # fmt: skip

    def run_until(self, words: list[str], when: Callable[[], bool], act: Callable[[], object]) -> str:
        """Submit, do that as soon as it is time, and wait for the end; gives the log as the shell saw it."""
        client = subprocess.Popen(
            words, env=self.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        while client.poll() is None and not when():
            time.sleep(0.02)
        ended = client.poll()
        if ended is None:
            act()
        text, _ = client.communicate(timeout=60)
        assert ended is None, f"it ended before it was time:\n{text}"
        return text

    def driver(self) -> psutil.Process:
        (found,) = [p for p in processes(self.environment[MARK]) if p.cmdline()[1:2] == ["jobs/ich_cv.py"]]
        return found


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    mark, port, dashboard = uuid.uuid4().hex, free_port(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="ray-job-", dir="/tmp"))  # short: sockets lie below it
    environment = other_ray() | {
        MARK: mark,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder / "home"),  # the token lies in it
        "RAY_TMPDIR": str(folder),  # no other `ray.init()` on this machine shall find this cluster
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONWARNINGS": "ignore",
    }
    here = environment | {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    start = [
        *(str(BIN / "ray"), "start", "--head", f"--port={port}", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}"),
        f"--ray-client-server-port={free_port()}",
        *("--num-cpus=2", "--num-gpus=0", "--disable-usage-stats", "--object-store-memory=200000000"),
    ]
    try:
        (folder / "home").mkdir()
        for words in ([str(BIN / "ray"), "get-auth-token", "--generate"], start):
            done = subprocess.run(
                words, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        yield Head(here, folder, folder / "private")
    finally:
        for _ in range(3):
            for process in processes(mark):
                process.kill()
        psutil.wait_procs(processes(mark), timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


def command(phantoms: PhantomSet, head: Head, out: Path) -> list[str]:
    flags = [
        "--dicom", phantoms.folder / "dicom", "--labels", phantoms.folder / "labels.csv", "--out", out,
        "--key-dir", head.private, "--folds", 2, "--rows-per-shard", 32, "--threads", 1, "--backbones", "test_resnet",
        "--no-pretrained", "--no-sequence-stage", "--size-px", 32, "--epochs", EPOCHS, "--batch-size", 8,
        "--repeat-epidural", 2, "--blend-trials", 10,
    ]  # fmt: skip
    return head.submit("--", "python", "jobs/ich_cv.py", *map(str, flags))


def timed(head: Head, words: list[str]) -> tuple[str, float]:
    began = time.monotonic()
    done = head.run(words)
    assert done.returncode == 0, done.stdout
    assert "succeeded" in done.stdout
    return done.stdout, time.monotonic() - began


@pytest.fixture(scope="module")
def undisturbed(head: Head, phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, float]:
    """The folder of a submitted job, its log as the submitting shell saw it, and its seconds."""
    out = tmp_path_factory.mktemp("submitted") / "out"
    text, seconds = timed(head, command(phantoms, head, out))
    print(f"submitted: {seconds:.0f} s")
    return out, text, seconds


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_without_the_token_it_is_refused(head: Head, tmp_path: Path, token: str | None) -> None:
    stranger = head.environment | {"HOME": str(tmp_path)} | ({"RAY_AUTH_TOKEN": token} if token else {})
    done = head.run(head.submit("--", "touch", str(tmp_path / "ran")), stranger)
    assert done.returncode != 0, done.stdout
    assert "authentication token" in done.stdout.lower()
    assert not (tmp_path / "ran").exists()


def test_its_log_is_followed_to_the_end(undisturbed: tuple[Path, str, float]) -> None:
    out, text, _ = undisturbed
    for stage in ("1. Shards and folds", "2. Backbones", "5. Ensemble", "6. Report"):
        assert stage in text
    for run in RUNS:
        assert f"{run}  starts" in text
        assert f"{run}  epoch {EPOCHS}/{EPOCHS}" in text
    assert epochs(out) == [EPOCHS, EPOCHS]
    assert (out / "report.html").is_file()


@pytest.mark.usefixtures("undisturbed")
def test_what_is_sent_is_small(head: Head) -> None:
    (unpacked,) = [p for p in head.folder.glob("ray/session_2*/runtime_resources/working_dir_files/*") if p.is_dir()]
    sizes = {p.relative_to(unpacked): p.stat().st_size for p in unpacked.rglob("*") if p.is_file()}
    top: dict[str, float] = {}
    for path, size in sizes.items():
        top[path.parts[0]] = top.get(path.parts[0], 0) + size / 1e6
    total = sum(top.values())
    print(f"packaged: {total:.2f} MB in {len(sizes)} files;", {n: round(mb, 2) for n, mb in sorted(top.items())})
    assert total < PACKAGED_MB
    assert {"jobs", "medray", "pyproject.toml"} <= top.keys()
    assert not {".venv", "out", "uv.lock", ".mypy_cache", ".hypothesis"} & top.keys()  # .gitignore is honoured


def test_submitted_again_it_trains_nothing(
    undisturbed: tuple[Path, str, float], head: Head, phantoms: PhantomSet
) -> None:
    out, _, first = undisturbed
    kept = [p for run in RUNS for p in (out / "runs" / run).rglob("*") if p.is_file()]
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in kept}
    metrics = (out / "metrics.json").read_bytes()
    text, seconds = timed(head, command(phantoms, head, out))
    print(f"again: {seconds:.0f} s")
    assert not [run for run in RUNS if f"{run}  " in text]
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in kept} == before
    assert (out / "metrics.json").read_bytes() == metrics
    assert seconds < first


def epochs(out: Path) -> list[int]:
    """How many epochs each run has in its history."""
    files = [out / "runs" / run / "history.json" for run in RUNS]
    return [len(json.loads(file.read_text())) if file.exists() else 0 for file in files]


def test_with_its_driver_killed_and_stopped_it_goes_on(
    undisturbed: tuple[Path, str, float], head: Head, phantoms: PhantomSet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = command(phantoms, head, out)
    text = head.run_until(words, lambda: max(epochs(out)) > 0, lambda: head.driver().kill())
    assert "failed" in text
    reached = [epochs(out)]

    began, name = time.time(), uuid.uuid4().hex  # a run that goes on writes its history before its first step
    histories = [out / "runs" / run / "history.json" for run in RUNS]
    text = head.run_until(
        [*words[:3], "--submission-id", name, *words[3:]],
        lambda: max(file.stat().st_mtime for file in histories if file.exists()) > began,
        lambda: head.run([str(BIN / "ray"), "job", "stop", name]),
    )
    assert "stopped" in text.lower()
    reached.append(epochs(out))

    text, seconds = timed(head, words)
    print(f"after a kill and a stop: {seconds:.0f} s; epochs before each start: {reached}")
    assert reached[0] != [EPOCHS, EPOCHS]  # both ended it in mid-training
    assert reached[1] != [EPOCHS, EPOCHS]
    assert "goes on after epoch" in text
    assert (out / "metrics.json").read_bytes() == (undisturbed[0] / "metrics.json").read_bytes()
    for run in RUNS:
        once, again = (json.loads((o / "runs" / run / "history.json").read_text()) for o in (undisturbed[0], out))
        assert [e["epoch"] for e in again] == list(range(1, EPOCHS + 1))
        assert [e["metrics"] for e in again] == [e["metrics"] for e in once]
    assert not [p for p in out.rglob(".*") if p.is_file()]
