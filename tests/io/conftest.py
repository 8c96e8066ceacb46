"""DICOM files made for the tests: real files, nobody's pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)


@pytest.fixture
def write_dicom(tmp_path: Path) -> Callable[..., Path]:
    """Returns write(name, array, **attributes): uint16 grey by default, a DX unless Modality says otherwise."""

    def write(name: str, array: np.ndarray, syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> Path:
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        modality = attributes.get("Modality", "DX")
        dataset.SOPClassUID = CTImageStorage if modality == "CT" else DigitalXRayImageStorageForPresentation
        dataset.SOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        dataset.Modality = modality
        dataset.PatientID, dataset.PatientName = "P1", "Doe^Jane"
        dataset.SamplesPerPixel = 1 if array.ndim == 2 else 3
        dataset.PhotometricInterpretation = "MONOCHROME2" if array.ndim == 2 else "RGB"
        if array.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.Rows, dataset.Columns = array.shape[:2]
        dataset.BitsAllocated = dataset.BitsStored = 8 * array.dtype.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(array.dtype.kind == "i")
        dataset.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
        for key, value in attributes.items():
            setattr(dataset, key, value)
        if "BitsStored" in attributes:
            dataset.HighBit = dataset.BitsStored - 1
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def write_enhanced(write_dicom: Callable[..., Path]) -> Callable[..., Path]:
    """Returns write(name, frames, shared, **attributes): an enhanced object, a CT unless Modality is MR or PT.

    ``frames`` holds (array, groups), ``shared`` groups; groups are {sequence: attributes of its one item}.
    """

    def item(attributes: dict[str, Any]) -> pydicom.Dataset:
        dataset = pydicom.Dataset()
        for key, value in attributes.items():
            setattr(dataset, key, [item(value)] if isinstance(value, dict) else value)
        return dataset

    classes = {"MR": EnhancedMRImageStorage, "PT": EnhancedPETImageStorage}

    def write(name: str, frames: list[tuple[np.ndarray, dict]], shared: dict, **attributes: Any) -> Path:
        attributes = {
            "Modality": "CT",
            "SOPClassUID": classes.get(attributes.get("Modality", "CT"), EnhancedCTImageStorage),
            "NumberOfFrames": len(frames),
            "PixelData": b"".join(array.tobytes() for array, _ in frames),
            "SharedFunctionalGroupsSequence": [item(shared)],
            "PerFrameFunctionalGroupsSequence": [item(groups) for _, groups in frames],
        } | attributes
        return write_dicom(name, frames[0][0], **attributes)

    return write


@pytest.fixture
def picture() -> np.ndarray:
    """(24, 20) uint8 with black, white and all between."""
    return np.random.default_rng(7).permutation(np.linspace(0, 255, 480).astype(np.uint8)).reshape(24, 20)
