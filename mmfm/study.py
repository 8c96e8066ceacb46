"""Patient > Study > Series > Instance, and the Receipt that says what preprocessing did.

The DICOM hierarchy as frozen values, whatever format the files had. Headers are values and round-trip to JSON;
pixels stay on disk behind ``Instance.load``, which ``mmfm.io`` attaches and JSON leaves out. Nothing here knows a
file format.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from mmfm.jsonable import from_json, to_json

ORIENTATION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine within a volume, and of unit length and right angle within a slice."""
SPACING_TOLERANCE_MM = 1e-3
"""Largest difference of the spacing between pixels within a volume."""
POSITION_TOLERANCE_MM = 1e-2
"""Slices nearer than this share a position."""


class ViewPosition(StrEnum):
    """DICOM View Position (0018,5101) of a radiograph; ``frontal`` / ``lateral`` where a source says only that."""

    PA = "PA"
    AP = "AP"
    LL = "LL"
    RL = "RL"
    LLD = "LLD"
    RLD = "RLD"
    FRONTAL = "frontal"
    LATERAL = "lateral"

    @property
    def is_lateral(self) -> bool:
        """Whether the beam crossed the patient from side to side (decubitus views are frontal)."""
        return self in (ViewPosition.LL, ViewPosition.RL, ViewPosition.LATERAL)


class Laterality(StrEnum):
    """DICOM Laterality (0020,0060): the patient's own side. ``U`` is unpaired, ``B`` both."""

    LEFT = "L"
    RIGHT = "R"
    BOTH = "B"
    UNPAIRED = "U"


