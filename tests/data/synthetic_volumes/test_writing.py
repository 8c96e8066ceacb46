"""Drawn volumes as DICOM: whatever the planes, their order and spacing, every voxel stays at its place in space."""

from __future__ import annotations

import dataclasses

import highdicom
import numpy as np
import pydicom
import pytest

from mmfm.data.synthetic_volumes.writing import ORIENTATIONS, Writing, write_dicom
from mmfm.errors import ConfigError
from mmfm.imaging import Volume
from mmfm.imaging.transforms import map_points
from mmfm.io import read
from mmfm.report import Finding, Lesion, Side, Status

CENTERS = {Side.LEFT: (14.0, -8.0, -12.0), Side.RIGHT: (-16.0, 6.0, 14.0)}
FINDING = Finding(
    observation="nodule",
    status=Status.PRESENT,
    lesions=tuple(
        Lesion(center_mm=center, diameter_mm=14 if side is Side.LEFT else 11, laterality=side, location="lower lobe")
        for side, center in CENTERS.items()
    ),
)
WRITINGS = {
    "as drawn": Writing(),
    "coronal": Writing(orientation="coronal"),
    "sagittal": Writing(orientation="sagittal", reverse=True),
    "reversed": Writing(reverse=True),
    "oblique": Writing(oblique_degrees=14),
    "oblique coronal": Writing(orientation="coronal", oblique_degrees=-20, reverse=True, spacing=(2.5, 2, 2)),
    "tilted": Writing(tilt_degrees=18),
    "tilted back": Writing(tilt_degrees=-12, oblique_degrees=7, spacing=(3.0, 1.8, 1.2), reverse=True),
    "coarse": Writing(spacing=(5.0, 2.0, 2.0)),
}


@pytest.fixture(scope="module")
def drawn(drawn_volume):
    return drawn_volume("chest_ct", FINDING)


@pytest.fixture(scope="module")
def head(drawn_volume):
    return drawn_volume("head", dataclasses.replace(FINDING, observation="brain_mass"), shape=(12, 48, 56))


def volumes_of(folder):
    """Returns the Volume and Receipt of each series of images, by its folder, as mmfm reads the study."""
    [study] = read(folder).studies
    return {
        series.description.split()[0]: Volume.from_series(series)
        for series in study.series
        if series.modality in ("CT", "MR") and series.description != "localizer"
    }


def at(volume, center):
    index = map_points(np.linalg.inv(volume.affine), np.array([center]))[0]
    return volume.array[tuple(np.rint(index).astype(int))]


@pytest.mark.parametrize("name", WRITINGS)
def test_every_lesion_is_where_it_was_drawn(drawn, tmp_path, name):
    writing = WRITINGS[name]
    write_dicom(drawn, tmp_path, writing=writing)
    volume, receipt = volumes_of(tmp_path)["CT"]
    assert volume.quantity == "HU"
    assert receipt.orientation == ORIENTATIONS[writing.orientation]
    for lesion in FINDING.lesions:
        assert at(volume, lesion.center_mm) == pytest.approx(400, abs=30)
        beside = np.array(lesion.center_mm) * [-1, 1, 1]
        assert at(volume, beside) == pytest.approx(40, abs=30)
    # What is brighter than the body has the ball's centre and its volume.
    brighter = np.maximum(volume.array - 40, 0)
    index = np.argwhere(brighter > 0)
    places, weights = map_points(volume.affine, index), brighter[tuple(index.T)]
    voxel = abs(np.linalg.det(volume.affine[:3, :3]))
    for number, lesion in enumerate(FINDING.lesions, start=1):
        near = np.linalg.norm(places - lesion.center_mm, axis=1) < lesion.diameter_mm
        there = map_points(drawn.affine, np.argwhere(drawn.segmentation == number))
        assert np.average(places[near], axis=0, weights=weights[near]) == pytest.approx(there.mean(0), abs=0.3)
        assert weights[near].sum() / 360 * voxel == pytest.approx(len(there) * 2 * 1.5 * 1.5, rel=0.05)


