"""The flags that every cross-validation job has, and how a job begins and ends."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from medray.engine.job.lease import let_all_go
from medray.engine.job.mistakes import is_ours, write_traceback
from medray.engine.job.progress import warn
from medray.engine.job.tracking import Tracker
from medray.engine.nodes.awaited import grows
from medray.engine.nodes.cluster import Resources, spread
from medray.engine.train.layout import Layout
from medray.engine.train.run import Monitor
from medray.shards.address import check_address
from medray.shards.names import check_name
from medray.shards.pseudonym import KEY_FILE, Pseudonyms, load_key, private_folder, project_key
from medray.shards.store import Store
from medray.tasks.task import Task

KEY_DIR = Path("~/.medray")
KeyOfRun = Annotated[
    Path, tyro.conf.arg(help="Of that job: with its key, its files are known to be those that it left.")
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where results go, how the data is split, and what runs where."""

    out: str
    """Folder or URI (s3://, gs://) for everything that the job leaves. Given again, the job goes on there."""
    folds: int = 5
    """Cross-validation folds, grouped by patient."""
    train_folds: tuple[int, ...] = ()
    """Which folds to train and score, such as 0 1 2; all of them where none is named."""
    monitor: Monitor = "held-out"
    """Rows that are scored after each epoch. held-out only draws the curve: predictions come from the last epoch.
    inner keeps the epoch that is best on a tenth of the training patients. none saves the time."""
    monitor_every: int = 1
    """Score them once in this many epochs, and after the last one."""
    workers: int | None = None
    """Ray Train workers of one run; 0 trains in one local process. Chosen by the cluster where not given."""
    min_workers: int | None = None
    """A run goes on with as few workers when nodes are lost, and grows to --workers again; where not given, it waits for
    a new node. The batches stay the same, the bits do not: shown is a loss within 1e-3 of an undisturbed run's, for a
    network in fp32 without dropout and batch normalization where every label is known. Others may differ by more. (On
    GPUs batch normalization is synchronized for it; on CPUs it is each worker's own, as dropout is everywhere.)"""
    gpu: tyro.conf.DisallowNone[bool | None] = None  # else tyro wants a value
    """Train on GPUs; where not given, if the cluster has any."""
    at_once: int | None = None
    """Runs side by side; where not given, as many as the cluster has room for now. Name it on a cluster that grows by
    itself: with --gpu --workers 4 --at-once 4 it gets four nodes of four GPUs."""
    threads: int | None = None
    """Torch threads of a CPU worker; where not given, the CPUs are shared out."""
    price_per_gpu_hour: float | None = None
    """What an hour of one GPU costs: the plan and the end of the job then say what training comes to."""
    deterministic: tyro.conf.DisallowNone[bool | None] = None
    """Deterministic kernels: always on a CPU; on a GPU only on request, they are slower."""
    layout: Layout | None = None
    """How 2D kernels lie in memory: channels-last or contiguous; where not given, a GPU is asked at the start of a run
    which of the two is quicker for this network, and the run keeps it."""
    compile: bool = False
    """Let torch compile the forward pass of training: minutes at the start of each run, steps that are quicker, on GPUs of
    Ampere and later."""
    checkpoint_minutes: float = 10.0
    """A checkpoint within an epoch after this long; one is always written at its end."""
    rows_per_shard: int | None = None
    """Slices, films or scans in one Parquet file, at most (large ones make smaller files); where not given, 1,024 slices or
    films, 4 scans."""
    split_seed: int = 0
    """Of the folds and of the order of rows in the shards."""
    public_ids: bool = False
    """The identifiers in the files are public (a challenge's): keep them. Otherwise they become keyed hashes."""
    key_dir: Path = KEY_DIR
    """Where the key of the pseudonyms, the map back to identifiers and header tables lie; never below --out."""
    new_manifest: bool = False
    """Make manifest.json anew: what lies in --out is taken as it is. For whoever has changed the folder, or has begun it with a
    version that wrote none."""
    project: str = ""
    """Outputs of one project give a patient one pseudonym, so that they can be joined; where not given, each --out is a project
    of its own."""
    tracking_uri: str | None = None
    """MLflow server; where not given, an SQLite database in --out (in --key-dir where that is object storage)."""
    prevalence: float | None = None
    """Part of the patients, 0 to 1, who have what is looked for where the model will be used: predictive values are then also given
    at it, beside those at the rate of the data."""
    track_pictures: bool = False
    """Send pictures of patients, and the report that holds them, to MLflow. Those of phantoms and of public ids always go; others
    stay in --out."""
    experiment: str = "medray"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        check_address("--out", self.out)
        check_address("--tracking-uri", self.tracking_uri or "")
        check_name("--project", self.project)
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise ValueError(f"--prevalence {self.prevalence}: above 0 and below 1, such as 0.02")

    def identity(self) -> dict[str, Any]:
        """What changes results, unlike where and on what the job runs."""
        names = ("folds", "split_seed", "rows_per_shard", "monitor", "public_ids")
        return {name: getattr(self, name) for name in names}

    @property
    def private(self) -> Path:
        """This user's folder, made on first use. Raises ValueError where it lies below --out, links followed, or where others
        may use it."""
        folder = self.key_dir.expanduser().resolve()
        out = Store(self.out).local
        if out is not None and any(one.resolve().is_relative_to(out.resolve()) for one in (folder, folder / KEY_FILE)):
            raise ValueError(f"--key-dir {folder}: lies below --out, which others may read; choose a place outside it")
        return private_folder(folder)

    def pseudonyms(self) -> Pseudonyms:
        return Pseudonyms(None if self.public_ids else project_key(load_key(self.private), self.project))

    def owner(self) -> str:
        """The fingerprint of this user's key; "" where identifiers are public."""
        return "" if self.public_ids else str(Pseudonyms(load_key(self.private)).fingerprint)

    def warn_of_key(self) -> None:
        """Say that the key is lost with this node, where an autoscaler's cluster is: its head goes with `ray down`."""
        if self.public_ids or self.key_dir != KEY_DIR or not grows():
            return
        warn(
            f"the key of the pseudonyms lies in {self.private} on this node, and goes with it; without it nobody can tell "
            "whose a result is: before `ray down`, ray rsync-down cluster.yaml '~/.medray/' ~/.medray-cluster/"
        )

    def fold_list(self) -> tuple[int, ...]:
        """Raises ValueError for a fold that does not exist."""
        if self.folds < 2:
            raise ValueError(f"--folds {self.folds}: too few, one is held out while the others train")
        for fold in self.train_folds:
            if not 0 <= fold < self.folds:
                raise ValueError(f"--train-folds {fold}: with --folds {self.folds} they are 0 to {self.folds - 1}")
        return tuple(sorted(set(self.train_folds))) or self.every_fold

    @property
    def every_fold(self) -> tuple[int, ...]:
        return tuple(range(self.folds))

    @property
    def all_folds(self) -> bool:
        """Whether every fold is trained."""
        return len(self.fold_list()) == self.folds

    def resources(self, runs: int, tasks: Iterable[Task] = ()) -> Resources:
        """What the cluster gives to ``runs`` training runs of these tasks, the largest of which decides. Raises ValueError
        where it has no room for them."""
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads {self.threads}: at least 1; leave it out to share out the CPUs")
        takes = [task.training_gigabytes() for task in tasks] if self.workers is None and self.gpu is not False else []
        known = [gigabytes for gigabytes in takes if gigabytes is not None]
        most = max(known) if known and len(known) == len(takes) else None
        return spread(runs, self.workers, self.gpu, self.threads, self.at_once, self.min_workers, most)

    def tracker(self, of: str = "") -> Tracker:
        """MLflow's mirror of the job, or of a search ``of`` that name in the same --out."""
        out = Store(self.out)
        identity = hashlib.sha256(f"{out.absolute}{f'/{of}' if of else ''}".encode()).hexdigest()[:16]
        if self.tracking_uri:
            return Tracker(self.tracking_uri, self.experiment, None, identity)
        folder = out.local or self.private
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder}/mlflow.db"
        return Tracker(uri, self.experiment, (folder / "mlflow-artifacts").as_uri(), identity)


JobT = TypeVar("JobT")


def flags_over(job: type[JobT], default: JobT | None = None) -> JobT:
    """The job as the command line describes it; what no flag names is as in ``default``."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(job, **given, description=sys.modules["__main__"].__doc__, config=(tyro.conf.AvoidSubcommands,))


def run_job(job: type[JobT], main: Callable[[JobT], None], default: JobT | None = None) -> None:
    """Parse the flags and run; what was done is kept.

    A user's mistake ends in one line and exit status 2. A mistake of this program ends in a line that names the file of
    its traceback, and exit status 1.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        main(flags_over(job, default))
    except KeyboardInterrupt:
        warn("stopped; the same command goes on from here")
        sys.exit(130)
    except Exception as error:
        if is_ours(error):
            warn(f"error: {write_traceback(error)}")
            sys.exit(1)
        warn(f"error: {_line(error)}")
        sys.exit(2)
    finally:
        let_all_go()


def _line(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return str(error).splitlines()[0] if str(error) else repr(error)
