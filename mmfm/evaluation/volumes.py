"""Drafts of volumes against lesions that are all known: sides, places, numbers, sizes, and what was missed or made up.

Each study gives counts, right and out of how many, by score and observation; scores are their sums over studies. What
is resampled is the study, since the lesions of one are not independent; a share at 0 or 1 has Wilson's interval.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfm.evaluation.intervals import MIN_PATIENTS, Estimate, patient_resamples
from mmfm.evaluation.lesions import match_lesions
from mmfm.report import Finding, Lesion, Status
from mmfm.text.labeller import mentions, mentions_elsewhere
from mmfm.text.wording import LESIONS_DESCRIBED

SIZE_BINS = ("below 5 mm", "5 to 10 mm", "above 10 mm")
"""Of known diameters; lesions of 5 and of 10 mm are in the middle one."""
SIZE_MM, SIZE_PART = 3.0, 0.2
"""A size is right within either of the known diameter."""
SAME_PLACE_MM = 5.0
"""Two drafts of one patient that are written otherwise name the same lesion if their centres are no further apart."""
SHIFTS = 10
"""How many other studies' drafts each study gets in turn, where drafts are exchanged."""
SIDE, PLACE, COUNT, SIZE = "side right", "place right", "count within 1", "size within 3 mm or 20 %"
LESION_SIDE, FALSE_LESIONS = "side of a lesion right", "false lesions a volume"
SENSITIVITY, SPECIFICITY, SEVERITY = "sensitivity", "specificity", "severity right"
TOLD, BEYOND = "text tells lesion as decided", "text tells only what was decided"
SAME_STUDY, SAME_FINDINGS, SAME_LESIONS = "same findings in a study", "same findings", "same lesions within 5 mm"

Counts = dict[tuple[str, str], tuple[float, float]]
"""(score, observation) -> (right, of); of false lesions, their number and one volume."""


def lesion_sensitivity(size: str) -> str:
    """Returns the name of the score of the lesions of one of ``SIZE_BINS``."""
    return f"lesions found, {size}"


@dataclass(frozen=True, kw_only=True)
class VolumeDraft:
    """What was stated of one volume."""

    findings: tuple[Finding, ...]
    """Present ones, with each lesion."""
    text: str | None
    """Findings and impression."""


@dataclass(frozen=True, kw_only=True)
class VolumeTruth:
    """What there is in one volume."""

    region: str
    findings: tuple[Finding, ...]
    """Present ones, with each lesion."""
    labels: Mapping[str, Status]
    """Of every observation that is known."""


def volume_counts(truth: VolumeTruth, draft: VolumeDraft, *, counted: Collection[str]) -> Counts:
    """Returns the counts of one study.

    Args:
        truth: of the study.
        draft: of the same or, for a control, of another study.
        counted: observations whose every lesion is known; the others are there or not, with a side and a severity.
    """
    known = {finding.observation: finding for finding in truth.findings}
    stated = {finding.observation: finding for finding in draft.findings}
    counts: Counts = {}
    for name, label in truth.labels.items():
        there, said = known.get(name), stated.get(name)
        if label is Status.PRESENT:
            counts[SENSITIVITY, name] = (said is not None, 1)
        elif label is Status.ABSENT:
            counts[SPECIFICITY, name] = (said is None, 1)
        if there and said and there.laterality is not None:
            counts[SIDE, name] = (said.laterality is there.laterality, 1)
        if name in counted:
            counts |= _lesion_counts(name, there.lesions if there else (), said.lesions if said else ())
        elif there and said and there.severity is not None:
            counts[SEVERITY, name] = (said.severity == there.severity, 1)
    return counts


