"""Bootstrap over patients, paired differences, Holm's correction, and Wilson's interval of a share.

What is drawn comes from a passed ``numpy.random.Generator``. Two systems are compared on the same resamples, so that
what is hard about a study is hard for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

ROUNDS = 1000
LEVEL = 0.95

MIN_PATIENTS = 10
"""Of fewer there is no interval: so few cannot be resampled. Of 4, one in five systems that are equal to a control
would be shown to be better than it."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score with its 95 % interval; ``None`` where it is undefined (0 / 0)."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Studies scored; for a share of findings, findings compared."""
    events: int | None = None
    """Positive references among them; for a share of findings, those that it counts."""

    @classmethod
    def of(
        cls,
        value: float,
        draws_R: np.ndarray,
        *,
        n: int,
        events: int | None = None,
        centred: bool = False,
        trials: float | None = None,
    ) -> Estimate:
        """Returns the estimate of a score and its bootstrap rounds; NaN becomes ``None``, the rest has 6 decimals.

        ``centred`` is for scores that every resampling inflates: see ``centred_interval``. Of a share at 0 or 1 all
        rounds are alike, however few it is of: there the interval is Wilson's, of ``trials``.
        """
        interval = centred_interval(draws_R, value) if centred else percentile_interval(draws_R)
        if trials and value in (0, 1) and interval == (value, value):
            interval = wilson_interval(value, trials)
        numbers = [None if np.isnan(x) else round(float(x), 6) for x in (value, *interval)]
        return cls(value=numbers[0], low=numbers[1], high=numbers[2], n=n, events=events)


def patient_resamples(
    patient_ids: Sequence[str], *, generator: np.random.Generator, rounds: int = ROUNDS
) -> np.ndarray:
    """Returns (R, N) how often each study is drawn in each round: patients are drawn, with all their studies."""
    patients, index_N = np.unique(np.asarray(patient_ids), return_inverse=True)
    drawn = generator.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=rounds)
    return drawn[:, index_N].astype(float)


def percentile_interval(draws_R: np.ndarray, *, level: float = LEVEL) -> tuple[float, float]:
    """Returns the percentile bootstrap interval; rounds in which the score is undefined (NaN) are left out."""
    draws_R = draws_R[~np.isnan(draws_R)]
    if not len(draws_R):
        return float("nan"), float("nan")
    low, high = np.quantile(draws_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def centred_interval(draws_R: np.ndarray, value: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Returns the percentile interval less the bias of the rounds, their mean minus ``value``, and not below 0.

    For scores such as ECE, sums of absolute values that every resampling inflates: of a quarter of well calibrated
    systems the percentile interval lies above the score itself.
    """
    low, high = percentile_interval(draws_R, level=level)
    if np.isnan(low):
        return low, high
    bias = float(np.nanmean(draws_R)) - value
    return max(0.0, low - bias), max(0.0, high - bias)


def bootstrap_p(difference_R: np.ndarray) -> float:
    """Returns the two-sided p of a paired difference: twice the share of rounds on the far side of 0, at most 1.

    One is added above and below, so that p is never 0 (Davison and Hinkley, 1997, section 4.2). NaN without rounds.
    """
    difference_R = difference_R[~np.isnan(difference_R)]
    if not len(difference_R):
        return float("nan")
    far = min((difference_R <= 0).sum(), (difference_R >= 0).sum())
    return float(min(1.0, 2 * (far + 1) / (len(difference_R) + 1)))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Returns p adjusted for the number of comparisons (Holm, 1979). NaN stays NaN and is not counted."""
    defined = sorted((value, name) for name, value in p.items() if not np.isnan(value))
    adjusted, largest = dict(p), 0.0
    for rank, (value, name) in enumerate(defined):
        largest = max(largest, min(1.0, value * (len(defined) - rank)))
        adjusted[name] = largest
    return adjusted


def wilson_interval(value: float, n: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Returns Wilson's score interval of a share of ``n`` (JASA 1927), which has width at 0 and at 1 too.

    ``n`` may be an effective number, with a fraction. NaN where it is 0.
    """
    if not n > 0:
        return float("nan"), float("nan")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (value * (1 - value) / n + z**2 / (4 * n**2)) ** 0.5
    return max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half))
