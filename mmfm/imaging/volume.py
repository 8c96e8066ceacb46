"""Volume: an array with its place in the patient, LPS millimetres. A radiograph is one slice, the same type."""

from __future__ import annotations

import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from threading import Lock

import numpy as np

from mmfm.errors import ConfigError, ReadError
from mmfm.imaging.pixels import NAMED_WINDOWS, PADDING_HU, Rendering, apply_window, to_display, to_physical
from mmfm.study import (
    ORIENTATION_TOLERANCE,
    POSITION_TOLERANCE_MM,
    SPACING_TOLERANCE_MM,
    Instance,
    Receipt,
    Series,
)

MAX_VOLUME_BYTES = 4 << 30
MAX_THREADS = 8
"""That decode the slices of one volume."""
TILT_TOLERANCE_DEGREES = 0.5
_UNITS = {"OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"}
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """Pixels of one series in patient space."""

    array: np.ndarray
    """(slices, rows, columns) or (slices, rows, columns, 3), float32."""
    affine: np.ndarray | None
    """4x4 float64, (slice, row, column, 1) -> LPS mm; ``None`` where the geometry is not stated."""
    quantity: str
    """``display`` (0 black to 1 white), ``HU`` or ``stored``."""

    def __post_init__(self) -> None:
        if self.array.dtype != np.float32 or self.array.ndim not in (3, 4) or self.array.shape[3:] not in ((), (3,)):
            raise ValueError(
                f"array: expected float32 (D, H, W) or (D, H, W, 3), found {self.array.dtype} {self.array.shape}"
            )
        if self.affine is not None and (self.affine.shape != (4, 4) or not np.all(np.isfinite(self.affine))):
            raise ValueError("affine: expected a finite 4x4 matrix")
        if self.quantity not in ("display", "HU", "stored"):
            raise ValueError(f"quantity: expected display, HU or stored, found {self.quantity}")

    @classmethod
    def from_series(cls, series: Series, *, window: str | None = None) -> tuple[Volume, Receipt]:
        """Decodes ``series`` and says what was done.

        CT that states a rescale, or is NIfTI, gives HU; other CT, MR, PT, NM, RTDOSE and NIfTI give stored units
        (rescaled where stated); all else, PNG and JPEG among them, is a display, 0 black to 1 white. Slices are ordered
        by the projection of ImagePositionPatient on the slice normal, from low to high; those of NIfTI stay in stored
        order.
        Nothing is flipped, turned or resampled. Frames that state their own headers (enhanced multi-frame objects) are
        slices like those of a classic series.

        Args:
            series: with pixels attached.
            window: one of ``NAMED_WINDOWS``, to get HU as a display.

        Returns:
            The Volume, and the Receipt. ``Receipt.spacing`` of a single picture without depth has 0.0 between slices;
            its ``orientation`` is "rows/columns" letters of PatientOrientation, such as "F/L".

        Raises:
            ReadError: the pixels cannot be decoded, or the instances do not make one volume.
            ConfigError: ``window`` is not known, or the series is not in HU.
        """
        series = _by_frame(series)
        quantity = _quantity(series)
        if window is not None and (window not in NAMED_WINDOWS or quantity != "HU"):
            raise ConfigError(
                "window",
                expected=f"one of {', '.join(NAMED_WINDOWS)} on a CT in HU",
                found=f"{window} on {series.modality or series.source_format} in {quantity}",
                fix="leave it out or choose another",
            )
        _check_alike(series)
        stack = _stack(series)
        if quantity != "display":
            _check_one(series, "unit of values", [_unit(i) for i in series.instances])
        array, renderings = _rendered(series, stack.instances, quantity)
        windows = list(dict.fromkeys(r.window for r in renderings))
        if window is not None:
            center, width = NAMED_WINDOWS[window]
            for one in array:
                one[:] = apply_window(one.astype(np.float64), center, width)
            quantity, windows = "display", [f"{window}: center {center:g} width {width:g} LINEAR (by name)"]
        steps = (*_counted(renderings, lambda r: r.steps), *stack.steps)
        receipt = Receipt(
            series_uid=series.series_uid,
            source_format=series.source_format,
            modality=series.modality,
            view=series.view,
            shape=array.shape,
            quantity=quantity,
            affine=None if stack.affine is None else tuple(tuple(map(float, row)) for row in stack.affine),
            spacing=stack.spacing,
            uneven_steps=stack.uneven,
            sideways_mm=stack.sideways,
            orientation=stack.orientation,
            window=windows[0] if len(windows) == 1 else f"{len(windows)} windows, one for each slice",
            inverted=any(r.inverted for r in renderings),
            steps=steps,
            slices_used=array.shape[0],
            warnings=(
                *_counted(renderings, lambda r: r.warnings),
                *stack.warnings,
                *_nature(series),
            ),
        )
        return cls(array=array, affine=stack.affine, quantity=quantity), receipt


