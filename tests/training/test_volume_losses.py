from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmfm.batch import VolumeInputs
from mmfm.models.volume_heads import LesionDetails, VolumeLogits
from mmfm.training.volume_losses import LEAST_PATCHES, LEAST_SIGMA, volume_losses

STRIDE = (2, 2, 2)
GRID = (6, 5, 8)
LESIONS = np.array([[3.0, 4.0, 11.5, 9.0, 1, 2], [8.25, 2.0, 3.0, 24.0, 0, -1]])
"""Slice, row and column (voxels), diameter (mm), map, place; of a slab of 2 mm."""


def _volume(lesions=LESIONS, mask=None):
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    return VolumeInputs(
        pixels_CDHW=torch.zeros(1, *(2 * n for n in GRID)),
        affine_44=affine,
        voxel_mm=2.0,
        lesions_X6=None if lesions is None else torch.tensor(lesions, dtype=torch.float32).reshape(-1, 6),
        mask_DHW=mask,
    )


def _mask():
    mask = torch.zeros(tuple(2 * n for n in GRID), dtype=torch.uint8)
    mask[2:6, 2:5, 9:14] = 1
    mask[8:10, 6:8, 0:4] = 3
    return mask


class _Told:
    """Stands for a model that says these details wherever it is asked."""

    fine_stride = STRIDE

    def __init__(self, log_mm, offset, place):
        self.said = LesionDetails(log_mm_X=log_mm, offset_X3=offset, place_XP=place)
        self.volume_heads = SimpleNamespace(details=self.details)

    def details(self, logits, slab, patches_X3, lesions_X):
        self.asked, self.asked_of = patches_X3, lesions_X
        return self.said


def _logits(heat, mask):
    empty = torch.zeros(1, 0)
    return VolumeLogits(
        heat_NLDHW=heat[None], mask_NMDHW=mask[None], hidden_NFDHW=empty, position_NQDHW=empty, present_NO=empty,
        sides_NO2=empty, severity_NOG=empty,
    )  # fmt: skip


def _centers(lesions=LESIONS):
    return (lesions[:, :3] + 0.5) / 2 - 0.5


def _share(mask):
    blocks = mask.numpy().reshape(GRID[0], 2, GRID[1], 2, GRID[2], 2)
    return np.stack([(blocks == 1 + row).mean((1, 3, 5)) for row in range(3)])


def _perfect():
    """Returns the model and logits that say what ``LESIONS`` and ``_mask()`` hold."""
    centers = _centers()
    nearest = centers.round().astype(int)
    heat = torch.full((2, *GRID), -12.0)
    for patch, row in zip(nearest, LESIONS[:, 4].astype(int), strict=True):
        heat[(row, *patch)] = 12.0
    share = torch.from_numpy(_share(_mask())).float()
    place = torch.zeros(2, 3)
    place[0, 2] = 30.0
    told = _Told(torch.tensor(LESIONS[:, 3]).log().float(), torch.tensor(centers - nearest).float(), place)
    return told, _logits(heat, torch.logit(share, eps=1e-6))


def _sum(told, logits, volume):
    return {k: float(v) for k, v in volume_losses(told, logits, volume, maps=(0, 1), masks=(0, 1, 2)).items()}


def test_what_is_perfect_costs_nearly_nothing_and_what_is_mirrored_does():
    told, logits = _perfect()
    good = _sum(told, logits, _volume(mask=_mask()))
    assert good["heat"] < 1e-3 and good["size"] < 1e-6 and good["offset"] < 1e-6 and good["place"] < 1e-6
    # Half-filled patches cost the entropy of their share, whatever is said of them.
    share = _share(_mask())
    inner = share[(share > 0) & (share < 1)]
    entropy = -(inner * np.log(inner) + (1 - inner) * np.log(1 - inner)).sum() / share.size
    assert good["mask"] < entropy + 0.2
    flipped = replace(logits, heat_NLDHW=logits.heat_NLDHW.flip(4), mask_NMDHW=logits.mask_NMDHW.flip(4))
    bad = _sum(told, flipped, _volume(mask=_mask()))
    assert bad["heat"] > 10 and bad["mask"] > good["mask"] + 0.5


def test_details_are_read_at_the_patch_that_the_lesion_is_centred_on():
    told, logits = _perfect()
    _sum(told, logits, _volume())
    assert told.asked.tolist() == _centers().round().astype(int).tolist() == [[1, 2, 6], [4, 1, 1]]
    assert told.asked_of.tolist() == [1, 0]


