"""The bones and the outline of a drawn hand, from its maturity: polygons on the canvas.

Fingers up, thumb at greater x, wrist at the bottom. Growth plates close, epiphyses and carpal bones grow from nothing,
in about the order that they have in children. Maturity is bone age over the age at which all plates are closed, which
girls reach sooner: the picture shows maturity, and only sex turns it into months. Coordinates are x (to the right), y
(down).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from medray.systems.boneage.stages.canvas import CAPITATE_XY, TIP_XY

Sex = Literal["F", "M"]
Part = Literal["fingers", "palm", "carpals", "forearm"]

GROWN_MONTHS: dict[Sex, float] = {"F": 190.0, "M": 228.0}  # all growth plates are closed
_PARTS: tuple[Part, ...] = ("fingers", "palm", "carpals", "forearm")

# from the wrist to the tip; the tip is the end of the bone
_JOINTS = {
    "thumb": ((1040, 1530), (1215, 1165), (1305, 965), (1375, 790)),
    "index": ((905, 1490), (1010, 985), (1048, 627), (1072, 411), (1090, 240)),
    "middle": ((800, 1480), (800, 935), (800, 548), (800, 305), TIP_XY),
    "ring": ((708, 1490), (650, 985), (600, 620), (570, 404), (548, 225)),
    "little": ((625, 1515), (505, 1085), (410, 822), (350, 660), (300, 510)),
}
_RAY_WIDTH = {"thumb": 1.12, "index": 1.0, "middle": 1.03, "ring": 0.95, "little": 0.82}
_THUMB_BONES = ("metacarpal", "proximal", "distal")
_FINGER_BONES = ("metacarpal", "proximal", "middle", "distal")


@dataclass(frozen=True)
class _Long:
    """A long bone: half widths, and its one epiphysis."""

    base: float
    waist: float
    head: float
    epiphysis: float  # how long it is when grown
    onset: float  # maturity at which it appears
    closed: float  # maturity at which its growth plate is gone
    part: Part


_LONG = {
    "metacarpal": _Long(50, 33, 54, 58, 0.10, 0.86, "palm"),
    "proximal": _Long(58, 37, 45, 34, 0.07, 0.88, "palm"),
    "middle": _Long(52, 33, 40, 30, 0.10, 0.90, "fingers"),
    "distal": _Long(44, 19, 27, 26, 0.11, 0.80, "fingers"),
}
_RADIUS = _Long(0, 74, 132, 70, 0.06, 0.99, "forearm")
_ULNA = _Long(0, 48, 64, 52, 0.36, 0.96, "forearm")


@dataclass(frozen=True)
class _Carpal:
    centre: tuple[float, float]
    half: tuple[float, float]  # across, along
    turn_deg: float
    onset: float
    layer: int = 0


_CARPALS = {
    "capitate": _Carpal(CAPITATE_XY, (56, 100), 0, -1.0),
    "hamate": _Carpal((690, 1612), (50, 82), -10, 0.03),
    "triquetrum": _Carpal((632, 1724), (50, 42), 30, 0.14),
    "lunate": _Carpal((742, 1748), (52, 44), -12, 0.21),
    "scaphoid": _Carpal((878, 1716), (44, 82), 38, 0.29),
    "trapezium": _Carpal((992, 1604), (48, 56), -28, 0.31),
    "trapezoid": _Carpal((902, 1566), (38, 44), 0, 0.34),
    "pisiform": _Carpal((604, 1704), (32, 36), 0, 0.50, 1),
}
_SESAMOID_ONSET = 0.62

_PLATE = 30.0  # the gap of an open growth plate
_JOINT_SPACE = 9.0  # at each side
_CORTEX, _SPONGY = 165, 100  # values of a layer
_FAR = 5200.0  # y below every film


def maturity(age_months: float, sex: Sex) -> float:
    """How mature a hand of this bone age is: 0 at birth, 1 where all plates are closed."""
    return age_months / GROWN_MONTHS[sex]


@dataclass(frozen=True)
class Child:
    """What is a child's own, the same on each of its films."""

    ahead: dict[Part, float]  # how far each part is ahead of the hand's maturity
    carpal_ahead: dict[str, float]  # the same for when each carpal bone appears
    width: float  # of the bones, 1 on average
    flesh: float  # of the soft tissue, 1 on average
    reach: dict[str, float]  # length of each finger, 1 on average


