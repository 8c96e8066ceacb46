import time
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, log_loss, roc_auc_score

from mmfm.evaluation.intervals import patient_resamples, wilson_interval
from mmfm.evaluation.probabilities import (
    MACRO_LABELS,
    Probabilities,
    area_under_risk,
    ece,
    ece_edges,
    logit,
    rank_scores,
    recalibration,
)
from mmfm.evaluation.resampling import Resampled
from mmfm.report import Status


@pytest.fixture
def made():
    generator = np.random.default_rng(1)
    truth = generator.random((200, 5)) < 0.2
    predicted = np.clip(truth * 0.3 + generator.random((200, 5)).round(1) * 0.7, 0, 1)  # rounded: many ties
    return truth, predicted


def _of(truth, predicted, **more):
    labels = [
        {name: Status.PRESENT if t else Status.ABSENT for name, t in zip(MACRO_LABELS, row, strict=True)} | more
        for row in truth
    ]
    return Probabilities.of([dict(zip(MACRO_LABELS, row, strict=True)) for row in predicted.tolist()], labels)


def test_scores_are_those_of_scikit_learn(made):
    truth, predicted = made
    scores = _of(*made).scores(np.ones((1, 200)))
    for label, t, p in zip(MACRO_LABELS, truth.T, predicted.T, strict=True):
        assert scores[f"auroc.{label}"][0] == pytest.approx(roc_auc_score(t, p))
        assert scores[f"auprc.{label}"][0] == pytest.approx(average_precision_score(t, p))
        assert scores[f"brier.{label}"][0] == pytest.approx(brier_score_loss(t, p))
    assert scores["auroc_macro"][0] == pytest.approx(roc_auc_score(truth, predicted))


def test_weights_are_repeated_studies(made):
    truth, predicted = made[0][:, 0], made[1][:, 0]
    weights = np.random.default_rng(2).integers(0, 4, size=(3, 200)).astype(float)
    auroc, auprc = rank_scores(predicted, truth.astype(float), weights)
    for r, weight in enumerate(weights):
        assert auroc[r] == pytest.approx(roc_auc_score(truth, predicted, sample_weight=weight))
        assert auprc[r] == pytest.approx(average_precision_score(truth, predicted, sample_weight=weight))
    assert np.isnan(rank_scores(predicted, truth.astype(float), truth[None].astype(float))[0])


def test_the_base_rate_has_no_skill(made):
    truth = made[0]
    scores = _of(truth, np.tile(truth.mean(axis=0), (200, 1))).scores(np.ones((1, 200)))
    assert scores["brier_skill_macro"][0] == pytest.approx(0)
    assert scores["auroc_macro"][0] == 0.5


def test_labels_with_few_positives_are_left_out_and_so_is_the_macro(made):
    truth, predicted = made
    truth = truth.copy()
    truth[:, 0] = np.arange(200) < 9
    few = _of(truth, predicted)
    scores = few.scores(np.ones((1, 200)))
    assert f"auroc.{MACRO_LABELS[0]}" not in scores
    assert "auroc_macro" not in scores
    assert few.counts().keys() == scores.keys()


def test_null_and_uncertain_are_not_scored(made):
    truth, predicted = made
    probabilities = _of(truth, predicted)
    unknown = np.arange(200) % 2 == 0
    labels = [
        {MACRO_LABELS[1]: None if i % 4 else Status.UNCERTAIN}
        if unknown[i]
        else {MACRO_LABELS[1]: Status.PRESENT if truth[i, 1] else Status.ABSENT}
        for i in range(200)
    ]
    half = Probabilities.of([{MACRO_LABELS[1]: float(p)} for p in predicted[:, 1]], labels)
    name = f"auroc.{MACRO_LABELS[1]}"
    kept = probabilities.take(np.flatnonzero(~unknown))
    assert half.scores(np.ones((1, 200)))[name] == kept.scores(np.ones((1, 100)))[name]
    assert half.counts()[name] == (100, int(truth[~unknown, 1].sum()))


ONE = np.ones((1, 200))


