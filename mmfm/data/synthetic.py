"""Synthetic chest radiographs whose truth is known: for the first steps of a model, for tests and for samples.

A study is drawn from a seed: who the patient is, what he or she has, a frontal (PA) and a lateral view of it, where
everything lies in pixels, and the report that a radiologist might write. ``write_dicom`` writes it as DICOM.
``mmfm.data.phantom`` draws the pictures, ``mmfm.data.synthetic_text`` words the report.

    study = draw_study(7)
    study.report.findings, study.labels["pneumothorax"], study.views[0].regions
    write_dicom(study, Path("sample"))
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from mmfm.data import phantom
from mmfm.data.phantom import DOME, LOBES, Body, Drawing, Pathology
from mmfm.data.synthetic_text import rib_location, write_report
from mmfm.report import Finding, Measurement, Sections, Side, Status
from mmfm.study import Patient, Sex, ViewPosition

DRAWN = (
    "cardiomegaly",
    "pleural_effusion",
    "pneumothorax",
    "nodule",
    "consolidation",
    "edema",
    "support_devices",
    "fracture",
)
"""The observations that can be drawn; a random study has one to three of them, or none."""

NORMAL_SHARE = 0.35
"""Of random studies."""

_NEVER = ("mass", "emphysema", "fibrosis", "hernia", "pleural_thickening", "pleural_other")
# A reader may also name these where the observations behind them are present: then nobody said.
_UNLESS = {
    "atelectasis": ("pleural_effusion", "pneumothorax"),
    "enlarged_cardiomediastinum": ("cardiomegaly",),
    "infiltration": ("consolidation", "edema"),
    "pneumonia": ("consolidation",),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """Where one lesion, device or fracture lies in one view."""

    observation: str
    laterality: Side | None
    box: tuple[int, int, int, int]
    """(first row, first column, past the last row, past the last column), pixels of the view."""
    mask: NDArray[np.bool_]
    """(rows, columns) of the view."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticView:
    """One radiograph."""

    series_uid: str
    view: ViewPosition
    pixels: NDArray[np.uint16]
    """Stored values of 12 bits, (rows, columns)."""
    photometric: str
    """MONOCHROME2, or MONOCHROME1 where small stored values are bright."""
    window_center: float
    window_width: float
    """VOI window of the stored values, DICOM's LINEAR function."""
    pixel_spacing: float
    """mm between rows and between columns; the beam is taken as parallel."""
    patient_orientation: tuple[str, str]
    regions: tuple[Region, ...]

    def display(self) -> NDArray[np.float32]:
        """Returns (rows, columns), 0 black to 1 white: window and photometric interpretation applied."""
        value = (self.pixels.astype(np.float32) - (self.window_center - 0.5)) / (self.window_width - 1) + 0.5
        value = np.clip(value, 0, 1)
        return 1 - value if self.photometric == "MONOCHROME1" else value


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticStudy:
    """A frontal and a lateral view of one patient with everything that is true of them."""

    seed: int
    study_uid: str
    """Derived from the pixels: the same study has the same, any other one another."""
    patient: Patient
    views: tuple[SyntheticView, ...]
    """Frontal (PA), then left lateral (LL)."""
    findings: tuple[Finding, ...]
    """What is present, at most one for each observation of ``DRAWN``, with side, place, severity, count, size in mm."""
    report: Sections
    labels: dict[str, Status]
    """By observation; one that the picture leaves open is left out."""
    cardiothoracic_ratio: float
    """Measured on the frontal view: width of the heart over the inner width of the rib cage."""


