"""What calibrating the finding probabilities would bring, measured on studies that it was not fitted on.

    rows = calibration_scores(probabilities, patients=patients, generator=np.random.default_rng(0), resamples_RN=...)

``temperature`` divides the logit by one number a label (Guo et al., ICML 2017), which mends probabilities that are too
extreme or too timid and keeps their order, but moves no base rate; ``isotonic`` fits any rising steps (Zadrozny and
Elkan, KDD 2002), and needs many positive studies. Where only one set of studies is at hand they are cross-fitted: the
patients are parted in ``FOLDS``, and each part is calibrated by what was fitted on the others. AUROC of cross-fitted
probabilities mixes several scales and is not given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmfm.evaluation.intervals import Estimate
from mmfm.evaluation.probabilities import Probabilities, log_losses, logit

FOLDS = 5
METHODS = ("temperature", "isotonic")

_TEMPERATURES = (0.05, 20.0)
"""Bounds of the search."""

Map = Callable[[np.ndarray], np.ndarray]
"""Probabilities to calibrated ones."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The scores of one label before calibration or after one method of it."""

    label: str
    method: str
    """``none``, ``temperature`` or ``isotonic``."""
    n: int
    """Studies with the label."""
    positives: int
    scores: dict[str, Estimate]
    """``brier``, ``brier_skill``, ``log_loss``, ``ece``, ``calibration_slope``, ``calibration_intercept``."""


def calibration_scores(
    probabilities: Probabilities,
    *,
    patients: Sequence[str],
    generator: np.random.Generator,
    resamples_RN: np.ndarray,
    fitted_on: Probabilities | None = None,
) -> tuple[Calibration, ...]:
    """Returns of each label that qualifies its scores before, and after each of ``METHODS``.

    Args:
        probabilities: of N studies.
        patients: whose study each is.
        generator: parts the patients.
        resamples_RN: how often each study is drawn in each bootstrap round; the fits stay as they are.
        fitted_on: of other studies and other patients; cross-fitted where left out. A label that does not qualify
            there is not calibrated, and has its scores before alone.
    """
    each = {"none": probabilities}
    for method in METHODS:
        if fitted_on is None:
            each[method] = cross_fitted(probabilities, patients=patients, method=method, generator=generator)
        else:
            each[method] = fitted_elsewhere(probabilities, fitted_on, method=method)
    rows = []
    for label, column in probabilities.qualifying():
        _, truth_N, _ = probabilities.known(column)
        for method, calibrated in each.items():
            if label in calibrated.labels:
                at = calibrated.labels.index(label)
                values = calibrated.calibration(at, np.ones((1, len(calibrated.truth_NL))))
                draws = calibrated.calibration(at, resamples_RN)
                n, positives = len(truth_N), int(truth_N.sum())
                scores = {
                    kind: Estimate.of(float(values[kind][0]), draws[kind], n=n, events=positives, centred=kind == "ece")
                    for kind in values
                }
                row = Calibration(label=label, method=method, n=n, positives=positives, scores=scores)
                rows.append(row)
    return tuple(rows)


def cross_fitted(
    probabilities: Probabilities,
    *,
    patients: Sequence[str],
    method: str,
    generator: np.random.Generator,
    folds: int = FOLDS,
) -> Probabilities:
    """Returns the labels that qualify, calibrated out of fold: no patient is in what its studies are calibrated by.

    A part of the patients outside of which a label is all present, or all absent, keeps its probabilities.
    """
    names, patient_N = np.unique(patients, return_inverse=True)
    fold_N = generator.permutation(np.arange(len(names)) % folds)[patient_N]
    calibrated_NL = probabilities.predicted_NL.copy()
    for _, column in probabilities.qualifying():
        predicted_N, truth_N, known_N = probabilities.known(column)
        for fold in range(folds):
            others_N = fold_N[known_N] != fold
            of_fold = _fitted(method, predicted_N[others_N], truth_N[others_N])
            calibrated_NL[fold_N == fold, column] = of_fold(probabilities.predicted_NL[fold_N == fold, column])
    return _columns(replace(probabilities, predicted_NL=calibrated_NL), probabilities)


def fitted_elsewhere(probabilities: Probabilities, fitted_on: Probabilities, *, method: str) -> Probabilities:
    """Returns the labels that qualify in ``fitted_on``, calibrated by what was fitted there."""
    calibrated_NL = probabilities.predicted_NL.copy()
    for label, column in fitted_on.qualifying():
        if label in probabilities.labels:
            predicted_N, truth_N, _ = fitted_on.known(column)
            at = probabilities.labels.index(label)
            calibrated_NL[:, at] = _fitted(method, predicted_N, truth_N)(calibrated_NL[:, at])
    return _columns(replace(probabilities, predicted_NL=calibrated_NL), fitted_on)


def _columns(calibrated: Probabilities, fitted: Probabilities) -> Probabilities:
    """Returns the labels that were calibrated; a threshold is of probabilities as they were, so none is kept."""
    names = {name for name, _ in fitted.qualifying()}
    kept = [column for column, name in enumerate(calibrated.labels) if name in names]
    return Probabilities(
        labels=tuple(calibrated.labels[column] for column in kept),
        predicted_NL=calibrated.predicted_NL[:, kept],
        truth_NL=calibrated.truth_NL[:, kept],
    )


def _fitted(method: str, predicted_N: np.ndarray, truth_N: np.ndarray) -> Map:
    if len(np.unique(truth_N)) < 2:
        return lambda p: p
    return {"temperature": _temperature, "isotonic": _isotonic}[method](predicted_N, truth_N)


def _temperature(predicted_N: np.ndarray, truth_N: np.ndarray) -> Map:
    from scipy.optimize import minimize_scalar

    def at(temperature: float, p: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-logit(p) / temperature))

    def loss(log_temperature: float) -> float:
        return float(log_losses(at(np.exp(log_temperature), predicted_N), truth_N).sum())

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    best = float(np.exp(found.x))
    return lambda p: at(best, p)


def _isotonic(predicted_N: np.ndarray, truth_N: np.ndarray) -> Map:
    from sklearn.isotonic import IsotonicRegression

    fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(predicted_N, truth_N)
    return lambda p: np.asarray(fit.predict(p))
