"""How deep the sequences of a DICOM file are nested and how many elements it has, before a parser recurses into them.

Item tags are counted first: each level needs one, so that a header with few of them (nearly every header) costs a
search for four bytes. Only others are walked, without recursion and without keeping a value.
"""

from __future__ import annotations

import io
from struct import Struct
from typing import BinaryIO

from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from mmfm.errors import ReadError
from mmfm.io.elements import refusal

MAX_DEPTH = 64
"""Sequences inside each other; one at the top of the data set is the first."""
MAX_ELEMENTS = 1_000_000
"""Elements and items before the pixels. A few deflated megabytes can hold a hundred times as many: minutes of work."""
_SMALL = 1 << 20
_WINDOW = 1 << 16
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_VRS = frozenset(bytes((first, second)) for first in range(65, 91) for second in range(65, 91))
"""Two capitals, as every VR has them, those that are not known yet too."""
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_SEQUENCE, _FRAGMENTS, _DATA_SET = range(3)


def check_nesting(stream: BinaryIO) -> None:
    """Walks all that stands before the pixels, in any of the four encodings; what is malformed is left to the parser.

    Args:
        stream: a file that is not deflated.

    Raises:
        ReadError: sequences are nested deeper than ``MAX_DEPTH``, or there are more than ``MAX_ELEMENTS``.
    """
    if isinstance(stream, io.BytesIO) and stream.getbuffer().nbytes <= _SMALL:
        content = stream.getvalue()
        if sum(map(content.count, _ITEM_TAGS)) <= MAX_DEPTH:
            return
    _walk(stream)


def too_deep() -> ReadError:
    """Returns the refusal of a file whose sequences are nested deeper than ``MAX_DEPTH``."""
    return refusal(f"sequences nested at most {MAX_DEPTH} deep", f"sequences nested deeper than {MAX_DEPTH}")


def _walk(stream: BinaryIO) -> None:
    size = stream.seek(0, io.SEEK_END)
    at, implicit, little = _data_set(stream)
    tag, long_length = Struct("<HHL" if little else ">HHL"), Struct("<L" if little else ">L")
    levels = [(size, _DATA_SET, implicit)]  # where each ends at the latest, what it holds, whether VRs are left out
    window, start = b"", 0
    depth = elements = 0
    while levels:
        end, kind, implicit = levels[-1]
        if at >= end:
            levels.pop()
            depth -= kind == _SEQUENCE
            continue
        if not start <= at <= start + len(window) - 18:  # a header, and the item or the element that may follow it
            stream.seek(at)
            window, start = stream.read(_WINDOW), at
        here = at - start
        if len(window) < here + 8:
            return
        elements += 1
        if elements > MAX_ELEMENTS:
            raise refusal(f"at most {MAX_ELEMENTS} elements before the pixels", "more")
        group, element, length = tag.unpack_from(window, here)
        at += 8
        if group == 0xFFFE:
            if element != 0xE000:  # the end of an item or of a sequence
                levels.pop()
                depth -= kind == _SEQUENCE
            elif kind == _SEQUENCE:
                vr = window[here + 12 : here + 14]
                levels.append((_end(at, length, end), _DATA_SET, implicit or vr not in _VRS))
            elif kind == _FRAGMENTS and length != _UNDEFINED:
                at += length
            else:
                return
            continue
        vr = b"UN" if implicit else window[here + 4 : here + 6]
        if vr in _LONG_VRS and not implicit:
            if len(window) < here + 12:
                return
            (length,) = long_length.unpack_from(window, here + 8)
            at += 4
        elif not implicit and vr in _VRS:
            length = (length & 0xFFFF) if not little else length >> 16
        else:
            vr = b"UN"
        if group == 0x7FE0 and element in (0x0008, 0x0009, 0x0010) and len(levels) == 1:
            return
        # Without a VR, a value that starts with an item is a sequence; so is UN of undefined length (PS3.5 6.2.2).
        item = window[at - start : at - start + 4] in _ITEM_TAGS
        if vr == b"SQ" or (vr == b"UN" and (item or length == _UNDEFINED)):
            depth += 1
            if depth > MAX_DEPTH:
                raise too_deep()
            levels.append((_end(at, length, end), _SEQUENCE, implicit))
        elif length == _UNDEFINED:
            levels.append((end, _FRAGMENTS, implicit))
        else:
            at += length


def _end(at: int, length: int, limit: int) -> int:
    return limit if length == _UNDEFINED else min(at + length, limit)


def _data_set(stream: BinaryIO) -> tuple[int, bool, bool]:
    """Returns where the data set starts, whether it leaves out VRs, and whether it is little endian."""
    stream.seek(0)
    at = 132 if stream.read(132)[128:] == b"DICM" else 0
    while True:
        stream.seek(at)
        head = stream.read(12)
        if head[:2] != b"\x02\x00":  # file meta information: explicit, little endian
            return at, head[4:6] not in _VRS, head[:1] != b"\0"  # the first group is a small number
        long = head[4:6] in _LONG_VRS
        at += 12 + int.from_bytes(head[8:12], "little") if long else 8 + int.from_bytes(head[6:8], "little")