@pytest.mark.parametrize("name", WRITINGS)
def test_the_grid_is_the_one_asked_for(drawn, tmp_path, name):
    writing = WRITINGS[name]
    written = write_dicom(drawn, tmp_path, writing=writing)
    volume, receipt = volumes_of(tmp_path)["CT"]
    # As drawn: 2 mm from head to foot, 1.5 mm within the axial slices.
    kept = {"axial": (2, 1.5, 1.5), "coronal": (1.5, 2, 1.5), "sagittal": (1.5, 2, 1.5)}[writing.orientation]
    assert receipt.spacing == pytest.approx(writing.spacing or kept, abs=1e-4)
    step, rows, columns = (axis / np.linalg.norm(axis) for axis in volume.affine[:3, :3].T)
    assert rows @ columns == pytest.approx(0, abs=1e-6)
    tilt = np.degrees(np.arccos(np.clip(step @ np.cross(columns, rows), -1, 1)))
    assert tilt == pytest.approx(abs(writing.tilt_degrees), abs=1e-3)
    assert any("gantry tilt" in warning for warning in receipt.warnings) == bool(writing.tilt_degrees)
    turned = np.degrees(np.arccos(abs(columns).max()))
    assert (turned > 3) == bool(writing.oblique_degrees)
    # Slices are in the order of InstanceNumber, or against it, and file names say nothing where reversed.
    files = sorted(written.series[0].folder.iterdir())
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    normal = np.cross(columns, rows)
    along = [float(np.array(h.ImagePositionPatient, float) @ normal) for h in headers]
    numbers = [h.InstanceNumber for h in headers]
    assert sorted(numbers) == list(range(1, len(headers) + 1))
    order = np.argsort(along)[:: -1 if writing.reverse else 1]
    assert [numbers[n] for n in order] == sorted(numbers)
    assert (numbers == sorted(numbers)) == (not writing.reverse)


def test_as_drawn_no_value_changes_and_other_planes_only_turn_the_array(drawn, tmp_path):
    for orientation, axes in (("axial", (0, 1, 2)), ("coronal", (1, 0, 2)), ("sagittal", (2, 0, 1))):
        write_dicom(drawn, tmp_path / orientation, writing=Writing(orientation=orientation))
        volume, receipt = volumes_of(tmp_path / orientation)["CT"]
        expected = drawn.images["CT"].transpose(axes)
        if orientation != "axial":  # their rows run to the feet
            expected = expected[:, ::-1]
        if orientation == "sagittal":  # and their slices from the left to the right
            expected = expected[::-1]
        np.testing.assert_array_equal(volume.array, expected)
        assert receipt.warnings == ()


def test_what_lies_outside_of_the_drawing_is_padding(drawn, tmp_path):
    written = write_dicom(drawn, tmp_path, writing=Writing(oblique_degrees=20))
    volume, _ = volumes_of(tmp_path)["CT"]
    assert volume.array.min() == -1024  # the reader's value for padding; drawn air is -1000
    assert 0.05 < np.mean(volume.array == -1024) < 0.7
    header = pydicom.dcmread(next(written.series[0].folder.iterdir()))
    assert header.PixelPaddingValue == header.pixel_array.min() == -2000
    write_dicom(drawn, tmp_path / "whole")
    assert "PixelPaddingValue" not in pydicom.dcmread(next((tmp_path / "whole" / "ct").iterdir()))


def test_a_coarser_grid_is_smoothed_first(drawn, drawn_volume, tmp_path):
    """Noise has a smaller spread where voxels become fewer: what is too fine for a grid does not alias into it."""
    noise = np.random.default_rng(0).normal(0, 100, drawn.images["CT"].shape).astype(np.float32)
    noisy = dataclasses.replace(drawn, images={"CT": noise})
    write_dicom(noisy, tmp_path, writing=Writing(spacing=(6, 4.5, 4.5)))
    assert volumes_of(tmp_path)["CT"][0].array.std() < 30


def test_a_series_for_each_sequence_with_its_times(head, tmp_path):
    written = write_dicom(head, tmp_path, writing=Writing(localizer=True))
    assert [s.name for s in written.series] == ["localizer", "T1", "T2", "FLAIR", "DWI"]
    volumes = volumes_of(tmp_path)
    frames, times = set(), {}
    for series in written.series[1:]:
        volume, _ = volumes[series.name]
        assert volume.quantity == "stored"
        np.testing.assert_array_equal(volume.array, np.rint(head.images[series.name]))
        headers = [pydicom.dcmread(file) for file in series.folder.iterdir()]
        frames |= {h.FrameOfReferenceUID for h in headers}
        assert {h.SeriesInstanceUID for h in headers} == {series.series_uid}
        assert {h.StudyInstanceUID for h in headers} == {written.study_uid}
        assert {h.SOPClassUID.name for h in headers} == {"MR Image Storage"}
        times[series.name] = headers[0]
    assert len(frames) == 1
    assert times["T1"].RepetitionTime < 1000 < times["T2"].RepetitionTime
    assert times["T1"].EchoTime < 30 < times["T2"].EchoTime
    assert list(times["FLAIR"].ScanningSequence) == ["SE", "IR"]
    assert times["FLAIR"].InversionTime == 2500
    assert times["DWI"].DiffusionBValue == 1000
    assert "InversionTime" not in times["T2"]
    localizer = [pydicom.dcmread(file) for file in written.series[0].folder.iterdir()]
    assert {h.ImageType[2] for h in localizer} == {"LOCALIZER"}
    assert len({tuple(h.ImageOrientationPatient) for h in localizer}) == 2
    [study] = read(tmp_path).studies
    assert sum(i.is_localizer for s in study.series for i in s.instances) == 2


