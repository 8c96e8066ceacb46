"""A head on MRI: T1, T2, FLAIR and DWI of one patient, from the ICBM 152 template.

The anatomy is the ICBM 2009a symmetric template at 1 mm (Fonov et al., NeuroImage 2011, 54:313-327), which the wheel of
``nilearn`` carries as a T1 image without skull and maps of grey and white matter. What lies outside the brain is built
around it (``_template``). A patient is that template seen through a smooth map: size, shape, a random warp that ends
its symmetry, the width of the ventricles, mass effect, and how the head lies in the scanner. The map is made on a fixed
coarse grid of the scanner and refined to the grid asked for, so that a place in mm does not depend on the spacing.

Images follow from relaxation times by the equations of spin echo, inversion recovery and diffusion (``_Sequences``).

Frames: ``scanner`` is LPS mm with the middle of the field of view at 0; ``template`` is MNI mm, RAS.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_interp_spline
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from mmfm.data.synthetic_volumes.drawing import DrawnVolume, Segment
from mmfm.errors import ConfigError
from mmfm.report import Finding, Lesion, Measurement, Side, Status
from mmfm.study import Patient, Sex

Floats = NDArray[np.float32]
Masks = NDArray[np.bool_]

DRAWN: tuple[str, ...] = ("brain_mass", "infarct", "intracranial_hemorrhage", "hydrocephalus")
SEQUENCES = ("T1", "T2", "FLAIR", "DWI")
FIELD = (170.0, 200.0, 175.0)
"""Field of view, mm along S, P and L."""
PLACES = (
    "frontal lobe",
    "parietal lobe",
    "temporal lobe",
    "occipital lobe",
    "basal ganglia",
    "cerebellum",
    "brainstem",
)

NORMAL_EVANS = (0.22, 0.28)
"""Range of the Evans index (frontal horns over inner skull) without hydrocephalus; above 0.30 is pathological (Evans
1942; Relkin et al., Neurosurgery 2005, 57:S2-4). What is drawn leaves a gap, so that the truth is plain."""
HYDROCEPHALUS_EVANS = {"mild": (0.34, 0.365), "moderate": (0.38, 0.41), "severe": (0.425, 0.46)}

_ORIGIN = np.array([-96.0, -126.0, -94.0])
"""Template mm of the first voxel of the processed template."""
_SHAPE = (97, 225, 196)
"""Of its right half, from the midline on: it is symmetric, so that one half is processed and mirrored."""
_LOWEST = -72.0
"""Where the images of the template end; the spinal cord goes on below."""
_COARSE = 4.0
"""mm of the grid that the map is made on."""


class _Template(NamedTuple):
    """The head at 1 mm, axes R, A, S: fractions of tissue in 1/255, and what is derived from them."""

    grey: NDArray[np.uint8]
    white: NDArray[np.uint8]
    fluid: NDArray[np.uint8]
    fat: NDArray[np.uint8]
    muscle: NDArray[np.uint8]
    ventricle: Floats
    """Signed distance to the ventricles, mm, below 0 inside."""
    outward: Floats
    """(3, ...): direction away from the ventricles, smooth."""
    brain: Floats
    """Signed distance to the space that the brain fills, mm, below 0 inside."""
    skin: Floats
    """The same to the outside of the head."""
    place: NDArray[np.uint8]
    """n for ``PLACES[n - 1]``, 0 elsewhere and within 4 mm of another place."""


def draw(
    seed: int,
    *,
    spacing: tuple[float, float, float] = (1.5, 1.5, 1.5),
    findings: tuple[str, ...] | None = None,
    mirror: bool = False,
) -> DrawnVolume:
    """Returns one patient's head.

    Args:
        seed: everything follows from it.
        spacing: mm along slices, rows and columns.
        findings: those that are present; ``None`` draws them, with about 30 % normal.
        mirror: the same patient with left and right exchanged.
    """
    rng = np.random.default_rng((seed, 0x4EAD))
    present = _choose(rng, findings)
    template = _template()
    sex = Sex.FEMALE if rng.random() < 0.5 else Sex.MALE
    age = float(rng.integers(20, 90))
    atrophy = float(np.clip((age - 45) / 45 + rng.normal(0, 0.2), -0.2, 1.0))

    low, high = NORMAL_EVANS
    evans, severity = rng.uniform(low, low + 0.03) + (high - low - 0.03) * np.clip(atrophy, 0, 1), None
    if "hydrocephalus" in present:
        severity = str(rng.choice(list(HYDROCEPHALUS_EVANS)))
        evans = rng.uniform(*HYDROCEPHALUS_EVANS[severity])
    space = _Space(rng, template, evans=evans, female=sex == Sex.FEMALE)
    lesions = _lesions(rng, space, [name for name in present if name != "hydrocephalus"])

    grid = _Grid(spacing)
    at = space.refined(space.at, grid)
    sequences = _Sequences.of(rng)
    images, tissue = _render(rng, sequences, grid, at, space, atrophy, age)
    segmentation = np.zeros(grid.shape, np.uint8)
    for number, lesion in enumerate(lesions, 1):
        lesion.paint(images, segmentation, number, grid, at, tissue, sequences)
    if severity is not None:
        ventricles = _sample(template.ventricle, at) < 0
        segmentation[ventricles & (segmentation == 0)] = len(lesions) + 1
    images = _scanned(rng, images, grid)

    segments = [Segment(observation=k.name, laterality=k.side, location=k.place, is_lesion=True) for k in lesions]
    if severity is not None:
        segments.append(Segment(observation="hydrocephalus"))
    drawn = DrawnVolume(
        region="head",
        seed=seed,
        patient=Patient(patient_id=f"HEAD-{seed:06d}", sex=sex, age_years=age),
        images=dict(zip(SEQUENCES, images, strict=True)),
        affine=grid.affine,
        segmentation=segmentation,
        segments=tuple(segments),
        findings=_findings(present, lesions, severity),
        labels={name: Status.PRESENT if name in present else Status.ABSENT for name in DRAWN},
    )
    return _mirrored(drawn) if mirror else drawn


def _choose(rng: np.random.Generator, findings: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns what is present, in the order of ``DRAWN``; draws as much from ``rng`` either way."""
    order = rng.permutation(len(DRAWN))
    number = int(rng.choice([0, 1, 2, 3], p=[0.3, 0.42, 0.2, 0.08]))
    if findings is None:
        findings = tuple(DRAWN[i] for i in order[:number])
    if unknown := sorted(set(findings) - set(DRAWN)):
        raise ConfigError(
            "findings", expected=f"some of {', '.join(DRAWN)}", found=", ".join(unknown), fix="leave the others out"
        )
    return tuple(name for name in DRAWN if name in findings)


