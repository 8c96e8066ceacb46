"""The labeller: the text of a chest radiograph report to findings with status, side, place and severity.

Works sentence by sentence. The words of a language are in its folder of ``vocabulary`` (``chest_radiograph.toml``);
``certainty`` says whether they are stated, denied or left open. Over a report, present counts over uncertain over
absent, and the sides of all mentions with that status are merged. How far it agrees with people is measured by
``benchmarks/labeller_agreement.py``: see docs/labeller.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

from mmfm.report import Finding, Side, Status
from mmfm.text.certainty import certainty, cues
from mmfm.text.phrases import Phrases, Token, any_of, plain, spellings, vocabulary
from mmfm.text.sections import split_sentences, stating

OBSERVATIONS: tuple[str, ...] = tuple(vocabulary("chest_radiograph")["observation"])
"""The observations on chest radiographs: the 13 of CheXpert besides no_finding, and 7 of Open-i."""


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


def label_report(findings: str | None, impression: str | None = None, *, language: str = "en") -> tuple[Finding, ...]:
    """Reads the findings that a report states.

    Args:
        findings: the findings section, or a whole report: of a text with headings, only what stands under those of
            findings and impression is read, never an indication.
        impression: the impression section.
        language: of the report; each has a folder of ``vocabulary``.

    Returns:
        One finding for each observation that is mentioned, in the order of ``OBSERVATIONS``: its status (present over
        uncertain over absent), the sides of its mentions with that status merged, and place, severity, count and
        evidence (a whole sentence of the text) of the first of them that states each.

    Raises:
        ConfigError: there is no such language.
    """
    mentions: dict[str, list[tuple[_Statement, str]]] = {}
    for sentence, statements in _sentences((findings, impression), language):
        for statement in statements:
            mentions.setdefault(statement.observation, []).append((statement, sentence))
    return _merged(mentions)


def label_sentences(text: str, *, language: str = "en") -> list[tuple[str, tuple[Finding, ...]]]:
    """Reads a text sentence by sentence: each that ``label_report`` reads, with the findings that it alone states."""
    read = []
    for sentence, statements in _sentences((text,), language):
        mentions: dict[str, list[tuple[_Statement, str]]] = {}
        for statement in statements:
            mentions.setdefault(statement.observation, []).append((statement, sentence))
        read.append((sentence, _merged(mentions)))
    return read


def states(findings: Iterable[Finding]) -> dict[str, Status | None]:
    """Returns the status of every observation in ``OBSERVATIONS``, ``None`` where the findings do not mention it."""
    status = {finding.observation: finding.status for finding in findings}
    return {name: status.get(name) for name in OBSERVATIONS}


def no_finding(findings: Iterable[Finding]) -> bool:
    """Whether nothing but support devices is present or uncertain; derived, never a finding itself."""
    return all(f.status is Status.ABSENT or f.observation == "support_devices" for f in findings)


def _sentences(texts: Iterable[str | None], language: str) -> Iterator[tuple[str, tuple[_Statement, ...]]]:
    words = words_of(language)
    for text in texts:
        for piece in stating(text, language) if text else ():
            for sentence in split_sentences(piece, language=language):
                yield sentence, words.read(plain(sentence))


def _merged(mentions: dict[str, list[tuple[_Statement, str]]]) -> tuple[Finding, ...]:
    return tuple(_merge(name, mentions[name]) for name in OBSERVATIONS if name in mentions)


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


class Words:
    """The words of a language, compiled: what is looked for in a sentence, and what each phrase means."""

    def __init__(self, language: str) -> None:
        words = vocabulary("chest_radiograph", language)
        observations: dict[str, dict[str, Any]] = words["observation"]
        joined = words["joined_sides"]
        self.sharing = {name: table["sides"] for name, table in observations.items()}
        self.parts = [(_effects(part), tuple(part["denies"])) for part in words["part"]]
        self.normal = {word for effects, _ in self.parts for word, (effect, _) in effects.items() if effect == "denies"}
        self.phrases = Phrases(
            [
                *cues(language),
                *(("mention", table["says"], name) for name, table in observations.items()),
                *(("hint", table.get("hints", ()), name) for name, table in observations.items()),
                *(("part", part["names"], i) for i, part in enumerate(words["part"])),
                *(("attribute", effects, None) for effects, _ in self.parts),
                *(("collective", table["names"], table["denies"]) for table in words["collective"]),
                *(("normal", table["names"], table["denies"]) for table in words["normal"]),
                ("ignored", words["ignored"]["says"], None),
            ]
        )
        self.details = Phrases(
            [
                *(("side", phrases, side) for side, phrases in words["side"].items()),
                *(
                    (kind, phrases, name)
                    for kind in ("location", "severity", "count")
                    for name, phrases in words[kind].items()
                ),
                ("link", words["links"]["words"], None),
            ]
        )
        joints = any_of(words["joints"]["words"])
        self.joints = re.compile(rf",? {joints} |[,;:/]")
        # Between two side words that belong together: "left upper and right lower lobe opacities".
        places, links, articles = (any_of(joined[kind]) for kind in ("places", "words", "articles"))
        self.joined_sides = re.compile(
            rf"(?:[ -](?:{places}|\d+\w*))*,? {links} (?:{articles} )?(?:\w+ )?(?:{articles} )?"
        )
        # Reports repeat sentences, hence the cache.
        self.read = lru_cache(maxsize=1 << 14)(self._read)

    def _read(self, sentence: str) -> tuple[_Statement, ...]:
        """What one ``plain`` sentence states."""
        return _Sentence(self, sentence).statements()


@cache
def words_of(language: str) -> Words:
    """Returns the words of a language, compiled once."""
    return Words(language)


def _effects(part: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What each word said of a part of the body does: it denies, or it states or hints at an observation."""
    effects = {word: ("denies", "") for phrase in part["normal"] for word in spellings(phrase)}
    for kind in ("states", "hints"):
        for name, phrases in part.get(kind, {}).items():
            effects |= {word: (kind, name) for phrase in phrases for word in spellings(phrase)}
    return effects


