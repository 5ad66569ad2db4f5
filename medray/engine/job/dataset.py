"""Input files and their labels, from the command line to shards and folds: what every job begins with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from medray.engine.data.digests import digests
from medray.engine.data.inputs import Input
from medray.engine.data.prepare import Folding, Ingest, Private, prepare
from medray.engine.job.claim import CONFIG, KEY, PROJECT, any_begun, check_key, claim, project_of
from medray.engine.job.lease import hold
from medray.engine.job.options import KEY_DIR, Options
from medray.engine.job.phantoms import are_phantoms, phantom_files
from medray.engine.job.progress import say, warn
from medray.engine.nodes.cluster import check_gpus, connect
from medray.engine.train.checkpoint import write_initial
from medray.shards.deidentification import DEIDENTIFICATION, about
from medray.shards.digest import digest
from medray.shards.folders import INITIAL, KEPT, shards_store
from medray.shards.manifest import MANIFEST, Manifest, sha256
from medray.shards.pseudonym import retire_map
from medray.shards.source import Source
from medray.shards.store import File, Store, place
from medray.tasks.system import Phantoms, System
from medray.tasks.task import Task

_NAMES = "shards.json"  # folder of shards → digest of the names of its files, each of which tells what is in it


@dataclass
class Dataset:
    """Images and labels of a job; phantoms where the job was given none and has some.

    Raises:
        ValueError: one of the two is missing, or both where there are no phantoms.
    """

    system: System
    source: Source
    options: Options
    files_uri: str | None
    labels_uri: str | None
    phantoms: Phantoms | None = None
    held_out: str = "test"  # which of the given lists is held out, where the labels come with lists
    name: str = ""  # of these images and labels as a source, where there are others
    others: tuple[Input, ...] = ()  # further folders of images with their labels; one index is made of all
    phantom: bool = field(init=False)
    manifest: Manifest = field(init=False)  # of --out, from ``claim`` on
    files: list[File] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.options.rows_per_shard is None:
            self.options = replace(self.options, rows_per_shard=self.system.rows_per_shard)
        elif self.options.rows_per_shard < 1:
            raise ValueError(f"--rows-per-shard {self.options.rows_per_shard}: at least 1")
        self.phantom = self.files_uri is None
        if self.system.files_of is not None and self.labels_uri is not None:
            self.files_uri, self.phantom = self.system.files_of(self.labels_uri), False
        if self.phantom != (self.labels_uri is None) or (self.phantom and self.phantoms is None):
            neither = ", or neither for phantoms" if self.phantoms is not None else ""
            raise ValueError(f"{' and '.join(self.system.flags)}: both are needed to train{neither}")
        if not (self.options.public_ids or self.options.project):
            self.options = replace(self.options, project=project_of(Store(self.options.out)))
        self.options.pseudonyms()  # an error for a key or a folder that cannot be had, before anything is claimed
        if self.files_uri is not None:
            self.files = self._listed()
        self._labels = None if self.labels_uri is None else self._read_labels(self.labels_uri)

    def _listed(self) -> list[File]:
        """All files but the labels' own, which may lie among the images that it names."""
        labels = Store(self.labels_uri).root if self.labels_uri is not None else ""
        files = self.folder.files(Store(self.options.out))
        return [file for file in files if file.path != labels]

    def _read_labels(self, uri: str) -> Any:
        """The system's labels; says what is odd about them."""
        labels = self.system.labels_for(self.system.read_labels(uri), self.source)
        for line in self.system.label_notes(labels):
            warn(line)
        return labels

    @property
    def _given(self) -> tuple[str | None, ...]:
        """What the flags name."""
        return (self.labels_uri,) if self.system.files_of is not None else (self.files_uri, self.labels_uri)

    @property
    def labels(self) -> Any:
        """What the system's ``read_labels`` gave; of phantoms once they are written."""
        return self._labels

    @property
    def of_phantoms(self) -> bool:
        """Whether the images are phantoms: this job's own, or some that it was given."""
        return self.phantom or are_phantoms(self.files_uri)

    def claim(self, **more: Any) -> None:
        """Make --out this data's folder, or go on in it.

        Raises:
            ValueError: it cannot be written, or it is another configuration's.
        """
        names = [flag.removeprefix("--") for flag in self.system.flags]
        inputs = dict(zip(names, map(place, self._given), strict=True))
        out = Store(self.options.out)
        out.check_writable()
        hold(out)
        out.remove_unfinished()
        settings = self.source.settings() | {"data_version": self.source.version}
        settings["allow_burned_in"] = self.source.allow_burned_in or None  # a folder of before it was asked goes on
        if self.others:
            settings["sources"] = {one.name: one.folder.uri for one in self.others}
        settings |= {
            KEY: self.options.pseudonyms().fingerprint,
            PROJECT: None if self.options.public_ids else self.options.project,
        }
        check_key(out, settings[PROJECT], settings[KEY], self.options.private)
        begun = any_begun(out)
        taken_away = settings[KEY] is not None and not self.options.new_manifest and not out.exists(MANIFEST)
        if taken_away and not begun:
            self._check_new(out)
        if self.options.new_manifest:
            out.delete(MANIFEST)
        if not begun and (out.read_json(CONFIG) or {}).get(KEY) != settings[KEY]:
            out.delete(MANIFEST)  # of shards under other names, which are made anew
        self.manifest = Manifest(out, self.options.pseudonyms())
        claim(out, inputs | settings | more | self.options.identity(), begun)  # that it is another run's says more
        if taken_away and begun:
            self._check_new(out)
        if begun and not self.manifest.found:
            warn(f"{out.uri} holds no {MANIFEST}: its shards and weights are taken as they are")
        self.manifest.keep({CONFIG: sha256(out, CONFIG)})
        if settings[KEY] is None:
            retire_map(self.options.private, out.absolute)

    def _check_new(self, out: Store) -> None:
        """Raises ValueError for results without a manifest: whoever takes it away could put anything in their place."""
        there = [f"{name}/" for name in KEPT if out.sub(name).folders()]
        if there:
            raise ValueError(
                f"--out {out.uri}: holds {' and '.join(there)} and no {MANIFEST}, which its job wrote; put it back, choose another "
                "--out, or take what is there as it is with --new-manifest"
            )

    def write_initial(self, task: Task, folder: Store) -> Store | None:
        """``checkpoint.write_initial``, looked after by the manifest.

        Raises:
            ValueError: weights that cannot be had, or others than the job wrote are there.
        """
        name = self.manifest.name(folder, INITIAL)
        if not folder.exists(INITIAL):
            self.manifest.forget([name])
        written = write_initial(task, folder)
        if written is not None:
            self.manifest.settle({name: sha256(Store(self.options.out), name)})
        return written

    def find(self) -> None:
        """Join the cluster, and write the phantoms where they are wanted."""
        connect()
        check_gpus(self.options.gpu)
        if self.of_phantoms:
            given = "These images are phantoms" if self.files_uri else "No data given: this run is on phantoms"
            say(f"{given}. Its scores say that the machinery learns, nothing about patients.")
        if self.files_uri is None:
            say(f"On your own data: name {' and '.join(self.system.flags)}, and a new --out")
            assert self.phantoms is not None, "checked when it was made"
            self.files_uri, self.labels_uri = phantom_files(Store(self.options.out), self.phantoms)
            if self.system.files_of is not None:
                self.files_uri = self.system.files_of(self.labels_uri)
            self._labels = self._read_labels(self.labels_uri)
            self.files = self._listed()

    def use_lists(self) -> dict[str, int]:
        """Where the labels come with lists ("split" says whose, and is a column of their table): one run that holds out
        fold 0 of 2, which is the test list, or in a search the validation list. Gives the rows of each list."""
        if self._split is None:
            return {}
        self.options = replace(self.options, folds=2, train_folds=(0,))
        assert self._labels is not None
        counts = {str(name): int(count) for name, count in self._labels.table["split"].value_counts().items()}
        say(
            f"Split: {self._split} ({', '.join(f'{n:,} {name}' for name, n in counts.items())}); --folds does not count"
        )
        return counts

    @property
    def _split(self) -> str | None:
        return getattr(self._labels, "split", None)

    @property
    def split_name(self) -> str:
        """Which split a figure belongs to."""
        return self._split or f"{self.options.folds} folds by patient, seed {self.options.split_seed}"

    def flags(self, beside: str, name_flag: str) -> list[str]:
        """The flags with which another job uses the same data: in the same --out under a name of its own, or beside it
        for phantoms, which are that other job's own data then."""
        assert self.files_uri is not None, "find comes first"
        assert self.labels_uri is not None
        given = zip(self.system.flags, map(str, self._given), strict=True)
        options = self.options
        out = f"{options.out.rstrip('/')}-{beside}" if self.phantom else options.out
        values = [*[text for pair in given for text in pair], "--out", out, "--folds", str(options.folds)]
        values += ["--split-seed", str(options.split_seed), "--rows-per-shard", str(options.rows_per_shard)]
        values += ["--monitor", options.monitor, *["--public-ids"] * options.public_ids]
        values += ["--allow-burned-in"] * self.source.allow_burned_in
        values += ["--key-dir", str(options.key_dir)] if options.key_dir != KEY_DIR else []
        return values if self.phantom else [*values, name_flag, beside]

    @property
    def shards(self) -> Store:
        return shards_store(Store(self.options.out), self.source.folder)

    @property
    def folder(self) -> Store:
        assert self.files_uri is not None, "find comes first"
        return Store(self.files_uri)

    @property
    def _first(self) -> Input:
        return Input(self.name, self.folder, self.files, lambda scan: self.system.assemble(scan, self._labels))

    def prepare(self) -> Ingest:
        """Shards and folds; what is there is kept."""
        options = self.options
        assert options.rows_per_shard is not None, "the system has said"
        options.warn_of_key()
        out = Store(options.out)
        prepared = prepare(
            self.source, (self._first, *self.others), self.system.columns,
            Folding(self.system.strata, options.folds, options.split_seed, self.held_out), out, self.shards,
            Private(options.pseudonyms(), options.private, options.owner()), options.rows_per_shard, self._check_unchanged,
        )  # fmt: skip
        out.write_json(DEIDENTIFICATION, about(self.source.shard_schema, options.public_ids))
        written = [self.manifest.name(self.shards, name) for name in self.shards.names(".parquet")]
        self.manifest.keep(digests(out, [name for name in written if name not in self.manifest.files]))
        for line in self.system.fold_notes(prepared.index):
            warn(line)
        return prepared

    def _check_unchanged(self, names: list[str]) -> None:
        """Runs that have begun have learned from these shards, and those that are there are used again; asked before one of them
        is made anew.

        Args:
            names: of the files that the folder of shards is to hold.
        Raises:
            ValueError: they were others when the runs began, or one is not what this job left there.
        """
        out = Store(self.options.out)
        noted, now = out.read_json(_NAMES, {}), digest(sorted(names))
        if noted.get(self.source.folder, now) != now and any_begun(out):
            raise ValueError(
                f"--out {out.uri}: its runs have learned from other shards than these: files, labels, masks or the key "
                "have changed since; put them back as they were, or choose another --out"
            )
        if noted.get(self.source.folder) != now:
            out.write_json(_NAMES, noted | {self.source.folder: now})
        self.manifest.forget_missing(self.manifest.name(self.shards, ""))
        there = [self.manifest.name(self.shards, name) for name in self.shards.names(".parquet") if name in set(names)]
        self.manifest.settle(digests(out, there))
