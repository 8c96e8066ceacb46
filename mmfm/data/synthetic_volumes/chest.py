"""Chest CT: a patient drawn in HU, with everything that is true of what was drawn.

Smooth organs are signed distances (mm) on a coarse grid of ``STEP`` mm that is fixed in the patient, interpolated where
the image is drawn: so no position depends on the spacing of the image. Vessels, bronchi and bones are chains of balls.
Every edge is a ramp about one voxel wide, as partial volume makes it.

Nominal frame: millimetres, ``x`` to the patient's left, ``y`` to the back, ``z`` to the head, 0 at the carina; the size
of the patient scales each axis, a few degrees of rotation follow. Figures of anatomy are rounded from textbook adult
values (inner thoracic width about 28 cm, cardiothoracic ratio under 0.5, normal lung -900 to -820 HU, fat -100, muscle
55, unenhanced blood 42); what matters is the look, not anthropometry.

    from mmfm.data.synthetic_volumes import chest
    drawn = chest.draw(7, findings=("nodule", "pleural_effusion"))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, ndimage, spatial

from mmfm.data.synthetic_volumes.drawing import DrawnVolume, Segment
from mmfm.report import Finding, Lesion, Measurement, Side, Status
from mmfm.study import Patient, Sex

Floats = NDArray[np.floating]

DRAWN = ("nodule", "pleural_effusion", "consolidation", "emphysema", "pneumothorax", "cardiomegaly", "fracture")
NEVER = (
    "medical_material",
    "arterial_calcification",
    "pericardial_effusion",
    "coronary_calcification",
    "hiatal_hernia",
    "lymphadenopathy",
    "atelectasis",
    "lung_opacity",
    "fibrosis",
    "mosaic_attenuation",
    "peribronchial_thickening",
    "bronchiectasis",
    "interlobular_septal_thickening",
    "mass",
)
"""Observations that are never shown: absent, unless something that is drawn may be read as one (``_labels``)."""
WEIGHTS = (0.30, 0.15, 0.14, 0.10, 0.10, 0.09, 0.12)
"""How often each of DRAWN is chosen where the seed decides."""
STEP = 4.0
"""Edge of a coarse voxel, mm."""
LOBE = {1: "upper lobe", 2: "middle lobe", 3: "lower lobe"}
SIDES = {-1: Side.RIGHT, 1: Side.LEFT}
BODY_Z = (-300, -200, -100, -50, 0, 30, 60, 80, 95, 115, 140)
"""Heights of the profiles of the muscle envelope below."""
BODY_A = (140, 146, 150, 149, 150, 155, 166, 172, 160, 105, 66)
BODY_B = (104, 111, 112, 110, 105, 98, 88, 80, 72, 64, 60)
BODY_C = (4, 4, 4, 5, 7, 10, 15, 19, 21, 20, 17)
CAGE_Z = (-300, -200, -160, -120, -80, -40, 0, 30, 60, 80, 95, 110)
"""Heights of the profiles of the inner rib cage: half width, half depth, centre."""
CAGE_A = (126, 132, 136, 138, 137, 132, 123, 111, 92, 74, 58, 40)
CAGE_B = (90, 94, 96, 95, 92, 87, 79, 70, 58, 48, 39, 28)
CAGE_C = (0, 0, -1, -2, -1, 2, 6, 12, 20, 27, 32, 36)


@dataclass(frozen=True, kw_only=True)
class Body:
    """One patient and one scan of it; every field varies from seed to seed."""

    female: bool
    age: float
    scale: Floats
    """Of x, y, z against the nominal frame."""
    angles: Floats
    """(3,) radians of rotation about x, y, z."""
    fat: float
    """Subcutaneous fat, mm."""
    inspiration: float
    """mm that both domes stand lower than nominal."""
    left_dome: float
    """mm that the left dome stands lower than the right."""
    ctr: float
    """Cardiothoracic ratio."""
    lung: float
    """HU of the lung at the middle."""
    blood: tuple[float, float]
    """HU of right and left heart with their vessels: apart when contrast is on its way."""
    enhancement: float
    """0 without contrast to 1: of liver, muscle and myocardium."""
    fissures: Floats
    """(6,) shifts and slopes of the fissures."""
    bone: float
    """HU of cancellous bone."""
    noise: float
    """Standard deviation in HU at 2 mm before the size of the body counts."""
    margin: Floats
    """(3,) offset in mm of the field of view, z, y, x."""


@dataclass(frozen=True)
class Grid:
    """Voxels along z, y, x."""

    origin: Floats
    """z, y, x in LPS mm of the centre of the first voxel."""
    spacing: Floats
    shape: tuple[int, int, int]

    def axis(self, n: int) -> Floats:
        """Returns the LPS mm of each voxel along axis ``n``."""
        return (self.origin[n] + self.spacing[n] * np.arange(self.shape[n])).astype(np.float32)

    def box(self, low: Floats, high: Floats) -> tuple[slice, slice, slice]:
        """Returns the voxels between two corners (z, y, x), cut to the grid."""
        first = np.clip(np.floor((low - self.origin) / self.spacing).astype(int), 0, self.shape)
        last = np.clip(np.ceil((high - self.origin) / self.spacing).astype(int) + 1, first, self.shape)
        return (slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2]))


class Canvas:
    """The volume while it is drawn: HU on the fine grid, coarse fields in the patient."""

    def __init__(self, fine: Grid, coarse: Grid) -> None:
        self.fine, self.coarse = fine, coarse
        self.hu = np.full(fine.shape, -1000, dtype=np.float32)
        self.edge = float(np.cbrt(np.prod(fine.spacing)))
        """Width of every edge in mm."""
        self._buffer = np.full(fine.shape, -1, dtype=np.float32)

    def lift(self, coarse: Floats, box: tuple[slice, ...] | None = None) -> Floats:
        """Returns a coarse field on the fine voxels of ``box``, linear between the coarse ones."""
        out = coarse
        for n in (2, 1, 0):
            at = self.fine.axis(n) if box is None else self.fine.axis(n)[box[n]]
            place = np.clip((at - self.coarse.origin[n]) / STEP, 0, self.coarse.shape[n] - 1.001)
            low = place.astype(np.int64)
            weight = (place - low).astype(np.float32).reshape([-1 if k == n else 1 for k in range(3)])
            first = out.take(low, axis=n)
            second = out.take(low + 1, axis=n)
            second -= first
            second *= weight
            first += second
            out = first
        return out

    def extent(self, distance: Floats) -> tuple[slice, ...] | None:
        """Returns the box of fine voxels around where a coarse distance is below zero, or None if nowhere."""
        inside = distance < self.edge
        if not inside.any():
            return None
        low, high = [], []
        for n in range(3):
            where = np.flatnonzero(inside.any(axis=tuple(k for k in range(3) if k != n)))
            low.append(self.coarse.origin[n] + STEP * (where[0] - 1))
            high.append(self.coarse.origin[n] + STEP * (where[-1] + 1))
        return self.fine.box(np.array(low), np.array(high))

    def cover(self, distance: Floats, box: tuple[slice, ...]) -> Floats:
        """Returns the share of each fine voxel of ``box`` where a coarse distance is below zero."""
        share = self.lift(distance, box)
        share *= -1 / self.edge
        share += 0.5
        return np.clip(share, 0, 1, out=share)

    def fill(self, distance: Floats, value: float | Floats) -> None:
        """Draws HU, a number or a coarse field, where a coarse distance is below zero."""
        box = self.extent(distance)
        if box is None:
            return
        share = self.cover(distance, box)
        self.blend(box, share, value if isinstance(value, float) else self.lift(value, box))

    def blend(self, box: tuple[slice, ...], share: Floats, value: float | Floats) -> None:
        """Draws ``value`` into ``box`` by its share of each voxel."""
        view = self.hu[box]
        change = value - view
        change *= share
        view += change

    def chain(self, points: Floats, radii: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Finds the voxels that balls reach: flat index, and share (may be above 1: by mm under the surface / edge).

        Balls thinner than a voxel are drawn a voxel wide and fainter, by the area of their section.

        Args:
            points: (N, 3) x, y, z in LPS mm.
            radii: (N,) mm.
        """
        edge, spacing = self.edge, self.fine.spacing
        drawn = np.maximum(radii, 0.56 * edge)
        strength = np.minimum(1, (np.pi * radii**2 / edge**2))
        place = (points[:, ::-1] - self.fine.origin) / spacing
        reach = np.ceil((drawn + edge / 2)[:, None] / spacing).astype(int)
        flat = self._buffer.reshape(-1)
        touched = []
        groups = reach.max(axis=1)
        for size in np.unique(groups):
            members = np.flatnonzero(groups == size)
            spans = [np.arange(-k, k + 1) for k in reach[members].max(axis=0)]
            per = max(1, int(3e6 // np.prod([len(span) for span in spans])))
            for start in range(0, len(members), per):
                some = members[start : start + per]
                nearest = np.rint(place[some]).astype(np.int64)
                square: Floats = np.zeros(1, dtype=np.float32)
                index: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
                for n in range(3):
                    at = nearest[:, n, None] + spans[n]
                    away = ((at - place[some, n, None]) * spacing[n]).astype(np.float32) ** 2
                    away[(at < 0) | (at >= self.fine.shape[n])] = np.inf
                    form = [len(some), 1, 1, 1]
                    form[n + 1] = len(spans[n])
                    square = square + away.reshape(form)
                    index = index * self.fine.shape[n] + np.clip(at, 0, self.fine.shape[n] - 1).reshape(form)
                limit = (drawn[some] + edge / 2).astype(np.float32)[:, None, None, None]
                near = square < limit**2
                depth = (limit - np.sqrt(square, where=near, out=np.zeros_like(square))) / np.float32(edge)
                depth *= strength[some].astype(np.float32)[:, None, None, None]
                index = np.broadcast_to(index, near.shape)[near]
                np.maximum.at(flat, index, depth[near])
                if len(index):
                    touched.append(index)
        if not touched:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        low, high = min(int(one.min()) for one in touched), max(int(one.max()) for one in touched)
        found = low + np.flatnonzero(flat[low : high + 1] > -1)
        share = flat[found].copy()
        flat[found] = -1
        return found, share

    def tubes(self, points: Floats, radii: Floats, value: float) -> None:
        """Draws a chain of balls in one HU."""
        index, share = self.chain(points, radii)
        flat = self.hu.reshape(-1)
        flat[index] += np.minimum(share, 1) * (value - flat[index])


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Coarse fields of one patient: signed distances in mm, below zero inside."""

    x: Floats
    y: Floats
    z: Floats
    cage: Floats
    dome: Floats
    """Below zero above the diaphragm."""
    muscle: Floats
    body: Floats
    hollow: Floats
    """Both pleural cavities with the mediastinum: inside the ribs, above the diaphragm, under the apices."""
    lung: Floats
    heart: Floats
    chambers: dict[str, Floats]
    lobe: NDArray[np.int8]
    """1 upper, 2 middle, 3 lower; negative on the right side. Of every voxel, lung or not."""
    oblique: Floats
    """mm above the oblique fissure of either side."""
    minor: Floats
    """mm above the horizontal fissure, far from it where there is none."""


@dataclass(kw_only=True)
class Plan:
    """What is to be drawn. Sides are signs: -1 the patient's right, 1 the left."""

    effusion: dict[int, float] = field(default_factory=dict)
    """Side -> share of the hemithorax."""
    pneumothorax: dict[int, float] = field(default_factory=dict)
    emphysema: float = 0.0
    """Share of the lung that is destroyed."""
    severity: dict[str, str] = field(default_factory=dict)
    nodules: tuple[float, ...] = ()
    """Diameters."""
    consolidation: float = 0.0
    """Radius of the patch, mm."""
    fractures: int = 0
    ctr: float = 0.43
    """Cardiothoracic ratio."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One segment to be, with the voxels that it has."""

    observation: str
    side: int
    box: tuple[slice, ...]
    inside: NDArray[np.bool_]
    lesion: Lesion | None = None


def draw(
    seed: int,
    *,
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0),
    findings: tuple[str, ...] | None = None,
    mirror: bool = False,
) -> DrawnVolume:
    """Draws one chest CT.

    Args:
        seed: Everything follows from it; the same patient at every spacing, but for the noise.
        spacing: Slice, row and column mm.
        findings: Of DRAWN, those that are present and no others; ``()`` a normal one; None lets the seed choose.
        mirror: The same patient with left and right exchanged, organs included.
    """
    if findings is not None and (unknown := set(findings) - set(DRAWN)):
        raise ValueError(f"findings: expected of {', '.join(DRAWN)}; found {', '.join(sorted(unknown))}")
    plan = _plan(np.random.default_rng([seed, 0]), findings)
    body = _body(np.random.default_rng([seed, 1]), plan)
    low, high = _view(body)
    step = np.array(spacing)
    fine = _grid(low + step / 2, step, np.floor((high - low) / step))
    coarse = _grid(low - STEP, np.full(3, STEP), np.ceil((high - low) / STEP) + 3)
    canvas = Canvas(fine, coarse)
    fields = _fields(body, coarse, np.random.default_rng([seed, 2]))
    marks = _paint(canvas, body, plan, fields, seed)
    _noise(canvas, body, fields, np.random.default_rng([seed, 3]))
    return _drawn(seed, canvas, body, plan, marks, mirror)


def _grid(origin: Floats, spacing: Floats, shape: Floats) -> Grid:
    depth, height, width = (int(n) for n in shape)
    return Grid(origin, spacing, (depth, height, width))


def _plan(rng: np.random.Generator, findings: tuple[str, ...] | None) -> Plan:
    """Chooses what is present and how much of it."""
    normal, count = rng.random() < 0.3, int(rng.integers(1, 4))
    chosen = rng.choice(len(DRAWN), size=count, replace=False, p=WEIGHTS)
    if findings is None:
        findings = () if normal else tuple(DRAWN[n] for n in chosen)
    plan = Plan()

    def grade(name: str, words: tuple[str, ...], ranges: tuple[tuple[float, float], ...]) -> float:
        level = int(rng.integers(len(words)))
        value = float(rng.uniform(*ranges[level]))
        if name in findings:
            plan.severity[name] = words[level]
        return value

    sizes, grades = ("small", "moderate", "large"), ("mild", "moderate", "severe")
    fluid = grade("pleural_effusion", sizes, ((0.05, 0.10), (0.16, 0.27), (0.38, 0.58)))
    air = grade("pneumothorax", sizes, ((0.06, 0.12), (0.18, 0.30), (0.42, 0.62)))
    holes = grade("emphysema", grades, ((0.06, 0.10), (0.15, 0.22), (0.30, 0.42)))
    ctr = grade("cardiomegaly", grades, ((0.56, 0.60), (0.625, 0.665), (0.69, 0.74)))
    side, both = int(rng.choice([-1, 1])), bool(rng.random() < 0.35)
    if "pleural_effusion" in findings:
        both = both and "pneumothorax" not in findings and "consolidation" not in findings
        plan.effusion = {side: fluid}
        if both:
            plan.effusion[-side] = fluid * float(rng.uniform(0.85, 1))
    if "pneumothorax" in findings:
        plan.pneumothorax = {-side: air}
    plan.emphysema = holes if "emphysema" in findings else 0.0
    plan.ctr = ctr if "cardiomegaly" in findings else float(rng.uniform(0.385, 0.475))
    if "nodule" in findings:
        number = int(rng.choice([1, 2, 3, 4], p=[0.45, 0.27, 0.16, 0.12]))
        band = rng.choice(4, size=number, p=[0.06, 0.46, 0.25, 0.23])
        plan.nodules = tuple(
            sorted((float(rng.uniform(*((4, 5), (5, 10), (10, 15), (15, 30))[b])) for b in band), reverse=True)
        )
    plan.consolidation = float(rng.uniform(18, 50)) if "consolidation" in findings else 0.0
    plan.fractures = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2])) if "fracture" in findings else 0
    return plan


