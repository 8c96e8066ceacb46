"""Volume heads: where the lesions of a volume lie, how large they are, what fluid or air it shows, and what it means.

Lesions that are counted are found as peaks of one heat map an observation, with size, offset and place read at the
peak (CenterNet: Zhou et al., Objects as Points, 2019). What has an extent but no count, such as fluid, is a mask. Both
are evidence for the finding logits of the whole study, which see the pooled features too, so that observations that
nobody outlined are learned from labels alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfm.models.encoder3d import Features3D
from mmfm.models.heads import SEVERITIES
from mmfm.report import Place

CONTEXT, HIDDEN, DETAIL = 16, 32, 128
"""Channels of the coarse features that each patch sees, between features and what is read from them everywhere, and
inside what is read at peaks alone, where width costs nothing."""
LEAST_PEAK = 1 / 16
"""P below which a peak is not looked at."""
SPREAD = 3.0
"""By which coordinates are multiplied beside the context where a place is named, so that they are heard as well."""
RARE = -4.6
"""First bias of maps that are nearly empty, P = 0.01 (Lin et al., Focal Loss for Dense Object Detection, 2017)."""


@dataclass(frozen=True, kw_only=True)
class VolumeLogits:
    """What the heads say of the slabs of a batch, one slab after the other."""

    heat_NLDHW: Tensor
    """Logit that a lesion of each countable observation is centred on a patch."""
    mask_NMDHW: Tensor
    """Logit that a patch lies in what each observation with an extent shows."""
    hidden_NFDHW: Tensor
    """What ``VolumeHeads.details`` reads the size and centre of a lesion from."""
    position_NQDHW: Tensor
    """What it reads the place from: coarse features, then where the patch lies in the slab."""
    present_NO: Tensor
    sides_NO2: Tensor
    """(patient's left, patient's right)."""
    severity_NOG: Tensor
    """Logits of the grades."""


@dataclass(frozen=True, kw_only=True)
class LesionDetails:
    """What is read at the patches that lesions are centred on."""

    log_mm_X: Tensor
    """Natural logarithm of the longest diameter in mm."""
    offset_X3: Tensor
    """From the patch's centre to the lesion's, in patches."""
    place_XP: Tensor
    """Logits of the places; -inf where the observation cannot be."""


class VolumeHeads(nn.Module):
    """Reads one slab at a time; the grids of its features may differ between slabs.

    Slabs run to head, back and left (see ``recipes``), so that the patient's left is the higher half of the columns.
    One set of weights reads the side on both halves. What they read is not blind to the side, since each patch knows
    where it lies: that a mirrored patient mirrors the side is learned from mirror twins.
    """

    def __init__(
        self,
        *,
        num_fine: int,
        num_coarse: int,
        observations: tuple[str, ...],
        lesions: tuple[str, ...],
        masks: tuple[str, ...],
        places: tuple[Place, ...],
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_lesions, self.num_masks = len(lesions), len(masks)
        self.context = nn.Conv3d(num_coarse, CONTEXT, 1)
        # Patch by patch: the features have seen their neighbourhood, and wider layers here would cost what they did.
        self.mix = nn.Sequential(nn.Conv3d(num_fine + CONTEXT + 3, HIDDEN, 1), nn.ReLU())
        self.dense = nn.Conv3d(HIDDEN, self.num_lesions + self.num_masks, 1)
        last = nn.Linear(DETAIL, 4)
        self.detail = nn.Sequential(nn.Linear(HIDDEN, DETAIL), nn.ReLU(), last)
        # Places are told by where a patch lies among the organs, not by what it shows: the few channels that heat maps
        # need do not carry that far.
        self.place = nn.Sequential(nn.Linear(CONTEXT + 3, DETAIL), nn.ReLU(), nn.Linear(DETAIL, len(places)))
        with torch.no_grad():
            assert self.dense.bias is not None
            self.dense.bias.fill_(RARE)
            last.bias[0] = math.log(10.0)
        count = len(observations)
        self.dropout = nn.Dropout(dropout)
        self.present = nn.Linear(2 * num_coarse, count)
        self.side = nn.Linear(4 * num_coarse, count)
        self.severity = nn.Linear(2 * num_coarse + self.num_masks, count * SEVERITIES)
        self.evidence_weight_O = nn.Parameter(torch.ones(count))
        # Which row of (heat maps, masks) is evidence for each observation; -1 has none.
        with_evidence = (*lesions, *masks)
        rows = [with_evidence.index(name) if name in with_evidence else -1 for name in observations]
        self.evidence_O: Tensor
        self.register_buffer("evidence_O", torch.tensor(rows), persistent=False)
        possible = [[name in place.observations for place in places] for name in lesions]
        self.possible_LP: Tensor
        self.register_buffer("possible_LP", torch.tensor(possible, dtype=torch.bool), persistent=False)

    def forward(
        self, features: Features3D, *, corner: Sequence[float] = (0, 0, 0), whole: Sequence[float] | None = None
    ) -> VolumeLogits:
        """Returns the logits of slabs with features of one shape.

        Args:
            features: of the slabs, or of the same part of each.
            corner: where in its slab the part begins, in fine patches.
            whole: fine patches of the whole slab along each axis; those given where ``None``.
        """
        fine, coarse = features.fine_NEDHW, features.coarse_NEDHW
        context = F.interpolate(self.context(coarse), fine.shape[2:], mode="trilinear", align_corners=False)
        position = torch.cat([context, _coordinates(fine, corner, whole or fine.shape[2:])], dim=1)
        mixed = self.mix(torch.cat([fine, position], dim=1))
        dense = self.dense(mixed).float()
        heat, mask = dense.split([self.num_lesions, self.num_masks], dim=1)
        coarse = coarse.float()
        pooled_NE = torch.cat([coarse.mean((2, 3, 4)), coarse.amax((2, 3, 4))], dim=1)
        halves = [_halves(part) for part in (heat, mask)]
        right, left = ([h[side] for h in halves] for side in (0, 1))
        evidence = {name: _evidence(*parts) for name, parts in (("all", (heat, mask)), ("r", right), ("l", left))}
        pooled_right, pooled_left = (
            torch.cat([half.mean((2, 3, 4)), half.amax((2, 3, 4))], dim=1) for half in _halves(coarse)
        )
        sides = [
            self.side(self.dropout(torch.cat([own, other], dim=1))) + self._weighted(evidence[name])
            for own, other, name in ((pooled_left, pooled_right, "l"), (pooled_right, pooled_left, "r"))
        ]
        mask_share = evidence["all"][:, self.num_lesions :]
        severity = self.severity(torch.cat([self.dropout(pooled_NE), mask_share], dim=1))
        return VolumeLogits(
            heat_NLDHW=heat,
            mask_NMDHW=mask,
            hidden_NFDHW=mixed,
            position_NQDHW=position,
            present_NO=self.present(self.dropout(pooled_NE)) + self._weighted(evidence["all"]),
            sides_NO2=torch.stack(sides, dim=-1),
            severity_NOG=severity.unflatten(1, (-1, SEVERITIES)),
        )

    def details(self, logits: VolumeLogits, slab: int, patches_X3: Tensor, lesions_X: Tensor) -> LesionDetails:
        """Returns what is read at patches (slice, row, column) of one slab, for the heat maps ``lesions_X`` (int64)."""
        at_patches = (slice(None), *patches_X3.T)
        values_X4 = self.detail(logits.hidden_NFDHW[slab][at_patches].T).float()
        context_XC, coordinates_X3 = logits.position_NQDHW[slab][at_patches].T.float().split([CONTEXT, 3], dim=1)
        place_XP = self.place(torch.cat([F.layer_norm(context_XC, (CONTEXT,)), SPREAD * coordinates_X3], dim=1)).float()
        return LesionDetails(
            log_mm_X=values_X4[:, 0],
            offset_X3=values_X4[:, 1:],
            place_XP=place_XP.masked_fill(~self.possible_LP[lesions_X], -math.inf),
        )

    def _weighted(self, evidence: Tensor) -> Tensor:
        """Gives each observation its own evidence, times its weight; 0 where it has none."""
        none = evidence.new_zeros(len(evidence), 1)
        return torch.cat([evidence, none], dim=1)[:, self.evidence_O] * self.evidence_weight_O


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One of the ways in which a slab is read where lesions are sought."""

    voxels: tuple[int, int, int]
    """By how many it is shifted along slices, rows and columns."""
    between: bool
    """Of the grid between its voxels, half a voxel further along each axis."""

    @property
    def shift(self) -> tuple[float, float, float]:
        """Voxels of the slab by which what is read begins after it."""
        d, h, w = (voxels + 0.5 * self.between for voxels in self.voxels)
        return d, h, w


