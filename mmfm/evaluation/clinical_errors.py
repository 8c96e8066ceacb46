"""Clinical errors of a draft, counted from labels and text, each with the sentence that shows it.

    clinical_errors(draft, reference)      # one study: a tuple of ClinicalError
    ErrorRates.of([...])                   # many: errors per report, to be resampled

Two levels, because no vocabulary holds all that a report may say. *Labels*: what the labeller of ``mmfm.text`` reads in
each sentence. *Text*: sentences of draft and reference are paired by the words that they share, and sides, severities
and negations of a pair compared; a sentence that asserts something abnormal, and has none of its words in the other
text, is reported without an observation. A sentence that stands in both texts is right, whatever it says.

The reference is taken as the truth, and a report is no complete description of a study: what it does not mention is
counted as invented, as in every comparison with a single reference. The words are in ``clinical_errors.toml``.

Sources: Yu et al., Patterns 2023 (kinds of clinically significant errors, ReXVal and RadCliQ); Ostmeier et al., GREEN,
EMNLP Findings 2024 (the same kinds counted in text); Ramesh et al., ML4H 2022 (comparisons without a prior).
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from mmfm.evaluation.references import Reference
from mmfm.report import Finding, Sections, Side, Status
from mmfm.text import compares_with_prior, label_report, split_sentences


class ErrorKind(StrEnum):
    """What a radiologist would call each error. One statement is counted under one kind, but for contradictions."""

    MISSED_FINDING = "missed_finding"
    """The reference states it; the draft does not mention it, or denies it in other words ("the lungs are clear")."""
    INVENTED_FINDING = "invented_finding"
    """The draft states or suspects it; the reference does not mention it, or denies it in other words. Also one more on
    the other side, where the draft has the reference's as well."""
    WRONG_SIDE = "wrong_side"
    """The same statement about left in one text and right in the other. One side against both sides is none."""
    WRONG_SEVERITY = "wrong_severity"
    """Mild, moderate or severe in one text and another of the three in the other."""
    NEGATION_FLIP = "negation_flip"
    """The reference denies in these words what the draft states, or the reverse. Where the draft denies it as well, its
    statement is an invention, and a contradiction."""
    INVENTED_COMPARISON = "invented_comparison"
    """The draft compares with a prior study that it cannot have from anywhere: there is no ``prior_study_uid``, and the
    reference makes no such comparison: of the same thing, or, where the draft names none, in the same direction. Where
    the comparison section names a prior, any comparison in the reference's text that the draft has not will do."""
    CONTRADICTION = "contradiction"
    """The draft denies in one sentence what it states in another, on the same side or without one."""
    REPEAT = "repeat"
    """The same sentence once more in the same section."""


@dataclass(frozen=True, kw_only=True)
class ClinicalError:
    """One error of a draft, with what shows it."""

    kind: ErrorKind
    observation: str | None
    """Name in the vocabulary of ``mmfm.text``; None where it has no word for what the sentence is about."""
    draft: str | None
    """The draft's sentence; None for what it does not mention."""
    reference: str | None
    """The reference's sentence, or of a contradiction the draft's other one; None where there is none."""


def clinical_errors(draft: Sections, reference: Reference) -> tuple[ClinicalError, ...]:
    """Returns the errors of a draft's findings and impression, in the order of ``ErrorKind``.

    Args:
        draft: the drafted text.
        reference: the study's report, its region, and what is known of a prior study. Of a region without a vocabulary
            no error is looked for.
    """
    if not reference.has_vocabulary:
        return ()
    return _errors(draft, reference.report, reference.prior_study_uid is not None, reference.region)


@lru_cache(maxsize=1 << 13)  # what is scored is also written out and shown
def _errors(draft: Sections, report: Sections, has_prior: bool, region: str) -> tuple[ClinicalError, ...]:
    both = _Comparison(draft, report, has_prior, region)
    contradictions = _contradictions(list(dict.fromkeys(both.draft)))
    errors = [*_first_of_each(dict.fromkeys([*both.errors(), *contradictions])), *_repeats(draft, region)]
    return tuple(sorted(errors, key=lambda error: _KINDS.index(error.kind)))


def _first_of_each(errors: Iterable[ClinicalError]) -> list[ClinicalError]:
    """One error of a kind for each observation: findings and impression say the same thing twice."""
    kept: dict[object, ClinicalError] = {}
    for error in errors:
        kept.setdefault((error.kind, error.observation) if error.observation else error, error)
    return list(kept.values())


