"""Lesions of a volume: from the peaks of heat maps to lesions in the patient's coordinates, each counted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfm.models.processor import Processor
from mmfm.models.volume_heads import Peak, PeaksByReading
from mmfm.report import Lesion, Place

PATCHES_APART = 2
"""Two peaks of one observation nearer than so many patches, or than half the larger one's diameter, are one lesion. In
one reading none are nearer; those of several readings are, where both show the same lesion."""


def find_lesions(
    processor: Processor,
    affines: Sequence[np.ndarray],
    peaks: Sequence[PeaksByReading],
    points: Mapping[str, float],
    *,
    stride: Sequence[int],
) -> dict[str, tuple[Lesion, ...]]:
    """Returns the lesions of a study by observation, largest first.

    What repeats a lesion, as neighbouring patches, readings and slabs do, is one with it. Its P is the mean of the
    higher half of the readings of a slab, where one that does not show it counts as 0, and of several slabs that of the
    surest: else a single reading would decide what is stated, and all of them would ask too much of the small. Its
    centre, diameter and place are what the peak that most readings agree with and those within ``PATCHES_APART`` of it
    say, each as much as its P (as weighted boxes fusion does: Solovyev et al., 2021); those further off are peaks of
    the same reading, or of another lesion.

    Args:
        processor: whose observations and places the heads have.
        affines: 4x4 of each slab of the study, to LPS mm.
        peaks: of each slab, as often read as the others.
        points: P from which on a lesion is stated, by observation; those without one are not looked for.
        stride: voxels of a slab per patch.
    """
    config = processor.config
    patches_mm = [np.linalg.norm(affine[:3, :3], axis=0) * stride for affine in affines]
    least_mm = PATCHES_APART * float(np.max(patches_mm))
    assert len({len(own) for own in peaks}) == 1, "every slab is read as often"
    found = {}
    for row, name in enumerate(config.lesions):
        if name not in points:
            continue
        seen = [
            _Seen(peak=peak, slab=slab, reading=reading, center_mm=(affine @ np.array([*peak.index, 1.0]))[:3])
            for slab, (affine, own) in enumerate(zip(affines, peaks, strict=True))
            for reading, found_peaks in enumerate(own)
            for peak in found_peaks
            if peak.lesion == row
        ]
        lesions = []
        for group in _grouped(seen, points[name], least_mm):
            probability = _higher_half(group, len(peaks[0]))
            if probability >= points[name]:
                alike = [[other for other in group if _distance_mm(one, other) <= least_mm] for one in group]
                most = max(alike, key=lambda near: _higher_half(near, len(peaks[0])))
                lesions.append(_fused(most, config.places, probability))
        if lesions:
            found[name] = tuple(sorted(lesions, key=lambda one: -one.diameter_mm))
    return found


@dataclass(frozen=True, kw_only=True)
class _Seen:
    peak: Peak
    slab: int
    reading: int
    center_mm: np.ndarray
    """(3,) LPS mm."""


def _grouped(seen: Sequence[_Seen], point: float, least_mm: float) -> list[list[_Seen]]:
    """Returns for each lesion its surest peak, of at least P ``point``, and those that repeat it."""
    groups: list[list[_Seen]] = []
    for one in sorted(seen, key=lambda one: -one.peak.probability):
        for group in groups:
            largest_mm = max(one.peak.diameter_mm, group[0].peak.diameter_mm)
            if _distance_mm(one, group[0]) <= max(least_mm, largest_mm / 2):
                group.append(one)
                break
        else:
            if one.peak.probability >= point:
                groups.append([one])
    return groups


def _distance_mm(one: _Seen, other: _Seen) -> float:
    return float(np.linalg.norm(one.center_mm - other.center_mm))


def _higher_half(seen: Sequence[_Seen], num_readings: int) -> float:
    """Returns the mean P of the higher half of the readings of a slab, of the slab where it is highest."""
    highest = {one.slab: [0.0] * num_readings for one in seen}
    for one in seen:
        highest[one.slab][one.reading] = max(highest[one.slab][one.reading], one.peak.probability)
    return max(float(np.mean(sorted(own)[num_readings // 2 :])) for own in highest.values())


def _fused(group: Sequence[_Seen], places: Sequence[Place], probability: float) -> Lesion:
    weights = np.array([one.peak.probability for one in group])
    center_mm = np.average([one.center_mm for one in group], axis=0, weights=weights)
    votes: dict[int | None, float] = {}
    for one in group:
        votes[one.peak.place] = votes.get(one.peak.place, 0.0) + one.peak.probability
    likeliest = max(votes, key=lambda row: votes[row])
    place = None if likeliest is None else places[likeliest]
    return Lesion(
        center_mm=(float(center_mm[0]), float(center_mm[1]), float(center_mm[2])),
        diameter_mm=float(np.exp(np.average(np.log([one.peak.diameter_mm for one in group]), weights=weights))),
        laterality=None if place is None else place.laterality,
        location=None if place is None else place.location,
        probability=probability,
    )
