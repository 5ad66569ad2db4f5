"""Plans and drawing of phantom studies: who bleeds, from what, and the image that follows.

Each study is drawn from seeds of its own, one for each concern (head, look-alikes, geometry, scanner, bleeds), so that
studies can be drawn in any order on any machine, and so that nothing but the bleeding can depend on the label.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from medray.imaging.phantom.anatomy import Anatomy, draw_anatomy
from medray.imaging.phantom.bleeds import BIT, BLEED_TYPES, VISIBLE_MM2, Bleed, draw_bleed, paint_bleed
from medray.imaging.phantom.geometry import Stack, draw_stack
from medray.imaging.phantom.head import paint_anatomy
from medray.imaging.phantom.lookalikes import draw_lookalikes, paint_infarct, paint_lookalikes
from medray.imaging.phantom.paint import Canvas

DRAWN_PX = 256  # larger images are drawn at this size and enlarged; noise is added at full size


@dataclass(frozen=True)
class PhantomSpec:
    """What to write. The same spec gives the same bytes."""

    patients: int = 40
    seed: int = 0
    matrix_px: int = 512
    slices: tuple[int, int] = (24, 32)  # least and most a study
    positive_rate: float = 0.4  # of studies
    several_rate: float = 0.15  # of patients that have a second study, and of those a third
    noise_hu: tuple[float, float] = (4.0, 13.0)  # least and most standard deviation of a study's noise

    def __post_init__(self) -> None:
        if self.patients < 1 or self.matrix_px < 32 or not 8 <= self.slices[0] <= self.slices[1]:
            raise ValueError("a phantom set needs a patient, 32 pixels a side and 8 slices a study at least")
        if self.matrix_px > DRAWN_PX and self.matrix_px % DRAWN_PX:
            raise ValueError(f"a phantom's matrix over {DRAWN_PX} pixels is a multiple of {DRAWN_PX}")
        if not 0 <= self.noise_hu[0] <= self.noise_hu[1]:
            raise ValueError("the noise of a phantom set is a range of 0 HU or more")
        if not 0 <= self.positive_rate <= 1 or not 0 <= self.several_rate < 1:
            raise ValueError("rates of a phantom set lie between 0 and 1")


@dataclass(frozen=True)
class StudyPlan:
    """One study to be drawn: all that is known before drawing."""

    patient: int
    study: int
    bleeds: tuple[str, ...]  # types, the first leads; empty where the study is negative
    spec: PhantomSpec

    def name(self, what: str, digits: int, *parts: object) -> str:
        """An id as the challenge's look: ``ID_`` and hexadecimal digits, from the seed alone."""
        text = "/".join(map(str, (self.spec.seed, what, *parts)))
        return "ID_" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()[:digits]

    @property
    def patient_id(self) -> str:
        return self.name("patient", 8, self.patient)

    @property
    def study_id(self) -> str:
        return self.name("study", 10, self.patient, self.study)

    @property
    def series_id(self) -> str:
        return self.name("series", 10, self.patient, self.study)

    def slice_id(self, index: int) -> str:
        """SOPInstanceUID, file stem and label prefix of one slice."""
        return self.name("slice", 9, self.patient, self.study, index)

    def rng(self, concern: str, of_patient: bool = False) -> np.random.Generator:
        """The generator of one concern; ``of_patient`` where a patient's studies share it."""
        text = f"{self.spec.seed}/{concern}/{self.patient}" + ("" if of_patient else f"/{self.study}")
        return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))


@dataclass(frozen=True)
class Study:
    """One drawn study, in the order of its stack."""

    plan: StudyPlan
    stack: Stack
    slice_ids: tuple[str, ...]
    images_hu: np.ndarray  # (n, rows, columns) int16, noise included
    masks: np.ndarray  # (n, rows, columns) uint8: the bits of ``bleeds.BIT`` where blood is visible
    labels: np.ndarray  # (n, 6) uint8: the five types and any
    noise_hu: float


