"""Search hyper-parameters of the hemorrhage backbones: Ray Tune, Optuna, early stopping; every trial in MLflow.

    uv run jobs/ich_tune.py        # phantoms, two CPU cores, 20 trials in minutes
    uv run jobs/ich_tune.py --dicom stage_2_train --labels stage_2_train.csv --out out/rsna --public-ids --folds 5 \\
        --backbones resnext101_32x8d --search learning-rate=1e-5..1e-3:log epidural-weight=1..8 size-px=224|300

Shards and folds are those of ich_cv.py with the same --out. Run the same command again after a kill, and it goes on.
"""

from medray.engine.tuning.job import tune
from medray.systems.ich.system import HEAD_CT, PHANTOM_SEARCH, SEARCH


def start() -> None:
    tune(HEAD_CT, SEARCH, PHANTOM_SEARCH)


if __name__ == "__main__":
    start()
