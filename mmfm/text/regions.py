"""Which regions of the body have a vocabulary, and the observations of each."""

from __future__ import annotations

from typing import Any

from mmfm.errors import ConfigError
from mmfm.text.phrases import vocabulary

CHEST_RADIOGRAPH = "chest_radiograph"

REGIONS = (CHEST_RADIOGRAPH, "chest_ct", "abdomen", "head")


def region_words(region: str, language: str = "en") -> dict[str, Any]:
    """Returns the vocabulary of a region in a language; read it only.

    Raises:
        ConfigError: there is no such region, or the language has no words for it.
    """
    if region not in REGIONS:
        raise ConfigError(
            "region",
            expected=f"one of {', '.join(REGIONS)}",
            found=repr(region),
            fix="leave out studies of a region without a vocabulary",
        )
    return vocabulary(region, language)


def observations(region: str) -> tuple[str, ...]:
    """Returns the observations of a region, in the order of its vocabulary.

    Raises:
        ConfigError: there is no such region.
    """
    return tuple(region_words(region)["observation"])
