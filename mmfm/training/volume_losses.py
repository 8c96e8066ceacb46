"""Losses of what a volume shows where: heat maps of lesion centres, their size, offset and place, and masks.

The heat maps follow CenterNet (Zhou et al., Objects as Points, 2019) with the focal loss of CornerNet (Law and Deng,
2018); masks are learned by cross-entropy and Dice together (Isensee et al., nnU-Net, 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfm.batch import VolumeInputs
from mmfm.models.vlm import VLM
from mmfm.models.volume_heads import VolumeLogits

LEAST_SIGMA = 0.7
"""Of the bell around a lesion's centre, in patches; larger lesions have a wider one, a sixth of their diameter."""
LEAST_PATCHES = 1000.0
"""By which the cross-entropy of masks is divided where they are smaller or empty."""


def volume_losses(
    model: VLM, logits: VolumeLogits, volume: VolumeInputs, *, maps: Sequence[int], masks: Sequence[int]
) -> dict[str, Tensor]:
    """Returns each part of the loss of one slab; 0 where nothing teaches it.

    Args:
        model: that gave the logits.
        logits: of this slab alone.
        volume: with the lesions and masks that are known.
        maps: rows of the heat maps that its region has; nothing is learned of the others.
        masks: rows of the masks that it has.
    """
    zero = logits.heat_NLDHW.new_zeros(())
    parts = dict.fromkeys(("heat", "size", "offset", "place", "mask"), zero)
    if volume.lesions_X6 is not None and maps:
        parts |= _lesion_losses(model, logits, volume, list(maps))
    if volume.mask_DHW is not None and masks:
        parts["mask"] = _mask_loss(logits.mask_NMDHW[0, list(masks)], volume.mask_DHW, masks, model.fine_stride)
    return parts


def _lesion_losses(model: VLM, logits: VolumeLogits, volume: VolumeInputs, maps: list[int]) -> dict[str, Tensor]:
    lesions_X6, stride = volume.lesions_X6, model.fine_stride
    assert lesions_X6 is not None, "the caller asks"
    heat_LDHW = logits.heat_NLDHW[0, maps]
    grid = torch.tensor(heat_LDHW.shape[1:], device=heat_LDHW.device)
    # Patch i covers voxels [i * stride, (i + 1) * stride).
    centers_X3 = (lesions_X6[:, :3] + 0.5) / lesions_X6.new_tensor(stride) - 0.5
    nearest_X3 = centers_X3.round().long()
    rows = [maps.index(int(row)) for row in lesions_X6[:, 4]]
    # The bell of a lesion that is centred just beyond a part reaches into it, as it does in the whole.
    target = _bells(heat_LDHW.shape, nearest_X3, rows, lesions_X6[:, 3] / (stride[0] * volume.voxel_mm))
    inside = ((nearest_X3 >= 0) & (nearest_X3 < grid)).all(1)
    lesions_X6, centers_X3, nearest_X3 = lesions_X6[inside], centers_X3[inside], nearest_X3[inside]
    p = heat_LDHW.sigmoid()
    # Bells are 1 at centres alone, where the first part is what counts; the second fades towards them.
    positive = torch.where(target == 1, (1 - p) ** 2 * F.softplus(-heat_LDHW), 0).sum()
    negative = ((1 - target) ** 4 * p**2 * F.softplus(heat_LDHW)).sum()
    parts = {"heat": (positive + negative) / max(1, len(lesions_X6))}
    if len(lesions_X6):
        details = model.volume_heads.details(logits, 0, nearest_X3, lesions_X6[:, 4].long())
        parts["size"] = F.smooth_l1_loss(details.log_mm_X, lesions_X6[:, 3].log(), beta=0.1)
        parts["offset"] = F.l1_loss(details.offset_X3, centers_X3 - nearest_X3)
        known = lesions_X6[:, 5] >= 0
        if known.any():
            parts["place"] = F.cross_entropy(details.place_XP[known], lesions_X6[known, 5].long())
    return parts


def _bells(shape: torch.Size, nearest_X3: Tensor, rows: Sequence[int], diameters_X: Tensor) -> Tensor:
    """Returns (L, D, H, W): a bell of height 1 around each lesion, the higher one where two overlap."""
    target = torch.zeros(shape, device=nearest_X3.device)
    axes = [torch.arange(n, device=nearest_X3.device) for n in shape[1:]]
    for center, row, diameter in zip(nearest_X3, rows, diameters_X.tolist(), strict=True):
        sigma = max(LEAST_SIGMA, diameter / 6)
        d, h, w = (torch.exp(-((axis - c) ** 2) / (2 * sigma**2)) for axis, c in zip(axes, center, strict=True))
        target[row] = torch.maximum(target[row], d[:, None, None] * h[None, :, None] * w[None, None, :])
    return target


def _mask_loss(mask_MDHW: Tensor, mask_DHW: Tensor, masks: Sequence[int], stride: tuple[int, int, int]) -> Tensor:
    numbers = mask_DHW.new_tensor([1 + row for row in masks])
    one_hot = (mask_DHW == numbers[:, None, None, None]).float()
    share = F.avg_pool3d(one_hot[None], stride, ceil_mode=True, count_include_pad=False)[0]
    # Divided as the heat maps are, by what there is to find: a mean over mostly empty patches would hardly be heard.
    found = share.sum().clamp(min=LEAST_PATCHES)
    cross_entropy = F.binary_cross_entropy_with_logits(mask_MDHW, share, reduction="sum") / found
    shown = share.sum((1, 2, 3)) > 0
    if not shown.any():
        return cross_entropy
    p, share = mask_MDHW[shown].sigmoid(), share[shown]
    dice = 1 - (2 * (p * share).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + share.sum((1, 2, 3)) + 1)
    return cross_entropy + dice.mean()
