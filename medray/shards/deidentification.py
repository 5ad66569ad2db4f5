"""What shards keep of the images' headers, in the words of DICOM PS3.15 Annex E, for whoever has to decide on them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

DEIDENTIFICATION = "deidentification.json"
OPTIONS = {
    "113100 Basic Application Confidentiality Profile": "of the attributes that it removes or replaces none is kept but sex and age, where the kept columns name them; names of patients, studies, series, images and files are keyed hashes",
    "113105 Clean Descriptors Option": "no text of a header is kept but terms of the standard",
    "113103 Clean Graphics Option": "overlays and curves are not kept",
    "113104 Clean Structured Content Option": "structured reports are not read",
}
"""Codes of CID 7050 → why they hold of what is kept of headers."""
NOT = {
    "113101 Clean Pixel Data Option": "images that say that text is burned in, and secondary captures, are set aside; text is not looked for in pixels",
    "113102 Clean Recognizable Visual Features Option": "a face can be drawn from a head's slices; --deface of the hemorrhage jobs takes away what lies outside the skull, not all that tells a face",
    "113106 Retain Longitudinal Temporal Information with Full Dates Option": "no date and no time is kept",
    "113107 Retain Longitudinal Temporal Information with Modified Dates Option": "no date and no time is kept",
    "113109 Retain Device Identity Option": "no device is kept",
    "113110 Retain UIDs Option": "no UID is kept",
    "113111 Retain Safe Private Option": "no private element is kept",
    "113112 Retain Institution Identity Option": "no institution is kept",
}


IN_PART = {"113108 Retain Patient Characteristics Option": "sex, and ages up to 90, where the kept columns name them"}


def about(schema: pa.Schema, public: bool) -> dict[str, Any]:
    """What is written beside the shards.

    Args:
        schema: of the shards. public: whether identifiers are kept as they are.
    """
    kept = [field.name for field in schema]
    if public:
        return {"profile": "none: identifiers are kept as they are in the files", "kept": kept}
    return {
        "standard": "DICOM PS3.15 Annex E, as far as it is about attributes: shards are no DICOM files",
        "satisfied": OPTIONS,
        "applied in part": IN_PART,
        "not satisfied or not applied": NOT,
        "other formats": "of PNG, JPEG, NIfTI and NRRD the header's text is not kept either; what of their pixels holds, holds alike",
        "kept": kept,
    }