def draw_child(rng: np.random.Generator) -> Child:
    return Child(
        ahead={part: float(rng.normal(0, 0.03)) for part in _PARTS},
        carpal_ahead={name: float(rng.normal(0, 0.012)) for name in _CARPALS},
        width=float(rng.uniform(0.92, 1.08)),
        flesh=float(rng.uniform(0.9, 1.1)),
        reach={ray: float(rng.uniform(0.95, 1.03)) for ray in _JOINTS},
    )


@dataclass
class Shapes:
    """Polygons of a hand, each an (n, 2) float array of x, y on the canvas."""

    bones: list[tuple[int, int, np.ndarray]] = field(
        default_factory=list
    )  # layer 0 or 1, value, in the order of drawing
    hand: list[np.ndarray] = field(default_factory=list)  # soft tissue, convex pieces that overlap
    forearm: list[np.ndarray] = field(default_factory=list)  # the same, without an end
    thumb: tuple[float, float] = (0.0, 0.0)  # end of its bone


def draw_shapes(rng: np.random.Generator, child: Child, mature: float) -> Shapes:
    """A hand in the posture of one film: fingers a little spread or bent to the side, the wrist a little turned.

    Args:
        mature: as ``maturity`` gives it; beyond 0…1 nothing changes any more.
    """
    shapes = Shapes()
    local = {part: float(np.clip(mature + ahead, 0, 1.1)) for part, ahead in child.ahead.items()}
    stubby = 1.16 - 0.18 * float(np.clip(mature, 0, 1))  # short bones are thick for their length in small children
    joints = _posture(rng, child)
    forearm_deg = float(rng.normal(0, 4))
    _flesh(shapes, joints, child.flesh * (1.06 - 0.08 * float(np.clip(mature, 0, 1))), forearm_deg)
    for bone, x, y in ((_RADIUS, 868.0, 1822.0), (_ULNA, 640.0, 1846.0)):
        _forearm_bone(shapes, bone, x, y, local[bone.part], child.width, forearm_deg)
    for ray, points in joints.items():
        for k, kind in enumerate(_THUMB_BONES if ray == "thumb" else _FINGER_BONES):
            width = _RAY_WIDTH[ray] * child.width * stubby
            at_head = kind == "metacarpal" and ray != "thumb"
            _long_bone(shapes, _LONG[kind], points[k], points[k + 1], local[_LONG[kind].part], width, kind, at_head)
    for name, carpal in _CARPALS.items():
        _carpal_bone(shapes, carpal, local["carpals"] + child.carpal_ahead[name], child.width)
    if (sesamoid := _grown(local["palm"], _SESAMOID_ONSET, 0.8)) > 0:
        _oval(shapes, joints["thumb"][1] + (-52, 18), (20 * sesamoid, 24 * sesamoid), 30, 1)
    shapes.thumb = (float(joints["thumb"][-1][0]), float(joints["thumb"][-1][1]))
    return shapes


def _posture(rng: np.random.Generator, child: Child) -> dict[str, np.ndarray]:
    spread = max(-1.5, rng.normal(0.3, 1.5))
    found = {}
    for order, (ray, places) in enumerate(_JOINTS.items()):
        points = np.array(places, dtype=float)
        if ray == "middle":  # its tip stays where the canvas has it
            points[1:-1] += np.column_stack([rng.normal(0, 7, len(points) - 2), rng.normal(0, 12, len(points) - 2)])
        else:
            root = 0 if ray == "thumb" else 1
            points[root + 1 :] = points[root] + (points[root + 1 :] - points[root]) * child.reach[ray]
            turn = rng.normal(0, 5) if ray == "thumb" else (2 - order) * spread + rng.normal(0, 1.5)
            points[root + 1 :] = _turned(points[root + 1 :], points[root], turn)
            for k in range(root + 1, len(points) - 1):
                points[k + 1 :] = _turned(points[k + 1 :], points[k], rng.normal(0, 2))
        found[ray] = points
    return found


