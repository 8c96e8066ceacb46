"""Augmentation of training pictures and volumes: shift, scale, rotation, brightness, contrast. Never a flip.

Left and right carry meaning in an image and in its report, so nothing here mirrors one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfm.batch import VolumeInputs


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges that are drawn from, uniformly and for each picture by itself."""

    shift: float = 0.08
    """Of the picture's half side, each way."""
    scale: tuple[float, float] = (0.9, 1.18)
    """Enlargement."""
    degrees: float = 10.0
    """Rotation each way."""
    brightness: float = 0.1
    """Added to pixels of 0 to 1, each way."""
    contrast: tuple[float, float] = (0.8, 1.2)

    def __call__(self, pixels_NCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Returns changed pictures of the same shape; what comes in from outside the picture is black."""
        N = len(pixels_NCHW)

        def draw(low: float, high: float, *shape: int) -> Tensor:
            values = torch.rand(N, *shape, generator=generator) * (high - low) + low
            return values.to(pixels_NCHW.device)

        angle = draw(-self.degrees, self.degrees) * math.pi / 180
        zoom = 1 / draw(*self.scale)
        cosine, sine = zoom * angle.cos(), zoom * angle.sin()
        rotation = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
        affine = torch.cat([rotation, draw(-self.shift, self.shift, 2, 1)], dim=-1)
        grid = F.affine_grid(affine, list(pixels_NCHW.shape), align_corners=False)
        moved = F.grid_sample(pixels_NCHW, grid, align_corners=False)
        return moved * draw(*self.contrast, 1, 1, 1) + draw(-self.brightness, self.brightness, 1, 1, 1)


BRIGHTNESS, CONTRAST = 0.03, 0.08
"""Of volumes, in units of a channel: windows and sequences of 0 to 1."""


def vary_brightness(volume: VolumeInputs, generator: torch.Generator) -> VolumeInputs:
    """Returns a slab whose channels are a little brighter or steeper; how it lies is varied by ``Jitter``.

    Channels without any signal, as of a sequence that a study lacks, stay empty.
    """
    pixels_CDHW = volume.pixels_CDHW
    C = len(pixels_CDHW)

    def draw(limit: float) -> Tensor:
        return ((torch.rand(C, 1, 1, 1, generator=generator) * 2 - 1) * limit).to(pixels_CDHW.device)

    varied = pixels_CDHW * (1 + draw(CONTRAST)) + draw(BRIGHTNESS)
    has_signal = pixels_CDHW.amax((1, 2, 3), keepdim=True) > 0
    return replace(volume, pixels_CDHW=torch.where(has_signal, varied, pixels_CDHW), between_CDHW=None)
