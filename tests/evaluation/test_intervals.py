import numpy as np
import pytest
from scipy.stats import binomtest

from mmfm.evaluation.intervals import (
    Estimate,
    bootstrap_p,
    centred_interval,
    holm,
    patient_resamples,
    percentile_interval,
    wilson_interval,
)
from mmfm.evaluation.probabilities import ece


def test_patients_are_drawn_whole():
    weights = patient_resamples(["a", "b", "a", "c"], generator=np.random.default_rng(0), rounds=500)
    assert weights.shape == (500, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    again = patient_resamples(["a", "b", "a", "c"], generator=np.random.default_rng(0), rounds=500)
    assert (weights == again).all()


def test_the_interval_of_a_mean_is_that_of_theory():
    sample = np.random.default_rng(0).normal(size=400)
    weights = patient_resamples([str(i) for i in range(400)], generator=np.random.default_rng(1), rounds=4000)
    low, high = percentile_interval(weights @ sample / weights.sum(axis=1))
    half = 1.96 * sample.std() / 20
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.006)


def test_undefined_rounds_are_left_out():
    assert percentile_interval(np.array([np.nan, 1.0, 1.0])) == (1, 1)
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()
    assert np.isnan(bootstrap_p(np.array([np.nan])))


def test_p_counts_the_far_side():
    assert bootstrap_p(np.ones(999)) == pytest.approx(2 / 1000)
    assert bootstrap_p(-np.ones(999)) == pytest.approx(2 / 1000)
    assert bootstrap_p(np.zeros(999)) == 1
    assert bootstrap_p(np.concatenate([np.ones(90), -np.ones(9)])) == pytest.approx(0.2)


def test_holm():
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": float("nan")}
    adjusted = holm(p)
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": float("nan")}, nan_ok=True)
    assert holm({}) == {}


@pytest.mark.parametrize(("events", "n"), [(0, 10), (3, 10), (10, 10), (450, 500)])
def test_wilsons_interval(events, n):
    expected = binomtest(events, n).proportion_ci(method="wilson")
    assert wilson_interval(events / n, n) == pytest.approx((expected.low, expected.high))
    assert np.isnan(wilson_interval(0.5, 0)).all()


def test_an_undefined_score_is_none_and_not_nan():
    assert Estimate.of(float("nan"), np.array([np.nan]), n=0) == Estimate(value=None, low=None, high=None, n=0)
    assert Estimate.of(1 / 3, np.array([1 / 3, 1 / 3]), n=3, events=1).value == 0.333333


def test_rounds_that_are_inflated_are_centred_on_the_score():
    draws = np.append(np.linspace(0.2, 0.4, 1001), np.nan)
    assert centred_interval(draws, 0.25) == pytest.approx((0.155, 0.345))
    assert centred_interval(draws, 0.05) == pytest.approx((0, 0.145))
    assert np.isnan(centred_interval(np.array([np.nan]), 0.1)).all()


def test_the_centred_interval_of_ece_holds_it():
    generator = np.random.default_rng(0)
    for _ in range(20):
        predicted = generator.random(300)
        truth = (generator.random(300) < predicted).astype(float)
        value = ece(predicted, truth, np.ones((1, 300)))[0]
        draws = ece(predicted, truth, generator.multinomial(300, np.full(300, 1 / 300), size=200).astype(float))
        low, high = centred_interval(draws, value)
        assert low < value < high
