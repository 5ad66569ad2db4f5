from __future__ import annotations

from pathlib import Path

import pytest

from medray.engine.train import glimpse
from medray.engine.train.glimpse import Glimpse, read_glimpse
from medray.shards.store import Store


def writes_in(store: Store, seconds: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """When a loop of one step a second writes."""
    now = [1000.0]
    monkeypatch.setattr(glimpse.time, "monotonic", lambda: now[0])
    found, place = [], Glimpse(store)
    for second in range(1, seconds + 1):
        now[0] += 1
        if place.due:
            place.write(step=second)
            found.append(second)
    return found


def test_a_disk_is_written_every_few_seconds_and_object_storage_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    assert read_glimpse(store) == {}
    assert writes_in(store, 22, monkeypatch) == [5, 10, 15, 20]
    assert read_glimpse(store) == {"step": 20}
    remote = Store("s3://bucket/run?region=us-east-1")
    written: list[bytes] = []
    monkeypatch.setattr(Store, "write_bytes", lambda self, name, data, patience=(): written.append(data))
    assert writes_in(remote, 130, monkeypatch) == [60, 120]
    assert len(written) == 2


def test_storage_that_refuses_does_not_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(self: Store, name: str, data: bytes) -> None:
        asked.append(name)
        raise OSError("slow down")

    monkeypatch.setattr(Store, "_write", refuse)
    Glimpse(Store(tmp_path)).write(step=1)
    assert asked == [glimpse.NAME]  # once: the thread that trains does not wait
