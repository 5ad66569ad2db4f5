"""An output folder belongs to one configuration: results of two must not mix."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medray.engine.job.lease import hold
from medray.engine.train import checkpoint
from medray.shards.folders import runs_store, search_store
from medray.shards.store import Store

CONFIG = "config.json"
KEY = "pseudonym_key"
"""The setting that tells keys apart: ``Pseudonyms.fingerprint``."""
PROJECT = "project"
"""The setting that the key of the pseudonyms is derived with; None where identifiers are public."""

MOST_SHOWN = 120
"""Letters of a setting in an error."""


def claim(
    out: Store,
    configuration: dict[str, Any],
    begun: bool = True,
    flag: str = "--out",
    others: str = "--out",
) -> None:
    """Write the configuration into ``out``, or compare it with the one that is there.

    Only what changes results belongs in it; how many workers or where MLflow is may change between starts.

    Args:
        begun: whether the folder holds results of the configuration that is there; if not, this one takes its place.
        flag: what the folder was given with. others: what names another one.
    Raises:
        ValueError: the folder is another configuration's; the first difference is named.
    """
    wanted, found = json.loads(json.dumps(configuration)), out.read_json(CONFIG)
    if found == wanted:
        return
    if found is None or not begun:
        out.delete(checkpoint.INITIAL)  # of the weights that the other configuration starts from
        out.write_json(CONFIG, wanted)
        return
    not_kept = {KEY} - found.keys()  # by the version that wrote it
    differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k) and k not in not_kept)
    if not differing:  # a setting that it did not have either is None here
        out.write_json(CONFIG, wanted)
        return
    name = differing[0]
    more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
    raise ValueError(
        f"{flag} {out.uri}: holds a run with {_differing(name, found.get(name), wanted.get(name))}{more}; "
        f"give the same settings to go on with it, or choose another {others}"
    )


def project_of(out: Store) -> str:
    """That the names in ``out`` were made for; a new one where there are none."""
    return (out.read_json(CONFIG) or {}).get(PROJECT) or secrets.token_hex(8)


def check_key(out: Store, project: str | None, fingerprint: str | None, folder: Path) -> None:
    """Raises ValueError where the names in ``out`` were made for another project, or with another key than the one in ``folder``:
    nobody could tell whose they are, and everything would be made anew."""
    there = out.read_json(CONFIG) or {}
    found, its = there.get(KEY), there.get(PROJECT)
    if found is not None and project is not None and its is None:
        raise ValueError(
            f"--out {out.uri}: was begun by an earlier version, under which all outputs had one key; end it with that version, or "
            "choose another --out"
        )
    if its is not None and project is not None and its != project:
        raise ValueError(
            f"--out {out.uri}: its pseudonyms are those of --project {its}; name that one or none, or choose another --out"
        )
    if found is not None and fingerprint is not None and found != fingerprint:
        raise ValueError(
            f"--out {out.uri}: its pseudonyms were made with the key {found}, and {folder} holds {fingerprint}; name the "
            "--key-dir with its key, or choose another --out"
        )


def _differing(name: str, found: Any, wanted: Any) -> str:
    """The first difference, within mappings and lists of one length: a whole table of sources is a page."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
        if keys:  # none where one of them lacks what is None in the other
            return _differing(f"{name}.{keys[0]}", found.get(keys[0]), wanted.get(keys[0]))
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        place = next(i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
        return _differing(f"{name}[{place}]", found[place], wanted[place])
    return f"{name} = {_short(found)}, this one has {_short(wanted)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def claim_answers(to: Store, configuration: dict[str, Any]) -> None:
    """Make a --to the folder of these answers to new files, or go on in it; another configuration takes its place as long as
    there are no parts.

    Raises:
        ValueError: it cannot be written, or it holds something else: a job's --out, or parts of other answers.
    """
    to.check_writable()
    hold(to, "--to")
    found = to.read_json(CONFIG)
    if found is not None and found.keys() != configuration.keys():
        raise ValueError(f"--to {to.uri}: holds the results of another kind of job; choose another --to")
    claim(to, configuration, bool(to.sub("parts").names()), "--to", "--to")


def claim_each(
    parent: Store, configurations: Mapping[str, dict[str, Any]], variant: str | None = None
) -> dict[str, str]:
    """Claim a folder below ``parent`` for each configuration, all or none.

    With a variant, what is set as it was before is found where it is, and what differs goes beside it.

    Args:
        configurations: name of a folder → what makes its results what they are.
        variant: added to the names of folders that are another configuration's; None in a job that has no variants, where
            another --name is the way out.
    Returns:
        name → its folder: the name itself, or <name>-<variant>.
    Raises:
        ValueError: a folder is another configuration's.
    """
    others = "--name or --out" if variant is None else "--variant or --out"
    places = {}
    for name, configuration in configurations.items():
        same = parent.sub(name).read_json(CONFIG) == json.loads(json.dumps(configuration))
        places[name] = name if same or not variant else f"{name}-{variant}"
    begun = {place: bool(parent.sub(place).folders()) for place in places.values()}
    for write in (False, True):  # a folder that is refused leaves the others unclaimed
        for name, configuration in configurations.items():
            if write or begun[places[name]]:
                claim(parent.sub(places[name]), configuration, begun[places[name]], others=others)
    return places


def any_begun(out: Store) -> bool:
    """Whether a run or a trial below ``out`` has been started."""
    searches = (search_store(out, name) for name in search_store(out).folders())
    parents = [runs_store(place) for place in (out, *searches)]
    return any(parent.sub(name).folders() for parent in parents for name in parent.folders())
