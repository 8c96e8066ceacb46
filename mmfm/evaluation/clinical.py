"""Findings that a drafted text names, against those of the reference text and against the labels of the manifest.

Both texts go through the labeller of ``mmfm.text``, findings and impression together. ``finding_*`` compares draft and
reference text, so that the reference scores 1 by construction; ``label_*`` compares the draft with the labels of the
manifest, which have another origin, so that the reference text itself shows what the labeller can reach. Present counts
as positive; absent, uncertain and not mentioned count as not positive. ``no_finding`` is derived and takes no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfm.report import Finding, Side, Status
from mmfm.text import OBSERVATIONS

OPENI_LABELS = (
    "atelectasis",
    "cardiomegaly",
    "pleural_effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural_thickening",
    "hernia",
)
"""Observations that ``label_*`` scores: the 14 that the NegBio project made from the human MeSH coding of Open-i's
reports (Peng et al., AMIA Jt Summits Transl Sci Proc 2018)."""

_OPPOSITE = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}


@dataclass(frozen=True, kw_only=True)
class FindingScores:
    """Present findings of N drafts against their references, over O observations."""

    prefix: str
    """Of the names of the scores: ``finding`` or ``label``."""
    observations: tuple[str, ...]
    drafted_NO: np.ndarray
    """bool, the draft says present."""
    reference_NO: np.ndarray
    """bool, the reference says present."""
    known_NO: np.ndarray
    """bool, the reference is to be scored; the rest takes no part."""

    @classmethod
    def against_text(
        cls, drafts: Sequence[Sequence[Finding]], references: Sequence[Sequence[Finding]]
    ) -> FindingScores:
        """Returns the statistics against labelled reference texts. A study whose reference names nothing counts."""
        reference = _present(references, OBSERVATIONS)
        return cls(
            prefix="finding",
            observations=OBSERVATIONS,
            drafted_NO=_present(drafts, OBSERVATIONS),
            reference_NO=reference,
            known_NO=np.ones_like(reference),
        )

    @classmethod
    def against_labels(
        cls, drafts: Sequence[Sequence[Finding]], labels: Sequence[Mapping[str, Status | None]]
    ) -> FindingScores:
        """Returns the statistics against the labels of the manifest; null and uncertain ones are left out."""
        states = [[row.get(name) for name in OPENI_LABELS] for row in labels]
        return cls(
            prefix="label",
            observations=OPENI_LABELS,
            drafted_NO=_present(drafts, OPENI_LABELS),
            reference_NO=np.array([[s == Status.PRESENT for s in row] for row in states], dtype=bool),
            known_NO=np.array([[s in (Status.PRESENT, Status.ABSENT) for s in row] for row in states], dtype=bool),
        )

    def take(self, index: np.ndarray) -> FindingScores:
        """Returns the statistics of the studies at ``index``."""
        return FindingScores(
            prefix=self.prefix,
            observations=self.observations,
            drafted_NO=self.drafted_NO[index],
            reference_NO=self.reference_NO[index],
            known_NO=self.known_NO[index],
        )

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each score, of shape (R,), for R weightings of the studies; NaN where it is 0 / 0.

        Observations stand alone, and in the macro mean, where the reference has at least one positive; the micro
        scores take all of them, so that an invented finding always costs.
        """
        positive_O = self._positives()
        if not positive_O.any():
            return {}
        true_RO = weights_RN @ (self.drafted_NO & self.reference_NO & self.known_NO)
        drafted_RO = weights_RN @ (self.drafted_NO & self.known_NO)
        reference_RO = weights_RN @ (self.reference_NO & self.known_NO)
        scores: dict[str, np.ndarray] = {}
        micro = (counts.sum(axis=1) for counts in (true_RO, drafted_RO, reference_RO))
        for kind, values in zip(("precision", "recall", "f1"), _precision_recall_f1(*micro), strict=True):
            scores[f"{self.prefix}_{kind}_micro"] = values
        each = _precision_recall_f1(true_RO, drafted_RO, reference_RO)
        f1_RO = each[2][:, positive_O > 0]
        defined_RO = ~np.isnan(f1_RO)  # a resample may hold none of a rare observation
        scores[f"{self.prefix}_f1_macro"] = _divide(np.nansum(f1_RO, axis=1), defined_RO.sum(axis=1))
        for kind, values in zip(("precision", "recall", "f1"), each, strict=True):
            for o in np.flatnonzero(positive_O):
                scores[f"{self.prefix}_{kind}.{self.observations[o]}"] = values[:, o]
        return scores

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Returns of each score the number of studies and of positive references."""
        positive_O, known_O = self._positives(), self.known_NO.sum(axis=0)
        events = dict(zip(self.observations, zip(known_O.tolist(), positive_O.tolist(), strict=True), strict=True))
        whole = (int(self.known_NO.any(axis=1).sum()), int(positive_O.sum()))
        return {
            name: events.get(name.partition(".")[2], whole) for name in self.scores(np.ones((1, len(self.known_NO))))
        }

    def _positives(self) -> np.ndarray:
        return (self.reference_NO & self.known_NO).sum(axis=0)


@dataclass(frozen=True, kw_only=True)
class WrongSides:
    """How often a finding that draft and reference both name, with one side each, is on the opposite side."""

    sided_N: np.ndarray
    """Findings of each study that can be compared: both texts say left or right."""
    wrong_N: np.ndarray
    """Those on opposite sides."""

    @classmethod
    def of(cls, drafts: Sequence[Sequence[Finding]], references: Sequence[Sequence[Finding]]) -> WrongSides:
        """Returns the counts of each study. One side against both is no wrong side."""
        sided, wrong = np.zeros(len(drafts)), np.zeros(len(drafts))
        for i, (draft, reference) in enumerate(zip(drafts, references, strict=True)):
            theirs = {f.observation: f.laterality for f in reference if f.status == Status.PRESENT}
            for finding in draft:
                side = theirs.get(finding.observation)
                if finding.status == Status.PRESENT and finding.laterality in _OPPOSITE and side in _OPPOSITE:
                    sided[i] += 1
                    wrong[i] += side != finding.laterality
        return cls(sided_N=sided, wrong_N=wrong)

    def take(self, index: np.ndarray) -> WrongSides:
        """Returns the counts of the studies at ``index``."""
        return WrongSides(sided_N=self.sided_N[index], wrong_N=self.wrong_N[index])

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the share of wrong sides, (R,); none where nothing can be compared."""
        if not self.sided_N.any():
            return {}
        return {"wrong_side_rate": _divide(weights_RN @ self.wrong_N, weights_RN @ self.sided_N)}

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Returns the number of findings compared, and of wrong sides."""
        return {"wrong_side_rate": (int(self.sided_N.sum()), int(self.wrong_N.sum()))}


def _present(reports: Sequence[Sequence[Finding]], observations: Sequence[str]) -> np.ndarray:
    named = [{f.observation for f in findings if f.status == Status.PRESENT} for findings in reports]
    return np.array([[name in present for name in observations] for present in named], dtype=bool)


def _precision_recall_f1(true: np.ndarray, drafted: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, ...]:
    return _divide(true, drafted), _divide(true, reference), _divide(2 * true, drafted + reference)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)
