import numpy as np

from mmfm.evaluation.lesions import match_lesions
from mmfm.report import Lesion
from mmfm.training.operating_points import best_f1_threshold, lesion_threshold


def _lesion(x: float, probability: float | None = None) -> Lesion:
    return Lesion(center_mm=(x, 0.0, 0.0), diameter_mm=8.0, probability=probability)


def test_operating_point_lies_between_the_groups():
    truth = np.array([False] * 50 + [True] * 20)
    scores = np.where(truth, 0.7, 0.2)
    assert 0.2 < best_f1_threshold(truth, scores) < 0.7


def test_lesions_are_stated_above_the_false_ones():
    matches = [match_lesions([_lesion(0)], [_lesion(1, 0.7), _lesion(60, 0.3)]) for _ in range(40)]
    point = lesion_threshold(matches)
    assert point is not None
    assert 0.3 < point <= 0.7


def test_few_false_lesions_weigh_more_than_a_better_f1():
    matches = [match_lesions([_lesion(0)], [_lesion(0, 0.9 if i < 20 else 0.4), _lesion(60, 0.5)]) for i in range(40)]
    point = lesion_threshold(matches)
    assert point is not None
    assert point > 0.5


def test_lesions_seen_too_seldom_have_no_point():
    assert lesion_threshold([match_lesions([_lesion(0)], [_lesion(0, 0.9)])] * 3) is None
    assert lesion_threshold([match_lesions([], [_lesion(0, 0.9)])] * 30) is None
