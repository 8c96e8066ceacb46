"""Scores by sex, age, view, scanner and source, and whether a group fares worse than the rest by more than chance.

    groupings = subgroup_scores(
        [r.groups for r in references], observations=f.observations, drafted_NO=f.drafted_NO,
        reference_NO=f.reference_NO, known_NO=f.known_NO, patients=[r.patient_id for r in references],
    )

Nothing is drawn: intervals are Wilson's at the effective number of observations, n p (1 - p) / variance with the
variance taken between patients, so that ten studies of one patient are no ten patients (Korn and Graubard, Survey
Methodology 1998; Franco et al., J Surv Stat Methodol 2019). A percentile bootstrap has no width at 0 and at 1, where
small groups often are.

The test of a group against the rest is the score test of two shares, its variance multiplied by the design effect
between patients (Rao and Scott, Biometrics 1992), and Fisher's exact test of the counts divided by it where fewer than
``MIN_EXPECTED`` are expected in a cell. A plain test of two shares takes the findings of one patient for independent
and cries wolf; an exact permutation needs every patient to be in one group, which view, age and scanner do not give.
Holm's correction is over the groups of one grouping, each of the two scores by itself.

A flag says that the drafts of a group differ. Whether its studies are harder or its references other, it cannot say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfm.evaluation.intervals import holm, wilson_interval
from mmfm.evaluation.probabilities import MIN_POSITIVES, Probabilities
from mmfm.evaluation.references import GROUPINGS

ALPHA = 0.02
"""Of the flags, after Holm's correction over the groups of a grouping."""

MIN_EXPECTED = 5
"""Counts expected in each of the four cells, from which on a normal approximation is taken (Cochran, 1954)."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A score between 0 and 1 with its 95 % interval; ``None`` where there is nothing to count."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """What is counted: present or absent findings of the reference, or studies; of F1 the findings of draft or
    reference, of AUROC the studies."""
    events: int
    """Those of which it is the share; of F1 the findings of both, of AUROC the positive studies."""
    patients: int
    """That these come from."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A score of a group minus that of the rest of its grouping, with Newcombe's 95 % interval (Stat Med 1998)."""

    difference: float | None
    low: float | None
    high: float | None
    n: int
    n_rest: int
    p: float | None
    """Two-sided; ``None`` where it was not tested."""
    p_holm: float | None
    flagged: bool
    """``p_holm`` is below ``ALPHA``."""
    verdict: str
    """The same in words."""


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """The scores of one group."""

    group: str
    n: int
    """Studies."""
    patients: int
    positives: int
    """Present findings of the reference, over all observations."""
    sensitivity: Rate
    """Share of the present findings of the reference, pooled over observations, that the draft has."""
    specificity: Rate
    """Share of the findings not present in the reference, pooled over observations, that the draft does not have."""
    finding_f1: Rate
    """Micro F1 of the present findings."""
    under_diagnosis: Rate
    """Share of the studies with a present finding in the reference whose draft has none at all (Seyyed-Kalantari et
    al., Nat Med 2021)."""
    sensitivity_of: dict[str, Rate]
    """By observation, where the group has at least ``MIN_POSITIVES`` of it."""
    auroc_of: dict[str, Rate]
    """By label, where the group has at least ``MIN_POSITIVES`` with and without it."""
    gaps: dict[str, Gap]
    """Of ``sensitivity`` and ``under_diagnosis``."""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """The groups that studies are in by one property."""

    name: str
    unstated: int
    """Studies of which the property is not known; they are in no group and in no rest."""
    groups: tuple[Subgroup, ...]


