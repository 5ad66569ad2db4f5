"""VolumeTask: what segmentations of volumes have in common. Trained on crops, predicted on whole volumes by a sliding window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import tyro

from medray.tasks.sampling import balanced
from medray.tasks.task import At, Example, Task
from medray.tasks.volume_crops import CropFields, cut
from medray.tasks.volume_rows import COLUMNS, UNKNOWN, VolumeRow, box_of
from medray.tasks.volume_scores import Drawn, dice_by_threshold, voxel_scores

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medray.nn.volume_losses import Activation
    from medray.nn.volume_network import Architecture
    from medray.nn.volume_truth import Truth
else:
    Activation = Literal["sigmoid", "softmax"]
    Architecture = Literal["vnet", "segresnet", "resenc", "unet"]

IDENTIFIERS = ("scan_id", "patient_id", "visit")


@dataclass(frozen=True, kw_only=True)
class VolumeTask(CropFields, Task):
    """Classes of voxels. A system names ``channel_places`` and ``class_names``, and says which rows are labelled."""

    id_column: ClassVar[str] = "scan_id"
    columns: ClassVar[tuple[str, ...]] = COLUMNS
    host: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "own_mask", "inside", "spacing_mm")

    architecture: Architecture = "segresnet"
    width: int | None = None
    """Channels of the network's first level; its own where not given."""
    levels: int | None = None
    """Resolutions of the network; its own where not given."""
    dropout: float = 0.0
    """Of whole channels in the network."""
    drop_connect: float = 0.0
    """Part of the convolutions' weights that a training step leaves out."""
    recurrent: bool = False
    """A convolutional GRU along the first axis at the V-Net's deepest level."""

    activation: Activation = "sigmoid"
    """sigmoid: classes may overlap in the network's eyes; softmax: a voxel is of one or of none."""
    dice_weight: float = 1.0
    """Of the Dice loss with squared denominator."""
    cross_entropy_weight: float = 1.0
    focal_weight: float = 0.0
    focal_gamma: float = 2.0
    foreground_weight: float = 1.0
    """Of voxels of a class in the cross-entropy."""
    dice_of_batch: bool = False
    """Dice over all voxels of a batch, not of each crop: crops without foreground then teach something too."""
    dice_log: bool = False
    """The logarithm of Dice, whose pull does not vanish where a class is found nowhere; of classes that are shown alone."""
    steps_per_epoch: int | None = None
    """Batches of an epoch; as many as all scans once where not given. Patients have equal parts of it."""

    overlap: float = 0.5
    """Of neighbouring windows at prediction."""
    window_batch: int = 4
    """Windows that the network sees at a time."""
    test_flips: bool = False
    """Predict from the scan and its flips along every combination of flip_axes."""
    threshold: float = 0.5
    """From this probability a voxel is of its most probable class."""
    keep: tyro.conf.Suppress[Literal["uint8", "float16", "nothing"]] = "nothing"
    """Probabilities in the outputs, and the mask; where nothing is kept, scores are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_crops()
        for name in ("dropout", "drop_connect", "overlap"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: from 0 to below 1")
        weights = self.dice_weight, self.cross_entropy_weight, self.focal_weight
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ValueError(
                f"--dice-weight {weights[0]}, --cross-entropy-weight {weights[1]}, --focal-weight {weights[2]}: 0 or more, "
                "and one of them above 0"
            )
        if not 0 < self.threshold < 1:
            raise ValueError(f"--threshold {self.threshold}: between 0 and 1")
        if not 0 < self.foreground_weight < math.inf or not 0 <= self.focal_gamma < math.inf:
            raise ValueError(
                f"--foreground-weight {self.foreground_weight}, --focal-gamma {self.focal_gamma}: above 0, and 0 or more"
            )
        for name in ("window_batch", "steps_per_epoch"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.foreground_class is not None and not 1 <= self.foreground_class <= len(self.class_names):
            raise ValueError(f"--foreground-class {self.foreground_class}: from 1 to {len(self.class_names)}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the mask's numbers, from 1."""
        raise NotImplementedError

    @property
    def channel_places(self) -> tuple[int, ...]:
        """Of the network's channels in the shards."""
        raise NotImplementedError

    @property
    def channel_count(self) -> int:
        """Of the network; known without the shards."""
        return len(self.channel_places)

    def finished(self, mask_DHW: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:  # noqa: N803  axes
        """The mask that is given out, such as without small components."""
        return mask_DHW

    def voxels_of(self, number: int, probability: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """(D, H, W) bool: what is given out as a class, which is what is scored.

        Args:
            probability: (classes, D, H, W). mask: (D, H, W) ``finished``, a voxel of one class.
        """
        return np.asarray(mask == number)

    def scores_of(
        self, name: str, found: np.ndarray, drawn: np.ndarray, known: np.ndarray, spacing_mm: np.ndarray
    ) -> dict[str, float]:
        """Of one class of a scan, by ``voxels_of``; each becomes a column <score>_<class>. (D, H, W) bool each."""
        return voxel_scores(found, drawn, known, float(np.prod(spacing_mm)) / 1000)

    # ------------------------------------------------------------ examples

    @property
    def examples_per_row(self) -> int:
        return self.crops

    @property
    def evaluation_batch(self) -> int:
        return 1

    def crops_per_epoch(self, scans: int) -> int:
        """Of an epoch over so many scans, for a plan."""
        return scans * self.crops if self.steps_per_epoch is None else self.steps_per_epoch * self.batch_size

    def times_per_epoch(self, index: pd.DataFrame) -> np.ndarray:
        patients = index["patient_id"]
        scans = patients.groupby(patients).transform("size").to_numpy()
        count = patients.nunique()
        if self.steps_per_epoch is None:
            readings = len(index)
        else:
            readings = -(-self.steps_per_epoch * self.batch_size // self.crops)
        if readings < count:  # some patients in one epoch, the others in the next
            return readings / count / scans
        return balanced(patients, readings)

    def volume_of(self, row: Mapping[str, Any]) -> VolumeRow:
        """A row of the shards as the network is to see it."""
        return VolumeRow.of(row, self.channel_places)

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        return self.train_examples(row, [rng])[0]

    def train_examples(self, row: Mapping[str, Any], rngs: Sequence[np.random.Generator]) -> list[Example]:
        """Each holds "voxels" (channels, D, H, W) of the patch and its context, and "mask" (D, H, W) of the patch."""
        volume = self.volume_of(row)
        crops = [cut(volume, self, rng) for rng in rngs]
        return [{"scan_id": row["scan_id"], "voxels": voxels, "mask": mask} for voxels, mask in crops]

    def example(self, row: Mapping[str, Any]) -> Example:
        """The whole volume; "own_mask" is UNKNOWN everywhere where there is none."""
        volume = self.volume_of(row)
        mask = volume.mask_DHW
        return {
            **{name: row[name] or "" for name in IDENTIFIERS},
            "voxels": volume.whole(),
            "own_mask": np.full(volume.shape, UNKNOWN, np.uint8) if mask is None else mask,
            "inside": volume.inside_DHW,
            "spacing_mm": volume.spacing_mm,
        }

    # ------------------------------------------------------------ training

    def network(self) -> nn.Module:
        from medray.nn.volume_network import volume_network

        outputs = len(self.class_names) + (self.activation == "softmax")
        return volume_network(
            self.architecture, self.channel_count, outputs, self.width, self.levels, self.dropout,
            self.drop_connect, self.recurrent,
        )  # fmt: skip

    def truth(self, batch: dict[str, Any]) -> Truth:
        """What is drawn in the crops of a batch."""
        from medray.nn.volume_truth import Truth

        return Truth.of_numbers(batch["mask"], len(self.class_names))

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        margin = self.context_padding
        logits = network(batch["voxels"])
        if margin:
            logits = logits[:, :, margin:-margin, margin:-margin, margin:-margin]
        return self.losses_of(logits, self.truth(batch), at)

    def losses_of(self, logits: Tensor, truth: Truth, at: At) -> dict[str, Tensor]:
        """ "loss", as the weights of the fields mix it, and its parts.

        Args:
            logits: (batch, outputs, D, H, W) of the patch.
        """
        from medray.nn import volume_losses as of

        parts = {}
        if self.dice_weight:
            dice = of.dice_loss(logits, truth, self.activation, at, self.dice_of_batch, self.dice_log)
            parts["dice_loss"] = self.dice_weight, dice
        if self.cross_entropy_weight:
            entropy = of.cross_entropy(logits, truth, self.activation, at, self.foreground_weight)
            parts["cross_entropy"] = self.cross_entropy_weight, entropy
        if self.focal_weight:
            parts["focal"] = (
                self.focal_weight,
                of.focal_loss(logits, truth, self.activation, at, self.focal_gamma),
            )
        total: Any = sum(weight * part for weight, part in parts.values())
        return {"loss": total, **{name: part for name, (_, part) in parts.items()}}

    def counted_network(self) -> nn.Module:
        """The network as ``training_gigabytes`` counts it, which shows it voxels alone."""
        # weights that are left out hide their layers from the count, and change nothing of it
        return replace(self, drop_connect=0.0).network()

    def training_gigabytes(self) -> float | None:
        import torch

        from medray.nn.memory import training_gigabytes

        network = self.counted_network()
        sides = (side + 2 * self.context_padding for side in self.patch_DHW)
        inputs = torch.empty((1, self.channel_count, *sides), device="meta")
        return training_gigabytes(network.to("meta"), inputs, self.batch_size, 4 if self.precision == "fp32" else 2)

    # ------------------------------------------------------------ prediction

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """On the grid of the shards: "mask" and "probability" as bytes (``volume_rows.mask_of``, ``probability_of``), scores
        of each class against the mask that is there, NaN where there is none, and Dice at several thresholds."""
        rows = []
        for i in range(len(batch["voxels"])):
            inside, notes = np.asarray(batch["inside"][i]), dict[str, Any]()
            found = self._probabilities(network, batch["voxels"][i : i + 1], inside, notes)
            drawn, spacing_mm = self.drawn_in(batch, i), np.asarray(batch["spacing_mm"][i])
            columns = self._columns(found, drawn, spacing_mm) | self.noted(notes, drawn, spacing_mm)
            rows.append({name: batch[name][i] for name in IDENTIFIERS} | columns)
        return {name: _column([row[name] for row in rows]) for name in rows[0]}

    def drawn_in(self, batch: Mapping[str, Any], i: int) -> Drawn:
        """What is drawn in scan ``i`` of a batch of ``example``."""
        return Drawn(np.asarray(batch["own_mask"][i]))

    def noted(self, notes: Mapping[str, Any], drawn: Drawn, spacing_mm: np.ndarray) -> dict[str, Any]:
        """Further columns, of what ``answered`` has noted on a scan; "first" is the place of what it was given in the scan."""
        return {}

    def _columns(self, found: np.ndarray, drawn: Drawn, spacing_mm: np.ndarray) -> dict[str, Any]:
        if self.keep == "uint8":  # the mask is that of the probabilities that are kept
            found = np.rint(found * 255).astype(np.float32) / 255
        best = found.max(0) if len(found) > 1 else found[0]
        number = found.argmax(0).astype(np.uint8) + 1 if len(found) > 1 else 1
        mask = self.finished(np.where(best >= self.threshold, number, 0).astype(np.uint8), spacing_mm)
        columns: dict[str, Any] = {"shape_DHW": list(mask.shape)}
        if self.keep != "nothing":
            columns["mask"] = mask.tobytes()
            kept = np.rint(found * 255).astype(np.uint8) if self.keep == "uint8" else found.astype(np.float16)
            columns |= {"probability": kept.tobytes(), "probability_type": self.keep}
        for i, name in enumerate(self.class_names):
            scores = self.scores_of(name, self.voxels_of(i + 1, found, mask), *drawn.of(i + 1), spacing_mm)
            columns |= {f"{score}_{name}": value for score, value in scores.items()}
        return columns | {"dice_by_threshold": dice_by_threshold(best, drawn.mask)}

    def _probabilities(
        self, network: nn.Module, voxels: Tensor, inside: np.ndarray, notes: dict[str, Any]
    ) -> np.ndarray:
        """(classes, D, H, W) float32 of a (1, channels, D, H, W) volume; 0 outside of the brain, where nothing is looked at."""
        out = np.zeros((len(self.class_names), *inside.shape), np.float32)
        box = box_of(inside)
        if any(part.start == part.stop for part in box):
            return out
        part = voxels[(slice(None), slice(None), *box)]
        notes["first"] = tuple(side.start for side in box)
        axes = [i + 2 for i, name in enumerate("DHW") if name in self.flip_axes and self.test_flips]
        flips = [f for n in range(len(axes) + 1) for f in itertools.combinations(axes, n)]
        total: Any = 0
        for flip in flips:
            total = total + self.answered(network, part.flip(flip) if flip else part, notes).flip(flip)
        found = (total / len(flips))[0].cpu().numpy()
        out[(slice(None), *box)] = found * inside[box]
        return out

    def answered(self, network: nn.Module, voxels: Tensor, notes: dict[str, Any]) -> Tensor:
        """Probabilities (1, classes, D, H, W) of a (1, channels, D, H, W) part of a scan; ``notes`` takes what ``noted`` wants."""
        from medray.nn.volume_losses import probabilities_of

        return self.windowed(lambda some: probabilities_of(network(some).float(), self.activation), voxels)

    def windowed(self, answer: Callable[[Tensor], Tensor], voxels: Tensor) -> Tensor:
        """What ``answer`` says of each window, joined: (1, …, D, H, W). Each window shows its patch and its context; only the
        patch counts, its middle more than its borders."""
        from monai.data.utils import compute_importance_map  # seconds
        from monai.inferers import sliding_window_inference
        from torch.nn import functional

        margin, sides = self.context_padding, voxels.shape[2:]
        weights = compute_importance_map(
            self.patch_DHW, mode="gaussian", sigma_scale=0.125, device=voxels.device, dtype=voxels.dtype
        )
        # a volume that is smaller than a patch is put into the middle of one
        missing = [max(0, patch - side) for patch, side in zip(self.patch_DHW, sides, strict=True)]
        before = [margin + m // 2 for m in missing]
        pads = [n for m, b in zip(missing, before, strict=True) for n in (b, m + 2 * margin - b)]
        pads = [n for axis in (2, 1, 0) for n in pads[2 * axis : 2 * axis + 2]]
        window = tuple(patch + 2 * margin for patch in self.patch_DHW)
        overlaps = [1 - max(1, int(p * (1 - self.overlap))) / w for p, w in zip(self.patch_DHW, window, strict=True)]
        found = sliding_window_inference(
            functional.pad(voxels, pads) if any(pads) else voxels, window, self.window_batch,
            answer, overlaps,
            roi_weight_map=functional.pad(weights, [margin] * 6)[None, None],
        )  # fmt: skip
        box = tuple(slice(b, b + side) for b, side in zip(before, sides, strict=True))
        assert not isinstance(found, tuple | dict)
        return found[(slice(None), slice(None), *box)]


def _column(values: list[Any]) -> np.ndarray:
    if isinstance(values[0], bytes | str | list):
        out = np.empty(len(values), dtype=object)
        out[:] = values
        return out
    return np.array(values)
