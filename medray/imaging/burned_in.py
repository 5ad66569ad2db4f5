"""Whether text may be burned into an image, by what its header says: PS3.3 C.7.6.1 and C.8.6."""

from __future__ import annotations

from medray.imaging.elements import Elements, text_of
from medray.imaging.tags import BURNED_IN, SOP_CLASS
from medray.imaging.types import Unreadable

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_WAY_OUT = "which may name the patient; look at such files, then --allow-burned-in takes them"


def is_secondary_capture(elements: Elements) -> bool:
    """Whether the image was made of another one: a screenshot, a scanned film, a picture saved as DICOM. Of one frame or of
    many (PS3.6 A: .7, and .7.1 to .7.4)."""
    sop_class = text_of(elements.get(SOP_CLASS))
    return sop_class == _SECONDARY_CAPTURE or sop_class.startswith(f"{_SECONDARY_CAPTURE}.")


def check_burned_in(elements: Elements) -> None:
    """Raise Unreadable where a header says that text is burned in (anything but NO), and for every secondary capture: those of
    a workstation say NO of themselves without anybody having looked."""
    if text_of(elements.get(BURNED_IN)).upper() not in ("", "NO"):
        raise Unreadable(f"text is burned into it, as its header says (0028,0301), {_WAY_OUT}")
    if is_secondary_capture(elements):
        raise Unreadable(f"a secondary capture: text may be burned into it, {_WAY_OUT}")