@dataclass(frozen=True, kw_only=True)
class ErrorRates:
    """Errors of N drafts by kind: statistics that are only resampled."""

    counts_NK: np.ndarray
    """float64, errors of each draft of each ``ErrorKind``."""
    looked_N: np.ndarray
    """bool, whether errors were looked for; the rest takes no part."""

    @classmethod
    def of(cls, errors: Iterable[Sequence[ClinicalError] | None]) -> ErrorRates:
        """Returns the counts of what ``clinical_errors`` found in each study; None where nobody looked."""
        found = list(errors)
        counts = [Counter(error.kind for error in each or ()) for each in found]
        counts_NK = np.array([[count[kind] for kind in _KINDS] for count in counts], dtype=float)
        looked_N = np.array([each is not None for each in found], dtype=bool)
        return cls(counts_NK=counts_NK.reshape(-1, len(_KINDS)), looked_N=looked_N)

    def take(self, index: np.ndarray) -> ErrorRates:
        """Returns the counts of the studies at ``index``."""
        return ErrorRates(counts_NK=self.counts_NK[index], looked_N=self.looked_N[index])

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns errors per report by kind and of all kinds, and the share of reports with any, each (R,)."""
        if not self.looked_N.any():
            return {}
        drawn_R1 = (weights_RN @ self.looked_N)[:, None]
        rates_RK = weights_RN @ self._columns() / np.where(drawn_R1 > 0, drawn_R1, np.nan)
        return dict(zip(_SCORES, rates_RK.T, strict=True))

    def trials(self) -> dict[str, float]:
        """Returns of each score the number of studies: of none with an error the interval has a width too."""
        return {name: float(n) for name, (n, _) in self.counts().items()}

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Returns of each score the number of studies, and of errors or of reports with any."""
        N = int(self.looked_N.sum())
        totals = self._columns().sum(axis=0)
        return {name: (N, int(total)) for name, total in zip(_SCORES, totals, strict=True)} if N else {}

    def _columns(self) -> np.ndarray:
        return np.column_stack([self.counts_NK, self.counts_NK.sum(axis=1), self.counts_NK.any(axis=1)])


_KINDS = tuple(ErrorKind)
_SCORES = (*(f"error_rate.{kind}" for kind in _KINDS), "error_rate", "reports_with_error")

_WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_SPELLED: dict[str, list[str]] = {word: text.split() for word, text in _WORDS["spelled"].items()}
_SIDES = {word: side for side, words in _WORDS["side"].items() for word in words}
_SEVERITIES = {word: severity for severity, words in _WORDS["severity"].items() for word in words}
_FORWARDS, _BACKWARDS, _AROUND, _ENDS, _NO_CHANGE = (
    frozenset(_WORDS["negation"][name]) for name in ("forwards", "backwards", "around", "ends", "no_change")
)
_NEGATIONS = _FORWARDS | _BACKWARDS | _AROUND
_OPPOSITE = _NEGATIONS | set(_WORDS["negation"]["opposite"])
_FUNCTION, _ANATOMY, _NORMAL, _REMARK, _COMPARING, _VAGUE, _QUALIFIES, _QUALIFIES_ALL = (
    frozenset(_WORDS["words"][name])
    for name in ("function", "anatomy", "normal", "remark", "comparing", "vague", "qualifies", "qualifies_all")
)
_NO_PLURAL = frozenset(_WORDS["words"]["no_plural"]) | _FUNCTION
_SMALL = _FUNCTION | _OPPOSITE | _SIDES.keys() | _SEVERITIES.keys()
_STANDS_FOR: dict[str, list[str]] = _WORDS["stands_for"]
_BROAD, _FURTHER = frozenset(_WORDS["broad"]["observations"]), frozenset(_WORDS["broad"]["further"])
_COMPARES = {name: re.compile(rf"\b(?:{'|'.join(patterns)})\b") for name, patterns in _WORDS["compares"].items()}
_NEW = frozenset(_WORDS["words"]["only_new"])

