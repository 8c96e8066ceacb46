"""One DICOM data set de-identified: every element of it judged by PS3.15 table E.1-1, at any depth.

The walk takes nothing for granted: an element that the table names is treated by the table whatever its VR, one that it
does not name stays only if the dictionary knows it, and text that stays is searched for what the header says of the
patient and of staff.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary

from mmfm.errors import ReadError
from mmfm.io.deid.key import Key
from mmfm.io.deid.profile import FULL_DATES, MODIFIED_DATES, SAFE_PRIVATE, Action, Rule, rule, safe_private
from mmfm.io.deid.text import clean_text, remove_known

MAX_DEPTH = 64
"""Sequences nested deeper than this are refused."""

REMOVED = "REMOVED"
_TEXT_VRS = frozenset(("AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_FREE_TEXT_VRS = frozenset(("LO", "LT", "SH", "ST", "UC", "UT"))
_LONG_TEXT_VRS = frozenset(("LT", "ST", "UT"))
"""Of these, what is cleaned where the table does not name the attribute: a person typed it."""
_PROSE_VRS = _LONG_TEXT_VRS | {"LO"}
"""What is cleaned there inside a sequence that is cleaned: codes are of the other VRs."""
_CODE_KEYWORDS = frozenset(("CodeValue", "LongCodeValue", "URNCodeValue"))
_SCHEMES = frozenset(
    ("DCM", "SCT", "SRT", "SNM3", "LN", "UCUM", "FMA", "RADLEX", "I9", "I9C", "I10", "I10P", "ICD10CM")
)
"""Coding schemes of the world (PS3.16 table 8-1): a code of any other may be a number of this patient."""
_DATE_VRS = frozenset(("DA", "DT", "TM"))
_NUMBER_VRS = frozenset(("DS", "IS"))
_STRING_VRS = _FREE_TEXT_VRS | {"AE", "CS"}
"""Any of these for another one is text all the same, and treated so."""
_BYTES_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW"))
_ALSO_REMOVED = frozenset(
    [
        0x00080202,  # bytes whose use nobody states
        0x00189445,
        0x00280020,
        0x0008041B,  # names and keys of records
        0x0008041C,
        0x0040A074,
        0x0040A089,
        0x00100033,  # dates of birth and death in another calendar
        0x00100034,
        0x00400031,  # who issued a number
        0x00400032,
        0x00401006,  # numbers of orders
        0x00401007,
        0x00402006,
        0x00402007,
        0x0040E001,  # what an HL7 system calls the document
        0x00686300,  # a drawing as a program for a plotter
        0x00420015,  # the length of a document that is replaced
        0x04000120,  # a signature over the original
        0x04000500,  # the original attributes, encrypted for others
        0x04000520,
        0x7FE00003,  # a length and coefficients of pixels that are made anew
        0x7FE00020,
        0x7FE00030,
        0x7FE00040,
    ]
)
"""What the table does not name and no patient data should go with."""
_MAX_LENGTH = {"SH": 16, "LO": 64, "CS": 16, "AE": 16, "ST": 1024, "LT": 10240}
"""Characters that a value may have (PS3.5 6.2)."""

_DUMMIES: dict[str, Any] = {
    "AE": REMOVED,
    "AS": "000Y",
    "AT": 0,
    "CS": REMOVED,
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "FD": 0.0,
    "FL": 0.0,
    "IS": "0",
    "LO": REMOVED,
    "LT": REMOVED,
    "PN": REMOVED,
    "SH": REMOVED,
    "SL": 0,
    "SS": 0,
    "ST": REMOVED,
    "SV": 0,
    "TM": "000000",
    "UC": REMOVED,
    "UL": 0,
    "UR": "urn:removed",
    "US": 0,
    "UT": REMOVED,
    "UV": 0,
}
_EMPTY_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)

# UIDs outside the table that name a kind of thing and no instance of it.
_CLASS_UID = re.compile(r"SOPClass|TransferSyntax|CodingScheme|ContextUID|MappingResource|ContextGroup")
_VALID_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")

# Where a header states persons, numbers and places: what is searched for in text that stays. Numbers of the hardware
# and of the protocol are not among them.
_IDENTIFYING = frozenset(
    [
        "PatientID",
        "OtherPatientIDs",
        "AccessionNumber",
        "AdmissionID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientTelephoneNumbers",
        "PatientAddress",
        "MedicalRecordLocator",
        "InstitutionName",
        "InstitutionAddress",
        "ReferringPhysicianAddress",
        "ReferringPhysicianTelephoneNumbers",
        "PersonAddress",
        "PersonTelephoneNumbers",
        "RequestedProcedureID",
        "ScheduledProcedureStepID",
        "PerformedProcedureStepID",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
        "ClinicalTrialSubjectID",
        "ClinicalTrialSubjectReadingID",
        "ServiceEpisodeID",
        "InsurancePlanIdentification",
        "ResponsibleOrganization",
        "DeviceSerialNumber",
        "StudyID",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """How one object is treated."""

    key: Key
    options: frozenset[str]
    sop_class: str
    patient_id: str
    """As it is replaced; all dates of one patient move by the same days."""
    known: frozenset[str]
    """What the header states of persons, numbers and places."""
    around: Action | None = None
    """What is done to the sequence around: CLEAN cleans text and codes in its items, UID leaves none of them."""
    counts: Counter[str] = field(default_factory=Counter)
    """What was done -> to how many elements."""


def deidentify_dataset(dataset: Dataset, *, key: Key, options: frozenset[str]) -> Counter[str]:
    """De-identifies ``dataset`` in place, its file meta information apart; returns what was done to how many elements.

    Raises:
        ReadError: sequences are nested too deep.
    """
    treatment = Treatment(
        key=key,
        options=options,
        sop_class=str(dataset.get("SOPClassUID", "")),
        patient_id=key.patient_id(_patient(dataset)),
        known=frozenset(_stated(dataset, options)),
    )
    _walk(dataset, treatment, depth=0)
    return treatment.counts


def _patient(dataset: Dataset) -> str:
    """Returns what tells this patient from others: the Patient ID, else name and birth date, else the study."""
    for keywords in (("PatientID",), ("PatientName", "PatientBirthDate"), ("StudyInstanceUID",)):
        found = "|".join(_words(dataset, keyword) for keyword in keywords)
        if found.strip("|"):
            return found
    return ""


def _words(dataset: Dataset, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "").strip(" \0")
    except Exception:  # a value that cannot be read names nobody
        return ""


def _stated(dataset: Dataset, options: frozenset[str], depth: int = 0) -> Iterator[str]:
    """Yields what the header states of persons, numbers and places, at any depth, where it does not stay by an option.

    Private values are not looked at.
    """
    if depth > MAX_DEPTH:
        return
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # it will be removed
            continue
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _stated(item, options, depth + 1)
        elif element.VR == "PN" or (element.keyword in _IDENTIFYING and not _stays(element, options)):
            for value in _values(element):
                text = str(value).strip()
                if text and text != REMOVED and len(text) > 1:
                    yield text


def _stays(element: DataElement, options: frozenset[str]) -> bool:
    line = rule(element.tag)
    return line is not None and line.action(options, sop_class=None) is Action.KEEP


def _walk(dataset: Dataset, treatment: Treatment, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ReadError(
            "", expected=f"at most {MAX_DEPTH} nested sequences", found="more", fix="ask its source for a valid file"
        )
    _settle_character_set(dataset)
    safe = _safe_tags(dataset) if SAFE_PRIVATE in treatment.options else frozenset()
    for tag in list(dataset.keys()):
        if tag in safe:
            treatment.counts[_treat_safe(dataset, int(tag), treatment, depth=depth)] += 1
            continue
        done = _treat(dataset, int(tag), treatment, depth=depth)
        treatment.counts[done] += 1


def _settle_character_set(dataset: Dataset) -> None:
    """Lets a character set that is none become UTF-8: its name could say anything."""
    try:
        names = _values(dataset["SpecificCharacterSet"])
    except Exception:
        names = []
    if any(str(name).strip() not in python_encoding for name in names):
        dataset.decode()
        dataset.SpecificCharacterSet = "ISO_IR 192"


def _safe_tags(dataset: Dataset) -> frozenset[int]:
    """Returns the tags of private attributes that the standard calls safe, and of the creators that they need."""
    tags: set[int] = set()
    for tag in map(int, dataset.keys()):
        group, number = tag >> 16, tag & 0xFFFF
        creator = (group << 16) + (number >> 8)
        if group % 2 and number >= 0x1000 and (_creator(dataset, creator), group, number & 0xFF) in safe_private():
            tags |= {tag, creator}
    return frozenset(tags)


def _creator(dataset: Dataset, tag: int) -> str:
    try:
        return str(dataset[tag].value).strip() if tag in dataset else ""
    except Exception:  # what cannot be read names no maker
        return ""


def _treat_safe(dataset: Dataset, tag: int, treatment: Treatment, *, depth: int) -> str:
    """Treats a safe private attribute by its VR: its text, dates and UIDs may tell of this patient all the same."""
    if tag & 0xFFFF < 0x100:
        return "kept: private creator"
    try:
        element = dataset[tag]
        assert isinstance(element, DataElement)
        if element.VR == "SQ":
            for item in element.value:
                _walk(item, replace(treatment, around=None), depth=depth + 1)
            return "kept, its items treated"
        done = _unlisted(dataset, element, treatment)
        return "kept: safe private" if done.startswith("kept: ") else done
    except (ReadError, RecursionError):
        raise
    except Exception:  # values of untrusted files; what cannot be read cannot be judged
        if tag in dataset:
            del dataset[tag]
        return "removed: cannot be read"


def _treat(dataset: Dataset, tag: int, treatment: Treatment, *, depth: int) -> str:
    """Treats one element; returns the word under which the report counts it."""
    group, number = tag >> 16, tag & 0xFFFF
    if group % 2:
        del dataset[tag]
        return "removed: private"
    if group < 8 or number == 0 or tag == 0xFFFCFFFC:  # commands, file meta, group lengths, trailing padding
        del dataset[tag]
        return "removed: structure"
    if group >> 8 in (0x50, 0x60):  # without its data, the rest of a curve or an overlay is of no use, and has labels
        del dataset[tag]
        return "removed: overlays and curves"
    if group == 0x7FE0 and depth:  # a picture of the picture, where nobody looks
        del dataset[tag]
        return "removed: pixels in a sequence"
    if tag in _ALSO_REMOVED:
        del dataset[tag]
        return "removed: outside the table"
    line = rule(tag)
    if line is None and not dictionary_has_tag(tag):
        del dataset[tag]
        return "removed: not in the dictionary"
    top = treatment.sop_class if depth == 0 else None
    action = line.action(treatment.options, sop_class=top) if line else None
    if action is Action.REMOVE:
        del dataset[tag]
        return "removed (X)"
    try:
        element = dataset[tag]
        assert isinstance(element, DataElement)
        reference = action is Action.DUMMY and element.keyword.startswith("Referenced")  # treated, it is no dummy less
        if element.VR == "SQ" and (reference or action not in (Action.DUMMY, Action.EMPTY)):
            cleaned = Action.CLEAN in (action, treatment.around)
            refers = reference or (line is not None and line.basic_action(sop_class=top) is Action.UID)
            around = Action.UID if refers else Action.CLEAN if cleaned else None
            for item in element.value:
                _walk(item, replace(treatment, around=around), depth=depth + 1)
            return "kept, its items treated"
        if line is None:
            return _unlisted(dataset, element, treatment)
        assert action is not None
        return _listed(dataset, element, line, action, top, treatment)
    except (ReadError, RecursionError):
        raise
    except Exception:  # values of untrusted files; what cannot be read cannot be judged
        if tag in dataset:
            del dataset[tag]
        return "removed: cannot be read"


def _listed(
    dataset: Dataset, element: DataElement, line: Rule, action: Action, top: str | None, treatment: Treatment
) -> str:
    if (action is Action.KEEP and not _may_stay(element)) or (action is Action.CLEAN and not _of_its_kind(element)):
        action = line.basic_action(sop_class=top)
    if action is Action.CLEAN and element.VR in _DATE_VRS:
        if _shift(element, treatment.key.shift(treatment.patient_id)):
            return "dates shifted (C)"
        action = line.basic_action(sop_class=top)
    elif action is Action.CLEAN:
        if line.keyword == "TimezoneOffsetFromUTC" and _may_stay(element):
            return "kept (K)"
        if element.VR in _FREE_TEXT_VRS:
            _replace_text(element, lambda text: clean_text(text, treatment.known))
            return "text cleaned (C)"
        action = line.basic_action(sop_class=top)
    if action is Action.UID:
        if element.VR == "UI":
            element.value = _mapped([_uid(str(uid), treatment.key) for uid in _values(element)])
            return "UIDs replaced (U)"
        action = Action.DUMMY
    if action is Action.KEEP:
        if element.VR == "AS":
            element.value = _mapped([_age(str(value)) for value in _values(element)])
        return "kept (K)" if _without_known(element, treatment) else "kept, known words taken out"
    if action is Action.REMOVE:
        del dataset[element.tag]
        return "removed (X)"
    if line.keyword == "PatientID":
        element.value = _mapped([treatment.key.patient_id(str(value).strip(" \0")) for value in _values(element)]) or ""
        return "replaced (D)"
    if action is Action.EMPTY:
        element.value = Sequence() if element.VR == "SQ" else element.empty_value
        return "emptied (Z)"
    element.value = _dummy(element, dataset, treatment)
    return "replaced (D)"


def _of_its_kind(element: DataElement) -> bool:
    """Whether the VR in the file is that of the attribute: under another one, a name would pass for a number."""
    if element.tag.is_private:
        return element.VR not in _BYTES_VRS
    wanted = dictionary_VR(element.tag)
    return (
        element.VR in wanted  # such as "US or SS"
        or {element.VR, wanted} <= _STRING_VRS
        or {element.VR, wanted} <= _NUMBER_VRS
        or (wanted == "OW" and element.VR in ("US", "SS"))  # colour tables of older files
    )


def _may_stay(element: DataElement) -> bool:
    """Whether a value is what its VR says: a name may stand in a date, anything in an element without a VR."""
    if not _of_its_kind(element):
        return False
    if element.VR == "UI":
        return all(_VALID_UID.fullmatch(str(value)) for value in _values(element))
    if element.VR in _DATE_VRS:
        return all(_moved(str(value).strip(), element.VR, 0) is not None for value in _values(element))
    if element.VR in _NUMBER_VRS:
        return all(re.fullmatch(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?", str(value).strip()) for value in _values(element))
    if element.VR == "AS":
        return all(re.fullmatch(r"\d{3}[DWMY]", str(value).strip()) for value in _values(element))
    return element.VR != "UN" and (
        element.keyword != "TimezoneOffsetFromUTC" or re.fullmatch(r"[+-]\d{4}", str(element.value).strip()) is not None
    )


def _unlisted(dataset: Dataset, element: DataElement, treatment: Treatment) -> str:
    """Treats what the table does not name, which PS3.15 E.1.1 lets stay, by its VR."""
    if element.VR == "UN":
        del dataset[element.tag]
        return "removed: not in the dictionary"
    if not _of_its_kind(element) or (element.VR in _NUMBER_VRS and not _may_stay(element)):
        del dataset[element.tag]
        return "removed: cannot be read"
    if element.VR == "UR" and element.keyword not in _CODE_KEYWORDS:
        del dataset[element.tag]
        return "removed: address outside the table"
    if element.VR == "PN":
        element.value = element.empty_value
        return "emptied: name outside the table"
    if element.VR in _DATE_VRS:
        if MODIFIED_DATES in treatment.options and _shift(element, treatment.key.shift(treatment.patient_id)):
            return "dates shifted (C)"
        if FULL_DATES in treatment.options and _may_stay(element):
            return "kept: not in the table"
        element.value = element.empty_value
        return "emptied: date outside the table"
    if element.VR == "UI":
        return _unlisted_uid(element, treatment)
    if treatment.around is Action.UID and element.VR in _FREE_TEXT_VRS:
        del dataset[element.tag]
        return "removed: text beside a reference"
    if treatment.around is Action.CLEAN and element.keyword in _CODE_KEYWORDS:
        if _words(dataset, "CodingSchemeDesignator") not in _SCHEMES:
            element.value = REMOVED
            return "text cleaned (C)"
    elif _vrs(element) & (_PROSE_VRS if treatment.around is Action.CLEAN else _LONG_TEXT_VRS):
        _replace_text(element, lambda text: clean_text(text, treatment.known))
        return "text cleaned (C)"
    return "kept: not in the table" if _without_known(element, treatment) else "kept, known words taken out"


def _vrs(element: DataElement) -> set[str]:
    """Returns the VR in the file and that of the dictionary."""
    return {element.VR, dictionary_VR(element.tag)} if dictionary_has_tag(element.tag) else {element.VR}


def _unlisted_uid(element: DataElement, treatment: Treatment) -> str:
    uids = [str(uid) for uid in _values(element)]
    names_class = _CLASS_UID.search(dictionary_keyword(element.tag)) is not None
    wanted = [
        uid if uid in UID_dictionary or (names_class and _VALID_UID.fullmatch(uid)) else _uid(uid, treatment.key)
        for uid in uids
    ]
    if wanted == uids or ("uids" in treatment.options and _may_stay(element)):
        return "kept: not in the table"
    element.value = _mapped(wanted)
    return "UIDs replaced: outside the table"


def _uid(uid: str, key: Key) -> str:
    """Returns the UID that stands for ``uid``; those of the standard itself, such as an atlas's frame, stay."""
    return uid if uid in UID_dictionary or not uid else key.uid(uid)


