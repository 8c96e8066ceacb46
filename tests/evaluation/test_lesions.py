import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.evaluation.lesions import LEAST_REACH_MM, match_lesions
from mmfm.report import Lesion


def _at(z, diameter=8.0):
    return Lesion(center_mm=(0.0, 0.0, float(z)), diameter_mm=float(diameter))


def test_each_known_lesion_gets_the_nearest_one_stated_near_it():
    match = match_lesions([_at(0), _at(40), _at(100)], [_at(3), _at(1), _at(42), _at(70)])
    assert [(known.center_mm[2], stated.center_mm[2]) for known, stated in match.hits] == [(0, 1), (40, 42)]
    assert [lesion.center_mm[2] for lesion in match.missed] == [100]
    assert [lesion.center_mm[2] for lesion in match.false] == [3, 70], "a second one for the first lesion is false"


@pytest.mark.parametrize(("diameter", "reach"), [(4, LEAST_REACH_MM), (8, LEAST_REACH_MM), (30, 15)])
def test_the_reach_is_half_the_known_diameter_and_5_mm_at_least(diameter, reach):
    assert match_lesions([_at(0, diameter)], [_at(reach - 0.1, 50)]).hits
    assert not match_lesions([_at(0, diameter)], [_at(reach + 0.1, 50)]).hits


_LESIONS = st.lists(st.tuples(st.integers(0, 60), st.integers(2, 30)).map(lambda one: _at(*one)), max_size=6)


@given(known=_LESIONS, stated=_LESIONS)
def test_every_lesion_is_counted_exactly_once(known, stated):
    match = match_lesions(known, stated)
    assert len(match.hits) + len(match.missed) == len(known)
    assert len(match.hits) + len(match.false) == len(stated)
    assert len({id(stated) for _, stated in match.hits}) == len(match.hits)