@pytest.mark.parametrize("name", WRITINGS)
def test_the_segmentation_stands_on_the_slices(drawn, tmp_path, name):
    """Read by highdicom: each segment covers its ball, and names what it is."""
    written = write_dicom(drawn, tmp_path, writing=WRITINGS[name])
    seg = highdicom.seg.segread(written.segmentation)
    assert [s.SegmentLabel for s in seg.SegmentSequence] == [
        "nodule, left, lower lobe",
        "nodule, right, lower lobe",
    ]
    for number, lesion in enumerate(FINDING.lesions, start=1):
        frames = [
            (frame.PlanePositionSequence[0].ImagePositionPatient, seg.pixel_array[n])
            for n, frame in enumerate(seg.PerFrameFunctionalGroupsSequence)
            if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
        ]
        shared = seg.SharedFunctionalGroupsSequence[0]
        columns, rows = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
        spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
        places = np.concatenate(
            [
                np.array(position, float) + np.argwhere(mask) @ np.stack([rows * spacing[0], columns * spacing[1]])
                for position, mask in frames
            ]
        )
        assert places.mean(0) == pytest.approx(lesion.center_mm, abs=1)
        assert np.linalg.norm(places - lesion.center_mm, axis=1).max() < lesion.diameter_mm / 2 + 2.5
    # Every frame lies on a slice of the images, which it refers to.
    images = {h.SOPInstanceUID: h for h in map(pydicom.dcmread, written.series[0].folder.iterdir())}
    referred = {i.ReferencedSOPInstanceUID for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    positions = {tuple(images[uid].ImagePositionPatient) for uid in referred}
    assert positions == {
        tuple(f.PlanePositionSequence[0].ImagePositionPatient) for f in seg.PerFrameFunctionalGroupsSequence
    }
    assert seg.FrameOfReferenceUID == next(iter(images.values())).FrameOfReferenceUID


def test_highdicom_puts_segments_where_the_images_are(drawn, tmp_path):
    written = write_dicom(drawn, tmp_path)
    volume = highdicom.seg.segread(written.segmentation).get_volume(combine_segments=True)
    for number, lesion in enumerate(FINDING.lesions, start=1):
        index = volume.map_reference_to_indices(np.array([lesion.center_mm]), round_output=True)[0]
        assert volume.array[tuple(index)] == number


def test_a_volume_without_segments_has_no_segmentation(drawn_volume, tmp_path):
    written = write_dicom(drawn_volume("chest_ct"), tmp_path)
    assert written.segmentation is None
    assert [p.name for p in tmp_path.iterdir()] == ["ct"]


def test_the_same_drawing_is_the_same_files_and_any_other_is_another_study(drawn, tmp_path):
    first, again = (write_dicom(drawn, tmp_path / name) for name in ("first", "again"))
    for file in (tmp_path / "first").rglob("*.dcm"):
        other = tmp_path / "again" / file.relative_to(tmp_path / "first")
        assert file.read_bytes() == other.read_bytes()
    assert first.study_uid == again.study_uid
    mirrored = dataclasses.replace(drawn, images={"CT": drawn.images["CT"][:, :, ::-1]})
    others = [
        write_dicom(mirrored, tmp_path / "mirrored"),
        write_dicom(drawn, tmp_path / "reversed", writing=Writing(reverse=True)),
    ]
    assert len({w.study_uid for w in (first, *others)}) == 3
    assert len({w.series[0].series_uid for w in (first, *others)}) == 3
    own, theirs = (volumes_of(tmp_path / name)["CT"][0] for name in ("first", "mirrored"))
    np.testing.assert_array_equal(own.array[:, :, ::-1], theirs.array)
    np.testing.assert_array_equal(own.affine, theirs.affine)


@pytest.mark.parametrize(
    ("option", "value"),
    [("orientation", "prone"), ("oblique_degrees", 90), ("tilt_degrees", 45), ("spacing", (1.0, 0.0, 1.0))],
)
def test_planes_that_cannot_be_are_refused(option, value):
    with pytest.raises(ConfigError, match=option):
        Writing(**{option: value})
