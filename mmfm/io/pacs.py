"""What every way to a PACS shares: which servers may be reached, what is sent to them, and what their answers mean.

No server is reachable until its host is listed in the environment variable ``MMFM_PACS_HOSTS``, separated by commas:
``pacs.example.org`` or ``pacs.example.org:8443``. What is not encrypted is listed with its scheme, such as
``http://pacs.example.org:8042`` or ``dicom://pacs.example.org:104``, unless it stays on this machine.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, unquote, urlsplit

from pydicom.filereader import read_dataset
from pydicom.uid import UID, MediaStorageDirectoryStorage

from mmfm.errors import ConfigError, ReadError
from mmfm.io.sources import Refusal, Source, walk

HOSTS = "MMFM_PACS_HOSTS"
MAX_BYTES = 2 << 30
"""Of one answer, and of one instance that is sent."""
MAX_INSTANCES = 5_000
"""One answer holds fewer instances than this."""
PREAMBLE = 128
"""Bytes before the DICM prefix (PS3.10 section 7.1). They may hold a program, and nothing here needs them."""
AE_TITLE = re.compile(r"(?=.*\S)[ -\[\]-~]{1,16}")
"""ASCII without control characters and backslash, not blanks alone (PS3.5 table 6.2-1)."""

_PORTS = {"https": 443, "http": 80, "dicom": 104}
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_PATH = re.compile(r"[\w/.~%-]*", flags=re.ASCII)

# Their log lines hold URLs, headers and odd values, and so UIDs; none may reach a log file of the program around.
for _name in ("dicomweb_client", "pydicom", "pynetdicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

# PS3.4 table B.2-1, PS3.7 section 9.1.1.1.9, PS3.18 tables I.2-1 and I.2-2 (same codes)
_STATUS = {
    0xB000: "the server changed elements",
    0xB006: "the server left out elements",
    0xB007: "the data set does not match its SOP class",
    0x0110: "processing failed",
    0x0111: "an instance of that UID is there",
    0x0117: "the SOP instance UID is not valid",
    0x0122: "the SOP class is not supported",
    0x0124: "not authorised",
    0x0210: "the message was sent before",
    0x0211: "the operation is not recognised",
    0x0212: "an argument is mistyped",
    0xC122: "the transfer syntax is not supported",
}
_STATUS_RANGES = {0xA700: "out of resources", 0xA900: "the data set does not match its SOP class"}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that the user allows to be reached."""

    scheme: str
    """https, http or dicom."""
    host: str
    port: int
    path: str = ""
    called_aet: str = ""
    """Application Entity title of the server, for dicom alone."""

    @classmethod
    def from_url(cls, url: str) -> Server:
        """Returns the server of ``https://host[:port]/path`` or ``dicom://CALLED_AET@host[:port]``; sends nothing.

        Raises:
            ConfigError: the URL is of another form or holds credentials, or its host is not listed.
        """
        try:
            parts, host, port = _parse(url)
        except ValueError:
            raise _bad_url("another form") from None
        scheme = parts.scheme
        if scheme not in _PORTS:
            raise _bad_url("another scheme")
        if parts.password is not None or (scheme != "dicom" and parts.username is not None):
            raise ConfigError(
                "URL",
                expected="no credentials in it, where other users of the machine can read them",
                found="a user name or password",
                fix="set MMFM_PACS_AUTH or MMFM_PACS_AUTH_FILE",
            )
        if not _PATH.fullmatch(parts.path):
            raise _bad_url("another form")
        title = unquote(parts.username or "")
        if scheme == "dicom" and (parts.path.strip("/") or not AE_TITLE.fullmatch(title)):
            raise _bad_url("no AE title of 1 to 16 characters, or a path")
        path = "" if scheme == "dicom" else parts.path.rstrip("/")
        server = cls(scheme=scheme, host=host, port=port or _PORTS[scheme], path=path, called_aet=title)
        server._require_listed()
        return server

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address again, made of its checked parts: no two parsers can disagree on it."""
        return f"{self.scheme}://{self.where}{self.path}"

    def _require_listed(self) -> None:
        hosts = allowed_hosts()
        listed = [entry for entry in hosts if entry.host == self.host and entry.port in (None, self.port)]
        encrypted = self.scheme == "https"
        shown = self.where if encrypted or self._is_loopback() else f"{self.scheme}://{self.where}"
        if not listed:
            raise ConfigError(
                HOSTS,
                expected=f"{shown} to be listed there before it is reached",
                found=f"{len(hosts)} other hosts" if hosts else "nothing",
                fix=f"export {HOSTS}={shown} if you trust that server with the data",
            )
        if not encrypted and not self._is_loopback() and not any(entry.scheme == self.scheme for entry in listed):
            raise ConfigError(
                HOSTS,
                expected=f"{shown}, with its scheme, since that connection is not encrypted",
                found="the host without it",
                fix="use https, or list it so if the network between is yours",
            )

    def _is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, kw_only=True)
class AllowedHost:
    """One entry of ``MMFM_PACS_HOSTS``."""

    host: str
    port: int | None
    """``None``: every port."""
    scheme: str | None
    """Stated where an unencrypted connection is allowed."""


def allowed_hosts() -> tuple[AllowedHost, ...]:
    """Returns the hosts that ``MMFM_PACS_HOSTS`` lists.

    Raises:
        ConfigError: an entry is no ``[scheme://]host[:port]``.
    """
    found = []
    for entry in filter(None, (part.strip() for part in os.environ.get(HOSTS, "").split(","))):
        try:
            parts, host, port = _parse(entry if "://" in entry else f"//{entry}")
            if "@" in parts.netloc or parts.path.strip("/") or parts.scheme not in ("", *_PORTS):
                raise ValueError
        except ValueError:
            raise ConfigError(
                HOSTS,
                expected="host[:port], separated by commas",
                found="another form",
                fix=f"write it as export {HOSTS}=pacs.example.org:8443",
            ) from None
        found.append(AllowedHost(host=host, port=port, scheme=parts.scheme or None))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One DICOM file that can be sent, with what its file meta information says (PS3.10 section 7.1)."""

    source: Source
    size: int
    sop_class: str
    transfer_syntax: str


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What became of everything that was to be sent."""

    stored: int
    skipped: int
    """Files that are no instances, and so were not sent."""
    refused: tuple[str, ...]
    """The reason of every instance that could not be sent, or that the server did not store."""
    warned: tuple[str, ...]
    """What the server said of instances that it stored, but not as they are."""

    @property
    def reasons(self) -> str | None:
        """How many instances were refused or stored with a warning, by reason."""
        counted = [
            f"{count} {what}: {reason}"
            for what, reasons in (("not stored", self.refused), ("stored with a warning", self.warned))
            for reason, count in Counter(reasons).most_common()
        ]
        return "; ".join(counted) or None


def outgoing(path: str | Path) -> tuple[list[Outgoing], int, list[str]]:
    """Returns the instances at ``path`` (a folder, zip or file), how many other files lie there, and refusals.

    A refusal is the reason why a file that may hold an instance cannot be sent.

    Raises:
        ReadError: there is no instance, or no such path.
    """
    found, skipped, refused = [], 0, []
    for item in walk(Path(path)):
        kind = item.reason if isinstance(item, Refusal) else _outgoing(*item)
        if isinstance(kind, Outgoing):
            found.append(kind)
        elif kind:
            refused.append(kind)
        else:
            skipped += 1
    if not found:
        raise ReadError(
            str(path),
            expected="DICOM files, with the DICM prefix",
            found=f"{skipped + len(refused)} other files",
            fix="run `mmfm inspect` on it for each file's reason",
        )
    return found, skipped, refused


def _outgoing(source: Source, stream: BinaryIO) -> Outgoing | str | None:
    """Returns an instance, why it cannot be sent, or ``None`` where the file is none."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(PREAMBLE)
    if stream.read(4) != b"DICM":
        return None
    if size > MAX_BYTES:
        return f"it is larger than {MAX_BYTES >> 30} GiB"
    try:
        meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        sop_class, syntax = UID(meta.MediaStorageSOPClassUID), UID(meta.TransferSyntaxUID)
    except Exception:  # a parser over untrusted bytes: whatever it raises is the file's fault
        return "its file meta information cannot be read"
    if sop_class == MediaStorageDirectoryStorage:
        return None  # an index of files
    if not (sop_class.is_valid and syntax.is_valid):
        return "its file meta information holds no valid UIDs"
    return Outgoing(source=source, size=size, sop_class=sop_class, transfer_syntax=syntax)


def status_meaning(code: int) -> str:
    """Returns the meaning of a status that a server gave for an instance, and its code."""
    if not 0 <= code <= 0xFFFF:
        return "an unknown reason"
    ranged = "it cannot be understood" if code >> 12 == 0xC else _STATUS_RANGES.get(code & 0xFF00, "an unknown reason")
    return f"{_STATUS.get(code, ranged)} ({code:04X})"


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields a function that moves a progress bar by so many bytes; it stands on standard error, in terminals only."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _parse(url: str) -> tuple[SplitResult, str, int | None]:
    """Returns the parts of a URL, its host in the one form that is compared, and its port.

    Raises:
        ValueError: it has no host or one of another form, port 0, a query or a fragment.
    """
    parts = urlsplit(url)
    try:
        host = str(ipaddress.ip_address(parts.hostname or ""))
    except ValueError:
        host = parts.hostname or ""
        if not _HOST.fullmatch(host):
            raise
    if parts.port == 0 or parts.query or parts.fragment:
        raise ValueError
    return parts, host, parts.port


def _bad_url(found: str) -> ConfigError:
    return ConfigError(
        "URL",
        expected="https://host[:port]/path of a DICOMweb server, or dicom://CALLED_AET@host[:port] to send to",
        found=found,
        fix="see docs/pacs.md",
    )
