"""New scans, and the networks that answer for them: all organs in one pass, if the run's last network is one of that kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from medray.shards.store import Store
from medray.systems.fewlabel.methods import ApartTask, ConditionalTask, CoTrainingTask, Which
from medray.systems.fewlabel.source import FewLabelCT, source_of
from medray.systems.fewlabel.sources import UNNAMED
from medray.systems.fewlabel.task import FewLabelTask
from medray.tasks.new_scans.organs import NewOrgans
from medray.tasks.organs import OrgansTask
from medray.tasks.task import Task

OF_ORGANS = frozenset(("runs", "kind", "folds", "source", "organs", "answers", "small", "training_ml"))
"""What a method.json of this system says."""
KINDS: Mapping[str, type[FewLabelTask]] = {
    "apart": ApartTask, "conditional": ConditionalTask, "cotraining": CoTrainingTask,
}  # fmt: skip
"""Rung → kind of its task, where it is not FewLabelTask."""


def check_method(out: Store, name: str, method: Mapping[str, Any]) -> None:
    """Raise ValueError where method.json is of a job of another kind."""
    if not method.keys() >= OF_ORGANS:
        raise ValueError(
            f"--run {out.uri}: {name} finds no organs of several sources; name the --out of a finished fewlabel_cv.py"
        )


def source_for_new(identity: Mapping[str, Any]) -> FewLabelCT:
    """The run's source, which reads scans of no source too. Raises ValueError for one of another version."""
    source = source_of(identity)
    return replace(source, origins=(*source.origins, UNNAMED))


def never_learned(shards: Store) -> list[str]:
    """Scans of the run in which no organ was labelled: they were predicted and scored only."""
    found = []
    for name in shards.names(".parquet"):
        rows = shards.read_table(name, columns=["scan_id", "organs_labelled"]).to_pandas()
        found += rows.loc[rows["organs_labelled"] == 0, "scan_id"].tolist()
    return found


@dataclass(frozen=True)
class NewScansOfAll(NewOrgans):
    """New scans: every organ that any source labels."""

    @property
    def runs(self) -> list[tuple[str, int, type[Task]]]:
        kind = KINDS.get(self.method["kind"], FewLabelTask)
        return [(self.method["runs"], fold, kind) for fold in self.method["folds"]]

    def asked(self, task: OrgansTask, fold: int) -> OrgansTask:
        """Of co-training the running mean that inner scans chose for this fold."""
        if not isinstance(task, CoTrainingTask):
            return task
        return replace(task, answer=cast(Which, self.method["answers"][str(fold)]))
