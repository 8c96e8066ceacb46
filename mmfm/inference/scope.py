"""Does a study lie within what a checkpoint was made for? What contradicts stops the draft, what is missing is noted.

``check_study`` reads headers only; ``check_contrast`` reads one picture. A tag that is missing is never filled in:
a missing age is "age not verified", not adult. A study of which any image contradicts the scope is refused as a
whole, since a draft on the rest would be read as a draft on all. The series of a CT or MR study are chosen later
(``mmfm.imaging.choose_series``); ``region_of`` says here which part of the body they state.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmfm.errors import ConfigError, ScopeError
from mmfm.imaging.choice import named_places
from mmfm.models.processor import REGION_WORDS, is_volume
from mmfm.study import Series, Study, ViewPosition

if TYPE_CHECKING:
    from mmfm.models.checkpoint import Scope
    from mmfm.models.processor import StudyPixels

# fmt: off
BODY_PART_SYNONYMS = {
    "CHEST": frozenset({"CHEST", "THORAX", "CXR", "LUNG", "LUNGS", "TORAX", "BRUST"}),
    "ABDOMEN": frozenset(
        ["ABDOMEN", "ABD", "ABDO", "ABDOMINAL", "BAUCH", "OBERBAUCH", "LIVER", "LEBER", "HEPATIC", "PANCREAS",
         "PANKREAS", "KIDNEY", "KIDNEYS", "RENAL", "ADRENAL", "SPLEEN"]
    ),
    "HEAD": frozenset(
        ["HEAD", "BRAIN", "SKULL", "NEURO", "CRANIUM", "CRANIAL", "CEREBRUM", "CEREBRAL", "KOPF", "SCHAEDEL", "HIRN"]
    ),
}
"""Body part of a scope -> words that mean it in Body Part Examined (0018,0015), which sites fill in freely."""
# fmt: on

REGIONS_OF = {("CT", "CHEST"): "chest_ct", ("CT", "ABDOMEN"): "abdomen", ("MR", "HEAD"): "head"}
"""What of the patient is read as a volume, by modality and body part."""

_COMPOUNDS = {
    "ABDPELVIS": "ABDOMEN PELVIS",
    "ABDOMENPELVIS": "ABDOMEN PELVIS",
    "CHESTABDOMEN": "CHEST ABDOMEN",
    "CHESTABDPELVIS": "CHEST ABDOMEN PELVIS",
    "HEADNECK": "HEAD NECK",
    "NECKCHEST": "NECK CHEST",
    "NECKCHESTABDOMEN": "NECK CHEST ABDOMEN",
    "NECKCHESTABDPELV": "NECK CHEST ABDOMEN PELVIS",
}
"""Terms for several parts at once, DICOM PS3.16 Annex L."""
_NEIGHBOURS = frozenset({"NECK", "PELVIS", "SPINE", "SINUS", "SINUSES"})
"""Parts that a volume may show beside the one that it is of."""
_ANOTHER_PART = "ANOTHER PART"
"""Stands for what Body Part Examined states in words that are in none of our lists, such as CSPINE or HEART."""

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


def check_study(
    study: Study, scope: Scope, *, checkpoint: str, region: str | None = None, only: Sequence[str] = ()
) -> tuple[str, ...]:
    """Checks a study's headers against a scope.

    Args:
        study: what was read; its pixels are not touched.
        scope: of the checkpoint.
        checkpoint: its name, for the message.
        region: as which a volume is to be read, where headers state no part of the body, or several.
        only: series of a volume that may be read, as ``choose_series`` takes them; all where empty.

    Returns:
        The checkpoint's own caveats, and what the headers do not state and thus could not be verified, one sentence
        each, for ``Report.scope_notes``.

    Raises:
        ScopeError: modality, number of frames, presentation intent, body part, view, orientation or age contradict the
            scope; or a volume does not state what it is of.
        ConfigError: ``only`` names a series that is not there, or is given with pictures.
    """
    if is_volume(study):
        notes = _volume_notes(study, scope, checkpoint, region, only)
    elif only:
        raise ConfigError(
            "--series", expected="a CT or MR volume", found="pictures", fix="leave it out: all pictures are read"
        )
    else:
        notes = _picture_notes(study, scope, checkpoint)
        if region is not None:
            notes.append("the region asked for was not used: pictures are read as what they show")
    return (*scope.caveats, *notes, *_age_notes(study.patient.age_years, scope, checkpoint))


def region_of(study: Study, *, only: Sequence[str] = (), scope: Scope | None = None) -> str | None:
    """Returns which region the headers of a CT or MR study state: ``chest_ct``, ``abdomen`` or ``head``.

    Body Part Examined decides for each series; where it says nothing, the words of series description and protocol,
    then those of the study description. Localisers are not asked.

    Args:
        study: headers alone are looked at.
        only: series that count, as ``choose_series`` takes them; all where empty.
        scope: whose regions count; all where ``None``.

    Returns:
        The region; ``None`` where none is stated, several are, or the one stated has no recipe (CT of the head).
    """
    within = set(REGIONS_OF.values()) if scope is None else _regions_of(scope)
    regions = {region for _, regions, _ in _stated(study, only) for region in regions if region in within}
    return next(iter(regions)) if len(regions) == 1 else None


def modalities_of(study: Study) -> set[str]:
    """Returns the modalities that the series of a study state; "OT" states none."""
    return {modality for series in study.series if (modality := _modality(series)) is not None}


def _picture_notes(study: Study, scope: Scope, checkpoint: str) -> list[str]:
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
            raise _refusal("number of frames", "pictures of one frame", str(frames), checkpoint)
        if any(instance.for_processing for instance in series.instances):
            raise _refusal("presentation intent", "FOR PRESENTATION", "FOR PROCESSING (raw detector data)", checkpoint)
        part = _contradicting_part(series, study, scope.body_parts)
        if part is not None:
            raise _refusal("body part", " or ".join(scope.body_parts), part, checkpoint)
        if series.view is not None and scope.views and view_name(series.view) not in scope.views:
            raise _refusal("view", " or ".join(scope.views), str(series.view), checkpoint)
        for instance in series.instances:
            if scope.views and _is_mirrored_or_turned(series.view, instance.patient_orientation):
                expected = "the patient's left on the picture's right, head up"
                raise _refusal("orientation", expected, "/".join(instance.patient_orientation), checkpoint)
    if any(_stated_part(series.body_part) is None for series in study.series):
        notes.append("body part not verified: not stated")
    if any(series.view is ViewPosition.AP for series in study.series):
        notes.append("AP view: heart size, pleural effusion and pneumothorax are judged less surely than on PA")
    return notes


def _volume_notes(study: Study, scope: Scope, checkpoint: str, region: str | None, only: Sequence[str]) -> list[str]:
    """Returns what could not be verified of a volume; raises where it is none of the scope, or of no stated region."""
    within = [m for m in ("CT", "MR") if m in scope.modalities]
    stated = _stated(study, only)
    found = sorted({modality for modality, _, _ in stated})
    if not within or (found and not set(found) & set(within)):
        words = f"a volume ({' and '.join(found) or 'modality not stated'})"
        raise _refusal("modality", " or ".join(scope.modalities), words, checkpoint)
    if not found and only:
        raise ScopeError(
            "--series", expected="a CT or MR with slices", found="a localiser or another modality", fix="name another"
        )
    if not found and modalities_of(study) & set(within):
        raise ScopeError("study", expected="slices", found="localisers alone", fix="give the other series of the study")
    if not found:
        raise ScopeError(
            "modality",
            expected=" or ".join(within),
            found="a volume that states none",
            fix="say which it is with --modality",
        )
    readable = {r: (m, part) for (m, part), r in REGIONS_OF.items() if m in found and part in scope.body_parts}
    if region is not None and region not in readable:
        fix = "give one of them, with --region or in the manifest"
        raise ScopeError("region", expected=f"one of {', '.join(readable)} for {found[0]}", found=region, fix=fix)
    named = sorted({r for _, regions, _ in stated for r in regions if r in readable})
    wanted = region or (named[0] if len(named) == 1 else None)
    # Of what is wanted; without that, of anything.
    own = [(m, regions, parts) for m, regions, parts in stated if wanted is None or m == readable[wanted][0]]
    if wanted is None and named:
        fix = "name the series of one of them with --series; `mmfm inspect` lists them"
        if any(len(regions) > 1 for _, regions, _ in stated):
            fix = f"say which with --region {' or '.join(named)}"
        found_words = " and ".join(map(region_words, named))
        raise ScopeError("body part", expected="one part of the body to draft", found=found_words, fix=fix)
    others = [f"{m} of {_part_words(parts)}" for m, regions, parts in own if parts and wanted not in regions]
    if wanted is not None and 0 < len(others) < len(own):
        raise ScopeError(
            "body part",
            expected=f"series of the {REGION_WORDS[wanted]} alone",
            found=", ".join(sorted(set(others))),
            fix="name the series to read with --series; `mmfm inspect` lists them",
        )
    unknown = all(parts == {_ANOTHER_PART} for _, _, parts in own)
    if others and not (region and unknown):  # what a site calls otherwise may be said by the user
        raise _refusal("study", volumes_read(scope), ", ".join(sorted(set(others))), checkpoint)
    if wanted is None:
        raise ScopeError(
            "body part",
            expected=f"{volumes_read(scope)}, the scope of {checkpoint}",
            found=f"{' and '.join(found)} that states no part of the body",
            fix=f"say which it is with --region {' or '.join(readable)}",
        )
    notes = []
    untagged = sum(series.source_format != "DICOM" for series in study.series)
    if untagged > 1:
        notes.append(f"{untagged} series without tags were taken as one study of one patient")
    if all(wanted in regions for _, regions, _ in own):
        return notes
    if any(wanted in regions for _, regions, _ in own):
        return [*notes, f"body part not verified: not every series states one; read as {region_words(wanted)}"]
    return [*notes, f"body part not verified: read as {region_words(wanted)}, as was asked"]


def volumes_read(scope: Scope) -> str:
    """Returns what is read as a volume within a scope, such as "CT of the chest, MR of the head"."""
    return ", ".join(map(region_words, _regions_of(scope)))


def _regions_of(scope: Scope) -> list[str]:
    return [r for (m, part), r in REGIONS_OF.items() if m in scope.modalities and part in scope.body_parts]


def region_words(region: str) -> str:
    """Returns a region of volumes in words, such as ``CT of the chest``."""
    modality = next(m for (m, _), name in REGIONS_OF.items() if name == region)
    return f"{modality} of the {REGION_WORDS[region]}"


def _stated(study: Study, only: Sequence[str]) -> list[tuple[str, set[str], set[str]]]:
    """Returns modality, regions with a recipe, and body parts as stated, of each CT or MR series that counts."""
    places = {place for name in only for place in named_places(study, name)} if only else set(range(len(study.series)))
    out = []
    for place in sorted(places):
        series = study.series[place]
        if series.modality in ("CT", "MR") and not any(i.is_localizer for i in series.instances):
            parts = _parts(series, study)
            regions = {REGIONS_OF[series.modality, part] for part in parts if (series.modality, part) in REGIONS_OF}
            out.append((series.modality, regions, parts))
    return out


def _parts(series: Series, study: Study) -> set[str]:
    """Returns the parts of the body that a series names: those of ``BODY_PART_SYNONYMS``, else others that are known.

    Only words of our own lists are returned, or ``_ANOTHER_PART``: headers are free text.
    """
    if (stated := _stated_part(series.body_part)) is not None:
        examined = _named_parts(stated)
        if examined or set(stated.split()) - _WORDS_WITHOUT_PART:
            return examined or {_ANOTHER_PART}
    own = _named_parts(f"{series.description or ''} {series.acquisition.protocol or ''}", free=True)
    return own or _named_parts(study.description, free=True)


def _part_words(parts: set[str]) -> str:
    return "another part of the body" if parts == {_ANOTHER_PART} else f"the {' and '.join(sorted(parts)).lower()}"


def _named_parts(text: str | None, *, free: bool = False) -> set[str]:
    words = re.findall(r"[A-Z]+", (text or "").upper())
    words = [part for word in words for part in _COMPOUNDS.get(word, word).split()]
    named = {part for part, synonyms in BODY_PART_SYNONYMS.items() if synonyms & set(words)}
    others = set(words) & _OTHER_PARTS - frozenset().union(*BODY_PART_SYNONYMS.values())
    if free and len(named) > 1 and not set(words) & BODY_PART_SYNONYMS["CHEST"] - {"LUNG", "LUNGS"}:
        named.discard("CHEST")  # "abdomen, lung" names a kernel or a window
    # "Femoral head" beside a hip is no head.
    return others - _NEIGHBOURS if others - _NEIGHBOURS else named or others


def lacking_sequences(pixels: StudyPixels) -> tuple[str, ...]:
    """Returns the sequences of MR that the recipe of a volume has and the study has not; none of CT and of pictures."""
    if not pixels.slabs or pixels.slabs[0].recipe.modality != "MR":
        return ()
    there = set(re.findall(r"\w+", (pixels.kind or "").partition(" with ")[2]))
    return tuple(name for name in pixels.slabs[0].recipe.series if name not in there)


def check_sequences(pixels: StudyPixels, *, only: Sequence[str]) -> tuple[str, ...]:
    """Refuses an MR that lacks sequences: the checkpoints learned from complete studies alone.

    Args:
        pixels: of the study, as the Processor read them.
        only: series that the user named; one who names them has them read all the same.

    Returns:
        What the reader of such a draft must know, for ``Report.scope_notes``.

    Raises:
        ScopeError: sequences are lacking, and no series was named.
    """
    lacking = lacking_sequences(pixels)
    if not lacking:
        return ()
    if not only:
        raise ScopeError(
            "study",
            expected=f"an MR with {', '.join(pixels.slabs[0].recipe.series)}, all of which were learned from",
            found=f"none taken as {' or as '.join(lacking)}",
            fix="name the series with --series to read them all the same; lesions are then missed and made up",
        )
    return (f"read without {', '.join(lacking)}: learned from studies with all, lesions may be missed or made up",)


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
            expected="a picture that shows something",
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
