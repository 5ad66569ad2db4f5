"""Faulty files on request: one more study, some of whose files and label rows are spoiled, each in a known way.

Kinds of files: ``truncated`` (fewer pixel bytes than rows and columns need), ``wrapped`` (12-bit unsigned, intercept 0,
negative values wrapped round to 4096 less), ``unsigned`` (the same attributes, but values that are right as they
stand, with the intercept that belongs to them: to be left alone), ``no rescale`` (slope and intercept missing),
``text`` (not DICOM), ``modality`` (an MR image). Kinds of label rows: ``duplicate`` (six rows twice), ``conflicting``
(twice, with different answers), ``unlabelled`` (a file without rows), ``no file`` (rows without a file).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from medray.imaging.phantom.study import PhantomSpec, StudyPlan, draw_study
from medray.imaging.phantom.writer import LabelRow, Scanner, dataset_of, encode, label_rows, put, write_whole

# slice of the study, counted from the middle, and what is done to it
FILES = {-3: "truncated", -2: "wrapped", -1: "wrapped", 0: "unsigned", 1: "no rescale", 2: "text", 3: "modality"}
LABEL_ROWS = {-7: "duplicate", -6: "conflicting", -5: "unlabelled", -4: "no file"}


def write_broken(folder: Path, spec: PhantomSpec) -> tuple[list[LabelRow], dict[str, str], dict[str, str]]:
    """Write the faulty study: its label rows, {file name: kind}, {slice id: kind}."""
    plan = StudyPlan(spec.patients, 0, ("intraparenchymal",), replace(spec, slices=(max(18, spec.slices[0]),) * 2))
    study = draw_study(plan)
    scanner = Scanner(False, 12, -1024, None, False, ((40, 80),))
    (folder / "dicom").mkdir(parents=True, exist_ok=True)
    rows: list[LabelRow] = []
    files: dict[str, str] = {}
    labels: dict[str, str] = {}
    for k, slice_id in enumerate(study.slice_ids):
        kind, label_kind = (table.get(k - len(study.slice_ids) // 2) for table in (FILES, LABEL_ROWS))
        dataset = dataset_of(plan, study.stack, scanner, k, study.images_hu[k])
        name = f"{slice_id}.dcm"
        content = spoiled(dataset, study.images_hu[k], kind)
        if label_kind != "no file":
            write_whole(folder / "dicom" / name, content)
        if kind:
            files[name] = kind
        if label_kind:
            labels[slice_id] = label_kind
        if label_kind != "unlabelled":
            rows += label_rows(slice_id, study.labels[k])
        if label_kind == "duplicate":
            rows += label_rows(slice_id, study.labels[k])
        if label_kind == "conflicting":
            rows += label_rows(slice_id, 1 - study.labels[k])
    return rows, files, labels


def spoiled(dataset: Dataset, image_hu: np.ndarray, kind: str | None) -> bytes:
    """The bytes of a slice's file with one fault."""
    if kind == "text":
        return b"this is not an image\n"
    if kind == "truncated":
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) * 3 // 10 // 2 * 2]
    elif kind == "wrapped":
        put(dataset, RescaleIntercept="0")
        dataset.PixelData = (np.maximum(image_hu, -1000).astype(np.int32) % 4096).astype("<u2").tobytes()
    elif kind == "no rescale":
        del dataset.RescaleSlope, dataset.RescaleIntercept
    elif kind == "modality":
        put(dataset, Modality="MR", SOPClassUID=MRImageStorage)
    return encode(dataset)
