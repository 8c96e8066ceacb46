"""Drawn volumes as DICOM: each image one series of slices, in any plane and order, and the segmentation beside them.

    written = write_dicom(drawn, folder)
    write_dicom(drawn, other_folder, writing=Writing(orientation="coronal", oblique_degrees=12, reverse=True))

The second study shows the same patient as the first one does, every voxel at its place in millimetres.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, SegmentationStorage
from pydicom.valuerep import format_number_as_ds
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mmfm.data.synthetic_volumes.drawing import DrawnVolume, Segment
from mmfm.errors import ConfigError
from mmfm.imaging import Volume
from mmfm.imaging.transforms import map_points, reorient

ORIENTATIONS = {"axial": "SPL", "coronal": "PIL", "sagittal": "RIP"}
"""Where slices, rows and columns of each plane run, as ``mmfm.imaging.reorient`` names it."""

_STORED_PADDING, _INTERCEPT = -2000, -1024
"""CT, int16: what lies outside of the drawn volume has a value that no tissue has."""
_STUDIES = {
    "chest_ct": ("CT", "CHEST", "CT chest", ([-600, 40], [1500, 400])),
    "abdomen": ("CT", "ABDOMEN", "CT abdomen", ([40, 90], [400, 150])),
    "head": ("MR", "HEAD", "MRI brain", None),
}
"""Modality, BodyPartExamined, StudyDescription, windows."""
_SEQUENCES: dict[str, dict[str, object]] = {
    "T1": {"ScanningSequence": "SE", "SequenceVariant": "NONE", "RepetitionTime": 550, "EchoTime": 12},
    "T2": {"ScanningSequence": "SE", "SequenceVariant": "SK", "RepetitionTime": 4500, "EchoTime": 100},
    "FLAIR": {
        "ScanningSequence": ["SE", "IR"],
        "SequenceVariant": "SK",
        "RepetitionTime": 9000,
        "EchoTime": 120,
        "InversionTime": 2500,
    },
    "DWI": {
        "ScanningSequence": "EP",
        "SequenceVariant": "SK",
        "RepetitionTime": 5200,
        "EchoTime": 90,
        "DiffusionBValue": 1000.0,
    },
}
"""Times in ms and s/mm2 that are usual at 3 T."""
_ECHOES = {"T1": 1, "T2": 15, "FLAIR": 20, "DWI": 1}
_CODES = {
    "nodule": ("27925004", "Nodule"),
    "brain_mass": ("4147007", "Mass"),
    "infarct": ("55641003", "Infarct"),
    "intracranial_hemorrhage": ("50960005", "Hemorrhage"),
    "fracture": ("72704001", "Fracture"),
    "pleural_effusion": ("41699000", "Effusion"),
    "pneumothorax": ("36118008", "Pneumothorax"),
    "hydrocephalus": ("230745008", "Hydrocephalus"),
}
"""SNOMED CT; all others are a "Lesion", and the label of the segment says which."""
_WRITING_STREAM = 1_002
"""Of random numbers, beside those that are drawn from the same seed."""
_DATE, _TIME = "20000101", "000000"
"""Where the standard wants one; the same files are written on every day."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """In which planes and order a drawn volume is written."""

    orientation: str = "axial"
    """``axial``, ``coronal`` or ``sagittal``."""
    oblique_degrees: float = 0.0
    """Turns the planes about the diagonal of the patient's axes, so that none of them is parallel to one."""
    tilt_degrees: float = 0.0
    """Of the gantry: planes turned about the direction of their columns' index, each still above the other: sheared."""
    spacing: tuple[float, float, float] | None = None
    """(slice, row, column) mm, slices measured along their normal; ``None`` as drawn. To keep a lesion visible, not
    above half of its diameter."""
    reverse: bool = False
    """Instance numbers run against the slice normal, and the names of the files are in no order."""
    localizer: bool = False
    """A series of two planning images, frontal and lateral, stands before the others."""

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("orientation", self.orientation in ORIENTATIONS, ", ".join(ORIENTATIONS)),
            ("oblique_degrees", abs(self.oblique_degrees) <= 45, "-45 to 45"),
            ("tilt_degrees", abs(self.tilt_degrees) <= 30, "-30 to 30"),
            ("spacing", self.spacing is None or (len(self.spacing) == 3 and min(self.spacing) > 0), "3 mm above 0"),
        ):
            if not holds:
                raise ConfigError(name, expected=expected, found=str(getattr(self, name)), fix="give another value")


