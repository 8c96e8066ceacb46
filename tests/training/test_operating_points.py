from types import SimpleNamespace

import numpy as np
import torch

from mmfm.batch import VolumeInputs
from mmfm.evaluation.lesions import match_lesions
from mmfm.models.checkpoint import Scope
from mmfm.models.volume_heads import VolumeHeads, VolumeLogits, peaks
from mmfm.report import Lesion
from mmfm.training.operating_points import best_f1_threshold, lesion_threshold, operating_points


def _lesion(x: float, probability: float | None = None) -> Lesion:
    return Lesion(center_mm=(x, 0.0, 0.0), diameter_mm=8.0, probability=probability)


def test_operating_point_lies_between_the_groups():
    truth = np.array([False] * 50 + [True] * 20)
    scores = np.where(truth, 0.7, 0.2)
    assert 0.2 < best_f1_threshold(truth, scores) < 0.7


def test_operating_point_of_two_humps_is_the_middle_of_the_broader_one():
    # F1 is .667 up to .2, where everything is stated, and again above .5, where half of the true ones are.
    truth = np.array([True] * 20 + [False] * 20)
    scores = np.array([0.75] * 10 + [0.2] * 10 + [0.5] * 20)
    assert 0.6 < best_f1_threshold(truth, scores) < 0.65


def test_lesions_are_stated_above_the_false_ones():
    matches = [match_lesions([_lesion(0)], [_lesion(1, 0.7), _lesion(60, 0.3)]) for _ in range(40)]
    point = lesion_threshold(matches)
    assert point is not None
    assert 0.45 < point < 0.55, "in the middle: neither kind is near"


def test_few_false_lesions_weigh_more_than_a_better_f1():
    matches = [match_lesions([_lesion(0)], [_lesion(0, 0.9 if i < 20 else 0.4), _lesion(60, 0.5)]) for i in range(40)]
    point = lesion_threshold(matches)
    assert point is not None
    assert point > 0.5


def test_lesions_seen_too_seldom_have_no_point():
    assert lesion_threshold([match_lesions([_lesion(0)], [_lesion(0, 0.9)])] * 3) is None
    assert lesion_threshold([match_lesions([], [_lesion(0, 0.9)])] * 30) is None
    several = [match_lesions([_lesion(60 * i) for i in range(6)], [_lesion(0, 0.9)])]
    assert lesion_threshold(several * 4) is None, "twenty-four lesions, but of four studies"
    assert lesion_threshold(several * 5) is not None


NAMES = ("nodule", "liver_lesion", "pleural_effusion", "normal")
COUNTED = ("nodule", "liver_lesion")


class _Planted:
    """Stands for a model that says of each slab what it carries as pixels."""

    fine_stride = (2, 2, 2)

    def __init__(self):
        self.volume_heads = VolumeHeads(
            num_fine=4, num_coarse=4, observations=NAMES, lesions=COUNTED, masks=(), places=(), dropout=0.0
        )
        for parameter in self.volume_heads.parameters():
            parameter.requires_grad_(False).zero_()
        self.parameters = self.volume_heads.parameters

    def encode(self, batch, *, seek_lesions):
        assert seek_lesions
        empty = torch.zeros(1, 0)
        position = torch.zeros(1, 19, 20, 8, 8)
        logits = tuple(
            VolumeLogits(
                heat_NLDHW=volume.pixels_CDHW[None, :, ::2, ::2, ::2], mask_NMDHW=empty,
                hidden_NFDHW=torch.zeros(1, 32, 20, 8, 8), position_NQDHW=position,
                present_NO=empty, sides_NO2=empty, severity_NOG=empty,
            )
            for volume in batch.volumes
        )  # fmt: skip
        found = tuple((tuple(peaks(self.volume_heads, one, 0, self.fine_stride)),) for one in logits)
        return SimpleNamespace(heads=SimpleNamespace(present_BO=batch.present), peaks=found)