@dataclass(frozen=True, kw_only=True)
class _Stack:
    """Instances in order, and what their order and place rest on."""

    instances: tuple[Instance, ...]
    affine: np.ndarray | None = None
    spacing: tuple[float, float, float] | None = None
    orientation: str = "not stated"
    uneven: tuple[float, ...] = ()
    """Steps in mm other than the usual one."""
    sideways: float = 0.0
    """mm, at most, of a slice from the line from the first to the last."""
    steps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def _by_frame(series: Series) -> Series:
    """Returns ``series`` with an instance for each frame that states its own headers, so that all rules hold for it."""
    return replace(series, instances=tuple(one for instance in series.instances for one in _frames(instance)))


def _frames(instance: Instance) -> tuple[Instance, ...]:
    if not instance.frames:
        return (instance,)
    load = _once(instance.load) if instance.load else None

    def loader(index: int) -> Callable[[], np.ndarray] | None:
        return None if load is None else lambda: load()[index : index + 1]

    return tuple(
        replace(
            instance,
            sop_instance_uid=f"{instance.sop_instance_uid}#{number}",
            pixels=frame.pixels,
            geometry=frame.geometry,
            kind=frame.kind,
            frames=(),
            number=number,
            load=loader(number - 1),
        )
        for number, frame in enumerate(instance.frames, start=1)
    )


def _once(load: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """Returns ``load`` such that the threads which render single frames share one decoding of all."""
    lock = Lock()

    @cache
    def outcome() -> np.ndarray | ReadError:
        try:
            return load()
        except ReadError as error:  # kept too: what fails once is not tried for every frame
            return error

    def locked() -> np.ndarray:
        with lock:
            found = outcome()
        if isinstance(found, ReadError):
            raise found
        return found

    return locked


def _quantity(series: Series) -> str:
    if series.source_format == "NIFTI":  # states no unit; converters write the HU of a CT
        return "HU" if series.modality == "CT" else "stored"
    if series.source_format in ("PNG", "JPEG") or series.instances[0].pixels.samples != 1:
        return "display"
    if series.modality not in ("CT", "MR", "PT", "NM", "RTDOSE"):
        return "display"
    usable_hu = all(
        i.pixels.rescale_type == "HU" and (i.pixels.rescale_slope != 0 or i.pixels.modality_lut)
        for i in series.instances
    )
    return "HU" if series.modality == "CT" and usable_hu else "stored"


def _nature(series: Series) -> tuple[str, ...]:
    """Returns what a reader must know of what the pixels are."""
    facts = (
        ("a localizer, made to plan other images", all(i.is_localizer for i in series.instances)),
        ("derived and secondary by Image Type: may be a screenshot", any(i.is_screenshot for i in series.instances)),
        (
            "no rescale to Hounsfield units is stated: values are not HU",
            series.modality == "CT" and _quantity(series) == "stored",
        ),
        ("NIfTI states no unit: values are taken as HU", series.source_format == "NIFTI" and series.modality == "CT"),
        ("overlay not drawn: marks that a viewer would show are missing", any(i.overlays for i in series.instances)),
    )
    notes = Counter(note for instance in series.instances for note in instance.notes)
    total = len(series.instances)
    return (
        *(text for text, holds in facts if holds),
        *(note if count == total else f"{note} ({count} of {total} slices)" for note, count in notes.items()),
    )


def _check_alike(series: Series) -> None:
    """Raises where the instances cannot be slices of one array."""
    _check_one(series, "size", [f"{i.pixels.rows} x {i.pixels.columns}" for i in series.instances])
    _check_one(series, "number of samples", [i.pixels.samples for i in series.instances])
    first = series.instances[0].geometry.pixel_spacing
    spacings = [i.geometry.pixel_spacing for i in series.instances]
    if not all(s == first or (s and first and np.allclose(s, first, 0, SPACING_TOLERANCE_MM)) for s in spacings):
        _check_one(series, "pixel spacing", [s and tuple(round(v, 4) for v in s) for s in spacings])
    total = sum(i.pixels.rows * i.pixels.columns * i.pixels.frames * i.pixels.samples * 4 for i in series.instances)
    if total > MAX_VOLUME_BYTES:
        raise _not_one(series, f"at most {MAX_VOLUME_BYTES >> 30} GB in one volume", f"{total / 2**30:.1f} GB")


def _check_one(series: Series, name: str, values: list) -> None:
    kinds = Counter(values)
    if len(kinds) > 1:
        found = ", ".join(f"{value} ({count} slices)" for value, count in kinds.most_common(4))
        raise _not_one(series, f"one {name} in a volume", found)


def _unit(instance: Instance) -> str:
    """Returns Rescale Type where it is a code of PS3.3 C.11.1.1.2: what else stands there may be a name."""
    stated = instance.pixels.rescale_type
    return "not stated" if stated is None else stated if stated in _UNITS else f"unit {zlib.crc32(stated.encode()):08x}"


def _kinds(series: Series) -> dict[str, list[str]]:
    """Returns what instances state of the kind of slice that they are, one value for each instance."""
    stated = [dict(i.kind) for i in series.instances]
    names = dict.fromkeys(name for kind in stated for name in kind)
    return {name: [kind.get(name, "not stated") for kind in stated] for name in names}


def _rendered(
    series: Series, instances: tuple[Instance, ...], quantity: str
) -> tuple[np.ndarray, tuple[Rendering, ...]]:
    """Decodes and renders the instances, in threads: most of the time goes to code that leaves the interpreter free."""
    ends = list(accumulate(instance.pixels.frames for instance in instances))
    first = instances[0].pixels
    whole = np.empty((ends[-1], first.rows, first.columns), np.float32) if first.samples == 1 else None

    def render(instance: Instance, end: int) -> Rendering:
        stored = _load(instance, series)
        part = None if whole is None else whole[end - instance.pixels.frames : end]
        if quantity != "display":
            return to_physical(stored, instance.pixels, padding=PADDING_HU if quantity == "HU" else None, out=part)
        return to_display(stored, instance.pixels, out=part)

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1, len(instances))) as pool:
        renderings = tuple(pool.map(render, instances, ends))
    return _joined([r.array for r in renderings]) if whole is None else whole, renderings


