"""Phantom studies for a job that was given no data, written over all cores."""

from __future__ import annotations

import ray

from medray.engine.job.progress import Progress
from medray.imaging.phantom import PhantomSpec, begin, finish, write_study
from medray.shards.store import Store


def phantom_files(out: Store, spec: PhantomSpec) -> tuple[str, str]:
    """Write the studies of ``spec`` below ``out``, or find them there; gives the folder of files and the labels' CSV.

    Raises:
        ValueError: ``out`` is not on a disk, or holds phantoms of another specification.
    """
    if out.local is None:
        raise ValueError(f"--out {out.uri}: phantoms are written to a local folder; give --dicom, or a local --out")
    folder = out.local / "phantoms"
    plans = begin(folder, spec)
    if plans:
        write = ray.remote(write_study).options(num_cpus=1)
        progress = Progress("phantoms", len(plans), "studies")
        waiting = [write.remote(folder, plan) for plan in plans]
        order = {reference: i for i, reference in enumerate(waiting)}
        rows: list[list] = [[] for _ in plans]
        while waiting:
            (reference,), waiting = ray.wait(waiting)
            rows[order[reference]] = ray.get(reference)
            progress.add(1)
        progress.close()
        finish(folder, spec, [row for study in rows for row in study])
    return str(folder / "dicom"), str(folder / "labels.csv")