def draw_study(
    seed: int, *, size: int = 512, findings: tuple[str, ...] | None = None, mirror: bool = False
) -> SyntheticStudy:
    """Draws a study.

    Args:
        seed: everything follows from it, 0 or more.
        size: rows and columns of both views; a small one has the same anatomy with less detail.
        findings: names of ``DRAWN`` to be present and no others, () for a normal chest; drawn at random where ``None``.
        mirror: draw the mirror twin of the study: the same patient with left and right exchanged throughout, organs
            included (situs inversus: the apex of the heart and the stomach on the right). The frontal pixels are those
            of the study flipped; boxes, masks, sides and report follow; the lateral pixels are the same, as a mirrored
            patient's would be. The technologist's marker stands at the patient's left in both and reads "L".

    Raises:
        ValueError: a finding cannot be drawn, or the size is under 64.
    """
    if findings is not None and set(findings) - set(DRAWN):
        raise ValueError(f"findings: expected names of {', '.join(DRAWN)}; found {sorted(set(findings) - set(DRAWN))}")
    if size < 64:
        raise ValueError(f"size: expected 64 or more, found {size}")
    choose, look, paint, words, finish = (np.random.default_rng([seed, stream]) for stream in range(5))
    wanted = _wanted(choose) if findings is None else frozenset(findings)
    body = _body(wanted, look)
    pathology = _pathology(wanted, choose)
    frontal, lateral, measured = phantom.draw(body, pathology, size, paint)

    sides = {-1: Side.RIGHT, 0: None, 1: Side.LEFT}
    if mirror:
        sides = {-1: Side.LEFT, 0: None, 1: Side.RIGHT}
        frontal = replace(
            frontal,
            display=frontal.display[:, ::-1],
            regions=tuple((name, side, mask[:, ::-1]) for name, side, mask in frontal.regions),
        )
    if "cardiomegaly" in wanted:
        heart = frontal.heart[:, ::-1] if mirror else frontal.heart
        frontal = replace(frontal, regions=(("cardiomegaly", 0, heart), *frontal.regions))
        lateral = replace(lateral, regions=(("cardiomegaly", 0, lateral.heart), *lateral.regions))
    spacing = body.field_mm / size
    views: tuple[SyntheticView, ...] = (
        _view(ViewPosition.PA, ("L", "F"), frontal, sides, spacing, finish),
        _view(ViewPosition.LL, ("P", "F"), lateral, sides, spacing, finish),
    )
    truth = _findings(pathology, measured, sides, wanted)
    count = {sides[s]: sum(side == s for side, _ in pathology.nodules) for s in (-1, 1)}
    report, truth = write_report(truth, {side: n for side, n in count.items() if side and n}, words)
    study_uid = _uid(b"".join(view.pixels.tobytes() for view in views))
    views = tuple(replace(view, series_uid=_uid(f"{study_uid} {view.view}".encode())) for view in views)
    return SyntheticStudy(
        seed=seed,
        study_uid=study_uid,
        patient=Patient(
            patient_id=f"synthetic-{seed}{'-mirrored' if mirror else ''}",
            sex=Sex.FEMALE if body.female else Sex.MALE,
            age_years=float(finish.integers(19, 93)),
        ),
        views=views,
        findings=truth,
        report=report,
        labels=_labels(wanted),
        cardiothoracic_ratio=measured["cardiothoracic_ratio"],
    )


def _wanted(rng: np.random.Generator) -> frozenset[str]:
    if rng.random() < NORMAL_SHARE:
        return frozenset()
    return frozenset(rng.choice(DRAWN, size=rng.choice([1, 2, 3], p=[0.5, 0.33, 0.17]), replace=False).tolist())


def _body(wanted: frozenset[str], rng: np.random.Generator) -> Body:
    female = bool(rng.integers(2))
    tall = rng.uniform(0.95, 1.1) * (0.95 if female else 1.0)
    return Body(
        scale=(rng.uniform(0.92, 1.06) * (0.96 if female else 1.0), tall, rng.uniform(0.98, 1.18)),
        female=female,
        fat=float(np.clip(rng.gamma(2.0, 7.0), 0, 45)),
        heart=rng.uniform(1.24, 1.5) if "cardiomegaly" in wanted else rng.uniform(0.86, 1.05),
        heart_tilt=rng.uniform(-0.15, 0.15),
        inspiration=rng.uniform(-14, 6),
        left_dome=rng.uniform(7, 15),
        lung_density=rng.uniform(0.2, 0.28),
        knob=rng.uniform(0.85, 1.2),
        gas=rng.uniform(0.4, 1.2),
        roll=float(np.clip(rng.normal(0, 0.02), -0.05, 0.05)),
        field_mm=rng.uniform(385, 425),
        offset=(rng.uniform(-9, 9), rng.uniform(-9, 9)),
    )


