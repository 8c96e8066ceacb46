"""The value of Pixel Data -> stored values, through pydicom and its decoding plugins.

Everything that arrives here is untrusted: what each compressed frame claims is compared with the header before it is
decoded, and whatever goes wrong inside a decoder becomes one ReadError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID, ExplicitVRBigEndian, JPEGLSTransferSyntaxes, RLELossless

from mmfm.errors import ReadError
from mmfm.io import codecs
from mmfm.io.elements import refusal
from mmfm.study import PixelHeader

_PLUGINS = ("pylibjpeg", "pyjpegls", "pydicom", "pillow")
"""Of pydicom, in the order to be tried."""

_BLOCK = 1 << 20
"""Indices of a palette that are looked up at a time."""
_ALL_PLUGINS = "Unable to decode as exceptions were raised by all available plugins: "


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How the frames of one file are coded: what the header says besides its PixelHeader."""

    syntax: str
    """Transfer Syntax UID."""
    keyword: str
    """PixelData, FloatPixelData or DoubleFloatPixelData."""
    vr: str
    bits_allocated: int
    bits_stored: int
    """Of the stored values, which are indices where there is a palette."""
    signed: bool
    planar: int
    """Planar Configuration (0028,0006)."""
    offsets: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """Extended Offset Table (7FE0,0001) and its lengths."""

    def lists_of_offsets(self) -> tuple[list[int], list[int]] | None:
        """Returns ``offsets`` as pydicom wants them."""
        return None if self.offsets is None else (list(self.offsets[0]), list(self.offsets[1]))

    @property
    def is_plain(self) -> bool:
        """Whether values of one sample stand in the file as numpy reads them."""
        transfer = UID(self.syntax)
        return not transfer.is_encapsulated and transfer.is_little_endian and self.bits_allocated in (8, 16, 32)


Decode = Callable[[bytes, PixelHeader, Coding], np.ndarray]
"""What ``decode`` does, here or in another process."""


def can_decode(syntax: str) -> bool:
    """Returns whether an installed decoder knows the transfer syntax."""
    return bool(decoders_of(syntax, samples=3) or decoders_of(syntax, samples=1))


def decoders_of(syntax: str, *, samples: int) -> tuple[str, ...]:
    """Returns the names of the installed decoders of a transfer syntax, in the order in which they are tried.

    Args:
        syntax: its UID.
        samples: 1 for grey and palette, 3 for colour.
    """
    return tuple(plugin or "pydicom" for _, plugin in _decoders(syntax, samples=samples))


def decode(content: bytes, header: PixelHeader, coding: Coding) -> np.ndarray:
    """Decodes all frames: (frames, rows, columns) stored values or indices, or (frames, rows, columns, 3) RGB.

    Args:
        content: the value of Pixel Data; of an encapsulated one at least up to the Sequence Delimitation Item.
        header: what the file says of its pixels.
        coding: how they are coded.

    Raises:
        ReadError: the pixels are truncated, damaged, or coded in a way that no installed decoder knows.
    """
    samples = 1 if header.photometric == "PALETTE COLOR" else header.samples
    shape = (header.frames, header.rows, header.columns) + ((3,) if samples == 3 else ())
    try:
        if samples == 1 and coding.is_plain:
            array = _plain(content, shape, coding)
        else:
            array = _decoded(content, header, coding, samples)
        if array.size != math.prod(shape):
            raise _bad(f"{array.size} values for {' x '.join(map(str, shape))}")
        return array.reshape(shape)
    except ReadError:
        raise
    except Exception as error:  # decoders raise many kinds of error on damaged data
        raise _bad(_words(error)) from None