def _load(instance: Instance, series: Series) -> np.ndarray:
    if instance.load is None:
        raise _not_one(series, "an instance with pixels attached", "headers alone", fix="attach them by mmfm.io.attach")
    return instance.load()


def _stack(series: Series) -> _Stack:
    instances = series.instances
    if instances[0].affine is not None:
        return _stated(series)
    spacing, steps, warnings = _in_plane(instances[0])
    if unplaced := sum(i.pixels.frames for i in instances if i.pixels.frames > 1):
        reason = f"{unplaced} frames in stored order; their positions are not read"
        return _Stack(instances=instances, steps=steps, warnings=(*warnings, reason))
    if any(i.is_mosaic for i in instances):
        return _Stack(
            instances=instances, steps=steps, warnings=(*warnings, "a mosaic: slices in one picture, without a place")
        )
    axes = [_axes(i) for i in instances]
    stated = [a for a in axes if a is not None]
    if not stated:
        if any(i.geometry.orientation and i.geometry.position for i in instances):
            warnings += ("ImageOrientationPatient is not two unit vectors at a right angle: no place in the patient",)
        elif any(i.geometry.orientation or i.geometry.position for i in instances):
            warnings += ("one of position and orientation is not stated: no place in the patient",)
        return _unplaced(series, spacing, steps, warnings)
    if len(stated) < len(instances):
        raise _not_one(
            series,
            "a position and orientation in all slices",
            f"{len(instances) - len(stated)} of {len(instances)} without",
        )
    kinds = _kinds(series)
    for name, values in kinds.items():
        _check_one(series, name, values)
    if kinds:
        steps = ("all of " + ", ".join(f"{name} {values[0]}" for name, values in kinds.items()), *steps)
    return _placed(series, axes[0], spacing, steps, warnings)


