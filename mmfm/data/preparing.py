"""What the prepare.py of several sources share: take images out of archives, check counts, write all or nothing.

A prepare.py ends with ``sys.exit(run(prepare, __doc__))`` and is then called as
``python datasets/<name>/prepare.py --source DIR --out DIR``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import re
import shutil
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from mmfm.data.manifest import sha256
from mmfm.errors import ManifestError, MmfmError
from mmfm.report import Status
from mmfm.text import compares_with_prior, split_sentences

T = TypeVar("T")

CHEXPERT_LABELS = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Enlarged Cardiomediastinum": "enlarged_cardiomediastinum",
    "Fracture": "fracture",
    "Lung Lesion": "lung_lesion",
    "Lung Opacity": "lung_opacity",
    "Pleural Effusion": "pleural_effusion",
    "Pleural Other": "pleural_other",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
    "Support Devices": "support_devices",
}
"""Columns of a table in CheXpert's form to observations; its "No Finding" is derived, so is no label."""


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
    """Returns the rows of ``table_rows``."""
    return list(table_rows(path, columns))


def has_table(path: Path) -> bool:
    """Whether there is a table for ``table_rows``, plain or as .gz."""
    return path.is_file() or _gz(path).is_file()


def table_rows(path: Path, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yields the rows of a CSV table with a header row, in UTF-8; where there is no such file, of the .gz beside it.

    Raises:
        ManifestError: the file is absent or lacks one of the columns, or a row has another number of columns.
    """
    try:
        with _open_table(path) as file:
            table = csv.DictReader(file)
            missing = sorted(set(columns) - set(table.fieldnames or ()))
            if missing:
                raise ManifestError(
                    path.name,
                    expected=f"the column {missing[0]!r}",
                    found="none of that name",
                    fix="use the table as its publisher wrote it",
                )
            for line, row in enumerate(table, start=2):
                if None in row or None in row.values():
                    raise ManifestError(
                        f"{path.name} row {line}",
                        expected="as many columns as the header has",
                        found="another number",
                        fix="use the table as its publisher wrote it",
                    )
                yield row
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            path.name,
            expected="a CSV table in UTF-8",
            found=getattr(error, "strerror", None) or "something else, or only a part of one",
            fix="give the folder that holds it as --source",
        ) from error


def read_json(path: Path) -> Any:
    """Returns the value of a JSON file in UTF-8; NaN, which some write where there is nothing, is ``None``.

    Raises:
        ManifestError: the file is absent, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(
            path.name,
            expected="a JSON file",
            found=getattr(error, "strerror", None) or "something else, or only a part of one",
            fix="give the folder that holds it as --source",
        ) from error


def member(value: Any, name: str, kind: type[T], where: str, default: T | None = None) -> T:
    """Returns what a JSON object has under ``name``.

    Args:
        value: what should be an object.
        name: of the member.
        kind: its type, such as ``str``, ``list`` or ``bool``.
        where: what to name in a message.
        default: returned where the member is absent or null; without it, that is an error.

    Raises:
        ManifestError: ``value`` is no object, or the member is absent or of another type.
    """
    found = value.get(name) if isinstance(value, dict) else None
    if found is None and default is not None and isinstance(value, dict):
        return default
    if not isinstance(found, kind):
        words = {str: "text", list: "a list", dict: "an object", bool: "true or false"}
        raise ManifestError(
            where,
            expected=f"an object whose {name!r} is {words[kind]}",
            found="something else, or nothing",
            fix="use the file as its publisher wrote it",
        )
    return found


def _gz(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def _open_table(path: Path) -> TextIO:
    if not path.exists() and _gz(path).exists():
        return gzip.open(_gz(path), "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


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


def link_folder(link: Path, folder: Path) -> None:
    """Makes ``link`` a symbolic link to ``folder``, so that images of many gigabytes need not be copied.

    Raises:
        ManifestError: the folder is absent, or this disk or system makes no symbolic links.
    """
    if not folder.is_dir():
        raise ManifestError(
            folder.name,
            expected="the folder with the images in --source",
            found="no such folder",
            fix="unpack the download as the dataset's card says",
        )
    try:
        link.symlink_to(folder.resolve(), target_is_directory=True)
    except OSError as error:
        raise ManifestError(
            "--out",
            expected="a disk that takes symbolic links",
            found=error.strerror or type(error).__name__,
            fix="give a folder on another disk",
        ) from error


def chexpert_states(row: Mapping[str, object], where: str) -> dict[str, Status | None]:
    """Returns the states of a row in CheXpert's form: 1 is present, 0 absent, -1 uncertain, empty says nothing.

    Args:
        row: by the columns of ``CHEXPERT_LABELS``; other columns are not looked at.
        where: what to name in a message.

    Raises:
        ManifestError: a value is something else, or a column is missing.
    """
    states: dict[str, Status | None] = {}
    for column, name in CHEXPERT_LABELS.items():
        try:
            value = row[column]
            states[name] = None if value is None or value == "" else _CHEXPERT_VALUES[float(str(value))]
        except (ValueError, KeyError):
            raise ManifestError(
                where,
                expected=f"1, 0, -1 or nothing for {column!r}",
                found="something else, or no such column",
                fix="use the table as its publisher wrote it",
            ) from None
    return states


_CHEXPERT_VALUES = {1.0: Status.PRESENT, 0.0: Status.ABSENT, -1.0: Status.UNCERTAIN}


def training_text(text: str | None, counts: Counter[str], *, mask: str | None = None) -> str | None:
    """Returns a section without the sentences that cannot be learned from the pictures, or ``None`` if none is left.

    Left out, and counted in ``counts``: sentences that compare with a prior study, since no prior is given, and
    sentences in which de-identification replaced words by ``mask``. The numbers of a list are taken off, since they
    would be wrong afterwards; every sentence ends in a full stop.
    """
    kept = []
    for item in list_items(text or ""):
        for sentence in split_sentences(item):
            if not re.search("[A-Za-z]", sentence):
                continue  # stray full stops
            counts["sentences"] += 1
            if compares_with_prior(sentence):
                counts["sentences that compare with a prior, not in target"] += 1
            elif mask and mask in sentence:
                counts[f"other sentences that hold {mask}, not in target"] += 1
            else:
                kept.append(sentence if sentence[-1] in ".!?" else f"{sentence.rstrip(',;:')}.")
    return tidy(" ".join(kept))


def list_items(text: str) -> list[str]:
    """Returns what stands before, between and after the numbers of a list ("1. Edema 2. No effusion.").

    A number is one of a list if it opens the text, follows a full stop, or is the next one.
    """
    items, start, last = [], 0, 0
    for mark in re.finditer(r"(?:^|(?<=\s))(\d{1,2})[.)](?:\s+(?=\w)|(?=[A-Za-z]))", text):
        before = text[: mark.start()].rstrip()
        if not before or before[-1] in ".:;" or int(mark[1]) == last + 1:
            items.append(text[start : mark.start()])
            start, last = mark.end(), int(mark[1])
    return [*items, text[start:]]
