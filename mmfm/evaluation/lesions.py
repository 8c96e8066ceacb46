"""Which lesions of a volume were found: each known one with the one that was stated for it, and what fits none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmfm.report import Lesion

LEAST_REACH_MM = 5.0
"""A stated lesion is a known one if their centres are no further apart than this, or than half the known diameter."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """What was stated of one observation in one volume, against what is there."""

    hits: tuple[tuple[Lesion, Lesion], ...]
    """(known, stated)."""
    missed: tuple[Lesion, ...]
    """Known, and stated nowhere."""
    false: tuple[Lesion, ...]
    """Stated, and not there; a second one for a known lesion too."""


def match_lesions(known: Sequence[Lesion], stated: Sequence[Lesion]) -> Match:
    """Returns which stated lesion is which known one, the nearest pairs first, one to one.

    Args:
        known: all lesions of one observation, LPS mm.
        stated: of the same observation and frame of reference.
    """
    pairs = sorted(
        (float(np.linalg.norm(np.subtract(one.center_mm, other.center_mm))), i, j)
        for i, one in enumerate(known)
        for j, other in enumerate(stated)
    )
    hits: dict[int, int] = {}
    for distance, i, j in pairs:
        if distance <= max(LEAST_REACH_MM, known[i].diameter_mm / 2) and i not in hits and j not in hits.values():
            hits[i] = j
    return Match(
        hits=tuple((known[i], stated[j]) for i, j in sorted(hits.items())),
        missed=tuple(lesion for i, lesion in enumerate(known) if i not in hits),
        false=tuple(lesion for j, lesion in enumerate(stated) if j not in hits.values()),
    )