def plan_phantoms(spec: PhantomSpec) -> list[StudyPlan]:
    """Who has how many studies, and which of them bleed from what. Epidural is the rarest type but at least three
    patients have it (where three patients bleed), so that three folds can hold one each."""
    rng = np.random.default_rng([spec.seed, 20190913])
    studies = [(p, 0) for p in range(spec.patients)]
    for p in range(spec.patients):
        if rng.uniform() < spec.several_rate:
            studies.append((p, 1))
            if rng.uniform() < spec.several_rate:
                studies.append((p, 2))
    count = round(spec.positive_rate * len(studies))
    order = rng.permutation(len(studies))[:count]
    kinds = _leading_types(rng, [studies[k][0] for k in order])
    bleeding = {studies[k]: kind for k, kind in zip(order, kinds, strict=True)}
    return [StudyPlan(p, s, _with_others(rng, bleeding.get((p, s))), spec) for p, s in sorted(studies)]


def _leading_types(rng: np.random.Generator, patients: list[int]) -> list[str]:
    """A leading type for each positive study, in fixed shares, the epidural ones on different patients."""
    epidural = min(max(3, round(0.1 * len(patients))), len(set(patients)))
    others = ["intraparenchymal", "subdural", "subarachnoid", "intraventricular", "subdural", "subarachnoid"]
    seen: set[int] = set()
    kinds: list[str] = []
    turn = int(rng.integers(len(others)))
    for patient in patients:
        if len(seen) < epidural and patient not in seen:
            seen.add(patient)
            kinds.append("epidural")
        else:
            kinds.append(others[turn % len(others)])
            turn += 1
    return kinds


def _with_others(rng: np.random.Generator, lead: str | None) -> tuple[str, ...]:
    """Two in five bleeding studies have a second type, as real ones do."""
    second = float(rng.uniform()), int(rng.integers(3))  # drawn for all, so that plans do not shift with the labels
    if lead is None:
        return ()
    partners = {
        "epidural": ("subdural", "subarachnoid", "intraparenchymal"),
        "intraparenchymal": ("intraventricular", "intraventricular", "subarachnoid"),
        "intraventricular": ("intraparenchymal", "intraparenchymal", "subarachnoid"),
        "subarachnoid": ("subdural", "intraventricular", "intraparenchymal"),
        "subdural": ("subarachnoid", "subarachnoid", "intraparenchymal"),
    }
    return (lead, partners[lead][second[1]]) if second[0] < 0.4 else (lead,)


def draw_bleeds(plan: StudyPlan, head: Anatomy) -> list[Bleed]:
    """The study's bleeds; the second lies near the first, so that positives form one run."""
    rng = plan.rng("bleeds")
    out: list[Bleed] = []
    for kind in plan.bleeds:
        out.append(draw_bleed(rng, kind, head, float(out[0].centre_mm[2]) if out else None))
    return out


@lru_cache(maxsize=4)
def _head_of(patient: int, spec: PhantomSpec) -> Anatomy:
    return draw_anatomy(StudyPlan(patient, 0, (), spec).rng("head", of_patient=True))


