"""Abdominal CT whose truth is known, drawn from a seed: organs, vessels, gut, and the findings of ``DRAWN``.

    volume = draw(7)
    volume.images["CT"], volume.segmentation, volume.findings

Frame: nominal patient millimetres in the order of the grid (z to the head, y to the back, x to the patient's left) with
the origin in front of the first lumbar vertebra. A smooth displacement and the patient's size and tilt map the grid
into it, so that no organ is an ellipsoid and no two patients are alike. Organs are functions of that frame that return
millimetres inside of their surface; lesions and tubes (vessels, gut, ribs) have true millimetres. Figures of normal
anatomy and of attenuation are rounded from textbook adult values; what matters is the look, not anthropometry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mmfm.data.synthetic_volumes.drawing import DrawnVolume, Segment
from mmfm.report import Finding, Lesion, Measurement, Side, Status
from mmfm.study import Patient, Sex

Floats = NDArray[np.floating]
Frame = tuple[Floats, Floats, Floats]
"""z, y and x of points or voxels, arrays that broadcast."""
Points = Floats | Sequence[Sequence[float]] | Sequence[Floats]
"""(N, 3)"""
Box = tuple[slice, slice, slice]

DRAWN = ("liver_lesion", "kidney_lesion", "pancreas_lesion", "free_fluid")
"""The observations that can be drawn; a random volume has one to three of them, or none."""

NORMAL_SHARE = 0.3
"""Of random volumes."""

_KNOT = 24.0
"""mm between the knots of smooth fields, which span ``_REACH`` mm to each side of the origin."""
_REACH = 288.0
_FAT = -100.0
_PANCREAS = np.array(
    [
        (-34, -2, -38),
        (-20, -6, -30),
        (-4, -15, -14),
        (6, -25, 4),
        (10, -24, 24),
        (16, -8, 46),
        (24, 12, 64),
        (32, 28, 80),
    ]
)
"""Nodes from the uncinate process to the tail, and their radii in mm."""
_PANCREAS_RADII = np.array([10.0, 14.0, 13.0, 8.5, 9.5, 9.5, 9.0, 7.5])
_CAVA = np.array((18.0, -21.0))
_FOSSA = np.array((-50.0, -46.0))
"""(y, x) of the cava and of the gallbladder's fossa: the plane through both parts the lobes of the liver (Cantlie)."""


@dataclass(frozen=True, kw_only=True)
class _Body:
    """One patient and one scan; every field varies."""

    female: bool
    age: float
    scale: tuple[float, float, float]
    """Of z, y, x against the nominal frame."""
    tilt: tuple[float, float, float]
    """Radians about the axes z, y and x."""
    fat: float
    """mm of subcutaneous fat."""
    phase: str
    """``none``, ``arterial`` or ``portal``."""
    noise: float
    """Standard deviation in HU of voxels of 8 mm^3."""
    field: tuple[float, float, float]
    """mm, and the frame's coordinates of its middle."""
    middle: tuple[float, float, float]
    dome: float
    """mm that the diaphragm stands higher."""
    liver: float
    """Size, 1 nominal; so are spleen and kidneys (right, left)."""
    spleen: float
    kidneys: tuple[float, float]
    kidney_shift: tuple[float, float]
    """mm that each kidney stands higher."""
    aorta: float
    """Radius in mm."""
    ascites: float = 0.0
    """mm of free fluid between the organs and the wall."""
    severity: str | None = None
    site: str = "around the liver"


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A lesion of the drawing."""

    observation: str
    center: tuple[float, float, float]
    """Grid millimetres (z, y, x)."""
    diameter: float
    axes: NDArray[np.float64]
    """(3, 3): rows are the axes in (z, y, x), each divided by its radius."""
    kind: str
    value: float
    rim: float
    """HU of its outer shell; the value where it has none."""
    location: str
    side: int
    """-1 the patient's right, 1 the left, 0 where the organ is single."""


# ----------------------------------------------------------------------------------------------------- smooth fields


def _basis(at: Floats) -> Floats:
    """Returns (N, knots) weights of the cubic B-spline at millimetres ``at``."""
    knots = np.arange(-_REACH, _REACH + 1, _KNOT)
    far = np.abs(np.asarray(at)[:, None] - knots) / _KNOT
    near = 2 / 3 - far**2 + far**3 / 2
    return np.where(far < 1, near, np.clip(2 - far, 0, None) ** 3 / 6).astype(np.float32)


def _coefficients(rng: np.random.Generator, knots: float, size: float) -> Floats:
    """Returns knots of a smooth field with standard deviation ``size``, correlated over ``knots`` knots."""
    count = int(2 * _REACH / _KNOT) + 1
    field = ndimage.gaussian_filter(rng.standard_normal((count, count, count)), knots, mode="wrap")
    return (field * (size / field.std())).astype(np.float32)


def _on_grid(knots: Floats, weights: Sequence[Floats]) -> Floats:
    """Returns a smooth field on the grid whose axes have the ``weights``."""
    deep, rows, columns = weights
    partly = np.tensordot(deep, np.tensordot(knots, columns, (2, 1)), (1, 0))
    return np.matmul(rows, partly)


