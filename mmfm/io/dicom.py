"""DICOM: headers first, pixels late, through pydicom and its maintained decoders.

``read_header`` parses only the tags that are used, stops before the pixels and never keeps a name; ``Instance.load``
opens the file again where they stand. The file is untrusted: sizes are checked before anything is allocated, and
whatever goes wrong inside the parser becomes one ReadError.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, BinaryIO

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
)

from mmfm.errors import ReadError
from mmfm.io.elements import (
    as_capitals,
    as_float,
    as_floats,
    as_floats_of,
    as_text,
    as_texts,
    get_number,
    get_uid,
    get_value,
    refusal,
    tag_of,
)
from mmfm.io.frame_headers import (
    FrameHeader,
    frame_headers,
    frame_kind,
    frame_passes,
    frames_by_vector,
    geometry_of,
    unmatched_groups,
)
from mmfm.io.frames import Coding, Decode, can_decode, read_palette, select, with_palette
from mmfm.io.frames import decode as decode_here
from mmfm.io.nesting import too_deep
from mmfm.io.parsing import OVERLAYS, PASSES, PixelValue, parse_header
from mmfm.io.sources import MAX_PIXEL_BYTES, Source, content_digest, content_uid
from mmfm.study import (
    Acquisition,
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

_MAX_RESCALE = 1e19
"""Largest rescale slope or intercept: with 64 bits allocated, what comes out is still a number in float32."""
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
_NO_AGENT = {"", "0", "N", "NO", "NONE", "NO CONTRAST", "WITHOUT", "W/O", "OHNE", "UNENHANCED"}
"""What is written as Contrast/Bolus Agent where there was none."""
_COMPONENTS = {
    "M": "MAGNITUDE",
    "P": "PHASE",
    "R": "REAL",
    "I": "IMAGINARY",
    "PHASE MAP": "PHASE",
} | {word: word for word in ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY", "MIXED")}
"""As Siemens, Philips and PS3.3 C.8.13.3.1.1 write it -> as PS3.3 does."""
_MEASURES = (
    ("PlanePositionSequence", "ImagePositionPatient", 3),
    ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
    ("PixelMeasuresSequence", "PixelSpacing", 2),
    ("PixelMeasuresSequence", "ImagerPixelSpacing", 2),
    ("FrameVOILUTSequence", "WindowCenter", None),
    ("FrameVOILUTSequence", "WindowWidth", None),
)
"""What a reader must know not to have been read: functional group, element, and how many numbers it holds."""


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
    acquisition: Acquisition
    photometric: str | None
    rows: int | None
    columns: int | None
    frames: int | None
    passes: tuple[float | str | None, ...]
    """Values of ``PASSES``: what can tell slices of one position apart."""
    frame_passes: tuple[tuple[float, ...], ...]
    """Dimension Index Values (0020,9157) of each frame, which can do the same; empty where they are not stated."""
    concatenation: tuple[str, int | None, int | None] | None
    """Concatenation UID (0020,9161), number in it, and how many there are, of one part of a multi-frame object."""
    instance: Instance | None
    """``None`` where the object holds no image, or one that is refused."""
    refused: str | None
    """Why the image is refused, in words without an identifier."""


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
        dataset, syntax, pixels = parse_header(stream)
    except ReadError:
        raise
    except RecursionError:  # by items that do not start as items do
        raise too_deep() from None
    except Exception as error:  # a parser over untrusted bytes: whatever it raises is the file's fault
        raise _bad(source, f"damage ({type(error).__name__})") from None
    sop_class = get_uid(dataset, "SOPClassUID") or get_uid(dataset.file_meta, "MediaStorageSOPClassUID")
    name = UID(sop_class).name if sop_class else None
    known = name is not None and (name != sop_class or (UID(sop_class).is_valid and "SOPInstanceUID" in dataset))
    sop_uid, study_uid, series_uid = (
        get_uid(dataset, key) for key in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
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
        frame_of_reference_uid=get_uid(dataset, "FrameOfReferenceUID"),
        modality=as_text(get_value(dataset, "Modality")),
        transfer_syntax=syntax,
        patient=_patient(dataset),
        view=_view(dataset),
        laterality=_one_of(
            Laterality, as_text(get_value(dataset, "ImageLaterality")) or as_text(get_value(dataset, "Laterality"))
        ),
        body_part=as_text(get_value(dataset, "BodyPartExamined")),
        study_description=as_text(get_value(dataset, "StudyDescription")),
        series_description=as_text(get_value(dataset, "SeriesDescription")),
        acquisition=_acquisition(dataset, instance) if instance else Acquisition(),
        photometric=as_text(get_value(dataset, "PhotometricInterpretation")),
        rows=shape.rows if shape else get_number(dataset, "Rows"),
        columns=shape.columns if shape else get_number(dataset, "Columns"),
        frames=shape.frames if shape else get_number(dataset, "NumberOfFrames"),
        passes=tuple(_pass(dataset, keyword) for keyword in PASSES),
        frame_passes=frame_passes(dataset, len(instance.frames)) if instance and instance.frames else (),
        concatenation=_concatenation(dataset),
        instance=instance,
        refused=refused,
    )


def _acquisition(dataset: Dataset, instance: Instance) -> Acquisition:
    """Returns how the first frame was made."""
    enhanced = tag_of("SharedFunctionalGroupsSequence") in dataset.keys()  # noqa: SIM118 - as in get_value
    head = frame_headers(dataset, instance.pixels.frames)[0] if enhanced else FrameHeader(dataset, ())
    agent = _raw_text(dataset, "ContrastBolusAgent")
    stated = None if agent else bool(get_value(dataset, "ContrastBolusAgentSequence")) or None
    kernel = head.get("CTReconstructionSequence", "ConvolutionKernel") if head.groups else None
    made = Acquisition(
        contrast=agent.upper() not in _NO_AGENT if agent else stated,
        kernel="\\".join(as_texts(kernel)) or _raw_text(dataset, "ConvolutionKernel"),
        protocol=_raw_text(dataset, "ProtocolName"),
        number=get_number(dataset, "SeriesNumber"),
    )
    if as_text(get_value(dataset, "Modality")) != "MR":
        return made

    def number(group: str, *keywords: str) -> float | None:
        return next((value[0] for value in (as_floats(head.get(group, key)) for key in keywords) if value), None)

    sequences = tuple(as_texts(get_value(dataset, "ScanningSequence")))
    if not sequences:  # enhanced MR (PS3.3 C.8.13.4) in the words of the classic attribute
        pulse = as_capitals(get_value(dataset, "EchoPulseSequence")) or ""
        sequences = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(pulse, ())
        sequences += ("IR",) if as_capitals(get_value(dataset, "InversionRecovery")) == "YES" else ()
    return replace(
        made,
        repetition_time=number("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
        echo_time=number("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
        inversion_time=number("MRModifierSequence", "InversionTimes", "InversionTime"),
        scanning_sequence=sequences,
        sequence_variant=tuple(as_texts(get_value(dataset, "SequenceVariant"))),
        b_value=number("MRDiffusionSequence", "DiffusionBValue"),
        component=_component(head, instance.image_type),
    )


def _component(head: FrameHeader, image_type: tuple[str, ...]) -> str | None:
    """Returns the complex component of an MR: stated, or by the letters and words that makers put into Image Type."""
    stated = as_capitals(head.get("MRImageFrameTypeSequence", "ComplexImageComponent"))
    words = [stated, *(value.upper() for value in image_type[2:])]
    return next((_COMPONENTS[word] for word in words if word in _COMPONENTS), None)


def _raw_text(dataset: Dataset, keyword: str) -> str | None:
    """Returns a text that is compared and never shown as its bytes stand, since pydicom takes long for it."""
    tag = tag_of(keyword)
    if tag not in dataset.keys():  # noqa: SIM118 - as in get_value
        return None
    raw: Any = dataset.get_item(tag)
    explicit = isinstance(raw, RawDataElement) and raw.VR in ("SH", "LO", "TM")
    if explicit:
        return as_text((raw.value or b"").decode("latin-1"))
    return as_text("\\".join(as_texts(get_value(dataset, keyword))))


def _pass(dataset: Dataset, keyword: str) -> float | str | None:
    """Returns a value that is compared and never shown."""
    raw = keyword in ("ConvolutionKernel", "AcquisitionTime")
    value = _raw_text(dataset, keyword) if raw else get_value(dataset, keyword)
    number = as_float(value)
    return as_text(value) if number is None else number


def _unread(head: FrameHeader, pixels: PixelHeader, geometry: Geometry) -> Iterator[str]:
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
        if not (as_floats(value) if count is None else as_floats_of(value, count)):
            yield f"{keyword} is not stated in numbers that can be used: not read"


def _instance(
    source: Source, dataset: Dataset, syntax: str, pixels: PixelValue | None, uid: str, decode: Decode
) -> Instance:
    count = _number_of_frames(dataset)
    heads = frame_headers(dataset, count)
    if pixels is None:
        raise ReadError("", expected="pixel data", found="none (cut short, or sent without)", fix="copy the file again")
    header = _pixel_header(heads[0], syntax, pixels.keyword)
    coding = _coding(dataset, syntax, pixels, header)
    palette = dataset.group_dataset(0x0028) if header.photometric == "PALETTE COLOR" else None

    frames = tuple(
        Frame(
            pixels=replace(header, frames=1, **_pixel_meaning(head)), geometry=geometry_of(head), kind=frame_kind(head)
        )
        for head in heads
        if len(heads) > 1
    )
    geometry = geometry_of(heads[0])
    stated = [(frame.pixels, frame.geometry) for frame in frames] or [(header, geometry)]
    unread = (note for head, values in zip(heads, stated, strict=True) for note in _unread(head, *values))
    return Instance(
        sop_instance_uid=uid,
        pixels=header,
        geometry=geometry,
        kind=() if frames else frame_kind(heads[0]),
        frames=frames or frames_by_vector(dataset, header, geometry),
        number=get_number(dataset, "InstanceNumber"),
        patient_orientation=tuple(as_texts(get_value(dataset, "PatientOrientation"))),
        image_type=tuple(as_texts(get_value(dataset, "ImageType"))),
        for_processing=_for_processing(dataset),
        overlays=len(OVERLAYS & dataset.keys()),
        notes=(*unmatched_groups(dataset, count), *dict.fromkeys(unread)),
        load=_Load(source=source, value=pixels, pixels=header, coding=coding, palette=palette, decode=decode),
    )


@dataclass(frozen=True, kw_only=True)
class _Load:
    """Decodes the frames of a file: ``Instance.load``."""

    source: Source
    value: PixelValue
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
        of_one_sample = self.palette is not None or self.pixels.samples == 1
        if of_one_sample and self.coding.is_plain and self.value.length is not None and not self.value.deflated:
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


def _concatenation(dataset: Dataset) -> tuple[str, int | None, int | None] | None:
    uid = get_uid(dataset, "ConcatenationUID")
    if uid is None:
        return None
    return uid, get_number(dataset, "InConcatenationNumber"), get_number(dataset, "InConcatenationTotalNumber")


def _pixel_header(head: FrameHeader, syntax: str, keyword: str) -> PixelHeader:
    dataset = head.dataset
    rows, columns = get_number(dataset, "Rows"), get_number(dataset, "Columns")
    if not (rows and columns and 0 < rows <= 65535 and 0 < columns <= 65535):
        raise refusal("Rows and Columns of 1 to 65535", f"{rows} and {columns}")
    frames = _number_of_frames(dataset)
    photometric = as_capitals(get_value(dataset, "PhotometricInterpretation"))
    if photometric not in _PHOTOMETRIC:
        raise refusal(f"a Photometric Interpretation among {', '.join(_PHOTOMETRIC)}", "another")
    samples = get_number(dataset, "SamplesPerPixel") if "SamplesPerPixel" in dataset else _PHOTOMETRIC[photometric]
    if samples != _PHOTOMETRIC[photometric]:
        raise refusal(f"{_PHOTOMETRIC[photometric]} samples per pixel in {photometric}", str(samples))
    allocated = get_number(dataset, "BitsAllocated")
    if allocated not in (1, 8, 16, 32, 64):
        raise refusal("Bits Allocated of 1, 8, 16, 32 or 64", str(allocated))
    wanted = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(keyword, allocated)
    if allocated != wanted:
        raise refusal(f"Bits Allocated of {wanted} with {keyword}", str(allocated))
    stored = get_number(dataset, "BitsStored") if "BitsStored" in dataset else allocated
    if stored is None or not 1 <= stored <= allocated:
        raise refusal(f"Bits Stored of 1 to {allocated}", str(stored))
    high = get_number(dataset, "HighBit")
    transfer = UID(syntax)
    if high is not None and high != stored - 1 and not (transfer.is_transfer_syntax and transfer.is_encapsulated):
        raise refusal(f"High Bit {stored - 1} for {stored} Bits Stored", str(high))
    size = rows * columns * frames * (3 if photometric == "PALETTE COLOR" else samples) * max(1, allocated // 8)
    if size > MAX_PIXEL_BYTES:
        raise refusal(
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
    representation = get_number(dataset, "PixelRepresentation")
    if representation not in (0, 1) and samples == 1 and keyword == "PixelData":
        raise refusal("a Pixel Representation of 0 (unsigned) or 1 (signed)", str(representation))
    signed = _is_signed(dataset, samples)
    if photometric == "PALETTE COLOR":
        stored, signed = 8 * read_palette(dataset, signed=signed).entries.dtype.itemsize, False
    meaning = _pixel_meaning(head)
    padding = get_number(dataset, "PixelPaddingValue")
    limit = get_number(dataset, "PixelPaddingRangeLimit")
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
        presentation_inverse=as_capitals(get_value(dataset, "PresentationLUTShape")) == "INVERSE",
        padding_value=_as_stored(padding, signed),
        padding_limit=_as_stored(limit, signed),
        **meaning,
    )


def _is_signed(dataset: Dataset, samples: int) -> bool:
    """Returns whether stored values have a sign: colours have none, whatever is written (PS3.3 C.7.6.3.1.2)."""
    return samples == 1 and get_number(dataset, "PixelRepresentation") == 1


def _coding(dataset: Dataset, syntax: str, pixels: PixelValue, header: PixelHeader) -> Coding:
    allocated = get_number(dataset, "BitsAllocated") or 8
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        tables = [get_value(dataset, key) for key in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
        if not all(isinstance(table, bytes) and len(table) == 8 * header.frames for table in tables):
            raise refusal(f"{header.frames} extended offsets, and as many lengths", "another number")
        starts, lengths = (tuple(np.frombuffer(table, "<u8").tolist()) for table in tables)
        offsets = starts, lengths
    return Coding(
        syntax=syntax,
        keyword=pixels.keyword,
        vr=pixels.vr,
        bits_allocated=allocated,
        bits_stored=get_number(dataset, "BitsStored") or allocated,
        signed=_is_signed(dataset, 1 if header.photometric == "PALETTE COLOR" else header.samples),
        planar=get_number(dataset, "PlanarConfiguration") or 0,
        offsets=offsets,
    )


def _number_of_frames(dataset: Dataset) -> int:
    frames = get_number(dataset, "NumberOfFrames") if get_value(dataset, "NumberOfFrames") not in (None, "") else 1
    if frames is None or frames < 0:
        raise refusal("a Number of Frames of at least 1", "another value")
    return frames or 1  # 0 is seen in single images


def _pixel_meaning(head: FrameHeader) -> dict[str, Any]:
    """Returns the fields of PixelHeader that each frame may state for itself: rescale and windows."""
    slope, intercept, kind = _rescale(head)
    centers = as_floats(head.get("FrameVOILUTSequence", "WindowCenter"))
    widths = as_floats(head.get("FrameVOILUTSequence", "WindowWidth"))
    pairs = min(len(centers), len(widths))
    return {
        "rescale_slope": slope,
        "rescale_intercept": intercept,
        "rescale_type": kind,
        "window_centers": centers[:pairs],
        "window_widths": widths[:pairs],
        "window_names": tuple(as_texts(head.get("FrameVOILUTSequence", "WindowCenterWidthExplanation"))[:pairs]),
        "voi_function": as_capitals(head.get("FrameVOILUTSequence", "VOILUTFunction")) or "LINEAR",
    }


def _rescale(head: FrameHeader) -> tuple[float, float, str | None]:
    """Returns slope, intercept and type: "HU" on a CT that states both and no other type (PS3.3 C.8.2.1.1).

    Raises:
        ReadError: one is stated that cannot be used: without it, the values would mean something else.
    """
    group = "PixelValueTransformationSequence"
    slope, intercept = (_rescale_number(head.get(group, key), key) for key in ("RescaleSlope", "RescaleIntercept"))
    kind = as_text(head.get(group, "RescaleType"))
    both = slope is not None and intercept is not None
    if both and kind is None and as_text(get_value(head.dataset, "Modality")) == "CT":
        kind = "HU"
    if not both and kind == "HU":
        kind = None
    return 1.0 if slope is None else slope, intercept or 0.0, kind


def _rescale_number(value: Any, keyword: str) -> float | None:
    if value is None or value == "":
        return None
    number = as_float(value)
    if number is None or abs(number) > _MAX_RESCALE:
        raise refusal(f"one number of at most {_MAX_RESCALE:g} as {keyword}", "another value")
    return number


def _lookup_table(dataset: Dataset, keyword: str, signed: bool) -> LookupTable | None:
    """Returns the first table of ``keyword`` (PS3.3 C.11.1.1.1 and C.11.2.1.1)."""
    items = get_value(dataset, keyword)
    if not items:
        return None
    descriptor, data = as_floats(get_value(items[0], "LUTDescriptor")), get_value(items[0], "LUTData")
    if len(descriptor) != 3 or not 1 <= descriptor[2] <= 16:
        raise refusal(f"a LUT Descriptor of 3 numbers, the last 1 to 16, in {keyword}", "another")
    count, first, bits = (int(value) for value in descriptor)
    count = count % 65536 or 65536
    if isinstance(data, bytes):
        width = 1 if len(data) < 2 * count else 2
        order = "<" if dataset.original_encoding[1] else ">"
        data = np.frombuffer(data[: len(data) // width * width], dtype=f"{order}u{width}")
    entries = tuple(int(value) % 65536 for value in np.atleast_1d(np.asarray([] if data is None else data))[:count])
    if len(entries) < count:
        raise refusal(f"{count} entries in {keyword}", str(len(entries)))
    if signed and first >= 32768:  # "US or SS": the sign follows what goes in
        first -= 65536
    return LookupTable(first_value=first, bits=max(bits, max(entries).bit_length()), entries=entries)


def _patient(dataset: Dataset) -> Patient:
    return Patient(
        patient_id=as_text(get_value(dataset, "PatientID")),
        sex=_one_of(Sex, as_text(get_value(dataset, "PatientSex"))),
        age_years=_age(dataset),
    )


def _age(dataset: Dataset) -> float | None:
    """Returns years by Patient's Age (nnnD, nnnW, nnnM, nnnY), else from birth to study date; ``None`` if not 0-150."""
    years = None
    text = as_text(get_value(dataset, "PatientAge")) or ""
    if text[:-1].isdecimal() and text[-1] in "DWMY":
        years = int(text[:-1]) / {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}[text[-1]]
    else:
        birth, study = (_date(as_text(get_value(dataset, key))) for key in ("PatientBirthDate", "StudyDate"))
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
    if view := _VIEWS.get((as_text(get_value(dataset, "ViewPosition")) or "").upper()):
        return view
    for item in get_value(dataset, "ViewCodeSequence") or ():
        if view := _VIEW_CODES.get(as_text(get_value(item, "CodeValue")) or ""):
            return view
    return None


def _for_processing(dataset: Dataset) -> bool:
    stated = (as_text(get_value(dataset, "PresentationIntentType")) or "").upper()
    return stated == "FOR PROCESSING" or UID(get_uid(dataset, "SOPClassUID") or "").name.endswith("For Processing")


def _is_image_class(name: str) -> bool:
    # Names of PS3.6 Annex A: these classes hold pixels, so that one without any was cut short.
    words = ("Image Storage", "Segmentation Storage", "RT Dose Storage", "Parametric Map Storage")
    return any(word in name for word in words) and "Surface" not in name


def _one_of(kind: Any, text: str | None) -> Any:
    return kind(text) if text in {member.value for member in kind} else None


def _as_stored(value: int | None, signed: bool) -> int | None:
    """Returns a "US or SS" value as the pixels hold it: -2000 may be written as 63536."""
    if value is None:
        return None
    return value - 65536 if signed and value >= 32768 else value + 65536 if not signed and value < 0 else value


def _bad(source: Source, found: str) -> ReadError:
    return ReadError(source.name, expected="a complete DICOM file", found=found, fix="copy or export it again")
