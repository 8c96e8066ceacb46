import importlib.util
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from mmfm.data.synthetic_volumes import head
from mmfm.data.synthetic_volumes.head import DRAWN, FIELD, HYDROCEPHALUS_EVANS, PLACES, SEQUENCES, draw
from mmfm.errors import ConfigError
from mmfm.report import Side, Status

needs_template = pytest.mark.skipif(
    importlib.util.find_spec("nilearn") is None, reason="nilearn, whose wheel carries the template, is not installed"
)
COARSE = (3.0, 3.0, 3.0)
COUNTED = ("brain_mass", "infarct", "intracranial_hemorrhage")
SWAPPED = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT, Side.BILATERAL: Side.BILATERAL, None: None}


@cache
def drawn(seed, findings=None, spacing=COARSE):
    return draw(seed, findings=findings, spacing=spacing)


def lesions(volume):
    return [lesion for finding in volume.findings for lesion in finding.lesions]


def signal(volume, name, mask):
    return float(np.median(volume.images[name][mask]))


def around(volume, mask):
    """The same tissue elsewhere: the brain of a normal drawing of this seed is not at hand, so the mirror place is."""
    other = mask[:, :, ::-1] & (volume.segmentation == 0)
    return other if other.sum() > 20 else ndimage.binary_dilation(mask, iterations=4) & (volume.segmentation == 0)


@needs_template
def test_everything_follows_from_the_seed():
    one, two, other = (draw(seed, spacing=(4.0, 4.0, 4.0)) for seed in (11, 11, 12))
    assert all(np.array_equal(one.images[name], two.images[name]) for name in SEQUENCES)
    assert one.findings == two.findings and np.array_equal(one.segmentation, two.segmentation)
    assert not np.array_equal(one.images["T1"], other.images["T1"])


@needs_template
def test_images_are_four_sequences_on_one_grid_of_the_field():
    volume = drawn(1, (), (1.5, 1.5, 1.5))
    assert tuple(volume.images) == SEQUENCES
    for image in volume.images.values():
        assert image.dtype == np.float32 and image.min() >= 0 and np.isfinite(image).all()
        assert image.shape == volume.segmentation.shape == tuple(round(f / 1.5) for f in FIELD)
    middle = volume.affine @ [*(np.array(volume.segmentation.shape) - 1) / 2, 1]
    np.testing.assert_allclose(middle[:3], 0, atol=1e-9)
    np.testing.assert_allclose(volume.affine[:3, :3], np.diag([1.5] * 3)[::-1])


@needs_template
def test_contrasts_are_those_of_the_sequences():
    """White matter is the brightest of the brain on T1 and the darkest on T2; fluid is dark on T1, FLAIR and DWI."""
    for seed in range(3):
        volume = drawn(seed, ("hydrocephalus",))
        fluid = ndimage.binary_erosion(volume.segmentation == 1)
        ring = ndimage.binary_dilation(volume.segmentation == 1, iterations=4)
        white = ring & ~ndimage.binary_dilation(volume.segmentation == 1, iterations=2)
        for name, brighter in (("T1", white), ("FLAIR", white), ("DWI", white), ("T2", fluid)):
            darker = fluid if brighter is white else white
            assert signal(volume, name, brighter) > 1.5 * signal(volume, name, darker), name


@needs_template
@pytest.mark.parametrize("findings", [(), ("infarct", "brain_mass"), ("intracranial_hemorrhage", "hydrocephalus")])
def test_mirror_twin_is_the_flip_with_sides_exchanged(findings):
    one, twin = drawn(5, findings), draw(5, findings=findings, spacing=COARSE, mirror=True)
    for name in SEQUENCES:
        np.testing.assert_array_equal(one.images[name][:, :, ::-1], twin.images[name])
    np.testing.assert_array_equal(one.segmentation[:, :, ::-1], twin.segmentation)
    assert [s.laterality for s in twin.segments] == [SWAPPED[s.laterality] for s in one.segments]
    for a, b in zip(one.findings, twin.findings, strict=True):
        assert (a.observation, a.location, a.severity, a.count) == (b.observation, b.location, b.severity, b.count)
        assert b.laterality == SWAPPED[a.laterality]
        for k, m in zip(a.lesions, b.lesions, strict=True):
            assert m.center_mm == (-k.center_mm[0], *k.center_mm[1:])
            assert (m.laterality, m.location, m.diameter_mm) == (SWAPPED[k.laterality], k.location, k.diameter_mm)


@needs_template
def test_places_do_not_depend_on_the_spacing():
    fine, coarse = drawn(7, COUNTED, (2.0, 1.5, 1.5)), drawn(7, COUNTED, COARSE)
    assert fine.findings == coarse.findings and fine.segments == coarse.segments
    assert fine.patient == coarse.patient


