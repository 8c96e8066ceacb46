"""mmfm.io.worker: the same pixels from a process of its own, which may be killed at any time."""

import io
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfm.errors import ConfigError, ReadError
from mmfm.io import frames, images, read, worker
from mmfm.study import PixelHeader

CODING = frames.Coding(
    syntax="1.2.840.10008.1.2.1",
    keyword="PixelData",
    vr="OW",
    bits_allocated=16,
    bits_stored=16,
    signed=True,
    planar=0,
)
ARRAY = np.arange(-6, 6, dtype="<i2").reshape(1, 3, 4)
HEADER = PixelHeader(rows=3, columns=4, bits_stored=16, signed=True)


@pytest.fixture
def process():
    one = worker.Worker()
    yield one
    one.end()


def test_the_process_decodes_as_this_one_does(process):
    answer = process.decode(ARRAY.tobytes(), HEADER, CODING)
    np.testing.assert_array_equal(answer, ARRAY)
    assert answer.dtype == ARRAY.dtype
    assert answer.flags.writeable


def test_a_refusal_there_is_a_refusal_here(process):
    with pytest.raises(ReadError, match="found 10 of 24 bytes"):
        process.decode(ARRAY.tobytes()[:10], HEADER, CODING)
    np.testing.assert_array_equal(process.decode(ARRAY.tobytes(), HEADER, CODING), ARRAY)


def test_a_process_that_ends_is_told_and_started_anew(process):
    with pytest.raises(ReadError, match=r"a decoder that ended its process .*\(exit code 1\)"):
        process.decode(ARRAY.tobytes(), replace(HEADER, rows=10**9, columns=10**9, frames=10), CODING)
    np.testing.assert_array_equal(process.decode(ARRAY.tobytes(), HEADER, CODING), ARRAY)


def test_an_interrupted_request_leaves_no_answer_for_the_next(process, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            process.decode(ARRAY.tobytes(), HEADER, CODING)
    other = ARRAY[:, ::-1].copy()
    np.testing.assert_array_equal(process.decode(other.tobytes(), HEADER, CODING), other)


NONSENSE = (
    b"{}",
    b"5",
    b'{"shape": 5}',
    b"[" * 60_000,
    b'{"shape": [1, 4, 3], "dtype": "<i2"}',
    b'{"shape": [1, 3, 4], "dtype": "<i8"}',
    b'{"shape": [1, 3, 4], "dtype": "<f4"}',
    b'{"found": "x"}',
)


@pytest.mark.parametrize("answer", NONSENSE)
def test_nonsense_is_no_answer(process, monkeypatch, answer):
    real = worker._answer
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_answer", lambda _, *request: real(io.BytesIO(answer + b"\n" + bytes(200)), *request))
        with pytest.raises(ReadError, match="answered nonsense"):
            process.decode(ARRAY.tobytes(), HEADER, CODING)
    np.testing.assert_array_equal(process.decode(ARRAY.tobytes(), HEADER, CODING), ARRAY)


def test_nothing_is_imported_from_the_working_directory(process, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(process.decode(ARRAY.tobytes(), HEADER, CODING), ARRAY)


def test_it_waits_for_the_next_file_as_long_as_it_likes(process, monkeypatch):
    soon = "import mmfm.io.worker as w; w.FILE_SECONDS = -59\nserve()"  # it would end itself after 1 s
    monkeypatch.setattr(worker, "_SERVE", worker._SERVE.replace("serve()", soon))
    process.decode(ARRAY.tobytes(), HEADER, CODING)
    first = process._process
    time.sleep(1.2)
    assert first.poll() is None
    np.testing.assert_array_equal(process.decode(ARRAY.tobytes(), HEADER, CODING), ARRAY)
    assert process._process is first


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the environment of a process is not shown here")
def test_it_is_told_no_password(process, monkeypatch):
    monkeypatch.setenv("MMFM_PACS_AUTH", "reader:secret")
    process.decode(ARRAY.tobytes(), HEADER, CODING)
    assert b"secret" not in Path(f"/proc/{process._process.pid}/environ").read_bytes()


@pytest.mark.parametrize(
    ("change", "found"),
    [({"_SERVE": "raise SystemExit(3)"}, "exit code 3"), ({"_SERVE": "while 1: pass", "_START_SECONDS": 0.2}, "0.2 s")],
)
def test_one_that_does_not_start_is_no_file_s_fault(process, monkeypatch, change, found):
    for name, value in change.items():
        monkeypatch.setattr(worker, name, value)
    with pytest.raises(ConfigError, match=f"expected one that starts; found .*{found}"):
        process.decode(ARRAY.tobytes(), HEADER, CODING)
    monkeypatch.undo()
    np.testing.assert_array_equal(process.decode(ARRAY.tobytes(), HEADER, CODING), ARRAY)


def test_one_that_takes_too_long_is_killed(process, monkeypatch):
    monkeypatch.setattr(worker, "FRAME_SECONDS", 0.001)
    with pytest.raises(ReadError, match=r"found more than 0\.001 s"):
        process.decode(bytes(32_000_000), replace(HEADER, rows=4000, columns=4000), CODING)
    monkeypatch.undo()
    np.testing.assert_array_equal(process.decode(ARRAY.tobytes(), HEADER, CODING), ARRAY)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process so")
def test_memory_is_limited():
    code = "from mmfm.io.worker import _limit_memory; import numpy; _limit_memory(0); numpy.ones(2 << 30, numpy.uint8)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Unable to allocate 2.00 GiB" in ended.stderr


def test_reading_in_isolation_gives_the_same_pixels(write_dicom, picture):
    path = write_dicom("x.dcm", picture)
    here, there = (read(path, isolate=isolate).studies[0].series[0].instances[0] for isolate in (False, True))
    assert here == there
    np.testing.assert_array_equal(here.load(), there.load())


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_pictures_are_decoded_there_too(tmp_path, picture, monkeypatch, kind, mode):
    if (kind, mode) == ("JPEG", "I;16"):
        pytest.skip("JPEG holds 8 bits")
    array = picture.astype(np.uint16) * 257 if mode == "I;16" else picture
    Image.fromarray(array).convert(mode).save(tmp_path / "x", kind)
    here, there = (read(tmp_path, isolate=isolate).studies[0].series[0].instances[0] for isolate in (False, True))
    expected = here.load()
    monkeypatch.setattr(images, "_array", None)  # in this process, nothing can decode
    np.testing.assert_array_equal(there.load(), expected)
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-40])
    with pytest.raises(ReadError, match="x: expected a complete PNG or JPEG"):
        there.load()
