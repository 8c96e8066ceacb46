"""The chest CT: what is said to be there is there, at every spacing and in the mirror."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from mmfm.data.synthetic_volumes import chest
from mmfm.data.synthetic_volumes.drawing import DrawnVolume
from mmfm.report import Finding, Side, Status

SPACING = (2.5, 2.5, 2.5)
LESIONS = ("nodule", "consolidation", "fracture")


@cache
def drawn(seed: int, findings: tuple[str, ...] | None, spacing: tuple[float, float, float] = SPACING) -> DrawnVolume:
    return chest.draw(seed, findings=findings, spacing=spacing)


def finding(volume: DrawnVolume, name: str) -> Finding:
    return next(f for f in volume.findings if f.observation == name)


def voxel(volume: DrawnVolume, point: tuple[float, ...]) -> tuple[int, ...]:
    place = np.linalg.inv(volume.affine) @ np.array([*point, 1.0])
    return tuple(int(n) for n in np.rint(place[:3]))


def segment(volume: DrawnVolume, name: str) -> np.ndarray:
    numbers = [n for n, s in enumerate(volume.segments, 1) if s.observation == name]
    return np.isin(volume.segmentation, numbers)


def around(volume: DrawnVolume, mask: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns the HU of what lies 2 to 4 voxels outside a mask, between two HU (lung, say)."""
    ring = ndimage.binary_dilation(mask, iterations=4) & ~ndimage.binary_dilation(mask, iterations=2)
    values = volume.images["CT"][ring]
    return values[(values > low) & (values < high)]


def test_a_seed_is_always_the_same_patient() -> None:
    first, again = chest.draw(11, spacing=(4, 4, 4)), chest.draw(11, spacing=(4, 4, 4))
    np.testing.assert_array_equal(first.images["CT"], again.images["CT"])
    np.testing.assert_array_equal(first.segmentation, again.segmentation)
    assert first.findings == again.findings and first.labels == again.labels


def test_the_twin_is_the_flip_with_sides_exchanged() -> None:
    names = ("nodule", "pleural_effusion", "fracture")
    plain = drawn(3, names)
    twin = chest.draw(3, findings=names, spacing=SPACING, mirror=True)
    np.testing.assert_array_equal(twin.images["CT"], plain.images["CT"][..., ::-1])
    np.testing.assert_array_equal(twin.segmentation, plain.segmentation[..., ::-1])
    other = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT, Side.BILATERAL: Side.BILATERAL}
    for mine, theirs in zip(plain.findings, twin.findings, strict=True):
        assert theirs.laterality == other[mine.laterality] and theirs.location == mine.location
        for a, b in zip(mine.lesions, theirs.lesions, strict=True):
            assert b.center_mm == (-a.center_mm[0], *a.center_mm[1:]) and b.laterality == other[a.laterality]
            at_a, at_b = voxel(plain, a.center_mm), voxel(twin, b.center_mm)
            assert plain.images["CT"][at_a] == twin.images["CT"][at_b]


def test_places_do_not_depend_on_the_spacing() -> None:
    coarse, fine = drawn(5, ("nodule", "consolidation")), drawn(5, ("nodule", "consolidation"), (2.0, 1.5, 1.5))
    assert coarse.findings == fine.findings
    for name in ("nodule", "consolidation"):
        sizes = [segment(v, name).sum() * np.prod(spacing) for v, spacing in ((coarse, SPACING), (fine, (2, 1.5, 1.5)))]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.15)
    for volume in (coarse, fine):
        for lesion in finding(volume, "nodule").lesions:
            assert volume.images["CT"][voxel(volume, lesion.center_mm)] > -700


def test_nodules_are_seen_where_they_are_said_to_be() -> None:
    for seed in range(20, 24):
        volume = drawn(seed, ("nodule",), (2.0, 2.0, 2.0) if seed == 20 else SPACING)
        nodules = finding(volume, "nodule")
        assert 1 <= len(nodules.lesions) <= 4 and nodules.count == len(nodules.lesions)
        sizes = [lesion.diameter_mm for lesion in nodules.lesions]
        assert sizes == sorted(sizes, reverse=True) and nodules.measurement.value == sizes[0]
        for n, lesion in enumerate(nodules.lesions, 1):
            assert 4 <= lesion.diameter_mm <= 30
            x = lesion.center_mm[0]
            assert lesion.laterality == (Side.LEFT if x > 0 else Side.RIGHT)
            assert lesion.location in ("upper lobe", "lower lobe") or (lesion.location == "middle lobe" and x < 0)
            mask = volume.segmentation == n
            assert volume.segmentation[voxel(volume, lesion.center_mm)] == n
            assert volume.images["CT"][mask].mean() > np.median(around(volume, mask, -1100, -600)) + 150
            reach = np.argwhere(mask) * 2.5
            if lesion.diameter_mm > 10 and seed > 20:
                longest = np.linalg.norm(reach - reach.mean(axis=0), axis=1).max() * 2
                assert longest == pytest.approx(lesion.diameter_mm, abs=5)


def test_a_lobe_is_on_its_side_of_the_fissures() -> None:
    body = chest._body(np.random.default_rng(0), chest.Plan())
    places = {
        (-70, -30, 50): (-1, "upper lobe"),
        (-50, -65, -60): (-1, "middle lobe"),
        (-60, 60, -60): (-1, "lower lobe"),
        (60, -40, -20): (1, "upper lobe"),
        (60, 60, -60): (1, "lower lobe"),
    }
    for point, expected in places.items():
        assert chest.lobe_of(body, chest._world(body, np.array([point]))[0]) == expected


