"""Drawn bodies that no network has seen: the whole ladder on sources that label a few organs each, and what an answer costs.

    python tests/benchmarks/bench_fewlabel.py                    # three sources of two organs, three seeds
    python tests/benchmarks/bench_fewlabel.py --eight            # eight sources of one organ: the paper's second experiment
    python tests/benchmarks/bench_fewlabel.py --cost             # time and memory of an answer against the number of organs

The task's own crops, losses and windows, without a cluster. Phantom scores say that the machinery learns, nothing about patients.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from fewlabel_loop import Row, row_of, run, say

from medray.systems.fewlabel import recipes
from medray.systems.fewlabel.chain import RUNGS, Chain, Ladder, Rung
from medray.systems.fewlabel.phantom_body import ORGANS
from medray.systems.fewlabel.phantoms import EIGHT, PhantomSources, PhantomSpec, name_of
from medray.systems.fewlabel.source import CT, LABELS, SCORED, FewLabelCT
from medray.systems.fewlabel.sources import Origin

COSTS: tuple[Rung, ...] = ("apart", "conditional", "marginal", "cotraining")
NUMBERS = (2, 4, 8)
"""Of organs, each of its own source, with --cost."""
ROUNDS = 3


@dataclass(frozen=True)
class Options:
    eight: bool = False
    cost: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)
    cases: int = 8
    """Of a source, to learn from."""
    held_out: int = 4
    """Of a source."""
    rungs: tuple[Rung, ...] = RUNGS
    steps: int = 400
    """Of each rung."""
    log: bool = recipes.phantom().dice_log
    """The logarithm of Dice, as the recipe has it; --no-log is Dice itself."""
    threads: int = 2


def scans(options: Options, seed: int) -> tuple[FewLabelCT, list[Row], list[Row]]:
    """The source, rows to learn from, and rows that are scored; each source has its own scanner."""
    sources = EIGHT if options.eight else PhantomSpec().sources
    made = PhantomSources(PhantomSpec(options.cases + options.held_out, seed, sources))
    source = FewLabelCT(organs=tuple(organ for own in sources for organ in own), origins=made.origins())
    learned, held_out = list[Row](), list[Row]()
    with tempfile.TemporaryDirectory() as folder:
        for piece in made.pieces(Path(folder)):
            made.write(Path(folder), piece)
        for number in range(len(sources)):
            home = Path(folder) / name_of(number)
            for case in range(1, options.cases + options.held_out + 1):
                name = f"b{case:02d}.nii.gz"
                files = {CT: (home / "images" / name).read_bytes(), f"{SCORED} ": (home / "all" / name).read_bytes()}
                learns = case <= options.cases
                if learns:
                    files[f"{LABELS} "] = (home / "masks" / name).read_bytes()
                (learned if learns else held_out).append(row_of(source, name_of(number), f"{seed} {case}", files))
    return source, learned, held_out


def cost(threads: int) -> None:
    """Seconds of an answer for a scan, and the weights that it needs, by networks that were not trained."""
    torch.set_num_threads(threads)
    voxels = torch.zeros(1, 1, 48, 80, 96)
    print(f"{'organs':<8}{'network':<14}{'seconds a scan':<16}weights to keep, MB")
    for organs in NUMBERS:
        names = tuple(ORGANS)[:organs]
        source = FewLabelCT(organs=names, origins=tuple(Origin(name, (name,)) for name in names))
        stages = Chain("cost", recipes.small().reading(source), Ladder(rungs=COSTS)).tasks()
        for rung, task in {rung: task for own in stages.values() for rung, task in own.items()}.items():
            network, seconds = task.network().eval(), list[float]()
            for _ in range(ROUNDS):
                start = time.perf_counter()
                with torch.inference_mode():
                    task.answered(network, voxels, {})
                seconds.append(time.perf_counter() - start)
            kept = network.means["first"] if rung == "cotraining" else network  # type: ignore[index]
            megabytes = sum(value.nbytes for value in kept.state_dict().values()) / 1e6
            print(f"{organs:<8}{rung:<14}{min(seconds):<16.2f}{megabytes:.2f}", flush=True)


def main(options: Options) -> None:
    if options.cost:
        cost(options.threads)
        return
    torch.set_num_threads(options.threads)
    chain = Chain("drawn", replace(recipes.phantom(), epochs=1, dice_log=options.log), Ladder(rungs=options.rungs))
    say(run(chain, lambda seed: scans(options, seed), options.steps, options.seeds), len(options.seeds))


if __name__ == "__main__":
    main(tyro.cli(Options))
