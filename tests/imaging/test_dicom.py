"""Reading DICOM: files written here by pydicom in every way that matters, the files pydicom ships, the real series."""

from __future__ import annotations

import io
import logging
import random
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medray.imaging import elements as data_elements
from medray.imaging.dicom import FileWindow, read_headers, read_slices, read_windows
from medray.imaging.types import Header, Slice, Unreadable

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
SECRET = "Secret^Patient"


@pytest.fixture(autouse=True)
def nothing_warns(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """In this module every warning is an error, and so is every logged one."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        yield
    assert not caplog.records


def stored_values(rows: int = 6, columns: int = 4) -> np.ndarray:
    return np.arange(rows * columns, dtype=np.int16).reshape(rows, columns) * 40 - 100


def ct(pixels: np.ndarray | None = None, **tags: Any) -> Dataset:
    """A plain CT image, 6 rows by 4 columns, with identifiers that break the standard as the challenge's do."""
    pixels = stored_values() if pixels is None else pixels
    ds = Dataset()
    with pydicom.config.disable_value_validation():
        ds.SOPClassUID = CTImageStorage
        ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = map(UID, ("ID_image", "ID_study", "ID_series"))
        ds.PatientID, ds.PatientName = "ID_patient", SECRET
        ds.Modality = "CT"
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = pixels.shape[-2:]
        ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
        ds.HighBit = ds.BitsStored - 1
        ds.PixelRepresentation = int(pixels.dtype.kind == "i")
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-125, -120.5, 30], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing = [0.5, 0.25]
        ds.PixelData = pixels.tobytes()
        for name, value in tags.items():
            setattr(ds, name, value) if value is not None else delattr(ds, name)
    return ds


def encode(ds: Dataset, syntax: str = ExplicitVRLittleEndian, *, compress: bool = False) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian if compress else syntax)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        if compress:
            ds.compress(syntax, generate_instance_uid=False)
        if "PixelData" in ds:
            ds["PixelData"].VR = "OB" if compress or ds.BitsAllocated == 8 else "OW"
        ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, UID("1.2.3")
        file = io.BytesIO()
        ds.preamble = bytes(128)
        pydicom.dcmwrite(file, ds)
    return file.getvalue()


def one(ds: Dataset, syntax: str = ExplicitVRLittleEndian, *, compress: bool = False) -> Slice:
    slices = read_slices(encode(ds, syntax, compress=compress))
    assert len(slices) == 1
    return slices[0]


def refused(ds: Dataset) -> str:
    """The one-line reason, which read_headers must give as well."""
    file = encode(ds)
    with pytest.raises(Unreadable) as from_slices:
        read_slices(file)
    with pytest.raises(Unreadable) as from_headers:
        read_headers(file)
    assert str(from_slices.value) == str(from_headers.value)
    return reason(from_slices.value)


def reason(error: Unreadable) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    assert "ecret" not in text
    assert "ID_" not in text
    return text


# ---- what a header says --------------------------------------------------------------------------------------------


def test_a_plain_image() -> None:
    image = one(ct())
    assert image.header == Header(
        slice_id="ID_image",
        patient_id="ID_patient",
        study_id="ID_study",
        series_id="ID_series",
        frame=0,
        rows=6,
        columns=4,
        position_xyz_mm=(-125.0, -120.5, 30.0),
        orientation_rc=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        spacing_rc_mm=(0.5, 0.25),
    )
    assert image.repaired is None
    assert image.pixels_hu.dtype == np.int16
    assert np.array_equal(image.pixels_hu, np.maximum(stored_values() - 1024, -1024))


def test_what_tells_slices_of_a_series_apart() -> None:
    said = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SEQ"], "FrameOfReferenceUID": "1.2.3", "SeriesNumber": 4,
        "AcquisitionNumber": 2, "InstanceNumber": 17, "ConvolutionKernel": "H30s", "KVP": 120, "SliceThickness": 4.8,
        "SliceLocation": -12.5, "AcquisitionDate": "20200102", "AcquisitionTime": "030405", "ContentTime": "030406",
    }  # fmt: skip
    header = one(ct(**said)).header
    assert header == replace(
        one(ct()).header, image_type=("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SEQ"), frame_of_reference_id="1.2.3",
        series_number=4, acquisition_number=2, instance_number=17, kernel="H30s", peak_kv=120, thickness_mm=4.8,
        slice_location_mm=-12.5, acquired="20200102030405", created="030406",
    )  # fmt: skip
    both = one(ct(**said, AcquisitionDateTime="20200102030405.5")).header
    assert both.acquired == "20200102030405.5"


