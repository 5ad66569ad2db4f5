"""Whose a pseudonym is: the way back from results to the files' own identifiers, for whoever holds the key's folder.

    uv run jobs/identify.py --out out/ours patient-0f3a… slice-77b1…        # one line each: pseudonym,identifier
    uv run jobs/identify.py --out out/ours --kind patient > patients.csv     # all patients

What it prints are patients' identifiers: they belong where the files are, and nowhere else. Who asked, and when, is kept in
read.log beside the key.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medray.engine.job.options import KEY_DIR, run_job
from medray.engine.job.progress import say
from medray.shards.cells import csv_text
from medray.shards.pseudonym import private_folder, read_map, write_read_log
from medray.shards.store import Store


@dataclass(frozen=True, kw_only=True)
class Identify:
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Pseudonyms; all of --kind where none is named."""
    out: str
    """The --out of the job, as it was given there."""
    kind: str = ""
    """Only these, such as patient, study, slice, image or file."""
    key_dir: Path = KEY_DIR
    """The --key-dir of the job, where the map lies."""


def main(job: Identify) -> None:
    folder, out = private_folder(job.key_dir.expanduser().resolve()), Store(job.out)
    known = read_map(folder, out.absolute)
    if known.empty:
        raise ValueError(
            f"--key-dir {folder}: holds no map for --out {out.uri}; write --out as the job had it, and bring its key's folder "
            "here. A job with --public-ids has no pseudonyms"
        )
    found = known[known["kind"].eq(job.kind)] if job.kind else known
    if found.empty:
        raise ValueError(f"--kind {job.kind}: there is none; kinds are {', '.join(sorted(known['kind'].unique()))}")
    if job.names:
        found = found.set_index("pseudonym", drop=False).reindex(job.names)
        if len(absent := found.index[found["identifier"].isna()]):
            raise ValueError(
                f"{absent[0]}: not a pseudonym of --out {out.uri}{f' of kind {job.kind}' * bool(job.kind)}"
            )
    write_read_log(folder, out.uri, len(found))
    say(csv_text(found[["pseudonym", "identifier"]]).rstrip("\n"))


def start() -> None:
    run_job(Identify, main)


if __name__ == "__main__":
    start()
