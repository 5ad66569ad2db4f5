"""How a run is executed: chosen once, kept when it goes on, and known to what computes with its network later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medray.engine.data.samples import Rows
from medray.engine.nodes.cluster import Resources
from medray.engine.train import execution as module
from medray.engine.train.execution import Execution, execution, stored
from medray.engine.train.layout import fastest_layout, laid_out, layout_of
from medray.engine.train.run import Run
from medray.shards.store import Store
from medray.systems.ich.task import SliceTask

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TASK = SliceTask(backbone="test_efficientnet", pretrained=False, size_px=32, precision="fp32", batch_size=8)


def run_in(folder: Path, **more: Any) -> Run:
    store, nothing = Store(folder).sub("run"), np.zeros(0, np.int32)
    rows = Rows(Store(folder), (), nothing, nothing, nothing)
    resources = Resources(0, False, 1, 1, 1.0, 1.0)
    return replace(Run("model", 0, store, TASK, rows, rows, (), None, "none", resources), **more)


@pytest.mark.parametrize("layout", ["channels-last", "contiguous"])
def test_a_network_and_its_layout(layout: Any) -> None:
    network = laid_out(TASK.network(), layout)
    assert layout_of(network) == layout
    network.load_state_dict(laid_out(TASK.network(), "contiguous").state_dict())
    assert layout_of(network) == layout  # whatever a file held
    assert layout_of(torch.nn.Conv3d(1, 2, 3)) == "channels-last"


def test_what_the_first_process_measured_is_kept_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([("contiguous", {"channels-last": 2.0, "contiguous": 1.0}), ("channels-last", {})])
    monkeypatch.setattr(module, "fastest_layout", lambda *about: next(measured))
    run, network = run_in(tmp_path), TASK.network()
    first = execution(run, network, CPU, 1, 0)
    again = execution(run, network, CPU, 1, 0)
    assert first == again == stored(run.store) == Execution("contiguous", False)
    written = run.store.read_json("execution.json")
    assert written["seconds"]["contiguous"] == 1.0
    assert (written["device"], written["precision"]) == ("cpu", "float32")


def test_a_flag_that_comes_too_late_is_not_ignored_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = TASK.network()
    execution(run_in(tmp_path), network, CPU, 1, 0)
    assert execution(run_in(tmp_path, layout="contiguous"), network, CPU, 1, 0).layout == "channels-last"
    assert "goes on with the layout channels-last, as it began; --layout counts for new runs" in capsys.readouterr().err


def test_a_layout_that_is_asked_for_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fastest_layout", None)
    assert execution(run_in(tmp_path, layout="contiguous"), TASK.network(), CPU, 1, 0).layout == "contiguous"


def test_on_a_cpu_nothing_is_measured() -> None:
    assert fastest_layout(TASK, TASK.network(), CPU, 8) == ("channels-last", {})


@pytest.mark.parametrize(("capability", "compiled"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_only_gpus_that_gain_by_it_compile(
    capability: tuple[int, int], compiled: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert module._gains(CUDA) == compiled
    assert ("not compiled" in capsys.readouterr().err) != compiled


@pytest.mark.parametrize(("slower", "chosen"), [("channels-last", "contiguous"), ("contiguous", "channels-last")])
def test_the_quicker_layout_is_taken_and_the_network_is_left_as_it_was(
    slower: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement itself runs on the CPU here; the clock says which layout is slow."""
    now = [0.0]
    network = TASK.network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def slow_or_not(device: Any = None) -> None:
        return None

    seen: list[str] = []
    forward = type(network).forward

    def watched(self: Any, images: torch.Tensor) -> torch.Tensor:
        seen.append(layout_of(self))
        assert images.shape == (8, 3, 32, 32)
        assert images.is_contiguous(memory_format=torch.channels_last) == (seen[-1] == "channels-last")
        now[0] += 35.0 if seen[-1] == slower else 1.0
        return forward(self, images)  # type: ignore[no-any-return]

    monkeypatch.setattr(type(network), "forward", watched)
    monkeypatch.setattr("medray.engine.train.layout.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "synchronize", slow_or_not)
    monkeypatch.setattr(torch.cuda, "empty_cache", slow_or_not)
    monkeypatch.setattr("medray.engine.train.layout._MEASURED_ON", ("cuda", "cpu"))
    layout, seconds = fastest_layout(TASK, network, CPU, 8)
    assert layout == chosen
    assert seconds[slower] == 35.0
    assert set(seen) == {"channels-last", "contiguous"}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