def test_a_number_that_is_none_is_no_reason_to_set_a_slice_aside() -> None:
    ds = ct()
    with pydicom.config.disable_value_validation():
        for tag in (0x00200013, 0x00200012, 0x00201041, 0x00180050):
            ds.add_new(tag, "LO", "none")
    header = one(ds).header
    assert (header.instance_number, header.acquisition_number) == (None, None)
    assert (header.slice_location_mm, header.thickness_mm) == (None, None)


@pytest.mark.parametrize("kind", ["", ".1", ".2", ".3", ".4"])
def test_a_secondary_capture_says_what_it_is(kind: str) -> None:
    capture = {"SOPClassUID": UID(f"1.2.840.10008.5.1.4.1.1.7{kind}"), "SamplesPerPixel": 3, "RescaleSlope": None}
    assert refused(ct(**capture)) == "a secondary capture (such as a dose report or a screenshot), not a CT image"
    # one that has all that a slice needs is a slice, as programs that convert files write it
    assert one(ct(SOPClassUID=capture["SOPClassUID"])).header == one(ct()).header


def test_bytes_buffers_and_files_are_read_alike() -> None:
    file = encode(ct())
    headers = read_headers(file)
    for source in (bytearray(file), memoryview(file), io.BytesIO(file)):
        assert read_headers(source) == headers
    assert np.array_equal(read_slices(io.BytesIO(file))[0].pixels_hu, read_slices(file)[0].pixels_hu)


def test_headers_do_not_read_the_pixels() -> None:
    """Of a 4 MB file no more than the first read; of a long header, no more than twice its size."""
    big = encode(ct(np.zeros((1024, 2048), np.int16)))
    source = io.BytesIO(big)
    read_headers(source)
    assert source.tell() <= 1 << 16

    long_header = ct(np.zeros((1024, 2048), np.int16))
    long_header.add_new(0x00091001, "OB", bytes(300_000))
    source = io.BytesIO(encode(long_header))
    assert read_headers(source)[0].columns == 2048
    assert 300_000 < source.tell() <= 1 << 20


def test_odd_but_legal_text() -> None:
    image = one(ct(PatientID="Jürgen 7 ", RescaleSlope=[1, 2], RescaleIntercept=[-1000, 0], RescaleType="US"))
    assert image.header.patient_id == "Jürgen 7"
    assert image.pixels_hu[0, 0] == -1024
    assert image.pixels_hu[-1, -1] == 23 * 40 - 100 - 1000


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"Modality": "MR"}, "modality is MR, not CT"),
        ({"Modality": "ZQ JANE DOE 77"}, "modality is no term of DICOM's, not CT"),
        ({"PhotometricInterpretation": "JANE_DOE"}, "photometric interpretation is no term of DICOM's, not monochrome"),
        ({"Modality": SECRET}, "modality is no term of DICOM's, not CT"),
        ({"Modality": None}, "no modality"),
        ({"PixelData": None}, "no pixel data"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "3 samples a pixel (colour), not 1"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "photometric interpretation is PALETTE COLOR, not monochrome"),
        ({"RescaleSlope": None}, "no RescaleSlope"),
        ({"RescaleIntercept": ""}, "no RescaleIntercept"),
        ({"RescaleSlope": 0}, "rescale of slope 0 and intercept -1024"),
        ({"RescaleType": "Z_EFF"}, "rescaled values are Z_EFF, not Hounsfield units"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"ImagePositionPatient": [1, 2]}, "ImagePositionPatient has 2 values, not 3"),
        ({"ImageOrientationPatient": None}, "no ImageOrientationPatient"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two perpendicular unit vectors"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
        ({"PixelSpacing": [0.5, 0]}, "PixelSpacing is not above 0"),
        ({"SOPInstanceUID": None}, "no SOPInstanceUID"),
        ({"PatientID": ""}, "no PatientID"),
        ({"StudyInstanceUID": None}, "no StudyInstanceUID"),
        ({"SeriesInstanceUID": None}, "no SeriesInstanceUID"),
        ({"Rows": 0}, "an image without rows or columns"),
        ({"Columns": None}, "no Columns"),
        ({"NumberOfFrames": 2}, "2 frames without a position each"),
        ({"NumberOfFrames": 1_000_000_000}, "1e+09 frames without a position each"),
        ({"Rows": 65535, "Columns": 65535}, "65535 × 65535 pixels in 1 frames: no image has so many"),
        ({"PatientID": "7" * 2000}, "PatientID has 2,000 characters"),
    ],
)
def test_what_is_missing_is_named_and_never_guessed(tags: dict[str, Any], expected: str) -> None:
    assert expected in refused(ct(**tags))


