"""Writing a file so that it appears whole or not at all."""

from __future__ import annotations

import os
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
