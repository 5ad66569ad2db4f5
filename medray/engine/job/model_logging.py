"""Log a run's final network to MLflow, in a process of its own.

MLflow saves a network by ``torch.export``, which is not safe beside other threads: within a test session with Ray's
threads it ended the whole process (segmentation fault, torch 2.10). A night's driver must not be lost to that.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import warnings
from typing import Any

from medray.engine.train import checkpoint
from medray.shards.store import Store
from medray.tasks.task import Task

_LONGEST_SECONDS = 300


def log_model_apart(tracking_uri: str, run_id: str, store: Store, task: Task) -> str | None:
    """Log ``model.pt`` of the run in ``store``; the reason where that failed, None where it did not."""
    words = [sys.executable, "-m", "medray.engine.job.model_logging"]
    sent = pickle.dumps((tracking_uri, run_id, store, task.without_weights()))
    try:
        done = subprocess.run(words, input=sent, capture_output=True, timeout=_LONGEST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {_LONGEST_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"its process ended with {done.returncode}"


def log_model(tracking_uri: str, run_id: str, network: Any, example: Any) -> None:
    """Log a torch network with its signature and an input example; the size of a batch is free."""
    import mlflow
    import torch
    from mlflow.models.signature import infer_signature

    mlflow.set_tracking_uri(tracking_uri)
    with torch.inference_mode():
        output = network.eval()(torch.from_numpy(example)).numpy()
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pytorch.log_model(
            network, name="model", signature=infer_signature(example, output), input_example=example,
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "timm"],
        )  # fmt: skip
    client = mlflow.MlflowClient()
    for tag in client.get_logged_model(logged.model_id).tags:
        if tag.startswith(
            ("mlflow.user", "mlflow.source.")
        ):  # a person's login, a path of this machine, its repository
            client.delete_logged_model_tag(logged.model_id, tag)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    tracking_uri, run_id, store, task = pickle.loads(sys.stdin.buffer.read())  # from the process that started this one
    network = task.network()
    network.load_state_dict(checkpoint.read_model(store)["weights"])
    log_model(tracking_uri, run_id, network, task.example_input())


if __name__ == "__main__":
    main()
