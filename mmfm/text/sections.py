"""Report text to sections and sentences, and the sentences that compare with a prior study.

Nothing here rewrites a text: sections and sentences are exact pieces of it, and ``without_comparisons`` only drops
whole sentences.
"""

from __future__ import annotations

import re
from functools import cache

from mmfm.report import SECTION_NAMES, Sections
from mmfm.text.phrases import Phrases, any_of, plain, vocabulary


@cache
def _headings(language: str) -> re.Pattern[str]:
    words = vocabulary("sections", language)
    kinds = "|".join(f"(?P<{name}>{any_of(phrases)})" for name, phrases in words["headings"].items())
    title = rf"(?=[^:\n]{{0,80}}\b{any_of(words['titles']['words'])}\b)(?-i:[A-Z][A-Z0-9 ,/()&-]{{0,80}})"
    return re.compile(
        # At the start of a line or after a full stop or colon, and anywhere in capitals; bounded, so that a long text
        # in capitals takes no longer than another.
        rf"(?:^|(?<=[\n.:])|(?<=\s)(?=(?-i:[A-Z]{{4}}[A-Z ]{{0,60}}:)))[ \t#*_]*+(?:{kinds})[ \t*_]*:[*_]*"
        rf"|(?:^|(?<=\n))[ \t#*_]*+(?P<title>{title})[ \t*_]*:[*_]*",
        re.IGNORECASE,
    )


_STOP = re.compile(
    r"""
      [.!?]+ (?: [\"')\]]* (?: \s+ | $ )                 # before white space or the end
               | (?<=[A-Za-z]{3}[.]) (?=[A-Za-z]{2}) )   # where the blank was forgotten: "apex.There", not "e.g."
    | \n (?: \s* \n | (?= \s* (?: \d{1,2}[.)] | [-*\u2022] ) \s ) ) \s*  # a blank line, or before a list item's line
    """,
    re.VERBOSE,
)


@cache
def _abbreviation(language: str) -> re.Pattern[str]:
    return re.compile(rf"\b{any_of(vocabulary('sections', language)['abbreviations']['words'])}$", re.IGNORECASE)


def _pieces(text: str, language: str) -> list[tuple[str, str]]:
    """The pieces of a report between its headings, each with the section that it belongs to."""
    headings = list(_headings(language).finditer(text))
    starts = [heading.end() for heading in headings]
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    names = ["findings" if heading.lastgroup == "title" else str(heading.lastgroup) for heading in headings]
    # Not strict: a text without headings has an end, and no start.
    pieces = [(name, text[start:end].strip()) for name, start, end in zip(names, starts, ends, strict=False)]
    lead = text[: headings[0].start()] if headings else text
    named = {name for name, body in pieces if body}
    return [("technique" if "findings" in named else "findings", lead.strip()), *pieces]


def split_sections(text: str, *, language: str = "en") -> Sections:
    """Splits a report at its headings ("FINDINGS:", "Impression:", ...).

    Text before the first heading, or without any, is the findings, unless the report has a heading for them: then it is
    the technique (the title of the examination), if nothing else is.

    Args:
        text: a whole report.
        language: of the report; each has a folder of ``vocabulary``.

    Returns:
        The sections, stripped of outer white space; ``None`` where the report has none.
    """
    found: dict[str, list[str]] = {}
    (lead_name, lead), *pieces = _pieces(text, language)
    for name, body in pieces:
        if body:
            found.setdefault(name, []).append(body)
    if lead:
        found.setdefault(lead_name, [lead])
    return Sections(**{name: "\n".join(found[name]) if name in found else None for name in SECTION_NAMES})


def stating(text: str, language: str) -> list[str]:
    """Returns the exact pieces of a text that state findings: all of it, unless it has headings.

    With headings, these are the findings and the impression; if it has neither, all but the indication.
    """
    if ":" not in text:
        return [text]
    pieces = [(name, body) for name, body in _pieces(text, language) if body and name != "indication"]
    return [body for name, body in pieces if name in ("findings", "impression")] or [body for _, body in pieces]


def _spans(text: str, language: str) -> list[tuple[int, int]]:
    """Start and end of each sentence; the white space after a sentence belongs to it."""
    spans, start, abbreviation = [], 0, _abbreviation(language)
    for stop in _STOP.finditer(text):
        before = text[start : stop.start()]
        # The number of a list item stays with its sentence, and a question mark before what it asks for.
        asks = text[stop.start()] == "?" and before[-1:] in ("", " ", ",", "(")
        if not asks and not before.strip(" (\n").isdigit() and not abbreviation.search(before[-7:]):
            spans.append((start, stop.end()))
            start = stop.end()
    if start < len(text):
        spans.append((start, len(text)))
    return spans


def split_sentences(text: str, *, language: str = "en") -> list[str]:
    """Splits a section into sentences.

    Tolerates numbered impressions (the number stays with its sentence), wrapped lines, missing blanks after full stops
    and the ``XXXX`` of de-identified texts.

    Returns:
        The sentences in order, each an exact piece of ``text`` without outer white space.
    """
    return [sentence for start, end in _spans(text, language) if (sentence := text[start:end].strip())]


@cache
def _comparisons(language: str) -> Phrases:
    return Phrases((kind, phrases, None) for kind, phrases in vocabulary("comparisons", language).items())


def compares_with_prior(sentence: str, *, language: str = "en") -> bool:
    """Whether a sentence compares with a prior study ("unchanged", "interval", "new", "again seen", "stable").

    Past events ("prior granulomatous disease", "previous rotator cuff repair") and follow-up in the future ("short
    interval follow-up") do not compare.
    """
    return any(token.kind == "compares" for token in _comparisons(language).find(plain(sentence)))


def without_comparisons(text: str, *, language: str = "en") -> str:
    """Drops the whole sentences of ``text`` that compare with a prior study; every other character stays."""
    pieces = (text[start:end] for start, end in _spans(text, language))
    return "".join(piece for piece in pieces if not compares_with_prior(piece, language=language)).strip()