def _pathology(wanted: frozenset[str], rng: np.random.Generator) -> Pathology:
    """Draws sides and sizes so that no finding hides another one."""

    def side() -> int:
        return int(rng.choice([-1, 1]))

    effusion: dict[int, float] = {}
    pneumothorax: tuple[int, float] | None = None
    consolidation: tuple[str, float] | None = None
    if "pleural_effusion" in wanted:
        # Level of the fluid against the dome: small, moderate, large.
        low, high = ((24, 36), (-22, 4), (-92, -52))[rng.choice(3, p=[0.4, 0.35, 0.25])]
        bilateral = rng.random() < 0.3 and "pneumothorax" not in wanted
        for s in (-1, 1) if bilateral else (side(),):
            effusion[s] = DOME + rng.uniform(low, high)
    if "pneumothorax" in wanted:
        # Air and fluid of one side would be a hydropneumothorax, which looks otherwise.
        taken = next(iter(effusion), None)
        pneumothorax = (-taken if taken is not None else side(), rng.uniform(16, 62))
    if "consolidation" in wanted:
        wet = tuple({-1: "right", 1: "left"}[s] for s in effusion)
        lobes = [lobe for lobe in LOBES if "upper" in lobe or not lobe.startswith(wet)]
        consolidation = (lobes[int(rng.integers(len(lobes)))], rng.uniform(1.0, 1.35))
    nodules: tuple[tuple[int, float], ...] = ()
    if "nodule" in wanted:
        count, first = int(rng.choice([1, 2, 3], p=[0.5, 0.28, 0.22])), side()
        other = first if count == 1 or rng.random() < 0.5 else -first
        placed = [first, other, int(rng.choice([first, other]))][:count]
        nodules = tuple((s, float(np.round(rng.uniform(12, 30)))) for s in placed)
    fractures: tuple[tuple[int, int, float], ...] = ()
    if "fracture" in wanted:
        number, s, angle = int(rng.integers(4, 9)), side(), rng.uniform(0.5, 0.95)
        numbers = (number,) if rng.random() < 0.5 else (number, number + 1)
        fractures = tuple((s, n, angle + rng.normal(0, 0.04)) for n in numbers)
    tube: tuple[str, int] | None = None
    if "support_devices" in wanted:
        tube = ("endotracheal tube", 0) if rng.random() < 0.35 else ("central venous catheter", side())
    return Pathology(
        effusion=effusion,
        pneumothorax=pneumothorax,
        nodules=nodules,
        consolidation=consolidation,
        edema=rng.uniform(0.65, 1.35) if "edema" in wanted else 0.0,
        tube=tube,
        fractures=fractures,
    )


