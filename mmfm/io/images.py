"""PNG and JPEG pictures as Instances, decoded by Pillow without losing bits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from mmfm.errors import ReadError
from mmfm.io.sources import MAX_PIXEL_BYTES, Source, content_digest, content_uid
from mmfm.study import Instance, PixelHeader

# Sizes are judged here, and what is odd is told in words; Pillow's own warnings would go to standard error.
warnings.filterwarnings("ignore", module=r"PIL\.")

_GREY, _COLOUR = {"1", "L", "I;16", "LA"}, {"RGB", "RGBA", "P"}
_EXIF_ORIENTATION = 0x0112

DecodePicture = Callable[[bytes, PixelHeader], np.ndarray]
"""What ``decode_picture`` does, here or in another process."""


def read_image(path: str | Path, *, uid: str | None = None) -> Instance:
    """Reads the header of one PNG or JPEG; ``load`` decodes it later.

    Args:
        path: the picture.
        uid: its ``sop_instance_uid``; made from the content where not given, which reads the whole file.

    Returns:
        An Instance whose ``load`` gives (1, rows, columns) or (1, rows, columns, 3), uint8 or uint16. Transparent
        pixels are laid on black.

    Raises:
        ReadError: the file is absent, is neither, is damaged, or is a kind of picture that cannot be read as it looks.
    """
    source = Source(name=str(path), path=Path(path))
    with source.open() as stream:
        return read_stream(source, stream, decode_picture, uid=uid)


def picture_format(stream: BinaryIO) -> str | None:
    """Returns "PNG" or "JPEG" by the first bytes, else ``None``."""
    stream.seek(0)
    head = stream.read(8)
    stream.seek(0)
    if head == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    return "JPEG" if head.startswith(b"\xff\xd8\xff") else None


def read_stream(source: Source, stream: BinaryIO, decode: DecodePicture, *, uid: str | None = None) -> Instance:
    """Returns the Instance of the picture in ``stream``, which ``source`` can open again.

    Args:
        source: opens the picture again for its pixels.
        stream: the picture.
        decode: decodes the pixels when they are loaded, as ``decode_picture`` does.
        uid: as in ``read_image``, which says too what is raised.
    """
    try:
        header = _header(stream)
    except ReadError as error:
        raise ReadError(source.name, expected=error.expected, found=error.found, fix=error.fix) from None
    if uid is None:
        uid = content_uid("instance", content_digest(stream))
    return Instance(sop_instance_uid=uid, pixels=header, load=lambda: _load(source, header, decode))


def _header(stream: BinaryIO) -> PixelHeader:
    with _opened(stream) as image:
        colour = image.mode in _COLOUR
        return PixelHeader(
            rows=image.height,
            columns=image.width,
            samples=3 if colour else 1,
            bits_stored=_bits(image),
            photometric="RGB" if colour else "MONOCHROME2",
        )


def _opened(stream: BinaryIO) -> ImageFile.ImageFile:
    try:
        image = Image.open(stream, formats=("PNG", "JPEG"))
    except UnidentifiedImageError:
        raise _bad("damage in its header") from None
    except Image.DecompressionBombError:
        raise _bad("more pixels than a radiograph has", fix="give a smaller picture") from None
    except Exception as error:  # a parser over untrusted bytes raises many kinds
        raise _bad(_words(error)) from None
    _check_upright(image)
    size = image.width * image.height * len(image.getbands()) * 2
    if image.mode not in _GREY | _COLOUR:
        raise _bad(f"colour mode {image.mode}", fix="save it as grey or RGB")
    if size > MAX_PIXEL_BYTES:
        raise _bad(f"{image.height} x {image.width} pixels", fix="give a smaller picture")
    return image


def _check_upright(image: ImageFile.ImageFile) -> None:
    """Refuses pictures that a tag turns or mirrors: viewers heed it, and left and right would be swapped unseen."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if "exif" in image.info else 1
    except Exception:
        raise _bad("damaged EXIF data") from None
    if orientation != 1:
        shown = orientation if orientation in range(2, 9) else "that is not defined"
        raise _bad(f"EXIF orientation {shown} (turned or mirrored)", fix="save it upright without the tag")


def _bits(image: ImageFile.ImageFile) -> int:
    if image.mode == "I;16":
        return 16
    rawmode = _rawmode(image)
    if rawmode == "LA;16B":
        raise _bad("16-bit grey with transparency", fix="save it as 16-bit grey")
    return 16 if rawmode in ("RGB;16B", "RGBA;16B") else 8


def _rawmode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _load(source: Source, header: PixelHeader, decode: DecodePicture) -> np.ndarray:
    with source.open() as stream:
        content = stream.read()
    try:
        return decode(content, header)
    except ReadError as error:
        raise ReadError(source.name, expected=error.expected, found=error.found, fix=error.fix) from None


def decode_picture(content: bytes, header: PixelHeader) -> np.ndarray:
    """Returns (1, rows, columns) or (1, rows, columns, 3) of the bytes of a PNG or JPEG.

    Args:
        content: the whole file.
        header: what was read of it before.

    Raises:
        ReadError: it is damaged, or not of the size that ``header`` states.
    """
    try:
        array = _array(io.BytesIO(content), header)
    except ReadError:
        raise
    except Exception as error:  # as above
        raise _bad(_words(error)) from None
    if array.shape[:2] != (header.rows, header.columns):
        raise _bad(f"{array.shape[0]} x {array.shape[1]} pixels, other than when first read")
    return array[np.newaxis]


def _array(stream: BinaryIO, header: PixelHeader) -> np.ndarray:
    with _opened(stream) as image:
        image.load()
        _check_upright(image)  # again, as a PNG may say so behind its pixels
        if header.samples == 3 and header.bits_stored == 16:
            # Pillow keeps the high byte of 16-bit colours; unpacked as if in the other byte order, it keeps the low.
            high = np.asarray(image)
            stream.seek(0)
            with _opened(stream) as other:
                other.tile = [tile._replace(args=_rawmode(other).replace("16B", "16L")) for tile in other.tile]
                low = np.asarray(other)
            return _on_black(high.astype(np.uint16) << 8 | low, 65535)
        if image.mode == "1":
            return np.asarray(image.convert("L"))
        if image.mode == "P":
            return _on_black(np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB")), 255)
        if "transparency" in image.info and image.mode in ("L", "RGB"):
            return _on_black(np.asarray(image.convert(f"{image.mode}A")), 255)
        return _on_black(np.asarray(image), 255)


def _on_black(array: np.ndarray, opaque: int) -> np.ndarray:
    """Returns (rows, columns[, 3]) of (rows, columns[, 2 | 3 | 4]): what is transparent is black, as on a light box."""
    if array.ndim == 2 or array.shape[2] == 3:
        return array
    colour, alpha = array[..., :-1], array[..., -1:]
    if not np.all(alpha == opaque):
        colour = np.round(colour * (alpha / opaque)).astype(array.dtype)
    return np.ascontiguousarray(colour[..., 0] if colour.shape[2] == 1 else colour)


def _bad(found: str, fix: str = "save the picture again from its source") -> ReadError:
    return ReadError("", expected="a complete PNG or JPEG", found=found, fix=fix)


def _words(error: Exception) -> str:
    return str(error)[:120] or type(error).__name__
