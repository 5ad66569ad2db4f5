"""Phantom head CT: genuine DICOM files with known bleeds, for tests and for a first run on a machine without data.

A score on phantoms says that the machinery learns. It is never a clinical result.
"""

from medray.imaging.phantom.bleeds import BIT, BLEED_TYPES, VISIBLE_HU, VISIBLE_MM2
from medray.imaging.phantom.folder import PhantomSet, begin, finish, write_phantoms
from medray.imaging.phantom.study import PhantomSpec, Study, StudyPlan, draw_study, plan_phantoms
from medray.imaging.phantom.writer import LABELS, write_study

__all__ = [
    "BIT",
    "BLEED_TYPES",
    "LABELS",
    "VISIBLE_HU",
    "VISIBLE_MM2",
    "PhantomSet",
    "PhantomSpec",
    "Study",
    "StudyPlan",
    "begin",
    "draw_study",
    "finish",
    "plan_phantoms",
    "write_phantoms",
    "write_study",
]
