"""Headers that lie, lack their beginning, or were made to exhaust whoever reads them."""

from __future__ import annotations

import gzip
import io
import random
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from chest_films import dicom as film_of
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, JPEG2000Lossless, generate_uid

from medray.imaging import elements
from medray.imaging.dicom import read_headers, read_slices
from medray.imaging.radiograph import read_film, read_film_header
from medray.imaging.types import Unreadable

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
EXPLICIT, IMPLICIT, DEFLATED, BIG = elements.EXPLICIT, elements.IMPLICIT, elements.DEFLATED, elements.BIG_ENDIAN
STORED = np.arange(24, dtype=np.uint16).reshape(6, 4) * 40
HU = STORED.astype(np.int16) - 1024


@pytest.fixture(autouse=True)
def nothing_warns() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def ct() -> Dataset:
    ds = Dataset()
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, UID("1.2.3.4")
    ds.Modality, ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "CT", "P1", UID("1.2"), UID("1.2.3")
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 5], [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.PixelSpacing = 6, 4, [0.5, 0.5]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.RescaleIntercept, ds.RescaleSlope = -1024, 1
    return ds


def parts(syntax: str) -> tuple[bytes, bytes]:
    """File meta information with its preamble, and the data set, of a CT image."""
    ds = ct()
    ds.PixelData = STORED.astype(">u2" if syntax == BIG else "<u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    whole = stream.getvalue()
    at = 144 + struct.unpack_from("<L", whole, 140)[0]
    return whole[:at], whole[at:]


def meta(**tags: bytes) -> bytes:
    """Preamble and file meta information of explicit VR, by element number ("10" is the transfer syntax)."""
    return bytes(128) + b"DICM" + b"".join(
        struct.pack("<HH2sH", 2, int(number[1:], 16), b"UI", len(value)) + value for number, value in tags.items()
    )  # fmt: skip


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    long = vr in elements.LONG_VRS
    return struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr) + (
        struct.pack("<HL" if long else "<H", *((0, len(value)) if long else (len(value),))) + value
    )


def refused(data: bytes) -> str:
    """The reason, one line, which all readers give."""
    reasons = set()
    for read in (read_headers, read_slices, lambda data: read_headers(io.BytesIO(data))):
        with pytest.raises(Unreadable) as caught:
            read(data)
        reasons.add(str(caught.value))
    (reason,) = reasons
    assert "\n" not in reason
    return reason


# ---- what the file says of itself, and what it is -------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED, BIG])
def test_a_file_as_it_should_be(syntax: str) -> None:
    assert np.array_equal(read_slices(b"".join(parts(syntax)))[0].pixels_hu, HU)


MISSING = {
    "neither preamble nor meta": lambda head, body: body,
    "no preamble": lambda head, body: head[132:] + body,
    "no meta": lambda head, body: head[:132] + body,
    "no transfer syntax": lambda head, body: meta(_2=CTImageStorage.encode() + b"\0") + body,
    "an empty transfer syntax": lambda head, body: meta(_10=b"") + body,
    "another preamble": lambda head, body: b"II*\0" + bytes(124) + head[128:] + body,
    "a wrong group length": lambda head, body: head[:140] + struct.pack("<L", 4) + head[144:] + body,
    "bytes behind the pixels": lambda head, body: head + body + b"\xfc\xff\xfc\xffOB\0\0\x08\0\0\0" + bytes(8),
}


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_what_old_archives_leave_out_is_seen_from_the_bytes(missing: str, syntax: str) -> None:
    data = MISSING[missing](*parts(syntax))
    assert np.array_equal(read_slices(data)[0].pixels_hu, HU)
    assert read_headers(io.BytesIO(data)) == read_headers(b"".join(parts(EXPLICIT)))


@pytest.mark.parametrize(("says", "is_"), [(IMPLICIT, EXPLICIT), (EXPLICIT, IMPLICIT)])
def test_a_transfer_syntax_that_is_wrong_about_vrs_is_read_as_it_is_written(says: str, is_: str) -> None:
    data = parts(says)[0] + parts(is_)[1]
    assert np.array_equal(read_slices(data)[0].pixels_hu, HU)


@pytest.mark.parametrize(("says", "is_"), [(BIG, EXPLICIT), (EXPLICIT, BIG), (IMPLICIT, BIG), (BIG, IMPLICIT)])
def test_a_transfer_syntax_that_is_wrong_about_the_byte_order_is_said(says: str, is_: str) -> None:
    data = parts(says)[0] + parts(is_)[1]
    assert refused(data) == "the transfer syntax says another byte order than the data set has"


def compressed() -> tuple[bytes, bytes]:
    ds = ct()
    ds.Rows, ds.Columns = 32, 32
    ds.PixelData = np.arange(1024, dtype=np.uint16).tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    at = 144 + struct.unpack_from("<L", stream.getvalue(), 140)[0]
    return stream.getvalue()[:at], stream.getvalue()[at:]


def test_pixels_that_are_compressed_or_not_against_what_the_file_says() -> None:
    head, body = compressed()
    assert read_slices(head + body)[0].pixels_hu.shape == (32, 32)
    says = parts(EXPLICIT)[0]
    assert refused(says + body) == "the transfer syntax says uncompressed, and the pixels are compressed"
    assert refused(body) == "the transfer syntax is missing, and the pixels are compressed"
    assert refused(head + parts(EXPLICIT)[1]) == "the transfer syntax says compressed, and the pixels are not"


def test_what_is_no_image_is_said_in_words() -> None:
    whole = b"".join(parts(EXPLICIT))
    assert refused(gzip.compress(whole)) == "not a DICOM file: packed with gzip; unpack it"
    assert refused(b"PK\3\4" + bytes(200)) == "not a DICOM file: packed with ZIP; unpack it"
    directory = meta(_2=b"1.2.840.10008.1.3.10", _10=EXPLICIT.encode() + b"\0")
    assert refused(directory) == "not a DICOM file of an image: a DICOMDIR, which lists other files"
    assert refused((PACKAGED / "dicomdirtests" / "DICOMDIR").read_bytes()).endswith("which lists other files")


# ---- headers that exhaust -------------------------------------------------------------------------------------------


def nested(depth: int, syntax: str, unknown: str) -> bytes:
    """A CT image with sequences in sequences. Of unknown length are the sequences, the items, both or (where ``unknown``
    is empty) neither."""
    inside = b""
    for _ in range(depth):
        size = 0xFFFFFFFF if "i" in unknown else len(inside)
        item = struct.pack("<HHL", 0xFFFE, 0xE000, size) + inside
        item += struct.pack("<HHL", 0xFFFE, 0xE00D, 0) if "i" in unknown else b""
        size = 0xFFFFFFFF if "s" in unknown else len(item)
        item += struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if "s" in unknown else b""
        tag = struct.pack("<HH", 0x0008, 0x1140)
        inside = tag + (b"SQ\0\0" if syntax == EXPLICIT else b"") + struct.pack("<L", size) + item
    head, body = parts(syntax)
    return head + inside + body


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("unknown", ["s", "si", "i", ""], ids=lambda u: u or "defined")
def test_sequences_in_sequences_are_read_or_unreadable(syntax: str, unknown: str) -> None:
    assert read_headers(nested(60, syntax, unknown))[0].slice_id == "1.2.3.4"
    deep = nested(3000, syntax, unknown)
    if unknown == "si":  # only then is an item walked through: lengths lead past the others
        assert refused(deep) == "sequences nested more than 64 deep"
    else:
        assert read_headers(deep)[0].slice_id == "1.2.3.4"


@pytest.mark.parametrize("tag", [0x52009230, 0x00209113])
def test_sequences_in_the_groups_that_are_looked_into(tag: int) -> None:
    """The functional groups of an enhanced image, whose items are walked through when a tag is looked for."""
    inside = b""
    for _ in range(3000):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + inside + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
        end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
        inside = struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, 0xFFFFFFFF) + item + end
    group = struct.pack("<HHL", 0xFFFE, 0xE000, len(inside)) + inside
    head, body = parts(EXPLICIT)
    at = body.index(b"\x28\0\2\0US")
    spliced = head + body[:at] + element(tag, b"SQ", group) + body[at:]
    assert refused(spliced) == "sequences nested more than 64 deep"