def test_fluid_lies_behind_and_air_in_front() -> None:
    volume = drawn(30, ("pleural_effusion", "pneumothorax"))
    hu = volume.images["CT"]
    fluid, air = segment(volume, "pleural_effusion"), segment(volume, "pneumothorax")
    assert -10 < hu[fluid].mean() < 40 and np.median(hu[air]) < -940
    assert np.argwhere(fluid)[:, 1].mean() > np.argwhere(air)[:, 1].mean() + 15
    for name, mask in (("pleural_effusion", fluid), ("pneumothorax", air)):
        x = volume.affine[0, 3] + volume.affine[0, 2] * np.argwhere(mask)[:, 2].mean()
        assert finding(volume, name).laterality == (Side.LEFT if x > 0 else Side.RIGHT)
        assert finding(volume, name).severity in ("small", "moderate", "large")


def test_consolidation_is_one_dense_patch_with_air_in_it() -> None:
    volume = drawn(5, ("nodule", "consolidation"))
    mask, hu = segment(volume, "consolidation"), volume.images["CT"]
    lesion = finding(volume, "consolidation").lesions[0]
    assert np.median(hu[mask]) > 0 and (hu[mask] < -300).any()
    points = np.argwhere(mask) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    np.testing.assert_allclose(points.mean(axis=0), lesion.center_mm, atol=2)
    assert 20 < lesion.diameter_mm < 140


def test_emphysema_is_darker_than_lung() -> None:
    volume = drawn(40, ("emphysema",))
    mask, hu = segment(volume, "emphysema"), volume.images["CT"]
    assert hu[mask].mean() < np.mean(around(volume, mask, -1100, -700)) - 50
    assert finding(volume, "emphysema").severity in ("mild", "moderate", "severe")


def test_a_fracture_is_a_gap_in_a_rib() -> None:
    volume = drawn(3, ("nodule", "pleural_effusion", "fracture"))
    for lesion in finding(volume, "fracture").lesions:
        assert lesion.location == "ribs" and lesion.laterality == (Side.LEFT if lesion.center_mm[0] > 0 else Side.RIGHT)
        z, y, x = voxel(volume, lesion.center_mm)
        near = volume.images["CT"][z - 5 : z + 6, y - 5 : y + 6, x - 5 : x + 6]
        assert (near > 250).sum() > 10
        assert volume.images["CT"][z, y, x] > -100


def test_the_heart_is_as_wide_as_it_is_said_to_be() -> None:
    widths = {}
    for names in ((), ("cardiomegaly",)):
        plan = chest._plan(np.random.default_rng([50, 0]), names)
        body = chest._body(np.random.default_rng([50, 1]), plan)
        low, high = chest._view(body)
        grid = chest.Grid(low, np.full(3, 4.0), tuple(int(n) for n in (high - low) / 4))
        fields = chest._fields(body, grid, np.random.default_rng(0))
        spans = [np.ptp(fields.x[f < 0]) for f in (fields.heart, np.maximum(fields.cage, fields.dome))]
        widths[names] = spans[0] / spans[1]
    assert 0.36 < widths[()] < 0.5 and 0.54 < widths[("cardiomegaly",)] < 0.78
    assert finding(drawn(50, ("cardiomegaly",)), "cardiomegaly").severity in ("mild", "moderate", "severe")


def test_a_normal_one_has_nothing() -> None:
    volume = drawn(60, ())
    assert not volume.findings and not volume.segments and not volume.segmentation.any()
    assert set(volume.labels) >= set(chest.DRAWN) and set(volume.labels.values()) == {Status.ABSENT}


def test_noise_and_tissues_are_those_of_a_ct() -> None:
    volume = drawn(60, ())
    hu = volume.images["CT"]
    assert hu.dtype == np.float32 and hu.min() >= -1024
    body = chest._body(np.random.default_rng([60, 1]), chest._plan(np.random.default_rng([60, 0]), ()))
    z, y, x = voxel(volume, chest._world(body, np.array([[26, 41, 4]]))[0])
    aorta = hu[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3]
    assert 4 < aorta.std() < 40
    lung = hu[(hu < -700) & (hu > -960)]
    assert -900 < np.median(lung) < -820


def test_what_is_argued_about_is_left_open() -> None:
    labels = drawn(30, ("pleural_effusion", "pneumothorax")).labels
    assert "atelectasis" not in labels and labels["pleural_effusion"] == Status.PRESENT
    assert labels["nodule"] == Status.ABSENT


def test_an_unknown_finding_is_refused() -> None:
    with pytest.raises(ValueError, match="found edema"):
        chest.draw(1, findings=("edema",))


def test_seeds_choose_findings_about_as_often_as_said() -> None:
    plans = [chest._plan(np.random.default_rng([seed, 0]), None) for seed in range(400)]
    normal = [p for p in plans if not (p.severity or p.nodules or p.consolidation or p.fractures)]
    assert 0.22 < len(normal) / 400 < 0.38
    sizes = [d for p in plans for d in p.nodules]
    assert 0.4 < np.mean([5 <= d < 10 for d in sizes]) < 0.6
