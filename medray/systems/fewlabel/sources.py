"""The table of sources: whose scans, what each labels, and how its labels are written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medray.shards.case_table import files_below, files_of, path_in
from medray.shards.cells import read_cells
from medray.shards.packed import read_unpacked
from medray.shards.store import Store

FLAG = "--sources"
COLUMNS = ("name", "images", "masks", "organs", "mapping", "scored", "scored mapping", "patient")
WANTED = "wanted: name, images, masks, organs, and where labels are not called like organs mapping"
NONE = "none"
"""A label that is left out: ``3=none``."""
CT = "ct"
LAYOUT = "<case>.nii.gz, <case>/ct.nii.gz, or a folder of DICOM files a case"
VOLUMES = re.compile(r"(?P<stem>.+?)(?:_0000)?\.(?:nii|nii\.gz|nrrd)$", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Origin:
    """A source, without its files."""

    name: str
    organs: tuple[str, ...]
    """That it labels; empty where its scans are predicted and scored only."""
    mapping: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Label as it is written (a number of a mask, or the name of a file) → its organ; several that it has drawn as one; none
    where it is left out. A label that is not here is an organ where it is called like one."""
    scored_mapping: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Likewise, of the masks for scores alone; what it does not name is read as the labels are, or not at all."""

    def organs_of(self, label: str, scored: bool = False) -> tuple[str, ...] | None:
        """Organs of a label; none of one that is left out, None of one that nobody has declared.

        Args:
            scored: of the masks for scores alone.
        """
        for written, organs in (*(self.scored_mapping if scored else ()), *self.mapping):
            if written.lower() == label.lower():
                return organs
        for organ in self.organs:
            if organ.lower() == label.lower():
                return (organ,)
        return (self.organs[0],) if label == "1" and len(self.organs) == 1 and not self.mapping else None

    @property
    def by_number(self) -> set[str]:
        """Organs that a mask of numbers can hold."""
        numbers = {*(written for written, _ in self.mapping), *self.organs, "1"}
        return {organ for number in numbers if number.isdigit() for organ in self.organs_of(number) or ()}

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """What the numbers of its masks in the shards stand for, from 1: organs, and groups that it has drawn as one."""
        drawn = [organs for _, organs in self.mapping if organs]
        grouped = [group for group in dict.fromkeys(drawn) if len(group) > 1]
        inside = {organ for group in grouped for organ in group}
        return (*((organ,) for organ in self.organs if organ not in inside), *grouped)


UNNAMED = Origin("", ())
"""Of scans that no source has."""


@dataclass(frozen=True)
class Sources:
    """The table, read: origins, and a row for each case."""

    origins: tuple[Origin, ...]
    cases: tuple[dict[str, Any], ...]
    """Each with source, case, patient (None where no expression finds it), ct (paths), labels and scored (label as it is written → path; "" for a mask of
    numbers)."""
    flag: str = FLAG
    """That names them."""

    @property
    def organs(self) -> tuple[str, ...]:
        """All that any source labels, in the order of the table."""
        return tuple(dict.fromkeys(organ for origin in self.origins for organ in origin.organs))


def read_sources(uri: str) -> Sources:
    """A CSV of sources, by path or URI; all that it names lies in its own folder, or below.

    ``images`` is a folder with a scan a case: ``<case>.nii.gz`` (or .nii, .nrrd), ``<case>/ct.nii.gz``, or a folder of DICOM
    files a case. ``masks`` is a folder with ``<case>.nii.gz``, of numbers, or a folder a case with a mask a label, itself or in
    ``<case>/organs``. ``organs`` are those that the source labels, ``mapping`` says how: "1=Liver 2=Kidney_L+Kidney_R 3=none".
    ``scored`` is a folder of masks like ``masks``, for scores alone, ``scored mapping`` says how they are written. ``patient``, a regular expression, finds the patient in the
    name of a case; patients of one name in several sources are then one.

    Raises:
        ValueError: no such table, a column or a cell that cannot be used, a source without cases, an organ that no source draws
            by itself.
    """
    data, shown = read_unpacked(uri, FLAG)
    cells = read_cells(data, shown, FLAG)
    cells.columns = [name.lower() for name in cells.columns]
    where = f"{FLAG} {shown}"
    if lost := [name for name in COLUMNS[:4] if name not in cells]:
        raise ValueError(f"{where}: no column {lost[0]}; found {', '.join(cells.columns)}; {WANTED}")
    if odd := [name for name in cells.columns if name not in COLUMNS]:
        raise ValueError(f"{where}: column {odd[0]} is not read; leave it out, or name it one of {', '.join(COLUMNS)}")
    for name in COLUMNS[4:]:
        if name not in cells:
            cells[name] = ""
    folder = Store(files_of(uri))
    listed = sorted(file.path for file in files_below(folder, FLAG))
    origins, cases = list[Origin](), list[dict[str, Any]]()
    for number, line in cells.iterrows():
        at = f"{where}: line {number}"
        origin = _origin(dict(line), at)
        if origin.name in {one.name for one in origins}:
            raise ValueError(f"{at}: source {origin.name} is there already; give each its own name")
        origins.append(origin)
        cases += _cases(origin, dict(line), folder, listed, at)
    found = Sources(tuple(origins), tuple(cases))
    alone = {group[0] for origin in origins for group in origin.groups if len(group) == 1}
    if together := [organ for organ in found.organs if organ not in alone]:
        raise ValueError(
            f"{where}: no source draws {together[0]} by itself, so nothing can tell it from what it is drawn with; give it a "
            "source, or one name for the group"
        )
    targets = {organ for origin in origins for _, group in (*origin.mapping, *origin.scored_mapping) for organ in group}
    if strange := sorted(targets - {*found.organs}):
        raise ValueError(
            f"{where}: mapping to {strange[0]}: an organ that no source labels; name one of {' '.join(found.organs)}"
        )
    alike = [
        organ for organ in found.organs for other in found.organs if organ < other and organ.lower() == other.lower()
    ]
    if alike:
        raise ValueError(f"{where}: {alike[0]} is written in two ways; organs of one name are one: write it alike")
    if not found.organs:
        raise ValueError(f"{where}: no source labels an organ; name them in the column organs")
    return found


def new_scans(folder: Store, listed: Sequence[str], flag: str) -> Sources:
    """The scans of a folder, of which nobody has labelled an organ. Raises ValueError where there is none.

    Args:
        listed: the files below the folder, each as ``Store.files`` lists it. flag: that names the folder.
    """
    found = _scans((path, path.removeprefix(folder.root).strip("/").split("/")) for path in listed)
    if not found:
        raise ValueError(f"{flag} {folder.uri}: no scan among {len(listed):,} files; wanted {LAYOUT}")
    nothing = {"source": UNNAMED.name, "labels": {}, "scored": {}}
    cases = [nothing | {"case": case, "patient": case, "ct": paths} for case, paths in sorted(found.items())]
    return Sources((UNNAMED,), tuple(cases), flag)


def _origin(line: Mapping[str, str], at: str) -> Origin:
    name = line["name"]
    if not _NAME.fullmatch(name):
        raise ValueError(f'{at}: name "{name}": letters, digits, "_", "." and "-" only, and at least one')
    organs = tuple(re.split(r"[\s;]+", line["organs"].strip())) if line["organs"].strip() else ()
    if odd := [organ for organ in organs if not _NAME.fullmatch(organ)]:
        raise ValueError(f'{at}: organ "{odd[0]}": letters, digits, "_", "." and "-" only, blanks between organs')
    if len({*organs}) < len(organs):
        raise ValueError(f"{at}: organs {' '.join(organs)}: each once")
    mapping = _mapping(line["mapping"], organs, name, f"{at}: mapping")
    scored = _mapping(line["scored mapping"], (), name, f"{at}: scored mapping")
    origin = Origin(name, organs, mapping, scored)
    grouped = [organ for group in origin.groups if len(group) > 1 for organ in group]
    if len({*grouped}) < len(grouped) or any((organ,) in dict(mapping).values() for organ in grouped):
        raise ValueError(f"{at}: mapping {line['mapping']}: an organ is drawn by itself or in one group, not both")
    return origin


def _mapping(cell: str, organs: tuple[str, ...], name: str, at: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Label → organs. Raises ValueError, beginning with ``at``.

    Args:
        organs: that it may name; any where there are none.
    """
    found: dict[str, tuple[str, ...]] = {}
    for pair in filter(None, re.split(r"[\s;]+", cell)):
        written, _, target = pair.partition("=")
        parts = tuple(target.split("+"))
        if not written or not all(parts):
            raise ValueError(f"{at} {pair}: write label=organ, label=organ+organ or label={NONE}")
        parts = () if parts == (NONE,) else parts
        if odd := [part for part in parts if organs and part not in organs]:
            raise ValueError(f"{at} {pair}: {odd[0]} is not among the organs of {name}; add it, or {written}={NONE}")
        if written.lower() in map(str.lower, found):
            raise ValueError(f"{at} {cell}: each label once")
        found[written] = parts
    return tuple(found.items())


