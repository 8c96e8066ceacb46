"""mmfm.io.scan: what it finds is what pydicom's own parser finds, or it leaves the file to that."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_files
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mmfm.errors import ReadError
from mmfm.io import parsing
from mmfm.io.dicom import read_header
from mmfm.io.scan import scan
from mmfm.io.sources import Source

FILES = [Path(name) for name in sorted(get_testdata_files("*.dcm")) if Path(name).stat().st_size < 1 << 20]


def header_of(content: bytes):
    """Returns all that is read of a header, or why nothing is."""
    try:
        header = read_header(Source(name="x", path=Path("x")), io.BytesIO(content))
    except ReadError as error:
        return str(error)
    return replace(header, instance=replace(header.instance, load=None) if header.instance else None)


def by_both(content: bytes, monkeypatch):
    quick = header_of(content)
    with monkeypatch.context() as patch:
        patch.setattr(parsing, "scan", lambda content, tags: None)
        return quick, header_of(content)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_header_is_the_one_that_pydicom_parses(file, monkeypatch):
    content = file.read_bytes()
    quick, parsed = by_both(content, monkeypatch)
    assert quick == parsed


def test_damaged_headers_are_read_alike(monkeypatch):
    generator = np.random.default_rng(0)
    for file in FILES[::4]:
        content = np.frombuffer(file.read_bytes(), np.uint8)
        for _ in range(8):
            damaged = content.copy()
            places = generator.integers(168, min(len(damaged), 3000), generator.integers(1, 4))  # behind the syntax
            damaged[places] = generator.choice([0, 32, 92, 255, *generator.integers(0, 256, 4)], len(places))
            quick, parsed = by_both(damaged.tobytes(), monkeypatch)
            assert quick == parsed, (file.name, places.tolist())


@pytest.mark.parametrize(
    ("syntax", "found"), [(ExplicitVRLittleEndian, True), (ImplicitVRLittleEndian, True), (ExplicitVRBigEndian, False)]
)
def test_what_is_scanned_and_what_is_left_to_pydicom(write_dicom, syntax, found):
    path = write_dicom(
        "x.dcm", np.zeros((4, 4), np.uint16), PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100"
    )
    dataset = pydicom.dcmread(path)
    dataset.StudyDescription = "Schädel"
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(
        path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian
    )
    tags = {int(tag): tag for tag in map(pydicom.tag.Tag, ("TransferSyntaxUID", "StudyDescription", "Rows"))}
    outcome = scan(path.read_bytes(), tags)
    assert (outcome is not None) == found
    if outcome:
        elements, at, (tag, vr, length) = outcome
        assert {int(tag) for tag in elements.keys()} == {0x00081030, 0x00280010}  # noqa: SIM118
        assert elements.StudyDescription == "Schädel" and elements.Rows == 4
        assert (tag, vr, length) == (0x7FE00010, None if syntax == ImplicitVRLittleEndian else "OW", 32)
        assert path.read_bytes()[at : at + 4] == b"\xe0\x7f\x10\x00"


def test_a_sequence_of_undefined_length_is_left_to_pydicom(write_dicom):
    path = write_dicom("x.dcm", np.zeros((4, 4), np.uint16))
    dataset = pydicom.dcmread(path)
    dataset.ReferencedImageSequence = [pydicom.Dataset()]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.save_as(path)
    assert scan(path.read_bytes(), {}) is None
