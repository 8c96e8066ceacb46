"""Enhanced multi-frame objects: the same volume as a classic series, each frame with its own place and values."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    NuclearMedicineImageStorage,
    RLELossless,
    RTDoseStorage,
)
from scipy.spatial.transform import Rotation

from mmfm.errors import ReadError
from mmfm.imaging import Volume
from mmfm.io import attach, read, read_studies, reading
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
    ("groups", "name"),
    [
        ({"FrameContentSequence": {"StackID": "2"}}, "stack 2"),
        ({"FrameContentSequence": {"StackID": "1", "TemporalPositionIndex": 2}}, "temporal position 2"),
        ({"MREchoSequence": {"EffectiveEchoTime": 92.0}}, "echo time (ms) 92"),
        ({"MRDiffusionSequence": {"DiffusionBValue": 1000.0}}, "b-value (s/mm2) 1000"),
        ({"MRImageFrameTypeSequence": {"FrameType": ["DERIVED", "PRIMARY", "P", "NONE"]}}, "frame type DERIVED"),
        ({"UnassignedPerFrameConvertedAttributesSequence": {"EchoTime": 92}}, "echo time (ms) 92"),
        ({"PlaneOrientationSequence": {"ImageOrientationPatient": [*-COLUMNS, *ROWS]}}, "stack 1"),
        ({"PixelMeasuresSequence": {"PixelSpacing": [0.9, 0.8]}}, "stack 1"),
    ],
)
@pytest.mark.parametrize("interleaved", [False, True])
def test_frames_of_two_kinds_are_two_series(write_enhanced, groups, name, interleaved):
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
        frame(i, at=i if interleaved else i // 2, **(usual | groups if i % 2 else usual)) for i in (0, 1, 4, 3, 2, 5)
    ]
    path = write_enhanced("x.dcm", frames, {}, Modality="MR")
    reading = read(path)
    (file,), (study,) = reading.files, reading.studies
    assert (file.status, file.series_uid) == ("ok", "1.2.3.4")
    assert file.reason == "an object of 2 volumes, each a series of its own"
    assert [one.series_uid for one in study.series] == ["1.2.3.4#1", "1.2.3.4#2"]
    for first, series in enumerate(study.series):
        volume, receipt = Volume.from_series(series)
        expected = [STORED[i] * (1 + i / 4) - 1000 - i for i in range(first, 6, 2)]
        if "PlaneOrientation" in str(groups) and first:  # their normal points the other way
            expected = expected[::-1]
        np.testing.assert_allclose(volume.array, expected, atol=1e-3)
        (kind,) = [step for step in receipt.steps if step.startswith("all of ")]
    assert name in kind
    assert Study.from_json(study.to_json()) == study
    bare = attach(Study.from_json(study.to_json()), path)
    np.testing.assert_array_equal(Volume.from_series(bare.series[1])[0].array, volume.array)


def test_directions_and_phases_are_told_apart_by_the_index_of_their_dimension(write_enhanced):
    """What repeats positions without a name: the dimension that gives as many passes as there are repetitions."""
    frames = []
    for i in range(6):
        index = {"DimensionIndexValues": [1, i % 3 + 1, i // 3 + 1]}
        frames.append(frame(i, at=i % 3, FrameContentSequence=index))
    (study,) = read_studies(write_enhanced("x.dcm", frames, SHARED, Modality="MR"))
    assert len(study.series) == 2
    for number, series in enumerate(study.series):
        expected = [STORED[i] * (1 + i / 4) - 1000 - i for i in range(3 * number, 3 * number + 3)]
        np.testing.assert_allclose(Volume.from_series(series)[0].array, expected, atol=1e-3)


def test_what_repeats_positions_is_refused_though_nothing_names_it(write_enhanced):
    path = write_enhanced("x.dcm", [frame(i, at=i % 3) for i in range(6)], SHARED, Modality="MR")
    with pytest.raises(ReadError, match="3 of 6 at the position of another"):
        volume_of(path)


SPLIT = {"BitsStored": 12, "Modality": "MR"}


ENCODINGS = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
             RLELossless, "extended offsets", "palette")  # fmt: skip


@pytest.mark.parametrize("syntax", ENCODINGS)
@pytest.mark.parametrize("isolate", [False, True])
def test_some_frames_are_decoded_alone(write_enhanced, syntax, isolate):
    order = (4, 0, 3, 1, 5, 2)
    frames = [frame(i, at=i // 2, FrameContentSequence={"StackID": str(i % 2 + 1)}) for i in order]
    path = write_enhanced("x.dcm", frames, SHARED, **SPLIT)
    dataset = pydicom.dcmread(path)
    expected = [STORED[[4, 0, 2]], STORED[[3, 1, 5]]]
    if syntax == "extended offsets":
        dataset.compress(RLELossless, encapsulate_ext=True)
    elif syntax == "palette":
        dataset.PhotometricInterpretation = "PALETTE COLOR"
        ramp = np.arange(4096, dtype="<u2").tobytes()
        for colour in ("Red", "Green", "Blue"):
            for part, vr, value in (("Descriptor", "US", [4096, 0, 16]), ("Data", "OW", ramp)):
                dataset.add_new(f"{colour}PaletteColorLookupTable{part}", vr, value)
        expected = [np.stack([array] * 3, axis=-1) for array in expected]
    elif syntax == RLELossless:
        dataset.compress(syntax)
    else:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
    little = dataset.file_meta.TransferSyntaxUID != ExplicitVRBigEndian
    implicit = dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little)
    (study,) = read(path, isolate=isolate).studies
    for series, array in zip(study.series, expected, strict=True):
        np.testing.assert_array_equal(series.instances[0].load(), array)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - len(content) // 4])
    with pytest.raises(ReadError, match=r"x\.dcm: expected"):
        series.instances[0].load()


def test_an_object_of_very_many_kinds_is_not_split(write_enhanced, monkeypatch):
    monkeypatch.setattr(reading, "MAX_VOLUMES", 3)
    frames = [frame(i, FrameContentSequence={"StackID": str(i)}) for i in range(6)]
    with pytest.raises(ReadError, match="one stack in a volume"):
        volume_of(write_enhanced("x.dcm", frames, SHARED))


def test_the_name_of_a_stack_is_not_repeated(write_enhanced):
    frames = [frame(i, FrameContentSequence={"StackID": name}) for i, name in enumerate(("Doe Jane", "2"))]
    found = read(write_enhanced("x.dcm", frames, SHARED))
    receipts = [Volume.from_series(series)[1] for series in found.studies[0].series]
    assert len(receipts) == 2
    assert "Doe" not in f"{found} {receipts}"


@pytest.fixture
def write_concatenation(write_enhanced):
    """Returns write(*numbers): parts of three with two frames each, which lie behind each other."""

    def write(*numbers: int, total: int | None = 3) -> Path:
        for place, number in enumerate(numbers):
            stated = {"ConcatenationUID": "1.2.3.77", "InConcatenationNumber": number, "InstanceNumber": 9 - number}
            if total is not None:
                stated["InConcatenationTotalNumber"] = total
            frames = [frame(2 * number - 2), frame(2 * number - 1)]
            path = write_enhanced(f"c/{place}.dcm", frames, SHARED, **stated)
        return path.parent

    return write


@pytest.mark.parametrize("total", [3, None])
def test_the_parts_of_a_concatenation_are_one_volume(write_concatenation, total):
    folder = write_concatenation(3, 1, 2, total=total)
    volume, receipt = volume_of(folder)
    np.testing.assert_allclose(volume.array, [STORED[i] * (1 + i / 4) - 1000 - i for i in range(6)], atol=1e-3)
    assert receipt.slices_used == 6
    assert {file.reason for file in read(folder).files} == {"one of 3 parts of a concatenation, joined"}


@pytest.mark.parametrize(("numbers", "found"), [((1, 3), 2), ((2,), 1), ((1, 2, 2), 2)])
def test_a_concatenation_that_lacks_a_part_is_refused(write_concatenation, numbers, found):
    reading = read(write_concatenation(*numbers))
    assert reading.studies == ()
    assert {file.reason for file in reading.files} == {f"expected all 3 parts of a concatenation, found {found}"}


def test_parts_that_do_not_place_their_frames_have_no_place(write_enhanced):
    place = {"ImagePositionPatient": position(0), "ImageOrientationPatient": [*COLUMNS, *ROWS], "PixelSpacing": SPACING}
    for number in (1, 2):
        stated = {"ConcatenationUID": "1.2.3.77", "InConcatenationNumber": number, "InConcatenationTotalNumber": 2}
        frames = [(STORED[2 * number - 2], {}), (STORED[2 * number - 1], {})]
        path = write_enhanced(f"c/{number}.dcm", frames, {}, **stated, **place, PerFrameFunctionalGroupsSequence=[])
    volume, receipt = volume_of(path.parent)
    assert volume.array.shape[0] == 4 and volume.affine is None
    assert "4 frames in stored order; their positions are not read" in receipt.warnings


def test_a_concatenation_of_endless_parts_is_refused(write_concatenation):
    folder = write_concatenation(1)
    dataset = pydicom.dcmread(folder / "0.dcm")
    dataset.add_new("InConcatenationTotalNumber", "UL", 4_000_000_000)
    dataset.save_as(folder / "0.dcm")
    reading = read(folder)
    assert [file.status for file in reading.files] == ["refused"]


def test_colour_frames_of_two_stacks_are_loaded_apart(write_enhanced):
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    kinds = [{"FrameContentSequence": {"StackID": str(1 + index % 2)}} for index in range(4)]
    frames = [(array, frame(index)[1] | kinds[index]) for index, array in enumerate(colours)]
    (study,) = read_studies(write_enhanced("x.dcm", frames, SHARED, Modality="MR"))
    assert len(study.series) == 2
    for first, series in enumerate(study.series):
        np.testing.assert_array_equal(series.instances[0].load(), colours[first::2])


DOSE = {"Modality": "RTDOSE", "SOPClassUID": RTDoseStorage, "NumberOfFrames": 6, "PixelData": STORED.tobytes(),
        "PixelSpacing": SPACING}  # fmt: skip
OBLIQUE = {"ImagePositionPatient": position(0), "ImageOrientationPatient": [*COLUMNS, *ROWS]}
AXIAL = {"ImagePositionPatient": [-31, 12.5, 40], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
OFFSETS = [index * STEP_MM for index in range(6)]


@pytest.mark.parametrize(
    ("place", "offsets", "known"),
    [
        (OBLIQUE, OFFSETS, True),
        (AXIAL, OFFSETS, True),
        (AXIAL, [40 + offset for offset in OFFSETS], True),  # z of the planes
        (AXIAL, [-offset for offset in OFFSETS], True),
        (OBLIQUE, [40 + offset for offset in OFFSETS], False),
        (AXIAL, OFFSETS[:5], False),
        (AXIAL, [41 + offset for offset in OFFSETS], False),
    ],
)
def test_planes_of_a_dose_grid_have_their_place(write_dicom, place, offsets, known):
    path = write_dicom("x.dcm", STORED[0], **DOSE, **place, GridFrameOffsetVector=offsets)
    volume, receipt = volume_of(path)
    descending = offsets[1] < 0
    np.testing.assert_allclose(volume.array, STORED[::-1] if descending else STORED)
    if not known:
        assert volume.affine is None
        assert "their positions are not read" in receipt.warnings[0]
        return
    normal = np.cross(place["ImageOrientationPatient"][:3], place["ImageOrientationPatient"][3:])
    first = np.array(place["ImagePositionPatient"]) + (normal * offsets[-1] if descending else 0)
    np.testing.assert_allclose(volume.affine[:3, 3], first, atol=1e-6)
    np.testing.assert_allclose(volume.affine[:3, 0], normal * STEP_MM, atol=1e-6)
    assert receipt.quantity == "stored"
    assert receipt.warnings == ()


NUCLEAR = {"Modality": "NM", "SOPClassUID": NuclearMedicineImageStorage, "NumberOfFrames": 6, "PixelSpacing": SPACING,
           "PixelData": STORED.tobytes(), "ImageType": ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]}  # fmt: skip


@pytest.fixture
def write_tomography(write_dicom):
    """Returns write(**attributes): reconstructed NM, its slices numbered by Slice Vector."""

    def write(**attributes) -> Path:
        detector = pydicom.Dataset()
        detector.ImagePositionPatient, detector.ImageOrientationPatient = position(0), [*COLUMNS, *ROWS]
        stated = {"DetectorInformationSequence": [detector], "SpacingBetweenSlices": STEP_MM,
                  "FrameIncrementPointer": 0x00540080, "SliceVector": [1, 2, 3, 4, 5, 6]}  # fmt: skip
        return write_dicom("x.dcm", STORED[0], **NUCLEAR | stated | attributes)

    return write


@pytest.mark.parametrize("sign", [1, -1])
def test_slices_of_reconstructed_nm_have_their_place(write_tomography, sign):
    """A negative spacing stacks against the normal (PS3.3 C.8.4.15)."""
    volume, receipt = volume_of(write_tomography(SpacingBetweenSlices=sign * STEP_MM))
    np.testing.assert_array_equal(volume.array, STORED[::sign])
    np.testing.assert_allclose(volume.affine[:3, 3], position(0 if sign > 0 else -5), atol=1e-5)
    np.testing.assert_allclose(volume.affine[:3, 0], NORMAL * STEP_MM, atol=1e-5)
    assert receipt.warnings == ()


def test_phases_of_gated_nm_are_series_of_their_own(write_tomography):
    path = write_tomography(
        ImageType=["DERIVED", "PRIMARY", "RECON GATED TOMO", "EMISSION"],
        FrameIncrementPointer=[0x00540060, 0x00540070, 0x00540080],  # R-R interval, time slot, slice
        RRIntervalVector=[1] * 6, TimeSlotVector=[1, 1, 1, 2, 2, 2], SliceVector=[1, 2, 3] * 2,
    )  # fmt: skip
    (study,) = read_studies(path)
    for number, series in enumerate(study.series):
        volume, receipt = Volume.from_series(series)
        np.testing.assert_array_equal(volume.array, STORED[3 * number : 3 * number + 3])
        assert f"all of R-R interval 1, time slot {number + 1}" in receipt.steps


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "DYNAMIC", "EMISSION"]},
        {"SliceVector": [1, 2, 3]},
        {"SpacingBetweenSlices": None},
        {"FrameIncrementPointer": [0x00540010, 0x00540080]},  # an energy window too
        {"DetectorInformationSequence": []},
    ],
)
def test_other_nm_frames_are_read_without_a_place(write_tomography, attributes):
    volume, receipt = volume_of(write_tomography(**attributes))
    np.testing.assert_array_equal(volume.array, STORED)
    assert volume.affine is None
    assert receipt.warnings[0] == "6 frames in stored order; their positions are not read"


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
    """Nor values, if the groups rescale them: whose slope is it?"""
    frames = [frame(i) for i in range(3)]
    data = b"".join(array.tobytes() for array, _ in (frames + frames)[:count])
    (file,) = read(write_enhanced("x.dcm", frames, SHARED, NumberOfFrames=count, PixelData=data)).files
    words = f"expected functional groups with the rescale of {count} frames, found those of 3"
    assert (file.status, file.reason) == ("refused", words)
    for _, groups in frames:
        del groups["PixelValueTransformationSequence"]
    path = write_enhanced("x.dcm", frames, SHARED, NumberOfFrames=count, PixelData=data)
    volume, receipt = volume_of(path)
    assert len(volume.array) == count
    assert any("position" in warning for warning in receipt.warnings), receipt.warnings
    assert f"functional groups of 3 frames beside {count} stored: what they say of each is not read" in receipt.warnings


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


CT = {"Modality": "CT", "RescaleSlope": "1", "RescaleIntercept": "-1024", "PixelSpacing": SPACING} | OBLIQUE
UNUSABLE = "is not stated in numbers that can be used: not read"


def stated(path: Path, keyword: str, value: bytes, *, implicit: bool) -> Path:
    """Puts ``value`` into the file as it is, which pydicom would not write."""
    dataset = pydicom.dcmread(path)
    setattr(dataset, keyword, None)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=implicit, little_endian=True)
    tag = pydicom.tag.Tag(keyword)
    head = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + (b"" if implicit else b"DS")
    size = 4 if implicit else 2
    value += b" " * (len(value) % 2)
    content = path.read_bytes()
    assert content.count(head + bytes(size)) == 1
    path.write_bytes(content.replace(head + bytes(size), head + len(value).to_bytes(size, "little") + value))
    return path


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("value", [b"0,5", b"NaN", b"1e400", b"2\\2", b"two", b"1e300"])
def test_a_rescale_that_cannot_be_used_is_refused(write_dicom, implicit, keyword, value):
    path = stated(write_dicom("x.dcm", STORED[0], **CT), keyword, value, implicit=implicit)
    (file,) = read(path).files
    assert (file.status, file.reason) == (
        "refused", f"expected one number of at most 1e+19 as {keyword}, found another value",
    )  # fmt: skip


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_half_a_rescale_makes_no_hounsfield_units(write_dicom, keyword):
    for kind in (None, "HU"):
        attributes = {key: value for key, value in CT.items() if key != keyword} | {"RescaleType": kind}
        volume, receipt = volume_of(write_dicom("x.dcm", STORED[0], **attributes))
        assert volume.quantity == "stored"
        assert "no rescale to Hounsfield units is stated: values are not HU" in receipt.warnings


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("WindowWidth", b"400,0"),
        ("PixelSpacing", b"0,5\\0,5"),
        ("PixelSpacing", b"0.5"),
        ("ImagePositionPatient", b"nan\\0\\0"),
        ("ImagePositionPatient", b"1.7e308\\0\\0"),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\1"),
    ],
)
def test_measures_that_cannot_be_used_are_told(write_dicom, implicit, keyword, value):
    path = write_dicom("x.dcm", STORED[0], WindowCenter=40, WindowWidth=400, **CT)
    volume, receipt = volume_of(stated(path, keyword, value, implicit=implicit))
    assert volume.quantity == "HU"
    assert f"{keyword} {UNUSABLE}" in receipt.warnings
    assert not any("right angle" in warning for warning in receipt.warnings)


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
