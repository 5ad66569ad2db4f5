"""Bone ages of new hand films by all stages of a finished jobs/boneage_cv.py: years and months, interval, one page.

    uv run jobs/boneage_predict.py --run out/boneage-phantom --images film.png --sex F --to predictions
    uv run jobs/boneage_predict.py --run out/hands --images films --table children.csv --to ages

Films are PNG, JPEG or DICOM. The table names them, and of each the sex (sex, or male), and where they are known
patient and calendar age; a DICOM header may say all three. Leaves ages.csv, refused.csv, ages.html and a picture a
film. The CSV files carry the films' own identifiers: they are for whoever owns the films. Run again after a kill, it
goes on with the films that are left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from medray.engine.derive.files import NewFiles, derive_files
from medray.engine.derive.scan import little, reasons_kept, scan_new
from medray.engine.job.claim import claim_answers
from medray.engine.job.options import KEY_DIR, KeyOfRun, run_job
from medray.engine.job.phantoms import are_phantoms
from medray.engine.job.progress import say, say_all, warn
from medray.engine.train.finished import finished_job, finished_task, model_of
from medray.shards.digest import digest
from medray.shards.folders import of_model, shards_store
from medray.shards.store import Store
from medray.systems.boneage.films.inventory import assemble
from medray.systems.boneage.films.source import source_of
from medray.systems.boneage.predict.answers import PHANTOMS, write_answers
from medray.systems.boneage.predict.new_films import NewFilms
from medray.systems.boneage.predict.question import (
    check_method,
    files_in,
    film_set,
    known_films,
    read_table,
)
from medray.systems.boneage.words import number


@dataclass(frozen=True, kw_only=True)
class BoneAgePredict:
    run: str
    """The --out of a finished boneage_cv.py."""
    key_dir: KeyOfRun = KEY_DIR
    name: str = ""
    """Its model, where it has several."""
    images: str
    """A film, or a folder of films, by path or URI: PNG, JPEG or DICOM."""
    table: str | None = None
    """CSV of the films, or a folder with one, as for training: sex, and where known patient and calendar age."""
    sex: Literal["F", "M"] | None = None
    """Of films whose sex neither table nor header says."""
    to: str = "out/predictions"
    """Folder or URI for the results."""
    pictures: int = 200
    """Draw this many films at most; the table has all."""


def main(job: BoneAgePredict) -> None:
    if job.pictures < 0:
        raise ValueError(f"--pictures {job.pictures}: must be 0 or more")
    out, to, folder = Store(job.run), Store(job.to), Store(job.images)
    name = model_of(out, job.name, "boneage_cv.py")
    results = out.sub(*of_model(name))
    configuration, method = finished_job(out, results, "method.json", job.key_dir)
    check_method(out, name, method)
    source = source_of(method["source"])
    caution = PHANTOMS if are_phantoms(configuration["images"]) else ""
    if caution:
        warn(caution)
    new = NewFilms(method, source, folder, job.pictures, caution)
    for run in new.runs:  # one that is missing is named before anything is read
        finished_task(out, *run)
    table = None if job.table is None else read_table(job.table)
    files = files_in(folder, to)
    told = (
        None
        if table is None
        else table.table[["patient_id", "sex", "calendar_months"]].reset_index().to_dict("records")
    )
    listed = [(file.path, file.size_bytes) for file in files]
    identity = {"method": digest(method), "files": digest(listed), "table": digest(told)}
    settings = {"name": name, "sex": job.sex, "pictures": job.pictures}
    claim_answers(to, identity | settings | {"data_version": source.version})
    with reasons_kept(to):
        films = film_set(assemble(scan_new(source, folder, files), None), folder, table, job.sex)
    for line in films.warnings:
        warn(line)
    new = replace(new, groups=films.groups)
    say(f"{number(len(films.rows), 'film')}, {name}: {number(len(new.runs), 'network')}")

    pieces = {piece.name: piece for piece in films.pieces()}
    counts = [len(piece.rows) for piece in pieces.values()]
    parts = derive_files(NewFiles(new, out, to, pieces, counts, "films"), here=little(files))
    trained = known_films(results, shards_store(out, source.folder), {fold for _, fold, _ in new.runs})
    say_all(write_answers(to, parts, films, trained, method, name, caution, results.read_json("metrics.json", {})))
    say(f"  {to.uri}/ages.html")


def start() -> None:
    run_job(BoneAgePredict, main)


if __name__ == "__main__":
    start()
