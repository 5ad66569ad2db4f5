"""Organs of a planning CT: feeding, a training step and a whole case against bare loops on the same machine in the same run.

    python tests/benchmarks/headneck_speed.py                            # drawn heads, two CPU cores, a few minutes
    python tests/benchmarks/headneck_speed.py --zoom 2.6                 # about 120 × 220 × 190 voxels
    python tests/benchmarks/headneck_speed.py --zoom 4 --parts case      # about 184 × 336 × 288

Crops: from Parquet shards, against MONAI's ``CacheDataset`` with ``RandCropByPosNegLabeld`` and a channel for each organ. A step: the
engine's against five lines of PyTorch. A case: ``outputs``, with masks and all scores, against ``sliding_window_inference`` alone, each in
a process of its own, which says how much memory it took at most.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parent))
import bench_volume
from headneck_loop import CPU, Row

from medray.engine.data.rows import read_rows
from medray.engine.data.samples import Rows
from medray.engine.train.device import to_device
from medray.engine.train.step import Trainer
from medray.imaging.types import Volume
from medray.imaging.volume_nifti import nifti_bytes
from medray.shards.files import Files
from medray.shards.part import Parts
from medray.shards.source import Encoded, Source
from medray.shards.store import Store
from medray.systems.headneck.chain import PHANTOM, Chain
from medray.systems.headneck.phantom_head import AFFINE, ORGANS, SMALL, draw
from medray.systems.headneck.recipes import phantom
from medray.systems.headneck.source import CT, PlanningCT
from medray.systems.headneck.task import OrganTask
from medray.tasks.task import At
from medray.tasks.volume_rows import VolumeRow

Part = Literal["crops", "step", "case"]


@dataclass(frozen=True)
class Options:
    parts: tuple[Part, ...] = ("crops", "step", "case")
    heads: int = 8
    zoom: float = 1.0
    """Voxels along each axis times this; the head stays as large."""
    readings: int = 64
    workers: int = 2
    rounds: int = 12
    """Of the step, eight steps each."""
    threads: int = 2


def encoded(number: int, zoom: float) -> dict[str, Any]:
    hu, masks = draw(np.random.default_rng(number))
    affine = AFFINE.copy()
    affine[:3, :3] /= zoom

    def file(voxels: np.ndarray) -> list[bytes]:
        some = voxels if zoom == 1 else ndimage.zoom(voxels, zoom, order=0, grid_mode=True, mode="nearest")
        return [nifti_bytes(some, Volume(some, affine))]

    files = {CT: file(hu)} | {name: file(mask.astype(np.uint8)) for name, mask in masks.items()}
    (found,) = PlanningCT(organs=tuple(ORGANS)).encode(Files(files), [{}])
    assert found.columns is not None
    return found.columns


def write(folder: Path, options: Options) -> list[Path]:
    """A shard of one head each."""
    source = PlanningCT(organs=tuple(ORGANS))
    parts = Parts(source, {"": Store(str(folder))}, Store(str(folder)), ("scan_id", "patient_id", "visit"))

    def encode(source: Source, store: Store, files: Any, rows: Any) -> list[Encoded]:
        return [Encoded(encoded(int(rows[0]["scan_id"]), options.zoom))]

    paths = [folder / f"{number}.parquet" for number in range(options.heads)]
    for number, path in enumerate(paths):
        row = {"scan_id": str(number), "patient_id": str(number), "visit": "1", "input": "", "private_files": "{}"}
        parts.write(path.name, [row], encode)
    return paths


def row_of(task: OrganTask, path: Path) -> Row:
    one = np.zeros(1, np.int32)
    (row,) = read_rows(Rows(Store(str(path.parent)), (path.name,), one, one, one), one, list(task.columns))
    return row


def item_of(task: OrganTask, row: Row) -> dict[str, torch.Tensor]:
    """Image and a channel of label for each organ, as MONAI's users have them."""
    volume = VolumeRow.of(row, (0,))
    bits = np.asarray(row["sets"], np.int64)[np.frombuffer(row["mask"], np.uint8).reshape(volume.shape)]
    label = np.stack([(bits >> k) & 1 for k in range(len(task.organs))]).astype(np.uint8)
    return {"image": torch.from_numpy(volume.whole()), "label": torch.from_numpy(label)}


