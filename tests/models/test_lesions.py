import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmfm.models.lesions import PATCHES_APART, find_lesions
from mmfm.models.volume_heads import Peak, VolumeHeads, VolumeLogits, peaks
from mmfm.report import Place, Side

PLACES = (
    Place(laterality=Side.LEFT, location="upper lobe", observations=("nodule",)),
    Place(location="brainstem", observations=("infarct",)),
)
NAMES = ("nodule", "infarct")
STRIDE = (2, 2, 2)


@pytest.fixture
def found():
    """Finds lesions whose patches, values and details were planted, in slabs of 2 mm voxels from these feet.

    ``again`` is planted in a second reading of every slab, which begins a voxel later along rows and columns.
    """
    torch.manual_seed(0)
    heads = VolumeHeads(
        num_fine=4, num_coarse=4, observations=NAMES, lesions=NAMES, masks=(), places=PLACES, dropout=0.0
    )

    def find(slabs, *, diameter_mm=10.0, points=None, place=0, again=None):
        with torch.no_grad():
            heads.detail[-1].weight.zero_()
            heads.detail[-1].bias.copy_(torch.tensor([math.log(diameter_mm), 0, 0, 0]))
            heads.place[-1].weight.zero_()
            heads.place[-1].bias.copy_(torch.tensor([5.0 * (i == place) for i in (0, 1)]))
        of_slabs, affines = [], []
        for feet, planted in slabs:
            readings = [planted] if again is None else [planted, again]
            heat = torch.full((len(readings), 2, 20, 10, 10), -9.0)
            for reading, one in enumerate(readings):
                for row, patch, probability in one:
                    heat[(reading, row, *patch)] = torch.logit(torch.tensor(probability))
            empty = torch.zeros(1, 0)
            logits = VolumeLogits(
                heat_NLDHW=heat,
                mask_NMDHW=torch.zeros(len(readings), 0, 20, 10, 10),
                hidden_NFDHW=torch.zeros(len(readings), 32, 20, 10, 10),
                position_NQDHW=torch.zeros(len(readings), 19, 20, 10, 10),
                present_NO=empty,
                sides_NO2=empty,
                severity_NOG=empty,
            )
            shifts = enumerate(((0, 0, 0), (0, 1, 1))[: len(readings)])
            of_slabs.append([peaks(heads, logits, row, STRIDE, shift=s) for row, s in shifts])
            affine = np.array([[0, 0, 2.0, -20], [0, 2.0, 0, 30], [2.0, 0, 0, feet], [0, 0, 0, 1]])
            affines.append(affine)
        processor = SimpleNamespace(config=SimpleNamespace(lesions=NAMES, places=PLACES))
        return find_lesions(processor, affines, of_slabs, points or dict.fromkeys(NAMES, 0.5), stride=STRIDE)

    return find


def test_planted_lesions_are_in_the_patients_millimetres(found):
    (lesion,) = found([(100.0, [(0, (3, 4, 5), 0.9)])])["nodule"]
    # The middle of patch (3, 4, 5) is voxel (6.5, 8.5, 10.5): columns run to the left, rows to the back.
    assert lesion.center_mm == pytest.approx((-20 + 21, 30 + 17, 100 + 13))
    assert lesion.diameter_mm == pytest.approx(10, abs=1e-3) and lesion.probability == pytest.approx(0.9)
    assert (lesion.laterality, lesion.location) == (Side.LEFT, "upper lobe")
    (other,) = found([(100.0, [(1, (3, 4, 5), 0.9)])], place=1)["infarct"]
    assert (other.laterality, other.location) == (None, "brainstem")


def test_a_lesion_is_only_where_its_observation_can_be(found):
    (lesion,) = found([(100.0, [(0, (3, 4, 5), 0.9)])], place=1)["nodule"]
    assert lesion.location == "upper lobe"


def test_a_lesion_in_two_overlapping_slabs_is_one_and_the_surer_one(found):
    # Slabs of 80 mm whose feet are 48 mm apart: 12 patches of 4 mm.
    (lesion,) = found([(0.0, [(0, (14, 4, 4), 0.8)]), (48.0, [(0, (2, 4, 4), 0.95)])])["nodule"]
    assert lesion.probability == pytest.approx(0.95) and lesion.center_mm[2] == pytest.approx(48 + 9)
    two = found([(0.0, [(0, (4, 4, 4), 0.8)]), (48.0, [(0, (2, 4, 4), 0.95)])])["nodule"]
    assert len(two) == 2


