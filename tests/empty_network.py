"""A command in a network of its own that leads nowhere, and what it sent to other machines: Linux only.

python tests/empty_network.py LOG COMMAND …

Every address is reached through one interface, and so is whoever answers for names: nothing else on this machine's loopback has to
be looked at. A watcher that fails or that loses a packet fails the command.
"""

from __future__ import annotations

import ipaddress
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

OUT, OWN, ROUTER, OWN_6, ROUTER_6 = "out0", "10.213.0.2", "10.213.0.1", "fd00:213::2", "fd00:213::1"
_SET_UP = f"""
ip link set lo up
ip link add {OUT} type veth peer name nowhere0
ip address add {OWN}/24 dev {OUT}
ip -6 address add {OWN_6}/64 dev {OUT} nodad
ip link set {OUT} up
ip link set nowhere0 up
ip neighbour add {ROUTER} lladdr 02:00:00:00:00:01 dev {OUT}
ip -6 neighbour add {ROUTER_6} lladdr 02:00:00:00:00:01 dev {OUT}
ip route add default via {ROUTER}
ip -6 route add default via {ROUTER_6}
mount --bind "$1" "$(realpath /etc/resolv.conf)"
"""
_ENTER = ["unshare", "--map-root-user", "--net", "--mount"]
_EVERY_PROTOCOL, _OUTGOING, _IPV4, _IPV6, _ARP = 3, 4, 0x0800, 0x86DD, 0x0806
_UDP, _ICMP_6, _HOP_BY_HOP, _DNS, _ASKS_NEIGHBOURS = 17, 58, 0, 53, range(130, 144)  # RFC 4861, 3810: the kernel's own
_SOL_PACKET, _STATISTICS = 263, 6
_AFTERWARDS_SECONDS, _BUFFER_BYTES = 3.0, 1 << 26


def can_be_made() -> bool:
    """Whether this machine lets its users make networks."""
    if sys.platform != "linux" or not (shutil.which("unshare") and shutil.which("ip")):
        return False
    made = subprocess.run([*_ENTER, "sh", "-ec", _SET_UP, "sh", "/dev/null"], capture_output=True, check=False)
    return made.returncode == 0


def inside(log: Path, words: list[str]) -> list[str]:
    """The command that runs ``words`` there and notes each packet's destination in ``log``, a line each."""
    return [*_ENTER, sys.executable, __file__, str(log), *words]


def _sent(kind: int, packet: bytes) -> str | None:
    """Where a packet goes, and which name a question is about; None for what the kernel asks its neighbours."""
    if kind == _IPV4:
        to, protocol, content = ipaddress.ip_address(packet[16:20]), packet[9], packet[(packet[0] & 15) * 4 :]
    elif kind == _IPV6:
        to, protocol, content = ipaddress.ip_address(packet[24:40]), packet[6], packet[40:]
        if protocol == _HOP_BY_HOP:
            protocol, content = content[0], content[(content[1] + 1) * 8 :]
        if protocol == _ICMP_6 and content[0] in _ASKS_NEIGHBOURS:
            return None
    else:
        return None if kind == _ARP else f"a packet of kind {kind:#06x}"
    port = struct.unpack("!H", content[2:4])[0] if len(content) >= 4 else 0
    if protocol == _UDP and port == _DNS:
        return f"{_asked(content[8 + 12 :])} asked of {to}"
    return f"{to} port {port}, protocol {protocol}"


def _asked(question: bytes) -> str:
    """Its name (RFC 1035, section 4.1.2)."""
    words, at = [], 0
    while at < len(question) and question[at]:
        words.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
        at += 1 + question[at]
    return ".".join(words)


class Watcher(threading.Thread):
    """Notes what leaves through ``OUT``, each destination once."""

    def __init__(self, log: Path) -> None:
        super().__init__(daemon=True)
        self.log, self.over, self.error = log, threading.Event(), ""
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL))  # type: ignore[attr-defined]
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self.wire.bind((OUT, _EVERY_PROTOCOL))
        self.wire.settimeout(0.2)

    def run(self) -> None:
        seen = set[str]()
        try:
            for kind, packet in self._packets():
                try:
                    found = _sent(kind, packet)
                except (IndexError, ValueError, struct.error):
                    found = f"a packet of {len(packet)} bytes that says nothing: {packet[:40].hex()}"
                if found and found not in seen:
                    seen.add(found)
                    with self.log.open("a") as file:
                        file.write(f"{found}\n")
        except OSError as error:
            self.error = str(error)

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        while True:
            try:
                packet, (_, kind, direction, *_) = self.wire.recvfrom(65535)
            except TimeoutError:
                if self.over.is_set():
                    return
                continue
            if direction == _OUTGOING:
                yield kind, packet

    def end(self) -> str:
        """Why nothing can be said of what was sent; empty where all of it was seen."""
        self.over.wait(_AFTERWARDS_SECONDS)  # what the command has left running
        self.over.set()
        self.join()
        _, lost = struct.unpack("II", self.wire.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        return self.error or (f"{lost} packets were not seen" if lost else "")


def main(log: Path, words: list[str]) -> int:
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as resolver:
        resolver.write(f"nameserver {ROUTER}\noptions timeout:1 attempts:1\n")
        resolver.flush()
        subprocess.run(["sh", "-ec", _SET_UP, "sh", resolver.name], check=True)
        watcher = Watcher(log)
        watcher.start()
        status = subprocess.run(words, check=False).returncode
        if why := watcher.end():
            print(f"watcher: {why}", file=sys.stderr)
            return 1
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