def _cases(origin: Origin, line: Mapping[str, str], folder: Store, listed: list[str], at: str) -> list[dict[str, Any]]:
    scans = _scans(_below(line["images"], folder, listed, f"{at}: images"))
    if not scans:
        raise ValueError(f"{at}: images {line['images']}: no scan; wanted {LAYOUT}")
    masks = _labels(line["masks"], folder, listed, f"{at}: masks") if origin.organs else {}
    scored = _labels(line["scored"], folder, listed, f"{at}: scored") if line["scored"] else {}
    undeclared = Counter(
        label for case in scans for label in masks.get(case, {}) if label and origin.organs_of(label) is None
    )
    for label, count in undeclared.most_common(1):
        if count == 1 < len(scans):  # a name that one case alone has may be its patient's
            raise ValueError(
                f"{at}: {origin.name} has a mask by a name that only one case has, and nobody has declared it; call masks by "
                "their labels, or leave it out in mapping"
            )
        raise ValueError(
            f"{at}: {origin.name} has masks called {label}, of {count} cases, and nobody has declared it; name its organ in "
            f"mapping, or leave it out with {label}={NONE}"
        )
    written = {label for case in scans for label in masks.get(case, {})}
    drawn = {organ for label in written for organ in (origin.organs_of(label) or () if label else origin.by_number)}
    if written and (never := [organ for organ in origin.organs if organ not in drawn]):
        raise ValueError(
            f"{at}: organ {never[0]}: no mask of {origin.name} can hold it, and every case would teach that it is absent; say in "
            "mapping how it is written, or leave it out of organs"
        )
    try:
        of_patient = re.compile(line["patient"] or "(?!)")
    except re.error as error:
        raise ValueError(f"{at}: patient {line['patient']}: no regular expression: {error}") from None
    rows = []
    for case, paths in sorted(scans.items()):
        found = of_patient.search(case)
        named = found[min(1, of_patient.groups)] if found else None
        if line["patient"] and not named:
            raise ValueError(f"{at}: patient {line['patient']}: finds none in the name of some case of {origin.name}")
        rows.append({
            "source": origin.name, "case": case, "patient": named, "ct": paths, "labels": masks.get(case, {}),
            "scored": scored.get(case, {}),
        })  # fmt: skip
    return rows


