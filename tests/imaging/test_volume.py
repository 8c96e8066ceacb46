"""Volume.from_series: geometry, quantities, windows, and what does not make one volume."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.errors import ConfigError, ReadError
from mmfm.imaging import NAMED_WINDOWS, Volume, apply_window, pixels
from mmfm.study import Frame, Geometry, Instance, LookupTable, PixelHeader, Receipt, Series, ViewPosition

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def ct(z: float, *, number: int = 1, orientation=AXIAL, y: float = 0.0, slope: float = 1.0, shape=(4, 3), **geometry):
    array = np.full((1, *shape), round(z) + 1000, np.int16)
    spacing = geometry.pop("pixel_spacing", (0.5, 0.7))
    return Instance(
        sop_instance_uid=f"{z}-{y}-{number}",
        number=number,
        pixels=PixelHeader(
            rows=shape[0], columns=shape[1], bits_stored=16, signed=True,
            rescale_slope=slope, rescale_intercept=-1000.0, rescale_type="HU",
        ),
        geometry=Geometry(position=(10.0, y, z), orientation=orientation, pixel_spacing=spacing, **geometry),
        load=lambda: array,
    )  # fmt: skip


def raw(instance: Instance) -> Instance:
    return replace(instance, pixels=replace(instance.pixels, rescale_type=None, rescale_intercept=0.0))


def ct_series(*instances: Instance) -> Series:
    return Series(series_uid="1", modality="CT", instances=instances)


def grey(stored, *, modality="DX", view=None, orientation=(), **header) -> Series:
    array = np.asarray(stored)[np.newaxis]
    pixels = PixelHeader(rows=array.shape[1], columns=array.shape[2], **header)
    instance = Instance(sop_instance_uid="1", pixels=pixels, patient_orientation=orientation, load=lambda: array)
    return Series(series_uid="1", modality=modality, view=view, instances=(instance,))


@given(st.permutations([0.0, 2.5, 5.0, 7.5, 10.0]))
def test_slices_are_ordered_by_position(order):
    series = ct_series(*(ct(z, number=n) for n, z in enumerate(order)))
    volume, receipt = Volume.from_series(series)
    assert volume.array[:, 0, 0].tolist() == [0, 2, 5, 8, 10]
    assert receipt.quantity == "HU"
    assert receipt.orientation == "SPL"
    assert receipt.spacing == (2.5, 0.5, 0.7)
    assert receipt.warnings == ()
    place = volume.affine @ [2, 1, 1, 1]
    np.testing.assert_allclose(place[:3], [10 + 0.7, 0.5, 5.0])
    assert Receipt.from_json(receipt.to_json()) == receipt


def test_each_slice_uses_its_own_slope():
    volume, receipt = Volume.from_series(ct_series(ct(0, slope=1.0), ct(2, slope=2.0)))
    assert volume.array[:, 0, 0].tolist() == [0, 1002 * 2 - 1000]
    assert any("1 of 2 slices" in step for step in receipt.steps)


def test_gap_and_tilt_are_told_with_numbers():
    _, receipt = Volume.from_series(ct_series(*(ct(z) for z in (0, 2, 4, 8))))
    assert "a step of 4 mm where 2 is usual" in receipt.warnings[0]
    tilted = [ct(z, y=z * np.tan(np.radians(20))) for z in (0.0, 2.0, 4.0)]
    volume, receipt = Volume.from_series(ct_series(*tilted))
    assert "sheared by 20.0 degrees" in receipt.warnings[0]
    np.testing.assert_allclose((volume.affine @ [2, 0, 0, 1])[:3], tilted[2].geometry.position)


@pytest.mark.parametrize("aside", [0, 2, 4])
def test_a_slice_beside_the_line_of_the_others_is_told(aside):
    slices = [ct(z, y=40.0 if z == aside else 0.0) for z in (0.0, 2.0, 4.0, 6.0)]
    _, receipt = Volume.from_series(ct_series(*slices))
    assert any("mm beside the line from the first to the last" in warning for warning in receipt.warnings)


def test_a_mosaic_has_no_place():
    volume, receipt = Volume.from_series(ct_series(replace(ct(0), image_type=("ORIGINAL", "PRIMARY", "M", "MOSAIC"))))
    assert volume.affine is None
    assert receipt.spacing is None
    assert receipt.warnings == ("a mosaic: slices in one picture, without a place",)


@pytest.mark.parametrize("missing", ["position", "orientation"])
def test_half_a_place_is_none(missing):
    one = ct(0)
    volume, receipt = Volume.from_series(ct_series(replace(one, geometry=replace(one.geometry, **{missing: None}))))
    assert volume.affine is None
    assert receipt.warnings == ("one of position and orientation is not stated: no place in the patient",)


def test_frames_are_slices_and_decoded_once():
    slices = [ct(z, slope=slope) for z, slope in ((4, 1.0), (0, 2.0), (2, 1.0))]
    loads = []

    def load():
        loads.append(1)
        return np.concatenate([one.load() for one in slices])

    whole = Instance(
        sop_instance_uid="1",
        pixels=replace(slices[0].pixels, frames=3),
        frames=tuple(Frame(pixels=one.pixels, geometry=one.geometry) for one in slices),
        load=load,
    )
    volume, receipt = Volume.from_series(ct_series(whole))
    expected, classic = Volume.from_series(ct_series(*slices))
    np.testing.assert_array_equal(volume.array, expected.array)
    assert receipt == classic
    assert loads == [1]
    with pytest.raises(ReadError, match="headers alone"):
        Volume.from_series(ct_series(replace(whole, load=None)))


def test_a_grey_frame_among_frames_in_colour_stays_in_colour():
    rgb = np.zeros((2, 2, 2, 3), np.uint8)
    rgb[0], rgb[1, ..., 0] = 51, 255
    pixels = PixelHeader(rows=2, columns=2, samples=3, photometric="RGB")
    frames = tuple(Frame(pixels=pixels, geometry=ct(z).geometry) for z in (0, 1))
    whole = Instance(sop_instance_uid="1", pixels=replace(pixels, frames=2), frames=frames, load=lambda: rgb)
    volume, _ = Volume.from_series(Series(series_uid="1", instances=(whole,)))
    np.testing.assert_allclose(volume.array, rgb / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(ct(2), kind=(("stack", "2"),)), "one stack"),
        (ct(0, number=2), "at the position of another"),
        (ct(2, orientation=(0, 1, 0, 0, 0, -1)), "orientation"),
        (ct(2, shape=(4, 4)), "4 x 3 \\(2 slices\\), 4 x 4"),
        (ct(2, pixel_spacing=(0.5, 0.8)), "pixel spacing"),
        (raw(ct(2)), "one unit of values in a volume; found HU \\(2 slices\\), not stated"),
    ],
)
def test_what_is_not_one_volume_is_refused(other, words):
    with pytest.raises(ReadError, match=words):
        Volume.from_series(ct_series(ct(0), ct(4), other))


def test_orientation_that_is_not_orthonormal_gives_no_place():
    volume, receipt = Volume.from_series(ct_series(ct(0, orientation=(1, 0, 0, 1, 1, 0))))
    assert volume.affine is None
    assert "right angle" in receipt.warnings[0]


def test_spacing_that_cannot_be_used_is_told():
    volume, receipt = Volume.from_series(ct_series(ct(0, pixel_spacing=(0.0, 0.5), spacing_source="PixelSpacing")))
    assert volume.affine is None
    assert receipt.spacing is None
    assert "nothing can be measured" in receipt.warnings[0]


def test_named_window_makes_a_display_of_hu():
    volume, receipt = Volume.from_series(ct_series(ct(0), ct(40)), window="brain")
    assert volume.quantity == "display"
    assert receipt.window.startswith("brain: center 40 width 80")
    assert volume.array[0, 0, 0] < volume.array[1, 0, 0] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ConfigError, match="window: expected one of lung"):
        Volume.from_series(ct_series(ct(0)), window="bones")
    with pytest.raises(ConfigError):
        Volume.from_series(grey([[1]]), window="lung")
    assert set(NAMED_WINDOWS) >= {"lung", "mediastinum", "bone", "brain"}


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("window", [{}, {"window_centers": (2.0,), "window_widths": (3.0,)}])
def test_values_that_are_no_numbers_are_told_and_the_range_is_that_of_the_others(inverse, window):
    stored = np.array([[np.nan, np.inf, -np.inf, 1e300, 0.5, 2.0, 3.5]])
    series = grey(stored, bits_stored=64, presentation_inverse=inverse, voi_function="LINEAR_EXACT", **window)
    volume, receipt = Volume.from_series(series)
    assert receipt.warnings == ("values that are infinite or no numbers: shown black or white",)
    shown = np.array([1.0, 0.0, 1.0, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(volume.array[0, 0], [0.0, *(1 - shown if inverse else shown)])
    volume, receipt = Volume.from_series(replace(series, modality="MR"))
    assert receipt.warnings == ("values that are infinite or no numbers: kept",)
    np.testing.assert_array_equal(volume.array[0], [[np.nan, np.inf, -np.inf, np.inf, 0.5, 2.0, 3.5]])


def test_a_lookup_table_of_what_is_no_number_has_an_end():
    table = LookupTable(first_value=0, bits=8, entries=(7, 9))
    stored = np.array([[np.nan, -np.inf, 1e300]])
    volume, _ = Volume.from_series(grey(stored, modality="MR", bits_stored=64, modality_lut=table))
    assert volume.array[0, 0, 1:].tolist() == [7, 9]


@pytest.mark.parametrize("modality", ["DX", "MR"])
@pytest.mark.parametrize("padded", [None, 3])
def test_pixels_are_computed_some_at_a_time(monkeypatch, modality, padded):
    stored = np.random.default_rng(0).integers(0, 4096, (37, 41)).astype(np.uint16)
    stored[5:9] = 3
    series = grey(stored, modality=modality, bits_stored=12, rescale_slope=0.3, padding_value=padded)
    whole = Volume.from_series(series)
    monkeypatch.setattr(pixels, "_BLOCK", 100)
    parts = Volume.from_series(series)
    np.testing.assert_array_equal(parts[0].array, whole[0].array)
    assert parts[1] == whole[1]


@pytest.mark.parametrize("samples", [1, 3])
def test_rendering_takes_little_memory_beside_its_result(samples):
    stored = np.zeros((1, 2048, 1024) + ((3,) if samples == 3 else ()), np.uint8)
    stored[..., :1] = 7
    header = PixelHeader(rows=2048, columns=1024, samples=samples, photometric="MONOCHROME1")
    tracemalloc.start()
    array = pixels.to_display(stored, header).array
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < array.nbytes + 32 * pixels._BLOCK * samples


def test_ct_without_rescale_is_not_called_hu():
    volume, receipt = Volume.from_series(grey([[1, 2]], modality="CT", bits_stored=16))
    assert volume.quantity == "stored"
    assert "not HU" in receipt.warnings[0]


def test_padding_is_black_whichever_way_round():
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        volume, _ = Volume.from_series(grey([[0, 10, 200]], photometric=photometric, padding_value=0, padding_limit=5))
        assert volume.array[0, 0, 0] == 0
        assert volume.array[0, 0, 1] > 0


def test_hu_padding_is_air():
    array = np.array([[[-2000, 40]]], np.int16)
    pixels = PixelHeader(rows=1, columns=2, bits_stored=16, signed=True, rescale_type="HU", padding_value=-2000)
    instance = Instance(sop_instance_uid="1", pixels=pixels, load=lambda: array)
    volume, _ = Volume.from_series(ct_series(instance))
    assert volume.array.ravel().tolist() == [-1024, 40]


def test_voi_lut_is_preferred_to_a_window_and_modality_lut_comes_first():
    modality = LookupTable(first_value=0, bits=8, entries=(3, 2, 1, 0))
    voi = LookupTable(first_value=0, bits=4, entries=(0, 5, 10, 15))
    series = grey([[0, 1, 2, 3]], modality_lut=modality, voi_lut=voi, window_centers=(1.0,), window_widths=(2.0,))
    volume, receipt = Volume.from_series(series)
    np.testing.assert_allclose(volume.array[0, 0], [1, 2 / 3, 1 / 3, 0], atol=1e-6)
    assert receipt.window.startswith("VOI LUT of 4 entries")
    assert "preferred to 1 window" in receipt.window


def test_first_window_is_the_default_and_is_named():
    _, receipt = Volume.from_series(
        grey([[0, 255]], window_centers=(100.0, 50.0), window_widths=(50.0, 10.0), window_names=("SOFT", "HARD"))
    )
    assert receipt.window == "center 100 width 50 LINEAR (first of 2, SOFT)"


@pytest.mark.parametrize("width", [0.0, -50.0, 0.5])
def test_a_width_that_cannot_be_used_shows_the_whole_range(width):
    volume, receipt = Volume.from_series(grey([[0, 255]], window_centers=(40.0,), window_widths=(width,)))
    assert volume.array.ravel().tolist() == [0, 1]
    assert "cannot be used" in receipt.warnings[0]


def test_slope_zero_is_told():
    volume, receipt = Volume.from_series(grey([[0, 255]], rescale_slope=0.0))
    assert volume.array.ravel().tolist() == [0, 1]
    assert "slope 0" in receipt.warnings[0]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_match_pydicom(function):
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing

    values = np.linspace(-500, 500, 401)
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 37.5, 211, function
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 16, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    expected = apply_windowing(values, dataset) / 65535
    np.testing.assert_allclose(apply_window(values, 37.5, 211, function), expected, atol=1e-9)


@given(st.floats(-1e4, 1e4), st.floats(1.0, 1e4), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
def test_windows_rise_from_0_to_1(center, width, function):
    shown = apply_window(np.linspace(-3e4, 3e4, 501), center, width, function)
    assert np.all(np.diff(shown) >= 0)
    assert 0 <= shown[0] < 0.5 < shown[-1] <= 1


def test_radiograph_orientation_comes_from_patient_orientation_and_a_mirror_is_told():
    _, receipt = Volume.from_series(grey([[1, 2]], view=ViewPosition.PA, orientation=("L", "F")))
    assert (receipt.orientation, receipt.warnings) == ("F/L", ())
    _, mirrored = Volume.from_series(grey([[1, 2]], view=ViewPosition.PA, orientation=("R", "F")))
    assert "mirrored" in mirrored.warnings[0]
    _, silent = Volume.from_series(grey([[1, 2]], view=ViewPosition.PA))
    assert silent.orientation == "not stated"


def test_nothing_is_flipped():
    stored = np.arange(12, dtype=np.uint8).reshape(3, 4)
    volume, _ = Volume.from_series(grey(stored))
    mirrored, _ = Volume.from_series(grey(stored[:, ::-1]))
    np.testing.assert_array_equal(volume.array, mirrored.array[:, :, ::-1])
    assert volume.array[0, 0, 0] == 0
    assert volume.array[0, 2, 3] == volume.array.max()


def test_colour_stays_and_equal_channels_become_grey():
    rgb = np.zeros((1, 2, 2, 3), np.uint8)
    rgb[..., 0] = 255

    def series(array):
        pixels = PixelHeader(rows=2, columns=2, samples=3, photometric="RGB")
        return Series(series_uid="1", instances=(Instance(sop_instance_uid="1", pixels=pixels, load=lambda: array),))

    assert Volume.from_series(series(rgb))[0].array.shape == (1, 2, 2, 3)
    assert Volume.from_series(series(np.zeros_like(rgb)))[0].array.shape == (1, 2, 2)


def test_headers_alone_have_no_pixels():
    series = grey([[1]])
    with pytest.raises(ReadError, match="headers alone"):
        Volume.from_series(
            Series(series_uid="1", instances=(Instance(sop_instance_uid="1", pixels=series.instances[0].pixels),))
        )


def test_a_volume_is_valid_once_constructed():
    with pytest.raises(ValueError, match="float32"):
        Volume(array=np.zeros((1, 2, 2)), affine=None, quantity="HU")
    with pytest.raises(ValueError, match="quantity"):
        Volume(array=np.zeros((1, 2, 2), np.float32), affine=None, quantity="grey")
