"""A model's draft -> the Report that a reader sees.

What a reader may not see is withheld here, by one rule for every sentence: a sentence that denies anything, calls
anything normal or compares with a prior study (none was given) is never shown as the model wrote it. The findings that
it states as present or uncertain are written again as plain sentences; what it denies is left out. Negatives then come
from one place only: a closing sentence names the observations below their operating point whose sensitivity was
measured, on at least ``LEAST_POSITIVES`` positive studies that the model was not trained on, above the checkpoint's
floor. All others are listed under ``not_assessed``. The draft as decoding gave it stays in
``provenance.raw_text``. Words and observations are those of the draft's region; where that has no vocabulary, nothing
can be held to this rule, so nothing is stated as a finding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mmfm.errors import ScopeError
from mmfm.inference.differential import suggest
from mmfm.inference.scope import lacking_sequences, modalities_of, views_read
from mmfm.report import Finding, Provenance, Report, Sections, Status
from mmfm.study import Study
from mmfm.text import compares_with_prior, describe, label_report, split_sentences
from mmfm.text.labeller import mentions
from mmfm.text.regions import CHEST_RADIOGRAPH, REGIONS, observations

if TYPE_CHECKING:
    from mmfm.models import Checkpoint, Draft
    from mmfm.models.checkpoint import Facts
    from mmfm.models.processor import StudyPixels

LEAST_POSITIVES = 10
"""Positive studies, not trained on, that a sensitivity must rest on before a negative is shown."""

NO_VOCABULARY = (
    "No finding is stated: there is no vocabulary for this part of the body yet, so that the text of the model"
    " cannot be checked. It stands in the provenance alone."
)
"""What findings say where nothing can be stated."""

_DENIES = re.compile(
    r"\b(?:no|not|none|nor|neither|never|without|free of|negative|absen(?:t|ce)|"
    r"resol(?:ved|ution)|exclud\w*|ruled? out|"
    r"clear|normal\w*|unremarkable|intact|midline|preserved|sharp|patent|well[- ](?:expanded|inflated|aerated)|"
    r"satisfactory|healthy)\b",
    re.IGNORECASE,
)


def compose(
    study: Study,
    draft: Draft,
    checkpoint: Checkpoint,
    *,
    pixels: StudyPixels,
    scope_notes: Sequence[str],
    indication: str | None,
    seconds: float,
) -> Report:
    """Returns the report of a draft.

    Args:
        study: what was read.
        draft: the model's own words, probabilities and the views it used.
        checkpoint: whose facts say which negatives may be shown.
        pixels: of the study as the model took them, with their receipts.
        scope_notes: of ``check_study``.
        indication: as given to the model.
        seconds: that the draft took.

    Raises:
        ScopeError: the model did not end its text, or wrote none.
    """
    raw_text = f"Findings: {draft.findings or ''}\nImpression: {draft.impression or ''}"
    if not draft.finished or not (draft.findings or draft.impression):
        raise ScopeError(
            "draft",
            expected="a text that the model ends itself",
            found="output that never ended" if not draft.finished else "no text",
            fix="no draft is made; this study is unlike those that the checkpoint was trained on",
        )
    technique, coverage, notes = _what_was_read(study, draft, pixels)
    findings: tuple[Finding, ...] = ()
    if draft.region in REGIONS:
        findings_text, impression_text = shown_text(draft, checkpoint.facts)
        findings = tuple(
            _with_decision(finding, draft)
            for finding in label_report(findings_text, impression_text, region=draft.region)
        )
        differential, differential_note = suggest(findings, region=draft.region)
    else:
        findings_text, impression_text = NO_VOCABULARY, "No finding is stated."
        differential, differential_note = (), "empty: no vocabulary for this part of the body"
    stated = {f.observation for f in findings}
    facts = checkpoint.facts
    points = facts.volumes.operating_points if pixels.slabs else facts.operating_points
    within = observations(draft.region) if draft.region in REGIONS else ()
    return Report(
        study_uid=study.study_uid,
        sections=Sections(
            indication=indication,
            technique=technique,
            comparison="None given to the model.",
            findings=findings_text,
            impression=impression_text,
        ),
        findings=findings,
        # A head without an operating point decides nothing, as of what is counted lesion by lesion: not shown.
        finding_probabilities={o: p for o, p in draft.probabilities.items() if o in points or o == "normal"},
        differential=differential,
        differential_note=differential_note,
        not_assessed=tuple(o for o in within if o not in stated),
        coverage=coverage,
        scope_notes=(*scope_notes, *notes),
        receipts=pixels.receipts,
        provenance=Provenance(
            checkpoint=checkpoint.name,
            sha256=checkpoint.sha256,
            prompt_sha256=draft.prompt_sha256,
            decoding=draft.decoding,
            raw_text=raw_text,
            seconds=round(seconds, 3),
        ),
    )


def assessed(facts: Facts, region: str = CHEST_RADIOGRAPH, *, volume: bool = False) -> tuple[str, ...]:
    """Returns the observations whose absence may be shown, in the order of the region's vocabulary."""
    sensitivity = facts.volumes.sensitivity if volume else facts.sensitivity
    return tuple(
        o
        for o in observations(region)
        if o in _points(facts, volume)
        and (measured := sensitivity.get(o)) is not None
        and measured.positives >= LEAST_POSITIVES
        and measured.value > facts.sensitivity_floor
    )


def _points(facts: Facts, volume: bool) -> dict[str, float]:
    """Returns P from which on each observation is stated; of what is counted on volumes, P of one of its lesions."""
    return facts.volumes.operating_points | facts.volumes.lesion_points if volume else facts.operating_points


