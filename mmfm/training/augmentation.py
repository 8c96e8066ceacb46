"""Augmentation of training pictures: shift, scale, rotation, brightness, contrast. Never a flip.

Left and right carry meaning in a radiograph and in its report, so nothing here mirrors a picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


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