def _values(element: Any) -> list[Any]:
    value = element.value
    if value is None or value == "":
        return []
    return list(value) if element.VM > 1 else [value]


def _mapped(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _replace_text(element: DataElement, change: Any) -> bool:
    """Puts ``change(text)`` in the place of each value; returns whether any is another one.

    A value that is far too long is cut first, but not at the length that it may have: half a name is not known.
    """
    before = [str(value) for value in _values(element)]
    length = _MAX_LENGTH.get(element.VR)
    after = [change(text[: 4 * length])[:length] if length else change(text) for text in before]
    if after == before:
        return False
    element.value = _mapped(after)
    return True


def _without_known(element: DataElement, treatment: Treatment) -> bool:
    """Takes out of text that stays what the header states of persons; returns whether there was nothing to take."""
    if element.VR not in _TEXT_VRS or not treatment.known:
        return True
    codes = "[NAME]", "[ID]"

    def change(text: str) -> str:
        cleaned = remove_known(text, treatment.known)
        # Brackets are no characters of a code string.
        return re.sub("|".join(map(re.escape, codes)), REMOVED, cleaned) if element.VR in ("CS", "AE") else cleaned

    return not _replace_text(element, change)


def _age(age: str) -> str:
    """Returns the age, 90 years for all above 89 (45 CFR 164.514 (b)(2)(i)(C))."""
    return "090Y" if re.fullmatch(r"\d{3}Y", age.strip()) and int(age[:3]) > 89 else age


def _shift(element: DataElement, days: int) -> bool:
    """Moves each date by ``days``; times of day stay. Returns ``False`` where a value is no date or time."""
    wanted = [_moved(str(value).strip(), element.VR, days) for value in _values(element)]
    if None in wanted:
        return False
    if wanted:
        element.value = _mapped(wanted)
    return True


def _moved(value: str, vr: str, days: int) -> str | None:
    if vr == "TM":
        return value if re.fullmatch(r"\d{2}(:?\d{2}){0,2}(\.\d{1,6})?", value) else None
    return shifted(value, days)


def shifted(value: str, days: int) -> str | None:
    """Returns a DA or DT moved by ``days`` in its own precision, ``None`` where it is no date.

    A date without its day moves as the middle of its month or year does.
    """
    found = re.fullmatch(r"(\d{4})(?:([.-]?)(\d{2})(?:\2(\d{2})(\d{2,6}(?:\.\d{1,6})?)?)?)?([+-]\d{4})?", value)
    if not found:
        return None
    year, dot, month, day, time, zone = found.groups()
    try:
        moved = date(int(year), int(month or 7), int(day or 15)) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    parts = [f"{moved.year:04}", f"{moved.month:02}" if month else "", f"{moved.day:02}" if day else ""]
    return (dot or "").join(part for part in parts if part) + (time or "") + (zone or "")


def _dummy(element: DataElement, dataset: Dataset, treatment: Treatment) -> Any:
    """Returns a value of the element's VR that says nothing (PS3.15 table E.1-1a, D)."""
    if element.VR == "SQ":
        return Sequence([_dummy_item(element.keyword)])
    if element.VR == "UI":
        return _mapped([_uid(str(uid), treatment.key) for uid in _values(element)])
    if (
        element.keyword == "EncapsulatedDocument"
        and _words(dataset, "MIMETypeOfEncapsulatedDocument") == "application/pdf"
    ):
        return _EMPTY_PDF + b"\n" * (len(_EMPTY_PDF) % 2)
    return _DUMMIES.get(element.VR, b"\0" * 8)


def _dummy_item(keyword: str) -> Dataset:
    item = Dataset()
    if keyword == "ContentSequence":
        item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", REMOVED
        item.ConceptNameCodeSequence = Sequence([_code("121106", "DCM", "Comment")])
    elif keyword == "GraphicAnnotationSequence":
        item.GraphicLayer = REMOVED
    elif keyword == "VerifyingObserverSequence":
        item.VerifyingOrganization = item.VerifyingObserverName = REMOVED
        item.VerificationDateTime, item.VerifyingObserverIdentificationCodeSequence = _DUMMIES["DT"], Sequence()
    elif keyword == "OperatorIdentificationSequence":
        item.PersonIdentificationCodeSequence = Sequence([_code(REMOVED, "99MMFM", REMOVED)])
    elif keyword == "WaveformAnnotationSequence":
        item.UnformattedTextValue = REMOVED
    elif keyword.endswith("CodeSequence"):
        return _code(REMOVED, "99MMFM", REMOVED)
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def method_code(value: str, meaning: str) -> Dataset:
    """Returns an item of De-identification Method Code Sequence (PS3.16 CID 7050)."""
    return _code(value, "DCM", meaning)
