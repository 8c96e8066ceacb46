"""DICOM: headers first, pixels late, through pydicom and its maintained decoders.

``read_header`` parses only the tags that are used, stops before the pixels and never keeps a name; ``Instance.load``
opens the file again where they stand. The file is untrusted: sizes are checked before anything is allocated, and
whatever goes wrong inside the parser becomes one ReadError.
"""

from __future__ import annotations

import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Any, BinaryIO

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    UncompressedTransferSyntaxes,
)

from mmfm.errors import ReadError
from mmfm.io.frames import Coding, Decode, can_decode, read_palette, select, with_palette
from mmfm.io.frames import decode as decode_here
from mmfm.io.images import MAX_PIXEL_BYTES, content_digest, content_uid
from mmfm.io.nesting import check_nesting, too_deep
from mmfm.io.scan import PIXEL_TAGS, scan
from mmfm.io.sources import Source
from mmfm.study import (
    POSITION_TOLERANCE_MM,
    Frame,
    Geometry,
    Instance,
    Laterality,
    LookupTable,
    Patient,
    PixelHeader,
    Sex,
    ViewPosition,
)

# Odd values are judged here and told in words; pydicom's own warnings would print parts of the header.
warnings.filterwarnings("ignore", module=r"pydicom\.")

MAX_INFLATED = 1 << 30
"""Bytes that a deflated dataset may inflate to."""
MAX_INFLATE_RATIO = 200
_CHUNK = 1 << 20
_SHORT = 1 << 15
_MAX_RESCALE = 1e19
"""Largest rescale slope or intercept: with 64 bits allocated, what comes out is still a number in float32."""
_MAX_MM = 1e9
"""Larger numbers are no place in a patient, and their differences might overflow."""

_PHOTOMETRIC = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
"""Photometric Interpretation (0028,0004) -> Samples per Pixel."""

_VIEWS = {view.value.upper(): view for view in ViewPosition} | {"LAT": ViewPosition.LATERAL}
_VIEW_CODES = {  # CID 4010 "DX View", SNOMED CT and its retired SNOMED-RT codes
    "399348003": ViewPosition.AP,
    "R-10206": ViewPosition.AP,
    "272479007": ViewPosition.PA,
    "R-10214": ViewPosition.PA,
    "399173006": ViewPosition.LL,
    "R-10236": ViewPosition.LL,
    "399198007": ViewPosition.RL,
    "R-10232": ViewPosition.RL,
    "399033003": ViewPosition.FRONTAL,
    "399067008": ViewPosition.LATERAL,
}