def _body(rng: np.random.Generator, plan: Plan) -> Body:
    female = bool(rng.random() < 0.48)
    size = rng.normal(0.955 if female else 1.03, 0.035)
    contrast = float(rng.uniform(0.4, 1)) if rng.random() < 0.6 else 0.0
    blood = rng.normal(41, 4)
    right, left = blood + contrast * rng.uniform(120, 330), blood + contrast * rng.uniform(140, 300)
    age = float(np.clip(rng.normal(60, 15), 20, 92))
    return Body(
        female=female,
        age=round(age),
        scale=size * np.exp(rng.normal(0, 0.03, 3)) * np.array([1.0, 1.0, 0.98]),
        angles=np.radians(np.clip(rng.normal(0, [1.5, 1.5, 2.5]), -5, 5)),
        fat=float(np.clip(rng.gamma(4.0, 4.0) + (4 if female else 0), 6, 38)),
        inspiration=float(rng.normal(0, 8)) + 40 * plan.emphysema,
        left_dome=float(rng.uniform(4, 18)),
        ctr=plan.ctr,
        lung=float(rng.uniform(-880, -835)) - 15 * plan.emphysema,
        blood=(float(right), float(left)),
        enhancement=contrast,
        fissures=rng.normal(0, [7, 0.07, 7, 0.07, 6, 0.06]),
        bone=float(np.clip(260 - 2.2 * age + rng.normal(0, 25), 70, 260)),
        noise=float(rng.uniform(8, 17)),
        margin=rng.uniform(-1, 1, 3) * np.array([6, 4, 8]),
    )