def shown_text(draft: Draft, facts: Facts) -> tuple[str, str]:
    """Returns findings and impression as a reader may see them; the module's docstring has the rule."""
    region = draft.region
    assert region is not None, "without a vocabulary no text is shown"
    findings, impression = _positive_part(draft.findings, region), _positive_part(draft.impression, region)
    present = _stated(findings or None, impression or None, region=region)
    said = {f.observation for f in present if f.status is not Status.ABSENT}
    volume = not draft.views
    counted = facts.volumes.lesion_points if volume else {}  # below where no lesion was found
    below = [
        o
        for o in assessed(facts, region, volume=volume)
        if o not in said and (o in counted or draft.probabilities.get(o, 1.0) < _points(facts, volume)[o])
    ]
    if below:
        negatives = f"{_listed(below, region)} above the operating point."
    else:
        negatives = "No observation was measured well enough to be called absent."
    if said:
        # What one section alone states is not lost to a reader of the other.
        findings, impression = findings or _restated(present, region), impression or _restated(present, region)
        return f"{findings} {negatives}" if below else findings, impression
    lead = "No finding above the operating point among those assessed."
    return " ".join(filter(None, [findings, lead, negatives])), " ".join(filter(None, [impression, lead]))


def _what_was_read(study: Study, draft: Draft, pixels: StudyPixels) -> tuple[str, str, tuple[str, ...]]:
    """Returns technique, coverage and scope notes."""
    if pixels.slabs:
        return f"{draft.kind}.", *_volume_read(study, pixels)
    if draft.region == CHEST_RADIOGRAPH:
        coverage, notes = views_read(study, draft.views)
        return f"Chest radiograph, {coverage}.", coverage, notes
    count, left_out = len(draft.views), len(study.series) - len(draft.views)
    coverage = f"{count} picture{'s' * (count != 1)}" + (f"; {left_out} further not read" if left_out else "")
    kind = draft.kind or "part of the body not told"
    told = [f"modality and part of the body were read from the pictures themselves: {kind}"]
    if (stated := modalities_of(study)) and not stated & set(re.findall(r"\b[A-Z]{2}\b", kind)):
        told.append(f"the header states {' and '.join(sorted(stated))}")
    return f"{kind[0].upper()}{kind[1:]}, as read from the pictures.", coverage, tuple(told)


def _volume_read(study: Study, pixels: StudyPixels) -> tuple[str, tuple[str, ...]]:
    """Returns the coverage of a volume, and what of it was not read."""
    recipe = pixels.slabs[0].recipe
    middle = (np.asarray(recipe.shape) - 1) / 2
    centers = [float((slab.affine @ [*middle, 1])[2]) for slab in pixels.slabs]
    height = recipe.shape[0] * recipe.spacing_mm[0] + max(centers) - min(centers)
    slabs = f"{len(pixels.slabs)} slab{'s' * (len(pixels.slabs) != 1)}"
    read, there = len(pixels.receipts), len(study.series)
    coverage = f"{read} of {there} series; {slabs} of {height:.0f} mm from foot to head"
    if lacking := lacking_sequences(pixels):
        coverage += f"; without {', '.join(lacking)}"
    steps = dict.fromkeys(step for receipt in pixels.receipts for step in receipt.steps)
    return coverage, tuple(step for step in steps if "were not read" in step)


def _with_decision(finding: Finding, draft: Draft) -> Finding:
    """Returns a stated finding with its probability, and what the heads decided of it: each lesion, number and size."""
    finding = replace(finding, probability=draft.probabilities.get(finding.observation))
    decision = next((d for d in draft.decisions if d.observation == finding.observation and d.lesions), None)
    if decision is None or finding.status is Status.ABSENT:
        return finding
    return replace(
        finding,
        laterality=decision.laterality,
        location=decision.location,
        probability=decision.probability,
        count=decision.count,
        measurement=decision.measurement,
        lesions=decision.lesions,
    )


def _stated(findings: str | None, impression: str | None = None, *, region: str) -> tuple[Finding, ...]:
    """Returns what a text states: of a radiograph merged by observation, of volumes each lesion's statement apart."""
    read = label_report if region == CHEST_RADIOGRAPH else mentions
    return read(findings, impression, region=region)


def _positive_part(section: str | None, region: str) -> str:
    """The sentences that state something and deny nothing; others cut down to what they state."""
    kept = []
    for sentence in split_sentences(section or ""):
        found = _stated(sentence, region=region)
        if _DENIES.search(sentence) or compares_with_prior(sentence) or any(f.status is Status.ABSENT for f in found):
            sentence = _restated(found, region)
        if re.search(r"[^\W\d_]", sentence):  # the number of a list is nothing without its sentence
            kept.append(sentence)
    return " ".join(dict.fromkeys(kept))


def _restated(findings: Sequence[Finding], region: str) -> str:
    """The present findings, then the uncertain ones, each as one plain sentence; absent ones not at all."""
    present = [f"{_words(f, region)}." for f in findings if f.status is Status.PRESENT]
    uncertain = [_words(f, region) for f in findings if f.status is Status.UNCERTAIN]
    possible = [f"Possible {words[0].lower()}{words[1:]}." for words in uncertain]
    return " ".join(dict.fromkeys([*present, *possible]))


def _words(finding: Finding, region: str) -> str:
    """Finding as words, such as ``Left pleural effusion``."""
    return describe([replace(finding, status=Status.PRESENT)], region=region)[0].rstrip(".")


def _listed(observations: Sequence[str], region: str) -> str:
    """Such as ``No cardiomegaly, pleural effusion or atelectasis``."""
    names = [_words(Finding(observation=o, status=Status.PRESENT), region).lower() for o in observations]
    return "No " + (f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0])
