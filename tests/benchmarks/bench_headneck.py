"""Drawn heads that no network has seen: do few down-samplings, networks of their own and shapes help small organs?

    python tests/benchmarks/bench_headneck.py               # three seeds: about half an hour on two cores
    python tests/benchmarks/bench_headneck.py --seeds 0 --rungs unet
    python tests/benchmarks/bench_headneck.py --hidden      # organs that half of the heads to learn from do not show

The task's own crops, losses and windows, without a cluster. Phantom scores say that the machinery learns, nothing about patients.
Settings were chosen on other drawings (seeds 100 to 102).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from headneck_loop import Row, patient_row, trained

from medray.report.figures import line
from medray.systems.headneck.chain import PHANTOM, RUNGS, Chain, Rung
from medray.systems.headneck.phantom_head import ORGANS, SMALL
from medray.systems.headneck.phantoms import PLANS, PhantomHeads, PhantomSpec
from medray.systems.headneck.recipes import phantom
from medray.systems.headneck.scores.ladder import by_organ, ladder, means, organ_table, peaks

HIDDEN = ("Parotid_L", "Lens_L", "Brainstem", "OpticChiasm")
"""With --hidden: what half of the heads do not show, each its own half."""
HIDES = 0.05
"""They may lose less than this of Dice."""


@dataclass(frozen=True)
class Options:
    seeds: tuple[int, ...] = (0, 1, 2)
    heads: int = 24
    """To learn from."""
    held_out: int = 12
    rungs: tuple[Rung, ...] = ("unet", "weighted", "four", "no-ct", "large")
    hidden: bool = False
    """Only this: S-Net with all organs drawn everywhere against S-Net where half of the heads lack some."""
    organs: int = 600
    """Steps of S-Net and of what it is compared with; below, of each stage after it."""
    peaks: int = 280
    outlines: int = 500
    shapes: int = 600
    joint: int = 40
    threads: int = 2

    def steps(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("organs", "peaks", "outlines", "shapes", "joint")}


def heads(seed: int, first: int, count: int, without: Sequence[Sequence[str]] = ()) -> list[Row]:
    """Rows as in the shards.

    Args:
        first: number of the first. without: of each head organs that are not drawn in it.
    """
    made = PhantomHeads(PhantomSpec(patients=count, seed=seed, hidden=0.0))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            made.write(Path(folder), first + i)
            lacking = without[i] if without else ()
            shown = [organ for organ in ORGANS if organ not in lacking]
            row = patient_row(Path(folder) / PLANS / f"p{first + i:02d}", tuple(ORGANS), shown)
            name = f"{seed} {row['scan_id']}"
            rows.append(row | {"scan_id": name, "patient_id": name, "fold": 0})
    return rows


def scored(chain: Chain, learned: Sequence[Row], held_out: Sequence[Row], options: Options) -> dict[str, pd.DataFrame]:
    """Rung → its organs' scores on the held-out heads."""
    found, ask = {}, chain.scored()
    for rung in trained(chain, learned, options.steps()):
        if rung.name not in ask:
            print(f"  {rung.name}: {rung.seconds:.0f} s", flush=True)
            continue
        found[rung.name] = organ_table(rung.outputs(held_out).assign(fold=0), tuple(ORGANS))
        dice = found[rung.name].groupby("organ")["dice"].mean()
        print(
            f"  {rung.name}: {rung.seconds:.0f} s, Dice {dice.mean():.3f}, of small organs {dice[list(SMALL)].mean():.3f}",
            flush=True,
        )
    return found


def whole_ladder(options: Options) -> None:
    tables: dict[str, list[pd.DataFrame]] = {}
    for seed in options.seeds:
        print(f"seed {seed}", flush=True)
        learned, held_out = heads(seed, 1, options.heads), heads(seed, options.heads + 1, options.held_out)
        base = replace(phantom(), organs=tuple(ORGANS), seed=seed, epochs=1)
        chain = Chain("drawn", base, replace(PHANTOM, rungs=options.rungs, small=SMALL))
        for rung, table in scored(chain, learned, held_out, options).items():
            tables.setdefault(rung, []).append(table)
    joined = {rung: pd.concat(tables[rung], ignore_index=True) for rung in RUNGS if rung in tables}
    print(f"\n{len(options.seeds) * options.held_out} held-out drawn heads, {len(options.seeds)} seeds; 95% over heads")
    print("\nmean Dice, all organs and small ones")
    for rung, groups in means(joined, SMALL).items():
        print(f"{rung:<10}{line(groups['all']['dice'], 3):<28}{line(groups['small']['dice'], 3)}")
    print("\ndifference of mean Dice, paired: all, small, large organs")
    for pair in ladder(joined, SMALL):
        print(
            f"{pair['rung'] + ' − ' + pair['against']:<22}"
            + "".join(f"{line(pair['groups'][group]['dice'], 3):<30}" for group in ("all", "small", "large"))
        )
    print("\nDice by organ")
    for organ, own in by_organ(joined["outlines"]).items():
        before = by_organ(joined["snet"])[organ]
        print(f"{organ:<16}S-Net {line(before['dice'], 3):<28}outlines {line(own['dice'], 3)}")
    for organ, own in peaks(joined["outlines"], PHANTOM.gate).items():
        print(f"peaks of {organ}: {own['confident']} of {own['scans']} confident, {own['median_mm']:.1f} mm (median)")


def hidden(options: Options) -> None:
    losses = []
    for seed in options.seeds:
        print(f"seed {seed}", flush=True)
        held_out = heads(seed, options.heads + 1, options.held_out)
        half = [
            [organ for k, organ in enumerate(HIDDEN) if (i // 2**k) % 2] for i in range(options.heads)
        ]  # of any two organs, a quarter of the heads lack both
        base = replace(phantom(), organs=tuple(ORGANS), seed=seed, epochs=1)
        chain, tables = Chain("drawn", base, replace(PHANTOM, small=())), {}
        for name, without in (("all drawn", ()), ("half of the heads lack some", half)):
            print(f" {name}", flush=True)
            tables[name] = found = scored(chain, heads(seed, 1, options.heads, without), held_out, options)["snet"]
            print(f"  {found.groupby('organ')['dice'].mean()[list(HIDDEN)].round(3).to_dict()}", flush=True)
        full, lacking = tables.values()
        both = lacking.merge(full[["scan_id", "organ", "dice"]], on=["scan_id", "organ"], suffixes=("", "_of_other"))
        losses.append(both)
    both = pd.concat(losses, ignore_index=True)
    for name in ("dice", "dice_of_other"):
        print(f"{name}: {both.groupby('organ')[name].mean()[list(HIDDEN)].round(3).to_dict()}")
    own = both[both["organ"].isin(HIDDEN)].assign(dice=lambda t: t["dice"] - t["dice_of_other"])
    print(f"\n{len(both['scan_id'].unique())} held-out drawn heads; Dice lost where half of the heads lack the organ:")
    for organ, found in by_organ(own).items():
        print(f"{organ:<16}{line(found['dice'], 3)}")
    worst = -min(found["dice"]["value"] for found in by_organ(own).values())
    print(f"most lost: {worst:.3f}; {'within' if worst < HIDES else 'beyond'} {HIDES}")


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    (hidden if options.hidden else whole_ladder)(options)


if __name__ == "__main__":
    main(tyro.cli(Options))
