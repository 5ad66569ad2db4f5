"""New planning CTs, and the networks that answer for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medray.shards.store import File, Store
from medray.systems.headneck.cases import Cases
from medray.systems.headneck.joint_task import JointTask
from medray.systems.headneck.source import CT
from medray.systems.headneck.task import OrganTask
from medray.tasks.new_scans.organs import NewOrgans
from medray.tasks.task import Task

OF_ORGANS = frozenset(("runs", "kind", "folds", "source", "organs", "small", "training_ml"))
"""What a method.json of this system says."""


def check_method(out: Store, name: str, method: Mapping[str, Any]) -> None:
    """Raise ValueError where method.json is of a job of another kind."""
    if not method.keys() >= OF_ORGANS:
        raise ValueError(f"--run {out.uri}: {name} draws no organs; name the --out of a finished headneck_cv.py")


def ct_files(files: Sequence[File], cases: Cases) -> list[File]:
    """Those that a case may take its CT from: all, where DICOM headers tell."""
    if cases.table is None:
        return list(files)
    named = {*cases.table[CT]}
    return [file for file in files if file.path in named or file.path.rpartition("/")[0] in named]


@dataclass(frozen=True)
class NewPlans(NewOrgans):
    """New planning CTs."""

    @property
    def runs(self) -> list[tuple[str, int, type[Task]]]:
        kind = JointTask if self.method["kind"] == "joint" else OrganTask
        return [(self.method["runs"], fold, kind) for fold in self.method["folds"]]
