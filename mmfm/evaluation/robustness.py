"""What altered pictures do to drafts: how often none is made, how the scores move, how far the drafts agree.

An alteration is scored against the drafts of the same studies from the pictures as they are, on the same bootstrap
rounds. ``mmfm.measure`` drafts; here is no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmfm.evaluation.clinical import FindingScores, label_text
from mmfm.evaluation.intervals import Estimate, patient_resamples, wilson_interval
from mmfm.evaluation.predictions import Prediction
from mmfm.evaluation.probabilities import Probabilities
from mmfm.evaluation.references import Reference
from mmfm.report import Finding, Sections, Side, Status

SCORED = ("auroc_macro", "finding_f1_micro", "label_f1_micro")


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """One alteration. Only ``refused`` is of all studies; the rest is of those drafted."""

    name: str
    amount: str
    """How much, in words."""
    expected: str
    """Of a checkpoint that this does not lead astray, in words."""
    n: int
    """Studies altered."""
    refused: Estimate
    """Share of them of which no draft was made."""
    scores: dict[str, Estimate]
    """Of the altered drafts against the references: those of ``SCORED`` for which there are enough studies."""
    changes: dict[str, Estimate]
    """The same, altered minus unaltered, paired."""
    agreement: dict[str, Estimate]
    """Of the altered with the unaltered drafts: ``findings`` (F1 of the present findings, micro; n counts those of
    both), ``same_findings``
    (share of the studies with exactly the same ones), ``sides_swapped`` (share, of the findings that both drafts name
    with left or right, on opposite sides), ``probability_change`` (mean absolute change of P(present))."""


def score_robustness(
    *,
    name: str,
    amount: str,
    expected: str,
    references: Sequence[Reference],
    unaltered: Sequence[Prediction],
    altered: Sequence[Prediction | None],
    generator: np.random.Generator,
) -> Robustness:
    """Returns what an alteration did.

    Args:
        name: of the alteration.
        amount: how much, in words.
        expected: what should come of it, in words.
        references: the studies that were altered.
        unaltered: their drafts from the pictures as they are, in the same order.
        altered: those from the altered pictures; None where no draft was made.
        generator: draws the bootstrap.
    """
    refused_N = np.array([draft is None for draft in altered], dtype=float)
    weights_RN = patient_resamples([reference.patient for reference in references], generator=generator)
    share = _shares({"refused": (refused_N, np.ones_like(refused_N))}, weights_RN)["refused"]
    kept = [
        (reference, before, after)
        for reference, before, after in zip(references, unaltered, altered, strict=True)
        if after is not None
    ]
    scores: dict[str, Estimate] = {}
    changes: dict[str, Estimate] = {}
    agreement: dict[str, Estimate] = {}
    if kept:
        weights_RN = patient_resamples([reference.patient for reference, _, _ in kept], generator=generator)
        scores, changes, agreement = _compare(kept, weights_RN)
    return Robustness(
        name=name,
        amount=amount,
        expected=expected,
        n=len(references),
        refused=share,
        scores=scores,
        changes=changes,
        agreement=agreement,
    )


def _compare(
    kept: Sequence[tuple[Reference, Prediction, Prediction]], weights_RN: np.ndarray
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, Estimate]]:
    references = [reference for reference, _, _ in kept]
    before, after = [draft for _, draft, _ in kept], [draft for _, _, draft in kept]
    found_before, found_after = _findings(before, references), _findings(after, references)
    values, draws, counts = _scores(references, after, found_after, weights_RN)
    old_values, old_draws, _ = _scores(references, before, found_before, weights_RN)
    scores, changes = {}, {}
    for name in values:
        n, events = counts[name]
        scores[name] = Estimate.of(values[name], draws[name], n=n, events=events)
        if name not in old_values:  # an AUROC of what only altered drafts state
            continue
        difference = values[name] - old_values[name], draws[name] - old_draws[name]
        changes[name] = Estimate.of(*difference, n=n, events=events)

    pairs = list(zip(_present(found_before), _present(found_after), strict=True))
    both_N = np.array([len(old.keys() & new.keys()) for old, new in pairs], dtype=float)
    named_N = np.array([len(old) + len(new) for old, new in pairs], dtype=float)
    same_N = np.array([old.keys() == new.keys() for old, new in pairs], dtype=float)
    one = {Side.LEFT, Side.RIGHT}
    sides = [
        [old[name] != new[name] for name in old.keys() & new.keys() if {old[name], new[name]} <= one]
        for old, new in pairs
    ]
    shares = {
        "findings": (2 * both_N, named_N),
        "same_findings": (same_N, np.ones_like(same_N)),
        "sides_swapped": (np.array([sum(s) for s in sides], float), np.array([len(s) for s in sides], float)),
    }
    agreement = _shares(shares, weights_RN)
    if (change_N := _probability_change(before, after)) is not None:
        mean_R = weights_RN @ change_N / weights_RN.sum(axis=1)
        agreement["probability_change"] = Estimate.of(change_N.mean(), mean_R, n=len(change_N))
    return scores, changes, agreement


def _scores(
    references: Sequence[Reference],
    drafts: Sequence[Prediction],
    found: Sequence[Sequence[Finding]],
    weights_RN: np.ndarray,
) -> tuple[dict[str, float], dict[str, np.ndarray], dict[str, tuple[int, int | None]]]:
    """Returns value, bootstrap rounds and counts of each of ``SCORED`` that these studies allow."""
    labels, regions = [r.labels for r in references], [r.region for r in references]
    statistics: list[FindingScores | Probabilities] = [
        FindingScores.against_text(found, _findings([r.report for r in references], references), regions),
        FindingScores.against_labels(found, labels, regions),
    ]
    predicted = [draft.finding_probabilities for draft in drafts]
    if any(predicted):
        statistics.append(Probabilities.of(predicted, labels))
    values: dict[str, float] = {}
    draws: dict[str, np.ndarray] = {}
    counts: dict[str, tuple[int, int | None]] = {}
    for each in statistics:
        whole, rounds, of = each.scores(np.ones((1, len(references)))), each.scores(weights_RN), each.counts()
        for name in set(SCORED) & set(whole):
            values[name], draws[name], counts[name] = float(whole[name][0]), rounds[name], of[name]
    return values, draws, counts


def _shares(parts: Mapping[str, tuple[np.ndarray, np.ndarray]], weights_RN: np.ndarray) -> dict[str, Estimate]:
    """Returns sums over sums, from (counted, of how many) of each study; n and events are the sums.

    None of 24 gives 0 in every bootstrap round: the interval is the wider one of the bootstrap's and Wilson's.
    """
    estimates = {}
    for name, (counted_N, whole_N) in parts.items():
        events, n = counted_N.sum(), whole_N.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            estimate = Estimate.of(
                events / n, (weights_RN @ counted_N) / (weights_RN @ whole_N), n=int(n), events=int(events)
            )
        if estimate.low is not None and estimate.high is not None:
            low, high = wilson_interval(events / n, n)
            estimate = replace(estimate, low=round(min(low, estimate.low), 6), high=round(max(high, estimate.high), 6))
        estimates[name] = estimate
    return estimates


def _findings(texts: Sequence[Prediction | Sections], references: Sequence[Reference]) -> list[tuple[Finding, ...]]:
    return [label_text(t.findings, t.impression, r.region) for t, r in zip(texts, references, strict=True)]


def _present(found: Sequence[Sequence[Finding]]) -> list[dict[str, Side | None]]:
    """Returns the present findings of each draft with their side."""
    return [{f.observation: f.laterality for f in findings if f.status is Status.PRESENT} for findings in found]


def _probability_change(before: Sequence[Prediction], after: Sequence[Prediction]) -> np.ndarray | None:
    """Returns (N,) the mean absolute change over the observations that either states; None where no draft states any.

    What one of them does not state is 0, as it is scored.
    """
    olds, news = ([draft.finding_probabilities or {} for draft in drafts] for drafts in (before, after))
    stated = list(zip(olds, news, strict=True))
    if not any(old or new for old, new in stated):
        return None
    changes = [[abs(old.get(name, 0.0) - new.get(name, 0.0)) for name in old | new] for old, new in stated]
    return np.array([np.mean(each) if each else 0.0 for each in changes])
