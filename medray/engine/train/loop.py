"""The training loop, the only one: what every worker of every run executes."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import time
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import ray.train
import torch
import torch.distributed as dist

from medray.engine.data.samples import WINDOW_BATCHES, EvaluationPlan, Rows, TrainingPlan
from medray.engine.data.stream import stream
from medray.engine.nodes.changing import depends_on_workers, synchronized
from medray.engine.nodes.cluster import quiet_data
from medray.engine.train import checkpoint
from medray.engine.train.device import Late, check_gpu, on_device
from medray.engine.train.execution import execution
from medray.engine.train.glimpse import NAME as GLIMPSE
from medray.engine.train.glimpse import Glimpse
from medray.engine.train.layout import laid_out
from medray.engine.train.outputs import evaluate
from medray.engine.train.run import Run
from medray.engine.train.saving import Saver
from medray.engine.train.step import Trainer, on_host
from medray.engine.train.stop import StopRun
from medray.shards.folders import DONE
from medray.shards.manifest import sha256

ASK_SECONDS = 5.0
"""Between questions whether a node is about to be taken; Ray itself looks every 5 s."""
NOTICE_SECONDS = 10.0
"""Between checkpoints once it is: what was trained after the last one is lost with the node."""


def train_worker(config: dict[str, Any]) -> None:
    """Train the run to its last epoch, predict its held-out rows, and leave its folder finished."""
    quiet_data()
    Worker(config["run"]).work()


class Worker:
    """One of the run's workers (the only one in local mode)."""

    def __init__(self, run: Run) -> None:
        self.run, self.task = run, run.task
        distributed = dist.is_available() and dist.is_initialized()
        self.world, self.rank = (dist.get_world_size(), dist.get_rank()) if distributed else (1, 0)
        self.device = torch.device("cuda", torch.cuda.current_device()) if run.resources.gpu else torch.device("cpu")
        if run.resources.gpu:
            check_gpu(self.device)
        torch.set_num_threads(run.resources.threads)
        if run.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else matrix products on a GPU may differ
        torch.backends.cudnn.benchmark = not run.deterministic
        torch.use_deterministic_algorithms(run.deterministic, warn_only=True)
        # a help to find bugs that each step would pay for
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.manual_seed(self.task.seed)
        network = self.task.without_weights().network().to(self.device)
        self.execution = execution(run, network, self.device, self.world, self.rank)
        network = laid_out(network, self.execution.layout, self.world > 1)
        if run.resources.gpu and run.resources.min_workers is not None:
            network = synchronized(network)
        self.trainer = Trainer(self.task, network, self.device, self.world, self.rank, self.execution.compiled)
        self.saver, self.clock = Saver(), Late(self.device, 2)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": 0, "value": float("inf")}  # rank 0's, of the inner rows; epoch 0 is none
        self.epoch, self.step = 0, 0
        self.monitored: tuple[int, pd.DataFrame] | None = (
            None  # epoch, and the outputs of the rows that it was scored on
        )
        self.worlds: list[int] = []  # numbers of workers that have trained this epoch
        self.asked, self.notice = time.monotonic(), False  # whether a node of this run is about to be taken
        self._resume()
        self.worlds += [self.world] * (self.worlds[-1:] != [self.world])

    # ------------------------------------------------------------ the run

    def work(self) -> None:
        plan = TrainingPlan(
            self.run.train, self.task.batch_size, self.run.last_epoch, self.task.seed, self.world, self.rank,
            self.epoch, self.step, math.lcm(*self.run.resources.world_sizes(self.task.batch_size)),
        )  # fmt: skip
        with contextlib.closing(self._batches(plan)) as batches:
            while self.epoch < self.run.last_epoch:
                self._train_epoch(batches, plan.steps_per_epoch)
                self._monitor()
                self.epoch, self.step, self.trainer.sums, self.worlds = self.epoch + 1, 0, {}, [self.world]
                self._save()
                ray.train.report({"epoch": self.epoch, **self.history[-1]["metrics"]})
        self._finish()

    def _batches(self, plan: TrainingPlan) -> Generator[dict[str, Any]]:
        """On the device, ahead of the steps."""
        batches = stream(self.task, plan, self.run.resources)
        return on_device(batches, self.device, self.task.host, self.execution.layout == "channels-last")

    def _train_epoch(self, batches: Iterator[dict[str, Any]], steps: int) -> None:
        self.trainer.train()
        started = saved = time.monotonic()
        glimpse = Glimpse(self.run.store)
        first_step = self.step
        for step in range(first_step, steps):
            with self._named():
                loss = self.trainer.step(next(batches), self.epoch, step, steps)
            self.step = step + 1
            if self.rank == 0 and glimpse.due:
                rate = (self.step - first_step) * self.task.batch_size / (time.monotonic() - started)
                glimpse.write(epoch=self.epoch, step=self.step, steps=steps, images_per_s=rate, loss=float(loss))
            if self._due(saved, steps):
                self._check()
                self._save()
                saved = time.monotonic()
        self._check()
        seconds = time.monotonic() - started
        self.seconds, self.rate = seconds, (steps - first_step) * self.task.batch_size / max(1e-9, seconds)

    def _check(self) -> None:
        """The last step was taken: what is kept now may be kept."""
        with self._named():
            self.trainer.check()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except StopRun as stop:
            raise StopRun(f"run {self.run.name}: {stop}") from None

    def _due(self, saved: float, steps: int) -> bool:
        """A checkpoint within an epoch: at window boundaries, by rank 0's clock, only where it begins a whole step.

        At once when a node of the run gets notice that it will be taken, and every few seconds from then on.
        """
        if self.step % (WINDOW_BATCHES * self.task.accumulate) or self.step >= steps:
            return False
        now, before = time.monotonic(), self.notice
        since_saved, since_asked = now - saved, now - self.asked
        if self.world > 1:
            clock = torch.tensor([since_saved, since_asked], dtype=torch.float64)
            if self.device.type == "cuda":
                clock = clock.pin_memory().to(self.device, non_blocking=True)
            dist.broadcast(clock, 0)
            # on GPUs it is read at the next boundary: at once, every worker would wait for its GPU
            earlier = self.clock.take() if self.device.type == "cuda" else None
            self.clock.put(clock, None)
            found = earlier if self.device.type == "cuda" else self.clock.take()
            if found is None:
                return False
            since_saved, since_asked = found[0]
        if dist.is_initialized() and since_asked > ASK_SECONDS:  # all workers ask: Ray's answer is a barrier
            self.asked, self.notice = now, ray.train.get_preemption_info() is not None
            self.clock.take()  # was set before this answer
        limit = NOTICE_SECONDS if self.notice else 60 * self.run.checkpoint_minutes
        due = self.notice > before or bool(since_saved > limit)
        if due:
            self.clock.take()  # was set before this checkpoint
        return due

    def _monitor(self) -> None:
        """Score the monitored rows, and write this epoch into the history."""
        steps = max(1, self.run.train.per_epoch // self.task.batch_size)
        own = self.trainer.sums
        names = sorted(own, key=lambda name: ("norm" in name, name))  # losses first
        sums = torch.tensor([float(own[n]) / steps for n in names], dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(sums)
            sums /= self.world
        metrics = {f"train_{n}": float(v) for n, v in zip(names, sums, strict=True)}
        rows = self.run.monitored
        due = (self.epoch + 1) % self.run.monitor_every == 0 or self.epoch + 1 == self.run.last_epoch
        if rows is not None and len(rows) and due:
            table = self._evaluate(rows)
            self.monitored = (self.epoch + 1, table)
            scores = self.task.metrics(table) if self.rank == 0 else {}
            place = self.run.monitor.replace("-", "_")
            metrics |= {f"{place}_{n}": v for n, v in scores.items() if np.isfinite(v)}
            first = next(iter(scores.values()), float("inf"))
            if self.run.monitor == "inner" and self.rank == 0 and first < self.best["value"]:
                self.best = {"epoch": self.epoch + 1, "value": first}
                name, weights = checkpoint.best_name(self.epoch + 1), on_host(self.trainer.scored.state_dict())
                self.saver.write(functools.partial(checkpoint.write, self.run.store, name, {"weights": weights}))
        metrics["learning_rate"] = next(iter(self.trainer.optimizers.values())).param_groups[0]["lr"]
        self.history = [e for e in self.history if e["epoch"] < self.epoch + 1]
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "workers": self.worlds,
                "metrics": metrics,
                "system": system_metrics(self.seconds, self.rate, self.device),
            }
        )

    def _finish(self) -> None:
        """Predict the held-out rows with the last epoch's weights, or the inner split's best, and close the run (of
        one that stops early only the predictions are kept: its weights are in the checkpoint)."""
        self.saver.wait()
        network, chosen = self.trainer.scored, self.run.last_epoch
        if self.run.monitor == "inner":
            chosen = self._best_epoch()
            network.load_state_dict(checkpoint.read_weights(self.run.store, checkpoint.best_name(chosen))["weights"])
        table = self._outputs("held-out", self.run.held_out, chosen)
        inner = None if self.run.inner is None else self._outputs("inner", self.run.inner, chosen)
        if self.rank:
            return
        check_ids(table[self.task.id_column], self.run.held_out_ids, self.run.name)
        store = self.run.results
        tables = {}
        for name, rows in (("predictions.parquet", table), ("inner.parquet", inner)):
            if rows is not None:
                store.write_table(name, pa.Table.from_pandas(rows, preserve_index=False))
                tables[name] = sha256(store, name)
        digest = None
        if self.run.last_epoch == self.task.epochs:
            state = {"weights": network.state_dict(), "task": json.dumps(self.task.identity())}
            digest = checkpoint.write_weights(store, checkpoint.MODEL, state)
        done = {"epoch": chosen, "rows": len(table), "weights": digest, "metrics": self.history[-1]["metrics"]}
        done |= {"tables": tables}
        store.write_json(DONE, done | {"depends_on_workers": self._depends_on_workers()})
        self._clean()

    def _depends_on_workers(self) -> list[str]:
        """What lets a run whose number of workers has changed end unlike an undisturbed one by more than rounding."""
        found = depends_on_workers(self.trainer.network)
        found += ["mixed precision"] * (self.trainer.amp_dtype is not None)
        return found + ["several optimizers"] * (len(self.trainer.optimizers) > 1)

    def _best_epoch(self) -> int:
        """The epoch that scored best on the inner rows, as rank 0 knows it."""
        known = [self.best["epoch"]]
        if self.world > 1:
            dist.broadcast_object_list(known, 0)
        if not known[0]:
            raise StopRun(f"run {self.run.name}: no epoch has a score on the inner rows; choose another --monitor")
        return int(known[0])

    # ------------------------------------------------------------ state

    def _outputs(self, place: str, rows: Rows, epoch: int) -> pd.DataFrame:
        """Of the chosen epoch's network; those that it was scored on are not computed again."""
        if self.run.monitor == place and self.monitored is not None and self.monitored[0] == epoch:
            return self.monitored[1]
        return self._evaluate(rows)

    def _evaluate(self, rows: Rows) -> pd.DataFrame:
        """Outputs of all rows, in the order of the rows: unlike an order of ids, it does not depend on the key."""
        network = self.trainer.scored
        if self.world > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)
        plan = EvaluationPlan(rows, self.task.evaluation_batch, self.world, self.rank)
        batches = stream(self.task, plan, self.run.resources)
        table = evaluate(self.task, network, batches, self.device, self.trainer.amp_dtype)
        if self.world > 1:
            tables: list[Any] = [None] * self.world
            dist.all_gather_object(tables, table)
            table = pd.concat([t for t in tables if len(t)])
        return table.reset_index(drop=True)

    def _save(self) -> None:
        """Keep where training is. The state is copied here; it is written while training goes on."""
        sums = {name: float(value) for name, value in self.trainer.sums.items()}
        if self.world > 1:  # each worker's sums differ; the mean of them is what the epoch will log
            total = torch.tensor([sums[n] for n in sorted(sums)], dtype=torch.float64, device=self.device)
            dist.all_reduce(total)
            sums = {n: float(v) / self.world for n, v in zip(sorted(sums), total, strict=True)}
        if self.rank:
            return
        state = self.trainer.state() | {
            "epoch": self.epoch, "step": self.step, "sums": sums, "worlds": list(self.worlds), "history": list(self.history),
            "best": dict(self.best), "identity": json.dumps(self.run.identity()),
        }  # fmt: skip

        def write() -> None:
            checkpoint.save(self.run.store.sub("checkpoints"), state["epoch"], state["step"], state)
            checkpoint.keep_best(self.run.store, state["best"]["epoch"])
            self.run.store.write_json("history.json", state["history"])

        self.saver.write(write)

    def _clean(self) -> None:
        for store in (self.run.store, self.run.results, self.run.store.sub("checkpoints")):
            store.remove_unfinished()
        self.run.store.delete(GLIMPSE)  # of a process that is gone, or of a run that has ended

    def _resume(self) -> None:
        if self.rank == 0:
            self._clean()  # of a process of this run that was killed while it wrote
        state = checkpoint.latest(self.run.store.sub("checkpoints"))
        if state is None:
            if self.run.initial is not None:
                self.trainer.begin_from(checkpoint.read_weights(self.run.initial, checkpoint.INITIAL))
            if self.run.starts:
                self.trainer.begin_from(self._weights_of_starts())
            return
        if state["identity"] != json.dumps(self.run.identity()):
            raise StopRun(f"run {self.run.name}: its checkpoints are of other hyper-parameters; choose another --out")
        self.trainer.load(state)
        self.epoch, self.step, self.trainer.sums = state["epoch"], state["step"], state["sums"]
        self.worlds = state.get("worlds", []) if self.step else []
        self.history, self.best = state["history"], state["best"]
        best = checkpoint.best_name(self.best["epoch"])
        if self.run.monitor == "inner" and self.best["epoch"] and not self.run.store.exists(best):
            raise StopRun(
                f"run {self.run.name}: {best}, which its checkpoint names, is not there; choose another --out"
            )
        if self.rank == 0:
            self.run.store.write_json("history.json", self.history)

    def _weights_of_starts(self) -> dict[str, torch.Tensor]:
        """This network's weights, those of other runs in their places."""
        weights = self.trainer.network.state_dict()
        for start in self.run.starts:
            try:
                found = checkpoint.read_model(start.store)["weights"]
                weights |= checkpoint.renamed(found, start.prefixes, weights)
            except ValueError as error:
                raise StopRun(f"run {self.run.name}: starts from {start.store.uri}: {error}") from None
        return weights


def check_ids(found: pd.Series, expected: tuple[str, ...], name: str) -> None:
    """Raise StopRun, naming a few, unless the ids that came out are the ids that went in."""
    repeated, missing, strange = found[found.duplicated()], set(expected) - set(found), set(found) - set(expected)
    for what, ids in (("repeated", repeated), ("missing", missing), ("not asked for", strange)):
        if len(ids):
            raise StopRun(f"run {name}: {len(ids)} predictions are {what}, such as {', '.join(sorted(ids)[:5])}")


def system_metrics(seconds: float, images_per_s: float, device: torch.device) -> dict[str, float]:
    """Of rank 0's node, once an epoch; named as MLflow's own system metrics, so that its page shows them."""
    memory = psutil.virtual_memory()
    out = {
        "epoch_seconds": seconds,
        "images_per_s": images_per_s,
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": (memory.total - memory.available) / 1e6,
        "system_memory_usage_percentage": memory.percent,
    }
    if device.type == "cuda":
        out["gpu_0_memory_usage_megabytes"] = torch.cuda.max_memory_allocated(device) / 1e6
    return out
