"""Identity in pixels: which objects may show it, and what of it is blanked on request.

Blanking is help for a person who looks, never a proof: whatever was blanked stays among the objects that are not clean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
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
_PICTURE = re.compile(r"Secondary Capture|Hardcopy|VL |Video|Photograph|Raw Data")
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
    if "Audio" in sop_class:
        return "voice"
    if modality in ("US", "IVUS") or "Ultrasound" in sop_class:
        return "ultrasound"
    if _PICTURE.search(sop_class) or "ConversionType" in dataset or modality in ("XC", "ES", "GM", "DOC", "SC"):
        return "secondary capture or photograph"
    if any(_SCREEN.search(part) for part in image_type):
        return "screenshot"
    if image_type[:2] == ["DERIVED", "SECONDARY"] and burned_in != "NO":
        return "derived image that does not say whether it is annotated"
    if _has_overlay_in_pixels(dataset):
        return "overlay inside the pixels"
    return None


def _has_overlay_in_pixels(dataset: Dataset) -> bool:
    """Whether a group 60xx describes an overlay whose bits stand beside those of the pixels (PS3.3 C.9.2, retired)."""
    groups = {tag >> 16 for tag in map(int, dataset.keys()) if tag >> 24 == 0x60}
    return any(
        str(dataset[group << 16 | 0x0102].value or 0) != "0"
        if group << 16 | 0x0102 in dataset
        else group << 16 | 0x3000 not in dataset
        for group in groups
    )


def is_searchable(dataset: Dataset) -> bool:
    """Returns whether ``clean_pixels`` can look at the pixels of ``dataset``."""
    return "PixelData" in dataset and dataset.get("BitsAllocated") in (8, 16)


def clean_pixels(dataset: Dataset, load: Callable[[], np.ndarray]) -> int:
    """Blanks what is around the regions of an ultrasound image, and text that OCR finds; returns how many boxes.

    The pixels are written without compression, colours as RGB, where anything is blanked. Markers of side and position
    stay.

    Args:
        dataset: changed in place.
        load: decodes its pixels, as ``Instance.load`` does.

    Raises:
        ConfigError: the packages for OCR are not installed.
        ReadError: the pixels cannot be decoded.
    """
    engine = _ocr()
    if not is_searchable(dataset):
        return 0
    values = load()
    frames = values.reshape(*values.shape[:3], -1).copy()
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
    _put(dataset, frames)
    dataset.BurnedInAnnotation = "YES"  # until a person has looked
    return len(boxes) + bool(regions)


def _put(dataset: Dataset, frames: np.ndarray) -> None:
    """Writes (frames, rows, columns, samples) as the pixels of ``dataset``, not compressed."""
    bits = 8 * frames.dtype.itemsize
    if frames.shape[3] == 3:
        for tag in [tag for tag in dataset.keys() if "PaletteColorLookupTable" in keyword_for_tag(tag)]:  # noqa: SIM118
            del dataset[tag]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = bits
    dataset.BitsStored = min(int(dataset.BitsStored), bits)
    dataset.HighBit = dataset.BitsStored - 1
    if UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    little = UID(dataset.file_meta.TransferSyntaxUID).is_little_endian
    content = frames.astype(frames.dtype.newbyteorder("<" if little else ">")).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    dataset["PixelData"].is_undefined_length = False


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
