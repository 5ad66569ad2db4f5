"""Streams on a Ray of eight CPUs that are names only: how many readers a stream has, and how much they read ahead."""

from __future__ import annotations

from typing import Any

import pytest
from lost_nodes import measured_by

DRIVER = '''
import json, sys, threading, time
from pathlib import Path
import ray
from medray.engine.nodes.cluster import Resources, quiet_data
from medray.engine.data import stream as module
from medray.engine.data.samples import EvaluationPlan, TrainingPlan
from medray.engine.data.stream import stream
from miniature.sleepers import Sleeper, notes_of, write_items

folder, STORE, BATCH = Path(sys.argv[1]), 4_000_000_000, 64
rows = write_items(folder, 24 * 8 * BATCH)
ray.init(address="local", num_cpus=8, object_store_memory=STORE, include_dashboard=False, logging_level="ERROR")
quiet_data()
# as `spread` gives it to one run with a GPU
resources = Resources(workers=0, gpu=True, side_by_side=1, threads=1, cpus_per_worker=1.0, data_cpus=0.5)

def task(name, **fields):
    (folder / name).mkdir()
    return Sleeper(notes=str(folder / name), batch_size=BATCH, **fields)

def at_once(notes):
    """Mean number of readers, from when the fifth had begun to when the last batch was begun."""
    first, last = sorted(notes[:, 0])[5], notes[:, 0].max()
    inside = notes[:, 1].clip(first, last) - notes[:, 0].clip(first, last)
    return float(inside.sum() / (last - first))

# the shape of blocks, as they leave the reading tasks
blocks, iterate = [], ray.data.Dataset.iter_batches
def counted(self, **options):
    for block in iterate(self, **options):
        blocks.append(len(block))
        yield block
ray.data.Dataset.iter_batches = counted
train = stream(task("train"), TrainingPlan(rows, BATCH, 1, seed=0), resources)
order = [batch["item_id"][0] for batch, _ in zip(train, range(90))]
found = {"at_once": at_once(notes_of(folder / "train")), "blocks": blocks[:90],
         "cv2_threads": sorted(set(notes_of(folder / "train")[:, 2]))}
found["operators"] = [operator.name for operator in train.gi_frame.f_locals["shared"].executor._topology]
planned = TrainingPlan(rows, BATCH, 1, seed=0)
found["in_order"] = order == [f"item{planned.samples(*unit)[0][i]:05d}" for unit in planned.units() for i in range(0, 512, 64)][:90]

# a training step that takes long: what is read ahead has an end
time.sleep(12)
made = len(notes_of(folder / "train"))
time.sleep(2)
image = BATCH * 3 * 480 * 480
found["goes_on"] = len(notes_of(folder / "train")) - made
found["ahead"] = (made - 90) * image / STORE

# and an evaluation begins while the training stream is full
rest = EvaluationPlan(rows.take(range(42 * 128)), BATCH)
evaluated = sum(len(b["item_id"]) for b in stream(task("evaluation", size_px=64), rest, resources))
found |= {"evaluated": evaluated, "evaluation_at_once": at_once(notes_of(folder / "evaluation"))}
train.close()
found["threads"] = [t.name for t in threading.enumerate() if t.name.startswith(("StreamingExecutor", "iter_threaded"))]
print(json.dumps(found), flush=True)
ray.shutdown()
'''


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    measured = measured_by(DRIVER, tmp_path_factory.mktemp("share"))
    print({name: value for name, value in measured.items() if name != "blocks"})
    return measured


pytestmark = pytest.mark.slow


def test_a_block_is_a_batch_and_they_come_in_the_planned_order(found: dict[str, Any]) -> None:
    assert found["blocks"] == [1] * 90
    assert found["in_order"]


def test_each_task_reads(found: dict[str, Any]) -> None:
    assert len(found["operators"]) == 2, found["operators"]  # what is planned, and the tasks: none that only count


def test_a_closed_stream_leaves_no_thread_that_could_meet_a_ray_that_was_shut_down(found: dict[str, Any]) -> None:
    assert found["threads"] == []


def test_all_cores_read_batches_of_480_pixels(found: dict[str, Any]) -> None:
    # of seven, one CPU is the training worker's; two at most where batches are joined (5.4 on idle cores)
    assert found["at_once"] > 3


def test_what_is_read_ahead_is_bounded_while_training_is_slow(found: dict[str, Any]) -> None:
    assert 0.05 < found["ahead"] < 0.5  # of the object store; a stream may have a quarter, and what its tasks hold
    assert found["goes_on"] == 0


def test_a_full_training_stream_leaves_an_evaluation_its_readers(found: dict[str, Any]) -> None:
    assert found["evaluated"] == 42 * 128
    assert found["evaluation_at_once"] > 2  # one beside Ray's own autoscaler (5.8 on idle cores)


def test_opencv_leaves_the_other_cores_to_the_other_readers(found: dict[str, Any]) -> None:
    assert found["cv2_threads"] == [1.0]
