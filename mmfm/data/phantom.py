"""A chest phantom: parametric anatomy in three dimensions, projected into a frontal and a lateral radiograph.

``mmfm.data.synthetic`` decides what a patient has; this module draws it. Air of the lungs, heart, diaphragm, fluid and
consolidation live on a voxel grid that is summed along the beam; ribs, spine, clavicles, vessels, tubes and pleural
lines are clouds of points with a mass, so that a surface seen edge-on is bright as on film. Both views come from the
same patient. Then the detector: attenuation, scatter, blur, noise, and a vendor's tone curve.

Frame: nominal patient coordinates in millimetres, ``x`` to the patient's left, ``y`` to the feet (0 at the lung
apices), ``z`` to the back. Body size scales each axis afterwards (``Body``). Figures of normal anatomy are rounded
from textbook adult values (inner thoracic width about 28 cm, posterior rib 10 at the right dome, carina about 95 mm
below the apices, cardiothoracic ratio under 0.5); what matters is the look, not anthropometry.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.floating]

STEP = 2.5
"""Voxel edge of the grid, nominal mm."""
X = np.arange(-152.5, 153.0, STEP, dtype=np.float32)
Y = np.arange(-5.0, 313.0, STEP, dtype=np.float32)
Z = np.arange(-115.0, 106.0, STEP, dtype=np.float32)
P = 2.4
"""Exponent of the superellipse that a cross-section of the rib cage is."""
DOME = 225.0
"""Height (y) of the right dome of the diaphragm at full inspiration."""
CARINA = 95.0
HILUM = {-1: np.array([-34.0, 106.0, 4.0]), 1: np.array([37.0, 97.0, 6.0])}
"""Centre of each hilum by side sign; the left one is higher."""
LOBES = ("right upper lobe", "right middle lobe", "right lower lobe", "left upper lobe", "left lower lobe")


@dataclass(frozen=True, kw_only=True)
class Body:
    """Habitus and exposure of one patient; every field varies from study to study."""

    scale: tuple[float, float, float]
    """Of x, y, z against the nominal frame."""
    female: bool
    fat: float
    """Soft tissue outside the ribs, mm more than lean."""
    heart: float
    """Size of the heart; 1 is nominal, about a cardiothoracic ratio of 0.45."""
    heart_tilt: float
    """Radians that the heart's long axis is more horizontal than nominal."""
    inspiration: float
    """mm that both domes stand lower than nominal."""
    left_dome: float
    """mm that the left dome stands lower than the right."""
    lung_density: float
    knob: float
    """Size of the aortic knob, 1 nominal."""
    gas: float
    """Size of the gastric bubble, 1 nominal."""
    roll: float
    """Radians that the patient leans in the frontal view; a negative share of it in the lateral."""
    field_mm: float
    """Edge of the square detector field in mm."""
    offset: tuple[float, float]
    """Centre of the field against the patient, mm (rows, columns)."""


