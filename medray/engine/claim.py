"""An output folder belongs to one configuration: results of two must not mix."""

from __future__ import annotations

import json
from typing import Any

from medray.shards.store import Store


def claim(out: Store, configuration: dict[str, Any]) -> None:
    """Write the configuration into ``out``, or compare it with the one that is there.

    Only what changes results belongs in it; how many workers or where MLflow is may change between starts.

    Raises:
        ValueError: the folder is another configuration's; the first difference is named.
    """
    wanted = json.loads(json.dumps(configuration))
    found = out.read_json("config.json")
    if found is None:
        out.write_json("config.json", wanted)
        return
    differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if differing:
        name = differing[0]
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise ValueError(
            f"--out {out.uri}: holds a run with {name} = {found.get(name)!r}, this one has {wanted.get(name)!r}{more}; "
            "choose another --out, or give the same settings to go on with it"
        )