def select(content: bytes, header: PixelHeader, coding: Coding, frames: Sequence[int]) -> tuple[bytes, Coding]:
    """Returns the value of an encapsulated Pixel Data with some of its frames alone, and how they are coded.

    Args:
        content: as in ``decode``.
        header: of all frames.
        coding: of all frames.
        frames: which, from 0.

    Raises:
        ReadError: there are not as many frames as ``header`` says, or the items are malformed.
    """
    try:
        found = list(
            generate_frames(content, number_of_frames=header.frames, extended_offsets=coding.lists_of_offsets())
        )
        if len(found) < header.frames:
            raise _bad(f"{len(found)} of {header.frames} frames")
        return encapsulate([found[index] for index in frames], has_bot=False), replace(coding, offsets=None)
    except ReadError:
        raise
    except Exception as error:
        raise _bad(_words(error)) from None


@dataclass(frozen=True, kw_only=True)
class Palette:
    """What indices of PALETTE COLOR stand for (PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6)."""

    first: int
    """Index of the first entry."""
    entries: np.ndarray
    """(entries, 3) RGB, uint8 or uint16: the range that they are to fill, whatever the descriptor says."""


def read_palette(dataset: Dataset, *, signed: bool) -> Palette:
    """Returns the palette of ``dataset``.

    Args:
        dataset: with the elements of the palette, of which nothing is trusted.
        signed: whether indices have a sign.

    Raises:
        ReadError: it does not hold what it says.
    """
    try:
        if "SegmentedRedPaletteColorLookupTableData" in dataset:
            return _segmented_palette(dataset)
        count, first, bits = (int(value) for value in dataset.RedPaletteColorLookupTableDescriptor)
        tables = [_channel(dataset, colour, count % 65536 or 65536) for colour in ("Red", "Green", "Blue")]
    except ReadError:
        raise
    except Exception:  # elements are converted when they are asked for
        raise _bad_palette() from None
    if bits not in (8, 16) or len({table.dtype for table in tables}) > 1:
        raise _bad_palette()
    entries = np.stack(tables, axis=-1)
    if entries.dtype.itemsize == 2 and bits == 8 and entries.max() < 256:  # bytes, each in a word of its own
        entries = entries.astype(np.uint8)
    if not -32768 <= first <= 65535:
        raise _bad_palette()
    if signed and first >= 32768:  # "US or SS"
        first -= 65536
    return Palette(first=first, entries=entries)


