import json
import time

import numpy as np
import pytest

from mmfm.evaluation.conformal import Conformal, conformal_limits, conformal_scores
from mmfm.evaluation.probabilities import Probabilities
from mmfm.jsonable import from_json, to_json


def _made(n, rate=0.2, labels=1, seed=0):
    generator = np.random.default_rng(seed)
    truth = (generator.random((n, labels)) < rate).astype(float)
    predicted = 1 / (1 + np.exp(-generator.normal(2.5 * truth - 2.5, 1)))
    return Probabilities(labels=tuple(f"o{i}" for i in range(labels)), predicted_NL=predicted, truth_NL=truth)


def _scores(probabilities, patients=None, **more):
    patients = [str(i) for i in range(len(probabilities.truth_NL))] if patients is None else patients
    return conformal_scores(probabilities, patients=patients, generator=np.random.default_rng(1), **more)


def test_the_limit_by_hand():
    scores = np.array([0.5, 0.1, 0.9, 0.3, 0.7])
    every = np.ones((1, 5), dtype=bool)
    assert conformal_limits(scores, every, 0.4)[0] == 0.7  # the ceil(6 * 0.6) = 4th of 5
    assert conformal_limits(scores, every, 0.5)[0] == 0.5
    assert conformal_limits(scores, every, 0.1)[0] == np.inf  # the 6th of 5
    some = np.array([[True, False, True, True, False], [False] * 5])
    assert conformal_limits(scores, some, 0.5).tolist() == [0.5, np.inf]


def test_a_tenth_outside_of_nine_is_the_largest():
    assert conformal_limits(np.arange(9.0), np.ones((1, 9), dtype=bool), 0.1)[0] == 8


def test_scores_are_those_of_one_split_at_a_time():
    probabilities = _made(300)
    patients = np.array([str(i // 3) for i in range(300)])
    marginal, by_class = _scores(probabilities, patients, splits=7)
    p, t = probabilities.predicted_NL[:, 0], probabilities.truth_NL[:, 0] == 1
    generator = np.random.default_rng(1)
    half = generator.permuted(np.tile(np.arange(100) < 50, (7, 1)), axis=1)
    rows = {"marginal": [], "by_class": []}
    for split in half:
        chosen = set(np.unique(patients)[split])
        fitted = np.array([patient in chosen for patient in patients])

        def limit(scores):
            share = np.ceil((len(scores) + 1) * 0.9) / len(scores)
            return np.quantile(scores, share, method="inverted_cdf") if share <= 1 else np.inf

        one = limit(np.where(t, 1 - p, p)[fitted])
        two = limit((1 - p)[fitted & t]), limit(p[fitted & ~t])
        for name, (present_limit, absent_limit) in (("marginal", (one, one)), ("by_class", two)):
            present, absent = (1 - p <= present_limit)[~fitted], (p <= absent_limit)[~fitted]
            covered = np.where(t[~fitted], present, absent)
            rows[name].append(
                [covered.mean(), covered[t[~fitted]].mean(), (present * 1 + absent).mean(), (present & absent).mean()]
            )
    for scored in (marginal, by_class):
        each = np.array(rows[scored.variant])
        got = [scored.coverage, scored.coverage_positives, scored.set_size, scored.both]
        assert got == pytest.approx(each.mean(axis=0))
        assert scored.coverage_sd == pytest.approx(each[:, 0].std(ddof=1))
        assert scored.only_present + scored.only_absent + scored.both + scored.neither == pytest.approx(1)


def test_coverage_is_what_was_asked_for():
    """Of all studies by both variants, of the positive ones by that with two limits alone."""
    marginal, by_class = _scores(_made(2000))
    assert marginal.coverage == pytest.approx(0.9, abs=0.01)
    assert by_class.coverage == pytest.approx(0.9, abs=0.01)
    assert by_class.coverage_positives == pytest.approx(0.9, abs=0.02)
    assert marginal.coverage_positives < 0.85
    assert 0 < marginal.coverage_sd < 0.03


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5])
def test_coverage_holds_for_probabilities_of_any_kind(alpha):
    """Of probabilities that are of no use, too: the sets are larger, and cover."""
    useless = _made(1000)
    useless = Probabilities(
        labels=useless.labels,
        predicted_NL=np.random.default_rng(5).random((1000, 1)) ** 3,
        truth_NL=useless.truth_NL,
    )
    better = {row.variant: row for row in _scores(_made(1000), alpha=alpha)}
    for row in _scores(useless, alpha=alpha):
        assert row.coverage == pytest.approx(1 - alpha, abs=0.02)
        assert row.set_size > better[row.variant].set_size


def test_too_few_positives_for_a_limit_are_always_held():
    truth = (np.arange(200) < 10).astype(float)[:, None]
    predicted = np.random.default_rng(0).random((200, 1))
    few = Probabilities(labels=("o0",), predicted_NL=predicted, truth_NL=truth)
    _, by_class = _scores(few)
    assert by_class.positives == 10
    assert by_class.coverage_positives > 0.95  # in most splits half of them are fewer than 9
    assert by_class.only_absent < 0.1


def test_labels_that_do_not_qualify_are_left_out():
    made = _made(200, labels=2)
    made.truth_NL[:, 1] = np.nan
    made.truth_NL[:9, 1] = 1
    assert {row.label for row in _scores(made)} == {"o0"}
    nothing = Probabilities(labels=("o1",), predicted_NL=made.predicted_NL[:, 1:], truth_NL=made.truth_NL[:, 1:])
    assert _scores(nothing) == ()


def test_patients_are_not_parted():
    """Each patient has the same study twenty times over: were they parted, every limit would be known beforehand."""
    probabilities = _made(100, rate=0.5)
    again = probabilities.take(np.repeat(np.arange(100), 20))
    whole = _scores(again, [str(i // 20) for i in range(2000)])[0]
    parted = _scores(again)[0]
    assert parted.coverage_sd < 0.02 < whole.coverage_sd


def test_the_same_seed_gives_the_same_and_json_keeps_it():
    rows = _scores(_made(200))
    assert rows == _scores(_made(200))
    assert [from_json(Conformal, json.loads(json.dumps(to_json(row)))) for row in rows] == list(rows)


def test_a_large_test_set_takes_a_second_or_two():
    many = _made(3858, labels=14)
    began = time.process_time()
    _scores(many)
    assert time.process_time() - began < 4
