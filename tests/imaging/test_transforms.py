"""mmfm.imaging.transforms: values stay at their place in the patient, and boxes come back."""

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mmfm.errors import ConfigError
from mmfm.imaging import Volume
from mmfm.imaging.transforms import crop_or_pad, map_boxes, map_points, reorient, resample, resize


def oblique(seed: int, shape=(7, 9, 8)) -> Volume:
    """A Volume of noise somewhere in the patient, turned by anything, with other spacings along each axis."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * rng.uniform(0.5, 3, 3)
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    return Volume(array=rng.normal(size=shape).astype(np.float32), affine=affine, quantity="HU")


SEEDS = st.integers(0, 10_000)


@given(SEEDS, st.permutations(["SI", "PA", "LR"]), st.tuples(*[st.integers(0, 1)] * 3))
@settings(deadline=None)
def test_reorienting_moves_no_value_in_the_patient(seed, pairs, which):
    volume = oblique(seed)
    wanted = "".join(pair[one] for pair, one in zip(pairs, which, strict=True))
    turned, matrix = reorient(volume, wanted)
    index = np.argwhere(np.ones(turned.array.shape))
    old = map_points(matrix, index).round().astype(int)
    np.testing.assert_array_equal(turned.array[tuple(index.T)], volume.array[tuple(old.T)])
    np.testing.assert_allclose(map_points(turned.affine, index), map_points(volume.affine, old), atol=1e-9)


def test_letters_name_where_the_indices_go():
    affine = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # SPL
    volume = Volume(array=np.arange(24, dtype=np.float32).reshape(2, 3, 4), affine=affine, quantity="HU")
    turned, _ = reorient(volume, "IAR")
    np.testing.assert_array_equal(turned.array, volume.array[::-1, ::-1, ::-1])
    turned, _ = reorient(volume, "LSP")
    np.testing.assert_array_equal(turned.array, volume.array.transpose(2, 0, 1))


@pytest.mark.parametrize("letters", ["SP", "SPP", "xyz", "SPLR"])
def test_letters_that_name_no_orientation(letters):
    with pytest.raises(ConfigError, match="one letter each"):
        reorient(oblique(0), letters)


def test_what_needs_geometry_says_so():
    bare = Volume(array=np.zeros((1, 4, 4), np.float32), affine=None, quantity="display")
    for transform in (lambda: reorient(bare), lambda: resample(bare, (1, 1, 1))):
        with pytest.raises(ConfigError, match="no affine"):
            transform()
    small, matrix = resize(bare, (1, 2, 2))
    assert small.affine is None
    np.testing.assert_allclose(map_boxes(matrix, [[[0, 0, 0], [1, 2, 2]]]), [[[0, 0, 0], [1, 4, 4]]])


@given(SEEDS, st.tuples(*[st.floats(0.4, 4)] * 3))
@settings(deadline=None, max_examples=30)
def test_resampling_is_that_of_simpleitk(seed, spacing):
    volume = oblique(seed)
    finer, _ = resample(volume, np.minimum(spacing, np.linalg.norm(volume.affine[:3, :3], axis=0)))
    image = sitk_image(volume)
    grid = sitk_image(finer)
    expected = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(image, grid, SimpleITK.Transform(), SimpleITK.sitkLinear, np.nan)
    )
    inside = ~np.isnan(expected)  # SimpleITK gives nothing half a voxel beyond the centres
    assert inside.mean() > 0.3
    np.testing.assert_allclose(finer.array[inside], expected[inside], atol=1e-4)


def sitk_image(volume: Volume) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(volume.array)
    columns = volume.affine[:3, :3][:, ::-1]  # SimpleITK counts columns first
    spacing = np.linalg.norm(columns, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((columns / spacing).flatten().tolist())
    image.SetOrigin(volume.affine[:3, 3].tolist())
    return image


def test_fewer_voxels_are_smoothed_first():
    fine = np.indices((1, 64, 64)).sum(0) % 2
    volume = Volume(array=fine.astype(np.float32), affine=np.eye(4), quantity="HU")
    coarse, _ = resample(volume, (1, 7, 7))  # of which each centre meets a 0 or a 1
    np.testing.assert_allclose(coarse.array, 0.5, atol=0.03)


@given(SEEDS, st.tuples(*[st.integers(-4, 6)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
@settings(deadline=None)
def test_cropping_and_padding_keep_the_place(seed, start, shape):
    volume = oblique(seed)
    cut, matrix = crop_or_pad(volume, start, shape, fill=-1024)
    assert cut.array.shape == shape
    for index in np.argwhere(np.ones(shape)):
        old = np.add(index, start)
        within = all(0 <= o < n for o, n in zip(old, volume.array.shape, strict=True))
        assert cut.array[tuple(index)] == (volume.array[tuple(old)] if within else np.float32(-1024))
    np.testing.assert_allclose(cut.affine @ [0, 0, 0, 1], volume.affine @ [*start, 1])
    np.testing.assert_array_equal(map_points(matrix, [[0, 0, 0]]), [start])


@given(SEEDS, st.sampled_from(["SPL", "IAR", "LSP", "PRS"]), st.tuples(*[st.floats(0.5, 4)] * 3), st.data())
@settings(deadline=None, max_examples=50)
def test_a_box_comes_back_to_the_pixels_that_it_was_drawn_around(seed, letters, spacing, data):
    """Found in model space by its values, drawn on the first volume: at most half a pixel off along each axis."""
    shape = (12, 14, 16)
    volume = oblique(seed, shape)
    first = np.array([data.draw(st.integers(0, size - 6)) for size in shape])
    box = np.stack([first, first + 5])
    turned, a = reorient(volume, letters)
    small, b = resample(turned, spacing)
    cut, c = crop_or_pad(small, (-2, 1, -3), np.add(small.array.shape, 4), fill=0)
    there = map_boxes(np.linalg.inv(a @ b @ c), [box])
    np.testing.assert_allclose(map_boxes(a @ b @ c, there), [box], atol=0.5)
    corner = map_points(cut.affine, there[0][:1] - 0.5)
    old = map_points(np.linalg.inv(volume.affine), corner)[0] + 0.5
    assert all(np.isclose(o, low) or np.isclose(o, high) for o, low, high in zip(old, *box, strict=True))
