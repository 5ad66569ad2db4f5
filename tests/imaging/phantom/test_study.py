"""Plans and drawings: rates, places and densities of bleeds, and look-alikes that do not know the label."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from medray.imaging.phantom import BIT, BLEED_TYPES, PhantomSpec, Study, StudyPlan, draw_study, plan_phantoms

SPEC = PhantomSpec(patients=1, matrix_px=128, slices=(20, 20), seed=11)


def drawn(kind: str, patients: range = range(6)) -> list[Study]:
    return [draw_study(StudyPlan(p, 0, (kind,), SPEC)) for p in patients]


@pytest.mark.parametrize("patients", [20, 60, 200])
def test_plans_keep_the_rates(patients: int) -> None:
    plans = plan_phantoms(PhantomSpec(patients=patients))
    assert len({p.patient for p in plans}) == patients
    assert len(plans) > patients
    assert sum(bool(p.bleeds) for p in plans) == round(0.4 * len(plans))
    types = Counter(kind for p in plans for kind in p.bleeds)
    assert set(types) == set(BLEED_TYPES)
    if patients >= 60:  # in a smaller set three epidural patients, one a fold, may be as many as of another type
        assert min(types, key=types.__getitem__) == "epidural"
    assert len({p.patient for p in plans if "epidural" in p.bleeds}) >= 3
    assert any(len(p.bleeds) > 1 for p in plans)
    assert len({p.slice_id(k) for p in plans for k in range(30)}) == 30 * len(plans)


@pytest.mark.slow
def test_slices_are_positive_at_the_stated_rates_and_in_runs() -> None:
    plans = plan_phantoms(PhantomSpec(patients=60, matrix_px=64, slices=(18, 24), seed=2))
    studies = [draw_study(p) for p in plans]
    assert 0.14 <= np.concatenate([s.labels[:, 5] for s in studies]).mean() <= 0.21
    assert 0.36 <= np.mean([s.labels[:, 5].any() for s in studies]) <= 0.42
    runs = []
    for s in studies:
        assert np.array_equal(s.labels[:, 5], s.labels[:, :5].max(axis=1))
        if s.labels[:, 5].any():
            ordered = s.labels[np.argsort(s.stack.positions_mm @ s.stack.normal, kind="stable"), 5]
            runs.append(int(np.count_nonzero(np.diff(np.r_[0, ordered]) == 1)))
    assert np.mean(np.array(runs) == 1) >= 0.85


def test_a_study_is_the_same_however_often_it_is_drawn() -> None:
    plan = StudyPlan(3, 1, ("subdural",), SPEC)
    first, again = draw_study(plan), draw_study(plan)
    assert np.array_equal(first.images_hu, again.images_hu)
    assert np.array_equal(first.masks, again.masks)
    assert first.slice_ids == again.slice_ids


@pytest.mark.parametrize("kind", BLEED_TYPES)
def test_nothing_but_the_bleeding_depends_on_the_label(kind: str) -> None:
    sick = draw_study(StudyPlan(5, 0, (kind,), SPEC))
    well = draw_study(StudyPlan(5, 0, (), SPEC))
    assert sick.stack.kind == well.stack.kind
    assert np.array_equal(sick.stack.positions_mm, well.stack.positions_mm)
    assert sick.noise_hu == well.noise_hu
    clear = ~(sick.masks > 0).any(axis=(1, 2))
    assert clear.any()
    assert sick.labels[clear].sum() == 0
    for k in np.flatnonzero(~clear):
        # far from the blood (and from the oedema about it) not a bit differs
        far = ndimage.distance_transform_edt(sick.masks[k] == 0) * sick.stack.pixel_mm > 30
        same = sick.images_hu[k] == well.images_hu[k]
        assert np.mean(same[far]) > 0.98


@pytest.mark.parametrize("kind", BLEED_TYPES)
def test_blood_is_40_to_85_hu_and_at_least_a_millilitre(kind: str) -> None:
    for study in drawn(kind):
        blood = study.masks == BIT[kind]
        volume_ml = blood.sum() * study.stack.pixel_mm**2 * study.stack.spacing_mm / 1000
        assert volume_ml >= 0.5  # what is visible of a bleed from 1 mL up
        assert 30 < np.median(study.images_hu[blood]) < 88


def _depth_mm(study: Study, k: int) -> np.ndarray:
    """Distance of each pixel from the nearest bone."""
    return np.asarray(ndimage.distance_transform_edt(study.images_hu[k] < 400) * study.stack.pixel_mm)


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("epidural", 0, 9), ("subdural", 0, 9), ("intraventricular", 15, 60)]
)
def test_bleeds_lie_where_they_belong(kind: str, least: float, most: float) -> None:
    depths = [
        _depth_mm(study, k)[study.masks[k] > 0]
        for study in drawn(kind)
        for k in np.flatnonzero(study.labels[:, 5])
        if abs(study.stack.positions_mm[k] @ study.stack.normal - study.stack.head_origin_mm @ study.stack.normal) < 40
    ]
    assert least <= np.median(np.concatenate(depths)) <= most


def test_a_lens_is_thicker_than_a_crescent_is_for_its_length() -> None:
    def slenderness(kind: str) -> float:
        values = []
        for study in drawn(kind, range(8)):
            k = int(np.argmax((study.masks > 0).sum(axis=(1, 2))))
            points = np.argwhere(study.masks[k] > 0).astype(float)
            spread = np.sqrt(np.linalg.eigvalsh(np.cov(points.T)))
            values.append(spread[0] / spread[1])
        return float(np.median(values))

    assert slenderness("epidural") > slenderness("subdural")


def test_a_duplicate_slice_repeats_pixels_and_label_under_another_id() -> None:
    plans = [StudyPlan(p, 0, ("subdural",), replace(SPEC, matrix_px=32)) for p in range(20)]
    studies = [s for s in map(draw_study, plans) if s.stack.duplicate_of is not None]
    assert studies
    for study in studies:
        of = study.stack.duplicate_of
        assert of is not None
        assert np.array_equal(study.images_hu[-1], study.images_hu[of])
        assert np.array_equal(study.labels[-1], study.labels[of])
        assert len(set(study.slice_ids)) == len(study.slice_ids)


def test_large_images_are_drawn_at_the_same_places() -> None:
    small = draw_study(StudyPlan(2, 0, ("intraparenchymal",), replace(SPEC, matrix_px=256)))
    large = draw_study(StudyPlan(2, 0, ("intraparenchymal",), replace(SPEC, matrix_px=512)))
    assert large.images_hu.shape[1:] == (512, 512)
    assert np.array_equal(small.labels, large.labels)
    middle = len(small.labels) // 2
    assert np.mean((large.images_hu[middle, ::2, ::2] > 400) == (small.images_hu[middle] > 400)) > 0.97


@pytest.mark.parametrize(
    "wrong", [{"patients": 0}, {"matrix_px": 16}, {"matrix_px": 300}, {"slices": (4, 9)}, {"positive_rate": 1.5}]
)
def test_a_spec_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="phantom"):
        replace(SPEC, **wrong)