class Sex(StrEnum):
    """DICOM Patient's Sex (0010,0040)."""

    FEMALE = "F"
    MALE = "M"
    OTHER = "O"


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Who the study is of, as far as a model may know it. No name, no birth date."""

    patient_id: str | None = None
    sex: Sex | None = None
    age_years: float | None = None

    def __post_init__(self) -> None:
        if self.age_years is not None and not 0 <= self.age_years <= 150:
            raise ValueError(f"age_years: expected 0 to 150, found {self.age_years}")


@dataclass(frozen=True, kw_only=True)
class LookupTable:
    """A DICOM LUT: Modality LUT Sequence (0028,3000) or VOI LUT Sequence (0028,3010) item, PS3.3 C.11."""

    first_value: int
    """First input value mapped."""
    bits: int
    """Bits of each entry as LUT Descriptor states them."""
    entries: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.entries:
            raise ValueError("entries: expected at least one, found none")


@dataclass(frozen=True, kw_only=True)
class PixelHeader:
    """What turns stored values into meaning: DICOM Image Pixel, Modality LUT and VOI LUT modules (PS3.3 C.7.6.3, C.11).

    Palette and YBR colours are already RGB when ``Instance.load`` returns them.
    """

    rows: int
    columns: int
    frames: int = 1
    samples: int = 1
    """1 grey, 3 colour (RGB as loaded)."""
    bits_stored: int = 8
    signed: bool = False
    photometric: str = "MONOCHROME2"
    rescale_slope: float = 1.0
    rescale_intercept: float = 0.0
    rescale_type: str | None = None
    modality_lut: LookupTable | None = None
    window_centers: tuple[float, ...] = ()
    window_widths: tuple[float, ...] = ()
    window_names: tuple[str, ...] = ()
    voi_function: str = "LINEAR"
    """LINEAR, LINEAR_EXACT or SIGMOID (PS3.3 C.11.2.1.2)."""
    voi_lut: LookupTable | None = None
    presentation_inverse: bool = False
    """Presentation LUT Shape (2050,0020) is INVERSE."""
    padding_value: int | None = None
    padding_limit: int | None = None
    """Pixel Padding Range Limit (0028,0121)."""

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.frames) < 1:
            raise ValueError(f"rows, columns, frames: expected >= 1, found {self.rows}, {self.columns}, {self.frames}")
        if self.samples not in (1, 3):
            raise ValueError(f"samples: expected 1 or 3, found {self.samples}")
        if len(self.window_centers) != len(self.window_widths):
            raise ValueError("window_centers and window_widths: expected equal lengths")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Image Plane module (PS3.3 C.7.6.2), patient coordinates LPS in millimetres."""

    position: tuple[float, float, float] | None = None
    """Centre of the first pixel transmitted, LPS mm."""
    orientation: tuple[float, float, float, float, float, float] | None = None
    """Direction cosines of a row (along columns), then of a column (along rows)."""
    pixel_spacing: tuple[float, float] | None = None
    """(between rows, between columns), mm."""
    spacing_source: str | None = None
    """Tag that gave the spacing: PixelSpacing, or ImagerPixelSpacing (at the detector, not in the patient)."""
    slice_thickness: float | None = None

    def __post_init__(self) -> None:
        for name in ("position", "orientation", "pixel_spacing"):
            value = getattr(self, name)
            if value is not None and not all(math.isfinite(v) for v in value):
                raise ValueError(f"{name}: expected finite numbers, found {value}")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What one frame of a multi-frame instance states for itself: DICOM functional groups (PS3.3 C.7.6.16)."""

    pixels: PixelHeader
    geometry: Geometry = Geometry()
    kind: tuple[tuple[str, str], ...] = ()
    """What the slices of one volume share, as (name, value): ("stack", "1"), ("b-value (s/mm2)", "1000")."""

    def __post_init__(self) -> None:
        if self.pixels.frames != 1:
            raise ValueError(f"pixels.frames: expected 1, found {self.pixels.frames}")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One image object: headers now, pixels when ``load()`` is called."""

    sop_instance_uid: str
    pixels: PixelHeader
    """Of the first frame, but for the number of frames, where ``frames`` states them one by one."""
    geometry: Geometry = Geometry()
    """Of the first frame where ``frames`` states them one by one."""
    kind: tuple[tuple[str, str], ...] = ()
    """As in ``Frame``, where the instance has one frame."""
    frames: tuple[Frame, ...] = ()
    """In stored order; empty where there is one frame, or where frames state nothing for themselves."""
    number: int | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    """4x4, (frame, row, column, 1) -> LPS mm, of a format that states it whole (NIfTI) instead of ``geometry``."""
    patient_orientation: tuple[str, ...] = ()
    """Patient Orientation (0020,0020): directions of rows and of columns, such as ("L", "F")."""
    image_type: tuple[str, ...] = ()
    for_processing: bool = False
    """Raw detector data by Presentation Intent Type (0008,0068) or by the SOP class: not made to be looked at."""
    overlays: int = 0
    """Overlay planes (60xx, PS3.3 C.9.2): drawings over the picture, which are not read."""
    notes: tuple[str, ...] = ()
    """What its header states and could not be read: warnings for the receipt."""
    load: Callable[[], np.ndarray] | None = field(default=None, compare=False, repr=False, metadata={"json": False})
    """Returns stored values, (frames, rows, columns) or (frames, rows, columns, 3). ``None`` after JSON."""

    def __post_init__(self) -> None:
        if not self.sop_instance_uid:
            raise ValueError("sop_instance_uid: expected text, found none")
        if self.affine is not None and [len(row) for row in self.affine] != [4, 4, 4, 4]:
            raise ValueError("affine: expected 4 rows of 4")
        if len(self.frames) not in (0, self.pixels.frames):
            raise ValueError(f"frames: expected none or {self.pixels.frames}, found {len(self.frames)}")

    @property
    def is_localizer(self) -> bool:
        """Whether Image Type (0008,0008) calls it a scout that was made to plan other images."""
        return "LOCALIZER" in self.image_type

    @property
    def is_mosaic(self) -> bool:
        """Whether Image Type calls it a mosaic: many slices side by side in one picture."""
        return "MOSAIC" in self.image_type

    @property
    def is_screenshot(self) -> bool:
        """Whether Image Type calls it both derived and secondary: a picture of pictures, with no values of its own."""
        return self.image_type[:2] == ("DERIVED", "SECONDARY")


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """What headers state of how a series was made, as far as it tells series of one study apart."""

    contrast: bool | None = None
    """Whether Contrast/Bolus Agent (0018,0010) names one; ``False`` where it says that there was none."""
    kernel: str | None = None
    """Convolution Kernel (0018,1210) of a CT, as written there."""
    repetition_time: float | None = None
    """ms, (0018,0080)."""
    echo_time: float | None = None
    """ms, (0018,0081)."""
    inversion_time: float | None = None
    """ms, (0018,0082)."""
    scanning_sequence: tuple[str, ...] = ()
    """Scanning Sequence (0018,0020): SE spin echo, IR inversion recovery, GR gradient echo, EP echo planar, RM."""
    sequence_variant: tuple[str, ...] = ()
    """Sequence Variant (0018,0021): SK, MTC, SS, TRSS, SP, MP, OSP."""
    b_value: float | None = None
    """s/mm2, (0018,9087)."""
    component: str | None = None
    """MAGNITUDE, PHASE, REAL, IMAGINARY or MIXED of an MR, by (0008,9208) or Image Type; MIXED where slices differ."""
    protocol: str | None = None
    """Protocol Name (0018,1030), as written there: free text, never shown."""
    number: int | None = None
    """Series Number (0020,0011)."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Instances that were acquired together."""

    series_uid: str
    instances: tuple[Instance, ...]
    modality: str | None = None
    """DICOM Modality (0008,0060) such as CR, DX, CT, MR; ``None`` where nothing states it."""
    view: ViewPosition | None = None
    laterality: Laterality | None = None
    body_part: str | None = None
    """Body Part Examined (0018,0015), as written there."""
    description: str | None = None
    """Series Description (0008,103E), or the stem of the name of a NIfTI file: free text, never shown."""
    acquisition: Acquisition = Acquisition()
    source_format: str = "DICOM"
    """DICOM, NIFTI, PNG or JPEG."""
    sha256: str | None = None
    """Of its file or files, where a manifest states it."""

    def __post_init__(self) -> None:
        if not self.instances:
            raise ValueError("instances: expected at least one, found none")
        uids = [i.sop_instance_uid for i in self.instances]
        if len(set(uids)) != len(uids):
            raise ValueError("instances: expected distinct sop_instance_uid, found a repeated one")


