"""Two of four workers vanish with their nodes and come back: the run goes on with two, grows again, and says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lost_nodes import Survived, disturbed

from medray.imaging.phantom import PhantomSet

pytestmark = pytest.mark.on_demand
EPOCHS = 40
LOG_LOSS = "held_out_weighted_log_loss"


@pytest.fixture(scope="module")
def survived(phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survived]:
    # whatever the number of workers, the batches are the same. What is each CPU worker's own is dropout, and the mean and
    # variance of batch normalization: with it, and two samples a worker, the log loss ended .006 away
    task = {"backbone": "test_efficientnet_gn", "epochs": EPOCHS, "learning_rate": 1e-4, "dropout": 0.0}
    folder = tmp_path_factory.mktemp("elastic")
    cases = ["undisturbed", "elastic"]
    with disturbed(
        phantoms, folder, 600, nodes=4, workers=4, min_workers=2, task=task, cases=cases, monitor_every=EPOCHS
    ) as survived:
        yield survived


def test_it_shrinks_and_grows(survived: Survived) -> None:
    happened = survived.notes["elastic"]["happened"]
    assert sum("RayTrainWorker" in kinds for kinds in happened["nodes"]) == 4
    workers = [n for e in survived.history("elastic") for n in e["workers"]]
    assert [n for n, before in zip(workers, [0, *workers], strict=False) if n != before] == [4, 2, 4]
    assert {tuple(e["workers"]) for e in survived.history("undisturbed")} == {(4,)}


def test_it_says_so(survived: Survived) -> None:
    for words in ("by 2 workers", "by 4 workers", "trained by changing numbers of workers"):
        assert survived.log.count(words) == 1


def test_it_ends_within_a_thousandth_of_the_log_loss(survived: Survived) -> None:
    once, again = survived.history("undisturbed"), survived.history("elastic")
    assert survived.notes["elastic"]["error"] is None
    assert [e["epoch"] for e in again] == [e["epoch"] for e in once] == list(range(1, EPOCHS + 1))
    print({n: [e[-1]["metrics"][n] for e in (once, again)] for n in once[-1]["metrics"]})
    assert again[-1]["metrics"][LOG_LOSS] == pytest.approx(once[-1]["metrics"][LOG_LOSS], abs=1e-3)
    assert once[-1]["metrics"]["train_loss"] < once[0]["metrics"]["train_loss"]
    assert sorted(survived.predictions("elastic")["slice_id"]) == survived.notes["elastic"]["ids"]


def test_nothing_is_left_behind(survived: Survived) -> None:
    note = survived.notes["elastic"]
    assert note["after"] == note["before"] == {"CPU": 4.0, "groups": 0}
    assert not survived.partial_files("elastic")
