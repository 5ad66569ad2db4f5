"""Decoders that abort, fault, loop, ask for all memory, talk, or answer nonsense."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from medray.imaging.decoding import guard
from medray.imaging.decoding.guard import guarded
from medray.imaging.types import Unreadable

Answer = tuple[np.ndarray, dict[str, Any]]


@pytest.fixture(autouse=True)
def _child_finds_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    for work in (
        twice,
        refuse,
        abort,
        fault,
        dies_once,
        spin,
        wait,
        hog,
        talk,
        nonsense,
        too_much,
        raises,
        crash_core,
        late,
        shrinks,
    ):
        monkeypatch.setattr(work, "__module__", "test_guard")
    guard._drop()
    yield
    guard._drop()


# ---- decoders, which run in the child ---------------------------------------------------------------------------------


def twice(data: memoryview, add: int = 0) -> Answer:
    return np.frombuffer(data, np.uint8).astype(np.uint16) * 2 + add, {"bytes": len(data)}


def refuse(data: memoryview) -> Answer:
    raise Unreadable("damaged pixels: no")


def abort(data: memoryview) -> Answer:
    os.abort()


def fault(data: memoryview) -> Answer:
    ctypes.string_at(0)
    raise AssertionError


def dies_once(data: memoryview, marker: str) -> Answer:
    if not os.path.exists(marker):
        Path(marker).touch()
        os.abort()
    return twice(data)


def spin(data: memoryview) -> Answer:
    while True:
        pass


def wait(data: memoryview) -> Answer:
    time.sleep(600)
    raise AssertionError


def hog(data: memoryview) -> Answer:
    return np.ones(1 << 33, np.uint8), {}


def talk(data: memoryview) -> Answer:
    os.write(2, b"Corrupt JPEG data: premature end\nmore\n")
    return twice(data)


def nonsense(data: memoryview) -> Answer:
    return np.array([object()]), {}


def too_much(data: memoryview) -> Answer:
    return np.zeros(1000, np.uint8), {}


def raises(data: memoryview) -> Answer:
    raise KeyError("PATIENT^NAME")


def crash_core(data: memoryview) -> Answer:
    import resource

    return np.array(resource.getrlimit(resource.RLIMIT_CORE)), {}


def late(data: memoryview) -> Answer:
    time.sleep(0.5)
    return twice(data)


def shrinks(data: memoryview) -> Answer:
    for descriptor in range(3, 20):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:medray"):
                os.ftruncate(descriptor, 0)
                return twice(data)
    raise AssertionError("not shrunk")


# ---- what comes of it ---------------------------------------------------------------------------------------------------


def test_pixels_and_facts_come_back() -> None:
    for size in (0, 1, 63, 64, 65, 5 << 20):  # also over the size that the shared memory starts with
        data = np.arange(size, dtype=np.uint8).tobytes()
        pixels, facts = guarded(twice, data, 2 * size, add=1)
        assert facts == {"bytes": size}
        assert pixels.dtype == np.uint16
        assert np.array_equal(pixels, np.arange(size, dtype=np.uint8).astype(np.uint16) * 2 + 1)


def test_one_child_serves_many_streams_and_many_threads() -> None:
    guarded(twice, b"a", 2)
    process = guard._child().process.pid
    with ThreadPoolExecutor(8) as pool:
        for i, (pixels, _) in enumerate(pool.map(lambda i: guarded(twice, bytes([i]), 2, add=i), range(200))):
            assert pixels.tolist() == [3 * i]
    assert guard._child().process.pid == process


def test_a_refusal_keeps_its_reason_and_the_child() -> None:
    guarded(twice, b"a", 2)
    process = guard._child().process.pid
    with pytest.raises(Unreadable, match="^damaged pixels: no$"):
        guarded(refuse, b"", 10)
    assert guard._child().process.pid == process


@pytest.mark.parametrize(("work", "how"), [(abort, "SIGABRT"), (fault, "SIGSEGV"), (raises, "status 1")])
def test_a_decoder_that_ends_its_process_costs_one_stream(work: Any, how: str) -> None:
    with pytest.raises(Unreadable, match=f"^the decoder ended with {how}$") as caught:
        guarded(work, b"x", 10)
    assert "PATIENT" not in str(caught.value)
    assert guarded(twice, b"a", 2)[0].tolist() == [194]


def test_a_stream_that_dies_of_the_one_before_it_is_read_in_a_fresh_child(tmp_path: Path) -> None:
    pixels, _ = guarded(dies_once, b"a", 2, marker=str(tmp_path / "marker"))
    assert pixels.tolist() == [194]
    assert (tmp_path / "marker").exists()


def test_a_decoder_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with monkeypatch.context() as short:
        short.setattr(guard, "WALL_SECONDS", 1.0)
        with pytest.raises(Unreadable, match="^the decoder gave no answer for 1 seconds$"):
            guarded(wait, b"", 10)
    assert time.monotonic() - started < 10
    assert guarded(twice, b"a", 2)[0].tolist() == [194]


def test_a_decoder_that_loops_is_ended_by_its_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CPU_SECONDS", 1)
    with pytest.raises(Unreadable, match="^the decoder took more than 1 seconds$"):
        guarded(spin, b"", 10)


@pytest.mark.skipif(
    sys.platform != "linux", reason="the limit shown is Linux's: macOS enforces none on a process's address space"
)
def test_a_decoder_that_wants_all_memory_is_refused_it() -> None:
    with pytest.raises(Unreadable, match="^the decoder wants more than 1024 MB of memory$"):
        guarded(hog, b"", 10)
    assert guarded(twice, b"a", 2)[0].tolist() == [194]


def test_what_a_library_says_is_heard_once_and_not_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert guarded(talk, b"a", 2)[1]["warning"] == "Corrupt JPEG data: premature end\nmore"
    assert "warning" not in guarded(twice, b"a", 2)[1]
    with pytest.raises(Unreadable):
        guarded(abort, b"", 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("work", [nonsense, too_much])
def test_other_pixels_than_asked_for_are_refused(work: Any) -> None:
    with pytest.raises(Unreadable):
        guarded(work, b"x", 10)
    assert guarded(twice, b"a", 2)[0].tolist() == [194]


def test_a_crash_leaves_no_file_with_pixels() -> None:
    assert guarded(crash_core, b"", 100)[0].tolist() == [0, 0]


def test_the_child_goes_with_its_parent() -> None:
    code = "import time; from medray.imaging.decoding import guard; print(guard._child().process.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    child.wait(20)


def test_a_forked_process_gets_a_child_of_its_own() -> None:
    guarded(twice, b"a", 2)
    pid = guard._child().process.pid
    reading, writing = os.pipe()
    if (forked := os.fork()) == 0:
        os.write(writing, json.dumps([*guarded(twice, b"b", 2)[0].tolist(), guard._child().process.pid]).encode())
        os._exit(0)
    os.waitpid(forked, 0)
    value, other = json.loads(os.read(reading, 100))
    assert value == 196
    assert other != pid
    assert guarded(twice, b"a", 2)[0].tolist() == [194]


def test_an_interrupted_call_leaves_no_answer_for_the_next_one() -> None:
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        guarded(twice, b"a", 2)
        for _ in range(5):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Stop):
                guarded(late, b"z", 2)
            assert guarded(twice, b"a", 2)[0].tolist() == [194]
            assert guarded(twice, b"b", 2)[0].tolist() == [196]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_child_that_cannot_start_is_no_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    open_before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="the decoders' process cannot be started"):
            guarded(twice, b"a", 2)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == open_before


def test_no_file_of_the_folder_and_no_variable_changes_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert guarded(twice, b"a", 2) == (np.array([194]), {"bytes": 1})


@pytest.mark.skipif(
    sys.platform != "linux",
    reason="the seal shown is Linux's: elsewhere the guard shares a temporary file, which has none",
)
def test_the_shared_memory_cannot_be_taken_away_from_its_reader() -> None:
    with pytest.raises(Unreadable, match="status 1"):
        guarded(shrinks, b"a", 2)
    assert guarded(twice, b"a", 2)[0].tolist() == [194]
