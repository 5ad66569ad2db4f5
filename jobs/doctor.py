"""Look before money is spent: Ray and its token, GPUs, NCCL or Gloo, storage, MLflow, weights, disks and clocks.

    uv run jobs/doctor.py                        # this machine
    uv run jobs/doctor.py --out s3://bucket/rsna --tracking-uri http://127.0.0.1:5000
    ray job submit --working-dir . -- python jobs/doctor.py --out s3://… --tracking-uri http://127.0.0.1:5000 --gpu

One line each, with a way out where something is wrong. Exit status 1 where a run would fail.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from medray.engine.doctor.examine import examine
from medray.engine.job.options import run_job
from medray.engine.job.progress import say
from medray.shards.address import check_address


@dataclass(frozen=True, kw_only=True)
class Doctor:
    out: str = "out/doctor"
    """The --out of the runs to come: tested from the driver and from every node."""
    tracking_uri: str | None = None
    """MLflow server; where not given, runs keep a database in --out."""
    backbones: tuple[str, ...] = ("resnext101_32x8d", "inception_v3", "efficientnet_b3", "seresnext50_32x4d")
    """timm backbones whose weights will be wanted."""
    weights: str | None = None
    """File by path or URI in place of timm's hub; {backbone} in it becomes the name."""
    pretrained: bool = True
    """The runs start from pretrained weights."""
    min_disk_gb: float = 10.0
    """Free space that every node should have where Ray spills objects."""
    gpu: bool = False
    """The runs will train on GPUs: start a GPU node where there is none (it costs money), and look at it."""

    def __post_init__(self) -> None:
        for flag, address in (("--out", self.out), ("--tracking-uri", self.tracking_uri), ("--weights", self.weights)):
            check_address(flag, address or "")


def main(job: Doctor) -> None:
    counts = {"ok": 0, "warn": 0, "FAIL": 0}
    for check in examine(
        job.out, job.tracking_uri, job.backbones, job.weights, job.pretrained, job.min_disk_gb * 1e9, job.gpu
    ):
        say(str(check))
        counts[check.status] += 1
    say(f"\n{counts['ok']} ok, {counts['warn']} to think about, {counts['FAIL']} that a run would fail on")
    if counts["FAIL"]:
        sys.exit(1)


def start() -> None:
    run_job(Doctor, main)


if __name__ == "__main__":
    start()
