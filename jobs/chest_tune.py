"""Search hyper-parameters of the chest X-ray classifier: the same search as for hemorrhage.

    uv run jobs/chest_tune.py --images images --labels . --out out/nih --public-ids --search learning-rate=1e-5..1e-2:log

Where the labels come with lists, trials train on the training list and are compared on the validation list.
"""

from medray.engine.tuning.job import tune
from medray.systems.chest.system import FILMS, SEARCH


def start() -> None:
    tune(FILMS, SEARCH)


if __name__ == "__main__":
    start()
