"""Findings that a drafted text names, against those of the reference text and against the labels of the manifest.

Both texts go through the labeller of ``mmfm.text``, findings and impression together. ``finding_*`` compares draft and
reference text, so that the reference scores 1 by construction; ``label_*`` compares the draft with the labels of the
manifest, which have another origin, so that the reference text itself shows what the labeller can reach. Present counts
as positive; absent, uncertain and not mentioned count as not positive. ``no_finding`` is derived and takes no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfm.report import Finding, Side, Status
from mmfm.text import CHEST_RADIOGRAPH, REGIONS, label_report, observations

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

FIVE = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion")
"""The subset that papers report beside all: CheXpert's competition labels (Irvin et al., AAAI 2019)."""

_OPPOSITE = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}


def label_text(findings: str | None, impression: str | None, region: str) -> tuple[Finding, ...]:
    """Returns what a text states in the words of a region; nothing where the region has no vocabulary."""
    return label_report(findings, impression, region=region) if region in REGIONS else ()


def observations_of(region: str) -> tuple[str, ...]:
    """Returns what is scored of texts of a region; nothing where it has no vocabulary."""
    return observations(region) if region in REGIONS else ()


def labels_of(region: str) -> tuple[str, ...]:
    """Returns what is scored of labels of a region."""
    return OPENI_LABELS if region == CHEST_RADIOGRAPH else observations_of(region)


def all_observations(regions: Iterable[str]) -> tuple[str, ...]:
    """Returns what is scored of texts of several regions, each once."""
    return _each_once(regions, observations_of)


def all_labels(regions: Iterable[str]) -> tuple[str, ...]:
    """Returns what is scored of labels of several regions, each once."""
    return _each_once(regions, labels_of)