def test_a_number_that_is_none() -> None:
    for damaged in (b"-10x4 ", b"-10_4 ", b"-1\xd9\xa124"):
        file = encode(ct(RescaleIntercept="-1024")).replace(b"-1024 ", damaged)
        with pytest.raises(Unreadable, match="RescaleIntercept is not a number"):
            read_slices(file)


def test_not_dicom_at_all() -> None:
    for junk in (b"", b"DICM", bytes(200), b"\x89PNG" + bytes(500), b"\x08\0text"):
        with pytest.raises(Unreadable, match="not a DICOM file"):
            read_slices(junk)
        with pytest.raises(Unreadable, match="not a DICOM file"):
            read_headers(io.BytesIO(junk))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_sequences_on_the_way_are_stepped_over(syntax: str) -> None:
    """Nested, of known and unknown length, with decoys inside that must not be taken for the image's own."""
    decoy = Dataset()
    decoy.Modality, decoy.PixelSpacing = "MR", [9, 9]
    for unknown_length in (False, True):
        inner = Dataset()
        inner.ReferencedImageSequence = Sequence([decoy])
        inner.Modality = "MR"
        inner.is_undefined_length_sequence_item = unknown_length
        ds = ct(SourceImageSequence=Sequence([inner, decoy]))
        ds["SourceImageSequence"].is_undefined_length = unknown_length
        assert one(ds, syntax).header.spacing_rc_mm == (0.5, 0.25)


def test_the_windows_of_the_file() -> None:
    assert read_windows(encode(ct())) == []
    assert read_windows(encode(ct(WindowCenter=40, WindowWidth="80.5"))) == [FileWindow(40, 80.5, "LINEAR")]
    several = ct(WindowCenter=[40, 600], WindowWidth=[80, 2800], VOILUTFunction="SIGMOID")
    assert read_windows(encode(several)) == [FileWindow(40, 80, "SIGMOID"), FileWindow(600, 2800, "SIGMOID")]
    with pytest.raises(Unreadable, match="2 window centers, 1 window widths"):
        read_windows(encode(ct(WindowCenter=[40, 600], WindowWidth=80)))


# ---- padding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(("dtype", "intercept"), [("i2", 0), ("i2", 3000), ("u2", -1024)])
def test_padding_is_air_in_whatever_sign_and_vr_it_is_written(vr: str, syntax: str, dtype: str, intercept: int) -> None:
    """-2000, which is 63536 as US; above every window after the rescale in two of the three files."""
    truth = np.full((32, 32), 35, np.int32)
    stored = (truth - intercept).astype(dtype)
    corners = np.hypot(*np.indices((32, 32)) - 15.5) > 16
    stored.view("i2")[corners] = -2000
    ds = ct(stored, RescaleIntercept=intercept)
    ds.add_new(0x00280120, vr, 63536 if vr == "US" else -2000)
    image = one(ds, syntax)
    assert (image.pixels_hu[corners] == -1024).all()
    assert (image.pixels_hu[~corners] == 35).all()
    assert image.repaired is None


# ---- pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("dtype", ["i2", "u2", "u1", "i4"])
def test_uncompressed_transfer_syntaxes(syntax: str, dtype: str) -> None:
    pixels = (np.arange(24).reshape(6, 4) * 10).astype(dtype)
    in_file = pixels.astype(pixels.dtype.newbyteorder(">")) if syntax == ExplicitVRBigEndian else pixels
    image = one(ct(pixels, PixelData=in_file.tobytes()), syntax)
    assert np.array_equal(image.pixels_hu, pixels.astype(np.int32) - 1024)
    assert image.pixels_hu.dtype.isnative


def test_big_endian_bytes_in_words_come_swapped() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(6, 4)
    ds = ct(pixels, PixelData=pixels.reshape(-1, 2)[:, ::-1].tobytes())
    file = bytearray(encode(ds, ExplicitVRBigEndian))
    at = file.index(b"\x7f\xe0\x00\x10OB")
    file[at + 4 : at + 6] = b"OW"
    assert np.array_equal(read_slices(bytes(file))[0].pixels_hu, pixels.astype(int) - 1024)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("dtype", ["i2", "u2"])
