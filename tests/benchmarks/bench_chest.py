"""Chest X-ray at full size: a film on one CPU, the inventory of 112,120 films, scores of the official test list's 25,596.

    python tests/benchmarks/bench_chest.py film assemble score      # reads ../shared/data/chest_xray

The network is DenseNet-121 at 224 pixels with random weights, which are as fast as others. Scores are of made-up
probabilities at the data set's rates.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medray.imaging.radiograph import read_film
from medray.shards.files import Files
from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.explain import explain, overlay
from medray.systems.chest.inventory import assemble
from medray.systems.chest.labels import read_labels
from medray.systems.chest.recipes import recipe
from medray.systems.chest.scores import score
from medray.systems.chest.source import Radiograph

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "chest_xray"
FILMS, PATIENTS = 25_596, 2_797  # of the official test list
RATES = (.13, .04, .18, .24, .07, .06, .02, .10, .07, .04, .04, .02, .04, .003)  # fmt: skip


def film() -> None:
    """As jobs/chest_explain.py asks: file → grey, shrunk → two views, three heatmaps → three overlays."""
    torch.set_num_threads(1)
    task = replace(recipe("chexnet"), pretrained=False)
    network: Any = task.network().eval()
    seconds = []
    for path in sorted((DATA / "nih_1024px").glob("*.png"))[:8]:
        start = time.perf_counter()
        data = path.read_bytes()
        (encoded,) = Radiograph().encode(Files.of(data), [{}])
        assert encoded.columns is not None
        grey = read_film(data).grey
        row = {"image_id": "i", "patient_id": "p", "view": "PA", **dict.fromkeys(FINDINGS)} | encoded.columns
        for heat in explain(task, [network], grey, row).heat.values():
            overlay(grey, heat)
        seconds.append(time.perf_counter() - start)
    print(
        f"a film, one thread: first {seconds[0]:.2f} s, then {np.median(seconds[1:]):.2f} s (median of {len(seconds) - 1})"
    )


def inventory() -> None:
    start = time.perf_counter()
    labels = read_labels(str(DATA))
    read = time.perf_counter() - start
    empty = dict.fromkeys(Radiograph.scan_schema.names)
    paths = [f"nih/images/{name}.png" for name in labels.table.index]
    scan = pd.DataFrame({"path": paths, "size_bytes": 400_000, "status": "ok", "reason": None, **empty, "kind": "png"})
    start = time.perf_counter()
    found = assemble(scan, labels)
    print(f"{len(found.rows):,} films: labels read in {read:.1f} s, assembled in {time.perf_counter() - start:.1f} s")


def scores() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"patient_id": rng.integers(0, PATIENTS, FILMS), "view": rng.choice(["AP", "PA"], FILMS)})
    for name, rate in zip(FINDINGS, RATES, strict=True):
        label = (rng.uniform(size=FILMS) < rate).astype(float)
        table[name], table[f"threshold_{name}"] = label, 0.25
        table[f"p_{name}"] = np.clip(rng.normal(0.2 + 0.1 * label, 0.1), 0.001, 0.999)
    start = time.perf_counter()
    score(table, FINDINGS)
    print(
        f"scores of {FILMS:,} films, 14 findings, 1,000 bootstrap samples, also by view: {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    for what in sys.argv[1:]:
        {"film": film, "assemble": inventory, "score": scores}[what]()
