"""The sequence stage's task: the embedded slices of a stack → six probabilities for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import tyro

from medray.metrics.binary import unsmoothed
from medray.shards.classes import any_known
from medray.systems.ich.classes import CLASSES, PROBABILITIES, column_weights
from medray.systems.ich.features import STACK_SCHEMA
from medray.systems.ich.scores import slice_metrics
from medray.tasks.task import At, Example, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

_SEPARATOR = "\n"
_OF_STACK = ("stack_id", "study_id", "patient_id")


@dataclass(frozen=True, kw_only=True)
class SequenceTask(Task):
    """A bidirectional LSTM over a whole stack; loss and score are the challenge's weighted log loss of its slices."""

    id_column: ClassVar[str] = "slice_id"
    columns: ClassVar[tuple[str, ...]] = tuple(STACK_SCHEMA.names)
    host: ClassVar[tuple[str, ...]] = ("slice_id", *_OF_STACK, "index", "position_mm", "lengths")

    feature_count: tyro.conf.Suppress[int] = 0  # of the backbone; the job sets it
    hidden: int = 256
    """Units of the LSTM in each direction."""
    layers: int = 2
    """Layers of the LSTM."""
    dropout: float = 0.3
    """After the embedding, between the layers and before the last layer."""
    reverse_view: bool = True
    """At prediction, average the logits of the stack and of the stack upside down."""
    random_reverse: bool = True
    """Turn every other training stack upside down, so that the reverse view is nothing new."""
    epidural_weight: float = 1.0
    """Weight of epidural's column in the loss."""
    any_weight: float = 2.0
    """Weight of any's column in the loss; the challenge's score has 2, and 1 for each other class."""
    label_smoothing: float = 0.0
    """Labels become this much less certain in the loss; probabilities are of the labels as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.epidural_weight, self.any_weight) < 0:
            weights = f"--sequence.epidural-weight {self.epidural_weight}, --sequence.any-weight {self.any_weight}"
            raise ValueError(f"{weights}: 0 or more")
        if min(self.hidden, self.layers) < 1:
            raise ValueError(f"--sequence.hidden {self.hidden}, --sequence.layers {self.layers}: must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"--sequence.dropout {self.dropout}: from 0 to below 1")

    def identity(self) -> dict[str, Any]:
        """Its network has had another form: what was trained with that one does not go on in this one."""
        return super().identity() | {"form": 2}

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        """Where one class is known of one slice."""
        return any_known(index, CLASSES)

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        example = self.example(row)
        if self.random_reverse and rng.uniform() < 0.5:
            for name in ("features", "labels", "index", "position_mm"):
                example[name] = example[name][::-1].copy()
            example["slice_id"] = _SEPARATOR.join(example["slice_id"].split(_SEPARATOR)[::-1])
        return example

    def example(self, row: Mapping[str, Any]) -> Example:
        if row["feature_count"] != self.feature_count:
            raise ValueError(
                f"stack {row['stack_id']}: embedded with {row['feature_count']} features, expected {self.feature_count}"
            )
        features = np.frombuffer(row["feature"], dtype=np.float16).reshape(-1, self.feature_count)
        labels = [[np.nan if v is None else float(v) for v in row[name]] for name in CLASSES]
        return {
            **{name: row[name] for name in _OF_STACK},
            # one text: in a batch on its way through Ray Data every column has as many entries as there are stacks
            "slice_id": _SEPARATOR.join(row["slice_id"]),
            "index": np.array(row["index"], dtype=np.int32),
            "position_mm": np.array(row["position_mm"], dtype=np.float64),
            "features": features.astype(np.float32),
            "labels": np.array(labels, dtype=np.float32).T,
        }

    def collate(self, examples: list[Example]) -> dict[str, Any]:
        """Stacks, padded at the end to the longest of them; lengths says how long each is."""
        lengths = np.array([len(e["index"]) for e in examples], dtype=np.int64)
        batch: dict[str, Any] = {"lengths": lengths}
        for name, filler in (("features", 0), ("labels", np.nan), ("index", 0), ("position_mm", 0)):
            first = examples[0][name]
            padded = np.full((len(examples), int(lengths.max()), *first.shape[1:]), filler, dtype=first.dtype)
            for place, example in enumerate(examples):
                padded[place, : lengths[place]] = example[name]
            batch[name] = padded
        for name in (*_OF_STACK, "slice_id"):
            batch[name] = np.array([e[name] for e in examples], dtype=object)
        return batch

    def network(self) -> nn.Module:
        from medray.nn.stack import StackLSTM

        if self.feature_count < 1:
            raise ValueError("feature_count: the sequence stage needs a backbone's features")
        return StackLSTM(self.feature_count, self.hidden, self.layers, len(CLASSES), self.dropout)

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        import torch

        from medray.nn.losses import masked_binary_cross_entropy

        logits = network(batch["features"], torch.from_numpy(batch["lengths"])).flatten(0, 1)
        weights = column_weights(self.epidural_weight, self.any_weight)
        labels = batch["labels"].flatten(0, 1)  # padding is unlabelled
        return {"loss": masked_binary_cross_entropy(logits, labels, weights, self.label_smoothing)}

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        import torch

        from medray.nn.stack import reverse

        counts = batch["lengths"]
        features, lengths = batch["features"], torch.from_numpy(counts)
        logits = network(features, lengths).double()
        if self.reverse_view:
            turned = network(reverse(features, lengths), lengths).double()
            logits = (logits + reverse(turned, lengths)) / 2
        real = np.arange(logits.shape[1]) < counts[:, None]
        probabilities = unsmoothed(logits.sigmoid().cpu().numpy()[real], self.label_smoothing)
        labels = batch["labels"].cpu().numpy()[real]
        ids = [name for text in batch["slice_id"] for name in str(text).split(_SEPARATOR)]
        return {
            "slice_id": np.array(ids, dtype=object),
            **{name: np.repeat(np.asarray(batch[name]), counts) for name in ("patient_id", "study_id", "stack_id")},
            **{name: batch[name][real] for name in ("index", "position_mm")},
            **{column: probabilities[:, i] for i, column in enumerate(PROBABILITIES)},
            **{column: labels[:, i] for i, column in enumerate(CLASSES)},
        }

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        return slice_metrics(outputs)
