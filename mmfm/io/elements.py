"""The values of untrusted elements: what cannot be read is not there.

Texts are printable and short, numbers are finite, and nothing that pydicom raises comes through.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from mmfm.errors import ReadError

MAX_MM = 1e9
"""Larger numbers are no place in a patient, and their differences might overflow."""
_PLAIN_VRS = {"AS", "CS", "DA", "DS", "IS", "UI"}
"""Texts in the default repertoire, whatever Specific Character Set says (PS3.5 6.1.2.3)."""
_UNSTATED_VRS = {None, "UN"}


@cache
def tag_of(keyword: str) -> BaseTag:
    """Returns the tag of a keyword of PS3.6."""
    return Tag(keyword)


@cache
def _vr(tag: BaseTag) -> str:
    return dictionary_VR(tag)


def get_value(dataset: Dataset, keyword: str) -> Any:
    """Returns a value as pydicom gives it, but numbers that are written as text (DS, IS) as text."""
    tag = tag_of(keyword)
    try:
        if tag not in dataset.keys():  # noqa: SIM118 - `in dataset` makes a tag of the tag each time
            return None
        raw: Any = dataset.get_item(tag)
        if isinstance(raw, RawDataElement):
            vr = raw.VR if raw.VR not in _UNSTATED_VRS else _vr(tag)
            if vr in _PLAIN_VRS:
                values = (raw.value or b"").decode("latin-1").rstrip(" \0").split("\\")
                return values if len(values) > 1 else values[0]
            if vr == "US" and raw.is_little_endian and raw.length == 2:
                return int.from_bytes(raw.value or b"", "little")
        return dataset[tag].value
    except Exception:  # pydicom converts on access and raises many kinds of error on malformed values
        return None


def get_uid(dataset: Dataset, keyword: str) -> str | None:
    """Returns a UID as it is written, without "#", behind which reading numbers the parts of a series."""
    value = get_value(dataset, keyword)
    return as_text(str(value[0] if isinstance(value, (list, tuple)) and value else value or "").replace("#", ""))


def get_number(dataset: Dataset, keyword: str) -> int | None:
    """Returns the one whole number of at most 32 bits of an element, however it is written."""
    number = as_float(get_value(dataset, keyword))
    return int(number) if number is not None and number.is_integer() and abs(number) < 2**32 else None


def as_text(value: Any) -> str | None:
    """Returns one line of printable text of at most 200 characters; control and direction marks are left out."""
    if value is None:
        return None
    text = str(value)
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text.strip()[:200] or None


def as_capitals(value: Any) -> str | None:
    """Returns a code, which some write in small letters."""
    text = as_text(value)
    return text.upper() if text else None


def as_texts(value: Any) -> list[str]:
    """Returns the printable texts of one value or of several; empty ones are left out."""
    values = [value] if isinstance(value, str) or value is None else list(value)
    return [text for text in map(as_text, values) if text]


def as_float(value: Any) -> float | None:
    """Returns a finite number, in the digits of PS3.5 6.2 alone: Python would take "1_0" and those of other scripts."""
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_floats(value: Any) -> tuple[float, ...]:
    """Returns the numbers of ``value``, none where one of them cannot be read: which it was could not be told."""
    if value is None or isinstance(value, bytes):
        return ()
    items = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    while items and items[-1] == "":  # a backslash with nothing behind it
        items.pop()
    numbers = [as_float(item) for item in items]
    return tuple(number for number in numbers if number is not None) if None not in numbers else ()


def as_floats_of(value: Any, count: int) -> Any:
    """Returns a place, direction or length of ``count`` numbers."""
    numbers = as_floats(value)
    return numbers if len(numbers) == count and max(map(abs, numbers)) <= MAX_MM else None


def refusal(expected: str, found: str) -> ReadError:
    """Returns the error for a file that its source has to mend; who knows its name adds it."""
    return ReadError("", expected=expected, found=found, fix="ask its source for a valid file")
