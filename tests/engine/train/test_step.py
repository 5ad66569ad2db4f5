"""The optimizer step without Ray: what is not finite changes no weights, and a state goes from one device to another."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from fake_gpu import GPU, fake_gpu, moved
from gpu_contract import NeverReady
from torch import Tensor, nn

from medray.engine.train.device import to_device
from medray.engine.train.layout import laid_out
from medray.engine.train.step import MOST_SKIPPED, Trainer, on_host
from medray.engine.train.stop import StopRun
from medray.systems.ich.task import SliceTask
from medray.tasks.task import At, Task

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Line(Task):
    """A straight line through points."""

    id_column: ClassVar[str] = "id"
    host: ClassVar[tuple[str, ...]] = ("id",)
    columns: ClassVar[tuple[str, ...]] = ()
    precision: Any = "fp32"
    learning_rate: float = 0.1
    schedule: Any = "constant"

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        return np.ones(len(index), dtype=bool)

    def train_example(self, row: Any, rng: np.random.Generator) -> dict[str, Any]:
        return dict(row)

    def example(self, row: Any) -> dict[str, Any]:
        return dict(row)

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(2, 1)

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        return {"loss": ((network(batch["x"]).float() - batch["y"]) ** 2).mean()}

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, Any]:
        return {}

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        return {}


def batch(value: float = 1.0) -> dict[str, Any]:
    return {"id": np.array(["one", "two"], dtype=object), "x": torch.full((2, 2), value), "y": torch.zeros(2, 1)}


def weights(trainer: Trainer) -> list[Tensor]:
    return [p.detach().clone().as_subclass(Tensor) for p in trainer.network.parameters()]


def trainer_of(task: Line) -> Trainer:
    return Trainer(task, task.network(), CPU)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize(
    "bad", [float("nan"), 1e30]
)  # the loss is not a number; the loss, and the gradient, are too large
def test_weights_are_as_they_were_when_a_step_is_not_finite(optimizer: Any, bad: float) -> None:
    trainer = trainer_of(Line(optimizer=optimizer))
    trainer.step(batch(), 0, 0, 9)
    before = weights(trainer)
    trainer.step(batch(bad), 0, 1, 9)
    assert all(map(torch.equal, weights(trainer), before))
    with pytest.raises(
        StopRun, match=r"^the loss is (nan|inf) in epoch 1; batch: one, two; try a lower --learning-rate"
    ):
        trainer.step(batch(), 0, 2, 9)


def test_a_gradient_that_is_not_finite_where_the_loss_is() -> None:
    class Steep(Line):
        def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
            return {"loss": (network(batch["x"]) * 0).abs().sqrt().sum()}  # 0, and infinitely steep

    trainer = trainer_of(Steep())
    before = weights(trainer)
    trainer.step(batch(), 0, 0, 9)
    with pytest.raises(StopRun, match="the gradient's norm is not finite in epoch 1; batch: one, two"):
        trainer.check()
    assert all(map(torch.equal, weights(trainer), before))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_on_a_gpu_weights_stay_too_and_nothing_waits(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medray.engine.train.step.Late", NeverReady)
    task = Line(optimizer=optimizer)
    with fake_gpu():
        trainer = Trainer(task, moved(task.network()), GPU)
        there = [{n: v.to(GPU) if isinstance(v, Tensor) else v for n, v in batch(x).items()} for x in (1.0, np.nan)]
        fused = [optimizer.param_groups[0].get("fused") for optimizer in trainer.optimizers.values()]
    assert fused == [None if optimizer == "rmsprop" else True]
    with fake_gpu(waits=optimizer == "rmsprop"):  # which has no fused kernel
        first = weights(trainer)
        trainer.step(there[0], 0, 0, 9)
        before = weights(trainer)
        trainer.step(there[1], 0, 1, 9)
        after = weights(trainer)
        trainer.step(there[0], 0, 2, 9)
    assert not torch.equal(before[0], first[0])
    assert all(map(torch.equal, after, before))
    assert not torch.equal(weights(trainer)[0], after[0])
    assert all(torch.isfinite(value).all() for value in weights(trainer))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_first_step_that_is_left_out_leaves_nothing_behind(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 often begins so; a fused kernel that is told to do nothing does not fill the memory of its momentum either."""
    monkeypatch.setattr("medray.engine.train.step.Late", NeverReady)
    task, ends = Line(optimizer=optimizer), []
    for first in ((np.nan, 1.0), (1.0,)):
        with fake_gpu():
            full, torch.empty_like = torch.empty_like, lambda t, **more: full_of(t, 1e35)
            try:
                trainer = Trainer(task, moved(task.network()), GPU)
                for step, x in enumerate(first):
                    there = {n: v.to(GPU) if isinstance(v, Tensor) else v for n, v in batch(x).items()}
                    trainer.step(there, 0, step, 9)
            finally:
                torch.empty_like = full
        ends.append(weights(trainer))
    assert all(map(torch.equal, *ends))


def full_of(like: Tensor, value: float) -> Tensor:
    return torch.zeros_like(like) + value


