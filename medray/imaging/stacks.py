"""Which slices of a series make a stack, and in what order.

A network that reads a stack takes its slices for one head, cut in parallel planes, one after the other. A series
promises less (PS3.3 A.3, C.7.3.1): it may hold a scout, reformats, two phases or two kernels at the same places; and
where an anonymiser gave two series one SeriesInstanceUID, two heads.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np

from medray.imaging.geometry import positions_along_mm, slice_normal
from medray.imaging.types import Header

Known = Literal["ImagePositionPatient", "SliceLocation", "InstanceNumber", "nothing"]

_SAME_DIRECTION = np.cos(np.deg2rad(1.0))
_SAME_SPACING = 0.01  # relative
_SAME_PLACE_MM = 0.01

SEPARATORS = (
    "frame_of_reference_id", "series_number", "stack_name", "temporal_index", "acquisition_number", "image_type",
    "kernel", "peak_kv", "thickness_mm", "acquired", "created",
)  # fmt: skip
"""Fields of Header by which slices at the same places come apart, the first one that does so first."""


@dataclass(frozen=True)
class Stack:
    """Slices of one patient, study and series in parallel planes, of one matrix and pixel spacing."""

    members: np.ndarray  # (n,) indices into the headers, lowest slice first
    position_mm: np.ndarray  # (n,) of each, larger towards the head; NaN where the headers do not tell
    ordered_by: Known  # what its order comes from: the position, or what still tells where all slices have the same
    shared_places: tuple[int, ...]  # how many slices hold each of the places that are held by more than one


def stacks_of(headers: Sequence[Header]) -> list[Stack]:
    """The stacks of one series.

    They and their order depend on the headers only: not on the order of these, nor on names of files. Slices at one
    place (to a hundredth of a millimetre) that nothing separates stay together, in the order of their
    ``instance_number``, then of their ``slice_id``.

    Args:
        headers: of slices with one ``series_id``.
    """
    of_study: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i in sorted(range(len(headers)), key=lambda i: headers[i].slice_id):
        of_study[headers[i].patient_id, headers[i].study_id].append(i)
    stacks = []
    for key in sorted(of_study):
        for members in _parallel(headers, np.array(of_study[key])):
            place, position_mm, ordered_by = _places(headers, members)
            parts = [np.arange(len(members))]
            for name in SEPARATORS:
                parts = [piece for part in parts for piece in _separated(headers, members, place, part, name)]
            stacks += [_stack(headers, members[p], place[p], position_mm[p], ordered_by) for p in parts]
    return stacks


def _parallel(headers: Sequence[Header], members: np.ndarray) -> list[np.ndarray]:
    """Slices whose rows and columns run alike (within a degree), with equal matrix and spacing; most slices first."""
    first = headers[members[0]]
    if all(_cut(headers[i]) == _cut(first) for i in members):
        return [members]
    planes = np.array([(*headers[i].orientation_rc, *headers[i].spacing_rc_mm) for i in members], dtype=np.float64)
    shapes = np.array([(headers[i].rows, headers[i].columns) for i in members])
    groups = []
    left = np.ones(len(members), dtype=bool)
    while left.any():
        kinds, counts = np.unique(np.column_stack([planes, shapes])[left], axis=0, return_counts=True)
        *plane, rows, columns = kinds[counts.argmax()]
        leader = np.array(plane)
        alike = left & (shapes == (rows, columns)).all(axis=1)
        for cosines in (slice(0, 3), slice(3, 6)):
            lengths = np.linalg.norm(planes[:, cosines], axis=1) * np.linalg.norm(leader[cosines])
            alike &= planes[:, cosines] @ leader[cosines] >= _SAME_DIRECTION * lengths
        alike &= (np.abs(planes[:, 6:] - leader[6:]) <= _SAME_SPACING * leader[6:]).all(axis=1)
        groups.append(members[alike])
        left &= ~alike
    return groups


def _cut(header: Header) -> tuple[object, ...]:
    return header.orientation_rc, header.spacing_rc_mm, header.rows, header.columns


def _places(headers: Sequence[Header], members: np.ndarray) -> tuple[np.ndarray, np.ndarray, Known]:
    """For each of parallel slices the number of its place, counted from the feet up; its position in mm; and how both
    are known. An exporter may leave one position in all slices: then SliceLocation or InstanceNumber still count."""
    own = [headers[i] for i in members]
    along = positions_along_mm(slice_normal(own[0].orientation_rc), np.array([h.position_xyz_mm for h in own]))
    place = _numbered(along)
    if place.any() or len(own) == 1:
        return place, along, "ImagePositionPatient"
    location = _all_known([h.slice_location_mm for h in own])
    if _numbered(location).any():
        return _numbered(location), location, "SliceLocation"
    instance, thickness = _all_known([h.instance_number for h in own]), _all_known([h.thickness_mm for h in own])
    if _numbered(instance).any():
        unequal = len(set(thickness)) > 1
        return _numbered(instance), instance * (np.nan if unequal else thickness), "InstanceNumber"
    return place, np.full(len(own), np.nan), "nothing"


def _all_known(values: list[float | None]) -> np.ndarray:
    """(n,) float64; all 1 × NaN where one of them is missing: half of them order nothing."""
    return np.array([np.nan] * len(values) if None in values else values, dtype=np.float64)


def _numbered(values_mm: np.ndarray) -> np.ndarray:
    """(n,) values → (n,) int: 0 for the lowest, one more for each that lies apart from the one below; NaN are alike."""
    order = np.argsort(values_mm, kind="stable")
    number = np.empty(len(values_mm), dtype=np.int64)
    number[order] = np.append(0, np.cumsum(np.diff(values_mm[order]) > _SAME_PLACE_MM))
    return number


def _separated(
    headers: Sequence[Header], members: np.ndarray, place: np.ndarray, part: np.ndarray, name: str
) -> list[np.ndarray]:
    """Part the slices where those of two values of a field lie at the same places or in between each other.

    Values that follow each other along the patient (the rotations of a scan step by step, the skull's base and the
    brain above it) stay together: a further value begins a new stack where it comes upon the places of the one before.

    Returns:
        ``part`` as it is where the field separates nothing, or would take it to pieces: into more of them than there
        are slices beside each other.
    """
    of_value: dict[object, set[int]] = defaultdict(set)
    for i in part:
        of_value[getattr(headers[members[i]], name)].add(int(place[i]))
    if len(of_value) == 1:
        return [part]
    values = sorted(of_value, key=lambda value: (value is not None, value))
    depth = _depth([(min(of_value[v]), max(of_value[v])) for v in values])
    if depth == 1:
        return [part]
    runs: list[list[object]] = []
    for value in values:
        if runs and not any(_collide(of_value[value], of_value[other]) for other in runs[-1]):
            runs[-1].append(value)
        else:
            runs.append([value])
    if not 1 < len(runs) <= depth:
        return [part]
    number = {value: k for k, run in enumerate(runs) for value in run}
    of_run = np.array([number[getattr(headers[members[i]], name)] for i in part])
    return [part[of_run == k] for k in range(len(runs))]


def _depth(spans: list[tuple[int, int]]) -> int:
    """How many of the closed spans lie over each other at most."""
    ends = sorted([(start, -1) for start, _ in spans] + [(end, 1) for _, end in spans])
    return max(accumulate(-step for _, step in ends))


def _collide(a: set[int], b: set[int]) -> bool:
    """Whether two sets share a place, or each has places between those of the other. A single slice that differs in a
    field, where the stack has a gap for it, is no second stack."""
    if not a.isdisjoint(b):
        return True
    return min(len(a), len(b)) > 1 and _any_between(a, b) and _any_between(b, a)


def _any_between(places: set[int], others: set[int]) -> bool:
    low, high = min(others), max(others)
    return any(low < place < high for place in places)


def _stack(
    headers: Sequence[Header], members: np.ndarray, place: np.ndarray, position_mm: np.ndarray, ordered_by: Known
) -> Stack:
    def key(i: int) -> tuple[int, float, str]:
        header = headers[members[i]]
        instance = header.instance_number
        return int(place[i]), np.inf if instance is None else instance, header.slice_id

    order = np.array(sorted(range(len(members)), key=key))
    shared = tuple(sorted(count for count in Counter(place.tolist()).values() if count > 1))
    return Stack(members[order], position_mm[order], ordered_by, shared)