class _Sentence:
    """One ``plain`` sentence on its way to statements."""

    def __init__(self, words: Words, text: str) -> None:
        self.words, self.text = words, text
        self.tokens = words.phrases.find(text)
        self.mentions: list[_Mention] = []
        self.denied: list[str] = []

    @cached_property
    def details(self) -> list[Token]:
        """Sides, places, severities, counts and links; looked for only where something is present or uncertain."""
        return self.words.details.find(self.text)

    def statements(self) -> tuple[_Statement, ...]:
        self._read_mentions()
        self._read_parts()
        self.mentions.sort()
        statements = [_Statement(name, Status.ABSENT) for name in self.denied]
        for i, mention in enumerate(self.mentions):
            if mention.status is Status.ABSENT:
                statements.append(_Statement(mention.observation, Status.ABSENT))
            else:
                statements.append(self._detailed(i))
        return tuple(statements)

    def _read_mentions(self) -> None:
        for token in self.tokens:
            if token.kind not in ("mention", "hint", "collective", "normal") or self._is_history(token.start):
                continue
            status = certainty(self.tokens, token.start, token.end)
            if token.kind == "mention":
                self.mentions.append(_Mention(token.start, token.end, token.value, status))
            elif token.kind == "hint":
                self.mentions.append(_Mention(token.start, token.end, token.value, _at_most_uncertain(status)))
            elif status is (Status.ABSENT if token.kind == "collective" else Status.PRESENT):
                self.denied += token.value

    def _is_history(self, start: int) -> bool:
        """Whether what starts here is told of the patient's past, not of the images: "history of pneumonia"."""
        for token in reversed(self.tokens):
            if token.start < start and token.kind in ("history", "ends", "affirms", "denies_before"):
                return token.kind == "history"
        return False

    def _read_parts(self) -> None:
        """Adds what is said of parts of the body: "clear lungs", "the heart and mediastinum are enlarged"."""
        waiting: list[Token] = []
        for i, token in enumerate(self.tokens):
            if token.kind == "part":
                waiting.append(token)
            elif token.kind == "ends" and self.text[token.start] != ":":
                waiting = []
            elif token.kind == "attribute":
                following = self.tokens[i + 1] if i + 1 < len(self.tokens) else None
                if following and following.kind == "part" and following.start - token.end <= 1:
                    parts, since = [following], 0
                else:
                    parts, waiting = waiting, []
                    # "No pneumothorax, heart is enlarged", "no effusion, heart normal": the denial stays out.
                    verb = any(t.kind == "affirms" and parts and t.start > parts[0].start for t in self.tokens[:i])
                    own = verb or self.text[token.start : token.end] in self.words.normal
                    since = parts[0].start if parts and own else 0
                if parts:
                    self._read_attribute(token, parts, certainty(self.tokens, token.start, token.end, since=since))

    def _read_attribute(self, token: Token, parts: list[Token], status: Status) -> None:
        for part in parts:
            effects, denies = self.words.parts[part.value]
            effect, name = effects.get(self.text[token.start : token.end], ("", ""))
            if effect == "denies" and status is Status.PRESENT:
                self.denied += denies
            elif effect in ("states", "hints"):
                strength = status if effect == "states" else _at_most_uncertain(status)
                start, end = min(part.start, token.start), max(part.end, token.end)
                self.mentions.append(_Mention(start, end, name, strength))

    def _detailed(self, i: int) -> _Statement:
        """The mention ``i`` with its side, place, severity and count."""
        mention = self.mentions[i]
        before, after = self._reach(i)
        own = [t for t in self.details if before <= t.start and t.end <= mention.end][::-1]
        later = [t for t in self.details if mention.end <= t.start and t.end <= after]

        def nearest(kind: str, among: list[Token]) -> Any:
            return next((t.value for t in among if t.kind == kind), None)

        side, location = self._side_of(own) or self._side_of(later), nearest("location", own + later)
        sharing = self.words.sharing[mention.observation]
        if sharing == "none":
            side = None
        elif sharing == "shared" and side is None:
            side, shared_location = self._shared(i)
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

    def _side_of(self, details: list[Token]) -> Side | None:
        """The first side among ``details``, both where the next side word is joined to it."""
        sides = [t for t in details if t.kind == "side"]
        if not sides or sides[0].value == "ignored":
            return None
        if len(sides) > 1 and sides[1].value not in ("ignored", sides[0].value):
            first, second = sorted(sides[:2], key=lambda t: t.start)
            if self.words.joined_sides.fullmatch(self.text, first.end, second.start):
                return Side.BILATERAL
        return Side(sides[0].value)

    def _shared(self, i: int) -> tuple[Side | None, str | None]:
        """What mention ``i`` shares with a neighbour: "left effusion and atelectasis", "A and B in the left base"."""
        mention = self.mentions[i]
        if i and self.words.sharing[self.mentions[i - 1].observation] == "shared":
            previous = self.mentions[i - 1]
            ended = any(t.kind == "ends" and previous.end <= t.start < mention.start for t in self.tokens)
            if not ended and previous.status is not Status.ABSENT:
                return self._detailed(i - 1)[2:4]
        if i + 1 < len(self.mentions):
            following = self.mentions[i + 1]
            between = self.text[mention.end : following.start]
            if following.start >= mention.end and (between == " " or self.words.joints.fullmatch(between)):
                after = self._reach(i + 1)[1]
                later = [t for t in self.details if following.end <= t.start and t.end <= after]
                return self._side_of(later), next((t.value for t in later if t.kind == "location"), None)
        return None, None

    def _reach(self, i: int) -> tuple[int, int]:
        """Where the words that belong to mention ``i`` start, before it, and end, after it.

        The words between two mentions part at the last joint ("and", "with", a comma), unless a link ("representing",
        "due to") stands there: then all belong to the first. Nothing reaches across "but", or a part of the body called
        normal.
        """
        start, end = self.mentions[i].start, self.mentions[i].end
        earlier = max((m.end for m in self.mentions if m.end <= start), default=None)
        later = min((m.start for m in self.mentions if m.start >= end), default=None)
        barriers = [
            t
            for t in self.tokens
            if (t.kind == "attribute" and self.text[t.start : t.end] in self.words.normal)
            or (t.kind == "ends" and self.text[t.start] != ":")
        ]
        cuts = [t.end for t in barriers if (earlier or 0) <= t.start and t.end <= start]
        if earlier is not None:
            cuts += [joint.end() for joint in self._joints(earlier, start)]
            cuts = cuts or [start]
        ends = [t.start for t in barriers if end <= t.start < (later or len(self.text))]
        if later is not None:
            ends += [joint.start() for joint in self._joints(end, later)][-1:] or [later]
        return max(cuts, default=0), min(ends, default=len(self.text))

    def _joints(self, start: int, end: int) -> list[re.Match[str]]:
        if any(t.kind == "link" and start <= t.start and t.end <= end for t in self.details):
            return []
        return list(self.words.joints.finditer(self.text, start, end))


def _at_most_uncertain(status: Status) -> Status:
    return Status.UNCERTAIN if status is Status.PRESENT else status
