from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants, hf_hub_download
from torch import Tensor

from medray.engine.train.checkpoint import write_initial
from medray.nn.backbone import Backbone, first_line
from medray.nn.weights import WeightsWarning, load_weights
from medray.shards.store import Store
from medray.systems.ich.task import SliceTask

pytestmark = pytest.mark.usefixtures("one_thread")

HUB_CLASSES, CLASSES = 1000, 6
State = dict[str, Tensor]


def hub_state(name: str = "test_resnet", seed: int = 7, channels: int = 3) -> State:
    """What a hub's file holds: a classifier for 1000 classes, and no tensor that equals a fresh network's."""
    network = timm.create_model(name, num_classes=HUB_CLASSES, in_chans=channels)
    noise = torch.Generator().manual_seed(seed)
    return {
        n: torch.rand(value.shape, generator=noise) + 0.1 if value.is_floating_point() else value + 3
        for n, value in network.state_dict().items()
    }


def backbone(name: str = "test_resnet", channels: int = 3, classes: int = CLASSES, seed: int = 1) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(name, channels, classes, pretrained=False)


def copy_of(state: State) -> State:
    return {n: value.clone() for n, value in state.items()}


def save_safetensors(state: State, path: Path) -> Path:
    safetensors.torch.save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def save_torch(state: Any, path: Path) -> Path:
    torch.save(state, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def the_line(network: Backbone, path: object, name: str = "test_resnet", channels: int = 3) -> str:
    """The one line of the error; the network is untouched."""
    before = copy_of(network.state_dict())
    with pytest.raises(ValueError, match="--weights") as error:
        load_weights(network, name, channels, str(path))
    line = str(error.value)
    assert "\n" not in line
    assert str(path) in line
    assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())
    return line


@pytest.mark.parametrize("save", [save_safetensors, save_torch])
@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "test_efficientnet"])
def test_the_body_comes_from_a_hubs_file_and_the_head_stays_its_own(
    name: str, save: Callable[[State, Path], Path], tmp_path: Path
) -> None:
    state, network = hub_state(name), backbone(name)
    head = copy_of(network.head.state_dict())
    load_weights(network, name, 3, str(save(state, tmp_path / "hub")))
    body = network.body.state_dict()
    assert len(body) == len(state) - 2  # all but the classifier's weight and bias
    for n, value in body.items():
        assert torch.equal(value, state[n]), n
    assert all(torch.equal(value, head[n]) for n, value in network.head.state_dict().items())


def begin(state: State, prefix: str) -> State:
    return {f"{prefix}{n}": value for n, value in state.items()}