def _turn(body: Body) -> Floats:
    return spatial.transform.Rotation.from_euler("xyz", body.angles).as_matrix()


def _world(body: Body, points: Floats) -> Floats:
    """Returns (N, 3) LPS mm of nominal points."""
    return (np.asarray(points) * body.scale) @ _turn(body).T


def _nominal(body: Body, points: Floats) -> Floats:
    """Returns (N, 3) nominal mm of LPS points."""
    return np.asarray(points) @ _turn(body) / body.scale


def _view(body: Body) -> tuple[Floats, Floats]:
    """Returns the corners (z, y, x) of the field of view in mm: about the body, at most 400 mm wide."""
    wide = min(2 * (152 * body.scale[0] + body.fat) + 12, 400)
    front = -110 * body.scale[1] - 1.1 * body.fat - (34 if body.female else 6)
    back = 117 * body.scale[1] + 0.8 * body.fat + 20
    low = np.array([-216 * body.scale[2] - 6, front, -wide / 2]) + body.margin
    high = np.array([114 * body.scale[2] + 6, min(back, front + 300), wide / 2]) + body.margin
    return low, high


def _distance(level: Floats) -> Floats:
    """Turns a smooth function into mm from where it is zero, near there, by its gradient."""
    slopes = np.gradient(level, STEP)
    steep = np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2)
    return np.clip(level / np.maximum(steep, 0.05 * float(np.median(steep)) + 1e-6), -200, 200).astype(np.float32)


def _greater(first: Floats, second: Floats, round_mm: float) -> Floats:
    """Returns the greater of two fields, its crease rounded: where both shapes are."""
    return 0.5 * (first + second + np.sqrt((first - second) ** 2 + np.float32(round_mm**2)))


def _lesser(first: Floats, second: Floats, round_mm: float) -> Floats:
    """Returns the lesser of two fields, its crease rounded: where either shape is."""
    return -_greater(-first, -second, round_mm)


@cache
def _table(heights: tuple[int, ...], values: tuple[int, ...]) -> tuple[Floats, Floats]:
    z = np.arange(-320.0, 200.0)
    return z, interpolate.PchipInterpolator(heights, values)(np.clip(z, heights[0], heights[-1]))


def _profile(z: Floats, heights: tuple[int, ...], values: tuple[int, ...]) -> Floats:
    return np.asarray(np.interp(z, *_table(heights, values))).astype(np.float32)


def _oval(x: Floats, y: Floats, a: Floats | float, b: Floats | float, power: float) -> Floats:
    """Returns mm from the outline of a superellipse with half axes ``a`` and ``b``."""
    share = ((np.abs(x) / a) ** power + (np.abs(y) / b) ** power) ** (1 / power)
    return _distance((share - 1) * np.minimum(a, b))


def _ellipsoid(fields_xyz: tuple[Floats, Floats, Floats], center: Floats, axes: Floats, lean: float = 0.0) -> Floats:
    """Returns mm from an ellipsoid whose first axis leans from x down to the feet and to the front by ``lean``."""
    x, y, z = (f - c for f, c in zip(fields_xyz, center, strict=True))
    c, s = np.cos(lean), np.sin(lean)
    if lean:
        along = c * x - s * (0.75 * z + 0.66 * y)
        rest = np.maximum(x**2 + y**2 + z**2 - along**2, 0)
        share = np.sqrt((along / axes[0]) ** 2 + rest / (axes[1] * axes[2]))
    else:
        share = np.sqrt((x / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2)
    return ((share - 1) * np.float32(min(axes))).astype(np.float32)


def _spine_y(z: Floats | float) -> Floats:
    """Returns y of the middle of the vertebral bodies: the kyphosis."""
    z = np.asarray(z)
    return 60 - np.where(z > -40, 13, 5) * ((z + 40) / 130) ** 2


def _fields(body: Body, coarse: Grid, rng: np.random.Generator) -> Fields:
    zyx = np.meshgrid(*(coarse.axis(n) for n in range(3)), indexing="ij")
    back = (_turn(body) / body.scale).astype(np.float32)
    x, y, z = (zyx[2] * back[0, n] + zyx[1] * back[1, n] + zyx[0] * back[2, n] for n in range(3))
    cage = _oval(x, y - _profile(z, CAGE_Z, CAGE_C), _profile(z, CAGE_Z, CAGE_A), _profile(z, CAGE_Z, CAGE_B), 2.4)
    muscle = _oval(x, y - _profile(z, BODY_Z, BODY_C), _profile(z, BODY_Z, BODY_A), _profile(z, BODY_Z, BODY_B), 2.5)
    muscle = np.minimum(muscle, cage + 14)
    layer = body.fat * (0.75 + 0.35 * np.clip(-y / 80, -0.6, 1) + 0.2 * np.clip((-60 - z) / 100, 0, 1))
    skin = muscle - layer
    if body.female:
        size = rng.uniform(0.8, 1.2)
        for side in (-1, 1):
            axes = np.array([58, 40 + 0.5 * body.fat, 60]) * size
            skin = _lesser(skin, _ellipsoid((x, y, z), np.array([side * 70, -98 - 0.6 * body.fat, -48]), axes), 14)
    domes = []
    for side, peak in ((-1, -100 - body.inspiration), (1, -100 - body.inspiration - body.left_dome)):
        far = np.sqrt(((x - side * 68) / 72) ** 2 + ((y + 8) / 88) ** 2)
        drop = 64 + 28 * np.tanh((y + 5) / 45)
        domes.append(peak - drop * np.minimum(far, 1.5) ** 2.4)
    tendon = -116 - body.inspiration - 60 * (((x - 8) / 75) ** 2 + ((y + 18) / 85) ** 2)
    floor = _greater(_greater(domes[0], domes[1], 8), tendon, 8)
    dome = _distance(floor - z)
    apex = 102 - ((np.abs(x) - 44) ** 2 + 0.8 * (y - 30) ** 2) / 72
    hollow = _greater(_greater(cage, dome, 6), _distance(z - apex), 10)
    wide = 26 * rng.uniform(0.88, 1.15)
    column = _distance(_ellipsoid((x, y, np.zeros_like(z)), np.array([1, -6, 0]), np.array([wide, 66, 1])))
    spine = _oval(x, y - _spine_y(z) - 18, 21, 30, 2.2)
    middle = _lesser(column, spine, 7)
    heart, chambers = _heart(body, x, y, z, cage, dome)
    middle = _lesser(middle, heart - 3, 8)
    lung = _greater(hollow, -middle, 5)
    lobe, oblique, minor = _lobes(body, x, y, z)
    return Fields(
        x=x,
        y=y,
        z=z,
        cage=cage,
        dome=dome,
        muscle=muscle,
        body=skin,
        hollow=hollow,
        lung=lung,
        heart=heart,
        chambers=chambers,
        lobe=lobe,
        oblique=oblique,
        minor=minor,
    )


def _heart(body: Body, x: Floats, y: Floats, z: Floats, cage: Floats, dome: Floats) -> tuple[Floats, dict[str, Floats]]:
    """Returns mm from the heart's outline and from the walls of its chambers, grown to the cardiothoracic ratio."""
    middle = np.array([14.0, -20.0, -66.0 - 0.5 * body.inspiration])
    parts = {
        "left ventricle": ((27, -8, -10), (47, 33, 33), 0.55),
        "right ventricle": ((2, -22, -12), (42, 30, 34), 0.35),
        "right atrium": ((-34, 8, 8), (24, 28, 33), 0.0),
        "left atrium": ((-8, 34, 16), (34, 20, 24), 0.0),
    }
    # Half the width is measured on the shape itself: the ellipsoids' reach to either side.
    reach = (-34 - 24, 27 + np.sqrt((47 * np.cos(0.55)) ** 2 + (33 * np.sin(0.55)) ** 2))
    grow = body.ctr * 2 * max(CAGE_A) / (reach[1] - reach[0])
    growth = np.array([grow, grow**0.6, grow**0.6])
    inner = tuple((f - m) / g for f, m, g in zip((x, y, z), middle, growth, strict=True))
    shapes = {name: _ellipsoid(inner, np.array(c), np.array(a), lean) for name, (c, a, lean) in parts.items()}
    outline = shapes["left ventricle"]
    for name in ("right ventricle", "right atrium", "left atrium"):
        outline = _lesser(outline, shapes[name], 6)
    outline = _greater(_greater(_distance(outline), dome + 4, 5), cage + 5, 5)
    outline = _greater(outline, y - _spine_y(z).astype(np.float32) + 36, 6)  # the oesophagus lies behind it
    walls = {"left ventricle": 11.0, "right ventricle": 5.0, "right atrium": 4.0, "left atrium": 4.0}
    return outline, {name: np.maximum(_distance(shapes[name]) + walls[name], outline + 4) for name in parts}


def _oblique(body: Body, side: int, x: Floats, y: Floats, z: Floats) -> Floats:
    """Returns mm above the oblique fissure of one side."""
    shift, lean = body.fissures[0:2] if side < 0 else body.fissures[2:4]
    steep = (1.0 if side < 0 else 1.12) + lean
    bow = 7 * np.sin((np.abs(x) - 30) / 38) + 5 * np.sin(y / 40 + side)
    return (z - (-46 + shift + steep * (y + 5) * 1.0 + bow)) / np.float32(np.hypot(1, steep))


def _minor(body: Body, x: Floats, y: Floats, z: Floats) -> Floats:
    """Returns mm above the horizontal fissure, which is on the right."""
    shift, lean = body.fissures[4:6]
    return z - (-26 + shift + (lean - 0.12) * (y + 40) - 6 * ((np.abs(x) - 70) / 40) ** 2)


def _lobes(body: Body, x: Floats, y: Floats, z: Floats) -> tuple[NDArray[np.int8], Floats, Floats]:
    right, left, minor = _oblique(body, -1, x, y, z), _oblique(body, 1, x, y, z), _minor(body, x, y, z)
    on_right = x < 0
    lobe = np.where(on_right, np.where(right < 0, 3, np.where(minor < 0, 2, 1)), np.where(left < 0, 3, 1))
    oblique = np.where(on_right, right, left)
    minor = np.where(on_right & (right > 0), minor, np.where(minor < 0, -60, 60))
    return np.where(on_right, -lobe, lobe).astype(np.int8), oblique.astype(np.float32), minor.astype(np.float32)


def lobe_of(body: Body, point: Floats) -> tuple[int, str]:
    """Returns the side sign and the lobe of a point in LPS mm."""
    x, y, z = np.atleast_2d(_nominal(body, point)).T
    number = int(_lobes(body, x, y, z)[0][0])
    return (1 if number > 0 else -1), LOBE[abs(number)]


def _curve(points: list[tuple[float, ...]], step: float = 1.5) -> Floats:
    """Returns (N, columns) of a smooth curve through points (x, y, z, radius ...), about ``step`` mm apart."""
    knots = np.array(points, dtype=np.float64)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1))])
    at = np.linspace(0, along[-1], max(2, int(along[-1] / step) + 1))
    return np.asarray(interpolate.PchipInterpolator(along, knots)(at))