@dataclass(frozen=True, kw_only=True)
class Pathology:
    """What is to be drawn. Sides are signs: -1 the patient's right, 1 the left."""

    effusion: dict[int, float] = field(default_factory=dict)
    """Side -> y of the fluid's level in the middle of the hemithorax, nominal mm."""
    pneumothorax: tuple[int, float] | None = None
    """Side, and mm between the apex of the cage and the apex of the lung."""
    nodules: tuple[tuple[int, float], ...] = ()
    """Side and diameter in true mm; the place is drawn where the frontal view shows lung."""
    consolidation: tuple[str, float] | None = None
    """One of LOBES and a size, 1 nominal."""
    edema: float = 0.0
    """0 none, 1 moderate."""
    tube: tuple[str, int] | None = None
    """``endotracheal tube`` (side 0) or ``central venous catheter`` with the side of its vein."""
    fractures: tuple[tuple[int, int, float], ...] = ()
    """Side, number of the rib, angle along it in radians (0 at the spine, pi / 2 at the flank)."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One view: display values and where things are."""

    display: Floats
    """(rows, columns), 0 black to 1 white."""
    regions: tuple[tuple[str, int, NDArray[np.bool_]], ...]
    """Observation, side sign (0 none) and mask (rows, columns) of everything abnormal."""
    heart: NDArray[np.bool_]
    lungs: NDArray[np.bool_]
    """Inside of the rib cage above the diaphragm."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Nominal millimetres -> pixels of one view. ``across`` is x (frontal) or z (lateral)."""

    size: int
    scale: tuple[float, float]
    """Of y and of the axis across."""
    angle: float
    mm_per_pixel: float
    offset: tuple[float, float]

    def matrix(self) -> tuple[Floats, Floats]:
        """Returns M (2, 2) and t (2,): (row, column) = M @ (y, across) + t."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[c, s], [-s, c]]) @ np.diag(self.scale) / self.mm_per_pixel
        centre = np.array([130.0, 0.0])
        return turn, (self.size - 1) / 2 + np.array(self.offset) / self.mm_per_pixel - turn @ centre

    def pixels(self, y: Floats, across: Floats) -> Floats:
        """Returns (2, N) rows and columns of nominal points."""
        turn, shift = self.matrix()
        return turn @ np.stack([np.ravel(y), np.ravel(across)]) + shift[:, None]

    def coordinates(self) -> tuple[Floats, Floats]:
        """Returns nominal ``y`` and ``across`` of every pixel, each (size, size)."""
        turn, shift = self.matrix()
        back = np.linalg.inv(turn)
        rows, columns = np.arange(self.size, dtype=np.float32) - shift[0], np.arange(self.size) - shift[1]
        y = back[0, 0] * rows[:, None] + back[0, 1] * columns[None, :]
        across = back[1, 0] * rows[:, None] + back[1, 1] * columns[None, :]
        return y.astype(np.float32), across.astype(np.float32)

    def from_grid(self, plane: Floats, origin: float, order: int = 1) -> Floats:
        """Returns a plane of the grid (y, across), whose second axis starts at ``origin``, as (size, size)."""
        turn, shift = self.matrix()
        back = np.linalg.inv(turn) / STEP
        start = back @ -shift - np.array([Y[0], origin]) / STEP
        return ndimage.affine_transform(
            plane.astype(np.float32), back, offset=start, output_shape=(self.size, self.size), order=order
        )

    def splat(self, y: Floats, across: Floats, mass: Floats | float, sigma_mm: float) -> Floats:
        """Returns (size, size) mm along the beam of points that hold ``mass`` mm^3 each, blurred by ``sigma_mm``."""
        rows, columns = self.pixels(y, across)
        mass = np.broadcast_to(np.asarray(mass, dtype=np.float64), np.shape(y)).ravel() / self.mm_per_pixel**2
        flat = np.zeros(self.size * self.size)
        r0, c0 = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
        fr, fc = rows - r0, columns - c0
        for dr, wr in ((0, 1 - fr), (1, fr)):
            for dc, wc in ((0, 1 - fc), (1, fc)):
                r, c = r0 + dr, c0 + dc
                seen = (r >= 0) & (r < self.size) & (c >= 0) & (c < self.size)
                flat += np.bincount((r * self.size + c)[seen], (mass * wr * wc)[seen], minlength=flat.size)
        image = flat.reshape(self.size, self.size).astype(np.float32)
        return ndimage.gaussian_filter(image, sigma_mm / self.mm_per_pixel, truncate=3.0)


# ---------------------------------------------------------------------------------------------------- the rib cage


def _curve(y: Floats, *knots: tuple[float, float]) -> Floats:
    """Returns a smooth curve through about ``knots`` (y, value) at ``y``."""
    fine = np.arange(-120.0, 420.0, 4.0)
    values = np.interp(fine, [k[0] for k in knots], [k[1] for k in knots])
    return np.interp(y, fine, ndimage.gaussian_filter1d(values, 3.0, mode="nearest"))


def _width(y: Floats) -> Floats:
    """Returns the inner half width of the rib cage at height ``y``."""
    u = np.clip(np.asarray(y, dtype=np.float64) / 180.0, 1e-4, 1.0)
    return 138.0 * (1 - (1 - u) ** 2.0) ** 0.54


def _front(y: Floats) -> Floats:
    return _curve(y, (0, -4), (15, -34), (50, -64), (110, -86), (180, -95), (260, -92), (330, -80))


def _back(y: Floats) -> Floats:
    return _curve(y, (0, 44), (40, 66), (110, 86), (170, 86), (230, 76), (300, 60))


def _spine(y: Floats) -> Floats:
    """Returns z of the centres of the vertebral bodies."""
    return _back(y) - 22.0


def _in_cage(width: Floats, centre: Floats, depth: Floats) -> tuple[Floats, Floats]:
    """Returns occupancy 0..1 and rough distance to the wall (mm, > 0 inside) on the grid, each (y, x, z)."""
    reach = (np.minimum(width, depth) / P)[:, None]
    across = reach * (1 - (np.abs(X)[None, :] / width[:, None]) ** P)
    along = reach * (np.abs(Z[None, :] - centre[:, None]) / depth[:, None]) ** P
    wall = across.astype(np.float32)[:, :, None] - along.astype(np.float32)[:, None, :]
    return _occupied(wall), wall


def _occupied(inside: Floats) -> Floats:
    """Returns the share 0..1 of each voxel that lies inside of a surface ``inside`` mm away."""
    return np.clip(inside / STEP + 0.5, 0, 1)


def _add_ellipsoid(
    onto: Floats,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    turn: Floats | None = None,
    sag: float = 1.0,
) -> None:
    """Adds an ellipsoid to occupancy on the grid (y, x, z), in place; rows of ``turn`` are its axes in (x, y, z).

    Below its centre it is ``sag`` times as high: a heart rests on the diaphragm and does not hang above it.
    """
    axes = np.eye(3) if turn is None else turn
    extent = np.linalg.norm(axes * np.array(radii)[:, None], axis=0) * [1, sag, 1] + STEP
    box = [slice(*np.searchsorted(g, (c - e, c + e))) for g, c, e in zip((X, Y, Z), centre, extent, strict=True)]
    right, down, back = (g[part] - c for g, part, c in zip((X, Y, Z), box, centre, strict=True))
    down = np.where(down > 0, down / sag, down)
    total: Floats = np.zeros((down.size, right.size, back.size), np.float32)
    for axis, radius in zip(axes.tolist(), radii, strict=True):
        flat = (axis[0] * right)[None, :] + (axis[1] * down)[:, None]
        total += ((flat / radius).astype(np.float32)[:, :, None] + (axis[2] / radius * back).astype(np.float32)) ** 2
    view = onto[box[1], box[0], box[2]]
    np.maximum(view, _occupied((1 - np.sqrt(total)) * min(radii)), out=view)


def _heart(body: Body) -> Floats:
    size = body.heart
    angle = 0.58 - body.heart_tilt
    long = np.array([np.cos(angle) * 0.9, np.sin(angle) * 0.9, -0.436])
    short = np.cross(long, [0.0, 0.0, 1.0])
    short /= np.linalg.norm(short)
    turn = np.stack([long, short, np.cross(long, short)])
    # A big heart grows to the left and downwards: its right and upper borders move less than its apex.
    grown = size - 1
    x, y, z = 19.0 + 30 * grown, DOME - 50 + 0.8 * body.inspiration + 6 * grown, -42.0
    heart: Floats = np.zeros((Y.size, X.size, Z.size), np.float32)
    _add_ellipsoid(heart, (x, y, z), (70 * size, 49 * size, 54 * size**0.6), turn, sag=1.7)
    _add_ellipsoid(heart, (x - 33 - 6 * grown, y - 14, z + 22), (28 * size, 46 * size, 40.0), sag=1.5)
    return heart


def _mediastinum(body: Body) -> Floats:
    """Returns occupancy on the grid of everything between the lungs but the heart."""
    y, z = Y[:, None], Z[None, :]
    vessels = 20 * np.exp(-(((z - 2) / 42) ** 2)) * np.clip((150 - y) / 60, 0.5, 1)
    spine = z - _spine(Y)[:, None]
    vertebrae = np.maximum(np.sqrt(np.clip(25.0**2 - spine**2, 0, None)), np.where(spine > 0, 13.0, 0.0))
    half = np.maximum(7.0 + vessels, vertebrae).astype(np.float32)
    shifted = np.abs(X[None, :] - 3 * np.clip((Y - 35) / 40, 0, 1)[:, None])
    middle = _occupied(half[:, None, :] - shifted[:, :, None])
    _add_ellipsoid(middle, (22.0, 57.0, 14.0), (19 * body.knob, 17 * body.knob, 26.0))
    _add_ellipsoid(middle, (25.0, 93.0, -16.0), (21.0, 30.0, 26.0))
    _add_ellipsoid(middle, (-18.0, 95.0, -12.0), (19.0, 75.0, 30.0))
    aorta = _occupied(13 - np.hypot(X[:, None] - 23, Z[None, :] - 46))
    return np.maximum(middle, aorta[None] * np.clip((Y - 50) / 12, 0, 1)[:, None, None])


def _diaphragm(body: Body) -> Floats:
    """Returns y of the diaphragm's surface, (x, z)."""
    side = np.where(X > 0, DOME + body.left_dome, DOME) + body.inspiration
    u, v = (np.abs(X) - 70) / 68, (Z + 12) / 80
    across = np.where(u > 0, 44, 12) * u**2
    along = np.where(v > 0, 62, 26) * v**2
    return (side + across)[:, None] + along[None, :]


