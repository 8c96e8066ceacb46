"""Compressed frames without what is no pixel: comments, metadata of programs, thumbnails, bytes behind the end.

Only what a decoder needs is copied, by the markers of ITU-T T.81, T.87, T.800 and T.814. RLE frames have no markers:
their runs are counted up to the last pixel.
"""

from __future__ import annotations

import re
import struct
from itertools import accumulate

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, RLELossless

from mmfm.errors import ReadError

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_MARKER = re.compile(rb"\xff+[\x80-\xcf\xd8-\xfe]")
"""What ends a scan: neither a stuffed byte (00; below 80 in JPEG-LS) nor a restart (D0 to D7)."""
_JPEG = frozenset([*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, 0xF7, 0xF8]) - {0xC8}
"""Tables, frame and scan headers, the number of lines; F7 and F8 are of JPEG-LS, C8 is of nothing."""
_JPEG_2000 = frozenset([0x50, 0x51, 0x52, 0x53, 0x59, 0x5C, 0x5D, 0x5E, 0x5F, 0x60, 0x61])
"""CAP SIZ COD COC CPF QCD QCC RGN POC PPM PPT; TLM, PLM, PLT, PRF and CRG are optional."""
_JP2 = b"\0\0\0\x0cjP  "


def strip_pixels(dataset: Dataset) -> None:
    """Makes the pixel element of ``dataset`` anew from its pixels alone.

    Raises:
        ReadError: a compressed frame is damaged.
    """
    present = [keyword for keyword in PIXEL_KEYWORDS if dataset.get(keyword)]
    names = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    tables = [dataset.pop(name).value or b"" if name in dataset else b"" for name in names]
    if not present:
        return
    frames = int(dataset.get("NumberOfFrames") or 1)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if not syntax.is_encapsulated:
        for keyword in present:
            value = dataset[keyword].value
            length = (_bits(dataset, keyword) * frames + 7) // 8
            if not syntax.is_little_endian:  # the last pixel of an odd number may stand behind the byte that fills up
                length += length % 2
            dataset[keyword].value = value[:length] + b"\0" * (min(length, len(value)) % 2)
        return
    if present != ["PixelData"]:
        raise _damaged()
    offsets = tuple(np.frombuffer(table, "<u8").tolist() for table in tables) if all(tables) else None
    whole = generate_frames(dataset.PixelData, number_of_frames=frames, extended_offsets=offsets)
    if syntax == RLELossless:
        stripped = [bare_rle(frame, int(dataset.Rows) * int(dataset.Columns)) for frame in whole]
    else:
        stripped = [bare_frame(frame) for frame in whole]
    dataset.PixelData = encapsulate(stripped)


def _bits(dataset: Dataset, keyword: str) -> int:
    """Returns how many bits one frame that is not compressed has."""
    allocated = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(keyword) or int(dataset.BitsAllocated)
    values = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
    if str(dataset.get("PhotometricInterpretation")) == "YBR_FULL_422":
        values = values * 2 // 3
    return values * allocated


def bare_rle(frame: bytes, pixels: int) -> bytes:
    """Returns an RLE frame (PS3.5 G) of segments that end where each has made ``pixels`` bytes."""
    if len(frame) < 64:
        raise _damaged()
    count, *starts = struct.unpack_from("<16I", frame)
    if not 1 <= count <= 15:
        raise _damaged()
    segments = [_runs(frame, start, pixels) for start in starts[:count]]
    places = [64, *(64 + end for end in accumulate(map(len, segments)))][:count]
    return struct.pack("<16I", count, *places, *[0] * (15 - count)) + b"".join(segments)


def _runs(frame: bytes, start: int, pixels: int) -> bytes:
    kept, at, made = bytearray(), start, 0
    while made < pixels:
        if at + 1 >= len(frame):
            raise _damaged()
        code, count = frame[at], 0
        if code < 128:  # that many bytes and one more follow
            count = min(code + 1, pixels - made)
            kept += bytes([count - 1]) + frame[at + 1 : at + 1 + count]
            at += 2 + code
        elif code > 128:  # the byte that follows is repeated; 128 stands alone, and for nothing
            count = min(257 - code, pixels - made)
            kept += bytes([(257 - count) % 256, frame[at + 1]])  # once is a literal of one, whose code is 0
            at += 2
        else:
            at += 1
        made += count
    if at > len(frame):
        raise _damaged()
    return bytes(kept) + b"\0" * (len(kept) % 2)