# The template.


@cache
def _template() -> _Template:
    """Returns the processed template, made once a process (some seconds)."""
    t1, grey, white = (_read(name) for name in ("t1", "gm", "wm"))
    x, y, z = _axes()
    brain = _signed_distance(_closed(t1 > 0), 2)
    # Intensities of the template: cerebrospinal fluid about 68, grey matter 165, white matter 223. The maps count the
    # fluid of narrow sulci as grey matter; the image shows it.
    fluid = np.where(brain < 0, np.clip((148 - t1) / 74, 0, 1), 0)
    ventricle = _ventricles(t1, x, y, z)
    distance = _signed_distance(ventricle, 1)
    fluid = np.maximum(fluid, np.clip(0.5 - distance, 0, 1))
    share = white / np.maximum(grey + white, 1)
    parenchyma = np.where(brain < 0, 255 * (1 - fluid), 0)
    skin = _signed_distance(_outline(brain, x, y, z), 2)
    fluid, fat, muscle = _around(brain, -skin, fluid, x, y, z)

    outward = np.stack(np.gradient(ndimage.gaussian_filter(distance, 1.5)))
    outward /= np.maximum(np.linalg.norm(outward, axis=0), 0.3)
    third = np.broadcast_to((x < 9) & (np.abs(y + 13) < 19) & (np.abs(z - 2) < 13), _SHAPE).astype(np.float32)
    outward *= 1 - 0.6 * ndimage.gaussian_filter(third, 3)  # which widens less
    outward[0, 0] = 0
    outward = np.stack([ndimage.gaussian_filter(a, 1.5) for a in outward])
    return _Template(
        grey=_whole((parenchyma * (1 - share)).astype(np.uint8)),
        white=_whole((parenchyma * share).astype(np.uint8)),
        fluid=_whole(np.rint(255 * fluid).astype(np.uint8)),
        fat=_whole(np.rint(255 * fat).astype(np.uint8)),
        muscle=_whole(np.rint(255 * muscle).astype(np.uint8)),
        ventricle=_whole(distance),
        outward=np.stack([_whole(a, sign) for a, sign in zip(outward, (-1, 1, 1), strict=True)]).astype(np.float32),
        brain=_whole(brain),
        skin=_whole(skin),
        place=_whole(_place_map(brain, x, y, z)),
    )


def _whole(half: NDArray, sign: int = 1) -> NDArray:
    """Returns both halves of what is known of the right one."""
    return np.ascontiguousarray(np.concatenate([sign * half[:0:-1], half]))


def _read(name: str) -> Floats:
    """Returns the right half of one image of the template, on its grid of 1 mm."""
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        raise ConfigError(
            "synthetic head",
            expected="the ICBM 152 template that the package nilearn carries",
            found="no nilearn",
            fix="install it: pip install 'mmfm[synthetic]'",
        )
    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    image = nibabel.Nifti1Image.from_filename(Path(found.origin).parent / "datasets" / "data" / file)
    first = np.rint(np.array([0, _ORIGIN[1], _LOWEST]) - image.affine[:3, 3]).astype(int)
    below = int(_LOWEST - _ORIGIN[2])
    sizes = (_SHAPE[0], _SHAPE[1], _SHAPE[2] - below)
    part = np.asarray(image.dataobj)[tuple(slice(a, a + n) for a, n in zip(first, sizes, strict=True))]
    return np.pad(part, ((0, 0), (0, 0), (below, 0)), mode="edge").astype(np.float32)


def _axes() -> list[Floats]:
    """Returns R, A and S of the voxels of the right half, to be broadcast."""
    start = (0.0, _ORIGIN[1], _ORIGIN[2])
    axes = (o + np.arange(n, dtype=np.float32) for o, n in zip(start, _SHAPE, strict=True))
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _signed_distance(mask: Masks, step: int) -> Floats:
    """Returns the distance to the border of ``mask`` in voxels, below 0 inside, made on every ``step``-th voxel."""
    small = mask[::step, ::step, ::step]
    distance = step * (ndimage.distance_transform_edt(~small) - ndimage.distance_transform_edt(small))
    if step > 1:
        where = np.meshgrid(*(np.arange(n, dtype=np.float32) / step for n in mask.shape), indexing="ij", sparse=True)
        distance = ndimage.gaussian_filter(distance, 1.0)
        where = np.broadcast_arrays(*where)
        distance = ndimage.map_coordinates(distance, where, order=1, mode="nearest")
    return distance.astype(np.float32)


def _closed(mask: Masks) -> Masks:
    """Returns the space that the brain fills: its outline with sulci and fissures filled."""
    small = np.pad(mask[::2, ::2, ::2], ((0, 0), (8, 8), (8, 8)), mode="edge")
    grown = ndimage.distance_transform_edt(~small) < 4.5
    return _twice((ndimage.distance_transform_edt(grown) > 4)[:, 8:-8, 8:-8]) | mask


