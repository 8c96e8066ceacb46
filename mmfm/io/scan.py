"""The elements that are used, out of a header that is as most are: many times quicker than parsing all of it.

What is found are pydicom's own raw elements, which pydicom converts; and what is out of the ordinary is left to its
parser altogether, which knows how to read it or to refuse it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}

_EXPLICIT = struct.Struct("<HH2sH")
_IMPLICIT = struct.Struct("<HHL")
_LENGTH = struct.Struct("<L")
_UNDEFINED = 0xFFFFFFFF
_VRS = {vr.encode(): (str(vr), vr in EXPLICIT_VR_LENGTH_32) for vr in STANDARD_VR}
"""VR as written -> VR, and whether its length has 32 bits (PS3.5 7.1.2)."""
_CHARACTER_SET = 0x00080005
_TRANSFER_SYNTAX = BaseTag(0x00020010)


def scan(content: bytes, tags: Mapping[int, BaseTag]) -> tuple[Dataset, int, tuple[int, str | None, int]] | None:
    """Finds elements at the top level of a little endian data set.

    Args:
        content: a DICOM file from its preamble on, or its beginning.
        tags: of the elements that are wanted, Transfer Syntax UID among them.

    Returns:
        The elements, with those of the file meta information; where the element of the pixels starts; its tag, VR
        (``None`` if implicit) and stated length. ``None`` where pydicom has to look: another syntax, a VR that is not
        standard, a sequence of undefined length, no pixels within ``content``.
    """
    meta: dict[BaseTag, RawDataElement | DataElement] = {}
    elements: dict[BaseTag, RawDataElement | DataElement] = {}
    encoding: str | list[str] = default_encoding
    implicit: bool | None = None  # not known before the file meta information ends
    at, last = 132, len(content) - 12
    if content[128:132] != b"DICM":
        return None
    while at <= last:
        if implicit is None and content[at : at + 2] != b"\x02\x00":
            syntax = meta.get(_TRANSFER_SYNTAX)
            stated = syntax.value.rstrip(b"\0 ").decode("latin-1") if syntax and syntax.value else ""
            implicit = stated == ImplicitVRLittleEndian
            mistaken = implicit and content[at + 4 : at + 6] in _VRS
            if mistaken or stated in ("", DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
                return None
        start = at + 8
        if implicit:
            group, element, length = _IMPLICIT.unpack_from(content, at)
            vr = None
        else:
            group, element, code, length = _EXPLICIT.unpack_from(content, at)
            if code not in _VRS:
                return None
            vr, long = _VRS[code]
            if long:
                (length,) = _LENGTH.unpack_from(content, start)
                start += 4
        tag = group << 16 | element
        if tag in PIXEL_TAGS and implicit is not None:
            dataset = Dataset(elements)
            dataset.file_meta = FileMetaDataset(meta)
            dataset.set_original_encoding(implicit, True, encoding)
            return dataset, at, (tag, vr, length)
        end = start + length
        if length == _UNDEFINED:
            return None
        if tag in tags:
            value: Any = content[start:end] if length else empty_value_for_VR(vr, raw=True)
            raw = RawDataElement(tags[tag], vr, length, value, start, bool(implicit), True)
            (meta if implicit is None else elements)[raw.tag] = raw
        elif tag == _CHARACTER_SET:
            encoding = convert_encodings(content[start:end].decode("latin-1").rstrip(" \0").split("\\"))
        at = end
    return None
