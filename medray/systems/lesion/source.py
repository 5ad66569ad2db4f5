"""MR scans of several channels → voxels on one grid, with intensities as the brain has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import pyarrow as pa
import tyro

from medray.imaging.intensity import SIGMA_VOXELS, between_percentiles, brain_mask, high_passed, smoothed, whitened
from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume, read_volume_header
from medray.imaging.volume_checks import class_numbers
from medray.imaging.volume_grid import axis_codes, canonical, difference, resampled, same_grid
from medray.shards.files import Files
from medray.shards.leakage import pixels_hash
from medray.shards.source import Encoded, Source
from medray.tasks.volume_rows import UNKNOWN, in_box

PLACES = 10_000
"""Voxels of a class that are kept, to cut crops around: a crop with lesion then costs no search."""
_SEED = 20151

_DHW = {"axes": "D, H, W: towards right, front and head"}


@dataclass(frozen=True, kw_only=True)
class BrainMR(Source):
    """The files of a case → channels of one grid, axes towards right, front and head; the brain is where any is not 0."""

    channels: tyro.conf.Suppress[tuple[str, ...]] = ()  # of a case; the job sets them
    classes: tyro.conf.Suppress[tuple[str, ...]] = ("lesion",)  # of the mask's numbers, from 1; the job sets them
    other_grids: Literal["refuse", "resample"] = "refuse"
    """Of channels that are not on the first one's grid: set the case aside and say what differs, or resample (linear)."""
    missing_channels: Literal["refuse", "zeros"] = "refuse"
    """Of a case that has not all channels: set it aside, or take 0 for what is missing (train with --channel-dropout)."""
    intensities: Literal["whiten", "percentiles"] = "whiten"
    """whiten: mean 0 and deviation 1 in the brain; percentiles: 0 at the brain's 0.5th, 1 at its 99.5th."""
    smooth: bool = False
    """Add a copy of each channel, filtered with a Gaussian of 5 voxels."""
    high_pass: bool = False
    """Add a copy of each channel, less its filtered one."""

    id_column: ClassVar[str] = "scan_id"
    version: ClassVar[int] = 2
    rows_per_group: ClassVar[int] = 1
    scan_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("item_id", pa.string(), metadata={"meaning": "of a DICOM file: its SOPInstanceUID"}),
            pa.field("kind", pa.string()),
            pa.field("series_id", pa.string()),
        ]
    )
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("scan_id", pa.string(), nullable=False, metadata={"identifier": "scan"}),
            pa.field("patient_id", pa.string(), nullable=False, metadata={"identifier": "patient"}),
            pa.field("visit", pa.string(), metadata={"meaning": "1, 2, … in the order of their names"}),
            pa.field("shape_DHW", pa.list_(pa.int32())),
            pa.field("spacing_mm", pa.list_(pa.float64()), metadata=_DHW),
            pa.field("affine", pa.list_(pa.float64()), metadata={"meaning": "16, row by row: (d, h, w) → RAS+ mm"}),
            pa.field("orientation", pa.string(), metadata={"meaning": "axes of the first channel's file, such as LPS"}),
            pa.field(
                "voxels", pa.large_binary(), metadata={"axes": "channels, D, H, W", "dtype": "float32", "of": "box_DHW"}
            ),
            pa.field(
                "box_DHW", pa.list_(pa.int32()), metadata={"meaning": "first and after last of D, H, W: of the brain"}
            ),
            pa.field("brain", pa.binary(), metadata=_DHW | {"dtype": "bits"}),
            pa.field("mask", pa.large_binary(), metadata=_DHW | {"dtype": "uint8", "meaning": f"{UNKNOWN} is unknown"}),
            pa.field("foreground", pa.list_(pa.int32()), metadata={"meaning": "flat places of some voxels of a class"}),
            pa.field("lesion_ml", pa.float64(), metadata={"unit": "mL", "meaning": "null where nobody has drawn"}),
            pa.field("channels_there", pa.list_(pa.int8())),
            pa.field("pixels_hash", pa.string(), metadata={"meaning": "of the first channel, as the file has it"}),
        ]
    )

    @property
    def folder(self) -> str:
        return "scans"

    @property
    def stored_channels(self) -> tuple[str, ...]:
        """Names of the channels in the shards: those of a case, then their copies."""
        copies = [f"{name}-smooth" for name in self.channels if self.smooth]
        return (*self.channels, *copies, *(f"{name}-highpass" for name in self.channels if self.high_pass))

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        header = read_volume_header(stream, self.allow_burned_in)
        return [{"item_id": header.slice_id or None, "kind": header.kind, "series_id": header.series_id or None}]

    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        first, channels, notes = self._channels(files)
        notes += [
            f"{name} is 0 everywhere"
            for name, channel in zip(self.channels, channels, strict=True)
            if channel is not None and not channel.any()
        ]
        brain = brain_mask([channel for channel in channels if channel is not None])
        normalise = whitened if self.intensities == "whiten" else between_percentiles
        nothing = np.zeros(brain.shape, np.float32)
        scaled = [nothing if channel is None else normalise(channel, brain) for channel in channels]
        copies = [smoothed(channel, brain, SIGMA_VOXELS) for channel in scaled if self.smooth]
        copies += [high_passed(channel, brain, SIGMA_VOXELS) for channel in scaled if self.high_pass]
        upright = canonical(first)
        columns = {
            "shape_DHW": list(brain.shape),
            "spacing_mm": list(upright.spacing_mm),
            "affine": upright.affine.ravel().tolist(),
            "orientation": axis_codes(first),
            **in_box(np.stack([*scaled, *copies]), brain),
            "brain": np.packbits(brain).tobytes(),
            "channels_there": [int(channel is not None) for channel in channels],
            "pixels_hash": pixels_hash(first.voxels),
        }
        columns |= self._mask(files, upright)
        return [Encoded(columns, "; ".join(notes) or None)] * len(rows)

    def _channels(self, files: Files) -> tuple[Volume, list[np.ndarray | None], list[str]]:
        """The first channel that is there, as its file has it; all of them on its grid; and what was done to them."""
        volumes = {name: read_volume(files.several(name), name) for name in self.channels if name in files}
        lost = [name for name in self.channels if name not in volumes]
        if not volumes:
            raise Unreadable(f"none of {', '.join(self.channels)} is there")
        if lost and self.missing_channels == "refuse":
            raise Unreadable(f"{lost[0]} is missing; give it, or --missing-channels zeros")
        notes = [f"{name} is missing: 0 is taken for it" for name in lost]
        name, first = next(iter(volumes.items()))
        like = canonical(first)
        found: list[np.ndarray | None] = []
        for channel in self.channels:
            if channel not in volumes:
                found.append(None)
                continue
            volume = canonical(volumes.pop(channel))
            if not same_grid(volume, like):
                what = f"{channel}: another grid than {name}: {difference(volume, like)}"
                if self.other_grids == "refuse":
                    raise Unreadable(f"{what}; register it to {name}, or --other-grids resample")
                volume = resampled(volume, like, order=1)
                notes.append(f"{what}; resampled")
            found.append(volume.voxels)
        return first, found, notes

    def _mask(self, files: Files, like: Volume) -> dict[str, Any]:
        if "mask" not in files:
            return {"mask": None, "foreground": None, "lesion_ml": None}
        drawn = canonical(read_volume(files.several("mask"), "mask"))
        if not same_grid(drawn, like):
            raise Unreadable(f"mask: another grid than the scan: {difference(drawn, like)}; draw it on the scan itself")
        try:
            mask = class_numbers(drawn, range(1, len(self.classes) + 1))
        except Unreadable as error:
            raise Unreadable(f"mask: {error} (--classes names them)") from None
        if (mask == UNKNOWN).all():
            return {"mask": None, "foreground": None, "lesion_ml": None}
        places = np.flatnonzero((mask != 0) & (mask != UNKNOWN))
        millilitres = len(places) * like.voxel_mm3 / 1000
        if len(places) > PLACES:
            places = np.sort(np.random.default_rng(_SEED).choice(places, PLACES, replace=False))
        return {"mask": mask.tobytes(), "foreground": places.astype(np.int32), "lesion_ml": millilitres}


def source_of(identity: Mapping[str, Any]) -> BrainMR:
    """The source that wrote ``identity``. Raises ValueError for one of another version."""
    if identity.get("version") != BrainMR.version:
        raise ValueError(f"the run was trained on scans of version {identity.get('version')}; train it again")
    known = {f.name for f in fields(BrainMR)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in identity.items() if k in known}
    return BrainMR(**values)