@needs_template
@pytest.mark.parametrize("seed", range(6))
def test_truth_agrees_with_the_segmentation(seed):
    volume = drawn(seed, COUNTED, (2.0, 2.0, 2.0))
    assert [f.observation for f in volume.findings] == list(COUNTED)
    assert volume.labels == {n: Status.PRESENT if n in COUNTED else Status.ABSENT for n in DRAWN}
    counted = lesions(volume)
    assert len(volume.segments) == len(counted)
    for finding in volume.findings:
        sizes = [lesion.diameter_mm for lesion in finding.lesions]
        assert sizes == sorted(sizes, reverse=True) and finding.count == len(sizes)
        assert finding.measurement.value == sizes[0]
    for number, (lesion, segment) in enumerate(zip(counted, volume.segments, strict=True), 1):
        assert segment.is_lesion and (segment.laterality, segment.location) == (lesion.laterality, lesion.location)
        voxels = np.argwhere(volume.segmentation == number)
        at = voxels @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        assert np.linalg.norm(at.mean(axis=0) - lesion.center_mm) < 2.0
        extent = np.linalg.norm(np.ptp(at, axis=0) + 2.0)
        assert 0.6 * lesion.diameter_mm < extent < 1.75 * lesion.diameter_mm + 2
        assert lesion.location in PLACES
        if lesion.location == "brainstem":
            assert lesion.laterality is None
        else:  # the patient's left is +x
            assert lesion.laterality == (Side.LEFT if lesion.center_mm[0] > 0 else Side.RIGHT)


@needs_template
def test_places_follow_the_rule():
    template = head._template()
    for place, (r, a, s) in {
        "frontal lobe": (35, 40, 15),
        "parietal lobe": (40, -50, 45),
        "temporal lobe": (52, -15, -22),
        "occipital lobe": (25, -85, 5),
        "basal ganglia": (20, 0, 5),
        "cerebellum": (25, -62, -40),
        "brainstem": (0, -28, -35),
    }.items():
        index = tuple(np.rint(np.array([[r, a, s], [-r, a, s]]) - head._ORIGIN).astype(int).T)
        assert (template.place[index] == PLACES.index(place) + 1).all(), place


@needs_template
@pytest.mark.parametrize("seed", range(4))
def test_infarct_is_bright_on_diffusion(seed):
    volume = drawn(seed, ("infarct",), (2.0, 2.0, 2.0))
    for number in range(1, len(volume.segments) + 1):
        mask = volume.segmentation == number
        assert signal(volume, "DWI", mask) > 1.3 * signal(volume, "DWI", around(volume, mask))
        assert signal(volume, "FLAIR", mask) > 1.05 * signal(volume, "FLAIR", around(volume, mask))


@needs_template
@pytest.mark.parametrize("seed", range(4))
def test_mass_is_dark_on_t1_and_bright_on_t2(seed):
    volume = drawn(seed, ("brain_mass",), (2.0, 2.0, 2.0))
    for number in range(1, len(volume.segments) + 1):
        mask = volume.segmentation == number
        assert signal(volume, "T1", mask) < 0.85 * signal(volume, "T1", around(volume, mask))
        assert signal(volume, "T2", mask) > 1.2 * signal(volume, "T2", around(volume, mask))


@needs_template
@pytest.mark.parametrize("seed", range(4))
def test_hemorrhage_is_dark_on_t2_or_bright_on_t1(seed):
    volume = drawn(seed, ("intracranial_hemorrhage",), (2.0, 2.0, 2.0))
    for number in range(1, len(volume.segments) + 1):
        mask = volume.segmentation == number
        t1, t2 = (signal(volume, n, mask) / signal(volume, n, around(volume, mask)) for n in ("T1", "T2"))
        assert t2 < 0.7 or t1 > 1.2


def ventricles(seed, findings):
    """Volume in ml of the ventricles of a drawing, by the map that it was drawn with."""
    made, widen = [], head._Space._widen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head._Space, "_widen", lambda self, w: (widen(self, w), made.append(self)))
        draw(seed, findings=findings, spacing=(8.0, 8.0, 8.0))
    return float((head._sample(made[0].template.ventricle, made[0].at) < 0).sum()) * 4**3 / 1000


@needs_template
def test_hydrocephalus_has_larger_ventricles_than_any_normal_head():
    normal = [ventricles(seed, ()) for seed in range(7)]
    by_severity = {name: [] for name in HYDROCEPHALUS_EVANS}
    for seed in range(7):
        (finding,) = drawn(seed, ("hydrocephalus",)).findings
        by_severity[finding.severity].append(ventricles(seed, ("hydrocephalus",)))
        assert drawn(seed, ("hydrocephalus",)).segments[-1].is_lesion is False
    assert min(min(v) for v in by_severity.values() if v) > 1.3 * max(normal)
    assert np.mean(by_severity["mild"]) < np.mean(by_severity["moderate"]) < np.mean(by_severity["severe"])


@needs_template
def test_normal_head_has_nothing():
    volume = drawn(3, ())
    assert volume.findings == () and volume.segments == () and not volume.segmentation.any()
    assert set(volume.labels.values()) == {Status.ABSENT}


@needs_template
def test_about_a_third_of_heads_is_normal():
    chosen = [head._choose(np.random.default_rng((seed, 0x4EAD)), None) for seed in range(1000)]
    assert 0.25 < np.mean([c == () for c in chosen]) < 0.35
    assert {name for c in chosen for name in c} == set(DRAWN) and max(map(len, chosen)) == 3


def test_unknown_finding_is_named():
    with pytest.raises(ConfigError, match="found nodule"):
        draw(0, findings=("nodule",))


def test_without_the_template_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'mmfm\[synthetic\]'"):
        head._read("t1")
