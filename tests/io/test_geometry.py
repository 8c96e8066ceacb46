"""The place of every pixel, beside highdicom and SimpleITK, on series at any angle to the patient."""

from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mmfm.imaging import Volume
from mmfm.io import read_studies

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, silenced by a filter that pytest resets

TOLERANCE_MM = 1e-4
seeds = given(st.integers(0, 100_000))
many = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""The fixtures only write files."""


class Series:
    """Slices of noise at a random place, angle and spacing; their number, order and names are random too."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.slices = int(self.rng.integers(2, 7))
        self.stored = self.rng.integers(0, 4096, (self.slices, 9, 7)).astype(np.uint16)
        self.turn = Rotation.random(random_state=seed).as_matrix()  # columns: along slices, rows and columns
        if np.linalg.det(self.turn[:, ::-1]) < 0:
            self.turn[:, 0] *= -1  # slices ascend along the cross product of a row's and a column's direction
        self.spacing = self.rng.uniform(0.3, 4, 3).round(4)
        self.origin = self.rng.uniform(-300, 300, 3).round(4)
        self.order = self.rng.permutation(self.slices)

    def position(self, number: int) -> list[str]:
        return [f"{v:.8f}"[:16] for v in self.origin + number * self.spacing[0] * self.turn[:, 0]]

    @property
    def orientation(self) -> list[str]:
        return [f"{v:.10f}"[:16] for v in (*self.turn[:, 2], *self.turn[:, 1])]

    def write_classic(self, write_dicom: Callable[..., Path], folder: Path) -> Path:
        for number in self.order:
            write_dicom(
                str(folder / f"{self.rng.integers(1 << 40)}.dcm"), self.stored[number], Modality="CT", BitsStored=12,
                ImagePositionPatient=self.position(number), ImageOrientationPatient=self.orientation,
                PixelSpacing=[*self.spacing[1:]], SliceThickness=self.spacing[0], FrameOfReferenceUID="1.2.3.5",
                RescaleSlope=1, RescaleIntercept=-1024,
            )  # fmt: skip
        return folder

    def write_enhanced(self, write_enhanced: Callable[..., Path], path: Path, order: np.ndarray) -> Path:
        shared = {
            "PlaneOrientationSequence": {"ImageOrientationPatient": self.orientation},
            "PixelMeasuresSequence": {"PixelSpacing": [*self.spacing[1:]], "SliceThickness": self.spacing[0]},
            "PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"},
        }
        frames = [
            (
                self.stored[number],
                {
                    "PlanePositionSequence": {"ImagePositionPatient": self.position(number)},
                    "FrameContentSequence": {"DimensionIndexValues": [int(number) + 1]},
                },
            )
            for number in order
        ]
        organization, dimension = pydicom.Dataset(), pydicom.Dataset()
        organization.DimensionOrganizationUID = dimension.DimensionOrganizationUID = "1.2.3.6"
        dimension.DimensionIndexPointer = 0x00200032  # Image Position (Patient)
        dimension.FunctionalGroupPointer = 0x00209113
        return write_enhanced(
            str(path), frames, shared, BitsStored=12, FrameOfReferenceUID="1.2.3.5",
            DimensionOrganizationSequence=[organization], DimensionIndexSequence=[dimension],
        )  # fmt: skip


def volume_of(path: Path) -> Volume:
    (study,) = read_studies(path)
    volume, receipt = Volume.from_series(study.series[0])
    assert receipt.warnings == ()
    assert np.allclose(receipt.affine, volume.affine)
    return volume


def assert_is(volume: Volume, array: np.ndarray, affine: np.ndarray) -> None:
    """Another reader may order slices the other way round: then its first is our last."""
    if (affine @ [1, 0, 0, 0]) @ (volume.affine @ [1, 0, 0, 0]) < 0:
        affine = affine @ [[-1, 0, 0, len(array) - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        array = array[::-1]
    np.testing.assert_allclose(volume.affine, affine, rtol=0, atol=TOLERANCE_MM)
    last = np.array([*np.array(array.shape) - 1, 1])
    np.testing.assert_allclose(volume.affine @ last, affine @ last, rtol=0, atol=TOLERANCE_MM)
    np.testing.assert_array_equal(volume.array, array)


def of_simpleitk(image: SimpleITK.Image) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine by (slice, row, column)."""
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image), affine


@seeds
@many
def test_a_classic_series(write_dicom, tmp_path_factory, seed):
    series = Series(seed)
    folder = series.write_classic(write_dicom, tmp_path_factory.mktemp("series"))
    volume = volume_of(folder)
    expected = np.eye(4)
    expected[:3, :3], expected[:3, 3] = series.turn * series.spacing, series.origin
    assert_is(volume, series.stored.astype(np.float32) - 1024, expected)

    theirs = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in folder.iterdir()])
    assert_is(volume, theirs.array, theirs.affine)

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    assert_is(volume, *of_simpleitk(reader.Execute()))


@seeds
@many
def test_an_enhanced_object(write_enhanced, tmp_path_factory, seed):
    series = Series(seed)
    folder = tmp_path_factory.mktemp("object")
    path = series.write_enhanced(write_enhanced, folder / "shuffled.dcm", series.order)
    volume = volume_of(path)
    theirs = highdicom.Image.from_dataset(pydicom.dcmread(path)).get_volume()
    assert_is(volume, theirs.array, theirs.affine)
    # SimpleITK takes frames in the order in which they are stored.
    path = series.write_enhanced(write_enhanced, folder / "ordered.dcm", np.arange(series.slices))
    assert_is(volume, *of_simpleitk(SimpleITK.ReadImage(str(path))))