_JOINTS = frozenset((",", ";", ":", "and", "or"))
_EXISTS = frozenset(("a", "an", "there", "present"))
_ON_VIEW = re.compile(
    r"\b(?:on|in) (?:the |both )?(?:lateral|frontal|pa|ap)(?: and lateral)? (?:view|projection|radiograph|film|image)"
)
_ADVERB = re.compile(r"\w+[^a]ly")  # not "cardiomegaly"
_NUMBER = re.compile(r"\s*\(?\d{1,2}[.)]\s+")
_TOKEN = re.compile(r"[a-z0-9]+|[,;:]")
_BOTH_SIDES = re.compile(r"\b(?:left (?:and|or|and or) right|right (?:and|or|and or) left)\b")
_NO_PRIOR = re.compile(r"\W*(?:none|no|n/?a|not|without|unavailable|not applicable|nil)\b", re.IGNORECASE)

ALIKE, COPIED = 0.5, 0.75
"""Dice coefficients of the words of two sentences: from which they are about the same thing, and say the same."""


@dataclass(frozen=True, eq=False)
class _Sentence:
    """A sentence as sets of words; ``finding words`` tell what it is about, without places and small words."""

    text: str
    region: str
    tokens: tuple[str, ...]
    """Its words and what parts them, in singular."""
    words: tuple[str, ...]
    content: frozenset[str]
    """All but small words, sides, severities and negations."""
    asserted: frozenset[str]
    """Finding words that no negation reaches."""
    denied: frozenset[str]
    sides: tuple[str, ...]
    severities: frozenset[str]
    negations: int

    @cached_property
    def bare(self) -> tuple[str, ...]:
        """The words without those of a side."""
        return tuple(word for word in self.words if word not in _SIDES)

    @cached_property
    def stripped(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The words without negations, and without what stands in their place as well."""
        return (
            tuple(word for word in self.words if word not in _NEGATIONS),
            tuple(word for word in self.words if word not in _OPPOSITE),
        )

    @cached_property
    def labels(self) -> tuple[Finding, ...]:
        return label_report(self.text, region=self.region)

    @cached_property
    def compares(self) -> bool:
        """Whether it compares with a prior study, named or not."""
        text = " ".join(self.words)
        if _COMPARES["asking"].search(text):
            # "Stable nodule, comparison with older films is recommended": what else is said may still call it stable.
            clauses = re.split(" [,;:] ", " ".join(self.tokens))
            return any(_COMPARES["implied"].search(c) and not _COMPARES["asking"].search(c) for c in clauses)
        rest = _COMPARES["no_comparison"].sub("", text)
        compares = any(_COMPARES[name].search(rest) for name in ("named", "implied"))
        return compares or compares_with_prior(self.text if rest == text else rest)

    @cached_property
    def compared(self) -> frozenset[str]:
        """What a comparison is about: its words, and the observations that it names. Empty for "no interval change"."""
        named = {finding.observation for finding in self.labels if finding.status is not Status.ABSENT}
        return (self.content - self.denied - _COMPARING) | named

    @cached_property
    def only_new(self) -> bool:
        """Whether it compares by nothing but calling a finding new: that is a finding first."""
        text = " ".join(self.words)
        found = set(_COMPARES["implied"].findall(text))
        return bool(found) and found <= _NEW and not _COMPARES["named"].search(text)

    @cached_property
    def change(self) -> frozenset[str]:
        """Of better, worse and same, what a comparison says."""
        text = " ".join(self.words)
        return frozenset(name for name in ("better", "worse", "same") if _COMPARES[name].search(text))


@lru_cache(maxsize=2**16)
def _sentence(text: str, region: str) -> _Sentence:
    number = _NUMBER.match(text)
    tokens: list[str] = []
    plain = text[number.end() if number else 0 :].lower().replace("n't", " not")
    plain = re.sub(r"\b(?:free|clear) of\b", "without", plain)
    plain = re.sub(r"\bremarkable for\b", "with", plain)
    plain = re.sub(r"\b(no|of|any|with|without)\s+abnormal\b", r"\1", plain)
    for token in _TOKEN.findall(plain):
        tokens += _SPELLED.get(token) or (_singular(token),)
    words = tuple(token for token in tokens if token not in ",;:")
    place = set(_TOKEN.findall(" ".join(_ON_VIEW.findall(plain))))
    content = set(words) - _SMALL - place
    findings = {w for w in content if w not in _ANATOMY and not w.isdigit() and not _ADVERB.fullmatch(w)}
    if not findings and not _EXISTS.isdisjoint(words):
        findings = content  # "there is a cervical rib"
    asserted = findings
    if negations := sum(w in _NEGATIONS for w in words):
        asserted = {w for w, denied in zip(tokens, _reached(tokens), strict=True) if not denied} & findings
    sides = tuple(_SIDES[w] for w in words if w in _SIDES)
    if len(sides) > 1:
        both = _BOTH_SIDES.sub("both", " ".join(words)).split()
        sides = tuple(_SIDES[w] for w in both if w in _SIDES)
    return _Sentence(
        text=text,
        region=region,
        tokens=tuple(tokens),
        words=words,
        content=frozenset(content),
        asserted=frozenset(asserted),
        denied=frozenset(findings - asserted),
        sides=sides,
        severities=frozenset(_SEVERITIES[w] for w in words if w in _SEVERITIES),
        negations=negations,
    )


@lru_cache(maxsize=2**14)
def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")) or word in _NO_PLURAL:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


def _reached(tokens: Sequence[str]) -> list[bool]:
    """Which words a negation reaches: what follows in its clause or goes before, or for "not" the whole clause."""
    reached = [False] * len(tokens)
    begin = 0
    for i, token in enumerate(tokens):
        if token in _ENDS or token in ";:":
            begin = i + 1
        elif token in _NEGATIONS and _NO_CHANGE.isdisjoint(tokens[i + 1 : i + 5]):
            end = next((j for j in range(i + 1, len(tokens)) if _stops(tokens, j)), len(tokens))
            for j in range(i if token in _FORWARDS else begin, i if token in _BACKWARDS else end):
                reached[j] = True
    return reached


def _stops(tokens: Sequence[str], j: int) -> bool:
    return tokens[j] in _ENDS or tokens[j] in ";:" or (tokens[j] == "," and tokens[j + 1 : j + 2] in _CLAUSE)


_CLAUSE = [[word] for word in ("the", "there", "a", "an", "it", "this", "with", "finding")]


_CLAUSE_END = re.compile(r"(?<=;)\s+")


def _sentences(sections: Sections, region: str) -> list[_Sentence]:
    return [s for text in (sections.findings, sections.impression) if text for s in _sentences_of(text, region)]


@lru_cache(maxsize=1 << 14)  # a reference is compared with the drafts and with every control
def _sentences_of(section: str, region: str) -> tuple[_Sentence, ...]:
    texts = (text for whole in split_sentences(section) for text in _CLAUSE_END.split(whole))
    return tuple(sentence for sentence in (_sentence(text, region) for text in texts) if sentence.words)


def _names_prior(comparison: str | None) -> bool:
    text = (comparison or "").strip(" .-")
    return bool(text) and not _NO_PRIOR.match(text)


class _Comparison:
    """A draft beside its reference: which sentences are the same, which belong together, and what is left."""

    def __init__(self, draft: Sections, report: Sections, has_prior: bool, region: str) -> None:
        self.reference = _sentences(report, region)
        known = {s.words for s in self.reference}
        self.draft = [
            part
            for d in _sentences(draft, region)
            for part in ([d] if d.words in known else _parted(d, self.reference))
        ]
        shared = Counter(s.words for s in self.draft) & Counter(s.words for s in self.reference)
        self.free_draft, self.free_reference = _without(self.draft, shared), _without(self.reference, shared)
        self.has_prior = has_prior
        self.names_prior = _names_prior(report.comparison)

    def errors(self) -> list[ClinicalError]:
        errors: list[ClinicalError] = []
        settled: dict[_Sentence, set[str]] = {}  # observations of sentences in which an error was found
        partner: dict[_Sentence, _Sentence] = {}
        for d, r, alike in _pairs(self.free_draft, self.free_reference):
            partner |= {d: r, r: d}
            if found := _of_pair(d, r, alike):
                errors += found
                for one, other in ((d, r), (r, d)):
                    settled.setdefault(one, set()).update(f.observation for f in other.labels)
        for d in self.free_draft:
            turned = d in settled and _turned(d, partner[d], ALIKE)
            compares = not turned and self._compares_without_prior(d)
            if compares:
                errors.append(_error(ErrorKind.INVENTED_COMPARISON, draft=d))
            if not compares or d.only_new:
                errors += self._unsupported(d, partner.get(d), settled.get(d))
        for r in self.free_reference:
            errors += self._missed(r, partner.get(r), settled.get(r))
        return errors

    def _compares_without_prior(self, d: _Sentence) -> bool:
        if self.has_prior or not d.compares:
            return False
        for r in self.reference:
            if not r.compares:
                continue
            same_way = bool(r.change & d.change) or not d.change
            same_thing = not d.compared or bool(d.compared & r.compared)
            if r in self.free_reference:
                general = not d.compared or not r.compared
                made = self.names_prior or (same_way if general else same_thing)
            else:  # the draft has this one already: another has to say the same
                made = same_way and same_thing
            if made:
                return False
        return True

    def _unsupported(self, d: _Sentence, partner: _Sentence | None, settled: set[str] | None) -> list[ClinicalError]:
        """What sentence ``d`` states and the reference does not."""
        errors, stated = [], [f for f in d.labels if f.status is not Status.ABSENT]
        for finding in stated:
            if finding.observation not in (settled or ()):
                errors += self._unsupported_label(d, finding)
        if not stated and settled is None and (not d.compares or d.only_new) and _untold(d, partner, self.reference):
            r = self._denied_by([r for r in self.free_reference if d.asserted <= r.denied], d)
            kind = ErrorKind.NEGATION_FLIP if r else ErrorKind.INVENTED_FINDING
            errors.append(_error(kind, draft=d, reference=r))
        return _once(errors)

    def _denied_by(self, sentences: list[_Sentence], d: _Sentence) -> _Sentence | None:
        """Of the reference's sentences, one that denies what ``d`` states, and that the draft has left out."""
        r = next((r for r in sentences if r in self.free_reference and _denies(r, d)), None)
        return None if any(_denies(s, d) for s in self.draft if r) else r

    def _unsupported_label(self, d: _Sentence, finding: Finding) -> list[ClinicalError]:
        name = finding.observation
        theirs = [(r, f) for r in self.reference for f in r.labels if f.observation == name]
        stating = [(r, f) for r, f in theirs if f.status is not Status.ABSENT]
        more = any(r in self.free_reference for r, _ in stating)  # has the reference more of it than the draft?
        if name in _BROAD:
            stating = [(r, f) for r, f in stating if r.asserted & d.asserted]
        elif name in _FURTHER and not more:
            stating = [(r, f) for r, f in stating if 2 * len(r.asserted & d.asserted) >= len(d.asserted)]
        if stating and _all_opposite(finding, [f for _, f in stating]):
            near = (r for r, f in stating if f.location in (None, finding.location) or finding.location is None)
            if r := next((r for r in near if r in self.free_reference), None):
                return [_error(ErrorKind.WRONG_SIDE, name, draft=d, reference=r)]
            return [_error(ErrorKind.INVENTED_FINDING, name, draft=d, reference=stating[0][0])]
        if stating:
            other = _other_severity(finding, stating)
            return [_error(ErrorKind.WRONG_SEVERITY, name, draft=d, reference=stating[0][0])] if other else []
        if _stood_for(finding, self.reference, self.free_reference):
            return []
        if finding.status is Status.PRESENT and (r := self._denied_by([r for r, _ in theirs], d)):
            return [_error(ErrorKind.NEGATION_FLIP, name, draft=d, reference=r)]
        return [_error(ErrorKind.INVENTED_FINDING, name, draft=d, reference=theirs[0][0] if theirs else None)]

    def _missed(self, r: _Sentence, partner: _Sentence | None, settled: set[str] | None) -> list[ClinicalError]:
        """What sentence ``r`` of the reference states and the draft does not."""
        errors = []
        for finding in (f for f in r.labels if f.status is Status.PRESENT):
            name = finding.observation
            theirs = [(d, f) for d in self.draft for f in d.labels if f.observation == name]
            stated = any(f.status is not Status.ABSENT for _, f in theirs)
            if stated or name in (settled or ()) or _stood_for(finding, self.draft, self.free_draft):
                continue
            if d := next((d for d, _ in theirs if d in self.free_draft and _denies(d, r)), None):
                errors.append(_error(ErrorKind.NEGATION_FLIP, name, draft=d, reference=r))
            else:
                errors.append(_error(ErrorKind.MISSED_FINDING, name, reference=r))
        if not r.labels and settled is None and _untold(r, partner, self.draft):
            errors.append(_error(ErrorKind.MISSED_FINDING, reference=r))
        return _once(errors)


def _error(
    kind: ErrorKind,
    observation: str | None = None,
    *,
    draft: _Sentence | None = None,
    reference: _Sentence | None = None,
) -> ClinicalError:
    return ClinicalError(
        kind=kind,
        observation=observation,
        draft=draft.text if draft else None,
        reference=reference.text if reference else None,
    )


def _stood_for(finding: Finding, sentences: list[_Sentence], free: list[_Sentence]) -> bool:
    """Whether the sentences state something that ``finding`` may be a name for, and not on the other side.

    What is in both texts already stands for another finding only where it is on the very same side.
    """
    names = _STANDS_FOR.get(finding.observation, ())
    others = [
        f
        for s in sentences
        for f in s.labels
        if f.status is not Status.ABSENT
        and f.observation in names
        and (f.laterality == finding.laterality or s in free)
    ]
    return bool(others) and not _all_opposite(finding, others)


def _without(sentences: list[_Sentence], shared: Counter[tuple[str, ...]]) -> list[_Sentence]:
    left, kept = Counter(shared), []
    for sentence in sentences:
        if left[sentence.words]:
            left[sentence.words] -= 1
        else:
            kept.append(sentence)
    return kept


def _parted(d: _Sentence, reference: list[_Sentence]) -> list[_Sentence]:
    """``d`` without a sentence of the reference that it starts or ends with, where a full stop was forgotten."""
    for r in reference:
        text = r.text.rstrip(" .")
        rest = d.text.removeprefix(text).strip() if len(r.words) > 2 else d.text
        if rest != d.text and rest[:1].isupper():
            return [_sentence(text, d.region), _sentence(rest, d.region)]
        rest = d.text.removesuffix(r.text).strip()
        if len(r.words) > 2 and rest != d.text and rest and r.text[0].isupper():
            return [_sentence(rest, d.region), r]
    return [d]


def _pairs(draft: list[_Sentence], reference: list[_Sentence]) -> list[tuple[_Sentence, _Sentence, float]]:
    """Sentences that are about the same thing, each in one pair at most, the most alike first."""
    rated = []
    for i, d in enumerate(draft):
        for j, r in enumerate(reference):
            total = len(d.content) + len(r.content)
            alike = 2 * len(d.content & r.content) / total if total else 0.0
            if d.bare == r.bare or d.stripped[0] == r.stripped[0]:
                alike = 1.0
            if alike >= ALIKE:
                rated.append((alike, d.sides == r.sides, d.negations == r.negations, -abs(i - j), i, j))
    pairs, used_i, used_j = [], set(), set()
    for alike, *_, i, j in sorted(rated, reverse=True):
        if i not in used_i and j not in used_j:
            pairs.append((draft[i], reference[j], alike))
            used_i.add(i)
            used_j.add(j)
    return pairs


def _of_pair(d: _Sentence, r: _Sentence, alike: float) -> list[ClinicalError]:
    """Where two sentences about the same thing differ in negation, side or severity."""
    if _turned(d, r, alike):
        names: list[str | None] = [f.observation for f in d.labels if _opposed(f, r.labels)]
        return _once([_error(ErrorKind.NEGATION_FLIP, name, draft=d, reference=r) for name in names or [None]])
    shared = [f.observation for f in d.labels if any(f.observation == g.observation for g in r.labels)]
    name = next(iter(shared), None)
    errors = []
    every = [sorted(_SIDES[w] for w in s.words if w in _SIDES) for s in (d, r)]
    exchanged = every[0] != every[1] or (d.bare == r.bare and d.sides != r.sides)
    if all(every) and exchanged:
        copied = (d.bare == r.bare or alike >= COPIED) and len(every[0]) == len(every[1])
        opposite = len({*d.sides}) == len({*r.sides}) == 1 and {*d.sides} != {*r.sides}
        if copied or (opposite and (shared or d.asserted & r.asserted)):
            errors.append(_error(ErrorKind.WRONG_SIDE, name, draft=d, reference=r))
    places = [s.content & _ANATOMY for s in (d, r)]
    same_place = not all(places) or places[0] & places[1]
    if d.asserted & r.asserted and same_place and d.severities and r.severities and not d.severities & r.severities:
        errors.append(_error(ErrorKind.WRONG_SEVERITY, name, draft=d, reference=r))
    return errors


def _turned(d: _Sentence, r: _Sentence, alike: float) -> bool:
    """Whether one denies what the other asserts in the same words."""
    if d.negations != r.negations:
        if d.stripped[0] == r.stripped[0]:
            return True
        if d.stripped[1] == r.stripped[1] and (d.denied != r.denied or not d.denied | r.denied):
            return True
    turned = (d.asserted & r.denied) | (d.denied & r.asserted)
    if alike >= COPIED:
        return bool(turned)
    shared = (d.asserted | d.denied) & (r.asserted | r.denied)
    return 2 * len(turned - _VAGUE) > len(shared - _VAGUE)


def _opposed(finding: Finding, others: Iterable[Finding]) -> bool:
    states = {finding.status} | {f.status for f in others if f.observation == finding.observation}
    return Status.ABSENT in states and Status.PRESENT in states


def _denies(denying: _Sentence, stating: _Sentence) -> bool:
    """Whether one denies in words of the other what that states; "no large effusion" does not deny a small one."""
    if denying.sides and {*denying.sides}.isdisjoint(stating.sides):
        return False
    shared = denying.denied & stating.asserted - _VAGUE
    item: list[str] = []
    for token in denying.tokens:
        if token in _NEGATIONS:
            item = []
        elif token in _JOINTS:
            item = [word for word in item if word in _QUALIFIES_ALL]
        elif token in shared and _QUALIFIES.isdisjoint(set(item) - set(stating.words)):
            return True
        else:
            item.append(token)
    return False


def _all_opposite(finding: Finding, others: list[Finding]) -> bool:
    opposite = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}.get(finding.laterality)  # type: ignore[arg-type]
    return opposite is not None and all(f.laterality is opposite for f in others)