def _each_once(regions: Iterable[str], names_of: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    there = set(regions)
    return tuple(dict.fromkeys(name for region in REGIONS if region in there for name in names_of(region)))


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
        cls,
        drafts: Sequence[Sequence[Finding]],
        references: Sequence[Sequence[Finding]],
        regions: Sequence[str] | None = None,
    ) -> FindingScores:
        """Returns the statistics against labelled reference texts. A study whose reference names nothing counts.

        Args:
            drafts: findings of each draft.
            references: findings of each reference, read with the words of its region.
            regions: of each study; chest radiographs where ``None``. An observation takes part in the studies of the
                regions that have it.
        """
        within = [observations_of(region) for region in regions or [CHEST_RADIOGRAPH] * len(references)]
        names = all_observations(regions or [CHEST_RADIOGRAPH])
        return cls(
            prefix="finding",
            observations=names,
            drafted_NO=_present(drafts, names),
            reference_NO=_present(references, names),
            known_NO=_table([[name in own for name in names] for own in within], names),
        )

    @classmethod
    def against_labels(
        cls,
        drafts: Sequence[Sequence[Finding]],
        labels: Sequence[Mapping[str, Status | None]],
        regions: Sequence[str] | None = None,
    ) -> FindingScores:
        """Returns the statistics against the labels of the manifest; null and uncertain ones are left out.

        Of chest radiographs ``OPENI_LABELS`` are scored, of other regions all that are labelled.
        """
        within = [labels_of(region) for region in regions or [CHEST_RADIOGRAPH] * len(labels)]
        names = all_labels(regions or [CHEST_RADIOGRAPH])
        states = [
            [row.get(name) if name in own else None for name in names] for row, own in zip(labels, within, strict=True)
        ]
        return cls(
            prefix="label",
            observations=names,
            drafted_NO=_present(drafts, names),
            reference_NO=_table([[s == Status.PRESENT for s in row] for row in states], names),
            known_NO=_table([[s in (Status.PRESENT, Status.ABSENT) for s in row] for row in states], names),
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
        true_NO = self.drafted_NO & self.reference_NO & self.known_NO
        drafted_NO, reference_NO = self.drafted_NO & self.known_NO, self.reference_NO & self.known_NO
        true_RO, drafted_RO, reference_RO = weights_RN @ true_NO, weights_RN @ drafted_NO, weights_RN @ reference_NO
        known_RO = weights_RN @ self.known_NO
        has_five = set(FIVE) <= set(self.observations)
        five = [self.observations.index(name) for name in FIVE] if has_five else []
        scores: dict[str, np.ndarray] = {}
        for suffix, chosen in (("micro", slice(None)), ("micro_5", five))[: 1 + has_five]:
            sums = (counts[:, chosen].sum(axis=1) for counts in (true_RO, drafted_RO, reference_RO))
            for kind, values in zip(("precision", "recall", "f1"), _precision_recall_f1(*sums), strict=True):
                scores[f"{self.prefix}_{kind}_{suffix}"] = values
        each = dict(
            zip(("precision", "recall", "f1"), _precision_recall_f1(true_RO, drafted_RO, reference_RO), strict=True)
        )
        neither_RO = known_RO - drafted_RO - reference_RO + true_RO
        each["specificity"] = _divide(neither_RO, known_RO - reference_RO)
        each["npv"] = _divide(neither_RO, known_RO - drafted_RO)
        for suffix, among in (("macro", range(len(self.observations))), ("macro_5", five))[: 1 + has_five]:
            f1_RO = each["f1"][:, [o for o in among if positive_O[o]]]
            defined_RO = ~np.isnan(f1_RO)  # a resample may hold none of a rare observation
            scores[f"{self.prefix}_f1_{suffix}"] = _divide(np.nansum(f1_RO, axis=1), defined_RO.sum(axis=1))
        named_N = (drafted_NO | reference_NO).any(axis=1)
        f1_N = _divide(2 * true_NO.sum(axis=1), drafted_NO.sum(axis=1) + reference_NO.sum(axis=1))
        scores[f"{self.prefix}_f1_example"] = _divide(weights_RN @ np.nan_to_num(f1_N), weights_RN @ named_N)
        for kind, values in each.items():
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

    def trials(self) -> dict[str, float]:
        """Returns of each score of one observation the number of studies that it is a share of.

        F1 is 2 J / (1 + J) of the share J of the findings in either text that are in both: at 0, Wilson's interval of J
        is that of F1 at half the number.
        """
        known_O, reference_O = self.known_NO.sum(axis=0), self._positives()
        drafted_O = (self.drafted_NO & self.known_NO).sum(axis=0)
        either_O = ((self.drafted_NO | self.reference_NO) & self.known_NO).sum(axis=0)
        of = {
            "precision": drafted_O,
            "recall": reference_O,
            "f1": either_O / 2,
            "specificity": known_O - reference_O,
            "npv": known_O - drafted_O,
        }
        return {
            f"{self.prefix}_{kind}.{name}": float(number)
            for kind, numbers_O in of.items()
            for name, number in zip(self.observations, numbers_O, strict=True)
        }

    def _positives(self) -> np.ndarray:
        return (self.reference_NO & self.known_NO).sum(axis=0)


DETAILS = ("side", "place", "severity")


@dataclass(frozen=True, kw_only=True)
class WrongDetails:
    """How often draft and reference disagree on the side, place or severity of a finding that both name and state."""

    stated_ND: np.ndarray
    """Findings of each study that can be compared, by ``DETAILS``: both texts state it."""
    wrong_ND: np.ndarray
    """Those that differ; one side against both is no wrong side."""

    @classmethod
    def of(cls, drafts: Sequence[Sequence[Finding]], references: Sequence[Sequence[Finding]]) -> WrongDetails:
        """Returns the counts of each study."""
        stated, wrong = np.zeros((len(drafts), len(DETAILS))), np.zeros((len(drafts), len(DETAILS)))
        for i, (draft, reference) in enumerate(zip(drafts, references, strict=True)):
            theirs = {f.observation: f for f in reference if f.status == Status.PRESENT}
            for finding in draft:
                other = theirs.get(finding.observation)
                if finding.status != Status.PRESENT or other is None:
                    continue
                if finding.laterality in _OPPOSITE and other.laterality in _OPPOSITE:
                    stated[i, 0] += 1
                    wrong[i, 0] += finding.laterality != other.laterality
                for d, name in ((1, "location"), (2, "severity")):
                    ours, true = getattr(finding, name), getattr(other, name)
                    if ours is not None and true is not None:
                        stated[i, d] += 1
                        wrong[i, d] += ours != true
        return cls(stated_ND=stated, wrong_ND=wrong)

    def take(self, index: np.ndarray) -> WrongDetails:
        """Returns the counts of the studies at ``index``."""
        return WrongDetails(stated_ND=self.stated_ND[index], wrong_ND=self.wrong_ND[index])

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the share of wrong ones of each detail, (R,); none where nothing can be compared."""
        return {
            f"wrong_{name}_rate": _divide(weights_RN @ self.wrong_ND[:, d], weights_RN @ self.stated_ND[:, d])
            for d, name in enumerate(DETAILS)
            if self.stated_ND[:, d].any()
        }

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Returns the number of findings compared, and of wrong ones."""
        stated, wrong = self.stated_ND.sum(axis=0), self.wrong_ND.sum(axis=0)
        return {f"wrong_{name}_rate": (int(stated[d]), int(wrong[d])) for d, name in enumerate(DETAILS) if stated[d]}

    def trials(self) -> dict[str, float]:
        """Returns the number of findings compared."""
        return {name: float(stated) for name, (stated, _) in self.counts().items()}


def _present(reports: Sequence[Sequence[Finding]], observations: Sequence[str]) -> np.ndarray:
    named = [{f.observation for f in findings if f.status == Status.PRESENT} for findings in reports]
    return _table([[name in present for name in observations] for present in named], observations)


def _table(rows: Sequence[Sequence[bool]], names: Sequence[str]) -> np.ndarray:
    return np.array(rows, dtype=bool).reshape(len(rows), len(names))


def _precision_recall_f1(true: np.ndarray, drafted: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, ...]:
    return _divide(true, drafted), _divide(true, reference), _divide(2 * true, drafted + reference)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)
