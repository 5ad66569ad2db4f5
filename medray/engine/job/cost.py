"""What training costs: hours on GPUs, from the epochs' own clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medray.engine.nodes.cluster import Resources
from medray.engine.train.run import Run


def gpu_hours(runs: Sequence[Run]) -> float:
    """Of finished epochs, all workers together; what a kill threw away and the start-up are not in it."""
    seconds = sum(
        entry["system"]["epoch_seconds"] * entry.get("workers", [max(1, run.resources.workers)])[-1]
        for run in runs
        for entry in run.history()
    )
    return float(seconds) / 3600


def spent(stages: Mapping[str, Sequence[Run]], price_per_gpu_hour: float | None) -> str:
    """One line: hours by stage, and money where there is a price. On CPUs hours are those of the workers."""
    runs = [run for of_stage in stages.values() for run in of_stage]
    kind = "GPU-hours" if any(run.resources.gpu for run in runs) else "worker-hours on CPUs"
    hours = {name: gpu_hours(of_stage) for name, of_stage in stages.items() if of_stage}
    text = f"training took {_number(sum(hours.values()))} {kind}"
    if len(hours) > 1:
        text += f" ({', '.join(f'{name} {_number(value)}' for name, value in hours.items())})"
    if price_per_gpu_hour is not None and "GPU" in kind:
        text += f", {_number(sum(hours.values()) * price_per_gpu_hour)} at {price_per_gpu_hour:g} an hour"
    return text


def planned(images: int, images_per_s: float, resources: Resources, price_per_gpu_hour: float | None) -> str:
    """One line for what is still to be trained, at a rate that was measured.

    Args:
        images: of all epochs that are left, over all runs.
        images_per_s: of one run, all its workers together.
    """
    hours = images / images_per_s / 3600
    at_once = max(1, resources.side_by_side)
    text = f"at {images_per_s:,.0f} images/s a run, as measured here: {_number(hours / at_once)} h"
    if resources.gpu:
        of_gpus = hours * max(1, resources.workers)
        text += f", {_number(of_gpus)} GPU-hours"
        if price_per_gpu_hour is not None:
            text += f", {_number(of_gpus * price_per_gpu_hour)} at {price_per_gpu_hour:g} an hour"
    return text


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