@dataclass(frozen=True, kw_only=True)
class Study:
    """All series of one examination of one patient."""

    study_uid: str
    series: tuple[Series, ...]
    patient: Patient = Patient()
    indication: str | None = None
    description: str | None = None

    def __post_init__(self) -> None:
        if not self.study_uid:
            raise ValueError("study_uid: expected text, found none")
        if not self.series:
            raise ValueError("series: expected at least one, found none")
        uids = [s.series_uid for s in self.series]
        if len(set(uids)) != len(uids):
            raise ValueError("series: expected distinct series_uid, found a repeated one")

    def to_json(self) -> dict[str, Any]:
        """Returns the headers as JSON values; ``load`` is left out."""
        return to_json(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Study:
        """Returns the study of ``to_json``; its pixels must be attached again by ``mmfm.io``."""
        return from_json(cls, value)


@dataclass(frozen=True, kw_only=True)
class DroppedSlice:
    """An instance that was not used, and why."""

    sop_instance_uid: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What preprocessing did to one series: for a radiologist to read and a program to parse."""

    series_uid: str
    source_format: str
    modality: str | None = None
    view: ViewPosition | None = None
    shape: tuple[int, ...]
    """(slices, rows, columns) of the Volume, or (slices, rows, columns, 3)."""
    quantity: str
    """What the Volume's numbers are: ``display`` (0 black to 1 white), ``HU`` or ``stored``."""
    affine: tuple[tuple[float, ...], ...] | None = None
    """4x4, (slice, row, column, 1) -> LPS mm; ``None`` where the geometry is not stated."""
    spacing: tuple[float, float, float] | None = None
    """(slice, row, column) mm; ``None`` where not stated."""
    uneven_steps: tuple[float, ...] = ()
    """mm from a slice to the next along the normal, where that differs from the usual one, which is in ``spacing``."""
    sideways_mm: float = 0.0
    """How far a slice lies, at most, beside the line from the first to the last, on which the affine puts them all."""
    orientation: str
    """Direction of slices, rows and columns in patient letters such as "SPL", or "not stated"."""
    window: str
    """The window or LUT applied, with its source, or "none"."""
    inverted: bool = False
    """MONOCHROME1 or an inverse presentation was turned so that more is brighter."""
    steps: tuple[str, ...] = ()
    """Everything done after decoding, in order."""
    slices_used: int
    slices_dropped: tuple[DroppedSlice, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the receipt as JSON values."""
        return to_json(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Receipt:
        """Returns the receipt of ``to_json``."""
        return from_json(cls, value)
