"""One job at a time writes to an --out: whoever has it says so in a file there, again and again, and others are refused."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from medray.engine.job.progress import warn
from medray.shards.only_if import OnlyIf
from medray.shards.store import Store

LEASE = ".lease.json"
BEAT_SECONDS = 20.0
STALE_SECONDS = 120.0
"""After its last sign, a job on another machine is held to be gone. Clocks of machines differ by less."""
_ATTEMPTS = 3
_KINDS = {
    "token": (str,),
    "began": (float,),
    "seen": (float,),
    "host": (str,),
    "system": (str,),
    "process": (int,),
    "born": (float, int, type(None)),
}
_TOKEN = uuid.uuid4().hex  # of this process: it may come to the same folder twice
_held: dict[str, _Lease] = {}


def hold(out: Store, flag: str = "--out") -> None:
    """Take a folder until ``let_go``, or until this process ends.

    A job that was killed does not keep it: on its own machine its process is seen to be gone, on another one after
    ``STALE_SECONDS`` without a sign.

    Args:
        flag: what the folder was given with.
    Raises:
        ValueError: another job has it.
    """
    if out.uri not in _held:
        lease = _Lease(out, flag)
        lease.take()
        _held[out.uri] = lease


def let_go(out: Store) -> None:
    """Others may have it."""
    lease = _held.pop(out.uri, None)
    if lease is not None:
        lease.end()


@atexit.register
def let_all_go() -> None:
    """At the end of a job."""
    for lease in [*_held.values()]:
        let_go(lease.out)


class _Lease:
    def __init__(self, out: Store, flag: str) -> None:
        self.out, self.flag, self.file = out, flag, OnlyIf(out, LEASE)
        self.began, self.tag = time.time(), ""
        self.over = threading.Event()

    def take(self) -> None:
        """Raises ValueError where another job has it, or where the storage cannot tell."""
        holder: dict[str, Any] = {}
        try:
            for _ in range(_ATTEMPTS):
                found = self.file.read()
                if found is not None:
                    holder = _holder(found[0])
                    if holder.get("token") != _TOKEN and _at_work(holder):
                        break
                if self.file.write(self._sign(), None if found is None else found[1]):
                    threading.Thread(target=self._keep, daemon=True).start()
                    return
        except OSError as error:
            raise ValueError(f"{self.flag} {self.out.uri}: {LEASE} cannot be written ({error})") from None
        raise ValueError(
            f"{self.flag} {self.out.uri}: another job is at work there ({_shown(holder)}); wait for its end, or choose another "
            f"{self.flag}. One that was killed is passed over {STALE_SECONDS:.0f} s after its last sign"
        )

    def end(self) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            found = self.file.read()
            if found is not None and _holder(found[0]).get("token") == _TOKEN:
                self.file.remove()

    def _sign(self) -> bytes:
        now = {"token": _TOKEN, "began": self.began, "seen": time.time()}
        own = {"host": socket.gethostname(), "system": _system(), "process": os.getpid(), "born": _born(os.getpid())}
        return json.dumps(now | own).encode()

    def _keep(self) -> None:
        """A sign of life every ``BEAT_SECONDS``; a storage that fails for a moment is asked again at the next."""
        while not self.over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                found = self.file.read()
                if found is not None and _holder(found[0]).get("token") != _TOKEN:
                    warn(
                        f"{self.flag} {self.out.uri}: another job has taken it ({_shown(_holder(found[0]))}); this one ends"
                    )
                    _thread.interrupt_main()
                    return
                if not self.over.is_set():
                    self.file.write(self._sign(), None if found is None else found[1])


def _holder(content: bytes) -> dict[str, Any]:
    """Empty where it is no lease of ours: whoever can write to the folder may have put anything there."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or any(type(found.get(n, "")) not in kinds for n, kinds in _KINDS.items()):
        return {}
    times = (found["began"], found["seen"])
    found.setdefault("system", "")  # of a version that did not write it
    sane = all(0 < one < time.time() + STALE_SECONDS for one in times) and 0 < found["process"] < 1 << 31
    return found if sane and re.fullmatch(r"[\w.-]{1,255}", found["host"]) else {}


def _at_work(holder: dict[str, Any]) -> bool:
    own = (holder.get("host"), holder.get("system")) == (socket.gethostname(), _system())
    if own and not _hidden(int(holder["process"])):
        return holder.get("born") is not None and _born(int(holder["process"])) == holder["born"]
    return time.time() - float(holder.get("seen", 0)) < STALE_SECONDS


def _system() -> str:
    """What numbers of processes belong to: containers of one host's name, as on the host's network, have numbers of their own, and
    so has a machine that was cloned. Linux says it; elsewhere a host's name has to do."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _hidden(process: int) -> bool:
    """Whether it is another user's, of which this machine shows nothing (hidepid)."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return _born(process) is None
    except OSError:
        pass
    return False


def _born(process: int) -> float | None:
    """When a process of this machine began, which tells it from a later one of its number; None where it is gone."""
    try:
        found = psutil.Process(process)
        return None if found.status() == psutil.STATUS_ZOMBIE else round(found.create_time(), 2)
    except psutil.Error:
        return None


def _shown(holder: dict[str, Any]) -> str:
    if not holder:
        return "it began this moment"
    began = datetime.fromtimestamp(holder["began"], UTC)
    ago = max(0.0, time.time() - holder["seen"])
    return (
        f"process {holder['process']} on {holder['host']}, since {began:%Y-%m-%d %H:%M} UTC, last seen {ago:.0f} s ago"
    )
