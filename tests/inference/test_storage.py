"""The same decoded pixels give the same draft, however they are stored."""

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from mmfm.data.synthetic import draw_study
from mmfm.inference import Reporter
from mmfm.io import read_studies

EIGHT_BIT_WINDOW, TWELVE_BIT_WINDOW = (128.0, 256.0), (2040.5, 4081.0)


def _pixels() -> np.ndarray:
    stored = draw_study(5, size=96, findings=("pleural_effusion",)).views[0].pixels.astype(float)
    low, high = np.percentile(stored, (0.2, 99.8))
    return np.clip((stored - low) / (high - low) * 255, 0, 255).round().astype(np.uint16)


def _write(path, values, *, bits, photometric, window):
    inverted = 2**bits - 1 - values if photometric == "MONOCHROME1" else values
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition, dataset.PatientAge = "DX", "CHEST", "PA", "050Y"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, photometric, 0
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    if window is not None:
        center, width = window
        if photometric == "MONOCHROME1":
            center = 2**bits - center
        dataset.WindowCenter, dataset.WindowWidth = center, width
    dataset.PixelData = inverted.astype(np.uint8 if bits == 8 else np.uint16).tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def reporter(tiny_checkpoint):
    return Reporter.from_pretrained(str(tiny_checkpoint), device="cpu")


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("bits", "factor", "window"), [(8, 1, EIGHT_BIT_WINDOW), (12, 16, TWELVE_BIT_WINDOW)])
@pytest.mark.parametrize("with_window", [False, True])
def test_png_and_dicom_of_the_same_pixels_give_the_same_draft(
    reporter, tmp_path, photometric, bits, factor, window, with_window
):
    pixels = _pixels()
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "p.png")
    _write(
        tmp_path / "p.dcm", pixels * factor, bits=bits, photometric=photometric, window=window if with_window else None
    )
    from_png = reporter.report(*read_studies(tmp_path / "p.png"))
    from_dicom = reporter.report(*read_studies(tmp_path / "p.dcm"))
    assert from_dicom.sections == from_png.sections
    for name, probability in from_png.finding_probabilities.items():
        assert from_dicom.finding_probabilities[name] == pytest.approx(probability, abs=1e-3)
