"""How long from a folder of CT slices to a Volume in HU? One table: mmfm, its peers, and the floor, in one run.

    pip install monai==1.6.1
    python benchmarks/dicom.py --slices 300 --runs 3

The slices are drawn (512 x 512, 12 bits, noise as in a CT) and written once for each transfer syntax. The peers are
MONAI's ``LoadImage(reader="PydicomReader")`` and SimpleITK's series reader. The floor is bare decoding with the
quickest bit-exact codec at hand (imagecodecs; numpy for raw values), spread over the cores, from bytes whose place is
known. The last column is mmfm with the decoding in a process that can be killed, as for files of unknown origin.

Below, the scan of many headers: mmfm groups them into a study, pydicom parses them without converting a value, and the
floor reads the bytes. Each figure is a median; all ways take turns. Files are read once before, so that none is
measured from a cold disk.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import SimpleITK
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import CTImageStorage, RLELossless

from mmfm.imaging import Volume
from mmfm.io import read

SIZE, INTERCEPT = 512, -1024
SYNTAXES: dict[str, tuple[str, Callable[..., Any] | None, Callable[..., Any] | None]] = {
    "raw": ("1.2.840.10008.1.2.1", None, None),
    "RLE": (RLELossless, None, lambda frame: imagecodecs.dicomrle_decode(frame, dtype="<u2")),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", imagecodecs.ljpeg_encode, imagecodecs.jpeg8_decode),
    "JPEG 2000": (
        "1.2.840.10008.1.2.4.90",
        lambda array: imagecodecs.jpeg2k_encode(array, level=0, codecformat="j2k", bitspersample=12),
        imagecodecs.jpeg2k_decode,
    ),
    "HTJ2K": ("1.2.840.10008.1.2.4.201", imagecodecs.htj2k_encode, imagecodecs.htj2k_decode),
}
"""Name -> transfer syntax, encoder, and the codec of the floor."""


def draw(slices: int) -> np.ndarray:
    """Returns (slices, 512, 512) stored values: a body, lungs and bones that change from slice to slice, with noise."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:512j, -1:1:512j]
    volume = np.empty((slices, SIZE, SIZE), np.uint16)
    for number, z in enumerate(np.linspace(-1, 1, slices)):
        hu = np.full((SIZE, SIZE), -1000.0)
        hu[(columns / 0.85) ** 2 + (rows / 0.6) ** 2 < 1] = 40
        for side in (-0.38, 0.38):
            hu[((columns - side) / 0.28) ** 2 + (rows / 0.45) ** 2 < 1 - 0.6 * z**2] = -820
        hu[columns**2 + ((rows - 0.4) / 0.8) ** 2 < 0.01] = 700
        hu += generator.normal(0, 12, hu.shape)
        volume[number] = np.clip(hu - INTERCEPT, 0, 4095)
    return volume


def write(folder: Path, volume: np.ndarray, syntax: str, encode: Callable[..., Any] | None) -> None:
    """Writes the slices as CT Image Storage."""
    folder.mkdir()
    for number, array in enumerate(volume):
        ds = pydicom.Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1" if encode is None else syntax
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, f"1.2.3.4.{number + 1}", "CT"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
        ds.PatientID, ds.PatientName, ds.InstanceNumber = "bench", "Bench^Mark", number + 1
        ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20260101"
        ds.Manufacturer, ds.KVP, ds.ConvolutionKernel, ds.PatientPosition = "mmfm", "120", "B30f", "HFS"
        ds.ImageType, ds.SeriesDescription, ds.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "Thorax", "CHEST"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-180, -180, number * 1.25], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [0.703125, 0.703125], 1.25
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, INTERCEPT, "HU"
        ds.WindowCenter, ds.WindowWidth = 40, 400
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.Rows, ds.Columns = array.shape
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelData = array.tobytes() if encode is None else encapsulate([encode(array)])
        ds["PixelData"].VR = "OW" if encode is None else "OB"
        if syntax == RLELossless:
            ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def write_headers(folder: Path, count: int) -> None:
    """Writes slices with the header of a real CT (pydicom's test file: 257 elements, private ones among them)."""
    folder.mkdir()
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    for number in range(count):
        ds.SOPInstanceUID, ds.InstanceNumber = f"1.2.3.{number + 1}", number + 1
        ds.ImagePositionPatient = [0, 0, number]
        ds.save_as(folder / f"{number:04d}.dcm")


