import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency, fisher_exact
from sklearn.metrics import f1_score, roc_auc_score

from mmfm.evaluation.intervals import patient_resamples, wilson_interval
from mmfm.evaluation.probabilities import Probabilities, rank_scores
from mmfm.evaluation.subgroups import Grouping, subgroup_scores
from mmfm.jsonable import from_json, to_json


def _scores(groups, drafted, reference, *, known=None, patients=None, probabilities=None, grouping="sex"):
    drafted, reference = np.asarray(drafted, dtype=bool), np.asarray(reference, dtype=bool)
    (scored,) = subgroup_scores(
        [{grouping: group} if group else {} for group in groups],
        observations=[f"o{i}" for i in range(drafted.shape[1])],
        drafted_NO=drafted,
        reference_NO=reference,
        known_NO=np.ones_like(reference) if known is None else np.asarray(known, dtype=bool),
        patients=[str(i) for i in range(len(groups))] if patients is None else patients,
        probabilities=probabilities,
        groupings=(grouping,),
    )
    return scored


def _counts(found, positives):
    """Drafts of one observation: of each group, ``found`` of ``positives`` studies that have it."""
    groups = [str(g) for g, n in enumerate(positives) for _ in range(n)]
    drafted = [[i < k] for k, n in zip(found, positives, strict=True) for i in range(n)]
    return groups, drafted, np.ones((len(groups), 1))


@pytest.fixture
def made():
    generator = np.random.default_rng(0)
    n = 400
    return {
        "groups": [["F", "M", ""][i] for i in generator.choice(3, n, p=[0.5, 0.4, 0.1])],
        "drafted": generator.random((n, 4)) < 0.3,
        "reference": generator.random((n, 4)) < [0.4, 0.2, 0.1, 0.01],
        "known": generator.random((n, 4)) < 0.9,
        "patients": [str(i) for i in generator.integers(0, 150, n)],
    }


def test_counts_are_those_of_the_studies_in_the_group(made):
    scored = _scores(**made)
    assert scored.unstated == made["groups"].count("")
    assert [group.group for group in scored.groups] == ["F", "M"]
    for group in scored.groups:
        inside = np.array(made["groups"]) == group.group
        drafted, reference, known = (made[name][inside] for name in ("drafted", "reference", "known"))
        present, absent = reference & known, ~reference & known
        assert group.n == inside.sum()
        assert group.patients == len(set(np.array(made["patients"])[inside]))
        assert group.positives == group.sensitivity.n == present.sum()
        assert group.sensitivity.events == (present & drafted).sum()
        assert group.sensitivity.value == pytest.approx((present & drafted).sum() / present.sum())
        assert group.specificity.value == pytest.approx((absent & ~drafted).sum() / absent.sum())
        assert group.finding_f1.value == pytest.approx(f1_score(reference[known], drafted[known]))
        ill = present.any(axis=1)
        assert group.under_diagnosis.n == ill.sum()
        assert group.under_diagnosis.value == pytest.approx((ill & ~drafted.any(axis=1)).sum() / ill.sum())
        enough = {f"o{o}" for o in range(4) if present[:, o].sum() >= 10}
        assert set(group.sensitivity_of) == enough < {"o0", "o1", "o2", "o3"}
        assert group.sensitivity_of["o1"].value == pytest.approx((present & drafted)[:, 1].sum() / present[:, 1].sum())


def test_scores_have_a_round_trip_to_json(made):
    scored = _scores(**made)
    assert from_json(Grouping, json.loads(json.dumps(to_json(scored), allow_nan=False))) == scored


def test_intervals_of_single_studies_are_wilsons():
    group = _scores(*_counts([17, 10], [20, 10])).groups
    for rate in (group[0].sensitivity, group[1].sensitivity):
        interval = binomtest(rate.events, rate.n).proportion_ci(method="wilson")
        # one patient a study: the variance between patients is n / (n - 1) of the binomial one
        assert (rate.low, rate.high) == pytest.approx((interval.low, interval.high), abs=0.01)


