import shutil
import subprocess
import sys

import pytest

from mmfm import doctor
from mmfm.io import codecs, frames


def rows(topic):
    return {row.name: row for row in doctor.diagnose() if row.topic == topic}


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "mmfm-test"
    shutil.copytree(tiny_checkpoint, folder)
    monkeypatch.setenv("MMFM_CHECKPOINTS", str(tmp_path))
    return folder


def test_a_set_up_checkout_has_nothing_wrong_with_versions_devices_and_decoders():
    found = doctor.diagnose()
    assert [r for r in found if r.ok is False and r.topic in ("version", "device", "DICOM")] == []
    assert {r.topic for r in found} == {"version", "device", "DICOM", "PACS", "data", "checkpoint"}
    assert rows("DICOM")["RLE Lossless"].ok
    assert rows("device")["cpu"].ok


JPEG = "1.2.840.10008.1.2.4."


def test_every_transfer_syntax_is_printed_with_the_decoders_that_are_tried(monkeypatch):
    numbers = ("50", "51", "57", "70", "80", "81", "90", "91", "201", "202", "203")
    plain = ("", ".1", ".1.99", ".2", ".5")
    expected = {f"1.2.840.10008.1.2{end}" for end in plain} | {JPEG + number for number in numbers}
    found = {row.found.rpartition(" (")[2].rstrip(")"): row for row in rows("DICOM").values()}
    assert set(found) == expected
    assert all(row.ok for row in found.values())
    assert found[JPEG + "201"].found == f"grey: imagecodecs, pylibjpeg; colour: pylibjpeg ({JPEG}201)"
    assert found["1.2.840.10008.1.2.1"].found.startswith("grey: pydicom; colour: pydicom")

    codecs.decoder_of.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(codecs, "find_spec", lambda name: None)
        without = rows("DICOM")
    codecs.decoder_of.cache_clear()
    assert not any("imagecodecs" in row.found for row in without.values())
    assert found[JPEG + "51"].found.startswith("grey: imagecodecs, pillow"), "the one decoder of 12 bits"
    monkeypatch.setattr(frames, "_PLUGINS", ())
    wrong = {name for name, row in rows("DICOM").items() if not row.ok}
    assert "JPEG 2000 Image Compression" in wrong
    assert "Explicit VR Little Endian" not in wrong


def test_every_row_that_is_wrong_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "version", lambda name: "0.1")
    monkeypatch.setenv("MMFM_DATA", str(tmp_path))
    wrong = [r for r in doctor.diagnose() if r.ok is False]
    assert {"torch", "gradio", "MMFM_DATA"} <= {r.name for r in wrong}
    assert all(r.fix for r in wrong)


def test_what_is_not_installed_is_named(monkeypatch):
    def absent(name):
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", absent)
    found = rows("version")
    assert found["torch"].ok is False
    assert found["monai"].ok is False


def test_data_lists_prepared_sources(monkeypatch, tmp_path):
    monkeypatch.delenv("MMFM_DATA", raising=False)
    assert rows("data")["MMFM_DATA"].ok is None
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic" / "manifest.jsonl").touch()
    monkeypatch.setenv("MMFM_DATA", str(tmp_path))
    assert "synthetic" in rows("data")["MMFM_DATA"].found


def test_a_whole_checkpoint_is_told_from_an_altered_one(checkpoint):
    assert rows("checkpoint")["mmfm-test"].ok
    (checkpoint / "model.safetensors").write_bytes(b"other")
    row = rows("checkpoint")["mmfm-test"]
    assert row.ok is False
    assert "altered" in row.found


def test_main_prints_every_row_and_tells_by_its_exit_code(monkeypatch, capsys):
    good = doctor.Row(topic="device", name="cpu", found="AVX2", ok=True)
    bad = doctor.Row(topic="DICOM", name="RLE Lossless", found="cannot be decoded", ok=False, fix="install numpy")
    monkeypatch.setattr(doctor, "diagnose", lambda: [good])
    assert doctor.main() == 0
    monkeypatch.setattr(doctor, "diagnose", lambda: [good, bad])
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert "AVX2" in out
    assert "WRONG  cannot be decoded; install numpy" in out


def test_importing_the_doctor_is_quick():
    code = "import sys, mmfm.doctor; print([m for m in ('torch', 'pydicom', 'gradio', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
