"""What cross-validating the challenge's 752,803 slices comes to on 1, 4 and 16 nodes, and where the first limit lies.

    python tests/benchmarks/plan_scale.py --images-per-s 200

The constants were measured on two CPU cores (RESULTS.md). What a GPU trains was not: --images-per-s says it, of one GPU, as
the first epoch of a run prints it divided by the GPUs of its node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tyro

SLICES, FOLDS = 752_803, 5
EPOCHS = {"resnext101_32x8d": 6, "inception_v3": 5, "efficientnet_b3": 6, "seresnext50_32x4d": 3}  # ich/recipes.py


@dataclass
class Flags:
    images_per_s: float = 200.0
    """Trained by one GPU, mean over the four backbones. Not measured: name your own."""
    gpus: int = 4
    """Of a node."""
    cores: int = 16
    """Physical ones of a node: a p3.8xlarge has 16."""
    network_mb_per_s: float = 1250.0
    """Of a node: a p3.8xlarge has 10 Gbit/s."""
    ingest_per_core: float = 210.0
    """Slices per second, read and augmented for 224 pixels: RESULTS.md, "Ingest"."""
    shard_per_core: float = 174.0
    """Slices per second, DICOM to windows to Parquet: RESULTS.md, "Sharding by Ray"."""
    stored_kb: float = 139.0
    """Of a slice with three windows in the shards: RESULTS.md, "Encodings"."""
    dicom_kb: float = 500.0
    """Of a slice as it comes."""
    nodes: tuple[int, ...] = (1, 4, 16)


def main(flags: Flags) -> None:
    runs = len(EPOCHS) * FOLDS
    images = {name: SLICES * (FOLDS - 1) / FOLDS * epochs for name, epochs in EPOCHS.items()}
    of_node = flags.images_per_s * flags.gpus
    print(
        "| nodes | sharding | training | GPU-hours paid | of them busy | shards read, MB/s a node |\n|---|---|---|---|---|---|"
    )
    for nodes in flags.nodes:
        by_cores = SLICES / (flags.shard_per_core * flags.cores * nodes)
        by_network = SLICES * (flags.dicom_kb + flags.stored_kb) / 1000 / (flags.network_mb_per_s * nodes)
        ends = [0.0] * nodes  # a run has a node to itself; the longest first, each to the node that is free first
        for seconds in sorted((images[name] / of_node for name in EPOCHS for _ in range(FOLDS)), reverse=True):
            ends[ends.index(min(ends))] += seconds
        busy = sum(images.values()) * FOLDS / of_node
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
    waves = math.ceil(runs / max(flags.nodes))
    print(
        f"On {max(flags.nodes)} nodes {runs} runs take {waves} turns: nodes without a run go after minutes, and the last turn decides the time."
    )


if __name__ == "__main__":
    main(tyro.cli(Flags))
