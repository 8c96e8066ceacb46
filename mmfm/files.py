"""Writing a file or a folder so that it appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty folder beside ``path`` that becomes it when all went well, and vanishes otherwise.

    Only its owner can read it.

    Raises:
        FileExistsError: ``path`` is there already, and no empty folder.
        OSError: it cannot be made.
    """
    path = Path(path).resolve()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError("something is there already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
