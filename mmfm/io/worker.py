"""A process of its own for decoding pixels of unknown origin: one that hangs or crashes takes nothing else with it.

Native decoders have ended the process that called them, on valid files too. ``decode`` here does what
``mmfm.io.frames.decode`` does, and ``decode_picture`` what that of ``mmfm.io.images`` does, in a process that is
started when it is first wanted, killed when a file takes too long or too much memory, and started anew for the next
one. What comes back is numbers and words, and is checked. It is no sandbox: code that a file makes a decoder run there
has the rights of this user, files and network among them, though not what the environment says.
"""

from __future__ import annotations

import atexit
import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, Timer
from typing import IO, cast

import numpy as np

from mmfm.errors import ConfigError, ReadError
from mmfm.io.frames import Coding
from mmfm.io.frames import decode as decode_here
from mmfm.io.images import decode_picture
from mmfm.jsonable import from_json, to_json
from mmfm.study import PixelHeader

FRAME_SECONDS = 10.0
FILE_SECONDS = 120.0
"""However many frames it has."""
FRAME_BYTES = 3 << 29
"""Memory that decoding may take besides the file and three times the pixels that come out (1.5 GB)."""
_START_SECONDS = 60.0
_READY = b"ready\n"
_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")
_ENVIRONMENT = (
    "DYLD_LIBRARY_PATH",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "SYSTEMROOT",
)
"""What is handed on: no password or token of a server."""
_SERVE = """
import sys
# This mmfm before an installed one, and never before the standard library.
at = next((i for i, path in enumerate(sys.path) if path.endswith("-packages")), len(sys.path))
sys.path.insert(at, sys.argv[1])
from mmfm.io.worker import serve
serve()
"""


class Worker:
    """The process, and the pipes to it. One call at a time; threads wait for each other."""

    def __init__(self) -> None:
        """Starts nothing yet."""
        self.reset()

    def reset(self) -> None:
        """Forgets the process, in a fork of the one that started it: another thread may have held the lock."""
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = Lock()

    def decode(self, content: bytes, header: PixelHeader, coding: Coding) -> np.ndarray:
        """Decodes as ``mmfm.io.frames.decode`` does.

        Raises:
            ReadError: as there; or the process ended, or was killed at a limit.
            ConfigError: it does not start.
        """
        return self._answered(content, header, coding)

    def decode_picture(self, content: bytes, header: PixelHeader) -> np.ndarray:
        """Decodes as ``mmfm.io.images.decode_picture`` does. Raises as ``decode``."""
        return self._answered(content, header, None)

    def _answered(self, content: bytes, header: PixelHeader, coding: Coding | None) -> np.ndarray:
        bare = replace(header, modality_lut=None, voi_lut=None)
        request = {"header": to_json(bare), "coding": to_json(coding), "bytes": len(content)}
        seconds = min(FILE_SECONDS, FRAME_SECONDS * header.frames)
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None, "both are pipes"
            try:
                with _killed_after(process, seconds) as late:
                    process.stdin.write(json.dumps(request).encode() + b"\n" + content)
                    process.stdin.flush()
                    answer = _answer(process.stdout, header, coding)
            except Exception:  # what comes back is trusted no more than the file was
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1)  # it may be on its way out: by what?
                self.end()
                found = f"more than {seconds:g} s" if late.is_set() else _cause(process)
                raise ReadError(
                    "", expected="pixels that can be decoded", found=found, fix="copy or export it again"
                ) from None
            except BaseException:  # an answer that nobody waited for must not be taken for that to the next request
                self.end()
                raise
        if isinstance(answer, ReadError):
            raise answer
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
            try:
                self._process = subprocess.Popen(
                    # -P: nothing is imported from the folder that someone's files may lie in.
                    [sys.executable, "-P", "-c", _SERVE, str(Path(__file__).parents[2])],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # decoders may print what a header holds
                    env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
                )
            except OSError as error:
                raise _no_start(error.strerror or "an error") from None
            self._owner = os.getpid()  # a fork of this process must not share the pipes
            atexit.register(self.end)
            assert self._process.stdout is not None, "it is a pipe"
            with _killed_after(self._process, _START_SECONDS) as late:
                ready = self._process.stdout.readline()  # until it is ready, its time does not count
            if ready != _READY:
                code = self._process.wait()
                self.end()
                raise _no_start(f"more than {_START_SECONDS:g} s" if late.is_set() else f"exit code {code}")
        return self._process

    def end(self) -> None:
        """Ends the process; the next call starts another."""
        atexit.unregister(self.end)
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None


