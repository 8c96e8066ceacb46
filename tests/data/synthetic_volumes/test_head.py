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


def contrasts(seed, observation):
    """(n lesions, sequences): signal of each lesion over that of the mirror place, where that is free."""
    volume = drawn(seed, COUNTED, (2.0, 2.0, 2.0))
    for number, segment in enumerate(volume.segments, 1):
        mask = volume.segmentation == number
        other = mask[:, :, ::-1] & (volume.segmentation == 0)
        if segment.observation == observation and segment.laterality is not None and other.sum() > 20:
            yield {name: signal(volume, name, mask) / signal(volume, name, other) for name in SEQUENCES}


@needs_template
def test_everything_follows_from_the_seed():
    one, two, other = (draw(seed, spacing=(4.0, 4.0, 4.0)) for seed in (11, 11, 12))
    assert all(np.array_equal(one.images[name], two.images[name]) for name in SEQUENCES)
    assert one.findings == two.findings and np.array_equal(one.segmentation, two.segmentation)
    assert not np.array_equal(one.images["T1"], other.images["T1"])


@needs_template
def test_images_are_four_sequences_on_one_grid_of_the_field():
    volume = drawn(1, (), (2.5, 2.0, 2.5))
    assert tuple(volume.images) == SEQUENCES
    for image in volume.images.values():
        assert image.dtype == np.float32 and image.min() >= 0 and np.isfinite(image).all()
        assert (
            image.shape
            == volume.segmentation.shape
            == tuple(round(f / s) for f, s in zip(FIELD, (2.5, 2.0, 2.5), strict=True))
        )
    middle = volume.affine @ [*(np.array(volume.segmentation.shape) - 1) / 2, 1]
    np.testing.assert_allclose(middle[:3], 0, atol=1e-9)
    np.testing.assert_allclose(volume.affine[:3, :3], np.diag([2.5, 2.0, 2.5])[::-1])


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
    fine, coarse = drawn(1, COUNTED, (2.0, 2.0, 2.0)), drawn(1, COUNTED, (5.0, 4.0, 4.0))
    assert fine.findings == coarse.findings and fine.segments == coarse.segments
    assert fine.patient == coarse.patient


@needs_template
@pytest.mark.parametrize("seed", range(4))
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
def test_each_lesion_is_seen_on_the_sequences_that_show_it():
    seen = dict.fromkeys(COUNTED, 0)
    for seed in range(4):
        for observation in COUNTED:
            for ratio in contrasts(seed, observation):
                seen[observation] += 1
                match observation:
                    case "infarct":
                        assert ratio["DWI"] > 1.3 and ratio["FLAIR"] > 1.05
                    case "brain_mass":
                        assert ratio["T1"] < 0.85 and ratio["T2"] > 1.2
                    case "intracranial_hemorrhage":
                        assert ratio["T2"] < 0.7 or ratio["T1"] > 1.2
    assert min(seen.values()) >= 3


def evans_index(space):
    """Width of the frontal horns over that inside the skull, measured on a fine grid of the map."""
    grid = head._Grid((3.0, 2.5, 1.0))
    at = space.refined(space.at, grid)[:, 16:46]
    skull = (head._sample(space.template.brain, at[:, ::4]) < 1).sum(axis=2).max()
    front = at[:, :, :60]
    horns = (head._sample(space.template.ventricle, front) < 0) & (front[1] > 8)
    widths = horns.shape[2] - horns[..., ::-1].argmax(axis=2) - horns.argmax(axis=2)
    return widths[horns.any(axis=2)].max() / skull


def spaces(seeds, findings):
    """The maps that heads are drawn with, with the severity of hydrocephalus."""
    made, init = [], head._Space.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head._Space, "__init__", lambda self, *a, **k: (init(self, *a, **k), made.append(self))[0])
        drawings = [draw(seed, findings=findings, spacing=(10.0, 10.0, 10.0)) for seed in seeds]
    return [(d.findings[0].severity if d.findings else None, space) for d, space in zip(drawings, made, strict=True)]


@needs_template
def test_hydrocephalus_has_larger_ventricles_than_any_normal_head():
    normal = [evans_index(space) for _, space in spaces(range(6), ())]
    assert min(normal) > 0.19 and max(normal) < 0.30
    found = set()
    for severity, space in spaces(range(6), ("hydrocephalus",)):
        low, high = HYDROCEPHALUS_EVANS[severity]
        assert low - 0.02 < evans_index(space) < high + 0.02
        assert evans_index(space) > max(normal) + 0.02
        found.add(severity)
    assert found == set(HYDROCEPHALUS_EVANS)


@needs_template
def test_ventricles_are_segmented_where_they_are_wide():
    volume = drawn(2, ("infarct", "hydrocephalus"))
    (extent,) = [s for s in volume.segments if not s.is_lesion]
    assert extent == volume.segments[-1] and extent.observation == "hydrocephalus"
    mask = volume.segmentation == len(volume.segments)
    assert 30 < mask.sum() * 0.027 < 300  # ml


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
