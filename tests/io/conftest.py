"""DICOM files made for the tests, nobody's pixels; and an Orthanc to send them to, where one is installed."""

import contextlib
import copy
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from mmfm.data.synthetic import draw_study
from mmfm.data.synthetic import write_dicom as draw


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


@dataclass(frozen=True, kw_only=True)
class Orthanc:
    """A DICOM server of its own on free ports of this machine, empty at first."""

    process: subprocess.Popen[bytes]
    web: int
    dicom: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web}/dicom-web"

    def dicom_url(self, called_aet: str = "ORTHANC") -> str:
        return f"dicom://{called_aet}@127.0.0.1:{self.dicom}"


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Returns free_port(): a port of this machine that nothing listens on."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return server.getsockname()[1]

    return find


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Returns start(*words, ports): a program that listens on these ports, ended after the module."""
    processes = []

    def start(*words: str | Path, ports: tuple[int, ...]) -> subprocess.Popen[bytes]:
        with (tmp_path_factory.mktemp("server") / "log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        processes.append(process)
        for port in ports:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                assert process.poll() is None, f"{words[0]} ended at its start"
                time.sleep(0.05)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def start_orthanc(
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
    start_server: Callable[..., subprocess.Popen[bytes]],
) -> Callable[[], Orthanc]:
    """Returns start(): an Orthanc that knows the user reader:secret and the AE title MMFM."""
    program = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    folders = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
    plugin = next((p for f in folders for p in Path(f).glob("libOrthancDicomWeb.so*")), None)
    if not program or not plugin:
        pytest.skip("no Orthanc with DICOMweb here: install Debian's orthanc and orthanc-dicomweb")

    def start() -> Orthanc:
        folder = tmp_path_factory.mktemp("orthanc")
        web, dicom = free_port(), free_port()
        settings = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": web,
            "DicomPort": dicom,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {"mmfm": ["MMFM", "127.0.0.1", 104]},
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {"reader": "secret"},
            "Plugins": [str(plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        process = start_server(program, folder / "orthanc.json", ports=(web, dicom))
        return Orthanc(process=process, web=web, dicom=dicom)

    return start


@pytest.fixture(scope="module")
def orthanc(start_orthanc: Callable[[], Orthanc]) -> Orthanc:
    """One that the tests of a module share."""
    return start_orthanc()


@pytest.fixture
def relay() -> Iterator[Callable[..., int]]:
    """Returns relay(port, limit, then): a port that passes everything on to ``port``, until ``limit`` bytes passed.

    Then it calls ``then()`` and closes both ends.
    """
    sockets: list[socket.socket] = []

    def start(port: int, limit: int, then: Callable[[], object]) -> int:
        passed = 0

        def pump(here: socket.socket, there: socket.socket) -> None:
            nonlocal passed
            with contextlib.suppress(OSError):
                while data := here.recv(4096):
                    passed += len(data)
                    if passed > limit:
                        then()
                        break
                    there.sendall(data)
            for end in (here, there):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near = server.accept()[0]
                    far = socket.create_connection(("127.0.0.1", port))
                    sockets.extend((near, far))
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=pump, args=pair, daemon=True).start()

        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)
        threading.Thread(target=accept, daemon=True).start()
        return server.getsockname()[1]

    yield start
    for one in sockets:
        one.close()


@pytest.fixture(scope="session")
def mixed_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one drawn study, each of whose files has another transfer syntax."""
    folder = tmp_path_factory.mktemp("mixed_study")
    study = draw_study(3, size=64)
    first = pydicom.dcmread(draw(study, folder / "drawn")[0])
    syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)
    for number, syntax in enumerate(syntaxes):
        dataset = copy.deepcopy(first)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber, dataset.StudyDate = number, "20260102"
        if syntax.is_compressed:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.preamble = b"MZ" + bytes(126)
        dataset.save_as(folder / f"{number}.dcm", implicit_vr=syntax.is_implicit_VR, little_endian=True)
    shutil.rmtree(folder / "drawn")
    (folder / "notes.txt").write_text("not to be sent")
    return folder