def test_shared_groups_are_walked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each frame: with 2,000 frames and a large group a small file would take minutes."""
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    private = b"".join(element(0x00091000 + i, b"US", b"\1\0") for i in range(50))
    measures = element(0x00289110, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(private)) + private)
    shared = element(0x52009229, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(measures)) + measures)
    head, body = parts(EXPLICIT)
    rows, pixels = body.index(b"\x28\0\x10\0US"), body.index(b"\xe0\x7f\x10\0OW")
    frames = body[:rows] + element(0x00280008, b"IS", b"2000") + body[rows:pixels]
    data = head + frames + shared + element(0x52009230, b"SQ", item * 2000) + body[pixels:]
    walk, walked = elements._walk, []
    monkeypatch.setattr(elements, "_walk", lambda *args, **more: walked.append(args[1]) or walk(*args, **more))
    assert len(read_headers(data)) == 2000
    assert 2000 <= len(walked) < 2010


class Counted(io.BytesIO):
    """A file of ``size`` bytes, zeros after its start, that counts what is read of it."""

    def __init__(self, start: bytes, size: int) -> None:
        super().__init__(start)
        self.start, self.size, self.given = start, size, 0

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert size >= 0, "the whole file was asked for"
        size = min(size, self.size - self.given)
        part = self.start[self.given : self.given + size]
        self.given += size
        return part + bytes(size - len(part))


def test_a_file_without_pixels_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "MAX_HEADER_BYTES", 1 << 22)
    head, body = parts(EXPLICIT)
    without = body[: body.index(b"\xe0\x7f\x10\0OW")]
    stream = Counted(head + without, 2 << 30)
    with pytest.raises(Unreadable, match="^a damaged header: no pixels within 4 MB$"):
        read_headers(stream)
    assert stream.given <= 1 << 23


@pytest.mark.parametrize("length", [0x7FFFFFF0, 0xFFFFFFFE])
def test_an_element_longer_than_any_header_is_not_read(length: int) -> None:
    head, body = parts(EXPLICIT)
    long = struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, length)
    stream = Counted(head + long + body, 5 << 30)
    with pytest.raises(Unreadable, match="^a damaged header: no pixels within 64 MB$"):
        read_headers(stream)
    assert stream.given == elements.FIRST_READ


def test_more_elements_and_items_than_any_image_has() -> None:
    head, body = parts(IMPLICIT)
    at = body.index(b"\xe0\x7f\x10\0")
    many = np.zeros((1 << 17, 2), "<u4")
    many[:, 0] = 0x0029 + (np.arange(1 << 17) << 16)  # group and element change places in the file
    many[1 << 16 :, 0] = 0x002B + (np.arange(1 << 16) << 16)
    assert refused(head + body[:at] + many.tobytes() + body[at:]) == "a header of more than 65,536 data elements"
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * (1 << 17)
    per_frame = struct.pack("<HHL", 0x5200, 0x9230, len(items)) + items
    assert refused(head + body[:at] + per_frame + body[at:]) == "a sequence of more than 65,536 items"


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def test_a_deflated_data_set_is_inflated_to_a_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    head, _ = parts(DEFLATED)
    body = parts(EXPLICIT)[1]
    monkeypatch.setattr(elements, "MAX_HEADER_BYTES", 1 << 19)
    header_bomb, bomb = (head + deflated(start + bytes(1 << 26)) for start in (b"", body))
    assert len(bomb) < 1 << 18
    tracemalloc.start()
    with pytest.raises(Unreadable, match="^a deflated data set of more than 1 MB$"):
        read_headers(io.BytesIO(header_bomb))
    with pytest.raises(Unreadable, match="^a deflated data set of more than 1 MB$"):
        elements.parse(bomb, inflate=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 23
    whole = head + deflated(body)
    for behind in (b"\0", b"garbage\xff\xff"):  # a byte of padding (PS3.5 A.5), and what should not be there
        assert np.array_equal(read_slices(whole + behind)[0].pixels_hu, HU)
    assert "truncated" in refused_pixels(head + deflated(body)[:-8])


def refused_pixels(data: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        read_slices(data)
    return str(caught.value)


# ---- damage at random -----------------------------------------------------------------------------------------------

PIECES = [
    b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"SQ\0\0\xff\xff\xff\xff",
    b"UN\0\0\xff\xff\xff\xff", bytes(64), b"\x28\0\x10\0", b"\xe0\x7f\x10\0",
]  # fmt: skip


def damaged(file: bytes, chance: random.Random) -> bytes:
    """One to five bits flipped, bytes changed, cut out, cut off or put in, most of them in the header."""
    out = bytearray(file)
    reach = min(len(out), chance.choice([400, 2000, 6000, len(out)]))
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(min(reach, len(out)) or 1)
        if not out:
            break
        kind = chance.random()
        if kind < 0.45:
            out[at] ^= 1 << chance.randrange(8)
        elif kind < 0.6:
            out[at] = chance.choice([0, 255, 0x7F, 0x80, chance.randrange(256)])
        elif kind < 0.7:
            del out[at:]
        elif kind < 0.8:
            del out[at : at + chance.choice([1, 2, 4, 8, 100])]
        else:
            out[at:at] = chance.choice(PIECES)
    return bytes(out)


def native(data: bytes) -> bool:
    try:
        return elements.parse(data).transfer_syntax in elements.NATIVE
    except Unreadable:
        return True


def test_damage_anywhere_is_read_or_unreadable_and_soon() -> None:
    files = [path.read_bytes() for path in sorted(PACKAGED.rglob("*.dcm")) if path.stat().st_size < 200_000]
    own = [b"".join(parts(syntax)) for syntax in (EXPLICIT, IMPLICIT, DEFLATED, BIG)]
    own += [parts(EXPLICIT)[1], film_of(np.arange(1024, dtype=np.uint8).reshape(32, 32), SOPInstanceUID=generate_uid())]
    chance = random.Random(0)
    headers: list[Callable] = [read_headers, lambda data: read_headers(io.BytesIO(data))]
    headers += [lambda data: read_film_header(io.BytesIO(data))]
    outcomes = {"read": 0, "unreadable": 0}
    for _ in range(600):
        data = damaged(chance.choice(chance.choice([files, own])), chance)
        for read in [*headers, *([read_slices, read_film] if native(data) else [])]:
            start = time.perf_counter()
            try:
                read(data)
                outcomes["read"] += 1
            except Unreadable:
                outcomes["unreadable"] += 1
            assert time.perf_counter() - start < 2
    assert min(outcomes.values()) > 100
