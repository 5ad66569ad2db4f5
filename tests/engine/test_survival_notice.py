"""A spot notice: the node drains with a deadline, and its processes are killed then. The run leaves a checkpoint at
once, goes on elsewhere, and has used up none of its retries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lost_nodes import Survived, disturbed

from medray.imaging.phantom import PhantomSet

pytestmark = pytest.mark.on_demand
EPOCHS = 40


@pytest.fixture(scope="module")
def survived(phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survived]:
    task = {"epochs": EPOCHS, "learning_rate": 3e-3, "dropout": 0.2}
    folder = tmp_path_factory.mktemp("notice")
    cases = ["undisturbed", "notice"]  # two workers, and a node to spare
    with disturbed(phantoms, folder, 500, nodes=3, workers=2, task=task, cases=cases, monitor_every=EPOCHS) as survived:
        yield survived


def test_a_checkpoint_within_an_epoch_is_left_before_the_node_goes(survived: Survived) -> None:
    happened = survived.notes["notice"]["happened"]
    assert sum("RayTrainWorker" in kinds for kinds in happened["nodes"]) == 2
    assert 1 <= happened["after"] <= happened["at_deadline"] < EPOCHS
    assert happened["within"]


def test_it_ends_as_if_nothing_had_happened(survived: Survived) -> None:
    note = survived.notes["notice"]
    assert note["error"] is None
    survived.assert_equal_to_the_bit("notice")
    assert not survived.partial_files("notice")
    assert note["after"] == note["before"] == {"CPU": 3.0, "groups": 0}


def test_no_retry_is_used_up(survived: Survived) -> None:
    assert survived.notes["undisturbed"]["retried"] == []
    assert survived.notes["notice"]["retried"] == ["preemption"]
