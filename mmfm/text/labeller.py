"""The labeller: the text of a chest radiograph report to findings with status, side, place and severity.

Works sentence by sentence. The words are in ``vocabulary/chest_radiograph.toml``; ``certainty`` says whether they are
stated, denied or left open. Over a report, present counts over uncertain over absent, and the sides of all mentions that
count are merged. How far it agrees with people is measured by ``benchmarks/labeller_agreement.py``: see docs/labeller.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from mmfm.report import Finding, Side, Status
from mmfm.text.certainty import CUES, certainty
from mmfm.text.phrases import Phrases, Token, vocabulary
from mmfm.text.sections import split_sentences

_WORDS = vocabulary("chest_radiograph")
_OBSERVATION: dict[str, dict[str, Any]] = _WORDS["observation"]

OBSERVATIONS: tuple[str, ...] = tuple(_OBSERVATION)
"""The observations on chest radiographs: the 13 of CheXpert besides no_finding, and 7 of Open-i."""

_RANK = {Status.ABSENT: 0, Status.UNCERTAIN: 1, Status.PRESENT: 2}
_JOINT = (",", " and ", " with ", " or ", ";", "/", " without ", ":")


def _entries() -> list[tuple[str, Iterable[str], Any]]:
    entries: list[tuple[str, Iterable[str], Any]] = list(CUES)
    entries += [("mention", table["says"], name) for name, table in _OBSERVATION.items()]
    entries.append(("ignored", _WORDS["ignored"]["says"], None))
    for i, part in enumerate(_WORDS["part"]):
        entries.append(("part", part["names"], i))
        entries.append(("attribute", part.get("normal", _WORDS["normal"]["words"]), "normal"))
        entries += [("attribute", words, name) for name, words in part.get("states", {}).items()]
    entries += [("collective", table["names"], tuple(table["denies"])) for table in _WORDS["collective"]]
    entries += [("all_normal", table["names"], tuple(table["denies"])) for table in _WORDS["collective_normal"]]
    entries += [("side", _WORDS["side"][side], side) for side in Side]
    entries.append(("ignored", _WORDS["side"]["ignored"], None))
    for kind in ("location", "severity", "count"):
        entries += [(kind, words, name) for name, words in _WORDS[kind].items()]
    return entries


_PHRASES = Phrases(_entries())


class _Statement(NamedTuple):
    observation: str
    status: Status
    laterality: Side | None = None
    location: str | None = None
    severity: str | None = None
    count: int | None = None


def label_report(findings: str | None, impression: str | None = None) -> tuple[Finding, ...]:
    """Reads the findings that a report states.

    Args:
        findings: the findings section, or the whole text that states findings.
        impression: the impression section. An indication is never read: hand in sections, not a whole report.

    Returns:
        One finding for each observation that is mentioned, in the order of ``OBSERVATIONS``: its status (present over
        uncertain over absent), the sides of its mentions with that status merged, and place, severity, count and
        evidence (a whole sentence of the text) of the first of them that states each.
    """
    mentions: dict[str, list[tuple[_Statement, str]]] = {}
    for section in (findings, impression):
        for sentence in split_sentences(section) if section else ():
            for statement in _read(" ".join(sentence.lower().split())):
                mentions.setdefault(statement.observation, []).append((statement, sentence))
    return tuple(_merge(name, mentions[name]) for name in OBSERVATIONS if name in mentions)


def states(findings: Iterable[Finding]) -> dict[str, Status | None]:
    """Returns the status of every observation in ``OBSERVATIONS``, ``None`` where the findings do not mention it."""
    status = {finding.observation: finding.status for finding in findings}
    return {name: status.get(name) for name in OBSERVATIONS}


def no_finding(findings: Iterable[Finding]) -> bool:
    """Whether nothing but support devices is present or uncertain; derived, never a finding itself."""
    return all(f.status is Status.ABSENT or f.observation == "support_devices" for f in findings)


def _merge(name: str, mentions: list[tuple[_Statement, str]]) -> Finding:
    status = max((statement.status for statement, _ in mentions), key=_RANK.__getitem__)
    chosen = [(statement, sentence) for statement, sentence in mentions if statement.status is status]
    sides = {statement.laterality for statement, _ in chosen} - {None}

    def first(field: str) -> Any:
        return next((v for v in (getattr(statement, field) for statement, _ in chosen) if v is not None), None)

    return Finding(
        observation=name,
        status=status,
        laterality=sides.pop() if len(sides) == 1 else Side.BILATERAL if sides else None,
        location=first("location"),
        severity=first("severity"),
        count=first("count"),
        evidence=chosen[0][1],
    )


@lru_cache(maxsize=1 << 14)
def _read(sentence: str) -> tuple[_Statement, ...]:
    """What one sentence states, in lower case with single blanks. Reports repeat sentences, hence the cache."""
    tokens = _PHRASES.find(sentence)
    statements: list[_Statement] = []
    mentions = [t for t in tokens if t.kind == "mention"]
    for i, mention in enumerate(mentions):
        status = certainty(tokens, mention.start, mention.end)
        details: dict[str, Any] = {}
        if status is not Status.ABSENT:
            details = _details(sentence, tokens, mentions, i)
        statements.append(_Statement(mention.value, status, **details))
    for token in tokens:
        if token.kind == "all_normal" and certainty(tokens, token.start, token.end) is Status.PRESENT:
            statements += [_Statement(name, Status.ABSENT) for name in token.value]
        elif token.kind == "collective" and certainty(tokens, token.start, token.end) is Status.ABSENT:
            statements += [_Statement(name, Status.ABSENT) for name in token.value]
    statements += _parts(sentence, tokens)
    return tuple(statements)


def _parts(sentence: str, tokens: list[Token]) -> list[_Statement]:
    """What is said of the parts of the body: "the heart is enlarged", "clear lungs"."""
    statements: list[_Statement] = []
    waiting: list[Token] = []
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if token.kind == "part":
            waiting.append(token)
        elif token.kind == "ends":
            waiting = []
        elif token.kind == "attribute":
            same = [t.value for t in tokens if t.kind == "attribute" and t.start == token.start]
            following = next((t for t in tokens if t.kind == "part" and 0 < t.start - token.end <= 1), None)
            parts, since = ([following], 0) if following else (waiting, waiting[0].start if waiting else 0)
            status = certainty(tokens, token.start, token.end, since=since)
            for part in parts:
                table = _WORDS["part"][part.value]
                for value in same:
                    if value == "normal":
                        word = sentence[token.start : token.end]
                        if status is Status.PRESENT and word in table.get("normal", _WORDS["normal"]["words"]):
                            statements += [_Statement(name, Status.ABSENT) for name in table["denies"]]
                    elif value in table.get("states", {}):
                        statements.append(_Statement(value, status, *_side(tokens, part)))
            if not following:
                waiting = []
        i += 1
    return statements


def _side(tokens: list[Token], part: Token) -> tuple[Side | None]:
    return (None,)


def _details(sentence: str, tokens: list[Token], mentions: list[Token], i: int) -> dict[str, Any]:
    """Side, place, severity and count of the mention ``i``."""
    mention = mentions[i]
    sides: str = _OBSERVATION[mention.value]["sides"]
    before, after = _zones(sentence, mentions, i)
    found: dict[str, Any] = {}
    for kind in ("side", "location"):
        near = [t for t in tokens if t.kind == kind and before <= t.start and t.end <= mention.end][-1:]
        near = near or [t for t in tokens if t.kind == kind and mention.start <= t.start and t.end <= after][:1]
        found[kind] = near[0].value if near else None
    close = [t for t in tokens if before <= t.start and t.end <= mention.start]
    for kind in ("severity", "count"):
        found[kind] = next((t.value for t in reversed(close) if t.kind == kind), None)
    if found["side"] is None and sides == "shared" and i and mentions[i - 1].start < mention.start:
        between = [t for t in tokens if mentions[i - 1].end <= t.start < mention.start]
        if not any(t.kind in ("ends", "part") for t in between) and _OBSERVATION[mentions[i - 1].value]["sides"] == "shared":
            previous = _details(sentence, tokens, mentions, i - 1)["laterality"]
            found["side"] = previous
    if found["side"] is None and sides == "shared" and i + 1 < len(mentions):
        following = mentions[i + 1]
        if sentence[mention.end : following.start].strip() in (",", "and", "or", "and/or", ", and", "versus"):
            end = _zones(sentence, mentions, i + 1)[1]
            near = [t for t in tokens if t.kind == "side" and following.end <= t.start and t.end <= end][:1]
            found["side"] = near[0].value if near else None
    return {
        "laterality": Side(found["side"]) if found["side"] and sides != "none" else None,
        "location": found["location"],
        "severity": found["severity"],
        "count": int(found["count"]) if found["count"] else None,
    }


def _zones(sentence: str, mentions: list[Token], i: int) -> tuple[int, int]:
    """Where the words that belong to mention ``i`` start, before it, and end, after it."""
    mention = mentions[i]
    before = 0
    if i:
        before = max(mentions[i - 1].end, _joint(sentence, mentions[i - 1].end, mention.start)[1])
        if before == mentions[i - 1].end:
            before = mention.start
    after = len(sentence)
    if i + 1 < len(mentions):
        after = _joint(sentence, mention.end, mentions[i + 1].start)[0]
    return before, after


def _joint(sentence: str, start: int, end: int) -> tuple[int, int]:
    """The last word or mark between two mentions that joins them, or the end of the text between and its start."""
    gap = sentence[start:end]
    at, word = max((gap.rfind(word), word) for word in _JOINT)
    return (start + at, start + at + len(word)) if at >= 0 else (end, start)
