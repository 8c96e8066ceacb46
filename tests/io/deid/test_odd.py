"""Odd ways in which a file can hold a name: none of it is in the bytes that come out."""

import json
import struct
import zipfile

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    EncapsulatedCDAStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    ParametricMapStorage,
    RLELossless,
)

from mmfm.errors import ReadError
from mmfm.io import deidentify
from mmfm.io.deid.streams import bare_frame, bare_rle

NAME = "Featherstonehaugh"
WORD = NAME.encode()
LONG_VRS = ("OB", "OW", "SQ", "UN", "UR", "UT")
"""Whose length has four bytes."""


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "a.key"
    path.write_bytes(bytes(range(32)))
    return path


@pytest.fixture
def done(tmp_path, key):
    """Returns done(path, **options): what was written, where no name is left and a second pass changes nothing."""

    def run(path, **options):
        assert WORD in path.read_bytes(), "the name has to be there"
        deidentify(path, tmp_path / "out", key=key, **options)
        (written,) = (tmp_path / "out").rglob("*.dcm")
        assert WORD.lower() not in written.read_bytes().lower()
        assert WORD not in (tmp_path / "out" / "deid_report.json").read_bytes()
        deidentify(tmp_path / "out", tmp_path / "again", key=key, **options)
        (again,) = (tmp_path / "again").rglob("*.dcm")
        assert again.read_bytes() == written.read_bytes()
        return pydicom.dcmread(written)

    return run


