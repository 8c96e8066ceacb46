"""Recipes: how the series of a CT or MR study become the tensors that a volume encoder reads, and the way back.

Every recipe samples the patient on one grid of slices, rows and columns that run to head, back and left, whatever the
series' own orientation, spacing, tilt or slice order, centred on the body. CT becomes several named windows, one a
channel; MR one channel a sequence, each scaled by its own brightness, zeros where the study lacks it. What is longer
than the grid is read in slabs that overlap. The affine of each slab puts a patch, a box or a lesion back into the
patient's coordinates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmfm.errors import ConfigError, ScopeError
from mmfm.imaging.pixels import NAMED_WINDOWS, PADDING_HU

OVERLAP_MM = 48.0
"""Of neighbouring slabs: more than the largest lesion that is to be seen whole in one of them."""
_BODY_HU = -300.0
_BODY_SHARE = 0.1
"""Of an MR series' bright end (its 99.5th percentile), above which a voxel is taken for body."""
_BODY_PERCENTILES = (0.5, 99.5)
_COARSE_MM = 6.0
"""Distance of the voxels by which the body is found."""
SAME_PLACE = 0.75
"""Of the smaller of two bodies along each axis, at least, that two series of one patient lying still both show."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a checkpoint reads of the studies of one region."""

    region: str
    """One of ``mmfm.text.REGIONS``."""
    modality: str
    """``CT`` or ``MR``."""
    channels: tuple[str, ...]
    """CT: names of ``NAMED_WINDOWS``. MR: sequences as ``mmfm.imaging.choice`` names them."""
    spacing_mm: tuple[float, float, float]
    """Between slices, rows and columns."""
    shape: tuple[int, int, int]
    """Slices, rows and columns of a slab."""
    max_slabs: int = 3
    """Slabs of a study that are read; what lies beyond is named in the receipt."""
    smoothing: float = 0.0
    """Weight of either neighbour of a voxel along each axis, at most 1/3; 1/6 is the cubic B-spline. How fine the noise
    of a series is and how sharp its edges are follow from its spacing and kernel; without smoothing, what is found
    depends on them."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing <= 1 / 3:
            raise ConfigError(
                "recipe.smoothing", expected="0 to 1/3", found=str(self.smoothing), fix="1/6 is that of RECIPES"
            )
        if self.modality == "CT" and (unknown := set(self.channels) - set(NAMED_WINDOWS)):
            raise ConfigError(
                "recipe.channels",
                expected=f"windows among {', '.join(NAMED_WINDOWS)}",
                found=", ".join(sorted(unknown)),
                fix="name windows for CT",
            )

    @property
    def series(self) -> tuple[str, ...]:
        """Series that it asks a study for: ``CT``, or its sequences."""
        return ("CT",) if self.modality == "CT" else self.channels

    def coarser(self, mm: float) -> Recipe:
        """Returns the recipe with the same grid in mm, of voxels of ``mm`` along every axis."""
        slices, rows, columns = (math.ceil(n * s / mm) for n, s in zip(self.shape, self.spacing_mm, strict=True))
        return replace(self, spacing_mm=(mm, mm, mm), shape=(slices, rows, columns))


_WINDOWS = ("lung", "mediastinum", "bone", "liver")
RECIPES = (
    *(
        Recipe(
            region=region,
            modality="CT",
            channels=_WINDOWS,
            spacing_mm=(2.5, 2.5, 2.5),
            shape=(144, 112, 144),
            smoothing=1 / 6,
        )
        for region in ("chest_ct", "abdomen")
    ),
    Recipe(
        region="head",
        modality="MR",
        channels=("T1", "T2", "FLAIR", "DWI"),
        spacing_mm=(1.5, 1.5, 1.5),
        shape=(112, 128, 112),
        max_slabs=1,
        smoothing=1 / 6,
    ),
)
"""What ``mmfm-volume-small`` reads."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slab:
    """One tensor of a study, and where it lies in the patient."""

    recipe: Recipe
    pixels_CDHW: Tensor
    """float32; CT 0 to 1 within each window, MR 0 dark to about 1 bright."""
    between_CDHW: Tensor | None = None
    """The series sampled on a grid that begins half a voxel further along each axis, for half of the ``readings``.
    ``None`` where the slab does not lie as in a draft, as those of drawn volumes to learn from do not."""
    affine: np.ndarray
    """4x4 float64, (slice, row, column, 1) -> LPS mm."""
    corner: tuple[int, int, int] = (0, 0, 0)
    """First voxel in the whole grid, of a part of it; see ``Crops``."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        _, slices, rows, columns = self.pixels_CDHW.shape
        return slices, rows, columns


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Parts of a grid to learn lesions and masks from: most of a volume is empty, and costs as much as what is not."""

    shape: tuple[int, int, int] = (64, 64, 64)
    """Voxels of each, as far as the grid has them."""
    count: int = 4
    """Of a volume, each time that it is given."""
    at_truth: float = 0.7
    """Share of them that hold something that is outlined, anywhere within, where a volume has it."""

    def within(self, grid: tuple[int, int, int]) -> tuple[int, int, int]:
        """Returns the voxels of each part of a grid."""
        return min(self.shape[0], grid[0]), min(self.shape[1], grid[1]), min(self.shape[2], grid[2])

    def corners(
        self, grid: tuple[int, int, int], truth: Sequence[np.ndarray], rng: np.random.Generator
    ) -> list[tuple[int, int, int]]:
        """Returns the first voxel of each part.

        Args:
            grid: voxels of the whole.
            truth: of each thing that is outlined, voxels in the grid, (N, 3); each thing is as likely as another.
            rng: draws.
        """
        size = np.asarray(self.within(grid))
        room = np.asarray(grid) - size
        corners = []
        for _ in range(self.count):
            start = rng.random(3) * room
            if len(truth) and rng.random() < self.at_truth:
                voxel = rng.choice(truth[int(rng.integers(len(truth)))])
                start = np.clip(voxel - rng.random(3) * (size - 1), 0, room)
            d, h, w = np.round(start).astype(int).tolist()
            corners.append((d, h, w))
        return corners


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """A patient lying a little otherwise, in sharper or smoother images, for training: never mirrored."""

    rotation_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """About the axes that run to head, back and left."""
    scale: float = 1.0
    """Of the grid in mm: above 1 the patient looks smaller."""
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Along the same axes."""
    smoothing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Times that of the recipe, along slices, rows and columns."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Jitter:
        """Returns one of those that training lays patients by: as sharp as in thin slices, or as smooth as in thick."""
        turn, shift, smoothing = rng.uniform(-8, 8, 3), rng.uniform(-12, 12, 3), rng.uniform(0.5, 1.5, 3)
        scale = rng.uniform(0.92, 1.08)
        return cls(rotation_degrees=tuple(turn), scale=scale, shift_mm=tuple(shift), smoothing=tuple(smoothing))

    def matrix(self) -> np.ndarray:
        """Returns the 3x3 rotation and scale, in (slice, row, column) order."""
        turned = np.eye(3)
        for axis, degrees in enumerate(self.rotation_degrees):
            a, b = (i for i in range(3) if i != axis)
            cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            step = np.eye(3)
            step[a, a], step[a, b], step[b, a], step[b, b] = cosine, -sine, sine, cosine
            turned = turned @ step
        return turned * self.scale


_SPL_TO_LPS = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""(slice, row, column) mm, running to head, back and left, to LPS mm."""


