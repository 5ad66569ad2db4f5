"""Search hyper-parameters of co-training: Ray Tune, Optuna, early stopping; every trial in MLflow.

    uv run jobs/fewlabel_tune.py        # after fewlabel_cv.py without flags: drawn bodies, two CPU cores, 8 trials
    uv run jobs/fewlabel_tune.py --sources sources.csv --out out/organs --search ramp=1..20 soft-weight=0.01..1:log

Trials learn from true labels and from the pseudo-labels of a finished fewlabel_cv.py with the same --out and recipe, which
--until pseudo ends there; shards and folds are its own. Run the same command again after a kill, and it goes on.
"""

from collections.abc import Mapping

from medray.engine.data.prepare import Ingest
from medray.engine.data.samples import Shards
from medray.engine.derive.derive import derived_there
from medray.engine.job.dataset import Dataset
from medray.engine.tuning.job import tune
from medray.shards.folders import features_store, fold_folder
from medray.shards.store import Store
from medray.systems.fewlabel.methods import CoTrainingTask
from medray.systems.fewlabel.system import FEW_LABELS, PHANTOM_SEARCH, SEARCH

JOINED = "-pseudo-labels-joined"


def taught(data: Dataset, scans: Ingest, tasks: Mapping[str, CoTrainingTask]) -> Shards:
    """True and pseudo-labels of the fold that is trained."""
    folds, out = data.options.fold_list(), data.options.out
    (name, *others) = tasks
    if len(folds) > 1 or others:
        raise ValueError("--train-folds, --backbones: pseudo-labels are of one fold of one recipe; name one of each")
    there = [one for one in features_store(Store(out)).folders() if one.endswith(JOINED)]
    own = (
        f"{name}{JOINED}" if f"{name}{JOINED}" in there or len(there) != 1 else there[0]
    )  # of a --name, where it is alone
    made = derived_there(features_store(Store(out), own).sub(fold_folder(folds[0])))
    rows = made.shards(["patient_id", "scan_id", *FEW_LABELS.columns], scans.fold_of_patient) if made.files else None
    if rows is None or len(rows.index) < len(scans.index):
        raise ValueError(
            f"--out {out}: no pseudo-labels of fold {folds[0]} by {name}; run jobs/fewlabel_cv.py --recipe {name} --until "
            "pseudo first, with the same --out"
        )
    return rows


def start() -> None:
    tune(FEW_LABELS, SEARCH, PHANTOM_SEARCH, taught)


if __name__ == "__main__":
    start()