def _twice(small: NDArray) -> NDArray:
    """Returns what was made on every second voxel, on each."""
    whole = np.repeat(np.repeat(np.repeat(small, 2, 0), 2, 1), 2, 2)
    return whole[: _SHAPE[0], : _SHAPE[1], : _SHAPE[2]]


def _ventricles(t1: Floats, x: Floats, y: Floats, z: Floats) -> Masks:
    """Returns the lateral and the third ventricles, kept apart from the cisterns by planes."""
    side = np.abs(x)
    box = (z > -18) & (z < 32) & (y > -50) & (y < 40) & (side < 45)
    cisterns = (
        ((side < 14) & (y < -28))
        | ((side < 5) & (z > 24))
        | ((z < -5) & (side < 15))
        | ((z < 12) & (side > 38))
        | ((side > 24) & (y > -15) & (z > -8))
        | ((y > 12) & (z < 0))
        | ((y > 5) & (side < 3) & (z < 0))
        | ((y > 13) & (side < 2))
    )
    labels, _ = ndimage.label((t1 > 0) & (t1 < 115) & box & ~cisterns)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return sizes[labels] > 1000


def _outline(brain: Floats, x: Floats, y: Floats, z: Floats) -> Masks:
    """Returns the head: what is near the brain, and a face and neck below it."""
    near = brain < 12
    shadow = np.maximum.accumulate(near[:, :, ::-1], axis=2)[:, :, ::-1]
    lower = np.clip(-30 - z, 0, None)
    return (shadow & (y > -122 + 0.75 * lower) & (x < 84 - 0.4 * lower) & (y < 84 - 0.1 * lower)) | near


def _around(
    brain: Floats, depth: Floats, fluid: Floats, x: Floats, y: Floats, z: Floats
) -> tuple[Floats, Floats, Floats]:
    """Returns fractions of fluid, fat and muscle with the head around the brain: none of them is bone or air.

    Dura, skull with its marrow, scalp, and below the brain a plain face: orbits, sinuses, mastoid cells and muscle.
    ``depth`` is that below the skin, mm.
    """

    def band(values: Floats, low: float, high: float) -> Floats:
        return np.clip(values - low + 0.5, 0, 1) * np.clip(high - values + 0.5, 0, 1)

    def ellipsoid(cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> Floats:
        r = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)
        return np.clip((1 - r) * min(rx, ry, rz) + 0.5, 0, 1)

    texture = np.random.default_rng(7).normal(size=_SHAPE).astype(np.float32)
    texture = ndimage.gaussian_filter(texture, (3, 5, 3), truncate=2)
    texture = np.clip(0.3 + 0.3 * texture / texture.std(), 0, 1)
    skull = np.clip(brain - 7, 0, 1)
    deep = skull * np.clip(depth - 6.5, 0, 1)
    fat = np.maximum(0.35 * band(brain, 3.5, 5.5) + skull * band(depth, 2, 6), deep * texture)
    muscle = band(depth, 0, 2) * np.clip(brain, 0, 1) + deep * (1 - texture)
    # In this order each hides what was there: orbit, its muscles, optic nerve, globe.
    free = np.clip(brain - 3, 0, 1)
    orbit = ellipsoid(30, 46, -36, 17, 26, 15) * free
    recti = np.clip(ellipsoid(30, 46, -36, 15, 22, 13) - ellipsoid(30, 46, -36, 12.5, 24, 10.5), 0, 1) * orbit
    nerve = np.clip(2.5 - np.hypot(x - 32 + (62 - y) * 0.35, z + 36), 0, 1) * ((y > 26) & (y < 52)) * orbit
    globe = ellipsoid(32, 64, -36, 12, 12, 12) * free
    for part, is_fat in ((orbit, True), (recti, False), (nerve, False)):
        fat, muscle = fat * (1 - part) + part * is_fat, muscle * (1 - part) + part * (not is_fat)
    air = np.maximum(ellipsoid(27, 45, -68, 14, 18, 15), ellipsoid(0, 40, -47, 11, 32, 14))
    cells = 0.85 * ellipsoid(50, -28, -46, 14, 18, 16)
    clear = (1 - np.maximum(air, cells)) * (1 - globe) * np.clip(brain, 0, 1)
    fluid = np.maximum(np.maximum(fluid, 0.95 * band(brain, 0, 1.5)), 0.95 * globe)
    return fluid, fat * clear, muscle * clear


