"""A study beside a prior one of the same patient, both drafted by one checkpoint: what changed, by stated rules.

The two are not registered. Lesions of one observation are paired one to one within the same side and place, those of
the nearest size first. A pair has increased or decreased where its longest diameter differs by ``LEAST_SHARE`` and by
``LEAST_MM`` or more, else it is stable; what has no partner is new, or was not found again. What is not counted is
compared by its severity, and where that does not differ by its sides. Not found again is called resolved only where
the absence of the observation may be shown (``compose.assessed``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmfm.errors import ScopeError
from mmfm.models.processor import GRADES
from mmfm.report import Change, Finding, Lesion, Report, Side, Status
from mmfm.study import Study
from mmfm.text.regions import region_words

LEAST_SHARE = 0.2
"""Of the diameter before: 20 % more is progression by RECIST 1.1 (Eisenhauer EA et al. Eur J Cancer 2009;45:228)."""
LEAST_MM = 3.0
"""More than readers of nodules differ by: 95 % limits of agreement of 1.73 mm (Revel MP et al. Radiology
2004;231:453-458), on voxels finer than the 2 mm that volumes are read at."""


def check_prior(study: Study, prior: Study) -> None:
    """Raises ScopeError unless both studies state the same patient and are two studies."""
    here, there = study.patient.patient_id, prior.patient.patient_id
    if not here or not there or here != there:
        raise ScopeError(
            "the prior study",
            expected="the Patient ID of the current study, stated in both",
            found="another one" if here and there else "none stated",
            fix="leave it out, or give a study of the same patient",
        )
    if study.study_uid == prior.study_uid:
        raise ScopeError(
            "the prior study",
            expected="another study",
            found="the same one",
            fix="leave it out, or give an earlier one",
        )


def compare(report: Report, before: Report, *, region: str | None, assessed: Sequence[str]) -> Report:
    """Returns a report that says what changed since a prior one.

    Args:
        report: of the current study.
        before: of the prior study, by the same checkpoint.
        region: whose vocabulary both have; without one nothing is compared.
        assessed: observations whose absence may be shown.
    """
    if region is None:
        told = "A prior study was given; without a vocabulary for this part of the body nothing is compared."
        return replace(report, sections=replace(report.sections, comparison=told))
    wording = {name: table["wording"] for name, table in region_words(region)["observation"].items()}
    then = {f.observation: f for f in before.findings if f.status is not Status.ABSENT}
    sentences: list[str] = []
    findings = []
    for finding in report.findings:
        old, name = then.pop(finding.observation, None), wording[finding.observation]
        if finding.status is Status.PRESENT:
            change, told_of = _changed(finding, old, name)
            sentences += told_of
        elif finding.status is Status.ABSENT and old is not None and finding.observation in assessed:
            change = Change.RESOLVED
            sentences.append(f"{_sentence_case(_whole(old, name))} of the prior study was not found (resolved).")
        else:
            change = None
            sentences += [] if old is None else _not_found(old, name)
        findings.append(replace(finding, change=change))
    for observation, old in then.items():
        sentences += _not_found(old, wording[observation])
    comparison = (
        f"A prior study of the same patient, drafted by the same checkpoint ({before.coverage}); its date is not read."
        " The two were not registered: lesions were paired by place and size, so that what the two drafts place"
        f" otherwise counts as new. Increased or decreased means by {LEAST_SHARE:.0%} and {LEAST_MM:g} mm of the"
        " longest diameter or more."
    )
    notes = [f"prior study: {note}" for note in before.scope_notes if note not in report.scope_notes]
    sections = replace(
        report.sections,
        comparison=comparison,
        findings=" ".join([report.sections.findings or "", *sentences]).strip(),
    )
    return replace(report, sections=sections, findings=tuple(findings), scope_notes=(*report.scope_notes, *notes))


def pairs(
    now: Sequence[Lesion], before: Sequence[Lesion]
) -> tuple[list[tuple[Lesion, Lesion]], list[Lesion], list[Lesion]]:
    """Pairs the lesions of one observation.

    Returns:
        The pairs (now, before), the lesions that are there only now, and those that were there only before; each in
        the order given.
    """
    candidates = sorted(
        (abs(new.diameter_mm - old.diameter_mm), i, j)
        for i, new in enumerate(now)
        for j, old in enumerate(before)
        if (new.laterality, new.location) == (old.laterality, old.location)
    )
    partner: dict[int, int] = {}
    for _, i, j in candidates:
        if i not in partner and j not in partner.values():
            partner[i] = j
    return (
        [(now[i], before[partner[i]]) for i in sorted(partner)],
        [lesion for i, lesion in enumerate(now) if i not in partner],
        [lesion for j, lesion in enumerate(before) if j not in partner.values()],
    )


def change_of(now_mm: float, before_mm: float) -> Change:
    """Returns how a longest diameter changed, by the rule of this module; stable where it did not."""
    difference = now_mm - before_mm
    if abs(difference) < max(LEAST_SHARE * before_mm, LEAST_MM):
        return Change.STABLE
    return Change.INCREASED if difference > 0 else Change.DECREASED


def _changed(finding: Finding, old: Finding | None, name: str) -> tuple[Change | None, list[str]]:
    """Returns the change of a present finding, and one sentence for each of its lesions, else one for it."""
    if old is None and not finding.lesions:
        return Change.NEW, [f"{_sentence_case(_whole(finding, name))} was not found before (new)."]
    if old is not None and old.status is Status.UNCERTAIN:
        return None, [f"{_sentence_case(_whole(finding, name))} was uncertain before."]
    if finding.lesions and (old is None or old.lesions):
        return _changed_lesions(finding.lesions, () if old is None else old.lesions, name)
    assert old is not None, "handled above"
    return _changed_whole(finding, old, name)


def _changed_lesions(now: Sequence[Lesion], before: Sequence[Lesion], name: str) -> tuple[Change, list[str]]:
    paired, new, gone = pairs(now, before)
    changes = [change_of(_mm(a), _mm(b)) for a, b in paired]
    told = [
        f"{_sentence_case(_lesion(a, name))} was {_mm(b):.0f} mm before ({change})."
        for (a, b), change in zip(paired, changes, strict=True)
    ]
    told += [f"{_sentence_case(_lesion(lesion, name))} was not found before (new)." for lesion in new]
    told += [f"{_sentence_case(_lesion(lesion, name))} of the prior study was not found again." for lesion in gone]
    if not paired and not gone:
        return Change.NEW, told
    if new or Change.INCREASED in changes:
        return Change.INCREASED, told
    return (Change.DECREASED if gone or Change.DECREASED in changes else Change.STABLE), told


def _changed_whole(finding: Finding, old: Finding, name: str) -> tuple[Change | None, list[str]]:
    now_grade, old_grade = GRADES.get(finding.severity or ""), GRADES.get(old.severity or "")
    now_sides, old_sides = _SIDES[finding.laterality], _SIDES[old.laterality]
    change: Change | None = None
    if now_grade is not None and old_grade is not None and now_grade != old_grade:
        change = Change.INCREASED if now_grade > old_grade else Change.DECREASED
    elif now_sides and old_sides and now_sides != old_sides:
        change = Change.INCREASED if now_sides > old_sides else Change.DECREASED if now_sides < old_sides else None
    elif now_grade is not None and now_grade == old_grade:
        change = Change.STABLE
    was = " ".join(filter(None, [old.severity, old.laterality if now_sides != old_sides else None])) or "there"
    return change, [f"{_sentence_case(_whole(finding, name))} was {was} before{f' ({change})' if change else ''}."]


def _not_found(old: Finding, name: str) -> list[str]:
    """Sentences of what the prior study showed and this draft does not state: no denial of it."""
    things = [_lesion(lesion, name) for lesion in old.lesions] or [_whole(old, name)]
    return [
        f"{_sentence_case(thing)} of the prior study is not stated now; its absence was not assessed."
        for thing in things
    ]


_SIDES: dict[Side | None, frozenset[Side]] = {
    None: frozenset(),
    Side.LEFT: frozenset({Side.LEFT}),
    Side.RIGHT: frozenset({Side.RIGHT}),
    Side.BILATERAL: frozenset({Side.LEFT, Side.RIGHT}),
}


def _mm(lesion: Lesion) -> float:
    """The diameter as the report says it."""
    return float(round(lesion.diameter_mm))


def _lesion(lesion: Lesion, name: str) -> str:
    place = " ".join(filter(None, [lesion.laterality, lesion.location]))
    if lesion.location is None and lesion.laterality is not None:
        place = f"{lesion.laterality} side"
    return f"the {_mm(lesion):.0f} mm {name}{f' in the {place}' if place else ''}"


def _whole(finding: Finding, name: str) -> str:
    return " ".join(filter(None, ["the", finding.severity, finding.laterality, name]))


def _sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]
