"""The packages that medray runs on, on a cluster's nodes too, each with its version and the licences that its own metadata state.

uv run python tests/licences.py
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
KNOWN_TEXTS = {
    "Permission is hereby granted, free of charge, to any person obtaining a copy": "MIT (its licence file)",
}
"""How the text of a licence begins, for packages that come with the text and state nothing."""


def run_time() -> dict[str, metadata.Distribution]:
    """Name → what is installed here of the project's and the nodes' dependencies, and of theirs."""
    found, asked = dict[str, metadata.Distribution](), set[tuple[str, str]]()
    project = tomllib.loads(PROJECT.read_text())
    open_ = [Requirement(text) for text in project["project"]["dependencies"] + project["dependency-groups"]["nodes"]]
    while open_:
        wanted = open_.pop()
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras} - {extra for asked_name, extra in asked if asked_name == name}:
            asked.add((name, extra))
            found[name] = metadata.distribution(name)
            needs = map(Requirement, found[name].requires or [])
            open_ += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return dict(sorted(found.items()))


def licences(package: metadata.Distribution) -> list[str]:
    """Whatever it states: an SPDX expression, a short word, classifiers; else what its licence file is."""
    about = package.metadata
    stated = [about.get("License-Expression", ""), about.get("License", "").strip()]
    stated = [text for text in stated if text and "\n" not in text]
    classifiers = [text.split(" :: ")[-1] for text in about.get_all("Classifier", []) if text.startswith("License ::")]
    found = stated + [text for text in classifiers if text != "OSI Approved"]  # which of them, it does not say
    return list(dict.fromkeys(found)) or [KNOWN_TEXTS[text] for text in KNOWN_TEXTS if text in licence_files(package)]


def licence_files(package: metadata.Distribution) -> str:
    files = [
        file for file in package.files or [] if re.search(r"dist-info/.*(LICEN[SC]E|COPYING)", str(file), re.IGNORECASE)
    ]
    return "\n".join(" ".join(file.read_text().split()) for file in files)


if __name__ == "__main__":
    for name, package in run_time().items():
        print(f"{name} {package.version}: {'; '.join(licences(package))}")
