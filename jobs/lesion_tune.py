"""Search hyper-parameters of the lesion networks: Ray Tune, Optuna, early stopping; every trial in MLflow.

    uv run jobs/lesion_tune.py        # phantoms, two CPU cores, 8 trials in minutes
    uv run jobs/lesion_tune.py --images scans/table.csv --out out/ms --backbones segresnet \
        --search learning-rate=1e-5..1e-2:log foreground-share=0.2..0.9

Shards and folds are those of lesion_cv.py with the same --out. Run the same command again after a kill, and it goes on.
"""

from medray.engine.tuning.job import tune
from medray.systems.lesion.system import BRAIN_MR, PHANTOM_SEARCH, SEARCH


def start() -> None:
    tune(BRAIN_MR, SEARCH, PHANTOM_SEARCH)


if __name__ == "__main__":
    start()