def _lobe(name: str) -> Floats:
    """Returns soft membership 0..1 of a lobe on the grid; the fissures are planes."""
    behind = 0.628 * (Y[:, None] - 45) + 0.78 * (Z[None, :] - 75)
    behind = np.clip(behind / 5 + 0.5, 0, 1)[:, None, :]
    lower = np.clip((Y - 118) / 4 + 0.5, 0, 1)[:, None, None]
    side = np.clip((X if name.startswith("left") else -X) / STEP + 0.5, 0, 1)[None, :, None]
    if name.endswith("lower lobe"):
        return side * behind
    if name == "left upper lobe":
        return side * (1 - behind)
    return side * (1 - behind) * (lower if "middle" in name else 1 - lower)


_LOBE_CENTRES = {
    "right upper lobe": (-70.0, 78.0, -8.0),
    "right middle lobe": (-68.0, 160.0, -45.0),
    "right lower lobe": (-75.0, 185.0, 45.0),
    "left upper lobe": (72.0, 88.0, -15.0),
    "left lower lobe": (88.0, 182.0, 45.0),
}


# ------------------------------------------------------------------------------------------------ bones and vessels


@dataclass(frozen=True, kw_only=True)
class Points:
    """A cloud of points in the nominal frame with the mm^3 that each holds."""

    xyz: Floats
    """(3, N)."""
    mass: Floats
    """(N,)."""


def _tube(line: Floats, height: float, depth: float, wall: float) -> Points:
    """Returns the wall of a tube with elliptical section (half ``height`` along y, half ``depth`` outwards) on a line.

    ``line`` is (3, N); the section lies in the plane of y and the horizontal normal of the line.
    """
    along = np.gradient(line, axis=1)
    length = np.linalg.norm(along, axis=0)
    flat = np.hypot(along[0], along[2]) + 1e-6
    normal = np.stack([along[2] / flat, np.zeros_like(flat), -along[0] / flat])
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = normal[:, :, None] * (depth * np.cos(angle)) + np.array([0, 1, 0])[:, None, None] * (height * np.sin(angle))
    arc = np.hypot(depth * np.sin(angle), height * np.cos(angle)) * (2 * np.pi / angle.size)
    mass = length[:, None] * arc[None, :] * wall
    return Points(xyz=(line[:, :, None] + ring).reshape(3, -1), mass=mass.ravel())


def _rib(side: int, number: int, jitter: float) -> tuple[Floats, Floats]:
    """Returns a rib's middle line (3, N) and the angle of each of its points."""
    drop = np.interp(number, [1, 2, 3, 5, 7, 9, 10, 12], [26, 44, 58, 78, 92, 84, 76, 40])
    end = np.radians(np.interp(number, [1, 7, 8, 10, 11, 12], [140, 146, 128, 112, 85, 62]))
    angle = np.linspace(0.12, end, 320)
    start = 9 + 20.6 * (number - 1) + jitter
    y = start + drop * (angle / np.radians(146)) ** 1.25 - 7 * np.sin(np.clip(angle * 2, 0, np.pi))
    width, front, back = _width(np.maximum(y, 7)) + 3.5, _front(y) - 3, _back(y) + 3
    cosine = np.cos(angle)
    x = side * width * np.abs(np.sin(angle)) ** (2 / P)
    z = (front + back) / 2 + (back - front) / 2 * np.sign(cosine) * np.abs(cosine) ** (2 / P)
    return np.stack([x, y, z]), angle


def _ribs(body: Body, fractures: tuple[tuple[int, int, float], ...], rng: np.random.Generator) -> tuple[Points, Floats]:
    """Returns all ribs and (3, F) the sites of the fractures."""
    clouds, sites = [], []
    broken = {(side, number): angle for side, number, angle in fractures}
    height, depth = (5.0, 2.6) if body.female else (5.8, 3.0)
    for side in (-1, 1):
        for number in range(1, 13):
            line, angle = _rib(side, number, rng.normal(0, 0.8))
            if (side, number) in broken:
                at = int(np.argmin(np.abs(angle - broken[side, number])))
                sites.append(line[:, at].copy())
                # The far fragment rides down and overlaps the near one.
                line[1, at:] += 10.0 * np.exp(-(angle[at:] - angle[at]) / 0.7)
                line[0, at:] -= side * 4.0 * np.exp(-(angle[at:] - angle[at]) / 0.5)
                near, far = line[:, : at - 3], line[:, at + 3 :]
                clouds += [_tube(near, height, depth, 2.9), _tube(far, height, depth, 2.9)]
                caps = np.stack([near[:, -1], far[:, 0]], axis=1)[:, :, None] + rng.normal(0, 1.8, (3, 2, 200))
                clouds.append(Points(xyz=caps.reshape(3, -1), mass=np.full(400, 4.0)))
            else:
                clouds.append(_tube(line, height, depth, 2.9))
    return _joined(clouds), np.array(sites).reshape(-1, 3).T