OPTIMIZER = {"state": {0: {"step": torch.zeros(()), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
WRAPPED: list[Callable[[State], Any]] = [
    *(
        lambda s, key=key: {"epoch": 3, key: s, "optimizer": OPTIMIZER}  # type: ignore[misc]
        for key in (
            "state_dict", "model_state_dict", "model", "net", "ema", "state_dict_ema", "model_ema", "weights_ema",
            "network", "weights",
        )
    ),
    *(
        lambda s, prefix=prefix: begin(s, prefix)  # type: ignore[misc]
        for prefix in (
            "module.", "model.", "backbone.", "_orig_mod.", "net.", "encoder.", "test_resnet.", "0.",
            "module.test_resnet.", "_orig_mod.module.", "module._orig_mod.", "model.backbone._orig_mod.net.encoder.",
        )
    ),
    lambda s: {"state_dict": begin(s, "module."), "best_auc": np.float64(0.9), "epoch": np.int64(3)},
    lambda s: {"checkpoint": {"model": begin(s, "module.model.")}, "epoch": 3},
    lambda s: {"model": {"n_averaged": torch.tensor(3), **begin(s, "module.")}},  # torch's AveragedModel
]  # fmt: skip


def without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*args: object, **kwargs: object) -> None:
        pytest.fail("the hub was asked")

    for name in ("load_state_dict_from_hf", "load_state_dict_from_url", "download_cached_file", "load_custom_from_hf"):
        monkeypatch.setattr(f"timm.models._builder.{name}", asked)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", asked)
    monkeypatch.setattr("medray.nn.backbone.get_session", asked)


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_file_as_other_training_scripts_wrap_it(
    wrap: Callable[[State], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_hub(monkeypatch)
    state, network = hub_state(), backbone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WeightsWarning)  # of a classifier under another name than the network's
        load_weights(network, "test_resnet", 3, str(save_torch(wrap(state), tmp_path / "wrapped")))
    assert all(torch.equal(value, state[n]) for n, value in network.body.state_dict().items())


def test_a_score_of_numpy_1_beside_the_tensors(tmp_path: Path) -> None:
    state, network, path = hub_state(), backbone(), tmp_path / "old.pth"
    torch.save({"state_dict": state, "best_auc": np.float64(0.9)}, path, _use_new_zipfile_serialization=False)
    new = path.read_bytes()
    assert b"numpy._core.multiarray" in new
    path.write_bytes(new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    load_weights(network, "test_resnet", 3, str(path))
    assert all(torch.equal(value, state[n]) for n, value in network.body.state_dict().items())


def as_of_2017(state: State) -> State:
    """A DenseNet under DataParallel as torch 0.3 saved it: ``norm.1`` for ``norm1``, batches are not counted yet."""
    renamed = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12])\.", r"\1.\2.", n): value for n, value in state.items()
    }
    return {f"module.densenet121.{n}": v for n, v in renamed.items() if not n.endswith("num_batches_tracked")}


def test_a_densenet_of_2017(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    without_hub(monkeypatch)
    state = hub_state("densenet121")
    old = as_of_2017(state)
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in old
    network = backbone("densenet121")
    load_weights(
        network, "densenet121", 3, str(save_torch({"state_dict": old, "best_loss": 0.1}, tmp_path / "chexnet"))
    )
    for n, value in network.body.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, state[n]), n
    assert "".join(capfd.readouterr()) == ""


def the_warning(state: Any, path: Path) -> str:
    network = backbone()
    with pytest.warns(WeightsWarning) as said:
        load_weights(network, "test_resnet", 3, str(save_torch(state, path)))
    (only,) = said
    return str(only.message)


def test_what_has_no_place_in_the_network_is_named(tmp_path: Path) -> None:
    state = hub_state()
    extra = {f"decoder.{i}.weight": torch.zeros(2) for i in range(4)}
    line = the_warning(begin(state, "encoder.") | extra | {"encoder.aux.bias": torch.zeros(2)}, tmp_path / "unet")
    assert "5 of its tensors have no place in test_resnet" in line
    assert line.endswith("encoder.aux.bias, decoder.0.weight, decoder.1.weight, …")


def test_of_two_sets_that_fit_the_averaged_one_is_taken_and_it_is_said(tmp_path: Path) -> None:
    state, averaged, network = hub_state(seed=7), hub_state(seed=8), backbone()
    path = save_torch({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "timm")
    with pytest.warns(
        WeightsWarning, match=r"state_dict_ema: \* is taken; the names of state_dict: \* would fit as well"
    ):
        load_weights(network, "test_resnet", 3, str(path))
    assert all(torch.equal(value, averaged[n]) for n, value in network.body.state_dict().items())


def test_a_job_shows_what_has_no_place_and_nothing_of_the_libraries(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = {f"model.{n}": v for n, v in hub_state().items()} | {"loss.weight": torch.zeros(2)}
    task = SliceTask(backbone="test_resnet", weights=str(save_torch(state, tmp_path / "peer")))
    write_initial(task, Store(tmp_path / "run"))
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("! --weights ")
    assert line.endswith("1 of its tensors have no place in test_resnet and are left out: loss.weight")


def test_one_channel_is_the_sum_of_the_files_three(tmp_path: Path) -> None:
    state, network = hub_state(), backbone(channels=1)
    load_weights(network, "test_resnet", 1, str(save_safetensors(state, tmp_path / "hub")))
    body = network.body.state_dict()
    torch.testing.assert_close(body["conv1.0.weight"], state["conv1.0.weight"].sum(dim=1, keepdim=True))
    assert all(torch.equal(value, state[n]) for n, value in body.items() if n != "conv1.0.weight")


def test_five_channels_repeat_the_files_three_at_the_same_brightness(tmp_path: Path) -> None:
    state, network = hub_state(), backbone(channels=5)
    load_weights(network, "test_resnet", 5, str(save_torch(state, tmp_path / "hub")))
    wanted = state["conv1.0.weight"][:, [0, 1, 2, 0, 1]] * 3 / 5
    torch.testing.assert_close(network.body.state_dict()["conv1.0.weight"], wanted)


def test_a_runs_model_is_loaded_whole(tmp_path: Path) -> None:
    other, network = backbone(seed=2), backbone(seed=1)
    path = save_torch({"weights": other.state_dict(), "task": '{"task": "SliceTask"}'}, tmp_path / "model")
    load_weights(network, "test_resnet", 3, str(path))
    assert all(torch.equal(value, other.state_dict()[n]) for n, value in network.state_dict().items())
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.eval()(images), other.eval()(images))


def test_no_such_file(tmp_path: Path) -> None:
    assert "there is no such file" in the_line(backbone(), tmp_path / "absent.pt")
    assert "or it cannot be read" in the_line(backbone(), tmp_path)  # a folder


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"an html page\nthat says that the file has moved\n", b""])
def test_a_file_that_holds_no_tensors(content: bytes, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"weights.{suffix}").write_bytes(content)
    assert "not a file of tensors" in the_line(backbone(), tmp_path / f"weights.{suffix}")


