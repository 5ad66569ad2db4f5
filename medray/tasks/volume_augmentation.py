"""Augmentation of crops of volumes: one resampling for all that moves voxels, then the intensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

Axis = Literal["D", "H", "W"]
CONTROL_POINTS = 5
"""Of a deformation, along each axis of a crop."""


@dataclass(frozen=True, kw_only=True)
class VolumeAugmentation:
    """Fields of a task. Whatever is 0 or empty is off."""

    resampled_share: float = 1.0
    """Augment: part of the crops that is turned, scaled, deformed and shifted; the others are cut out as they are."""
    rotation_deg: float = 0.0
    """Augment: largest rotation about each axis, in mm space."""
    scaling: float = 0.0
    """Augment: largest change of scale."""
    deformation_mm: float = 0.0
    """Augment: standard deviation of the shifts of a coarse grid, between which all voxels move smoothly."""
    subvoxel_shift: bool = False
    """Augment: shift by up to half a voxel along each axis."""
    flip_axes: tuple[Axis, ...] = ()
    """Augment with flips along these axes of the volume, each half of the time."""
    noise: float = 0.0
    """Augment: standard deviation of noise that multiplies each voxel."""
    mean_shift: float = 0.0
    """Augment: most that is added to a channel, in its standard deviations."""
    deviation_shift: float = 0.0
    """Augment: most that a channel is stretched by, in parts of it."""
    gamma: float = 0.0
    """Augment: largest logarithm of the exponent that a channel's intensities are raised to; mean and deviation stay."""
    channel_dropout: float = 0.0
    """Augment: probability that a channel is missing, as one may be at prediction; never all of them."""

    def check_augmentation(self) -> None:
        """Raises ValueError where a field is out of range."""
        for name in ("resampled_share", "channel_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: from 0 to 1")
        for name in ("rotation_deg", "scaling", "deformation_mm", "noise", "mean_shift", "deviation_shift", "gamma"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 0 or more")
        if self.scaling >= 1:
            raise ValueError(f"--scaling {self.scaling}: must be below 1")
        if len({*self.flip_axes}) != len(self.flip_axes):
            raise ValueError(f"--flip-axes {' '.join(self.flip_axes)}: each axis once")

    @property
    def moves(self) -> bool:
        """Whether anything but flips moves voxels."""
        return self.resampled_share > 0 and bool(
            self.rotation_deg or self.scaling or self.deformation_mm or self.subvoxel_shift
        )


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the voxels of a crop come from, relative to its middle: ``matrix`` · (place − middle) + ``shift`` of the place."""

    matrix: np.ndarray  # (3, 3)
    shift: np.ndarray | None  # (3, D, H, W) float32 voxels
    size: np.ndarray  # (3,) of the crop

    @classmethod
    def drawn(
        cls, of: VolumeAugmentation, size: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator
    ) -> Motion:
        angles = np.deg2rad(rng.uniform(-of.rotation_deg, of.rotation_deg, 3))
        scale = np.exp(rng.uniform(-1, 1) * -np.log1p(-of.scaling))
        turn = np.eye(3)
        for axis, angle in enumerate(angles):
            one = np.eye(3)
            a, b = (i for i in range(3) if i != axis)
            one[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            turn = turn @ one
        matrix = np.diag(1 / spacing_mm) @ (turn * scale) @ np.diag(spacing_mm)
        shift = None
        if of.deformation_mm:
            coarse = rng.normal(0, of.deformation_mm, (3, *(CONTROL_POINTS,) * 3)) / spacing_mm[:, None, None, None]
            shift = np.stack([_smooth(one, size) for one in coarse])
        return cls(matrix, shift, size)

    def at(self, place: np.ndarray) -> np.ndarray:
        """(3,) where one voxel of the crop comes from, relative to its middle."""
        found = self.matrix @ (place - (self.size - 1) / 2)
        return found if self.shift is None else found + self.shift[(slice(None), *place)]

    def everywhere(self) -> np.ndarray:
        """(D, H, W, 3) float32, ``at`` of every voxel."""
        axes = [np.arange(n) - (n - 1) / 2 for n in self.size]
        columns = [axis[:, None] * self.matrix[:, i] for i, axis in enumerate(axes)]
        found = columns[0][:, None, None] + columns[1][None, :, None] + columns[2][None, None, :]
        found = found.astype(np.float32)
        return found if self.shift is None else found + np.moveaxis(self.shift, 0, -1)

    def reach(self, margin: int) -> tuple[np.ndarray, np.ndarray]:
        """(3,) and (3,) a box about the middle that all voxels come from, those of the ``margin`` around the crop left out."""
        half = np.abs(self.matrix) @ ((self.size - 1) / 2 - margin)
        if self.shift is None:
            return -half, half
        return -half + self.shift.min((1, 2, 3)), half + self.shift.max((1, 2, 3))


def _smooth(coarse: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(5, 5, 5) → ``size`` float32, by cubic splines along one axis after the other."""
    found = coarse
    for axis, side in enumerate(size):
        found = np.moveaxis(np.tensordot(_spline(int(side)), found, axes=(1, axis)), 0, axis)
    return found.astype(np.float32)


def _spline(side: int) -> np.ndarray:
    """(side, CONTROL_POINTS) how much of each control point a voxel has."""
    places = np.linspace(0, CONTROL_POINTS - 1, side)
    return np.stack(
        [ndimage.map_coordinates(one, [places], order=3, mode="nearest") for one in np.eye(CONTROL_POINTS)], 1
    )


def sampled_at(voxels_CDHW: np.ndarray, places: np.ndarray, nearest: bool) -> np.ndarray:  # noqa: N803  axes
    """(channels, depth, height, width) at (D, H, W, 3) places, voxels; (channels, D, H, W) float32, 0 outside."""
    import torch
    from torch.nn import functional

    low = np.floor(places.min((0, 1, 2))).astype(int)
    high = np.ceil(places.max((0, 1, 2))).astype(int) + 1
    shape = np.array(voxels_CDHW.shape[1:])
    low, high = np.clip(low, 0, shape - 1), np.clip(high, 1, shape)
    box = voxels_CDHW[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    # places in torch's measure: -1 and 1 are the outer faces of the first and the last voxel, the last axis comes first
    grid = ((2 * (places - low) + 1) / (high - low) - 1)[..., ::-1].astype(np.float32)
    found = functional.grid_sample(
        torch.from_numpy(box.astype(np.float32, order="C"))[None],
        torch.from_numpy(np.ascontiguousarray(grid))[None],
        mode="nearest" if nearest else "bilinear",
        padding_mode="zeros",
        align_corners=False,
    )[0]
    return found.numpy()


def vary(voxels: np.ndarray, inside: np.ndarray, of: VolumeAugmentation, rng: np.random.Generator) -> None:
    """Change the intensities of a crop in place; those outside of the brain stay 0.

    Args:
        voxels: (channels, D, H, W) float32.
        inside: (D, H, W) bool.
    """
    for channel in voxels:
        if of.gamma:
            _raise(channel, inside, float(np.exp(rng.uniform(-of.gamma, of.gamma))))
        if of.deviation_shift or of.mean_shift:
            there = channel.any()  # a channel that is missing stays missing
            channel *= np.float32(1 + rng.uniform(-of.deviation_shift, of.deviation_shift))
            channel += np.float32(rng.uniform(-of.mean_shift, of.mean_shift) * there)
    if of.noise:
        voxels *= 1 + np.float32(of.noise) * rng.standard_normal(voxels.shape, np.float32)
    if of.mean_shift:
        voxels *= inside
    if of.channel_dropout:
        missing = rng.random(len(voxels)) < of.channel_dropout
        missing[rng.integers(len(missing))] &= not missing.all()
        voxels[missing] = 0


def _raise(channel: np.ndarray, inside: np.ndarray, exponent: float) -> None:
    """Between its least and its largest value inside, with the same mean and deviation after it."""
    own = channel[inside]
    if not len(own) or own.max() <= own.min():
        return
    low, span = own.min(), own.max() - own.min()
    raised = ((own - low) / span) ** np.float32(exponent)
    deviation = raised.std()
    channel[inside] = (raised - raised.mean()) * (own.std() / max(deviation, np.float32(1e-6))) + own.mean()