def _joined(clouds: list[Points]) -> Points:
    return Points(xyz=np.concatenate([c.xyz for c in clouds], 1), mass=np.concatenate([c.mass for c in clouds]))


def _vertebrae(rng: np.random.Generator) -> Points:
    clouds = []
    for top in np.arange(-86.0, 345.0, 23.0):
        wide = float(np.interp(top, [-80, 0, 300], [13, 15, 21]))
        high, deep = (17.0 if top > -20 else 13.0), 14.0
        centre = np.array([0.0, top, float(_spine(np.array([top]))[0])])
        angle, t = rng.uniform(0, 2 * np.pi, 900), rng.uniform(-1, 1, 900)
        waist = 1 - 0.12 * (1 - t**2)
        wall = np.stack([wide * waist * np.cos(angle), t * high / 2, deep * waist * np.sin(angle)])
        radius, angle2 = np.sqrt(rng.uniform(0, 1, 900)), rng.uniform(0, 2 * np.pi, 900)
        level = np.where(t > 0, 0.5, -0.5) * high
        plates = np.stack([wide * radius * np.cos(angle2), level, deep * radius * np.sin(angle2)])
        clouds.append(Points(xyz=centre[:, None] + wall, mass=np.full(900, 2 * np.pi * deep * high / 900 * 0.5)))
        clouds.append(Points(xyz=centre[:, None] + plates, mass=np.full(900, 2 * np.pi * wide * deep / 900 * 0.45)))
        for side in (-1, 1):  # pedicles: rings seen end-on from the front
            ring = np.linspace(0, 2 * np.pi, 40)
            z = rng.uniform(deep, deep + 12, 40)
            pedicle = np.stack([side * (wide * 0.62) + 3.2 * np.cos(ring), -2 + 4.5 * np.sin(ring), z])
            clouds.append(Points(xyz=centre[:, None] + pedicle, mass=np.full(40, 3.2)))
        process = np.stack([rng.normal(0, 1.6, 150), 8 + rng.normal(0, 5, 150), rng.uniform(deep + 8, deep + 34, 150)])
        clouds.append(Points(xyz=centre[:, None] + process, mass=np.full(150, 2.0)))
    return _joined(clouds)


def _shoulders(rng: np.random.Generator) -> tuple[Points, Points]:
    """Returns the sternum (both views), and clavicles, scapulae, humeri (frontal only: then the arms are raised)."""
    trunk, girdle = [], []
    t = np.linspace(0, 1, 240)
    for side in (-1, 1):
        line = np.stack(
            [
                side * (13 + 150 * t),
                np.interp(t, [0, 0.35, 0.7, 1], [33, 17, 0, -7]) + 4 * np.sin(2 * np.pi * t),
                np.interp(t, [0, 0.4, 1], [-28, -42, 5]),
            ]
        )
        line[1] = ndimage.gaussian_filter1d(line[1], 12, mode="nearest") + rng.normal(0, 1.2)
        girdle.append(_tube(line, 5.6, 4.6, 2.6))
        u, v = rng.uniform(0, 1, 5000), rng.uniform(0, 1, 5000)
        flip = u + v > 1
        u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
        corners = np.array([[118.0, 14.0, 78.0], [172.0, 26.0, 40.0], [140.0, 138.0, 84.0]]) * [side, 1, 1]
        blade = corners[0][:, None] * (1 - u - v) + corners[1][:, None] * u + corners[2][:, None] * v
        girdle.append(Points(xyz=blade, mass=np.full(5000, 0.5 * 56 * 122 / 5000 * 2.6)))
        for start, stop in ((0, 2), (1, 2), (0, 1)):
            edge = corners[start][:, None] * (1 - t) + corners[stop][:, None] * t
            edge[0] += side * 6 * np.sin(np.pi * t)
            girdle.append(_tube(edge, 3.0, 3.0, 0.9))
        direction = rng.normal(size=(3, 1600))
        head = np.array([side * 186.0, 16.0, 10.0])[:, None] + 22 * direction / np.linalg.norm(direction, axis=0)
        girdle.append(Points(xyz=head, mass=np.full(1600, 4 * np.pi * 22**2 / 1600 * 1.4)))
        shaft = np.stack([side * (190 + 26 * t), 30 + 230 * t, 10 + 0 * t])
        girdle.append(_tube_upright(shaft, 11.0, 3.2))
    body = np.stack([rng.uniform(-17, 17, 4000), rng.uniform(34, 185, 4000), rng.choice([-4.5, 4.5], 4000)])
    body[2] += _front(body[1]) - 9 + rng.normal(0, 0.5, 4000)
    trunk.append(Points(xyz=body, mass=np.full(4000, 2 * 34 * 151 / 4000 * 0.9)))
    return _joined(trunk), _joined(girdle)


def _tube_upright(line: Floats, radius: float, wall: float) -> Points:
    """Returns the wall of a round tube whose line runs about along y; the section lies in the plane of x and z."""
    length = np.linalg.norm(np.gradient(line, axis=1), axis=0)
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    ring = np.stack([radius * np.cos(angle), 0 * angle, radius * np.sin(angle)])
    mass = np.broadcast_to(length[:, None] * (2 * np.pi * radius / angle.size * wall), (line.shape[1], angle.size))
    return Points(xyz=(line[:, :, None] + ring[:, None, :]).reshape(3, -1), mass=mass.ravel())


