"""Short names for what a result was made from."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(*values: Any) -> str:
    """A name of 12 digits for values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]
