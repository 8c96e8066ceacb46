"""Where bytes come from: the files of a folder, one file, or the members of a zip, all of them untrusted.

Nothing is ever written to disk: a member of an archive is unpacked into memory, counted on the bytes that really come
out, and unpacked again when its pixels are wanted, from the place where it stands.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from mmfm.errors import ReadError

MAX_UNPACKED = 4 << 30
"""Bytes that one archive may unpack to, all members together."""
MAX_MEMBER = 2 << 30
"""Bytes that one member may unpack to: it is held in memory."""
MAX_RATIO = 100
"""Unpacked bytes for each packed byte of a member."""
RATIO_FREE = 1 << 20
"""A member this small (bytes) is not measured by its ratio: a small blank picture packs better than 100:1."""
MAX_MEMBERS = 5_000
"""An archive holds fewer entries than this."""
MAX_PIXEL_BYTES = 2 << 30
"""Rows x Columns x Samples x Bytes x Frames of one instance, checked before anything is decoded."""
CHUNK = 1 << 20
"""Bytes that are read, and inflated, at a time."""
_NO_FILE = "expected a regular file, found a device, pipe or socket"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Magic number, lengths of the name and of the extra field (APPNOTE.TXT 4.3.7)."""

_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
    b"MSCF": "cab",
}


@dataclass(frozen=True, kw_only=True)
class Member:
    """Where a member of a zip stands: it is opened without reading the archive's directory again."""

    offset: int
    """Of its local header."""
    packed_bytes: int
    deflated: bool
    crc: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file, or one member of a zip, that can be opened again and again."""

    name: str
    """As shown to people: the path, or ``archive.zip!member``."""
    path: Path
    member: Member | None = None
    """In the archive ``path``; names may repeat there, so they do not identify."""

    def open(self) -> BinaryIO:
        """Returns a seekable stream of the content.

        Raises:
            ReadError: it is gone, or the member breaks a limit.
        """
        if self.member is not None:
            return _unpack(self.path, self.member, self.name, MAX_UNPACKED)
        try:
            return _ClampedReader(io.FileIO(self.path))
        except OSError as error:
            raise ReadError(
                self.name, expected="a readable file", found=error.strerror or "an error", fix="check the file"
            ) from None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A file that is not opened, and why."""

    name: str
    reason: str
    archive: Path | None = None
    """That it is a member of."""


class _ArchiveTooLarge(ReadError):
    """All members together unpack to too much: what follows is not opened either."""


