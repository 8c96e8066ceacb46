import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from mmfm.evaluation.curves import POINTS, Curves
from mmfm.evaluation.probabilities import Probabilities
from mmfm.jsonable import from_json, to_json


def _made(n, *, decimals=9, rate=0.3):
    generator = np.random.default_rng(n)
    truth = (generator.random((n, 3)) < [rate, rate / 2, 0]).astype(float)
    truth[: n // 10, 0] = np.nan
    predicted = np.clip(0.3 * np.nan_to_num(truth) + 0.7 * generator.random((n, 3)), 0, 1).round(decimals)
    return Probabilities(labels=("edema", "mass", "hernia"), predicted_NL=predicted, truth_NL=truth)


def _known(probabilities, column):
    predicted, truth, _ = probabilities.known(column)
    return truth, predicted


def test_few_points_are_those_of_scikit_learn():
    made = _made(100, decimals=1)
    curves = Curves.of(made)
    for column, (roc, pr) in enumerate(zip(curves.roc, curves.precision_recall, strict=True)):
        truth, predicted = _known(made, column)
        false, true, _ = roc_curve(truth, predicted, drop_intermediate=False)
        assert (roc.false_positive_rate, roc.true_positive_rate) == (pytest.approx(false), pytest.approx(true))
        precision, recall, _ = precision_recall_curve(truth, predicted)
        assert set(zip(np.round(pr.recall, 9), np.round(pr.precision, 9), strict=True)) <= set(
            zip(recall.round(9), precision.round(9), strict=True)
        )
        steps = np.diff(pr.recall, prepend=0) @ np.array(pr.precision)
        assert steps == pytest.approx(average_precision_score(truth, predicted))
        assert (roc.n, roc.positives, pr.n, pr.positives) == 2 * (len(truth), truth.sum())
        assert pr.prevalence == pytest.approx(truth.mean())


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_many_points_are_thinned_and_keep_the_area(rate):
    made = _made(5000, rate=rate)
    curves = Curves.of(made)
    for column, (roc, pr) in enumerate(zip(curves.roc, curves.precision_recall, strict=True)):
        truth, predicted = _known(made, column)
        assert len(roc.true_positive_rate) <= POINTS >= len(pr.recall)
        assert (roc.false_positive_rate[0], roc.true_positive_rate[0]) == (0, 0)
        assert (roc.false_positive_rate[-1], roc.true_positive_rate[-1]) == (1, 1)
        false, true, _ = roc_curve(truth, predicted)
        assert auc(roc.false_positive_rate, roc.true_positive_rate) == pytest.approx(auc(false, true), abs=0.005)
        assert pr.recall[-1] == 1
        steps = np.diff(pr.recall, prepend=0) @ np.array(pr.precision)
        assert steps == pytest.approx(average_precision_score(truth, predicted), abs=0.02)


def test_the_bins_of_the_reliability_plot_are_those_of_ece():
    made = _made(600)
    scores = made.scores(np.ones((1, 600)))
    for reliability in Curves.of(made).reliability:
        gaps = [bin.n * abs(bin.observed - bin.predicted) for bin in reliability.bins]
        assert sum(gaps) / reliability.n == pytest.approx(scores[f"ece.{reliability.label}"][0])
        assert sum(bin.n for bin in reliability.bins) == reliability.n
        assert sum(bin.n * bin.observed for bin in reliability.bins) == pytest.approx(reliability.positives)
        assert len(reliability.bins) == 15
        for bin in reliability.bins:
            interval = binomtest(round(bin.n * bin.observed), bin.n).proportion_ci(method="wilson")
            assert (bin.low, bin.high) == pytest.approx((interval.low, interval.high))


def test_risk_and_coverage():
    made = _made(600)
    curve = Curves.of(made).risk_coverage
    scores = made.scores(np.ones((1, 600)))
    assert (curve.aurc, curve.aurc_random) == pytest.approx((scores["aurc"][0], scores["aurc_random"][0]))
    assert len(curve.risk) == len(curve.coverage) <= POINTS
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(curve.aurc_random) == curve.errors / curve.decisions
    assert curve.risk[20] < curve.risk[-1]
    (truth, p), (more, q) = _known(made, 0), _known(made, 1)
    truth, p = np.append(truth, more), np.append(p, q)
    sure = np.maximum(p, 1 - p)
    best = np.argsort(-sure)[: round(curve.coverage[50] * len(p))]
    assert curve.risk[50] == pytest.approx(((p[best] >= 0.5) != truth[best]).mean())


def test_confidence_is_the_way_from_the_threshold():
    truth = (np.arange(40) % 2 == 0).astype(float)[:, None]
    predicted = np.where(np.arange(40) < 20, 0.2, 0.6)[:, None]  # half way, and a quarter of it, from 0.4 to the ends
    predicted[20:30] = 0.35
    made = Probabilities(labels=("o",), predicted_NL=predicted, truth_NL=truth, thresholds={"o": 0.4})
    decisions, _ = made.risk_groups()
    assert decisions.shape == (40, 3)
    assert decisions.argmax(axis=1).tolist() == [0] * 20 + [2] * 10 + [1] * 10


def test_labels_that_do_not_qualify_have_no_curve():
    assert [roc.label for roc in Curves.of(_made(100)).roc] == ["edema", "mass"]
    nothing = Curves.of(_made(100).take(np.arange(5)))
    assert nothing == Curves(roc=(), precision_recall=(), reliability=(), risk_coverage=None)


def test_curves_have_a_round_trip_to_json():
    for curves in (Curves.of(_made(1000)), Curves.of(_made(100).take(np.arange(5)))):
        assert from_json(Curves, json.loads(json.dumps(to_json(curves), allow_nan=False))) == curves
