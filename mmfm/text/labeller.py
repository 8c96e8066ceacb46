"""The labeller: the text of a chest radiograph report to findings with status, side, place and severity.

Works sentence by sentence. The words are in ``vocabulary/chest_radiograph.toml``; ``certainty`` says whether they are
stated, denied or left open. Over a report, present counts over uncertain over absent, and the sides of all mentions
with that status are merged. How far it agrees with people is measured by ``benchmarks/labeller_agreement.py``: see
docs/labeller.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from mmfm.report import Finding, Side, Status
from mmfm.text.certainty import CUES, certainty
from mmfm.text.phrases import Phrases, Token, plain, spellings, vocabulary
from mmfm.text.sections import split_sentences

_WORDS = vocabulary("chest_radiograph")
_OBSERVATION: dict[str, dict[str, Any]] = _WORDS["observation"]

OBSERVATIONS: tuple[str, ...] = tuple(_OBSERVATION)
"""The observations on chest radiographs: the 13 of CheXpert besides no_finding, and 7 of Open-i."""


def _effects(part: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What each word said of a part of the body does: it denies, or it states or hints at an observation."""
    effects = {word: ("denies", "") for phrase in part["normal"] for word in spellings(phrase)}
    for kind in ("states", "hints"):
        for name, phrases in part.get(kind, {}).items():
            effects |= {word: (kind, name) for phrase in phrases for word in spellings(phrase)}
    return effects


_PARTS = [(_effects(part), tuple(part["denies"])) for part in _WORDS["part"]]
_NORMAL_WORDS = {word for effects, _ in _PARTS for word, (effect, _) in effects.items() if effect == "denies"}
_PHRASES = Phrases(
    [
        *CUES,
        *(("mention", table["says"], name) for name, table in _OBSERVATION.items()),
        *(("hint", table.get("hints", ()), name) for name, table in _OBSERVATION.items()),
        *(("part", part["names"], i) for i, part in enumerate(_WORDS["part"])),
        *(("attribute", effects, None) for effects, _ in _PARTS),
        *(("collective", table["names"], table["denies"]) for table in _WORDS["collective"]),
        *(("normal", table["names"], table["denies"]) for table in _WORDS["normal"]),
        ("ignored", _WORDS["ignored"]["says"], None),
    ]
)
_DETAILS = Phrases(
    [
        *(("side", phrases, side) for side, phrases in _WORDS["side"].items()),
        *(
            (kind, phrases, name)
            for kind in ("location", "severity", "count")
            for name, phrases in _WORDS[kind].items()
        ),
        ("link", _WORDS["links"]["words"], None),
    ]
)
_JOINTS = re.compile(r", and | and/or | and | with | or | without | versus |[,;:/]")
# Between two side words that belong together: "left upper and right lower lobe opacities".
_BOTH = re.compile(
    r"(?:[ -](?:upper|lower|middle|mid|lung|lobes?|bases?|basilar|apex|apical|perihilar|zones?|sided))*"
    r",? (?:and|or) (?:the )?(?:\w+ )?"
)


class _Mention(NamedTuple):
    """An observation in a sentence, where it stands, and whether it is only hinted at."""

    start: int
    end: int
    observation: str
    status: Status


class _Statement(NamedTuple):
    observation: str
    status: Status
    laterality: Side | None = None
    location: str | None = None
    severity: str | None = None
    number: int | None = None


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
            for statement in _read(plain(sentence)):
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
    found = {statement.status for statement, _ in mentions}
    status = Status.PRESENT if Status.PRESENT in found else Status.UNCERTAIN
    if found == {Status.ABSENT}:
        return Finding(observation=name, status=Status.ABSENT, evidence=mentions[0][1])
    chosen = [(statement, sentence) for statement, sentence in mentions if statement.status is status]
    sides = {statement.laterality for statement, _ in chosen} - {None}

    def first(values: Iterable[Any]) -> Any:
        return next((value for value in values if value is not None), None)

    return Finding(
        observation=name,
        status=status,
        laterality=sides.pop() if len(sides) == 1 else Side.BILATERAL if sides else None,
        location=first(statement.location for statement, _ in chosen),
        severity=first(statement.severity for statement, _ in chosen),
        count=first(statement.number for statement, _ in chosen),
        evidence=chosen[0][1],
    )


@lru_cache(maxsize=1 << 14)
def _read(sentence: str) -> tuple[_Statement, ...]:
    """What one sentence, in lower case with single blanks, states. Reports repeat sentences, hence the cache."""
    tokens = _PHRASES.find(sentence)
    mentions: list[_Mention] = []
    denied: list[str] = []
    for token in tokens:
        if token.kind in ("mention", "hint", "collective", "normal"):
            status = certainty(tokens, token.start, token.end)
            if token.kind == "mention":
                mentions.append(_Mention(token.start, token.end, token.value, status))
            elif token.kind == "hint":
                mentions.append(_Mention(token.start, token.end, token.value, _at_most_uncertain(status)))
            elif status is (Status.ABSENT if token.kind == "collective" else Status.PRESENT):
                denied += token.value
    _read_parts(sentence, tokens, mentions, denied)
    mentions.sort()
    statements = [_Statement(name, Status.ABSENT) for name in denied]
    details = None
    for i, mention in enumerate(mentions):
        if mention.status is Status.ABSENT:
            statements.append(_Statement(mention.observation, Status.ABSENT))
        else:
            details = details or _DETAILS.find(sentence)
            statements.append(_detailed(sentence, tokens, details, mentions, i))
    return tuple(statements)


def _at_most_uncertain(status: Status) -> Status:
    return Status.UNCERTAIN if status is Status.PRESENT else status