def _tree(root: Floats, ends: Floats, rng: np.random.Generator) -> Floats:
    """Grows a branching tree from ``root`` to every one of ``ends`` by halving them: Tawhai et al. 2000, simplified.

    Returns:
        (segments, 7): both ends in mm, and how many of ``ends`` it feeds.
    """
    segments = []
    stack = [(root, ends)]
    while stack:
        start, left = stack.pop()
        if len(left) == 1:
            segments.append((*start, *left[0], 1))
            continue
        node = start + (left.mean(axis=0) - start) * rng.uniform(0.35, 0.55)
        segments.append((*start, *node, len(left)))
        order = np.argsort(left[:, np.argmax(left.max(axis=0) - left.min(axis=0))])
        cut = int(np.clip(len(left) * rng.uniform(0.35, 0.65), 1, len(left) - 1))
        stack += [(node, left[order[:cut]]), (node, left[order[cut:]])]
    return np.array(segments)


def _beads(segments: Floats, radii: Floats, step: float) -> tuple[Floats, Floats]:
    """Returns points about ``step`` mm apart along segments, and their radii."""
    length = np.linalg.norm(segments[:, 3:6] - segments[:, :3], axis=1)
    count = np.maximum(2, np.ceil(length / step).astype(int) + 1)
    which = np.repeat(np.arange(len(segments)), count)
    place = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    share = (place / (count - 1)[which])[:, None]
    return segments[which, :3] * (1 - share) + segments[which, 3:6] * share, radii[which]


def _paint(canvas: Canvas, body: Body, plan: Plan, f: Fields, seed: int) -> list[Mark]:
    """Draws the patient with all that is found; returns what was marked."""
    rng = np.random.default_rng([seed, 4])
    texture = ndimage.gaussian_filter(rng.standard_normal(f.lung.shape).astype(np.float32), 1)
    texture /= texture.std()
    hu = 55 + 8 * body.enhancement
    canvas.fill(f.body, 20.0)
    canvas.fill(f.body + 2.4, -104 + 7 * texture)
    planes = np.sin(f.muscle / 5.5 + 2.2 * np.sin(f.x / 31) + 1.5 * np.sin(f.z / 37)) + 0.35 * texture
    canvas.fill(f.muscle, hu - 130 * np.clip(planes - 0.55, 0, 0.6) / 0.6 * (f.cage > 4))
    inlet = np.clip((f.hollow - 3) / 4, 0, 1) * (f.dome < 0)
    canvas.fill(f.cage + 1, -98 + 6 * texture + inlet * np.clip(165 - 190 * np.clip(planes, 0, 1), 0, 160))
    _abdomen(canvas, body, f, texture)
    values = body.lung + 0.33 * f.y + 11 * texture
    canvas.fill(f.lung, values)
    fluid, air = _pleura(plan.effusion, f, 1), _pleura(plan.pneumothorax, f, -1)
    marks = _emphysema(canvas, plan, f, np.random.default_rng([seed, 5])) if plan.emphysema else []
    _fissures(canvas, f)
    vessels, widths, bronchi, lumens = _lung_trees(canvas, body, f, np.random.default_rng([seed, 6]))
    free = np.full(f.lung.shape, 60, dtype=np.float32)
    for distance in (*fluid.values(), *air.values()):
        free = np.minimum(free, distance)
    placing = np.random.default_rng([seed, 7])
    if plan.consolidation:
        mark, patch = _consolidation(canvas, body, plan, f, free, bronchi, lumens, placing)
        marks.append(mark)
        free = np.minimum(free, patch)
    ribs, cartilage, breaks = _ribs(body, plan, np.random.default_rng([seed, 8]))
    trunks, trunk_radii = _mediastinum_chains(body)
    vessels, widths = np.concatenate([vessels, trunks]), np.concatenate([widths, trunk_radii])
    marks += _nodules(canvas, body, plan, f, free, vessels, widths, breaks, placing)
    for side, distance in fluid.items():
        collapse = canvas.extent(distance - 11)
        if collapse is not None:
            share = np.clip((2 + 14 * plan.effusion[side] - canvas.lift(distance, collapse)) / 3, 0, 1)
            share *= canvas.cover(f.lung, collapse)
            canvas.blend(collapse, share, 40.0 + 45 * body.enhancement)
        canvas.fill(distance, float(rng.uniform(4, 18)))
        marks.append(_marked(canvas, "pleural_effusion", side, distance))
    for side, distance in air.items():
        box = canvas.extent(distance - 3)
        assert box is not None
        far = canvas.lift(distance, box)
        canvas.fill(distance, -1000.0)
        line = np.clip(1 - np.abs(far - canvas.edge / 2) / canvas.edge, 0, 1) * canvas.cover(f.lung + 2, box)
        canvas.hu[box] += line * (320 / max(1.0, canvas.edge / 2))
        marks.append(_marked(canvas, "pneumothorax", side, distance))
    _mediastinum(canvas, body, f)
    marks += _skeleton(canvas, body, ribs, cartilage, breaks)
    _couch(canvas, body)
    return marks


def _marked(canvas: Canvas, observation: str, side: int, distance: Floats) -> Mark:
    box = canvas.extent(distance)
    assert box is not None, f"{observation} is nowhere"
    return Mark(observation=observation, side=side, box=box, inside=canvas.cover(distance, box) > 0.5)


