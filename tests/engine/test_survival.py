"""A node is lost in mid-training, with all that ran on it: what comes out is what would have come out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lost_nodes import Survived, disturbed

from medray.imaging.phantom import PhantomSet

pytestmark = pytest.mark.on_demand
EPOCHS = 4


@pytest.fixture(scope="module")
def survived(phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survived]:
    task = {"epochs": EPOCHS, "learning_rate": 3e-3, "dropout": 0.2}
    cases = ["undisturbed", "worker", "controller", "starting"]  # two workers, and a node to spare
    folder = tmp_path_factory.mktemp("survival")
    with disturbed(phantoms, folder, 560, nodes=3, workers=2, task=task, cases=cases) as survived:
        yield survived


def test_two_workers_on_two_nodes(survived: Survived) -> None:
    note = survived.notes["undisturbed"]
    assert note["error"] is None
    assert sorted(survived.predictions("undisturbed")["slice_id"]) == note["ids"]
    assert [e["epoch"] for e in survived.history("undisturbed")] == list(range(1, EPOCHS + 1))
    assert {tuple(e["workers"]) for e in survived.history("undisturbed")} == {(2,)}


@pytest.mark.parametrize("lost", ["worker", "controller"])
def test_a_lost_node_changes_nothing(survived: Survived, lost: str) -> None:
    note = survived.notes[lost]
    assert note["error"] is None
    assert sum("RayTrainWorker" in kinds for kinds in note["happened"]["nodes"]) == 2
    assert 1 <= note["happened"]["after"] < EPOCHS
    survived.assert_equal_to_the_bit(lost)
    assert not survived.partial_files(lost)
    assert note["after"] == note["before"] == {"CPU": 3.0, "groups": 0}


def test_a_node_lost_while_the_workers_start_leaves_nothing_reserved(survived: Survived) -> None:
    """Ray alone keeps what they were to have: the run would wait for it to the end of the job."""
    note = survived.notes["starting"]
    assert note["error"] is None
    assert (note["happened"]["groups"], note["happened"]["after"]) == (1, 0)
    survived.assert_equal_to_the_bit("starting")
    assert note["after"] == note["before"] == {"CPU": 3.0, "groups": 0}