class _Canvas:
    """The grid, where its voxels lie in the nominal frame, and what has been painted."""

    def __init__(self, body: _Body, spacing: tuple[float, float, float], rng: np.random.Generator) -> None:
        shape = [max(8, round(extent / step)) for extent, step in zip(body.field, spacing, strict=True)]
        self.body = body
        self.axes = [
            (m - e / 2 + step * (np.arange(n) + 0.5)).astype(np.float32)
            for m, e, n, step in zip(body.middle, body.field, shape, spacing, strict=True)
        ]
        self.edge = max(float(np.mean(spacing)), 1.0)
        """mm over which a surface is soft."""
        self.knots = [
            np.clip(_coefficients(rng, 2.2, 4.0), -9, 9) + np.clip(_coefficients(rng, 0.75, 1.3), -3, 3)
            for _ in range(3)
        ]
        around_z, around_y, around_x = body.tilt
        self.turn = np.array([[1, around_x, -around_y], [-around_x, 1, around_z], [around_y, -around_z, 1]])
        self.turn = (self.turn / np.array(body.scale)[:, None]).astype(np.float32)
        weights = [_basis(axis) for axis in self.axes]
        self.frame: Frame = tuple(
            _on_grid(knots, weights)
            + (row[0] * self.axes[0])[:, None, None]
            + (row[1] * self.axes[1])[:, None]
            + row[2] * self.axes[2]
            for knots, row in zip(self.knots, self.turn, strict=True)
        )
        self.hu: Floats = np.full(shape, -1000, np.float32)
        self.fluid: NDArray[np.bool_] = np.zeros(shape, bool)

    def nominal(self, points: Floats) -> Floats:
        """Returns (N, 3) grid millimetres in the nominal frame."""
        points = np.atleast_2d(points)
        at = (points.T + _REACH) / _KNOT
        moved = [ndimage.map_coordinates(k, at, order=3, prefilter=False, mode="nearest") for k in self.knots]
        return points @ self.turn.T.astype(np.float64) + np.stack(moved, axis=1)

    def physical(self, points: Points) -> Floats:
        """Returns (N, 3) points of the nominal frame in grid millimetres."""
        points = np.atleast_2d(np.asarray(points, dtype=np.float64))
        back = np.linalg.inv(self.turn.astype(np.float64)).T
        found = points @ back
        for _ in range(6):
            found = found + (points - self.nominal(found)) @ back
        return found

    def box(self, low: Sequence[float] | Floats, high: Sequence[float] | Floats) -> Box:
        """Returns the voxels between two corners in grid millimetres."""
        found = []
        for axis, a, b in zip(self.axes, low, high, strict=True):
            start, stop = np.searchsorted(axis, (float(a) - self.edge, float(b) + self.edge))
            found.append(slice(int(start), int(stop)))
        return found[0], found[1], found[2]

    def pieces(self, low: Floats | Sequence[float], high: Floats | Sequence[float]) -> Iterator[tuple[Box, Frame]]:
        """Yields the voxels that may lie between two corners of the nominal frame, with their coordinates.

        A few slices at a time, so that what is made of them stays in the processor's cache.
        """
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)
        corners = self.physical(corners)
        deep, rows, columns = self.box(corners.min(0) - 9, corners.max(0) + 9)
        step = max(1, 150_000 // max(1, (rows.stop - rows.start) * (columns.stop - columns.start)))
        for start in range(deep.start, deep.stop, step):
            box = slice(start, min(start + step, deep.stop)), rows, columns
            z, y, x = (axis[box] for axis in self.frame)
            yield box, (z, y, x)

    def offsets(self, box: Box, center: Floats | Sequence[float]) -> Frame:
        """Returns z, y and x of a box from a point in grid millimetres, as arrays that broadcast."""
        z, y, x = (axis[part] - np.float32(c) for axis, part, c in zip(self.axes, box, center, strict=True))
        return z[:, None, None], y[:, None], x

    def cover(self, inside: Floats, soft: float = 1.0) -> Floats:
        """Returns the share 0..1 of voxels that lies inside of a surface ``inside`` mm away."""
        return np.clip(inside / np.float32(self.edge * soft) + np.float32(0.5), 0, 1)

    def paint(self, box: Box, inside: Floats, value: float | Floats, soft: float = 1.0) -> None:
        """Paints what is inside of a surface over what is there."""
        part = self.cover(inside, soft)
        view = self.hu[box]
        view += part * (value - view)
        self.fluid[box] &= part < 0.5

    def tube(self, nodes: Points, radii: Floats | Sequence[float]) -> tuple[Box, Floats]:
        """Returns mm inside of a tube through ``nodes`` (N, 3) in grid millimetres, and its box."""
        nodes, radii = np.asarray(nodes, dtype=np.float64), np.asarray(radii, dtype=np.float64)
        reach = radii.max() + 3
        box = self.box(nodes.min(0) - reach, nodes.max(0) + reach)
        inside = np.full([part.stop - part.start for part in box], -50, np.float32)
        for start, stop, r0, r1 in zip(nodes[:-1], nodes[1:], radii[:-1], radii[1:], strict=True):
            far = max(r0, r1) + 3
            own = self.box(np.minimum(start, stop) - far, np.maximum(start, stop) + far)
            local = tuple(slice(o.start - b.start, o.stop - b.start) for o, b in zip(own, box, strict=True))
            view = inside[local]
            if view.size:
                np.maximum(view, _capsule(self.offsets(own, start), stop - start, r0, r1), out=view)
        return box, inside


def _capsule(offset: Frame, along: Floats, r0: float, r1: float) -> Floats:
    """Returns mm inside of a cone with round ends from the origin of ``offset`` to ``along``."""
    z, y, x = offset
    a = (np.asarray(along) / max(float(along @ along), 1e-6)).astype(np.float32)
    share = np.clip(a[0] * z + a[1] * y + a[2] * x, 0, 1)
    b = np.asarray(along, dtype=np.float32)
    far = np.square(z - b[0] * share) + np.square(y - b[1] * share) + np.square(x - b[2] * share)
    return np.float32(r0) + np.float32(r1 - r0) * share - np.sqrt(far)


def _ellipsoid(at: Frame, center: Sequence[float], radii: Sequence[float]) -> Floats:
    """Returns about the mm inside of an ellipsoid whose axes are those of ``at``."""
    z, y, x = (np.square((axis - np.float32(c)) / np.float32(r)) for axis, c, r in zip(at, center, radii, strict=True))
    far = z + y + x
    slope = z / np.float32(radii[0] ** 2) + y / np.float32(radii[1] ** 2) + x / np.float32(radii[2] ** 2)
    root = np.sqrt(far)
    return root * (1 - root) / np.sqrt(slope + np.float32(1e-9))


def _both(a: Floats, b: Floats, soft: float = 6.0) -> Floats:
    """Returns mm inside of both, with an edge that is round over ``soft`` mm."""
    blend = np.clip(np.float32(0.5) + (b - a) / np.float32(2 * soft), 0, 1)
    return b + blend * (a - b) - np.float32(soft) * blend * (1 - blend)


def _either(a: Floats, b: Floats, soft: float = 6.0) -> Floats:
    return -_both(-a, -b, soft)


# ----------------------------------------------------------------------------------------------------------- anatomy


def _wall(at: Frame) -> Floats:
    """Returns mm inside of the outer surface of the muscles of the trunk."""
    z, y, x = at
    narrow = np.clip((-z - 20) / 120, -1, 1)
    u, v = np.square(x / (140 - 5 * narrow)), np.square(y / np.where(y > 0, np.float32(104), np.float32(96)))
    far = np.sqrt(np.sqrt(u * u + v * v + np.float32(1.35) * u * v)) + np.float32(1e-3)
    return np.sqrt(np.square(x) + np.square(y)) * (1 / far - 1)


def _cavity(at: Frame, wall: Floats) -> Floats:
    """Returns mm inside of the abdominal and thoracic cavity."""
    _, y, x = at
    front = np.clip(-y / 90, 0, 1) * np.clip(1 - np.square(x / 70), 0, 1)
    return wall - (12 - 3 * front).astype(np.float32)


def _below_diaphragm(at: Frame, body: _Body) -> Floats:
    """Returns about the mm below the diaphragm's upper surface."""
    z, y, x = at
    right = x < 5
    u = np.where(right, -(x + 60), x - 70) / 66
    v = (y + 14) / 80
    height = np.float32(107 + body.dome) - 5 * np.clip((x - 5) / 25, -1, 1)
    height -= np.where(u > 0, np.float32(40), np.float32(12)) * np.square(u)
    height -= np.where(v > 0, np.float32(50), np.float32(22)) * np.square(v)
    return (height - z) * np.float32(0.8)


def _right_of_cantlie(at: Frame) -> Floats:
    """Returns mm to the patient's right of the plane that parts the lobes of the liver."""
    _, y, x = at
    along = (_CAVA - _FOSSA) / np.linalg.norm(_CAVA - _FOSSA)
    return (y - _FOSSA[0]) * along[1] - (x - _FOSSA[1]) * along[0]


def _liver(at: Frame, body: _Body, cavity: Floats | None = None) -> Floats:
    z, y, x = at
    if cavity is None:
        cavity = _cavity(at, _wall(at))
    low = -52 - 60 * (body.liver - 1)
    under = -0.6 * (x + 110) - 0.34 * (y - 30) + 0.72 * (z - low) + 0.0016 * np.square(x + 40)
    inside = _both(cavity - (2 + body.ascites), _below_diaphragm(at, body) - (3 + 0.7 * body.ascites), 7)
    inside = _both(inside, under.astype(np.float32), 9)
    inside = _both(inside, 0.88 * (76 * body.liver - x - 0.53 * (y + 75)), 10)
    inside = _both(inside, np.sqrt(np.square(x - 6) + np.square(y - 58)) - 46, 6)
    return _both(inside, -_kidney(at, body, -1) - (4 + 0.8 * body.ascites), 5)


def _kidney_axis(body: _Body, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Returns the centre, the axes as rows (long, to the front, to the flank), and the half length of a kidney."""
    index = 0 if side < 0 else 1
    center = np.array([(-26.0, -12.0)[index] + body.kidney_shift[index], 46.0, side * 66.0])
    long = np.array([0.95, 0.16, -side * 0.25])
    long /= np.linalg.norm(long)
    flank = np.array([0.0, 0.45, side * 0.9])
    flank -= (flank @ long) * long
    flank /= np.linalg.norm(flank)
    return center, np.stack([long, np.cross(flank, long), flank]), 54 * body.kidneys[index]


def _turned(at: Frame, center: Floats, axes: Floats) -> Frame:
    """Returns ``at`` along three axes from a centre."""
    z, y, x = (axis - np.float32(c) for axis, c in zip(at, center, strict=True))
    return tuple(np.float32(a[0]) * z + np.float32(a[1]) * y + np.float32(a[2]) * x for a in axes)


def _kidney(at: Frame, body: _Body, side: int) -> Floats:
    center, axes, half = _kidney_axis(body, side)
    along, front, flank = _turned(at, center, axes)
    bent = flank + 0.0032 * np.square(along)
    inside = _ellipsoid((along, front, bent), (0, 0, 3), (half, 0.44 * half, 0.5 * half))
    hilum = _ellipsoid((along, front, flank), (0, 2, -0.62 * half), (0.3 * half, 0.22 * half, 0.42 * half))
    return _both(inside, -hilum, 4)


def _spleen(at: Frame, body: _Body, cavity: Floats) -> Floats:
    s = body.spleen
    inside = _ellipsoid(at, (52, 38, 108), (56 * s, 54 * s, 42 * s))
    inside = _both(inside, cavity - (2 + 0.6 * body.ascites), 6)
    inside = _both(inside, _below_diaphragm(at, body) - (3 + 0.4 * body.ascites), 6)
    inside = _both(inside, -_ellipsoid(at, (45, -2, 62), (60, 46, 46)), 5)
    return _both(inside, -_kidney(at, body, 1) - 4, 5)


# Attenuation in HU of blood and organs by phase; each is drawn around its value.
_HU = {
    "none": {
        "aorta": 42, "cava": 40, "portal": 42, "liver": 57, "spleen": 48, "pancreas": 42, "cortex": 33, "medulla": 31,
        "muscle": 54, "wall": 38, "adrenal": 25, "bone": 170,
    },
    "arterial": {
        "aorta": 310, "cava": 95, "portal": 120, "liver": 76, "spleen": 132, "pancreas": 112, "cortex": 195,
        "medulla": 95, "muscle": 60, "wall": 75, "adrenal": 70, "bone": 185,
    },
    "portal": {
        "aorta": 165, "cava": 150, "portal": 175, "liver": 112, "spleen": 122, "pancreas": 96, "cortex": 188,
        "medulla": 168, "muscle": 64, "wall": 85, "adrenal": 70, "bone": 185,
    },
}  # fmt: skip


def _attenuation(body: _Body, rng: np.random.Generator) -> dict[str, float]:
    hu = {name: value * rng.uniform(0.92, 1.08) for name, value in _HU[body.phase].items()}
    fatty = rng.uniform(8, 18) if rng.random() < 0.2 else 0.0
    return hu | {"liver": hu["liver"] - fatty}


# ---------------------------------------------------------------------------------------------------------- painting


def _smooth_path(nodes: Points, step: float = 7.0) -> Floats:
    """Returns (N, 3) points about every ``step`` mm of a curve near ``nodes``."""
    nodes = np.asarray(nodes, dtype=np.float64)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
    at = np.linspace(0, length[-1], max(3, int(length[-1] / step) + 1))
    path = np.stack([np.interp(at, length, column) for column in nodes.T], axis=1)
    return ndimage.gaussian_filter1d(path, 1.6, axis=0, mode="nearest")


def _spine_y(z: Floats) -> Floats:
    return 52 - 8 * np.exp(-np.square((z + 85) / 60)) + 9 * np.square(np.clip((-140 - z) / 40, 0, None))


def _paint_trunk(canvas: _Canvas, hu: dict[str, float]) -> tuple[Floats, Floats]:
    """Returns mm inside of the muscles' outer surface and of the cavity, on the grid."""
    body = canvas.body
    wall, cavity = np.empty_like(canvas.hu), np.empty_like(canvas.hu)
    for box, at in canvas.pieces([-1e3] * 3, [1e3] * 3):
        _, y, x = at
        outer = wall[box] = _wall(at)
        inner = cavity[box] = _cavity(at, outer)
        fat = body.fat * (0.65 + 0.35 * np.clip(y / 60, -0.6, 1) + 0.2 * np.square(x / 140))
        skin = outer + fat + 2.5
        canvas.paint(box, skin, np.where(skin < 2.2, np.float32(10), np.float32(_FAT)))
        # Fat between the three muscles of the flank, none where they end in the tendon of the front.
        layers = np.clip(1 - np.abs(np.abs(outer - 6) - 2.2), 0, 1) * np.clip((np.abs(x) - 70) / 20, 0, 1)
        line = np.clip(1.5 - np.abs(x) / 3, 0, 1) * (y < 0)
        canvas.paint(box, outer, hu["muscle"] - 75 * np.maximum(layers, line))
        canvas.paint(box, inner, _FAT + 4)
    # The table: a thin shell with foam inside, hollow to the patient.
    back = 104 * body.scale[1] + 1.15 * body.fat + 6
    table = canvas.box((-1e4, back - 30, -1e4), (1e4, 1e4, 1e4))
    _, y, x = canvas.offsets(table, (0, 0, 0))
    deep = np.where(np.abs(x) < 215, y + 0.0009 * np.square(x) - np.float32(back), np.float32(-50))
    air = np.where(canvas.hu[table] < -600, np.float32(50), np.float32(-50))
    shell = np.where(np.abs(deep - 17) > 15, np.float32(-150), np.float32(-930))
    canvas.paint(table, np.minimum(np.minimum(deep, 34 - deep), air), shell)
    for side in (-1, 1):
        for box, (z, y, x) in canvas.pieces((-400, 50, side * 34 - 34), (400, 106, side * 34 + 34)):
            muscle = _ellipsoid((z * 0, y - _spine_y(z), x), (0, 34, side * 31), (1e4, 20, 28))
            canvas.paint(box, np.minimum(muscle, wall[box]), hu["muscle"] - 4)
        for box, (z, y, x) in canvas.pieces((-240, 20, side * 50 - 40), (10, 80, side * 50 + 40)):
            middle = y - _spine_y(z)
            grow = np.clip((5 - z) / 130, 0, 1)
            size = 0.35 + 0.65 * grow
            psoas = _ellipsoid(
                (z * 0, (middle + 2) / size, (x - side * (32 + 12 * grow)) / size), (0, 0, 0), (1e4, 22, 18)
            )
            canvas.paint(box, np.minimum(psoas, 5 - z), hu["muscle"] + 2)
            square = _ellipsoid((z * 0, middle, x), (0, 22, side * 62), (1e4, 9, 19))
            canvas.paint(box, np.minimum(square, 5 - z), hu["muscle"])
    return wall, cavity


def _paint_chest(canvas: _Canvas, hu: dict[str, float], cavity: Floats, rng: np.random.Generator) -> None:
    for box, at in canvas.pieces((-5, -130, -170), (260, 130, 170)):
        _, y, x = at
        below, inner = _below_diaphragm(at, canvas.body), cavity[box]
        middle = np.sqrt(np.square(x - 6) + np.square(0.55 * (y - 12))) - 30
        canvas.paint(box, np.minimum(inner, 3.5 - below), hu["muscle"])
        canvas.paint(box, _both(_both(inner - 1, -below, 4), middle, 5), -850)
    for point in canvas.physical(rng.uniform((118, -60, -105), (150, 60, 105), (26, 3))):
        ends = np.stack([point, point + rng.normal(0, 1, 3) * (16, 9, 9)])
        canvas.paint(*canvas.tube(ends, rng.uniform(0.8, 2.0, 2)), -20)
    blood = 0.6 * hu["cava"] + 0.4 * hu["aorta"]
    for box, at in canvas.pieces((80, -100, -60), (220, 30, 100)):
        heart = _both(_ellipsoid(at, (148, -36, 20), (52, 56, 68)), -_below_diaphragm(at, canvas.body), 4)
        canvas.paint(box, heart + 4, _FAT)
        canvas.paint(box, heart, blood)


def _paint_bones(canvas: _Canvas, hu: dict[str, float], wall: Floats) -> None:
    for box, (z, y, x) in canvas.pieces((-400, 15, -50), (400, 125, 50)):
        y = y - _spine_y(z)
        level = np.abs(np.mod(z + 17, 34) - 17)
        plane = (1 - np.sqrt(np.square(x / (24 - 0.012 * np.square(13 - level))) + np.square(y / 17.5))) * 18
        canvas.paint(box, plane - 0.5, 78)
        bone = _both(plane, 13.5 - level, 1.5)
        ring = np.sqrt(np.square(x) + np.square(y - 27))
        arch = np.minimum(3.2 - np.abs(ring - 12), np.float32(12.5) - level)
        spinous = np.minimum(np.minimum(3.4 - np.abs(x), 11 - np.abs(y - 44)), 10 - level)
        across = np.minimum(np.minimum(42 - np.abs(x), 3.5 - np.abs(y - 25)), np.minimum(4.5 - level, np.abs(x) - 12))
        arch = np.maximum(np.maximum(arch, spinous), across)
        canvas.paint(box, 10 - ring, 15)
        canvas.paint(box, arch, 420 - 120 * np.clip(arch / 3, 0, 1))
        canvas.paint(box, bone, hu["bone"] + 260 * np.clip(1.6 - bone / 1.5, 0, 1))

    for box, (z, y, x) in canvas.pieces((-400, -90, -160), (-80, 115, 160)):
        angle = np.degrees(np.arctan2(np.abs(x), y - 12))
        crest = -104 - 0.013 * np.square(angle - 75) - z
        limits = np.minimum(angle - 30, 122 - angle) * 1.2
        canvas.paint(box, np.minimum(np.minimum(crest - 8, limits), 16 - np.abs(wall[box] - 16)), hu["muscle"])
        plate = np.minimum(np.minimum(crest, limits), 4.5 - np.abs(wall[box] - 13))
        canvas.paint(box, plate, 560 - 330 * np.clip(plate / 3, 0, 1))

    for side in (-1, 1):
        for number, end in ((12, 58), (11, 86), (10, 122), (9, 138), (8, 148), (7, 150)):
            phi = np.radians(np.linspace(14, end, end // 9))
            top = 40 + 31 * (12 - number) - 78 * (1 - np.cos(np.clip(phi / np.radians(150), 0, 1) * np.pi)) / 2
            y, x = np.cos(phi), side * np.sin(phi)
            radius = _wall((top, y, x)) + 1 - 7.5
            nodes = canvas.physical(np.stack([top, radius * y, radius * x], axis=1))
            tube, inside = canvas.tube(nodes, np.full(len(nodes), 5.0 if number < 12 else 4.0))
            canvas.paint(tube, inside, 560 - 330 * np.clip((inside - 0.5) / 2, 0, 1))


def _paint_fluid(canvas: _Canvas, cavity: Floats, rng: np.random.Generator) -> None:
    """Paints free fluid where organs will not be: it stays in ``canvas.fluid`` as far as nothing lies over it."""
    body = canvas.body
    value, level = rng.uniform(2, 18), rng.uniform(-6, 6)
    if body.severity is None:
        return
    for box, at in canvas.pieces((-1e3, -110, -160), (130, 80, 160)):
        z, y, x = at
        inner = cavity[box]
        # The peritoneal cavity ends behind at the kidneys and the spine, further back in the gutters of the flanks.
        back = np.where(np.abs(x) > 78, np.float32(62), np.float32(20) + np.clip(np.abs(x) - 55, 0, None))
        room = _both(np.minimum(inner, back - y), _below_diaphragm(at, body) - 3, 3)
        rim = body.ascites + 1 - inner
        if body.severity == "large":
            gut = _ellipsoid(at, (-72, -24, 0), (92, 40, 76))
            fluid = np.maximum(rim, -gut)
        else:
            gutters = np.minimum(np.minimum(body.ascites + 5 - inner, np.abs(x) - 72), y + 25)
            waves = 9 * np.sin(x / 19 + level) * np.sin(y / 16 - level) + 5 * np.sin(x / 8 + y / 11)
            pelvis = 0.6 * (level - 138 + (8 if body.severity == "moderate" else -8) - z + 0.7 * y + waves)
            liver = np.minimum(np.minimum(rim, 70 - z), np.float32(-20) - x)
            if body.severity == "moderate":
                fluid = np.maximum(np.maximum(gutters, pelvis), np.minimum(np.minimum(rim, np.abs(x) - 50), z + 60))
            elif body.site == "pelvis":
                fluid = np.maximum(pelvis, np.minimum(np.minimum(gutters + 5, np.abs(x) - 72), -95 - z))
            else:
                fluid = np.maximum(liver, np.minimum(np.minimum(gutters, -20 - x), 40 - np.abs(z + 45)))
        inside = np.minimum(fluid, room)
        if body.ascites:
            # Morison's pouch, between the liver and the right kidney.
            pouch = _kidney(at, body, -1)
            pouch = np.minimum(np.minimum(pouch + 4 + 0.9 * body.ascites, -pouch), 50 - y - 0.3 * (x + 66))
            inside = np.maximum(inside, np.minimum(np.minimum(pouch, -34 - x), inner))
        canvas.paint(box, inside, value)
        canvas.fluid[box] = inside > 0


def _fill_gut(canvas: _Canvas, box: Box, inside: Floats, wall: float, thick: float, content: float, gas: float) -> None:
    """Paints a piece of gut; ``gas`` is the share of its height that is gas, at the front of who lies on the back."""
    canvas.paint(box, inside, wall)
    rows = np.flatnonzero((inside > 0).any((0, 2)))
    if not rows.size:
        return
    y = canvas.axes[1][box[1]]
    level = y[rows[0]] + gas * (y[rows[-1]] - y[rows[0]])
    part = canvas.cover(np.broadcast_to((level - y)[:, None], inside.shape))
    canvas.paint(box, inside - thick, content + part * (-960 - content))


def _paint_gut(canvas: _Canvas, hu: dict[str, float], rng: np.random.Generator) -> None:
    body = canvas.body
    oral = rng.random() < 0.35
    front = -14.0 if body.severity == "large" else 0.0

    # The mesentery: its vessels run from its root to the loops.
    root = np.array((-20.0, -10.0, 2.0))
    for _ in range(16):
        end = rng.uniform((-150, -60, -70), (-50, -10, 70))
        bend = root + 0.55 * (end - root) + rng.normal(0, 7, 3)
        nodes = canvas.physical(np.stack([root, bend, end]))
        canvas.paint(*canvas.tube(nodes, (2.6, 2.0, 1.2)), hu["portal"])

    low, high = np.array((-212, -72 + front, -84)), np.array((-34, 8 + front, 92))
    for _ in range(30):
        point, heading = rng.uniform(low, high), rng.normal(0, 1, 3)
        path = [point]
        for _ in range(8):
            heading = heading + rng.normal(0, 0.75, 3)
            heading *= 13 / np.linalg.norm(heading)
            heading = np.where((path[-1] + heading < low) | (path[-1] + heading > high), -heading, heading)
            path.append(path[-1] + heading)
        nodes = canvas.physical(_smooth_path(path, 8))
        radii = rng.uniform(9, 13.5) * (1 + 0.1 * rng.standard_normal(len(nodes))).clip(0.8, 1.2)
        content = rng.uniform(180, 320) if oral and rng.random() < 0.6 else rng.uniform(8, 34)
        gas = rng.uniform(0.2, 0.6) if rng.random() < 0.22 else 0.0
        _fill_gut(canvas, *canvas.tube(nodes, radii), hu["wall"], 2.4, content, gas)

    flank = 100 - 0.55 * body.ascites
    colon = [
        [(-158, 0, -80), (-140, 12, -flank), (-100, 20, -flank - 2), (-55, 22, -flank), (-34, 4, -90), (-40, -25, -76)],
        [(-40, -25, -76), (-52, -58, -50), (-62, -70, 0), (-42, -66, 48), (-8, -42, 78), (12, -12, 94)],
        [(12, -12, 94), (4, 18, flank + 6), (-50, 34, flank + 6), (-110, 26, flank + 4), (-150, 10, 92)],
        [(-150, 10, 92), (-172, 4, 66), (-180, 8, 34), (-196, 12, 10)],
    ]
    for piece, radius in zip(colon, (21, 18, 15, 13), strict=True):
        nodes = canvas.physical(_smooth_path(np.array(piece, dtype=np.float64) + rng.normal(0, 3, 3), 6))
        swell = 1 + 0.16 * np.sin(np.arange(len(nodes)) * 6 / rng.uniform(4, 5.5) + rng.uniform(0, 6))
        box, inside = canvas.tube(nodes, radius * rng.uniform(0.8, 1.15) * swell)
        stool = rng.random() < 0.65
        content = rng.uniform(20, 60) if stool else rng.uniform(5, 25)
        _fill_gut(canvas, box, inside, hu["wall"], 2.6, content, rng.uniform(0.15, 0.7) if rng.random() < 0.7 else 0.0)
        for node in nodes[rng.integers(0, len(nodes), 22 if stool else 0)]:
            at = node + rng.normal(0, 0.33 * radius, 3)
            ends = np.stack([at, at + rng.normal(0, 4, 3)])
            bubble, round_ = canvas.tube(ends, rng.uniform(1.2, 3.2, 2))
            view = canvas.hu[bubble]
            view -= canvas.cover(round_) * (view > -50) * (view < 120) * np.float32(rng.uniform(120, 500))

    stomach = np.array([(76.0, 24, 66), (48, 0, 72), (16, -38, 60), (0, -56, 32), (-4, -52, 2), (-4, -38, -22)])
    stomach[:, 1] += front / 2
    nodes = canvas.physical(_smooth_path(stomach, 9))
    radii = np.interp(np.linspace(0, 5, len(nodes)), np.arange(6), (33, 33, 27, 20, 15, 9)) * rng.uniform(0.72, 1.02)
    content = rng.uniform(180, 300) if oral else rng.uniform(0, 35)
    tube = canvas.tube(nodes, radii)
    _fill_gut(canvas, *tube, hu["wall"], rng.uniform(3, 5), content, rng.uniform(0.1, 0.5))
    duodenum = [
        (-4, -38, -22), (-10, -24, -42), (-28, -4, -56), (-52, 4, -54), (-68, 6, -32), (-68, -4, 0), (-52, -8, 28)
    ]  # fmt: skip
    tube = canvas.tube(canvas.physical(_smooth_path(duodenum)), np.full(len(_smooth_path(duodenum)), 10.5))
    _fill_gut(canvas, *tube, hu["wall"], 2.6, content if oral else rng.uniform(5, 30), 0.0)


_AORTA = np.array([(220, 34, 18), (160, 32, 15), (100, 28, 12), (40, 22, 9), (-40, 15, 6), (-100, 12, 4)], dtype=float)
_CAVA_NODES = np.array(
    [(112, 2, -20), (95, 10, -23), (60, 16, -22), (20, 19, -21), (-40, 20, -19), (-104, 22, -13)], float
)
_PORTAL = np.array([(-95, -18, -6), (-45, -12, -9), (-14, -3, -11), (8, -3, -20), (27, -8, -36)], dtype=float)
_SPLENIC = np.array([(-12, -3, -8), (2, -11, 4), (24, -11, 24), (46, 4, 46), (60, 24, 64), (66, 36, 84)], dtype=float)


def _paint_vessels(canvas: _Canvas, hu: dict[str, float], rng: np.random.Generator) -> None:
    body = canvas.body

    def tube(nodes: Points, radii: Sequence[float], value: str) -> None:
        path = _smooth_path(nodes)
        widths = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(radii)), radii)
        canvas.paint(*canvas.tube(canvas.physical(path), widths), hu[value])

    r = body.aorta
    for side in (-1, 1):
        tube([(-104, 22, -13), (-135, 28, side * 24), (-190, 34, side * 46)], (8, 7, 7), "cava")
        index = 0 if side < 0 else 1
        hilum = np.array([(-26.0, -12.0)[index] + body.kidney_shift[index], 36, side * 46.0])
        z, y, x = hilum.tolist()
        tube([(z + 4, 18, side * 8 - 8), (z + 2, y - 10, x - side * 10), (z, y, x)], (5, 4.5, 4), "cava")
        tube([(z + 8, 17, 6), (z + 4, y - 4, x - side * 12), (z, y + 2, x)], (2.6, 2.4, 2.2), "aorta")
    tube(_CAVA_NODES, (12, 12, 11, 11, 11, 10), "cava")
    for side in (-1, 1):
        tube([(-98, 12, 4), (-132, 17, 4 + side * 22), (-190, 24, side * 50)], (0.62 * r, 0.55 * r, 0.5 * r), "aorta")
    tube(_AORTA, (1.25 * r, 1.2 * r, 1.1 * r, r, 0.9 * r, 0.85 * r), "aorta")
    tube([(4, 10, 8), (-12, -5, 7), (-95, -18, 5)], (3.6, 3.4, 2.4), "aorta")
    tube([(20, 12, 9), (22, -4, 8)], (3.6, 3.4), "aorta")
    tube([(22, -4, 8), (30, -2, 40), (52, 18, 66), (66, 34, 86)], (2.8, 2.6, 2.4, 2.0), "aorta")
    tube([(22, -4, 8), (14, -12, -16), (26, -14, -34)], (2.5, 2.3, 2.1), "aorta")
    tube(_SPLENIC, (4.5, 4.5, 4.2, 3.8), "portal")
    tube(_PORTAL, (5.5, 6, 7, 7, 6.5), "portal")
    path = canvas.physical(_smooth_path(_AORTA[2:]))
    for node in path[rng.integers(0, len(path), int(max(0, body.age - 50) / 3))]:
        turn = rng.uniform(0, 2 * np.pi)
        at = node + 0.95 * r * np.array([0, np.sin(turn), np.cos(turn)])
        canvas.paint(*canvas.tube(np.stack([at, at + rng.normal(0, 2, 3)]), (1.1, 1.1)), rng.uniform(400, 800))


def _paint_pancreas(canvas: _Canvas, hu: dict[str, float], rng: np.random.Generator) -> None:
    path = _smooth_path(_PANCREAS, 4)
    radii = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(_PANCREAS)), _PANCREAS_RADII)
    size = rng.uniform(0.85, 1.12) * (1.0 - 0.12 * (canvas.body.age > 65))
    path = path + np.cumsum(rng.normal(0, 0.5, path.shape), 0) * 0.5
    lobules = 1 + 0.10 * rng.standard_normal(len(path)).clip(-1.5, 1.5)
    box, inside = canvas.tube(canvas.physical(path), radii * size * lobules)
    for point in canvas.physical(path)[rng.integers(0, len(path), 34)]:
        at = point + rng.normal(0, 5, 3)
        lobule, depth = canvas.tube(np.stack([at, at + rng.normal(0, 3, 3)]), rng.uniform(3, 5.5, 2))
        canvas.paint(lobule, depth, hu["pancreas"])
    canvas.paint(box, inside, hu["pancreas"])
    for point in canvas.physical(path)[rng.integers(0, len(path), int(10 + canvas.body.age / 3))]:
        turn = rng.normal(0, 1, 3)
        at = point + turn / np.linalg.norm(turn) * rng.uniform(6, 9)
        cleft, depth = canvas.tube(np.stack([at, at + rng.normal(0, 2.5, 3)]), (0.9, 0.9))
        view = canvas.hu[cleft]
        view -= canvas.cover(depth) * (view > 0) * 70