def _abdomen(canvas: Canvas, body: Body, f: Fields, texture: Floats) -> None:
    """Draws what lies under the diaphragm: muscle, liver, stomach with its gas, spleen."""
    under = np.maximum(f.cage + 1, -f.dome)
    canvas.fill(np.maximum(under, f.dome - 4), 50.0)
    back = _oval(f.x - 3, f.y - _spine_y(f.z) - 14, 36, 44, 2.2)
    canvas.fill(np.maximum(np.maximum(f.cage + 1, -f.dome), back + 5), -100.0)
    canvas.fill(np.maximum(np.maximum(f.cage + 1, 2 - f.dome), np.abs(back + 12) - 4), 52.0)
    under = np.maximum(np.maximum(f.cage + 4, 2.5 - f.dome), 4 - back)
    xyz = (f.x, f.y, f.z)
    deep = -body.inspiration
    liver = _distance(_ellipsoid(xyz, np.array([-52, -4, -172 + deep]), np.array([108, 100, 90])))
    canvas.fill(_greater(liver, under, 5), 57 + 50 * body.enhancement + 3 * texture)
    stomach = _greater(_ellipsoid(xyz, np.array([58, -22, -165 + deep]), np.array([42, 46, 48])), under + 2, 6)
    stomach = _greater(stomach, 3 - liver, 5)
    canvas.fill(stomach, 50.0 + 20 * body.enhancement)
    canvas.fill(stomach + 4, np.where(f.y < -28, np.float32(-960), np.float32(22)))
    spleen = _greater(_ellipsoid(xyz, np.array([92, 46, -172 + deep]), np.array([36, 42, 48])), under + 2, 5)
    spleen = _greater(spleen, 3 - stomach, 4)
    canvas.fill(spleen, 50 + 60 * body.enhancement + 2 * texture)


def _pleura(shares: dict[int, float], f: Fields, pull: int) -> dict[int, Floats]:
    """Returns mm from what lies in the pleural space by side, a share of the hemithorax, where gravity pulls it.

    Args:
        pull: 1 fluid, to the back and the base; -1 air, to the front.
    """
    found = {}
    for side, share in shares.items():
        wall = -np.minimum(f.hollow, 0)
        if pull > 0:
            weight = 0.05 + (0.22 + 1 / (1 + np.exp((f.z + 60) / 32))) / (1 + np.exp((8 - f.y) / 15))
        else:
            weight = 0.07 + (0.6 + 0.4 * np.tanh(np.abs(f.z + 10) / 60)) / (1 + np.exp((f.y + 12) / 16))
        level = (wall + 1.5) / weight
        inside = (f.lung < 0) & (f.x * side > 0)
        level = level - np.quantile(level[inside], share)
        found[side] = np.maximum(_distance(level), np.maximum(f.lung, -f.x * side)).astype(np.float32)
    return found


def _fissures(canvas: Canvas, f: Fields) -> None:
    """Draws the fissures, a third of a millimetre thick."""
    for distance, side in ((f.oblique, 0), (f.minor, -1)):
        box = canvas.extent(
            np.maximum(f.lung, np.abs(distance) - STEP) if side == 0 else np.maximum(f.lung, np.abs(distance) - 8)
        )
        if box is None:
            continue
        share = np.clip(1 - np.abs(canvas.lift(distance, box)) / canvas.edge, 0, 1)
        share *= canvas.cover(f.lung + 1, box) * (0.35 / canvas.edge)
        canvas.blend(box, share, 20.0)


def _emphysema(canvas: Canvas, plan: Plan, f: Fields, rng: np.random.Generator) -> list[Mark]:
    """Draws holes, more of them in the upper lobes (centrilobular emphysema)."""
    rough = rng.standard_normal(f.lung.shape).astype(np.float32)
    holes = ndimage.gaussian_filter(rough, 1.15 + 1.2 * plan.emphysema)
    holes /= holes.std()
    holes += np.clip((f.z + 30) / 110, -1.2, 0.9)
    level = np.quantile(holes[f.lung < -2], 1 - plan.emphysema)
    distance = np.maximum(_distance(level - holes), f.lung + 1.5)
    canvas.fill(distance, -985.0)
    return [_marked(canvas, "emphysema", 0, distance)]


def _lung_trees(
    canvas: Canvas, body: Body, f: Fields, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats, Floats]:
    """Draws arteries, veins and bronchi of both lungs.

    Returns:
        Points and radii of the vessels that a lesion could hide in, then of the bronchi's lumens.
    """
    hila = {-1: ((-36, 2, -16), (-30, 12, -36)), 1: ((38, 12, -4), (32, 14, -32))}
    inside = f.lung < -5
    kept, kept_radii, tubes, lumens = [], [], [], []
    for side in (-1, 1):
        cells = np.argwhere(inside & (f.x * side > 0))
        for kind in (0, 1):
            chosen = cells[rng.choice(len(cells), size=620, replace=False)]
            ends = (canvas.coarse.origin + STEP * (chosen + rng.uniform(-0.5, 0.5, chosen.shape)))[:, ::-1]
            root = _world(body, np.array(hila[side][kind]))
            segments = _tree(root, ends, rng)
            radii = 0.56 * segments[:, 6] ** (1 / 2.85)
            points, widths = _beads(segments, radii, canvas.edge * 0.7)
            canvas.tubes(points, widths, body.blood[kind])
            kept.append(points)
            kept_radii.append(widths)
            if kind == 0:
                wide = segments[:, 6] >= 9
                ways, lumen = segments[wide], 0.85 * radii[wide]
                shift = np.cross(ways[:, 3:6] - ways[:, :3], [0.3, 1.0, 0.2])
                shift /= np.linalg.norm(shift, axis=1, keepdims=True) + 1e-6
                ways = ways.copy()
                ways[:, :3] += shift * (radii[wide] + lumen + 1)[:, None]
                ways[:, 3:6] += shift * (radii[wide] + lumen + 1)[:, None]
                points, lumen = _beads(ways, lumen, canvas.edge * 0.7)
                canvas.tubes(points, lumen + 0.5 + 0.15 * lumen, -150.0)
                canvas.tubes(points, lumen, -960.0)
                tubes.append(points)
                lumens.append(lumen)
    return np.concatenate(kept), np.concatenate(kept_radii), np.concatenate(tubes), np.concatenate(lumens)


def _consolidation(
    canvas: Canvas,
    body: Body,
    plan: Plan,
    f: Fields,
    free: Floats,
    bronchi: Floats,
    lumens: Floats,
    rng: np.random.Generator,
) -> tuple[Mark, Floats]:
    """Draws a patch of one lobe with open bronchi in it; returns its mark and mm from it."""
    rough = ndimage.gaussian_filter(rng.standard_normal(f.lung.shape).astype(np.float32), 2)
    rough /= rough.std()
    stretch = rng.uniform(0.75, 1.25, 3)
    x, y, z = (canvas.coarse.axis(n).reshape([-1 if k == n else 1 for k in range(3)]) for n in (2, 1, 0))
    busy = {*plan.effusion, *plan.pneumothorax} if len(plan.effusion | plan.pneumothorax) == 1 else set()
    numbers = sorted(rng.permutation([-1, -2, -3, 1, 3] * 5), key=lambda n: np.sign(n) in busy)
    for room, number in [(room, int(number)) for room in (22, 10, 3) for number in numbers]:
        side, part = int(np.sign(number)), abs(number)
        cells = np.argwhere((f.lobe == number) & (f.lung < -8) & (free > room))
        if not len(cells):
            continue
        at = canvas.coarse.origin + STEP * cells[rng.integers(len(cells))]
        away = sum(((axis - a) * s) ** 2 for axis, a, s in zip((z, y, x), at, stretch, strict=True))
        blob = _distance(np.sqrt(away) - plan.consolidation * (1 + 0.16 * rough))
        lobe = np.maximum(np.maximum(f.lung, min(room, 8) - free), 4 - f.x * side)
        lobe = np.maximum(lobe, f.oblique if part == 3 else -f.oblique)
        if number in (-1, -2):
            lobe = np.maximum(lobe, -f.minor if part == 1 else f.minor)
        patch = np.maximum(blob, lobe)
        pieces, _ = ndimage.label(patch < 0)
        largest = int(np.argmax(np.bincount(pieces.ravel(), minlength=2)[1:])) + 1
        cells = np.argwhere(pieces == largest)
        if len(cells) * STEP**3 > 9000:
            break
    else:
        raise AssertionError("no lobe has room for a consolidation")
    patch = np.where((pieces == largest) | (patch >= 0), patch, STEP).astype(np.float32)
    points = (canvas.coarse.origin + STEP * cells)[:, ::-1]
    corners = points[spatial.ConvexHull(points).vertices]
    middle = points.mean(axis=0)
    lesion = _lesion(middle, float(spatial.distance.pdist(corners).max()) + 0.6 * STEP, side, LOBE[part])
    canvas.fill(np.maximum(patch - 5 - 4 * rough, lobe), -600 + 70 * rough)  # ground glass about it
    canvas.fill(patch, 32 + 45 * body.enhancement + 14 * rough)
    open_ = _sampled(patch, canvas.coarse, bronchi) < 0
    canvas.tubes(bronchi[open_], np.maximum(lumens[open_], 1.25), -930.0)
    mark = _marked(canvas, "consolidation", side, patch)
    return Mark(observation=mark.observation, side=side, box=mark.box, inside=mark.inside, lesion=lesion), patch


