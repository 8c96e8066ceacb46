"""One patient of formulas, sampled on any grid: what the recipes make of it must not depend on how it was stored."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from mmfm.data.synthetic_volumes import draw_volume
from mmfm.errors import ConfigError, ScopeError
from mmfm.models.recipes import (
    OVERLAP_MM,
    RECIPES,
    Crops,
    Jitter,
    Recipe,
    Sampler,
    grid_affine,
    resampled,
    sample,
    those_of_one_place,
)

CT = Recipe(
    region="abdomen", modality="CT", channels=("mediastinum", "lung"), spacing_mm=(8.0,) * 3, shape=(32, 28, 36)
)
MR = Recipe(region="head", modality="MR", channels=("T1", "T2"), spacing_mm=(8.0,) * 3, shape=(24, 28, 26), max_slabs=1)
MIDDLE = np.array([12.0, -30.0, 140.0])
"""Of the patient, LPS mm."""
MARK = MIDDLE + np.array([44.0, 10.0, -38.0])
"""Of something bright in the patient's left."""


def _shown(affine, shape, *, half_height=110.0):
    """Returns HU at the voxels of a grid: a soft cylinder with a soft ball in its left."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    x, y, z = np.moveaxis(points - MIDDLE, -1, 0)
    inside = 1 / (1 + np.exp((np.maximum(np.hypot(x / 1.2, y) - 90, np.abs(z) - half_height)) / 6))
    ball = np.exp(-((points - MARK) ** 2).sum(-1) / (2 * 16.0**2))
    return (-1000 + 1000 * inside + 300 * ball * inside).astype(np.float32)


def _grid(columns, *, fov=(360.0, 360.0, 360.0)):
    """Returns (affine, shape) of a grid around the patient with these steps (mm, LPS) of slice, row and column."""
    steps = np.array(columns, float).T
    shape = tuple(round(size / np.linalg.norm(step)) for size, step in zip(fov, steps.T, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = MIDDLE - steps @ ((np.array(shape) - 1) / 2)
    return affine, shape


STRAIGHT = ((0, 0, 6), (0, 6, 0), (6, 0, 0))
GRIDS = {
    "slices from head to foot": ((0, 0, -6), (0, 6, 0), (6, 0, 0)),
    "columns to the right": ((0, 0, 6), (0, 6, 0), (-6, 0, 0)),
    "coronal": ((0, 6, 0), (0, 0, -6), (6, 0, 0)),
    "sagittal": ((6, 0, 0), (0, 0, -6), (0, 6, 0)),
    "thick slices": ((0, 0, 10), (0, 4, 0), (4, 0, 0)),
    "much finer": ((0, 0, 2.5), (0, 3, 0), (3, 0, 0)),
    "oblique": ((0, -1.5, 5.8), (0, 5.8, 1.5), (6, 0, 0)),
    "sheared by a tilted gantry": ((0, 0, 6), (0, 5.6, 2.0), (6, 0, 0)),
}


def _sampled(columns, recipe=CT, **changes):
    affine, shape = _grid(columns)
    (slab,), _ = sample({"CT": (_shown(affine, shape, **changes), affine)}, recipe)
    return slab


@pytest.mark.parametrize("name", GRIDS)
def test_the_tensor_does_not_depend_on_how_the_patient_was_stored(name):
    wanted, found = _sampled(STRAIGHT), _sampled(GRIDS[name])
    # Where the body is found to a few mm, another grid lies a little elsewhere: what both show at one place counts.
    np.testing.assert_allclose(found.affine, wanted.affine, atol=6)
    again = torch.stack(
        [resampled(c.numpy(), found.affine, wanted.affine, CT.shape, fill=0) for c in found.pixels_CDHW]
    )
    inner = (slice(None), *(slice(3, -3),) * 3)
    difference = (again - wanted.pixels_CDHW)[inner].abs()
    assert difference.mean() < 0.01 and difference.max() < 0.2


@pytest.mark.parametrize("name", ["oblique", "thick slices", "sagittal", "sheared by a tilted gantry"])
def test_sampling_is_that_of_simpleitk(name):
    affine, shape = _grid(GRIDS[name])
    array = _shown(affine, shape) + np.random.default_rng(0).normal(0, 40, shape).astype(np.float32)
    target = grid_affine(np.array([150.0, -25.0, 10.0]), CT, Jitter(rotation_degrees=(5.0, -3.0, 4.0), scale=1.05))
    found = resampled(array, affine, target, CT.shape, fill=-1024.0).numpy()
    # SimpleITK images have orthonormal directions, which a sheared grid has not: all of both affines as one transform.
    image = sitk.GetImageFromArray(array)
    to_own = np.linalg.inv(affine) @ target
    flip = np.eye(3)[::-1]
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((flip @ to_own[:3, :3] @ flip).flatten().tolist())
    transform.SetTranslation((flip @ to_own[:3, 3]).tolist())
    wanted = sitk.GetArrayFromImage(
        sitk.Resample(image, [int(n) for n in CT.shape[::-1]], transform, sitk.sitkLinear, (0.0,) * 3, (1.0,) * 3,
                      np.eye(3).flatten().tolist(), -1024.0)
    )  # fmt: skip
    # At the outermost half voxel SimpleITK repeats the edge, where here the outside begins.
    index = np.stack(np.meshgrid(*map(np.arange, CT.shape), indexing="ij"), -1) @ to_own[:3, :3].T + to_own[:3, 3]
    inside = ((index > 0) & (index < np.array(shape) - 1)).all(-1)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(found[inside], wanted[inside], atol=0.5)
    far = ((index < -1) | (index > np.array(shape))).any(-1)
    assert (found[far] == -1024).all()


def _brightest_mm(slab):
    """Returns where the middle of the bright ball is, LPS mm."""
    pixels = slab.pixels_CDHW[0].double().numpy()
    weight = np.clip(pixels - pixels[(slice(8, -8),) * 3].mean() - 0.3, 0, None)
    index = np.array([(grid * weight).sum() / weight.sum() for grid in np.indices(pixels.shape)])
    return (slab.affine @ [*index, 1.0])[:3]


@pytest.mark.parametrize(
    "jitter",
    [
        None,
        Jitter(rotation_degrees=(7.0, -5.0, 6.0)),
        Jitter(scale=1.08),
        Jitter(shift_mm=(10.0, -8.0, 12.0)),
        Jitter(rotation_degrees=(-6.0, 4.0, 8.0), scale=0.93, shift_mm=(-9.0, 11.0, -7.0)),
    ],
)
def test_a_place_in_the_patient_is_that_place_of_the_tensor(jitter):
    affine, shape = _grid(STRAIGHT)
    sampler = Sampler({"CT": (_shown(affine, shape), affine)}, CT)
    slab = sampler.slab(grid_affine(sampler.centers[0], CT, jitter))
    np.testing.assert_allclose(_brightest_mm(slab), MARK, atol=1.5)
    assert np.linalg.det(slab.affine[:3, :3]) == pytest.approx(
        -(8.0**3) * (1.0 if jitter is None else jitter.scale**3)
    ), "slice, row, column to head, back and left are left-handed: with the other sign the patient would be mirrored"


def test_nothing_that_training_draws_mirrors_a_patient():
    rng = np.random.default_rng(0)
    turns = [Jitter.draw(rng).matrix() for _ in range(50)]
    assert all(np.linalg.det(turn) > 0.7 and (np.diag(turn) > 0.85).all() for turn in turns)
    assert len({turn.tobytes() for turn in turns}) == 50


def test_a_mirrored_patient_gives_the_mirrored_tensor():
    affine, shape = _grid(STRAIGHT)
    array = _shown(affine, shape)
    (one,), _ = sample({"CT": (array, affine)}, CT)
    (other,), _ = sample({"CT": (np.ascontiguousarray(array[..., ::-1]), affine)}, CT)
    torch.testing.assert_close(other.pixels_CDHW, one.pixels_CDHW.flip(3), atol=0.02, rtol=0)
    assert (other.pixels_CDHW - one.pixels_CDHW).abs().max() > 0.3
    assert one.pixels_CDHW[0, :, :, 18:].mean() > one.pixels_CDHW[0, :, :, :18].mean(), "the left has higher columns"


@pytest.mark.parametrize("half_height", [140, 300])
def test_slabs_of_a_long_volume_overlap_and_say_what_they_leave_out(half_height):
    affine, shape = _grid(STRAIGHT, fov=(2 * half_height + 60.0, 300.0, 300.0))
    slabs, steps = sample({"CT": (_shown(affine, shape, half_height=half_height), affine)}, CT)
    height = CT.shape[0] * 8.0
    ends = np.array([[slab.affine[2, 3] - 4, slab.affine[2, 3] - 4 + height] for slab in slabs])
    assert (np.diff(ends[:, 0]) > 0).all(), "from foot to head"
    assert (ends[:-1, 1] - ends[1:, 0] >= OVERLAP_MM - 1e-6).all()
    low, high = MIDDLE[2] - half_height, MIDDLE[2] + half_height
    (told,) = [step for step in steps if "slab" in step and "overlap" in step]
    assert f"read in {len(slabs)} slab(s)" in told
    left_out = [step for step in steps if "not read" in step]
    if half_height == 140:
        assert len(slabs) == 2 and ends[0, 0] <= low + 12 and ends[-1, 1] >= high - 12 and not left_out
    else:
        # 2 * 300 mm of body; three slabs of 256 mm that overlap by 48 reach over 672.
        assert len(slabs) == 3 and ends[0, 0] <= low + 12 and ends[-1, 1] >= high - 12 and not left_out
        (fewer, steps) = sample(
            {"CT": (_shown(affine, shape, half_height=half_height), affine)}, replace(CT, max_slabs=2)
        )
        told = next(step for step in steps if "not read" in step)
        missing, whole = int(told.split()[0]), int(told.split()[2])
        assert len(fewer) == 2 and whole == pytest.approx(600, abs=20) and missing == whole - 464


def test_a_body_wider_than_the_grid_says_what_was_not_read():
    affine, shape = _grid(STRAIGHT)
    narrow = replace(CT, shape=(32, 20, 22))
    _, steps = sample({"CT": (_shown(affine, shape), affine)}, narrow)
    told = [re.match(r"(\d+) of (\d+) mm (.*) were not read", step) for step in steps]
    front, side = (match for match in told if match)
    assert front[3] == "from front to back" and 150 < int(front[2]) < 190
    assert side[3] == "from side to side" and 180 < int(side[2]) < 226
    assert [int(match[2]) - int(match[1]) for match in (front, side)] == pytest.approx([160, 176], abs=1)


@pytest.mark.parametrize(("shift", "kept"), [(15, True), (60, False), (400, False)])
def test_a_sequence_of_another_place_is_left_out_by_name(shift, kept):
    affine, shape = _grid(STRAIGHT)
    head = _shown(affine, shape, half_height=80) + 1000
    moved = affine.copy()
    moved[2, 3] += shift
    of_one, steps = those_of_one_place({"T2": (head, moved), "T1": (head, affine)}, MR)
    assert list(of_one) == (["T2", "T1"] if kept else ["T1"])
    assert [step.partition(":")[0] for step in steps] == ([] if kept else ["the slices of T2 were not read"])
    whole, neck = _shown(affine, shape, half_height=80), _shown(affine, shape, half_height=160)
    assert not those_of_one_place({"T1": (neck + 1000, affine), "T2": (whole + 1000, affine)}, MR)[1], "one shows more"


def test_a_head_with_its_neck_is_read_from_the_top():
    affine, shape = _grid(STRAIGHT)
    (slab,), steps = sample({"T1": (_shown(affine, shape, half_height=140) + 1000, affine)}, MR)
    assert slab.affine[2, 3] + 8.0 * 23.5 == pytest.approx(MIDDLE[2] + 140, abs=16)
    assert any("mm from foot to head were not read" in step for step in steps)
    assert any("half a voxel further" in step for step in steps)


def test_a_sequence_that_is_missing_is_zeros_and_each_has_its_own_brightness():
    affine, shape = _grid(STRAIGHT)
    head = _shown(affine, shape, half_height=80) + 1000
    (slab,), _ = sample({"T2": (head * 7, affine)}, MR)
    assert not slab.pixels_CDHW[0].any() and slab.pixels_CDHW[1].amax() > 0.9
    (dim,), _ = sample({"T2": (head * 0.01, affine)}, MR)
    torch.testing.assert_close(dim.pixels_CDHW, slab.pixels_CDHW, atol=1e-3, rtol=0)


def test_windows_are_those_of_their_names():
    affine, shape = _grid(STRAIGHT)
    sampler = Sampler({"CT": (_shown(affine, shape), affine)}, replace(CT, channels=("lung",)))
    slab = sampler.slab(grid_affine(sampler.centers[0], CT))
    hu = resampled(_shown(affine, shape), affine, slab.affine, CT.shape, fill=-1024.0)
    torch.testing.assert_close(slab.pixels_CDHW[0], ((hu + 600 + 750) / 1500).clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("times", [(1.0, 1.0, 1.0), (0.5, 1.0, 1.5)])
def test_smoothing_is_a_weight_of_either_neighbour_and_the_same_in_parts(times):
    affine, shape = _grid(STRAIGHT)
    noisy = _shown(affine, shape) + np.random.default_rng(0).normal(0, 40, shape).astype(np.float32)
    sampler = Sampler({"CT": (noisy, affine)}, replace(CT, channels=("lung",), smoothing=1 / 6))
    target = grid_affine(sampler.centers[0], CT)
    whole = sampler.slab(target, smoothing=times).pixels_CDHW[0]
    hu = resampled(noisy, affine, target, CT.shape, fill=-1024.0).numpy()
    for axis, factor in enumerate(times):
        hu = ndimage.correlate1d(hu, [factor / 6, 1 - factor / 3, factor / 6], axis=axis)
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(whole.numpy()[inner], np.clip((hu + 600 + 750) / 1500, 0, 1)[inner], atol=1e-4)
    part = sampler.slab(target, corner=(5, 6, 7), shape=(8, 9, 10), smoothing=times).pixels_CDHW[0]
    torch.testing.assert_close(part, whole[5:13, 6:15, 7:17], atol=1e-4, rtol=0)


def test_what_training_draws_is_as_sharp_as_thin_slices_or_as_smooth_as_thick_ones():
    rng = np.random.default_rng(0)
    times = np.array([Jitter.draw(rng).smoothing for _ in range(200)])
    assert 0.5 <= times.min() < 0.55 and 1.45 < times.max() <= 1.5
    np.testing.assert_allclose(times.mean(0), 1, atol=0.07)


def test_air_and_too_short_a_part_are_out_of_scope():
    affine, shape = _grid(STRAIGHT)
    with pytest.raises(ScopeError, match="nearly nothing but air"):
        sample({"CT": (np.full(shape, -1000.0, np.float32), affine)}, CT)
    with pytest.raises(ScopeError, match="at least 85 mm of the abdomen"):
        sample({"CT": (_shown(affine, shape, half_height=30), affine)}, CT)


def test_unknown_windows_are_refused():
    with pytest.raises(ConfigError, match="heart"):
        replace(CT, channels=("lung", "heart"))


@pytest.mark.parametrize("smoothing", [-0.1, 0.4])
def test_smoothing_that_would_sharpen_is_refused(smoothing):
    with pytest.raises(ConfigError, match=r"recipe\.smoothing.*0 to 1/3"):
        replace(CT, smoothing=smoothing)


def test_a_coarser_recipe_reads_as_many_mm():
    for recipe in RECIPES:
        coarse = recipe.coarser(8.0)
        extents = np.multiply(coarse.shape, coarse.spacing_mm) - np.multiply(recipe.shape, recipe.spacing_mm)
        assert coarse.spacing_mm == (8.0,) * 3 and (extents >= 0).all() and (extents < 8).all()


GOLDEN = json.loads(Path(__file__).with_name("recipes_golden.json").read_text())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.region)
def test_the_shipped_recipes_give_the_tensors_that_they_gave(recipe):
    """Whatever changes these numbers changes what a shipped checkpoint sees.

    Compared are 8-bit values: their SHA-256 where the same build of numpy and torch ran, and elsewhere, since
    exponentials may differ in their last bit, the means and the values at 64 places to one grey level.
    """
    found = golden(recipe)
    wanted = GOLDEN[recipe.region]
    assert found["shape"] == wanted["shape"]
    if found["sha256"] != wanted["sha256"]:
        np.testing.assert_allclose(found["means"], wanted["means"], atol=0.05)
        np.testing.assert_allclose(found["values"], wanted["values"], atol=1)
        np.testing.assert_allclose(found["affine"], wanted["affine"], atol=1e-6)


def golden(recipe: Recipe) -> dict:
    """Returns what is kept of the tensor of a fixed study, on an oblique grid of 3 mm."""
    affine, shape = _grid(((0, -0.75, 2.9), (0, 2.9, 0.75), (3, 0, 0)), fov=(240.0, 260.0, 300.0))
    values = _shown(affine, shape, half_height=75)
    values += np.random.default_rng(0).normal(0, 40, shape).astype(np.float32)  # without it nothing is fine
    images = {"CT": values} if recipe.modality == "CT" else {"T1": values + 1000, "FLAIR": 1300 - values}
    (slab,), _ = sample({name: (array, affine) for name, array in images.items()}, recipe)
    grey = (torch.cat([slab.pixels_CDHW, slab.between_CDHW]) * 200).round().to(torch.uint8).numpy()
    places = np.random.default_rng(0).integers(0, grey[0].size, 64)
    return {
        "shape": list(grey.shape),
        "sha256": hashlib.sha256(grey.tobytes()).hexdigest(),
        "means": [round(float(channel.mean()), 4) for channel in grey],
        "values": [channel.ravel()[places].tolist() for channel in grey],
        "affine": np.round(slab.affine, 6).tolist(),
    }


def test_a_drawn_head_fits_its_recipe():
    drawn = draw_volume("head", 3, spacing=(8.0, 8.0, 8.0))
    images = {name: (array, drawn.affine) for name, array in drawn.images.items()}
    slabs, steps = sample(images, RECIPES[-1].coarser(8.0))
    assert len(slabs) == 1 and not [step for step in steps if "not read" in step]


def test_a_draft_is_made_of_a_grid_and_of_one_between_its_voxels():
    affine, shape = _grid(STRAIGHT)
    slices, rows, columns = np.indices(shape)
    ramp = (-250 + 1.0 * slices + 2.0 * rows + 3.0 * columns).astype(np.float32)
    wide = replace(CT, channels=("lung",))
    slab, *_ = Sampler({"CT": (ramp, affine)}, wide).slabs()
    own = np.linalg.inv(affine) @ slab.affine  # voxels of the ramp a voxel of the grid
    step = np.array([1.0, 2.0, 3.0]) @ own[:3, :3] @ [0.5, 0.5, 0.5]
    inner = (0, *(slice(n // 2 - 4, n // 2 + 4) for n in CT.shape))
    differences = ((slab.between_CDHW - slab.pixels_CDHW)[inner] * 1500).numpy()  # HU: the width of the lung window
    np.testing.assert_allclose(differences, step, atol=0.05)


@pytest.mark.parametrize("voxel", [(0, 0, 0), (99, 79, 89), (50, 3, 88)])
def test_parts_at_truth_hold_it_anywhere_within(voxel):
    grid, size = (100, 80, 90), np.array([20, 16, 24])
    crops = Crops(shape=(20, 16, 24), count=300, at_truth=1.0)
    corners = np.array(crops.corners(grid, [np.array([voxel], float)], np.random.default_rng(0)))
    assert ((corners >= 0) & (corners + size <= grid)).all()
    offset = np.array(voxel) - corners
    assert ((offset >= -0.5) & (offset <= size - 0.5)).all()
    if voxel == (50, 3, 88):
        assert offset[:, 0].min() <= 1 and offset[:, 0].max() >= 18  # not always in the middle
    elsewhere = np.array(
        replace(crops, at_truth=0.0).corners(grid, [np.array([voxel], float)], np.random.default_rng(0))
    )
    offset = np.array(voxel) - elsewhere
    assert ((offset >= 0) & (offset < size)).all(1).mean() < 0.1


def test_each_thing_that_is_outlined_is_as_likely_whatever_its_size():
    large, small = np.full((500, 3), 10.0), np.full((1, 3), 80.0)
    corners = np.array(
        Crops(shape=(8, 8, 8), count=400, at_truth=1.0).corners((96, 96, 96), [large, small], np.random.default_rng(0))
    )
    assert (corners[:, 0] > 40).mean() == pytest.approx(0.5, abs=0.08)
