"""A model's draft -> the Report that a reader sees.

What a reader may not see is withheld here, by one rule for every sentence: a sentence that denies anything, calls
anything normal or compares with a prior study (none was given) is never shown as the model wrote it. The findings that
it states as present or uncertain are written again as plain sentences; what it denies is left out. Negatives then come
from one place only: a closing sentence names the observations below their operating point whose sensitivity was
measured, on at least ``LEAST_POSITIVES`` positive studies that the model was not trained on, above the checkpoint's
floor. All others are listed under ``not_assessed``. The draft as decoding gave it stays in
``provenance.raw_text``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mmfm.errors import ScopeError
from mmfm.inference.differential import suggest
from mmfm.inference.scope import views_read
from mmfm.report import Finding, Provenance, Report, Sections, Status
from mmfm.study import Receipt, Study
from mmfm.text import OBSERVATIONS, compares_with_prior, describe, label_report, split_sentences

if TYPE_CHECKING:
    from mmfm.models import Checkpoint, Draft
    from mmfm.models.checkpoint import Facts

LEAST_POSITIVES = 10
"""Positive studies, not trained on, that a sensitivity must rest on before a negative is shown."""

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
    receipts: Sequence[Receipt],
    scope_notes: Sequence[str],
    indication: str | None,
    seconds: float,
) -> Report:
    """Returns the report of a draft.

    Args:
        study: what was read.
        draft: the model's own words, probabilities and the views it used.
        checkpoint: whose facts say which negatives may be shown.
        receipts: of the pictures that were read.
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
    coverage, view_notes = views_read(study, draft.views)
    findings_text, impression_text = shown_text(draft, checkpoint.facts)
    findings = tuple(
        replace(f, probability=draft.probabilities.get(f.observation))
        for f in label_report(findings_text, impression_text)
    )
    stated = {f.observation for f in findings}
    differential, note = suggest(findings)
    return Report(
        study_uid=study.study_uid,
        sections=Sections(
            indication=indication,
            technique=f"Chest radiograph, {coverage}.",
            comparison="None given to the model.",
            findings=findings_text,
            impression=impression_text,
        ),
        findings=findings,
        # Those of a head that was not measured to read pictures would only mislead: no operating point, not shown.
        finding_probabilities={
            o: p for o, p in draft.probabilities.items() if o in checkpoint.facts.operating_points or o == "normal"
        },
        differential=differential,
        differential_note=note,
        not_assessed=tuple(o for o in OBSERVATIONS if o not in stated),
        coverage=coverage,
        scope_notes=(*scope_notes, *view_notes),
        receipts=tuple(receipts),
        provenance=Provenance(
            checkpoint=checkpoint.name,
            sha256=checkpoint.sha256,
            prompt_sha256=draft.prompt_sha256,
            decoding=draft.decoding,
            raw_text=raw_text,
            seconds=round(seconds, 3),
        ),
    )


def assessed(facts: Facts) -> tuple[str, ...]:
    """Returns the observations whose absence may be shown, in the order of the vocabulary."""
    return tuple(
        o
        for o in OBSERVATIONS
        if o in facts.operating_points
        and (measured := facts.sensitivity.get(o)) is not None
        and measured.positives >= LEAST_POSITIVES
        and measured.value > facts.sensitivity_floor
    )


def shown_text(draft: Draft, facts: Facts) -> tuple[str, str]:
    """Returns findings and impression as a reader may see them; the module's docstring has the rule."""
    findings, impression = _positive_part(draft.findings), _positive_part(draft.impression)
    present = label_report(findings or None, impression or None)
    said = {f.observation for f in present if f.status is not Status.ABSENT}
    below = [
        o for o in assessed(facts) if o not in said and draft.probabilities.get(o, 1.0) < facts.operating_points[o]
    ]
    if below:
        negatives = f"{_listed(below)} above the operating point."
    else:
        negatives = "No observation was measured well enough to be called absent."
    if said:
        # What one section alone states is not lost to a reader of the other.
        findings, impression = findings or _restated(present), impression or _restated(present)
        return f"{findings} {negatives}" if below else findings, impression
    lead = "No finding above the operating point among those assessed."
    return " ".join(filter(None, [findings, lead, negatives])), " ".join(filter(None, [impression, lead]))


def _positive_part(section: str | None) -> str:
    """The sentences that state something and deny nothing; others cut down to what they state."""
    kept = []
    for sentence in split_sentences(section or ""):
        found = label_report(sentence)
        if _DENIES.search(sentence) or compares_with_prior(sentence) or any(f.status is Status.ABSENT for f in found):
            sentence = _restated(found)
        kept.append(sentence)
    return " ".join(dict.fromkeys(filter(None, kept)))


def _restated(findings: Sequence[Finding]) -> str:
    """The present findings, then the uncertain ones, each as one plain sentence; absent ones not at all."""
    present = [f"{_words(f)}." for f in findings if f.status is Status.PRESENT]
    uncertain = [_words(f) for f in findings if f.status is Status.UNCERTAIN]
    return " ".join([*present, *(f"Possible {words[0].lower()}{words[1:]}." for words in uncertain)])


def _words(finding: Finding) -> str:
    """Finding as words, such as ``Left pleural effusion``."""
    return describe([replace(finding, status=Status.PRESENT)])[0].rstrip(".")


def _listed(observations: Sequence[str]) -> str:
    """Such as ``No cardiomegaly, pleural effusion or atelectasis``."""
    names = [_words(Finding(observation=o, status=Status.PRESENT)).lower() for o in observations]
    return "No " + (f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0])