def _read_parts(sentence: str, tokens: list[Token], mentions: list[_Mention], denied: list[str]) -> None:
    """Adds what the sentence says of parts of the body: "clear lungs", "the heart and mediastinum are enlarged"."""
    waiting: list[Token] = []
    for i, token in enumerate(tokens):
        if token.kind == "part":
            waiting.append(token)
        elif token.kind == "ends":
            waiting = []
        elif token.kind == "attribute":
            following = tokens[i + 1] if i + 1 < len(tokens) else None
            if following and following.kind == "part" and following.start - token.end <= 1:
                parts, since = [following], 0
            else:
                # "No pneumothorax, heart is enlarged": the verb keeps the denial out.
                verb = any(t.kind == "affirms" and waiting and t.start > waiting[0].start for t in tokens[:i])
                parts, waiting, since = waiting, [], waiting[0].start if verb else 0
            status = certainty(tokens, token.start, token.end, since=since) if parts else None
            for part in parts:
                effects, denies = _PARTS[part.value]
                effect = effects.get(sentence[token.start : token.end], ("", ""))
                if effect[0] == "denies" and status is Status.PRESENT:
                    denied += denies
                elif status and effect[0] in ("states", "hints"):
                    strength = status if effect[0] == "states" else _at_most_uncertain(status)
                    start, end = min(part.start, token.start), max(part.end, token.end)
                    mentions.append(_Mention(start, end, effect[1], strength))


def _detailed(sentence: str, tokens: list[Token], details: list[Token], mentions: list[_Mention], i: int) -> _Statement:
    """The mention ``i`` with its side, place, severity and count."""
    mention = mentions[i]
    before, after = _reach(sentence, tokens, details, mentions, i)
    own = [t for t in details if before <= t.start and t.end <= mention.end][::-1]
    later = [t for t in details if mention.end <= t.start and t.end <= after]

    def nearest(kind: str, among: list[Token]) -> Any:
        return next((t.value for t in among if t.kind == kind), None)

    side, location = _side_of(sentence, own) or _side_of(sentence, later), nearest("location", own + later)
    sharing = _OBSERVATION[mention.observation]["sides"]
    if sharing == "none":
        side = None
    elif sharing == "shared" and side is None:
        side, shared_location = _shared(sentence, tokens, details, mentions, i)
        location = location or shared_location
    count = nearest("count", own)
    return _Statement(
        mention.observation,
        mention.status,
        side,
        location,
        nearest("severity", own + later),
        int(count) if count else None,
    )


def _side_of(sentence: str, details: list[Token]) -> Side | None:
    """The first side among ``details``, both where the next side word is joined to it."""
    sides = [t for t in details if t.kind == "side"]
    if not sides or sides[0].value == "ignored":
        return None
    if len(sides) > 1 and sides[1].value not in ("ignored", sides[0].value):
        first, second = sorted(sides[:2], key=lambda t: t.start)
        if _BOTH.fullmatch(sentence, first.end, second.start):
            return Side.BILATERAL
    return Side(sides[0].value)


def _shared(
    sentence: str, tokens: list[Token], details: list[Token], mentions: list[_Mention], i: int
) -> tuple[Side | None, str | None]:
    """What mention ``i`` shares with a neighbour: "left effusion and atelectasis", "A and B in the left base"."""
    mention = mentions[i]
    if i and _OBSERVATION[mentions[i - 1].observation]["sides"] == "shared":
        previous = mentions[i - 1]
        ended = any(t.kind == "ends" and previous.end <= t.start < mention.start for t in tokens)
        if not ended and previous.status is not Status.ABSENT:
            return _detailed(sentence, tokens, details, mentions, i - 1)[2:4]
    if i + 1 < len(mentions):
        following = mentions[i + 1]
        if following.start >= mention.end and _JOINTS.fullmatch(sentence, mention.end, following.start):
            after = _reach(sentence, tokens, details, mentions, i + 1)[1]
            later = [t for t in details if following.end <= t.start and t.end <= after]
            return _side_of(sentence, later), next((t.value for t in later if t.kind == "location"), None)
    return None, None


def _reach(
    sentence: str, tokens: list[Token], details: list[Token], mentions: list[_Mention], i: int
) -> tuple[int, int]:
    """Where the words that belong to mention ``i`` start, before it, and end, after it.

    The words between two mentions part at the last joint ("and", "with", a comma), unless a link ("representing", "due
    to") stands there: then all belong to the first. Nothing reaches across "but", or a part of the body called normal.
    """
    start, end = mentions[i].start, mentions[i].end
    earlier = max((m.end for m in mentions if m.end <= start), default=None)
    later = min((m.start for m in mentions if m.start >= end), default=None)
    barriers = [
        t
        for t in tokens
        if (t.kind == "attribute" and sentence[t.start : t.end] in _NORMAL_WORDS)
        or (t.kind == "ends" and sentence[t.start] != ":")
    ]
    cuts = [t.end for t in barriers if (earlier or 0) <= t.start and t.end <= start]
    if earlier is not None:
        cuts += [joint.end() for joint in _joints(sentence, details, earlier, start)]
        cuts = cuts or [start]
    ends = [t.start for t in barriers if end <= t.start < (later or len(sentence))]
    if later is not None:
        ends += [joint.start() for joint in _joints(sentence, details, end, later)][-1:] or [later]
    return max(cuts, default=0), min(ends, default=len(sentence))


def _joints(sentence: str, details: list[Token], start: int, end: int) -> list[re.Match[str]]:
    if any(t.kind == "link" and start <= t.start and t.end <= end for t in details):
        return []
    return list(_JOINTS.finditer(sentence, start, end))
