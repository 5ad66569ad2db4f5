"""Whose mistake an error is: the user's, which one line explains, or this program's, whose traceback is needed."""

from __future__ import annotations

import builtins
import os
import re
import tempfile
import traceback
from typing import NamedTuple

import ray.exceptions

from medray.engine.nodes.cluster import last_error

_FRAME = re.compile(r'^\s*File "(.+)", line (\d+), in .*(?:\n(?!\s*File ")\s*(.*))?$', re.MULTILINE)
_LIBRARY = re.compile(r"/(?:site|dist)-packages/(?!medray/)|/lib/python3[^/]*/(?!(?:site|dist)-packages/)")
_REFUSALS = {"ValueError", "StopRun", "Unreadable"}


class _Place(NamedTuple):
    file: str
    line: int
    source: str


def is_ours(error: BaseException) -> bool:
    """Whether an error is a mistake of this program.

    It is none where a ``raise`` statement outside of libraries refuses a value with a ValueError, the way in which this code
    says what a user can mend, nor where the machine failed (files, memory, a lost node). What a library refuses, and any
    other type, was not foreseen. An error that ended a task on the cluster counts as what it was there.
    """
    error = _origin(error)
    place = _place(error)
    if _of_a_task(error):
        if place is None:  # no code failed: a process or a node was lost
            return False
        kind = last_error(str(error))[0]
        machine = kind == "OutOfMemoryError" or issubclass(getattr(builtins, kind, Exception), OSError)
        refusal = kind in _REFUSALS
    else:
        machine, refusal = isinstance(error, OSError), isinstance(error, ValueError)
    return not (machine or (refusal and place is not None and _raised_by_us(place)))


def write_traceback(error: BaseException) -> str:
    """Write the whole traceback into a new file that only this user may read (values in it may be identifiers).

    Returns:
        One line: the type of the error and where it arose, without its text, and the file.
    """
    descriptor, path = tempfile.mkstemp(prefix="medray-error-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(traceback.format_exception(error)))
    origin = _origin(error)
    kind = last_error(str(origin))[0] if _of_a_task(origin) else type(origin).__name__
    place = _place(origin)
    at = "" if place is None else f" at {os.path.basename(place.file)}:{place.line}"
    return (
        f"a mistake of this program, not of the command ({kind}{at}); its traceback, for your eyes only, is in {path}"
    )


def _origin(error: BaseException) -> BaseException:
    """What ended the task that ``error`` reports; else the error itself."""
    cause = error.__cause__
    return cause if cause is not None and _of_a_task(cause) else error


def _of_a_task(error: BaseException) -> bool:
    """The text of such an error is the traceback on the other machine."""
    return isinstance(error, ray.exceptions.RayError) or type(error).__module__.startswith("ray.train.")


def _place(error: BaseException) -> _Place | None:
    """The innermost frame."""
    if _of_a_task(error):
        frames = _FRAME.findall(str(error))
        return _Place(frames[-1][0], int(frames[-1][1]), frames[-1][2]) if frames else None
    summaries = traceback.extract_tb(error.__traceback__)
    return _Place(summaries[-1].filename, summaries[-1].lineno or 0, summaries[-1].line or "") if summaries else None


def _raised_by_us(place: _Place) -> bool:
    """By a statement of this program, or of a job or a system beside it: what C code refuses has no frame of its own."""
    return os.path.isabs(place.file) and not _LIBRARY.search(place.file) and place.source.startswith("raise")
