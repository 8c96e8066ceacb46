"""Decisions: what the heads say of a study, at the operating points of the checkpoint, to the findings that are stated.

What is counted on volumes is stated lesion by lesion, everything else by P(present) of the whole study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmfm.models.checkpoint import Checkpoint
from mmfm.models.lesions import find_lesions
from mmfm.models.processor import StudyPixels, kind_of_codes
from mmfm.models.vlm import Encoded
from mmfm.models.volume_heads import PeaksByReading
from mmfm.report import Finding, Lesion, Measurement, Side, Status
from mmfm.text import CHEST_RADIOGRAPH, REGIONS, observations

SIDELESS = (
    "cardiomegaly",
    "edema",
    "emphysema",
    "enlarged_cardiomediastinum",
    "free_fluid",
    "hernia",
    "hydrocephalus",
    "support_devices",
)
"""Observations whose side reports seldom state, so that the side heads hardly learn it."""

_SIZED = ("pleural_effusion", "pneumothorax", "free_fluid")
_GRADED = ("cardiomegaly", "emphysema", "hydrocephalus")


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What is stated of one study, and what it rests on."""

    probabilities: dict[str, float]
    """P(present) by observation of its region that was learned, ``normal`` included."""
    findings: tuple[Finding, ...]
    """Present ones, with their side; of a volume with each lesion."""
    region: str | None
    """Whose vocabulary the text is read with; ``None`` where there is none."""
    kind: str | None
    """What was examined, such as "CT of the chest"."""


def decide(checkpoint: Checkpoint, read: Sequence[StudyPixels], encoded: Encoded) -> list[Decisions]:
    """Returns the decisions on each study of a batch.

    Args:
        checkpoint: whose facts hold the operating points.
        read: what was encoded, study by study.
        encoded: what it gave, with lesions sought.
    """
    config, facts = checkpoint.processor.config, checkpoint.facts
    present_BO = encoded.heads.present_BO.sigmoid().tolist()
    assert len(encoded.peaks) == sum(len(pixels.slabs) for pixels in read), "lesions have to be sought"
    peaks, of_pictures = iter(encoded.peaks), iter(encoded.heads.codes_NK.tolist())
    decided = []
    for row, pixels in enumerate(read):
        kind, region = pixels.kind, pixels.region
        if not pixels.slabs:
            logits = [encoded.heads.codes_BK[row].tolist(), *(next(of_pictures) for _ in pixels.views_S)]
            study, *pictures = (dict(zip(config.codes, values, strict=True)) for values in logits)
            kind, region = kind_of_codes(study, pictures) if config.recipes else (None, CHEST_RADIOGRAPH)
        within = (*(observations(region) if region in REGIONS else ()), "normal")
        probabilities = {
            name: p
            for name, p in zip(config.observations, present_BO[row], strict=True)
            if name in within and (facts.learned is None or name in facts.learned)
        }
        points: Mapping[str, float] = facts.operating_points
        counted: tuple[Finding, ...] = ()
        if pixels.slabs:
            points = facts.volumes.operating_points
            own = [next(peaks) for _ in pixels.slabs]
            counted = _counted_findings(checkpoint, pixels, own, within)
        whole = [
            _whole_finding(encoded, row, column, name, p, is_volume=bool(pixels.slabs))
            for column, name in enumerate(config.observations)
            if (p := probabilities.get(name)) is not None and name in points and p >= points[name]
        ]
        findings = sorted((*counted, *whole), key=lambda finding: config.observations.index(finding.observation))
        decided.append(Decisions(probabilities=probabilities, findings=tuple(findings), region=region, kind=kind))
    return decided


def _counted_findings(
    checkpoint: Checkpoint,
    pixels: StudyPixels,
    peaks: Sequence[PeaksByReading],
    within: Sequence[str],
) -> tuple[Finding, ...]:
    points = {name: point for name, point in checkpoint.facts.volumes.lesion_points.items() if name in within}
    affines = [slab.affine for slab in pixels.slabs]
    found = find_lesions(checkpoint.processor, affines, peaks, points, stride=checkpoint.model.fine_stride)
    return tuple(_counted(name, lesions) for name, lesions in found.items())


def _whole_finding(
    encoded: Encoded, row: int, column: int, name: str, probability: float, *, is_volume: bool
) -> Finding:
    heads = encoded.heads
    sides = heads.sides_BO2[row, column].sigmoid().tolist()
    return Finding(
        observation=name,
        status=Status.PRESENT,
        probability=probability,
        laterality=_side(name, sides) if heads.sided_B[row] else None,
        severity=_severity(name, int(heads.severity_BOG[row, column].argmax())) if is_volume else None,
    )


def _counted(name: str, lesions: tuple[Lesion, ...]) -> Finding:
    """Returns the finding of a study's lesions of one observation, as sure as the surest of them.

    What differs between them stands with each.
    """
    sides = {lesion.laterality for lesion in lesions}
    places = {(lesion.laterality, lesion.location) for lesion in lesions}
    return Finding(
        observation=name,
        status=Status.PRESENT,
        laterality=None if None in sides else Side.BILATERAL if len(sides) > 1 else next(iter(sides)),
        location=lesions[0].location if len(places) == 1 else None,
        count=len(lesions),
        measurement=Measurement(value=float(round(lesions[0].diameter_mm)), unit="mm"),
        probability=max((p for lesion in lesions if (p := lesion.probability) is not None), default=None),
        lesions=lesions,
    )


def _severity(observation: str, grade: int) -> str | None:
    """Returns the word for a grade: fluid and air are small to large, what is graded otherwise is mild to severe."""
    if observation in _SIZED:
        return ("small", "moderate", "large")[grade]
    return ("mild", "moderate", "severe")[grade] if observation in _GRADED else None


def _side(observation: str, sides: Sequence[float]) -> Side | None:
    left, right = sides
    if observation in SIDELESS:
        return None
    if left >= 0.5 and right >= 0.5:
        return Side.BILATERAL
    return Side.LEFT if left >= right else Side.RIGHT