_KINDS = (
    ("stack", "FrameContentSequence", "StackID"),
    ("temporal position", "FrameContentSequence", "TemporalPositionIndex"),
    ("temporal position", "UnassignedPerFrameConvertedAttributesSequence", "TemporalPositionIdentifier"),
    ("echo time (ms)", "MREchoSequence", "EffectiveEchoTime"),
    ("echo time (ms)", "UnassignedPerFrameConvertedAttributesSequence", "EchoTime"),
    ("b-value (s/mm2)", "MRDiffusionSequence", "DiffusionBValue"),
    ("b-value (s/mm2)", "UnassignedPerFrameConvertedAttributesSequence", "DiffusionBValue"),
    ("complex component", "MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("frame type", "CTImageFrameTypeSequence", "FrameType"),
    ("frame type", "MRImageFrameTypeSequence", "FrameType"),
    ("frame type", "PETFrameTypeSequence", "FrameType"),
    ("segment", "SegmentIdentificationSequence", "ReferencedSegmentNumber"),
)
"""What the slices of one volume share, and the functional group that states it ("Unassigned": Legacy Converted).

Positions tell apart what repeats a volume in the same place, such as directions of diffusion or cardiac phases.
"""


_MEASURES = (
    ("PlanePositionSequence", "ImagePositionPatient", 3),
    ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
    ("PixelMeasuresSequence", "PixelSpacing", 2),
    ("PixelMeasuresSequence", "ImagerPixelSpacing", 2),
    ("FrameVOILUTSequence", "WindowCenter", None),
    ("FrameVOILUTSequence", "WindowWidth", None),
)
"""What a reader must know not to have been read: functional group, element, and how many numbers it holds."""


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


@cache
def _vr(tag: BaseTag) -> str:
    return dictionary_VR(tag)


_PLAIN_VRS = {"AS", "CS", "DA", "DS", "IS", "UI"}
"""Texts in the default repertoire, whatever Specific Character Set says (PS3.5 6.1.2.3)."""
_UNSTATED_VRS = {None, "UN"}
_PIXEL_VRS = {None, "OB", "OW", "OF", "OD", "OL", "OV", "UN"}
"""All with a length of 32 bits; ``None`` where VRs are not written."""
_PALETTE_KEYWORDS = [
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
_PASSES = (
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
_HARMLESS = (b"\0\0\0\0", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Starts of a preamble: nothing, TIFF and BigTIFF (PS3.10 7.1)."""
_NAMES = re.compile(rb"[0-9A-Z_]{12,}\0[0-9A-Z_\0-]*")
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
    *_PASSES,
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


_OVERLAYS = frozenset(Tag(group, 0x0010) for group in range(0x6000, 0x6020, 2))
"""Overlay Rows, which every overlay plane has, its bits in an element of its own or among those of the pixels."""
_TAGS = {int(tag): tag for tag in [*map(_tag, _HEADER_KEYWORDS + _PALETTE_KEYWORDS), *_OVERLAYS]}


@dataclass(frozen=True, kw_only=True)
class DicomHeader:
    """What one DICOM file says, as far as it is used. No name, no birth date."""

    sop_class: str | None
    """Name of the SOP class, its UID where the name is not known."""
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str | None
    modality: str | None
    transfer_syntax: str
    patient: Patient
    view: ViewPosition | None
    laterality: Laterality | None
    body_part: str | None
    study_description: str | None
    series_description: str | None
    photometric: str | None
    rows: int | None
    columns: int | None
    frames: int | None
    passes: tuple[float | str | None, ...]
    """Values of ``_PASSES``: what can tell slices of one position apart."""
    frame_passes: tuple[tuple[float, ...], ...]
    """Dimension Index Values (0020,9157) of each frame, which can do the same; empty where they are not stated."""
    concatenation: tuple[str, int | None, int | None] | None
    """Concatenation UID (0020,9161), number in it, and how many there are, of one part of a multi-frame object."""
    instance: Instance | None
    """``None`` where the object holds no image, or one that is refused."""
    refused: str | None
    """Why the image is refused, in words without an identifier."""


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


def read_header(source: Source, stream: BinaryIO, decode: Decode = decode_here) -> DicomHeader:
    """Parses the header in ``stream``.

    Args:
        source: opens the file again for its pixels.
        stream: the file.
        decode: decodes the pixels when they are loaded.

    Raises:
        ReadError: it cannot be parsed at all, or is neither an image nor any other known DICOM object.
    """
    try:
        dataset, syntax, pixels = _parse_header(stream)
    except ReadError:
        raise
    except RecursionError:  # by items that do not start as items do
        raise too_deep() from None
    except Exception as error:  # a parser over untrusted bytes: whatever it raises is the file's fault
        raise _bad(source, f"damage ({type(error).__name__})") from None
    sop_class = _uid(dataset, "SOPClassUID") or _uid(dataset.file_meta, "MediaStorageSOPClassUID")
    name = UID(sop_class).name if sop_class else None
    known = name is not None and (name != sop_class or (UID(sop_class).is_valid and "SOPInstanceUID" in dataset))
    sop_uid, study_uid, series_uid = (
        _uid(dataset, key) for key in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    )
    if not (sop_uid and study_uid and series_uid):
        unnamed = content_uid("dicom", content_digest(stream))
        sop_uid, study_uid, series_uid = sop_uid or unnamed, study_uid or unnamed, series_uid or unnamed
    instance, refused = None, None
    if pixels or "Rows" in dataset or (name and _is_image_class(name)):
        try:
            instance = _instance(source, dataset, syntax, pixels, sop_uid, decode)
        except ReadError as error:
            refused = f"expected {error.expected}, found {error.found}"
        except Exception as error:
            refused = f"a value in the header cannot be used ({type(error).__name__})"
    elif not known:
        raise _bad(source, "neither an image nor a SOP class that is known (cut short?)")
    shape = instance.pixels if instance else None
    return DicomHeader(
        sop_class=name,
        study_uid=study_uid,
        series_uid=series_uid,
        frame_of_reference_uid=_uid(dataset, "FrameOfReferenceUID"),
        modality=_text(_get(dataset, "Modality")),
        transfer_syntax=syntax,
        patient=_patient(dataset),
        view=_view(dataset),
        laterality=_one_of(Laterality, _text(_get(dataset, "ImageLaterality")) or _text(_get(dataset, "Laterality"))),
        body_part=_text(_get(dataset, "BodyPartExamined")),
        study_description=_text(_get(dataset, "StudyDescription")),
        series_description=_text(_get(dataset, "SeriesDescription")),
        photometric=_text(_get(dataset, "PhotometricInterpretation")),
        rows=shape.rows if shape else _number(dataset, "Rows"),
        columns=shape.columns if shape else _number(dataset, "Columns"),
        frames=shape.frames if shape else _number(dataset, "NumberOfFrames"),
        passes=tuple(_pass(dataset, keyword) for keyword in _PASSES),
        frame_passes=_frame_passes(dataset, len(instance.frames)) if instance and instance.frames else (),
        concatenation=_concatenation(dataset),
        instance=instance,
        refused=refused,
    )


def _pass(dataset: Dataset, keyword: str) -> float | str | None:
    """Returns a value that is compared and never shown: text as its bytes stand, since pydicom takes long for it."""
    raw: Any = None
    if keyword in ("ConvolutionKernel", "AcquisitionTime") and _tag(keyword) in dataset:
        raw = dataset.get_item(_tag(keyword))
    explicit = isinstance(raw, RawDataElement) and raw.VR in ("SH", "TM")
    value = (raw.value or b"").decode("latin-1") if explicit else _get(dataset, keyword)
    number = _float(value)
    return _text(value) if number is None else number


def directory(stream: BinaryIO) -> tuple[tuple[str, ...], ...]:
    """Returns the files that a DICOMDIR lists, as the parts of their paths below it (PS3.3 F.3.2.2)."""
    try:
        content, _ = inflated(stream)
        dataset = read_partial(content, force=True, specific_tags=[Tag("DirectoryRecordSequence")])
        records = _get(dataset, "DirectoryRecordSequence") or ()
        return tuple(parts for parts in (tuple(_texts(_get(one, "ReferencedFileID"))) for one in records) if parts)
    except Exception:  # a parser over untrusted bytes; the other files of the folder can still be read one by one
        return ()


# --- bytes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PixelValue:
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


def _parse_header(stream: BinaryIO) -> tuple[Dataset, str, _PixelValue | None]:
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
        syntax = _uid(dataset.file_meta, "TransferSyntaxUID")
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
        raise ReadError("", expected="Pixel Data with a VR of its own", found=str(vr), fix="ask its source for another")
    offset = at + (12 if vr else 8)
    left = stream.seek(0, io.SEEK_END) - offset
    if length == 0xFFFFFFFF:
        if UID(syntax) in UncompressedTransferSyntaxes:
            raise ReadError(
                "",
                expected=f"pixels as {UID(syntax).name} has them",
                found="compressed frames",
                fix="ask its source for a file with its own transfer syntax",
            )
        return dataset, syntax, _PixelValue(PIXEL_TAGS[tag], vr or "OB", offset, None, deflated)
    if length > left:
        raise ReadError(
            "", expected=f"{length} bytes of pixels", found=f"{left} (cut short)", fix="copy the file again"
        )
    if length + 8 <= left:  # most files end here
        stream.seek(offset + length)
        order = "<HH" if dataset.original_encoding[1] else ">HH"
        group, element = struct.unpack(order, stream.read(4))
        if group << 16 | element in _TAGS:
            raise _refused("elements in ascending order", "some of the header behind the pixels")
    return dataset, syntax, _PixelValue(PIXEL_TAGS[tag], vr or "OW", offset, length, deflated)


def inflated(stream: BinaryIO) -> tuple[BinaryIO, str | None]:
    """Returns a stream that is not deflated, and the transfer syntax that the file states."""
    stream.seek(0)
    if stream.read(132)[128:] != b"DICM":
        stream.seek(0)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: int(tag) >> 16 != 2)
    syntax = _uid(meta, "TransferSyntaxUID")
    if syntax != DeflatedExplicitVRLittleEndian:
        stream.seek(0)
        return stream, syntax
    content = io.BytesIO()
    content.write(bytes(128) + b"DICM\x02\x00\x10\x00UI\x14\x00" + ExplicitVRLittleEndian.encode() + b"\0")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = 0
    while chunk := stream.read(_CHUNK):
        packed += len(chunk)
        while chunk and not inflater.eof:
            content.write(inflater.decompress(chunk, _CHUNK))
            chunk = inflater.unconsumed_tail
            if content.tell() > min(MAX_INFLATED, max(_CHUNK, MAX_INFLATE_RATIO * packed)):
                raise ReadError(
                    "",
                    expected=f"a deflated data set of at most {MAX_INFLATE_RATIO}:1 and {MAX_INFLATED >> 30} GB",
                    found="more",
                    fix="inflate the file yourself if you trust it",
                )
    content.write(inflater.flush())  # what did not fit into the last chunk
    if not inflater.eof:
        raise ReadError("", expected="a complete deflated data set", found="one cut short", fix="copy the file again")
    content.seek(0)
    return content, syntax


def guessed_syntax(dataset: Dataset) -> str:
    """Returns the uncompressed transfer syntax in which ``dataset`` was read."""
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


# --- header --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FrameHeader:
    """The header as it holds for one frame, or for all of them."""

    dataset: Dataset
    groups: tuple[Dataset, ...]
    """Functional groups, the frame's own before those that all frames share (PS3.3 C.7.6.16)."""

    def get(self, group: str, keyword: str) -> Any:
        """Returns ``keyword`` from the functional group ``group``, else from the data set as in a classic object."""
        for groups in self.groups:
            items = _get(groups, group)
            value = _get(items[0], keyword) if items else None
            if value is not None:
                return value
        return _get(self.dataset, keyword)


def _frame_headers(dataset: Dataset, frames: int) -> list[_FrameHeader]:
    """Returns one header for each frame in stored order; a single one where frames state nothing for themselves."""
    shared = tuple(_get(dataset, "SharedFunctionalGroupsSequence") or ())[:1]
    own = tuple(_get(dataset, "PerFrameFunctionalGroupsSequence") or ())
    if len(own) != frames:
        own = ()  # whose frame an item is of cannot be known: the frames have no place
    return [_FrameHeader(dataset, (one, *shared)) for one in own] or [_FrameHeader(dataset, shared)]


def _unmatched_groups(dataset: Dataset, frames: int) -> tuple[str, ...]:
    """Returns a warning where functional groups are there for another number of frames.

    Raises:
        ReadError: they rescale the values.
    """
    own = _get(dataset, "PerFrameFunctionalGroupsSequence") or ()
    if len(own) in (0, frames):
        return ()
    if any(_get(groups, "PixelValueTransformationSequence") for groups in own):
        raise _refused(f"functional groups with the rescale of {frames} frames", f"those of {len(own)}")
    return (f"functional groups of {len(own)} frames beside {frames} stored: what they say of each is not read",)


def _unread(head: _FrameHeader, pixels: PixelHeader, geometry: Geometry) -> Iterator[str]:
    """Yields a warning for each element that is stated, and cannot be used: it is not in ``pixels`` or ``geometry``."""
    read = {
        "ImagePositionPatient": geometry.position,
        "ImageOrientationPatient": geometry.orientation,
        geometry.spacing_source: geometry.pixel_spacing,
        "WindowCenter": pixels.window_centers,
        "WindowWidth": pixels.window_widths,
    }
    for group, keyword, count in _MEASURES:
        value = None if read.get(keyword) else head.get(group, keyword)
        if value is None or value == "":
            continue
        if not (_all_floats(value) if count is None else _floats(value, count)):
            yield f"{keyword} is not stated in numbers that can be used: not read"


def _instance(
    source: Source, dataset: Dataset, syntax: str, pixels: _PixelValue | None, uid: str, decode: Decode
) -> Instance:
    count = _number_of_frames(dataset)
    heads = _frame_headers(dataset, count)
    if pixels is None:
        raise ReadError("", expected="pixel data", found="none (cut short, or sent without)", fix="copy the file again")
    header = _pixel_header(heads[0], syntax, pixels.keyword)
    coding = _coding(dataset, syntax, pixels, header)
    palette = dataset.group_dataset(0x0028) if header.photometric == "PALETTE COLOR" else None

    frames = tuple(
        Frame(
            pixels=replace(header, frames=1, **_pixel_meaning(head)), geometry=_geometry(head), kind=_frame_kind(head)
        )
        for head in heads
        if len(heads) > 1
    )
    geometry = _geometry(heads[0])
    stated = [(frame.pixels, frame.geometry) for frame in frames] or [(header, geometry)]
    unread = (note for head, values in zip(heads, stated, strict=True) for note in _unread(head, *values))
    return Instance(
        sop_instance_uid=uid,
        pixels=header,
        geometry=geometry,
        kind=() if frames else _frame_kind(heads[0]),
        frames=frames or _frames_by_vector(dataset, header, geometry),
        number=_number(dataset, "InstanceNumber"),
        patient_orientation=tuple(_texts(_get(dataset, "PatientOrientation"))),
        image_type=tuple(_texts(_get(dataset, "ImageType"))),
        for_processing=_for_processing(dataset),
        overlays=len(_OVERLAYS & dataset.keys()),
        notes=(*_unmatched_groups(dataset, count), *dict.fromkeys(unread)),
        load=_Load(source=source, value=pixels, pixels=header, coding=coding, palette=palette, decode=decode),
    )


@dataclass(frozen=True, kw_only=True)
class _Load:
    """Decodes the frames of a file: ``Instance.load``."""

    source: Source
    value: _PixelValue
    pixels: PixelHeader
    coding: Coding
    palette: Dataset | None
    decode: Decode
    frames: tuple[int, ...] | None = None
    """Which, from 0; all where ``None``."""

    def __call__(self) -> np.ndarray:
        try:
            array = self._selected() if self.frames is not None else self._decoded(self.value.read(self.source))
            if self.palette is None:
                return array
            return with_palette(read_palette(self.palette, signed=self.coding.signed), array)
        except ReadError as error:
            raise ReadError(self.source.name, expected=error.expected, found=error.found, fix=error.fix) from None
        except MemoryError:
            raise ReadError(
                self.source.name,
                expected="pixels that fit into the memory of this machine",
                found=f"{self.pixels.frames} frames of {self.pixels.rows} x {self.pixels.columns}",
                fix="read it on a larger one",
            ) from None

    def _decoded(self, content: bytes) -> np.ndarray:
        return self.decode(content, self.pixels, self.coding)

    def _selected(self) -> np.ndarray:
        """Decodes what is asked for alone where frames can be told apart before: an object may hold many volumes."""
        assert self.frames is not None, "the caller asks"
        header = replace(self.pixels, frames=len(self.frames))
        if self.coding.is_plain and self.value.length is not None and not self.value.deflated:
            size = self.pixels.rows * self.pixels.columns * self.coding.bits_allocated // 8
            content = self.value.read_parts(self.source, [index * size for index in self.frames], size)
            return self.decode(content, header, self.coding)
        content = self.value.read(self.source)
        if not UID(self.coding.syntax).is_encapsulated:
            return self._decoded(content)[list(self.frames)]
        content, coding = select(content, self.pixels, self.coding, self.frames)
        return self.decode(content, header, coding)


def with_frames(instance: Instance, frames: Sequence[int], uid: str) -> Instance:
    """Returns ``instance`` with some of its frames alone.

    Args:
        instance: as ``read_header`` gave it, with more than one frame that states its own header.
        frames: which, from 0.
        uid: its ``sop_instance_uid``.
    """
    assert isinstance(instance.load, _Load), "an instance of read_header"
    kept = tuple(instance.frames[index] for index in frames)
    return replace(
        instance,
        sop_instance_uid=uid,
        pixels=replace(kept[0].pixels, frames=len(kept)),
        geometry=kept[0].geometry,
        kind=kept[0].kind if len(kept) == 1 else (),
        frames=kept if len(kept) > 1 else (),
        load=replace(instance.load, frames=tuple(frames)),
    )


def _frames_by_vector(dataset: Dataset, header: PixelHeader, first: Geometry) -> tuple[Frame, ...]:
    """Returns the frames of objects that list where they lie along the normal of the first: RT Dose, tomographic NM.

    None where a list is incomplete, or where frames differ in more than place and phase.
    """
    if header.frames < 2:
        return ()
    kinds: list[tuple[tuple[str, str], ...]] = []
    if _get(dataset, "GridFrameOffsetVector") is not None:
        along = _dose_offsets(dataset, first)
    else:
        along, kinds = _tomographic_offsets(dataset, header.frames)
    if len(along) != header.frames or first.position is None or first.orientation is None:
        return ()
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    places = np.add(first.position, np.multiply.outer(along, normal)).tolist()
    if not np.all(np.abs(places) <= _MAX_MM):
        return ()
    pixels = replace(header, frames=1)
    return tuple(
        Frame(pixels=pixels, geometry=replace(first, position=tuple(place)), kind=kind)
        for place, kind in zip(places, kinds or [()] * len(places), strict=True)
    )


def _dose_offsets(dataset: Dataset, first: Geometry) -> tuple[float, ...]:
    """Returns mm from the first frame by Grid Frame Offset Vector (PS3.3 C.8.8.3.2): relative, or z of axial frames."""
    offsets = _all_floats(_get(dataset, "GridFrameOffsetVector"))
    if not offsets or offsets[0] == 0:
        return offsets
    axial = first.orientation is not None and np.allclose(first.orientation, (1, 0, 0, 0, 1, 0), 0, 1e-3)
    if axial and first.position is not None and abs(offsets[0] - first.position[2]) < POSITION_TOLERANCE_MM:
        return tuple(offset - offsets[0] for offset in offsets)
    return ()


def _tomographic_offsets(dataset: Dataset, frames: int) -> tuple[tuple[float, ...], list[tuple[tuple[str, str], ...]]]:
    """Returns mm from slice 1 by Slice Vector and Spacing Between Slices (PS3.3 C.8.4.8, C.8.4.15), and the phases."""
    value = _get(dataset, "FrameIncrementPointer")
    pointers = [int(tag) for tag in (value if isinstance(value, (list, MultiValue)) else [value]) if tag is not None]
    names = {"SliceVector": "", "RRIntervalVector": "R-R interval", "TimeSlotVector": "time slot"}
    spacing = _float(_get(dataset, "SpacingBetweenSlices"))
    kind = [text for text in _texts(_get(dataset, "ImageType"))[2:3] if text in ("RECON TOMO", "RECON GATED TOMO")]
    vectors = {names[key]: _all_floats(_get(dataset, key)) for key in names if _tag(key) in pointers}
    if not kind or not spacing or len(vectors) != len(pointers) or "" not in vectors:
        return (), []
    if any(len(vector) != frames for vector in vectors.values()):
        return (), []
    along = tuple(spacing * (number - 1) for number in vectors.pop(""))
    return along, [tuple((name, f"{vector[i]:g}") for name, vector in vectors.items()) for i in range(frames)]


def _frame_passes(dataset: Dataset, frames: int) -> tuple[tuple[float, ...], ...]:
    stated = [
        _all_floats(head.get("FrameContentSequence", "DimensionIndexValues"))
        for head in _frame_headers(dataset, frames)
    ]
    alike = len(stated) == frames and len({len(values) for values in stated}) == 1
    return tuple(stated) if alike else ()


def _concatenation(dataset: Dataset) -> tuple[str, int | None, int | None] | None:
    uid = _uid(dataset, "ConcatenationUID")
    if uid is None:
        return None
    return uid, _number(dataset, "InConcatenationNumber"), _number(dataset, "InConcatenationTotalNumber")


def _geometry(head: _FrameHeader) -> Geometry:
    spacing, spacing_source = _spacing(head)
    position = head.get("PlanePositionSequence", "ImagePositionPatient")
    orientation = head.get("PlaneOrientationSequence", "ImageOrientationPatient")
    if position is None and (detectors := _get(head.dataset, "DetectorInformationSequence")):
        # Reconstructed NM states the place of its first slice with the detector (PS3.3 C.8.4.11).
        position, orientation = (_get(detectors[0], key) for key in ("ImagePositionPatient", "ImageOrientationPatient"))
    thickness = _floats(head.get("PixelMeasuresSequence", "SliceThickness"), 1)
    return Geometry(
        position=_floats(position, 3),
        orientation=_floats(orientation, 6),
        pixel_spacing=spacing,
        spacing_source=spacing_source,
        slice_thickness=thickness[0] if thickness else None,
    )


def _frame_kind(head: _FrameHeader) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for name, group, keyword in _KINDS if head.groups else ():
        value = head.get(group, keyword)
        numbers = _all_floats(value)
        text = " ".join(f"{number:g}" for number in numbers) or "\\".join(_texts(value))
        if keyword == "StackID" and text and not (len(text) < 4 and text.isdecimal()):
            text = f"{zlib.crc32(text.encode()):08x}"  # free text, which messages must not repeat
        if text:
            found.setdefault(name, text)
    return tuple(found.items())


def _pixel_header(head: _FrameHeader, syntax: str, keyword: str) -> PixelHeader:
    dataset = head.dataset
    rows, columns = _number(dataset, "Rows"), _number(dataset, "Columns")
    if not (rows and columns and 0 < rows <= 65535 and 0 < columns <= 65535):
        raise _refused("Rows and Columns of 1 to 65535", f"{rows} and {columns}")
    frames = _number_of_frames(dataset)
    photometric = _capitals(_get(dataset, "PhotometricInterpretation"))
    if photometric not in _PHOTOMETRIC:
        raise _refused(f"a Photometric Interpretation among {', '.join(_PHOTOMETRIC)}", str(photometric))
    samples = _number(dataset, "SamplesPerPixel") if "SamplesPerPixel" in dataset else _PHOTOMETRIC[photometric]
    if samples != _PHOTOMETRIC[photometric]:
        raise _refused(f"{_PHOTOMETRIC[photometric]} samples per pixel in {photometric}", str(samples))
    allocated = _number(dataset, "BitsAllocated")
    if allocated not in (1, 8, 16, 32, 64):
        raise _refused("Bits Allocated of 1, 8, 16, 32 or 64", str(allocated))
    stored = _number(dataset, "BitsStored") if "BitsStored" in dataset else allocated
    if stored is None or not 1 <= stored <= allocated:
        raise _refused(f"Bits Stored of 1 to {allocated}", str(stored))
    high = _number(dataset, "HighBit")
    transfer = UID(syntax)
    if high is not None and high != stored - 1 and not (transfer.is_transfer_syntax and transfer.is_encapsulated):
        raise _refused(f"High Bit {stored - 1} for {stored} Bits Stored", str(high))
    size = rows * columns * frames * (3 if photometric == "PALETTE COLOR" else samples) * max(1, allocated // 8)
    if size > MAX_PIXEL_BYTES:
        raise _refused(
            f"at most {MAX_PIXEL_BYTES >> 30} GB of pixels",
            f"{rows} x {columns} x {samples} samples x {frames} frames of {allocated} bits",
        )
    if not can_decode(syntax):
        raise ReadError(
            "",
            expected="a transfer syntax that can be decoded (see mmfm doctor)",
            found=f"{UID(syntax).name}",
            fix="convert the file, for instance to Explicit VR Little Endian",
        )
    representation = _number(dataset, "PixelRepresentation")
    if representation not in (0, 1) and samples == 1 and keyword == "PixelData":
        raise _refused("a Pixel Representation of 0 (unsigned) or 1 (signed)", str(representation))
    signed = _is_signed(dataset, samples)
    if photometric == "PALETTE COLOR":
        stored, signed = 8 * read_palette(dataset, signed=signed).entries.dtype.itemsize, False
    meaning = _pixel_meaning(head)
    padding = _number(dataset, "PixelPaddingValue")
    limit = _number(dataset, "PixelPaddingRangeLimit")
    return PixelHeader(
        rows=rows,
        columns=columns,
        frames=frames,
        samples=3 if photometric == "PALETTE COLOR" else samples,
        bits_stored=stored,
        signed=signed,
        photometric=photometric,
        modality_lut=_lookup_table(dataset, "ModalityLUTSequence", signed),
        voi_lut=_lookup_table(dataset, "VOILUTSequence", signed or meaning["rescale_intercept"] < 0),
        presentation_inverse=_capitals(_get(dataset, "PresentationLUTShape")) == "INVERSE",
        padding_value=_as_stored(padding, signed),
        padding_limit=_as_stored(limit, signed),
        **meaning,
    )


def _is_signed(dataset: Dataset, samples: int) -> bool:
    """Returns whether stored values have a sign: colours have none, whatever is written (PS3.3 C.7.6.3.1.2)."""
    return samples == 1 and _number(dataset, "PixelRepresentation") == 1


def _coding(dataset: Dataset, syntax: str, pixels: _PixelValue, header: PixelHeader) -> Coding:
    allocated = _number(dataset, "BitsAllocated") or 8
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        tables = [_get(dataset, key) for key in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
        if not all(isinstance(table, bytes) and len(table) == 8 * header.frames for table in tables):
            raise _refused(f"{header.frames} extended offsets, and as many lengths", "another number")
        starts, lengths = (tuple(np.frombuffer(table, "<u8").tolist()) for table in tables)
        offsets = starts, lengths
    return Coding(
        syntax=syntax,
        keyword=pixels.keyword,
        vr=pixels.vr,
        bits_allocated=allocated,
        bits_stored=_number(dataset, "BitsStored") or allocated,
        signed=_is_signed(dataset, 1 if header.photometric == "PALETTE COLOR" else header.samples),
        planar=_number(dataset, "PlanarConfiguration") or 0,
        offsets=offsets,
    )


def _number_of_frames(dataset: Dataset) -> int:
    frames = _number(dataset, "NumberOfFrames") if _get(dataset, "NumberOfFrames") not in (None, "") else 1
    if frames is None or frames < 0:
        raise _refused("a Number of Frames of at least 1", "another value")
    return frames or 1  # 0 is seen in single images


def _pixel_meaning(head: _FrameHeader) -> dict[str, Any]:
    """Returns the fields of PixelHeader that each frame may state for itself: rescale and windows."""
    slope, intercept, kind = _rescale(head)
    centers = _all_floats(head.get("FrameVOILUTSequence", "WindowCenter"))
    widths = _all_floats(head.get("FrameVOILUTSequence", "WindowWidth"))
    pairs = min(len(centers), len(widths))
    return {
        "rescale_slope": slope,
        "rescale_intercept": intercept,
        "rescale_type": kind,
        "window_centers": centers[:pairs],
        "window_widths": widths[:pairs],
        "window_names": tuple(_texts(head.get("FrameVOILUTSequence", "WindowCenterWidthExplanation"))[:pairs]),
        "voi_function": _capitals(head.get("FrameVOILUTSequence", "VOILUTFunction")) or "LINEAR",
    }


def _rescale(head: _FrameHeader) -> tuple[float, float, str | None]:
    """Returns slope, intercept and type: "HU" on a CT that states both and no other type (PS3.3 C.8.2.1.1).

    Raises:
        ReadError: one is stated that cannot be used: without it, the values would mean something else.
    """
    group = "PixelValueTransformationSequence"
    slope, intercept = (_rescale_number(head.get(group, key), key) for key in ("RescaleSlope", "RescaleIntercept"))
    kind = _text(head.get(group, "RescaleType"))
    both = slope is not None and intercept is not None
    if both and kind is None and _text(_get(head.dataset, "Modality")) == "CT":
        kind = "HU"
    if not both and kind == "HU":
        kind = None
    return 1.0 if slope is None else slope, intercept or 0.0, kind


def _rescale_number(value: Any, keyword: str) -> float | None:
    if value is None or value == "":
        return None
    number = _float(value)
    if number is None or abs(number) > _MAX_RESCALE:
        raise _refused(f"one number of at most {_MAX_RESCALE:g} as {keyword}", "another value")
    return number


def _lookup_table(dataset: Dataset, keyword: str, signed: bool) -> LookupTable | None:
    """Returns the first table of ``keyword`` (PS3.3 C.11.1.1.1 and C.11.2.1.1)."""
    items = _get(dataset, keyword)
    if not items:
        return None
    descriptor, data = _all_floats(_get(items[0], "LUTDescriptor")), _get(items[0], "LUTData")
    if len(descriptor) != 3 or not 1 <= descriptor[2] <= 16:
        raise _refused(f"a LUT Descriptor of 3 numbers, the last 1 to 16, in {keyword}", "another")
    count, first, bits = (int(value) for value in descriptor)
    count = count % 65536 or 65536
    if isinstance(data, bytes):
        width = 1 if len(data) < 2 * count else 2
        order = "<" if dataset.original_encoding[1] else ">"
        data = np.frombuffer(data[: len(data) // width * width], dtype=f"{order}u{width}")
    entries = tuple(int(value) % 65536 for value in np.atleast_1d(np.asarray([] if data is None else data))[:count])
    if len(entries) < count:
        raise _refused(f"{count} entries in {keyword}", str(len(entries)))
    if signed and first >= 32768:  # "US or SS": the sign follows what goes in
        first -= 65536
    return LookupTable(first_value=first, bits=max(bits, max(entries).bit_length()), entries=entries)


def _spacing(head: _FrameHeader) -> tuple[tuple[float, float] | None, str | None]:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        if spacing := _floats(head.get("PixelMeasuresSequence", keyword), 2):
            return spacing, keyword
    return None, None


def _patient(dataset: Dataset) -> Patient:
    return Patient(
        patient_id=_text(_get(dataset, "PatientID")),
        sex=_one_of(Sex, _text(_get(dataset, "PatientSex"))),
        age_years=_age(dataset),
    )


def _age(dataset: Dataset) -> float | None:
    """Returns years by Patient's Age (nnnD, nnnW, nnnM, nnnY), else from birth to study date; ``None`` if not 0-150."""
    years = None
    text = _text(_get(dataset, "PatientAge")) or ""
    if text[:-1].isdecimal() and text[-1] in "DWMY":
        years = int(text[:-1]) / {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}[text[-1]]
    else:
        birth, study = (_date(_text(_get(dataset, key))) for key in ("PatientBirthDate", "StudyDate"))
        if birth and study:
            years = round((study - birth).days / 365.25, 2)
    return years if years is not None and 0 <= years <= 150 else None


def _date(text: str | None) -> date | None:
    digits = (text or "").replace(".", "").replace("-", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) if len(digits) == 8 else None
    except ValueError:
        return None


def _view(dataset: Dataset) -> ViewPosition | None:
    if view := _VIEWS.get((_text(_get(dataset, "ViewPosition")) or "").upper()):
        return view
    for item in _get(dataset, "ViewCodeSequence") or ():
        if view := _VIEW_CODES.get(_text(_get(item, "CodeValue")) or ""):
            return view
    return None


def _for_processing(dataset: Dataset) -> bool:
    stated = (_text(_get(dataset, "PresentationIntentType")) or "").upper()
    return stated == "FOR PROCESSING" or UID(_uid(dataset, "SOPClassUID") or "").name.endswith("For Processing")


def _is_image_class(name: str) -> bool:
    # Names of PS3.6 Annex A: these classes hold pixels, so that one without any was cut short.
    words = ("Image Storage", "Segmentation Storage", "RT Dose Storage", "Parametric Map Storage")
    return any(word in name for word in words) and "Surface" not in name


# --- values of untrusted elements: what cannot be read is not there --------------------------------------------------


def _get(dataset: Dataset, keyword: str) -> Any:
    """Returns a value as pydicom gives it, but numbers that are written as text (DS, IS) as text."""
    tag = _tag(keyword)
    try:
        if tag not in dataset.keys():  # noqa: SIM118 - `in dataset` makes a tag of the tag each time
            return None
        raw: Any = dataset.get_item(tag)
        if isinstance(raw, RawDataElement):
            vr = raw.VR if raw.VR not in _UNSTATED_VRS else _vr(tag)
            if vr in _PLAIN_VRS:
                values = (raw.value or b"").decode("latin-1").rstrip(" \0").split("\\")
                return values if len(values) > 1 else values[0]
            if vr == "US" and raw.is_little_endian and raw.length == 2:
                return int.from_bytes(raw.value or b"", "little")
        return dataset[tag].value
    except Exception:  # pydicom converts on access and raises many kinds of error on malformed values
        return None


def _text(value: Any) -> str | None:
    """Returns one line of printable text of at most 200 characters; control and direction marks are left out."""
    if value is None:
        return None
    text = str(value)
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text.strip()[:200] or None


def _capitals(value: Any) -> str | None:
    """Returns a code, which some write in small letters."""
    text = _text(value)
    return text.upper() if text else None


def _texts(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) or value is None else list(value)
    return [text for text in map(_text, values) if text]


def _uid(dataset: Dataset, keyword: str) -> str | None:
    """Returns a UID as it is written, without "#", behind which reading numbers the parts of a series."""
    value = _get(dataset, keyword)
    return _text(str(value[0] if isinstance(value, (list, tuple)) and value else value or "").replace("#", ""))


def _number(dataset: Dataset, keyword: str) -> int | None:
    number = _float(_get(dataset, keyword))
    return int(number) if number is not None and number.is_integer() else None


def _float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _all_floats(value: Any) -> tuple[float, ...]:
    """Returns the numbers of ``value``, none where one of them cannot be read: which it was could not be told."""
    if value is None or isinstance(value, bytes):
        return ()
    items = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    while items and items[-1] == "":  # a backslash with nothing behind it
        items.pop()
    numbers = [_float(item) for item in items]
    return tuple(number for number in numbers if number is not None) if None not in numbers else ()


def _floats(value: Any, count: int) -> Any:
    """Returns a place, direction or length of ``count`` numbers."""
    numbers = _all_floats(value)
    return numbers if len(numbers) == count and max(map(abs, numbers)) <= _MAX_MM else None


def _one_of(kind: Any, text: str | None) -> Any:
    return kind(text) if text in {member.value for member in kind} else None


def _as_stored(value: int | None, signed: bool) -> int | None:
    """Returns a "US or SS" value as the pixels hold it: -2000 may be written as 63536."""
    if value is None:
        return None
    return value - 65536 if signed and value >= 32768 else value + 65536 if not signed and value < 0 else value


def _refused(expected: str, found: str) -> ReadError:
    return ReadError("", expected=expected, found=found, fix="ask its source for a valid file")


def _bad(source: Source, found: str) -> ReadError:
    return ReadError(source.name, expected="a complete DICOM file", found=found, fix="copy or export it again")
