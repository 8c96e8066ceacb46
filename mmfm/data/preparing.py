"""What the prepare.py of several sources share: take images out of archives, check counts, write all or nothing.

A prepare.py ends with ``sys.exit(run(prepare, __doc__))`` and is then called as
``python datasets/<name>/prepare.py --source DIR --out DIR``.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mmfm.data.manifest import sha256
from mmfm.errors import ManifestError, MmfmError

T = TypeVar("T")


def run(prepare: Callable[..., None], doc: str | None, *, counted: bool = True) -> int:
    """Calls ``prepare(source, out)`` with what the command line says, and returns the exit code.

    Args:
        prepare: called with ``source`` and ``out``, and with ``expect: bool`` where ``counted``.
        doc: the help text.
        counted: the source is a published one, whose counts are checked unless ``--no-expect`` is given.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of the raw download")
    parser.add_argument("--out", type=Path, required=True, help="folder to write manifest.jsonl and its images to")
    if counted:
        parser.add_argument("--no-expect", action="store_true", help="other studies: do not check the counts")
    given = parser.parse_args()
    try:
        if counted:
            prepare(given.source, given.out, expect=not given.no_expect)
        else:
            prepare(given.source, given.out)
    except MmfmError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def progress(items: Sequence[T], what: str) -> Iterable[T]:
    """Yields the items with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    return track(items, description=what, console=Console(stderr=True))


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Returns the rows of a CSV table with a header row, in UTF-8.

    Raises:
        ManifestError: the file is absent or lacks one of the columns, or a row has another number of columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            missing = sorted(set(columns) - set(table.fieldnames or ()))
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            path.name,
            expected="a CSV table in UTF-8",
            found=getattr(error, "strerror", None) or "no such thing",
            fix="give the folder that holds it as --source",
        ) from error
    if missing:
        raise ManifestError(
            path.name,
            expected=f"the column {missing[0]!r}",
            found="none of that name",
            fix="use the table as its publisher wrote it",
        )
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ManifestError(
                f"{path.name} row {line}",
                expected="as many columns as the header has",
                found="another number",
                fix="use the table as its publisher wrote it",
            )
    return rows


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``out`` that takes its place when all went well, and vanishes otherwise.

    An earlier result is replaced; a folder that holds anything else is refused, since it would be lost.

    Raises:
        ManifestError: ``out`` cannot be made, or holds what is not an earlier result.
    """
    out = out.resolve()
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        before = {path.name for path in out.iterdir()} if out.exists() else set()
        temporary.mkdir(parents=True)
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise ManifestError("--out", expected="a folder to write", found=found, fix="give another one") from error
    try:
        if before and "manifest.jsonl" not in before:
            raise _foreign(sorted(before)[0])
        yield temporary
        for name in sorted(before - {path.name for path in temporary.iterdir()}):
            raise _foreign(name)
        if out.exists():
            out.rename(old)
        temporary.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _foreign(name: str) -> ManifestError:
    return ManifestError(
        "--out",
        expected="a new folder, or one that this command wrote",
        found=f"{name} in it",
        fix="give another folder, or move that away",
    )


def take_out(archives: Iterable[Path], names: Iterable[str], folder: Path) -> dict[str, str]:
    """Writes the named files of plain .tar archives into ``folder``, bytes unchanged.

    Args:
        archives: .tar files whose members are plain files in no folder.
        names: the files to take out, plain names; other members are left where they are, so that no name inside an
            archive says where anything is written.
        folder: made where absent.

    Returns:
        SHA-256 by file name.

    Raises:
        ManifestError: an archive is absent or broken, a name has a folder in it, or a named file is in no archive.
    """
    wanted = set(names)
    for name in sorted(wanted):
        plain_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, str] = {}
    for archive in progress(sorted(archives), "Taking images out"):
        try:
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    stream = tar.extractfile(member) if member.isfile() and member.name in wanted else None
                    if stream is not None:
                        file = folder / member.name
                        with file.open("wb") as target:
                            shutil.copyfileobj(stream, target)
                        taken[member.name] = sha256(file)
        except (OSError, tarfile.TarError) as error:
            raise ManifestError(
                archive.name,
                expected="a plain .tar archive",
                found=getattr(error, "strerror", None) or "something else, or only a part of one",
                fix="download it again",
            ) from error
    missing = sorted(wanted - set(taken))
    if missing:
        raise ManifestError(
            "images.csv",
            expected="every file that it lists in one of the archives",
            found=f"{len(missing)} in none, first {missing[0]}",
            fix="download the archives again",
        )
    return taken


def plain_name(name: str) -> str:
    """Returns the name of a file in no folder.

    Raises:
        ManifestError: it is empty, or leads to another folder.
    """
    if not name.strip(".") or set(name) & set("/\\:\0"):
        raise ManifestError(
            "images.csv",
            expected="file names without folders",
            found=repr(name)[:60],
            fix="use the table as its publisher wrote it",
        )
    return name


def check_counts(expected: Mapping[str, int], found: Mapping[str, int]) -> None:
    """Does nothing where every expected count was found.

    Raises:
        ManifestError: naming the first count that differs, and how many do.
    """
    wrong = [name for name, count in expected.items() if found.get(name, 0) != count]
    if wrong:
        raise ManifestError(
            "counts",
            expected=f"{wrong[0]} {expected[wrong[0]]}",
            found=f"{found.get(wrong[0], 0)} ({len(wrong)} of {len(expected)} counts differ)",
            fix="compare the source with the dataset's card, or give --no-expect for a folder with other studies",
        )


def tidy(text: str | None) -> str | None:
    """Returns the text with each run of white space as one blank, or ``None`` where nothing is left."""
    return " ".join((text or "").split()) or None
