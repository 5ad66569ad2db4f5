"""Real planning CTs dealt to three sources that label parotids, brainstem and cord, or the mandible; 10 scored on all five organs.

    python tests/benchmarks/fewlabel_real.py --data shared/data/head_neck_ct                    # marginal loss: the bar
    python tests/benchmarks/fewlabel_real.py --data shared/data/head_neck_ct --rungs apart background marginal exclusion \
        conditional self cotraining --seeds 0 1 2 --threads 1

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
from fewlabel_loop import Row, row_of, run, say

from medray.systems.fewlabel import recipes
from medray.systems.fewlabel.chain import Chain, Ladder, Rung
from medray.systems.fewlabel.source import CT, LABELS, SCORED, FewLabelCT
from medray.systems.fewlabel.sources import Origin

NAMES = {
    "Brainstem": "Brainstem", "SpinalCord": "SpinalCord", "RightParotid": "Parotid_R", "LeftParotid": "Parotid_L",
    "Mandible": "Bone_Mandible",
}  # fmt: skip
ORIGINS = (
    Origin("parotids", ("Parotid_L", "Parotid_R")),
    Origin("cords", ("Brainstem", "SpinalCord")),
    Origin("jaws", ("Bone_Mandible",)),
    Origin("all", ()),
)
BAR = 0.55
"""Mean Dice of marginal loss over the organs, after five minutes of training."""


@dataclass(frozen=True)
class Options:
    data: Path
    rungs: tuple[Rung, ...] = ("marginal",)
    steps: int = 2500
    """Of each rung."""
    seeds: tuple[int, ...] = (0,)
    patch: tuple[int, int, int] = recipes.small().patch_DHW
    """Voxels of a crop."""
    rate: float = recipes.small().learning_rate
    band_mm: float = 20.0
    threads: int = 2


def scan(source: FewLabelCT, folder: Path, origin: Origin) -> Row:
    """With the masks that its source labels; of one that labels none, all of them for scores."""
    files = {CT: (folder / "ct.nii.gz").read_bytes()}
    for path in sorted((folder / "organs").glob("*.nii.gz")):
        organ = path.name.removesuffix(".nii.gz")
        organ = NAMES.get(organ, organ)
        if organ in origin.organs:
            files[f"{LABELS} {organ}"] = path.read_bytes()
        elif not origin.organs and organ in source.organs:
            files[f"{SCORED} {organ}"] = path.read_bytes()
    return row_of(source, origin.name, folder.name, files)


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    organs = tuple(organ for origin in ORIGINS for organ in origin.organs)
    source = FewLabelCT(organs=organs, origins=ORIGINS)
    folders = {part: sorted((options.data / part).iterdir()) for part in ("train", "validation")}
    learned = [scan(source, folder, ORIGINS[i % 3]) for i, folder in enumerate(folders["train"])]
    scored = [scan(source, folder, ORIGINS[-1]) for folder in folders["validation"]]
    print(f"{len(learned)} scans to learn from, n = {len(scored)} scored: no claim of quality")
    base = replace(recipes.small(), epochs=1, patch_DHW=options.patch, learning_rate=options.rate, organs=organs)
    chain = Chain("real", base, Ladder(rungs=options.rungs, band_mm=options.band_mm))
    tables = run(chain, lambda _: (source, learned, scored), options.steps, options.seeds)
    say(tables, len(options.seeds))
    if "marginal" in tables:
        found = tables["marginal"].groupby("organ")["dice"].mean().mean()
        print(f"\nbar: marginal loss {BAR} or more: {'met' if found >= BAR else 'missed'}")
        sys.exit(0 if found >= BAR else 1)


if __name__ == "__main__":
    main(tyro.cli(Options))