def crops(task: OrganTask, paths: list[Path], options: Options) -> None:
    how = bench_volume.Options(readings=options.readings, workers=options.workers)
    ours, held = bench_volume.from_shards(task, paths, how)
    print(f"crops: {ours:.0f} a second from shards, a worker {held:.1f} GB", end="", flush=True)
    theirs, cached = bench_volume.from_cache(task, [item_of(task, row_of(task, path)) for path in paths], how)
    print(f"; {theirs:.0f} from MONAI's cache, {cached:.1f} GB: {ours / theirs:.2f} times")


def step(task: OrganTask, paths: list[Path], options: Options) -> None:
    row = row_of(task, paths[0])
    rngs = [np.random.default_rng((0, 0, i)) for i in range(task.batch_size)]
    batch = to_device(task.collate(task.train_examples(row, rngs)), CPU, task.host)
    engine, bare = Trainer(task, task.network(), CPU), task.network().train()
    engine.train()
    optimizer, ratios, steps = task.make_optimizer(bare.parameters()), [], 8

    def bare_steps() -> None:
        for _ in range(steps):
            task.losses(bare, batch, At())["loss"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def engine_steps() -> None:
        for number in range(steps):
            engine.step(batch, 0, number, steps)
        engine.check()

    took = {"bare": 0.0, "engine": 0.0}
    for number in range(options.rounds + 1):
        for name, run in (("bare", bare_steps), ("engine", engine_steps)):
            start = time.perf_counter()
            run()
            took[name] = time.perf_counter() - start
        if number:  # the first round warms up
            ratios.append(took["bare"] / took["engine"])
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    print(
        f"step: {took['engine'] / steps:.3f} s; engine / bare loop {middle:.3f} ({low:.3f} to {high:.3f}) of the bare loop's speed"
    )


def case(arguments: tuple[OrganTask, Path, str, int]) -> tuple[float, float, float]:
    """Seconds, GB at most, and GB before it began."""
    task, path, what, threads = arguments
    torch.set_num_threads(threads)
    network: Any = task.network().eval()
    if what == "all peaks":
        # every small organ's own network is asked
        torch.nn.init.ones_(network.sol[-1].bias)
    row = row_of(task, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    with torch.inference_mode():
        if what == "window":
            from monai.inferers import sliding_window_inference

            voxels = torch.from_numpy(VolumeRow.of(row, (0,)).whole())[None]
            sliding_window_inference(voxels, task.patch_DHW, task.window_batch, network, task.overlap, mode="gaussian")
        else:
            batch = to_device(task.collate([task.example(row)]), CPU, task.host)
            task.outputs(network, batch)
    took = time.perf_counter() - start
    return took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, before


def cases(chain: Chain, path: Path, options: Options) -> None:
    joint = chain.tasks()["outlines"]["outlines"]
    shape = row_of(chain.base, path)["shape_DHW"]
    print(
        f"a case of {' × '.join(map(str, shape))} voxels, {len(ORGANS)} organs, {len(SMALL)} with a network of their own:"
    )
    ways: dict[str, tuple[OrganTask, str]] = {
        "MONAI's sliding window of S-Net alone": (chain.base, "window"),
        "S-Net, its masks and scores": (chain.base, "outputs"),
        "with every small organ's own network": (joint, "all peaks"),
    }
    first = None
    for name, (task, what) in ways.items():
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            took, most, before = pool.submit(case, (replace(task, keep="uint8"), path, what, options.threads)).result()
        first = took if first is None else first
        print(
            f"  {name}: {took:.1f} s, {took / first:.2f} times; {most:.1f} GB at most, {before:.1f} before", flush=True
        )


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    chain = Chain("speed", replace(phantom(), organs=tuple(ORGANS)), replace(PHANTOM, small=SMALL))
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), options)
        if "crops" in options.parts:
            crops(chain.base, paths, options)
        if "step" in options.parts:
            step(chain.base, paths, options)
        if "case" in options.parts:
            cases(chain, paths[0], options)


if __name__ == "__main__":
    main(tyro.cli(Options))
