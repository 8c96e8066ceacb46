"""Lesions of a volume: from the peaks of heat maps to lesions in the patient's coordinates, each counted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmfm.models.processor import Processor
from mmfm.models.volume_heads import Peak
from mmfm.report import Lesion

PATCHES_APART = 2
"""Two peaks of one observation nearer than so many patches, or than half the larger one's diameter, are one lesion. In
one reading none are nearer; those of several readings are, where both show the same lesion."""


def find_lesions(
    processor: Processor,
    affines: Sequence[np.ndarray],
    peaks: Sequence[Sequence[Peak]],
    points: Mapping[str, float],
    *,
    stride: Sequence[int],
) -> dict[str, tuple[Lesion, ...]]:
    """Returns the lesions of a study by observation, largest first.

    Args:
        processor: whose observations and places the heads have.
        affines: 4x4 of each slab of the study, to LPS mm.
        peaks: of each slab, in all of its readings.
        points: P from which on a lesion is stated, by observation; those without one are not looked for.
        stride: voxels of a slab per patch.
    """
    config = processor.config
    found: dict[str, list[Lesion]] = {name: [] for name in config.lesions if name in points}
    for affine, own in zip(affines, peaks, strict=True):
        for peak in own:
            name = config.lesions[peak.lesion]
            if name in found and peak.probability >= points[name]:
                place = None if peak.place is None else config.places[peak.place]
                center = (affine @ np.array([*peak.index, 1.0]))[:3]
                found[name].append(
                    Lesion(
                        center_mm=(float(center[0]), float(center[1]), float(center[2])),
                        diameter_mm=peak.diameter_mm,
                        laterality=None if place is None else place.laterality,
                        location=None if place is None else place.location,
                        probability=peak.probability,
                    )
                )
    patches_mm = [np.linalg.norm(affine[:3, :3], axis=0) * stride for affine in affines]
    least_mm = PATCHES_APART * float(np.max(patches_mm, initial=0.0))
    return {name: _each_once(lesions, least_mm) for name, lesions in found.items() if lesions}


def _each_once(lesions: list[Lesion], least_mm: float) -> tuple[Lesion, ...]:
    """Leaves out what repeats a lesion of a higher probability, as neighbouring patches, readings and slabs do."""
    kept: list[Lesion] = []
    for lesion in sorted(lesions, key=lambda one: -(one.probability or 0)):
        apart = [np.linalg.norm(np.subtract(lesion.center_mm, other.center_mm)) for other in kept]
        reach = [max(least_mm, max(lesion.diameter_mm, other.diameter_mm) / 2) for other in kept]
        if all(distance > least for distance, least in zip(apart, reach, strict=True)):
            kept.append(lesion)
    return tuple(sorted(kept, key=lambda one: -one.diameter_mm))