def _sampled(coarse_field: Floats, grid: Grid, points: Floats) -> Floats:
    """Returns a coarse field at (N, 3) LPS points."""
    place = ((np.atleast_2d(points)[:, ::-1] - grid.origin) / STEP).T
    return np.asarray(ndimage.map_coordinates(coarse_field, place, order=1, mode="nearest"))


def _lesion(center: Floats, diameter: float, side: int, location: str) -> Lesion:
    return Lesion(
        center_mm=(float(center[0]), float(center[1]), float(center[2])),
        diameter_mm=round(diameter, 1),
        laterality=SIDES[side],
        location=location,
    )


def _nodules(
    canvas: Canvas,
    body: Body,
    plan: Plan,
    f: Fields,
    free: Floats,
    vessels: Floats,
    widths: Floats,
    breaks: list[Break],
    rng: np.random.Generator,
) -> list[Mark]:
    """Draws nodules where nothing hides them: in the lung, beside vessels or on the pleura, never in a large vessel."""
    marks: list[Mark] = []
    near = spatial.cKDTree(vessels)
    taken = [(one.place, one.diameter / 2) for one in breaks]
    for diameter in plan.nodules:
        radius = diameter / 2
        pleural = rng.random() < 0.25
        least, most = (-1.1 * radius - 1, -0.75 * radius - 0.5) if pleural else (-90, -1.1 * radius - 2)
        cells = np.argwhere((f.lung > least - 2) & (f.lung < most + 2) & (free > radius + 5))
        for index in rng.permutation(len(cells)):
            center = (canvas.coarse.origin + STEP * (cells[index] + rng.uniform(-0.5, 0.5, 3)))[::-1]
            deep, oblique, minor = (_sampled(field, canvas.coarse, center)[0] for field in (f.lung, f.oblique, f.minor))
            if not least < deep < most or min(abs(oblique), abs(minor)) < 2:
                continue
            close = near.query_ball_point(center, radius + 9)
            gap = np.linalg.norm(vessels[close] - center, axis=1)
            hidden = (widths[close] > 0.45 * radius) & (gap < radius + 0.6 * widths[close])
            if not hidden.any() and all(np.linalg.norm(center - place) > radius + r + 8 for place, r in taken):
                break
        else:
            continue  # a lung full of other things has room for fewer
        taken.append((center, radius))
        marks.append(_nodule(canvas, body, center, diameter, rng))
    return marks


