"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def head_ct_dir() -> Path:
    """The folder with one real head-CT series and its labels; medray never ships it."""
    folder = SHARED_DATA / "head_ct"
    if not folder.is_dir():
        pytest.skip("the real head-CT series is not on this machine (../shared/data/head_ct)")
    return folder