class Sampler:
    """The series of a study, ready to be sampled on the grid of a recipe."""

    def __init__(self, images: Mapping[str, tuple[np.ndarray, np.ndarray]], recipe: Recipe) -> None:
        """Finds the body, and where the grids that are to be read lie in it.

        Args:
            images: (array (D, H, W), affine to LPS mm) by the names of ``recipe.series``; HU for CT. MR may lack some.
            recipe: which grid, and which channels.

        Raises:
            ScopeError: nothing of a body is there, or less than a third of the grid's height is covered.
        """
        first = next(images[name] for name in recipe.series if name in images)
        low, high = _body(*first, recipe)
        height = recipe.shape[0] * recipe.spacing_mm[0]
        if high[0] - low[0] < height / 3:
            raise ScopeError(
                "study",
                expected=f"at least {height / 3:.0f} mm of the {recipe.region.removesuffix('_ct')} from foot to head",
                found=f"{high[0] - low[0]:.0f} mm",
                fix="give the whole series; no draft is made of a part",
            )
        self.recipe = recipe
        centers, self.steps = _slab_centers(low, high, recipe)
        self.centers = tuple(centers)
        """Of the slabs, from foot to head, (slice, row, column) mm."""
        self._images = {name: _blocked(*image, recipe.spacing_mm) for name, image in images.items()}
        self._scales = (
            {} if recipe.modality == "CT" else {name: _bright_end(array) for name, (array, _) in self._images.items()}
        )

    def slabs(self) -> tuple[Slab, ...]:
        """Returns the slabs that a draft is made of, from foot to head, each sampled between its voxels too."""
        whole = []
        for center in self.centers:
            slab = self.slab(grid_affine(center, self.recipe))
            between = self.slab(_moved(slab.affine, (0.5, 0.5, 0.5)))
            whole.append(replace(slab, between_CDHW=between.pixels_CDHW))
        return tuple(whole)

    def slab(
        self,
        affine: np.ndarray,
        *,
        corner: tuple[int, int, int] = (0, 0, 0),
        shape: tuple[int, int, int] | None = None,
        smoothing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> Slab:
        """Returns a slab, or a part of it.

        Args:
            affine: of the whole grid, as ``grid_affine`` gives it.
            corner: first voxel of the part.
            shape: of the part; of the grid where ``None``.
            smoothing: times that of the recipe, along each axis.
        """
        own, shape = _moved(affine, corner), shape or self.recipe.shape
        channels = [channel for name in self.recipe.series for channel in self._channels(name, own, shape, smoothing)]
        return Slab(recipe=self.recipe, pixels_CDHW=torch.stack(channels), affine=own, corner=corner)

    def _channels(
        self, name: str, affine: np.ndarray, shape: tuple[int, int, int], smoothing: tuple[float, float, float]
    ) -> list[Tensor]:
        if name not in self._images:
            return [torch.zeros(shape)]
        fill = PADDING_HU if self.recipe.modality == "CT" else 0.0
        # A voxel more at every side, so that a part is the same as in the whole.
        wider = (shape[0] + 2, shape[1] + 2, shape[2] + 2)
        values = resampled(*self._images[name], _moved(affine, (-1, -1, -1)), wider, fill=fill)
        for axis, times in enumerate(smoothing):
            weight = times * self.recipe.smoothing
            before, own, after = (values.narrow(axis, start, shape[axis]) for start in range(3))
            values = (before + after).mul_(weight).add_(own, alpha=1 - 2 * weight)
        if self.recipe.modality != "CT":
            return [(values / self._scales[name]).clamp(0, 1.25)]
        windows = [NAMED_WINDOWS[window] for window in self.recipe.channels]
        return [((values - (middle - width / 2)) / width).clamp(0, 1) for middle, width in windows]


def sample(
    images: Mapping[str, tuple[np.ndarray, np.ndarray]], recipe: Recipe
) -> tuple[tuple[Slab, ...], tuple[str, ...]]:
    """Samples the series of a study on the grid of a recipe, and between its voxels; see ``Sampler``.

    Returns:
        The slabs from foot to head, and what was done, in words for the receipt.
    """
    sampler = Sampler(images, recipe)
    again = "sampled once more half a voxel further along each axis, where else a lesion may be seen better"
    return sampler.slabs(), (*sampler.steps, again)


def those_of_one_place(
    images: Mapping[str, tuple[np.ndarray, np.ndarray]], recipe: Recipe
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
    """Leaves out sequences that show another place than the first: beside each other they would be one wrong patient.

    Args:
        images: as for ``Sampler``.
        recipe: that names the first.

    Returns:
        The others, and what was left out, in words for the receipt.
    """
    bodies = {name: _body(*images[name], recipe) for name in recipe.series if name in images}
    first, (low, high) = next(iter(bodies.items()))
    left_out = []
    for name, (own_low, own_high) in bodies.items():
        shared = np.minimum(high, own_high) - np.maximum(low, own_low)
        if np.any(shared < SAME_PLACE * np.minimum(high - low, own_high - own_low)):
            left_out.append(name)
    steps = tuple(
        f"the slices of {name} were not read: they show another place than those of {first}" for name in left_out
    )
    return {name: image for name, image in images.items() if name not in left_out}, steps


def grid_affine(center: np.ndarray, recipe: Recipe, jitter: Jitter | None = None) -> np.ndarray:
    """Returns the affine to LPS mm of a recipe's grid around ``center`` (slice, row, column mm)."""
    turn = np.eye(3) if jitter is None else jitter.matrix()
    shift = np.zeros(3) if jitter is None else np.asarray(jitter.shift_mm)
    steps = turn @ np.diag(recipe.spacing_mm)
    affine = np.eye(4)
    affine[:3, :3] = _SPL_TO_LPS @ steps
    affine[:3, 3] = _SPL_TO_LPS @ (center + shift - steps @ ((np.asarray(recipe.shape) - 1) / 2))
    return affine


def _moved(affine: np.ndarray, corner: tuple[float, float, float]) -> np.ndarray:
    """Returns the affine of a grid that begins at a voxel of another one, or between voxels."""
    moved = affine.copy()
    moved[:3, 3] = (affine @ [*corner, 1.0])[:3]
    return moved


def resampled(
    array: np.ndarray,
    own: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    *,
    fill: float,
    nearest: bool = False,
) -> Tensor:
    """Returns ``array`` (D, H, W), of affine ``own``, on the grid of ``affine`` and ``shape``, float32."""
    to_own = np.linalg.inv(own) @ affine
    sizes = np.asarray(array.shape, float)
    # grid_sample wants -1 and 1 at the outer edges of the voxels, in the order column, row, slice.
    scaled = np.diag([*(2 / sizes), 1.0]) @ to_own
    scaled[:3, 3] += 1 / sizes - 1
    theta = scaled[[2, 1, 0]]
    d, h, w = (torch.arange(n, dtype=torch.float64) for n in shape)
    theta_t = torch.from_numpy(theta)
    rows_DH13 = d[:, None, None, None] * theta_t[:, 0] + h[:, None, None] * theta_t[:, 1] + theta_t[:, 3]
    points = rows_DH13.float() + (w[:, None] * theta_t[:, 2]).float()
    source = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) - fill  # outside becomes ``fill``
    mode = "nearest" if nearest else "bilinear"
    values = F.grid_sample(source[None, None], points[None], mode=mode, padding_mode="zeros", align_corners=False)
    return values[0, 0] + fill


def _blocked(array: np.ndarray, affine: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Averages blocks of voxels where the series is finer than the grid, so that linear sampling misses nothing."""
    own = np.linalg.norm(affine[:3, :3], axis=0)
    # The grid's axes need not be those of the array: its finest spacing decides, and isotropic grids lose nothing.
    factors = [
        max(1, min(size, math.floor(min(spacing_mm) / one + 0.25))) for one, size in zip(own, array.shape, strict=True)
    ]
    if factors == [1, 1, 1]:
        return array, affine
    kept = [size // factor * factor for size, factor in zip(array.shape, factors, strict=True)]
    out = np.zeros([k // f for k, f in zip(kept, factors, strict=True)], np.float32)
    # Sums of strided views need no copy of the whole, which may be hundreds of megabytes.
    for offsets in itertools.product(*(range(f) for f in factors)):
        out += array[tuple(slice(o, k, f) for o, k, f in zip(offsets, kept, factors, strict=True))]
    matrix = np.diag([*factors, 1.0])
    matrix[:3, 3] = (np.asarray(factors) - 1) / 2
    return out / math.prod(factors), affine @ matrix


def _body(array: np.ndarray, affine: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (slice, row, column) mm between which the body lies."""
    own = np.linalg.norm(affine[:3, :3], axis=0)
    strides = [max(1, round(_COARSE_MM / one)) for one in own]
    coarse = array[:: strides[0], :: strides[1], :: strides[2]]
    limit = _BODY_HU if recipe.modality == "CT" else _BODY_SHARE * _bright_end(coarse)
    inside_N3 = np.argwhere(coarse > limit) * strides
    if len(inside_N3) < 100:
        raise ScopeError(
            "study", expected="a body", found="nearly nothing but air", fix="check the values of the series"
        )
    points_N3 = (inside_N3 @ affine[:3, :3].T + affine[:3, 3]) @ _SPL_TO_LPS  # the matrix is its own inverse
    low, high = np.percentile(points_N3, _BODY_PERCENTILES, axis=0)
    return low, high


def _bright_end(array: np.ndarray) -> float:
    """Returns the 98th percentile of what is above a tenth of the 99.5th percentile, which air is not; never 0."""
    sampled = array[::2, ::2, ::2]
    level = float(np.percentile(sampled, 99.5))
    body = sampled[sampled > _BODY_SHARE * level]
    return max(float(np.percentile(body, 98)) if body.size else 1.0, 1e-6)


def _slab_centers(low: np.ndarray, high: np.ndarray, recipe: Recipe) -> tuple[list[np.ndarray], tuple[str, ...]]:
    height, *in_plane = np.multiply(recipe.shape, recipe.spacing_mm)
    extent, *wide = high - low
    middle = (low + high) / 2
    grid = " x ".join(f"{n}" for n in recipe.shape)
    spacing = " x ".join(f"{s:g}" for s in recipe.spacing_mm)
    steps = [
        f"sampled on {grid} voxels of {spacing} mm that run to head, back and left, centred on the body",
        f"smoothed along each axis: {recipe.smoothing:.2g} of either neighbour",
    ]
    if recipe.modality == "CT":
        steps.append("windows as channels: " + ", ".join(recipe.channels))
    else:
        steps.append("each sequence scaled by the 98th percentile of its body; channels: " + ", ".join(recipe.channels))
    for words, read, there in zip(("from front to back", "from side to side"), in_plane, wide, strict=True):
        if there > read:
            steps.append(f"{there - read:.0f} of {there:.0f} mm {words} were not read (the outermost on both ends)")
    if extent <= height:
        return [middle], tuple(steps)
    wanted = math.ceil((extent - OVERLAP_MM) / (height - OVERLAP_MM))
    count = min(wanted, recipe.max_slabs)
    # Where not all can be read, the slabs next to the middle are; else they share the extent evenly.
    step = (extent - height) / (wanted - 1) if wanted == count else height - OVERLAP_MM
    # Above a head is nothing and below it the neck, so that one is read from the top.
    center = high[0] - height / 2 if recipe.region == "head" else middle[0]
    start = center - step * (count - 1) / 2
    centers = [np.array([start + i * step, middle[1], middle[2]]) for i in range(count)]
    steps.append(f"read in {count} slab(s) of {height:.0f} mm from foot to head that overlap")
    if wanted > count:
        left_out = extent - ((count - 1) * step + height)
        steps.append(f"{left_out:.0f} of {extent:.0f} mm from foot to head were not read (at most {count} slabs)")
    return centers, tuple(steps)
