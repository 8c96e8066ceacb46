"""The curves that a page draws of the finding probabilities: numbers only, at most ``POINTS`` a curve.

    curves = Curves.of(probabilities)
    to_json(curves)

They show the same studies, bins and groups as the scores of ``probabilities.py``: the bins of the reliability plot are
those of ECE, and the points of the risk-coverage curve those that AURC is the mean of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmfm.evaluation.intervals import wilson_interval
from mmfm.evaluation.probabilities import Probabilities, area_under_risk, ece_edges

POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Roc:
    """Both rates of one label over all thresholds, from (0, 0) to (1, 1)."""

    label: str
    n: int
    positives: int
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Precision of one label at each recall that a positive study brings; the steps hold to the left."""

    label: str
    n: int
    positives: int
    prevalence: float
    """Precision of any order that knows nothing."""
    recall: tuple[float, ...]
    precision: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Studies of about one probability."""

    n: int
    predicted: float
    """Mean probability."""
    observed: float
    """Share of positive studies, with Wilson's 95 % interval, which takes the studies for independent."""
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """What was said against what was so, of one label."""

    label: str
    n: int
    positives: int
    prevalence: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """Error rate among the most confident share of the decisions of all labels; see ``Probabilities.risk_groups``."""

    decisions: int
    errors: int
    coverage: tuple[float, ...]
    """Share of the decisions, ascending to 1."""
    risk: tuple[float, ...]
    """Share of wrong ones among them."""
    aurc: float
    """Mean risk over all coverages."""
    aurc_random: float
    """The same in an order that knows nothing: the share of wrong ones among all."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """All curves of a set of drafts; labels that do not qualify have none."""

    roc: tuple[Roc, ...]
    precision_recall: tuple[PrecisionRecall, ...]
    reliability: tuple[Reliability, ...]
    risk_coverage: RiskCoverage | None
    """``None`` where no label qualifies."""

    @classmethod
    def of(cls, probabilities: Probabilities) -> Curves:
        """Returns the curves of every label that qualifies."""
        roc, precision_recall, reliability = [], [], []
        for label, column in probabilities.qualifying():
            predicted, truth, _ = probabilities.known(column)
            roc.append(_roc(label, predicted, truth))
            precision_recall.append(_precision_recall(label, predicted, truth))
            reliability.append(_reliability(label, predicted, truth))
        return cls(
            roc=tuple(roc),
            precision_recall=tuple(precision_recall),
            reliability=tuple(reliability),
            risk_coverage=_risk_coverage(probabilities) if roc else None,
        )


def _roc(label: str, predicted_N: np.ndarray, truth_N: np.ndarray) -> Roc:
    found, invented = _called(predicted_N, truth_N)
    true, false = found / found[-1], invented / invented[-1]
    kept = _evenly(true + false)  # no point left out is further than 2 / POINTS from one that stays
    return Roc(
        label=label,
        n=len(truth_N),
        positives=int(found[-1]),
        false_positive_rate=tuple(false[kept].tolist()),
        true_positive_rate=tuple(true[kept].tolist()),
    )


def _precision_recall(label: str, predicted_N: np.ndarray, truth_N: np.ndarray) -> PrecisionRecall:
    found, invented = _called(predicted_N, truth_N)
    rises = np.flatnonzero(np.diff(found, prepend=0))  # the steps whose sum is the average precision
    recall, precision = found[rises] / found[-1], found[rises] / (found[rises] + invented[rises])
    kept = _evenly(recall)
    return PrecisionRecall(
        label=label,
        n=len(truth_N),
        positives=int(found[-1]),
        prevalence=float(truth_N.mean()),
        recall=tuple(recall[kept].tolist()),
        precision=tuple(precision[kept].tolist()),
    )


def _reliability(label: str, predicted_N: np.ndarray, truth_N: np.ndarray) -> Reliability:
    order = np.argsort(predicted_N, kind="stable")
    edges = ece_edges(predicted_N[order])
    bins = []
    for members in np.split(order, edges[1:-1]):
        observed = float(truth_N[members].mean())
        low, high = wilson_interval(observed, len(members))
        predicted = float(predicted_N[members].mean())
        bins.append(ReliabilityBin(n=len(members), predicted=predicted, observed=observed, low=low, high=high))
    prevalence = float(truth_N.mean())
    return Reliability(
        label=label, n=len(truth_N), positives=int(truth_N.sum()), prevalence=prevalence, bins=tuple(bins)
    )


def _risk_coverage(probabilities: Probabilities) -> RiskCoverage:
    decisions_G, errors_G = (each_NG.sum(axis=0) for each_NG in probabilities.risk_groups())
    decisions, errors = decisions_G.sum(), errors_G.sum()
    return RiskCoverage(
        decisions=int(decisions),
        errors=int(errors),
        coverage=tuple((np.cumsum(decisions_G) / decisions).tolist()),
        risk=tuple((np.cumsum(errors_G) / np.cumsum(decisions_G)).tolist()),
        aurc=float(area_under_risk(decisions_G[None], errors_G[None])[0]),
        aurc_random=float(errors / decisions),
    )


def _called(predicted_N: np.ndarray, truth_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns positive and negative studies called present at each distinct threshold, from none to all."""
    order = np.argsort(-predicted_N, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(predicted_N[order])), len(order) - 1)
    found, called = np.cumsum(truth_N[order])[ends], ends + 1
    return np.append(0, found), np.append(0, called - found)


def _evenly(along: np.ndarray) -> np.ndarray:
    """Returns at most ``POINTS`` positions, first and last among them, that are about evenly spread over ``along``."""
    if len(along) <= POINTS:
        return np.arange(len(along))
    return np.unique(np.searchsorted(along, np.linspace(along[0], along[-1], POINTS)).clip(max=len(along) - 1))
