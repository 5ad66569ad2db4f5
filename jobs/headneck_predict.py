"""Contours of every organ in new planning CTs by a finished jobs/headneck_cv.py: masks, structure sets, DICOM SEG.

    uv run jobs/headneck_predict.py --run out/headneck-phantom --images out/headneck-phantom/phantoms/plans --to predictions
    uv run jobs/headneck_predict.py --run out/oar --images plans --to contours            # DICOM series, in any order
    uv run jobs/headneck_predict.py --run out/oar --name wide --images table.csv --to contours

A table has a row a scan (patient, scan, ct); a folder holds <patient>/ct.nii.gz (or .nrrd), or DICOM files. What is
drawn there already is not looked at. Leaves of each scan a NIfTI mask an organ, of DICOM also <scan>_rtstruct.dcm and
<scan>_seg.dcm, and a picture; scans.csv, organs.csv, which says of each organ what is odd, and set_aside.csv. The CSV
files carry the scans' own identifiers: they are for whoever owns the scans. Run again after a kill, it goes on with
the scans that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

from medray.engine.derive.files import NewFiles, derive_files
from medray.engine.derive.scan import little, reasons_kept, scan_new
from medray.engine.job.claim import claim_answers
from medray.engine.job.options import KEY_DIR, KeyOfRun, run_job
from medray.engine.job.phantoms import are_phantoms
from medray.engine.job.progress import say, say_all, warn
from medray.engine.train.finished import finished_job, finished_task, model_of
from medray.shards.case_table import files_of, is_table
from medray.shards.digest import digest
from medray.shards.folders import of_model, shards_store
from medray.shards.store import Store
from medray.systems.headneck.cases import read_cases
from medray.systems.headneck.inventory import assemble
from medray.systems.headneck.new_scans import NewPlans, check_method, ct_files
from medray.systems.headneck.source import source_of
from medray.tasks.new_scans.answers import PHANTOMS, check_apart, known_scans, write_answers
from medray.tasks.new_scans.organs import scans_of


@dataclass(frozen=True, kw_only=True)
class HeadNeckPredict:
    run: str
    """The --out of a finished headneck_cv.py."""
    key_dir: KeyOfRun = KEY_DIR
    name: str = ""
    """Its model, where it has several."""
    images: str
    """Table (CSV: patient, scan, ct), or a folder of patients (NIfTI, NRRD or DICOM), by path or URI."""
    to: str = "out/predictions"
    """Folder or URI for the results."""
    pages: int = 200
    """Draw a picture of this many scans at most."""


def main(job: HeadNeckPredict) -> None:
    if job.pages < 0:
        raise ValueError(f"--pages {job.pages}: must be 0 or more")
    out, to, folder = Store(job.run), Store(job.to), Store(files_of(job.images))
    name = model_of(out, job.name, "headneck_cv.py")
    results = out.sub(*of_model(name))
    configuration, method = finished_job(out, results, "method.json", job.key_dir)
    check_method(out, name, method)
    source = source_of(method["source"])
    caution = PHANTOMS if are_phantoms(configuration["images"]) else ""
    new = NewPlans(method, source, folder, job.pages, caution)
    for run in new.runs:  # one that is missing is named before anything is read
        finished_task(out, *run)
    if caution:
        warn(caution)
    cases = read_cases(job.images).undrawn()
    if not is_table(job.images):
        check_apart(to, folder)
    files = folder.files(to)
    asked = ct_files(files, cases)
    listed = [(file.path, file.size_bytes) for file in asked]
    told = None if cases.table is None else cases.table.to_dict("records")
    identity = {"name": name, "method": digest(method), "files": digest(listed, told)}
    claim_answers(to, identity | {"data_version": source.version})
    with reasons_kept(to):
        inventory = assemble(scan_new(source, folder, files), cases)
    for line in inventory.warnings:
        warn(line)
    scans = scans_of(inventory)
    say(f"{len(scans):,} scans, {name}: {len(new.runs)} networks, {len(source.organs)} organs")

    pieces = {scan.name: scan for scan in scans}
    parts = derive_files(NewFiles(new, out, to, pieces, [1] * len(scans), "scans"), here=little(asked))
    trained = known_scans(results, shards_store(out, source.folder), method["folds"])
    say_all(write_answers(to, parts, inventory, trained, method["training_ml"]))


def start() -> None:
    run_job(HeadNeckPredict, main)


if __name__ == "__main__":
    start()