def test_ten_studies_of_a_patient_are_not_ten_patients():
    groups, drafted, reference = _counts([80, 50], [100, 100])
    alone = _scores(groups, drafted, reference)
    tens = _scores(groups, drafted, reference, patients=[str(i // 10) for i in range(200)])
    single = binomtest(8, 10).proportion_ci(method="wilson")
    rate = tens.groups[0].sensitivity
    assert (rate.value, rate.n, rate.patients) == (0.8, 100, 10)
    assert (rate.low, rate.high) == pytest.approx((single.low, single.high), abs=0.02)
    assert alone.groups[0].gaps["sensitivity"].flagged
    assert not tens.groups[0].gaps["sensitivity"].flagged


def test_where_nothing_varies_each_patient_counts_once():
    groups, drafted, reference = _counts([30, 5], [30, 10])
    patients = [str(i // 10) for i in range(40)]  # three that are found in all studies, and one that is in half
    all_found, one_patient = (
        group.sensitivity for group in _scores(groups, drafted, reference, patients=patients).groups
    )
    three = binomtest(3, 3).proportion_ci(method="wilson")
    assert (all_found.low, all_found.high) == pytest.approx((three.low, three.high))
    assert (one_patient.low, one_patient.high) == pytest.approx(wilson_interval(0.5, 1))


def test_the_interval_of_f1_is_about_that_of_the_bootstrap(made):
    group = _scores(**made).groups[0]
    inside = np.array(made["groups"]) == "F"
    drafted, reference = made["drafted"][inside] & made["known"][inside], made["reference"] & made["known"]
    weights = patient_resamples(np.array(made["patients"])[inside], generator=np.random.default_rng(1), rounds=2000)
    both, either = (
        weights @ (drafted & reference[inside]).sum(axis=1),
        weights @ (drafted | reference[inside]).sum(axis=1),
    )
    low, high = np.quantile(2 * both / (both + either), [0.025, 0.975])
    assert (group.finding_f1.low, group.finding_f1.high) == pytest.approx((low, high), abs=0.015)


def test_auroc_and_its_interval():
    generator = np.random.default_rng(2)
    truth = (generator.random((300, 2)) < [0.3, 0.02]).astype(float)
    truth[:20] = np.nan
    predicted = np.clip(np.nan_to_num(truth) * 0.2 + generator.random((300, 2)).round(2) * 0.8, 0, 1)
    patients = np.array([str(i // 2) for i in range(300)])
    probabilities = Probabilities(labels=("o0", "o1"), predicted_NL=predicted, truth_NL=truth)
    groups = ["a" if i < 200 else "b" for i in range(300)]
    group = _scores(
        groups, predicted > 0.5, np.nan_to_num(truth), patients=patients, probabilities=probabilities
    ).groups[0]
    assert set(group.auroc_of) == {"o0"}
    rate = group.auroc_of["o0"]
    t, p = truth[20:200, 0], predicted[20:200, 0]
    assert rate.value == pytest.approx(roc_auc_score(t, p))
    assert (rate.n, rate.events, rate.patients) == (180, t.sum(), 90)
    draws, _ = rank_scores(p, t, patient_resamples(patients[20:200], generator=generator))
    assert (rate.low, rate.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.015)
    perfect = replace(probabilities, predicted_NL=np.nan_to_num(truth))
    best = _scores(groups, predicted > 0.5, np.nan_to_num(truth), patients=patients, probabilities=perfect)
    assert best.groups[0].auroc_of["o0"].high == 1
    assert 0.8 < best.groups[0].auroc_of["o0"].low < 1


def test_two_groups_are_one_comparison():
    a, b = (group.gaps["sensitivity"] for group in _scores(*_counts([450, 400], [500, 500])).groups)
    expected = chi2_contingency([[450, 50], [400, 100]], correction=False).pvalue
    assert a.p == a.p_holm == b.p == b.p_holm == pytest.approx(expected)
    assert a.difference == -b.difference == pytest.approx(0.1)
    assert (a.low, a.high) == pytest.approx((-b.high, -b.low))
    assert (a.n, a.n_rest) == (500, 500)
    assert a.flagged and b.flagged
    assert (a.verdict, b.verdict) == ("higher than in the rest", "lower than in the rest")


def test_three_groups_are_three_comparisons():
    gaps = [group.gaps["sensitivity"] for group in _scores(*_counts([85, 84, 60], [100, 100, 100])).groups]
    for k, gap in zip([85, 84, 60], gaps, strict=True):
        table = [[k, 100 - k], [229 - k, 200 - (229 - k)]]
        assert gap.p == pytest.approx(chi2_contingency(table, correction=False).pvalue)
    assert gaps[2].p_holm == pytest.approx(3 * gaps[2].p)
    assert gaps[2].flagged and gaps[2].verdict == "lower than in the rest"


def test_newcombes_interval_of_a_difference():
    """Example (a) of Newcombe, Stat Med 1998, method 10: 56/70 against 48/80."""
    gap = _scores(*_counts([56, 48], [70, 80])).groups[0].gaps["sensitivity"]
    assert (gap.low, gap.high) == pytest.approx((0.0524, 0.3339), abs=0.002)


def test_small_counts_take_fishers_test():
    gap = _scores(*_counts([9, 199], [12, 200])).groups[0].gaps["sensitivity"]
    assert gap.p == pytest.approx(fisher_exact([[9, 3], [199, 1]]).pvalue)
    assert gap.flagged


def test_what_cannot_be_tested_says_so():
    scored = _scores(*_counts([3, 400], [9, 500]))
    for group in scored.groups:
        gap = group.gaps["sensitivity"]
        assert (gap.p, gap.flagged, gap.verdict) == (None, False, "not tested: 9 to count, 10 needed")
        assert gap.difference is not None
    (alone,) = _scores(*_counts([3], [9])).groups
    assert alone.gaps["sensitivity"].verdict == "not tested: nothing to count in the rest"
    healthy = _scores(["a"] * 20 + ["b"] * 20, np.zeros((40, 2)), [[i < 20, False] for i in range(40)]).groups[1]
    assert healthy.sensitivity.value is None
    assert healthy.sensitivity.n == 0
    assert healthy.gaps["sensitivity"].verdict == "not tested: nothing to count in the group"


def test_a_group_without_findings_does_not_cost_the_others_a_comparison():
    groups, drafted, reference = _counts([450, 400], [500, 500])
    scored = _scores([*groups, "2"], [*drafted, [False]], [*reference, [False]])
    assert scored.groups[0].gaps["sensitivity"].p_holm == scored.groups[0].gaps["sensitivity"].p


def test_all_found_everywhere_is_no_difference():
    gap = _scores(*_counts([30, 30], [30, 30])).groups[0].gaps["sensitivity"]
    assert (gap.p, gap.flagged, gap.difference) == (1, False, 0)


def test_under_diagnosis_is_flagged_by_itself():
    """Both groups miss as many findings; in one they are all of a study, in the other one of two."""
    reference = np.ones((400, 2), dtype=bool)
    drafted = np.array([[i % 2 == 0] * 2 if i < 200 else [True, False] for i in range(400)])
    scored = _scores(["a"] * 200 + ["b"] * 200, drafted, reference)
    gaps = scored.groups[0].gaps
    assert gaps["sensitivity"].difference == 0 and not gaps["sensitivity"].flagged
    assert gaps["under_diagnosis"].difference == 0.5 and gaps["under_diagnosis"].flagged
    assert scored.groups[0].under_diagnosis.n == 200


def test_no_study_states_its_group():
    scored = _scores([""] * 20, np.ones((20, 1)), np.ones((20, 1)))
    assert scored == Grouping(name="sex", unstated=20, groups=())


def _planted(sensitivities, generator, *, alike=False):
    """500 present findings a group, in studies with one or two, of patients with one to three studies."""
    groups, patients, reference, drafted = [], [], [], []
    for group, sensitivity in enumerate(sensitivities):
        left = 500
        while left:
            patient = str(len(groups))
            found = generator.beta(sensitivity * 2, (1 - sensitivity) * 2) if alike else sensitivity
            for _ in range(generator.integers(1, 4)):
                present = np.arange(2) < min(left, generator.integers(0, 3))
                left -= present.sum()
                groups.append(str(group))
                patients.append(patient)
                reference.append(present)
                drafted.append(present & (generator.random(2) < found))
    return {"groups": groups, "drafted": drafted, "reference": reference, "patients": patients}


def _flagged(sensitivities, seed, **more):
    """Of 100 draws, in how many the last group is flagged, and in how many any is."""
    last = some = 0
    for draw in range(100):
        scored = _scores(**_planted(sensitivities, np.random.default_rng([seed, draw]), **more))
        flags = [group.gaps["sensitivity"].flagged for group in scored.groups]
        last, some = last + flags[-1], some + any(flags)
    return last, some


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "sensitivities",
    [(0.9, 0.8), pytest.param((0.9, 0.9, 0.8), marks=SLOW), pytest.param((0.9, 0.9, 0.9, 0.8), marks=SLOW)],
)
def test_a_planted_difference_is_flagged(sensitivities):
    assert _flagged(sensitivities, 1)[0] >= 95


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize(
    "sensitivities",
    [
        (0.85, 0.85),
        (0.9, 0.9),
        pytest.param((0.85, 0.85, 0.85), marks=SLOW),
        pytest.param((0.9, 0.9, 0.9, 0.9), marks=SLOW),
    ],
)
def test_equal_groups_are_not_flagged(sensitivities, alike):
    assert _flagged(sensitivities, 2, alike=alike)[1] <= 5


@pytest.mark.parametrize("kind", ["alone", "alike in fours", "in both groups"])
@pytest.mark.parametrize("sensitivity", [0.6, 0.95])
def test_small_equal_groups_are_not_flagged_more_often_than_alpha(kind, sensitivity):
    """Groups of 14 against 200, where a normal approximation, or one that takes studies for patients, would be."""
    flagged = 0
    for draw in range(200):
        generator = np.random.default_rng([3, draw])
        patients = np.arange(214) // (1 if kind == "alone" else 4)
        if kind == "in both groups":
            patients[:14] = patients[14:28]
        found = generator.beta(2 * sensitivity, 2 * (1 - sensitivity), 214)[patients]
        drafted = generator.random((214, 1)) < (sensitivity if kind == "alone" else found[:, None])
        groups = ["a"] * 14 + ["b"] * 200
        scored = _scores(groups, drafted, np.ones((214, 1)), patients=patients.astype(str))
        flagged += scored.groups[0].gaps["sensitivity"].flagged
    assert flagged <= 10  # 4 are expected at most


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 5))
def test_groups_add_up_to_the_whole_whatever_the_studies(seed, n, size):
    generator = np.random.default_rng(seed)
    drafted, reference, known = generator.random((3, n, 3)) < generator.random((3, 1, 1))
    groups = generator.choice(["a", "b", "c", ""], n)
    patients = (np.arange(n) // size).astype(str)
    scored = _scores(groups, drafted, reference, known=known, patients=patients)
    whole = _scores(np.where(groups == "", "", "all"), drafted, reference, known=known, patients=patients)
    assert scored.unstated == whole.unstated == n - sum(group.n for group in scored.groups)
    for name in ("sensitivity", "specificity", "finding_f1", "under_diagnosis"):
        rates = [getattr(group, name) for group in scored.groups]
        total = [getattr(group, name) for group in whole.groups]
        assert sum(rate.n for rate in rates) == sum(rate.n for rate in total)
        assert sum(rate.events for rate in rates) == sum(rate.events for rate in total)
        for rate in rates:
            assert (rate.value is None) == (rate.n == 0)
            assert rate.value is None or 0 <= rate.low <= rate.value <= rate.high <= 1
    for gap in (gap for group in scored.groups for gap in group.gaps.values()):
        assert gap.p is None or 0 <= gap.p <= gap.p_holm <= 1
        assert gap.difference is None or gap.low - 1e-12 <= gap.difference <= gap.high + 1e-12
    order = generator.permutation(n)
    again = _scores(groups[order], drafted[order], reference[order], known=known[order], patients=patients[order])
    for one, other in zip(scored.groups, again.groups, strict=True):
        for a, b in zip(vars(one.sensitivity).values(), vars(other.sensitivity).values(), strict=True):
            assert a == b or a == pytest.approx(b)
