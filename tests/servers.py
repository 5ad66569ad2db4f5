"""Servers that tests start on loopback: MLflow, killed and started again; S3, which refuses writes when it is told to."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from ray_processes import free_port
from werkzeug.serving import make_server

from medray.shards.address import ALLOWED

os.environ.setdefault(ALLOWED, "1")  # its keys are none
KEYS = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
BUCKET = "medray"


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real `mlflow server` on SQLite in ``folder``; killed at the end, not asked to stop. Gives its address."""
    words = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/s.db",
             "--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


class Door:
    """A port on loopback before the server at ``behind``, which may be changed; where that one is dead, so is this.

    A server that takes its time to start is started beforehand, and comes back at once.
    """

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._open, daemon=True).start()

    def _open(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:  # closed
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.behind))
            except OSError:
                client.close()
                continue
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                to.sendall(data)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


class Bucket:
    """moto's S3 in threads of this process, behind a gate: while it is shut, whatever would change something is answered
    with 503 SlowDown, as S3 does, and what only reads is served."""

    def __init__(self) -> None:
        self.shut, self.refused = False, 0
        self.asked: list[tuple[str, str, str]] = []  # method, path, query
        moto = DomainDispatcherApplication(create_backend_app)
        port = free_port()

        def gate(environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
            self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]))
            if self.shut and environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
                self.refused += 1
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
                respond("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
                return [body]
            return moto(environ, respond)

        self._server = make_server("127.0.0.1", port, gate, threaded=True, request_handler=MotoRequestHandler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **KEYS)
        self.client.create_bucket(Bucket=BUCKET)
        self.asked.clear()
        self._options = f"endpoint_override=127.0.0.1:{port}&scheme=http&region={KEYS['region_name']}"

    def uri(self, name: str) -> str:
        return f"s3://k:s@{BUCKET}/{name}?{self._options}"

    def unfinished(self) -> list[str]:
        """Objects whose upload was begun and neither completed nor given up."""
        return [upload["Key"] for upload in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    def close(self) -> None:
        self._server.shutdown()