def _stated(series: Series) -> _Stack:
    """Returns the frames in stored order, where their header states the affine of all of them."""
    (first, *more) = series.instances
    if more:
        raise _not_one(series, "one array with an affine of its own", f"{len(more) + 1} arrays")
    affine = np.array(first.affine, float)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    normal = np.cross(directions[:, 2], directions[:, 1])
    normal /= np.linalg.norm(normal)
    rows, columns = (float(np.linalg.norm(affine[:3, axis])) for axis in (1, 2))
    warnings: tuple[str, ...] = ()
    largest = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if largest > math.sin(math.radians(TILT_TOLERANCE_DEGREES)):
        warnings = (
            f"the axes are sheared by {math.degrees(math.asin(min(1.0, largest))):.1f} degrees: the affine holds the "
            "shear, the array is not resampled",
        )
    source = first.geometry.spacing_source
    return _Stack(
        instances=series.instances,
        affine=affine,
        spacing=(abs(float(affine[:3, 0] @ normal)), rows, columns),
        orientation="".join(axis_letter(direction) for direction in directions.T),
        steps=(f"{first.pixels.frames} slices in stored order; place, orientation and spacing from {source}",),
        warnings=warnings,
    )


def _in_plane(instance: Instance) -> tuple[tuple[float, float] | None, tuple[str, ...], tuple[str, ...]]:
    """Returns (row, column) spacing in mm, with its source, or why there is none."""
    geometry = instance.geometry
    if geometry.pixel_spacing is None:
        return None, (), ()
    if not all(_is_length(value) for value in geometry.pixel_spacing):
        values = " x ".join(f"{value:g}" for value in geometry.pixel_spacing)
        return None, (), (f"{geometry.spacing_source} {values} cannot be used: nothing can be measured",)
    at = " (at the detector, not in the patient)" if geometry.spacing_source == "ImagerPixelSpacing" else ""
    rows, columns = geometry.pixel_spacing
    return (rows, columns), (f"spacing {rows:g} x {columns:g} mm from {geometry.spacing_source}{at}",), ()


def _axes(instance: Instance) -> np.ndarray | None:
    """Returns (3, 3): unit directions of slice normal, rows (row index up) and columns; ``None`` where not usable."""
    geometry = instance.geometry
    if geometry.orientation is None or geometry.position is None:
        return None
    along_columns, along_rows = np.reshape(geometry.orientation, (2, 3))
    lengths = np.linalg.norm([along_columns, along_rows], axis=1)
    if np.any(np.abs(lengths - 1) > ORIENTATION_TOLERANCE) or abs(along_columns @ along_rows) > ORIENTATION_TOLERANCE:
        return None
    return np.stack([np.cross(along_columns, along_rows), along_rows, along_columns])


def _unplaced(
    series: Series, spacing: tuple[float, float] | None, steps: tuple[str, ...], warnings: tuple[str, ...]
) -> _Stack:
    instances = series.instances
    if len(instances) > 1:
        warnings += (f"positions are not stated: {len(instances)} slices in the order of their numbers",)
        warnings += tuple(f"the slices differ in {name}" for name, v in _kinds(series).items() if len(set(v)) > 1)
        return _Stack(instances=instances, steps=steps, warnings=warnings)
    directions = instances[0].patient_orientation
    orientation = f"{directions[1]}/{directions[0]}" if len(directions) == 2 else "not stated"
    if series.view is not None and not series.view.is_lateral and len(directions) == 2:
        if directions[0].startswith("R"):
            warnings += ("the patient's left is on the image's left: the picture is mirrored from the usual display",)
        if directions[1].startswith("H"):
            warnings += ("the patient's head is at the bottom of the image",)
    return _Stack(
        instances=instances,
        spacing=None if spacing is None else (0.0, *spacing),
        orientation=orientation,
        steps=steps,
        warnings=warnings,
    )


