"""Does the GPU give what the CPU gives, and does training on it do what it should?"""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from medray.engine.nodes.changing import synchronized
from medray.engine.train.device import to_device
from medray.engine.train.layout import laid_out
from medray.engine.train.outputs import evaluate
from medray.engine.train.step import Trainer
from on_gpu.material import batches_of, device_of, kinds, noise, slice_task, slices

CPU = torch.device("cpu")


def outputs(dry: bool, until: float) -> dict[str, Any]:
    """Largest difference of any number of an output, GPU against CPU, in fp32 without TF32."""
    from medray.systems.ich.views import Views

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    found = {}
    for kind, (task, rows) in kinds(dry).items():
        torch.manual_seed(0)
        network = task.network().eval()
        views = Views(views=("plain", "flip", "transpose", "crop-90", "scale-120"))
        derive = {kind: None} | ({"features": functools.partial(views.outputs, task)} if kind == "slice" else {})
        for name, function in derive.items():
            batches = batches_of(task, rows)
            expected = evaluate(task, network, batches, CPU, outputs=function)  # type: ignore[arg-type]
            there = laid_out(copy.deepcopy(network).to(device_of(dry)), "channels-last")
            got = evaluate(task, there, batches, device_of(dry), outputs=function)  # type: ignore[arg-type]
            found[name] = difference(got, expected)
            assert found[name] < 1e-3, f"{name}: {found[name]}"
            figures = list(task.metrics(got).values()), list(task.metrics(expected).values())
            assert np.allclose(*figures, atol=1e-3, equal_nan=True), f"{name}: {figures}"
    torch.backends.cudnn.allow_tf32 = True
    return found


def difference(got: Any, expected: Any) -> float:
    assert list(got.columns) == list(expected.columns)
    largest = 0.0
    for name in expected:
        if isinstance(expected[name].iloc[0], str):
            assert got[name].tolist() == expected[name].tolist(), name
        else:
            one, other = (np.stack([np.asarray(v, dtype=np.float64) for v in table[name]]) for table in (got, expected))
            assert np.array_equal(np.isnan(one), np.isnan(other)), name
            largest = max(largest, float(np.nanmax(np.abs(one - other), initial=0.0)))
    return largest


def synchronized_norms(dry: bool, until: float) -> dict[str, Any]:
    """The conversion to batch normalization over the workers: outputs before and after. (What it does with several workers one
    GPU cannot show.)"""
    import timm

    device, found = device_of(dry), {}
    if not dry:
        dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for name in (
            ("test_efficientnet",) if dry else ("efficientnet_b3", "inception_v3", "densenet121", "seresnext50_32x4d")
        ):
            torch.manual_seed(0)
            network = timm.create_model(name, num_classes=6, drop_rate=0.0, drop_path_rate=0.0).to(device)
            other = synchronized(copy.deepcopy(network))
            images = torch.rand(4, 3, 96, 96, device=device)
            for mode in ("eval",) if dry else ("eval", "train"):
                network.train(mode == "train"), other.train(mode == "train")
                with torch.no_grad():
                    largest = float((network(images) - other(images)).abs().max())
                found[f"{name} {mode}"] = largest
                assert largest < 5e-2, f"{name} {mode}: {largest}"
    finally:
        if not dry:
            dist.destroy_process_group()
    return found


def half_precision(dry: bool, until: float) -> dict[str, Any]:
    """fp16 with clipping and accumulation: a batch that overflows changes no weight and halves the scale."""
    device = device_of(dry)
    task = small(dry, precision="fp16", clip_norm=1.0, accumulate=2, ema_decay=0.9)
    trainer = Trainer(task, laid_out(task.network().to(device), "channels-last"), device)
    trainer.train()
    batches = [to_device(b, device, task.host) for b in noise(task)]
    for step in range(8):
        trainer.step(batches[step % 4], 0, step, 100)
    trainer.check()
    before, scale = weights(trainer), trainer.scaler.get_scale()
    bad = dict(batches[0]) | {"labels": batches[0]["labels"] * 1e30}
    trainer.step(bad, 0, 8, 100)
    trainer.step(batches[1], 0, 9, 100)
    same = all(map(torch.equal, before, weights(trainer)))
    lowered = trainer.scaler.get_scale() / scale
    trainer.late.take()  # a loss of 1e30 would rightly end a run
    for step in (10, 11):
        trainer.step(batches[step % 4], 0, step, 100)
    trainer.check()
    went_on = not all(map(torch.equal, before, weights(trainer)))
    assert (same, went_on, lowered) == (True, True, 0.5)
    return {"weights_kept": same, "scale": lowered, "went_on": went_on}


