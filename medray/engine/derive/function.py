"""A worker that derives parts by a plain function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from medray.engine.derive.inputs import Inputs
from medray.engine.derive.part import write_rows
from medray.engine.train.run import Run
from medray.engine.train.stop import StopRun
from medray.shards.store import Store, reason
from medray.tasks.derivation import ByFunction


class FunctionWorker:
    """One process on one CPU."""

    def __init__(self, derivation: ByFunction) -> None:
        self.derivation = derivation
        cv2.setNumThreads(1)  # there are as many processes as cores

    def write(self, run: Run | None, inputs: Inputs, places: np.ndarray, to: Store, name: str) -> None:
        """One part, row by row: neither what is read nor what comes out passes the object store."""
        assert run is None
        left_out: dict[str, str] = {}
        write_rows(to, name, self.derivation.schema, self._rows(inputs.take(places), left_out), left_out)

    def _rows(self, inputs: Inputs, left_out: dict[str, str]) -> Iterator[Mapping[str, Any]]:
        own = [*dict.fromkeys([*self.derivation.columns, self.derivation.id_column])]
        for row in inputs.read(own):
            name = row[self.derivation.id_column]
            try:
                found = list(self.derivation.rows(row))
            except ValueError as error:
                left_out[name] = reason(error)
                continue
            except Exception as error:
                raise StopRun(
                    f"{type(self.derivation).__name__}, row {name}: raised {type(error).__name__} ({error})"
                ) from error
            for one in found:
                if {*one} != {*self.derivation.schema.names}:
                    odd = sorted({*one} ^ {*self.derivation.schema.names})
                    raise StopRun(f"{type(self.derivation).__name__}: a row and its schema differ in {', '.join(odd)}")
            yield from found
