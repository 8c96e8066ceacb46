"""Report text to sections and sentences, and the sentences that compare with a prior study.

Nothing here rewrites a text: sections and sentences are exact pieces of it, and ``without_comparisons`` only drops whole
sentences.
"""

from __future__ import annotations

import re

from mmfm.report import SECTION_NAMES, Sections

_HEADINGS = {
    "indication": r"indications?|(?:clinical |patient )?history|clinical (?:information|indication|data|details)|"
    r"reason for (?:exam(?:ination)?|study)|symptoms?",
    "technique": r"technique|procedure|views?|exam(?:ination)?(?: type)?|study",
    "comparison": r"comparisons?|(?:comparison|prior) (?:studies|study|exams?)",
    "findings": r"findings?|report|description|observations?",
    "impression": r"impressions?|conclusions?|opinion|summary|interpretation|assessment",
}
_HEADING = re.compile(
    r"(?:^|(?<=[\n.:]))[ \t#*_]*(?:" + "|".join(f"(?P<{name}>{words})" for name, words in _HEADINGS.items()) + r")[ \t*_]*:[*_]*",
    re.IGNORECASE,
)

# A full stop ends a sentence before white space or the end, and before a letter where the blank was forgotten
# ("apex.There"); not inside "1.5 cm", not after the number of a list, not after an abbreviation. A blank line or a line
# that opens a list item ends one too; other line breaks are only wrapped lines.
_END = re.compile(
    r"(?:(?<!\bdr)(?<!\bmr)(?<!\bms)(?<!\bvs)(?<!\bmrs)(?<!\bapprox)(?<!\be\.g)(?<!\bi\.e)(?<!^\d)(?<!\s\d)(?<!\s\d\d)"
    r"[.!?]+|(?<=\d)\.(?=\s+(?:there|the|no)\b))(?=[\s\"')\]]|$)[\"')\]]*\s*"
    r"|(?<=[a-z]{3})\.(?=[A-Za-z])|(?<=XXXX)\.(?=[A-Z][a-z])"
    r"|[ \t]*\n\s*(?=\n|(?:\d{1,2}[.)]|[-*•])\s)|\n[ \t]*\n\s*"
    r"|(?<=[.;:])\s+(?=\d{1,2}[.)]\s+[A-Z])",
    re.IGNORECASE,
)


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
    for heading, following in zip(headings, [*headings[1:], None]):
        body = text[heading.end() : following.start() if following else len(text)].strip()
        if body and heading.lastgroup:
            found.setdefault(heading.lastgroup, []).append(body)
    lead = text[: headings[0].start()].strip() if headings else text.strip()
    if lead:
        found.setdefault("technique" if "findings" in found else "findings", [lead])
    return Sections(**{name: "\n".join(found[name]) if name in found else None for name in SECTION_NAMES})


def _spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence; the white space after a sentence belongs to it."""
    spans, start = [], 0
    for end in _END.finditer(text):
        if text[start : end.end()].strip():
            spans.append((start, end.end()))
            start = end.end()
    if text[start:].strip():
        spans.append((start, len(text)))
    return spans


def split_sentences(text: str) -> list[str]:
    """Splits a section into sentences.

    Tolerates numbered impressions (the number stays with its sentence), wrapped lines, missing blanks after full stops
    and the ``XXXX`` of de-identified texts.

    Returns:
        The sentences in order, each an exact piece of ``text`` without outer white space.
    """
    return [text[start:end].strip() for start, end in _spans(text)]


_COMPARES = re.compile(
    r"\b(?:unchanged|(?<!hemodynamically )stable|stability|interval(?! (?:follow|chest|radiograph|ct))|compar(?:ed|ison|ing)|"
    r"again|redemonstrat\w*|re-?demonstrat\w*|re-?identified|"
    r"(?:since|from|than|to|with|on|versus) (?:the |a |an |his |her |their |any )?(?:\w+ )?(?:prior|previous|earlier|last|old)\b|"
    r"(?:prior|previous|earlier|old|outside) (?:\w+ )?(?:stud(?:y|ies)|exam\w*|films?|radiographs?|x-?rays?|x-xxxx|chest|imaging|images?|ct|report|comparison)|"
    r"previously|persist(?:s|ent|ently|ing)?|remains?|no longer|"
    r"new(?! (?:york|england|jersey|mexico|hampshire|zealand|orleans))(?=\W)|newly|recurrent|"
    r"(?:has|have|had) (?:\w+ )?(?:increased|decreased|improved|worsened|resolved|cleared|progressed|developed|enlarged|diminished)|"
    r"improv(?:ed|ing|ement)|worse(?:n(?:ed|ing))?(?! (?:on|at) the)|"
    r"progress(?:ed|ion|ive|ing)|resolv(?:ed|ing)|cleared|developing|no (?:significant )?change|"
    r"(?:significant|appreciable) change|similar (?:in appearance )?to|increas(?:ed|ing) (?:in|since|from)|decreas(?:ed|ing) (?:in|since|from)|"
    r"since (?:the|that|xxxx|\d)|in the interim)\b",
    re.IGNORECASE,
)


def compares_with_prior(sentence: str) -> bool:
    """Whether a sentence compares with a prior study ("unchanged", "interval", "new", "again seen", "stable").

    Past events ("prior granulomatous disease", "previous rotator cuff repair") and follow-up in the future ("short
    interval follow-up") do not compare.
    """
    return _COMPARES.search(sentence) is not None


def without_comparisons(text: str) -> str:
    """Drops the whole sentences of ``text`` that compare with a prior study; every other character stays."""
    return "".join(text[start:end] for start, end in _spans(text) if not compares_with_prior(text[start:end])).strip()
