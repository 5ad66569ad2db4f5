from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import the_error

from medray.engine.job import lease
from medray.engine.job.lease import BEAT_SECONDS, LEASE, STALE_SECONDS, hold, let_go
from medray.shards.only_if import OnlyIf
from medray.shards.store import Store

GOOD = {"token": "t", "began": 1.0e9, "seen": 1.0e9, "host": "elsewhere", "system": "", "process": 7, "born": 1.0}
HOLDER = """
import sys, time
from medray.engine.job.lease import hold
from medray.shards.store import Store
try:
    hold(Store(sys.argv[1]))
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
except ValueError as error:
    print(error, flush=True)
"""


def holder(folder: Path, seconds: float = 60.0) -> tuple[subprocess.Popen[str], str]:
    words = [sys.executable, "-c", HOLDER, str(folder), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def of_another_machine(folder: Path, seconds_ago: float, where: dict[str, object] | None = None) -> None:
    now = time.time()
    held = {
        "token": "theirs",
        "began": now - 3600,
        "seen": now - seconds_ago,
    } | (where or {"host": "elsewhere", "system": "", "process": 7, "born": 1.0})
    file = OnlyIf(Store(folder), LEASE)
    for _ in range(20):  # the job that has it writes, too
        if file.write(json.dumps(held).encode(), (file.read() or ("", None))[1]):
            return
    raise AssertionError("not written")


def test_a_second_job_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    first, line = holder(tmp_path)
    assert line == "held"
    with pytest.raises(
        ValueError, match=rf"another job is at work there \(process {first.pid} on .*last seen \d+ s ago\)"
    ):
        hold(Store(tmp_path))
    first.send_signal(signal.SIGINT)
    first.wait()
    assert not (tmp_path / LEASE).exists()
    hold(Store(tmp_path))
    hold(Store(tmp_path))  # this process has it
    _, line = holder(tmp_path)
    assert "another job is at work there" in line
    let_go(Store(tmp_path))
    assert not (tmp_path / LEASE).exists()
    let_go(Store(tmp_path))


def test_a_whole_job_is_refused_before_it_spends_anything(
    tmp_path: Path, run_in_process: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "out").mkdir()
    first, line = holder(tmp_path / "out")
    assert line == "held"
    flags = ("--out", tmp_path / "out", "--key-dir", tmp_path / "keys")
    error = the_error(run_in_process("ich_cv", *flags))
    assert f"--out {tmp_path}/out: another job is at work there (process {first.pid} on " in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LEASE]
    first.kill()
    first.wait()


def test_one_that_was_killed_is_passed_over_at_once(tmp_path: Path) -> None:
    first, _ = holder(tmp_path)
    first.kill()  # not waited for: a process that has ended and whose parent does not look
    time.sleep(0.5)
    hold(Store(tmp_path))
    let_go(Store(tmp_path))
    first.wait()


def test_of_many_that_start_at_once_one_works(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path), "6"]
    racers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    lines = [racer.stdout.readline() for racer in racers]
    assert sum(line == "held\n" for line in lines) == 1
    assert sum("choose another --out" in line for line in lines) == 3
    for racer in racers:
        racer.kill()
        racer.wait()


def test_one_on_another_machine_is_passed_over_without_a_sign(tmp_path: Path) -> None:
    assert STALE_SECONDS >= 4 * BEAT_SECONDS
    of_another_machine(tmp_path, STALE_SECONDS - 20)
    with pytest.raises(ValueError, match=r"--to .*process 7 on elsewhere.*passed over 120 s after its last sign"):
        hold(Store(tmp_path), "--to")
    of_another_machine(tmp_path, STALE_SECONDS + 1)
    hold(Store(tmp_path), "--to")
    let_go(Store(tmp_path))


def test_one_in_another_container_of_this_host_s_name_is_not_looked_for_among_these_processes(tmp_path: Path) -> None:
    first, _ = holder(tmp_path)
    own = json.loads((tmp_path / LEASE).read_text())
    first.kill()
    first.wait()
    where = {name: own[name] for name in ("host", "process", "born")}
    of_another_machine(tmp_path, 5, where | {"system": own["system"] + "0"})
    with pytest.raises(ValueError, match="another job is at work there"):
        hold(Store(tmp_path))
    of_another_machine(tmp_path, 5, where | {"system": own["system"]})
    hold(Store(tmp_path))  # this machine's own: it is gone
    let_go(Store(tmp_path))


def test_one_of_a_version_that_did_not_write_its_system_is_believed(tmp_path: Path) -> None:
    for host in ("elsewhere", socket.gethostname()):
        of_another_machine(tmp_path, 5, {"host": host, "process": 7, "born": 1.0})
        with pytest.raises(ValueError, match="another job is at work there"):
            hold(Store(tmp_path))


def test_another_user_s_that_this_machine_hides_is_believed_while_it_gives_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(process: int, signal: int) -> None:
        raise PermissionError

    where = {"host": socket.gethostname(), "system": lease._system(), "process": 1 << 30, "born": 1.0}
    of_another_machine(tmp_path, 5, where)
    with monkeypatch.context() as patch:
        patch.setattr(lease.os, "kill", forbidden)
        with pytest.raises(ValueError, match="another job is at work there"):
            hold(Store(tmp_path))
    hold(Store(tmp_path))  # there is no such process
    let_go(Store(tmp_path))


def test_a_number_that_another_process_has_now_is_not_the_job(tmp_path: Path) -> None:
    first, _ = holder(tmp_path)
    held = json.loads((tmp_path / LEASE).read_text())
    (tmp_path / LEASE).write_text(json.dumps(held | {"born": held["born"] - 100}))
    hold(Store(tmp_path))
    let_go(Store(tmp_path))
    first.kill()
    first.wait()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"host": "elsewhere"}',
        b"[" * 100_000,
        *(
            json.dumps(GOOD | bad).encode()
            for bad in (
                {"began": "x"},
                {"process": "x"},
                {"process": -1},
                {"seen": [1]},
                {"seen": 1e18},
                {"seen": float("inf")},
                {"began": 1e30},
                {"host": "\x1b[31m"},
                {"born": "x"},
            )
        ),
    ],
)
def test_a_damaged_file_holds_nobody_up(content: bytes, tmp_path: Path) -> None:
    (tmp_path / LEASE).write_bytes(content)
    hold(Store(tmp_path))
    let_go(Store(tmp_path))


def test_signs_go_on_and_whoever_is_passed_over_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease._thread, "interrupt_main", lambda: ended.append(True))
    hold(Store(tmp_path))
    first = json.loads((tmp_path / LEASE).read_text())["seen"]
    time.sleep(0.5)
    assert json.loads((tmp_path / LEASE).read_text())["seen"] > first
    (tmp_path / LEASE).unlink()  # whoever clears the folder does not end the job
    time.sleep(0.5)
    assert json.loads((tmp_path / LEASE).read_text())["host"] == socket.gethostname()
    assert not ended
    of_another_machine(tmp_path, 0)
    time.sleep(0.5)
    let_go(Store(tmp_path))
    assert ended == [True]
    assert "another job has taken it (process 7 on elsewhere" in capsys.readouterr().err
    assert json.loads((tmp_path / LEASE).read_text())["token"] == "theirs"
