"""What each frame of an object states for itself: its place, and what tells the volumes of one object apart.

Functional groups of enhanced objects (PS3.3 C.7.6.16), and the vectors of RT Dose and reconstructed NM.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from mmfm.io.elements import MAX_MM, as_float, as_floats, as_floats_of, as_texts, get_value, refusal, tag_of
from mmfm.study import POSITION_TOLERANCE_MM, Frame, Geometry, PixelHeader

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


@dataclass(frozen=True)
class FrameHeader:
    """The header as it holds for one frame, or for all of them."""

    dataset: Dataset
    groups: tuple[Dataset, ...]
    """Functional groups, the frame's own before those that all frames share (PS3.3 C.7.6.16)."""

    def get(self, group: str, keyword: str) -> Any:
        """Returns ``keyword`` from the functional group ``group``, else from the data set as in a classic object."""
        for groups in self.groups:
            items = get_value(groups, group)
            value = get_value(items[0], keyword) if items else None
            if value is not None:
                return value
        return get_value(self.dataset, keyword)


def frame_headers(dataset: Dataset, frames: int) -> list[FrameHeader]:
    """Returns one header for each frame in stored order; a single one where frames state nothing for themselves."""
    shared = tuple(get_value(dataset, "SharedFunctionalGroupsSequence") or ())[:1]
    own = tuple(get_value(dataset, "PerFrameFunctionalGroupsSequence") or ())
    if len(own) != frames:
        own = ()  # whose frame an item is of cannot be known: the frames have no place
    return [FrameHeader(dataset, (one, *shared)) for one in own] or [FrameHeader(dataset, shared)]


def unmatched_groups(dataset: Dataset, frames: int) -> tuple[str, ...]:
    """Returns a warning where functional groups are there for another number of frames.

    Raises:
        ReadError: they rescale the values.
    """
    own = get_value(dataset, "PerFrameFunctionalGroupsSequence") or ()
    if len(own) in (0, frames):
        return ()
    if any(get_value(groups, "PixelValueTransformationSequence") for groups in own):
        raise refusal(f"functional groups with the rescale of {frames} frames", f"those of {len(own)}")
    return (f"functional groups of {len(own)} frames beside {frames} stored: what they say of each is not read",)


def frame_kind(head: FrameHeader) -> tuple[tuple[str, str], ...]:
    """Returns what the slices of one volume share, as ``Frame.kind`` has it."""
    found: dict[str, str] = {}
    for name, group, keyword in _KINDS if head.groups else ():
        value = head.get(group, keyword)
        numbers = as_floats(value)
        text = " ".join(f"{number:g}" for number in numbers) or "\\".join(as_texts(value))
        if keyword == "StackID" and text and not (len(text) < 4 and text.isdecimal()):
            text = f"{zlib.crc32(text.encode()):08x}"  # free text, which messages must not repeat
        if text:
            found.setdefault(name, text)
    return tuple(found.items())


def frame_passes(dataset: Dataset, frames: int) -> tuple[tuple[float, ...], ...]:
    """Returns the Dimension Index Values (0020,9157) of each frame; empty where not all have as many."""
    stated = [
        as_floats(head.get("FrameContentSequence", "DimensionIndexValues")) for head in frame_headers(dataset, frames)
    ]
    alike = len(stated) == frames and len({len(values) for values in stated}) == 1
    return tuple(stated) if alike else ()


def geometry_of(head: FrameHeader) -> Geometry:
    """Returns where a frame lies, as far as its header says so in numbers that can be used."""
    spacing, spacing_source = _spacing(head)
    position = head.get("PlanePositionSequence", "ImagePositionPatient")
    orientation = head.get("PlaneOrientationSequence", "ImageOrientationPatient")
    if position is None and (detectors := get_value(head.dataset, "DetectorInformationSequence")):
        # Reconstructed NM states the place of its first slice with the detector (PS3.3 C.8.4.11).
        position, orientation = (
            get_value(detectors[0], key) for key in ("ImagePositionPatient", "ImageOrientationPatient")
        )
    thickness = as_floats_of(head.get("PixelMeasuresSequence", "SliceThickness"), 1)
    return Geometry(
        position=as_floats_of(position, 3),
        orientation=as_floats_of(orientation, 6),
        pixel_spacing=spacing,
        spacing_source=spacing_source,
        slice_thickness=thickness[0] if thickness else None,
    )


def _spacing(head: FrameHeader) -> tuple[tuple[float, float] | None, str | None]:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        if spacing := as_floats_of(head.get("PixelMeasuresSequence", keyword), 2):
            return spacing, keyword
    return None, None


def frames_by_vector(dataset: Dataset, header: PixelHeader, first: Geometry) -> tuple[Frame, ...]:
    """Returns the frames of objects that list where they lie along the normal of the first: RT Dose, tomographic NM.

    None where a list is incomplete, or where frames differ in more than place and phase.
    """
    if header.frames < 2:
        return ()
    kinds: list[tuple[tuple[str, str], ...]] = []
    if get_value(dataset, "GridFrameOffsetVector") is not None:
        along = _dose_offsets(dataset, first)
    else:
        along, kinds = _tomographic_offsets(dataset, header.frames)
    if len(along) != header.frames or first.position is None or first.orientation is None:
        return ()
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    places = np.add(first.position, np.multiply.outer(along, normal)).tolist()
    if not np.all(np.abs(places) <= MAX_MM):
        return ()
    pixels = replace(header, frames=1)
    return tuple(
        Frame(pixels=pixels, geometry=replace(first, position=tuple(place)), kind=kind)
        for place, kind in zip(places, kinds or [()] * len(places), strict=True)
    )


def _dose_offsets(dataset: Dataset, first: Geometry) -> tuple[float, ...]:
    """Returns mm from the first frame by Grid Frame Offset Vector (PS3.3 C.8.8.3.2): relative, or z of axial frames."""
    offsets = as_floats(get_value(dataset, "GridFrameOffsetVector"))
    if not offsets or offsets[0] == 0:
        return offsets
    axial = first.orientation is not None and np.allclose(first.orientation, (1, 0, 0, 0, 1, 0), 0, 1e-3)
    if axial and first.position is not None and abs(offsets[0] - first.position[2]) < POSITION_TOLERANCE_MM:
        return tuple(offset - offsets[0] for offset in offsets)
    return ()


def _tomographic_offsets(dataset: Dataset, frames: int) -> tuple[tuple[float, ...], list[tuple[tuple[str, str], ...]]]:
    """Returns mm from slice 1 by Slice Vector and Spacing Between Slices (PS3.3 C.8.4.8, C.8.4.15), and the phases."""
    value = get_value(dataset, "FrameIncrementPointer")
    pointers = [int(tag) for tag in (value if isinstance(value, (list, MultiValue)) else [value]) if tag is not None]
    names = {"SliceVector": "", "RRIntervalVector": "R-R interval", "TimeSlotVector": "time slot"}
    spacing = as_float(get_value(dataset, "SpacingBetweenSlices"))
    kind = [
        text for text in as_texts(get_value(dataset, "ImageType"))[2:3] if text in ("RECON TOMO", "RECON GATED TOMO")
    ]
    vectors = {names[key]: as_floats(get_value(dataset, key)) for key in names if tag_of(key) in pointers}
    if not kind or not spacing or len(vectors) != len(pointers) or "" not in vectors:
        return (), []
    if any(len(vector) != frames for vector in vectors.values()):
        return (), []
    along = tuple(spacing * (number - 1) for number in vectors.pop(""))
    return along, [tuple((name, f"{vector[i]:g}") for name, vector in vectors.items()) for i in range(frames)]