def test_compressed_transfer_syntaxes(syntax: str, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (64, 48)).astype(dtype)
    if dtype == "i2":
        pixels -= 1000
    image = one(ct(pixels, RescaleIntercept=0), syntax, compress=True)
    assert np.array_equal(image.pixels_hu, pixels)


def test_jpeg_lossless_as_old_archives_hold_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-1000, 3000, (64, 48)).astype(np.int16)
    plain, packed = str(tmp_path / "plain.dcm"), str(tmp_path / "packed.dcm")
    (tmp_path / "plain.dcm").write_bytes(encode(ct(pixels, RescaleIntercept=0)))
    reader = gdcm.ImageReader()
    reader.SetFileName(plain)
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(packed)
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert np.array_equal(read_slices(Path(packed).read_bytes())[0].pixels_hu, pixels)


def test_bits_stored_and_high_bit() -> None:
    stored = np.array([[0x0FFF, 0xF7FF, 0x0800]], np.uint16)
    twelve = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1, "RescaleIntercept": 0}
    assert one(ct(stored, **twelve)).pixels_hu.tolist() == [[-1, 2047, -1024]]
    shifted = {**twelve, "HighBit": 15}
    assert one(ct(stored << 4, **shifted)).pixels_hu.tolist() == [[-1, 2047, -1024]]
    with pytest.raises(Unreadable, match="16 bits allocated, 17 stored, high bit 16"):
        read_slices(encode(ct(BitsStored=17, HighBit=16)))


def test_truncated_pixels_are_counted() -> None:
    for file in (encode(ct())[:-10], encode(ct(PixelData=stored_values().tobytes()[:-10]))):
        assert read_headers(file)
        with pytest.raises(Unreadable, match=r"^truncated pixels: 48 bytes expected, 38 found$"):
            read_slices(file)
    too_long = encode(ct(PixelData=stored_values().tobytes() + b"\7\7\7\7"))
    assert read_slices(too_long)[0].pixels_hu.shape == (6, 4)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_truncated_compressed_pixels(syntax: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (64, 48)).astype(np.int16)
    file = encode(ct(pixels), syntax, compress=True)
    for kept in (len(file) - 4, len(file) - 9, len(file) - 2000):
        with pytest.raises(Unreadable, match="truncated pixels"):
            read_slices(file[:kept])


def test_damaged_compressed_pixels(caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (64, 48)).astype(np.int16)
    file = bytearray(encode(ct(pixels), JPEG2000Lossless, compress=True))
    at = file.index(b"\xff\x4f\xff\x51")
    file[at : at + 40] = bytes(40)
    with pytest.raises(Unreadable, match="damaged pixels: a JPEG 2000 stream without"):
        read_slices(bytes(file))
    caplog.clear()  # pydicom logs what each plugin had to say


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_damage_anywhere_in_compressed_pixels(syntax: str, caplog: pytest.LogCaptureFixture) -> None:
    """Among these are streams on which the RLE plugin's Rust code panics, past every `except Exception`."""
    pixels = np.random.default_rng(0).integers(0, 3000, (64, 48)).astype(np.int16)
    whole = encode(ct(pixels), syntax, compress=True)
    chance = random.Random(1)
    outcomes: set[type] = set()
    for _ in range(300):
        file = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            file[chance.randrange(500, len(file))] = chance.randrange(256)
        try:
            outcomes.add(type(read_slices(bytes(file))))
        except Unreadable:
            outcomes.add(Unreadable)
    assert outcomes <= {list, Unreadable}
    caplog.clear()