def _study(region, slabs, *, present, states):
    """A study of slabs of 20 x 8 x 8 patches of 4 mm, (feet mm, {(lesion, patch): P}); what it shows is 30 mm up."""
    known = [(30.0, 18.0, 10.0)]
    volumes = []
    for feet, planted in slabs:
        heat = torch.full((2, 20, 8, 8), -9.0)
        for (row, patch), p in planted.items():
            heat[(row, *patch)] = torch.logit(torch.tensor(p))
        affine = torch.tensor([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [2.0, 0, 0, feet], [0, 0, 0, 1]], dtype=torch.float64)
        row = COUNTED.index("nodule" if region == "chest_ct" else "liver_lesion")
        centers = [[(z - feet) / 2, y / 2, x / 2, 8.0, row, -1] for z, y, x in known]
        lesions = torch.tensor(centers if states[row] == 1 else []).reshape(-1, 6)
        pixels = heat.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
        volumes.append(VolumeInputs(pixels_CDHW=pixels, affine_44=affine, voxel_mm=2.0, lesions_X6=lesions))
    return region, volumes, present, states


def _batch(studies):
    batch = SimpleNamespace(
        regions=tuple(study[0] for study in studies),
        volumes=tuple(volume for study in studies for volume in study[1]),
        volume_study_N=torch.tensor([i for i, study in enumerate(studies) for _ in study[1]], dtype=torch.long),
        present=torch.logit(torch.tensor([study[2] for study in studies]), eps=1e-4),
        states_BO=torch.tensor([study[3] for study in studies]),
    )
    batch.to = lambda device: batch
    return batch


HERE = (7, 4, 2)  # voxels 14.5, 8.5 and 4.5 of a slab whose feet are at 0: the nodule is at (30, 18, 10) mm
ABOVE = (2, 4, 2)  # the same place where the feet are at 20


def test_a_study_of_several_slabs_counts_once_and_each_kind_has_its_own_points():
    shown = _study(
        "chest_ct", [(0.0, {(0, HERE): 0.6}), (20.0, {(0, ABOVE): 0.5})],
        present=[0.9, 0.5, 0.8, 0.1], states=[1.0, float("nan"), 1.0, 0.0],
    )  # fmt: skip
    clear = _study(
        "chest_ct", [(0.0, {}), (20.0, {(0, (15, 1, 1)): 0.4})],
        present=[0.1, 0.5, 0.2, 0.9], states=[0.0, float("nan"), 0.0, 1.0],
    )  # fmt: skip
    picture = ("chest_radiograph", [], [0.5, 0.5, 0.3, 0.1], [float("nan"), float("nan"), 1.0, 0.0])
    plain = ("chest_radiograph", [], [0.5, 0.5, 0.1, 0.9], [float("nan"), float("nan"), 0.0, 1.0])
    batches = [_batch([shown, clear]) for _ in range(12)] + [_batch([picture, plain]) for _ in range(12)]
    processor = SimpleNamespace(config=SimpleNamespace(lesions=COUNTED, observations=NAMES, places=()))

    def facts(*, by_all):
        measured = np.array([by_all] * 24 + [True] * 24)
        return operating_points(
            _Planted(), processor, batches, measured=measured, scope=Scope(modalities=("CT",)), by_all=by_all
        )

    found = facts(by_all=True)
    # Half of the studies hold a false lesion at 0.4, which is too many; the pair at 0.6 and 0.5 is one lesion.
    assert list(found.volumes.lesion_points) == ["nodule"] and 0.4 < found.volumes.lesion_points["nodule"] <= 0.6
    assert found.volumes.sensitivity["nodule"].positives == 12 and found.volumes.sensitivity["nodule"].value == 1
    # Fluid is stated from another P on in volumes than in pictures.
    assert 0.2 < found.volumes.operating_points["pleural_effusion"] <= 0.8
    assert 0.1 < found.operating_points["pleural_effusion"] <= 0.3
    assert "nodule" not in found.volumes.operating_points, "it is stated lesion by lesion"
    flattering = facts(by_all=False).volumes
    assert flattering.lesion_points == found.volumes.lesion_points and not flattering.sensitivity
