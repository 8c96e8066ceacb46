"""DrawnVolume: what the anatomies of this package draw, with everything that is true of it.

Every drawing lies on a grid of slices, rows and columns that run to the patient's head, back and left ("SPL"), in LPS
millimetres. The anatomy of a seed does not depend on the spacing of the grid: a finer one shows the same patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmfm.report import Finding, Side, Status
from mmfm.study import Patient


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What one number of ``DrawnVolume.segmentation`` stands for."""

    observation: str
    laterality: Side | None = None
    location: str | None = None
    is_lesion: bool = False
    """One of the ``lesions`` of its finding; else something that is not counted, such as fluid."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnVolume:
    """One patient's volume, or several sequences on one grid, with the truth."""

    region: str
    """``chest_ct``, ``abdomen`` or ``head``."""
    seed: int
    patient: Patient
    images: dict[str, NDArray[np.float32]]
    """(D, H, W) by name: ``CT`` in HU, or ``T1``, ``T2``, ``FLAIR``, ``DWI`` in stored units (0 or more)."""
    affine: NDArray[np.float64]
    """4x4, (slice, row, column, 1) -> LPS mm; its axes run S, P and L."""
    segmentation: NDArray[np.uint8]
    """(D, H, W): 0, or n for ``segments[n - 1]``. Lesions have the numbers of their order in findings."""
    segments: tuple[Segment, ...]
    findings: tuple[Finding, ...]
    """What is present, at most one for each observation; those that are counted hold each ``Lesion``, largest first,
    with ``count``, and the largest diameter as ``measurement`` in mm."""
    labels: dict[str, Status]
    """Of every observation that the anatomy can draw, and of those that it never shows."""
    contrast: str | None = None
    """Phase of the intravenous contrast agent of a CT, ``arterial`` or ``portal``; ``None`` without one, and of MR."""