def test_workers_leave_what_lies_on_the_host_there() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        trainer = Trainer(Line(), Line().network(), CPU, world=2)
        assert trainer.model.device_ids is None
    finally:
        dist.destroy_process_group()


def test_fp16_skips_what_overflows_and_lowers_its_scale() -> None:
    trainer = trainer_of(Line(precision="fp16", clip_norm=1.0))
    trainer.step(batch(), 0, 0, 9)
    before, scale = weights(trainer), trainer.scaler.get_scale()
    trainer.step(batch(1e4), 0, 1, 9)  # the scaled gradient is beyond fp16
    trainer.check()
    assert all(map(torch.equal, weights(trainer), before))
    assert trainer.scaler.get_scale() == scale / 2
    trainer.step(batch(), 0, 2, 9)
    trainer.check()
    assert not torch.equal(weights(trainer)[0], before[0])


def test_fp16_that_can_never_step_stops() -> None:
    class Hopeless(Line):
        def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
            return {"loss": (network(batch["x"]) * 0).float().abs().sqrt().sum()}

    trainer = trainer_of(Hopeless(precision="fp16"))
    for step in range(MOST_SKIPPED):
        trainer.step(batch(), 0, step, 900)
    with pytest.raises(StopRun, match="the gradient's norm is not finite"):
        trainer.check()


def test_the_gradients_norm_is_logged_as_the_mean_over_batches() -> None:
    task = Line(optimizer="sgd", learning_rate=1e-9)
    trainer = trainer_of(task)
    for step in range(3):
        trainer.step(batch(1.0 + step), 0, step, 3)
    expected = []
    for step in range(3):
        network = task.network()
        task.losses(network, batch(1.0 + step), At())["loss"].backward()
        expected.append(torch.cat([p.grad.ravel() for p in network.parameters() if p.grad is not None]).norm().item())
    assert float(trainer.sums["gradient_norm"]) / 3 == pytest.approx(np.mean(expected), rel=1e-4)


def test_batches_that_are_gathered_step_once_and_at_the_end_of_the_epoch() -> None:
    trainer = trainer_of(Line(accumulate=2, clip_norm=1e-3))
    moved_in = []
    for step in range(3):
        before = weights(trainer)
        trainer.step(batch(), 0, step, 3)
        moved_in.append(not torch.equal(weights(trainer)[0], before[0]))
    assert moved_in == [False, True, True]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_run_begun_in_another_precision_goes_on_in_fp16(precision: Any) -> None:
    begun, on = trainer_of(Line(precision=precision, ema_decay=0.9)), trainer_of(Line(precision="fp16", ema_decay=0.9))
    begun.step(batch(), 0, 0, 9)
    on.load(begun.state())
    assert all(map(torch.equal, weights(on), weights(begun)))
    on.step(batch(), 0, 1, 9)
    on.check()
    begun.load(on.state())  # and back
    begun.step(batch(), 0, 2, 9)
    begun.check()


def test_a_state_of_a_gpu_goes_on_on_a_cpu_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's optimizer is fused; where that was kept, a CPU would run other kernels, or a GPU not leave out a bad step."""
    task = Line()
    begun = trainer_of(task)
    begun.step(batch(), 0, 0, 9)
    state = begun.state()
    with monkeypatch.context() as patched, fake_gpu():
        patched.setattr("medray.engine.train.step.Late", NeverReady)
        there = Trainer(task, moved(task.network()), GPU)
        there.load(state)
        assert there.optimizers[""].param_groups[0]["fused"] is True
        on_gpu = {n: v.to(GPU) if isinstance(v, Tensor) else v for n, v in batch().items()}
        there.step(on_gpu, 0, 1, 9)
        state = there.state()
    begun.load(state)
    assert begun.optimizers[""].param_groups[0]["fused"] is None
    begun.step(batch(), 0, 2, 9)
    begun.check()

    straight = trainer_of(task)
    for step in range(3):
        straight.step(batch(), 0, step, 9)
    for one, other in zip(weights(begun), weights(straight), strict=True):
        torch.testing.assert_close(one, other)


def test_a_state_is_a_copy() -> None:
    trainer = trainer_of(Line())
    trainer.step(batch(), 0, 0, 9)
    state = trainer.state()
    before = state["network"]["weight"].clone()
    trainer.step(batch(), 0, 1, 9)
    assert torch.equal(state["network"]["weight"], before)
    assert float(state["optimizers"][""]["state"][0]["step"]) == 1
    assert on_host([{"a": (1, "b")}]) == [{"a": (1, "b")}]


def test_the_average_grows_to_its_decay() -> None:
    task = Line(ema_decay=0.999)
    trainer = trainer_of(task)
    mean = None
    for step in range(5):
        trainer.step(batch(), 0, step, 9)
        part = 1.0 if mean is None else 1 - min(0.999, (1 + step) / (10 + step))
        mean = weights(trainer)[0] if mean is None else mean.lerp(weights(trainer)[0], part)
    assert mean is not None
    torch.testing.assert_close(trainer.scored.state_dict()["weight"], mean)
    assert trainer.scored is not trainer.network