def _paint_kidneys(canvas: _Canvas, hu: dict[str, float], rng: np.random.Generator) -> None:
    for side in (-1, 1):
        center, axes, half = _kidney_axis(canvas.body, side)
        reach = np.array((66, 42, 42))
        for box, at in canvas.pieces(center - reach, center + reach):
            inside = _kidney(at, canvas.body, side)
            canvas.paint(box, inside, hu["cortex"])
            along, front, flank = _turned(at, center, axes)
            deep = inside - 6.5
            turn = np.arctan2(front, flank + 0.35 * half)
            columns = np.cos(along * np.float32(2 * np.pi / 17)) * np.cos(3 * turn)
            canvas.paint(box, np.minimum(deep, 2.5 + 5 * columns), hu["medulla"])
            sinus = _ellipsoid((along, front, flank), (0, 0, -0.24 * half), (0.52 * half, 0.15 * half, 0.24 * half))
            wave = 1.4 * np.cos(along * np.float32(2 * np.pi / 15)) * np.cos(2 * turn)
            canvas.paint(box, np.minimum(sinus + wave, inside + 6), _FAT + 15)
            pelvis = _ellipsoid((along, front, flank), (-2, 1, -0.3 * half), (0.26 * half, 4.2, 0.2 * half))
            canvas.paint(box, np.minimum(pelvis, inside + 8), 8)
        for offset in (-0.24, 0.0, 0.24):
            start = center + axes[0] * offset * 0.4 * half - axes[2] * 0.5 * half
            stop = center + axes[0] * offset * 1.5 * half - axes[2] * 0.1 * half
            canvas.paint(*canvas.tube(canvas.physical(np.stack([start, stop])), (2.2, 1.6)), hu["cava"])
        # Adrenal: two limbs on a body, above and in front of the upper pole.
        top = center + axes[0] * (half + 4) + (0, -14, -side * 8)
        for limb in ((-4, 16, -side * 3), (-6, 12, side * 9), (2, -8, -side * 2)):
            ends = canvas.physical(np.stack([top, top + np.array(limb) + rng.normal(0, 1, 3)]))
            canvas.paint(*canvas.tube(ends, (2.6, 1.8)), hu["adrenal"])


