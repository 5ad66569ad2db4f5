"""Where a run is within an epoch, for whoever watches it: written now and then, lost without harm."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from medray.shards.store import Store

NAME = "progress.json"
LOCAL_SECONDS, REMOTE_SECONDS = 5.0, 60.0
"""Between two writes. In object storage each is a paid request, in the thread that trains."""


class Glimpse:
    """The file of one run, for the one process that writes it."""

    def __init__(self, store: Store) -> None:
        self.store, self.last = store, time.monotonic()
        self.seconds = REMOTE_SECONDS if store.local is None else LOCAL_SECONDS

    @property
    def due(self) -> bool:
        """Whether it is time to write again: what is written may have to be waited for."""
        return time.monotonic() - self.last >= self.seconds

    def write(self, **entry: Any) -> None:
        """Storage that refuses for a moment is not asked again: nothing is worth less than a late glimpse."""
        self.last = time.monotonic()
        with contextlib.suppress(OSError):
            self.store.write_bytes(NAME, json.dumps(entry).encode(), patience=())


def read_glimpse(store: Store) -> dict[str, Any]:
    """What was last written, empty before the first time and after the last epoch."""
    return dict(store.read_json(NAME, {}))