def test_an_unknown_transfer_syntax() -> None:
    file = encode(ct()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0", 1)
    with pytest.raises(Unreadable, match="no decoder"):
        read_slices(file)


def test_a_wrapped_file_says_that_it_was_repaired() -> None:
    truth = np.full((64, 64), -1000, np.int16)
    truth[20:40, 20:40] = 35
    wrapped = (truth & 0xFFF).astype(np.uint16)
    image = one(ct(wrapped, BitsStored=12, HighBit=11, RescaleIntercept=0))
    assert image.repaired == "wrapped 12-bit"
    assert np.array_equal(image.pixels_hu, truth)


# ---- several frames ------------------------------------------------------------------------------------------------


def enhanced(frames: int = 3) -> Dataset:
    """An enhanced CT: shared orientation and spacing, a position and an intercept for each frame."""
    pixels = np.stack([stored_values() + k for k in range(frames)])
    ds = ct(pixels, NumberOfFrames=frames, SOPClassUID=EnhancedCTImageStorage)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, name)

    def group(**tags: Any) -> Sequence:
        item = Dataset()
        for name, value in tags.items():
            setattr(item, name, value)
        return Sequence([item])

    shared = Dataset()
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.5, 0.25])
    shared.FrameVOILUTSequence = group(WindowCenter=40, WindowWidth=80, VOILUTFunction="LINEAR_EXACT")
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    each = []
    for k in range(frames):
        own = Dataset()
        own.PlanePositionSequence = group(ImagePositionPatient=[0, 0, 5 * k])
        own.PixelValueTransformationSequence = group(RescaleSlope=1, RescaleIntercept=-1000 - k, RescaleType="HU")
        each.append(own)
    ds.PerFrameFunctionalGroupsSequence = Sequence(each)
    return ds


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless])
def test_an_enhanced_image_becomes_its_slices(syntax: str) -> None:
    compress = syntax in (JPEGLSLossless, RLELossless)
    file = encode(enhanced(), syntax, compress=compress)
    slices = read_slices(file)
    assert [s.header for s in slices] == read_headers(io.BytesIO(file))
    assert [s.header.slice_id for s in slices] == ["ID_image/frame1", "ID_image/frame2", "ID_image/frame3"]
    assert [s.header.frame for s in slices] == [1, 2, 3]
    assert [s.header.position_xyz_mm for s in slices] == [(0, 0, 0), (0, 0, 5), (0, 0, 10)]
    assert {s.header.spacing_rc_mm for s in slices} == {(0.5, 0.25)}
    for k, s in enumerate(slices):  # one more stored, one less by the rescale
        assert np.array_equal(s.pixels_hu, np.maximum(stored_values() + k - 1000 - k, -1024))
    assert read_windows(file) == [FileWindow(40, 80, "LINEAR_EXACT")]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_what_tells_frames_apart(syntax: str) -> None:
    ds = enhanced()
    for k, own in enumerate(ds.PerFrameFunctionalGroupsSequence):
        content, kind, recon = Dataset(), Dataset(), Dataset()
        content.StackID, content.TemporalPositionIndex, content.FrameAcquisitionNumber = "7", 70_000 + k, 300 + k
        content.FrameAcquisitionDateTime = "20200102030405"
        kind.FrameType, recon.ConvolutionKernel = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"], "H60s"
        own.FrameContentSequence, own.CTImageFrameTypeSequence = Sequence([content]), Sequence([kind])
        own.CTReconstructionSequence = Sequence([recon])
    ds.ImageType, ds.AcquisitionNumber, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1, 5
    for k, header in enumerate(read_headers(encode(ds, syntax))):
        assert (header.stack_name, header.temporal_index, header.acquisition_number) == ("7", 70_000 + k, 300 + k)
        assert (header.image_type[2], header.kernel, header.instance_number) == ("LOCALIZER", "H60s", k + 1)
        assert header.acquired == "20200102030405"
    plain = read_headers(encode(enhanced(), syntax))[0]
    assert (plain.stack_name, plain.temporal_index, plain.acquisition_number, plain.image_type) == ("", None, None, ())


def test_undefined_lengths_in_functional_groups() -> None:
    ds = enhanced()
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        ds[name].is_undefined_length = True
        for item in ds[name].value:
            item.is_undefined_length_sequence_item = True
            for inner in item:
                inner.is_undefined_length = True
    assert read_headers(encode(ds)) == read_headers(encode(enhanced()))


def test_one_frame_of_many() -> None:
    file = encode(enhanced())
    (second,) = read_slices(file, frame=2)
    assert second.header.frame == 2
    assert np.array_equal(second.pixels_hu, read_slices(file)[1].pixels_hu)
    with pytest.raises(Unreadable, match="no frame 4"):
        read_slices(file, frame=4)
    assert len(read_slices(encode(ct()), frame=0)) == 1


def test_frames_must_be_described() -> None:
    ds = enhanced()
    ds.PerFrameFunctionalGroupsSequence = Sequence(list(ds.PerFrameFunctionalGroupsSequence)[:2])
    assert refused(ds) == "3 frames declared, 2 described"
    ds = enhanced()
    del ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    assert refused(ds) == "no ImagePositionPatient"


def test_truncated_frames_are_counted() -> None:
    with pytest.raises(Unreadable, match="truncated pixels: 144 bytes expected, 143 found"):
        read_slices(encode(enhanced())[:-1])


# ---- other people's files ------------------------------------------------------------------------------------------