def _other_severity(finding: Finding, stating: list[tuple[_Sentence, Finding]]) -> bool:
    mine = _SEVERITIES.get(finding.severity or "")
    theirs = {_SEVERITIES.get(f.severity or "") for _, f in stating}
    return mine is not None and None not in theirs and not any(mine in r.severities for r, _ in stating)


def _untold(sentence: _Sentence, partner: _Sentence | None, others: Iterable[_Sentence]) -> bool:
    """Whether ``sentence`` says that something is there which should not be, in words that none of the others asserts.

    Of what it says beyond ``partner``, the other text's sentence about the same thing, where there is one.
    """
    said = partner.content if partner else frozenset()
    asserted, content = sentence.asserted - said - _COMPARING, sentence.content - said
    if not asserted or content & _NORMAL or content & _REMARK:
        return False
    return not any(5 * len(asserted & other.asserted) >= 3 * len(asserted) for other in others)


def _once(errors: list[ClinicalError]) -> list[ClinicalError]:
    """One error for a thing with several names: "airspace opacity, likely pneumonia"."""
    kept: dict[tuple[ErrorKind, str | None, str | None], list[ClinicalError]] = {}
    for error in errors:
        same = kept.setdefault((error.kind, error.draft, error.reference), [])
        if not any(_akin(error.observation, other.observation) for other in same):
            same.append(error)
    return [error for same in kept.values() for error in same]


