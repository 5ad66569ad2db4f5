"""A command in a network of its own that leads nowhere, and what it sent to other machines: Linux only.

python tests/empty_network.py LOG COMMAND …
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

OWN, ROUTER = "10.213.0.2", "10.213.0.1"
_SET_UP = f"""
ip link set lo up
ip link add out0 type veth peer name nowhere0
ip address add {OWN}/24 dev out0
ip link set out0 up
ip link set nowhere0 up
ip neighbour add {ROUTER} lladdr 02:00:00:00:00:01 dev out0
ip route add default via {ROUTER}
"""
_EVERY_PROTOCOL, _IPV4, _UDP, _DNS, _OUTGOING = 3, 0x0800, 17, 53, 4
_ENTER = ["unshare", "--map-root-user", "--net"]


def can_be_made() -> bool:
    """Whether this machine lets its users make networks."""
    if sys.platform != "linux" or not (shutil.which("unshare") and shutil.which("ip")):
        return False
    made = subprocess.run([*_ENTER, "sh", "-ec", _SET_UP], capture_output=True, check=False)
    return made.returncode == 0


def inside(log: Path, words: list[str]) -> list[str]:
    """The command that runs ``words`` there and notes each packet's destination in ``log``, a line each."""
    return [*_ENTER, sys.executable, __file__, str(log), *words]


def _sent(packet: bytes) -> str | None:
    """Where a packet goes, and which name a question is about; None for what stays on this machine."""
    length, protocol = (packet[0] & 15) * 4, packet[9]
    to, port = socket.inet_ntoa(packet[16:20]), struct.unpack("!H", packet[length + 2 : length + 4])[0]
    if protocol == _UDP and port == _DNS:
        return f"{_asked(packet[length + 8 + 12 :])} asked of {to}"
    return None if to.startswith("127.") or to == OWN else f"{to} port {port}, protocol {protocol}"


def _asked(question: bytes) -> str:
    """Its name (RFC 1035, section 4.1.2)."""
    words, at = [], 0
    while at < len(question) and question[at]:
        words.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
        at += 1 + question[at]
    return ".".join(words)


def _watch(log: Path, over: threading.Event) -> threading.Thread:
    """Questions for names go over ``lo`` where this machine has a resolver of its own, all else over ``out0``."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL))  # type: ignore[attr-defined]
    wire.settimeout(0.2)

    def watch() -> None:
        seen = set[str]()
        while True:
            with contextlib.suppress(TimeoutError):
                packet, (_, kind, direction, *_) = wire.recvfrom(65535)
                found = _sent(packet) if kind == _IPV4 and direction == _OUTGOING and len(packet) >= 28 else None
                if found and found not in seen:
                    seen.add(found)
                    with log.open("a") as file:
                        file.write(f"{found}\n")
                continue
            if over.is_set():
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def main(log: Path, words: list[str]) -> int:
    subprocess.run(["sh", "-ec", _SET_UP], check=True)
    over = threading.Event()
    thread = _watch(log, over)
    status = subprocess.run(words, check=False).returncode
    over.set()
    thread.join()
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