def another_writing(drawn: DrawnVolume) -> Writing:
    """Returns other planes, order and spacing for a volume: never coarser than half of its smallest lesion."""
    rng = np.random.default_rng([drawn.seed, _WRITING_STREAM])
    half = min((one.diameter_mm / 2 for finding in drawn.findings for one in finding.lesions), default=np.inf)
    orientation = str(rng.choice(("axial", "coronal", "sagittal")))
    # Only the gantry of a CT tilts, about axial slices.
    tilted = orientation == "axial" and drawn.region != "head"
    between, within = (
        math.floor(100 * min(half, rng.uniform(low, high))) / 100 for low, high in ((1.8, 3), (1.2, 1.6))
    )
    return Writing(
        orientation=orientation,
        oblique_degrees=0.0 if tilted else round(rng.uniform(-15, 15), 1),
        tilt_degrees=round(rng.choice((-1, 1)) * rng.uniform(6, 18), 1) if tilted else 0.0,
        spacing=(between, within, within),
        reverse=True,
    )


@dataclass(frozen=True, kw_only=True)
class WrittenSeries:
    """One series on disk."""

    name: str
    """Of the image, such as ``CT`` or ``FLAIR``, or ``localizer``."""
    series_uid: str
    modality: str
    folder: Path
    """Holds its files and nothing else."""


@dataclass(frozen=True, kw_only=True)
class WrittenStudy:
    """One study on disk."""

    study_uid: str
    series: tuple[WrittenSeries, ...]
    segmentation: Path | None
    """DICOM SEG on the slices of the series; ``None`` where nothing is segmented."""


def write_dicom(drawn: DrawnVolume, folder: Path, *, writing: Writing = Writing()) -> WrittenStudy:
    """Writes a drawn volume as CT or MR images (PS3.3 A.3, A.4), a folder a series, and ``segmentation.dcm`` (A.51).

    Args:
        drawn: what to write.
        folder: made where absent.
        writing: planes, order and spacing; other ones than drawn are resampled, smoothed where voxels become fewer.

    Returns:
        What was written. All UIDs follow from the images and from ``writing``.
    """
    content = hashlib.sha256(repr((writing, drawn.seed, drawn.patient.patient_id)).encode())
    content.update(drawn.affine.tobytes())
    for image in drawn.images.values():
        content.update(image.tobytes())
    modality = _STUDIES[drawn.region][0]
    study_uid = _uid(content.hexdigest())
    header = _Header(drawn=drawn, writing=writing, study_uid=study_uid)
    series = []
    if writing.localizer:
        series.append(_write_localizer(header, folder / "localizer"))
    for name, image in drawn.images.items():
        volume = _placed(image, drawn.affine, writing, outside=np.nan)
        place = folder / name.lower()
        place.mkdir(parents=True, exist_ok=True)
        uid = _uid(f"{study_uid} {name}")
        number = 2 + list(drawn.images).index(name)
        stored, padded = _stored(volume.array, modality)
        assert volume.affine is not None
        count = len(stored)
        order = np.arange(count)[::-1] if writing.reverse else np.arange(count)
        names = np.random.default_rng(drawn.seed).permutation(count) if writing.reverse else order
        for instance, (index, file) in enumerate(zip(order, names, strict=True), start=1):
            ds = _slice(header, stored[index], volume.affine, int(index), padded=padded)
            ds.SOPInstanceUID = _instance_uid(uid, int(index))
            ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = uid, number, instance
            ds.SeriesDescription = f"{name} {writing.orientation}"
            ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"]
            if modality == "MR":
                _describe_sequence(ds, name)
            _save(ds, place / f"{file + 1:04}.dcm")
        series.append(WrittenSeries(name=name, series_uid=uid, modality=modality, folder=place))
    segmentation = None
    segments = _placed(drawn.segmentation, drawn.affine, writing, outside=0)
    if segments.array.any():
        first = next(one for one in series if one.name != "localizer")
        segmentation = folder / "segmentation.dcm"
        _save(_segmentation(header, segments, first.series_uid), segmentation)
    return WrittenStudy(study_uid=study_uid, series=tuple(series), segmentation=segmentation)


