"""Names, dates, numbers and addresses taken out of report text; medical words, eponyms among them, left in.

``clean_text`` works by patterns and by three word lists, without a model: the same text gives the same result on any
machine, and every rule can be read. It is made for English reports. What it is measured at stands in
``docs/deidentification.md``; no such rate is a promise about a text that nobody has looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path

_UPPER = "A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĖĘĚĞĢĪĮİĶŁĻŃŅŇŌŐŒŘŚŞŠŢŤŪŮŰŲŸŹŻŽȘȚ"
_LOWER = "a-zß-öø-ÿāăąćčďđēėęěğģīįıķłļńņňōőœřśşšţťūůűųźżžșț"
_WORD = rf"[{_UPPER}{_LOWER}][{_UPPER}{_LOWER}'’]*"
_NAME = rf"[{_UPPER}][{_UPPER}{_LOWER}'’]*(?:-[{_UPPER}{_LOWER}][{_UPPER}{_LOWER}'’]*){{0,4}}"
_PARTICLES = frozenset(
    [
        "van",
        "von",
        "de",
        "der",
        "den",
        "del",
        "della",
        "di",
        "da",
        "dos",
        "la",
        "le",
        "el",
        "al",
        "bin",
        "ibn",
        "ter",
        "ten",
        "du",
        "st",
        "mac",
        "mc",
        "o",
        "y",
    ]
)
_PART = rf"(?:[{_UPPER}]\.|{_NAME})"
_NAMES = rf"{_PART}(?:(?:, ?| |\^)(?:(?:{'|'.join(sorted(_PARTICLES))})\.? ){{0,2}}{_PART}(?!\w)){{0,4}}"

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_YEAR = r"(?:19|20)\d\d"
_STREET = r"(?:street|avenue|ave|road|boulevard|blvd|lane|drive|terrace|parkway|pkwy|highway|hwy)\b\.?"
_SHORT_STREET = (
    r"(?:st|rd|ln|dr|court|ct|way|place|pl|square|sq|ter|circle|cir|crescent|close|row|walk|gardens|grove"
    r"|plaza)\b\.?"
)
"""Words that are a street only behind capitalised ones: "CT" and "Dr." are other things."""
_NUMBERED = (
    r"(?:mrn|m\.r\.n\.|med(?:ical)? rec(?:ord)?|record|chart|accession|acc|acct|account|patient id|pt id|id"
    r"|ident(?:ifier)?"
    r"|hospital|hosp|unit|case|order|visit|encounter|episode|admission|requisition|exam id|study id|nhs|ssn"
    r"|s\.s\.n\."
    r"|social security|insurance|policy|member|group|health card|medicare|medicaid|npi|dea|licen[cs]e"
    r"|passport|specimen"
    r"|fin|csn|device|serial|s/n|reference|ref)"
)

_PATTERNS = tuple(
    (label, re.compile(pattern, re.IGNORECASE))
    for label, pattern in (
        ("EMAIL", r"(?<![\w.+%-])[\w.+%-]{1,64} ?@ ?[\w-]+(?:\.[\w-]+)+"),
        ("URL", r"\b(?:https?://|www\.)\S+"),
        # Dates and, beside them, times of day. A year alone may stay (45 CFR 164.514 (b)(2)(i)(C)).
        (
            "DATE",
            rf"\b{_YEAR}[-/.](?:0?[1-9]|1[0-2])[-/.](?:[0-2]?\d"
            rf"|3[01])(?:[T ]\d\d?:\d\d(?::\d\d)?(?:\.\d+)?Z?)?\b",
        ),
        ("DATE", rf"\b(?:[0-2]?\d|3[01])([-/.])(?:[0-2]?\d|3[01])\1(?:{_YEAR}|\d\d)\b(?! ?[cm]m\b)"),
        (
            "DATE",
            rf"\b(?:[0-2]?\d|3[01])(?:st|nd|rd|th)?(?: of)?[ -]?\b{_MONTH}(?:,?[ -]?(?:{_YEAR}"
            rf"|'?\d\d))?\b(?! ?[cm]m)",
        ),
        (
            "DATE",
            rf"\b{_MONTH}[ -](?:[0-2]?\d|3[01])(?:st|nd|rd|th)?\b(?! ?[cm]m)(?:,?[ -]+(?:{_YEAR}|'\d\d))?"
            rf"(?:,? (?:at )?\d\d?:\d\d)?",
        ),
        ("DATE", rf"\b{_MONTH},?(?: of)?[ /-]{_YEAR}\b"),
        ("DATE", rf"\b(?:0?[1-9]|1[0-2])[/-]{_YEAR}\b"),
        ("DATE", rf"\b{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{{6}})?\b"),
        (
            "DATE",
            r"(?P<keep>\b(?:on|dated?|since|from|of|until|prior|comparison|compared to):? )(?:0?[1-9]"
            r"|1[0-2])/(?:[0-2]?\d|3[01])\b",
        ),
        ("TIME", r"\b(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)? ?(?:(?:a|p)\.?m\b\.?|h(?:ou)?rs\b)"),
        ("TIME", r"(?P<keep>\b(?:at|@|time:?) ?)(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?\b(?! ?o'clock)"),
        ("TIME", r"\b(?:[01]\d|2[0-3])[0-5]\d ?h(?:ou)?rs?\b"),
        # Addresses before numbers and names, which they hold.
        (
            "ADDRESS",
            rf"\b\d{{1,6}}[a-z]?(?: (?:n|s|e|w|north|south|east|west)\.?)?"
            rf"(?:(?: [{_LOWER}\d'’-]+\.?){{1,3}}? {_STREET}"
            rf"|(?: (?-i:[{_UPPER}\d])[{_LOWER}\d'’-]+){{1,3}}? {_SHORT_STREET})"
            rf"(?:,? (?:apt|apartment|suite|ste|unit|flat|floor|#)\.? ?#?[\w-]+)?"
            rf"(?:, ?(?-i:{_NAME}(?: {_NAME}){{0,2}}))?(?:,? (?-i:[A-Z]{{2}})\b)?(?:,? \d{{5}}(?:-\d{{4}})?)?",
        ),
        ("ADDRESS", r"\bp\.? ?o\.? ?box \d+"),
        ("ADDRESS", rf"(?-i:\b{_NAME}(?: {_NAME})?, ?[A-Z]{{2}}),? \d{{5}}(?:-\d{{4}})?\b"),
        ("ADDRESS", r"(?-i:\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b)"),
        ("ADDRESS", r"\b(?:zip|postal|post)(?: ?code)?:? \d{4,5}(?:-\d{4})?\b"),
        # Whatever follows the name of a number and holds a digit.
        (
            "ID",
            rf"(?<=\b)(?P<keep>{_NUMBERED}(?:'s)?(?: (?:no|nr|num|number|identifier|id|code))?\.? ?[:#=]* ?#?)"
            r"(?=[\w/-]*\d)(?![\d.]+ ?(?:mm|cm|ml|mg|kg|%|year|day|hour|week"
            r"|month))[a-z]{0,5}[-/]?\d[\w/-]{2,}\b",
        ),
        ("ID", r"\b\d{3}-\d{2}-\d{4}\b"),
        (
            "PHONE",
            r"(?<![\w.])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,5}\)|\d{3})[ .-]?\d{3}[ .-]\d{3,4}\b(?: ?(?:x"
            r"|ext\.?) ?\d+)?",
        ),
        ("PHONE", r"(?<![\w.])\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}\b"),
        ("PHONE", r"(?<![\w.])\(?0\d{2,4}\)?[ -]\d{3,4}[ -]?\d{3,4}\b"),
        (
            "PHONE",
            r"(?P<keep>\b(?:tel|telephone|phone|ph|fax|pager|beeper|cell|mobile|ext|extension"
            r"|call(?:ed)? (?:at|on))\b\.?"
            r"(?: (?:no|number))?\.?[:#]? ?)[+(]?\d[\d ().-]{2,}\d\b",
        ),
        # Ages above 89 (45 CFR 164.514 (b)(2)(i)(C)).
        ("AGE", r"\b(?:9\d|1[01]\d)(?=[- ]?(?:years?|yrs?|yo|y/o|y\.o\.)\b)"),
        ("ID", r"\b(?-i:[A-Z]{0,4}[-_]?\d{6,}[A-Z\d]*)\b"),
        ("ID", r"\b\d(?:\.\d+){5,}\b"),
        ("ID", r"\b(?-i:[A-Z]{1,4}-?\d{2,}-\d{3,}(?:-\d+)*)\b"),
    )
)

# Where care is given: "St. Mary's Hospital", "Riverside Medical Center".
_PLACE = re.compile(
    rf"(?<![\w-])(?:(?:St|Mt)\.? )?(?:{_NAME}(?: (?:of|and|&) (?:the )?| )){{1,4}}"
    r"(?:Hospitals?|Medical (?:Center|Centre|Group)|Clinics?|Infirmary|Health(?: ?care)?(?: System| Center"
    r"| Centre)?"
    r"|Imaging Cent(?:er|re)|Radiology (?:Associates|Group|Partners)|University|Hospice|Nursing Home"
    r"|Surgery Center)\b"
)
_TITLE = re.compile(
    rf"\b(?P<keep>(?:dr|drs|doctor|prof|professor|mr|mrs|ms|miss|mx|nurse|sir|rev|capt|sgt|lt"
    rf"|col)\b\.?,? ?)(?P<name>(?-i:{_NAMES}))",
    re.IGNORECASE,
)
_ROLE = (
    r"patient(?:'s)?(?: name)?|pt(?: name)?|name|subject|(?:referring|ordering|attending|requesting|primary"
    r"|consulting|reading)"
    r"(?: (?:physician|doctor|provider|radiologist|clinician))?|physician|radiologist|provider|surgeon"
    r"|resident|fellow|attending"
    r"|technologist|technician|tech|sonographer|nurse|clinician|cc|transcriptionist|author|operator|reader"
    r"|contact|next of kin"
    r"|mother|father|wife|husband|son|daughter|spouse|guardian|employer|dictated|signed|reported"
)
_COLON = re.compile(rf"\b(?P<keep>(?:{_ROLE})(?: by)? ?[:=] ?)(?P<name>(?-i:{_NAMES}))", re.IGNORECASE)
_BY = re.compile(
    r"\b(?P<keep>(?:(?:electronically )?(?:signed|dictated|read|reported|interpreted|reviewed|verified"
    r"|approved|authenticated"
    r"|transcribed|typed|performed|prepared|requested|ordered|referred|seen|finali[sz]ed"
    r"|supervised)(?: and \w+)? (?:by|for)"
    r"|(?:discussed|communicated|reviewed|shared|conferred|spoke|consulted) (?:(?:the |these "
    r"|critical )?(?:findings?|results?)"
    r" )?(?:with|to)|(?:called|conveyed|relayed|reported|telephoned|given|paged|phoned|faxed|sent|notified"
    r"|informed|told) (?:to )?"
    r"|attention|attn|cc|per|named)[: ] ?(?:(?:the )?(?:patient|physician|radiologist|resident|nurse"
    r"|technologist|referring \w+)"
    rf",? )?)(?P<name>(?-i:{_NAMES}))",
    re.IGNORECASE,
)
_APPOSED = re.compile(rf"\b(?:I|(?:[Tt]he )?[Pp]atient), (?P<name>{_NAMES})(?=,)")
_AGED = re.compile(rf"(?<![\w-])(?P<name>{_NAMES})(?=,? (?:an? )?\d{{1,3}}[- ]?(?:y/?o|y\.o|[Yy]ears?|[Yy]rs?)\b)")
_BESIDE_NAME = re.compile(r"\[NAME\],? $")
_NAME_BESIDE = re.compile(r",? \[NAME\]")
_DEGREE = re.compile(
    rf"(?<![\w-])(?P<name>{_NAMES})(?P<keep>,? ?\b(?:M\.?D|D\.?O|R\.?N|Ph\.?D|N\.?P|P\.?A(?:-C)?|FRCR|FACR|MBBS"
    rf"|MBChB|RT ?\(R\)|DPM|DDS|DMD)\b\.?)"
)
_NOTICE = re.compile(
    r" (?:was|were|is|has been) (?:\w+ly )?(?:notified|informed|called|contacted|paged|told|advised|updated"
    r"|consulted|aware)\b"
    r"| is an? (?:\d|\w+[- ]year)| (?:presents|presented|denies|complains|states|reports|underwent|agrees"
    r"|agreed|concurs)\b"
)


_UNSPACED = re.compile(r"[\u3005-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f]{2,}")
"""Names in scripts that are written without spaces: kana, Han, Hangul."""
_ABBREVIATION = re.compile(r"[A-Z]{2,}['’]?s?|[A-Z][a-z]?[A-Z][a-z]?|[A-Z]{2,4}[a-z][A-Z]?[a-z]?|[A-Z]{1,5}-[A-Za-z]+")
_DOSE = re.compile(r" ?\d+(?:\.\d+)? ?(?:mg|mcg|g|ml|mL|units?)\b")

_MAX_PARTS = 16
"""Parts of one name or address that are looked for: their pairs are many."""
LONG_ABBREVIATION = 6
"""Letters from which on a word in capitals that no list knows is taken for a name."""


@cache
def _vocabulary(name: str) -> frozenset[str]:
    """Returns the lower-case words of a file of ``vocabulary``."""
    lines = (Path(__file__).parent / "vocabulary" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word.lower() for line in lines if not line.startswith("#") for word in line.split())


@cache
def _suffixes() -> tuple[str, ...]:
    return tuple(_vocabulary("suffixes"))


def clean_text(text: str, known: Iterable[str] = ()) -> str:
    """Returns ``text`` with a word in brackets, such as ``[NAME]``, in place of each identifier.

    Names, dates (a year alone may stay), times of day beside them, numbers of records, accessions and policies, phone
    numbers, e-mail and postal addresses, hospitals, ages above 89.

    Args:
        text: a report or a description, in English.
        known: what the header states of persons, numbers and places, as it stands there (``DOE^JANE``): found in
            any order and case.
    """
    text = remove_known(text, known)
    for label, pattern in _PATTERNS:
        text = pattern.sub(lambda match, label=label: f"{_kept(match)}[{label}]", text)  # type: ignore[misc]
    text = re.sub(r"(?<![\w.\[-])[\w-]+(?![\w\]-])", _mixed, text)
    text = _PLACE.sub(_place, text)
    for pattern in (_TITLE, _COLON, _BY, _APPOSED, _AGED, _DEGREE):
        text = pattern.sub(lambda match, strong=pattern is _TITLE: _cued(match, strong=strong), text)  # type: ignore[misc]
    text = _without_lone_names(text)
    text = re.sub(r"[^\W\d_a-zA-Z\u00c0-\u024f\u0370-\u03ff\u1e00-\u1eff]{2,}", "[NAME]", text)  # other scripts
    return re.sub(r"\[NAME\](?:(?:,? |[-^])\[NAME\])+", "[NAME]", text)


def remove_known(text: str, known: Iterable[str]) -> str:
    """Returns ``text`` without what ``known`` states: phrases, numbers, and names that are no ordinary words."""
    if not text:
        return text
    for label, pattern in _known_patterns(frozenset(known)):
        text = pattern.sub(f"[{label}]", text)
    return text


@lru_cache(maxsize=16)
def _known_patterns(known: frozenset[str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    phrases, numbers, names, unspaced = set(), set(), set(), set()
    for stated in known:
        parts = [part for part in re.split(r"[\^=\\,;\s]+", stated.strip()) if part][:_MAX_PARTS]
        names_here = [part for part in parts if len(part) > 1 and not any(c.isdigit() for c in part)]
        if len(parts) > 1:
            for ordered in (parts, parts[::-1], parts[1:] + parts[:1]):
                phrases.add(r"[\^=,.\s_-]+".join(map(re.escape, ordered)))
        numbers |= {
            re.escape(part) for part in (*parts, stated.strip()) if len(part) > 3 and any(map(str.isdigit, part))
        }
        unspaced |= {re.escape(part) for part in (*names_here, "".join(names_here)) if _UNSPACED.fullmatch(part)}
        words = _vocabulary("words")
        names |= {re.escape(name) for name in names_here if len(name) > 2 and name.lower() not in words}
        # An ordinary word that is a name here is one only where it is written as one, beside another part of it.
        for name in names_here:
            others = [re.escape(other) for other in names_here if other != name]
            if others:
                phrases |= {rf"{re.escape(name)}[\^,.\s_-]+{other}" for other in others}
    edge, end = r"(?<![^\W_])", r"(?![^\W_])"
    made = []
    for label, items in (("NAME", phrases), ("ID", numbers), ("NAME", names)):
        if items:
            joined = "|".join(sorted(items, key=lambda item: (-len(item), item)))
            made.append((label, re.compile(f"{edge}(?:{joined}){end}", re.IGNORECASE)))
    if unspaced:  # no word of such a script has an edge
        made.append(("NAME", re.compile("|".join(sorted(unspaced, key=lambda item: (-len(item), item))))))
    return tuple(made)


def _kept(match: re.Match[str]) -> str:
    return match.groupdict().get("keep") or ""


def _mixed(match: re.Match[str]) -> str:
    """Takes out a word of letters with five digits or more."""
    word = match.group()
    return "[ID]" if sum(map(str.isdigit, word)) >= 5 and any(map(str.isalpha, word)) else word


def _place(match: re.Match[str]) -> str:
    """Keeps "the Hospital", "CT Clinic" and other words that name no place."""
    parts = match.group().replace(".", "").split()
    if all(part.lower() in _vocabulary("words") or part.isupper() for part in parts[:-1]) and len(parts) < 3:
        return match.group()
    return "[PLACE]"


def _cued(match: re.Match[str], *, strong: bool) -> str:
    """Takes out the name that a title, a role or a degree announces, up to the first word that cannot belong to it."""
    name = match["name"]
    end = 0
    for number, found in enumerate(re.finditer(_NAME, name)):
        word = found.group()
        first = number == 0
        if _is_word(word) and len(word) > 1 and not (strong and first and not _is_heading(word)):
            if word.lower().rstrip(".") in _PARTICLES:
                continue
            if not _is_word_name(word):
                break
        end = found.end()
    if not end:
        return match.group()
    at = match.start()
    before, after = match.group()[: match.start("name") - at], match.group()[match.end("name") - at :]
    return f"{before}[NAME]{name[end:].removeprefix('.')}{after}"


def _is_heading(word: str) -> bool:
    return word.isupper() and len(word) > 5


def _is_word(word: str) -> bool:
    """Whether ``word`` is an ordinary or medical word, an eponym apart."""
    lower = word.lower().replace("’", "'")
    lower = lower.removesuffix("'s").rstrip("'")
    words = _vocabulary("words")
    return all(
        len(part) == 1
        or part in words
        or (part.endswith("s") and part[:-1] in words)
        or (len(part) > 6 and part.endswith(_suffixes()))
        for part in lower.split("-")
        if part
    ) and not all(part in _vocabulary("names") for part in lower.split("-") if part)


def _is_name(word: str) -> bool:
    """Whether a part of ``word`` is a common first name or surname."""
    parts = re.split(r"['’-]", word.lower())
    names = _vocabulary("names")
    return word.lower() in names or any(len(part) > 2 and part in names for part in parts)


def _is_word_name(word: str) -> bool:
    """Whether an ordinary word is written as the name that it can be too: "White"."""
    return word[1:].islower() and word.lower() in _vocabulary("word_names")


def _is_eponym(word: str) -> bool:
    eponyms = _vocabulary("eponyms")
    lower = re.sub(r"['’]s?$", "", word.lower())
    return any(part in eponyms or part.removesuffix("s") in eponyms for part in lower.split("-"))


def _tokens(text: str) -> Iterator[re.Match[str]]:
    """Yields words that hold no digit and touch none, brackets apart."""
    return re.finditer(rf"(?<![\w\[@]){_WORD}(?:-{_WORD})*(?![\w\]])", text)


def _without_lone_names(text: str) -> str:
    """Takes out capitalised words that no list knows, and common names, where nothing marks them as medical."""
    tokens = list(_tokens(text))
    shouted = sum(c.isupper() for c in text) > sum(c.islower() for c in text)
    lowered = {token.group() for token in tokens if token.group().islower()}
    wrong: list[bool] = []
    for place in range(len(tokens)):
        wrong.append(
            _is_lone_name(text, tokens, place, shouted=shouted, lowered=lowered, before=bool(wrong and wrong[-1]))
        )
    # A name draws its neighbours in: "Marigold Smith", "J. Smith".
    for place in range(len(tokens) - 2, -1, -1):
        between = text[tokens[place].end() : tokens[place + 1].start()]
        word = tokens[place].group()
        if wrong[place + 1] and not wrong[place] and between in (" ", ". ", ", ", "-", "^"):
            initial = len(word) == 1 and word.isupper() and between == ". "
            unknown = word[0].isupper() and len(word) > 2 and not _is_word(word)
            surname = _is_word_name(word) and between in (" ", ", ")
            wrong[place] = initial or surname or (unknown and (_is_name(word) or not _is_eponym(word)))
    pieces, at = [], 0
    for token, out in zip(tokens, wrong, strict=True):
        if out:
            pieces += [text[at : token.start()], "[NAME]"]
            at = token.end()
    return "".join([*pieces, text[at:]])


def _is_lone_name(
    text: str, tokens: list[re.Match[str]], place: int, *, shouted: bool, lowered: set[str], before: bool
) -> bool:
    word, token = tokens[place].group(), tokens[place]
    if not word[0].isupper() or len(word) < 2 or word.lower() in lowered:
        return False
    following = [
        tokens[i].group().lower()
        for i in (place + 1, place + 2)
        if i < len(tokens) and re.fullmatch(r"[ '’\d-]*", text[token.end() : tokens[place + 1].start()])
    ]
    if any(next_word in _vocabulary("after_eponyms") for next_word in following[:2]) or (
        following and following[0] in ("of", "and") and _is_eponym(word)
    ):
        return False
    preceding = text[max(0, token.start() - 40) : token.start()].rstrip(" (\"'")
    behind_initial = (
        re.search(rf"(?<!\w)[{_UPPER}]\.$", preceding) is not None and token.start() - tokens[place - 1].end() < 3
    )
    starts = not behind_initial and (not preceding or preceding[-1] in ".:;!?\n-•*")
    if _is_word(word):
        apart = text[tokens[place - 1].end() : token.start()] if place else ""
        behind = (before and apart in (" ", ", ")) or _BESIDE_NAME.search(
            text[max(0, token.start() - 9) : token.start()]
        )
        return _is_word_name(word) and bool(behind or _NAME_BESIDE.match(text, token.end()))
    joined = before and text[tokens[place - 1].end() : token.start()] in (" ", ", ", "-", "^", " van ", " de ")
    if _is_eponym(word):
        return (joined or behind_initial) and _is_name(word)
    acronym = word.isupper() and not shouted
    if _is_name(word):
        return not (acronym and len(word) < 4)
    if joined:
        return not acronym
    if word.isupper():  # an abbreviation, unless it is long
        return len(word) >= LONG_ABBREVIATION and "-" not in word
    if _ABBREVIATION.fullmatch(word) or _DOSE.match(text, token.end()):
        return False
    if len(word) < 3:
        return False
    if starts:
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        beside = after is not None and text[token.end() : after.start()] == " " and after.group()[0].isupper()
        known = (
            beside
            and after is not None
            and (_is_word(after.group()) or _is_eponym(after.group()) or after.group().isupper())
        )
        return bool(_NOTICE.match(text, token.end())) or (beside and not known)
    return True