def test_a_lesion_of_two_readings_is_one_and_stands_between_them_nearer_to_the_surer_one(found):
    planted = [(100.0, [(0, (3, 4, 5), 0.6)])]
    (lesion,) = found(planted, again=[(0, (3, 4, 5), 0.9)])["nodule"]
    # The second reading begins a voxel of 2 mm further to the back and to the left, and counts 0.9 / (0.6 + 0.9).
    assert lesion.center_mm == pytest.approx((-20 + 21 + 1.2, 30 + 17 + 1.2, 100 + 13))
    assert lesion.probability == pytest.approx(0.9)
    (lesion,) = found(planted, again=[(0, (2, 4, 5), 0.3)])["nodule"]
    # A third of the weight, where a patch of 4 mm nearer to the feet and the voxel away.
    assert lesion.center_mm == pytest.approx((-20 + 21 + 2 / 3, 30 + 17 + 2 / 3, 100 + 13 - 4 / 3))
    assert lesion.probability == pytest.approx(0.6)
    assert len(found(planted, again=[(0, (9, 4, 5), 0.9)])["nodule"]) == 2
    # A patch of 4 mm and the voxel between the readings: 6 mm, and once more a patch.
    assert len(found(planted, again=[(0, (3, 5, 5), 0.5)])["nodule"]) == 1
    assert len(found(planted, again=[(0, (3, 6, 5), 0.5)])["nodule"]) == 2


def test_size_and_place_of_a_lesion_are_what_its_readings_say_as_much_as_their_p():
    def peak(probability, diameter_mm, place):
        return Peak(lesion=0, probability=probability, index=(5.0, 5.0, 5.0), diameter_mm=diameter_mm, place=place)

    places = tuple(
        Place(laterality=side, location="upper lobe", observations=("nodule",)) for side in (Side.LEFT, Side.RIGHT)
    )
    processor = SimpleNamespace(config=SimpleNamespace(lesions=("nodule",), places=places))
    own = [peak(0.8, 8.0, 0), peak(0.5, 16.0, 1), peak(0.6, 16.0, 1)]

    (lesion,) = find_lesions(processor, [np.eye(4)], [[own]], {"nodule": 0.7}, stride=STRIDE)["nodule"]

    assert lesion.diameter_mm == pytest.approx(8 * 2 ** (1.1 / 1.9))  # the mean of logarithms
    assert lesion.laterality is Side.RIGHT and lesion.probability == 0.8
    assert find_lesions(processor, [np.eye(4)], [[own]], {"nodule": 0.9}, stride=STRIDE) == {}


def _found(slabs, point):
    processor = SimpleNamespace(config=SimpleNamespace(lesions=("nodule",), places=()))
    return find_lesions(processor, [np.eye(4)] * len(slabs), slabs, {"nodule": point}, stride=STRIDE).get("nodule", ())


def _nodule(probability, *, row=5.0, diameter_mm=8.0):
    return Peak(lesion=0, probability=probability, index=(row, 5.0, 5.0), diameter_mm=diameter_mm, place=None)


@pytest.mark.parametrize(
    ("readings", "wanted"),
    [
        ((0.9, 0.1, 0.8, 0.5, 0.7, 0.2, 0.6, 0.3), 0.75),
        ((0.9,), 0.9),
        ((0.9, 0.6, 0.3), 0.75),
        ((0.9, None, None, None, 0.7, None, None, None), 0.4),  # one that does not show it says 0
        ((0.9, None, None, None), 0.45),
    ],
)
def test_a_lesion_is_as_likely_as_the_higher_half_of_its_readings_say(readings, wanted):
    own = [[] if p is None else [_nodule(p)] for p in readings]
    (lesion,) = _found([own], wanted - 1e-6)
    assert lesion.probability == pytest.approx(wanted)
    assert not _found([own], wanted + 1e-6), "its surest reading alone states nothing"
    (lesion,) = _found([[[]] * len(own), own], 0.1)
    assert lesion.probability == pytest.approx(wanted), "of slabs that overlap the surer one counts"