def test_what_a_study_does_not_state_is_scored_as_0(made):
    truth, predicted = made
    predicted = predicted.copy()
    predicted[::2, :2] = predicted[1::4, 2:] = 0
    labels = [{n: Status.PRESENT if t else Status.ABSENT for n, t in zip(MACRO_LABELS, r, strict=True)} for r in truth]
    stated = [{n: p for n, p in zip(MACRO_LABELS, row, strict=True) if p} or None for row in predicted.tolist()]
    found, whole = Probabilities.of(stated, labels), _of(truth, predicted)
    assert found.labels == whole.labels
    assert found.predicted_NL.tolist() == whole.predicted_NL.tolist()


def test_decisions_are_counted_at_the_threshold_that_was_handed_in(made):
    truth, predicted = made
    plain = _of(*made)
    assert not [name for name in plain.scores(ONE) if name.startswith(("sensitivity", "specificity", "ppv", "npv"))]
    label, t, p = MACRO_LABELS[1], truth[:, 1], predicted[:, 1]
    threshold = float(np.sort(p)[120])  # one of the probabilities: it is called present itself
    scores = replace(plain, thresholds={label: threshold, "unheard of": 0.1}).scores(ONE)
    assert scores.keys() - plain.scores(ONE).keys() == {
        f"{kind}.{label}" for kind in ("sensitivity", "specificity", "ppv", "npv")
    }
    tn, fp, fn, tp = confusion_matrix(t, p >= threshold).ravel()
    assert scores[f"sensitivity.{label}"][0] == pytest.approx(tp / (tp + fn))
    assert scores[f"specificity.{label}"][0] == pytest.approx(tn / (tn + fp))
    assert scores[f"ppv.{label}"][0] == pytest.approx(tp / (tp + fp))
    assert scores[f"npv.{label}"][0] == pytest.approx(tn / (tn + fn))


def test_nothing_called_present_has_no_ppv(made):
    scores = replace(_of(*made), thresholds={MACRO_LABELS[0]: 1.1}).scores(ONE)
    assert np.isnan(scores[f"ppv.{MACRO_LABELS[0]}"][0])
    assert scores[f"sensitivity.{MACRO_LABELS[0]}"][0] == 0


def test_ece_by_hand():
    predicted = np.repeat([0.1, 0.6], 20)
    truth = np.concatenate([np.arange(20) < 4, np.arange(20) < 10]).astype(float)
    assert ece(predicted, truth, np.ones((1, 40)))[0] == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    one_bin = np.concatenate([np.ones(20), np.zeros(20)])[None]
    assert ece(predicted, truth, one_bin)[0] == pytest.approx(0.1)


def test_ece_has_at_most_15_bins_of_about_equal_mass_that_part_no_ties():
    spread = np.sort(np.random.default_rng(0).random(1000))
    assert np.diff(ece_edges(spread)).tolist() == pytest.approx([1000 / 15] * 15, abs=1)
    assert len(ece_edges(spread[:100])) == 6
    tied = np.sort(spread.round(1))
    assert set(ece_edges(tied)) <= {0, *np.flatnonzero(np.diff(tied)) + 1, 1000}
    assert ece_edges(np.zeros(100)).tolist() == [0, 100]


def test_the_base_rate_has_the_best_ece_and_no_skill(made):
    truth = made[0]
    scores = _of(truth, np.tile(truth.mean(axis=0), (200, 1))).scores(ONE)
    assert scores["ece_macro"][0] == pytest.approx(0)
    assert scores["brier_skill_macro"][0] == pytest.approx(0)


def test_ece_is_never_there_without_brier_skill(made):
    scores = _of(*made).scores(ONE)
    names = [name for name in scores if name.startswith("ece")]
    assert names
    assert {name.replace("ece", "brier_skill", 1) for name in names} <= set(scores)


@pytest.fixture
def bent():
    """Probabilities whose logits were halved and shifted, so that slope 2 and intercept 1 mend them."""
    generator = np.random.default_rng(3)
    eta = generator.normal(-2, 1.5, 4000)
    truth = (generator.random(4000) < 1 / (1 + np.exp(-eta))).astype(float)
    return 1 / (1 + np.exp(-(eta - 1) / 2)), truth