def _place_map(brain: Floats, x: Floats, y: Floats, z: Floats) -> NDArray[np.uint8]:
    """Returns the place of every voxel that lies in one by more than 4 mm.

    The rule, in MNI mm; planes through landmarks of the sulci as Talairach and Tournoux (1988) and the atlas of
    Duvernoy (The Human Brain, 1999) show them:

    - central sulcus: y = -5 - 0.45 z (hand knob near y -30 at z 55; y -12 at z 15);
    - Sylvian fissure: z = -5 - 0.5 y, from (y 10, z -10) to (y -45, z 17); temporal pole to y 22;
    - parieto-occipital sulcus: y = -52 - 0.65 z (y -58 at z 10, y -78 at z 40), and the preoccipital notch at y -62;
    - tentorium: z = -13 - 0.3 |x|, behind y -38 (cerebellum; to y -100);
    - basal ganglia, with thalamus and internal capsule: |x| 8 to 30, y -28 to 20, z -8 to 18;
    - brainstem: |x| < 13, y -42 to -12, z -62 to -12.

    Nothing is called by a lobe at the insula, near the midline, in the medial temporal lobe and the corpus callosum.
    """
    side = x
    sulcus, fissure = y + 5 + 0.45 * z, z + 5 + 0.5 * y
    occipital = (y < np.where(z < 5, -60, -52 - 0.65 * z)) & (z > -10 - 0.3 * side)
    temporal = (fissure < 0) & (y < 22) & (y > -62) & (side > 22) & ~((y < -36) & (z < -10 - 0.3 * side)) & (z < 15)
    above = (fissure > 0) | (y > 22)
    rules = [
        (sulcus > 0) & above & (z > -26),
        (sulcus < 0) & above & ~occipital & (z > 5),
        temporal,
        occipital,
        (side > 8) & (side < 30) & (y > -28) & (y < 20) & (z > -8) & (z < 18),
        (y < -38) & (z < -16 - 0.3 * side) & (z > -66),
        (side < 13) & (y < -12) & (y > -42) & (z < -12) & (z > -62),
    ]
    place = np.zeros(_SHAPE, np.uint8)
    for number, rule in enumerate(rules, 1):
        place[np.broadcast_to(rule, _SHAPE)] = number
    insula = (side > 26) & (side < 46) & (y > -28) & (y < 26) & (z > -14) & (z < 20) & (place != 5)
    callosum = (side < 20) & (y > -45) & (y < 40) & (z > 0) & (z < 30) & (place != 5)
    place[insula | callosum | (brain > 0)] = 0
    place[(side < 8) & (place != 7)] = 0
    small = place[::2, ::2, ::2]
    sure = np.zeros_like(small)
    for number in range(1, len(PLACES) + 1):
        sure[ndimage.distance_transform_edt(small == number) > 2] = number
    return _twice(sure)


def _sample(volume: NDArray, at: Floats, *, order: int = 1) -> Floats:
    """Returns values of a volume of the template at template mm; below its lowest slice that slice goes on."""
    where = at - _ORIGIN.astype(np.float32).reshape(3, *[1] * (at.ndim - 1))
    return ndimage.map_coordinates(volume, where, order=order, output=np.float32, mode="nearest", prefilter=False)


# Where things are.


class _Grid:
    """The grid of the images: axes S, P and L, its middle at 0."""

    def __init__(self, spacing: tuple[float, float, float]) -> None:
        self.spacing = spacing
        self.shape = tuple(round(f / s) for f, s in zip(FIELD, spacing, strict=True))
        self.axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(self.shape, spacing, strict=True)]
        """mm along S, P, L."""
        self.affine = np.eye(4)
        self.affine[:3, :3] = np.diag(spacing)[::-1]
        self.affine[:3, 3] = [axis[0] for axis in self.axes[::-1]]

    def window(self, center: NDArray, radius: float) -> tuple[slice, ...]:
        """Returns the part of the grid within ``radius`` of a point in S, P, L mm."""
        return tuple(
            slice(*np.searchsorted(axis, [c - radius, c + radius])) for axis, c in zip(self.axes, center, strict=True)
        )

    def points(self, window: tuple[slice, ...]) -> Floats:
        """Returns (3, ...) S, P, L mm of a part of the grid."""
        return np.stack(np.meshgrid(*(a[w] for a, w in zip(self.axes, window, strict=True)), indexing="ij")).astype(
            np.float32
        )


