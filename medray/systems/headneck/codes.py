"""Organs as coded concepts of SNOMED CT, for DICOM SEG."""

from __future__ import annotations

from medray.imaging.volume_seg import Concept, SegmentClass

CODES = {
    "Brain": ("12738006", "Brain"), "Brainstem": ("119238007", "Brain Stem"), "SpinalCord": ("2748008", "Spinal cord"),
    "Bone_Mandible": ("91609006", "Mandible"), "Parotid": ("45289007", "Parotid gland"),
    "Glnd_Submand": ("54019009", "Submandibular gland"), "Glnd_Lacrimal": ("13561001", "Lacrimal gland"),
    "Eye": ("79652003", "Eyeball"), "OpticNrv": ("18234004", "optic nerve"), "OpticChiasm": ("244453006", "Optic chiasm"),
    "Pituitary": ("56329008", "Pituitary"), "Larynx": ("4596009", "Larynx"), "Glottis": ("1307006", "glottis"),
    "Esophagus": ("32849002", "Esophagus"), "Trachea": ("44567001", "Trachea"), "Cavity_Oral": ("74262004", "oral cavity"),
    "Lips": ("48477009", "Lip"), "Glnd_Thyroid": ("69748006", "Thyroid"), "Lobe_Temporal": ("78277001", "Temporal lobe"),
    "Hippocampus": ("5366008", "Hippocampus"), "Joint_TM": ("53620006", "Temporomandibular joint"),
    "BrachialPlex": ("36582005", "Brachial plexus"), "A_Carotid": ("69105007", "Carotid Artery"), "Lung": ("39607008", "Lung"),
}  # fmt: skip
"""TG-263 name without its side → value and meaning, as pydicom has them of PS3.16."""
_OTHERS = ("91723000", "Anatomical Structure")
_CATEGORY: Concept = ("123037004", "SCT", "Anatomical Structure")
_REGION: Concept = ("774007", "SCT", "Head and Neck")


def segment_class(organ: str) -> SegmentClass:
    """Its label is the TG-263 name, side and all; an organ that has no code here is an anatomical structure."""
    base = organ[:-2] if organ[-2:] in ("_L", "_R") else organ
    value, meaning = CODES.get(base, _OTHERS)
    return SegmentClass(organ, (value, "SCT", meaning), _CATEGORY, _REGION)