def test_each_part_is_its_formula():
    rng = np.random.default_rng(0)
    heat, mask = rng.normal(size=(2, *GRID)), rng.normal(size=(3, *GRID))
    log_mm, offset, place = rng.normal(2, 1, 2), rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    told = _Told(*(torch.tensor(a).float() for a in (log_mm, offset, place)))
    found = _sum(told, _logits(torch.tensor(heat).float(), torch.tensor(mask).float()), _volume(mask=_mask()))

    centers = _centers()
    nearest = centers.round()
    target = np.zeros((2, *GRID))
    index = np.stack(np.meshgrid(*map(np.arange, GRID), indexing="ij"), -1)
    for (_, _, _, diameter, row, _), at in zip(LESIONS, nearest, strict=True):
        sigma = max(LEAST_SIGMA, diameter / 4 / 6)  # patches of 4 mm
        bell = np.exp(-((index - at) ** 2).sum(-1) / (2 * sigma**2))
        target[int(row)] = np.maximum(target[int(row)], bell)
    p = 1 / (1 + np.exp(-heat))
    focal = np.where(target == 1, -((1 - p) ** 2) * np.log(p), -((1 - target) ** 4) * p**2 * np.log(1 - p)).sum() / 2
    assert found["heat"] == pytest.approx(focal, rel=1e-4)
    apart = np.abs(log_mm - np.log(LESIONS[:, 3]))
    assert found["size"] == pytest.approx(np.where(apart < 0.1, apart**2 / 0.2, apart - 0.05).mean(), rel=1e-4)
    assert found["offset"] == pytest.approx(np.abs(offset - (centers - nearest)).mean(), rel=1e-4)
    assert found["place"] == pytest.approx(np.log(np.exp(place[0]).sum()) - place[0, 2], rel=1e-4)
    share, q = _share(_mask()), 1 / (1 + np.exp(-mask))
    entropy = -(share * np.log(q) + (1 - share) * np.log(1 - q)).sum() / max(share.sum(), LEAST_PATCHES)
    shown = [0, 2]
    overlap = [(2 * (q[m] * share[m]).sum() + 1) / (q[m].sum() + share[m].sum() + 1) for m in shown]
    assert found["mask"] == pytest.approx(entropy + 1 - np.mean(overlap), rel=1e-4)


def test_what_nobody_said_teaches_nothing():
    told, logits = _perfect()
    wrong = replace(logits, heat_NLDHW=-logits.heat_NLDHW, mask_NMDHW=-logits.mask_NMDHW)
    assert set(_sum(told, wrong, _volume(lesions=None)).values()) == {0.0}
    placeless = LESIONS.copy()
    placeless[:, 5] = -1
    assert _sum(told, wrong, _volume(placeless))["place"] == 0 and _sum(told, wrong, _volume())["heat"] > 10
    outside = volume_losses(told, wrong, _volume(LESIONS[:1], _mask()), maps=(), masks=())
    assert all(float(part) == 0 for part in outside.values()), "maps that another region has"


def test_maps_of_other_regions_get_no_gradient():
    told, logits = _perfect()
    said = told.said
    one = _Told(said.log_mm_X[1:], said.offset_X3[1:], said.place_XP[1:])
    heat = logits.heat_NLDHW.clone().requires_grad_()
    mask = logits.mask_NMDHW.clone().requires_grad_()
    given = replace(logits, heat_NLDHW=heat, mask_NMDHW=mask)
    parts = volume_losses(one, given, _volume(LESIONS[1:], _mask()), maps=(0,), masks=(2,))
    sum(parts.values()).backward()
    assert heat.grad[0, 0].any() and not heat.grad[0, 1].any()
    assert mask.grad[0, 2].any() and not mask.grad[0, :2].any()


def test_without_any_lesion_the_maps_learn_to_be_empty():
    told, logits = _perfect()
    empty = _volume(np.zeros((0, 6)))
    assert _sum(told, logits, empty)["heat"] > 5
    nothing = replace(logits, heat_NLDHW=torch.full_like(logits.heat_NLDHW, -12.0))
    parts = _sum(told, nothing, empty)
    assert parts["heat"] < 1e-3 and parts["size"] == parts["offset"] == parts["place"] == 0


def test_a_lesion_just_beyond_a_part_is_no_false_one_in_it():
    torch.manual_seed(0)
    heat, mask = torch.randn(2, *GRID), torch.zeros(3, *GRID)
    told = _Told(torch.zeros(0), torch.zeros(0, 3), torch.zeros(0, 3))
    beyond = np.array([[3.0, 4.0, -1.5, 48.0, 0, -1]])
    here = _sum(told, _logits(heat, mask), _volume(lesions=beyond))
    assert here["size"] == here["offset"] == here["place"] == 0
    # The whole reaches further to the right by what the part lacks; its centre costs as much as it does there.
    nothing = _sum(told, _logits(heat, mask), _volume(lesions=LESIONS[:0]))
    p = heat[0].sigmoid()
    d, h, w = torch.meshgrid(*(torch.arange(n) for n in GRID), indexing="ij")
    bell = torch.exp(-((d - 1) ** 2 + (h - 2) ** 2 + (w + 1) ** 2) / (2 * (48 / 4 / 6) ** 2))
    spared = ((1 - (1 - bell) ** 4) * p**2 * torch.nn.functional.softplus(heat[0])).sum()
    assert nothing["heat"] - here["heat"] == pytest.approx(float(spared), rel=1e-3) and spared > 1
