"""The training loop, the only one: what every worker of every run executes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import ray.train
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medray.engine import checkpoint, initial
from medray.engine.cluster import quiet_data
from medray.engine.device import autocast_dtype, check_gpu
from medray.engine.glimpse import Glimpse
from medray.engine.nodes.changing import depends_on_workers, synchronized
from medray.engine.predict import channels_last, evaluate, to_device
from medray.engine.run import Run, StopRun
from medray.engine.samples import WINDOW_BATCHES, EvaluationPlan, Rows, TrainingPlan
from medray.engine.stream import stream

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
        self.network = channels_last(self.task.without_weights().network().to(self.device))
        self.model: nn.Module = self.network
        if run.resources.gpu and run.resources.min_workers is not None:
            self.network = self.model = synchronized(self.network)
        if self.world > 1:
            # in a turn of several, the parameters of the others get no gradient
            several = len(self.task.optimizers(self.network)) > 1
            devices = [self.device] if run.resources.gpu else None
            self.model = DistributedDataParallel(self.network, devices, find_unused_parameters=several)
        self.optimizers = self.task.optimizers(self.network)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["peak_lr"] = group["lr"]
        self.amp_dtype = autocast_dtype(self.task.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)
        self.averaged = average_of(self.network, self.task.ema_decay)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": 0, "value": float("inf")}  # rank 0's, of the inner rows; epoch 0 is none
        self.epoch, self.step, self.sums = 0, 0, {}  # type: int, int, dict[str, float]
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
        batches = stream(self.task, plan, self.run.resources)
        while self.epoch < self.run.last_epoch:
            self._train_epoch(batches, plan.steps_per_epoch)
            self._monitor()
            self.epoch, self.step, self.sums, self.worlds = self.epoch + 1, 0, {}, [self.world]
            self._save()
            ray.train.report({"epoch": self.epoch, **self.history[-1]["metrics"]})
        self._finish()

    def _train_epoch(self, batches: Iterator[dict[str, Any]], steps: int) -> None:
        self.model.train()
        started = saved = time.monotonic()
        glimpse = Glimpse(self.run.store)
        first_step = self.step
        pending: tuple[Tensor, Any] | None = None
        for step in range(first_step, steps):
            batch = next(batches)
            # one seed a step: dropout then needs no saved random state, and a resumed run equals an uninterrupted one
            torch.manual_seed(step_seed(self.task.seed, self.epoch, step, self.rank))
            loss = self._step(to_device(batch, self.device), step, steps)
            self._check_finite(pending)  # of the step before: the GPU is not made to wait for this one
            pending = (loss, batch[self.task.id_column])
            self.step = step + 1
            if self.rank == 0 and glimpse.due:
                rate = (self.step - first_step) * self.task.batch_size / (time.monotonic() - started)
                glimpse.write(epoch=self.epoch, step=self.step, steps=steps, images_per_s=rate, loss=float(loss))
            if self._due(saved, steps):
                self._check_finite(pending)
                self._save()
                saved = time.monotonic()
        self._check_finite(pending)
        seconds = time.monotonic() - started
        self.seconds, self.rate = seconds, (steps - first_step) * self.task.batch_size / max(1e-9, seconds)

    def _step(self, batch: dict[str, Any], step: int, steps: int) -> Tensor:
        """Accumulate, forward and backward, clip, step, log; in each turn, where there are several. Returns the detached
        loss."""
        steps_now = (step + 1) % self.task.accumulate == 0 or step + 1 == steps
        factor = self.task.rate_factor(self.epoch * steps + step, self.task.epochs * steps)
        total = torch.zeros((), device=self.device)
        for turn, optimizer in self.optimizers.items():
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            with contextlib.ExitStack() as context:
                if not steps_now and isinstance(self.model, DistributedDataParallel):
                    context.enter_context(self.model.no_sync())
                if len(self.optimizers) > 1:
                    context.enter_context(gradients_for(self.network, own))
                with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
                    losses = self.task.losses_of(turn, self.model, batch)
                self.scaler.scale(losses["loss"] / self.task.accumulate).backward()
            if steps_now:
                if self.task.clip_norm is not None:
                    self.scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(own, self.task.clip_norm)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_lr"] * factor
                self.scaler.step(optimizer)
                optimizer.zero_grad(set_to_none=True)
            for name, loss in losses.items():
                key, value = f"{turn}_{name}" if turn else name, loss.detach().double()
                self.sums[key] = self.sums[key] + value if key in self.sums else value  # type: ignore[assignment]
            total += losses["loss"].detach()
        if steps_now:
            self.scaler.update()
            if self.averaged is not None:
                self.averaged.update_parameters(self.network)
        return total

    def _check_finite(self, pending: tuple[Tensor, Any] | None) -> None:
        if pending is not None and not torch.isfinite(pending[0]):
            names = " ".join(map(str, pending[1])).split()  # an example may have several ids
            ids = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise StopRun(
                f"run {self.run.name}: the loss is {float(pending[0])} in epoch {self.epoch + 1}; batch: {ids}; "
                "try a lower --learning-rate, --clip-norm 1 or --precision fp32"
            )

    def _due(self, saved: float, steps: int) -> bool:
        """A checkpoint within an epoch: at window boundaries, by rank 0's clock, only where it begins a whole step.

        At once when a node of the run gets notice that it will be taken, and every few seconds from then on.
        """
        if self.step % (WINDOW_BATCHES * self.task.accumulate) or self.step >= steps:
            return False
        now, before = time.monotonic(), self.notice
        clock = torch.tensor([now - saved, now - self.asked], dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.broadcast(clock, 0)
        since_saved, since_asked = clock.tolist()
        if dist.is_initialized() and since_asked > ASK_SECONDS:  # all workers ask: Ray's answer is a barrier
            self.asked, self.notice = now, ray.train.get_preemption_info() is not None
        limit = NOTICE_SECONDS if self.notice else 60 * self.run.checkpoint_minutes
        return self.notice > before or bool(since_saved > limit)

    def _monitor(self) -> None:
        """Score the monitored rows, and write this epoch into the history."""
        steps = max(1, len(self.run.train) // self.task.batch_size)
        names = sorted(self.sums)
        sums = torch.tensor([float(self.sums[n]) / steps for n in names], dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(sums)
            sums /= self.world
        metrics = {f"train_{n}": float(v) for n, v in zip(names, sums, strict=True)}
        rows = self.run.monitored
        due = (self.epoch + 1) % self.run.monitor_every == 0 or self.epoch + 1 == self.run.last_epoch
        if rows is not None and len(rows) and due:
            table = self._evaluate(rows)
            scores = self.task.metrics(table) if self.rank == 0 else {}
            place = self.run.monitor.replace("-", "_")
            metrics |= {f"{place}_{n}": v for n, v in scores.items() if np.isfinite(v)}
            first = next(iter(scores.values()), float("inf"))
            if self.run.monitor == "inner" and self.rank == 0 and first < self.best["value"]:
                self.best = {"epoch": self.epoch + 1, "value": first}
                name = checkpoint.best_name(self.epoch + 1)
                checkpoint.write_weights(self.run.store, name, {"weights": self._scored().state_dict()})
        metrics["learning_rate"] = next(iter(self.optimizers.values())).param_groups[0]["lr"]
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
        network, chosen = self._scored(), self.run.last_epoch
        if self.run.monitor == "inner":
            chosen = self._best_epoch()
            network.load_state_dict(checkpoint.read_weights(self.run.store, checkpoint.best_name(chosen))["weights"])
        table = self._evaluate(self.run.held_out)
        inner = None if self.run.inner is None else self._evaluate(self.run.inner)
        if self.rank:
            return
        check_ids(table[self.task.id_column], self.run.held_out_ids, self.run.name)
        store = self.run.results
        for name, rows in (("predictions", table), ("inner", inner)):
            if rows is not None:
                store.write_table(f"{name}.parquet", pa.Table.from_pandas(rows, preserve_index=False))
        digest = None
        if self.run.last_epoch == self.task.epochs:
            state = {"weights": network.state_dict(), "task": json.dumps(self.task.identity())}
            digest = checkpoint.write_weights(store, "model.pt", state)
        done = {"epoch": chosen, "rows": len(table), "weights": digest, "metrics": self.history[-1]["metrics"]}
        store.write_json("done.json", done | {"depends_on_workers": self._depends_on_workers()})
        self._clean()

    def _depends_on_workers(self) -> list[str]:
        """What lets a run whose number of workers has changed end unlike an undisturbed one by more than rounding."""
        found = depends_on_workers(self.network)
        found += ["mixed precision"] * (self.amp_dtype is not None)
        return found + ["several optimizers"] * (len(self.optimizers) > 1)

    def _best_epoch(self) -> int:
        """The epoch that scored best on the inner rows, as rank 0 knows it."""
        known = [self.best["epoch"]]
        if self.world > 1:
            dist.broadcast_object_list(known, 0)
        if not known[0]:
            raise StopRun(f"run {self.run.name}: no epoch has a score on the inner rows; choose another --monitor")
        return int(known[0])

    # ------------------------------------------------------------ state

    def _scored(self) -> nn.Module:
        return self.network if self.averaged is None else self.averaged.module

    def _evaluate(self, rows: Rows) -> pd.DataFrame:
        """Outputs of all rows, in the order of the rows: unlike an order of ids, it does not depend on the key."""
        network = self._scored()
        if self.world > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)
        plan = EvaluationPlan(rows, self.task.evaluation_batch, self.world, self.rank)
        table = evaluate(self.task, network, stream(self.task, plan, self.run.resources), self.device, self.amp_dtype)
        if self.world > 1:
            tables: list[Any] = [None] * self.world
            dist.all_gather_object(tables, table)
            table = pd.concat([t for t in tables if len(t)])
        return table.reset_index(drop=True)

    def _save(self) -> None:
        sums = {name: float(value) for name, value in self.sums.items()}
        if self.world > 1:  # each worker's sums differ; the mean of them is what the epoch will log
            total = torch.tensor([sums[n] for n in sorted(sums)], dtype=torch.float64, device=self.device)
            dist.all_reduce(total)
            sums = {n: float(v) / self.world for n, v in zip(sorted(sums), total, strict=True)}
        if self.rank:
            return
        state = {
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizers": {turn: optimizer.state_dict() for turn, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch, "step": self.step, "sums": sums, "worlds": self.worlds, "history": self.history, "best": self.best,
            "identity": json.dumps(self.task.identity()),
        }  # fmt: skip
        checkpoint.save(self.run.store.sub("checkpoints"), self.epoch, self.step, state)
        checkpoint.keep_best(self.run.store, self.best["epoch"])
        self.run.store.write_json("history.json", self.history)

    def _clean(self) -> None:
        for store in (self.run.store, self.run.results, self.run.store.sub("checkpoints")):
            store.remove_unfinished()
        self.run.store.delete("progress.json")  # of a process that is gone, or of a run that has ended

    def _resume(self) -> None:
        if self.rank == 0:
            self._clean()  # of a process of this run that was killed while it wrote
        state = checkpoint.latest(self.run.store.sub("checkpoints"))
        if state is None:
            if self.run.initial is not None:
                self.network.load_state_dict(checkpoint.read_weights(self.run.initial, initial.NAME))
                if self.averaged is not None:
                    self.averaged.module.load_state_dict(self.network.state_dict())
            return
        if state["identity"] != json.dumps(self.task.identity()):
            raise StopRun(f"run {self.run.name}: its checkpoints are of other hyper-parameters; choose another --out")
        self.network.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        for turn, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][turn])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step, self.sums = state["epoch"], state["step"], state["sums"]
        self.worlds = state.get("worlds", []) if self.step else []
        self.history, self.best = state["history"], state["best"]
        best = checkpoint.best_name(self.best["epoch"])
        if self.run.monitor == "inner" and self.best["epoch"] and not self.run.store.exists(best):
            raise StopRun(
                f"run {self.run.name}: {best}, which its checkpoint names, is not there; choose another --out"
            )
        if self.rank == 0:
            self.run.store.write_json("history.json", self.history)


@contextlib.contextmanager
def gradients_for(network: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within it only ``parameters`` of the network gather gradients; what flows through the others goes on."""
    wanted = {id(parameter) for parameter in parameters}
    held = [p for p in network.parameters() if p.requires_grad and id(p) not in wanted]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def average_of(network: nn.Module, decay: float | None) -> torch.optim.swa_utils.AveragedModel | None:
    """An exponential moving average of weights and buffers, None without a decay.

    It begins short and grows to its decay: a run of a few hundred steps would otherwise end near its random start.
    """
    if decay is None:
        return None

    @torch.no_grad()
    def average(averaged: Any, current: Any, steps: Any) -> None:
        part = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        for mean, value in zip(averaged, current, strict=True):
            mean.lerp_(value, part) if mean.is_floating_point() else mean.copy_(value)

    return torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=average, use_buffers=True)


def check_ids(found: pd.Series, expected: tuple[str, ...], name: str) -> None:
    """Raise StopRun, naming a few, unless the ids that came out are the ids that went in."""
    repeated, missing, strange = found[found.duplicated()], set(expected) - set(found), set(found) - set(expected)
    for what, ids in (("repeated", repeated), ("missing", missing), ("not asked for", strange)):
        if len(ids):
            raise StopRun(f"run {name}: {len(ids)} predictions are {what}, such as {', '.join(sorted(ids)[:5])}")


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, step, rank)).generate_state(1)[0])


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
