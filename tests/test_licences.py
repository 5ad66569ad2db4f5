"""No licence of what medray runs on asks for medray's own source, or forbids a use, but for those that are named here and why."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import cv2
import pytest
from licences import licence_files, licences, run_time

ROOT = Path(__file__).resolve().parents[1]
REFUSED = re.compile(
    r"GPL|General Public|Affero|SSPL|non-?commercial|CC-BY-NC|proprietary|LicenseRef|research|academic", re.I
)
NVIDIA = "NVIDIA's own terms: its libraries for its GPUs, which torch's wheels for Linux want"
EXCEPTIONS = {"cuda-bindings": NVIDIA}
"""Name → why it is there all the same; README.md names what these ask of whoever uses them."""

on_linux = pytest.mark.skipif(
    sys.platform != "linux",
    reason="looks into wheels for Linux: elsewhere torch wants no NVIDIA libraries, and OpenCV's lie in other files",
)


@pytest.fixture(scope="module")
def packages() -> dict[str, metadata.Distribution]:
    return run_time()


def refused(name: str, stated: list[str]) -> list[str]:
    if name in EXCEPTIONS or name.startswith("nvidia-"):
        return []
    return [text for text in stated if REFUSED.search(text)]


def test_no_licence_is_refused(packages: dict[str, metadata.Distribution]) -> None:
    assert len(packages) > 140
    assert {name: found for name, each in packages.items() if (found := refused(name, licences(each)))} == {}


def test_every_package_states_one(packages: dict[str, metadata.Distribution]) -> None:
    assert [name for name, each in packages.items() if not licences(each) and not name.startswith("nvidia-")] == []


@pytest.mark.parametrize(
    "stated",
    [
        "GPL-3.0-or-later",
        "GNU Affero General Public License v3",
        "LGPLv2+",
        "CC-BY-NC-4.0",
        "Free for non-commercial use",
    ],
)
def test_such_licences_would_be(stated: str) -> None:
    assert refused("new-package", ["MIT", stated]) == [stated]


@on_linux
def test_opencvs_ffmpeg_is_the_lesser_one() -> None:
    """Its wheel carries FFmpeg, of which medray uses nothing. One that is built with GPL parts says so in itself."""
    folder = Path(cv2.__file__).parents[1] / "opencv_python_headless.libs"
    (library,) = folder.glob("libavcodec*")
    assert b"libavcodec license: LGPL version 2.1 or later" in library.read_bytes()
    assert "LGPL" in (ROOT / "README.md").read_text()
    package = " ".join(path.read_text() for path in (ROOT / "medray").rglob("*.py"))
    assert not re.search(r"VideoCapture|VideoWriter", package)


@on_linux
@pytest.mark.parametrize("name", ["cuda-bindings", "nvidia-cudnn-cu12"])
def test_what_nvidia_asks_of_medical_systems_is_said(name: str) -> None:
    """Where the sentence is gone from a licence, the README's may go, too."""
    assert "medical, life support or other life critical applications" in licence_files(metadata.distribution(name))
    assert f"`{name}`" in (ROOT / "README.md").read_text()
