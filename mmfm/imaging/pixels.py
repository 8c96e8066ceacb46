"""Stored values -> what they mean: the modality transform once, the VOI window or LUT, and black to white (PS3.3 C.11).

Everything is computed in double precision, or in single where that is as exact, and nothing is rounded to 8 bits, so
that the same picture stored in two ways gives displays that are affine functions of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mmfm.study import LookupTable, PixelHeader

NAMED_WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (40.0, 400.0),
    "bone": (480.0, 2500.0),
    "brain": (40.0, 80.0),
    "subdural": (75.0, 200.0),
    "stroke": (40.0, 40.0),
    "liver": (90.0, 150.0),
}
"""(center, width) in HU of CT windows."""

PADDING_HU = -1024.0
"""HU given to padding: the lowest value of a 12-bit CT, air or less."""


_BLOCK = 1 << 18
"""Pixels that are computed at a time: a CT slice."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """Pixels of one instance, and the words for the receipt."""

    array: np.ndarray
    """(frames, rows, columns) or (frames, rows, columns, 3), float32."""
    window: str = "none"
    inverted: bool = False
    steps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@np.errstate(over="ignore")
def to_physical(
    stored: np.ndarray, header: PixelHeader, *, padding: float | None = None, out: np.ndarray | None = None
) -> Rendering:
    """Applies the modality transform and nothing else: HU of a CT, stored units of an MR.

    Args:
        stored: (frames, rows, columns) as ``Instance.load`` gives.
        header: of the same instance.
        padding: value given to padding pixels; the lowest of the others where ``None``.
        out: float32 of the same shape, where the result is to be; a new array where ``None``.
    """
    out = np.empty(stored.shape, np.float32) if out is None else out
    exact = _exact_in_float32(stored, header)
    steps, warnings = _modality_words(header)
    lowest, padded, strange = math.inf, False, False
    for given, part in _blocks(stored, out):
        values = part if exact else np.empty(given.shape)
        np.copyto(values, given, casting="unsafe")
        values = _modality(values, header)
        strange |= _has_strange(given)
        mask = _padding(given, header)
        if mask is not None:
            padded = True
            if padding is None:
                lowest = min(lowest, float(values.min(where=~mask, initial=math.inf)))
            else:
                values[mask] = padding
        elif padding is None and header.padding_value is not None:
            lowest = min(lowest, float(values.min()))
        if values is not part:
            np.copyto(part, values, casting="same_kind")
    if padded:
        if padding is None:
            padding = lowest if math.isfinite(lowest) else 0.0
            for given, part in _blocks(stored, out):
                if (mask := _padding(given, header)) is not None:
                    part[mask] = padding
        steps = (*steps, f"padding ({header.padding_value}) set to {padding:g}")
    return Rendering(array=out, steps=steps, warnings=(*warnings, *_strange_words(strange, "kept")))


def _exact_in_float32(stored: np.ndarray, header: PixelHeader) -> bool:
    """Returns whether rescaled values are integers that float32 holds: then a CT needs no double precision."""
    slope, intercept = header.rescale_slope, header.rescale_intercept
    small = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2 and abs(slope) * 2**16 + abs(intercept) < 2**24
    return small and slope.is_integer() and intercept.is_integer()


@np.errstate(over="ignore")
def to_display(stored: np.ndarray, header: PixelHeader, *, out: np.ndarray | None = None) -> Rendering:
    """Renders 0 black to 1 white.

    Grey: modality LUT or rescale; then the VOI LUT, else the first window, else the whole range that the stored bits
    can hold; then MONOCHROME1 or an inverse presentation turned once (PS3.3 C.8.11.3 demands that they agree); then
    padding black. Colour: divided by the highest value, or grey where the three channels are equal.

    Args:
        stored: (frames, rows, columns) or (frames, rows, columns, 3) as ``Instance.load`` gives.
        header: of the same instance.
        out: as in ``to_physical``; not used for colour.
    """
    if header.samples == 3:
        return _colour(stored, header)
    out = np.empty(stored.shape, np.float32) if out is None else out
    steps, warnings = _modality_words(header)
    show, window, more = _voi(stored, header)
    inverted = header.photometric == "MONOCHROME1" or header.presentation_inverse
    padded, strange = False, False
    for given, part in _blocks(stored, out):
        values = given.astype(np.float64)
        strange |= _has_strange(given)
        missing = np.isnan(values) if given.dtype.kind == "f" else None
        if missing is not None:
            values[missing] = 0.0
        values = show(_modality(values, header))
        part[:] = 1.0 - values if inverted else values
        for mask in (missing, _padding(given, header)):
            if mask is not None:
                part[mask] = 0.0
                padded |= mask is not missing
    if inverted:
        steps = (*steps, "inverted so that more is brighter")
    if padded:
        steps = (*steps, f"padding ({header.padding_value}) shown black")
    return Rendering(
        array=out,
        window=window,
        inverted=inverted,
        steps=steps,
        warnings=(*warnings, *more, *_strange_words(strange, "shown black or white")),
    )


def _colour(stored: np.ndarray, header: PixelHeader) -> Rendering:
    top = 2**header.bits_stored - 1
    step = "RGB colour kept"
    if all(np.all(given == given[:, :1]) for given, _ in _blocks(stored, stored)):
        stored, step = stored[..., 0], "three equal channels taken as one grey"
    out = np.empty(stored.shape, np.float32)
    for given, part in _blocks(stored, out):
        part[:] = given / top
    return Rendering(array=out, steps=(step,), window=f"all of 0 to {top}")


def _blocks(stored: np.ndarray, out: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the same pixels of both, some at a time: (pixels,) or (pixels, 3), those of ``out`` to be written.

    What is computed in double precision then takes little memory, however large the picture is.
    """
    given, parts = (array.reshape(-1, *array.shape[3:]) for array in (stored, out))
    for start in range(0, len(given), _BLOCK):
        yield given[start : start + _BLOCK], parts[start : start + _BLOCK]


