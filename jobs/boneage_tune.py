"""Search hyper-parameters of the age networks: Ray Tune, Optuna, early stopping; every trial in MLflow.

    uv run jobs/boneage_tune.py        # drawn hands, two CPU cores, 6 trials in minutes
    uv run jobs/boneage_tune.py --images films --labels labels --out out/hands --backbones modern \\
        --search learning-rate=1e-5..1e-2:log dropout=0..0.5

Hands are registered by the points that somebody has marked, and films without are left out; where no film has any, the whole
film is learned from. No background is removed. Folds are those of boneage_cv.py with the same --out. Run the same command again
after a kill, and it goes on.
"""

from collections.abc import Mapping

from medray.engine.data.prepare import Ingest
from medray.engine.data.samples import Shards
from medray.engine.derive.derive import derive
from medray.engine.derive.inputs import Inputs
from medray.engine.job.dataset import Dataset
from medray.engine.tuning.job import tune
from medray.shards.folders import features_store
from medray.shards.store import Store
from medray.systems.boneage.stages.between import Hands, Region
from medray.systems.boneage.stages.rows import ABOUT
from medray.systems.boneage.system import HAND_FILMS, PHANTOM_SEARCH, SEARCH
from medray.systems.boneage.task import AgeTask


def registered(data: Dataset, films: Ingest, tasks: Mapping[str, AgeTask]) -> Shards:
    """The region of the tasks, cut out of equalised films."""
    task, to = next(iter(tasks.values())), features_store(Store(data.options.out), "search")
    marked = bool((films.index["has_points"] == 1).any())
    hands = derive(Hands(masked=False), Inputs((films.rows,)), to.sub("films"), what="films, equalised")
    region = Region(task.region, task.region_scale, "marked" if marked else "film")
    rows = hands.shards(ABOUT, films.fold_of_patient).rows
    return derive(region, rows, to.sub(region.name), what=region.title).shards(ABOUT, films.fold_of_patient)


def start() -> None:
    tune(HAND_FILMS, SEARCH, PHANTOM_SEARCH, registered)


if __name__ == "__main__":
    start()
