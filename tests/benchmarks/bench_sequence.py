"""Peak memory and speed of the sequence stage as the number of studies grows.

python tests/benchmarks/bench_sequence.py --stacks 1000 8000
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import tyro
from bench_shard import Peak

from medray.engine.derive.derive import DerivedShards
from medray.engine.derive.part import ROWS_PER_GROUP
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources, connect
from medray.engine.train.fit import fit
from medray.engine.train.sweep import CrossValidation
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.features import INDEX_COLUMNS, STACK_SCHEMA, stack_index
from medray.systems.ich.sequence import SequenceTask
from medray.systems.ich.system import strata

STACKS_PER_FILE = 64


@dataclass
class Flags:
    stacks: tuple[int, ...] = (1000, 8000)
    """Studies of each round."""
    slices: int = 36
    """Of a study."""
    features: int = 512
    """Of a slice."""


def write(to: Store, flags: Flags, count: int) -> dict[int, list[str]]:
    """Random features, as two networks would have written them."""
    rng = np.random.default_rng(0)
    names = []
    for start in range(0, count, STACKS_PER_FILE):
        rows = []
        for stack in range(start, min(start + STACKS_PER_FILE, count)):
            labels = (rng.uniform(size=(len(CLASSES), flags.slices)) < 0.1).astype(int)
            feature = rng.normal(size=(flags.slices, flags.features)).astype(np.float16)
            rows.append(
                {name: str(stack) for name in ("stack_id", "study_id", "patient_id")}
                | {"slice_id": [f"{stack}-{i}" for i in range(flags.slices)], "index": list(range(flags.slices))}
                | {"position_mm": [5.0 * i for i in range(flags.slices)], "feature": feature.tobytes()}
                | {"feature_count": flags.features}
                | {name: [0.1] * flags.slices for name in PROBABILITIES}
                | {name: labels[i].tolist() for i, name in enumerate(CLASSES)}
            )
        names.append(f"fold0/part-{start:06d}.parquet")
        to.write_table(names[-1], pa.Table.from_pylist(rows, schema=STACK_SCHEMA), row_group_size=ROWS_PER_GROUP)
    return {0: names}


def main(flags: Flags) -> None:
    connect()
    here = Resources(workers=0, gpu=False, side_by_side=1, threads=1, cpus_per_worker=1.0, data_cpus=0.5)
    task = SequenceTask(feature_count=flags.features, hidden=64, epochs=1, batch_size=8, learning_rate=1e-3)
    print("| stacks | features, MB | seconds | stacks/s | peak memory, MB |")
    print("|---|---|---|---|---|")
    for count in (200, *flags.stacks):  # the first round only starts the workers
        with tempfile.TemporaryDirectory() as name:
            names = write(Store(name), flags, count)
            size = sum(path.stat().st_size for path in Path(name).rglob("*.parquet")) / 1e6
            with Peak() as peak:
                started = time.perf_counter()
                folds = {str(i): i % 5 for i in range(count)}
                found = DerivedShards(Store(name), names).shards(INDEX_COLUMNS, folds)
                index = stack_index(found.index, found.index["slice_id"].explode(), name)
                options = Options(out=name, monitor="none")
                runs = CrossValidation(Store(name), (0,), options, here, strata)
                fit(runs.runs("sequence", task, replace(found, index=index)))
                seconds = time.perf_counter() - started
            if count in flags.stacks:
                print(
                    f"| {count} | {size:.0f} | {seconds:.1f} | {count / seconds:.0f} | {peak.peak_mb:.0f} |", flush=True
                )
    print(f"750,000 slices of 2,048 features in fp16: {750_000 * 2_048 * 2 / 1e9:.1f} GB")


if __name__ == "__main__":
    main(tyro.cli(Flags))
