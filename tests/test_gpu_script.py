"""tests/benchmarks/gpu.py on a CPU: on the day that a GPU is at hand, its minutes are not spent on mistakes of the script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "gpu.py"
pytestmark = pytest.mark.slow
ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "mlflow", "pydicom", "albumentations", "optuna"}:
            raise ModuleNotFoundError(name, name=name.split(".")[0])
sys.meta_path.insert(0, Absent())
"""


def run(folder: Path, *flags: str, path: Path | None = None, timeout: float = 600) -> tuple[int, dict[str, Any], str]:
    out = folder / "gpu.json"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | ({"PYTHONPATH": str(path)} if path else {})
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out), *flags],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    return done.returncode, json.loads(out.read_text()) if out.exists() else {}, done.stdout + done.stderr


def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    status, found, text = run(tmp_path, "--dry")
    assert status == 0, text
    parts = {f"{step}/{name}": part for step in found if step != "machine" for name, part in found[step].items()}
    assert {name for name, part in parts.items() if "failed" in part or "left_out" in part} == set(), text
    assert {name.split("/")[0] for name in parts} == {"correctness", "waits", "table", "feed", "rates"}
    assert found["table"]["steps"]["test_resnet@32 batch 4"]["engine"]["images_per_s"] > 0
    assert found["feed"]["stream and step"]["test_resnet@32"]["share"] > 0


def test_without_ray_what_needs_it_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    status, found, text = run(tmp_path, "--dry", "--steps", "correctness", "feed", path=tmp_path)
    assert status == 0, text
    assert set(found["correctness"]) >= {"outputs", "synchronized norms", "half precision", "another GPU", "precisions"}
    assert not any("left_out" in part for part in found["correctness"].values())
    assert found["feed"]["stream and step"] == {"left_out": "ray is not installed"}
    assert found["feed"]["readers"]["left_out"] == "albumentations is not installed"  # of training, with the reading


def test_what_a_cut_run_has_measured_is_there(tmp_path: Path) -> None:
    status, found, _ = run(tmp_path, "--dry", "--minutes", "0", "--steps", "waits")
    assert status == 0
    assert found["machine"]["dry"] is True
    assert found["waits"] == {name: {"left_out": "no time"} for name in ("synchronisations", "idle share")}


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    status, found, text = run(tmp_path, "--steps", "waits")
    assert found["machine"]["failed"] == text.strip()
    assert (status, text.strip()) == (1, "no GPU that torch sees; --dry tries the script on a CPU")


def test_missing_wheels_are_installed_and_others_are_not(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("absent_one", "numpy"):
        about = f"{name}-9.9.dist-info"
        with zipfile.ZipFile(wheels / f"{name}-9.9-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    status, found, text = run(tmp_path, "--dry", "--steps", "--minutes", "1", "--wheels", str(wheels))
    assert status == 0, text
    assert found["installed"] == ["absent_one-9.9-py3-none-any.whl"]
