"""Writing a file, or a folder of files, so that it appears whole or not at all; and what files hold, as a hash."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path

from mmfm.errors import ConfigError


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes ``text`` as UTF-8 beside ``path`` and puts it in its place; a file that stood there is replaced.

    Line ends stay as they are in ``text``. When writing fails, the earlier file is untouched and nothing is left over.

    Raises:
        OSError: the folder does not exist, or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")  # two processes may write the same file
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``out`` that takes its place when all went well, and vanishes otherwise.

    Only its owner can read it.

    Raises:
        ConfigError: ``out`` holds something, or cannot be made.
    """
    out = out.resolve()
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(8)}.partial")
    expected = "a new or empty folder"
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError("OUT", expected=expected, found="something there already", fix="give another one")
        temporary.mkdir(parents=True, mode=0o700)
        try:
            yield temporary
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            "OUT", expected=expected, found=error.strerror or type(error).__name__, fix="give another one"
        ) from error


def sha256_of(files: Iterable[Path | Traversable]) -> str:
    """Returns the SHA-256, in hexadecimal, of the names and contents of ``files``, in whatever order they come."""
    lines = []
    for file in files:
        with file.open("rb") as stream:
            lines.append(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}")  # type: ignore[arg-type]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
