"""The key of the pseudonyms from AWS's Secrets Manager into ~/.medray of the head: `python -m medray.engine.nodes.vault REGION`.

The head's role may read the secret of this name and no other (aws/head.json). A key that is there is never lost to another one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from medray.shards.pseudonym import KEY_BYTES, keep_key, private_folder

SECRET = "medray-pseudonym-key"


def fetch(region: str, folder: Path) -> Path:
    """Raises ValueError where the secret is no key, or where another key lies there."""
    import boto3  # half a second

    secret = boto3.client("secretsmanager", region).get_secret_value(SecretId=SECRET)
    key = secret.get("SecretBinary", b"")
    if len(key) != KEY_BYTES:
        raise ValueError(f"{SECRET}: {len(key)} bytes where the key has {KEY_BYTES}; was it made with --secret-binary?")
    path = keep_key(private_folder(folder), key)
    if path.read_bytes() != key:
        raise ValueError(f"{path}: holds another key than {SECRET}; results made with it need it: move it away")
    return path


if __name__ == "__main__":
    print(fetch(sys.argv[1], Path("~/.medray").expanduser()))