def _paint_spleen(canvas: _Canvas, hu: dict[str, float], cavity: Floats) -> None:
    s = canvas.body.spleen
    for box, at in canvas.pieces((52 - 58 * s, 38 - 56 * s, 108 - 44 * s), (52 + 58 * s, 38 + 56 * s, 108 + 44 * s)):
        inside = _spleen(at, canvas.body, cavity[box])
        value: float | Floats = hu["spleen"]
        if canvas.body.phase == "arterial":
            # Red and white pulp fill at different speeds.
            z, y, x = at
            value = value + 22 * np.sin(y / 4.5 + np.sin(z / 9)) * np.cos(x / 5 + np.sin(y / 11) + z / 13)
        canvas.paint(box, inside, value)


def _paint_liver(
    canvas: _Canvas, hu: dict[str, float], cavity: Floats, placed: Sequence[_Placed], rng: np.random.Generator
) -> None:
    body = canvas.body
    for box, at in canvas.pieces((-110, -110, -150), (140, 110, 95)):
        inside = _liver(at, body, cavity[box])
        canvas.paint(box, inside, hu["liver"])
        z, y, x = at
        cleft = np.minimum(2.2 - np.abs(x - 2 - 0.15 * (y + 60)), np.minimum(-58 - y, 60 - z))
        canvas.paint(box, np.minimum(cleft, inside + 4), _FAT + 30)

    balls = [(np.array(p.center), p.diameter / 2) for p in placed]

    def free(a: Floats, b: Floats, radius: float) -> bool:
        share = np.linspace(0, 1, 7)[:, None]
        points = a + share * (b - a)
        return all(np.linalg.norm(points - c, axis=1).min() > r + radius + 2.5 for c, r in balls)

    def grow(start: Floats, heading: Floats, length: float, radius: float, value: float, depth: int) -> None:
        """Paints a branch and, where it stays inside of the liver and clear of lesions, those that leave it."""
        turned = heading + rng.normal(0, 0.45, (5, 3))
        turned /= np.linalg.norm(turned, axis=1)[:, None]
        z, y, x = (start + turned * length).T
        within = np.flatnonzero(_liver((z, y, x), body) > 7)
        if not within.size:
            return
        turned = turned[within[0]]
        stop = start + turned * length
        point = canvas.physical(np.stack([start, stop]))
        if not free(point[0], point[1], radius):
            return
        canvas.paint(*canvas.tube(point, (radius, 0.8 * radius)), value)
        if depth:
            for _ in range(2):
                away = turned + rng.normal(0, 0.6, 3)
                grow(stop, away, length * rng.uniform(0.7, 0.95), radius * rng.uniform(0.6, 0.8), value, depth - 1)

    veins = hu["cava"] if body.phase != "arterial" else 0.5 * (hu["cava"] + hu["liver"]) - 4
    cava = np.array((93.0, 8.0, -24.0))
    for heading in ((-0.25, 0.15, -0.95), (-0.3, -0.75, -0.25), (-0.2, -0.65, 0.75)):
        grow(cava, np.array(heading), 34, 5.0, veins, 3)
    hilum = np.array((27.0, -8.0, -36.0))
    for heading in ((0.25, -0.1, -1.0), (0.7, -0.5, 0.7), (0.1, -0.5, -0.8)):
        grow(hilum, np.array(heading), 28, 5.5, hu["portal"], 3)
    bladder = np.array([(6, -40, -38), (-10, -50, -43), (-28, -56, -46)], dtype=float)
    bladder[:, 0] += 60 * (1 - body.liver) * 0.6
    full = rng.uniform(0.75, 1.2)
    tube, depth = canvas.tube(canvas.physical(bladder), np.array((7, 12, 13)) * full)
    if all(np.linalg.norm(canvas.physical(bladder) - c, axis=1).min() > r + 16 for c, r in balls):
        canvas.paint(tube, depth + 1.2, hu["wall"])
        canvas.paint(tube, depth, rng.uniform(2, 16))


