"""AUROC, AUPRC, Brier score and its skill of the finding probabilities against the labels of the manifest.

Labels are present or absent; null and uncertain ones are left out, label by label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfm.report import Status

MIN_POSITIVES = 10
"""A label with fewer positive, or fewer negative, studies is not scored: its interval would span almost everything."""

MACRO_LABELS = ("normal", "cardiomegaly", "atelectasis", "pleural_effusion", "emphysema")
"""Labels of the macro mean: those of Open-i with at least 10 positives on ``val`` of IU X-Ray, fixed once."""

_TRUTH = {Status.PRESENT: 1.0, Status.ABSENT: 0.0}


@dataclass(frozen=True, kw_only=True)
class Probabilities:
    """P(present) of N studies and L labels, beside what is true."""

    labels: tuple[str, ...]
    predicted_NL: np.ndarray
    """float64, 0 to 1."""
    truth_NL: np.ndarray
    """float64, 1 present, 0 absent, NaN not to be scored."""

    @classmethod
    def of(
        cls, predicted: Sequence[Mapping[str, float]], labels: Sequence[Mapping[str, Status | None]]
    ) -> Probabilities:
        """Returns the statistics; ``predicted`` has the same names in every study."""
        names = tuple(predicted[0])
        truth = [[_TRUTH.get(row.get(name), np.nan) for name in names] for row in labels]  # type: ignore[arg-type]
        return cls(
            labels=names,
            predicted_NL=np.array([[row[name] for name in names] for row in predicted], dtype=float),
            truth_NL=np.array(truth, dtype=float),
        )

    def take(self, index: np.ndarray) -> Probabilities:
        """Returns the statistics of the studies at ``index``."""
        return Probabilities(labels=self.labels, predicted_NL=self.predicted_NL[index], truth_NL=self.truth_NL[index])

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each score, of shape (R,), for R weightings of the studies. Macro only where all its labels qualify.

        Brier skill is 1 - Brier / (Brier of always saying the base rate of the same studies).
        """
        scores: dict[str, np.ndarray] = {}
        scored = [name for name, _ in self._qualifying()]
        for name, column in self._qualifying():
            known = ~np.isnan(self.truth_NL[:, column])
            predicted, truth, weights = (
                self.predicted_NL[known, column],
                self.truth_NL[known, column],
                weights_RN[:, known],
            )
            scores[f"auroc.{name}"], scores[f"auprc.{name}"] = rank_scores(predicted, truth, weights)
            total = weights.sum(axis=1)
            rate = weights @ truth / total
            scores[f"brier.{name}"] = weights @ (predicted - truth) ** 2 / total
            with np.errstate(divide="ignore", invalid="ignore"):
                scores[f"brier_skill.{name}"] = 1 - scores[f"brier.{name}"] / (rate * (1 - rate))
        if set(MACRO_LABELS) <= set(scored):
            for kind in ("auroc", "auprc", "brier_skill"):
                scores[f"{kind}_macro"] = np.mean([scores[f"{kind}.{name}"] for name in MACRO_LABELS], axis=0)
        return scores

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Returns of each score the number of studies and of positive ones."""
        of = {
            name: (int((~np.isnan(t)).sum()), int(np.nansum(t)))
            for name, t in zip(self.labels, self.truth_NL.T, strict=True)
        }
        whole = (len(self.truth_NL), sum(of[name][1] for name in MACRO_LABELS if name in of))
        return {name: of.get(name.partition(".")[2], whole) for name in self.scores(np.ones((1, len(self.truth_NL))))}

    def _qualifying(self) -> list[tuple[str, int]]:
        positives, negatives = (self.truth_NL == 1).sum(axis=0), (self.truth_NL == 0).sum(axis=0)
        enough = np.minimum(positives, negatives) >= MIN_POSITIVES
        return [(name, column) for column, name in enumerate(self.labels) if enough[column]]


def rank_scores(predicted_N: np.ndarray, truth_N: np.ndarray, weights_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns AUROC and AUPRC (average precision), each (R,), for R weightings of the studies at once.

    Ties count half in AUROC and form one step in AUPRC, as in scikit-learn. NaN where one class has no weight.
    """
    order = np.argsort(predicted_N, kind="stable")
    starts = np.flatnonzero(np.diff(predicted_N[order], prepend=-np.inf))  # one group for each distinct probability
    positive_RG = np.add.reduceat(weights_RN[:, order] * truth_N[order], starts, axis=1)
    negative_RG = np.add.reduceat(weights_RN[:, order] * (1 - truth_N[order]), starts, axis=1)
    positives, negatives = positive_RG.sum(axis=1), negative_RG.sum(axis=1)
    below_RG = np.cumsum(negative_RG, axis=1) - negative_RG
    found_RG = np.cumsum(positive_RG[:, ::-1], axis=1)[:, ::-1]
    called_RG = np.cumsum((positive_RG + negative_RG)[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = (positive_RG * (below_RG + negative_RG / 2)).sum(axis=1) / (positives * negatives)
        precision_RG = np.divide(found_RG, called_RG, out=np.zeros_like(found_RG), where=called_RG > 0)
        auprc = (positive_RG * precision_RG).sum(axis=1) / positives
    return auroc, auprc
