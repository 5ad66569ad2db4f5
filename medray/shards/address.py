"""Addresses that hold a secret: they would be kept in settings, shown, and sent to MLflow, so they are refused."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

ALLOWED = "MEDRAY_KEYS_IN_ADDRESSES"
"""Environment variable that lets them pass: for storage of tests, whose keys are none."""
_FILES = {"file", "sqlite"}  # no user and no key: a path, in which a colon, an @ or a ; is a letter
_BUCKETS = {"s3", "gs", "gcs", "abfs", "abfss", "hf"}  # no port, and no options but behind a "?"
_USERS = {"postgresql", "postgres", "mysql", "mssql", "oracle", "hdfs", "abfs", "abfss"}  # a user alone is no secret
_PORT = re.compile(r":\d{1,5}$")
_NAMES = re.compile(
    r".*(secret|passw|passphrase|signature|accesskey|accountkey|apikey|privatekey|sharedkey|subscriptionkey).*|.*(token|pwd)"
    r"|key|pass|pw|sig|sas|saskey|auth|authorization|code|jwt|bearer|credential|credentials|credentialkey|x(amz|goog)credential|odbcconnect"
)
"""Names of options, without - and _, whose values are secrets."""
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
    scheme, there, rest = address.strip().partition("://")
    kind = scheme.lower().partition("+")[0]
    if os.environ.get(ALLOWED) or not there or kind in _FILES:
        return
    place, *options = re.split("[?#]" if kind in _BUCKETS else "[?#&;]", rest, maxsplit=1)
    login = _has_login(kind, unquote(place) if kind in _BUCKETS else re.sub("%3a", ":", place, flags=re.IGNORECASE))
    if not login and not any(_has_secret(one) for one in re.split("[?#&;]", "&".join(options))):
        return
    way = next(
        (text for start, text in _WAYS.items() if kind.startswith(start)),
        "the environment, or a profile of the client",
    )
    raise ValueError(
        f"{flag}{' ' * bool(flag)}{scheme.lower()}://{place.rsplit('@', 1)[-1] if login else place}: holds a secret, which would "
        f"be kept and shown; use {way}"
    )


def _has_login(kind: str, place: str) -> bool:
    """Whether a password stands before the host, or in its place: a slash in it ends what a parser takes for the host."""
    host, _, path = re.sub(r"\[.*?\]", "", place).partition("/")
    user, at, _ = host.rpartition("@")
    if at:
        return ":" in user or (kind not in _USERS and user != "anonymous")
    return "@" in path and ":" in host and not (kind not in _BUCKETS and _PORT.search(host))


def _has_secret(option: str) -> bool:
    name, _, value = option.partition("=")
    return bool(value and _NAMES.fullmatch(re.sub("[-_]", "", unquote(name).lower())))