# ----------------------------------------------------------------------------------------------------------- lesions


def _diameter(rng: np.random.Generator, largest: float) -> float:
    return float(rng.uniform(5, 15) if rng.random() < 0.5 else rng.uniform(15, largest))


def _appearance(
    rng: np.random.Generator, observation: str, body: _Body, hu: dict[str, float], diameter: float
) -> tuple[str, float, float, float]:
    """Returns the kind of a lesion, its HU, those of its rim, and its diameter in mm.

    The smaller it is and the noisier the scan, the more contrast it has against its organ: at least 25 HU and
    ``noise * (1 + 15 mm / diameter)``. What its kind cannot give, a larger diameter makes up for, up to 35 mm.
    """
    background = {
        "liver_lesion": hu["liver"],
        "kidney_lesion": min(hu["cortex"], hu["medulla"]) if body.phase != "none" else hu["cortex"],
        "pancreas_lesion": hu["pancreas"],
    }[observation]
    needed = max(25.0, body.noise * (1 + 15 / diameter))
    cyst = min(rng.uniform(0, 15), background - 28)
    draw, contrast = rng.random(), rng.uniform(28, 52)
    if observation == "liver_lesion" and body.phase == "arterial" and draw > 0.66:
        kind, value = "hypervascular", background + max(needed, contrast + 15)
    elif observation == "kidney_lesion" and body.phase == "none" and draw > 0.6:
        kind, value = "hyperdense cyst", background + max(needed, contrast + 8)
    elif observation == "kidney_lesion" and body.phase != "none" and draw > 0.55:
        kind, value = "mass", background - max(needed, contrast) - (35 if body.phase == "portal" else 0)
    elif observation != "kidney_lesion" and draw > 0.4:
        kind, value = "mass", background - max(needed, contrast)
    else:
        kind, value = "cyst", cyst
    if kind == "mass" and value < 18:
        kind, value = "cyst", cyst
    contrast = abs(background - value)
    if contrast < needed:
        diameter = min(max(diameter, 15 * body.noise / max(contrast - body.noise, 1.0)), 35.0)
    rim = value + (0.25 * (background - value) if kind == "mass" and diameter >= 12 else 0.0)
    return kind, value, rim, diameter