def test_compiled_training_has_the_same_parameters() -> None:
    task = Line()
    trainer = Trainer(task, task.network(), CPU, compiled=True)
    assert list(trainer.state()["network"]) == ["weight", "bias"]
    assert {id(p) for p in trainer.model.parameters()} == {id(p) for p in trainer.network.parameters()}


def test_the_learning_rate_follows_the_schedule() -> None:
    trainer = trainer_of(replace(Line(), schedule="cosine", epochs=1))
    rates = []
    for step in range(4):
        trainer.step(batch(), 0, step, 4)
        rates.append(trainer.optimizers[""].param_groups[0]["lr"])
    assert rates == pytest.approx([0.1 * 0.5 * (1 + np.cos(np.pi * s / 4)) for s in range(4)])


def test_gradients_have_the_strides_of_their_buckets() -> None:
    """Kernels of one place under channels last: DistributedDataParallel warns, and copies, where they differ."""
    task = SliceTask(backbone="test_efficientnet", pretrained=False, size_px=32, batch_size=4)
    rng = np.random.default_rng(0)
    made = {"image": rng.integers(0, 255, (4, 3, 32, 32), np.uint8), "labels": np.zeros((4, 6), np.float32)}
    made["slice_id"] = np.array(list("abcd"), dtype=object)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        network = laid_out(task.network(), "channels-last", parallel=True)
        assert sum(p.shape[2:] == (1, 1) for p in network.parameters() if p.ndim == 4) > 3
        trainer = Trainer(task, network, CPU, world=2)  # of a group of one, which behaves alike
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Grad strides do not match")
            for step in range(2):
                trainer.step(to_device(made, CPU, task.host), 0, step, 9)
        assert trainer.model.gradient_as_bucket_view
    finally:
        dist.destroy_process_group()


class Teacher(nn.Module):
    """A student, and a frozen teacher with a norm of its own that follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = (nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 1)) for _ in "ab")
        self.teacher.requires_grad_(False)
        self.unused = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.student(x) + self.teacher(x)


class Taught(Line):
    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return Teacher()

    def optimizers(self, network: Any) -> dict[str, torch.optim.Optimizer]:
        return {"": self.make_optimizer([*network.student.parameters(), *network.unused.parameters()])}

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        SEEN.append(at)
        return super().losses(network, batch, at)

    def after_step(self, network: Any, at: At) -> None:
        assert not torch.is_grad_enabled()
        AFTER.append(at.step)
        for own, of_student in zip(network.teacher.parameters(), network.student.parameters(), strict=True):
            own.lerp_(of_student, 0.5)


SEEN: list[At] = []
AFTER: list[int] = []


def test_losses_know_where_training_is_and_a_teacher_follows() -> None:
    SEEN.clear(), AFTER.clear()
    trainer = trainer_of(Taught(epochs=3, accumulate=2, ema_decay=0.9))
    trainer.train()
    for step in range(4):
        trainer.step(batch(), 1, step, 4)
    assert [(at.epoch, at.step, at.steps, at.turn, at.workers) for at in SEEN] == [
        (1, 4 + i, 12, "", 1) for i in range(4)
    ]
    assert SEEN[-1].progress == 7 / 12
    assert all(at.averaged is trainer.averaged.module for at in SEEN)  # type: ignore[union-attr]
    assert AFTER == [5, 7]  # once a step of the optimizer, not once a batch
    ahead, behind = trainer.network.student[2].weight, trainer.network.teacher[2].weight  # type: ignore[index]
    fresh = Taught().network().teacher[2].weight  # type: ignore[index]
    assert not torch.equal(behind, fresh)
    assert not torch.equal(ahead, behind)


def test_norms_of_frozen_modules_do_not_drift() -> None:
    trainer = trainer_of(Taught())
    trainer.train()
    trainer.step(batch(5.0), 0, 0, 9)
    student, teacher = trainer.network.student, trainer.network.teacher
    assert not torch.equal(student[0].running_mean, torch.zeros(2))  # type: ignore[index]
    assert torch.equal(teacher[0].running_mean, torch.zeros(2))  # type: ignore[index]
    assert (student.training, student[1].training, teacher.training) == (True, True, False)  # type: ignore[index]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_parameters_that_a_step_leaves_out_are_looked_for_where_the_task_says_so() -> None:
    class Told(Taught):
        uses_all_parameters: ClassVar[bool] = False

    for task in (Told(), Taught()):
        trainer = Trainer(task, task.network(), CPU, world=2)  # a group of one behaves as one of two
        trainer.train()
        trainer.step(batch(), 0, 0, 9)
        if task.uses_all_parameters:
            with pytest.raises(RuntimeError, match="did not receive grad|finished reduction"):
                trainer.step(batch(), 0, 1, 9)
        else:
            trainer.step(batch(), 0, 1, 9)


@pytest.mark.usefixtures("group")
def test_a_sum_over_workers_has_no_gradient_and_leaves_the_value() -> None:
    value = torch.ones(2, requires_grad=True) * 3
    for workers in (1, 2):
        total = At(workers=workers).sum_over_workers(value)
        assert total.tolist() == [3.0, 3.0]
        assert not total.requires_grad
    total += 1
    assert value.tolist() == [3.0, 3.0]
