"""Drawn abdomens: the truth that goes with them is what the voxels show."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from mmfm.data.synthetic_volumes import abdomen
from mmfm.data.synthetic_volumes.abdomen import DRAWN, draw
from mmfm.report import Side, Status

COARSE = (6.0, 5.0, 5.0)
SEEDS = (4, 9)
OTHER = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT, Side.BILATERAL: Side.BILATERAL, None: None}


@cache
def volume(seed, findings=None, spacing=COARSE):
    return draw(seed, findings=findings, spacing=spacing)


def numbered(drawn):
    """Yields each lesion with its observation and the number of its segment."""
    lesions = [(finding.observation, lesion) for finding in drawn.findings for lesion in finding.lesions]
    return [(name, lesion, number) for number, (name, lesion) in enumerate(lesions, start=1)]


def centre_of(drawn, number):
    """Returns the centre of a segment in LPS mm."""
    index = np.argwhere(drawn.segmentation == number).mean(0)
    return (drawn.affine @ [*index, 1])[:3]


def test_the_same_seed_is_the_same_volume():
    again = draw(1, findings=DRAWN, spacing=COARSE)
    assert np.array_equal(again.images["CT"], volume(1, DRAWN).images["CT"])
    assert np.array_equal(again.segmentation, volume(1, DRAWN).segmentation)
    assert again.findings == volume(1, DRAWN).findings
    assert not np.array_equal(again.images["CT"][:50, :50, :70], volume(2, DRAWN).images["CT"][:50, :50, :70])


def test_the_grid_is_in_patient_space():
    drawn = volume(1, DRAWN)
    assert drawn.region == "abdomen"
    assert drawn.images["CT"].dtype == np.float32
    assert drawn.images["CT"].shape == drawn.segmentation.shape
    assert np.array_equal(drawn.affine[:3, :3], [[0, 0, 5], [0, 5, 0], [6, 0, 0]])
    extent = np.array(drawn.images["CT"].shape) * COARSE
    assert np.allclose(extent, (320, 280, 380), atol=12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mirror_twin_is_the_volume_flipped_with_its_sides_exchanged(seed):
    drawn, twin = volume(seed, DRAWN), draw(seed, findings=DRAWN, spacing=COARSE, mirror=True)
    assert np.array_equal(twin.images["CT"], drawn.images["CT"][..., ::-1])
    assert np.array_equal(twin.segmentation, drawn.segmentation[..., ::-1])
    for one, other in zip(drawn.findings, twin.findings, strict=True):
        assert (one.observation, one.severity, one.location) == (other.observation, other.severity, other.location)
        assert other.laterality == OTHER[one.laterality]
        for lesion, mirrored in zip(one.lesions, other.lesions, strict=True):
            assert mirrored.center_mm == (-lesion.center_mm[0], *lesion.center_mm[1:])
            assert (mirrored.laterality, mirrored.location) == (OTHER[lesion.laterality], lesion.location)
    first, last = drawn.affine @ [0, 0, 0, 1], twin.affine @ [0, 0, twin.segmentation.shape[2] - 1, 1]
    assert np.allclose(last, first * [-1, 1, 1, 1])


def test_the_anatomy_does_not_depend_on_the_spacing():
    coarse, fine = volume(4, DRAWN[:3], (4.0, 3.0, 3.0)), volume(4, DRAWN[:3], (2.0, 2.0, 2.0))
    assert coarse.findings == fine.findings
    for _, _, number in numbered(fine):
        assert np.allclose(centre_of(coarse, number), centre_of(fine, number), atol=2.0)
    blurred = ndimage.gaussian_filter(fine.images["CT"], 2)
    at = np.argwhere(np.ones((12, 12, 12))) * (coarse.images["CT"].shape // np.array(12))
    lps = at @ coarse.affine[:3, :3].T + coarse.affine[:3, 3]
    inside = (lps - fine.affine[:3, 3]) @ np.linalg.inv(fine.affine[:3, :3]).T
    a = ndimage.gaussian_filter(coarse.images["CT"], 1.2)[tuple(at.T)]
    b = ndimage.map_coordinates(blurred, inside.T, order=1, mode="nearest")
    assert np.corrcoef(a, b)[0, 1] > 0.97


@pytest.mark.parametrize("seed", SEEDS)
def test_lesions_are_where_and_as_large_as_their_truth_says(seed):
    drawn = volume(seed, DRAWN[:3], (2.0, 2.0, 2.0))
    lesions = numbered(drawn)
    assert {name for name, _, _ in lesions} == set(DRAWN[:3])
    for name, lesion, number in lesions:
        segment = drawn.segments[number - 1]
        assert segment.is_lesion
        assert (segment.observation, segment.laterality, segment.location) == (name, lesion.laterality, lesion.location)
        assert np.allclose(centre_of(drawn, number), lesion.center_mm, atol=1.5)
        points = np.argwhere(drawn.segmentation == number) * 2.0
        far = np.linalg.norm(points[:, None] - points[None, :: max(1, len(points) // 300)], axis=2).max()
        assert abs(far - lesion.diameter_mm) < 3.5
        assert 5 <= lesion.diameter_mm <= 40
        if name == "kidney_lesion":
            assert lesion.laterality == (Side.LEFT if lesion.center_mm[0] > 0 else Side.RIGHT)
        else:
            assert lesion.laterality is None
    for finding in drawn.findings:
        if finding.lesions:
            sizes = [lesion.diameter_mm for lesion in finding.lesions]
            assert sizes == sorted(sizes, reverse=True)
            assert finding.count == len(sizes) <= 3
            assert finding.measurement.value == round(sizes[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_lesion_can_be_seen_against_what_would_be_there_without_it(seed):
    drawn, without = volume(seed, DRAWN[:3], (2.0, 2.0, 2.0)), volume(seed, (), (2.0, 2.0, 2.0))
    image = without.images["CT"]
    steps = np.abs(np.diff(image, axis=0))[image[1:] > 0]
    noise = np.median(steps) / (0.6745 * np.sqrt(2))
    for name, _, number in numbered(drawn):
        mask = drawn.segmentation == number
        contrast = np.median(np.abs(drawn.images["CT"] - image)[mask])
        assert contrast > 20, name
        # Rose: what is seen stands out by about 5 times the noise of its own mean on one slice.
        assert contrast * np.sqrt(mask.sum((1, 2)).max()) > 5 * noise, name


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_asked_for_is_there_and_nothing_else(name):
    drawn = volume(5, (name,))
    assert [finding.observation for finding in drawn.findings] == [name]
    assert {segment.observation for segment in drawn.segments} == {name}
    assert set(np.unique(drawn.segmentation)) == set(range(len(drawn.segments) + 1))
    assert drawn.labels == {other: Status.PRESENT if other == name else Status.ABSENT for other in DRAWN}


def test_a_normal_abdomen_has_nothing():
    drawn = volume(6, ())
    assert drawn.findings == drawn.segments == ()
    assert not drawn.segmentation.any()
    assert set(drawn.labels.values()) == {Status.ABSENT}


def test_free_fluid_grows_with_its_severity_and_lies_outside_of_organs():
    volumes = {"small": [], "moderate": [], "large": []}
    for seed in (7, 8, 9, 10, 11, 13):
        drawn = volume(seed, ("free_fluid",))
        (finding,) = drawn.findings
        assert finding.lesions == () and not drawn.segments[0].is_lesion
        fluid = drawn.segmentation == 1
        volumes[finding.severity].append(fluid.sum() * np.prod(COARSE) / 1000)
        assert -4 < np.median(drawn.images["CT"][fluid]) < 26
    assert all(volumes.values())
    assert min(volumes["small"]) > 40 and max(volumes["small"]) < min(volumes["moderate"])
    assert max(volumes["moderate"]) < min(volumes["large"])


@pytest.mark.parametrize("seed", SEEDS)
def test_liver_lesions_lie_on_their_side_of_the_plane_through_gallbladder_and_cava(seed):
    drawn = volume(seed, DRAWN)
    (finding,) = (f for f in drawn.findings if f.observation == "liver_lesion")
    for lesion in finding.lesions:
        # The plane runs from the fossa (in front, to the right) to the cava beside the midline.
        assert lesion.location in ("right hepatic lobe", "left hepatic lobe")
        x, y, _ = lesion.center_mm
        plane = -21 - 25 * (18 - y) / 68
        if abs(x - plane) > 16:
            assert (x < plane) == lesion.location.startswith("right")


def test_about_a_third_of_random_volumes_is_normal(monkeypatch):
    counts = []
    monkeypatch.setattr(abdomen, "_Canvas", None)
    monkeypatch.setattr(abdomen, "_body", lambda wanted, rng: counts.append(len(wanted)))
    for seed in range(300):
        with pytest.raises((AttributeError, TypeError)):
            draw(seed)
    assert 0.22 < np.mean(np.array(counts) == 0) < 0.38
    assert max(counts) == 3


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="liver_lesion"):
        draw(1, findings=("pneumothorax",))
    with pytest.raises(ValueError, match="spacing"):
        draw(1, spacing=(2.0, 0.0, 2.0))
