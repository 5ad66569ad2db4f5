"""Everything that only a GPU can show, in one command of eight minutes at most, without a network.

    python tests/benchmarks/gpu.py --out gpu.json
    python tests/benchmarks/gpu.py --out gpu.json --wheels FOLDER     # installs from there what is missing, beside the rest
    python tests/benchmarks/gpu.py --out gpu.json --dry               # the same on a CPU, tiny: does the script work?

In the order of its worth: correctness, what waits, images per second, the stream of batches, inference. --out is written
after every step: a cut run keeps what it had. Steps that want Ray are left out, and say so, where there is none. Exit status
1 where a step failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path
from typing import Any

import packaging.tags
import packaging.utils

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("correctness", "waits", "table", "feed", "rates")


class NoGpuError(Exception): ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=list(STEPS))
    flags = parser.parse_args()
    until = time.monotonic() + 60 * flags.minutes
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    found: dict[str, Any] = {}
    if flags.wheels is not None:
        found["installed"] = install(flags.wheels)
    try:
        found["machine"] = machine(flags.dry)
    except NoGpuError as error:
        write(flags.out, found | {"machine": {"failed": str(error)}})
        sys.exit(str(error))
    write(flags.out, found)
    failed = False
    for step in flags.steps:
        print(f"{step}", flush=True)

        def keep(name: str, value: Any, step: str = step) -> None:
            print(f"  {name}: {json.dumps(value)[:160]}", flush=True)
            found.setdefault(step, {})[name] = value
            write(flags.out, found)

        try:
            module = importlib.import_module(f"on_gpu.{step}")
        except ModuleNotFoundError as error:
            keep("all", {"left_out": f"{error.name or error} is not installed"})
            continue
        for name, part in module.PARTS.items():
            if time.monotonic() + (0 if flags.dry else module.SECONDS.get(name, 0)) > until:
                keep(name, {"left_out": "no time"})
                continue
            started = time.monotonic()
            try:
                keep(name, part(flags.dry, until) | {"took_s": round(time.monotonic() - started, 1)})
            except ModuleNotFoundError as error:
                keep(name, {"left_out": f"{error.name or error} is not installed"})
            except Exception:  # the steps after it are worth their own figures
                failed = True
                keep(name, {"failed": traceback.format_exc()})
    sys.exit(failed)


def install(wheels: Path) -> list[str]:
    """The wheels of a folder whose package this Python lacks, into a folder of their own; no index is asked."""
    fits = {str(tag) for tag in packaging.tags.sys_tags()}
    have = {re.sub(r"[-_.]+", "-", d.name).lower() for d in importlib.metadata.distributions()}
    usable = [w for w in sorted(wheels.glob("*.whl")) if fits & {str(tag) for tag in _parsed(w)[3]}]
    missing = [wheel for wheel in usable if _parsed(wheel)[0] not in have]
    if missing:
        target = tempfile.mkdtemp(prefix="wheels-")
        for wheel in missing:  # not by pip, which not every environment has
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.infolist():
                    place = archive.extract(entry, target)
                    if not entry.is_dir() and entry.external_attr >> 16:
                        os.chmod(place, entry.external_attr >> 16 & 0o777)  # Ray's are programs
        sys.path.append(target)
        os.environ["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), target])
    return [w.name for w in missing]


def _parsed(wheel: Path) -> Any:
    """Name, version, build and tags."""
    return packaging.utils.parse_wheel_filename(wheel.name)


def machine(dry: bool) -> dict[str, Any]:
    import timm
    import torch

    if dry:
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        raise NoGpuError("no GPU that torch sees; --dry tries the script on a CPU")
    about = {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__}
    about |= {"cores": os.cpu_count(), "dry": dry}
    if not dry:
        properties = torch.cuda.get_device_properties(0)
        about |= {"gpu": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
        about |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return about


def write(path: Path, found: dict[str, Any]) -> None:
    """Whole or not at all."""
    aside = path.with_name(path.name + ".part")
    aside.write_text(json.dumps(found, indent=1))
    os.replace(aside, path)


if __name__ == "__main__":
    main()