def first_step(dry: bool, until: float) -> dict[str, Any]:
    """Each fused optimizer with a first step that is left out ends where it ends without that step."""
    device, found = device_of(dry), {}
    for optimizer in ("adam", "adamw", "sgd"):
        ends = []
        for first in (True, False):
            task = small(dry, precision="fp32", optimizer=optimizer)
            torch.manual_seed(0)
            trainer = Trainer(task, laid_out(task.network().to(device), "channels-last"), device)
            trainer.model.eval()  # statistics of the batch would differ by the step
            good = to_device(noise(task)[0], device, task.host)
            if first:
                trainer.step(good | {"labels": good["labels"] * float("inf")}, 0, 0, 100)
                trainer.late.take()
            trainer.step(good, 0, 0, 100)
            ends.append(weights(trainer))
        found[optimizer] = max(float((a - b).abs().max()) for a, b in zip(*ends, strict=True))
        assert found[optimizer] < 1e-5, found
    return found


def resumed_sequence(dry: bool, until: float) -> dict[str, Any]:
    """A sequence stage with dropout that goes on from a state ends as one that was not interrupted."""
    device, ends = device_of(dry), []
    task, rows = kinds(dry)["sequence"]
    batches = [to_device(b, device, task.host) for b in batches_of(task, rows, True)]
    for stop in (False, True):
        torch.manual_seed(0)
        trainer = Trainer(task, task.network().to(device), device)
        trainer.train()
        for step in range(4):
            if stop and step == 2:
                state = trainer.state()
                torch.manual_seed(7)
                trainer = Trainer(task, task.network().to(device), device)
                trainer.train()
                trainer.load(state)
            trainer.step(batches[step % len(batches)], 0, step, 100)
        ends.append(weights(trainer))
    largest = max(float((a - b).abs().max()) for a, b in zip(*ends, strict=True))
    assert largest < 1e-5, largest
    return {"largest difference": largest}


def another_gpu(dry: bool, until: float) -> dict[str, Any]:
    """A run begun in bf16 goes on in fp16, and one of a CPU on a GPU."""
    device = device_of(dry)
    rates = {}
    for first, then in (("bf16", "fp16"), ("fp16", "bf16"), ("fp32", "fp16")):
        begun = small(dry, precision=first)
        place = CPU if first == "fp32" else device
        one = Trainer(begun, laid_out(begun.network().to(place), "channels-last"), place)
        batches = noise(begun)
        for step in range(2):
            one.step(to_device(batches[step], place, begun.host), 0, step, 100)
        task = small(dry, precision=then)
        other = Trainer(task, laid_out(task.network().to(device), "channels-last"), device)
        other.load(one.state())
        for step in range(2, 6):
            loss = other.step(to_device(batches[step % 4], device, task.host), 0, step, 100)
        other.check()
        rates[f"{first} to {then}"] = float(loss)
        assert np.isfinite(float(loss))
        fused = [g.get("fused") for o in other.optimizers.values() for g in o.param_groups]
        assert dry or all(fused), fused
    return rates


def precisions(dry: bool, until: float) -> dict[str, Any]:
    """The loss after steps in fp32, bf16 and fp16 from the same start on the same batches, mean over the last tenth."""
    device, steps = device_of(dry), 6 if dry else 200
    ends = {}
    for precision in ("fp32", "bf16", "fp16"):
        task = small(dry, precision=precision, learning_rate=1e-3)
        torch.manual_seed(0)
        trainer = Trainer(task, laid_out(task.network().to(device), "channels-last"), device)
        trainer.train()
        batches = [
            to_device(b, device, task.host) for b in batches_of(task, slices(8 * task.batch_size, task.size_px), True)
        ]
        losses = [trainer.step(batches[step % 8], 0, step, steps) for step in range(steps)]
        trainer.check()
        ends[precision] = float(torch.stack(losses[-max(1, steps // 10) :]).mean())
        ends[f"{precision} first"] = float(losses[0])
    if not dry:
        assert ends["fp32"] < 0.5 * ends["fp32 first"], ends
        assert max(abs(ends[p] - ends["fp32"]) for p in ("bf16", "fp16")) < 0.1, ends
    return ends


def small(dry: bool, **more: Any) -> Any:
    more = {"learning_rate": 1e-4, **more}
    rate = more.pop("learning_rate")
    from dataclasses import replace

    return replace(
        slice_task("test_resnet" if dry else "resnet18", 32 if dry else 128, 8 if dry else 32, **more),
        learning_rate=rate,
    )


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.network.parameters()]


def convolutions_in_3d(dry: bool, until: float) -> dict[str, Any]:
    """bf16 against fp32: some versions of cuDNN were wrong (pytorch issue 163539); volumes come next."""
    device = device_of(dry)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 8, 3, padding=1)).to(device)
    volume = torch.rand(1, 1, *((12,) * 3 if dry else (96,) * 3), device=device)
    with torch.no_grad():
        plain = network(volume)
        with torch.autocast(device.type, torch.bfloat16):
            half = network(volume).float()
    largest = float((plain - half).abs().max() / plain.abs().max())
    assert largest < 0.05, largest
    return {"relative": largest}


PARTS = {
    "outputs": outputs, "synchronized norms": synchronized_norms, "half precision": half_precision,
    "first step": first_step, "resumed sequence": resumed_sequence,
    "another GPU": another_gpu, "precisions": precisions, "3D": convolutions_in_3d,
}  # fmt: skip
SECONDS: dict[str, float] = {}