def test_a_large_lesion_is_seen_by_readings_that_see_its_middle_elsewhere():
    assert PATCHES_APART * max(STRIDE) < 7 < 30 / 2
    readings = [[_nodule(0.8, diameter_mm=30.0)], *[[_nodule(0.7, row=12.0, diameter_mm=30.0)]] * 7]
    (lesion,) = _found([readings], 0.5)
    assert lesion.probability == pytest.approx((0.8 + 3 * 0.7) / 4)
    assert lesion.center_mm[0] == pytest.approx(12), "where seven of eight readings see it"


def test_what_one_reading_shows_large_does_not_hide_what_all_show_within():
    readings = [[_nodule(0.9, row=12.0, diameter_mm=24.0), _nodule(0.7)], *[[_nodule(0.7)]] * 7]
    (lesion,) = _found([readings], 0.5)
    assert lesion.center_mm[0] == pytest.approx(5) and lesion.diameter_mm == pytest.approx(8)
    assert lesion.probability == pytest.approx((0.9 + 3 * 0.7) / 4)


def test_readings_of_two_slabs_are_not_counted_together():
    first = [[_nodule(0.8)], [_nodule(0.8)], [], []]
    second = [[], [], [_nodule(0.6)], [_nodule(0.5)]]
    (lesion,) = _found([first, second], 0.1)
    assert lesion.probability == pytest.approx(0.8)
    (lesion,) = _found([[first[0], [], [], []], [[], [], second[2], []]], 0.1)
    assert lesion.probability == pytest.approx(0.4), "half of the readings of neither"


def test_neighbouring_peaks_of_one_lesion_are_one_and_of_two_observations_two(found):
    beside = [(0, (5, 5, 2), 0.9), (0, (5, 5, 5), 0.8)]  # 12 mm apart
    assert PATCHES_APART * 4 < 12
    assert len(found([(0.0, beside)])["nodule"]) == 2
    assert len(found([(0.0, beside)], diameter_mm=30.0)["nodule"]) == 1
    both = found([(0.0, [(0, (5, 5, 5), 0.9), (1, (5, 5, 5), 0.9)])])
    assert {name: len(lesions) for name, lesions in both.items()} == {"nodule": 1, "infarct": 1}


def test_each_observation_has_its_own_point_and_without_one_is_not_looked_for(found):
    planted = [(0.0, [(0, (5, 5, 5), 0.6), (1, (9, 5, 5), 0.6)])]
    assert set(found(planted, points={"nodule": 0.5, "infarct": 0.7})) == {"nodule"}
    assert set(found(planted, points={"infarct": 0.5})) == {"infarct"}
    assert found(planted, points={"hernia": 0.1}) == {}


def test_the_largest_comes_first_and_what_lies_within_half_a_diameter_is_one():
    def peak(row, diameter_mm, probability):
        return Peak(lesion=0, probability=probability, index=(row, 0.0, 0.0), diameter_mm=diameter_mm, place=None)

    processor = SimpleNamespace(config=SimpleNamespace(lesions=("nodule",), places=()))
    own = [peak(0.0, 5.0, 0.9), peak(53.0, 28.0, 0.5), peak(50.0, 20.0, 0.6)]

    large, small = find_lesions(processor, [np.eye(4)], [[own]], {"nodule": 0.5}, stride=STRIDE)["nodule"]

    assert large.probability == 0.6 and 20 < large.diameter_mm < 28 and 50 < large.center_mm[0] < 53
    assert small.probability == 0.9 and small.diameter_mm == pytest.approx(5)

    # What is further off than two patches is not shown again within a large lesion, and moves nothing.
    far = [peak(0.0, 8.0, 0.9), peak(28.0, 60.0, 0.6), peak(150.0, 400.0, 0.3)]
    (only,) = find_lesions(processor, [np.eye(4)], [[far]], {"nodule": 0.2}, stride=STRIDE)["nodule"]
    assert only.center_mm[0] == 0 and only.diameter_mm == pytest.approx(8)