class _ClampedReader(io.BufferedReader):
    """Reads at most what the file holds: a length field of 4 GiB in a small file must not allocate 4 GiB."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > CHUNK:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def walk(path: Path) -> Iterator[tuple[Source, BinaryIO] | Refusal]:
    """Yields every file at ``path`` (a folder, a zip or a file), opened; each is closed when the next is asked for.

    A zip inside a folder is opened, an archive inside an archive is not. Links to folders are not followed.

    Raises:
        ReadError: ``path`` does not exist, or cannot be reached.
    """
    try:
        path.stat()
    except (OSError, ValueError) as error:
        absent = isinstance(error, (FileNotFoundError, NotADirectoryError, ValueError))
        found = "nothing there" if absent else getattr(error, "strerror", None) or "an error"
        raise ReadError(str(path), expected="a folder, a zip or a file", found=found, fix="check the path") from None
    for file in _files(path):
        if isinstance(file, Refusal):
            yield file
            continue
        for item in _opened(file):
            try:
                is_zip = not isinstance(item, Refusal) and archive_kind(item[1]) == "zip"
            except OSError as error:
                yield Refusal(name=str(file), reason=f"expected a readable file, found: {error.strerror}")
                continue
            if is_zip:
                yield from _members(file)
            else:
                yield item


def listed(root: Path, names: Iterable[Sequence[str]]) -> Iterator[tuple[Source, BinaryIO] | Refusal]:
    """Yields, opened, the files below ``root`` that a DICOMDIR lists by the parts of their paths, each once.

    Case is ignored where no file is named exactly so: media are written in capitals and copied in small letters.
    """
    entries = cache(_entries_by_name)
    for parts in dict.fromkeys(tuple(name) for name in names):
        shown = "/".join(parts)
        if any(part in ("", ".", "..") or set(part) & set("/\\:") for part in parts):
            yield Refusal(name=shown, reason="expected a listed file below the DICOMDIR, found a name that leaves it")
            continue
        place: Path | None = root
        for part in parts:
            place = place and entries(place).get(part, entries(place).get(part.casefold()))
        if place is None or not _is_file_below(root, place):
            yield Refusal(name=shown, reason="expected a listed file below the DICOMDIR, found nothing there")
            continue
        yield from _opened(place)


def _opened(file: Path) -> Iterator[tuple[Source, BinaryIO] | Refusal]:
    """Yields the file, open until the next is asked for, or why it cannot be opened."""
    source = Source(name=str(file), path=file)
    try:
        stream = source.open()
    except ReadError as error:
        yield Refusal(name=source.name, reason=f"found {error.found}")
        return
    with stream:
        yield source, stream


def _entries_by_name(folder: Path) -> dict[str, Path]:
    """Returns what lies in a folder by its name, and by its name in small letters."""
    try:
        entries = sorted(folder.iterdir(), reverse=True)
    except OSError:
        return {}
    return {entry.name.casefold(): entry for entry in entries} | {entry.name: entry for entry in entries}


def _is_file_below(root: Path, place: Path) -> bool:
    try:
        return place.is_file() and place.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a folder that may not be entered, links in a circle
        return False


def archive_kind(stream: BinaryIO) -> str | None:
    """Returns "zip", "gzip" ... by the first bytes, or ``None``; DICOM may start like these, and has its own prefix."""
    stream.seek(0)
    head = stream.read(264)
    stream.seek(0)
    if head[128:132] == b"DICM":
        return None
    if head[257:262] == b"ustar":
        return "tar"
    return next((kind for magic, kind in _ARCHIVES.items() if head.startswith(magic)), None)


def _files(path: Path) -> Iterator[Path | Refusal]:
    """Yields the files at ``path``, those of each folder by name; folders may be nested as deep as the system lets."""
    if not path.is_dir():
        yield path if path.is_file() else Refusal(name=str(path), reason=_NO_FILE)
        return
    opened = [_entries(path)]
    while opened:
        entry = next(opened[-1], None)
        if entry is None:
            opened.pop()
        elif isinstance(entry, Refusal):
            yield entry
        else:
            try:
                if entry.is_symlink() and not entry.is_file():
                    yield Refusal(name=entry.path, reason="a link to a folder, or to nothing, is not followed")
                elif entry.is_dir():
                    opened.append(_entries(entry.path))
                else:  # a pipe would wait for ever
                    yield Path(entry.path) if entry.is_file() else Refusal(name=entry.path, reason=_NO_FILE)
            except OSError as error:
                yield Refusal(name=entry.path, reason=f"expected a readable file or folder, found: {error.strerror}")


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str] | Refusal]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Refusal(name=str(folder), reason=f"expected a readable folder, found: {error.strerror}")
        return
    yield from entries


def _members(path: Path) -> Iterator[tuple[Source, BinaryIO] | Refusal]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        yield Refusal(name=str(path), reason="expected a complete zip, found a damaged one")
        return
    with archive:
        entries = archive.infolist()
    if len(entries) >= MAX_MEMBERS:
        yield Refusal(
            name=str(path), reason=f"expected an archive of fewer than {MAX_MEMBERS} members, found {len(entries)}"
        )
        return
    if all(entry.is_dir() for entry in entries):
        yield Refusal(name=str(path), reason="expected an archive of images, found an empty one")
        return
    offsets = sorted(entry.header_offset for entry in entries)
    following = pairwise([*offsets, archive.start_dir])
    ends = dict(reversed(list(following)))  # of entries that share an offset, each ends where it starts
    left = MAX_UNPACKED
    for entry in entries:
        if entry.is_dir():
            continue
        name = f"{path}!{entry.filename}"
        if reason := _unsafe(entry, ends[entry.header_offset]):
            yield Refusal(name=name, archive=path, reason=reason)
            continue
        if left <= 0:
            yield Refusal(name=name, archive=path, reason=f"the archive unpacks to more than {MAX_UNPACKED >> 30} GB")
            continue
        member = Member(
            offset=entry.header_offset,
            packed_bytes=entry.compress_size,
            deflated=entry.compress_type == zipfile.ZIP_DEFLATED,
            crc=entry.CRC,
        )
        try:
            stream = _unpack(path, member, name, left)
        except ReadError as error:
            yield Refusal(name=name, archive=path, reason=f"expected {error.expected}, found {error.found}")
            left -= MAX_UNPACKED if isinstance(error, _ArchiveTooLarge) else 0
            continue
        left -= stream.getbuffer().nbytes
        if kind := archive_kind(stream):
            yield Refusal(name=name, archive=path, reason=f"an archive ({kind}) inside an archive is not opened")
            continue
        yield Source(name=name, path=path, member=member), stream


def _unsafe(entry: zipfile.ZipInfo, end: int) -> str | None:
    """Returns why ``entry`` is not opened, if so. ``end`` is where the next one or the directory starts."""
    name = entry.filename.replace("\\", "/")
    if name.startswith("/") or name[1:2] == ":" or ".." in PurePosixPath(name).parts:
        return "expected a name inside the archive, found one that is absolute or climbs with '..'"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link inside an archive is not followed"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"expected a stored or deflated member, found compression method {entry.compress_type}"
    if entry.flag_bits & 0x1:
        return "expected a member without a password, found an encrypted one"
    if entry.header_offset + _LOCAL_HEADER.size + entry.compress_size > end:
        return "expected members one after another, found one that overlaps the next or the directory"
    return None


def _unpack(path: Path, member: Member, name: str, limit: int) -> io.BytesIO:
    """Returns the content of ``member``, stopping at ``limit`` bytes or at 100:1, counted on what really comes out."""
    content, crc = io.BytesIO(), 0
    try:
        with path.open("rb") as stream:
            stream.seek(member.offset)
            magic, name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
            if magic != b"PK\x03\x04":
                raise ValueError
            stream.seek(name_length + extra_length, io.SEEK_CUR)
            chunks = _chunks(stream, member.packed_bytes)
            for chunk in inflate(chunks) if member.deflated else chunks:
                size, crc = content.tell() + len(chunk), zlib.crc32(chunk, crc)
                if size > limit:
                    raise _ArchiveTooLarge(
                        name,
                        expected=f"an archive of at most {MAX_UNPACKED >> 30} GB in total",
                        found="more",
                        fix="unpack it",
                    )
                if size > MAX_MEMBER:
                    raise ReadError(
                        name,
                        expected=f"a member of at most {MAX_MEMBER >> 30} GB",
                        found="more",
                        fix="unpack the archive and read the folder",
                    )
                if size > max(RATIO_FREE, MAX_RATIO * member.packed_bytes):
                    raise ReadError(
                        name,
                        expected=f"at most {MAX_RATIO} unpacked bytes for each packed one",
                        found="more",
                        fix="unpack the archive yourself if you trust it",
                    )
                content.write(chunk)
        if crc != member.crc:
            raise ValueError
    except (OSError, EOFError, ValueError, OverflowError, struct.error, zlib.error):
        raise ReadError(
            name, expected="a complete member of a zip", found="damage", fix="make the archive again"
        ) from None
    content.seek(0)
    return content


def _chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(CHUNK, size))
        if not chunk:
            raise EOFError
        size -= len(chunk)
        yield chunk


def inflate(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields what raw deflated chunks inflate to, at most ``CHUNK`` bytes at a time.

    Raises:
        EOFError: it is cut short.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in chunks:
        while chunk and not inflater.eof:
            yield inflater.decompress(chunk, CHUNK)
            chunk = inflater.unconsumed_tail
    yield inflater.flush()  # what did not fit into the last chunk
    if not inflater.eof:
        raise EOFError


def content_digest(stream: BinaryIO) -> str:
    """Returns the SHA-256 of all of ``stream`` as hexadecimal digits."""
    stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def content_uid(kind: str, *parts: str) -> str:
    """Returns a valid DICOM UID (2.25., PS3.5 B.2) that depends on ``kind`` and ``parts`` alone."""
    digest = hashlib.sha256("\n".join((kind, *parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
