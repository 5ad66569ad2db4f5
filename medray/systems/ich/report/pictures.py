"""A handful of the original files as pictures: examples, the head mask at work, the hardest slices.

It runs on the driver, the only place that knows the files' own names. What it returns carries public names only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pandas as pd

from medray.imaging.dicom import read_slices
from medray.imaging.headmask import head_mask, remove_hardware
from medray.imaging.hounsfield import AIR_HU, LOWEST_HU
from medray.imaging.types import Slice, Unreadable
from medray.imaging.window import Window, apply_window, apply_windows, parse_window
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.scores import slice_losses
from medray.systems.ich.source import HeadCT

HISTOGRAM_EDGES_HU = np.arange(LOWEST_HU, 2001, 8)
HARDEST = 12
SERIES_AT_MOST = 8

_WIDE = Window(-100, 1500)  # foam and plastic, soft tissue and bone: what the mask decides on
_EXAMPLE_PX, _MASK_PX, _SLICE_PX = 400, 208, 264
_GAP_PX = 4
_ORANGE = np.array([255, 120, 40])


@dataclass(frozen=True)
class Shot:
    """One slice as a picture, or why there is none."""

    slice_id: str  # public
    image: np.ndarray | None  # (rows, columns) or (rows, columns, 3) uint8
    problem: str = ""


@dataclass(frozen=True)
class Masked:
    """One slice before the head mask, what the mask removes in orange, and after it."""

    shot: Shot
    index: int  # place in the stack, from the feet up; -1 where this one could not be read
    head: bool  # whether the mask holds anything
    removed: int  # pixels outside the mask that are brighter than foam (-500 HU)


@dataclass(frozen=True)
class Pictures:
    windows: tuple[tuple[str, str, Shot], ...] = ()  # name, range; one slice without a window, then under each
    histogram: np.ndarray | None = None  # (bins,) pixels of that slice's head by HISTOGRAM_EDGES_HU
    bounds_hu: tuple[tuple[str, float, float], ...] = ()  # name, lower and upper edge of each window
    channels: tuple[str, ...] = ()  # windows side by side in ``hardest`` and ``examples``
    series: tuple[Masked, ...] = ()
    hardest: tuple[tuple[Shot, float], ...] = ()  # highest weighted log loss first
    examples: tuple[tuple[str, Shot | None, Shot | None], ...] = ()  # type, a slice with it, one without any bleed


def collect_pictures(
    source: HeadCT, folder: Store, public: pd.DataFrame, private: pd.DataFrame, oof: pd.DataFrame
) -> Pictures:
    """Read 30 to 40 of the original files. One that has vanished or cannot be read becomes a picture that says so.

    Args:
        source: how the run prepared its pixels.
        folder: where the files are.
        public: as inventory.parquet; its slice_id and status are used.
        private: the same rows with path, frame, stack_id and index (place in the stack). Of these only index is returned.
        oof: as oof.parquet; may be empty.
    """
    if len(public) != len(private):
        raise ValueError(f"the two inventories have {len(public)} and {len(private)} rows")
    files = private[["path", "frame", "stack_id", "index"]].reset_index(drop=True)
    files.index = pd.Index(public["slice_id"])
    files = files[public["status"].isin(["ok", "repaired", "unlabelled"]).to_numpy()]
    if files.empty:
        return Pictures()
    oof = oof[oof["slice_id"].isin(files.index)].reset_index(drop=True)
    losses = slice_losses(oof[list(PROBABILITIES)].to_numpy(), oof[list(CLASSES)].to_numpy(dtype=np.float64))
    hardest = np.argsort(-losses, kind="stable")[:HARDEST]
    pairs = [(name, *_example_pair(oof, name)) for name in CLASSES[:-1]]
    series = _series(files, oof)
    shown = _richest(oof) if len(oof) else list(series)[len(series) // 2]
    wanted = [shown, *series, *oof["slice_id"].iloc[hardest], *(s for _, *ids in pairs for s in ids if s is not None)]
    slices = _read(folder, files, wanted)
    if source.deface:  # not in any picture either
        slices = {name: image if isinstance(image, str) else _defaced(image, source) for name, image in slices.items()}

    channels = source.windows[:2]

    def shot(slice_id: str | None) -> Shot | None:
        return None if slice_id is None else _shot(slice_id, slices[slice_id], source, channels)

    return Pictures(
        **_windows(source, shown, slices[shown]),
        channels=channels,
        series=_masked(series, slices),
        hardest=tuple(
            (_shot(slice_id, slices[slice_id], source, channels), float(losses[place]))
            for place, slice_id in zip(hardest, oof["slice_id"].iloc[hardest], strict=True)
        ),
        examples=tuple((name, shot(positive), shot(negative)) for name, positive, negative in pairs),
    )


# ---- which slices --------------------------------------------------------------------------------------------------


def _richest(oof: pd.DataFrame) -> str:
    """The slice with the most types at once; of equals, the one that is predicted most surely."""
    order = np.lexsort((-oof["p_any"].to_numpy(), -oof[list(CLASSES)].sum(axis=1).to_numpy()))
    return str(oof["slice_id"].iloc[order[0]])


def _example_pair(oof: pd.DataFrame, name: str) -> tuple[str | None, str | None]:
    """A slice with this type (rather alone; the most sure one), and one without a bleed at its height elsewhere."""
    positive = np.flatnonzero(oof[name] == 1)
    clean = oof["any"].to_numpy() == 0
    if not len(positive):
        return None, None
    types = oof[list(CLASSES[:-1])].sum(axis=1).to_numpy()[positive]
    chosen = positive[np.lexsort((-oof[f"p_{name}"].to_numpy()[positive], types))[0]]
    others = np.flatnonzero(clean & (oof["patient_id"] != oof["patient_id"].iloc[chosen]).to_numpy())
    if not len(others):
        others = np.flatnonzero(clean)
    if not len(others):
        return str(oof["slice_id"].iloc[chosen]), None
    index = oof["index"].to_numpy()
    negative = others[np.argmin(np.abs(index[others] - index[chosen]))]
    return str(oof["slice_id"].iloc[chosen]), str(oof["slice_id"].iloc[negative])


def _series(files: pd.DataFrame, oof: pd.DataFrame) -> dict[str, int]:
    """Slices spread over the stack with the most positive ones, from the feet up: public name → place in the stack."""
    first = files.index[0]
    if len(oof):
        best = oof[list(CLASSES)].max(axis=1).groupby(oof["stack_id"]).sum().idxmax()
        first = oof.loc[oof["stack_id"] == best, "slice_id"].iloc[0]
    members = files[files["stack_id"] == files.loc[first, "stack_id"]].sort_values("index")
    some = members.iloc[np.linspace(0, len(members) - 1, min(SERIES_AT_MOST, len(members))).round().astype(int)]
    return dict(zip(some.index.tolist(), some["index"].astype(int).tolist(), strict=True))


# ---- reading -------------------------------------------------------------------------------------------------------


def _defaced(image: Slice, source: HeadCT) -> Slice:
    return replace(image, pixels_hu=source.prepared(image.pixels_hu, image.header.spacing_rc_mm))


def _read(folder: Store, files: pd.DataFrame, slice_ids: list[str]) -> dict[str, Slice | str]:
    """The slice behind each public name, or the reason why there is none, without a path in it."""
    found: dict[str, Slice | str] = {}
    for path, rows in files.loc[list(dict.fromkeys(slice_ids))].groupby("path", sort=False):
        try:
            with folder.open_file(str(path)) as stream:
                data = stream.read()
        except (OSError, ValueError) as error:
            # not the error's own text, nor its strerror: pyarrow puts the path into both
            number = getattr(error, "errno", None)
            why = os.strerror(number) if number else type(error).__name__
            found |= dict.fromkeys(rows.index, f"the file cannot be read any more ({why})")
            continue
        for slice_id, frame in rows["frame"].items():
            try:
                found[str(slice_id)] = read_slices(data, int(frame))[0]
            except Unreadable as error:
                found[str(slice_id)] = f"the file cannot be decoded any more ({error})"
    return found


# ---- drawing -------------------------------------------------------------------------------------------------------


def _windows(source: HeadCT, slice_id: str, image: Slice | str) -> dict:
    """The fields ``windows``, ``histogram`` and ``bounds_hu`` of Pictures."""
    parsed = {name: parse_window(name) for name in source.windows}
    bounds = tuple((name, w.level - w.width / 2, w.level + w.width / 2) for name, w in parsed.items())
    if isinstance(image, str):
        return {"windows": (("", "", Shot(slice_id, None, image)),), "bounds_hu": bounds}
    hu, spacing = image.pixels_hu, image.header.spacing_rc_mm
    lowest, highest = float(hu.min()), float(max(hu.max(), hu.min() + 1))
    mask = head_mask(hu, spacing)
    shots = [("no window", f"{lowest:,.0f} to {highest:,.0f} HU", _whole(hu, lowest, highest))]
    shots += [(f"{n} {parsed[n].level:g}/{parsed[n].width:g}", f"{a:g} to {b:g} HU", _whole(hu, a, b)) for n, a, b in bounds]  # fmt: skip
    if len(parsed) == 3:
        together = apply_windows(source.prepared(hu, spacing), tuple(parsed.values()))
        shots.append(("as the network gets it", f"{', '.join(parsed)} as red, green, blue", together))
    counts, _ = np.histogram(hu[mask] if mask.any() else hu, bins=HISTOGRAM_EDGES_HU)
    return {
        "windows": tuple((n, r, Shot(slice_id, _fit(picture, spacing, _EXAMPLE_PX))) for n, r, picture in shots),
        "histogram": counts,
        "bounds_hu": bounds,
    }


def _whole(hu: np.ndarray, lower: float, upper: float) -> np.ndarray:
    return apply_window(hu, Window((lower + upper) / 2, upper - lower))


def _masked(places: dict[str, int], slices: dict[str, Slice | str]) -> tuple[Masked, ...]:
    """In stack order, those that could not be read last.

    Args:
        places: as ``_series`` gives them.
    """
    masked = []
    for slice_id, place in places.items():
        image = slices[slice_id]
        if isinstance(image, str):
            continue
        hu, spacing = image.pixels_hu, image.header.spacing_rc_mm
        mask = head_mask(hu, spacing)
        after = apply_window(remove_hardware(hu, mask), _WIDE)
        grey = apply_window(hu, _WIDE)
        tint = np.sqrt(grey / 255)[..., None] * _ORANGE  # the root shows faint plastic too
        before = np.where(mask[..., None], grey[..., None], tint).astype(np.uint8)
        pair = _beside([_fit(before, spacing, _MASK_PX), _fit(np.stack([after] * 3, -1), spacing, _MASK_PX)])
        masked.append(
            Masked(
                Shot(slice_id, pair),
                place,
                bool(mask.any()),
                int((~mask & (hu > AIR_HU / 2)).sum()),
            )
        )
    lost = [(s, problem) for s in places if isinstance(problem := slices[s], str)]
    return (*masked, *(Masked(Shot(s, None, problem), -1, False, 0) for s, problem in lost))


def _shot(slice_id: str, image: Slice | str, source: HeadCT, channels: tuple[str, ...]) -> Shot:
    """The head, prepared as the run prepares it, under each channel's window, side by side."""
    if isinstance(image, str):
        return Shot(slice_id, None, image)
    hu, spacing = image.pixels_hu, image.header.spacing_rc_mm
    mask = head_mask(hu, spacing)
    prepared = source.prepared(hu, spacing)
    box = _box(mask)
    views = [_fit(apply_window(prepared[box], parse_window(name)), spacing, _SLICE_PX) for name in channels]
    return Shot(slice_id, _beside(views))


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """Around the head with a little margin; the whole image where there is none."""
    if not mask.any():
        return slice(None), slice(None)
    sides = []
    for axis in (1, 0):
        inside = np.flatnonzero(mask.any(axis=axis))
        margin = max(2, (inside[-1] - inside[0]) // 25)
        sides.append(slice(max(0, inside[0] - margin), inside[-1] + 1 + margin))
    return sides[0], sides[1]


def _fit(image: np.ndarray, spacing_rc_mm: tuple[float, float], side_px: int) -> np.ndarray:
    """In its true proportions, centred on a black square of ``side_px``."""
    height_mm, width_mm = image.shape[0] * spacing_rc_mm[0], image.shape[1] * spacing_rc_mm[1]
    scale = side_px / max(height_mm, width_mm)
    rows, columns = max(1, round(height_mm * scale)), max(1, round(width_mm * scale))
    shrinks = rows < image.shape[0]
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    square = np.zeros((side_px, side_px, *image.shape[2:]), np.uint8)
    top, left = (side_px - rows) // 2, (side_px - columns) // 2
    square[top : top + rows, left : left + columns] = small
    return square


def _beside(images: list[np.ndarray]) -> np.ndarray:
    gap = np.zeros((images[0].shape[0], _GAP_PX, *images[0].shape[2:]), np.uint8)
    parts = [part for image in images for part in (gap, image)][1:]
    return np.concatenate(parts, axis=1)
