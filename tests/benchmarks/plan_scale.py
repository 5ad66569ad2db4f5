"""What cross-validating the challenge's 752,803 slices comes to on 1, 4 and 16 nodes, and where the first limit lies.

    python tests/benchmarks/plan_scale.py
    python tests/benchmarks/plan_scale.py --images-per-s 90       # of one GPU, as the first epoch of a run prints it

What a GPU trains comes from the newest table of gpu.py in tests/benchmarks/measured/; where there is none, it is assumed, and
the output says so. The other constants were measured on two CPU cores (RESULTS.md).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

SLICES, FOLDS = 752_803, 5
EPOCHS = {"resnext101_32x8d": 6, "inception_v3": 5, "efficientnet_b3": 6, "seresnext50_32x4d": 3}  # ich/recipes.py
SIZES_PX = {"resnext101_32x8d": 224, "inception_v3": 299, "efficientnet_b3": 300, "seresnext50_32x4d": 224}
ASSUMED_PER_S = 200.0
"""Trained by one GPU, mean over the four backbones."""
LARGE = "resnext101_32x8d@480"
LARGE_IMAGES = 3 * 5 * 602_000
"""Of one backbone as the challenge's second place trains it: folds, epochs, slices that a fold learns from."""
ASSUMED_LARGE_PER_S = 54.0
"""By one V100, in fp16: four make about 215. From its peak rate and the network's operations; not measured."""
MEASURED = Path(__file__).parent / "measured"


@dataclass
class Flags:
    images_per_s: float | None = None
    """Trained by one GPU, of every backbone."""
    measured: Path | None = None
    """What gpu.py has left; the newest file in tests/benchmarks/measured where not given."""
    batch: int = 16
    """Of one GPU, in the measured table: 64 over four GPUs."""
    gpus: int = 4
    """Of a node."""
    cores: int = 24
    """Physical ones of a node: a g5.12xlarge has 24."""
    network_mb_per_s: float = 5000.0
    """Of a node: a g5.12xlarge has 40 Gbit/s."""
    ingest_per_core: float = 210.0
    """Slices per second, read and augmented for 224 pixels: RESULTS.md, "Ingest"."""
    shard_per_core: float = 174.0
    """Slices per second, DICOM to windows to Parquet: RESULTS.md, "Sharding by Ray"."""
    stored_kb: float = 139.0
    """Of a slice with three windows in the shards: RESULTS.md, "Encodings"."""
    dicom_kb: float = 500.0
    """Of a slice as it comes."""
    nodes: tuple[int, ...] = (1, 4, 16)


def rates(flags: Flags) -> tuple[dict[str, float], str]:
    """Images per second of one GPU by backbone (and LARGE), and where they come from."""
    if flags.images_per_s is not None:
        return dict.fromkeys((*EPOCHS, LARGE), flags.images_per_s), f"{flags.images_per_s:g} images/s a GPU, as given"
    files = [flags.measured] if flags.measured else sorted(MEASURED.glob("*.json"), key=lambda path: path.name)
    if not files:
        assumed = dict.fromkeys(EPOCHS, ASSUMED_PER_S) | {LARGE: ASSUMED_LARGE_PER_S}
        return assumed, f"{ASSUMED_PER_S:g} images/s a GPU: assumed, no GPU has been measured"
    about: dict[str, Any] = json.loads(files[-1].read_text())
    table = about["table"]["steps"]
    found = {}
    for name in (*(f"{name}@{SIZES_PX[name]}" for name in EPOCHS), LARGE):
        row = table.get(f"{name} batch {flags.batch}", {}).get("engine", {})
        if "images_per_s" in row:
            found[name if name == LARGE else name.split("@")[0]] = float(row["images_per_s"])
    known = [rate for name, rate in found.items() if name != LARGE]
    if not known:
        raise ValueError(f"--measured {files[-1]}: has no rate of the four backbones in batches of {flags.batch}")
    mean = len(known) / sum(1 / rate for rate in known)
    by_backbone = {name: found.get(name, mean) for name in EPOCHS}
    if LARGE in found:
        by_backbone[LARGE] = found[LARGE]
    words = ", ".join(f"{name} {rate:,.0f}" for name, rate in found.items())
    return by_backbone, f"measured on one {about['machine']['gpu']}, images/s in batches of {flags.batch}: {words}"


def main(flags: Flags) -> None:
    runs = len(EPOCHS) * FOLDS
    images = {name: SLICES * (FOLDS - 1) / FOLDS * epochs for name, epochs in EPOCHS.items()}
    of_gpu, source = rates(flags)
    took = {name: images[name] / (of_gpu[name] * flags.gpus) for name in EPOCHS}  # seconds of a run
    of_node = sum(images.values()) / sum(took.values())
    print(f"{source}\n")
    print(
        "| nodes | sharding | training | GPU-hours paid | of them busy | shards read, MB/s a node |\n|---|---|---|---|---|---|"
    )
    for nodes in flags.nodes:
        by_cores = SLICES / (flags.shard_per_core * flags.cores * nodes)
        by_network = SLICES * (flags.dicom_kb + flags.stored_kb) / 1000 / (flags.network_mb_per_s * nodes)
        ends = [0.0] * nodes  # a run has a node to itself; the longest first, each to the node that is free first
        for seconds in sorted((took[name] for name in EPOCHS for _ in range(FOLDS)), reverse=True):
            ends[ends.index(min(ends))] += seconds
        busy = sum(took.values()) * FOLDS
        paid = max(ends) * nodes
        print(
            f"| {nodes} | {max(by_cores, by_network) / 60:.1f} min ({'network' if by_network > by_cores else 'cores'}) | "
            f"{max(ends) / 3600:.1f} h | {busy * flags.gpus / 3600:.0f} ({paid * flags.gpus / 3600:.0f} if idle nodes stay) | "
            f"{busy / paid:.0%} | {of_node * flags.stored_kb / 1000:.0f} |"
        )
    fed = flags.ingest_per_core * (flags.cores - flags.gpus)
    print(
        f"\n{runs} runs of {FOLDS} folds, {sum(images.values()) * FOLDS / 1e6:.0f} million images trained, shards {SLICES * flags.stored_kb / 1e6:.0f} GB."
    )
    print(f"A node's cores feed {fed:,.0f} images/s: GPUs wait for them above {fed / flags.gpus:,.0f} images/s each.")
    print(
        f"Its network feeds {flags.network_mb_per_s / flags.stored_kb * 1000:,.0f} images/s: above {flags.network_mb_per_s / flags.stored_kb * 1000 / flags.gpus:,.0f} each."
    )
    if LARGE in of_gpu:
        hours = LARGE_IMAGES / (of_gpu[LARGE] * flags.gpus) / 3600
        print(
            f"One backbone at 480 px, 3 folds × 5 epochs × 602,000 slices = {LARGE_IMAGES / 1e6:.2f} million images: "
            f"{of_gpu[LARGE] * flags.gpus:,.0f} images/s on {flags.gpus} GPUs, {hours:.0f} h."
        )
    waves = math.ceil(runs / max(flags.nodes))
    print(
        f"On {max(flags.nodes)} nodes {runs} runs take {waves} turns: nodes without a run go after minutes, and the last turn decides the time."
    )


if __name__ == "__main__":
    main(tyro.cli(Flags))
