import numpy as np
import pytest

from mmfm.imaging.alterations import ALTERATIONS, REFUSED, SAME, SWAPPED

BY_NAME = {alteration.name: alteration for alteration in ALTERATIONS}


@pytest.fixture
def picture():
    """A ramp from left to right with a bright spot on the left, 90 x 120."""
    array = np.tile(np.linspace(0.1, 0.9, 120, dtype=np.float32), (90, 1))
    array[40:50, 20:30] = 1
    return array


def alter(name, picture, seed=0):
    return BY_NAME[name](picture, np.random.default_rng(seed))


@pytest.mark.parametrize("name", BY_NAME)
def test_a_picture_is_changed_and_stays_a_picture(name, picture):
    before = picture.copy()
    altered = alter(name, picture)
    assert np.array_equal(picture, before)
    assert altered.dtype == np.float32 and altered.min() >= 0 and altered.max() <= 1
    assert altered.shape == ((72, 96) if name == "crop" else picture.shape)
    assert altered.shape != picture.shape or not np.allclose(altered, picture, atol=1e-3)
    assert BY_NAME[name].amount and BY_NAME[name].expected in (SAME, SWAPPED, REFUSED)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_same_seed_gives_the_same_picture(name, picture):
    assert np.array_equal(alter(name, picture), alter(name, picture))


def test_amounts_are_those_stated(picture):
    assert alter("window_lower", picture)[0, 0] == pytest.approx(0.3)
    assert alter("window_higher", picture)[0, 0] == 0 and alter("window_higher", picture)[45, 25] == pytest.approx(0.8)
    assert np.array_equal(alter("mirroring", alter("mirroring", picture)), picture)
    assert alter("mirroring", picture)[45, 119 - 25] == 1
    assert np.allclose(alter("inversion", picture) + picture, 1)
    assert np.array_equal(alter("crop", picture), picture[9:81, 12:108])
    grey = np.full((256, 256), 0.5, dtype=np.float32)
    assert alter("noise", grey).std() == pytest.approx(0.1, abs=0.005)
    assert abs(alter("jpeg", picture) - picture).mean() < 0.05


def test_noise_outlasts_the_way_down_to_the_size_that_a_model_reads():
    large = np.full((1024, 1024), 0.5, dtype=np.float32)
    reduced = alter("noise", large).reshape(256, 4, 256, 4).mean((1, 3))
    assert reduced.std() == pytest.approx(0.1, abs=0.005)


def test_blur_and_turning_move_what_they_should():
    spot = np.zeros((200, 200), dtype=np.float32)
    spot[100, 100] = 1
    blurred = alter("blur", spot)
    assert blurred.max() == pytest.approx(1 / (2 * np.pi * 2**2), rel=0.05)  # sigma 2 pixels
    spot = np.zeros((201, 201), dtype=np.float32)
    spot[100, 180:183] = 1  # right of the middle: anticlockwise it goes up
    row, column = np.unravel_index(alter("rotation", spot).argmax(), spot.shape)
    assert 100 - row == pytest.approx(81 * np.sin(np.radians(10)), abs=1.5)
    assert column - 100 == pytest.approx(81 * np.cos(np.radians(10)), abs=1.5)
