"""imagecodecs as a decoding plugin of pydicom: quick, and it leaves the interpreter free.

So several frames decode at once in threads. It is also the one decoder of 12-bit and of lossless JPEG that is under a
permissive licence and survives damaged data. Most colour is left to the other plugins, which know the colour transforms
of each syntax.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID

NAME = "imagecodecs"
_CODECS = {
    "1.2.840.10008.1.2.4.50": "jpeg8",
    "1.2.840.10008.1.2.4.51": "jpeg8",
    "1.2.840.10008.1.2.4.57": "jpeg8",
    "1.2.840.10008.1.2.4.70": "jpeg8",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.81": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2k",
    "1.2.840.10008.1.2.4.91": "jpeg2k",
    "1.2.840.10008.1.2.4.201": "htj2k",
    "1.2.840.10008.1.2.4.202": "htj2k",
    "1.2.840.10008.1.2.4.203": "htj2k",
    "1.2.840.10008.1.2.5": "dicomrle",
}
"""Transfer syntax (PS3.5 section 10) -> codec."""

ALONE = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5")
"""Syntaxes that no other plugin shall try: they read on in what is damaged. Their colours have no transform but that of
Photometric Interpretation, which pydicom undoes."""
COLOUR_LAST = ("1.2.840.10008.1.2.4.50",)
"""Where Pillow decides first: it heeds what a JPEG file says of its colours, and fails where that is nothing."""
_NEED_AN_END = ("jpeg8", "jpegls", "htj2k")
"""Codecs that would fill up what is missing of a frame that is cut short, or wait for it without end."""

DECODER_DEPENDENCIES = {UID(syntax): ("imagecodecs>=2025.11",) for syntax in _CODECS}


def is_available(syntax: str) -> bool:
    """Returns whether the plugin decodes the transfer syntax; pydicom asks."""
    return syntax in _CODECS


def decode_frame(frame: bytes, runner: Any) -> bytes:
    """Decodes one compressed frame, as pydicom's ``DecodeRunner`` describes it; colours stay as they are coded.

    Raises:
        ValueError: the frame holds another number of values than the header says, or is cut short.
    """
    import imagecodecs

    codec = _CODECS[runner.transfer_syntax]
    if codec == "dicomrle":
        _check_run_lengths(frame, runner.samples_per_pixel, runner.bits_allocated)
        content = bytes(imagecodecs.dicomrle_decode(frame, dtype=f"<u{runner.bits_allocated // 8}"))
        runner.set_option("planar_configuration", 1)
    else:
        colours = {"colorspace": "RGB", "outcolorspace": "RGB"} if runner.samples_per_pixel == 3 else {}
        array = getattr(imagecodecs, f"{codec}_decode")(frame, **colours)
        runner.set_option("bits_allocated", 8 * array.dtype.itemsize)
        content = array.tobytes()
    if 8 * len(content) != runner.rows * runner.columns * runner.samples_per_pixel * runner.bits_allocated:
        raise ValueError(f"{len(content)} bytes for {runner.rows} x {runner.columns}")
    return content


@cache
def decoder_of(syntax: str) -> Decoder | None:
    """Returns a decoder with this plugin alone, apart from pydicom's own; ``None`` for a syntax that it lacks."""
    if syntax not in _CODECS or find_spec(NAME) is None:
        return None
    decoder = Decoder(UID(syntax))
    decoder.add_plugin(NAME, (__name__, decode_frame.__name__))
    return decoder


def is_cut(frame: bytes, syntax: str) -> bool:
    """Returns whether a frame lacks the marker that ends it, in syntaxes whose decoders do not notice."""
    return _CODECS.get(syntax) in _NEED_AN_END and b"\xff\xd9" not in frame[-16:]  # padding may follow


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Returns (rows, columns) by the SIZ marker of JPEG 2000 or the SOF marker of JPEG and JPEG-LS, if there is one."""
    at = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # a JP2 container may precede the codestream
    if at >= 0 and len(frame) >= at + 24:
        width, height, left, top = struct.unpack(">4L", frame[at + 8 : at + 24])
        return height - top, width - left
    if not frame.startswith(b"\xff\xd8"):
        return None
    for marker, segment in _jpeg_segments(frame):
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns = struct.unpack(">2H", segment[1:5]) if len(segment) >= 5 else (0, 0)
            return rows, columns
    return None


def _jpeg_segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        length = int.from_bytes(frame[at + 2 : at + 4], "big")
        yield marker, frame[at + 4 : at + 2 + length]
        if marker == 0xDA:  # the entropy-coded data of a scan follows
            return
        at += 2 + max(2, length)


def _check_run_lengths(frame: bytes, samples: int, bits_allocated: int) -> None:
    """Raises ValueError where the RLE header (PS3.5 G.5) points out of the frame: the codec would read there."""
    if bits_allocated % 8 or len(frame) < 64:
        raise ValueError(f"{len(frame)} bytes of run lengths, {bits_allocated} bits allocated")
    count, *offsets = struct.unpack("<16L", frame[:64])
    used = offsets[:count]
    if count != samples * bits_allocated // 8 or used != sorted(used) or used[0] < 64 or used[-1] > len(frame):
        raise ValueError(f"{count} segments of run lengths in {len(frame)} bytes")