def _akin(one: str | None, other: str | None) -> bool:
    return one == other or one in _STANDS_FOR.get(other or "", ()) or other in _STANDS_FOR.get(one or "", ())


def _contradictions(sentences: list[_Sentence]) -> list[ClinicalError]:
    errors = []
    for denying in (s for s in sentences if s.denied):
        for stating in sentences:
            if denying.denied.isdisjoint(stating.asserted) or stating is denying:
                continue
            names: list[str | None] = []
            if _denies(denying, stating):
                absent = {f.observation for f in denying.labels if f.status is Status.ABSENT}
                present = (f.observation for f in stating.labels if f.status is Status.PRESENT)
                names += [name for name in present if name in absent]
            if not names and stating.stripped[0] == denying.stripped[0] and not stating.negations:
                names = [None]
            errors += [_error(ErrorKind.CONTRADICTION, name, draft=stating, reference=denying) for name in names]
    return _once(errors)


def _repeats(draft: Sections, region: str) -> list[ClinicalError]:
    errors = []
    for section in (draft.findings, draft.impression):
        seen: set[tuple[str, ...]] = set()
        for sentence in (_sentence(text, region) for text in (split_sentences(section) if section else ())):
            if len(sentence.words) > 1 and sentence.words in seen:
                errors.append(_error(ErrorKind.REPEAT, draft=sentence))
            seen.add(sentence.words)
    return errors
