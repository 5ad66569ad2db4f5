"""The engine's page on scale: the figures that tests/benchmarks/plan_scale.py prints, and whether they are measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "benchmarks" / "plan_scale.py"


def printed(*flags: object) -> str:
    done = subprocess.run([sys.executable, str(SCRIPT), *map(str, flags)], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_readmes_figures_are_those_that_it_prints() -> None:
    readme = " ".join((ROOT / "medray" / "engine" / "README.md").read_text().split())
    lines = printed().splitlines()
    for line in [lines[0].split(":")[0], *(line for line in lines if line.startswith("|") or "at 480 px" in line)]:
        assert " ".join(line.rstrip(".").split()) in readme
    if not list((SCRIPT.parent / "measured").glob("*.json")):
        assert "assumed, no GPU has been measured" in lines[0]
        assert "assumed, no GPU has been measured" in readme


def test_a_measured_table_takes_the_place_of_what_is_assumed(tmp_path: Path) -> None:
    rates = {"resnext101_32x8d@224": 800.0, "seresnext50_32x4d@224": 2000.0, "resnext101_32x8d@480": 190.0}
    steps = {f"{name} batch 16": {"engine": {"images_per_s": rate}} for name, rate in rates.items()}
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({"machine": {"gpu": "A GPU"}, "table": {"steps": steps}}))
    text = printed("--measured", file)
    assert text.startswith("measured on one A GPU, images/s in batches of 16: resnext101_32x8d 800")
    assert "760 images/s on 4 GPUs, 3 h" in text
    assert "assumed" not in text
