"""Palettes and bits: what indices stand for, in every way in which their entries are written."""

import io
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from mmfm.errors import ReadError
from mmfm.imaging import Volume
from mmfm.io import parsing, read, read_studies, sources
from mmfm.io.elements import as_float

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, silenced by a filter that pytest resets

ENTRIES = np.random.default_rng(3).integers(0, 256, (3, 200)).astype(np.uint8)
ENTRIES[0, 0] = 255
INDICES = np.arange(240, dtype=np.int16).reshape(12, 20)
COLOURS = ("Red", "Green", "Blue")


@pytest.fixture
def write_palette(write_dicom):
    """Returns write(tables, bits, ...): a picture of INDICES with the entries of red, green and blue as they are."""

    def write(tables, *, bits: int, vr: str = "OW", first: int = 0, big: bool = False, indices=INDICES) -> Path:
        path = write_dicom("x.dcm", indices, BitsStored=16, PhotometricInterpretation="PALETTE COLOR")
        dataset = pydicom.dcmread(path)
        for colour, table in zip(COLOURS, tables, strict=True):
            dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [200, first, bits])
            if table is not None:
                dataset.add_new(f"{colour}PaletteColorLookupTableData", vr, table)
        if big:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=not big)
        return path

    return write


def colours(path: Path) -> np.ndarray:
    (study,) = read_studies(path)
    return Volume.from_series(study.series[0])[0].array[0]


WORDS = ENTRIES.astype("<u2")


@pytest.mark.parametrize(
    ("tables", "options"),
    [
        ([table.tobytes() for table in ENTRIES], {"bits": 8}),
        ([table.tobytes() for table in ENTRIES], {"bits": 16}),  # a byte each, whatever the descriptor says
        ([table.tobytes() for table in ENTRIES], {"bits": 8, "vr": "OB", "big": True}),
        ([table.view(">u2").astype("<u2").tobytes() for table in ENTRIES], {"bits": 8, "big": True}),
        ([table.tobytes() for table in WORDS], {"bits": 8}),
        ([(table * 257).tobytes() for table in WORDS], {"bits": 8}),
        ([(table * 257).tobytes() for table in WORDS], {"bits": 16}),
        ([(table * 257).tolist() for table in WORDS], {"bits": 16, "vr": "US"}),
        ([(table * 257).astype(">u2").tobytes() for table in WORDS], {"bits": 16, "big": True}),
    ],
)
def test_colours_of_a_palette(write_palette, tables, options):
    shown = colours(write_palette(tables, **options))
    np.testing.assert_allclose(shown, ENTRIES.T[np.minimum(INDICES, 199)] / 255, atol=1e-6)


def test_the_high_bytes_of_words_are_near_their_colours(write_palette):
    shown = colours(write_palette([(table << 8).tobytes() for table in WORDS], bits=8))
    np.testing.assert_allclose(shown, ENTRIES.T[np.minimum(INDICES, 199)] / 255, atol=1 / 255)


def test_the_first_index_of_signed_indices_has_a_sign(write_palette):
    path = write_palette([table.tobytes() for table in ENTRIES], bits=8, first=65536 - 100, indices=INDICES - 100)
    np.testing.assert_allclose(colours(path), ENTRIES.T[np.minimum(INDICES, 199)] / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ([bytes(200), None, bytes(200)], "a palette with PALETTE COLOR, found none that is complete"),
        ([bytes(200), bytes(400), bytes(200)], "a palette with PALETTE COLOR, found none that is complete"),
        ([bytes(200), bytes(10), bytes(200)], "found 10 of 200 entries in the palette"),
    ],
)
def test_a_palette_that_is_not_complete_is_refused(write_palette, tables, reason):
    (file,) = read(write_palette(tables, bits=8)).files
    assert file.status == "refused"
    assert reason in file.reason


@pytest.mark.parametrize("vr", ["OB", "OW"])
@pytest.mark.parametrize("big", [False, True])
def test_single_bits(write_dicom, vr, big):
    bits = np.random.default_rng(1).integers(0, 2, (16, 9)).astype(np.uint8)
    packed = np.packbits(bits, axis=None, bitorder="little")
    path = write_dicom("x.dcm", bits, BitsAllocated=1, BitsStored=1)
    dataset = pydicom.dcmread(path)
    if big and vr == "OW":
        packed = packed.view("<u2").astype(">u2")
    dataset.PixelData = packed.tobytes()
    dataset["PixelData"].VR = vr
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=not big)
    np.testing.assert_array_equal(read_studies(path)[0].series[0].instances[0].load()[0], bits)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "WindowWidth"])
def test_a_header_that_goes_on_behind_the_pixels_is_refused(write_dicom, picture, keyword):
    path = write_dicom("x.dcm", picture, **{keyword: 2})
    content = path.read_bytes()
    tag = pydicom.tag.Tag(keyword)
    start = content.index(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + b"DS")
    end = start + 8 + content[start + 6]
    path.write_bytes(content[:start] + content[end:] + content[start:end])
    (file,) = read(path).files
    words = "expected elements in ascending order, found some of the header behind the pixels"
    assert (file.status, file.reason) == ("refused", words)
    for harmless in (bytes(200), b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0\0\0\0\0", b"garbage!" * 3):
        path.write_bytes(content + harmless)
        assert read(path).files[0].status == "ok"


def test_deflated_data_sets_of_every_size(monkeypatch):
    """Where they end in a run, the inflater holds back what goes beyond a chunk."""
    monkeypatch.setattr(parsing, "CHUNK", 64)
    monkeypatch.setattr(sources, "CHUNK", 64)
    monkeypatch.setattr(parsing, "MAX_INFLATE_RATIO", 2000)
    syntax = DeflatedExplicitVRLittleEndian.encode()
    head = bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI" + len(syntax).to_bytes(2, "little") + syntax
    for size in range(3000, 3100):
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content, _ = parsing.inflated(io.BytesIO(head + deflater.compress(bytes(size)) + deflater.flush()))
        assert content.read().endswith(b"1.2.840.10008.1.2.1\0" + bytes(size))


def test_too_little_memory_is_one_line(write_dicom, picture, monkeypatch):
    (study,) = read_studies(write_dicom("x.dcm", picture))

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(parsing.PixelValue, "read", fail)
    with pytest.raises(ReadError, match="expected pixels that fit into the memory"):
        study.series[0].instances[0].load()


def test_float_pixels_of_another_width_are_refused(write_dicom, picture):
    path = write_dicom("x.dcm", picture)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.FloatPixelData = np.ones(picture.shape, "<f4").tobytes()
    dataset.save_as(path)
    (file,) = read(path).files
    assert (file.status, file.reason) == ("refused", "expected Bits Allocated of 32 with FloatPixelData, found 8")


@pytest.mark.parametrize("frames", [2, 3])
def test_more_frames_than_are_stated_are_refused(write_dicom, picture, frames):
    path = write_dicom("x.dcm", picture, PixelData=picture.tobytes() * frames)
    with pytest.raises(ReadError, match=f"{frames} frames for 1"):
        read_studies(path)[0].series[0].instances[0].load()


@pytest.mark.parametrize("value", ["1_0", "\u0661", "1e400", "0x10"])
def test_numbers_are_written_in_plain_digits(value):
    assert as_float(value) is None