@pytest.mark.parametrize("value", [torch.zeros(3), [torch.zeros(3)]])
def test_tensors_without_names(value: Any, tmp_path: Path) -> None:
    path = save_torch(value, tmp_path / "weights")
    assert f"holds {type(value).__name__}, expected tensors by name" in the_line(backbone(), path)


@pytest.mark.parametrize("value", [{}, {"epoch": 3}, {"state_dict": {}, "epoch": 3}])
def test_a_file_without_any_tensor(value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_hub(monkeypatch)
    path = save_torch(value, tmp_path / "weights")
    assert "holds no tensor, expected tensors by name" in the_line(backbone(), path)


class Burglar:
    """Unpickling it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    path = save_torch({"state_dict": hub_state(), "arguments": Burglar(trace)}, tmp_path / "weights")
    line = the_line(backbone(), path)
    assert "not a file of tensors" in line
    assert "save the model's state_dict() alone" in line
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the trap works
    assert trace.exists()


def test_a_whole_pickled_model(tmp_path: Path) -> None:
    line = the_line(backbone(), save_torch(timm.create_model("test_resnet"), tmp_path / "model"))
    assert "timm.models.resnet.ResNet" in line
    assert "save the model's state_dict() alone" in line


@pytest.mark.parametrize(("file", "network"), [("test_byobnet", "test_resnet"), ("test_resnet", "test_efficientnet")])
@pytest.mark.parametrize("save", [save_safetensors, save_torch])
def test_weights_of_another_architecture(
    file: str, network: str, save: Callable[[State, Path], Path], tmp_path: Path
) -> None:
    path = save(hub_state(file), tmp_path / "hub")
    assert f"another architecture than {network}" in the_line(backbone(network), path, network)


def test_a_file_in_which_a_layer_is_missing(tmp_path: Path) -> None:
    state = hub_state()
    del state["conv1.0.weight"]
    line = the_line(backbone(), save_safetensors(state, tmp_path / "hub"))
    assert "another architecture" in line
    assert "1 of its" in line
    assert "not in the file by name, such as conv1.0.weight" in line


def test_a_file_without_the_statistics_of_batch_normalization(tmp_path: Path) -> None:
    state = hub_state()
    del state["bn1.running_mean"]
    assert "not in the file by name, such as bn1.running_mean" in the_line(
        backbone(), save_torch(state, tmp_path / "hub")
    )


def test_a_file_of_which_no_name_fits(tmp_path: Path) -> None:
    state = {f"layer_{i}": value for i, value in enumerate(hub_state().values())}
    line = the_line(backbone(), save_safetensors(state, tmp_path / "other"))
    assert "tensors is in the file by name; they are named like bn1.bias, the file's like layer_0" in line


def test_a_file_in_which_a_layer_has_another_shape(tmp_path: Path) -> None:
    state = hub_state()
    state["conv1.0.weight"] = state["conv1.0.weight"][:-1]
    line = the_line(backbone(), save_safetensors(state, tmp_path / "hub"))
    assert "1 of its" in line
    assert "another shape, such as conv1.0.weight (16×3×3×3 needed, 15×3×3×3 in the file)" in line


def test_a_runs_model_of_another_architecture(tmp_path: Path) -> None:
    path = save_torch({"weights": backbone("test_byobnet").state_dict(), "task": "{}"}, tmp_path / "model")
    assert "another architecture than test_resnet" in the_line(backbone(), path)


def test_a_runs_model_of_another_number_of_classes(tmp_path: Path) -> None:
    path = save_torch({"weights": backbone(classes=2).state_dict(), "task": "{}"}, tmp_path / "model")
    assert "a model of 2 classes, 6 are needed" in the_line(backbone(), path)


def test_keys_in_a_uri_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(uri: str) -> bytes:
        assert "secret" in uri  # the address itself goes where it is needed
        raise OSError(f"cannot reach {uri}")

    monkeypatch.setattr("medray.nn.weights_file.read_file", unreachable)
    with pytest.raises(ValueError, match="--weights s3://bucket/weights.pt: there is no such file") as error:
        load_weights(backbone(), "test_resnet", 3, "s3://key:secret@bucket/weights.pt?region=us-east-1")
    assert "secret" not in str(error.value)
    assert "key" not in str(error.value)


def test_loading_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    path, network = save_safetensors(hub_state(), tmp_path / "hub"), backbone()
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load_weights(network, "test_resnet", 3, str(path))
    assert torch.equal(torch.rand(3), wanted)


def test_a_task_starts_from_the_file_of_its_own_backbone(tmp_path: Path) -> None:
    states = {name: hub_state(name) for name in ("test_resnet", "test_byobnet")}
    for name, state in states.items():
        save_safetensors(state, tmp_path / name)
    for name, state in states.items():
        task = SliceTask(backbone=name, weights=str(tmp_path / "{backbone}.safetensors"), windows=("brain",))
        assert task.starts_from_weights
        network = task.network()
        assert isinstance(network, Backbone)
        body = network.body.state_dict()
        first = "conv1.0.weight" if name == "test_resnet" else "stem.conv.weight"
        torch.testing.assert_close(body[first], state[first].sum(dim=1, keepdim=True))
        assert network.head.out_features == CLASSES


def test_the_same_shape_without_weights_needs_no_file(tmp_path: Path) -> None:
    task = SliceTask(backbone="test_resnet", weights=str(tmp_path / "absent.pt"))
    with pytest.raises(ValueError, match="absent.pt: there is no such file"):
        task.network()
    bare = task.without_weights()
    assert not bare.starts_from_weights
    assert isinstance(bare.network(), Backbone)


def test_offline_the_error_says_what_else_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to the hub\nand more of it")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(ValueError, match="cannot be loaded") as error:
        Backbone("test_resnet", 3, CLASSES, pretrained=True)
    line = str(error.value)
    assert "\n" not in line
    for part in ("--backbones test_resnet", "no route to the hub", "--weights", "--no-pretrained"):
        assert part in line
    with pytest.raises(ConnectionError):  # not a matter of the hub: it is not explained away
        Backbone("test_resnet", 3, CLASSES, pretrained=False)


def test_offline_the_hub_is_not_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            asked.append(url)
            assert timeout <= 10
            raise ConnectionError("name or service not known\nand more of it")

    monkeypatch.setattr("medray.nn.backbone.get_session", Session)
    monkeypatch.setattr("medray.nn.backbone.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("timm.models._hub.hf_hub_download", partial(hf_hub_download, cache_dir=str(tmp_path)))
    log = logging.getLogger("huggingface_hub")
    level, begun = log.level, time.monotonic()
    with pytest.raises(ValueError, match="cannot be reached: name or service not known; the cache") as error:
        Backbone("resnet18", 3, CLASSES, pretrained=True)
    assert time.monotonic() - begun < 10
    assert len(asked) == 2
    assert "--weights FILE_OR_URI" in str(error.value)
    assert "Retrying" not in "".join(capfd.readouterr())
    assert (log.level, constants.HF_HUB_OFFLINE) == (level, False)


def test_a_long_error_is_cut_between_words() -> None:
    line = first_line(ValueError("word " * 100 + "\nsecond"), 42)
    assert line == "word word word word word word word word …"
    assert first_line(KeyError()) == "KeyError"


def test_offline_a_task_with_a_file_does_not_ask_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_safetensors(hub_state(), tmp_path / "hub")

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to the hub")

    for name in ("load_state_dict_from_hf", "load_state_dict_from_url", "download_cached_file"):
        monkeypatch.setattr(f"timm.models._builder.{name}", offline)
    with pytest.raises(ValueError, match="no route to the hub"):
        SliceTask(backbone="test_resnet").network()
    SliceTask(backbone="test_resnet", weights=str(path)).network()
