"""Phantoms for a job that was given no data, written over all cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from medray.engine.job.progress import Progress
from medray.imaging.phantom.writer import MARK
from medray.shards.store import Store
from medray.tasks.system import Phantoms


def phantom_files(out: Store, phantoms: Phantoms) -> tuple[str, str]:
    """Write the phantoms below ``out``, or find them there; gives what would have been named on the command line.

    Raises:
        ValueError: ``out`` is not on a disk, or holds other phantoms.
    """
    if out.local is None:
        raise ValueError(f"--out {out.uri}: phantoms are written to a local folder; give your data, or a local --out")
    folder = out.local / "phantoms"
    pieces = phantoms.pieces(folder)
    written = []
    if pieces:
        shared = ray.put(phantoms)
        counts = [phantoms.count(piece) for piece in pieces]
        progress = Progress("phantoms", sum(counts), phantoms.unit)
        waiting = [_write.remote(shared, folder, piece) for piece in pieces]
        order = {reference: i for i, reference in enumerate(waiting)}
        written = [None] * len(pieces)
        while waiting:
            (reference,), waiting = ray.wait(waiting)
            written[order[reference]] = ray.get(reference)
            progress.add(counts[order[reference]])
        progress.close()
    return phantoms.finish(folder, written)


def are_phantoms(uri: str | None) -> bool:
    """Whether files that a job was given, or given none of, are phantoms: their folder, or the one above, says so."""
    if uri is None:
        return True
    place = Store(uri).local
    return place is not None and any((folder / MARK).is_file() for folder in (place, place.parent))


@ray.remote(num_cpus=1)
def _write(phantoms: Phantoms, folder: Path, piece: Any) -> Any:
    return phantoms.write(folder, piece)
