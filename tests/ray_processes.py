"""Processes of the clusters that tests start, and ports for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from typing import Any

import psutil

from medray.engine.environment import DEFAULTS

MARK = "MEDRAY_TEST_CLUSTER"
"""Environment variable that everything of one cluster inherits."""


def other_ray() -> dict[str, str]:
    """The environment of processes of a Ray that this process has no part in: nothing of its own, and what cluster.yaml's nodes have."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | DEFAULTS


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def processes(mark: str) -> list[psutil.Process]:
    """All that descends from the cluster whose ``MARK`` has this value."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_driver(job: subprocess.Popen[Any]) -> None:
    """Kill a job with -9, and see to it that its Ray is gone: two clusters on two cores would slow each other down."""
    family = psutil.Process(job.pid).children(recursive=True)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    _, alive = psutil.wait_procs(family, timeout=2)
    for process in alive:
        process.kill()
