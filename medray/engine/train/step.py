"""The optimizer step: forward, backward, clip, update. Plain torch, without Ray and without files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medray.engine.train.device import Late, autocast_dtype
from medray.engine.train.stop import StopRun
from medray.nn.average import Averaged
from medray.tasks.task import At, Task

MOST_SKIPPED = 64
"""Steps in a row that fp16 may skip: each halves the loss's scale, and 2^16 / 2^64 is no scale any more."""


class Trainer:
    """A task's network and what trains it; ``step`` makes it go.

    Nothing in a step waits for the device, where the optimizer is fused (adam, adamw, sgd): the learning rate is the host's, whether the gradients are finite is decided
    where they are, and the host reads of it a step later (``check``). A step whose gradients are not finite leaves the
    weights as they are.

    Args:
        network: on its device.
        world, rank: of torch's process group, where there is one.
        compiled: let torch compile the forward pass of training.
    """

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        device: torch.device,
        world: int = 1,
        rank: int = 0,
        compiled: bool = False,
    ) -> None:
        self.task, self.network, self.device = task, network, device
        self.world, self.rank = world, rank
        self.model: Any = torch.compile(network) if compiled else network  # under other names, the same parameters
        self.optimizers = task.optimizers(network)
        if world > 1:
            # in a turn of several, the parameters of the others get no gradient
            several = len(self.optimizers) > 1 or not task.uses_all_parameters
            # without device_ids: with them it would move what a network takes from the host to the GPU
            self.model = DistributedDataParallel(
                self.model, find_unused_parameters=several, gradient_as_bucket_view=True
            )
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["peak_lr"] = group["lr"]
        self.amp_dtype = autocast_dtype(task.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp_dtype is torch.float16)
        self.averaged = None if task.ema_decay is None else Averaged(network, task.ema_decay)
        self.sums: dict[str, Any] = {}  # of this epoch's steps; divided by their number they are its means
        self.late = Late(device, 3)
        self.skipped = torch.zeros((), device=device)  # steps in a row

    @property
    def scored(self) -> nn.Module:
        """The network that predicts: with the average of the weights, where there is one."""
        return self.network if self.averaged is None else self.averaged.module

    def train(self) -> None:
        """Put the network into the mode for training, but for modules whose parameters are all frozen: in training mode
        their norms would go on to count, and drift away from what the weights were trained with."""
        self.model.train()
        for module in self.network.modules():
            own = [parameter.requires_grad for parameter in module.parameters()]
            if own and not any(own):
                module.eval()

    def step(self, batch: dict[str, Any], epoch: int, step: int, steps: int) -> Tensor:
        """One batch; the optimizers step once in ``accumulate`` of them, and at the end of the epoch.

        Args:
            batch: on the device, as ``on_device`` gives it.
            step, steps: of the epoch.
        Returns:
            The loss, a scalar on the device.
        """
        # one seed a step: dropout then needs no saved random state, and a resumed run equals an uninterrupted one
        torch.manual_seed(step_seed(self.task.seed, epoch, step, self.rank))
        steps_now = (step + 1) % self.task.accumulate == 0 or step + 1 == steps
        at = At(
            epoch=epoch, step=epoch * steps + step, steps=self.task.epochs * steps,
            averaged=None if self.averaged is None else self.averaged.module, workers=self.world,
        )  # fmt: skip
        factor = self.task.rate_factor(at.step, at.steps)
        total = torch.zeros((), device=self.device)
        bad = torch.zeros((), dtype=torch.bool, device=self.device)
        for turn, optimizer in self.optimizers.items():
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            losses = self._gradients(replace(at, turn=turn), own, batch, steps_now)
            if steps_now:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_lr"] * factor
                bad = bad | self._update(turn, optimizer, own, step % self.task.accumulate + 1)
            for name, loss in losses.items():
                self._add(f"{turn}_{name}" if turn else name, loss.detach().double())
            total += losses["loss"].detach()
        if steps_now:
            self.scaler.update()
            self.skipped = torch.where(bad, self.skipped + 1, torch.zeros_like(self.skipped))
            if self.averaged is not None:
                self.averaged.update_parameters(self.network)
            with torch.no_grad():
                self.task.after_step(self.network, at)
        values = torch.stack([total.double(), bad.double(), self.skipped.double()])
        self.check()  # of the step before; this one's numbers are not there yet
        self.late.put(values, (epoch, batch[self.task.id_column]))
        return total

    def check(self) -> None:
        """Raise StopRun if the step before could not be taken. Called before a state is kept, too."""
        found = self.late.take()
        if found is None:
            return
        (loss, bad, skipped), (epoch, ids) = found
        if math.isfinite(loss) and (not bad or (self.scaler.is_enabled() and skipped < MOST_SKIPPED)):
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient's norm is not finite"
        names = " ".join(map(str, ids)).split()  # an example may have several ids
        few = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise StopRun(
            f"{what} in epoch {epoch + 1}; batch: {few}; try a lower --learning-rate, --clip-norm 1 or --precision fp32"
        )

    def _gradients(self, at: At, own: list[Tensor], batch: dict[str, Any], steps_now: bool) -> dict[str, Tensor]:
        with contextlib.ExitStack() as context:
            if not steps_now and isinstance(self.model, DistributedDataParallel):
                context.enter_context(self.model.no_sync())
            if len(self.optimizers) > 1:
                context.enter_context(gradients_for(self.network, own))
            with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
                losses = self.task.losses(self.model, batch, at)
            self.scaler.scale(losses["loss"] / self.task.accumulate).backward()
        return losses

    def _update(self, turn: str, optimizer: torch.optim.Optimizer, own: list[Tensor], batches: int) -> Tensor:
        """Step, unless a gradient is not finite; gives whether one is, a bool on the device.

        Args:
            batches: whose gradients are gathered.
        """
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)
        gradients = [parameter.grad for parameter in own if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        bad = ~torch.isfinite(norm)
        if self.task.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(own, self.task.clip_norm, norm)
        if self.device.type == "cpu":
            if not bad:
                optimizer.step()
        elif getattr(optimizer, "_step_supports_amp_scaling", False):  # fused: it leaves the weights by itself
            optimizer.grad_scale, optimizer.found_inf = None, bad.float()  # type: ignore[attr-defined]
            optimizer.step()
        elif not bool(bad.cpu()):  # has no such kernel: this one waits
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        norms = torch.where(bad, torch.zeros_like(norm), norm).double()
        self._add(f"{turn}_gradient_norm" if turn else "gradient_norm", norms * batches)
        return bad

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    # ------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        """What training goes on from: tensors of its own, on the CPU."""
        return on_host(
            {
                "network": self.network.state_dict(),
                "averaged": None if self.averaged is None else self.averaged.state_dict(),
                "optimizers": {turn: optimizer.state_dict() for turn, optimizer in self.optimizers.items()},
                "scaler": self.scaler.state_dict(),
            }
        )

    def load(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, which may come from another kind of device."""
        self.network.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        for turn, optimizer in self.optimizers.items():
            saved = state["optimizers"][turn]
            for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
                # which kernels run is this device's choice, not that of the one that the state was saved on
                group |= {name: own[name] for name in ("fused", "foreach") if name in own}
            optimizer.load_state_dict(saved)
        if state["scaler"] and self.scaler.is_enabled():  # empty in a state of bf16 or fp32
            self.scaler.load_state_dict(state["scaler"])

    def begin_from(self, weights: dict[str, Tensor]) -> None:
        self.network.load_state_dict(weights)
        if self.averaged is not None:
            self.averaged.module.load_state_dict(self.network.state_dict())


def on_host(value: Any) -> Any:
    """Dictionaries and lists with copies of their tensors on the CPU: what comes next in training does not change them."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: on_host(v) for name, v in value.items()}
    return [on_host(v) for v in value] if isinstance(value, list) else value


@contextlib.contextmanager
def gradients_for(network: nn.Module, parameters: Sequence[Tensor]) -> Iterator[None]:
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


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, step, rank)).generate_state(1)[0])
