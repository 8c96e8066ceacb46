"""Enhanced multi-frame objects: the same volume as a classic series, each frame with its own place and values."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from scipy.spatial.transform import Rotation

from mmfm.errors import ReadError
from mmfm.imaging import Volume
from mmfm.io import read_studies
from mmfm.study import Receipt, Study

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, silenced by a filter that pytest resets

COLUMNS = np.array([0.8, 0.6, 0.0])
"""Direction of a row, along columns: oblique, LPS."""
ROWS = np.array([0.0, 0.0, -1.0])
NORMAL = np.cross(COLUMNS, ROWS)
ORIGIN = np.array([-31.0, 12.5, 40.0])
STEP_MM = 2.5
SPACING = [0.9, 0.7]
STORED = np.random.default_rng(11).integers(0, 4096, (6, 5, 4)).astype(np.uint16)
"""(slices, rows, columns), from low to high along the normal."""
ORDER = (3, 0, 5, 1, 4, 2)
SHARED = {
    "PlaneOrientationSequence": {"ImageOrientationPatient": [*COLUMNS, *ROWS]},
    "PixelMeasuresSequence": {"PixelSpacing": SPACING, "SliceThickness": 2},
}


SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless)


def position(index: float) -> list[float]:
    return [round(float(value), 6) for value in ORIGIN + index * STEP_MM * NORMAL]


def rescale(index: int) -> dict:
    return {"RescaleSlope": 1 + index / 4, "RescaleIntercept": -1000 - index}


def frame(index: int, *, at: float | None = None, **groups: dict) -> tuple[np.ndarray, dict]:
    place = {"PlanePositionSequence": {"ImagePositionPatient": position(index if at is None else at)}}
    values = {"PixelValueTransformationSequence": rescale(index) | {"RescaleType": "HU"}}
    return STORED[index], place | values | groups


def volume_of(path: Path) -> tuple[Volume, Receipt]:
    (study,) = read_studies(path)
    (series,) = study.series
    return Volume.from_series(series)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_frames_make_the_volume_of_the_classic_series(write_dicom, write_enhanced, tmp_path, modality):
    hu = {"RescaleType": "HU"}
    for number, index in enumerate(ORDER):
        write_dicom(
            f"classic/{number}.dcm", STORED[index], Modality=modality, InstanceNumber=number, SliceThickness=2,
            ImagePositionPatient=position(index), ImageOrientationPatient=[*COLUMNS, *ROWS], PixelSpacing=SPACING,
            **rescale(index) | hu,
        )  # fmt: skip
    path = write_enhanced("enhanced.dcm", [frame(index) for index in ORDER], SHARED, Modality=modality)
    classic, expected = volume_of(tmp_path / "classic")
    volume, receipt = volume_of(path)
    np.testing.assert_array_equal(volume.array, classic.array)
    np.testing.assert_array_equal(volume.affine, classic.affine)
    assert receipt == expected
    assert receipt.quantity == ("HU" if modality == "CT" else "stored")
    values = [stored * (1 + index / 4) - 1000 - index for index, stored in enumerate(STORED)]
    np.testing.assert_allclose(volume.array, values, atol=1e-3)


def test_the_affine_is_that_of_simpleitk(write_enhanced):
    """SimpleITK takes frames as they are stored, so they are stored in order."""
    path = write_enhanced("x.dcm", [frame(index) for index in range(6)], SHARED)
    volume, _ = volume_of(path)
    image = SimpleITK.ReadImage(str(path))
    for place in ([0, 0, 0], [5, 0, 0], [2, 4, 3]):
        reference = image.TransformIndexToPhysicalPoint(place[::-1])
        np.testing.assert_allclose((volume.affine @ [*place, 1])[:3], reference, atol=1e-4)


def test_what_a_frame_states_is_preferred_to_what_is_shared_and_to_the_data_set(write_enhanced):
    shared = SHARED | {"PixelValueTransformationSequence": {"RescaleSlope": 7, "RescaleIntercept": 7}}
    frames = [frame(0), frame(1)]
    del frames[1][1]["PixelValueTransformationSequence"]
    path = write_enhanced("x.dcm", frames, shared, RescaleSlope=9, RescaleIntercept=9, RescaleType="HU")
    volume, receipt = volume_of(path)
    np.testing.assert_allclose(volume.array, [STORED[0] - 1000.0, STORED[1] * 7.0 + 7])
    assert receipt.quantity == "HU"


def test_each_frame_has_its_own_window(write_enhanced):
    windows = [{"WindowCenter": center, "WindowWidth": 400} for center in (40, 1000)]
    frames = [frame(i, FrameVOILUTSequence=window) for i, window in enumerate(windows)]
    (study,) = read_studies(write_enhanced("x.dcm", frames, SHARED, Modality="XA"))
    (instance,) = study.series[0].instances
    assert [one.pixels.window_centers for one in instance.frames] == [(40.0,), (1000.0,)]
    assert Volume.from_series(study.series[0])[1].window == "2 windows, one for each slice"


def test_a_gap_between_frames_is_told(write_enhanced):
    places = (0, 1, 2, 5)
    path = write_enhanced("x.dcm", [frame(i, at=places[i]) for i in (2, 0, 3, 1)], SHARED)
    _, receipt = volume_of(path)
    assert receipt.warnings == (
        "a step of 7.5 mm where 2.5 is usual, after slice 3 of 4: the affine is not exact beyond it",
    )


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ({"FrameContentSequence": {"StackID": "2"}}, r"one stack in a volume; found 1 \(3 slices\), 2 \(3 slices\)"),
        ({"FrameContentSequence": {"StackID": "1", "TemporalPositionIndex": 2}}, "one temporal position"),
        ({"MREchoSequence": {"EffectiveEchoTime": 92.0}}, r"one echo time \(ms\)"),
        ({"MRDiffusionSequence": {"DiffusionBValue": 1000.0}}, r"found 0 \(3 slices\), 1000 \(3 slices\)"),
        ({"MRImageFrameTypeSequence": {"FrameType": ["DERIVED", "PRIMARY", "P", "NONE"]}}, "one frame type"),
        ({"UnassignedPerFrameConvertedAttributesSequence": {"EchoTime": 92}}, r"one echo time \(ms\)"),
        ({"PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}}, "one orientation in a volume"),
        ({"PixelMeasuresSequence": {"PixelSpacing": [0.9, 0.8]}}, "one pixel spacing in a volume"),
    ],
)
@pytest.mark.parametrize("interleaved", [False, True])
def test_frames_of_two_kinds_are_never_mixed(write_enhanced, groups, reason, interleaved):
    """At the same positions, and where each kind has positions of its own."""
    usual = {
        "FrameContentSequence": {"StackID": "1", "TemporalPositionIndex": 1},
        "MREchoSequence": {"EffectiveEchoTime": 30.0},
        "MRDiffusionSequence": {"DiffusionBValue": 0.0},
        "MRImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "M", "NONE"]},
        "UnassignedPerFrameConvertedAttributesSequence": {"EchoTime": 30},
        "PlaneOrientationSequence": SHARED["PlaneOrientationSequence"],
        "PixelMeasuresSequence": SHARED["PixelMeasuresSequence"],
    }
    if "Unassigned" in str(groups):
        del usual["MREchoSequence"]
    frames = [
        frame(i, at=i if interleaved else i % 3, **(usual | groups if i % 2 else usual)) for i in (0, 1, 2, 3, 4, 5)
    ]
    path = write_enhanced("x.dcm", frames, {}, Modality="MR")
    with pytest.raises(ReadError, match=reason) as error:
        volume_of(path)
    assert str(error.value).startswith("a MR series of 6 slices: expected")
    assert "\n" not in str(error.value)


def test_what_repeats_positions_is_refused_though_nothing_names_it(write_enhanced):
    path = write_enhanced("x.dcm", [frame(i, at=i % 3) for i in range(6)], SHARED, Modality="MR")
    with pytest.raises(ReadError, match="3 of 6 at the position of another"):
        volume_of(path)


def test_the_name_of_a_stack_is_not_repeated(write_enhanced):
    frames = [frame(i, FrameContentSequence={"StackID": name}) for i, name in enumerate(("Doe Jane", "2"))]
    with pytest.raises(ReadError, match="one stack in a volume") as error:
        volume_of(write_enhanced("x.dcm", frames, SHARED))
    assert "Doe" not in str(error.value)


def test_frames_without_a_place_keep_their_order_and_are_told_apart(write_enhanced):
    frames = [(STORED[i], {"FrameContentSequence": {"TemporalPositionIndex": i + 1}}) for i in (0, 1, 2)]
    volume, receipt = volume_of(write_enhanced("x.dcm", frames, {}))
    np.testing.assert_array_equal(volume.array, STORED[:3])
    assert volume.affine is None
    assert "positions are not stated" in receipt.warnings[0]
    assert receipt.warnings[1] == "the slices differ in temporal position"


def test_a_place_that_some_frames_lack_is_refused(write_enhanced):
    path = write_enhanced("x.dcm", [frame(0), (STORED[1], {}), frame(2)], SHARED)
    with pytest.raises(ReadError, match="1 of 3 without"):
        volume_of(path)


@pytest.mark.parametrize("count", [2, 4])
def test_frames_have_no_place_where_groups_are_of_another_number(write_enhanced, count):
    frames = [frame(i) for i in range(3)]
    data = b"".join(array.tobytes() for array, _ in (frames + frames)[:count])
    path = write_enhanced("x.dcm", frames, SHARED, NumberOfFrames=count, PixelData=data)
    volume, receipt = volume_of(path)
    assert len(volume.array) == count
    assert any("position" in warning for warning in receipt.warnings), receipt.warnings


def test_enhanced_objects_of_one_frame_are_slices_of_one_series(write_enhanced, tmp_path):
    for number, index in enumerate(ORDER):
        write_enhanced(f"s/{number}.dcm", [frame(index)], SHARED, InstanceNumber=number)
    volume, receipt = volume_of(tmp_path / "s")
    place = (volume.affine @ [5, 1, 2, 1])[:3]
    expected = position(5) + 0.9 * ROWS + 2 * 0.7 * COLUMNS
    np.testing.assert_allclose(place, expected, atol=1e-5)
    assert receipt.warnings == ()


def test_frames_round_trip_to_json(write_enhanced):
    (study,) = read_studies(write_enhanced("x.dcm", [frame(i) for i in ORDER], SHARED))
    assert Study.from_json(study.to_json()) == study
    assert len(study.series[0].instances[0].frames) == 6


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("signed", [False, True])
def test_overlays_are_told_and_their_bits_cleared(write_dicom, syntax, signed):
    stored = STORED[0].astype(np.int16) - 2048 if signed else STORED[0]
    word = (stored.view(np.uint16) & 0x0FFF) | np.uint16(0x8000) | np.arange(4, dtype=np.uint16) % 2 << 12
    path = write_dicom("x.dcm", word, BitsStored=12, Modality="MR", PixelRepresentation=int(signed))
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000010, "US", 5)  # Overlay Rows
    dataset.add_new(0x60000011, "US", 4)
    dataset.add_new(0x60000100, "US", 16)  # Overlay Bits Allocated
    dataset.add_new(0x60000102, "US", 15)  # Overlay Bit Position: among those of the pixels
    dataset.add_new(0x60020010, "US", 5)
    if syntax == RLELossless:
        dataset.compress(syntax)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = word.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    order = {"implicit_vr": syntax == ImplicitVRLittleEndian, "little_endian": syntax != ExplicitVRBigEndian}
    pydicom.dcmwrite(path, dataset, **order)
    volume, receipt = volume_of(path)
    np.testing.assert_array_equal(volume.array[0], stored)
    assert "overlay not drawn: marks that a viewer would show are missing" in receipt.warnings
    assert read_studies(path)[0].series[0].instances[0].overlays == 2


@given(
    seed=st.integers(0, 10_000),
    slices=st.integers(2, 6),
    syntax=st.sampled_from(SYNTAXES),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_oblique_series_has_its_geometry(write_dicom, tmp_path_factory, seed, slices, syntax):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("series")
    turn = Rotation.random(random_state=seed).as_matrix()  # columns: along slices, rows and columns
    spacing = rng.uniform(0.3, 4, 3).round(4)
    origin = rng.uniform(-300, 300, 3).round(4)
    stored = rng.integers(0, 4096, (slices, 40, 36)).astype(np.uint16)
    if np.linalg.det(turn[:, [2, 1, 0]]) < 0:
        turn[:, 0] *= -1  # slices ascend along the cross product of a row's and a column's direction
    for number in rng.permutation(slices):
        path = write_dicom(
            str(folder / f"{rng.integers(1 << 40)}.dcm"), stored[number], Modality="CT", BitsStored=12,
            ImagePositionPatient=[f"{v:.8f}"[:16] for v in origin + number * spacing[0] * turn[:, 0]],
            ImageOrientationPatient=[f"{v:.10f}"[:16] for v in (*turn[:, 2], *turn[:, 1])],
            PixelSpacing=[*spacing[1:]], SliceThickness=spacing[0], RescaleSlope=1, RescaleIntercept=-1024,
        )  # fmt: skip
        if syntax != ExplicitVRLittleEndian:
            rewrite(path, stored[number], syntax)
    volume, receipt = volume_of(folder)
    np.testing.assert_array_equal(volume.array, stored.astype(np.float32) - 1024)
    expected = np.eye(4)
    expected[:3, :3], expected[:3, 3] = turn * spacing, origin
    np.testing.assert_allclose(volume.affine, expected, atol=1e-4)
    assert receipt.warnings == ()
    if syntax == ExplicitVRLittleEndian:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        place = image.TransformIndexToPhysicalPoint((35, 39, slices - 1))
        np.testing.assert_allclose((volume.affine @ [slices - 1, 39, 35, 1])[:3], place, atol=1e-4)


def rewrite(path: Path, array: np.ndarray, syntax: str) -> None:
    dataset = pydicom.dcmread(path)
    if syntax == ImplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path, implicit_vr=True, little_endian=True)
    else:
        dataset.compress(syntax, array)
        dataset.save_as(path)
