"""Losses of what a volume shows where: heat maps of lesion centres, their size, offset and place, and masks.

The heat maps follow CenterNet (Zhou et al., Objects as Points, 2019) with the focal loss of CornerNet (Law and Deng,
2018); masks are learned by cross-entropy and Dice together (Isensee et al., nnU-Net, 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfm.batch import VolumeInputs
from mmfm.models.volume_heads import VolumeLogits

LEAST_SIGMA = 0.7
"""Of the bell around a lesion's centre, in patches; larger lesions have a wider one, a sixth of their diameter."""


def volume_losses(logits: VolumeLogits, volume: VolumeInputs, *, stride: tuple[int, int, int]) -> dict[str, Tensor]:
    """Returns each part of the loss of one slab; 0 where nothing teaches it.

    Args:
        logits: of the heads for this slab alone.
        volume: with the lesions and masks that are known.
        stride: voxels per patch.
    """
    zero = logits.heat_NLDHW.new_zeros(())
    parts = dict.fromkeys(("heat", "size", "offset", "place", "mask"), zero)
    if volume.lesions_X6 is not None:
        patch_mm = stride[0] * float(volume.affine_44[:3, 0].norm())
        parts |= _lesion_losses(logits, volume.lesions_X6, stride, patch_mm)
    if volume.mask_DHW is not None and logits.mask_NMDHW.shape[1]:
        parts["mask"] = _mask_loss(logits.mask_NMDHW[0], volume.mask_DHW, stride)
    return parts


def _lesion_losses(
    logits: VolumeLogits, lesions_X6: Tensor, stride: tuple[int, int, int], patch_mm: float
) -> dict[str, Tensor]:
    heat_LDHW = logits.heat_NLDHW[0]
    grid = torch.tensor(heat_LDHW.shape[1:], device=lesions_X6.device)
    steps = torch.tensor(stride, device=lesions_X6.device)
    # Patch i covers voxels [i * stride, (i + 1) * stride).
    centers_X3 = (lesions_X6[:, :3] + 0.5) / steps - 0.5
    nearest_X3 = centers_X3.round().long().clamp(min=0).minimum(grid - 1)
    maps, diameters = lesions_X6[:, 4].long(), lesions_X6[:, 3]
    target = torch.zeros_like(heat_LDHW)
    axes = [torch.arange(n, device=heat_LDHW.device) for n in heat_LDHW.shape[1:]]
    for center, row, diameter in zip(nearest_X3, maps, diameters, strict=True):
        sigma = max(LEAST_SIGMA, float(diameter) / patch_mm / 6)
        d, h, w = (torch.exp(-((axis - c) ** 2) / (2 * sigma**2)) for axis, c in zip(axes, center, strict=True))
        target[row] = torch.maximum(target[row], d[:, None, None] * h[None, :, None] * w[None, None, :])
    at = (maps, *nearest_X3.T)
    target[at] = 1.0
    p, log_p, log_not = heat_LDHW.sigmoid(), F.logsigmoid(heat_LDHW), F.logsigmoid(-heat_LDHW)
    is_center = target == 1
    positive = (-((1 - p) ** 2) * log_p)[is_center].sum()
    negative = (-((1 - target) ** 4) * p**2 * log_not)[~is_center].sum()
    parts = {"heat": (positive + negative) / max(1, len(lesions_X6))}
    if len(lesions_X6):
        places = tuple(nearest_X3.T)
        parts["size"] = F.smooth_l1_loss(logits.log_mm_NDHW[0][places], diameters.log(), beta=0.1)
        parts["offset"] = F.l1_loss(logits.offset_N3DHW[0][(slice(None), *places)].T, centers_X3 - nearest_X3)
        known = lesions_X6[:, 5] >= 0
        if known.any():
            place_XP = logits.place_NPDHW[0][(slice(None), *places)].T
            parts["place"] = F.cross_entropy(place_XP[known], lesions_X6[known, 5].long())
    return parts


def _mask_loss(mask_MDHW: Tensor, mask_DHW: Tensor, stride: tuple[int, int, int]) -> Tensor:
    rows = torch.arange(1, len(mask_MDHW) + 1, device=mask_DHW.device)
    one_hot = (mask_DHW == rows[:, None, None, None]).float()
    share = F.avg_pool3d(one_hot[None], stride, ceil_mode=True, count_include_pad=False)[0]
    cross_entropy = F.binary_cross_entropy_with_logits(mask_MDHW, share)
    shown = share.sum((1, 2, 3)) > 0
    if not shown.any():
        return cross_entropy
    p, share = mask_MDHW[shown].sigmoid(), share[shown]
    dice = 1 - (2 * (p * share).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + share.sum((1, 2, 3)) + 1)
    return cross_entropy + dice.mean()