def _nodule(canvas: Canvas, body: Body, center: Floats, diameter: float, rng: np.random.Generator) -> Mark:
    """Draws one: a lobulated ellipsoid, solid, ground glass, part-solid or calcified."""
    radius = diameter / 2
    axes = np.sort(rng.uniform([1, 0.78, 0.7], [1, 1, 1]))[::-1]
    turn = spatial.transform.Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    bumps = rng.standard_normal((5, 3))
    bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
    height = float(rng.uniform(0.02, 0.12))

    def reach(directions: Floats) -> Floats:
        """Returns mm from the centre to the surface."""
        smooth = 1 / np.sqrt(((directions @ turn / axes) ** 2).sum(axis=-1))
        lobes = sum(np.exp(6 * (directions @ bump - 1)) for bump in bumps)
        return smooth * (1 + height * lobes)

    sphere = rng.standard_normal((600, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    factor = diameter / float((reach(sphere) + reach(-sphere)).max())
    kind = rng.choice(["solid", "ground glass", "part-solid", "calcified"], p=[0.7, 0.1, 0.1, 0.1])
    if diameter < 8 and kind in ("ground glass", "part-solid"):
        kind = "solid"
    box = canvas.fine.box((center - radius - 4)[::-1], (center + radius + 4)[::-1])
    z, y, x = np.meshgrid(*(canvas.fine.axis(n)[box[n]] for n in range(3)), indexing="ij")
    away = np.stack([x - center[0], y - center[1], z - center[2]], axis=-1)
    far = np.linalg.norm(away, axis=-1)
    surface = factor * reach(away / np.maximum(far, 1e-3)[..., None])
    share = np.clip(0.5 + (surface - far) / canvas.edge, 0, 1)
    tissue = float(rng.uniform(15, 55)) + 35 * body.enhancement
    if kind == "solid":
        canvas.hu[box] += share * np.maximum(tissue - canvas.hu[box], 0)
    elif kind == "calcified":
        canvas.blend(box, share, float(rng.uniform(250, 800)))
    else:
        canvas.hu[box] += share * np.maximum(float(rng.uniform(-600, -430)) - canvas.hu[box], 0)
        if kind == "part-solid":
            core = np.clip(0.5 + (rng.uniform(0.4, 0.65) * surface - far) / canvas.edge, 0, 1)
            canvas.hu[box] += core * np.maximum(tissue - canvas.hu[box], 0)
    side, location = lobe_of(body, center)
    lesion = _lesion(center, diameter, side, location)
    inside = share > min(0.5, 0.999 * float(share.max()))
    return Mark(observation="nodule", side=side, box=box, inside=inside, lesion=lesion)


def _mediastinum_curves(body: Body) -> dict[str, Floats]:
    """Returns (N, 4) nominal points and radii of vessels and airways."""
    low = -body.inspiration
    descending = [(27, float(_spine_y(z)) - 12, z, 12.0) for z in (-40, -90)]
    return {
        "aorta": _curve(
            [
                (4, -14, -38, 15),
                (-12, -24, -12, 16),
                (-14, -22, 12, 15.5),
                (-4, -10, 30, 14.5),
                (12, 14, 37, 13.5),
                (23, 32, 28, 13),
                (26, 40, 8, 12.5),
                *descending,
                (16, 36, -150 + low, 11.5),
                (10, 32, -260, 10.5),
            ]
        ),
        "neck arteries": np.concatenate(
            [
                _curve([(-8, -6, 36, 6.5), (-16, -8, 62, 6), (-24, -2, 90, 4.5), (-26, -2, 150, 3.5)]),
                _curve([(4, 2, 44, 4), (10, 0, 75, 3.5), (22, 0, 110, 3.5), (24, 0, 150, 3.5)]),
                _curve([(16, 18, 46, 5), (24, 16, 75, 4.5), (48, 10, 97, 4), (110, 0, 92, 4)]),
                _curve([(-22, -2, 76, 4.5), (-50, 8, 97, 4), (-110, 0, 92, 4)]),
            ]
        ),
        "pulmonary trunk": np.concatenate(
            [
                _curve(
                    [
                        (14, -46, -42, 13),
                        (18, -36, -20, 14),
                        (16, -16, -8, 13),
                        (26, 2, -4, 11),
                        (40, 13, -4, 9),
                        (44, 18, -22, 7),
                    ]
                ),
                _curve([(16, -16, -8, 12), (0, -4, -13, 11), (-22, 0, -15, 10), (-36, 2, -17, 8.5), (-42, 8, -34, 7)]),
            ]
        ),
        "veins": np.concatenate(
            [
                _curve(
                    [(-26, -14, -46, 10), (-27, -18, 0, 9), (-24, -20, 40, 8.5), (-32, -16, 68, 7), (-55, -8, 98, 5)]
                ),
                _curve([(-24, -20, 38, 6), (0, -32, 52, 6), (28, -22, 70, 6), (56, -10, 98, 5)]),
                _curve([(-26, 12, -86, 11), (-24, 16, -112 + low, 11), (-20, 20, -260, 11)]),
            ]
        ),
        "pulmonary veins": np.concatenate(
            [
                _curve([(14, 18, -34, 7), (32, 14, -32, 6.5), (44, 8, -28, 4)]),
                _curve([(-18, 18, -38, 7), (-30, 12, -36, 6.5), (-42, 6, -34, 4)]),
            ]
        ),
        "oesophagus": _curve(
            [
                (4, 22, 150, 6),
                (5, 24, 60, 7),
                (3, 28, 0, 7),
                (4, 32, -60, 7.5),
                (14, 18, -118 + low, 8),
                (30, 4, -135 + low, 9),
            ]
        ),
        "trachea": np.concatenate(
            [
                _curve([(0, 2, 160, 8.5), (0, 6, 60, 8.7), (0, 14, 8, 9), (0, 16, 0, 8.5)]),
                _curve(
                    [(0, 16, 2, 7.5), (-14, 15, -11, 7), (-30, 13, -21, 6), (-36, 14, -34, 4.8), (-46, 22, -52, 3.5)]
                ),
                _curve([(0, 16, 2, 7), (18, 17, -14, 6), (38, 19, -24, 5.3), (44, 24, -38, 4), (50, 30, -52, 3)]),
                _curve([(-28, 13, -19, 4.5), (-42, 6, -10, 3.5), (-50, 2, 4, 2.6)]),
                _curve([(37, 18, -23, 4.2), (48, 8, -14, 3.3), (54, 2, 0, 2.6)]),
            ]
        ),
    }


def _mediastinum_chains(body: Body) -> tuple[Floats, Floats]:
    curves = np.concatenate(list(_mediastinum_curves(body).values()))
    return _world(body, curves[:, :3]), curves[:, 3]


def _mediastinum(canvas: Canvas, body: Body, f: Fields) -> None:
    """Draws heart, great vessels, oesophagus and airways."""
    right, left = body.blood
    canvas.fill(f.heart, -85.0)
    canvas.fill(f.heart + 3, 45.0 + 55 * body.enhancement)
    for name, distance in f.chambers.items():
        canvas.fill(distance, right if name.startswith("right") else left)
    curves = _mediastinum_curves(body)

    def tube(name: str, value: float, thicker: float = 0.0) -> None:
        canvas.tubes(_world(body, curves[name][:, :3]), curves[name][:, 3] + thicker, value)

    tube("oesophagus", 38.0 + 15 * body.enhancement)
    tube("pulmonary veins", left)
    tube("veins", right)
    tube("pulmonary trunk", right)
    tube("neck arteries", left)
    tube("aorta", 45.0, 1.5)
    tube("aorta", left)
    tube("trachea", 30.0, 1.6)
    tube("trachea", -990.0)


def _rib(side: int, number: int) -> Floats:
    """Returns (N, 3) nominal points of a rib (1 to 12), bone then cartilage, and (N,) radians along it."""
    top = 88 - 20.5 * (number - 1)
    last = (150, 152, 150, 150, 150, 148, 145, 140, 135, 128, 105, 75)[number - 1]
    drop = (26, 42, 56, 66, 74, 80, 84, 86, 84, 78, 66, 45)[number - 1]
    angle = np.radians(np.linspace(9, last, 240))
    z = top - drop * (1 - np.cos(np.minimum(angle, np.pi * 0.9))) / 1.6
    a, b = _profile(z, CAGE_Z, CAGE_A) + 6.5, _profile(z, CAGE_Z, CAGE_B) + 6.5
    power = 2 / 2.4
    x = a * np.abs(np.sin(angle)) ** power
    y = _profile(z, CAGE_Z, CAGE_C) + b * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    head = np.clip(1 - x / 48, 0, 1)
    y = y * (1 - head) + (_spine_y(z) + 22) * head
    return np.column_stack([side * x, y, z, angle])


@dataclass(frozen=True, kw_only=True)
class Break:
    """One break of a rib."""

    place: Floats
    diameter: float
    healing: bool
    """Callus about it, else a haematoma."""
    side: int


def _ribs(body: Body, plan: Plan, rng: np.random.Generator) -> tuple[Floats, Floats, list[Break]]:
    """Returns points (LPS mm) of the bone and of the cartilage of all ribs, and where they are broken."""
    side, first = int(rng.choice([-1, 1])), int(rng.integers(3, 8))
    broken = {first + n: float(rng.uniform(0.9, 2.0)) for n in range(plan.fractures)}
    up = _world(body, np.array([0, 0, 2.7]))
    bone, gristle, breaks = [], [], []
    for flank in (-1, 1):
        for number in range(1, 13):
            path = _rib(flank, number)
            points = _world(body, path[:, :3])
            if flank == side and number in broken:
                points, place = _break(points, path[:, 3], broken[number], rng)
                diameter, healing = float(rng.uniform(18, 26)), bool(rng.random() < 0.35)
                breaks.append(Break(place=place, diameter=diameter, healing=healing, side=side))
            bone += [points + up, points, points - up]
            if number <= 10:
                height = max(62 - 15 * (number - 1), -92 - 8 * (number - 7))
                start = path[-1, :3]
                end = np.array([flank * (12 if number < 8 else 30), _front(max(62 - 15 * (number - 1), -90)), height])
                bend = (start + end) / 2 + np.array([0, -7, -5])
                gristle.append(_world(body, _curve([tuple(start), tuple(bend), tuple(end)])))
    return np.concatenate(bone), np.concatenate(gristle), breaks


def _skeleton(canvas: Canvas, body: Body, ribs: Floats, cartilage: Floats, breaks: list[Break]) -> list[Mark]:
    """Draws spine, ribs with their breaks, sternum, clavicles, scapulae and arms."""
    _spine(canvas, body)
    bone, radii = [ribs], [np.full(len(ribs), 3.7)]
    for flank in (-1, 1):
        collar = _curve(
            [(flank * 14, _front(74) - 2, 74), (flank * 60, -44, 88), (flank * 110, -22, 100), (flank * 160, -6, 108)]
        )
        arm = _curve([(flank * 168, 8, 92), (flank * 185, 0, 120), (flank * 195, -6, 170)])
        spread = _blade(flank)
        for part, width in ((collar, 5.5), (arm, 13.0), (spread, 2.6)):
            bone.append(_world(body, part))
            radii.append(np.full(len(part), width))
    plate = np.array(
        [(x, _front(z) - 5, z) for z in range(-78, 74, 3) for x in range(-15, 16, 3) if abs(x) < 9 + 8 * (z > 40)]
    )
    bone.append(_world(body, plate))
    radii.append(np.full(len(plate), 4.5))
    canvas.tubes(cartilage, np.full(len(cartilage), 5.0), 95.0)
    for one in breaks:
        _ball(canvas, one.place, 0.42 * one.diameter, 240.0 if one.healing else 62.0)
    index, share = canvas.chain(np.concatenate(bone), np.concatenate(radii))
    depth = np.maximum(share - 0.5, 0) * canvas.edge
    values = body.bone + (950 - body.bone) * np.clip(1.5 - depth / 1.4, 0, 1)
    flat = canvas.hu.reshape(-1)
    flat[index] += np.minimum(share, 1) * (values - flat[index])
    marks = []
    for one in breaks:
        lesion = _lesion(one.place, one.diameter, one.side, "ribs")
        box, far = _around(canvas, one.place, one.diameter / 2)
        inside = (far < one.diameter / 2) & (canvas.hu[box] > -200)
        marks.append(Mark(observation="fracture", side=one.side, box=box, lesion=lesion, inside=inside))
    return marks


def _break(points: Floats, angles: Floats, at: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Breaks a rib: what is beyond steps out or in and rides up, a small gap between. Returns points and the place."""
    n = int(np.searchsorted(angles, at))
    outward = points[n] * np.array([1, 1, 0])
    outward /= np.linalg.norm(outward)
    step = float(rng.choice([-1, 1])) * rng.uniform(6, 8.5) * outward + np.array([0, 0, rng.uniform(-5, 5)])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    beyond = along - along[n]
    moved = points + np.where(beyond > 0, np.exp(-np.maximum(beyond, 0) / 45), 0)[:, None] * step
    return moved[np.abs(beyond) >= 3.9], points[n] + step / 2


def _front(z: float) -> float:
    """Returns y of the inside of the front of the cage."""
    return float(_profile(np.array(z), CAGE_Z, CAGE_C) - _profile(np.array(z), CAGE_Z, CAGE_B)) - 3


def _blade(side: int) -> Floats:
    """Returns points of a scapula: a triangle on the back of the cage, with spine and glenoid."""
    points = []
    for z in np.arange(-52, 74, 2.5):
        low, high = 0.62, 0.62 + 0.62 * (z + 62) / 136
        a = float(_profile(np.array(z), CAGE_Z, CAGE_A)) + 20
        b = float(_profile(np.array(z), CAGE_Z, CAGE_B)) + 20
        c = float(_profile(np.array(z), CAGE_Z, CAGE_C))
        for angle in np.arange(low, high, 2.5 / a):
            points.append((side * a * np.sin(angle) ** 0.9, c + b * np.cos(angle), z))
    ridge = _curve([(side * 66, 90, 44), (side * 110, 78, 66), (side * 150, 42, 92), (side * 158, 12, 104)], 2)
    socket = _curve([(side * 130, 34, 52), (side * 146, 16, 78), (side * 148, 10, 92)], 1.5)
    wide = np.concatenate([socket + offset for offset in ([0, 0, 0], [0, 4, 0], [0, -4, 0])])
    return np.concatenate([np.array(points), ridge, ridge + np.array([0, 2, 3]), wide])


def _around(canvas: Canvas, center: Floats, radius: float) -> tuple[tuple[slice, ...], Floats]:
    """Returns the box about a ball and mm from its centre."""
    box = canvas.fine.box((center - radius - 3)[::-1], (center + radius + 3)[::-1])
    z, y, x = np.meshgrid(*(canvas.fine.axis(n)[box[n]] for n in range(3)), indexing="ij")
    return box, np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2)


def _ball(canvas: Canvas, center: Floats, radius: float, value: float) -> None:
    box, far = _around(canvas, center, radius)
    canvas.blend(box, np.clip(0.5 + (radius - far) / canvas.edge, 0, 1), value)


def _spine(canvas: Canvas, body: Body) -> None:
    """Draws vertebrae with their discs, canal and processes."""
    corners = _world(body, np.array([(x, y, z) for x in (-50, 50) for y in (20, 128) for z in (-300, 160)]))
    box = canvas.fine.box(corners.min(axis=0)[::-1], corners.max(axis=0)[::-1])
    wz, wy, wx = np.meshgrid(*(canvas.fine.axis(n)[box[n]] for n in range(3)), indexing="ij")
    back = (_turn(body) / body.scale).astype(np.float32)
    x, y, z = (wx * back[0, n] + wy * back[1, n] + wz * back[2, n] for n in range(3))
    y = y - _spine_y(z).astype(np.float32)
    phase = (z - 78) / 20.5
    level = np.abs(phase - np.rint(phase)) * 20.5
    wide = (15.5 - z / 45) + 1.6 * (level / 10) ** 2
    disc = 7.4 - level

    def share(distance: Floats) -> Floats:
        return np.clip(0.5 - distance / canvas.edge, 0, 1)

    body_mm = (np.sqrt((x / wide) ** 2 + ((y + 1) / (wide * 0.82)) ** 2) - 1) * wide * 0.9
    canvas.blend(box, share(body_mm), 75.0)
    bone_mm = np.maximum(body_mm, -disc)
    arch = np.abs(np.sqrt((x / 1.12) ** 2 + (y - 24) ** 2) - 11.5) - 2.8
    arch = np.maximum(np.maximum(arch, level - 7.5), 14 - y)
    thorn = np.maximum(
        np.abs(x) - 2.6, np.maximum(np.abs(y - 40) - 14, np.abs(phase - np.rint(phase + (y - 24) / 60)) * 20.5 - 6)
    )
    wing = np.maximum(np.abs(y - 27 - np.abs(x) * 0.25) - 4, np.maximum(np.abs(x) - 29, level - 5.5))
    wing = np.maximum(wing, 9 - np.abs(x))
    canal = np.sqrt(x**2 + (y - 23.5) ** 2) - 8.6
    bone_mm = np.maximum(np.minimum(np.minimum(bone_mm, arch), np.minimum(thorn, wing)), -canal)
    values = body.bone + (800 - body.bone) * np.clip(1.3 + bone_mm / 1.5, 0, 1)
    canvas.blend(box, share(canal), 12.0)
    canvas.blend(box, share(bone_mm), values)
    canvas.blend(box, share(canal + 4.4), 38.0)


def _couch(canvas: Canvas, body: Body) -> None:
    """Draws the table top: a thin shell behind the patient."""
    y = canvas.fine.axis(1)
    back = 117 * body.scale[1] + 0.7 * body.fat + 7
    x = canvas.fine.axis(2)
    far = np.abs(y[:, None] - (back - (x[None, :] / 260) ** 2 * 30)) - 1.2
    share = np.clip(0.5 - far / canvas.edge, 0, 1)
    outside = canvas.hu < -900
    canvas.hu += outside * share * np.float32(840)


def _noise(canvas: Canvas, body: Body, f: Fields, rng: np.random.Generator) -> None:
    """Adds quantum noise as filtered backprojection leaves it: a ramp in the plane, cut by a smooth kernel.

    Its standard deviation is that of the dose at 2 mm, grows with the body and falls with the volume of a voxel; more
    in the middle and between the shoulders, less at the skin.
    """
    spacing = canvas.fine.spacing
    size = np.exp((body.scale[0] * body.scale[1] - 1) * 1.2 + (body.fat - 16) / 60)
    level = float(np.clip(body.noise * size * (8 / np.prod(spacing)) ** 0.35, 8, 35))
    white = rng.standard_normal(canvas.hu.shape, dtype=np.float32)
    fine = ndimage.gaussian_filter(white, (0.5 / spacing[0], 0.75 / spacing[1], 0.75 / spacing[2]), truncate=2.5)
    del white
    broad = ndimage.gaussian_filter(fine, (0, 1.1 / spacing[1], 1.1 / spacing[2]), truncate=2.5)
    broad *= -0.7
    fine += broad
    del broad
    fine *= level / float(fine[::4, ::4, ::4].std())
    depth = np.clip(-f.body / 90, 0, 1)
    strength = 0.55 + 0.5 * depth + 0.35 * np.exp(-(((f.z - 82) / 22) ** 2)) * depth
    fine *= canvas.lift(strength.astype(np.float32))
    canvas.hu += fine
    np.clip(canvas.hu, -1024, 3071, out=canvas.hu)


def _labels(findings: dict[str, Finding]) -> dict[str, Status]:
    """Returns what is known of every observation; what could be argued about is left open."""
    labels = {name: Status.PRESENT if name in findings else Status.ABSENT for name in (*DRAWN, *NEVER)}
    if "consolidation" in findings or "nodule" in findings:
        del labels["lung_opacity"]
    if {"pleural_effusion", "pneumothorax", "consolidation"} & set(findings):
        del labels["atelectasis"]
    if "nodule" in findings and findings["nodule"].lesions[0].diameter_mm > 28:
        del labels["mass"]
    return labels


def _drawn(seed: int, canvas: Canvas, body: Body, plan: Plan, marks: list[Mark], mirror: bool) -> DrawnVolume:
    """Puts the truth together, and turns it over where the mirror twin is asked for."""
    flip = -1 if mirror else 1
    marks = sorted(marks, key=lambda m: (DRAWN.index(m.observation), -m.lesion.diameter_mm if m.lesion else m.side))
    segments, findings = [], {}
    numbers = np.zeros(canvas.fine.shape, dtype=np.uint8)
    for n, mark in sorted(enumerate(marks, 1), key=lambda item: item[1].lesion is not None):
        numbers[mark.box][mark.inside] = n
    for mark in marks:
        segments.append(
            Segment(
                observation=mark.observation,
                laterality=SIDES[mark.side * flip] if mark.side else None,
                location=mark.lesion.location if mark.lesion else None,
                is_lesion=mark.lesion is not None,
            )
        )
    present = {mark.observation for mark in marks} | set(plan.severity)
    for name in DRAWN:
        if name not in present:
            continue
        own = [mark for mark in marks if mark.observation == name]
        lesions = tuple(_turned(mark.lesion, flip) for mark in own if mark.lesion is not None)
        sides = {SIDES[mark.side * flip] for mark in own if mark.side}
        places = {lesion.location for lesion in lesions}
        findings[name] = Finding(
            observation=name,
            status=Status.PRESENT,
            laterality=None if not sides else sides.pop() if len(sides) == 1 else Side.BILATERAL,
            location=places.pop() if len(places) == 1 else None,
            severity=plan.severity.get(name),
            count=len(lesions) or None,
            measurement=Measurement(value=lesions[0].diameter_mm, unit="mm") if lesions else None,
            lesions=lesions,
        )
    origin, spacing = canvas.fine.origin, canvas.fine.spacing
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]]
    affine[:3, 3] = origin[::-1]
    hu = canvas.hu
    if mirror:
        affine[0, 3] = -(origin[2] + spacing[2] * (canvas.fine.shape[2] - 1))
        hu, numbers = np.ascontiguousarray(hu[..., ::-1]), np.ascontiguousarray(numbers[..., ::-1])
    return DrawnVolume(
        region="chest_ct",
        seed=seed,
        patient=Patient(patient_id=f"chest-{seed}", sex=Sex.FEMALE if body.female else Sex.MALE, age_years=body.age),
        images={"CT": hu},
        affine=affine,
        segmentation=numbers,
        segments=tuple(segments),
        findings=tuple(findings.values()),
        labels=_labels(findings),
        contrast="arterial" if body.enhancement else None,
    )


def _turned(lesion: Lesion, flip: int) -> Lesion:
    """Returns a lesion, on the other side of a mirror twin."""
    if flip > 0:
        return lesion
    x, y, z = lesion.center_mm
    return Lesion(
        center_mm=(-x, y, z),
        diameter_mm=lesion.diameter_mm,
        laterality=Side.LEFT if lesion.laterality == Side.RIGHT else Side.RIGHT,
        location=lesion.location,
    )
