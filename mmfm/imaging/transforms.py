"""Reorient, resample, crop and pad Volumes, and find the way back for points and boxes.

Each transform returns the new Volume with a matrix that maps its indices to those of the Volume it came from, so that a
box or heat map found in model space is put back on the original slice, stated geometry or not. Several transforms make
one matrix: ``first @ second``.

    turned, a = reorient(volume, "SPL")
    small, b = resample(turned, (2.0, 2.0, 2.0))
    box_of_volume = map_boxes(a @ b, box_of_small)

Indices are (slice, row, column), 0 at the centre of the first voxel; a box is (first, past the last) along each axis,
as numpy slices, so that its edges lie half a voxel before its indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from mmfm.errors import ConfigError
from mmfm.imaging.volume import Volume, axis_letter


def reorient(volume: Volume, orientation: str = "SPL") -> tuple[Volume, np.ndarray]:
    """Turns and flips whole axes until slices, rows and columns run most nearly in the directions named.

    Args:
        volume: with geometry.
        orientation: where index + 1 goes along slices, rows and columns: one letter each of S/I, P/A and L/R, such as
            "SPL" (axial, as a radiologist looks at it).

    Returns:
        The Volume, no value changed, and the 4x4 matrix from its indices to those of ``volume``.

    Raises:
        ConfigError: the volume has no geometry, or the letters do not name three axes.
    """
    if volume.affine is None:
        raise _without_geometry()
    pairs = ("LR", "PA", "SI")
    axes = [next((axis for axis, pair in enumerate(pairs) if letter in pair), -1) for letter in orientation]
    if len(axes) != 3 or set(axes) != {0, 1, 2}:
        raise ConfigError(
            "orientation",
            expected="one letter each of S/I, P/A and L/R",
            found=orientation,
            fix="write for example SPL",
        )
    # The array's axes, each given to the patient axis that it follows most nearly and no other axis follows more.
    directions = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    follows = _matched(np.abs(directions))
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, (axis, letter) in enumerate(zip(axes, orientation, strict=True)):
        old = follows.index(axis)
        forward = axis_letter(np.eye(3)[axis] * np.sign(directions[axis, old])) == letter
        matrix[old, new] = 1 if forward else -1
        matrix[old, 3] = 0 if forward else volume.array.shape[old] - 1
    order = [int(np.flatnonzero(matrix[:3, new])[0]) for new in range(3)]
    array = volume.array.transpose(*order, *range(3, volume.array.ndim))
    flipped = tuple(slice(None, None, int(matrix[old, new])) for new, old in enumerate(order))
    return replace(volume, array=np.ascontiguousarray(array[flipped]), affine=volume.affine @ matrix), matrix


def resample(volume: Volume, spacing: Sequence[float]) -> tuple[Volume, np.ndarray]:
    """Resamples to other distances between voxels, linearly, smoothed before where voxels become fewer.

    Args:
        volume: with geometry.
        spacing: (slice, row, column) mm along the axes; those of a sheared Volume (gantry tilt) stay sheared.

    Returns:
        The Volume, which covers the same space (its first and last edges are those of ``volume``, but for less than a
        new voxel at the end), and the 4x4 matrix from its indices to those of ``volume``.

    Raises:
        ConfigError: the volume has no geometry, or a distance is not above 0.
    """
    if volume.affine is None:
        raise _without_geometry()
    if len(spacing) != 3 or min(spacing) <= 0:
        raise ConfigError("spacing", expected="three distances above 0 mm", found=str(tuple(spacing)), fix="give mm")
    factors = np.asarray(spacing) / np.linalg.norm(volume.affine[:3, :3], axis=0)
    shape = [max(1, round(size / factor)) for size, factor in zip(volume.array.shape[:3], factors, strict=True)]
    return _scaled(volume, shape, factors)


def resize(volume: Volume, shape: Sequence[int]) -> tuple[Volume, np.ndarray]:
    """Resamples to a number of (slices, rows, columns), whatever the geometry; returns as ``resample``."""
    factors = np.array([old / new for old, new in zip(volume.array.shape[:3], shape, strict=True)])
    return _scaled(volume, shape, factors)


def _scaled(volume: Volume, shape: Sequence[int], factors: np.ndarray) -> tuple[Volume, np.ndarray]:
    matrix = np.diag([*factors, 1.0])
    matrix[:3, 3] = (factors - 1) / 2  # edges stay where they are, not centres
    colours = (0.0,) * (volume.array.ndim - 3)
    smooth = ndimage.gaussian_filter(volume.array, (*np.maximum(0, (factors - 1) / 2), *colours), mode="nearest")
    array = ndimage.affine_transform(
        smooth,
        np.array([*factors, *(1.0 for _ in colours)]),
        offset=np.array([*matrix[:3, 3], *colours]),
        output_shape=(*shape, *volume.array.shape[3:]),
        order=1,
        mode="nearest",
    )
    affine = None if volume.affine is None else volume.affine @ matrix
    return replace(volume, array=array.astype(np.float32, copy=False), affine=affine), matrix


def crop_or_pad(
    volume: Volume, start: Sequence[int], shape: Sequence[int], *, fill: float
) -> tuple[Volume, np.ndarray]:
    """Cuts a box out of a Volume; what lies outside of it is filled.

    Args:
        volume: any.
        start: (slice, row, column) of the first voxel, negative to pad in front.
        shape: (slices, rows, columns) of the result.
        fill: the value outside, such as -1024 in HU.

    Returns:
        The Volume, and the 4x4 matrix from its indices to those of ``volume``.
    """
    array = np.full((*shape, *volume.array.shape[3:]), fill, np.float32)
    inside = [
        (max(0, first), min(old, first + new))
        for first, new, old in zip(start, shape, volume.array.shape[:3], strict=True)
    ]
    if all(low < high for low, high in inside):
        target = tuple(slice(low - first, high - first) for (low, high), first in zip(inside, start, strict=True))
        array[target] = volume.array[tuple(slice(low, high) for low, high in inside)]
    matrix = np.eye(4)
    matrix[:3, 3] = start
    affine = None if volume.affine is None else volume.affine @ matrix
    return replace(volume, array=array, affine=affine), matrix


def map_points(matrix: np.ndarray, points_N3: np.ndarray) -> np.ndarray:
    """Returns points (N, 3) mapped by a 4x4 matrix: of indices to indices, or an affine's to LPS mm."""
    return np.asarray(points_N3, float) @ matrix[:3, :3].T + matrix[:3, 3]


def map_boxes(matrix: np.ndarray, boxes_N23: np.ndarray) -> np.ndarray:
    """Returns boxes (N, 2, 3), (first, past the last) (slice, row, column), mapped by a matrix without rotation.

    Axes may be turned and flipped; the result is not rounded and may leave the Volume.
    """
    edges_N23 = np.asarray(boxes_N23, float) - 0.5
    mapped_N23 = np.stack([map_points(matrix, edges_N23[:, corner]) for corner in (0, 1)], axis=1)
    return np.sort(mapped_N23, axis=1) + 0.5


def _matched(weights_33: np.ndarray) -> list[int]:
    """Returns for each column the row that it is given, one to one, the largest weights first."""
    left, found = weights_33.copy(), [0, 0, 0]
    for _ in range(3):
        row, column = np.unravel_index(int(np.argmax(left)), left.shape)
        found[int(column)] = int(row)
        left[row], left[:, column] = -1, -1
    return found


def _without_geometry() -> ConfigError:
    return ConfigError(
        "volume",
        expected="one whose place in the patient is stated",
        found="no affine",
        fix="use resize, or other data",
    )
