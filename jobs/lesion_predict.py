"""Masks of lesions in new scans by a finished jobs/lesion_cv.py, and what changed between the visits of a patient.

    uv run jobs/lesion_predict.py --run out/lesion-phantom --images scans/table.csv --to predictions
    uv run jobs/lesion_predict.py --run out/ms --images bids --to bids-out --atlas sites.nii.gz --site-names 1=periventricular

Leaves scans.csv, lesions.csv, changes.csv, set_aside.csv, and of each scan a mask and probabilities on its own grid, and a
picture. The CSV files carry the table's own identifiers: they are for whoever owns the scans. Run again after a kill, it goes
on with the patients that are left.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from medray.engine.derive.files import NewFiles, derive_files
from medray.engine.derive.scan import little, reasons_kept, scan_new
from medray.engine.job.claim import claim_answers
from medray.engine.job.options import KEY_DIR, KeyOfRun, run_job
from medray.engine.job.phantoms import are_phantoms
from medray.engine.job.progress import say, say_all, warn
from medray.engine.train.finished import finished_job, finished_task, model_of
from medray.metrics.change import ChangeRules
from medray.shards.case_table import files_of
from medray.shards.digest import digest
from medray.shards.folders import of_model, shards_store
from medray.shards.store import Store
from medray.systems.lesion.answers import PHANTOMS, known_scans, patients_of, write_answers
from medray.systems.lesion.cases import read_cases, site_names
from medray.systems.lesion.inventory import assemble
from medray.systems.lesion.new_scans import NewScans, read_atlas
from medray.systems.lesion.source import source_of
from medray.systems.lesion.task import LesionTask


@dataclass(frozen=True, kw_only=True)
class LesionPredict:
    run: str
    """The --out of a finished lesion_cv.py."""
    key_dir: KeyOfRun = KEY_DIR
    name: str = ""
    """Its model, where it has several."""
    images: str
    """Table (CSV or TSV: patient, visit, a column for each channel) by path or URI, or a folder in the BIDS layout."""
    to: str = "out/predictions"
    """Folder or URI for the results."""
    missing_channels: Literal["zeros", "refuse"] = "zeros"
    """A channel that a case has not is 0, which is said; or the case is set aside."""
    other_grids: Literal["refuse", "resample"] = "refuse"
    """Of channels that are not on the first one's grid: set the case aside, or resample."""
    atlas: str | None = None
    """Label map of sites in the space of the scans: lesions.csv then says where each lesion is."""
    site_names: tuple[str, ...] = ()
    """Of the atlas's numbers, such as 1=periventricular 2=juxtacortical 3=infratentorial."""
    change: ChangeRules = field(default_factory=ChangeRules)
    pages: int = 200
    """Draw a picture of this many scans at most."""


def main(job: LesionPredict) -> None:
    out, to, folder = Store(job.run), Store(job.to), Store(files_of(job.images))
    sites = site_names(job.site_names)
    name = model_of(out, job.name, "lesion_cv.py")
    results = out.sub(*of_model(name))
    configuration, method = finished_job(out, results, "method.json", job.key_dir)
    for fold in method["folds"]:  # one that is missing is named before anything is read
        finished_task(out, method["runs"], fold, LesionTask)
    caution = PHANTOMS if are_phantoms(configuration["images"]) else ""
    if caution:
        warn(caution)
    how = source_of(method["source"])
    source = replace(how, missing_channels=job.missing_channels, other_grids=job.other_grids)
    named = read_cases(job.images)
    cases = named.having(source.channels, masks=False)
    if unused := [channel for channel in named.channels if channel not in source.channels]:
        say(f"{', '.join(unused)}: not looked at, as the networks know {', '.join(source.channels)}")
    atlas = None if job.atlas is None else read_atlas(job.atlas)
    files = [file for file in folder.files(to) if cases.uses(file.path)]
    identity = {
        "method": digest(method),
        "files": digest([(f.path, f.size_bytes) for f in files], cases.table.to_dict("records")),
    }
    settings = {
        "missing_channels": job.missing_channels,
        "other_grids": job.other_grids,
        "atlas": job.atlas,
        "site_names": list(job.site_names),
        "change": asdict(job.change),
    }
    claim_answers(to, identity | settings | {"data_version": source.version})
    with reasons_kept(to):
        inventory = assemble(scan_new(source, folder, files), cases)
    for line in inventory.warnings:
        warn(line)
    patients = patients_of(inventory)
    counts = [len(patient.visits) for patient in patients]
    new = NewScans(method, source, folder, job.pages, caution, atlas, sites, job.change)
    say(f"{sum(counts):,} scans of {len(patients):,} patients, {name}: {len(new.runs)} networks")

    pieces = {patient.name: patient for patient in patients}
    parts = derive_files(NewFiles(new, out, to, pieces, counts, "scans"), here=little(files))
    trained = known_scans(results, shards_store(out, source.folder), method["folds"])
    repeatability = results.read_json("metrics.json")["repeatability"]
    say_all(write_answers(to, parts, cases, inventory, trained, repeatability))


def start() -> None:
    run_job(LesionPredict, main)


if __name__ == "__main__":
    start()
