"""Addresses that hold a secret: they would be kept in settings, shown, and sent to MLflow, so they are refused."""

from __future__ import annotations

import os
import re

ALLOWED = "MEDRAY_KEYS_IN_ADDRESSES"
"""Environment variable that lets them pass: for storage of tests, whose keys are none."""
# a user and a password before an @, also where %3A stands for the colon; a password may hold a slash. http://host:5000/a@b looks
# the same, and can be written http://host:5000/a%40b
_LOGIN = re.compile(r"^[a-z][a-z0-9+.-]*://(?:[^/@:]*(?::|%3a)[^@]+@)|^https?://[^/@]+@", re.IGNORECASE)
_OPTION = re.compile(
    r"[?&;](?:[^=&;]*(?:secret|token|passw|pwd|credential|signature|accesskey|access_key|account_key|api_?key)[^=&;]*|sig|key|auth)"
    r"=[^&;]",
    re.IGNORECASE,
)
_WAYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, a profile (AWS_PROFILE), or the instance's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS in the environment, or the instance's role",
    "http": "MLFLOW_TRACKING_LOGINNAME and MLFLOW_TRACKING_PASSWORD in the environment",
    "postgresql": "PGPASSWORD in the environment, or a line of ~/.pgpass",
}


def check_address(flag: str, address: str) -> None:
    """Raise ValueError, which does not repeat the secret, for an address with a password or a key in it.

    Args:
        flag: what it was given with; "" where nobody knows.
    """
    if os.environ.get(ALLOWED) or not (_LOGIN.search(address) or _OPTION.search(address)):
        return
    scheme = address.split("://", 1)[0].lower()
    way = next(
        (text for start, text in _WAYS.items() if scheme.startswith(start)),
        "the environment, or a profile of the client",
    )
    rest = re.split("[?;]", address.split("://", 1)[-1], maxsplit=1)[0]
    if _LOGIN.search(address):
        rest = address.rsplit("@", 1)[-1].split("?", 1)[0]
    raise ValueError(
        f"{flag}{' ' * bool(flag)}{scheme}://{rest}: holds a secret, which would be kept and shown; use {way}"
    )