def test_slope_and_intercept_are_those_of_a_logistic_regression(bent):
    predicted, truth = bent
    generator = np.random.default_rng(4)
    weights = np.concatenate([np.ones((1, 4000)), generator.poisson(1, (2, 4000))]).astype(float)
    slopes, intercepts = recalibration(predicted, truth, weights)
    assert slopes[0] == pytest.approx(2, abs=0.15)
    assert intercepts[0] == pytest.approx(1, abs=0.2)
    for weight, slope, intercept, within in zip(weights, slopes, intercepts, (1e-5, 2e-3, 2e-3), strict=True):
        fit = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(predicted)[:, None], truth, sample_weight=weight)
        assert slope == pytest.approx(fit.coef_[0, 0], abs=within)  # a resample has a standard error of 0.06
        assert intercept == pytest.approx(fit.intercept_[0], abs=within)


def test_slope_with_certain_probabilities_is_still_that_of_a_logistic_regression(bent):
    predicted, truth = bent[0].copy(), bent[1]
    predicted[:40], predicted[40:60] = 0, 1
    slope, intercept = recalibration(predicted, truth, np.ones((1, 4000)))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(predicted)[:, None], truth)
    assert slope[0] == pytest.approx(fit.coef_[0, 0], abs=1e-5)
    assert intercept[0] == pytest.approx(fit.intercept_[0], abs=1e-5)


@pytest.mark.parametrize("case", ["one probability", "apart", "one class"])
def test_no_slope_where_there_is_no_fit(case):
    truth = (np.arange(100) < 30).astype(float)
    predicted = np.where(truth == 1, 0.8, 0.3) if case == "apart" else np.linspace(0.1, 0.9, 100)
    if case == "one probability":
        predicted = np.full(100, 0.3)
    weights = np.ones((2, 100)) if case != "one class" else np.stack([truth, 1 - truth])
    for values in recalibration(predicted, truth, weights):
        assert np.isnan(values).all()


def test_a_round_without_a_fit_leaves_the_others_alone(bent):
    predicted, truth = bent
    weights = np.stack([np.ones(4000), 1 - truth, np.ones(4000)])
    slopes, _ = recalibration(predicted, truth, weights)
    assert np.isnan(slopes).tolist() == [False, True, False]
    assert slopes[0] == pytest.approx(slopes[2])


def test_log_loss_is_that_of_scikit_learn(made):
    truth, predicted = made
    scores = _of(*made).scores(ONE)
    kept = np.clip(predicted[:, 2], 1e-6, 1 - 1e-6)
    assert scores[f"log_loss.{MACRO_LABELS[2]}"][0] == pytest.approx(log_loss(truth[:, 2], kept))


def test_every_score_of_a_weighting_is_that_of_the_repeated_studies(made):
    """What the bootstrap relies on; the bins of ECE are those of all studies, so it is left out."""
    probabilities = replace(_of(*made), thresholds={MACRO_LABELS[3]: 0.3})
    weights = np.random.default_rng(5).integers(1, 4, size=200)
    weighted = probabilities.scores(weights[None].astype(float))
    repeated = probabilities.take(np.repeat(np.arange(200), weights)).scores(np.ones((1, weights.sum())))
    assert weighted.keys() == repeated.keys()
    for name in weighted:
        if not name.startswith("ece"):
            assert weighted[name][0] == pytest.approx(repeated[name][0], abs=1e-6), name


def test_labels_without_scores_are_named_with_the_reason(made):
    truth, predicted = made
    truth = truth.copy()
    truth[:, 0] = False
    truth[:, 1] = np.arange(200) >= 3
    few = _of(truth, predicted)
    assert few.not_scored() == {MACRO_LABELS[0]: "0 positive of 200", MACRO_LABELS[1]: "3 negative of 200"}
    assert not [name for name in few.scores(ONE) if name.endswith(MACRO_LABELS[:2])]
    nobody = Probabilities.of([{"edema": 0.5}] * 20, [{}] * 20)
    assert nobody.not_scored() == {"edema": "0 positive of 0"}
    assert nobody.scores(np.ones((1, 20))) == {}


def _aurc(confidence, wrong):
    """The definition: the error rate among the k most confident, mean over k."""
    errors = wrong[np.argsort(-confidence)]
    return np.mean(np.cumsum(errors) / np.arange(1, len(errors) + 1))


def test_area_under_risk_is_that_of_the_definition():
    generator = np.random.default_rng(6)
    confidence, wrong = generator.random(150), generator.random(150) < 0.3
    order = np.argsort(-confidence)
    area = area_under_risk(np.ones((1, 150)), wrong[order].astype(float)[None])
    assert area[0] == pytest.approx(_aurc(confidence, wrong))


