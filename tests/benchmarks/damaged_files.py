"""Thousands of files, damaged at random, through the jobs themselves: does each end with a status, and does the job end?

    python tests/benchmarks/damaged_files.py --files 10000 [--seed 0] [--job ich_cv chest_cv] [--keep FOLDER]

Real slices and films where ../shared/data holds them, else phantoms and drawn ones, written in every transfer syntax that
pydicom's packaged files hold, and those packaged files that can be made a CT or a DX image. Each copy has a UID of its own (a
duplicate is never decoded) and is cut, or has bytes flipped, removed, inserted or zeroed, in its header or in its pixels; one
in twenty is left whole. The table says what became of them; "other pixels" are those that differ from the whole file's, and
nobody could know.
"""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pyarrow.parquet as pq
import pydicom
import tyro
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation

from medray.imaging.phantom import PhantomSpec, write_phantoms
from medray.shards.files import Files
from medray.systems.chest.source import Radiograph
from medray.systems.ich.source import HeadCT

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
UID = "1.2.826.0.1.3680043.8.498.{:012d}"  # always as long: it can be put in place of another; also in the study's UID
PATIENT = "patient{:012d}"
WHOLE = 0.05  # of the files are not damaged

NATIVE = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
}
Encode = Callable[[np.ndarray], bytes]


def _jpeg(bits: int, **options: object) -> Encode:
    return lambda values: imagecodecs.jpeg8_encode(values, bitspersample=bits, **options)  # type: ignore[arg-type]


COMPRESSED: dict[str, tuple[str, int, Encode]] = {  # name → syntax, bits of a value, how
    "JPEG baseline": ("1.2.840.10008.1.2.4.50", 8, _jpeg(8, level=95)),
    "JPEG extended 12": ("1.2.840.10008.1.2.4.51", 12, _jpeg(12, level=95)),
    "JPEG lossless 14": ("1.2.840.10008.1.2.4.57", 12, _jpeg(12, lossless=True, predictor=6)),
    "JPEG lossless SV1": ("1.2.840.10008.1.2.4.70", 12, _jpeg(12, lossless=True, predictor=1)),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", 12, imagecodecs.jpegls_encode),
    "JPEG-LS near": ("1.2.840.10008.1.2.4.81", 12, lambda v: imagecodecs.jpegls_encode(v, level=2)),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", 12, lambda v: imagecodecs.jpeg2k_encode(v, level=0, codecformat="j2k")),
    "JPEG 2000 lossy": (
        "1.2.840.10008.1.2.4.91",
        12,
        lambda v: imagecodecs.jpeg2k_encode(v, level=60, codecformat="j2k"),
    ),
    "HTJ2K": ("1.2.840.10008.1.2.4.201", 12, imagecodecs.htj2k_encode),
    "RLE": ("1.2.840.10008.1.2.5", 12, None),  # type: ignore[dict-item]  # pydicom's own
}


@dataclass
class Flags:
    files: int = 10_000
    seed: int = 0
    job: tuple[str, ...] = ("ich_cv", "chest_cv")
    keep: Path | None = None
    """Leave files and results here."""
    minutes: float = 60.0
    """A job that has not ended by then has failed."""