def _findings(
    pathology: Pathology, measured: dict[str, float], sides: dict[int, Side | None], wanted: frozenset[str]
) -> tuple[Finding, ...]:
    def present(name: str, signs: Sequence[int] = (), **details: object) -> Finding:
        both = len(set(signs)) > 1
        laterality = Side.BILATERAL if both else sides[signs[0]] if signs else None
        return Finding(observation=name, status=Status.PRESENT, laterality=laterality, **details)  # type: ignore[arg-type]

    def graded(value: float, bounds: tuple[float, float], grades: tuple[str, str, str]) -> str:
        return grades[sum(value >= bound for bound in bounds)]

    def mm(value: float) -> Measurement:
        return Measurement(value=float(round(value)), unit="mm")

    found = []
    if pathology.tube is not None:
        kind, sign = pathology.tube
        below = measured["tip_below_carina_mm"]
        if sign == 0:
            where = f"endotracheal tube, tip {-below / 10:.1f} cm above the carina"
        else:
            cava = "superior vena cava"
            tip = graded(below, (2, 18), (f"upper {cava}", f"lower {cava}", "cavoatrial junction"))
            where = f"{sides[sign]} internal jugular {kind}, tip {tip}"
        found.append(present("support_devices", (sign,), location=where))
    if "cardiomegaly" in wanted:
        grade = graded(measured["cardiothoracic_ratio"], (0.57, 0.62), ("mild", "moderate", "severe"))
        found.append(present("cardiomegaly", severity=grade))
    if pathology.consolidation is not None:
        lobe = pathology.consolidation[0]
        sign = 1 if lobe.startswith("left") else -1
        where = f"{sides[sign]} {lobe.split(' ', 1)[1]}"
        found.append(present("consolidation", (sign,), location=where))
    if pathology.edema:
        grade = graded(pathology.edema, (0.9, 1.15), ("mild", "moderate", "severe"))
        found.append(present("edema", (-1, 1), severity=grade))
    if pathology.nodules:
        signs = [side for side, _ in pathology.nodules]
        lung = f"{sides[signs[0]]} lung" if len(set(signs)) == 1 else None
        largest = mm(max(diameter for _, diameter in pathology.nodules))
        found.append(present("nodule", signs, location=lung, count=len(signs), measurement=largest))
    if pathology.effusion:
        height = measured["effusion_mm"]
        grade = graded(height, (70, 125), ("small", "moderate", "large"))
        found.append(present("pleural_effusion", tuple(pathology.effusion), severity=grade, measurement=mm(height)))
    if pathology.pneumothorax is not None:
        apical = measured["pneumothorax_mm"]
        grade = graded(apical, (25, 45), ("small", "moderate", "large"))
        found.append(present("pneumothorax", pathology.pneumothorax[:1], severity=grade, measurement=mm(apical)))
    if pathology.fractures:
        signs = [side for side, _, _ in pathology.fractures]
        part = "posterior" if pathology.fractures[0][2] < 0.75 else "posterolateral"
        side = sides[signs[0]]
        assert side is not None
        where = rib_location(side, [number for _, number, _ in pathology.fractures], part)
        found.append(present("fracture", signs, location=where, count=len(signs)))
    return tuple(found)


def _labels(wanted: frozenset[str]) -> dict[str, Status]:
    def status(yes: bool) -> Status:
        return Status.PRESENT if yes else Status.ABSENT

    labels = {name: status(name in wanted) for name in DRAWN}
    # lung_opacity and lung_lesion are left out: the labeller reads them from a text that names them, these reports
    # name the nodule or the consolidation itself, and one head must not learn two meanings.
    labels |= dict.fromkeys(_NEVER, Status.ABSENT)
    return labels | {name: Status.ABSENT for name, behind in _UNLESS.items() if not wanted & set(behind)}


def _view(
    view: ViewPosition,
    orientation: tuple[str, str],
    drawing: Drawing,
    sides: dict[int, Side | None],
    spacing: float,
    rng: np.random.Generator,
) -> SyntheticView:
    display = drawing.display.copy()
    _stamp_marker(display, rng)
    low, span = float(rng.integers(40, 500)), float(rng.integers(2600, 3500))
    stored = np.rint(low + span * display)
    photometric, center = "MONOCHROME2", low + span / 2 + 0.5
    if rng.random() < 0.12:
        photometric, stored, center = "MONOCHROME1", 4095 - stored, 4095 - (low + span / 2) + 0.5
    regions = []
    for name, side, mask in drawing.regions:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        regions.append(Region(observation=name, laterality=sides[side], box=box, mask=np.ascontiguousarray(mask)))
    return SyntheticView(
        series_uid="",
        view=view,
        pixels=stored.astype(np.uint16),
        photometric=photometric,
        window_center=center,
        window_width=span + 1,
        pixel_spacing=spacing,
        patient_orientation=orientation,
        regions=tuple(regions),
    )