def test_area_under_risk_of_ties_is_the_mean_over_their_orders():
    wrong = np.array([0, 1, 0, 1, 1, 0, 0])
    areas = [
        _aurc(-np.arange(7), np.concatenate([wrong[list(first)], wrong[3:][list(then)]]))
        for first in permutations(range(3))
        for then in permutations(range(4))
    ]
    assert area_under_risk(np.array([[3.0, 4.0]]), np.array([[1.0, 2.0]]))[0] == pytest.approx(np.mean(areas))


def test_area_under_risk_of_probabilities(made):
    truth, predicted = made
    probabilities = _of(*made)
    scores = probabilities.scores(ONE)
    wrong = (predicted >= 0.5) != truth
    assert scores["aurc_random"][0] == pytest.approx(wrong.mean())
    assert scores["aurc"][0] < wrong.mean()
    assert scores["aurc"][0] == pytest.approx(_aurc(np.abs(predicted - 0.5).ravel(), wrong.ravel()), abs=0.01)
    assert probabilities.counts()["aurc"] == (1000, wrong.sum())


def test_a_thousand_rounds_take_seconds():
    """14 labels of 3,858 studies in 1,000 rounds take about 1 s, and would take minutes one round at a time."""
    generator = np.random.default_rng(7)
    truth = (generator.random((3858, 14)) < 0.1).astype(float)
    many = Probabilities(
        labels=tuple(f"label {i}" for i in range(14)), predicted_NL=generator.random((3858, 14)), truth_NL=truth
    )
    weights = generator.poisson(1, (1000, 3858)).astype(float)
    began = time.process_time()
    many.scores(weights)
    assert time.process_time() - began < 10


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(20, 120), st.integers(1, 4))
def test_scores_stay_in_their_range_and_know_no_order_of_studies(seed, n, decimals):
    generator = np.random.default_rng(seed)
    truth = (generator.permutation(n) < generator.integers(10, n - 9))[:, None].astype(float)
    predicted = generator.random((n, 1)).round(decimals)
    made = Probabilities(labels=("o",), predicted_NL=predicted, truth_NL=truth, thresholds={"o": generator.random()})
    weights = generator.poisson(1, (5, n)).astype(float)
    scores = made.scores(weights)
    for name, values in scores.items():
        values = values[~np.isnan(values)]
        if name.startswith("calibration"):
            continue
        assert (values <= (np.inf if name.startswith("log_loss") else 1 + 1e-9)).all(), name
        assert (values >= (-np.inf if name.startswith("brier_skill") else -1e-9)).all(), name
    order = generator.permutation(n)
    again = made.take(order).scores(weights[:, order])
    for name in scores:
        assert again[name] == pytest.approx(scores[name], nan_ok=True, abs=1e-6, rel=1e-4), name


def test_shares_of_probabilities_at_0_or_1_have_an_interval():
    truth = np.zeros((40, 5), dtype=bool)
    truth[:12] = True
    predicted = np.where(truth, 0.9, np.linspace(0, 0.4, 40)[:, None])  # none is mistaken
    probabilities = replace(_of(truth, predicted), thresholds=dict.fromkeys(MACRO_LABELS, 0.6))
    weights = patient_resamples([str(i) for i in range(40)], generator=np.random.default_rng(0))
    found = Resampled.of([probabilities], weights).estimates()
    for kind, trials in (("auroc", 12), ("sensitivity", 12), ("specificity", 28), ("ppv", 12), ("npv", 28)):
        each = found[f"{kind}.normal"]
        assert (each.value, each.low, each.high) == (1, round(wilson_interval(1, trials)[0], 6), 1)


def test_the_mean_auroc_is_over_all_labels_that_are_scored():
    generator = np.random.default_rng(1)
    truth = (generator.random((80, 3)) < [0.4, 0.3, 0.02]).astype(float)
    given = Probabilities(labels=("edema", "mass", "hernia"), predicted_NL=generator.random((80, 3)), truth_NL=truth)
    scores, counts = given.scores(np.ones((1, 80))), given.counts()
    assert scores["auroc_mean"] == pytest.approx((scores["auroc.edema"] + scores["auroc.mass"]) / 2)
    assert counts["auroc_mean"] == (80, int(truth[:, :2].sum()))
    assert "auroc_macro" not in scores
