"""Every command of a job that the READMEs, cluster.yaml, the jobs or the package show is taken by that job's parser."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import JOBS, load

import medray.engine.tuning.job
from medray.engine.job.options import flags_over

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in JOBS.glob("*.py"))
READMES = [ROOT / "README.md", *sorted((ROOT / "medray").rglob("README.md"))]
SHOWING = [
    *READMES,
    ROOT / "cluster.yaml",
    *sorted((ROOT / "medray").rglob("*.yaml")),
    *sorted(JOBS.glob("*.py")),
    *sorted((ROOT / "medray").rglob("*.py")),
]
WANTED = {
    "ich_predict": ["--run", "out", "--dicom", "new"],
    "boneage_predict": ["--run", "out", "--images", "new"],
    "chest_explain": ["film.png", "--run", "out"],
}

Parse = Callable[[str, list[str]], str | None]


def commands(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Job and flags of each command; what the reader is to fill in is a word."""
    joined = re.sub(r"\\+\n[ #]*", " ", text)
    found = []
    for name, rest in re.findall(r"(?:uv run|python) jobs/(\w+)\.py([^`\n\",]*)", joined):
        words = shlex.split(rest, comments=True)
        kept = [w for i, w in enumerate(words) if w != "…" or words[i - 1].startswith("--")]  # a lone one: and so on
        found.append((name, tuple(word.replace("…", "x") for word in kept)))
    return found


SHOWN = sorted({command for path in SHOWING for command in commands(path.read_text())})
INLINE = sorted({flags for path in READMES for flags in re.findall(r"`(--[^`]+)`", path.read_text())})


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Parse:
    """A job's own parser on these flags, without the job; gives what it prints where it refuses them, else None."""

    def only_parse(job: type, main: object, default: object = None) -> None:
        flags_over(job, default)

    def run(name: str, words: list[str]) -> str | None:
        module = load(name)
        for place in (module, medray.engine.tuning.job):
            if hasattr(place, "run_job"):
                monkeypatch.setattr(place, "run_job", only_parse)
        monkeypatch.setenv("COLUMNS", "250")
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        try:
            module.start()
        except SystemExit:
            return "".join(capsys.readouterr())
        return None

    return run


def test_commands_are_found() -> None:
    assert len(SHOWN) >= 15
    assert {name for name, _ in SHOWN} == set(NAMES)
    assert any(name == "ich_cv" and "--gpu" in flags for name, flags in SHOWN)
    assert len(INLINE) >= 30


@pytest.mark.parametrize(
    ("name", "words"), SHOWN, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_shown_command_is_taken(name: str, words: tuple[str, ...], parse: Parse) -> None:
    assert parse(name, list(words)) is None


_FLAGS: dict[str, set[str]] = {}


def flags_of(name: str, parse: Parse) -> set[str]:
    """Of a job, as its --help has them; a parser takes a moment to build, and there are twenty."""
    if name not in _FLAGS:
        _FLAGS[name] = set(re.findall(r"--[\w.-]+", parse(name, ["--help"]) or ""))
    return _FLAGS[name]


@pytest.mark.parametrize("shown", INLINE)
def test_shown_flags_are_some_jobs(shown: str, parse: Parse) -> None:
    """With the values that are shown; where words stand for them, or none is shown, the flags have to be there."""
    words = shlex.split(shown)
    flags = {word.rstrip("…") for word in words if word.startswith("--")}
    flags = {"--sequence.hidden" if flag == "--sequence." else flag for flag in flags}
    have = [name for name in NAMES if flags <= flags_of(name, parse)]
    assert have
    if not re.search(r"[A-Z]{3}|…", shown) and len(flags) < len(words):
        refused = dict[str, str | None]()
        for name in have:
            refused[name] = parse(name, [*WANTED.get(name, []), *words])
            if refused[name] is None:
                return
        raise AssertionError(refused)


@pytest.mark.parametrize("flag", ["gpu", "deterministic"])
def test_three_states_of_a_plain_flag(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cv = load("chest_cv").ChestCV
    for words, expected in (([], None), ([f"--{flag}"], True), ([f"--no-{flag}"], False)):
        monkeypatch.setattr(sys, "argv", ["chest_cv.py", *words])
        assert getattr(flags_over(cv, cv()).options, flag) is expected
