"""Folds that leak are found out, and ours do not leak: a canary, and labels that mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from medray.engine.data.inputs import Input
from medray.engine.data.prepare import Ingest
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train.fit import fit
from medray.engine.train.sweep import CrossValidation, out_of_fold
from medray.imaging.phantom import PhantomSpec, write_phantoms
from medray.metrics.intervals import Figure, auc, intervals
from medray.shards.files import Files
from medray.shards.inventory import Inventory
from medray.shards.source import Encoded, Source
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.inventory import assemble as assemble_head_ct
from medray.systems.ich.labels import Labels, read_labels
from medray.systems.ich.source import HeadCT
from medray.systems.ich.system import strata
from medray.systems.ich.task import SliceTask

PATIENTS, SLICES, SIDE_PX = 40, 12, 32


@dataclass(frozen=True, kw_only=True)
class Canaries(Source):
    """A texture for each patient in place of a head; a label for each patient that the texture does not tell."""

    id_column: ClassVar[str] = HeadCT.id_column
    stack_column: ClassVar[str] = HeadCT.stack_column
    scan_schema: ClassVar[pa.Schema] = pa.schema([("item_id", pa.string()), ("frame", pa.int32())])
    shard_schema: ClassVar[pa.Schema] = HeadCT.shard_schema

    @property
    def folder(self) -> str:
        return "canaries"

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        return [{"item_id": stream.read().decode(), "frame": 0}]

    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        patient, index = map(int, files.only.decode().split("-"))
        texture = np.random.default_rng((7, patient))
        noise = np.random.default_rng((8, patient, index))
        waves = texture.normal(size=(3, 2)) * 1.5
        y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
        image = np.stack([np.sin(a * x + b * y + noise.normal()) for a, b in waves], axis=-1)
        pixels = np.clip(128 + 60 * image + 10 * noise.normal(size=image.shape), 0, 255).astype(np.uint8)
        return [Encoded({"rows": SIDE_PX, "columns": SIDE_PX, "image": pixels.tobytes()})] * len(rows)


def assemble(scan: pd.DataFrame) -> Inventory:
    slices = scan.assign(slice_id=scan["item_id"], patient_id=scan["item_id"].str.split("-").str[0])
    slices = slices.assign(study_id=slices["patient_id"], series_id=slices["patient_id"], stack_id=slices["patient_id"])
    slices["index"] = slices["item_id"].str.split("-").str[1].astype(np.int32)
    slices[["position_mm", "row_spacing_mm", "column_spacing_mm"]] = 1.0
    labels = np.random.default_rng(5).permutation(np.arange(PATIENTS) % 2)
    of_slice = labels[slices["patient_id"].astype(int)].astype(float)
    slices[list(CLASSES)] = np.stack([of_slice] * 6, axis=1)
    return Inventory(slices, slices, ())


@pytest.fixture(scope="module")
def canaries(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Ingest:
    from ingested import ingested  # here: Ray's workers import this file, and do not find that one

    folder = tmp_path_factory.mktemp("canaries")
    for patient in range(PATIENTS):
        for index in range(SLICES):
            Store(folder / "in").write_bytes(f"{patient}-{index}.txt", f"{patient}-{index}".encode())
    files = Store(folder / "in")
    return ingested(
        folder, Canaries(), [Input("", files, files.files(), assemble)], CLASSES, strata, rows_per_shard=128, key=None
    )


def auc_any(prepared: Ingest, folder: Path) -> Figure:
    task = SliceTask(
        backbone="test_resnet", pretrained=False, size_px=SIDE_PX, epochs=12, batch_size=16, learning_rate=5e-3,
        flip=False, shift=0, zoom=0, rotate_deg=0, brightness=0,
    )  # fmt: skip
    resources = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)
    options = Options(out=str(folder), folds=2, monitor="none")
    runs = CrossValidation(Store(folder), (0, 1), options, resources, strata).runs("model", task, prepared)
    fit(runs)
    oof = out_of_fold(runs)
    score = auc(oof["p_any"].to_numpy(), oof["any"].to_numpy(dtype=np.float64))
    return intervals({"auc": score}, oof["patient_id"].to_numpy())["auc"]


@pytest.mark.slow
def test_folds_by_slice_are_found_out_and_folds_by_patient_are_not(canaries: Ingest, tmp_path: Path) -> None:
    by_slice = canaries.index.assign(fold=np.random.default_rng(0).integers(0, 2, len(canaries.index)))
    leaking = auc_any(replace(canaries, index=by_slice), tmp_path / "leaking")
    ours = auc_any(canaries, tmp_path / "ours")
    assert leaking["value"] is not None
    assert ours["low"] is not None
    assert ours["high"] is not None
    assert leaking["value"] >= 0.8
    assert ours["low"] <= 0.5 <= ours["high"]


@pytest.mark.slow
def test_with_permuted_labels_the_interval_covers_chance(local_ray: None, tmp_path: Path) -> None:
    from ingested import ingested

    phantoms = write_phantoms(tmp_path / "phantoms", PhantomSpec(patients=24, seed=3, matrix_px=96, slices=(8, 10)))
    truth = read_labels(str(phantoms.folder / "labels.csv")).table.dropna()
    order = np.random.default_rng(2).permutation(len(truth))
    permuted = Labels(pd.DataFrame(truth.to_numpy()[order], truth.index, truth.columns), 0, {})
    dicom = Store(phantoms.folder / "dicom")
    prepared = ingested(
        tmp_path,
        HeadCT(),
        [Input("", dicom, dicom.files(), lambda scan: assemble_head_ct(scan, permuted))],
        CLASSES,
        strata,
        rows_per_shard=64,
        key=None,
    )
    found = auc_any(prepared, tmp_path / "runs")
    assert found["low"] is not None
    assert found["high"] is not None
    assert found["low"] <= 0.5 <= found["high"]