def _vessels(rng: np.random.Generator) -> list[tuple[float, Floats, Floats]]:
    """Returns (blur mm, cross-section mm^2 (N,), points about 1 mm apart (3, N)) of both pulmonary trees."""
    starts, outwards = [], []
    for side in (-1, 1):
        height = np.linspace(-1.45, 1.35, 15) + rng.normal(0, 0.08, 15)
        toward = np.stack([side * np.cos(height), np.sin(height), rng.normal(0, 0.55, 15)])
        toward /= np.linalg.norm(toward, axis=0)
        starts.append(HILUM[side][:, None] + rng.normal(0, 4.0, (3, 15)) - toward * 6)
        outwards.append(toward)
    start, outward = np.concatenate(starts, 1), np.concatenate(outwards, 1)
    paths: list[Floats] = []
    areas: list[Floats] = []
    radius, length = 3.4, 30.0
    for _ in range(7):
        bend = rng.normal(0, 0.22, outward.shape)
        t = np.linspace(0, 1, int(1.2 * length))
        reach = length * np.where(outward[1] > 0, 1.3, 1.0)[:, None]
        path = start[:, :, None] + reach * (outward[:, :, None] * t + bend[:, :, None] * t**2)
        paths.append(path.reshape(3, -1))
        areas.append(np.full(paths[-1].shape[1], np.pi * radius**2))
        end = path[:, :, -1]
        outward = outward + 2 * bend
        split = rng.normal(0, 0.38, outward.shape)
        outward = np.concatenate([outward + split, outward - 0.7 * split], 1)
        outward /= np.linalg.norm(outward, axis=0)
        start = np.concatenate([end, end], 1)
        radius, length = radius * 0.76, length * 0.88
    # Neighbouring generations share one blur, about half their radius.
    return [
        (sigma, np.concatenate(areas[first:last]), np.concatenate(paths[first:last], axis=1))
        for sigma, first, last in ((1.7, 0, 1), (1.15, 1, 3), (0.7, 3, 5), (0.4, 5, 7))
    ]


# ------------------------------------------------------------------------------------------------------- one patient


def _inside(occupancy: Floats, xyz: Floats) -> Floats:
    """Returns the grid's value at points (3, N); 0 outside of the grid."""
    index = [
        np.rint((xyz[1] - Y[0]) / STEP).astype(int),
        np.rint((xyz[0] - X[0]) / STEP).astype(int),
        np.rint((xyz[2] - Z[0]) / STEP).astype(int),
    ]
    seen = np.ones(xyz.shape[1], bool)
    for i, n in zip(index, occupancy.shape, strict=True):
        seen &= (i >= 0) & (i < n)
    value = np.zeros(xyz.shape[1], np.float32)
    value[seen] = occupancy[index[0][seen], index[1][seen], index[2][seen]]
    return value


@dataclass(frozen=True, kw_only=True)
class _Interior:
    """The grid of one patient; every field is occupancy 0..1 or a density, (y, x, z)."""

    room: Floats
    heart: Floats
    lung: Floats
    """What is aerated lung, whatever its density."""
    density: Floats
    """Of the lung against water."""
    air: Floats
    """Share of a voxel that is gas."""
    lesions: tuple[tuple[str, int, Floats, float], ...]
    """Observation, side, density or occupancy, and the mm along the beam from which the mask counts."""


def _interior(body: Body, pathology: Pathology, rng: np.random.Generator) -> _Interior:
    width, front, back = _width(Y), _front(Y), _back(Y)
    cage, wall = _in_cage(width, (front + back) / 2, (back - front) / 2)
    room = cage * _occupied(_diaphragm(body).astype(np.float32)[None] - Y[:, None, None])
    heart = _heart(body) * room
    lung = room * (1 - np.maximum(_mediastinum(body), heart))
    # Denser at the base; one value for each height until something is drawn into it.
    density = (body.lung_density * (0.85 + 0.3 * np.clip(Y / DOME, 0, 1)))[:, None, None]
    gas: Floats = np.zeros((1, 1, 1), np.float32)
    lesions: list[tuple[str, int, Floats, float]] = []
    half = {side: _occupied(side * X)[None, :, None] for side in (-1, 1)}

    for side, level in pathology.effusion.items():
        # Fluid climbs along the chest wall: the meniscus.
        surface = level - 50 * np.exp(-np.maximum(wall, 0) / 20)
        fluid = lung * half[side] * np.clip((Y[:, None, None] - surface) / 12 + 0.5, 0, 1)
        lesions.append(("pleural_effusion", side, fluid, 8.0))
        lung = lung - fluid
    if pathology.pneumothorax is not None:
        side, apical = pathology.pneumothorax
        _, narrow, shallow = _visceral(apical)
        kept, _ = _in_cage(narrow, (front + back) / 2, shallow)
        gap = lung * half[side] * (1 - kept)
        lesions.append(("pneumothorax", side, gap, 15.0))
        lung = lung - gap
        density = density * (1 + half[side] * apical / 160)
        gas = gap
    if pathology.consolidation is not None:
        name, size = pathology.consolidation
        side = 1 if name.startswith("left") else -1
        centre = np.array(_LOBE_CENTRES[name]) + rng.normal(0, 5, 3)
        distance = _distance(centre, (40 * size, 38 * size, 38 * size))
        solid = np.clip(1.7 - distance + 0.4 * _patches((12, 12, 9), rng), 0, 1) * lung * _lobe(name)
        lesions.append(("consolidation", side, solid, 20.0))
        density = density + solid * (1.0 - density)
    if pathology.edema:
        patches = 0.52 * pathology.edema * (1 + 0.35 * _patches((15, 15, 11), rng)) * lung
        for side in (-1, 1):
            centre = HILUM[side] + [side * 22, 14, 4]
            haze = np.exp(-_distance(centre, (62, 82, 75))) * patches * half[side]
            lesions.append(("edema", side, haze, 18.0 * pathology.edema))
            density = density + np.clip(haze, 0, 0.6)
    air = lung * (1 - np.minimum(density, 1)) + gas
    return _Interior(room=room, heart=heart, lung=lung, density=density, air=air, lesions=tuple(lesions))


def _distance(centre: Floats, radii: tuple[float, float, float]) -> Floats:
    """Returns the square of the distance to a centre (x, y, z) on the grid, 1 on the ellipsoid of these radii."""
    x, y, z = (((g - c) / r).astype(np.float32) ** 2 for g, c, r in zip((X, Y, Z), centre, radii, strict=True))
    return (x[None, :] + y[:, None])[:, :, None] + z


def _patches(shape: tuple[int, int, int], rng: np.random.Generator) -> Floats:
    """Returns smooth noise on the grid (y, x, z), coarse as ``shape``."""
    coarse = rng.standard_normal(shape, dtype=np.float32)
    return ndimage.zoom(coarse, np.array((Y.size, X.size, Z.size)) / shape, order=1)