def explicit(tag, vr, value):
    """The bytes of an element in explicit little endian."""
    group, number = tag >> 16, tag & 0xFFFF
    if vr in LONG_VRS:
        return struct.pack("<HH2s2xI", group, number, vr.encode(), len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def implicit(tag, value):
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def item(content):
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def inserted(path, content, before=0x00080005):
    """Puts ``content`` before the first element of the data set that is not below the tag ``before``."""
    data = path.read_bytes()
    start = 132 + 12 + struct.unpack("<I", data[140:144])[0]
    at = start
    while at < len(data):
        group, number, vr, short = struct.unpack("<HH2sH", data[at : at + 8])
        if group << 16 | number >= before:
            break
        long = vr.decode() in LONG_VRS
        at += 12 + struct.unpack("<I", data[at + 8 : at + 12])[0] if long else 8 + short
    path.write_bytes(data[:at] + content + data[at:])
    return path


ODD = {
    "a sequence as UN": explicit(0x00081140, "UN", item(implicit(0x00100010, WORD + b" "))),
    "a sequence outside the table as UN": explicit(0x00082218, "UN", item(implicit(0x00100010, WORD + b" "))),
    "private UN with implicit content": explicit(0x00091001, "UN", item(implicit(0x00100010, WORD + b" "))),
    "a private creator": explicit(0x00090010, "LO", WORD + b" "),
    "a UID that is a name": explicit(0x00081150, "UI", WORD + b"\0"),
    "a number that is a name": explicit(0x00180060, "DS", WORD + b" "),
    "an age that is a name": explicit(0x00101010, "AS", WORD + b" "),
    "a date that is a name": explicit(0x00080020, "DA", WORD + b" "),
    "a date outside the table": explicit(0x00189073, "DT", WORD + b" "),
    "a name outside the table": explicit(0x00142006, "PN", WORD + b" "),
    "a UID of the table that is a name": explicit(0x00083010, "UI", WORD + b"\0"),
    "a number written as bytes": explicit(0x00180060, "OB", WORD + b" "),
    "a name outside the table written as text": explicit(0x00142006, "LO", WORD + b" "),
    "a date and time outside the table written as bytes": explicit(0x00189073, "OB", WORD + b" "),
    "a date of the table written as text": explicit(0x00080022, "LO", WORD + b" "),
    "a weight written as bytes": explicit(0x00101030, "OB", WORD + b" "),
    "text outside the table": explicit(0x00400400, "LT", b"Seen with " + WORD + b" "),
    "text outside the table written as bytes": explicit(0x00400400, "OB", WORD + b" "),
    "text outside the table written as shorter text": explicit(0x00400400, "LO", b"Seen with " + WORD + b" "),
    "text outside the table without a VR": explicit(0x00400400, "UN", b"Seen with " + WORD + b" "),
    "an address on the web": explicit(0x00081190, "UR", b"https://" + WORD + b".example/1.2.3"),
    "an address on the web written as text": explicit(0x00081190, "LO", b"https://" + WORD + b"/ "),
    "a date of birth in another calendar": explicit(0x00100033, "LO", WORD + b" "),
    "encrypted attributes": explicit(0x04000500, "SQ", item(explicit(0x04000520, "OB", WORD + b" "))),
    "coefficients of pixels": explicit(0x7FE00020, "OW", WORD + b" "),
    "a safe private number written as bytes": explicit(0x00190010, "LO", b"SIEMENS MR HEADER ")
    + explicit(0x0019100C, "OB", WORD + b" "),
    "a VR that is none": explicit(0x00180015, "ZZ", WORD + b" "),
    "an attribute that nobody knows": explicit(0x00080FFE, "LO", WORD + b" "),
    "a character set that is none": explicit(0x00080005, "CS", WORD + b" "),
    "a command": explicit(0x00001000, "UI", WORD + b"\0"),
    "file meta information in the data set": explicit(0x00020016, "AE", WORD + b" "),
    "a directory's reference": explicit(0x00041511, "UI", WORD + b"\0"),
    "a group length": explicit(0x00080000, "LO", WORD + b" "),
    "an overlay's label": explicit(0x60020022, "LO", WORD + b" "),
    "a curve's label": explicit(0x50040022, "LO", WORD + b" "),
    "trailing padding": explicit(0xFFFCFFFC, "OB", WORD + b" "),
    "text beside a reference": explicit(0x00081140, "SQ", item(explicit(0x00080104, "LO", WORD + b" "))),
    "pixels in a sequence": explicit(0x00082218, "SQ", item(explicit(0x7FE00010, "OB", WORD + b" "))),
    "a patient three sequences deep": explicit(
        0x00401012, "SQ", item(explicit(0x00081140, "SQ", item(explicit(0x00100020, "LO", WORD + b" "))))
    ),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize(
    "options",
    [{}, {"retain": ["longitudinal-full-dates", "patient-characteristics", "safe-private", "device-identity", "uids"]}],
)
def test_a_name_in_an_odd_element(write_dicom, picture, done, content, options):
    tag = struct.unpack("<HH", content[:4])
    path = inserted(write_dicom("in/a.dcm", picture), content, before=tag[0] << 16 | tag[1])
    assert np.array_equal(done(path, **options).pixel_array, picture)


def test_bytes_behind_the_data_set(write_dicom, picture, done):
    path = write_dicom("in/a.dcm", picture)
    path.write_bytes(path.read_bytes() + explicit(0xFFFCFFFC, "OB", WORD + b" ") + WORD * 3)
    done(path)


def test_an_image_that_was_sent_without_pixels(write_dicom, picture, done, tmp_path):
    path = write_dicom("in/a.dcm", picture, PatientName=NAME)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.ExtendedOffsetTable = WORD + b"\0" * 7
    dataset.save_as(path)
    assert done(path).PatientName == ""
    report = json.loads((tmp_path / "out" / "deid_report.json").read_text())
    assert (report["written"], report["without_pixels"], report["pixels_not_searched"]) == (1, 1, {})


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian])
def test_names_of_an_item_in_another_character_set(write_dicom, picture, tmp_path, key, syntax):
    path = write_dicom("in/a.dcm", picture, PatientName="Yamada^Tarou=山田^太郎", SpecificCharacterSet="ISO_IR 192")
    dataset = pydicom.dcmread(path)
    japanese = Dataset()
    japanese.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    japanese.ContextIdentifier, japanese.CodeMeaning = "1", "患者山田太郎 CHEST"
    dataset.AnatomicRegionSequence = Sequence([japanese])
    dataset.ManufacturerModelName = "山田"
    plain = Dataset()  # what was read in one byte order is not written in another
    plain.update(dataset)
    plain.file_meta = dataset.file_meta
    plain.file_meta.TransferSyntaxUID = syntax
    plain.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    deidentify(path, tmp_path / "out", key=key)
    (written,) = (tmp_path / "out").rglob("*.dcm")
    found = pydicom.dcmread(written)
    assert "CHEST" in found.AnatomicRegionSequence[0].CodeMeaning
    for encoding in ("utf-8", "iso2022_jp", "euc_jp", "shift_jis"):
        for name in ("山田", "太郎"):
            assert name.encode(encoding) not in written.read_bytes()
    assert "山" not in found.AnatomicRegionSequence[0].CodeMeaning + found.ManufacturerModelName