def _lesion_counts(name: str, known: Sequence[Lesion], stated: Sequence[Lesion]) -> Counts:
    match = match_lesions(known, stated)
    counts: Counts = {(FALSE_LESIONS, name): (len(match.false), 1)}
    if known:  # what was not found at all has no number, however few there are
        counts[COUNT, name] = (bool(stated) and abs(len(known) - len(stated)) <= 1, 1)
    for size in SIZE_BINS:
        found, missed = (
            sum(_size_bin(lesion) == size for lesion in lesions)
            for lesions in ([one for one, _ in match.hits], match.missed)
        )
        if found + missed:
            counts[lesion_sensitivity(size), name] = (found, found + missed)
    if match.hits:
        of = len(match.hits)
        places = sum((k.laterality, k.location) == (s.laterality, s.location) for k, s in match.hits)
        counts[PLACE, name] = (places, of)
        counts[SIZE, name] = (sum(is_same_size(k.diameter_mm, s.diameter_mm) for k, s in match.hits), of)
    if sided := [(k, s) for k, s in match.hits if k.laterality is not None]:
        counts[LESION_SIDE, name] = (sum(k.laterality is s.laterality for k, s in sided), len(sided))
    return counts


def _size_bin(lesion: Lesion) -> str:
    return SIZE_BINS[0 if lesion.diameter_mm < 5 else 1 if lesion.diameter_mm <= 10 else 2]


def is_same_size(known_mm: float, stated_mm: float) -> bool:
    """Whether a stated diameter is within 3 mm or 20 % of the known one."""
    return abs(known_mm - stated_mm) <= max(SIZE_MM, SIZE_PART * known_mm)


def text_counts(draft: VolumeDraft, *, region: str) -> Counts:
    """Returns whether the text of a draft says what its findings say.

    A lesion is told as decided if some mention of its observation names its side, its place and its diameter in whole
    millimetres; of each finding the first ``LESIONS_DESCRIBED`` are looked for. A mention of something present tells
    only what was decided if its observation was, and any side, place and size that it names are those of one lesion;
    what it states of another part of the body was not.
    """
    told = [one for one in mentions(draft.text, region=region) if one.status is Status.PRESENT]
    told += [one for one in mentions_elsewhere(draft.text, region=region) if one.status is Status.PRESENT]
    decided = {finding.observation: finding for finding in draft.findings}
    counts: Counts = {}
    for name, finding in decided.items():
        own = {_words_of(one) for one in told if one.observation == name}
        if lesions := finding.lesions[:LESIONS_DESCRIBED]:
            counts[TOLD, name] = (sum(_words_of_lesion(lesion) in own for lesion in lesions), len(lesions))
    names = {one.observation for one in told}
    for name in sorted(names):
        own_told = [one for one in told if one.observation == name]
        counts[BEYOND, name] = (sum(_is_decided(one, decided.get(name)) for one in own_told), len(own_told))
    return counts


def _words_of(one: Finding) -> tuple[str | None, str | None, float | None]:
    return one.laterality, one.location, None if one.measurement is None else round(one.measurement.value)


def _words_of_lesion(lesion: Lesion) -> tuple[str | None, str | None, float | None]:
    return lesion.laterality, lesion.location, round(lesion.diameter_mm)


def _is_decided(told: Finding, decided: Finding | None) -> bool:
    if decided is None:
        return False
    if not decided.lesions or told.count not in (None, 1):  # a sum of lesions has the words of the finding
        return told.laterality in (None, decided.laterality)
    words = _words_of(told)
    return any(
        all(one in (None, other) for one, other in zip(words, _words_of_lesion(lesion), strict=True))
        for lesion in decided.lesions
    )


def shuffled_counts(
    truths: Sequence[VolumeTruth], drafts: Sequence[VolumeDraft], *, counted: Collection[str]
) -> list[Counts]:
    """Returns the counts of each study with the drafts of the next ``SHIFTS`` studies of its region, on average.

    What these reach is reached without looking at the volume.
    """
    of_region: dict[str, list[int]] = defaultdict(list)
    for index, truth in enumerate(truths):
        of_region[truth.region].append(index)
    shuffled: list[Counts] = [{} for _ in truths]
    for same in of_region.values():
        shifts = range(1, min(SHIFTS, len(same) - 1) + 1)
        for place, index in enumerate(same):
            others = [drafts[same[(place + shift) % len(same)]] for shift in shifts]
            shuffled[index] = _mean([volume_counts(truths[index], other, counted=counted) for other in others])
    return shuffled


