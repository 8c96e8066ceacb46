"""The labeller: the text of a report to findings with status, side, place, severity, count and size.

Works sentence by sentence. The words of a region are in the folder of the language in ``vocabulary``
(``chest_radiograph.toml``); ``certainty`` says whether they are stated, denied or left open. Over a report, present
counts over uncertain over absent, and the sides of all mentions with that status are merged. How far it agrees with
people is measured by ``benchmarks/labeller_agreement.py``: see docs/labeller.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

from mmfm.report import Finding, Measurement, Side, Status
from mmfm.text.certainty import certainty, cues
from mmfm.text.phrases import Phrases, Token, any_of, plain, spellings
from mmfm.text.regions import CHEST_RADIOGRAPH, REGIONS, observations, region_words
from mmfm.text.sections import split_sentences, stating

OBSERVATIONS: tuple[str, ...] = observations(CHEST_RADIOGRAPH)
"""The observations on chest radiographs: the 13 of CheXpert besides no_finding, and 7 of Open-i."""

_DEVICES = ("support_devices", "medical_material")
_MEANING = frozenset({"mention", "hint", "bare", "collective", "normal"})


_NONE, _UNSAID = "none", ""
"""What a bare word mentions: none of our observations; what the sentence does not say."""


class _Bare(NamedTuple):
    """Words that mention an observation only by the organ that they are said of."""

    organs: Phrases
    otherwise: str


class _Mention(NamedTuple):
    """An observation in a sentence, where it stands, and by which bare word, if by one."""

    start: int
    end: int
    observation: str
    status: Status
    bare: int | None = None


class _Statement(NamedTuple):
    observation: str
    status: Status
    laterality: Side | None = None
    location: str | None = None
    severity: str | None = None
    number: int | None = None
    size_mm: float | None = None
    bare: int | None = None

    def finding(self, sentence: str) -> Finding:
        return Finding(
            observation=self.observation,
            status=self.status,
            laterality=self.laterality,
            location=self.location,
            severity=self.severity,
            count=self.number,
            measurement=None if self.size_mm is None else Measurement(value=self.size_mm, unit="mm"),
            evidence=sentence,
        )


def label_report(
    findings: str | None, impression: str | None = None, *, region: str = CHEST_RADIOGRAPH, language: str = "en"
) -> tuple[Finding, ...]:
    """Reads the findings that a report states.

    Args:
        findings: the findings section, or a whole report: of a text with headings, only what stands under those of
            findings and impression is read, never an indication.
        impression: the impression section.
        region: of the body, one of ``REGIONS``: its observations and words.
        language: of the report; each has a folder of ``vocabulary``.

    Returns:
        One finding for each observation that is mentioned, in the order of ``observations(region)``: its status
        (present over uncertain over absent), the sides of its mentions with that status merged, the largest of their
        sizes in mm, and place, severity, count and evidence (a whole sentence of the text) of the first of them that
        states each.

    Raises:
        ConfigError: there is no such region or language.
    """
    return _merged(mentions(findings, impression, region=region, language=language), region)


def mentions(
    findings: str | None, impression: str | None = None, *, region: str = CHEST_RADIOGRAPH, language: str = "en"
) -> tuple[Finding, ...]:
    """Reads every single statement of a report, before ``label_report`` merges those of one observation.

    Args:
        findings: as for ``label_report``.
        impression: the impression section.
        region: of the body, one of ``REGIONS``.
        language: of the report.

    Returns:
        The statements in the order of the sentences, each with the side, place, severity, count and size (mm) that the
        sentence gives to it. What a report tells twice stands here twice.

    Raises:
        ConfigError: there is no such region or language.
    """
    read = _sentences((findings, impression), region, language)
    return tuple(statement.finding(sentence) for sentence, statements in read for statement in statements)


def mentions_elsewhere(text: str | None, *, region: str) -> tuple[Finding, ...]:
    """Reads what a text states of other parts of the body than its own, as a model of several may write it.

    Args:
        text: of a report.
        region: whose report it is; a sentence in which its words read anything is left to ``mentions``.

    Returns:
        What the words of any other region read in the sentences that are left, of observations that ``region`` lacks.

    Raises:
        ConfigError: there is no such region.
    """
    own = observations(region)
    left = [sentence for sentence in split_sentences(text or "") if not mentions(sentence, region=region)]
    found = (mentions(sentence, region=other) for sentence in left for other in REGIONS if other != region)
    return tuple(finding for several in found for finding in several if finding.observation not in own)


def label_sentences(
    text: str, *, region: str = CHEST_RADIOGRAPH, language: str = "en"
) -> list[tuple[str, tuple[Finding, ...]]]:
    """Reads a text sentence by sentence: each that ``label_report`` reads, with the findings that it alone states."""
    return [
        (sentence, _merged([statement.finding(sentence) for statement in statements], region))
        for sentence, statements in _sentences((text,), region, language)
    ]


def states(findings: Iterable[Finding], *, region: str = CHEST_RADIOGRAPH) -> dict[str, Status | None]:
    """Returns the status of every observation of a region, ``None`` where the findings do not mention it."""
    status = {finding.observation: finding.status for finding in findings}
    return {name: status.get(name) for name in observations(region)}


def no_finding(findings: Iterable[Finding]) -> bool:
    """Whether nothing but support devices is present or uncertain; derived, never a finding itself."""
    return all(f.status is Status.ABSENT or f.observation in _DEVICES for f in findings)


def _sentences(texts: Iterable[str | None], region: str, language: str) -> Iterator[tuple[str, tuple[_Statement, ...]]]:
    words = words_of(language, region)
    said: dict[int, str] = {}
    for text in texts:
        for piece in stating(text, language) if text else ():
            for sentence in split_sentences(piece, language=language):
                yield sentence, words.settled(words.read(plain(sentence)), said)


def _merged(found: Iterable[Finding], region: str) -> tuple[Finding, ...]:
    by_name: dict[str, list[Finding]] = {}
    for finding in found:
        by_name.setdefault(finding.observation, []).append(finding)
    return tuple(_merge(by_name[name]) for name in observations(region) if name in by_name)


def _merge(found: list[Finding]) -> Finding:
    """The statements about one observation as one."""
    if len(found) == 1:
        return found[0]
    said = {finding.status for finding in found}
    status = next(status for status in (Status.PRESENT, Status.UNCERTAIN, Status.ABSENT) if status in said)
    chosen = [finding for finding in found if finding.status is status]
    sides = {finding.laterality for finding in chosen} - {None}
    sizes = [finding.measurement for finding in chosen if finding.measurement]

    def first(values: Iterable[Any]) -> Any:
        return next((value for value in values if value is not None), None)

    return replace(
        chosen[0],
        laterality=sides.pop() if len(sides) == 1 else Side.BILATERAL if sides else None,
        location=first(finding.location for finding in chosen),
        severity=first(finding.severity for finding in chosen),
        count=first(finding.count for finding in chosen),
        measurement=max(sizes, key=lambda size: size.value, default=None),
    )


class Words:
    """The words of a region in a language, compiled: what is looked for in a sentence, and what each phrase means."""

    def __init__(self, language: str, region: str) -> None:
        words = region_words(region, language)
        observations: dict[str, dict[str, Any]] = words["observation"]
        joined = words["joined_sides"]
        self.sharing = {name: table["sides"] for name, table in observations.items()}
        called_normal = words.get("called_normal", {}).get("words", ())
        self.parts = [(_effects(part, called_normal), tuple(part["denies"])) for part in words["part"]]
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
                *(("bare", table["names"], i) for i, table in enumerate(words.get("bare", ()))),
                ("ignored", words["ignored"]["says"], None),
            ]
        )
        # Which organ a bare word is said of, and what it then mentions.
        self.bare = [
            _Bare(
                Phrases(("organ", phrases, name) for name, phrases in table["of"].items()),
                table.get("otherwise", _NONE),
            )
            for table in words.get("bare", ())
        ]
        self.midline = words.get("midline", {}).get("locations", ())
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
        self.sizes = _Sizes(words["measurement"]) if "measurement" in words else None
        joints = any_of(words["joints"]["words"])
        self.joints = re.compile(rf",? {joints} |[,;:/]")
        # Between two side words that belong together: "left upper and right lower lobe opacities".
        places, links, articles = (any_of(joined[kind]) for kind in ("places", "words", "articles"))
        size = self.sizes.pattern if self.sizes else "(?!)"
        self.joined_sides = re.compile(
            rf"(?:[ -](?:{places}|\d+\w*))*(?:,? {links} (?:{articles} )?(?:\w+ )?(?:{articles} )?"
            # "5 mm in the right upper lobe and one 7 mm in the left lower lobe".
            rf"|(?:,|,? {links}) (?:\w+ )?{size} (?:\w+ )?(?:{articles} )?)"
        )
        # Between two organs of one list: "no lesion in the liver, spleen or pancreas".
        self.listed = re.compile(rf"(?:,|/|,? {links}) ?(?:{articles} )?")
        # Reports repeat sentences, hence the cache.
        self.read = lru_cache(maxsize=1 << 14)(self._read)

    def settled(self, statements: tuple[_Statement, ...], said: dict[int, str]) -> tuple[_Statement, ...]:
        """The statements about our observations; one of no organ is about the last ``said`` ("the mass enhances")."""
        if all(statement.bare is None for statement in statements):
            return statements
        settled = []
        for statement in statements:
            if statement.bare is not None:
                absent, name = statement.status is Status.ABSENT, statement.observation
                if name == _UNSAID:
                    otherwise = self.bare[statement.bare].otherwise
                    name = otherwise if absent else said.get(statement.bare, otherwise)
                elif not absent:
                    said[statement.bare] = name
                if name == _NONE:
                    continue
                side = None if self.sharing[name] == "none" else statement.laterality
                statement = statement._replace(observation=name, laterality=side)
            settled.append(statement)
        return tuple(settled)

    def _read(self, sentence: str) -> tuple[_Statement, ...]:
        """What one ``plain`` sentence states."""
        return _Sentence(self, sentence).statements()


@cache
def words_of(language: str, region: str = CHEST_RADIOGRAPH) -> Words:
    """Returns the words of a region in a language, compiled once."""
    return Words(language, region)


def _effects(part: dict[str, Any], called_normal: Iterable[str]) -> dict[str, tuple[str, str]]:
    """What each word said of a part of the body does: it denies, or it states or hints at an observation."""
    effects = {word: ("denies", "") for phrase in part.get("normal", called_normal) for word in spellings(phrase)}
    for kind in ("states", "hints"):
        for name, phrases in part.get(kind, {}).items():
            effects |= {word: (kind, name) for phrase in phrases for word in spellings(phrase)}
    return effects


class _Sizes:
    """Sizes in a sentence: "8 mm", "1.2 x 0.9 cm"; none that is a distance or of a prior study."""

    def __init__(self, words: dict[str, Any]) -> None:
        mm, cm, by, before, after = (any_of(words[kind]) for kind in ("mm", "cm", "by", "before", "after"))
        number = rf"(\d+(?:\.\d+)?|\.\d+)(?:[ -]?(?:({mm})|({cm}))\b)?"
        self.one = re.compile(number)
        several = re.sub(r"\((?!\?)", "(?:", number)
        self.pattern = rf"{several}(?: ?{by} ?{several})*"
        self.size = re.compile(rf"(?<![\w.,]){self.pattern}")
        self.of_another = re.compile(rf"\b{before} $"), re.compile(rf"[ ,]*{after}\b")

    def find(self, text: str) -> list[Token]:
        """Returns the sizes in a ``plain`` sentence, each the longest diameter in mm."""
        tokens = []
        before, after = self.of_another
        for found in self.size.finditer(text):
            numbers = self.one.findall(found[0])
            _, in_mm, in_cm = numbers[-1]
            if not (in_mm or in_cm) or before.search(text, 0, found.start()) or after.match(text, found.end()):
                continue
            # "1.2 x 0.9 cm": a number without a unit has that of the last.
            largest = max(float(n) * (10 if cm or (in_cm and not mm) else 1) for n, mm, cm in numbers)
            if largest > 0:
                tokens.append(Token(*found.span(), "size", round(largest, 1)))
        return tokens


class _Sentence:
    """One ``plain`` sentence on its way to statements."""

    def __init__(self, words: Words, text: str) -> None:
        self.words, self.text = words, text
        self.tokens = words.phrases.find(text)
        self.mentions: list[_Mention] = []
        self.denied: list[str] = []

    @cached_property
    def details(self) -> list[Token]:
        """Sides, places, severities, counts, sizes, links: looked for only where something is present or uncertain."""
        details = self.words.details.find(self.text)
        sizes = self.words.sizes.find(self.text) if self.words.sizes else []
        # "2." is the number of a list item, and "2 cm" counts nothing.
        details = [
            token
            for token in details
            if token.kind != "count"
            or not (
                self.text[token.end : token.end + 1] in (".", ")", "/", "-")
                or any(size.start < token.end and token.start < size.end for size in sizes)
            )
        ]
        return sorted([*details, *sizes], key=lambda token: token.start)

    def statements(self) -> tuple[_Statement, ...]:
        self._read_mentions()
        self._read_parts()
        self.mentions.sort(key=lambda mention: mention[:3])
        statements = [_Statement(name, Status.ABSENT) for name in self.denied]
        for i, mention in enumerate(self.mentions):
            if mention.status is Status.ABSENT:
                statements.append(_Statement(mention.observation, Status.ABSENT, bare=mention.bare))
            else:
                statements.append(self._detailed(i))
        return tuple(statements)

    def _read_mentions(self) -> None:
        for token in self.tokens:
            if token.kind not in _MEANING or self._is_history(token.start):
                continue
            status = certainty(self.tokens, token.start, token.end)
            if token.kind == "mention":
                self.mentions.append(_Mention(token.start, token.end, token.value, status))
            elif token.kind == "bare":
                names = dict.fromkeys(self._said_of(token))
                self.mentions += [_Mention(token.start, token.end, name, status, token.value) for name in names]
            elif token.kind == "hint":
                self.mentions.append(_Mention(token.start, token.end, token.value, _at_most_uncertain(status)))
            elif status is (Status.ABSENT if token.kind == "collective" else Status.PRESENT):
                self.denied += token.value

    def _said_of(self, bare: Token) -> list[str]:
        """What a bare word mentions by the organs that it is said of: "hepatic cyst", "lesions in liver and spleen".

        An organ within the word counts before one just before it, one after it and one that the sentence began with.
        """
        organs = self.words.bare[bare.value].organs.find(self.text)
        ends = [t.start for t in self.tokens if t.kind in ("mention", "bare") and t.start >= bare.end]
        earlier = [organ for organ in organs if organ.end <= bare.start][::-1]
        later = [
            organ
            for organ in organs
            if bare.end <= organ.start < min(ends, default=len(self.text))
            and len(self.text[bare.end : organ.start].split()) <= 8
            # "The interface of the tumor and the liver" is no tumor of the liver.
            and not self.words.listed.fullmatch(self.text, bare.end, organ.start)
        ]
        starts = [t.end for t in self.tokens if t.kind in ("mention", "bare", "ends") and t.end <= bare.start]
        inside = [organ for organ in organs if organ.start < bare.end and bare.start < organ.end]
        near = [
            organ
            for organ in earlier
            if organ.start >= max(starts, default=0)
            and len(self.text[organ.end : bare.start].split()) <= 2
            and not self.words.joints.search(self.text, organ.end, bare.start)
        ]
        listed = (inside or near or later or earlier)[:1]
        row = later if listed and listed[0] in later else earlier
        for organ in row[row.index(listed[0]) + 1 :] if listed and listed[0] in row else ():
            between = sorted((listed[-1].start, listed[-1].end, organ.start, organ.end))[1:3]
            if not self.words.listed.fullmatch(self.text, *between):
                break
            listed.append(organ)
        return [str(organ.value) for organ in listed] or [_UNSAID]

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
                following = [t for t in self.tokens[i + 1 : i + 4] if t.kind == "part" and t.start - token.end <= 1]
                if following and following[0] is self.tokens[i + 1]:
                    parts, since = following, 0
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
            return next((t.value for t in among if t.kind == kind and t.value != "ignored"), None)

        side, location = self._side_of(own) or self._side_of(later), nearest("location", own + later)
        sharing = self._sharing(mention)
        if sharing == "none":
            side = None
        elif sharing == "shared" and side is None:
            side, shared_location = self._shared(i)
            location = location or shared_location
        if location in self.words.midline:
            side = None
        # "Three small nodules", but not "after 3 days there is a nodule".
        near = [t for t in own if len(self.text[t.end : mention.start].split()) <= 3]
        count = nearest("count", near)
        return _Statement(
            mention.observation,
            mention.status,
            side,
            location,
            nearest("severity", own + later),
            int(count) if count else None,
            max((t.value for t in own + later if t.kind == "size"), default=None),
            mention.bare,
        )

    def _sharing(self, mention: _Mention) -> str:
        name = mention.observation
        if name == _UNSAID and mention.bare is not None:
            name = self.words.bare[mention.bare].otherwise
        return str(self.words.sharing.get(name, "own"))

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
        if i and self._sharing(self.mentions[i - 1]) == "shared":
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