def _axes(rng: np.random.Generator, diameter: float, kind: str) -> NDArray[np.float64]:
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    least = 0.88 if "cyst" in kind else 0.76
    return turn / (np.array([1.0, *rng.uniform(least, 1, 2)])[:, None] * diameter / 2)


def _candidates(canvas: _Canvas, rng: np.random.Generator, low: Floats, high: Floats) -> tuple[Floats, Frame]:
    """Returns 600 random points between two corners of the frame, in grid millimetres and in the frame."""
    points = rng.uniform(low, high, (600, 3))
    z, y, x = points.T
    return canvas.physical(points), (z, y, x)


def _clear(points: Floats, others: Sequence[tuple[Floats, float]]) -> NDArray[np.bool_]:
    """Returns which points lie farther from each path (N, 3) than its distance."""
    good = np.ones(len(points), bool)
    for path, distance in others:
        good &= np.linalg.norm(points[:, None] - path[None], axis=2).min(1) > distance
    return good


_PANCREAS_PARTS = {"pancreatic head": (0.2, 1.4), "pancreatic body": (2.6, 4.4), "pancreatic tail": (5.4, 6.8)}


def _fit(
    canvas: _Canvas, rng: np.random.Generator, observation: str, radius: float, taken: Sequence[_Placed]
) -> tuple[Floats, str, int] | None:
    """Returns a centre in grid millimetres where a lesion fits, its location and its side."""
    body = canvas.body
    apart = [(np.array([p.center]), radius + p.diameter / 2 + 6) for p in taken]
    if observation == "liver_lesion":
        lobe = -1 if rng.random() < 0.6 else 1
        points, at = _candidates(canvas, rng, np.array((-60, -90, -130)), np.array((120, 80, 80)))
        trunks = [
            (canvas.physical(_smooth_path(_CAVA_NODES[:4])), radius + 16),
            (canvas.physical(_PORTAL[-2:]), radius + 14),
            (canvas.physical([(-10, -50, -43), (-28, -56, -46), (6, -40, -38)]), radius + 18),
        ]
        plane = -lobe * _right_of_cantlie(at)
        good = (_liver(at, body) > 1.06 * radius + 3) & (plane > 5) & _clear(points, [*apart, *trunks])
        name, side = ("right" if lobe < 0 else "left") + " hepatic lobe", 0
        names = np.full(len(points), name)
    elif observation == "kidney_lesion":
        side = -1 if rng.random() < 0.5 else 1
        center, axes, half = _kidney_axis(body, side)
        reach = np.array((72, 45, 45))
        points, at = _candidates(canvas, rng, center - reach, center + reach)
        along, front, flank = _turned(at, center, axes)
        depth = _kidney(at, body, side)
        cavity = _cavity(at, _wall(at))
        outside = radius > 9 or body.phase == "none" or (radius > 5 and rng.random() < 0.4)
        sinus = _ellipsoid((along, front, flank), (0, 0, -0.24 * half), (0.52 * half, 0.15 * half, 0.24 * half))
        if outside:
            good = (depth > 0.1 * radius) & (depth < 0.55 * radius) & (flank > -0.15 * half)
        else:
            good = (depth > 0.9 * radius + 1) & (sinus < -0.8 * radius)
        share = along / half
        good &= (np.abs(np.abs(share) - 1 / 3) * half > 3) & (cavity > radius)
        neighbour = _liver(at, body, cavity) if side < 0 else _spleen(at, body, cavity)
        good &= (neighbour < -0.8 * radius) & (_below_diaphragm(at, body) > radius + 3) & _clear(points, apart)
        pole = int(rng.integers(3))
        names = np.select([share > 1 / 3, share < -1 / 3], ["upper pole", "lower pole"], "interpolar region")
        wanted = names == ("upper pole", "lower pole", "interpolar region")[pole]
        good = good & wanted if (good & wanted).any() else good
    else:
        name, (low, high) = list(_PANCREAS_PARTS.items())[int(rng.integers(3))]
        share = rng.uniform(low, high, 600)
        points = np.stack([np.interp(share, np.arange(len(_PANCREAS)), column) for column in _PANCREAS.T], axis=1)
        # Small ones lie within the gland, where fat beside them does not hide them; large ones bulge to the front.
        points = points + rng.normal(0, 1, points.shape) * (1.8, 1.2, 1.2) - (0, 0.5 * max(radius - 6, 0), 0)
        at, points = tuple(points.T), canvas.physical(points)
        near = ((_AORTA, body.aorta + 2), (_CAVA_NODES, 12), (_PORTAL, 4), (_SPLENIC, 1))
        trunks = [(canvas.physical(_smooth_path(path, 4)), radius + gap) for path, gap in near]
        good = _clear(points, [*apart, *trunks]) & (_cavity(at, _wall(at)) > radius + 2)
        names, side = np.full(len(points), name), 0
    chosen = np.flatnonzero(good)
    if not chosen.size:
        return None
    first = int(chosen[0])
    return points[first], str(names[first]), side


