"""Which addresses the Python processes of a job want to reach, its workers' included: none but this machine's."""

from __future__ import annotations

import os
from pathlib import Path

from medray.engine.environment import DEFAULTS

METADATA = ("169.254.169.254 ", "metadata.google.internal ")
WATCH = """
import os, socket, sys

def own():
    names = {"localhost", socket.gethostname(), "", None}
    try:
        import psutil
        names |= {one.address for all in psutil.net_if_addrs().values() for one in all}
    except ImportError:
        pass
    return names

def note(host):
    name = host.decode() if isinstance(host, bytes) else host
    if name not in here and not str(name).startswith(("127.", "::1", "0.0.0.0", "::ffff:127.")):
        with open(WHERE, "a") as log:
            log.write(f"{name} by {' '.join(sys.argv)[:120]}\\n")

WHERE = os.environ["WATCH_CALLS"]
here = own()
connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

def watch(real):
    def connecting(self, address):
        # to connect a datagram's socket sends nothing: so Ray asks which address this machine has
        if self.family in (socket.AF_INET, socket.AF_INET6) and self.type == socket.SOCK_STREAM:
            note(address[0])
        return real(self, address)
    return connecting

def looked_up(host, *more, **named):
    note(host)
    return getaddrinfo(host, *more, **named)

socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = watch(connect), watch(connect_ex), looked_up
"""


def watched(folder: Path) -> dict[str, str]:
    """An environment in which calls to other machines are noted, with nothing of what a user's shell may have set against them."""
    (folder / "sitecustomize.py").write_text(WATCH)
    bare = {name: value for name, value in os.environ.items() if name not in DEFAULTS}
    path = os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
    return bare | {"PYTHONPATH": path, "WATCH_CALLS": str(folder / "calls.log")}


def calls(folder: Path) -> list[str]:
    """Without Ray's question to the cloud's own metadata service which cloud this is, for which there is no switch."""
    log = folder / "calls.log"
    found = log.read_text().splitlines() if log.exists() else []
    return [line for line in found if not line.startswith(METADATA) or "/ray/dashboard/" not in line]