# ---------------------------------------------------------------------------------------------------------- geometry


def _placed(array: NDArray, affine: NDArray[np.float64], writing: Writing, *, outside: float) -> Volume:
    """Returns the array in the planes of ``writing``; labels keep their whole numbers, and a Volume holds floats."""
    volume = Volume(array=array.astype(np.float32, copy=False), affine=affine, quantity="stored")
    turned, _ = reorient(volume, ORIENTATIONS[writing.orientation])
    if writing.spacing is None and not writing.oblique_degrees and not writing.tilt_degrees:
        return turned
    assert turned.affine is not None
    lengths = np.linalg.norm(turned.affine[:3, :3], axis=0)
    turn = Rotation.from_rotvec(np.full(3, math.radians(writing.oblique_degrees) / math.sqrt(3)))
    normal, rows, columns = (turn.as_matrix() @ (turned.affine[:3, :3] / lengths)).T
    tilt = math.radians(writing.tilt_degrees)
    slice_mm, row_mm, column_mm = writing.spacing or lengths
    # The table moves along what was the normal, further than the slices are apart.
    step = normal * slice_mm / math.cos(tilt)
    rows = math.cos(tilt) * rows + math.sin(tilt) * normal
    new = np.eye(4)
    new[:3, :3] = np.stack([step, rows * row_mm, columns * column_mm], axis=1)
    # The grid covers the drawn volume to the edges of its outermost voxels, and as little else as it can.
    edges = np.array(list(product(*((-0.5, size - 0.5) for size in turned.array.shape))))
    corners = map_points(np.linalg.inv(new) @ turned.affine, edges)
    low, span = corners.min(0), np.ptp(corners, axis=0)
    shape = np.ceil(span - 1e-6).astype(int)
    new[:3, 3] = new[:3, :3] @ (low + 0.5 - (shape - span) / 2)
    matrix = np.linalg.inv(turned.affine) @ new
    whole = array.dtype == np.uint8
    source = turned.array
    if not whole:
        coarser = np.linalg.norm(matrix[:3, :3], axis=1)
        source = ndimage.gaussian_filter(source, np.maximum(0, (coarser - 1) / 2), mode="nearest")
    filled = ndimage.affine_transform(
        source, matrix[:3, :3], matrix[:3, 3], tuple(shape), order=0 if whole else 1, mode="constant", cval=outside
    )
    return replace(turned, array=filled, affine=new)


def _stored(values: NDArray[np.float32], modality: str) -> tuple[NDArray, bool]:
    """Returns stored values, and whether some of them are padding: NaN, where nothing was drawn."""
    outside = np.isnan(values)
    if modality == "MR":  # as scanners do, zero outside
        return np.rint(np.clip(np.where(outside, 0, values), 0, 65535)).astype(np.uint16), False
    stored = np.rint(np.clip(values, -1024, 3071) - _INTERCEPT)
    return np.where(outside, _STORED_PADDING, stored).astype(np.int16), bool(outside.any())


