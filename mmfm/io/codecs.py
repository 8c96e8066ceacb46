"""imagecodecs as a decoding plugin of pydicom, for pictures of one sample: quick, and it leaves the interpreter free.

So several frames decode at once in threads. It is also the one decoder of 12-bit JPEG under a permissive licence.
Colour is left to the other plugins, which know the colour transforms of each syntax.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID

NAME = "imagecodecs"
_CODECS = {
    "1.2.840.10008.1.2.4.50": "jpeg8",
    "1.2.840.10008.1.2.4.51": "jpeg8",
    "1.2.840.10008.1.2.4.57": "jpegsof3",
    "1.2.840.10008.1.2.4.70": "jpegsof3",
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

DECODER_DEPENDENCIES = {UID(syntax): ("imagecodecs>=2025.11",) for syntax in _CODECS}


def is_available(syntax: str) -> bool:
    """Returns whether the plugin decodes the transfer syntax; pydicom asks."""
    return syntax in _CODECS


def decode_frame(frame: bytes, runner: Any) -> bytes:
    """Decodes one compressed frame of one sample, as pydicom's ``DecodeRunner`` describes it.

    Raises:
        ValueError: the frame holds another number of values than the header says.
    """
    import imagecodecs

    codec = _CODECS[runner.transfer_syntax]
    if codec == "dicomrle":
        if runner.bits_allocated % 8:
            raise ValueError(f"run lengths of {runner.bits_allocated} bits allocated")
        content = bytes(imagecodecs.dicomrle_decode(frame, dtype=f"<u{runner.bits_allocated // 8}"))
    else:
        array = getattr(imagecodecs, f"{codec}_decode")(frame)
        runner.set_option("bits_allocated", 8 * array.dtype.itemsize)
        content = array.tobytes()
    if 8 * len(content) != runner.rows * runner.columns * runner.bits_allocated:
        raise ValueError(f"{len(content)} bytes for {runner.rows} x {runner.columns}")
    return content


@cache
def decoder_of(syntax: str) -> Decoder | None:
    """Returns a decoder with this plugin alone, apart from pydicom's own; ``None`` for a syntax that it lacks."""
    if syntax not in _CODECS:
        return None
    decoder = Decoder(UID(syntax))
    decoder.add_plugin(NAME, (__name__, decode_frame.__name__))
    return decoder