def readings(stride: Sequence[int]) -> tuple[Reading, ...]:
    """Returns the ways in which a slab is read where lesions are sought; the first is as it lies.

    Test-time augmentation: the P of a lesion hangs on where it lies between patches, and where in a voxel, which no two
    series of a patient share. These are all ways to go half a patch along some axes; those along one axis or all three
    are of the grid between the voxels. An axis whose patches are single voxels has no halves.

    Args:
        stride: voxels per patch.
    """
    ways = itertools.product(*(sorted({0, step // 2}) for step in stride))
    return tuple(Reading(voxels=(d, h, w), between=sum(map(bool, (d, h, w))) % 2 == 1) for d, h, w in ways)


def shifted(pixels_CDHW: Tensor, voxels: Sequence[int]) -> Tensor:
    """Returns a slab that begins as many voxels further along slices, rows and columns; its last ones are repeated."""
    d, h, w = voxels
    padding = (0, w, 0, h, 0, d)
    return F.pad(pixels_CDHW[None, :, d:, h:, w:], padding, mode="replicate")[0] if any(voxels) else pixels_CDHW


def _evidence(heat_NLDHW: Tensor, mask_NMDHW: Tensor) -> Tensor:
    """Returns (N, L + M): the highest heat, and the logarithm of the masked patches (1 patch is 0).

    No gradient passes: the maps are learned from where things are, not from what makes a label come true.
    """
    peak_NL = heat_NLDHW.detach().amax((2, 3, 4))
    patches_NM = mask_NMDHW.detach().sigmoid().sum((2, 3, 4))
    return torch.cat([peak_NL, torch.log(patches_NM.clamp(min=1e-2))], dim=1)


def _halves(features: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the patient's right and left half; the middle one of three columns or more is in neither."""
    half = max(1, features.shape[-1] // 2)
    return features[..., :half], features[..., -half:]


def _coordinates(features: Tensor, corner: Sequence[float], whole: Sequence[float]) -> Tensor:
    """Returns (N, 3, D, H, W): where each patch lies in the slab, -1 to 1, so that places can be told apart."""
    axes = [
        (2 * (first + torch.arange(n, device=features.device)) / max(1, math.ceil(size) - 1) - 1).to(features.dtype)
        for n, first, size in zip(features.shape[2:], corner, whole, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return grid.expand(len(features), -1, -1, -1, -1)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A lesion as the heads found it in one slab."""

    lesion: int
    """Row of the heat maps."""
    probability: float
    index: tuple[float, float, float]
    """(slice, row, column) of the slab's tensor, 0 at the centre of its first voxel."""
    diameter_mm: float
    place: int | None
    """The likeliest place; None where the observation has none."""


PeaksByReading = Sequence[Sequence[Peak]]
"""Of a slab."""


def peaks(
    heads: VolumeHeads,
    logits: VolumeLogits,
    slab: int,
    stride: tuple[int, int, int],
    *,
    shift: Sequence[float] = (0, 0, 0),
    most: int = 50,
) -> list[Peak]:
    """Returns the peaks of all heat maps of one slab, the highest of each map first.

    A peak is a patch of at least ``LEAST_PEAK`` that is the highest of the 27 around it. Neighbours that show one
    lesion twice are left to the caller, who knows their distance in mm and the overlap of the slabs.

    Args:
        heads: that gave the logits.
        logits: of the heads.
        slab: which of the batch.
        stride: voxels of the tensor per patch.
        shift: voxels along each axis by which what was read begins after the slab's tensor.
        most: peaks of one map.
    """
    found = []
    for lesion in range(heads.num_lesions):
        heat_DHW = logits.heat_NLDHW[slab, lesion].sigmoid()
        highest_DHW = F.max_pool3d(heat_DHW[None, None], 3, stride=1, padding=1)[0, 0]
        patches_X3 = ((heat_DHW == highest_DHW) & (heat_DHW >= LEAST_PEAK)).nonzero()
        order = heat_DHW[tuple(patches_X3.T)].argsort(descending=True)[:most]
        patches_X3 = patches_X3[order]
        details = heads.details(logits, slab, patches_X3, torch.full_like(patches_X3[:, 0], lesion))
        anywhere = bool(heads.possible_LP[lesion].any())
        likeliest = details.place_XP.argmax(1).tolist() if anywhere else [None] * len(patches_X3)
        indices_X3 = (patches_X3 + 0.5 + details.offset_X3.clamp(-1, 1)) * patches_X3.new_tensor(stride) - 0.5
        indices_X3 = indices_X3 + indices_X3.new_tensor(shift)
        found += [
            Peak(
                lesion=lesion,
                probability=probability,
                index=(index[0], index[1], index[2]),
                diameter_mm=diameter,
                place=place,
            )
            for probability, index, diameter, place in zip(
                heat_DHW[tuple(patches_X3.T)].tolist(),
                indices_X3.tolist(),
                details.log_mm_X.clamp(0, 6).exp().tolist(),
                likeliest,
                strict=True,
            )
        ]
    return found