class _Space:
    """The map from the scanner (S, P, L mm) to the template (R, A, S mm), on a coarse grid.

    Args:
        rng: shape, position and warp of the head.
        template: what is mapped to.
        evans: index of the width of the ventricles.
        female: heads of women are a little smaller.
    """

    def __init__(self, rng: np.random.Generator, template: _Template, *, evans: float, female: bool) -> None:
        self.template = template
        half = [np.arange(0, f / 2 + 2 * _COARSE, _COARSE) for f in FIELD]
        self.axes = [np.concatenate([-h[:0:-1], h]) for h in half]
        points = np.stack(np.meshgrid(*self.axes, indexing="ij"))
        angles = np.clip(rng.normal(0, [4, 5, 3]), -12, 12)
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        shift = rng.uniform([1, -4, -4], [9, 4, 4])
        size = (0.89 if female else 0.92) * (1 + rng.uniform(-0.025, 0.025, 3) + rng.uniform(-0.025, 0.025))
        moved = np.einsum("ij,j...->i...", turn / size[:, None], points - shift.reshape(3, 1, 1, 1))
        s, p, left = moved
        at = np.stack([-left, -p - 16, s + 8])
        for width, amplitude in ((24.0, 2.2), (7.0, 1.0)):
            for axis in range(3):
                noise = ndimage.gaussian_filter(rng.standard_normal(s.shape), width / _COARSE)
                at[axis] += amplitude * noise / noise.std()
        self.at = at
        self._widen(evans)

    def _widen(self, evans: float) -> None:
        """Moves the wall of the ventricles until the Evans index is that; the skull stays, the brain gives way."""
        inside = _sample(self.template.brain, self.at) < 0
        skull = self._breadth(self.template.brain, back=-130)
        for _ in range(20):
            missing = (evans * skull - self._breadth(self.template.ventricle, back=8)) / 2
            if abs(missing) < 0.4:
                return
            flow = np.clip(1.1 * missing, -2.5, 2.5)
            at = self.at[:, inside]
            wall = np.clip(_sample(self.template.ventricle, at), 0, None)
            depth = np.clip(-_sample(self.template.brain, at), 0, None)
            part = depth / np.maximum(depth + wall, 1) * np.clip(1 - wall / 60, 0, 1)
            self.at[:, inside] -= flow * part * np.stack([_sample(a, at) for a in self.template.outward])

    def _breadth(self, distance: Floats, *, back: float) -> float:
        """Returns the largest extent from side to side, mm, of what has a signed distance below 0.

        At the height of the lateral ventricles, in front of ``back`` (template mm).
        """
        middle = self.at[:, :, :, len(self.axes[2]) // 2]
        lines = (middle[1] > back - 15) & (np.abs(middle[2] - 12) < 22)
        at = self.at[:, lines] @ make_interp_spline(self.axes[2], np.eye(len(self.axes[2])))(np.arange(-85, 86)).T
        there = (_sample(distance, at) < 0) & (at[1] > back)
        extents = there.shape[1] - there[:, ::-1].argmax(axis=1) - there.argmax(axis=1)
        return float(extents[there.any(axis=1)].max())

    def push(self, center: NDArray, radius: float, strength: float) -> None:
        """Moves what lies around a point away from it: mass effect, least near the skull."""
        points = np.stack(np.meshgrid(*self.axes, indexing="ij"))
        offset = points - center.reshape(3, 1, 1, 1)
        r = np.linalg.norm(offset, axis=0)
        depth = np.clip(-_sample(self.template.brain, self.at.astype(np.float32)) / 20, 0, 1)
        shift = strength * radius * np.minimum(r / radius, 1) * np.exp(-np.clip(r - radius, 0, None) / (1.2 * radius))
        self.at = self.of(points - offset / np.maximum(r, 1e-3) * shift * depth)

    def of(self, points: NDArray) -> NDArray:
        """Returns template mm of points (3, ...) in S, P, L mm."""
        where = [(p - a[0]) / _COARSE for p, a in zip(points, self.axes, strict=True)]
        return np.stack([ndimage.map_coordinates(a, where, order=1, mode="nearest") for a in self.at])

    def find(self, place: tuple[float, float, float]) -> NDArray:
        """Returns S, P, L mm of the point of the coarse grid that comes nearest to a place of the template."""
        distance = ((self.at - np.reshape(place, (3, 1, 1, 1))) ** 2).sum(axis=0)
        nearest = np.unravel_index(distance.argmin(), distance.shape)
        return np.array([a[i] for a, i in zip(self.axes, nearest, strict=True)])

    def refined(self, values: NDArray, grid: _Grid) -> Floats:
        """Returns (n, D, H, W) values of every voxel from those of the coarse grid, (n, ...)."""
        out = values.astype(np.float32)
        for axis, (coarse, fine) in enumerate(zip(self.axes, grid.axes, strict=True), 1):
            weights = make_interp_spline(coarse, np.eye(len(coarse)), k=3)(fine).astype(np.float32)
            out = np.moveaxis(np.tensordot(weights, out, (1, axis)), 0, axis)
        return np.ascontiguousarray(out)


# Signals.


class _Tissue(NamedTuple):
    """Relaxation times in ms, proton density against water, and diffusion in 1e-3 mm2/s."""

    t1: float
    t2: float
    density: float
    diffusion: float


# About 1.5 T to 3 T; Stanisz et al., Magn Reson Med 2005, 54:507-512, rounded, for brain and muscle; of lesions, the
# order of magnitude that reviews give.
GREY = _Tissue(1250, 95, 0.82, 0.85)
WHITE = _Tissue(800, 72, 0.70, 0.75)
FLUID = _Tissue(4000, 1200, 1.0, 3.0)
FAT = _Tissue(340, 100, 0.6, 0.05)
MUSCLE = _Tissue(1200, 38, 0.75, 1.3)
TUMOUR = _Tissue(1900, 145, 0.88, 1.3)
CYST = _Tissue(3200, 500, 0.97, 2.4)
OEDEMA = _Tissue(1600, 160, 0.86, 1.5)
INFARCT = _Tissue(1500, 135, 0.84, 0.42)
ACUTE_BLOOD = _Tissue(1400, 28, 0.85, 0.5)
EARLY_BLOOD = _Tissue(380, 30, 0.85, 0.6)
LATE_BLOOD = _Tissue(420, 180, 0.90, 0.7)
HEMOSIDERIN = _Tissue(1300, 22, 0.75, 0.8)
CHOROID = _Tissue(1900, 140, 0.90, 1.4)
WHITE_SPOT = _Tissue(1350, 140, 0.82, 1.1)


@dataclass(frozen=True)
class _Sequences:
    """Times in ms of the four sequences."""

    t1: tuple[float, float, float]
    """TR, TI and TE of a gradient echo after inversion."""
    t2: tuple[float, float]
    """TR and TE of a spin echo."""
    flair: tuple[float, float, float]
    """TR, TI, TE; TI nulls fluid."""
    dwi: tuple[float, float]
    """TR and TE, at b = 1000 s/mm2."""

    @classmethod
    def of(cls, rng: np.random.Generator) -> _Sequences:
        tr = rng.uniform(8000, 10000)
        ti = FLUID.t1 * np.log(2 / (1 + np.exp(-tr / FLUID.t1))) * rng.uniform(0.97, 1.0)
        return cls(
            t1=(rng.uniform(1900, 2300), rng.uniform(850, 950), rng.uniform(2.5, 4)),
            t2=(rng.uniform(4000, 5500), rng.uniform(85, 105)),
            flair=(tr, ti, rng.uniform(100, 130)),
            dwi=(rng.uniform(4500, 6500), rng.uniform(70, 90)),
        )

    def signal(self, tissue: _Tissue) -> Floats:
        """Returns (4,): the signal of a tissue on each of ``SEQUENCES``."""
        t1, t2, density, diffusion = tissue

        def echo(tr: float, te: float) -> float:
            return density * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)

        def inverted(tr: float, ti: float, te: float) -> float:
            return density * abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)

        suppressed = 0.1 if tissue is FAT else 1.0
        dwi = suppressed * echo(*self.dwi) * np.exp(-diffusion)
        return np.array([inverted(*self.t1), echo(*self.t2), inverted(*self.flair), dwi], np.float32)