def bare_frame(frame: bytes) -> bytes:
    """Returns a frame of JPEG, JPEG-LS, JPEG 2000 or HTJ2K with nothing in it but its pixels.

    Raises:
        ReadError: it is none of these, or damaged.
    """
    if frame.startswith(_JP2):  # DICOM wants the codestream alone (PS3.5 A.4.4)
        frame = _boxed(frame)
    if frame[:2] == b"\xff\xd8":
        return _jpeg(frame)
    if frame[:2] == b"\xff\x4f":
        return _jpeg_2000(frame)
    raise _damaged()


def _jpeg(frame: bytes) -> bytes:
    kept, at = bytearray(frame[:2]), 2
    while at + 2 <= len(frame):
        code = frame[at + 1]
        if frame[at] != 0xFF or code == 0xFF:  # what stands between segments is of no use
            at += 1
        elif code == 0xD9:
            break
        elif code < 0xC0 or 0xD0 <= code <= 0xD8:
            at += 2
        else:
            end = _segment_end(frame, at)
            if code in _JPEG and (code != 0xDC or end - at == 6):
                kept += frame[at:end]
            else:
                kept += _application(code, frame[at + 4 : end])
            if code == 0xDA:
                marker = _MARKER.search(frame, end)
                scan = marker.start() if marker else len(frame)
                kept += frame[end:scan]
                end = scan
            at = end
    return bytes(kept) + b"\xff\xd9"


def _application(code: int, content: bytes) -> bytes:
    """Returns the segments that tell a decoder about colours, at the length that the standards give them."""
    if code == 0xE0 and content.startswith(b"JFIF\0"):
        content = content[:12] + b"\0\0"  # no thumbnail
    elif code == 0xE8 and content.startswith(b"mrfx"):
        content = content[:5]
    elif code == 0xEE and content.startswith(b"Adobe"):
        content = content[:12]
    else:
        return b""
    return bytes([0xFF, code]) + (len(content) + 2).to_bytes(2) + content


def _jpeg_2000(frame: bytes) -> bytes:
    kept, at = _headers(frame, 2, until=0x90)
    whole = bytearray(frame[:2] + kept)
    while frame[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(frame[at + 6 : at + 10])
        end = at + length if length else frame.rfind(b"\xff\xd9")  # 0: the last one, up to the end of the codestream
        header, data = _headers(frame, at + 12, until=0x93)
        if not data < end <= len(frame):
            raise _damaged()
        size = 12 + len(header) + end - data
        whole += frame[at : at + 6] + size.to_bytes(4) + frame[at + 10 : at + 12] + header + frame[data:end]
        at = end
    return bytes(whole) + b"\xff\xd9"


def _headers(frame: bytes, at: int, *, until: int) -> tuple[bytes, int]:
    """Returns the segments that a decoder needs, and where the marker ``until`` stands."""
    kept = b""
    while frame[at : at + 2] != bytes([0xFF, until]):
        end = _segment_end(frame, at)
        if frame[at + 1] in _JPEG_2000:
            kept += frame[at:end]
        at = end
    return kept, at


def _segment_end(frame: bytes, at: int) -> int:
    end = at + 2 + int.from_bytes(frame[at + 2 : at + 4])
    if frame[at : at + 1] != b"\xff" or not at + 4 <= end <= len(frame):
        raise _damaged()
    return end


def _boxed(frame: bytes) -> bytes:
    """Returns the codestream in the boxes of a JP2 file (ITU-T T.800 I.4)."""
    at = 0
    while at + 8 <= len(frame):
        length, kind, start = int.from_bytes(frame[at : at + 4]), frame[at + 4 : at + 8], 8
        if length == 1:
            length, start = int.from_bytes(frame[at + 8 : at + 16]), 16
        end = at + length if length else len(frame)
        if kind == b"jp2c":
            return frame[at + start : end]
        if end <= at:
            break
        at = end
    raise _damaged()


def _damaged() -> ReadError:
    return ReadError("", expected="compressed frames that are whole", found="damage", fix="copy or export it again")
