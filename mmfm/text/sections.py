"""Report text to sections and sentences, and the sentences that compare with a prior study.

Nothing here rewrites a text: sections and sentences are exact pieces of it, and ``without_comparisons`` only drops
whole sentences.
"""

from __future__ import annotations

import re

from mmfm.report import SECTION_NAMES, Sections
from mmfm.text.phrases import Phrases, plain, vocabulary

_HEADINGS = {
    "indication": r"indications?|(?:clinical |patient )?history|clinical (?:information|indication|data|details)|"
    r"reason for (?:exam(?:ination)?|study)|symptoms?",
    "technique": r"technique|procedure|views?|exam(?:ination)?(?: type)?|study",
    "comparison": r"comparisons?|(?:comparison|prior) (?:studies|study|exams?)",
    "findings": r"findings?|report|description|observations?",
    "impression": r"impressions?|conclusions?|opinion|summary|interpretation|assessment",
}
_HEADING = re.compile(
    # At the start of a line or after a full stop or colon, and anywhere in capitals.
    r"(?:^|(?<=[\n.:])|(?<=\s)(?=(?-i:[A-Z]{4}[A-Z ]*:)))[ \t#*_]*(?:"
    + "|".join(f"(?P<{name}>{words})" for name, words in _HEADINGS.items())
    + r")[ \t*_]*:[*_]*",
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
_ABBREVIATION = re.compile(r"\b(?:dr|mr|mrs|ms|vs|approx|e\.g|i\.e)$", re.IGNORECASE)


def split_sections(text: str) -> Sections:
    """Splits a report at its headings ("FINDINGS:", "Impression:", ...).

    Text before the first heading, or without any, is the findings, unless the report has a heading for them: then it is
    the technique (the title of the examination), if nothing else is.

    Args:
        text: a whole report.

    Returns:
        The sections, stripped of outer white space; ``None`` where the report has none.
    """
    found: dict[str, list[str]] = {}
    headings = list(_HEADING.finditer(text))
    for i, heading in enumerate(headings):
        body = text[heading.end() : headings[i + 1].start() if i + 1 < len(headings) else len(text)].strip()
        if body and heading.lastgroup:
            found.setdefault(heading.lastgroup, []).append(body)
    lead = text[: headings[0].start()].strip() if headings else text.strip()
    if lead:
        found.setdefault("technique" if "findings" in found else "findings", [lead])
    return Sections(**{name: "\n".join(found[name]) if name in found else None for name in SECTION_NAMES})


def _spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence; the white space after a sentence belongs to it."""
    spans, start = [], 0
    for stop in _STOP.finditer(text):
        before = text[start : stop.start()]
        # The number of a list item stays with its sentence.
        if not before.strip(" (\n").isdigit() and not _ABBREVIATION.search(before[-7:]):
            spans.append((start, stop.end()))
            start = stop.end()
    if start < len(text):
        spans.append((start, len(text)))
    return spans


def split_sentences(text: str) -> list[str]:
    """Splits a section into sentences.

    Tolerates numbered impressions (the number stays with its sentence), wrapped lines, missing blanks after full stops
    and the ``XXXX`` of de-identified texts.

    Returns:
        The sentences in order, each an exact piece of ``text`` without outer white space.
    """
    return [sentence for start, end in _spans(text) if (sentence := text[start:end].strip())]


_COMPARISONS = Phrases((kind, phrases, None) for kind, phrases in vocabulary("comparisons").items())


def compares_with_prior(sentence: str) -> bool:
    """Whether a sentence compares with a prior study ("unchanged", "interval", "new", "again seen", "stable").

    Past events ("prior granulomatous disease", "previous rotator cuff repair") and follow-up in the future ("short
    interval follow-up") do not compare.
    """
    return any(token.kind == "compares" for token in _COMPARISONS.find(plain(sentence)))


def without_comparisons(text: str) -> str:
    """Drops the whole sentences of ``text`` that compare with a prior study; every other character stays."""
    return "".join(text[start:end] for start, end in _spans(text) if not compares_with_prior(text[start:end])).strip()