shared = Worker()
"""The worker of this process."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared.reset)


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[Event]:
    """Kills the process if the block lasts longer; yields what tells whether it was."""
    late = Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = Timer(seconds, kill)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def serve() -> None:
    """Answers requests on standard input until it is closed; runs in the process of its own."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no answer
    answers.write(_READY)
    answers.flush()
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        header = from_json(PixelHeader, request["header"])
        coding = from_json(Coding, request["coding"]) if request["coding"] else None
        content = sys.stdin.buffer.read(request["bytes"])
        if hasattr(signal, "alarm"):
            signal.alarm(int(FILE_SECONDS) + 60)  # for the case that the parent, who kills sooner, is gone
        values = header.rows * header.columns * header.frames * header.samples
        _limit_memory(
            3 * values * max(1, (coding.bits_allocated if coding else header.bits_stored) // 8) + len(content)
        )
        try:
            array = decode_here(content, header, coding) if coding else decode_picture(content, header)
            array = np.ascontiguousarray(array)
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            answers.write(json.dumps({"shape": array.shape, "dtype": array.dtype.str}).encode() + b"\n")
            answers.write(array.data)
        except ReadError as error:
            answers.write(json.dumps({"expected": error.expected, "found": error.found}).encode() + b"\n")
        answers.flush()
        if hasattr(signal, "alarm"):
            signal.alarm(0)  # it may wait for the next file as long as it likes


def _limit_memory(wanted: int) -> None:
    """Lets the process grow by ``wanted`` bytes and what decoding may take; where the system cannot, does nothing."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + FRAME_BYTES + wanted
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _answer(stream: IO[bytes], header: PixelHeader, coding: Coding | None) -> np.ndarray | ReadError:
    """Returns what the process answered, which is trusted no more than the file was."""
    line = stream.readline(1 << 16)
    if not line.endswith(b"\n"):
        raise EOFError
    words = json.loads(line)
    if "found" in words:
        expected, found = (_printable(str(words[key])) for key in ("expected", "found"))
        return ReadError("", expected=expected, found=found, fix="copy or export it again")
    colour = (3,) if header.samples == 3 and header.photometric != "PALETTE COLOR" else ()
    shape = (header.frames, header.rows, header.columns, *colour)
    if words["shape"] != list(shape) or words["dtype"] not in _DTYPES:
        raise ValueError("an array of another shape or type")
    dtype = np.dtype(words["dtype"])
    bits = coding.bits_allocated if coding else header.bits_stored
    is_float = coding is not None and coding.keyword != "PixelData"
    if dtype.itemsize > max(1, bits // 8) or (dtype.kind == "f") != is_float:
        raise ValueError("values that the request cannot give")
    content = bytearray(math.prod(shape) * dtype.itemsize)  # not bytes: who asks may write to the pixels
    if cast(io.BufferedIOBase, stream).readinto(content) < len(content):
        raise EOFError
    return np.frombuffer(content, dtype).reshape(shape)


def _no_start(found: str) -> ConfigError:
    """Returns what ends the reading of all files: none of them is at fault."""
    return ConfigError(
        "the process that decodes files of unknown origin",
        expected="one that starts",
        found=found,
        fix="run `mmfm doctor`, and look at the limits of memory and processes",
    )


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:300]


def _cause(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return f"a decoder that ended its process or answered nonsense ({how})"


__all__ = ["Worker", "serve", "shared"]
