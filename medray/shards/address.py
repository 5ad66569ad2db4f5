"""Addresses that hold a secret: they would be kept in settings, shown, and sent to MLflow, so they are refused."""

from __future__ import annotations

import os
import re

ALLOWED = "MEDRAY_KEYS_IN_ADDRESSES"
"""Environment variable that lets them pass: for storage of tests, whose keys are none."""
# a user and a password before an @; a port (digits up to a slash) is none, and a password may hold a slash
_USER = re.compile(r"^[a-z][a-z0-9+.-]*://[^/@:]+:(?!\d{1,5}(?:/|\?|$))[^@]+@", re.IGNORECASE)
_OPTION = re.compile(
    r"[?&](?:secret_key|access_key|session_token|password|passwd|token|sig|signature)=[^&]", re.IGNORECASE
)
_WAYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, a profile (AWS_PROFILE), or the instance's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS in the environment, or the instance's role",
    "http": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment",
    "postgresql": "PGPASSWORD in the environment, or a line of ~/.pgpass",
}


def check_address(flag: str, address: str) -> None:
    """Raise ValueError, which does not repeat the secret, for an address with a password or a key in it.

    Args:
        flag: what it was given with; "" where nobody knows.
    """
    if os.environ.get(ALLOWED) or not (_USER.search(address) or _OPTION.search(address)):
        return
    scheme = address.split("://", 1)[0].lower()
    way = next(
        (text for start, text in _WAYS.items() if scheme.startswith(start)),
        "the environment, or a profile of the client",
    )
    rest = (
        address.split("?", 1)[0].rsplit("@", 1)[-1]
        if _USER.search(address)
        else address.split("://", 1)[-1].split("?", 1)[0]
    )
    raise ValueError(
        f"{flag}{' ' * bool(flag)}{scheme}://{rest}: holds a secret, which would be kept and shown; use {way}"
    )
