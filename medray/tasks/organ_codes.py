"""Organs as coded concepts of SNOMED CT, for DICOM SEG."""

from __future__ import annotations

from medray.imaging.volume_seg import Concept, SegmentClass

OF_HEAD = {
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
"""Of head and neck: TG-263 name without its side → value and meaning, as pydicom has them of PS3.16."""
OF_TRUNK = {
    "Heart": ("80891009", "Heart"), "A_Aorta": ("15825003", "Aorta"), "Liver": ("10200004", "Liver"), "Spleen": ("78961009", "Spleen"),
    "Pancreas": ("15776009", "Pancreas"), "Gallbladder": ("28231008", "Gallbladder"), "Stomach": ("69695003", "Stomach"),
    "Duodenum": ("38848004", "Duodenum"), "Kidney": ("64033007", "Kidney"), "Glnd_Adrenal": ("23451007", "Adrenal gland"),
    "V_Venacava_I": ("64131007", "Inferior vena cava"), "Bowel_Small": ("30315005", "Small intestine"), "Bowel_Large": ("71854001", "Colon"),
    "Bladder": ("89837001", "Bladder"), "Rectum": ("34402009", "Rectum"), "Prostate": ("41216001", "Prostate"),
    "Femur": ("71341001", "Femur"),
}  # fmt: skip
"""Likewise, below the neck."""
_OTHERS = ("91723000", "Anatomical Structure")
_CATEGORY: Concept = ("123037004", "SCT", "Anatomical Structure")
_HEAD: Concept = ("774007", "SCT", "Head and Neck")
_TRUNK: Concept = ("22943007", "SCT", "Trunk")


def segment_class(organ: str) -> SegmentClass:
    """Its label is the TG-263 name, side and all; an organ that has no code here is an anatomical structure."""
    base = organ[:-2] if organ[-2:] in ("_L", "_R") else organ
    value, meaning = (OF_HEAD | OF_TRUNK).get(base, _OTHERS)
    region = _TRUNK if base in OF_TRUNK else _HEAD
    return SegmentClass(organ, (value, "SCT", meaning), _CATEGORY, region)
