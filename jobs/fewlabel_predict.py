"""All organs of any source in new scans, by a finished jobs/fewlabel_cv.py: masks, structure sets, DICOM SEG.

    uv run jobs/fewlabel_predict.py --run out/fewlabel-phantom --images out/fewlabel-phantom/phantoms/A/images --to organs
    uv run jobs/fewlabel_predict.py --run out/organs --name wide --images scans --to organs

A folder holds <case>.nii.gz (or .nii, .nrrd), <case>/ct.nii.gz, or a folder of DICOM files a case. Leaves of each scan a
NIfTI mask an organ, of DICOM also <scan>_rtstruct.dcm and <scan>_seg.dcm, and a picture; scans.csv, organs.csv, which says
of each organ what is odd, and set_aside.csv. The CSV files carry the scans' own identifiers: they are for whoever owns the
scans. Run again after a kill, it goes on with the scans that are left.
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
from medray.shards.case_table import files_below
from medray.shards.digest import digest
from medray.shards.folders import of_model, shards_store
from medray.shards.store import Store
from medray.systems.fewlabel.inventory import assemble
from medray.systems.fewlabel.new_scans import NewScansOfAll, check_method, never_learned, source_for_new
from medray.systems.fewlabel.sources import new_scans
from medray.tasks.new_scans.answers import PHANTOMS, known_scans, write_answers
from medray.tasks.new_scans.organs import scans_of


@dataclass(frozen=True, kw_only=True)
class FewLabelPredict:
    run: str
    """The --out of a finished fewlabel_cv.py."""
    key_dir: KeyOfRun = KEY_DIR
    name: str = ""
    """Its model, where it has several."""
    images: str
    """A folder of scans (NIfTI, NRRD, or a folder of DICOM files a scan), by path or URI."""
    to: str = "out/predictions"
    """Folder or URI for the results."""
    pages: int = 200
    """Draw a picture of this many scans at most."""


def main(job: FewLabelPredict) -> None:
    if job.pages < 0:
        raise ValueError(f"--pages {job.pages}: must be 0 or more")
    out, to, folder = Store(job.run), Store(job.to), Store(job.images)
    name = model_of(out, job.name, "fewlabel_cv.py")
    results = out.sub(*of_model(name))
    configuration, method = finished_job(out, results, "method.json", job.key_dir)
    check_method(out, name, method)
    source = source_for_new(method["source"])
    caution = PHANTOMS if are_phantoms(configuration["sources"]) else ""
    new = NewScansOfAll(method, source, folder, job.pages, caution)
    for run in new.runs:  # one that is missing is named before anything is read
        finished_task(out, *run)
    if caution:
        warn(caution)
    files = files_below(folder, "--images", to)
    cases = new_scans(folder, [file.path for file in files], "--images")
    listed = [(file.path, file.size_bytes) for file in files]
    identity = {"name": name, "method": digest(method), "files": digest(listed)}
    claim_answers(to, identity | {"data_version": source.version})
    with reasons_kept(to):
        inventory = assemble(scan_new(source, folder, files), cases)
    for line in inventory.warnings:
        warn(line)
    scans = scans_of(inventory)
    say(f"{len(scans):,} scans, {name}: {len(new.runs)} networks, {len(source.organs)} organs")

    pieces = {scan.name: scan for scan in scans}
    parts = derive_files(NewFiles(new, out, to, pieces, [1] * len(scans), "scans"), here=little(files))
    shards = shards_store(out, source.folder)
    trained = known_scans(results, shards, method["folds"], never_learned(shards))
    say_all(write_answers(to, parts, inventory, trained, method["training_ml"]))


def start() -> None:
    run_job(FewLabelPredict, main)


if __name__ == "__main__":
    start()