def _render(
    rng: np.random.Generator,
    sequences: _Sequences,
    grid: _Grid,
    at: Floats,
    space: _Space,
    atrophy: float,
    age: float,
) -> tuple[Floats, Floats]:
    """Returns (4, D, H, W) signal without lesions, and (2, D, H, W) parenchyma and white matter."""
    template = space.template
    distances = np.stack([_sample(a, space.at) for a in (template.brain, template.skin)])
    brain, skin = space.refined(distances, grid)

    def fraction(volume: NDArray[np.uint8], where: Masks) -> Floats:
        out = np.zeros(grid.shape, np.float32)
        out[where] = _sample(volume, at[:, where]) / 255
        return out

    grey, white = (fraction(a, brain < 2) for a in (template.grey, template.white))
    fat, muscle = (fraction(a, (brain > -2) & (skin < 3)) for a in (template.fat, template.muscle))
    fluid = fraction(template.fluid, skin < 3)
    # Older brains have wider sulci: some of the cortex that touches fluid becomes fluid.
    widened = np.clip(fluid * (1 + 0.6 * atrophy), 0, 1)
    keep = (1 - widened) / np.maximum(1 - fluid, 1e-3)
    cortex = grey + white > 0.02
    grey, white = (np.where(cortex, a * np.minimum(keep, 1.3), a) for a in (grey, white))
    fluid = np.where(cortex, widened, fluid)
    images = np.zeros((len(SEQUENCES), *grid.shape), np.float32)
    for kind, amount in ((GREY, grey), (WHITE, white), (FLUID, fluid), (FAT, fat), (MUSCLE, muscle)):
        for image, value in zip(images, sequences.signal(kind), strict=True):
            image += value * amount
    parenchyma = grey + white
    spots = [(place, (radius, radius, radius), WHITE_SPOT, white) for place, radius in _white_spots(rng, age)]
    choroid = [((side * 24.0, -42.0, 10.0), (2.5, 6.0, 3.0), CHOROID, fluid) for side in (-1, 1)]
    for place, half, kind, room in spots + choroid:
        center = space.find(place)
        window = grid.window(center, max(half) + 2)
        offset = grid.points(window) - center.reshape(3, 1, 1, 1)
        r = np.linalg.norm(offset / np.reshape(half, (3, 1, 1, 1)), axis=0)
        amount = np.clip((1 - r) * min(half) + 0.5, 0, 1) * room[window]
        images[(slice(None), *window)] += amount * (
            sequences.signal(kind)[:, None, None, None] - images[(slice(None), *window)]
        )
    return images, np.stack([parenchyma, white])


def _white_spots(rng: np.random.Generator, age: float) -> list[tuple[tuple[float, float, float], float]]:
    """Returns places (template mm) and radii of the small bright spots that older white matter has."""
    number = int(rng.poisson(max(0.0, (age - 45) / 5)))
    sides = rng.choice([-1, 1], number)
    rows = zip(sides, rng.uniform([18, -50, 16], [34, 40, 34], (number, 3)), rng.uniform(1.1, 2.1, number), strict=True)
    return [((float(side * x), float(y), float(z)), float(radius)) for side, (x, y, z), radius in rows]


def _scanned(rng: np.random.Generator, images: Floats, grid: _Grid) -> Floats:
    """Returns stored values: a coil's uneven sensitivity, noise, and a scale that differs with the sequence."""
    s, p, left = (np.asarray(a / 100, np.float32) for a in grid.axes)
    out = np.empty_like(images)
    for n, image in enumerate(images):
        field = np.ones(grid.shape, np.float32)
        for axis, values in enumerate((s, p, left)):
            curve = 1 + rng.normal(0, 0.08) * values + rng.normal(0, 0.08) * values**2
            field *= curve.reshape([-1 if a == axis else 1 for a in range(3)])
        if SEQUENCES[n] == "DWI":  # fewer pixels across
            image = ndimage.gaussian_filter(image, [0.8 / v for v in grid.spacing], truncate=2)
        level = float(np.percentile(image[::4, ::4, ::4], 95))
        sigma = level * rng.uniform(0.012, 0.03) * (1.5 if SEQUENCES[n] == "DWI" else 1)
        noise = rng.standard_normal((2, *grid.shape), dtype=np.float32) * np.float32(sigma)
        out[n] = np.hypot(image * field + noise[0], noise[1]) * np.float32(rng.uniform(500, 1100) / level)
    return out


