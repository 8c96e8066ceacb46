import itertools
import math
from dataclasses import replace

import pytest
import torch

from mmfm.models.encoder3d import Features3D
from mmfm.models.volume_heads import LEAST_PEAK, VolumeHeads, peaks, readings, shifted
from mmfm.report import Place

OBSERVATIONS = ("nodule", "cardiomegaly", "pleural_effusion", "consolidation")
STRIDE = (2, 2, 2)
PLACES = tuple(Place(location=name, observations=("nodule",)) for name in ("upper lobe", "middle lobe", "lower lobe"))


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return VolumeHeads(
        num_fine=6, num_coarse=10, observations=OBSERVATIONS, lesions=("consolidation", "nodule"),
        masks=("pleural_effusion",), places=PLACES, dropout=0.3,
    ).eval()  # fmt: skip


def _features(*, width=8, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randn(2, 6, 4, 6, width, generator=generator).requires_grad_(requires_grad)
    coarse = torch.randn(2, 10, 2, 3, width // 2, generator=generator).requires_grad_(requires_grad)
    return Features3D(fine_NEDHW=fine, coarse_NEDHW=coarse)


def test_each_observation_has_its_own_map_or_mask_as_evidence(heads):
    assert heads.evidence_O.tolist() == [1, -1, 2, 0]  # rows of (consolidation, nodule, pleural_effusion)
    features = _features()
    before = heads(features)
    with torch.no_grad():
        heads.dense.bias[1] += 3  # the map of nodule
    after = heads(features)
    moved = (after.present_NO - before.present_NO)[0]
    torch.testing.assert_close(moved, torch.tensor([3.0, 0.0, 0.0, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close((after.sides_NO2 - before.sides_NO2)[0, 0], torch.tensor([3.0, 3.0]), atol=1e-4, rtol=0)


def test_evidence_carries_no_gradient_to_the_maps(heads):
    logits = heads(_features(requires_grad=True))
    (logits.present_NO.sum() + logits.sides_NO2.sum() + logits.severity_NOG.sum()).backward()
    assert heads.dense.weight.grad is None and heads.mix[0].weight.grad is None
    assert heads.present.weight.grad.any() and heads.evidence_weight_O.grad.any()
    assert not heads.evidence_weight_O.grad[1], "cardiomegaly has no evidence"


def test_a_mirrored_map_of_features_mirrors_the_sides_exactly(heads):
    with torch.no_grad():
        heads.mix[0].weight[:, -1] = 0  # where a patch lies from right to left, by which places are told apart
    features = _features()
    mirrored = Features3D(fine_NEDHW=features.fine_NEDHW.flip(4), coarse_NEDHW=features.coarse_NEDHW.flip(4))
    one, other = heads(features), heads(mirrored)
    torch.testing.assert_close(other.sides_NO2, one.sides_NO2.flip(2))
    torch.testing.assert_close(other.present_NO, one.present_NO)
    assert (one.sides_NO2[..., 0] - one.sides_NO2[..., 1]).abs().min() > 1e-4


@pytest.mark.parametrize("width", [8, 10])  # of 10, the coarse map has 5 columns, and the middle one has no side
def test_the_left_is_the_higher_half_of_the_columns(heads, width):
    with torch.no_grad():
        heads.side.weight.zero_()
        heads.side.weight[:, :10] = 1.0  # the mean of the own half
    features = _features(width=width)
    brighter = features.coarse_NEDHW.clone()
    brighter[..., -2:] += 5
    (left, right) = (heads(replace(features, coarse_NEDHW=brighter)).sides_NO2 - heads(features).sides_NO2)[0, 1]
    assert left > 40 and abs(right) < 1e-4 + 0.2 * left  # context of the maps is not evidence of cardiomegaly


def test_a_part_knows_where_it_lies_in_the_whole(heads):
    features = _features()
    part = replace(features, fine_NEDHW=features.fine_NEDHW[:, :, 1:3, 2:, 3:7])
    constant = torch.zeros_like(features.coarse_NEDHW)
    whole, own = (replace(f, coarse_NEDHW=constant) for f in (features, part))
    torch.testing.assert_close(
        heads(own, corner=(1, 2, 3), whole=(4, 6, 8)).heat_NLDHW, heads(whole).heat_NLDHW[:, :, 1:3, 2:, 3:7]
    )


def _plant(logits, places):
    heat = torch.full_like(logits.heat_NLDHW, -8.0)
    for slab, row, patch, value in places:
        heat[(slab, row, *patch)] = value
    return replace(logits, heat_NLDHW=heat)


def test_planted_peaks_come_back_with_place_size_and_probability(heads):
    with torch.no_grad():
        for last, values in ((heads.detail[-1], [2.0, 0.25, -0.5, 0.0]), (heads.place[-1], [0.0, 5.0, 1.0])):
            last.weight.zero_()
            last.bias.copy_(torch.tensor(values))
    logits = _plant(heads(_features()), [(1, 1, (2, 3, 5), 2.0), (1, 1, (0, 0, 0), 3.0), (0, 1, (1, 1, 1), 4.0)])
    corner, inner = peaks(heads, logits, 1, (2, 4, 4))
    assert corner.probability == pytest.approx(0.9526, abs=1e-3) and inner.lesion == corner.lesion == 1
    # Patch 2 of stride 2 covers voxels 4 and 5, whose middle is 4.5; the lesion is a quarter of a patch behind that.
    assert inner.index == pytest.approx((4.5 + 0.5, 13.5 - 2.0, 21.5))
    assert inner.diameter_mm == pytest.approx(7.389, abs=1e-3) and PLACES[inner.place].location == "middle lobe"


def test_a_place_is_told_by_where_a_patch_lies_and_only_where_the_observation_can_be(heads):
    with torch.no_grad():
        for layer in (heads.place[0], heads.place[-1]):
            layer.weight.zero_()
            layer.bias.zero_()
        heads.place[0].weight[0, -1] = 1.0  # the column, -1 to 1
        heads.place[-1].weight[2, 0] = 1.0
    features = _features()
    patches = torch.tensor([[1, 1, 0], [1, 1, 7], [1, 1, 7]])
    found = heads.details(heads(features), 0, patches, torch.tensor([1, 1, 0]))
    torch.testing.assert_close(found.place_XP[:2], torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))
    assert found.place_XP[2].isneginf().all(), "consolidation has no place here"
    logits = _plant(heads(features), [(0, 0, (1, 1, 1), 2.0), (0, 1, (1, 1, 1), 2.0)])
    assert [peak.place for peak in peaks(heads, logits, 0, STRIDE)] == [None, 0]


def test_a_slab_is_read_again_half_a_patch_further_on_and_half_of_the_times_between_its_voxels():
    ways = readings((2, 2, 2))
    assert [way.voxels for way in ways] == [*itertools.product((0, 1), repeat=3)]
    assert [way.between for way in ways] == [False, True, True, False, True, False, False, True]
    shifts = [way.shift for way in readings((1, 8, 8))]
    assert shifts == [(0, 0, 0), (0.5, 0.5, 4.5), (0.5, 4.5, 0.5), (0, 4, 4)]
    assert [way.shift for way in readings((1, 1, 1))] == [(0, 0, 0)]
    # None is nearer to another, as patches of 2 voxels repeat, than half a voxel along every axis.
    apart = [
        math.dist((0, 0, 0), [min((a - b) % 2, (b - a) % 2) for a, b in zip(one, other, strict=True)])
        for one, other in itertools.combinations([way.shift for way in ways], 2)
    ]
    assert min(apart) == pytest.approx(math.sqrt(3) / 2)
    slab = torch.arange(2 * 4 * 5 * 6.0).reshape(2, 4, 5, 6)
    moved = shifted(slab, (0, 1, 2))
    torch.testing.assert_close(moved[:, :, :-1, :-2], slab[:, :, 1:, 2:])
    assert torch.equal(moved[:, :, -1], moved[:, :, -2]) and torch.equal(moved[..., -1], moved[..., -3])
    assert shifted(slab, (0, 0, 0)) is slab


def test_a_peak_is_the_highest_around_and_high_enough(heads):
    slope = [(0, 0, (1, 1, column), 1.0 + column) for column in range(4)]
    low, enough = (math.log(p / (1 - p)) for p in (0.9 * LEAST_PEAK, 1.1 * LEAST_PEAK))
    logits = _plant(heads(_features()), [*slope, (0, 1, (3, 3, 3), low), (0, 1, (0, 0, 0), enough)])
    top, other = peaks(heads, logits, 0, STRIDE)
    assert (top.lesion, other.lesion) == (0, 1) and other.index[2] < 2
    assert top.probability == pytest.approx(0.982, abs=1e-3)
    many = _plant(logits, [(0, 0, (0, 0, c), 1.0 + c) for c in (0, 2, 4, 6)])
    assert [p.probability for p in peaks(heads, many, 0, STRIDE, most=2)[:2]] == sorted(
        torch.tensor([7.0, 5.0]).sigmoid().tolist(), reverse=True
    )
