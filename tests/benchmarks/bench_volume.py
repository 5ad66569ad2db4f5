"""Feeding crops of volumes and predicting whole ones, against MONAI on the same machine in the same run.

    python tests/benchmarks/bench_volume.py                       # 16 volumes of 182×218×182, four channels, 48³ crops
    python tests/benchmarks/bench_volume.py --volumes 4 16 50 --side 96
    python tests/benchmarks/bench_volume.py --data shared/data/ms_mri        # real scans: how they are packed
    python tests/benchmarks/bench_volume.py --volumes 200 --cache-up-to 50   # shards only: memory stays flat

Crops: a row of a Parquet shard is read and cut by ``train_examples``, in ``--workers`` processes; MONAI's ``CacheDataset`` with
``RandCropByPosNegLabeld`` and flips in a DataLoader of as many, and the same with brains cut out and places of lesion found beforehand. Half of the crops hold lesion in both.
Prediction: ``LesionTask.outputs`` with mask and probability written to Parquet, against ``sliding_window_inference`` alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from lesion_two_patients import patient_row

from medray.engine.data.rows import read_rows
from medray.engine.data.samples import Rows
from medray.shards.files import Row
from medray.shards.part import Parts
from medray.shards.source import Encoded, Source
from medray.shards.store import Store
from medray.systems.lesion.recipes import phantom
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.task import LesionTask
from medray.tasks.volume import VolumeTask
from medray.tasks.volume_rows import in_box, whole


@dataclass(frozen=True)
class Options:
    volumes: tuple[int, ...] = (16,)
    cache_up_to: int = 50
    """With more volumes MONAI's cache is left out."""
    side: int | None = None
    """Of cubes; 182×218×182 where not given."""
    patch: int = 48
    crops: int = 4
    readings: int = 64
    """That are timed."""
    workers: int = 2
    threads: int = 2
    """For prediction."""
    predict: bool = True
    data: Path | None = None
    """Instead of all that: how the two real patients of 3D_MR_MS below this folder are packed, and how fast unpacked."""


