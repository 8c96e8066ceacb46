"""Which seeds of synthetic studies belong to which split: no study is ever in two, whatever the regions and seeds."""

from __future__ import annotations

from mmfm.text import CHEST_RADIOGRAPH, REGIONS

SPLITS = ("train", "val", "test")
MOST = 1_000_000
"""Studies that a split of one seed can have, and seeds that can be asked for."""


def study_seed(seed: int, split: str, number: int, *, region: str = CHEST_RADIOGRAPH) -> int:
    """Returns the seed of a split's study ``number``; no two splits or regions share one, under any ``seed``."""
    return ((REGIONS.index(region) * MOST + seed) * len(SPLITS) + SPLITS.index(split)) * MOST + number
