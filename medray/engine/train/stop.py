"""StopRun: how a run says that it cannot go on."""

from __future__ import annotations


class StopRun(ValueError):
    """A run that cannot go on and would fail again in the same way. The text is one line."""
