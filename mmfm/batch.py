"""Batch: what collate hands to a model, and the tensor-shape legend of the whole project.

Shape suffixes, written behind the names of tensors in model files:

====== ==========================================================
``B``  study (one row of the batch)
``S``  series (image) within the study, padded to the longest
``C``  channel
``D H W``  depth, height, width
``P``  patch of an image, before the connector
``V``  vision token, after the connector
``T``  text token
``E``  feature
``O``  observation (finding head)
``K``  code (auxiliary head)
``N``  picture or slab of all studies of the batch, one after the other
``L M`` countable observation (heat map), observation with an extent (mask)
====== ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a token that carries no loss (torch.nn.functional.cross_entropy's default ``ignore_index``)."""


@dataclass(frozen=True, kw_only=True)
class VolumeInputs:
    """One slab of a volume, and what is known of where things lie in it."""

    pixels_CDHW: Tensor
    between_CDHW: Tensor | None = None
    """The same half a voxel further along each axis, as ``Slab`` has it; lesions are sought in both."""
    affine_44: Tensor
    """float64, (slice, row, column, 1) of the slab -> LPS mm."""
    voxel_mm: float = 1.0
    """Of the grid's recipe; a patient laid otherwise for training has another in the affine."""
    lesions_X6: Tensor | None = None
    """float32, a row for each lesion of the study, those beyond the slab too, in the same order in each slab: slice,
    row and column in the slab (voxels), longest diameter in mm as it looks on the grid, row of the heat map, place (-1
    where not stated). ``None`` where nobody outlined lesions."""
    mask_DHW: Tensor | None = None
    """uint8: 0, or 1 + the row of the mask that the voxel belongs to. ``None`` where nobody outlined anything."""
    corner: tuple[int, int, int] = (0, 0, 0)
    """First voxel in the whole grid of the recipe, of a part of it."""
    grid: tuple[int, int, int] | None = None
    """Voxels of that grid; ``None``: the slab is the whole."""

    @property
    def inside_X(self) -> Tensor:
        """bool: which of the lesions are centred in the slab."""
        assert self.lesions_X6 is not None, "asked for where lesions are known"
        shape_3 = self.lesions_X6.new_tensor(self.pixels_CDHW.shape[1:])
        return ((self.lesions_X6[:, :3] >= -0.5) & (self.lesions_X6[:, :3] < shape_3 - 0.5)).all(1)

    def to(self, device: torch.device | str) -> VolumeInputs:
        """Returns the slab with every tensor on ``device``."""
        return replace(  # the affine stays: geometry is worked out in float64, which not every device has
            self.with_pixels(lambda pixels_CDHW: pixels_CDHW.to(device)),
            lesions_X6=None if self.lesions_X6 is None else self.lesions_X6.to(device),
            mask_DHW=None if self.mask_DHW is None else self.mask_DHW.to(device),
        )

    def with_pixels(self, change: Callable[[Tensor], Tensor]) -> VolumeInputs:
        """Returns the slab with what ``change`` makes of its pixels."""
        between_CDHW = None if self.between_CDHW is None else change(self.between_CDHW)
        return replace(self, pixels_CDHW=change(self.pixels_CDHW), between_CDHW=between_CDHW)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Tensors of one study, as the Processor makes them; the fields of ``Batch`` before padding."""

    study_uid: str
    region: str
    """Whose vocabulary the states are of."""
    pixels_SCHW: Tensor
    views_S: Tensor
    modalities_S: Tensor
    input_ids_T: Tensor
    labels_T: Tensor
    states_O: Tensor
    sides_O2: Tensor
    severity_O: Tensor
    codes_K: Tensor
    volumes: tuple[VolumeInputs, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of several studies, padded to common shapes."""

    study_uids: tuple[str, ...]
    regions: tuple[str, ...]
    pixels_BSCHW: Tensor
    """float32, one channel, 0 black to 1 white; images that are padding hold zeros."""
    image_mask_BS: Tensor
    """bool, True where an image is present."""
    views_BS: Tensor
    """int64: 0 frontal, 1 lateral, -1 not stated (the model then reads the view from the picture)."""
    modalities_BS: Tensor
    """int64: column of the codes that names the picture's modality; -1 where it is not stated or not among them."""
    input_ids_BT: Tensor
    """int64 prompt (image tokens included) and, in training, target."""
    attention_mask_BT: Tensor
    """bool, True where a token is present."""
    labels_BT: Tensor
    """int64, ``IGNORE_INDEX`` on the prompt and on padding."""
    states_BO: Tensor
    """float32 finding states: 1 present, 0 absent, 0.5 uncertain, NaN where nobody said."""
    sides_BO2: Tensor
    """float32 (patient's left, patient's right): 1 or 0 for a present finding whose side is stated, else NaN."""
    severity_BO: Tensor
    """float32 grade of a present finding: 0 small or mild, 1 moderate, 2 large or severe; NaN where none is stated."""
    codes_BK: Tensor
    """float32 codes of the source: 1 given, 0 not given, NaN where nobody coded the study."""
    volumes: tuple[VolumeInputs, ...] = ()
    """Slabs of all studies, one after the other; their shapes differ from region to region."""
    volume_study_N: Tensor
    """int64 row of the batch that each slab belongs to."""

    def __post_init__(self) -> None:
        B, S = self.image_mask_BS.shape
        T, O = self.input_ids_BT.shape[1], self.states_BO.shape[1]
        wanted = {
            "pixels_BSCHW": (B, S),
            "views_BS": (B, S),
            "modalities_BS": (B, S),
            "input_ids_BT": (B, T),
            "attention_mask_BT": (B, T),
            "labels_BT": (B, T),
            "states_BO": (B, O),
            "sides_BO2": (B, O, 2),
            "severity_BO": (B, O),
            "codes_BK": (B,),
        }
        for name, shape in wanted.items():
            found = tuple(getattr(self, name).shape)
            if found[: len(shape)] != shape:
                raise ValueError(f"{name}: expected leading shape {shape}, found {found}")
        if len(self.volumes) != len(self.volume_study_N):
            raise ValueError(f"volume_study_N: expected {len(self.volumes)}, found {len(self.volume_study_N)}")
        if len(self.study_uids) != B:
            raise ValueError(f"study_uids: expected {B}, found {len(self.study_uids)}")

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch with every tensor on ``device``."""
        others = ("study_uids", "regions", "volumes")
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name not in others}
        return replace(self, **moved, volumes=tuple(volume.to(device) for volume in self.volumes))