def draw_study(plan: StudyPlan) -> Study:
    """Draw every slice of a study."""
    spec = plan.spec
    head = _head_of(plan.patient, spec)
    found = draw_lookalikes(plan.rng("lookalikes", of_patient=True))
    stack = draw_stack(plan.rng("geometry"), spec.slices, spec.matrix_px)
    bleeds = draw_bleeds(plan, head)
    noise = plan.rng("noise")
    noise_hu = float(noise.uniform(*spec.noise_hu))
    count, size = len(stack.positions_mm), spec.matrix_px
    images = np.empty((count, size, size), np.int16)
    masks = np.zeros((count, size, size), np.uint8)
    labels = np.zeros((count, 6), np.uint8)
    table = Holder.draw(plan.rng("holder"))
    for k in range(count):
        if k == count - 1 and stack.duplicate_of is not None:
            images[k], masks[k], labels[k] = (part[stack.duplicate_of] for part in (images, masks, labels))
            continue
        canvas, corner, scale = open_canvas(stack, k, size)
        full: np.ndarray = np.full((size // scale, size // scale), -1000, np.float32)
        small: np.ndarray = np.zeros(full.shape, np.uint8)
        paint_anatomy(canvas, head)
        paint_infarct(canvas, head, found)
        seen: np.ndarray = np.zeros(canvas.hu.shape, np.uint8)
        for bleed in bleeds:
            painted = paint_bleed(canvas, head, bleed)
            if painted:
                box, visible = painted
                seen[box] |= visible.astype(np.uint8) * np.uint8(BIT[bleed.kind])
        paint_lookalikes(canvas, head, found)
        place = (slice(corner[0], corner[0] + seen.shape[0]), slice(corner[1], corner[1] + seen.shape[1]))
        full[place], small[place] = canvas.hu, seen
        table.paint(full, stack.pixel_mm * scale)
        for t, name in enumerate(BLEED_TYPES):
            area = np.count_nonzero(seen & BIT[name]) * canvas.pixel_mm**2
            labels[k, t] = area >= VISIBLE_MM2[name]
        labels[k, 5] = labels[k, :5].any()
        if scale > 1:
            full = cv2.resize(full, (size, size), interpolation=cv2.INTER_LINEAR)
            small = cv2.resize(small, (size, size), interpolation=cv2.INTER_NEAREST)
        grain = noise.standard_normal((size, size), dtype=np.float32)
        full += grain * np.float32(noise_hu)
        images[k], masks[k] = np.clip(np.rint(full), -1024, 3071), small
    ids = tuple(plan.slice_id(k) for k in range(count))
    return Study(plan, stack, ids, images, masks, labels, noise_hu)


def open_canvas(stack: Stack, index: int, matrix_px: int) -> tuple[Canvas, tuple[int, int], int]:
    """The rectangle around the head in one plane: the canvas, its first (row, column) and the drawing's reduction."""
    scale = max(1, matrix_px // DRAWN_PX)
    size, pixel = matrix_px // scale, stack.pixel_mm * scale
    row, column = stack.orientation[:3], stack.orientation[3:]
    to_head = stack.head_to_patient.T
    first = stack.positions_mm[index] + (scale - 1) / 2 * stack.pixel_mm * (row + column) - stack.head_origin_mm
    # where the head's axis meets this plane, and a square about it that holds the widest head
    axis = stack.head_to_patient[:, 2]
    meet = axis * float(first @ stack.normal) / float(axis @ stack.normal)
    r, c = float((meet - first) @ column) / pixel, float((meet - first) @ row) / pixel
    half_r, half_c = 112 / pixel, 98 / pixel
    r0, r1 = max(0, int(r - half_r)), min(size, int(r + half_r))
    c0, c1 = max(0, int(c - half_c)), min(size, int(c + half_c))
    origin = to_head @ (first + pixel * (r0 * column + c0 * row))
    down, right = to_head @ column * pixel, to_head @ row * pixel
    rows, columns = np.arange(r1 - r0, dtype=np.float32)[:, None], np.arange(c1 - c0, dtype=np.float32)[None, :]
    x, y, z = (np.float32(origin[i]) + np.float32(down[i]) * rows + np.float32(right[i]) * columns for i in range(3))
    canvas = Canvas(x, y, z, pixel, stack.spacing_mm, np.stack([down, right]))
    return canvas, (r0, c0), scale


@dataclass(frozen=True)
class Holder:
    """Table and head holder: an arc under the head and two plates beside it, as the real series has."""

    plates: bool
    arc: bool
    gap_mm: float
    hu: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Holder:
        return Holder(bool(rng.uniform() < 0.6), bool(rng.uniform() < 0.7), rng.uniform(0, 6), rng.uniform(40, 200))

    def paint(self, image: np.ndarray, pixel_mm: float) -> None:
        """Paint in place, where there is air: the head lies on it. The same in every slice."""
        size = image.shape[0]
        y, x = np.ogrid[:size, :size]
        ym, xm = (y - size / 2) * pixel_mm, (x - size / 2) * pixel_mm
        parts = np.zeros(image.shape, bool)
        if self.plates:
            parts |= (np.abs(np.abs(xm) - 100 - self.gap_mm) < 1.2) & (ym > -10) & (ym < 60)
        if self.arc:
            radius = np.sqrt(xm**2 + (ym - 8) ** 2)
            parts |= (np.abs(radius - 103 - self.gap_mm) < 1.5) & (ym > 45)
        image[parts & (image < -700)] = self.hu