def _visceral(apical: float) -> tuple[Floats, Floats, Floats]:
    """Returns for each height of the grid the gap (mm), half width and half depth of a lung fallen from the wall."""
    fade = np.clip((215 - Y) / 150, 0, 1)
    gap = apical * (0.55 + 0.45 * np.clip((80 - Y) / 80, 0, 1)) * fade
    inner = Y - apical * np.clip((110 - Y) / 110, 0, 1)
    width = np.where(inner > 0, _width(np.maximum(inner, 0.01)), 0.3) - 0.75 * gap
    depth = (_back(Y) - _front(Y)) / 2 * np.where(inner > 0, 1, 0.02) - 0.12 * gap
    return gap, np.maximum(width, 0.3), np.maximum(depth, 0.3)


def _pleural_line(side: int, apical: float) -> Points:
    """Returns the surface of a lung fallen from the wall: a sheet 1 mm thick, bright where it is seen edge-on."""
    gap, width, depth = _visceral(apical)
    fine = np.arange(Y[0], 200.0, 0.5)
    gap, width, depth = (np.interp(fine, Y, value) for value in (gap, width, depth))
    angle = np.linspace(0, np.pi, 240)
    section = np.abs(np.sin(angle)) ** (2 / P)
    turn = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / P)
    x = side * width[:, None] * section
    z = ((_front(fine) + _back(fine)) / 2)[:, None] + depth[:, None] * turn
    y = np.broadcast_to(fine[:, None], x.shape)
    rise = np.hypot(0.5, np.abs(np.gradient(width)))[:, None]
    arc = np.hypot(np.gradient(x, axis=1), np.gradient(z, axis=1))
    shown = ((gap > 2.5) & (width > 1))[:, None] & (np.abs(x) > 18)
    mass = np.where(shown, arc * rise * 0.9, 0.0)
    return Points(xyz=np.stack([x, y, z]).reshape(3, -1), mass=mass.ravel())


def _bronchi() -> Points:
    """Returns the air of the trachea and the main bronchi."""
    t = np.linspace(0, 1, 200)
    lines = [(8.0, np.stack([-12 * np.clip(t - 0.6, 0, 1), -95 + (CARINA + 95) * t, -14 + 22 * t]))]
    for side, reach, drop in ((-1, 44, 30), (1, 50, 26)):
        lines.append((4.6, np.stack([-5 + side * reach * t, CARINA + drop * t**1.2, 8 + 4 * t])))
    return _joined(
        [
            Points(xyz=line, mass=np.pi * radius**2 * np.linalg.norm(np.gradient(line, axis=1), axis=0))
            for radius, line in lines
        ]
    )


def _tubes(kind: str, side: int, rng: np.random.Generator) -> tuple[Points, float]:
    """Returns a tube's points and the height (y) of its tip."""
    t = np.linspace(0, 1, 500)
    if kind == "endotracheal tube":
        above = rng.uniform(28, 60)
        line = np.stack([-2 + 2 * np.sin(2.2 * t), -95 + (CARINA - above + 95) * t, -14 + 18 * t])
        wall = _tube_upright(line, 5.0, 1.6)
        stripe = _tube_upright(line + np.array([[4.5], [0], [0]]), 0.8, 2.2)
        return _joined([wall, stripe]), CARINA - above
    tip = rng.uniform(78, 126)
    if side < 0:
        knots = [(-44, -95), (-36, -20), (-26, 35), (-21, 75), (-21, tip)]
    else:
        knots = [(44, -95), (36, -20), (26, 32), (-4, 56), (-20, 78), (-21, max(tip, 86))]
    across = np.interp(t, np.linspace(0, 1, len(knots)), [k[0] for k in knots])
    down = np.interp(t, np.linspace(0, 1, len(knots)), [k[1] for k in knots])
    across, down = (ndimage.gaussian_filter1d(value, 22, mode="nearest") for value in (across, down))
    line = np.stack([across, down, -20 + 12 * t])
    return _tube_upright(line, 1.1, 2.6), float(down[-1])


def _chord(first: Floats, second: Floats | float, radii: tuple[float, float], depth: float) -> Floats:
    """Returns mm along the beam of an ellipsoid about 0 with ``radii`` across and half ``depth`` along it."""
    return 2 * depth * np.sqrt(np.clip(1 - (first / radii[0]) ** 2 - (second / radii[1]) ** 2, 0, None))


def _mound(first: Floats, second: Floats, radii: tuple[float, float], height: float) -> Floats:
    """Returns mm along the beam of a soft mound about 0: ``height`` in the middle, no edge."""
    return height * np.clip(1 - (first / radii[0]) ** 2 - (second / radii[1]) ** 2, 0, None)


def _outline_frontal(body: Body, y: Floats, x: Floats) -> Floats:
    """Returns mm of soft tissue along the beam of the whole trunk, neck, breasts and arms; lungs still filled."""
    f = body.fat
    waist = 154 if body.female else 162
    knots = [(-120, 66), (-58, 60), (-40, 74), (-26, 128), (-12, 176), (15, 200), (60, 186), (110, 166 + f)]
    half = _curve(y, *knots, (210, waist + f), (330, waist + 1.3 * f))
    depth = _curve(y, (-120, 64), (-40, 70), (0, 80), (60, 96), (140, 108 + f / 2), (330, 112 + f))
    trunk = 2 * depth * np.clip(1 - (np.abs(x) / half) ** 3.2, 0, None) ** (1 / 2.0)
    if body.female:
        for side in (-1, 1):
            trunk = trunk + _mound(y - 172, x - side * 78, (64 + f / 3, 66 + f / 4), 30 + f / 3)
    # The arms hang away from the chest, a strip of room air between.
    for side in (-1, 1):
        axis = side * (194 + f / 2 + 0.16 * (y - 20))
        arm = _chord(x - axis, 0 * y, (46.0, 1.0), 44.0) * np.clip((y + 20) / 30, 0, 1)
        trunk = np.maximum(trunk, arm)
    return trunk


