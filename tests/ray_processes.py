"""Processes of the clusters that tests start, and ports for them."""

from __future__ import annotations

import socket

import psutil

MARK = "MEDRAY_TEST_CLUSTER"
"""Environment variable that everything of one cluster inherits."""


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