# Lesions.


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lesion:
    """A lesion before it is drawn; points are S, P, L mm."""

    name: str
    middle: NDArray
    """Where its shape is made around."""
    radius: float
    """No part of it is farther from the middle."""
    shape: Callable[[Floats], Floats]
    """(3, ...) offsets from the middle to a depth: below 1 inside."""
    kind: str
    half: int
    """Side of the template that it stays on, -1 left and 1 right; 0 for both."""
    oedema: float
    """mm of swelling around it."""
    center: NDArray
    diameter: float
    side: Side | None
    place: str

    def within(self, points: Floats, at: Floats, parenchyma: Floats, brain: Floats) -> tuple[Floats, Floats]:
        """Returns the lesion's soft mask at points, and the distance to its border in mm, about."""
        depth = self.shape(points - self.middle.reshape(3, 1, 1, 1))
        distance = (depth - 1) * self.diameter / 2
        mask = np.clip(0.5 - distance, 0, 1)
        room = np.clip(0.5 - brain, 0, 1)
        if self.half:
            room = room * np.clip(at[0] * self.half, 0, 1)
        if self.name == "infarct":
            room = room * np.clip(2 * parenchyma - 0.5, 0, 1)
        return (mask * room).astype(np.float32), distance.astype(np.float32)

    def paint(
        self,
        images: Floats,
        segmentation: NDArray[np.uint8],
        number: int,
        grid: _Grid,
        at: Floats,
        tissue: Floats,
        sequences: _Sequences,
    ) -> None:
        """Draws the lesion into the images and its number into the segmentation."""
        window = grid.window(self.middle, self.radius + self.oedema + 4)
        here = (slice(None), *window)
        points, parenchyma, white = grid.points(window), *tissue[here]
        brain = _sample(_template().brain, at[here])
        mask, distance = self.within(points, at[here], parenchyma, brain)

        def mix(amount: Floats, kind: _Tissue) -> None:
            images[here] += amount * (sequences.signal(kind)[:, None, None, None] - images[here])

        if self.oedema:
            swelling = np.clip(1.2 - distance / self.oedema, 0, 1) * np.clip(white * 1.3, 0, 1) * 0.85
            mix(np.where(at[here][0] * self.half >= 0, swelling, 0).astype(np.float32), OEDEMA)
        core = np.clip(0.5 - (distance + self.diameter * 0.14), 0, 1)
        match self.kind:
            case "solid":
                mix(mask, TUMOUR)
            case "necrotic":
                mix(mask, TUMOUR)
                mix(mask * core, CYST)
            case "cystic":
                mix(mask, TUMOUR)
                mix(mask * np.clip(-1 - distance, 0, 1), CYST)
            case "infarct":
                mix(mask * 0.85, INFARCT)
            case "acute":
                mix(mask, ACUTE_BLOOD)
            case "early":
                mix(mask, EARLY_BLOOD)
            case "late":
                mix(mask, HEMOSIDERIN)
                mix(mask * np.clip(-0.5 - distance, 0, 1), LATE_BLOOD)
        segmentation[window][mask > 0.5] = number


_SIZES = {"brain_mass": (6.0, 45.0), "infarct": (6.0, 60.0), "intracranial_hemorrhage": (8.0, 50.0)}
_LARGEST = {"brainstem": 16.0, "cerebellum": 36.0, "basal ganglia": 34.0}


def _lesions(rng: np.random.Generator, space: _Space, names: list[str]) -> list[_Lesion]:
    """Returns the lesions of some observations in the order of their findings, with their mass effect on ``space``."""
    made: list[_Lesion] = []
    for name in names:
        for _ in range(1 + (rng.random() < 0.3)):
            lesion = _lesion(rng, space, name, made)
            if lesion.name != "infarct" and lesion.diameter > 15:
                space.push(lesion.middle, lesion.diameter / 2, rng.uniform(0.15, 0.4))
            made.append(lesion)
    made = [_measured(space, lesion) or lesion for lesion in made]
    return sorted(made, key=lambda k: (names.index(k.name), -k.diameter))


def _lesion(rng: np.random.Generator, space: _Space, name: str, others: list[_Lesion]) -> _Lesion:
    """Returns a lesion at a place of its own, chosen evenly among the places and sides."""
    numbers = _sample(space.template.place, space.at.astype(np.float32), order=0)
    while True:
        place = int(rng.choice(len(PLACES), p=[0.2, 0.17, 0.17, 0.14, 0.14, 0.12, 0.06]))
        half = int(rng.choice([-1, 1])) if PLACES[place] != "brainstem" else 0
        low, high = _SIZES[name]
        diameter = float(np.exp(rng.uniform(np.log(low), np.log(min(high, _LARGEST.get(PLACES[place], high))))))
        where = np.argwhere((numbers == place + 1) & (space.at[0] * (half or 1) > (8 if half else -30)))
        pick = where[rng.integers(len(where))] if len(where) else None
        wobble = rng.uniform(-1.5, 1.5, 3)
        shape, radius = _wedge(rng, diameter) if name == "infarct" and diameter > 18 else _blob(rng, diameter)
        kinds = {
            "brain_mass": ["solid", "necrotic" if diameter > 16 else "solid", "cystic"],
            "infarct": ["infarct"],
            "intracranial_hemorrhage": ["acute", "early", "late"],
        }[name]
        kind = str(rng.choice(kinds))
        oedema = 0.0 if name == "infarct" else rng.uniform(0.1, 0.35) * diameter * (rng.random() < 0.75)
        if pick is None:
            continue
        middle = np.array([a[i] for a, i in zip(space.axes, pick, strict=True)]) + wobble
        if isinstance(shape, _Wedge):
            shape = replace(shape, direction=(middle - [0, 10, 0]) / np.linalg.norm(middle - [0, 10, 0]))
        lesion = _measured(
            space,
            _Lesion(
                name=name, middle=middle, radius=radius, shape=shape, kind=kind, half=half, oedema=float(oedema),
                center=middle, diameter=diameter, side=None, place=PLACES[place],
            ),
        )  # fmt: skip
        if lesion is None or lesion.place != PLACES[place] or not low <= lesion.diameter <= high:
            continue
        if all(np.linalg.norm(lesion.center - k.center) > (lesion.diameter + k.diameter) / 2 + 8 for k in others):
            return lesion


@dataclass(frozen=True, eq=False)
class _Blob:
    """A ball drawn out along its axes, with a wavy surface."""

    axes: NDArray
    """3x3: rotated and divided by the half axes."""
    waves: NDArray
    """(n, 3) and phases (n,) of the surface."""
    phases: NDArray

    def __call__(self, offset: Floats) -> Floats:
        inner = np.einsum("ij,j...->i...", self.axes.astype(np.float32), offset)
        r = np.linalg.norm(inner, axis=0)
        unit = inner / np.maximum(r, 1e-6)
        wave = sum(
            np.sin(np.einsum("i,i...->...", w.astype(np.float32), unit) + p)
            for w, p in zip(self.waves, self.phases, strict=True)
        )
        return r / (1 + 0.06 * wave)


