"""Organs of real planning CTs, 50 to learn from and 10 scored, on two CPU cores: S-Net, then the stages for small organs.

    python tests/benchmarks/headneck_real.py --data shared/data/head_neck_ct
    python tests/benchmarks/headneck_real.py --data shared/data/head_neck_ct --only-snet

Ten scans: no claim of quality. Data: OpenKBP (MIT licence), Babier et al., Medical Physics 2021.
A plain loop round the tasks' own crops, losses and sliding window, with the engine's optimizer step and without a cluster.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from headneck_loop import patient_row, trained

from medray.systems.headneck.chain import Chain, SmallOrgans
from medray.systems.headneck.recipes import small

ORGANS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Bone_Mandible")
SMALL = ("Brainstem", "Parotid_L", "Parotid_R")  # the cord reaches the edge, and has no middle
BAR, WORST = 0.73, 0.62
"""Mean Dice of S-Net over the organs, and the least of any."""


@dataclass(frozen=True)
class Options:
    data: Path
    steps: int = 1500
    """Of S-Net."""
    peaks: int = 800
    outlines: int = 400
    shapes: int = 800
    joint: int = 40
    only_snet: bool = False
    patch: tuple[int, int, int] = small().patch_DHW
    """Voxels of S-Net's crops."""
    threads: int = 2
    seed: int = 0


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    learned, scored = (
        [patient_row(folder, ORGANS) for folder in sorted((options.data / part).iterdir())]
        for part in ("train", "validation")
    )
    print(f"{len(learned)} scans to learn from, n = {len(scored)} scored: no claim of quality")
    fields = SmallOrgans(
        small=() if options.only_snet else SMALL, sigma_mm=(12.0, 15.0, 15.0), region_mm=(70.0, 64.0, 64.0), peaks_rate=1e-2,
        small_width=16, code=64, coder_width=4, joint_rate=2e-4, together=0.5,
    )  # fmt: skip
    chain = Chain("real", replace(small(), organs=ORGANS, seed=options.seed, epochs=1, patch_DHW=options.patch), fields)
    steps = {"organs": options.steps} | {
        name: getattr(options, name) for name in ("peaks", "outlines", "shapes", "joint")
    }
    passed = True
    for rung in trained(chain, learned, steps):
        found = rung.task.metrics(rung.outputs(scored))
        print(
            f"{rung.name}: trained in {rung.seconds:.0f} s; " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()),
            flush=True,
        )
        if rung.name == "snet":
            passed = found["dice"] >= BAR and min(found[f"dice_{organ}"] for organ in ORGANS) >= WORST
            print(f"bar: mean {BAR} or more and none below {WORST}: {'met' if passed else 'missed'}", flush=True)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main(tyro.cli(Options))