def subgroup_scores(
    groups: Sequence[Mapping[str, str]],
    *,
    observations: Sequence[str],
    drafted_NO: np.ndarray,
    reference_NO: np.ndarray,
    known_NO: np.ndarray,
    patients: Sequence[str],
    probabilities: Probabilities | None = None,
    groupings: Sequence[str] = GROUPINGS,
) -> tuple[Grouping, ...]:
    """Returns the scores of every group of every grouping, in the order of ``groupings``.

    Args:
        groups: of each of N studies, grouping to group; what is not known is left out.
        observations: names of the O columns; no_finding is not among them.
        drafted_NO: bool, the draft says present.
        reference_NO: bool, the reference says present.
        known_NO: bool, the reference is to be scored.
        patients: whose study each is.
        probabilities: of the same N studies, where there are any.
        groupings: names to look for in ``groups``.
    """
    counted = _Counted.of(drafted_NO, reference_NO & known_NO, known_NO, np.unique(patients, return_inverse=True)[1])
    return tuple(
        _grouping(name, np.array([g.get(name, "") for g in groups]), counted, observations, probabilities)
        for name in groupings
    )


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """What the scores of N studies are shares of: events and what they are counted among, study by study."""

    patient_N: np.ndarray
    """Number of the patient."""
    hit_NO: np.ndarray
    reference_NO: np.ndarray
    pairs: dict[str, tuple[np.ndarray, np.ndarray]]
    """Score to its two arrays of shape (N,)."""

    @classmethod
    def of(
        cls, drafted_NO: np.ndarray, reference_NO: np.ndarray, known_NO: np.ndarray, patient_N: np.ndarray
    ) -> _Counted:
        hit_NO, absent_NO = drafted_NO & reference_NO, known_NO & ~reference_NO
        ill_N = reference_NO.any(axis=1)
        return cls(
            patient_N=patient_N,
            hit_NO=hit_NO,
            reference_NO=reference_NO,
            pairs={
                "sensitivity": (hit_NO.sum(axis=1), reference_NO.sum(axis=1)),
                "specificity": ((absent_NO & ~drafted_NO).sum(axis=1), absent_NO.sum(axis=1)),
                "finding_f1": (hit_NO.sum(axis=1), (reference_NO | drafted_NO & known_NO).sum(axis=1)),
                "under_diagnosis": ((ill_N & ~drafted_NO.any(axis=1)).astype(int), ill_N.astype(int)),
            },
        )

    def rate(self, name: str, inside_N: np.ndarray) -> Rate:
        events_N, n_N = (each[inside_N] for each in self.pairs[name])
        return _share(events_N, n_N, self.patient_N[inside_N], f1=name == "finding_f1")


def _grouping(
    name: str,
    group_N: np.ndarray,
    counted: _Counted,
    observations: Sequence[str],
    probabilities: Probabilities | None,
) -> Grouping:
    stated_N = group_N != ""
    members = {str(group): group_N == group for group in np.unique(group_N[stated_N])}
    gaps = {score: _gaps(counted, score, members, stated_N) for score in ("sensitivity", "under_diagnosis")}
    return Grouping(
        name=name,
        unstated=int((~stated_N).sum()),
        groups=tuple(
            Subgroup(
                group=group,
                n=int(inside_N.sum()),
                patients=len(np.unique(counted.patient_N[inside_N])),
                positives=int(counted.reference_NO[inside_N].sum()),
                **{score: counted.rate(score, inside_N) for score in counted.pairs},
                sensitivity_of={
                    observations[o]: _share(
                        counted.hit_NO[inside_N, o].astype(int),
                        counted.reference_NO[inside_N, o].astype(int),
                        counted.patient_N[inside_N],
                    )
                    for o in np.flatnonzero(counted.reference_NO[inside_N].sum(axis=0) >= MIN_POSITIVES).tolist()
                },
                auroc_of=_aurocs(probabilities, inside_N, counted.patient_N) if probabilities else {},
                gaps={score: each[group] for score, each in gaps.items()},
            )
            for group, inside_N in members.items()
        ),
    )


def _share(events_N: np.ndarray, n_N: np.ndarray, patient_N: np.ndarray, *, f1: bool = False) -> Rate:
    """Returns sum(events) / sum(n), or of F1 2 sum(events) / (sum(n) + sum(events)), with patients as clusters."""
    events, n = int(events_N.sum()), int(n_N.sum())
    patients = len(np.unique(patient_N[n_N > 0]))
    if not n:
        return Rate(value=None, low=None, high=None, n=0, events=0, patients=0)
    above_N, below_N = (2 * events_N, n_N + events_N) if f1 else (events_N, n_N)
    value = float(above_N.sum() / below_N.sum())
    of_patient = np.bincount(patient_N, above_N - value * below_N) / below_N.sum()
    low, high = _interval(value, of_patient, patients, most=n)
    return Rate(value=value, low=low, high=high, n=n, events=events, patients=patients)


def _interval(value: float, of_patient: np.ndarray, patients: int, *, most: float) -> tuple[float, float]:
    """Returns Wilson's interval at the effective number, at most ``most``, from what each patient moves the value by.

    Where nothing varies, at 0, at 1 and within one patient, the variance says nothing: each patient counts once.
    """
    if value in (0, 1) or patients == 1:
        return wilson_interval(value, patients)
    variance = (of_patient**2).sum() * patients / (patients - 1)
    return wilson_interval(value, min(value * (1 - value) / variance, most) if variance > 0 else most)