def ours(folder: Path, *, isolate: bool = False) -> np.ndarray:
    (study,) = read(folder, isolate=isolate).studies
    return Volume.from_series(study.series[0])[0].array


def monai(folder: Path) -> np.ndarray:
    transforms = importlib.import_module("monai.transforms")  # measured beside mmfm, and nothing that it needs

    return transforms.LoadImage(image_only=True, reader="PydicomReader")(str(folder)).numpy().transpose(2, 1, 0)


def simpleitk(folder: Path) -> np.ndarray:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(reader.Execute())


def floor(folder: Path, decode: Callable[..., Any] | None) -> Callable[[], list]:
    """Returns a function that decodes all slices and does nothing else; where their bytes stand is found before."""
    places = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            ds = pydicom.filereader.read_partial(stream, stop_when=lambda tag, *_: tag == 0x7FE00010)
            places.append((path, stream.tell() + 12))
        assert ds.Rows == SIZE

    def one(place: tuple[Path, int]) -> Any:
        path, offset = place
        if decode is None:
            return np.fromfile(path, "<u2", SIZE * SIZE, offset=offset)
        with path.open("rb") as stream:
            stream.seek(offset)
            (frame,) = generate_frames(stream.read(), number_of_frames=1)
        return decode(frame)

    def all_of_them() -> list:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(one, places))

    return all_of_them


def machine() -> str:
    """Returns one line on processor, cores, memory and the versions that were measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = [name for name in ("pydicom", "imagecodecs", "numpy", "monai", "SimpleITK") if find_spec(name)]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB; Python {platform.python_version()}, {versions}."


def seconds(way: Callable[[], Any]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def main() -> None:
    """Prints the table, and the time to scan the headers of many files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--headers", type=int, default=5000, help="files of the header scan")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    volume = draw(arguments.slices)
    hu = volume.astype(np.float32) + INTERCEPT
    print(f"{arguments.slices} slices of {SIZE} x {SIZE}, seconds, median of {arguments.runs}. {machine()}\n")
    print("| syntax | mmfm | MONAI | SimpleITK | floor | mmfm, isolated |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        for name, (syntax, encode, decode) in SYNTAXES.items():
            folder = Path(temporary) / name.replace(" ", "")
            write(folder, volume, syntax, encode)
            ways = {
                "mmfm": lambda folder=folder: ours(folder),
                "MONAI": lambda folder=folder: monai(folder),
                "SimpleITK": lambda folder=folder: simpleitk(folder),
                "floor": floor(folder, decode),
                "isolated": lambda folder=folder: ours(folder, isolate=True),
            }
            for key in ("MONAI", "SimpleITK", "isolated", "mmfm"):
                try:
                    if not np.array_equal(ways[key](), hu):
                        raise ValueError("other values than were written")
                except Exception as error:
                    print(f"{key} does not read {name}: {str(error).splitlines()[0]}", file=sys.stderr)
                    del ways[key]
            times: dict[str, list[float]] = {key: [] for key in ways}
            for _ in range(arguments.runs):
                for key, way in ways.items():
                    times[key].append(seconds(way))
            cells = [f"{statistics.median(times[key]):.2f}" if key in times else "–" for key in
                     ("mmfm", "MONAI", "SimpleITK", "floor", "isolated")]  # fmt: skip
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
            for path in folder.iterdir():
                path.unlink()
        folder = Path(temporary) / "headers"
        write_headers(folder, arguments.headers)
        files = sorted(folder.iterdir())
        scans: dict[str, Callable[[], Any]] = {
            "mmfm": lambda: read(folder),
            "pydicom": lambda: [pydicom.dcmread(file, stop_before_pixels=True) for file in files],
            "floor": lambda: [file.read_bytes() for file in files],
        }
        for way in scans.values():
            way()
        rounds = [[seconds(way) for way in scans.values()] for _ in range(arguments.runs)]
    print(f"\n| headers of {arguments.headers} files | {' | '.join(scans)} |\n| --- |{' --- |' * len(scans)}")
    print(f"| seconds | {' | '.join(f'{statistics.median(times):.2f}' for times in zip(*rounds, strict=True))} |")


if __name__ == "__main__":
    main()
