from __future__ import annotations

from pathlib import Path

import pytest
from lesion_files import write_table

from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.system import BRAIN_MR, source_for
from medray.systems.lesion.task import LesionTask


def test_the_source_reads_the_channels_of_the_cases_that_the_task_asks_for(tmp_path: Path) -> None:
    table = str(write_table(tmp_path, [{"patient": "p", "flair": "f", "t1": "g", "mask": "m"}]))
    assert BRAIN_MR.source_for is source_for  # a search reads as a cross-validation does
    asked = source_for(BrainMR(), LesionTask(classes=("old", "new")), table)
    assert (asked.channels, asked.classes) == (("flair", "t1"), ("old", "new"))
    smooth = BrainMR(smooth=True)
    task = LesionTask(channels=("t1-smooth", "t1"))
    only = source_for(smooth, task, table)
    assert only.channels == ("t1",)
    assert task.reading(only).channel_places == (1, 0)
    assert source_for(BrainMR(), LesionTask(), None).channels == ("flair", "t1", "t1c", "t2")
    with pytest.raises(ValueError, match="--channels t2: the scans have flair, t1; name some of these"):
        source_for(BrainMR(), LesionTask(channels=("t2",)), table)