@dataclass(frozen=True)
class Kind:
    name: str  # of the transfer syntax
    content: bytes
    suffix: str = ".dcm"

    def own(self, number: int) -> Kind:
        """The same image as number so-and-so: a patient, a study and a slice of its own."""
        content, compress = self.content, self.name == "deflated"
        start = 144 + int.from_bytes(content[140:144], "little") if compress else 0
        if compress:
            content = content[:start] + zlib.decompress(content[start:], -zlib.MAX_WBITS)
        for text in (UID, PATIENT):
            content = content.replace(text.format(0).encode(), text.format(number).encode())
        if compress:
            packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            packed = packer.compress(content[start:]) + packer.flush()
            content = content[:start] + packed + bytes(len(packed) % 2)
        return Kind(self.name, content, self.suffix)

    @property
    def pixels_at(self) -> int:
        """Where the pixels begin; the middle for a picture."""
        tag = self.content.rfind(b"\xe0\x7f\x10\x00")
        return tag if tag > 0 else max(self.content.rfind(b"\x7f\xe0\x00\x10"), len(self.content) // 10)


# ---- whole files --------------------------------------------------------------------------------------------------------


def slices() -> list[np.ndarray]:
    """(rows, columns) uint16 of 12 bits: HU + 1024."""
    folder = DATA / "head_ct" / "rsna2019_series"
    if folder.is_dir():
        stored = [pydicom.dcmread(path).pixel_array for path in sorted(folder.glob("*.dcm"))[8:32:4]]
        return [np.clip(values[::2, ::2].astype(np.int32) + 1024, 0, 4095).astype(np.uint16) for values in stored]
    with tempfile.TemporaryDirectory() as name:
        made = write_phantoms(Path(name), PhantomSpec(patients=2, seed=0, matrix_px=256, slices=(6, 8)))
        stored = [pydicom.dcmread(path).pixel_array for path in sorted(made.dicom.rglob("*.dcm"))[:6]]
    return [np.clip(values.astype(np.int32) + 1024, 0, 4095).astype(np.uint16) for values in stored]


def films() -> list[np.ndarray]:
    """(rows, columns) uint16 of 12 bits."""
    folder = DATA / "chest_xray" / "nih_1024px"
    if folder.is_dir():
        grey = [
            np.asarray(Image.open(path).convert("L").resize((320, 320))) for path in sorted(folder.glob("*.png"))[:6]
        ]
    else:
        y, x = np.mgrid[:320, :320]
        grey = [(127 + 120 * np.sin(x / (20 + k)) * np.cos(y / 31)).astype(np.uint8) for k in range(6)]
    rng = np.random.default_rng(0)
    return [(g.astype(np.uint16) << 4) + rng.integers(0, 16, g.shape, dtype=np.uint16) for g in grey]


def described(values: np.ndarray, modality: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.Modality, ds.PatientName = modality, "Damaged^File"
    _named(ds)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape
    ds.BitsAllocated = 8 * values.dtype.itemsize
    ds.BitsStored = 8 if values.dtype.itemsize == 1 else 12
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    made_ct(ds) if modality == "CT" else made_film(ds)
    return ds


def _named(ds: Dataset) -> None:
    ds.SOPInstanceUID, ds.PatientID = UID.format(0), PATIENT.format(0)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{UID.format(0)}.1", f"{UID.format(0)}.2"


def made_ct(ds: Dataset) -> None:
    ds.SOPClassUID, ds.Modality = CTImageStorage, "CT"
    ds.RescaleSlope, ds.RescaleIntercept = (16, -1024) if ds.BitsAllocated == 8 else (1, -1024)
    ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing = [0, 0, 0], [1, 0, 0, 0, 1, 0], [0.8, 0.8]
    ds.InstanceNumber = 1


def made_film(ds: Dataset) -> None:
    ds.SOPClassUID, ds.Modality = DigitalXRayImageStorageForPresentation, "DX"
    ds.WindowCenter, ds.WindowWidth = (128, 256) if ds.BitsAllocated == 8 else (2048, 4096)


def written(ds: Dataset, syntax: str) -> bytes:
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 or ds["PixelData"].is_undefined_length else "OW"
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def written_files(images: list[np.ndarray], modality: str) -> Iterator[Kind]:
    """Every image in every syntax."""
    for values in images:
        for name, syntax in NATIVE.items():
            ds = described(values, modality)
            ds.PixelData = values.astype(">u2" if name == "big endian" else "<u2").tobytes()
            yield Kind(name, written(ds, syntax))
        for name, (syntax, bits, encode) in COMPRESSED.items():
            stored = (values >> 4).astype(np.uint8) if bits == 8 else values
            ds = described(stored, modality)
            if name == "RLE":
                ds.PixelData = stored.tobytes()
                ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
                ds.compress(pydicom.uid.UID(syntax), generate_instance_uid=False, encoding_plugin="pydicom")
            else:
                ds.PixelData = encapsulate([encode(stored)])
                ds["PixelData"].is_undefined_length = True
            yield Kind(name, written(ds, syntax))


def packaged_files(modality: str) -> Iterator[Kind]:
    """pydicom's own odd files of one grey frame, as images of that modality."""
    for path in sorted(map(str, pydicom.data.get_testdata_files("*"))):
        try:
            ds = pydicom.dcmread(path)
            if ds.SamplesPerPixel != 1 or int(ds.get("NumberOfFrames", 1)) != 1 or ds.BitsAllocated not in (8, 16):
                continue
            if min(ds.Rows, ds.Columns) < 16 or "PixelData" not in ds:
                continue
            syntax = ds.file_meta.TransferSyntaxUID
            _named(ds)
            ds.PhotometricInterpretation = "MONOCHROME2"
            made_ct(ds) if modality == "CT" else made_film(ds)
            yield Kind(f"pydicom's, {'compressed' if syntax.is_compressed else 'native'}", written(ds, syntax))
        except Exception:  # what cannot be read or written whole is no use here
            continue


def pictures(images: list[np.ndarray]) -> Iterator[Kind]:
    for values in images:
        for name, suffix, mode in (("PNG", ".png", "L"), ("PNG 16", ".png", "I;16"), ("JPEG", ".jpg", "L")):
            out = io.BytesIO()
            picture = Image.fromarray(values) if mode == "I;16" else Image.fromarray((values >> 4).astype(np.uint8))
            picture.save(out, format="JPEG" if name == "JPEG" else "PNG", **({"quality": 92} if name == "JPEG" else {}))
            yield Kind(f"{name} file", out.getvalue(), suffix)


# ---- damage -------------------------------------------------------------------------------------------------------------


def damaged(kind: Kind, rng: random.Random) -> tuple[str, bytes]:
    """What was done, and the bytes."""
    data = bytearray(kind.content)
    if rng.random() < WHOLE:
        return "whole", bytes(data)
    at = kind.pixels_at
    low, high, where = (132, at, "header") if rng.random() < 0.3 and at > 200 else (at, len(data), "pixels")
    how = rng.choice(("flipped", "flipped", "flipped", "removed", "inserted", "zeroed", "cut"))
    for _ in range(1 if how == "cut" else rng.choice((1, 1, 1, 3, 10))):
        place = rng.randrange(low, max(low + 1, min(high, len(data))))
        count = rng.choice((1, 2, 5, 50))
        if how == "flipped" and place < len(data):
            data[place] ^= 1 << rng.randrange(8) if rng.random() < 0.5 else rng.randrange(1, 256)
        elif how == "removed":
            del data[place : place + count]
        elif how == "inserted":
            data[place:place] = rng.randbytes(count)
        elif how == "zeroed":
            data[place : place + count] = bytes(len(data[place : place + count]))
        elif how == "cut":
            del data[place:]
    return f"{how} in {where}", bytes(data)


# ---- the jobs -----------------------------------------------------------------------------------------------------------


def run(job: str, flags: Flags, folder: Path) -> None:
    chest = job == "chest_cv"
    images, modality = (films(), "DX") if chest else (slices(), "CT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = [*written_files(images, modality), *packaged_files(modality), *(pictures(images) if chest else ())]
    rng = random.Random(f"{flags.seed} {job}")
    files, made = folder / "files", {}
    files.mkdir(parents=True)
    by_name: dict[str, list[Kind]] = {}
    for kind in kinds:
        by_name.setdefault(kind.name, []).append(kind)
    names = sorted(by_name)
    for number in range(1, flags.files + 1):
        kind = rng.choice(by_name[names[number % len(names)]])
        own = kind.own(number)
        what, data = damaged(own, rng)
        name = f"{number:06d}"  # a film that is a picture is known by it
        (files / f"{name}{kind.suffix}").write_bytes(data)
        made[name] = (kind, what)

    labels = folder / "labels.csv"
    if chest:
        rows = [f"{i},{n},{int(n % 3 == 0)}" for n in range(1, flags.files + 1) for i in (UID.format(n), f"{n:06d}")]
        labels.write_text("image,patient,Mass\n" + "\n".join(rows) + "\n")
    else:
        rows = [f"{UID.format(n)}_{c},{int(n % 3 == 0 and c in ('subdural', 'any'))}" for n in range(1, flags.files + 1)
                for c in ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")]  # fmt: skip
        labels.write_text("ID,Label\n" + "\n".join(rows) + "\n")
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--images" if chest else "--dicom", str(files)]
    command += ["--labels", str(labels), "--out", str(folder / "out"), "--public-ids", "--until", "shards"]
    command += [
        "--folds",
        "2",
        "--key-dir",
        str(folder / "key"),
        "--no-pretrained",
        *(["--split", "folds"] if chest else []),
    ]
    started = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        status = subprocess.run(command, stdout=log, stderr=log, timeout=60 * flags.minutes, check=False).returncode
    seconds = time.monotonic() - started
    text = (folder / "log.txt").read_text()
    print(
        f"\n{job}: exit status {status} after {seconds:.0f} s; tasks that failed: {len(re.findall('tasks failed', text))}"
    )
    report(job, folder, made)


def report(job: str, folder: Path, made: dict[str, tuple[Kind, str]]) -> None:
    inventory = pq.read_table(folder / "out" / "inventory.parquet").to_pandas()
    names = inventory["path"].str.rsplit("/", n=1).str[-1].str.replace(r"\.\w+$", "", regex=True)
    missing = set(made) - set(names)
    unexplained = inventory["status"].isin(["quarantined", "duplicate"]) & inventory["reason"].fillna("").eq("")
    print(f"files without a row: {len(missing)}; set aside without a reason: {int(unexplained.sum())}")
    shards = folder / "out" / "shards"
    chest = job == "chest_cv"
    key, value = "image_id" if chest else "slice_id", "pixels_hash"
    found = {}
    for path in sorted(shards.rglob("*.parquet")):
        table = pq.read_table(path, columns=[key, value]).to_pydict()
        found |= dict(zip(table[key], table[value], strict=True))
    wanted: dict[bytes, object] = {}
    counts: dict[str, Counter[str]] = {}
    id_column = key if key in inventory else "item_id"
    for name, status, why, item in zip(
        names, inventory["status"], inventory["reason"], inventory[id_column], strict=True
    ):
        kind, what = made[name]
        count = counts.setdefault(kind.name, Counter())
        count["files"] += 1
        if status in ("ok", "repaired", "unlabelled"):
            right = found.get(item) == _whole(kind, chest, value, wanted)
            count["whole, used" if what == "whole" else "damaged, same pixels" if right else "other pixels"] += 1
            if what == "whole" and not right:
                count["whole, other pixels"] += 1
        else:
            count["whole, set aside" if what == "whole" else "set aside"] += 1
            count["the decoder died"] += bool(re.match("the decoder (ended|took|gave|wants)", why or ""))
    columns = [
        "files",
        "whole, used",
        "whole, set aside",
        "set aside",
        "the decoder died",
        "damaged, same pixels",
        "other pixels",
    ]
    print(f"| transfer syntax | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    total: Counter[str] = Counter()
    for name in sorted(counts):
        print(f"| {name} | {' | '.join(str(counts[name][c]) for c in columns)} |")
        total += counts[name]
    print(f"| all | {' | '.join(str(total[c]) for c in columns)} |")
    if total["whole, other pixels"]:
        print(f"WRONG: {total['whole, other pixels']} whole files came out otherwise than alone")
    print("\nMost frequent reasons:")
    for why, count in inventory.loc[inventory["status"] == "quarantined", "reason"].value_counts().head(25).items():
        print(f"  {count:6d} × {why}")


def _whole(kind: Kind, chest: bool, value: str, known: dict[bytes, object]) -> object:
    """What the shards hold of the whole file."""
    if kind.content not in known:
        source = Radiograph() if chest else HeadCT()
        try:
            (encoded,) = source.encode(Files.of(kind.content), [{"frame": 0}])
            known[kind.content] = None if encoded.columns is None else encoded.columns[value]
        except ValueError:
            known[kind.content] = None
    return known[kind.content]


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as name:
        for job in flags.job:
            run(job, flags, (flags.keep or Path(name)) / job)


if __name__ == "__main__":
    main(tyro.cli(Flags))