def _aurocs(probabilities: Probabilities, inside_N: np.ndarray, patient_N: np.ndarray) -> dict[str, Rate]:
    """AUROC by label, its variance of clustered data from structural components (Obuchowski, Biometrics 1997)."""
    part, patient_N, rates = probabilities.take(inside_N), patient_N[inside_N], {}
    for name, column in part.qualifying():
        predicted, truth, known_N = part.known(column)
        patient, positive = patient_N[known_N], truth == 1
        above_P = _share_below(predicted[positive], predicted[~positive])
        under_Q = 1 - _share_below(predicted[~positive], predicted[positive])
        value = float(above_P.mean())
        moves = np.empty(len(truth))
        moves[positive] = (above_P - value) / len(above_P)
        moves[~positive] = (under_Q - value) / len(under_Q)
        patients = len(np.unique(patient))
        rarer = min(len(np.unique(patient[positive])), len(np.unique(patient[~positive])))
        low, high = _interval(value, np.bincount(patient, moves), patients, most=len(truth))
        if value in (0, 1):  # each patient with the rarer kind counts once
            low, high = wilson_interval(value, rarer)
        rates[name] = Rate(value=value, low=low, high=high, n=len(truth), events=int(positive.sum()), patients=patients)
    return rates


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))


def _gaps(counted: _Counted, score: str, members: Mapping[str, np.ndarray], stated_N: np.ndarray) -> dict[str, Gap]:
    rates = {
        group: (counted.rate(score, inside_N), counted.rate(score, stated_N & ~inside_N))
        for group, inside_N in members.items()
    }
    tested = [group for group, both in rates.items() if min(rate.n for rate in both) >= MIN_POSITIVES]
    alike = len([group for group in members if rates[group][0].n]) == 2  # each is the other's rest: one test
    p = {
        group: _p_value(*counted.pairs[score], members[group], stated_N, counted.patient_N)
        for group in (tested[:1] if alike else tested)
    }
    adjusted = holm(p)
    if alike and tested:
        p, adjusted = dict.fromkeys(tested, p[tested[0]]), dict.fromkeys(tested, adjusted[tested[0]])
    return {group: _gap(*both, p.get(group), adjusted.get(group)) for group, both in rates.items()}


def _gap(group: Rate, rest: Rate, p: float | None, p_holm: float | None) -> Gap:
    if group.value is None or rest.value is None:
        where = "the group" if group.value is None else "the rest"
        verdict = f"not tested: nothing to count in {where}"
        return Gap(
            difference=None, low=None, high=None, n=group.n, n_rest=rest.n, p=None, p_holm=None, flagged=False,
            verdict=verdict,
        )  # fmt: skip
    assert group.low is not None and group.high is not None and rest.low is not None and rest.high is not None
    difference = group.value - rest.value
    flagged = p_holm is not None and p_holm < ALPHA
    if flagged:
        verdict = f"{'lower' if difference < 0 else 'higher'} than in the rest"
    elif p is None:
        verdict = f"not tested: {min(group.n, rest.n)} to count, {MIN_POSITIVES} needed"
    else:
        verdict = "no difference from the rest shown"
    return Gap(
        difference=difference,
        low=difference - math.hypot(group.value - group.low, rest.high - rest.value),
        high=difference + math.hypot(group.high - group.value, rest.value - rest.low),
        n=group.n,
        n_rest=rest.n,
        p=p,
        p_holm=p_holm,
        flagged=flagged,
        verdict=verdict,
    )


def _p_value(
    events_N: np.ndarray, n_N: np.ndarray, inside_N: np.ndarray, stated_N: np.ndarray, patient_N: np.ndarray
) -> float:
    """Returns the two-sided p of a share inside a group against that of the rest; see the top of the file."""
    outside_N = stated_N & ~inside_N
    n = np.array([n_N[inside_N].sum(), n_N[outside_N].sum()], dtype=float)
    events = np.array([events_N[inside_N].sum(), events_N[outside_N].sum()], dtype=float)
    share = events.sum() / n.sum()
    if share in (0, 1):
        return 1.0
    sign_N = inside_N / n[0] - outside_N / n[1]
    # The variance of the difference between patients over that between findings, under one share for all.
    between = (np.bincount(patient_N, sign_N * (events_N - share * n_N)) ** 2).sum()
    within = (sign_N**2 * (events_N * (1 - share) ** 2 + (n_N - events_N) * share**2)).sum()
    design_effect = max(1.0, between / within)
    n, events = n / design_effect, events / design_effect
    if min(n) * min(share, 1 - share) < MIN_EXPECTED:
        from scipy.stats import fisher_exact

        return float(fisher_exact(np.round([events, n - events]).astype(int)).pvalue)
    z = (events[0] / n[0] - events[1] / n[1]) / math.sqrt(share * (1 - share) * (1 / n).sum())
    return math.erfc(abs(z) / math.sqrt(2))
