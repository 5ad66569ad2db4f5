"""The phantom gives nothing away: what needs no look at shape and place must not find the bleeding.

Set sizes are chosen so that chance stays inside the bounds; the seeds are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medray.imaging.phantom import PhantomSpec, Study, draw_study, plan_phantoms, write_phantoms

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Invalid value for VR UI")]
CLASSIFIERS = {
    "trees": HistGradientBoostingClassifier(max_iter=60, max_depth=3, learning_rate=0.05, min_samples_leaf=20),
    "line": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)),
}


@dataclass
class Drawn:
    """Slices of a set, in stack order."""

    any_label: np.ndarray
    position: np.ndarray  # 0 at the lowest, 1 at the highest plane
    patient: np.ndarray
    bright_mm2: np.ndarray  # 55-90 HU, everywhere
    bright_in_skull_mm2: np.ndarray
    blood_mm2: np.ndarray


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    rows = []
    for plan in plan_phantoms(PhantomSpec(patients=64, seed=5, matrix_px=128, slices=(18, 22))):
        rows += _slices(draw_study(plan))
    return Drawn(*(np.array(column) for column in zip(*rows, strict=True)))


def _slices(study: Study) -> list[tuple[object, ...]]:
    height = study.stack.positions_mm @ study.stack.normal
    place = (height - height.min()) / np.ptp(height)
    pixel = study.stack.pixel_mm
    rows = []
    for k, image in enumerate(study.images_hu):
        bright = (image >= 55) & (image <= 90)
        bone = ndimage.binary_closing(np.pad(image > 300, 8), iterations=2)[8:-8, 8:-8]
        inside = ndimage.binary_erosion(ndimage.binary_fill_holes(bone) & ~bone)
        areas = [np.count_nonzero(m) * pixel**2 for m in (bright, bright & inside, study.masks[k])]
        rows.append((study.labels[k, 5], place[k], study.plan.patient, *areas))
    return rows


def test_the_labels_can_be_known_from_the_true_masks(drawn: Drawn) -> None:
    assert roc_auc_score(drawn.any_label, drawn.blood_mm2) > 0.99


@pytest.mark.parametrize("where", ["bright_mm2", "bright_in_skull_mm2"])
def test_counting_bright_pixels_does_not_find_the_bleeding(drawn: Drawn, where: str) -> None:
    assert roc_auc_score(drawn.any_label, getattr(drawn, where)) <= 0.75


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_position_in_the_stack_does_not_find_the_bleeding(drawn: Drawn, name: str) -> None:
    from_middle = np.abs(drawn.position - 0.5)
    features = np.stack([drawn.position, from_middle, from_middle**2], axis=1)
    guess = cross_val_predict(
        CLASSIFIERS[name], features, drawn.any_label, groups=drawn.patient, cv=GroupKFold(5), method="predict_proba"
    )
    assert roc_auc_score(drawn.any_label, guess[:, 1]) <= 0.75
    assert roc_auc_score(drawn.any_label, -from_middle) <= 0.75


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A study a row: numbers from all of its tags, its files and its noise; whether it bleeds; its patient."""
    folder = tmp_path_factory.mktemp("many")
    done = write_phantoms(folder, PhantomSpec(patients=320, seed=9, matrix_px=48, slices=(8, 12)))
    studies: dict[str, list[np.ndarray]] = {}
    patients: dict[str, str] = {}
    for path in done.dicom.iterdir():
        dataset = pydicom.dcmread(path)
        studies.setdefault(dataset.StudyInstanceUID, []).append(_numbers(dataset, path))
        patients[dataset.StudyInstanceUID] = dataset.PatientID
    bleeds = {plan.study_id: bool(plan.bleeds) for plan in done.plans}
    names = sorted(studies)
    rows = [
        np.concatenate([f(studies[s], axis=0) for f in (np.mean, np.std, np.max)] + [[len(studies[s])]]) for s in names
    ]
    return np.array(rows), np.array([bleeds[s] for s in names]), np.array([patients[s] for s in names])


def _numbers(dataset: pydicom.Dataset, path: Path) -> np.ndarray:
    def of(keyword: str, count: int) -> list[float]:
        value = dataset.get(keyword)
        values = [] if value is None else list(value) if isinstance(value, pydicom.multival.MultiValue) else [value]
        return [float(v) for v in values[:count]] + [-9999.0] * (count - len(values))

    numbers = [float(path.stat().st_size), float(len(dataset)), float(path.stem.encode()[-1])]
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        numbers += of(keyword, count)
    for keyword in ("BitsStored", "PixelRepresentation", "RescaleIntercept", "PixelPaddingValue", "SliceThickness"):
        numbers += of(keyword, 1)
    numbers += of("WindowCenter", 2) + of("WindowWidth", 2) + of("InstanceNumber", 1)
    air = dataset.pixel_array[22:26, :5].astype(float)
    return np.array([*numbers, float(air.std()), float(air.mean())])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_metadata_does_not_find_the_bleeding(tags: tuple[np.ndarray, np.ndarray, np.ndarray], name: str) -> None:
    features, bleeds, patients = tags
    guess = cross_val_predict(
        CLASSIFIERS[name], features, bleeds, groups=patients, cv=GroupKFold(5), method="predict_proba"
    )
    assert roc_auc_score(bleeds, guess[:, 1]) <= 0.60
