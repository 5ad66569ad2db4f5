"""What the benchmarks of few labels share: the whole ladder trained by a plain loop on rows as in the shards, and its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from headneck_loop import CPU, Row, train

from medray.engine.train.device import to_device
from medray.engine.train.outputs import evaluate
from medray.report.figures import line
from medray.shards.files import Files
from medray.systems.fewlabel.chain import TAUGHT, Chain, Rung
from medray.systems.fewlabel.results import GROUP_WORDS, labelled_by
from medray.systems.fewlabel.scores import by_organ, chosen, ladder, means, of_answer, organ_table, small_ones
from medray.systems.fewlabel.source import FewLabelCT

INNER = 5
"""One scan in so many of those that are learned from also chooses between the means of co-training: a benchmark's shortcut, the
job keeps inner scans apart."""


def row_of(source: FewLabelCT, origin: str, case: str, files: Mapping[str, bytes]) -> Row:
    """A scan as in the shards.

    Args:
        files: as ``FewLabelCT.encode`` names them: ct, "labels …", "scored …".
    """
    own = {name: [data] for name, data in files.items()}
    (encoded,) = source.encode(Files(own), [{"origin": origin}])
    assert encoded.columns is not None
    name = f"{origin}/{case}"
    return encoded.columns | {"scan_id": name, "patient_id": name, "visit": "1", "origin": origin, "fold": 0}


def trained(
    chain: Chain, source: FewLabelCT, learned: Sequence[Row], scored: Sequence[Row], steps: int
) -> Iterable[tuple[Rung, pd.DataFrame, float]]:
    """Each rung with its organs' scores on ``scored``, and its seconds of training."""
    origin_of = {row["scan_id"]: row["origin"] for row in [*learned, *scored]}
    merged: list[Row] = []
    for stage, own in chain.tasks().items():
        for rung, task in own.items():
            rows = merged if stage == "taught" else learned
            torch.manual_seed(task.seed)
            network = task.network()
            seconds = train(task, network, rows, steps)
            network.eval()
            outputs = _outputs(task, network, scored)
            if rung == "cotraining":
                inner = _outputs(task, network, learned[::INNER])
                outputs = of_answer(
                    outputs, chosen(inner, source.organs, origin_of, labelled_by(source.origins)).answer
                )
            if rung == "apart" and any(one in chain.rungs for one in TAUGHT):
                merged = _merged(chain, task, network, learned)
            table = organ_table(outputs.assign(fold=0), source.organs, origin_of, labelled_by(source.origins))
            yield rung, table, seconds


def _outputs(task: Any, network: torch.nn.Module, rows: Sequence[Row]) -> pd.DataFrame:
    return evaluate(task, network, (task.collate([task.example(row)]) for row in rows), CPU)


def _merged(chain: Chain, task: Any, network: torch.nn.Module, learned: Sequence[Row]) -> list[Row]:
    """Rows with pseudo-labels of the networks of all sources."""
    pseudo, merged = chain.pseudo(), chain.merged(pd.DataFrame({"scan_id": [row["scan_id"] for row in learned]}))
    found, told = [], set(merged.columns) - set(FewLabelCT.shard_schema.names)
    for row in learned:
        with torch.inference_mode():
            out = pseudo.outputs(task, network, to_device(task.collate([task.example(row)]), CPU, task.host))
        (one,) = merged.rows(row | {name: out[name][0] for name in told})
        found.append(row | one)
    return found


def run(
    chain: Chain,
    data: Callable[[int], tuple[FewLabelCT, Sequence[Row], Sequence[Row]]],
    steps: int,
    seeds: Sequence[int],
) -> dict[Rung, pd.DataFrame]:
    """The ladder with every seed; the scores of all.

    Args:
        data: of a seed the source, rows to learn from, and rows that are scored.
    """
    tables: dict[Rung, list[pd.DataFrame]] = {}
    for seed in seeds:
        source, learned, scored = data(seed)
        seeded = replace(chain, base=replace(chain.base, seed=seed).reading(source))
        for rung, table, seconds in trained(seeded, source, learned, scored, steps):
            tables.setdefault(rung, []).append(table.assign(scan_id=[f"{seed} {name}" for name in table["scan_id"]]))
            dice = table.groupby("organ", sort=False)["dice"].mean()
            each = ", ".join(f"{organ} {value:.3f}" for organ, value in dice.items())
            print(f"seed {seed}, {rung}: trained in {seconds:.0f} s; Dice {dice.mean():.3f} ({each})", flush=True)
    return {rung: pd.concat(own, ignore_index=True) for rung, own in tables.items()}


def say(tables: Mapping[Rung, pd.DataFrame], seeds: int) -> None:
    """Means, differences and organs, 95% over scans: those of a scan by several seeds stay together."""
    first = next(iter(tables.values()))
    small = small_ones(first)
    print(f"\n{first['patient_id'].nunique()} scored scans, {seeds} seeds; 95% over scans\n\nmean Dice")
    for rung, groups in means(tables, small).items():
        said = [
            f"{GROUP_WORDS[group]} {line(groups[group]['dice'], 3)}" for group in ("all", "small") if group in groups
        ]
        print(f"{rung:<12}{'; '.join(said)}")
    print("\ndifference of mean Dice, paired")
    for step in ladder(tables, small):
        print(f"{step['rung'] + ' − ' + step['against']:<26}{line(step['groups']['all']['dice'], 3)}")
    print("\nDice by organ")
    for rung, table in tables.items():
        print(
            f"{rung:<12}" + ", ".join(f"{o} {line(f['scores']['all']['dice'], 3)}" for o, f in by_organ(table).items())
        )