def volume(number: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels, mask and brain: a sixth of the volume, as in 3D_MR_MS, of whole numbers that were whitened, with 20 lesions."""
    rng = np.random.default_rng(number)
    grids = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    brain = sum(g**2 for g in grids) < 0.46
    mask = np.zeros(shape, np.uint8)
    for _ in range(20):
        middle = (rng.uniform(0.35, 0.65, 3) * shape).astype(int)
        mask[tuple(slice(m - 2, m + 2) for m in middle)] = 1
    tissue = np.rint(100 * rng.standard_normal((4, *shape), np.float32)) / 100
    return (tissue + mask).astype(np.float32) * brain, mask, brain


def write(folder: Path, count: int, shape: tuple[int, ...]) -> list[Path]:
    """A shard of one row each, written as jobs write them; the content of the first eight stands again in the others."""
    parts = Parts(
        BrainMR(channels=("a", "b", "c", "d")),
        {"": Store(str(folder))},
        Store(str(folder)),
        ("scan_id", "patient_id", "visit"),
    )

    def encode(source: Source, store: Store, files: Mapping[str, Sequence[str]], rows: Sequence[Row]) -> list[Encoded]:
        voxels, mask, brain = volume(int(rows[0]["scan_id"]), shape)
        columns = {
            "shape_DHW": list(shape), "spacing_mm": [1.0, 1.0, 1.0], **in_box(voxels, brain), "mask": mask.tobytes(),
            "brain": np.packbits(brain).tobytes(), "foreground": np.flatnonzero(mask)[:10_000].tolist(),
        }  # fmt: skip
        return [Encoded(columns)]

    paths = [folder / f"{number}.parquet" for number in range(count)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        if number < 8:
            row = {
                "scan_id": str(number),
                "patient_id": str(number),
                "visit": "1",
                "input": "",
                "private_files": json.dumps({}),
            }
            parts.write(path.name, [row], encode)
        else:
            shutil.copyfile(paths[number % 8], path)
    return paths


def reading(arguments: tuple[VolumeTask, Path, int]) -> tuple[int, float]:
    """Crops, and GB of this process with the row and its crops."""
    task, path, number = arguments
    torch.set_num_threads(1)
    one = np.zeros(1, np.int32)
    (row,) = read_rows(Rows(Store(str(path.parent)), (path.name,), one, one, one), one, list(task.columns))
    rngs = [np.random.default_rng((0, 0, number * task.crops + i)) for i in range(task.crops)]
    crops = task.train_examples(row, rngs)
    return len(crops), psutil.Process().memory_info().rss / 1e9


def timed(crops: Iterable[int], warm: int) -> float:
    """Crops a second after the first ``warm`` readings."""
    count = 0
    start = time.perf_counter()
    for number, found in enumerate(crops):
        if number == warm:
            start, count = time.perf_counter(), 0
        count += found
    return count / (time.perf_counter() - start)


def from_shards(task: VolumeTask, paths: list[Path], options: Options) -> tuple[float, float]:
    """Crops a second, and the most GB of one worker."""
    order = np.random.default_rng(0).integers(0, len(paths), options.readings + options.workers)
    work = [(task, paths[place], number) for number, place in enumerate(order)]
    held = [0.0]

    def crops() -> Iterator[int]:
        with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
            for found, gigabytes in pool.map(reading, work):
                held.append(gigabytes)
                yield found

    return timed(crops(), options.workers), max(held)


def items_of(count: int, shape: tuple[int, ...]) -> list[dict[str, torch.Tensor]]:
    """The same volumes for ``from_cache``."""
    made = [volume(number % 8, shape) for number in range(count)]
    return [{"image": torch.from_numpy(v), "label": torch.from_numpy(m)[None]} for v, m, _ in made]


def from_cache(
    task: VolumeTask, items: list[dict[str, torch.Tensor]], options: Options, prepared: bool = False
) -> tuple[float, float]:
    """Crops a second, and GB of the process that has the cache.

    Args:
        items: image and label, each (channels, D, H, W).
        prepared: cut to the brain, and the places of lesion found, before they are cached: which few users do.
    """
    from monai.data import CacheDataset, DataLoader, list_data_collate
    from monai.transforms import Compose, CropForegroundd, FgBgToIndicesd, RandCropByPosNegLabeld, RandFlipd

    keys = ["image", "label"]
    places = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"} if prepared else {}
    before = [CropForegroundd(keys, "image"), FgBgToIndicesd("label")] if prepared else []
    cut = RandCropByPosNegLabeld(keys, "label", task.patch_DHW, pos=1, neg=1, num_samples=task.crops, **places)
    flips = [RandFlipd(keys, prob=0.5, spatial_axis="DHW".index(axis)) for axis in task.flip_axes]
    cached = CacheDataset(items, Compose([*before, cut, *flips]), progress=False)
    loader = DataLoader(cached, batch_size=1, shuffle=True, num_workers=options.workers,
        collate_fn=list_data_collate, persistent_workers=options.workers > 0)  # fmt: skip

    def crops() -> Iterator[int]:
        done = 0
        while True:
            for batch in loader:
                yield len(batch["image"])
                done += 1
                if done == options.readings + options.workers:
                    return

    return timed(crops(), options.workers), psutil.Process().memory_info().rss / 1e9


def predict(task: LesionTask, path: Path, options: Options, folder: Path) -> None:
    from monai.inferers import sliding_window_inference

    torch.set_num_threads(options.threads)
    network = task.network().eval()
    row = pq.read_table(path, columns=list(task.columns)).to_pylist()[0]
    batch: dict[str, Any] = task.collate([task.example(row)])
    batch["voxels"] = torch.from_numpy(batch["voxels"])
    with torch.inference_mode():
        network(batch["voxels"][:, :, : options.patch, : options.patch, : options.patch])
        start = time.perf_counter()
        sliding_window_inference(
            batch["voxels"], task.patch_DHW, task.window_batch, network, task.overlap, mode="gaussian"
        )
        alone_s = time.perf_counter() - start
        start = time.perf_counter()
        found = task.outputs(network, batch)
        pq.write_table(
            pa.table({name: pa.array(list(values)) for name, values in found.items()}), folder / "out.parquet"
        )
        ours_s = time.perf_counter() - start
    print(
        f"prediction: {ours_s:.2f} s, written; MONAI's sliding window alone {alone_s:.2f} s: {ours_s / alone_s:.2f} times"
    )


def packing(data: Path) -> None:
    """Megabytes and the best of nine readings of a scan's voxels, the whole volume and the box of the brain."""
    print("| scan | voxels | brain's box, of the volume | codec | MB | read, ms |\n|---|---|---|---|---|---|")
    for folder in ("patient07", "patient26"):
        row = patient_row(data / folder)
        stored = {"whole": whole(row).tobytes(), "box": row["voxels"]}
        part = len(stored["box"]) / len(stored["whole"])
        for (what, voxels), (codec, level) in product(stored.items(), (("none", None), ("zstd", 1), ("lz4", None))):
            file = pa.BufferOutputStream()
            table = pa.table({"voxels": pa.array([voxels], pa.large_binary())})
            pq.write_table(table, file, compression=codec, compression_level=level, use_dictionary=False)
            packed, times = file.getvalue(), []
            for _ in range(9):
                start = time.perf_counter()
                pq.ParquetFile(packed).read_row_group(0)
                times.append(time.perf_counter() - start)
            print(f"| {folder} | {what} | {part:.2f} | {codec} | {packed.size / 1e6:.0f} | {1000 * min(times):.0f} |")


def main(options: Options) -> None:
    if options.data is not None:
        packing(options.data)
        return
    shape = (182, 218, 182) if options.side is None else (options.side,) * 3
    task = replace(phantom(), patch_DHW=(options.patch,) * 3, crops=options.crops)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in options.volumes:
            shards, held = from_shards(task, write(folder, count, shape), options)
            print(f"{count} volumes: {shards:.0f} crops/s from shards, a worker {held:.1f} GB", end="", flush=True)
            if count <= options.cache_up_to:
                cache, held = from_cache(task, items_of(count, shape), options)
                print(
                    f"; {cache:.0f} from MONAI's cache, {held:.1f} GB: {shards / cache:.2f} times", end="", flush=True
                )
                cache, held = from_cache(task, items_of(count, shape), options, prepared=True)
                print(f"; of brains with places {cache:.0f}, {held:.1f} GB: {shards / cache:.2f} times", end="")
            print()
        if options.predict:
            predict(task, write(folder, 1, shape)[0], options, folder)


if __name__ == "__main__":
    main(tyro.cli(Options))
