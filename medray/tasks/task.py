"""Task: what a problem is. Its fields are the hyper-parameters, its methods are what only it knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # a Task is also read by CPU workers that never run a network: torch stays out of their imports
    import torch
    from torch import Tensor, nn

Example = dict[str, Any]
SomeTask = TypeVar("SomeTask", bound="Task")


@dataclass(frozen=True, kw_only=True)
class At:
    """Where training is, for ``Task.losses`` and ``Task.after_step``."""

    turn: str = ""
    """Of ``Task.optimizers``."""
    epoch: int = 0
    step: int = 0
    """Batches before this one, over the whole run."""
    steps: int = 1
    """Batches of the whole run."""
    averaged: nn.Module | None = None
    """The network with the average of the weights, where the task has an ``ema_decay``: a teacher without gradients."""
    workers: int = 1

    @property
    def progress(self) -> float:
        """0 at the first batch of the run, towards 1 at its end: for losses and weights that ramp."""
        return self.step / self.steps

    def sum_over_workers(self, value: Tensor) -> Tensor:
        """``value`` summed over all workers, without gradient; every worker must ask.

        For what all of them count together; a loss is then a ``mean``.
        """
        total = value.detach().clone()
        if self.workers > 1:
            import torch.distributed

            torch.distributed.all_reduce(total)
        return total

    def mean(self, total: Tensor, count: Tensor) -> Tensor:
        """A worker's part of a mean over the batches of all: its own ``total`` over the ``count`` of all, such as known voxels;
        0 where nothing is counted. Gradients are averaged over workers, so it is their number times that."""
        return total * self.workers / self.sum_over_workers(count).clamp(min=1e-12)


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One trainable problem. ``replace(task, learning_rate=3e-4)`` is an override, a Tune sample and a smoke test.

    A Task knows nothing of workers, folds or files; an engine knows nothing of labels or networks.
    """

    id_column: ClassVar[str]  # unique in every table of outputs
    columns: ClassVar[tuple[str, ...]]  # what an example is made from
    host: ClassVar[tuple[str, ...]] = ()  # of a batch: what stays in the host's memory, as numpy arrays
    stack_column: ClassVar[str] = ""  # where ``context`` is above 0: rows that share it are one stack
    uses_all_parameters: ClassVar[bool] = True  # where a step's loss may leave some out, several workers look for them

    epochs: int = 5
    """Passes over the training rows."""
    batch_size: int = 32
    """Examples in one optimizer batch, over all workers together."""
    accumulate: int = 1
    """Optimizer steps once in this many batches."""
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    """Which torch optimizer; sgd has momentum 0.9."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Of the optimizer (decoupled in adamw)."""
    schedule: Literal["constant", "cosine", "one-cycle", "exponential"] = "cosine"
    """Learning rate over the run; exponential multiplies by schedule_gamma after each epoch."""
    schedule_gamma: float = 0.9
    """Factor of the exponential schedule."""
    warmup_fraction: float = 0.0
    """Part of the run in which the rate rises linearly from nothing (constant, cosine, exponential)."""
    clip_norm: float | None = None
    """Clip the gradient's norm to this."""
    ema_decay: float | None = None
    """Score and predict with an exponential moving average of the weights; its decay per step."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """auto: bf16 where the GPU has it, else fp16 with gradient scaling; fp32 on a CPU."""
    seed: int = 0
    """Of initial weights, sample order, augmentation and dropout."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate {self.learning_rate}: must be above 0")

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run: the checkpoint's identity and MLflow's parameters."""
        return {"task": type(self).__name__, **asdict(self)}

    @abstractmethod
    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        """(rows,) bool, whether there is anything to learn from each row of an index of the shards; the others are only
        predicted. An index holds the identifiers and the columns that the system names in ``System.columns``."""

    @property
    def context(self) -> int:
        """Rows before and after a row, of its own stack, that an example is made from: ``row["context"]``."""
        return 0

    @property
    def shard_needs(self) -> tuple[str, ...]:
        """What the shards must hold for it, in the words of its system's ``Source.holding``."""
        return ()

    def reading(self: SomeTask, source: Any) -> SomeTask:
        """The task on rows that this source has made. Raises ValueError where it cannot use them."""
        return self

    @property
    def examples_per_row(self) -> int:
        """Training examples that are made from a row each time that it is read, such as crops of a volume."""
        return 1

    @property
    def evaluation_batch(self) -> int:
        """Rows in one batch of outputs; 1 for volumes that differ in size."""
        return self.batch_size

    def learning_from(self: SomeTask, index: pd.DataFrame) -> SomeTask:
        """The task of a run, which knows what its training rows hold, such as how rare a class is among them.

        Args:
            index: of the training rows.
        """
        return self

    def times_per_epoch(self, index: pd.DataFrame) -> np.ndarray:
        """(rows,) how often an epoch sees each training row, above 0: at 3 three times, at 0.5 every other epoch does.
        ``tasks.sampling.balanced`` gives equal parts of an epoch to strata, and a fixed number of steps."""
        return np.ones(len(index))

    def keeps_inner(self, index: pd.DataFrame) -> bool:
        """Whether a tenth of the patients is not trained on even where nothing is monitored on them. By default where rows
        are seen more or less often than others: probabilities then need recalibration on rows that are not."""
        return bool((self.times_per_epoch(index) != 1).any())

    def in_epoch(self: SomeTask, epoch: int) -> SomeTask:
        """The task that makes the training examples of an epoch (from 0). All else, evaluation too, stays with the whole
        run's task; columns and context are the same."""
        return self

    @property
    def starts_from_weights(self) -> bool:
        """Whether ``network`` fetches weights from somewhere; ``without_weights`` then gives the same shape."""
        return False

    def without_weights(self: SomeTask) -> SomeTask:
        """The task with a network of the same shape and random weights: others are about to be loaded."""
        return self

    @abstractmethod
    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        """One row of the shards as an augmented training example. Runs on any CPU; all randomness from ``rng``."""

    def train_examples(self, row: Mapping[str, Any], rngs: Sequence[np.random.Generator]) -> list[Example]:
        """All examples that a window of batches has of one row, which was read once: one for each of ``rngs``, and each
        depends on its own only. A task that makes crops decodes and resamples here, once; ``sampling.number_of`` tells which
        of a reading's examples each one is."""
        return [self.train_example(row, rng) for rng in rngs]

    @abstractmethod
    def example(self, row: Mapping[str, Any]) -> Example:
        """One row of the shards as an inference example; it holds ``id_column``."""

    def collate(self, examples: list[Example]) -> dict[str, Any]:
        """Examples → a batch of numpy arrays with the batch first; text becomes an object array."""
        return {
            name: np.array([e[name] for e in examples], dtype=object)
            if isinstance(examples[0][name], str)
            else np.stack([np.asarray(e[name]) for e in examples])
            for name in examples[0]
        }

    @abstractmethod
    def network(self) -> nn.Module:
        """The network, on the CPU. Raises ValueError where the fields name none."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: dict[str, Tensor], at: At) -> dict[str, Tensor]:
        """Scalar losses of a batch by name; "loss" is the one that is minimised. NaN labels do not count.

        Called once in each turn of a step, under autocast. Ask the device for no number (``item``, ``float``): every step
        would wait for it.
        """

    @abstractmethod
    def outputs(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Output columns of a batch, one entry an example. The same for validation and prediction."""

    @abstractmethod
    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        """Figures of a table of outputs. The first one decides where a checkpoint is chosen; lower is better."""

    def example_input(self) -> np.ndarray:
        """A batch of two inputs of the network, for model signatures; a task without one logs no model to MLflow."""
        raise NotImplementedError

    @property
    def has_example_input(self) -> bool:
        return type(self).example_input is not Task.example_input

    def training_gigabytes(self) -> float | None:
        """About what a step on a whole batch takes of one GPU's memory; None where a task cannot say. It decides whether
        a run takes one GPU or those of a node."""
        return None

    def counted_gigabytes(self) -> float | None:
        """``training_gigabytes`` of a network of images in bytes, counted off its layers; None where its forward pass looks at
        values."""
        import torch

        from medray.nn.memory import training_gigabytes

        network = self.without_weights().network()
        inputs = torch.empty(self.example_input().shape, dtype=torch.uint8, device="meta")
        value_bytes = 4 if self.precision == "fp32" else 2
        try:
            return training_gigabytes(network.to("meta"), inputs, self.batch_size, value_bytes)
        except (RuntimeError, NotImplementedError):
            return None

    def optimizers(self, network: nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Turn → the optimizer of its parameters. In every step the turns come one after the other, each with
        ``losses`` of the turn (``at.turn``) and gradients for its own parameters only: a network and its adversary are
        two."""
        return {"": self.make_optimizer(network.parameters())}

    def after_step(self, network: nn.Module, at: At) -> None:  # noqa: B027  most tasks need none
        """Called after each optimizer step, on every worker, without gradients; for a teacher that follows its student.

        ``network`` is the trained one, not its average, which has been brought up to date. What this changes must be in
        the network's state, or a resumed run is another run.
        """

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The one that the fields describe."""
        import torch

        own = list(parameters)
        rate, decay = self.learning_rate, self.weight_decay
        if self.optimizer == "rmsprop":
            return torch.optim.RMSprop(own, lr=rate, alpha=0.9, eps=1.0, weight_decay=decay)
        fused = (
            True if own and own[0].is_cuda else None
        )  # a kernel for all of them; it also leaves out a bad step by itself
        if self.optimizer == "sgd":
            descent = torch.optim.SGD(own, lr=rate, momentum=0.9, weight_decay=decay, fused=fused)
            for parameter in own if fused else ():  # a first step that is left out would leave what the memory held
                descent.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return descent
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return kind(own, lr=rate, weight_decay=decay, fused=fused)

    def rate_factor(self, step: int, total_steps: int) -> float:
        """Learning rate at optimizer step ``step`` of ``total_steps``, as a part of the peak."""
        part = step / max(1, total_steps)
        if self.schedule == "one-cycle":  # Smith and Topin 2017: up to the peak at 30%, then down to nothing
            return 0.04 + 0.96 * _half_cosine(1 - part / 0.3) if part < 0.3 else _half_cosine((part - 0.3) / 0.7)
        if part < self.warmup_fraction:
            return (step + 1) / (self.warmup_fraction * total_steps + 1)
        if self.schedule == "cosine":
            return _half_cosine((part - self.warmup_fraction) / max(1e-9, 1 - self.warmup_fraction))
        if self.schedule == "exponential":
            return float(self.schedule_gamma ** int(part * self.epochs))
        return 1.0


def _half_cosine(part: float) -> float:
    """1 at part 0, 0 at part 1."""
    return float(0.5 * (1 + np.cos(np.pi * min(1.0, max(0.0, part)))))
