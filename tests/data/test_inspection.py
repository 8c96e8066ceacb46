"""mmfm.data.inspection: outcomes and receipts, on made files and on the collections of odd and hostile ones."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless

from mmfm.data import inspection
from mmfm.data.inspection import inspect, render
from mmfm.errors import ConfigError, ReadError
from mmfm.imaging import pixels, volume
from mmfm.io import worker
from mmfm.study import Receipt

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, silenced by a filter that pytest resets


def write_ct(path, z, *, syntax=ExplicitVRLittleEndian, pixels=None):
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"1.2.{round(z * 10) + 1}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2.3", "1.2.3.4", "CT"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.RescaleSlope, dataset.RescaleIntercept = [0.5, 0.5], 1, -1024
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = 16
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = pixels or np.full((16, 16), 1024, np.uint16).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)
    return path


def broken(path, z):
    return write_ct(path, z, syntax=JPEG2000Lossless, pixels=pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" * 20]))


def test_every_file_has_an_outcome_and_every_series_a_receipt(tmp_path):
    for z in (0, 2, 4):
        write_ct(tmp_path / f"{z}.dcm", z)
    broken(tmp_path / "9.dcm", 6)
    (tmp_path / "note.txt").write_text("hello")
    result = json.loads(json.dumps(inspect(tmp_path)))
    assert {f["file"][-5:]: f["status"] for f in result["files"]} == {
        "0.dcm": "ok", "2.dcm": "ok", "4.dcm": "ok", "9.dcm": "refused", "e.txt": "refused",
    }  # fmt: skip
    (study,) = result["studies"]
    (series,) = study["series"]
    assert (study["study_uid"], series["series_uid"], series["modality"]) == ("1.2.3", "1.2.3.4", "CT")
    receipt = Receipt.from_json(series["receipt"])
    assert (receipt.shape, receipt.slices_used, receipt.quantity) == ((3, 16, 16), 3, "HU")
    assert set(result["files"][0]) == {
        "file", "status", "reason", "study_uid", "series_uid", "sop_instance_uid", "modality",
        "transfer_syntax", "rows", "columns", "frames", "photometric", "preamble_suspicious",
    }  # fmt: skip


def test_headers_alone_decode_nothing(tmp_path):
    broken(tmp_path / "x.dcm", 0)
    result = inspect(tmp_path, headers_only=True)
    assert result["files"][0]["status"] == "ok"
    assert result["studies"][0]["series"] == [
        {"series_uid": "1.2.3.4", "modality": "CT", "receipt": None, "reason": None}
    ]
    assert "not decoded" in render(result)


def test_a_series_with_no_file_left_has_no_receipt(tmp_path):
    broken(tmp_path / "x.dcm", 0)
    result = inspect(tmp_path)
    assert result["files"][0]["status"] == "refused"
    assert result["studies"] == []


def test_a_series_that_makes_no_volume_says_why_and_its_files_are_as_they_are_alone(tmp_path):
    write_ct(tmp_path / "a.dcm", 0)
    write_ct(tmp_path / "b.dcm", 0.001)
    dataset = pydicom.dcmread(tmp_path / "b.dcm")
    dataset.SOPInstanceUID = "1.2.77"
    dataset.save_as(tmp_path / "b.dcm")
    result = inspect(tmp_path)
    assert {(f["status"], f["reason"]) for f in result["files"]} == {("ok", "its series makes no volume")}
    (series,) = result["studies"][0]["series"]
    assert series["receipt"] is None
    assert "1 of 2 at the position of another" in series["reason"]
    assert "no volume: expected slices at different positions" in render(result)
    assert inspect(tmp_path / "a.dcm")["files"][0]["status"] == "ok"


def test_a_slice_that_cannot_be_shown_leaves_the_volume_to_the_others(tmp_path, monkeypatch):
    for z in (0, 2, 4, 6):
        write_ct(tmp_path / f"{z}.dcm", z)
    dataset = pydicom.dcmread(tmp_path / "4.dcm")
    dataset.RescaleIntercept = 13
    dataset.save_as(tmp_path / "4.dcm")
    real = pixels.to_physical

    def fails(stored, header, **options):
        if header.rescale_intercept == 13:
            raise OverflowError("bits")
        return real(stored, header, **options)

    monkeypatch.setattr(volume, "to_physical", fails)
    monkeypatch.setattr(inspection, "MAX_KEPT_BYTES", 1000)  # of one slice: the others are decoded again
    result = inspect(tmp_path)
    assert [f["status"] for f in result["files"]] == ["ok", "ok", "refused", "ok"]
    assert result["files"][2]["reason"].endswith("(OverflowError)")
    assert result["studies"][0]["series"][0]["receipt"]["slices_used"] == 3


@pytest.mark.parametrize(("error", "reason"), [(KeyError("x"), "KeyError"), (MemoryError(), "memory")])
@pytest.mark.parametrize("at", ["load", "volume"])
def test_whatever_goes_wrong_with_one_series_is_one_line(tmp_path, monkeypatch, error, reason, at):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "good.png")
    write_ct(tmp_path / "x.dcm", 0)

    def fails(*_, **__):
        raise error

    if at == "load":
        monkeypatch.setattr("mmfm.io.worker.shared.decode", fails)
    else:
        monkeypatch.setattr(volume, "to_physical", fails)
    result = inspect(tmp_path)
    assert [f["status"] for f in result["files"]] == ["ok", "refused"]
    assert reason in result["files"][1]["reason"]
    assert len(result["studies"]) == 1


def test_a_process_that_does_not_start_ends_it_with_one_error(tmp_path, monkeypatch):
    for z in (0, 2):
        write_ct(tmp_path / f"{z}.dcm", z)
    monkeypatch.setattr("mmfm.io.worker.shared", worker.Worker())
    monkeypatch.setattr(worker, "_SERVE", "raise SystemExit(3)")
    with pytest.raises(ConfigError, match="expected one that starts; found exit code 3"):
        inspect(tmp_path)


def test_an_archive_is_one_entry_before_its_members(tmp_path):
    good, bad = write_ct(tmp_path / "a.dcm", 0).read_bytes(), broken(tmp_path / "b.dcm", 2).read_bytes()
    expected = {}
    for name, members in {
        "none": [],
        "folder/": [b""],
        "bad": [bad, b"text"],
        "good": [bad, good],
        "text": [b"text"],
    }.items():
        path = tmp_path / f"{name.strip('/')}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number, member in enumerate(members):
                archive.writestr(name if name.endswith("/") else str(number), member)
        expected[name] = [file["status"] for file in inspect(path)["files"]]
        assert inspect(path)["files"][0]["file"] == str(path)
    assert expected == {
        "none": ["refused"],
        "folder/": ["refused"],
        "bad": ["refused"] * 3,
        "good": ["ok", "refused", "ok"],
        "text": ["refused"] * 2,
    }
    reason = inspect(tmp_path / "text.zip")["files"][0]["reason"]
    assert reason == "none of its 1 members can be read; the first: expected DICOM, NIfTI, PNG, JPEG or zip, found text"
    assert inspect(tmp_path / "none.zip")["files"][0]["reason"] == "expected an archive of images, found an empty one"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_each_have_an_outcome(tmp_path):
    members = [write_ct(tmp_path / "a.dcm", 0), broken(tmp_path / "b.dcm", 2), write_ct(tmp_path / "c.dcm", 4)]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in members:
            archive.writestr("same.dcm", path.read_bytes())
        archive.writestr("same.dcm", "text")
    result = inspect(tmp_path / "z.zip")
    assert [file["status"] for file in result["files"]] == ["ok", "ok", "refused", "ok", "refused"]
    assert "5 files: 3 ok, 2 refused, 0 ignored" in render(result)
    assert Receipt.from_json(result["studies"][0]["series"][0]["receipt"]).slices_used == 2


def test_text_for_people(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a\nb.png")
    (tmp_path / "x.txt").write_text("hello")
    text = render(inspect(tmp_path))
    assert text.splitlines()[0] == "2 files: 1 ok, 1 refused, 0 ignored"
    assert "PNG, 1 x 4 x 5" in text
    assert "expected DICOM, NIfTI, PNG, JPEG or zip, found text" in text


def test_missing_path(tmp_path):
    with pytest.raises(ReadError, match="nothing there"):
        inspect(tmp_path / "absent")


def test_five_hundred_slices_are_read_quickly(tmp_path):
    from mmfm.io import read

    for number in range(500):
        write_ct(tmp_path / f"{number:03d}.dcm", number)
    start = time.process_time()
    (study,) = read(tmp_path).studies
    assert time.process_time() - start < 5
    assert len(study.series[0].instances) == 500


@pytest.mark.slow
@pytest.mark.parametrize("collection", ["dicom_odd", "dicom_hostile"])
def test_every_odd_and_hostile_file_opens_or_is_refused(shared_data, collection, capfd):
    folder = shared_data / collection
    if not folder.is_dir():
        pytest.skip(f"no {collection} beside the checkout")
    with open(folder / "manifest.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    together = {file["file"]: file for file in inspect(folder / "files")["files"]}
    for row in rows:
        start = time.monotonic()
        result = inspect(folder / row["file"])
        assert time.monotonic() - start < 10, row["file"]
        json.dumps(result)
        render(result)
        statuses = [file["status"] for file in result["files"]]
        assert statuses, row["file"]
        assert all(file["reason"] for file in result["files"] if file["status"] != "ok")
        expected = row.get("expected", "")
        if expected.startswith("refuse"):
            assert "ok" not in statuses or "duplicates" in expected, row["file"]
        elif expected.startswith(("open,", "open;", "open inverted", "open as", "flag", "volume", "each slice")):
            assert set(statuses) == {"ok"}, (row["file"], result["files"][0]["reason"])
        decodes = row.get("pixels_with_pydicom_3_0_2")
        if decodes == "none":
            assert "ok" not in statuses, row["file"]
        elif decodes == "decodes":
            assert statuses == ["ok"], (row["file"], result["files"][0]["reason"])
        for file in result["files"]:  # in a folder with the others, but for a second file of one instance
            other = together.get(file["file"], file)
            is_second = other["reason"] == "expected a SOP Instance UID of its own, found that of a file before it"
            assert is_second or other["status"] == file["status"], file["file"]
    assert "Traceback" not in capfd.readouterr().err


MEASURED = """
import sys
from mmfm.cli import main
sys.argv = ["mmfm", "inspect", sys.argv[1], "--json"]
try:
    main()