def _outline_lateral(body: Body, y: Floats, z: Floats) -> Floats:
    f = body.fat
    front = _curve(y, (-120, -62), (-40, -58), (0, -62), (60, -82), (150, -112 - f / 2), (330, -112 - 1.3 * f))
    back = _curve(y, (-120, 62), (-40, 74), (30, 104), (110, 122 + f / 3), (200, 114 + f / 3), (330, 92 + f / 2))
    half = _curve(y, (-120, 62), (-50, 66), (-15, 110), (30, 142), (120, 158 + f / 2), (330, 158 + f))
    middle, reach = (front + back) / 2, (back - front) / 2
    trunk = 2 * half * np.clip(1 - (np.abs(z - middle) / reach) ** 2.6, 0, None) ** (1 / 2.0)
    if body.female:
        trunk = trunk + _mound(y - 172, z + 100 + f / 2, (58 + f / 3, 48 + f / 2), 60.0)
    # Both arms are raised and held forward.
    along, across = 0.72 * (y - 5) + 0.69 * (z + 5), 0.69 * (y - 5) - 0.72 * (z + 5)
    arms = _chord(across, 0 * across, (58.0, 1.0), 92.0) * np.clip(-along / 60 + 0.4, 0, 1)
    return np.maximum(trunk, arms)


def _gas(body: Body, y: Floats, across: Floats, lateral: bool, rng: np.random.Generator) -> Floats:
    """Returns mm along the beam of gas in the stomach (with its fluid level) and the bowel under the left dome."""
    top = DOME + body.left_dome + body.inspiration
    size = body.gas
    middle = (-18.0 if lateral else 58.0, top + 10 + 16 * size)
    bubble = _chord(y - middle[1], across - middle[0], (17 * size, (24 if lateral else 30) * size), 24 * size)
    bubble *= np.clip((middle[1] + 6 * size - y) / 2 + 0.5, 0, 1)
    for _ in range(3):
        place = rng.normal(-30 if lateral else 90, 22), top + rng.uniform(48, 95)
        radii = rng.uniform(7, 15), rng.uniform(9, 20)
        bubble = bubble + _chord(y - place[1], across - place[0], radii, 9.0)
    return bubble


def draw(
    body: Body, pathology: Pathology, size: int, rng: np.random.Generator
) -> tuple[Drawing, Drawing, dict[str, float]]:
    """Returns the frontal and the lateral view of one patient, (size, size), and what was measured on the way.

    Measured are ``cardiothoracic_ratio`` (on the frontal masks), ``effusion_mm`` (height of the higher effusion on the
    frontal view), ``pneumothorax_mm`` (apex of the cage to apex of the lung) and ``tip_below_carina_mm`` (of a tube).
    A region that a view cannot show (a fracture on the lateral, a thin pneumothorax) is left out of that view.
    """
    grid = _interior(body, pathology, rng)
    sx, sy, sz = body.scale
    pixel = body.field_mm / size
    frontal = Projection(size=size, scale=(sy, sx), angle=body.roll, mm_per_pixel=pixel, offset=body.offset)
    lateral = Projection(
        size=size, scale=(sy, sz), angle=-0.5 * body.roll, mm_per_pixel=pixel, offset=(body.offset[0], 0.0)
    )
    views = ((frontal, 0, 2, float(X[0])), (lateral, 2, 1, float(Z[0])))
    nodules = _place_nodules(grid, pathology.nodules, body, rng)

    trunk_bones, girdle = _shoulders(rng)
    ribs, sites = _ribs(body, pathology.fractures, rng)
    bones, spine = _joined([ribs, trunk_bones]), _vertebrae(rng)
    trees, airways = _vessels(rng), _bronchi()
    if pathology.edema:
        trees.append(_septal_lines(rng))
    tube: Points | None = None
    measured: dict[str, float] = {}
    if pathology.tube is not None:
        tube, tip = _tubes(*pathology.tube, rng)
        measured["tip_below_carina_mm"] = (tip - CARINA) * sy

    def distance(view: Projection, place: Floats, axis: int) -> Floats:
        """Returns mm from every pixel to a nominal point (x, y, z)."""
        (row,), (column,) = view.pixels(place[1:2], place[axis : axis + 1])
        return pixel * np.hypot(np.arange(size)[:, None] - row, np.arange(size)[None, :] - column)

    drawings = []
    for view, axis, beam, origin in views:
        y, across = view.coordinates()
        along = (sz, 0.0, sx)[axis]
        air = along * STEP * view.from_grid(grid.air.sum(axis=beam), origin, order=3)
        outline = _outline_lateral if axis == 2 else _outline_frontal
        tissue = outline(body, y, across) * along
        tissue = tissue - np.clip(air, 0, None) - _gas(body, y, across, axis == 2, rng)
        for sigma, cross_section, points in trees:
            mass = cross_section * (1 + 0.5 * pathology.edema) * _inside(grid.air, points)
            tissue += 0.95 * view.splat(points[1], points[axis], mass, max(sigma, 0.4 * pixel))
        tissue -= 0.8 * view.splat(airways.xyz[1], airways.xyz[axis], airways.mass, 3.0)
        regions: list[tuple[str, int, NDArray[np.bool_]]] = []
        for name, side, occupancy, least in grid.lesions:
            mask = view.from_grid(STEP * occupancy.sum(axis=beam), origin) > least
            regions.append((name, side, mask))
        if pathology.pneumothorax is not None:
            line = _pleural_line(*pathology.pneumothorax)
            tissue += view.splat(line.xyz[1], line.xyz[axis], line.mass, 0.45)
        for side, place, diameter in nodules:
            ball = _chord(distance(view, place, axis), 0.0, (diameter / 2, 1.0), diameter / 2)
            tissue += ball * 1.6  # denser than water, so that small ones show on ribs
            regions.append(("nodule", side, ball > 0))
        bone = view.splat(bones.xyz[1], bones.xyz[axis], bones.mass, max(0.75, 0.8 * pixel))
        bone += (0.8, 0.0, 1.7)[axis] * view.splat(spine.xyz[1], spine.xyz[axis], spine.mass, max(0.9, 0.8 * pixel))
        if axis == 0:
            bone += view.splat(girdle.xyz[1], girdle.xyz[0], girdle.mass, max(0.9, 0.8 * pixel))
        for site, (side, _, _) in zip(sites.T, sorted(pathology.fractures), strict=True):
            away = distance(view, site, axis)
            tissue += 30 * np.exp(-((away / 8) ** 2))  # the blood around the broken ends
            if axis == 0:
                regions.append(("fracture", side, away < 14))
        # Rows of cortex seen edge-on do not add up without end.
        tissue += 15 * (1 - np.exp(-bone / 10))
        if tube is not None and pathology.tube is not None:
            metal = view.splat(tube.xyz[1], tube.xyz[axis], tube.mass, max(0.6, 0.6 * pixel))
            tissue += 3.0 * metal
            regions.append(("support_devices", pathology.tube[1], metal > 0.6))
        heart = view.from_grid(STEP * grid.heart.sum(axis=beam), origin) > 8
        lungs = view.from_grid(STEP * grid.room.sum(axis=beam), origin) > 8
        drawings.append(
            Drawing(
                display=_expose(np.clip(tissue, 0, None) / 10, pixel, axis == 2, lungs, rng),
                regions=tuple(r for r in regions if r[2].sum() * pixel**2 > 25),
                heart=heart,
                lungs=lungs,
            )
        )

    shown = drawings[0]
    measured["cardiothoracic_ratio"] = float(np.ptp(np.flatnonzero(shown.heart.any(0)))) / float(
        np.ptp(np.flatnonzero(shown.lungs.any(0)))
    )
    heights = [np.ptp(np.flatnonzero(m.any(1))) + 1 for name, _, m in shown.regions if name == "pleural_effusion"]
    if heights:
        measured["effusion_mm"] = float(max(heights)) * pixel
    if pathology.pneumothorax is not None:
        measured["pneumothorax_mm"] = pathology.pneumothorax[1] * sy
    return drawings[0], drawings[1], measured


