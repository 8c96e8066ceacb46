"""Identity in pixels: which objects may show it, and what of it is blanked on request.

Blanking is help for a person who looks, never a proof: whatever was blanked stays among the objects that are not clean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, ExplicitVRLittleEndian

from mmfm.errors import ConfigError

MIN_TEXT = 3
"""Characters of a text that is blanked: shorter ones are markers of a side."""
OCR_FRAMES = 3
"""Frames of one object that are searched for text; what is found on one is blanked on all."""
OCR_MARGIN = 4
"""Pixels around a text that are blanked with it."""

_MARKERS = re.compile(
    r"(?:[LR]|LEFT|RIGHT|PORTABLE|ERECT|SUPINE|UPRIGHT|AP|PA|LAT|LATERAL|SEMI|DECUBITUS)+", re.IGNORECASE
)
_DOCUMENT = re.compile(r"Encapsulated")
_PICTURE = re.compile(r"Secondary Capture|Ultrasound|VL |Video|Photograph|Raw Data")
_SCREEN = re.compile(r"SCREEN|CAPTURE|LABEL|OVERVIEW")


def may_show_identity(dataset: Dataset) -> str | None:
    """Returns why pixels or document may show who the patient is, ``None`` where nothing says so."""
    sop_class = UID(str(dataset.get("SOPClassUID", ""))).name
    modality = str(dataset.get("Modality", ""))
    image_type = [part.upper() for part in str(dataset.get("ImageType") or "").strip("[]").replace("'", "").split(", ")]
    burned_in = str(dataset.get("BurnedInAnnotation", "")).strip().upper()
    if burned_in == "YES":
        return "burned-in annotation"
    if str(dataset.get("RecognizableVisualFeatures", "")).strip().upper() == "YES":
        return "recognizable visual features"
    if _DOCUMENT.search(sop_class):
        return "encapsulated document"
    if modality in ("US", "IVUS") or "Ultrasound" in sop_class:
        return "ultrasound"
    if _PICTURE.search(sop_class) or "ConversionType" in dataset or modality in ("XC", "ES", "GM", "DOC", "SC"):
        return "secondary capture or photograph"
    if any(_SCREEN.search(part) for part in image_type):
        return "screenshot"
    if image_type[:2] == ["DERIVED", "SECONDARY"] and burned_in != "NO":
        return "derived image that does not say whether it is annotated"
    if any(tag >> 24 == 0x60 and tag & 0xFFFF == 0x0102 and int(dataset[tag].value or 0) for tag in dataset.keys()):  # noqa: SIM118
        return "overlay inside the pixels"
    return None


def strip_pixels(dataset: Dataset) -> None:
    """Takes out of the pixel element what is no pixel: bytes behind the last one, and comments of JPEG streams."""
    if "PixelData" not in dataset or not dataset.PixelData:
        return
    if not UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
        bits = (
            dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * int(dataset.get("NumberOfFrames") or 1)
        )
        bits *= dataset.BitsAllocated
        length = (bits + 7) // 8
        if length < len(dataset.PixelData) and "422" not in str(dataset.get("PhotometricInterpretation")):
            dataset.PixelData = dataset.PixelData[:length] + b"\0" * (length % 2)
        return
    frames = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))
    stripped = [_without_comments(frame) for frame in frames]
    if stripped != frames and "ExtendedOffsetTable" not in dataset:
        dataset.PixelData = encapsulate(stripped)


def _without_comments(frame: bytes) -> bytes:
    """Returns a JPEG, JPEG-LS or JPEG 2000 stream without comments and application segments, JFIF and Adobe apart."""
    comments = {b"\xff\xd8": {0xFE, *range(0xE1, 0xEE), 0xEF}, b"\xff\x4f": {0x64}}.get(frame[:2])
    if comments is None:
        return frame
    kept, at = bytearray(frame[:2]), 2
    while at + 4 <= len(frame) and frame[at] == 0xFF and frame[at + 1] not in (0xDA, 0x90, 0xD9):
        end = at + 2 + int.from_bytes(frame[at + 2 : at + 4])
        if frame[at + 1] not in comments:
            kept += frame[at:end]
        at = end
    whole = bytes(kept + frame[at:])
    return whole + b"\0" * (len(whole) % 2)


def clean_pixels(dataset: Dataset) -> int:
    """Blanks what is around the regions of an ultrasound image, and text that OCR finds; returns how many boxes.

    The pixels are decompressed where anything is blanked. Markers of side and position stay.

    Raises:
        ConfigError: the packages for OCR are not installed.
    """
    if "PixelData" not in dataset:
        return 0
    engine = _ocr()
    opened = Dataset()
    opened.update(dataset)
    opened.file_meta = type(dataset.file_meta)()
    opened.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    if UID(opened.file_meta.TransferSyntaxUID).is_encapsulated:
        opened.set_original_encoding(False, True)
        opened.decompress(as_rgb=True, generate_instance_uid=False)
    if opened.BitsAllocated not in (8, 16):
        return 0
    frames = _frames(opened).copy()
    regions = list(_regions(dataset))
    boxes = list(_texts(engine, frames))
    blank = np.zeros(frames.shape[1:3], dtype=bool)
    if regions:
        blank[:] = True
        for left, top, right, bottom in regions:
            blank[top : bottom + 1, left : right + 1] = False
    for left, top, right, bottom in boxes:
        blank[top:bottom, left:right] = True
    if not blank.any():
        return 0
    frames[:, blank] = frames.min()
    if opened.get("PlanarConfiguration") == 1 and frames.shape[3] > 1:
        frames = frames.transpose(0, 3, 1, 2)
    content = frames.tobytes()
    for keyword in ("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit"):
        if keyword in opened:
            dataset[keyword] = opened[keyword]
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OW" if opened.BitsAllocated == 16 else "OB"
    dataset["PixelData"].is_undefined_length = False
    if UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            dataset.pop(keyword, None)
    dataset.BurnedInAnnotation = "YES"  # until a person has looked
    return len(boxes) + bool(regions)


def _frames(dataset: Dataset) -> np.ndarray:
    """Returns the stored values (frames, rows, columns, samples) of native pixels of 8 or 16 bits."""
    samples, frames = int(dataset.get("SamplesPerPixel", 1)), int(dataset.get("NumberOfFrames") or 1)
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    kind = (
        "u1"
        if dataset.BitsAllocated == 8
        else ("<" if little else ">") + ("i2" if dataset.PixelRepresentation else "u2")
    )
    count = dataset.Rows * dataset.Columns * samples * frames
    values = np.frombuffer(dataset.PixelData, dtype=kind, count=count)
    if samples > 1 and dataset.get("PlanarConfiguration") == 1:
        return values.reshape(frames, samples, dataset.Rows, dataset.Columns).transpose(0, 2, 3, 1)
    return values.reshape(frames, dataset.Rows, dataset.Columns, samples)


def _regions(dataset: Dataset) -> Iterator[tuple[int, int, int, int]]:
    """Yields left, top, right, bottom of the ultrasound regions (PS3.3 C.8.5.5): the device writes around them."""
    for item in dataset.get("SequenceOfUltrasoundRegions") or ():
        left, top = int(item.RegionLocationMinX0), int(item.RegionLocationMinY0)
        yield left, top, int(item.RegionLocationMaxX1), int(item.RegionLocationMaxY1)


def _texts(engine: Any, frames: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Yields left, top, right, bottom of each text that is no marker, on some of the frames."""
    chosen = sorted({round(place) for place in np.linspace(0, len(frames) - 1, OCR_FRAMES)})
    for number in chosen:
        picture = frames[number].astype(float)
        low, high = picture.min(), picture.max()
        if high == low:
            continue
        grey = (255 * (picture - low) / (high - low)).astype(np.uint8)
        found = engine(np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey)
        for box, text in zip(found.boxes if found.boxes is not None else (), found.txts or (), strict=True):
            letters = re.sub(r"[\W_]", "", text)
            if len(letters) < MIN_TEXT or _MARKERS.fullmatch(letters):
                continue
            left, top = np.floor(box.min(axis=0)).astype(int) - OCR_MARGIN
            right, bottom = np.ceil(box.max(axis=0)).astype(int) + OCR_MARGIN
            yield max(left, 0), max(top, 0), right, bottom


@cache
def _ocr() -> Any:
    try:
        import rapidocr
    except ImportError as error:
        raise ConfigError(
            "--clean pixel-data",
            expected="the packages rapidocr and onnxruntime",
            found=f"no {error.name}",
            fix="install mmfm[deid]",
        ) from None
    return rapidocr.RapidOCR(params={"Global.log_level": "critical"})
