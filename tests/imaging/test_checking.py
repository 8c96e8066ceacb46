from dataclasses import replace

import numpy as np
import pytest

from mmfm.errors import ScopeError
from mmfm.imaging import Volume, check_for_model
from mmfm.study import Geometry, Instance, PixelHeader, Series

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def series(places, *, modality="CT", intercept=-1000.0, unit="HU", spacing=4.0, change=lambda array: array):
    """Slices of a body of water in air, 16 x 16."""
    body = np.zeros((1, 16, 16), np.float32)
    body[:, 4:12, 4:12] = 1040
    array = change(body)
    return Series(
        series_uid="1",
        modality=modality,
        instances=tuple(
            Instance(
                sop_instance_uid=f"{number}",
                pixels=PixelHeader(
                    rows=16, columns=16, bits_stored=32, rescale_intercept=intercept, rescale_type=unit
                ),
                geometry=Geometry(
                    position=(0.0, 0.0, float(z)), orientation=AXIAL, pixel_spacing=(spacing, spacing)
                ),
                load=lambda: array,
            )
            for number, z in enumerate(places)
        ),
    )  # fmt: skip


def check(one, modality="CT"):
    return check_for_model(*Volume.from_series(one), modality=modality)


EVEN = range(0, 120, 3)


def noisy(array):
    return array + np.random.default_rng(0).integers(0, 200, array.shape).astype(np.float32)


MR = {"modality": "MR", "unit": None, "intercept": 0.0, "change": noisy}


def test_a_whole_ct_and_mr_pass():
    assert check(series(EVEN)) == ()
    assert check(series(EVEN, **MR), "MR") == ()


def test_thick_slices_are_told():
    assert check(series(range(0, 140, 7))) == ("slices are 7 mm apart: what is smaller may lie between them unseen",)


def test_single_missing_slices_are_told():
    places = [z for z in EVEN if z != 30]
    (warning,) = check(series(places))
    assert warning.startswith("1 of 38 steps other than 3 mm, from 6 to 6 mm (slices are missing?)")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([z for z in EVEN if z not in (30, 33)], "1 of 37 steps other than 3 mm, from 9 to 9 mm"),
        ([z for z in EVEN if z % 24], "4 of 34 steps"),
        ([*range(0, 60, 2), *range(60, 160, 5)], "19 of 49 steps other than 2 mm, from 5 to 5 mm"),
        ([0], "at least 5 slices; found 1 slice: a picture"),
        (range(0, 12, 3), "at least 5 slices; found 4 slices"),
        (range(0, 25, 5), "at least 40 mm along each axis; found 25 x 64 x 64"),
        (range(0, 240, 12), "at most 10 mm apart; found 12 mm"),
    ],
)
def test_gaps_mixed_spacing_and_single_slices_are_refused(places, words):
    with pytest.raises(ScopeError, match=words):
        check(series(places))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit": None}, "a CT in Hounsfield units; found no rescale to them stated"),
        ({"intercept": 0.0}, "air and tissue among them; found values from 0 to 1040, 0.0% of them air"),
        ({"intercept": -2000.0}, "0.0% tissue"),
        ({"modality": "MR", "unit": None}, "expected CT; found another modality"),
        ({"modality": "DX"}, "expected CT; found another modality"),
        ({"modality": None}, "found no modality stated; say which it is by --modality"),
        ({"change": lambda array: np.where(array > 0, np.nan, array)}, "infinite or no numbers"),
        ({"change": np.zeros_like}, "one value everywhere"),
    ],
)
def test_values_that_cannot_be_hounsfield_units_are_refused(changes, words):
    with pytest.raises(ScopeError, match=words) as error:
        check(series(EVEN, **changes))
    assert str(error.value).startswith("the volume: expected ")


def test_padding_is_no_air():
    def padded(array):
        return np.where(np.arange(16) < 2, -2000, array).astype(np.float32)

    assert check(series(EVEN, change=padded)) == ()
    with pytest.raises(ScopeError, match=r"air and tissue among them; found .*0\.0% of them air"):
        check(series(EVEN, change=padded, intercept=0.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda array: np.clip(array, 0, 4), "an MR image; found 2 different values, as of a mask"),
        (lambda array: (noisy(array) - 300) / 100, "the values of an MR as acquired; found .* of them below 0"),
    ],
)
def test_masks_and_normalised_values_are_no_mr(change, words):
    with pytest.raises(ScopeError, match=words):
        check(series(EVEN, **MR | {"change": change}), "MR")


@pytest.mark.parametrize(("sideways", "told"), [(4.0, True), (6.0, False)])
def test_slices_shifted_sideways_are_refused(sideways, told):
    one = series(EVEN)
    moved = [
        replace(i, geometry=replace(i.geometry, position=(sideways * (n == 20), 0.0, 3.0 * n)))
        for n, i in enumerate(one.instances)
    ]
    shifted = replace(one, instances=tuple(moved))
    if told:
        assert check(shifted) == ()
        assert any("beside the line" in warning for warning in Volume.from_series(shifted)[1].warnings)
    else:
        with pytest.raises(ScopeError, match="slices along one line; found one 6 mm beside it"):
            check(shifted)


def test_a_volume_without_a_place_is_refused():
    one = series(EVEN)
    lost = replace(one, instances=tuple(replace(i, geometry=Geometry(), number=n) for n, i in enumerate(one.instances)))
    with pytest.raises(ScopeError, match="a stated place in the patient; found none"):
        check(lost)


def test_colour_is_refused():
    pixels = PixelHeader(rows=16, columns=16, samples=3, photometric="RGB", frames=6)
    array = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3)).astype(np.uint8)
    one = Series(
        series_uid="1",
        modality="CT",
        instances=(Instance(sop_instance_uid="1", pixels=pixels, load=lambda: array),),
    )
    with pytest.raises(ScopeError, match="grey values; found colour"):
        check(one)
