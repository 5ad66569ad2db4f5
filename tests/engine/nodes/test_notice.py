"""What EC2 and GCP answer at the address of an instance's metadata; that the notice reaches a run is test_survival_notice's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from medray.engine.nodes import notice


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str], str]]:
    """(method, path) → answer; anything else is not found, and what a provider demands in headers is demanded."""
    answers: dict[tuple[str, str], str] = {}

    class Metadata(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            known = {
                "/ec2/api/token": self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "60",
                "/ec2/meta-data/spot/termination-time": self.headers["X-aws-ec2-metadata-token"] == "a-token",
                "/gcp/instance/preempted": self.headers["Metadata-Flavor"] == "Google",
            }
            text = answers.get((self.command, self.path)) if known[self.path] else None
            self.send_response(404 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        do_GET = do_PUT = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("EC2", "GCP"):
        monkeypatch.setattr(notice, name, f"http://127.0.0.1:{server.server_port}/{name.lower()}")
    yield answers
    server.shutdown()


def test_ec2_says_when(metadata: dict[tuple[str, str], str]) -> None:
    metadata["PUT", "/ec2/api/token"] = "a-token"
    assert notice.deadline() is None
    metadata["GET", "/ec2/meta-data/spot/termination-time"] = "2026-11-21T08:22:00Z"
    assert notice.deadline() == 1795249320


def test_gcp_says_that_it_is_half_a_minute(metadata: dict[tuple[str, str], str]) -> None:
    metadata["GET", "/gcp/instance/preempted"] = "FALSE"
    assert notice.deadline() is None
    metadata["GET", "/gcp/instance/preempted"] = "TRUE\n"
    assert notice.deadline() == pytest.approx(time.time() + 30, abs=5)


def test_elsewhere_nobody_says_anything(metadata: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert notice.deadline() is None  # not found
    for name in ("EC2", "GCP"):
        monkeypatch.setattr(notice, name, "http://127.0.0.1:1")  # nobody listens
    assert notice.deadline() is None
