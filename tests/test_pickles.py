"""What can run code is loaded from a process of our own or from this user's folder, and from nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOADERS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load", "joblib.load",
    "pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "marshal.loads", "shelve.open", "Tuner.restore", "eval",
    "exec", "runpy.run_path",
}  # fmt: skip
KNOWN = {
    ("medray/engine/data/stream.py", "pickle.loads"): "batches of our own tasks, through Ray's object store",
    ("medray/engine/job/model_logging.py", "pickle.loads"): "from the process that started this one, through its pipe",
    ("medray/shards/alone.py", "cloudpickle.loads"): "from the process that started this one",
    ("medray/engine/tuning/tuner.py", "Tuner.restore"): "from this user's folder (test_tuner plants a file in --out)",
}
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
"""Functions that run code unless they are told not to, by this argument."""


def loads(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if any(name == one or name.endswith(f".{one}") for one in LOADERS if "." in one) or name in LOADERS:
            yield next(one for one in LOADERS if name == one or name.endswith(f".{one}"))
        if name in SAFE:
            argument, value = SAFE[name]
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if given.get(argument, "False" if name == "np.load" else "") != str(value):
                yield name


def test_every_loader_of_code_is_known() -> None:
    files = [*sorted((ROOT / "medray").rglob("*.py")), *sorted((ROOT / "jobs").rglob("*.py"))]
    found = {(path.relative_to(ROOT).as_posix(), name) for path in files for name in loads(path.read_text())}
    assert found == KNOWN.keys()


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(f)", "x = torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)",
        "ray.tune.Tuner.restore(p, t)", "eval(text)", "pd.read_pickle(p)",
    ],
)  # fmt: skip
def test_it_is_found(line: str) -> None:
    assert [*loads(line)]


@pytest.mark.parametrize("line", ["torch.load(p, weights_only=True)", "np.load(p)", "model.eval()", "json.loads(t)"])
def test_what_runs_nothing_is_not_found(line: str) -> None:
    assert not [*loads(line)]
