"""Search hyper-parameters of the network with marginal loss: Ray Tune, Optuna, early stopping; every trial in MLflow.

    uv run jobs/fewlabel_tune.py        # drawn bodies, two CPU cores, 8 trials
    uv run jobs/fewlabel_tune.py --sources sources.csv --out out/organs --search learning-rate=1e-4..1e-2:log dice-weight=0.1..2

Shards and folds are those of fewlabel_cv.py with the same --out. Run the same command again after a kill, and it goes on.
"""

from medray.engine.tuning.job import tune
from medray.systems.fewlabel.system import FEW_LABELS, PHANTOM_SEARCH, SEARCH


def start() -> None:
    tune(FEW_LABELS, SEARCH, PHANTOM_SEARCH)


if __name__ == "__main__":
    start()