def _has_strange(values: np.ndarray) -> bool:
    """Returns whether there are values that are no numbers, or too large for float32."""
    return values.dtype.kind == "f" and not _ordinary(values).all()


def _ordinary(values: np.ndarray) -> np.ndarray:
    return np.abs(values) <= np.finfo(np.float32).max


def _strange_words(strange: bool, treatment: str) -> tuple[str, ...]:
    return (f"values that are infinite or no numbers: {treatment}",) if strange else ()


def apply_window(values: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Maps values to 0..1 by a window of PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Args:
        values: any shape, output units of the modality transform.
        center: in the same units.
        width: in the same units; at least 1 for LINEAR, above 0 otherwise.
        function: LINEAR, LINEAR_EXACT or SIGMOID.
    """
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if width == 1.0:
        return np.where(values > center - 0.5, 1.0, 0.0)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _modality_words(header: PixelHeader) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the step and the warning of ``_modality``."""
    if header.modality_lut is not None:
        return ("modality LUT applied",), ()
    if header.rescale_slope == 0:
        return (), ("rescale slope 0 cannot be used: stored values are kept",)
    if (header.rescale_slope, header.rescale_intercept) == (1.0, 0.0):
        return (), ()
    return (f"rescaled: x {header.rescale_slope:g} + {header.rescale_intercept:g}",), ()


def _modality(values: np.ndarray, header: PixelHeader) -> np.ndarray:
    """Applies the modality LUT or the rescale to ``values``, in place where it can."""
    if header.modality_lut is not None:
        return _look_up(values, header.modality_lut)
    if header.rescale_slope != 0 and (header.rescale_slope, header.rescale_intercept) != (1.0, 0.0):
        values *= header.rescale_slope
        values += header.rescale_intercept
    return values


def _voi(stored: np.ndarray, header: PixelHeader) -> tuple[Callable[[np.ndarray], np.ndarray], str, tuple[str, ...]]:
    """Returns what maps the output of ``_modality`` to 0..1, the words for it, and warnings."""
    warnings: tuple[str, ...] = ()
    if header.voi_lut is not None:
        table = header.voi_lut
        others = f"; preferred to {len(header.window_widths)} window(s)" if header.window_widths else ""
        words = f"VOI LUT of {len(table.entries)} entries (first item{others})"
        return lambda values: _look_up(values, table) / (2.0**table.bits - 1.0), words, ()
    function = header.voi_function
    if header.window_widths and function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        warnings += ("the VOI LUT function is not known: LINEAR is used",)
        function = "LINEAR"
    if header.window_widths:
        center, width = header.window_centers[0], header.window_widths[0]
        if width >= 1 or (width > 0 and function != "LINEAR"):
            name = f", {header.window_names[0]}" if header.window_names else ""
            which = f"first of {len(header.window_widths)}" if len(header.window_widths) > 1 else "WindowCenter/Width"
            return (
                lambda values: apply_window(values, center, width, function),
                f"center {center:g} width {width:g} {function} ({which}{name})",
                warnings,
            )
        warnings += (f"window width {width:g} cannot be used: the whole range is shown",)
    low, high = _whole_range(stored, header)
    words = f"all of {low:g} to {high:g} (no window stated)"
    if high == low:
        return np.zeros_like, words, warnings
    # A codestream may hold more than the stored bits can.
    return lambda values: np.clip((values - low) / (high - low), 0.0, 1.0), words, warnings


def _whole_range(stored: np.ndarray, header: PixelHeader) -> tuple[float, float]:
    """Returns what the stored bits can hold, after the modality transform."""
    if header.modality_lut is not None:
        return 0.0, 2.0**header.modality_lut.bits - 1.0
    if header.bits_stored >= 32:  # counts and floats do not fill such ranges: what is there is the range
        low, high = _extremes(stored)
    elif header.signed:
        low, high = (-(2.0 ** (header.bits_stored - 1)), 2.0 ** (header.bits_stored - 1) - 1.0)
    else:
        low, high = 0.0, 2.0**header.bits_stored - 1.0
    slope = header.rescale_slope or 1.0
    intercept = header.rescale_intercept if header.rescale_slope else 0.0
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return ends[0], ends[1]


def _extremes(stored: np.ndarray) -> tuple[float, float]:
    if stored.dtype.kind != "f":
        return float(stored.min()), float(stored.max())
    parts = [given[_ordinary(given)] for given, _ in _blocks(stored, stored)]
    parts = [part for part in parts if part.size]
    if not parts:
        return 0.0, 0.0
    return float(min(part.min() for part in parts)), float(max(part.max() for part in parts))


def _look_up(values: np.ndarray, table: LookupTable) -> np.ndarray:
    entries = np.asarray(table.entries, dtype=np.float64)
    index = np.fmax(np.fmin(np.rint(values) - table.first_value, len(entries) - 1), 0)  # of which NaN comes out as one
    return entries[index.astype(np.int64)]


def _padding(stored: np.ndarray, header: PixelHeader) -> np.ndarray | None:
    """Returns the mask of Pixel Padding Value to Range Limit (PS3.3 C.7.5.1.1.2), ``None`` where nothing is padded."""
    if header.padding_value is None:
        return None
    limit = header.padding_value if header.padding_limit is None else header.padding_limit
    low, high = sorted((header.padding_value, limit))
    mask = (stored >= low) & (stored <= high)
    return mask if mask.any() else None