def _flesh(shapes: Shapes, joints: dict[str, np.ndarray], wide: float, forearm_deg: float) -> None:
    for ray, points in joints.items():
        width = _RAY_WIDTH[ray] * wide
        along = points[-1] - points[-2]
        end = points[-1] - along / np.linalg.norm(along) * 22
        radii = (92, 90, 78, 62) if ray == "thumb" else (96, 88, 79, 70, 58)
        nodes = np.vstack([points[:-1], end])
        for k in range(len(nodes) - 1):
            shapes.hand.append(_capsule(nodes[k], radii[k] * width, nodes[k + 1], radii[k + 1] * width))
    knuckles = [joints[ray][1] for ray in ("little", "ring", "middle", "index")]
    wrist = _turned(np.array([[556.0, 1800.0], [1010.0, 1800.0]]), np.array(CAPITATE_XY), forearm_deg)
    shapes.hand.append(np.array([*knuckles, (1040, 1500), (1000, 1640), wrist[1], wrist[0], (590, 1600)]))
    thumb, index = joints["thumb"], joints["index"]
    web = index[0] + 0.62 * (thumb[1] - index[0]) + np.array([-10.0, -70.0])
    shapes.hand.append(np.array([index[1], web, thumb[1], thumb[0], index[0]]))
    below = wrist.mean(axis=0)
    shapes.hand.append(_capsule(below - np.array([20.0, 150.0]), 230, below, 225))
    arm = np.array(
        [[556.0, 1760.0], [1010.0, 1760.0], [1040.0, 2080.0], [1130.0, _FAR], [420.0, _FAR], [500.0, 2080.0]]
    )
    shapes.forearm.append(_turned(arm, np.array(CAPITATE_XY), forearm_deg))


def _long_bone(
    shapes: Shapes, bone: _Long, start: np.ndarray, end: np.ndarray, local: float, wide: float, kind: str, at_head: bool
) -> None:
    length = float(np.linalg.norm(end - start))
    along = (end - start) / length
    first = _JOINT_SPACE
    last = length if kind == "distal" else length - _JOINT_SPACE
    half = np.array([bone.base, bone.waist, bone.head]) * wide
    grown, gap = _grown(local, bone.onset, 0.55), _gap(local, bone.closed)
    if gap > 0:
        near = bone.epiphysis + gap
        middle = (last - bone.epiphysis / 2) if at_head else (first + bone.epiphysis / 2)
        across = half[2 if at_head else 0] * (0.35 + 0.65 * grown)
        if grown > 0:
            centre, turn = start + along * middle, _degrees(along)
            _oval(shapes, centre, (across * 1.02, bone.epiphysis / 2 * (0.55 + 0.45 * grown)), turn, 0, square=2.6)
        first, last = (first, last - near) if at_head else (first + near, last)
    for value, inset in ((_CORTEX, 0.0), (_SPONGY, 1.0)):
        shapes.bones.append((0, value, _shaft(start, along, first, last, half, inset)))
    if gap == 0:
        _scar(
            shapes,
            start,
            along,
            (last - bone.epiphysis) if at_head else (first + bone.epiphysis),
            half[2 if at_head else 0],
            local - bone.closed,
        )


def _forearm_bone(
    shapes: Shapes, bone: _Long, x: float, y: float, local: float, wide: float, forearm_deg: float
) -> None:
    grown, gap = _grown(local, bone.onset, 0.6), _gap(local, bone.closed)
    top = y + (bone.epiphysis + gap if gap > 0 else 0)
    pivot = np.array(CAPITATE_XY)
    ys = np.concatenate([[0.0, 5.0, 20.0], np.linspace(50, 500, 9), [_FAR - top]])
    half = (bone.waist + (bone.head - bone.waist) * np.exp(-ys / 150)) * wide
    half[0] *= 0.86
    lean = (x - 800) * 0.12 * ys / 500  # away from each other
    for value, inset in ((_CORTEX, 0.0), (_SPONGY, 1.0)):
        inner = half - inset * np.minimum(7 + 0.06 * ys, 22)
        down = top + ys + inset * np.where(ys == 0, 8, 0)
        outline = np.vstack(
            [np.column_stack([x + lean - inner, down]), np.column_stack([x + lean + inner, down])[::-1]]
        )
        shapes.bones.append((0, value, _turned(outline, pivot, forearm_deg)))
    if gap > 0 and grown > 0:
        centre = _turned(np.array([[x, y + bone.epiphysis / 2]]), pivot, forearm_deg)[0]
        size = (bone.head * wide * (0.3 + 0.68 * grown), bone.epiphysis / 2 * (0.5 + 0.5 * grown))
        _oval(shapes, centre, size, forearm_deg, 0, square=2.6)
    elif gap == 0:
        line = _turned(np.array([[x, y], [x, y + 1]]), pivot, forearm_deg)
        _scar(shapes, line[0], line[1] - line[0], bone.epiphysis, bone.head * wide * 0.85, local - bone.closed)


