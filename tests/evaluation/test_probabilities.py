import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from mmfm.evaluation.probabilities import MACRO_LABELS, Probabilities, rank_scores
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