def _scans(below: Iterable[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """Case → the files of its scan."""
    scans: dict[str, list[str]] = {}
    series: dict[str, list[str]] = {}
    for path, inside in below:
        match = VOLUMES.match(inside[-1])
        if len(inside) == 1 and match:
            scans.setdefault(match["stem"], []).append(path)
        elif len(inside) == 2 and match and match["stem"].lower() == CT:
            scans.setdefault(inside[0], []).append(path)
        elif (
            len(inside) == 2 and match is None and not inside[-1].startswith(".")
        ):  # slices of DICOM, in files of any name
            series.setdefault(inside[0], []).append(path)
    return series | scans


def _below(cell: str, folder: Store, listed: list[str], at: str) -> list[tuple[str, list[str]]]:
    """The files below a folder that a cell names: path, and its parts from that folder on."""
    root = path_in(folder, cell)
    own = [path for path in listed if root and path.startswith(root.rstrip("/") + "/")]
    if not root or not own:
        raise ValueError(f'{at} "{cell}": no files there; name a folder in the table\'s own folder, or below')
    return [(path, path.removeprefix(root).strip("/").split("/")) for path in own]


def _labels(cell: str, folder: Store, listed: list[str], at: str) -> dict[str, dict[str, str]]:
    """Case → label as it is written → path; "" for a mask of numbers."""
    found: dict[str, dict[str, str]] = {}
    for path, inside in _below(cell, folder, listed, at):
        match = VOLUMES.match(inside[-1])
        if match is None:
            continue
        if len(inside) == 1:
            found.setdefault(match["stem"], {})[""] = path
        elif (len(inside) == 2 and match["stem"].lower() != CT) or (len(inside) == 3 and inside[1] == "organs"):
            found.setdefault(inside[0], {})[match["stem"]] = path
    return found
