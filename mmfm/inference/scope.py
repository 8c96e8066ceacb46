"""Does a study lie within what a checkpoint was made for? What contradicts stops the draft, what is missing is noted.

``check_study`` reads headers only; ``check_contrast`` reads one picture. A tag that is missing is never filled in:
a missing age is "age not verified", not adult. A study of which any image contradicts the scope is refused as a
whole, since a draft on the rest would be read as a draft on all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmfm.errors import ScopeError
from mmfm.study import Series, Study, ViewPosition

if TYPE_CHECKING:
    from mmfm.models.checkpoint import Scope

BODY_PART_SYNONYMS = {
    "CHEST": frozenset({"CHEST", "THORAX", "CXR", "LUNG", "LUNGS", "TORAX", "BRUST"}),
}
"""Body part of a scope -> words that mean it in Body Part Examined (0018,0015), which sites fill in freely."""

# fmt: off
_WORDS_WITHOUT_PART = frozenset(
    ["PA", "AP", "LAT", "LATERAL", "FRONTAL", "LL", "RL", "VIEW", "VIEWS", "PORTABLE", "PORT", "MOBILE", "UPRIGHT",
     "ERECT", "SUPINE", "BEDSIDE", "ROUTINE", "SINGLE", "TWO", "X", "RAY", "XRAY", "XR", "CR", "DX", "AND"]
)
# fmt: on
_NOT_A_PART = frozenset({"UNKNOWN", "OTHER", "NONE", "UNSPECIFIED", "NA", "N A"})
# fmt: off
_OTHER_PARTS = frozenset(
    ["ABDOMEN", "ANKLE", "ARM", "CALCANEUS", "CLAVICLE", "ELBOW", "FEMUR", "FINGER", "FOOT", "FOREARM", "HAND",
     "HEAD", "HIP", "HUMERUS", "JAW", "KNEE", "LEG", "NECK", "PATELLA", "PELVIS", "SCAPULA", "SHOULDER", "SINUS",
     "SINUSES", "SKULL", "SPINE", "THIGH", "THUMB", "TIBIA", "TOE", "WRIST"]
)
"""Parts that a series description may name; only read where Body Part Examined is empty."""
# fmt: on

_MODALITY_SAYS_NOTHING = frozenset({"OT"})
"""DICOM's "Other": what re-wrapped pictures are often given."""

_LEAST_CONTRAST = 0.1
"""Spread of block means, as a part of the display range, under which a picture counts as blank. Radiographs have 0.4
and more; evenly exposed noise, stretched to the full range, has under 0.05 because the blocks average it out."""


def check_study(study: Study, scope: Scope, *, checkpoint: str) -> tuple[str, ...]:
    """Checks a study's headers against a scope.

    Args:
        study: what was read; its pixels are not touched.
        scope: of the checkpoint.
        checkpoint: its name, for the message.

    Returns:
        The checkpoint's own caveats, and what the headers do not state and thus could not be verified, one sentence
        each, for ``Report.scope_notes``.

    Raises:
        ScopeError: modality, number of frames, presentation intent, body part, view, orientation or age contradict the
            scope.
    """
    notes: list[str] = []
    if any(_modality(series) is None for series in study.series):
        notes.append("scope not verified: a picture states no modality")
    untagged = sum(_modality(series) is None and series.source_format != "DICOM" for series in study.series)
    if untagged > 1:
        notes.append(f"{untagged} pictures without tags were taken as one study of one patient")
    for series in study.series:
        modality = _modality(series)
        if modality is not None and modality not in scope.modalities:
            raise _refusal("modality", " or ".join(scope.modalities), modality, checkpoint)
        frames = max(instance.pixels.frames for instance in series.instances)
        if frames > 1:
            raise _refusal("number of frames", "radiographs of one frame", str(frames), checkpoint)
        if any(instance.for_processing for instance in series.instances):
            raise _refusal("presentation intent", "FOR PRESENTATION", "FOR PROCESSING (raw detector data)", checkpoint)
        part = _contradicting_part(series, study, scope.body_parts)
        if part is not None:
            raise _refusal("body part", " or ".join(scope.body_parts), part, checkpoint)
        if series.view is not None and view_name(series.view) not in scope.views:
            raise _refusal("view", " or ".join(scope.views), str(series.view), checkpoint)
        for instance in series.instances:
            if _is_mirrored_or_turned(series.view, instance.patient_orientation):
                expected = "the patient's left on the picture's right, head up"
                raise _refusal("orientation", expected, "/".join(instance.patient_orientation), checkpoint)
    if any(_stated_part(series.body_part) is None for series in study.series):
        notes.append("body part not verified: not stated")
    if any(series.view is ViewPosition.AP for series in study.series):
        notes.append("AP view: heart size, pleural effusion and pneumothorax are judged less surely than on PA")
    notes += _age_notes(study.patient.age_years, scope, checkpoint)
    return (*scope.caveats, *notes)


