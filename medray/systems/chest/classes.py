"""The 14 findings of ChestX-ray14, the names that other tables give them, and groups of them."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from medray.shards.films import plain_name

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""In the order of the data set's own lists (Wang et al., CVPR 2017, and its extension to 14)."""

NO_FINDING = "No Finding"

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "abnormal": FINDINGS,
        "tumour": ("Mass", "Nodule"),
        "inflammation": ("Pneumonia", "Infiltration", "Consolidation"),
    }
)
"""Name → members. The source names tumour and inflammation without a mapping: this one is ours, and "tumour=Mass" as
a task's target is another one."""

# what else these findings are called: by the data set's own list of boxes, by CheXpert, in British spelling
_ALIASES = {"infiltrate": "Infiltration", "pleuraleffusion": "Effusion", "oedema": "Edema"}


_BY_PLAIN_NAME = {plain_name(name): name for name in FINDINGS} | _ALIASES


def finding_named(name: str) -> str | None:
    """The finding that ``name`` means, in whatever case and with blanks or underscores; None where it means none."""
    return _BY_PLAIN_NAME.get(plain_name(name))


def unknown_findings(names: Iterable[str]) -> str:
    """What to tell a user whose ``names`` are no findings: each of them, near names, and all that there are."""
    said = []
    for name in names:
        near = difflib.get_close_matches(plain_name(name), _BY_PLAIN_NAME, n=1, cutoff=0.6)
        said.append(f'"{name[:40]}"' + (f" (did you mean {_BY_PLAIN_NAME[near[0]]}?)" if near else ""))
    more = f" and {len(said) - 5} more" if len(said) > 5 else ""
    return f"{', '.join(said[:5])}{more}: no finding that medray knows; there are {', '.join(FINDINGS)}"


@functools.lru_cache(maxsize=256)
def members(target: str) -> tuple[str, tuple[str, ...]]:
    """A target's name and the findings that it is made of.

    Args:
        target: a finding ("Mass"), a group of ``GROUPS`` ("tumour"), or a group of one's own ("nodular=Mass|Nodule").
    Raises:
        ValueError: a name that is neither, or a group's name that is no word.
    """
    name, equals, listed = target.partition("=")
    if not equals:
        if target in GROUPS:
            return target, GROUPS[target]
        finding = finding_named(target)
        if finding is None:
            raise ValueError(f"--targets {target}: {unknown_findings([target])}; groups are {', '.join(GROUPS)}")
        return finding, (finding,)
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ValueError(f'--targets {target}: "{name}" is no name for a group; use letters, digits and underscores')
    wrong = [part for part in listed.split("|") if finding_named(part) is None]
    if wrong:
        raise ValueError(f"--targets {target}: {unknown_findings(wrong)}")
    found = (finding_named(part) for part in listed.split("|"))
    return name, tuple(dict.fromkeys(part for part in found if part is not None))