def _stamp_marker(display: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Stamps the technologist's lead "L" into a corner that is the patient's left (frontal) or back (lateral)."""
    size = display.shape[0]
    row, column = (np.array([rng.uniform(0.03, 0.1), rng.uniform(0.86, 0.93)]) * size).astype(int)
    high, stroke = math.ceil(0.045 * size), math.ceil(0.008 * size)
    if rng.random() < 0.75:
        display[row : row + high, column : column + stroke] = 1
        display[row + high - stroke : row + high, column : column + math.ceil(0.6 * high)] = 1


# ------------------------------------------------------------------------------------------------------------ DICOM


def write_dicom(study: SyntheticStudy, folder: Path) -> list[Path]:
    """Writes both views as DX images for presentation (PS3.3 A.26), ``frontal.dcm`` and ``lateral.dcm``.

    Args:
        study: what to write.
        folder: made where absent.

    Returns:
        The files, in the order of ``study.views``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, view in enumerate(study.views, start=1):
        dataset = _dataset(study, view, number)
        path = folder / ("lateral.dcm" if view.view.is_lateral else "frontal.dcm")
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _dataset(study: SyntheticStudy, view: SyntheticView, number: int) -> Dataset:
    lateral = view.view.is_lateral
    ds = Dataset()
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = _uid(f"{view.series_uid} 1".encode())
    ds.StudyInstanceUID = study.study_uid
    ds.SeriesInstanceUID = view.series_uid
    ds.PatientName = "Synthetic^Study"
    ds.PatientID = study.patient.patient_id
    ds.PatientBirthDate = ""
    ds.PatientSex = study.patient.sex
    ds.PatientAge = f"{int(study.patient.age_years or 0):03d}Y"
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.ContentDate = ds.ContentTime = ""
    ds.StudyID = "1"
    ds.StudyDescription = "Chest PA and lateral"
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.SeriesNumber, ds.InstanceNumber = number, 1
    ds.SeriesDescription = "Chest lateral" if lateral else "Chest PA"
    ds.BodyPartExamined = "CHEST"
    ds.Manufacturer = "mmfm"
    ds.ManufacturerModelName = "synthetic chest phantom"
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.ImageLaterality = "U"
    ds.PatientOrientation = list(view.patient_orientation)
    ds.ViewPosition = view.view.value
    ds.ViewCodeSequence = _coded(*(("399173006", "left lateral") if lateral else ("272479007", "postero-anterior")))
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = DicomSequence()
    ds.AnatomicRegionSequence = _coded("51185008", "Chest")
    ds.AcquisitionContextSequence = DicomSequence()
    ds.DetectorType = ds.PositionerType = ""
    ds.ImagerPixelSpacing = ds.PixelSpacing = [f"{view.pixel_spacing:.8f}"] * 2
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = view.photometric
    ds.Rows, ds.Columns = view.pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1 if view.photometric == "MONOCHROME2" else 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    # PS3.3 C.8.11.3 ties both: one inversion, said twice.
    ds.PresentationLUTShape = "IDENTITY" if view.photometric == "MONOCHROME2" else "INVERSE"
    ds.WindowCenter, ds.WindowWidth = view.window_center, view.window_width
    ds.WindowCenterWidthExplanation = "NORMAL"
    ds.PixelData = view.pixels.astype("<u2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _coded(value: str, meaning: str) -> DicomSequence:
    """Returns a sequence of one SNOMED CT code."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return DicomSequence([item])


def _uid(entropy: bytes) -> str:
    """Returns a UID that follows from the bytes (PS3.5 B.2, a UUID as one number)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(entropy).digest()[:16], 'big')}"
