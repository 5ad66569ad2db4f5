"""What people call organs → the names of AAPM TG-263 (Mayo et al. 2018), which planning systems know; nothing is guessed.

"Lt Parotid", "parotid_left", "LeftParotid" and "Glnd Parotid L" are Parotid_L. A name that is not in the table is no
organ until somebody says which one it is, and is listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

PAIRED = {
    "Parotid": ("parotid", "parotidgland", "glandparotid", "glndparotid", "parotis"),
    "Glnd_Submand": ("submandibular", "submandibulargland", "submandibula", "submand", "glndsubmand", "glndsubmandibular", "smg"),
    "Glnd_Lacrimal": ("lacrimal", "lacrimalgland", "glndlacrimal"),
    "Lens": ("lens", "eyelens"),
    "Eye": ("eye", "eyeball", "globe"),
    "OpticNrv": ("opticnrv", "opticnerve", "opticn", "nopticus"),
    "Cochlea": ("cochlea",),
    "Lobe_Temporal": ("lobetemporal", "temporallobe"),
    "Hippocampus": ("hippocampus",),
    "Joint_TM": ("jointtm", "tmj", "tmjoint", "temporomandibularjoint"),
    "BrachialPlex": ("brachialplex", "brachialplexus", "plexusbrachialis"),
    "A_Carotid": ("acarotid", "carotid", "carotidartery"),
    "Lung": ("lung",),
}  # fmt: skip
"""TG-263 name without its side → how it is written, small letters only."""
SINGLE = {
    "Brain": ("brain",),
    "Brainstem": ("brainstem", "stem"),
    "SpinalCord": ("spinalcord", "cord", "myelon"),
    "SpinalCanal": ("spinalcanal", "canal"),
    "Bone_Mandible": ("mandible", "bonemandible", "mandibula"),
    "OpticChiasm": ("opticchiasm", "chiasm", "chiasma", "opticchiasma"),
    "Pituitary": ("pituitary", "pituitarygland", "hypophysis"),
    "Larynx": ("larynx",),
    "Glottis": ("glottis", "glotticarea"),
    "Esophagus": ("esophagus", "oesophagus", "cervicalesophagus"),
    "Trachea": ("trachea",),
    "Cavity_Oral": ("cavityoral", "oralcavity"),
    "Lips": ("lips",),
    "Glnd_Thyroid": ("thyroid", "thyroidgland", "glndthyroid"),
    "Musc_Constrict": ("muscconstrict", "pharyngealconstrictor", "constrictor"),
}
_SIDES = {"l": "L", "lt": "L", "left": "L", "links": "L", "r": "R", "rt": "R", "right": "R", "rechts": "R"}
_BASES = {spelling: name for table in (PAIRED, SINGLE) for name, every in table.items() for spelling in every}


def organ_of(name: str, own: Mapping[str, str] | None = None) -> str | None:
    """The TG-263 name of what somebody calls an organ; None where the table does not know it.

    Args:
        name: of a structure or a file, without its extension. An organ of a pair must say its side, one alone must not. One with
            digits or signs (SpinalCord+5, SpinalCord_05, ~Parotid_L) is an expansion or a part, and no organ.
        own: the user's table: name as it is written, in any case → organ. It comes first.
    """
    for written, organ in (own or {}).items():
        if written.strip().lower() == name.strip().lower():
            return organ
    if re.search(r"[^A-Za-z_.,() -]|^\s*_", name):  # _Parotid_L serves optimization (TG-263)
        return None
    words = _words(name)
    sides = {_SIDES[word] for word in words if word in _SIDES}
    base = _BASES.get("".join(word for word in words if word not in _SIDES))
    if base in PAIRED:
        return f"{base}_{sides.pop()}" if len(sides) == 1 else None
    return base if not sides else None


def own_names(pairs: Sequence[str]) -> dict[str, str]:
    """ "Ohrspeichel re=Parotid_R" → as it is written → organ. Raises ValueError for other text, and for an organ that the table knows
    by another name: it would be learned beside its own self."""
    found = {}
    for pair in pairs:
        written, _, organ = pair.rpartition("=")
        if not written.strip() or not organ.strip():
            raise ValueError(f"--names {pair}: write the name and its organ, such as 'Ohrspeichel re=Parotid_R'")
        known = organ_of(organ.strip())
        if known not in (None, organ.strip()):
            raise ValueError(f"--names {pair}: the organ's name is {known}; write '{written.strip()}={known}'")
        found[written.strip()] = organ.strip()
    return found


def mirrored(organ: str) -> str:
    """The organ of the other side; of one in the middle, itself."""
    return {"_L": organ[:-2] + "_R", "_R": organ[:-2] + "_L"}.get(organ[-2:], organ)


def _words(name: str) -> list[str]:
    """Small letters, cut at everything else, between small and capital letters, and behind a leading "Left" or "Right"."""
    cut = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", cut.lower())


SMALL = ("Lens", "OpticNrv", "OpticChiasm", "Pituitary", "Cochlea", "Glnd_Lacrimal")
"""TG-263 names without their sides of organs that are a few voxels on a planning CT of everyone."""


def small_ones(organs: Sequence[str]) -> tuple[str, ...]:
    """Those of SMALL among them."""
    return tuple(organ for organ in organs if organ in SMALL or organ[:-2] in SMALL)
