"""Scores on bootstrap rounds: estimates with intervals, and paired differences from a control.

Per-study statistics are computed once; what is resampled is how often each study counts. Drafts and controls are scored
on the same rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, runtime_checkable

import numpy as np

from mmfm.evaluation.intervals import LEVEL, Estimate, bootstrap_p, holm


class Statistics(Protocol):
    """Per-study statistics of one kind."""

    def take(self, index: np.ndarray) -> Self:
        """Returns the statistics of the studies at ``index``."""

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each score, (R,), for R weightings of the studies; NaN where it is 0 / 0."""

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Returns of each score the number of studies, or of what is compared, and of positive ones."""


@runtime_checkable
class Shares(Protocol):
    """Statistics of which some scores are shares."""

    def trials(self) -> dict[str, float]:
        """Returns of each share what number it is of, as far as its interval at 0 and at 1 goes."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Drafts minus control, paired, with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    """Two-sided, adjusted over the compared scores of this control."""
    better: bool
    """The interval lies on the better side of 0, and ``p_holm`` is below 0.05."""
    verdict: str
    """The same in words."""


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """The scores of one set of drafts: as they are, and in every bootstrap round."""

    values: dict[str, float]
    draws: dict[str, np.ndarray]
    counts: dict[str, tuple[int, int | None]]
    trials: dict[str, float] = field(default_factory=dict)
    """Of those that are shares, what number they are of."""

    @classmethod
    def of(cls, statistics: Sequence[Statistics], resamples_RN: np.ndarray) -> Resampled:
        """Returns the scores of all statistics, on the rounds of ``patient_resamples``."""
        once = np.ones((1, resamples_RN.shape[1]))
        values: dict[str, float] = {}
        draws: dict[str, np.ndarray] = {}
        counts: dict[str, tuple[int, int | None]] = {}
        trials: dict[str, float] = {}
        for each in statistics:
            values |= {name: float(score[0]) for name, score in each.scores(once).items()}
            draws |= each.scores(resamples_RN)
            counts |= each.counts()
            trials |= each.trials() if isinstance(each, Shares) else {}
        return cls(values=values, draws=draws, counts=counts, trials=trials)

    def without_rounds(self, names: Collection[str]) -> Resampled:
        """Returns the same scores, those of ``names`` without intervals."""
        rounds = {n: np.full_like(draws, np.nan) if n in names else draws for n, draws in self.draws.items()}
        return replace(self, draws=rounds)

    def estimates(self) -> dict[str, Estimate]:
        """Returns each score with its interval and counts."""
        return {
            name: Estimate.of(
                value,
                self.draws[name],
                n=self.counts[name][0],
                events=self.counts[name][1],
                centred=name.startswith("ece"),
                trials=self.trials.get(name),
            )
            for name, value in self.values.items()
        }

    def differences(
        self, control: Resampled, name: str, *, among: Collection[str], lower_is_better: Collection[str] = ()
    ) -> dict[str, Difference]:
        """Returns how far these drafts are from a control, for the scores that both have.

        Args:
            control: scored on the same rounds.
            name: what the control is called.
            among: the scores compared: one family of Holm's correction.
            lower_is_better: those of them that are better when lower.
        """
        shared = [metric for metric in among if metric in self.values and metric in control.values]
        draws = {metric: self.draws[metric] - control.draws[metric] for metric in shared}
        adjusted = holm({metric: bootstrap_p(draws[metric]) for metric in shared})
        differences = {}
        for metric in shared:
            found = Estimate.of(self.values[metric] - control.values[metric], draws[metric], n=0)
            apart = (found.high or 0) < 0 if metric in lower_is_better else (found.low or 0) > 0
            better = apart and adjusted[metric] < 1 - LEVEL
            differences[metric] = Difference(
                value=found.value,
                low=found.low,
                high=found.high,
                p_holm=None if np.isnan(adjusted[metric]) else round(adjusted[metric], 6),
                better=better,
                verdict=f"{'better' if better else 'not shown to be better'} than {name.replace('_', ' ')}",
            )
        return differences