def check_contrast(pixels: np.ndarray, *, where: str) -> None:
    """Refuses a blank picture, constant or evenly noisy.

    Args:
        pixels: one picture (rows, columns), 0 black to 1 white.
        where: which picture, for the message: never a file name that may hold a patient's name.

    Raises:
        ScopeError: the means of its blocks (8 by 8 of them) spread over less than a tenth of the display range.
    """
    blocks = [b.mean() for rows in np.array_split(pixels, 8) for b in np.array_split(rows, 8, axis=1) if b.size]
    low, high = np.percentile(blocks, (5, 95))
    if not high - low >= _LEAST_CONTRAST:  # NaN is refused too
        raise ScopeError(
            where,
            expected="a radiograph",
            found=f"a blank picture (contrast {high - low:.3f} of the display range, under {_LEAST_CONTRAST})",
            fix="give another image; no draft is made",
        )


def view_name(view: ViewPosition) -> str:
    """Returns the word that scopes use: ``frontal``, ``lateral`` or, for lying on the side, ``decubitus``."""
    if view in (ViewPosition.LLD, ViewPosition.RLD):
        return "decubitus"
    return "lateral" if view.is_lateral else "frontal"


def views_read(study: Study, views: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Says which views a draft rests on.

    Args:
        study: what was given.
        views: ``frontal`` or ``lateral`` of each picture that was read, the first ``len(views)`` series of the study.

    Returns:
        The coverage ("frontal, lateral", "frontal only: lateral not read"), and a note for each view
        that no tag states.
    """
    there = [name for name in ("frontal", "lateral") if name in views]
    coverage = ", ".join(there)
    if len(there) == 1:
        other = "lateral" if there == ["frontal"] else "frontal"
        coverage = f"{there[0]} only: {other} not read"
    unread = len(study.series) - len(views)
    if unread:
        coverage += f"; {unread} further picture(s) not read"
    # Pictures beyond the most that are read have no view.
    named = dict.fromkeys(v for series, v in zip(study.series, views, strict=False) if series.view is None)
    return coverage, tuple(f"view not stated, read as {view} by the picture" for view in named)


def _refusal(what: str, expected: str, found: str, checkpoint: str) -> ScopeError:
    fix = "no draft is made; use a checkpoint made for it"
    return ScopeError(what, expected=f"{expected}, the scope of {checkpoint}", found=found, fix=fix)


def _is_mirrored_or_turned(view: ViewPosition | None, orientation: tuple[str, ...]) -> bool:
    """Whether Patient Orientation says that a frontal picture does not lie as it is read; sides would come out wrong.

    Its values say where rows lead to and where columns lead to: "L" and "F" on an upright frontal picture. Without a
    view, rows and columns that run between left, right, head and feet alone make it frontal.
    """
    if len(orientation) != 2:
        return False
    frontal = set("".join(orientation)) <= set("LRHF") if view is None else view_name(view) == "frontal"
    rows, columns = orientation
    return frontal and not (rows.startswith("L") and columns.startswith("F"))


def _modality(series: Series) -> str | None:
    return None if series.modality in _MODALITY_SAYS_NOTHING else series.modality


def _stated_part(body_part: str | None) -> str | None:
    words = " ".join(re.findall(r"[A-Z]+", (body_part or "").upper()))
    return None if not words or words in _NOT_A_PART else words


def _contradicting_part(series: Series, study: Study, body_parts: tuple[str, ...]) -> str | None:
    """The part named by the series that is none of ``body_parts``, or None. "CHEST ABDOMEN" contradicts CHEST."""
    accepted = frozenset().union(*(BODY_PART_SYNONYMS.get(part, frozenset({part})) for part in body_parts))
    stated = _stated_part(series.body_part)
    if stated is not None:
        parts = [word for word in stated.split() if word not in _WORDS_WITHOUT_PART]
        return None if set(parts) <= accepted else stated
    described = re.findall(r"[A-Z]+", f"{series.description or ''} {study.description or ''}".upper())
    if not accepted & set(described):
        for word in described:
            if word in _OTHER_PARTS - accepted:
                return f"{word} in the description"
    return None


def _age_notes(age: float | None, scope: Scope, checkpoint: str) -> list[str]:
    low, high = scope.min_age_years, scope.max_age_years
    if low is None and high is None:
        return []
    if age is None:
        return ["age not verified: not stated"]
    if low is not None and age < low:
        raise _refusal("age", f"at least {low:g} years", f"{age:g} years", checkpoint)
    if high is not None and age > high:
        raise _refusal("age", f"at most {high:g} years", f"{age:g} years", checkpoint)
    return []