finally:
    sys.stdout.flush()
    # Not getrusage, which counts what the process that started this one had in memory.
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(int(peak) // 1024, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory of a process from /proc")
def test_hostile_files_take_little_memory_and_write_nothing(shared_data, tmp_path):
    """Of the parent alone: what decodes is a process of its own, with a limit of its own."""
    target = tmp_path / "target"
    shutil.copytree(shared_data / "dicom_hostile" / "files", target)
    for folder in ("home", "tmp", "work"):
        (tmp_path / folder).mkdir()
    before = fingerprint(tmp_path)
    places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "home"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(target)],
        cwd=tmp_path / "work", capture_output=True, text=True,
        env=os.environ | {key: str(tmp_path / name) for key, name in places.items()} | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr.strip().isdecimal(), done.stderr
    assert int(done.stderr) < 1024, f"{done.stderr.strip()} MB"
    assert len(json.loads(done.stdout)["files"]) > 141
    assert fingerprint(tmp_path) == before


def fingerprint(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.slow
def test_each_bomb_is_refused_within_two_seconds(shared_data):
    with open(shared_data / "dicom_hostile" / "manifest.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["family"] in ("bomb", "archive")]
    inspect(shared_data / "dicom_hostile" / "files" / "009_deflate_ok.dcm")  # the first call imports and starts much
    seen = 0
    for row in rows:
        start = time.monotonic()
        files = inspect(shared_data / "dicom_hostile" / row["file"])["files"]
        seconds = time.monotonic() - start
        if row["expected"].startswith("refuse"):
            seen += 1
            assert seconds < 2, (row["file"], seconds)
            assert {file["status"] for file in files} == {"refused"}, row["file"]
    assert seen >= 7


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("elements", "1000000 elements"), ("zeros", "neither an image nor"), ("fragments", "compressed frames")],
)
def test_a_deflated_bomb_below_the_ratio_is_refused_within_two_seconds(tmp_path, kind, reason):
    """What a limit of 200:1 lets through must not keep the parser busy for minutes."""
    empty = b"\x09\x00\x02\x10LO\x00\x00"
    noise = np.random.default_rng(0).integers(0, 256, (4 << 20) // 16, np.uint8).tobytes()
    body = {
        "elements": empty * (30 << 17),
        "zeros": bytes(32 << 20),
        "fragments": b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * (30 << 17),
    }[kind]
    syntax = b"1.2.840.10008.1.2.1.99"
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(noise + body if kind == "zeros" else body + noise) + packer.flush()
    head = bytes(128) + b"DICM\x02\x00\x10\x00UI" + len(syntax).to_bytes(2, "little") + syntax
    (tmp_path / "x.dcm").write_bytes(head + packed)
    start = time.process_time()
    (file,) = inspect(tmp_path / "x.dcm")["files"]
    assert time.process_time() - start < 2
    assert file["status"] == "refused"
    assert reason in file["reason"]


def test_a_second_file_of_one_instance_is_the_same_or_refused(tmp_path):
    write_ct(tmp_path / "1.dcm", 0)
    shutil.copy(tmp_path / "1.dcm", tmp_path / "2.dcm")
    other = pydicom.dcmread(tmp_path / "1.dcm")
    other.PixelData = other.PixelData[::-1]
    other.save_as(tmp_path / "3.dcm")
    result = inspect(tmp_path)
    assert [file["status"] for file in result["files"]] == ["ok", "ok", "refused"]
    assert "read once" in result["files"][1]["reason"]
    assert "SOP Instance UID of its own" in result["files"][2]["reason"]
    assert result["studies"][0]["series"][0]["receipt"]["slices_used"] == 1
    assert [file["status"] for file in inspect(tmp_path, headers_only=True)["files"]] == ["ok", "refused", "refused"]
