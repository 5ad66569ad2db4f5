"""What a finished job leaves beside files that a test has put together by hand: done.json of each run, and the manifest."""

from __future__ import annotations

import hashlib

from medray.engine.job.claim import CONFIG
from medray.shards.folders import DONE, MODEL, run_store, runs_store
from medray.shards.manifest import MANIFEST, Manifest, sha256
from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import Store


def finish(out: Store) -> None:
    """Also of what is there already: whatever lies in ``out`` now is what the job left."""
    out.delete(MANIFEST)
    manifest = Manifest(out, Pseudonyms(None))
    for model in runs_store(out).folders():
        for fold in map(int, (name.removeprefix("fold") for name in runs_store(out, model).folders())):
            run = run_store(out, model, fold)
            if run.exists(MODEL):
                run.write_json(DONE, {"weights": hashlib.sha256(run.read_bytes(MODEL)).hexdigest()})
            if run.exists(DONE):
                manifest.keep({manifest.name(run, DONE): sha256(run, DONE)})
    manifest.keep({CONFIG: sha256(out, CONFIG)})
    for results in (out, *map(out.sub("models").sub, out.sub("models").folders())):
        manifest.keep_described(results)