def test_an_encapsulated_document_of_another_kind(write_dicom, picture, done):
    path = write_dicom("in/a.dcm", picture)
    dataset = pydicom.dcmread(path)
    for keyword in ("PixelData", "Rows", "Columns"):
        del dataset[keyword]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EncapsulatedCDAStorage
    dataset.EncapsulatedDocument, dataset.MIMETypeOfEncapsulatedDocument = WORD + b" ", "text/XML"
    dataset.DocumentTitle, dataset.EncapsulatedDocumentLength = f"Letter about {NAME}", len(NAME)
    dataset.save_as(path)
    assert "EncapsulatedDocumentLength" not in done(path)


def test_members_of_a_zip_are_not_named(write_dicom, picture, tmp_path, key, capfd):
    path = write_dicom("a.dcm", picture)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(path, f"{NAME}/{NAME}.dcm")
        archive.writestr(f"{NAME}.txt", NAME)
        archive.writestr(f"../{NAME}.dcm", path.read_bytes())
    deidentify(tmp_path / "in.zip", tmp_path / "out", key=key)
    whole = b"".join(str(p).encode() + p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert WORD not in whole
    assert NAME not in "".join(capfd.readouterr())


# --- pixel elements ------------------------------------------------------------------------------------------------


def segment(marker, content):
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


def with_frame(path, change, syntax=None, table=b""):
    dataset = pydicom.dcmread(path)
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    packed = encapsulate([change(frame)], has_bot=False)
    dataset.PixelData = item(table) + packed[8:]
    dataset.save_as(path)
    return path


def in_tile_header(frame, marker=0x64):
    """A comment in the header of the first tile, whose length is stated."""
    at = frame.index(b"\xff\x90")
    comment = segment(marker, b"\0\1" + WORD)
    length = int.from_bytes(frame[at + 6 : at + 10])
    length = (length + len(comment) if length else 0).to_bytes(4)
    return frame[: at + 6] + length + frame[at + 10 : at + 12] + comment + frame[at + 12 :]


def boxed(frame):
    box = lambda kind, content: (len(content) + 8).to_bytes(4) + kind + content  # noqa: E731
    return b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"xml ", WORD) + box(b"jp2c", frame)


JPEG_2000 = {
    "a comment": lambda frame: (
        frame[:2]
        + frame[2 : frame.index(b"\xff\x52")]
        + segment(0x64, b"\0\1" + WORD)
        + frame[frame.index(b"\xff\x52") :]
    ),
    "a comment in a tile": in_tile_header,
    "lengths of packets": lambda frame: in_tile_header(frame, 0x58),
    "behind the end": lambda frame: frame + WORD,
    "boxes of a file": boxed,
}


@pytest.mark.parametrize("change", JPEG_2000.values(), ids=JPEG_2000.keys())
def test_a_name_in_a_jpeg_2000_stream(write_dicom, picture, done, change):
    picture = np.kron(picture, np.ones((4, 4), np.uint8))
    path = with_frame(write_dicom("in/a.dcm", picture), change, JPEG2000Lossless)
    assert np.array_equal(done(path).pixel_array, picture)


JPEG = {
    "a comment": lambda frame: frame[:2] + segment(0xFE, WORD) + frame[2:],
    "a number of lines that is none": lambda frame: frame[:2] + segment(0xDC, WORD) + frame[2:],
    "a hierarchy": lambda frame: frame[:2] + segment(0xDE, WORD) + frame[2:],
    "a marker of no use": lambda frame: frame[:2] + segment(0xC8, WORD) + frame[2:],
    "metadata of a camera": lambda frame: frame[:2] + segment(0xE1, b"Exif\0\0" + WORD) + frame[2:],
    "a comment before a scan": lambda frame: (
        frame[: frame.index(b"\xff\xda")] + segment(0xFE, WORD) + frame[frame.index(b"\xff\xda") :]
    ),
    "a thumbnail": lambda frame: frame[:2] + segment(0xE0, b"JFXX\0\x10" + WORD) + frame[2:],
    "between segments": lambda frame: frame[:2] + segment(0xFE, b"") + WORD + frame[2:],
    "behind the end": lambda frame: frame.rstrip(b"\0") + WORD + b"\xff\xd9" + WORD,
}


