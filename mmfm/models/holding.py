"""Holding a text to the decisions: what it states beyond them is taken out, what it leaves out is written in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mmfm.models.decisions import SIDELESS
from mmfm.models.processor import Drafted
from mmfm.report import Finding, Measurement, Side, Status
from mmfm.text import CHEST_RADIOGRAPH, REGIONS, describe, label_report, mentions, split_sentences
from mmfm.text.labeller import mentions_elsewhere
from mmfm.text.wording import LESIONS_DESCRIBED


def hold_to_decisions(
    text: Drafted, decisions: Sequence[Finding], *, region: str | None = CHEST_RADIOGRAPH
) -> tuple[str | None, str | None, str]:
    """Returns findings and impression that state the decisions and no other present finding, and what was changed.

    A sentence that states a finding beyond the decisions, names another side, place, size or number, or denies one of
    them, is taken out, and of an impression with decisions every sentence that states nothing. A decision that a
    section does not state, with its side and each of its lesions, is written in front of it as a template sentence.
    So is a sentence taken out of the draft of a volume that tells of another part of the body.
    Text of which nothing is left becomes the normal template. Without a vocabulary nothing can be held: the text stays
    as it was written, and is not for a reader.
    """
    if region not in REGIONS:
        return text.findings, text.impression, "not held to the finding heads: no vocabulary for this part of the body"
    removed = 0
    kept: list[list[str]] = []
    for section in (text.findings, text.impression):
        sentences = split_sentences(section or "")
        good = [sentence for sentence in sentences if _fits(sentence, decisions, region)]
        if decisions and section is text.impression:
            # An impression that also calls the study normal would deny what it states.
            good = [s for s in good if any(f.status is not Status.ABSENT for f in label_report(s, region=region))]
        removed += len(sentences) - len(good)
        kept.append(good)
    added = 0
    for sentences in kept:
        stated = _statements(" ".join(sentences), decisions, region)
        missing = [part for d in decisions for part in _parts(d) if not any(_states(m, part, d) for m in stated)]
        sentences[:0] = split_sentences(describe(missing, region=region)[0]) if missing else []
        added += len(missing)
    if not any(kept) and (text.findings or text.impression):
        kept = [split_sentences(section) for section in describe((), region=region)]
    findings, impression = (" ".join(sentences) or None for sentences in kept)
    return findings, impression, f"held to the finding heads: {removed} sentence(s) out, {added} in"


def _parts(decision: Finding) -> list[Finding]:
    """Returns what sentences must state of a decision: each of a few lesions, else the finding as a whole."""
    if not decision.lesions:
        return [decision]
    single = [
        replace(
            decision,
            laterality=lesion.laterality,
            location=lesion.location,
            count=None,
            measurement=Measurement(value=float(round(lesion.diameter_mm)), unit="mm"),
            lesions=(),
        )
        for lesion in decision.lesions[:LESIONS_DESCRIBED]
    ]
    return single if len(decision.lesions) == 1 else [replace(decision, lesions=()), *single]


def _statements(text: str, decisions: Sequence[Finding], region: str) -> list[Finding]:
    """Returns what a text states: every single mention of what is counted, the other findings merged over the text."""
    counted = {decision.observation for decision in decisions if decision.lesions}
    merged = [finding for finding in label_report(text, region=region) if finding.observation not in counted]
    return [*merged, *(m for m in mentions(text, region=region) if m.observation in counted)] if counted else merged


def _states(mention: Finding, part: Finding, decision: Finding) -> bool:
    """Whether a mention in a text states a part of a decision."""
    if mention.observation != part.observation or mention.status is not Status.PRESENT:
        return False
    if not decision.lesions:
        return part.laterality in (None, mention.laterality)
    if part.count is not None:
        return mention.count == part.count
    return (mention.laterality, mention.location, mention.measurement) == (
        part.laterality,
        part.location,
        part.measurement,
    )


def _fits(sentence: str, decisions: Sequence[Finding], region: str) -> bool:
    """Whether a sentence states nothing that the decisions do not."""
    elsewhere = () if region == CHEST_RADIOGRAPH else mentions_elsewhere(sentence, region=region)
    if any(found.status is not Status.ABSENT for found in elsewhere):
        return False
    by_name = {decision.observation: decision for decision in decisions}
    sides: list[Side | None] = []
    for found in _statements(sentence, decisions, region):
        decision = by_name.get(found.observation)
        if found.status is Status.ABSENT:
            if decision is not None:
                return False
            continue
        if decision is None:
            return False
        if decision.lesions and not _fits_lesions(found, decision):
            return False
        if not decision.lesions and not _fits_whole(found, decision, region):
            return False
        if found.observation not in SIDELESS:
            sides += [decision.laterality, *(lesion.laterality for lesion in decision.lesions)]
            # "The right hepatic lobe" names a side, and is a place without one.
            sides += _named_sides(" ".join(lesion.location or "" for lesion in decision.lesions))
    # The labeller gives a finding one side; a sentence may name another one besides, or one that nobody decided.
    return not sides or _named_sides(sentence) <= {one for side in sides for one in _SINGLE[side]}


def _fits_whole(found: Finding, decision: Finding, region: str) -> bool:
    """Whether a mention names no other side, and of a volume no other severity, than was decided."""
    if None not in (found.laterality, decision.laterality) and found.laterality is not decision.laterality:
        return False
    return region == CHEST_RADIOGRAPH or found.severity in (None, decision.severity)


def _fits_lesions(found: Finding, decision: Finding) -> bool:
    """Whether lesions are where a mention of something counted places them, with its size and as many as it names."""
    named = _SINGLE[found.laterality]
    shown = [
        lesion
        for lesion in decision.lesions
        if found.location in (None, lesion.location) and (not named or lesion.laterality in named)
    ]
    return (
        set(named) <= {lesion.laterality for lesion in shown}
        and found.count in (None, 1, len(shown))
        and (found.measurement is None or round(found.measurement.value) in {round(x.diameter_mm) for x in shown})
        and bool(shown)
    )


_SINGLE = {
    Side.LEFT: (Side.LEFT,),
    Side.RIGHT: (Side.RIGHT,),
    Side.BILATERAL: (Side.LEFT, Side.RIGHT),
    None: (),
}


def _named_sides(sentence: str) -> set[Side]:
    words = set(re.findall(r"\b(left|right|bilateral|bilaterally|both)\b", sentence.lower()))
    both = words & {"bilateral", "bilaterally", "both"}
    return {side for side, word in ((Side.LEFT, "left"), (Side.RIGHT, "right")) if both or word in words}
