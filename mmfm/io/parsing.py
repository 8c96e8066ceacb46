"""The bytes of a DICOM file: the elements that are used, and where its pixels stand.

The header alone is parsed, never the pixels; sizes are checked before anything is inflated or allocated.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    UncompressedTransferSyntaxes,
)

from mmfm.errors import ReadError
from mmfm.io.elements import as_texts, get_uid, get_value, refusal, tag_of
from mmfm.io.nesting import check_nesting
from mmfm.io.scan import PIXEL_TAGS, scan
from mmfm.io.sources import CHUNK, Source, inflate

MAX_INFLATED = 1 << 30
"""Bytes that a deflated dataset may inflate to."""
MAX_INFLATE_RATIO = 200
_SHORT = 1 << 15
_PIXEL_VRS = {None, "OB", "OW", "OF", "OD", "OL", "OV", "UN"}
"""All with a length of 32 bits; ``None`` where VRs are not written."""
_HARMLESS = (b"\0\0\0\0", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Starts of a preamble: nothing, TIFF and BigTIFF (PS3.10 7.1)."""
_NAMES = re.compile(rb"(?!MZ)[0-9A-Z_]{12,}\0[0-9A-Z_\0-]*")
"""MZ: a program can be written in capitals."""
_PALETTE_KEYWORDS = [
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
PASSES = (
    "AcquisitionNumber",
    "EchoTime",
    "InversionTime",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "FrameReferenceTime",
    "TriggerTime",
    "ConvolutionKernel",
    "AcquisitionTime",
)
ACQUISITION = (
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "DiffusionBValue",
    "ScanningSequence",
    "SequenceVariant",
    "ComplexImageComponent",
    "ProtocolName",
    "SeriesNumber",
    "ContrastBolusAgentSequence",
    "EchoPulseSequence",
    "InversionRecovery",
)
"""What tells the series of a study apart; the last three of enhanced objects."""
_HEADER_KEYWORDS = [
    "TransferSyntaxUID",
    "MediaStorageSOPClassUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "PresentationIntentType",
    "StudyDate",
    "StudyDescription",
    "SeriesDescription",
    "InstanceNumber",
    "PatientID",
    "PatientSex",
    "PatientAge",
    "PatientBirthDate",
    "BodyPartExamined",
    "ViewPosition",
    "ViewCodeSequence",
    "ImageLaterality",
    "Laterality",
    "PatientOrientation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    *PASSES,
    *ACQUISITION,
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "VOILUTSequence",
    "PresentationLUTShape",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "FrameIncrementPointer",
    "SliceVector",
    "RRIntervalVector",
    "TimeSlotVector",
    "DetectorInformationSequence",
    "SpacingBetweenSlices",
    "GridFrameOffsetVector",
]
OVERLAYS = frozenset(Tag(group, 0x0010) for group in range(0x6000, 0x6020, 2))
"""Overlay Rows, which every overlay plane has, its bits in an element of its own or among those of the pixels."""
_TAGS = {int(tag): tag for tag in [*map(tag_of, _HEADER_KEYWORDS + _PALETTE_KEYWORDS), *OVERLAYS]}


def is_dicom(stream: BinaryIO) -> bool:
    """Returns whether ``stream`` starts as DICOM: with the DICM prefix, or bare with a group 0002 or 0008 element."""
    stream.seek(0)
    head = stream.read(132)
    stream.seek(0)
    if head[128:132] == b"DICM":
        return True
    # Bare data sets (no preamble) start with group 2 or 8 in either byte order, and an element that is a small number.
    return len(head) >= 8 and head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08", b"\x00\x02") and 0 in head[2:4]


def preamble_note(stream: BinaryIO) -> str | None:
    """Returns a warning where the 128-byte preamble is neither empty nor TIFF: what else is there may be run or opened.

    What starts with four zeros, or is a name or more in capitals and digits, is as good as empty: devices write both.
    """
    stream.seek(0)
    head = stream.read(132)
    stream.seek(0)
    if head.startswith(_HARMLESS) or head[128:] != b"DICM" or _NAMES.fullmatch(head, 0, 128):
        return None
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()  # as who opens it may do
    kinds = {
        b"MZ": "a Windows program",
        b"\x7fELF": "a Linux program",
        b"\xcf\xfa\xed\xfe": "a macOS program",
        b"\xce\xfa\xed\xfe": "a macOS program",
        b"\xca\xfe\xba\xbe": "a macOS program",
        b"\xfe\xed\xfa": "a macOS program",
        b"#!": "a script",
        b"<": "a web page",
        b"PK": "a zip",
        b"%PDF": "a PDF",
    }
    kind = next((kind for magic, kind in kinds.items() if start.startswith(magic)), "another kind of file")
    return f"the preamble looks like {kind}: do not pass this file on as it is"


@dataclass(frozen=True)
class PixelValue:
    """Where the value of Pixel Data stands in a file, after inflating."""

    keyword: str
    vr: str
    offset: int
    length: int | None
    """``None`` where it ends with a Sequence Delimitation Item."""
    deflated: bool

    def read(self, source: Source) -> bytes:
        """Returns it, or all from its start to the end of the file where its length is not stated."""
        with source.open() as stream:
            if self.deflated:
                stream, _ = inflated(stream)
            stream.seek(self.offset)
            return stream.read() if self.length is None else stream.read(self.length)

    def read_parts(self, source: Source, starts: Sequence[int], size: int) -> bytes:
        """Returns ``size`` bytes from each of ``starts`` of a value that is not deflated, joined."""
        with source.open() as stream:
            parts = []
            for start in starts:
                stream.seek(self.offset + start)
                parts.append(stream.read(size))
        return b"".join(parts)


def parse_header(stream: BinaryIO) -> tuple[Dataset, str, PixelValue | None]:
    """Returns the header, its transfer syntax, and the pixels that follow it. Checks that all of them are there."""
    found: list[tuple[int, str | None, int]] = []

    def at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        if int(tag) not in PIXEL_TAGS:
            return False
        found.append((int(tag), vr, length))
        return True

    def parse(stream: BinaryIO) -> tuple[Dataset, int]:
        stream.seek(0)
        return read_partial(stream, stop_when=at_pixels, force=True, specific_tags=list(_TAGS.values())), stream.tell()

    stream.seek(0)
    start = stream.read(_SHORT)  # of most files it holds the header, and memory is quicker than a file
    try:
        if quick := scan(start, _TAGS):
            dataset, at, element = quick
            found.append(element)
        else:
            dataset, at = parse(io.BytesIO(start))
        check_nesting(io.BytesIO(start[:at]))
        syntax = get_uid(dataset.file_meta, "TransferSyntaxUID")
    except Exception:  # a longer one ends anywhere, and what is wrong with a short one is found again below
        found.clear()
    deflated = bool(found) and syntax == DeflatedExplicitVRLittleEndian
    if deflated or not found:  # pydicom would inflate the whole of it without a limit
        found.clear()
        stream, syntax = inflated(stream)
        deflated = syntax == DeflatedExplicitVRLittleEndian
        check_nesting(stream)
        dataset, at = parse(stream)
    syntax = syntax or guessed_syntax(dataset)
    if not found or found[-1][2] == 0:
        return dataset, syntax, None
    tag, vr, length = found[-1]
    if vr not in _PIXEL_VRS:
        raise refusal("Pixel Data with a VR of its own", str(vr))
    offset = at + (12 if vr else 8)
    left = stream.seek(0, io.SEEK_END) - offset
    if length == 0xFFFFFFFF:
        if UID(syntax) in UncompressedTransferSyntaxes:
            raise refusal(f"pixels as {UID(syntax).name} has them", "compressed frames")
        return dataset, syntax, PixelValue(PIXEL_TAGS[tag], vr or "OB", offset, None, deflated)
    if length > left:
        raise ReadError(
            "", expected=f"{length} bytes of pixels", found=f"{left} (cut short)", fix="copy the file again"
        )
    if length + 8 <= left:  # most files end here
        stream.seek(offset + length)
        order = "<HH" if dataset.original_encoding[1] else ">HH"
        group, element = struct.unpack(order, stream.read(4))
        if group << 16 | element in _TAGS:
            raise refusal("elements in ascending order", "some of the header behind the pixels")
    return dataset, syntax, PixelValue(PIXEL_TAGS[tag], vr or "OW", offset, length, deflated)


def directory(stream: BinaryIO) -> tuple[tuple[str, ...], ...]:
    """Returns the files that a DICOMDIR lists, as the parts of their paths below it (PS3.3 F.3.2.2)."""
    try:
        content, _ = inflated(stream)
        dataset = read_partial(content, force=True, specific_tags=[Tag("DirectoryRecordSequence")])
        records = get_value(dataset, "DirectoryRecordSequence") or ()
        return tuple(
            parts for parts in (tuple(as_texts(get_value(one, "ReferencedFileID"))) for one in records) if parts
        )
    except Exception:  # a parser over untrusted bytes; the other files of the folder can still be read one by one
        return ()


def inflated(stream: BinaryIO) -> tuple[BinaryIO, str | None]:
    """Returns a stream that is not deflated, and the transfer syntax that the file states."""
    stream.seek(0)
    if stream.read(132)[128:] != b"DICM":
        stream.seek(0)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: int(tag) >> 16 != 2)
    syntax = get_uid(meta, "TransferSyntaxUID")
    if syntax != DeflatedExplicitVRLittleEndian:
        stream.seek(0)
        return stream, syntax
    content = io.BytesIO()
    content.write(bytes(128) + b"DICM\x02\x00\x10\x00UI\x14\x00" + ExplicitVRLittleEndian.encode() + b"\0")
    try:
        for part in inflate(iter(lambda: stream.read(CHUNK), b"")):
            content.write(part)
            if content.tell() > min(MAX_INFLATED, max(CHUNK, MAX_INFLATE_RATIO * stream.tell())):
                raise ReadError(
                    "",
                    expected=f"a deflated data set of at most {MAX_INFLATE_RATIO}:1 and {MAX_INFLATED >> 30} GB",
                    found="more",
                    fix="inflate the file yourself if you trust it",
                )
    except EOFError:
        found = "one cut short"
        raise ReadError("", expected="a complete deflated data set", found=found, fix="copy the file again") from None
    content.seek(0)
    return content, syntax


def guessed_syntax(dataset: Dataset) -> str:
    """Returns the uncompressed transfer syntax in which ``dataset`` was read."""
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
