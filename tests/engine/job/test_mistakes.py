"""Whose mistake an error is, here and on the cluster, and what is shown of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
import torch

from medray.engine.job.mistakes import is_ours, write_traceback
from medray.engine.nodes.cluster import what_happened
from medray.engine.train.stop import StopRun
from medray.imaging.types import Unreadable
from medray.shards.store import Store


def refused_in_several_lines() -> None:
    raise ValueError(
        "--folds 1: too few, "
        "one is held out"
    )  # fmt: skip


def refused_after_another_error() -> None:
    try:
        int("x")
    except ValueError:
        raise StopRun("run m: its file is no number") from None


def unreadable() -> None:
    raise Unreadable("modality is MR, not CT")


def no_such_file() -> None:
    Path("/nowhere/at/all").read_bytes()


@dataclass(frozen=True)
class Flags:
    folds: int = 1

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError("--folds 1: too few")


USERS: list[Callable[[], object]] = [
    refused_in_several_lines, refused_after_another_error, unreadable, Flags, no_such_file,
    lambda: Store("ftp://x/y"),
]  # fmt: skip


def bug_after_a_refusal() -> None:
    try:
        refused_in_several_lines()
    except ValueError:
        {}["patient-7"]


OURS: list[Callable[[], object]] = [
    lambda: np.zeros(3) + np.zeros(4),
    lambda: np.stack([np.zeros(3), np.zeros(4)]),
    lambda: int("patient-7"),
    lambda: list(zip([1], [], strict=True)),
    lambda: pd.DataFrame({"a": [1]}).merge(pd.DataFrame({"b": [1]}), on="a"),
    lambda: pd.Series(["x"]).astype(float),
    lambda: torch.zeros(3) + torch.zeros(4),
    lambda: {}["patient-7"],
    lambda: None + 1,  # type: ignore[operator]
    bug_after_a_refusal,
]  # fmt: skip


def error_of(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any type
        call()
    return caught.value


@pytest.mark.parametrize("call", USERS)
def test_what_this_code_refuses_is_the_users(call: Callable[[], object]) -> None:
    assert not is_ours(error_of(call))


@pytest.mark.parametrize("call", OURS)
def test_what_nobody_foresaw_is_ours(call: Callable[[], object]) -> None:
    assert is_ours(error_of(call))


@pytest.fixture(scope="module")
def in_a_task(local_ray: None) -> Callable[[Callable[[], object]], Exception]:
    @ray.remote
    def run(call: Callable[[], object]) -> None:
        call()

    def reported(call: Callable[[], object]) -> Exception:
        """As ``fit`` and ``shard`` report the end of a task."""
        error = error_of(lambda: ray.get(run.remote(call)))

        def report() -> None:
            raise StopRun(f"run m: {what_happened(error)}") from error

        return error_of(report)

    return reported


def test_an_error_on_the_cluster_counts_as_what_it_was_there(
    in_a_task: Callable[[Callable[[], object]], Exception],
) -> None:
    assert [is_ours(in_a_task(call)) for call in USERS] == [False] * len(USERS)
    assert [is_ours(in_a_task(call)) for call in OURS] == [True] * len(OURS)


def test_a_lost_process_is_nobodys(in_a_task: Callable[[Callable[[], object]], Exception]) -> None:
    assert not is_ours(in_a_task(lambda: os._exit(1)))


def test_the_line_names_a_private_file_and_no_value(in_a_task: Callable[[Callable[[], object]], Exception]) -> None:
    for error, name in (
        (error_of(lambda: int("patient-7")), "ValueError"),
        (in_a_task(lambda: {}["patient-7"]), "KeyError"),
    ):
        line = write_traceback(error)
        assert "\n" not in line
        assert f"({name} at test_mistakes.py:" in line
        assert "patient-7" not in line
        path = Path(line.rsplit(" is in ", 1)[1])
        text, mode = path.read_text(), stat.S_IMODE(path.stat().st_mode)
        path.unlink()
        assert mode == 0o600
        assert "Traceback (most recent call last)" in text
        assert "patient-7" in text
        assert name in text
