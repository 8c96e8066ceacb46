import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

from mmfm.evaluation.calibration import Calibration, calibration_scores, cross_fitted, fitted_elsewhere
from mmfm.evaluation.intervals import patient_resamples
from mmfm.evaluation.probabilities import Probabilities
from mmfm.jsonable import from_json, to_json

METHODS = ("temperature", "isotonic")


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _extreme(n, seed=0, label="edema"):
    """Probabilities whose logits are three times what they should be: the temperature is 3."""
    generator = np.random.default_rng(seed)
    eta = generator.normal(-1, 1.5, (n, 1))
    truth = (generator.random((n, 1)) < _sigmoid(eta)).astype(float)
    return Probabilities(labels=(label,), predicted_NL=_sigmoid(3 * eta), truth_NL=truth, thresholds={label: 0.4})


def _each(probabilities):
    return [str(i) for i in range(len(probabilities.truth_NL))]


def test_the_temperature_is_found_elsewhere():
    elsewhere, scored = _extreme(20000, seed=1), _extreme(50, seed=2)
    calibrated = fitted_elsewhere(scored, elsewhere, method="temperature")
    p, after = (each.predicted_NL[:, 0] for each in (scored, calibrated))
    inside = (p > 1e-6) & (p < 1 - 1e-6)  # the rest is kept there before its logit is divided
    found = (np.log(p / (1 - p)) / np.log(after / (1 - after)))[inside]
    assert len(found) > 40 and found == pytest.approx(np.full(len(found), found[0]), rel=1e-3)
    assert found[0] == pytest.approx(3, rel=0.05)
    q, t = elsewhere.predicted_NL[:, 0], elsewhere.truth_NL[:, 0]
    best = minimize_scalar(lambda x: log_loss(t, _sigmoid(np.log(q / (1 - q)) / x)), bounds=(1, 9), method="bounded")
    assert found[0] == pytest.approx(best.x, rel=1e-3)


def test_isotonic_is_that_of_scikit_learn():
    elsewhere, scored = _extreme(500, seed=1), _extreme(50, seed=2)
    fit = IsotonicRegression(out_of_bounds="clip").fit(elsewhere.predicted_NL[:, 0], elsewhere.truth_NL[:, 0])
    calibrated = fitted_elsewhere(scored, elsewhere, method="isotonic")
    assert calibrated.predicted_NL[:, 0] == pytest.approx(fit.predict(scored.predicted_NL[:, 0]))


@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_a_patient_is_in_what_its_studies_are_calibrated_by(method):
    """Turning round the truth of one patient changes no probability of the patients of the same part."""
    made = _extreme(200)
    patients = [str(i // 10) for i in range(200)]
    turned = made.truth_NL.copy()
    turned[:10] = 1 - turned[:10]
    other = Probabilities(labels=made.labels, predicted_NL=made.predicted_NL, truth_NL=turned)
    before, after = (
        cross_fitted(each, patients=patients, method=method, generator=np.random.default_rng(3)).predicted_NL
        for each in (made, other)
    )
    same = (before == after).reshape(20, 10).all(axis=1)
    assert same[0]
    assert same.sum() == 4  # patients of one part of five


@pytest.mark.parametrize("method", METHODS)
def test_cross_fitting_does_not_find_what_is_not_there(method):
    """Truth that no probability knows about: fitted on itself, isotonic regression would show skill."""
    generator = np.random.default_rng(4)
    blind = Probabilities(
        labels=("edema",),
        predicted_NL=generator.random((300, 1)),
        truth_NL=(generator.random((300, 1)) < 0.3).astype(float),
    )
    ones = np.ones((1, 300))
    fitted = cross_fitted(blind, patients=_each(blind), method=method, generator=generator)
    assert fitted.calibration(0, ones)["brier_skill"][0] < 0
    if method == "isotonic":
        assert fitted_elsewhere(blind, blind, method=method).calibration(0, ones)["brier_skill"][0] > 0


def test_before_and_after():
    made = _extreme(3000)
    resamples = patient_resamples(_each(made), generator=np.random.default_rng(0), rounds=200)
    rows = calibration_scores(made, patients=_each(made), generator=np.random.default_rng(1), resamples_RN=resamples)
    assert [(row.label, row.method) for row in rows] == [("edema", m) for m in ("none", *METHODS)]
    before, temperature, isotonic = (row.scores for row in rows)
    t, p = made.truth_NL[:, 0], made.predicted_NL[:, 0]
    assert before["brier"].value == pytest.approx(brier_score_loss(t, p))
    assert before["calibration_slope"].value == pytest.approx(1 / 3, abs=0.05)
    assert temperature["calibration_slope"].value == pytest.approx(1, abs=0.1)
    for after in (temperature, isotonic):
        for kind in ("brier", "log_loss", "ece"):
            assert after[kind].value < before[kind].low, kind
        assert after["brier_skill"].low > before["brier_skill"].value
    assert all(row.n == 3000 and row.positives == t.sum() for row in rows)
    assert [from_json(Calibration, json.loads(json.dumps(to_json(row), allow_nan=False))) for row in rows] == list(rows)


def test_studies_without_the_label_take_no_part():
    made = _extreme(400)
    made.truth_NL[::2] = np.nan
    kept = made.take(np.arange(1, 400, 2))
    elsewhere = _extreme(1000, seed=9)
    resamples = np.random.default_rng(0).poisson(1, (20, 400)).astype(float)
    rows, of_kept = (
        calibration_scores(
            part, patients=_each(part), generator=np.random.default_rng(1), resamples_RN=drawn, fitted_on=elsewhere
        )
        for part, drawn in ((made, resamples), (kept, resamples[:, 1::2]))
    )
    assert rows == of_kept
    assert rows[0].n == 200


def test_labels_that_cannot_be_fitted_elsewhere_have_their_scores_before_alone():
    made, elsewhere = _extreme(400), _extreme(400, label="hernia")
    rows = calibration_scores(
        made,
        patients=_each(made),
        generator=np.random.default_rng(1),
        resamples_RN=np.ones((2, 400)),
        fitted_on=elsewhere,
    )
    assert [row.method for row in rows] == ["none"]


@pytest.mark.parametrize("method", METHODS)
def test_a_part_with_all_the_positives_keeps_its_probabilities(method):
    """All positive studies are of one patient: nothing can be fitted for it."""
    truth = (np.arange(100) < 12).astype(float)[:, None]
    made = Probabilities(labels=("edema",), predicted_NL=np.random.default_rng(0).random((100, 1)), truth_NL=truth)
    patients = ["ill"] * 12 + [str(i) for i in range(88)]
    calibrated = cross_fitted(made, patients=patients, method=method, generator=np.random.default_rng(0))
    assert (calibrated.predicted_NL[:12] == made.predicted_NL[:12]).all()
    assert (calibrated.predicted_NL[12:] != made.predicted_NL[12:]).any()


def test_a_threshold_is_not_carried_over_to_another_scale():
    made = _extreme(200)
    assert made.thresholds
    calibrated = cross_fitted(made, patients=_each(made), method="isotonic", generator=np.random.default_rng(0))
    assert not calibrated.thresholds