def with_palette(palette: Palette, array: np.ndarray) -> np.ndarray:
    """Returns (..., 3) RGB of palette indices; an index beyond the ends takes the end (PS3.3 C.7.6.3.1.5)."""
    shown = np.empty((array.size, 3), palette.entries.dtype)
    indices = array.reshape(-1)
    for start in range(0, array.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        shown[part] = palette.entries[
            np.clip(indices[part].astype(np.int64) - palette.first, 0, len(palette.entries) - 1)
        ]
    return shown.reshape(*array.shape, 3)


def _channel(dataset: Dataset, colour: str, count: int) -> np.ndarray:
    """Returns the entries of one colour, in the bytes that each has."""
    element = dataset[f"{colour}PaletteColorLookupTableData"]
    data, little = element.value, dataset.original_encoding[1]
    table: np.ndarray
    if not isinstance(data, bytes):  # VR US
        table = np.atleast_1d(np.asarray(data, np.int64)).astype(np.uint16)[:count]
    elif len(data) >= 2 * count:
        table = np.frombuffer(data, "<u2" if little else ">u2", count).astype(np.uint16)
    else:
        if element.VR == "OW" and not little:  # two bytes in a word, which is the other way round
            data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
        table = np.frombuffer(data, np.uint8)[:count]
    if len(table) < count:
        raise _bad(f"{len(table)} of {count} entries in the palette")
    return table


def _segmented_palette(dataset: Dataset) -> Palette:
    _check_palette_segments(dataset)
    count, first, bits = (int(value) for value in dataset.RedPaletteColorLookupTableDescriptor)
    if bits == 8 and first + (count % 65536 or 65536) > 256:  # pydicom keeps indices in the type of the entries
        raise _bad("a segmented palette of 8 bits with indices above 255")
    indices = np.arange(256, dtype=np.uint16) if bits == 8 else np.arange(65536, dtype=np.uint16)
    return Palette(first=0, entries=apply_color_lut(indices, dataset)[..., :3])


def _plain(content: bytes, shape: tuple[int, ...], coding: Coding) -> np.ndarray:
    """Returns values that are not compressed, those of fewer bits than allocated cleared of what else stands there."""
    kind = "f" if coding.keyword != "PixelData" else "i" if coding.signed else "u"
    dtype = np.dtype(f"<{kind}{coding.bits_allocated // 8}")
    if len(content) < math.prod(shape) * dtype.itemsize:
        raise _bad(f"{len(content)} of {math.prod(shape) * dtype.itemsize} bytes")
    frame = math.prod(shape[1:]) * dtype.itemsize
    if len(content) - math.prod(shape) * dtype.itemsize >= max(2, frame):  # one byte makes an odd length even
        raise _bad(f"{len(content) // frame} frames for {shape[0]}")
    array = np.frombuffer(content, dtype, math.prod(shape)).reshape(shape)
    unused = coding.bits_allocated - coding.bits_stored
    return array << unused >> unused if unused and kind != "f" else array


def _decoders(syntax: str, *, samples: int) -> list[tuple[Decoder, str]]:
    """Returns decoders of a transfer syntax with the plugin to use, in the order to be tried."""
    quick = codecs.decoder_of(syntax)
    ours = [(quick, codecs.NAME)] if quick else []
    try:
        decoder = get_decoder(UID(syntax))
    except NotImplementedError:
        return ours
    plugins = [""] if decoder.is_native else [plugin for plugin in _PLUGINS if plugin in decoder.available_plugins]
    others = [(decoder, plugin) for plugin in plugins]
    if ours and syntax in codecs.ALONE:
        return ours
    if samples == 1:
        return ours + others
    return others + ours if syntax in codecs.COLOUR_LAST else others


def _decoded(content: bytes, header: PixelHeader, coding: Coding, samples: int) -> np.ndarray:
    options: dict[str, Any] = {
        "rows": header.rows,
        "columns": header.columns,
        "number_of_frames": header.frames,
        "samples_per_pixel": samples,
        "photometric_interpretation": header.photometric,
        "bits_allocated": coding.bits_allocated,
        "bits_stored": coding.bits_stored,
        "pixel_representation": int(coding.signed),
        "planar_configuration": coding.planar,
        "pixel_keyword": coding.keyword,
        "pixel_vr": coding.vr,
    }
    if coding.syntax == ExplicitVRBigEndian and coding.bits_allocated == 1 and coding.vr == "OW":
        # pydicom takes bits out of bytes, which in words are the other way round.
        content = np.frombuffer(content, ">u2", len(content) // 2).astype("<u2").tobytes()
    if UID(coding.syntax).is_encapsulated:
        options["extended_offsets"] = coding.lists_of_offsets()
        if coding.syntax not in (RLELossless, *JPEGLSTransferSyntaxes):
            options["planar_configuration"] = 0  # of other codestreams the header's says nothing (PS3.5 8.2)
        _check_codestreams(content, header, coding)
    first_error: BaseException | None = None
    for decoder, plugin in _decoders(coding.syntax, samples=samples):
        try:
            array, properties = decoder.as_array(content, decoding_plugin=plugin, **options)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Rust is no Exception; the next decoder may know this variant
            first_error = first_error or error
            continue
        if samples == 3 and properties["photometric_interpretation"] != "RGB":
            raise _bad(f"{properties['photometric_interpretation']} that no decoder turned into RGB")
        return _in_stored_bits(array, coding) if samples == 1 else array
    assert first_error is not None, "a decoder that is available has a plugin"
    raise _bad(_words(first_error)) from None


def _in_stored_bits(array: np.ndarray, coding: Coding) -> np.ndarray:
    """Returns the values of a codestream of more bits by their stored bits alone (PS3.5 8.1.1), with their sign.

    Unsigned JPEG 2000 is left as it is: its codestream states how many bits are meant.
    """
    unused = 8 * array.dtype.itemsize - coding.bits_stored
    if unused <= 0 or array.dtype.kind not in "iu":
        return array
    if not coding.signed and coding.syntax not in JPEGLSTransferSyntaxes:
        return array
    limit = 1 << (coding.bits_stored - coding.signed)
    beyond = array.max(initial=0) >= limit or (coding.signed and array.min(initial=0) < -limit)
    return array << unused >> unused if beyond else array


def _check_codestreams(content: bytes, header: PixelHeader, coding: Coding) -> None:
    """Compares the size that each compressed frame claims with the header: no decoder shall allocate what is not there.

    A JPEG or JPEG 2000 frame without a codestream is refused here, before native decoders complain on their own.
    """
    frames = 0
    offsets = coding.lists_of_offsets()
    for frame in generate_frames(content, number_of_frames=header.frames, extended_offsets=offsets):
        frames += 1
        size = codecs.codestream_size(frame)
        if size is None and coding.syntax != RLELossless:
            raise _bad(f"no codestream of {UID(coding.syntax).name} in frame {frames}")
        if size is not None and size != (header.rows, header.columns):
            raise _bad(f"a frame of {size[0]} x {size[1]} in {header.rows} x {header.columns}")
        if codecs.is_cut(frame, coding.syntax):
            raise _bad(f"frame {frames} without an end (cut short)")
    if frames < header.frames:
        raise _bad(f"{frames} of {header.frames} frames")


def _check_palette_segments(dataset: Dataset) -> None:
    """Refuses segmented palettes that expand to another number of entries than they say (PS3.3 C.7.9.2).

    A few bytes can stand for millions of entries, so they are counted before anything is expanded.
    """
    order = "<" if dataset.original_encoding[1] else ">"
    for colour in ("Red", "Green", "Blue"):
        count, _, bits = (int(value) for value in dataset[f"{colour}PaletteColorLookupTableDescriptor"].value)
        data = dataset[f"Segmented{colour}PaletteColorLookupTableData"].value
        words = np.frombuffer(data[: len(data) // 2 * 2], "u1" if bits == 8 else f"{order}u2").tolist()
        if _expanded_length(words) != (count % 65536 or 65536):
            raise _bad(f"segments of a palette that do not make {count % 65536 or 65536} entries")


def _expanded_length(words: list[int]) -> int:
    """Returns how many entries discrete (0), linear (1) and indirect (2) segments make; -1 where they are malformed."""
    lengths: dict[int, int] = {}
    total = at = 0
    while at + 1 < len(words):
        start, kind, length = at, words[at], words[at + 1]
        if kind == 0:
            at += 2 + length
        elif kind == 1:
            at += 3
        elif kind == 2 and at + 3 < len(words):
            place = words[at + 2] + (words[at + 3] << 16)  # in words of 16 bits
            copied = [entries for first, entries in lengths.items() if first >= place][:length]
            length, at = sum(copied), at + 4
        else:
            return -1
        lengths[start] = length
        total += length
        if total > 65536:
            return -1
    return total


def _bad(found: str) -> ReadError:
    return ReadError("", expected="pixels as the header states", found=found, fix="copy or export it again")


def _bad_palette() -> ReadError:
    return refusal("a palette with PALETTE COLOR", "none that is complete")


def _words(error: BaseException) -> str:
    """Returns one line on ``error``. Decoders speak of bytes and tags, not of values that name a patient."""
    line = " ".join(str(error).split()).removeprefix(_ALL_PLUGINS)
    return f"no decoder that succeeds ({line[:160]})" if line else type(error).__name__
