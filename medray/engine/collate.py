"""Examples → a batch."""

from __future__ import annotations

from typing import Any

import numpy as np


def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Arrays with the batch first; text becomes an object array."""
    return {
        name: np.array([e[name] for e in examples], dtype=object)
        if isinstance(examples[0][name], str)
        else np.stack([np.asarray(e[name]) for e in examples])
        for name in examples[0]
    }