# ------------------------------------------------------------------------------------------------------------ images


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What all objects of a study share."""

    drawn: DrawnVolume
    writing: Writing
    study_uid: str

    def dataset(self, modality: str) -> Dataset:
        patient = self.drawn.patient
        _, body_part, description, _ = _STUDIES[self.drawn.region]
        ds = Dataset()
        ds.StudyInstanceUID = self.study_uid
        ds.PatientName = "Synthetic^Study"
        ds.PatientID = patient.patient_id
        ds.PatientBirthDate = ""
        ds.PatientSex = patient.sex or ""
        ds.PatientAge = "" if patient.age_years is None else f"{int(patient.age_years):03d}Y"
        ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
        ds.StudyID = "1"
        ds.StudyDescription = description
        ds.Modality = modality
        ds.BodyPartExamined = body_part
        ds.PatientPosition = "HFS"
        ds.Manufacturer = "mmfm"
        ds.ManufacturerModelName = "synthetic volumes"
        ds.FrameOfReferenceUID = _uid(f"{self.study_uid} frame of reference")
        ds.PositionReferenceIndicator = ""
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.BurnedInAnnotation = "NO"
        ds.LossyImageCompression = "00"
        return ds


def _slice(header: _Header, stored: NDArray, affine: NDArray[np.float64], index: int, *, padded: bool) -> Dataset:
    """Returns slice ``index`` as a CT or MR image, but for the elements that name its series."""
    modality, _, _, windows = _STUDIES[header.drawn.region]
    ds = header.dataset(modality)
    ds.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    ds.AcquisitionNumber = 1
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(stored.dtype == np.int16)
    ds.ImagePositionPatient = _decimals(affine[:3, 3] + index * affine[:3, 0])
    _plane(ds, ds, affine)
    if modality == "CT":
        ds.KVP = 120
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _INTERCEPT, 1, "HU"
        if padded:
            ds.add_new("PixelPaddingValue", "SS", _STORED_PADDING)
        if header.writing.tilt_degrees:
            ds.GantryDetectorTilt = _decimals([header.writing.tilt_degrees])[0]
        if header.drawn.contrast:
            ds.ContrastBolusAgent = "iodinated contrast"
        assert windows is not None
        ds.WindowCenter, ds.WindowWidth = windows
    ds.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    return ds


def _plane(orientation: Dataset, measures: Dataset, affine: NDArray[np.float64]) -> None:
    """Sets direction and spacing of the planes of an affine."""
    step, rows, columns = affine[:3, :3].T
    along = [columns / np.linalg.norm(columns), rows / np.linalg.norm(rows)]
    between = abs(step @ np.cross(*along))
    orientation.ImageOrientationPatient = _decimals(np.concatenate(along))
    measures.PixelSpacing = _decimals(np.linalg.norm([rows, columns], axis=1))
    measures.SliceThickness = measures.SpacingBetweenSlices = _decimals([between])[0]


def _describe_sequence(ds: Dataset, name: str) -> None:
    ds.ScanOptions = ""
    ds.MRAcquisitionType = "2D"
    ds.MagneticFieldStrength = 3
    ds.FlipAngle = 90
    ds.EchoTrainLength = _ECHOES[name]
    ds.SequenceName = name
    for keyword, value in _SEQUENCES[name].items():
        setattr(ds, keyword, value)


def _write_localizer(header: _Header, folder: Path) -> WrittenSeries:
    """Writes a frontal and a lateral image of every second pixel: of CT a mean, as a scout is, of MR a middle slice."""
    modality = _STUDIES[header.drawn.region][0]
    name, image = next(iter(header.drawn.images.items()))
    uid = _uid(f"{header.study_uid} localizer")
    folder.mkdir(parents=True, exist_ok=True)
    for number, orientation in enumerate(("coronal", "sagittal"), start=1):
        volume = _placed(image, header.drawn.affine, Writing(orientation=orientation), outside=0)
        middle = len(volume.array) // 2
        picture = volume.array.mean(0) if modality == "CT" else volume.array[middle]
        stored, _ = _stored(picture[::2, ::2], modality)
        assert volume.affine is not None
        ds = _slice(header, stored, volume.affine @ np.diag([1.0, 2, 2, 1]), middle, padded=False)
        ds.SOPInstanceUID = _instance_uid(uid, number)
        ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = uid, 1, number
        ds.SeriesDescription = "localizer"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        if modality == "MR":
            _describe_sequence(ds, name)
        else:
            ds.RescaleType = "US"  # a projection is in no Hounsfield units
        _save(ds, folder / f"{number:04}.dcm")
    return WrittenSeries(name="localizer", series_uid=uid, modality=modality, folder=folder)


# ------------------------------------------------------------------------------------------------------ segmentation


def _segmentation(header: _Header, labels: Volume, source_uid: str) -> Dataset:
    """Returns the segments as a binary SEG (PS3.3 A.51): a frame for each slice that a segment touches."""
    assert labels.affine is not None
    modality = _STUDIES[header.drawn.region][0]
    ds = header.dataset("SEG")
    uid = _uid(f"{header.study_uid} segmentation")
    ds.SOPClassUID = SegmentationStorage
    ds.SeriesInstanceUID, ds.SOPInstanceUID = uid, _instance_uid(uid, 0)
    ds.SeriesNumber, ds.InstanceNumber = 100, 1
    ds.SeriesDescription = "drawn truth"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0", "mmfm"
    ds.ContentDate, ds.ContentTime = _DATE, _TIME
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "TRUTH", "", ""
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SegmentationType = "BINARY"
    ds.Rows, ds.Columns = labels.array.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 1, 0, 0
    ds.SegmentSequence = [_segment(n, one) for n, one in enumerate(header.drawn.segments, start=1)]
    dimension_uid = _uid(f"{uid} dimensions")
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=dimension_uid)]
    ds.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=dimension_uid,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=group,
        )
        # Referenced Segment Number, Image Position (Patient)
        for pointer, group in ((0x0062000B, 0x0062000A), (0x00200032, 0x00209113))
    ]
    orientation, measures = Dataset(), Dataset()
    _plane(orientation, measures, labels.affine)
    ds.SharedFunctionalGroupsSequence = [
        _item(PlaneOrientationSequence=[orientation], PixelMeasuresSequence=[measures])
    ]
    sop_class = CTImageStorage if modality == "CT" else MRImageStorage

    def source(index: int) -> Dataset:
        return _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=_instance_uid(source_uid, index))

    frames, groups = [], []
    used = set()
    for number in range(1, len(header.drawn.segments) + 1):
        mask = labels.array == number
        for index in map(int, np.flatnonzero(mask.any((1, 2)))):
            frames.append(mask[index])
            used.add(index)
            image = source(index)
            image.PurposeOfReferenceCodeSequence = [
                _code("121322", "Source image for image processing operation", scheme="DCM")
            ]
            groups.append(
                _item(
                    FrameContentSequence=[_item(DimensionIndexValues=[number, index + 1])],
                    PlanePositionSequence=[
                        _item(ImagePositionPatient=_decimals(labels.affine[:3, 3] + index * labels.affine[:3, 0]))
                    ],
                    SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
                    DerivationImageSequence=[
                        _item(
                            DerivationCodeSequence=[_code("113076", "Segmentation", scheme="DCM")],
                            SourceImageSequence=[image],
                        )
                    ],
                )
            )
    ds.NumberOfFrames = len(frames)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.ReferencedSeriesSequence = [
        _item(SeriesInstanceUID=source_uid, ReferencedInstanceSequence=[source(index) for index in sorted(used)])
    ]
    ds.PixelData = pack_bits(np.stack(frames).astype(np.uint8))
    ds["PixelData"].VR = "OB"
    return ds


def _segment(number: int, segment: Segment) -> Dataset:
    words = (segment.observation.replace("_", " "), segment.laterality, segment.location)
    code, meaning = _CODES.get(segment.observation, ("52988006", "Lesion"))
    return _item(
        SegmentNumber=number,
        SegmentLabel=", ".join(word for word in words if word),
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName="mmfm drawing",
        SegmentedPropertyCategoryCodeSequence=[_code("49755003", "Morphologically Abnormal Structure")],
        SegmentedPropertyTypeCodeSequence=[_code(code, meaning)],
    )


# ----------------------------------------------------------------------------------------------------------- elements


def _item(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def _code(value: str, meaning: str, *, scheme: str = "SCT") -> Dataset:
    """Returns a code, of SNOMED CT where not said otherwise."""
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _decimals(values: NDArray[np.float64] | list[float]) -> list[str]:
    """Returns decimal strings, at most 16 characters each (PS3.5 6.2)."""
    return [format_number_as_ds(float(value)) for value in values]


def _instance_uid(series_uid: str, number: int) -> str:
    return _uid(f"{series_uid} {number}")


def _uid(text: str) -> str:
    """Returns a UID that follows from the text (PS3.5 B.2, a UUID as one number)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def _save(ds: Dataset, path: Path) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
