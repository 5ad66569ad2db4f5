"""Search hyper-parameters of S-Net: Ray Tune, Optuna, early stopping; every trial in MLflow.

    uv run jobs/headneck_tune.py        # drawn heads, two CPU cores, 8 trials
    uv run jobs/headneck_tune.py --images plans --out out/oar --organs Brainstem Parotid_L Parotid_R --backbones snet \
        --search learning-rate=1e-4..1e-2:log foreground-share=0.3..1

Shards and folds are those of headneck_cv.py with the same --out. Run the same command again after a kill, and it goes on.
"""

from medray.engine.tuning.job import tune
from medray.systems.headneck.system import HEAD_AND_NECK, PHANTOM_SEARCH, SEARCH


def start() -> None:
    tune(HEAD_AND_NECK, SEARCH, PHANTOM_SEARCH)


if __name__ == "__main__":
    start()
