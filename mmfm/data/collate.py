"""Inputs of several studies to one Batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmfm.batch import IGNORE_INDEX, Batch, Inputs


def collate(inputs: Sequence[Inputs], *, pad_token_id: int) -> Batch:
    """Returns ``inputs`` padded to common shapes: pictures and text at the end, with masks.

    What a study becomes does not depend on its neighbours in the batch: padding is masked everywhere.
    """
    S = max(len(i.views_S) for i in inputs)
    T = max(len(i.input_ids_T) for i in inputs)
    pixels = inputs[0].pixels_SCHW.new_zeros(len(inputs), S, *inputs[0].pixels_SCHW.shape[1:])
    for row, item in enumerate(inputs):
        pixels[row, : len(item.pixels_SCHW)] = item.pixels_SCHW
    return Batch(
        study_uids=tuple(i.study_uid for i in inputs),
        regions=tuple(i.region for i in inputs),
        pixels_BSCHW=pixels,
        image_mask_BS=torch.stack([torch.arange(S) < len(i.views_S) for i in inputs]),
        views_BS=_pad([i.views_S for i in inputs], S, -1),
        modalities_BS=_pad([i.modalities_S for i in inputs], S, -1),
        input_ids_BT=_pad([i.input_ids_T for i in inputs], T, pad_token_id),
        attention_mask_BT=torch.stack([torch.arange(T) < len(i.input_ids_T) for i in inputs]),
        labels_BT=_pad([i.labels_T for i in inputs], T, IGNORE_INDEX),
        states_BO=torch.stack([i.states_O for i in inputs]),
        sides_BO2=torch.stack([i.sides_O2 for i in inputs]),
        severity_BO=torch.stack([i.severity_O for i in inputs]),
        codes_BK=torch.stack([i.codes_K for i in inputs]),
        volumes=tuple(volume for i in inputs for volume in i.volumes),
        volume_study_N=torch.tensor([row for row, i in enumerate(inputs) for _ in i.volumes], dtype=torch.long),
    )


def _pad(rows: Sequence[Tensor], length: int, value: int) -> Tensor:
    padded = torch.full((len(rows), length), value, dtype=torch.long)
    for row, item in enumerate(rows):
        padded[row, : len(item)] = item
    return padded