def _place(canvas: _Canvas, wanted: frozenset[str], hu: dict[str, float], rng: np.random.Generator) -> list[_Placed]:
    placed: list[_Placed] = []
    for observation in DRAWN[:3]:
        if observation not in wanted:
            continue
        many = [1.0, 0.0, 0.0] if observation == "pancreas_lesion" else [0.5, 0.28, 0.22]
        for _ in range(int(rng.choice([1, 2, 3], p=many))):
            drawn = _diameter(rng, 35 if observation == "pancreas_lesion" else 40)
            if observation == "kidney_lesion" and canvas.body.phase == "none":
                drawn = max(drawn, 12.0)
            kind, value, rim, diameter = _appearance(rng, observation, canvas.body, hu, drawn)
            for attempt in range(24):
                # Where it fits nowhere it is smaller.
                size = diameter if attempt < 6 else max(diameter * 0.93 ** (attempt - 5), 5.0)
                found = _fit(canvas, rng, observation, size / 2, placed)
                if found is not None:
                    center, location, side = found
                    placed.append(
                        _Placed(
                            observation=observation,
                            center=(float(center[0]), float(center[1]), float(center[2])),
                            diameter=size,
                            axes=_axes(rng, size, kind),
                            kind=kind,
                            value=value,
                            rim=rim,
                            location=location,
                            side=side,
                        )
                    )
                    break
    return placed


def _lesion_inside(canvas: _Canvas, lesion: _Placed) -> tuple[Box, Floats]:
    """Returns mm inside of a lesion, and its box."""
    center, radius = np.array(lesion.center), lesion.diameter / 2 + 3
    box = canvas.box(center - radius, center + radius)
    at = canvas.offsets(box, center)
    unit = lesion.axes * (lesion.diameter / 2)
    radii = lesion.diameter / 2 / np.linalg.norm(unit, axis=1)
    turned = _turned(at, np.zeros(3), unit / np.linalg.norm(unit, axis=1)[:, None])
    return box, _ellipsoid(turned, (0, 0, 0), radii.tolist())


# -------------------------------------------------------------------------------------------------------------- scan


def _noise(canvas: _Canvas, spacing: tuple[float, float, float], rng: np.random.Generator) -> Floats:
    """Returns noise correlated over about 2 mm in the plane.

    The level of 8 mm^3 voxels grows with their volume to the power -1/4 (thin slices are noisier, but a kernel chosen
    for them hides part of it), and is bounded to twice the level.
    """
    noise = rng.standard_normal(canvas.hu.shape, dtype=np.float32)
    gain = 1.0
    for axis, step in ((1, spacing[1]), (2, spacing[2])):
        sigma = 0.85 / step
        at = np.arange(-int(2 * sigma + 1), int(2 * sigma + 1) + 1)
        kernel = np.exp(-0.5 * (at / sigma) ** 2)
        kernel /= kernel.sum()
        gain *= float(np.sqrt((kernel**2).sum()))
        noise = ndimage.correlate1d(noise, kernel.astype(np.float32), axis=axis, mode="wrap")
    level = canvas.body.noise * min(2.0, (8.0 / float(np.prod(spacing))) ** 0.25)
    noise *= np.float32(level / gain)
    return noise