def _septal_lines(rng: np.random.Generator) -> tuple[float, Floats, Floats]:
    """Returns Kerley B lines: short, horizontal, at the flanks above the diaphragm."""
    lines = []
    for side in (-1, 1):
        for _ in range(9):
            y = rng.uniform(150, 218)
            outer = float(_width(np.array([y]))[0]) - 3
            x = side * np.linspace(outer, outer - rng.uniform(10, 18), 20)
            lines.append(np.stack([x, np.full(20, y), np.full(20, rng.uniform(-20, 20))]))
    points = np.concatenate(lines, axis=1)
    return 0.5, np.full(points.shape[1], 3.0), points


def _place_nodules(
    grid: _Interior, nodules: tuple[tuple[int, float], ...], body: Body, rng: np.random.Generator
) -> list[tuple[int, Floats, float]]:
    """Returns side, nominal centre (x, y, z), true diameter of each nodule, where the frontal view shows clear lung."""
    placed: list[tuple[int, Floats, float]] = []
    if not nodules:
        return placed
    lung = (STEP * grid.lung.sum(axis=2) > 45) & (STEP * grid.heart.sum(axis=2) < 8)
    free = lung.copy()
    for name, _, occupancy, least in grid.lesions:
        if name != "edema":
            free &= ~(STEP * occupancy.sum(axis=2) > least)
    least_scale = min(body.scale)
    for side, diameter in nodules:
        here = free & (side * X > 0)[None, :]
        if not here.any():  # another finding fills this lung
            here = lung & (side * X > 0)[None, :]
        room = ndimage.distance_transform_edt(here) * STEP * least_scale
        rows, columns = np.nonzero(room >= min(diameter / 2 + 5, room.max()))
        pick = rng.integers(rows.size)
        row, column = rows[pick], columns[pick]
        depths = np.flatnonzero(grid.lung[row, column] > 0.9)
        inner = depths[len(depths) // 4 : max(3 * len(depths) // 4, len(depths) // 4 + 1)]
        placed.append((side, np.array([X[column], Y[row], Z[rng.choice(inner)]]), diameter))
        # The next one stays clear of it.
        apart = np.hypot((X - X[column])[None, :], (Y - Y[row])[:, None]) * least_scale
        free &= apart > diameter / 2 + 8
    return placed


def _expose(
    water_cm: Floats, pixel: float, lateral: bool, lungs: NDArray[np.bool_], rng: np.random.Generator
) -> Floats:
    """Returns display values 0..1 of what the beam crossed, given as cm of water, (rows, columns)."""
    primary = np.exp(-(0.135 if lateral else 0.17) * water_cm)
    small = ndimage.zoom(primary, 0.125, order=1)
    haze = ndimage.gaussian_filter(np.minimum(small, 0.25), 28 / pixel / 8)
    haze = ndimage.zoom(haze, np.array(primary.shape) / small.shape, order=1)
    signal = primary + rng.uniform(0.05, 0.11) * haze
    signal = ndimage.gaussian_filter(signal, rng.uniform(0.25, 0.45) / pixel)
    quanta = 10 ** rng.uniform(4.2, 5.0)
    signal = signal * (1 + rng.standard_normal(signal.shape, dtype=np.float32) / np.sqrt(quanta * signal * pixel**2))
    density = -np.log(np.clip(signal, 1e-4, None))
    # Multi-frequency processing of the vendor: edges up, the broadest shades down.
    broad = ndimage.zoom(ndimage.gaussian_filter(ndimage.zoom(density, 0.125, order=1), 40 / pixel / 8), 8, order=1)
    broad = broad[: density.shape[0], : density.shape[1]]
    edges = density - ndimage.gaussian_filter(density, 5.0 / pixel)
    density = density + rng.uniform(0.2, 0.5) * edges - rng.uniform(0.1, 0.3) * (broad - broad.mean())
    low, dark, bright = np.percentile(density[lungs], [2, 25, 97])
    black, white = low - rng.uniform(0.2, 0.8) * (dark - low) - rng.uniform(0.3, 0.6), bright + rng.uniform(0.1, 0.45)
    tone = np.clip((density - black) / (white - black), -0.2, 1.2)
    steep = rng.uniform(3.4, 4.8)
    curve = 1 / (1 + np.exp(-steep * (tone - rng.uniform(0.45, 0.55))))
    return np.clip((curve - 0.1) / 0.8, 0, 1).astype(np.float32)