def _mean(several: Sequence[Counts]) -> Counts:
    keys = {key for counts in several for key in counts}
    return {
        key: (
            sum(counts.get(key, (0, 0))[0] for counts in several) / len(several),
            sum(counts.get(key, (0, 0))[1] for counts in several) / len(several),
        )
        for key in keys
    }


def agreement_counts(plain: VolumeDraft | None, rewritten: VolumeDraft | None) -> Counts:
    """Returns how far two drafts of one patient are the same: by side, place and number, and lesion by lesion.

    Where one of the two was refused, ``None``, they are not.
    """
    if plain is None or rewritten is None:
        return {(SAME_STUDY, "study"): (False, 1)}
    one, other = ({(f.observation, f.laterality, f.location, f.count) for f in d.findings} for d in (plain, rewritten))
    counts: Counts = {(SAME_STUDY, "study"): (one == other, 1)}
    for name in sorted({key[0] for key in one | other}):
        ours, theirs = ({key for key in keys if key[0] == name} for keys in (one, other))
        counts[SAME_FINDINGS, name] = (len(ours & theirs), len(ours | theirs))
        lesions = [[les for f in d.findings if f.observation == name for les in f.lesions] for d in (plain, rewritten)]
        if any(lesions):
            match = match_lesions(*lesions)
            near = [math.dist(a.center_mm, b.center_mm) <= SAME_PLACE_MM for a, b in match.hits]
            counts[SAME_LESIONS, name] = (sum(near), len(near) + len(match.missed) + len(match.false))
    return counts


def estimates(studies: Sequence[Counts], *, seed: int = 0) -> dict[tuple[str, str], Estimate]:
    """Returns each (score, observation) over all studies, and (score, ``all``) over all observations.

    ``n`` is how many it is of, ``events`` how many were right; of means for a control these are rounded. Of fewer than
    ``MIN_PATIENTS`` studies that have the score there is no interval.
    """
    with_all = [_with_all(counts) for counts in studies]
    generator = np.random.default_rng(seed)
    resamples_RN = patient_resamples([str(i) for i in range(len(studies))], generator=generator)
    result = {}
    for key in dict.fromkeys(key for counts in with_all for key in counts):
        right_N, of_N = np.array([counts.get(key, (0, 0)) for counts in with_all], float).T
        value = float(right_N.sum() / of_N.sum())
        with np.errstate(invalid="ignore", divide="ignore"):
            draws_R = (resamples_RN @ right_N) / (resamples_RN @ of_N)
        having = int(np.count_nonzero(of_N))
        if having < MIN_PATIENTS:
            draws_R = np.full_like(draws_R, np.nan)
        of = float(of_N.sum())
        # What a study has several of is not independent: at 0 and 1 studies are counted.
        trials = None if key[0] == FALSE_LESIONS or having < MIN_PATIENTS else having
        result[key] = Estimate.of(value, draws_R, n=round(of), events=round(float(right_N.sum())), trials=trials)
    return result


def _with_all(counts: Counts) -> Counts:
    """Adds the sums over observations; of false lesions all are of one volume."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for (score, _), (right, of) in counts.items():
        sums[score][0] += right
        sums[score][1] = of if score == FALSE_LESIONS else sums[score][1] + of
    return {**counts, **{(score, "all"): (right, of) for score, (right, of) in sums.items()}}


def merged(parts: Iterable[Counts]) -> Counts:
    """Returns the counts of several kinds of scores of one study as one."""
    return {key: value for part in parts for key, value in part.items()}