def _body(wanted: frozenset[str], rng: np.random.Generator) -> _Body:
    female = bool(rng.integers(2))
    size = rng.uniform(0.93, 1.07) * (0.95 if female else 1.0)
    fat = float(np.clip(rng.gamma(3.0, 6.0), 5, 38))
    wide = size * rng.uniform(0.95, 1.06) + 0.002 * fat
    # Photons that reach the detector fall with the size of the body; the dose follows only in part.
    noise = 12.5 * np.exp(0.02 * (fat - 15) + 3.0 * (wide - 1) + rng.normal(0, 0.28))
    severity, ascites, site = None, 0.0, "around the liver"
    if "free_fluid" in wanted:
        severity = str(rng.choice(["small", "moderate", "large"], p=[0.42, 0.33, 0.25]))
        site = str(rng.choice(["around the liver", "pelvis"], p=[0.6, 0.4]))
        ascites = rng.uniform(*{"small": (6.0, 8.0), "moderate": (8.0, 11.0), "large": (20, 28)}[severity])
        ascites = 0.0 if (severity, site) == ("small", "pelvis") else ascites
    kidneys = rng.uniform(0.9, 1.08)
    return _Body(
        female=female,
        age=float(rng.integers(20, 91)),
        scale=(size * rng.uniform(0.95, 1.05), wide * rng.uniform(0.95, 1.05), wide),
        tilt=(rng.normal(0, 0.025), rng.normal(0, 0.018), rng.normal(0, 0.025)),
        fat=fat,
        phase=str(rng.choice(["none", "arterial", "portal"], p=[0.25, 0.25, 0.5])),
        noise=float(np.clip(noise, 8, 25)),
        field=(rng.uniform(312, 328), rng.uniform(272, 288), rng.uniform(372, 388)),
        middle=(rng.uniform(-36, -18), rng.uniform(-8, 4), rng.uniform(-8, 8)),
        dome=rng.uniform(-12, 8),
        liver=rng.uniform(0.88, 1.14),
        spleen=rng.uniform(0.8, 1.1),
        kidneys=(kidneys * rng.uniform(0.95, 1.03), kidneys * rng.uniform(0.97, 1.05)),
        kidney_shift=(rng.uniform(-12, 8), rng.uniform(-10, 8)),
        aorta=rng.uniform(8.0, 10.5) * (0.92 if female else 1.0),
        severity=severity,
        ascites=ascites,
        site=site,
    )


def _findings(placed: Sequence[_Placed], severity: str | None, flip: int) -> tuple[Finding, ...]:
    sides = {-1: Side.RIGHT, 0: None, 1: Side.LEFT}
    found = []
    for observation in DRAWN[:3]:
        own = [p for p in placed if p.observation == observation]
        if not own:
            continue
        lesions = tuple(
            Lesion(
                center_mm=(flip * p.center[2], p.center[1], p.center[0]),
                diameter_mm=round(p.diameter, 1),
                laterality=sides[flip * p.side],
                location=p.location,
            )
            for p in own
        )
        lateralities, locations = {lesion.laterality for lesion in lesions}, {lesion.location for lesion in lesions}
        found.append(
            Finding(
                observation=observation,
                status=Status.PRESENT,
                laterality=Side.BILATERAL if len(lateralities) > 1 else lateralities.pop(),
                location=locations.pop() if len(locations) == 1 else None,
                count=len(lesions),
                measurement=Measurement(value=float(round(lesions[0].diameter_mm)), unit="mm"),
                lesions=lesions,
            )
        )
    if severity is not None:
        found.append(Finding(observation="free_fluid", status=Status.PRESENT, severity=severity))
    return tuple(found)


def draw(
    seed: int,
    *,
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0),
    findings: tuple[str, ...] | None = None,
    mirror: bool = False,
) -> DrawnVolume:
    """Draws an abdomen from the lung bases to the top of the pelvis.

    Args:
        seed: everything follows from it, 0 or more.
        spacing: mm between slices, rows and columns; the anatomy does not depend on it, only the noise does.
        findings: names of ``DRAWN`` to be present and no others, () for a normal abdomen; at random where ``None``.
        mirror: draw the mirror twin: the same patient with left and right exchanged throughout, organs included.

    Returns:
        One image, ``CT`` in HU, of about 320 x 280 x 380 mm.

    Raises:
        ValueError: a finding cannot be drawn, or a spacing is not above 0.
    """
    if findings is not None and set(findings) - set(DRAWN):
        raise ValueError(f"findings: expected names of {', '.join(DRAWN)}; found {sorted(set(findings) - set(DRAWN))}")
    if min(spacing) <= 0:
        raise ValueError(f"spacing: expected three numbers above 0, found {spacing}")
    choose, look, shape, lesions, paint, noise = (np.random.default_rng([seed, stream]) for stream in range(6))
    wanted = frozenset(findings) if findings is not None else frozenset()
    if findings is None and choose.random() >= NORMAL_SHARE:
        count = choose.choice([1, 2, 3], p=[0.5, 0.33, 0.17])
        wanted = frozenset(choose.choice(DRAWN, size=count, replace=False).tolist())
    body = _body(wanted, look)
    hu = _attenuation(body, look)
    canvas = _Canvas(body, spacing, shape)
    placed = sorted(_place(canvas, wanted, hu, lesions), key=lambda p: (DRAWN.index(p.observation), -p.diameter))

    wall, cavity = _paint_trunk(canvas, hu)
    _paint_chest(canvas, hu, cavity, paint)
    _paint_fluid(canvas, cavity, paint)
    _paint_gut(canvas, hu, paint)
    _paint_bones(canvas, hu, wall)
    _paint_vessels(canvas, hu, paint)
    _paint_pancreas(canvas, hu, paint)
    _paint_kidneys(canvas, hu, paint)
    _paint_spleen(canvas, hu, cavity)
    _paint_liver(canvas, hu, cavity, placed, paint)
    segmentation: NDArray[np.uint8] = np.zeros(canvas.hu.shape, np.uint8)
    segments = []
    sides = {-1: Side.RIGHT, 0: None, 1: Side.LEFT}
    flip = -1 if mirror else 1
    for number, lesion in enumerate(placed, start=1):
        box, inside = _lesion_inside(canvas, lesion)
        soft = 1.6 if lesion.kind == "mass" and lesion.diameter >= 12 else 1.0
        canvas.paint(box, inside, lesion.rim, soft)
        canvas.paint(box, inside - 0.13 * lesion.diameter, lesion.value, soft)
        segmentation[box][inside >= 0] = number
        segments.append(
            Segment(
                observation=lesion.observation,
                laterality=sides[flip * lesion.side],
                location=lesion.location,
                is_lesion=True,
            )
        )
    if body.severity is not None:
        segments.append(Segment(observation="free_fluid"))
        segmentation[canvas.fluid & (segmentation == 0)] = len(segments)
    canvas.hu += _noise(canvas, spacing, noise)
    image = np.clip(canvas.hu, -1024, 3071, out=canvas.hu)

    origin = [float(axis[0]) for axis in canvas.axes]
    if mirror:
        image, segmentation = np.ascontiguousarray(image[..., ::-1]), np.ascontiguousarray(segmentation[..., ::-1])
        origin[2] = -float(canvas.axes[2][-1])
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing)[::-1]
    affine[:3, 3] = origin[::-1]
    truth = _findings(placed, body.severity, flip)
    present = {finding.observation for finding in truth}
    return DrawnVolume(
        region="abdomen",
        seed=seed,
        patient=Patient(
            patient_id=f"abdomen-{seed}{'-mirrored' if mirror else ''}",
            sex=Sex.FEMALE if body.female else Sex.MALE,
            age_years=body.age,
        ),
        images={"CT": image},
        affine=affine,
        segmentation=segmentation,
        segments=tuple(segments),
        findings=truth,
        labels={name: Status.PRESENT if name in present else Status.ABSENT for name in DRAWN},
        contrast=None if body.phase == "none" else body.phase,
    )