@dataclass(frozen=True, eq=False)
class _Wedge:
    """A cone that widens towards the skull: the territory of a vessel."""

    length: float
    slope: float
    direction: NDArray
    blob: _Blob

    def __call__(self, offset: Floats) -> Floats:
        along = np.einsum("i,i...->...", self.direction.astype(np.float32), offset) + 0.55 * self.length
        across = np.sqrt(np.maximum((offset**2).sum(axis=0) - (along - 0.55 * self.length) ** 2, 0))
        wavy = self.blob(offset) / np.maximum(np.linalg.norm(offset, axis=0) / (self.length / 2), 1e-3)
        cone = across / np.maximum(self.slope * np.maximum(along, 0) + 0.08 * self.length, 1e-3)
        return np.maximum(cone, np.abs(along - self.length / 2) / (self.length / 2)) * np.clip(wavy, 0.8, 1.25)


def _blob(rng: np.random.Generator, diameter: float) -> tuple[_Blob, float]:
    axes = np.array([1.0, rng.uniform(0.72, 1.0), rng.uniform(0.72, 1.0)]) * diameter / 2
    turned = Rotation.random(random_state=rng).as_matrix() / axes[:, None]
    return _Blob(turned, rng.normal(0, 2.2, (4, 3)), rng.uniform(0, 2 * np.pi, 4)), diameter * 0.75


def _wedge(rng: np.random.Generator, diameter: float) -> tuple[_Wedge, float]:
    blob, _ = _blob(rng, diameter)
    return _Wedge(diameter, rng.uniform(0.28, 0.5), np.array([1.0, 0, 0]), blob), diameter * 0.85


def _measured(space: _Space, lesion: _Lesion) -> _Lesion | None:
    """Returns the lesion with centre, diameter and place of what is left of it inside the brain; None if unclear.

    Measured on a grid of its own, about 24 points across, whatever the spacing of the images.
    """
    step = max(lesion.radius / 12, 0.5)
    line = np.arange(-lesion.radius, lesion.radius + step, step)
    offsets = np.stack(np.meshgrid(line, line, line, indexing="ij")).astype(np.float32)
    points = offsets + lesion.middle.reshape(3, 1, 1, 1)
    at = space.of(points).astype(np.float32)
    parenchyma = (_sample(space.template.grey, at) + _sample(space.template.white, at)) / 255
    mask, _ = lesion.within(
        points.astype(np.float32), at, parenchyma.astype(np.float32), _sample(space.template.brain, at)
    )
    left = mask > 0.5
    whole = (lesion.shape(offsets) < 1).sum()
    if left.sum() < (0.4 if lesion.name == "infarct" else 0.8) * whole or left.sum() < 8:
        return None
    inside = points[:, left].T
    center = inside.mean(axis=0)
    border = points[:, left & ~ndimage.binary_erosion(left)].T
    middle = space.of(center.reshape(3, 1))
    number = int(_sample(space.template.place, middle.astype(np.float32), order=0)[0])
    if number == 0:
        return None
    side = None
    if PLACES[number - 1] != "brainstem":
        side = Side.RIGHT if middle[0, 0] > 0 else Side.LEFT
        if abs(middle[0, 0]) < 8 or center[2] * middle[0, 0] > -24:
            return None
    farthest = float(pdist(border[:: max(1, len(border) // 600)]).max()) + step
    return replace(lesion, center=center, diameter=farthest, side=side, place=PLACES[number - 1])


# The truth.


def _findings(present: tuple[str, ...], lesions: list[_Lesion], severity: str | None) -> tuple[Finding, ...]:
    findings = []
    for name in present:
        if name == "hydrocephalus":
            findings.append(Finding(observation=name, status=Status.PRESENT, severity=severity))
            continue
        own = [k for k in lesions if k.name == name]
        sides, places = {k.side for k in own}, {k.place for k in own}
        counted = tuple(
            Lesion(
                center_mm=tuple(round(float(v), 2) for v in k.center[::-1]),  # type: ignore[arg-type]
                diameter_mm=round(k.diameter, 1),
                laterality=k.side,
                location=k.place,
            )
            for k in own
        )
        findings.append(
            Finding(
                observation=name,
                status=Status.PRESENT,
                laterality=Side.BILATERAL
                if {Side.LEFT, Side.RIGHT} <= sides
                else own[0].side
                if len(sides) == 1
                else None,
                location=own[0].place if len(places) == 1 else None,
                count=len(own),
                measurement=Measurement(value=counted[0].diameter_mm, unit="mm"),
                lesions=counted,
            )
        )
    return tuple(findings)


_OTHER = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT, Side.BILATERAL: Side.BILATERAL, None: None}


def _mirrored(drawn: DrawnVolume) -> DrawnVolume:
    """Returns the twin: images flipped along columns, whose middle is at 0, and sides exchanged."""

    def twin(lesion: Lesion) -> Lesion:
        x, y, z = lesion.center_mm
        return replace(lesion, center_mm=(-x, y, z), laterality=_OTHER[lesion.laterality])

    return replace(
        drawn,
        images={name: np.ascontiguousarray(image[:, :, ::-1]) for name, image in drawn.images.items()},
        segmentation=np.ascontiguousarray(drawn.segmentation[:, :, ::-1]),
        segments=tuple(replace(s, laterality=_OTHER[s.laterality]) for s in drawn.segments),
        findings=tuple(
            replace(f, laterality=_OTHER[f.laterality], lesions=tuple(twin(k) for k in f.lesions))
            for f in drawn.findings
        ),
    )