def _placed(
    series: Series,
    axes: np.ndarray | None,
    spacing: tuple[float, float] | None,
    steps: tuple[str, ...],
    warnings: tuple[str, ...],
) -> _Stack:
    """Orders slices along the normal and builds the affine from their positions."""
    assert axes is not None, "the caller asks whether orientation is stated"
    for instance in series.instances:
        other = _axes(instance)
        assert other is not None, "the caller asks whether orientation is stated"
        difference = float(np.abs(other - axes).max())
        if difference > ORIENTATION_TOLERANCE:
            count = len({tuple(np.round(i.geometry.orientation or (), 2)) for i in series.instances})
            raise _not_one(series, "one orientation in a volume", f"{count} that differ by up to {difference:.2f}")
    positions = {i.sop_instance_uid: np.asarray(i.geometry.position) for i in series.instances}
    along = {uid: float(position @ axes[0]) for uid, position in positions.items()}
    instances = tuple(sorted(series.instances, key=lambda i: along[i.sop_instance_uid]))
    origin = positions[instances[0].sop_instance_uid]
    orientation = "".join(axis_letter(axis) for axis in axes)
    odd: tuple[float, ...] = ()
    sideways = 0.0
    if len(instances) == 1:
        thickness = instances[0].geometry.slice_thickness
        if not _is_length(thickness):
            steps += ("slice thickness is not stated: 1 mm taken for the single slice",)
        step = axes[0] * (thickness if thickness is not None and _is_length(thickness) else 1.0)
    else:
        places = np.array([along[i.sop_instance_uid] for i in instances])
        gaps = np.diff(places)
        if np.any(gaps < POSITION_TOLERANCE_MM):
            shared = int(np.sum(gaps < POSITION_TOLERANCE_MM))
            raise _not_one(
                series,
                "slices at different positions",
                f"{shared} of {len(instances)} at the position of another",
                fix="split the series by acquisition, echo or phase",
            )
        median = float(np.median(gaps))
        last = positions[instances[-1].sop_instance_uid]
        step = (last - origin) / (places[-1] - places[0]) * median
        steps += (f"{len(instances)} slices ordered by position along the normal, {median:g} mm apart",)
        uneven = np.abs(gaps - median) > max(POSITION_TOLERANCE_MM, 0.02 * median)
        odd = tuple(gaps[uneven].tolist())
        for index in np.flatnonzero(uneven)[:3]:
            warnings += (
                f"a step of {gaps[index]:g} mm where {median:g} is usual, after slice {index + 1} of {len(instances)}: "
                "the affine is not exact beyond it",
            )
        if np.count_nonzero(uneven) > 3:
            warnings += (f"{np.count_nonzero(uneven)} uneven steps in all, from {gaps.min():g} to {gaps.max():g} mm",)
        line = origin + np.multiply.outer((places - places[0]) / (places[-1] - places[0]), last - origin)
        beside = np.linalg.norm([positions[i.sop_instance_uid] for i in instances] - line, axis=1)
        sideways = float(beside.max())
        if sideways > max(POSITION_TOLERANCE_MM, 0.02 * median):
            index = int(np.argmax(beside))
            warnings += (
                f"slice {index + 1} of {len(instances)} lies {beside[index]:.3g} mm beside the line from the first to "
                "the last: the affine is not exact there",
            )
        cosine = float(np.clip(step @ axes[0] / np.linalg.norm(step), -1, 1))
        tilt = math.degrees(math.acos(cosine))
        if tilt > TILT_TOLERANCE_DEGREES:
            warnings += (
                f"the slices are sheared by {tilt:.1f} degrees (gantry tilt): the affine holds the shear, the array is "
                "not resampled",
            )
    if spacing is None:
        return _Stack(instances=instances, orientation=orientation, steps=steps, warnings=warnings)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = (
        step,
        axes[1] * spacing[0],
        axes[2] * spacing[1],
        origin,
    )
    return _Stack(
        instances=instances,
        affine=affine,
        spacing=(float(step @ axes[0]), *spacing),
        orientation=orientation,
        uneven=odd,
        sideways=sideways,
        steps=steps,
        warnings=warnings,
    )


def axis_letter(direction: np.ndarray) -> str:
    """Returns the patient letter, one of L R P A S I, of a direction in LPS."""
    axis = int(np.argmax(np.abs(direction)))
    return _LETTERS[axis][0 if direction[axis] > 0 else 1]


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """Returns the slices as one array, in colour where one of them is: a slice without colour may be among them."""
    if len(arrays) == 1:
        return arrays[0]
    if any(array.ndim == 4 for array in arrays):
        arrays = [array if array.ndim == 4 else np.repeat(array[..., np.newaxis], 3, axis=-1) for array in arrays]
    return np.concatenate(arrays)


def _counted(renderings: Sequence[Rendering], words: Callable[[Rendering], tuple[str, ...]]) -> tuple[str, ...]:
    """Returns each sentence once, with the number of slices where it does not hold for all."""
    counts = Counter(sentence for rendering in renderings for sentence in words(rendering))
    total = len(renderings)
    return tuple(s if n == total else f"{s} ({n} of {total} slices)" for s, n in counts.items())


def _not_one(series: Series, expected: str, found: str, fix: str = "split the series") -> ReadError:
    slices = sum(i.pixels.frames for i in series.instances)
    where = f"a {series.modality or series.source_format} series of {slices} slices"
    return ReadError(where, expected=expected, found=found, fix=fix)


def _is_length(number: float | None) -> bool:
    """Returns whether ``number`` is finite and above 0."""
    return number is not None and math.isfinite(number) and number > 0