def packaged() -> list[Path]:
    return sorted(path for path in PACKAGED.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", packaged(), ids=lambda path: str(path.relative_to(PACKAGED)))
def test_every_file_that_pydicom_ships_is_accounted_for(path: Path) -> None:
    """Slices equal to pydicom's own reading where it is a CT image, one line of reason where it is not."""
    file = path.read_bytes()
    try:
        slices = read_slices(file)
    except Unreadable as error:
        reason(error)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path)
        expected = np.maximum(ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept), -1024)
        assert ds.Modality == "CT"
    assert [s.header for s in slices] == read_headers(io.BytesIO(file))
    assert np.array_equal(slices[0].pixels_hu, expected)
    assert slices[0].header.slice_id == ds.SOPInstanceUID
    assert slices[0].header.position_xyz_mm == tuple(map(float, ds.ImagePositionPatient))


def test_the_ct_images_that_pydicom_ships_are_read() -> None:
    def readable(path: Path) -> bool:
        try:
            return bool(read_slices(path.read_bytes()))
        except Unreadable:
            return False

    names = [path.name for path in packaged() if readable(path)]
    assert {"CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"} <= set(names)
    assert len(names) == 14


@pytest.mark.parametrize("path", packaged(), ids=lambda path: str(path.relative_to(PACKAGED)))
def test_the_same_elements_are_found_as_by_pydicom(path: Path) -> None:
    try:
        elements = data_elements.parse(path.read_bytes())
    except Unreadable:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {tag for tag in map(int, pydicom.dcmread(path, force=True).keys()) if tag < 0x7FE00010}
    assert {tag for tag in elements.index if tag < 0x7FE00010} == theirs


@pytest.mark.parametrize("build", [ct, enhanced], ids=["plain", "enhanced"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_damage_anywhere_is_unreadable_or_harmless(build: Callable[[], Dataset], syntax: str) -> None:
    """Bytes flipped, cut out, cut off: slices or Unreadable, nothing else."""
    whole = encode(build(), syntax)
    chance = random.Random(0)
    outcomes: set[type] = set()
    for _ in range(1500):
        file = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            file[chance.randrange(132, len(file))] = chance.randrange(256)
        if chance.random() < 0.3:
            at = chance.randrange(132, len(file))
            del file[at : at + chance.choice([1, 8, len(file)])]
        for read in (read_slices, read_headers, read_windows):
            try:
                outcomes.add(type(read(bytes(file))))
            except Unreadable:
                outcomes.add(Unreadable)
    assert outcomes == {list, Unreadable}


# ---- the real series -----------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_the_real_series_is_read_without_a_warning_and_from_many_threads(head_ct_dir: Path) -> None:
    files = [path.read_bytes() for path in sorted((head_ct_dir / "rsna2019_series").glob("*.dcm"))]
    with ThreadPoolExecutor(8) as pool:
        slices = [one for (one,) in pool.map(read_slices, files * 3)]
    assert len({s.header.slice_id for s in slices}) == 36
    assert {(s.header.patient_id, s.header.study_id, s.header.series_id) for s in slices} == {
        ("ID_fff502d5", "ID_f10de2d018", "ID_e17326e0bd")
    }
    assert all(s.pixels_hu.dtype == np.int16 and s.pixels_hu.shape == (512, 512) for s in slices)
    assert all(s.repaired is None for s in slices)
    assert {tuple(read_windows(file)) for file in files} == {(FileWindow(40, 150, "LINEAR"),)}


@pytest.mark.real_data
def test_the_real_series_equals_pydicoms_reading(head_ct_dir: Path) -> None:
    for path in (head_ct_dir / "rsna2019_series").glob("*.dcm"):
        (image,) = read_slices(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path)
            expected = np.maximum(ds.pixel_array.astype(int) - 1024, -1024)
            assert image.header.slice_id == ds.SOPInstanceUID == path.stem
            assert image.header.position_xyz_mm == tuple(map(float, ds.ImagePositionPatient))
        assert np.array_equal(image.pixels_hu, expected)


@pytest.mark.real_data
def test_a_real_file_cut_like_the_challenges_broken_one(head_ct_dir: Path) -> None:
    """ID_6431af929 has 153,710 pixel bytes instead of 524,288."""
    file = next((head_ct_dir / "rsna2019_series").glob("*.dcm")).read_bytes()
    cut = file[: len(file) - 524_288 + 153_710]
    with pytest.raises(Unreadable, match=re.escape("truncated pixels: 524288 bytes expected, 153710 found")):
        read_slices(cut)