def _carpal_bone(shapes: Shapes, carpal: _Carpal, local: float, wide: float) -> None:
    grown = 0.42 + 0.58 * _smooth(local / 0.6) if carpal.onset < 0 else _grown(local, carpal.onset, carpal.onset + 0.38)
    if grown <= 0:
        return
    round_half = float(np.mean(carpal.half))
    form = max(0.0, grown - 0.3) / 0.7  # round at first
    across, along = ((1 - form) * round_half + form * half for half in carpal.half)
    wide = 1 + (wide - 1) * 0.4  # neighbours keep off each other
    _oval(
        shapes,
        np.array(carpal.centre),
        (across * grown * wide, along * grown * wide),
        carpal.turn_deg,
        carpal.layer,
        2.3,
    )


def _oval(
    shapes: Shapes, centre: np.ndarray, half: tuple[float, float], turn_deg: float, layer: int, square: float = 2.0
) -> None:
    """A superellipse with a brighter rim."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    unit = np.column_stack([np.cos(angle), np.sin(angle)])
    unit = np.sign(unit) * np.abs(unit) ** (2 / square)
    for value, inset in ((_CORTEX, 0.0), (_SPONGY + 15, 7.0)):
        size = np.maximum(np.array(half) - inset, 0.5 * np.array(half))
        shapes.bones.append((layer, value, _turned(unit * size + centre, centre, turn_deg)))


def _shaft(
    start: np.ndarray, along: np.ndarray, first: float, last: float, half: np.ndarray, inset: float
) -> np.ndarray:
    """The outline of a long bone from ``first`` to ``last`` on its axis, or of its marrow where ``inset`` is 1."""
    t = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, 15))
    base, waist, head = half
    width = (
        waist
        + (base - waist) * np.clip(1 - t / 0.55, 0, 1) ** 1.8
        + (head - waist) * np.clip((t - 0.5) / 0.5, 0, 1) ** 1.8
    )
    depth = np.minimum(t, 1 - t) * (last - first)
    width = width * (1 - np.clip(1 - depth / 26, 0, 1) ** 3) ** (1 / 3)
    width = np.maximum(width - inset * (6 + 8 * np.sin(np.pi * t) ** 2), 0.3 * width)
    at = first + t * (last - first) + inset * 7 * (1 - 2 * t)
    across = np.array([-along[1], along[0]])
    middle = start + at[:, None] * along
    return np.vstack([middle + width[:, None] * across, (middle - width[:, None] * across)[::-1]])


def _scar(shapes: Shapes, start: np.ndarray, along: np.ndarray, at: float, half: float, since: float) -> None:
    """The bright line that a closed plate leaves for a while."""
    if since > 0.1:
        return
    across = np.array([-along[1], along[0]]) * half * 0.9
    middle, thick = start + along * at, along * 5
    corners = np.array(
        [middle - across - thick, middle + across - thick, middle + across + thick, middle - across + thick]
    )
    shapes.bones.append((0, round(_SPONGY + 15 + (_CORTEX - _SPONGY) * (1 - since / 0.1)), corners))


def _grown(local: float, onset: float, full: float) -> float:
    """The share of its grown size that a centre of ossification has: 0 before it appears, then a visible speck."""
    if local <= onset:
        return 0.0
    return 0.2 + 0.8 * min(1.0, (local - onset) / (full - onset)) ** 0.8


def _gap(local: float, closed: float) -> float:
    """The width of a growth plate."""
    return 0.0 if local >= closed else _PLATE * (0.12 + 0.88 * (1 - local / closed))


def _smooth(value: float) -> float:
    t = float(np.clip(value, 0, 1))
    return t * t * (3 - 2 * t)


def _degrees(along: np.ndarray) -> float:
    """How far from upright a direction is turned, clockwise as seen."""
    return float(np.degrees(np.arctan2(along[0], -along[1])))


def _turned(points: np.ndarray, pivot: np.ndarray, degrees: float) -> np.ndarray:
    """(n, 2) points turned clockwise as seen."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return pivot + (points - pivot) @ np.array([[c, s], [-s, c]])


def _capsule(start: np.ndarray, radius_start: float, end: np.ndarray, radius_end: float) -> np.ndarray:
    """Two circles and what lies between them."""
    heading = np.arctan2(*(end - start)[::-1])
    half = np.linspace(-np.pi / 2, np.pi / 2, 11)
    caps: Sequence[tuple[np.ndarray, float, np.ndarray]] = (
        (end, radius_end, heading + half), (start, radius_start, heading + np.pi + half),
    )  # fmt: skip
    return np.vstack([centre + radius * np.column_stack([np.cos(a), np.sin(a)]) for centre, radius, a in caps])