@pytest.mark.parametrize("change", JPEG.values(), ids=JPEG.keys())
def test_a_name_in_a_jpeg_stream(write_dicom, picture, done, change):
    import io

    from PIL import Image

    picture, stream = np.kron(picture, np.ones((4, 4), np.uint8)), io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", progressive=True)
    path = write_dicom("in/a.dcm", picture)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].VR, dataset.file_meta.TransferSyntaxUID = "OB", JPEGBaseline8Bit
    dataset.save_as(path)
    expected = pydicom.dcmread(path).pixel_array
    assert np.array_equal(done(with_frame(path, change)).pixel_array, expected)


def test_a_name_in_an_rle_frame(write_dicom, done):
    picture = np.random.default_rng(3).integers(0, 3, (16, 17, 3), dtype=np.uint8)
    path = with_frame(
        write_dicom("in/a.dcm", picture), lambda frame: frame[:44] + WORD[:16] + frame[60:] + WORD, RLELossless
    )
    found = done(path)
    assert np.array_equal(found.pixel_array, picture)
    assert WORD[:16] not in found.PixelData


@pytest.mark.parametrize("run", [bytes([len(WORD) + 1]) + b"\1\2" + WORD, b"\0\1\x80\xf0\2"])
def test_an_rle_frame_ends_with_its_last_pixel(run):
    frame = bare_rle(struct.pack("<16I", 1, 64, *[0] * 14) + run, pixels=2)
    assert frame[64:] in (b"\1\1\2\0", b"\0\1\0\2")


@pytest.mark.parametrize(
    "frame", [b"", bytes(64), b"\x01" + bytes(63), struct.pack("<16I", 1, 999, *[0] * 14) + bytes(9)]
)
@pytest.mark.parametrize("head", [b"", b"\xff\xd8\xff\xda", b"\xff\x4f\xff\x90", b"\0\0\0\x0cjP  \r\n\x87\n"])
def test_a_damaged_frame_is_refused(frame, head):
    with pytest.raises(ReadError, match="compressed frames that are whole"):
        bare_frame(head + frame) if head else bare_rle(frame, 480)


def test_a_name_in_the_offset_table(write_dicom, picture, done):
    path = with_frame(
        write_dicom("in/a.dcm", picture), lambda frame: frame, RLELossless, table=bytes(4) + WORD + b"\0" * 3
    )
    assert np.array_equal(done(path).pixel_array, picture)


def test_bytes_behind_pixels_of_fractions_and_of_halved_colours(write_dicom, picture, done, tmp_path, key):
    halved = np.repeat(picture, 2, axis=0).tobytes()
    path = write_dicom("in/a.dcm", np.zeros((24, 20, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = halved + WORD + b"\0"
    dataset.save_as(path)
    assert done(path).PixelData == halved


def test_pixels_beside_pixels(write_dicom, picture, done):
    path = write_dicom("in/a.dcm", picture)
    dataset = pydicom.dcmread(path)
    dataset.DoubleFloatPixelData = bytes(8 * picture.size) + WORD + b"\0\0\0\0\0\0\0"
    dataset.save_as(path)
    with pytest.raises(ReadError, match="expected Bits Allocated of 64 with DoubleFloatPixelData"):
        done(path)


def test_bytes_behind_pixels_that_are_real_numbers(write_dicom, picture, done):
    path = write_dicom("in/a.dcm", picture, SOPClassUID=ParametricMapStorage)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.BitsAllocated = 32
    values = picture.astype("<f4").tobytes()
    dataset.FloatPixelData = values + WORD + b"\0\0\0"
    dataset.save_as(path)
    assert done(path).FloatPixelData == values
