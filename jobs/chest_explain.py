"""What a finished jobs/chest_cv.py says of new films, and where on them it found it: percentages, Grad-CAM, one page.

    uv run jobs/chest_explain.py film.png --run out/nih
    uv run jobs/chest_explain.py films other/film.dcm --run out/nih --target Mass Nodule --to explained
    uv run jobs/chest_explain.py images --run out/nih --boxes BBox_List_2017.csv --to boxes      # localisation.json

Leaves predictions.csv, set_aside.csv, explain.html, and a PNG at the film's own size for each heatmap. The CSV files carry
the files' own names: they are for whoever owns the films. Run again after a kill, it goes on with the films that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from medray.engine.derive.files import NewFiles, derive_files
from medray.engine.derive.scan import little, reasons_kept, scan_new
from medray.engine.job.claim import claim_answers
from medray.engine.job.options import KEY_DIR, KeyOfRun, run_job
from medray.engine.job.progress import say, say_all
from medray.engine.train.finished import finished_job, finished_task, model_of
from medray.shards.digest import digest
from medray.shards.folders import of_model, shards_store
from medray.shards.store import Store
from medray.systems.chest.answers import Chunk, Films, NewFilms, training_films, write_answers
from medray.systems.chest.explain import check_targets
from medray.systems.chest.localise import read_boxes
from medray.systems.chest.source import Radiograph
from medray.systems.chest.task import FilmTask

FILMS_PER_PART = 32


@dataclass(frozen=True, kw_only=True)
class ChestExplain:
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Films, or folders of films, by path or URI: PNG, JPEG or DICOM."""
    run: str
    """The --out of a finished chest_cv.py."""
    key_dir: KeyOfRun = KEY_DIR
    name: str = ""
    """Its model, where it has several."""
    target: tuple[str, ...] = ()
    """Draw the heatmaps of these; of the most probable ones where none is named."""
    top: int = 3
    """How many of the most probable targets are listed, and drawn."""
    boxes: str | None = None
    """Boxes to compare the heatmaps with, as BBox_List_2017.csv."""
    pictures: int = 200
    """Draw this many films at most; the table has all."""
    to: str = "out/explained"
    """Folder or URI for the results."""

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("name one or more films, or folders of films")
        if self.top < 1:
            raise ValueError(f"--top {self.top}: must be at least 1")


def main(job: ChestExplain) -> None:
    out, to = Store(job.run), Store(job.to)
    name = model_of(out, job.name, "chest_cv.py")
    results = out.sub(*of_model(name))
    _, method = finished_job(out, results, "method.json", job.key_dir)
    tasks = [finished_task(out, method["runs"], fold, FilmTask) for fold in method["folds"]]
    task = tasks[0]
    check_targets(task, job.target)
    boxes = None if job.boxes is None else read_boxes(job.boxes)
    source = Radiograph().holding(task.shard_needs, ())
    files = {folder: folder.files(to) for folder in map(Store, job.images)}
    settings = {
        "method": digest(method),
        "files": digest([(f.path, f.size_bytes) for own in files.values() for f in own]),
        "target": job.target,
        "top": job.top,
        "boxes": job.boxes,
    }
    claim_answers(to, settings | {"pictures": job.pictures, "data_version": source.version})
    with reasons_kept(to):
        films = Films.found(files, source, scan_new)
    count = len(films.rows)
    say(f"{count:,} film{'s' * (count != 1)}, {name}: {len(tasks)} network{'s' * (len(tasks) != 1)}")

    chunks = [Chunk(i + 1, films.rows[i : i + FILMS_PER_PART]) for i in range(0, count, FILMS_PER_PART)]
    pieces = {f"part-{i:05d}": chunk for i, chunk in enumerate(chunks)}
    new = NewFilms(source, method["runs"], method["folds"], job.target, job.top, job.pictures, boxes)
    sizes = [len(chunk.rows) for chunk in chunks]
    here = little([file for own in files.values() for file in own])
    parts = derive_files(NewFiles(new, out, to, pieces, sizes, "films"), here)

    trained = training_films(shards_store(out, source.folder), results, len(tasks))
    say_all(write_answers(to, parts, films, task, trained, boxes))
    say(f"  {to.uri}/explain.html")


def start() -> None:
    run_job(ChestExplain, main)


if __name__ == "__main__":
    start()
