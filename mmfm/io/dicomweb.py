"""DICOMweb (PS3.18 section 10): find studies, pull one into a folder, push files.

``mmfm pull`` and ``mmfm push`` call this. dicomweb-client asks the questions of QIDO-RS. What carries instances is done
here: it streams to and from files, counted, with no byte of a data set parsed on the way, where the client would hold
whole instances in memory and parse (so, inflate) whatever a server sends.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import requests
import urllib3
from dicomweb_client import DICOMwebClient

from mmfm.errors import ConfigError, ServerError
from mmfm.files import new_folder
from mmfm.io.pacs import (
    MAX_BYTES,
    MAX_INSTANCES,
    PREAMBLE,
    Outgoing,
    Pushed,
    Server,
    outgoing,
    progress,
    status_meaning,
)
from mmfm.io.reading import read
from mmfm.jsonable import to_json

AUTH = "MMFM_PACS_AUTH"

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and from one piece of an answer to the next."""
PATIENCE = 60.0
"""Seconds that an answer may be slower than ``SLOWEST``."""
SLOWEST = 1 << 14
"""Bytes a second; an answer that drips more slowly is left, or it would never end."""
MAX_TEXT = 32 << 20
"""Bytes of an answer that holds no instances."""
MAX_FOUND = 1_000
"""Studies that a search returns at most."""
BATCH_BYTES = 64 << 20
"""Bytes of one STOW-RS request, unless a single instance is larger."""

_CHUNK = 1 << 16
_PAGE = 100
_MAX_PART_HEADER = 16 << 10
_UID = re.compile(r"(?=.{1,64}$)\d+(\.\d+)+", flags=re.ASCII)
_DATE = re.compile(r"\d{8}(-(\d{8})?)?|-\d{8}", flags=re.ASCII)
_MODALITY = re.compile(r"[A-Z0-9_]{2,16}")

_AGAIN = "try again; nothing of this answer was kept"
_SMALLER = "ask for it series by series"
_CREDENTIALS = f"set {AUTH} or {AUTH}_FILE to what that server knows"
_STATUS = {  # PS3.18 section 8.5
    204: ("HTTP 204, nothing there", "look for the UID with `mmfm pull URL --find`"),
    206: ("HTTP 206, only a part of it", _SMALLER),
    400: ("HTTP 400, a request that it does not understand", "check the URL and the UIDs"),
    401: ("HTTP 401, no credentials that it knows", _CREDENTIALS),
    403: ("HTTP 403, not allowed with these credentials", _CREDENTIALS),
    404: ("HTTP 404, no such study, or no DICOMweb at that path", "look for it with `mmfm pull URL --find`"),
    406: ("HTTP 406, it cannot send DICOM in the syntax that it stores", "ask who keeps the server"),
    410: ("HTTP 410, a study that is gone", "look for another with `mmfm pull URL --find`"),
    413: ("HTTP 413, a request too large for it", "push fewer files, or by C-STORE"),
    415: ("HTTP 415, a kind of file that it does not take", "push by C-STORE"),
    429: ("HTTP 429, too many requests", "try again later"),
    503: ("HTTP 503, a server that is too busy", "try again later"),
}
_UNREAD = (400, 413, 415)
"""Statuses of a STOW-RS request that was refused as a whole, be it for one of its instances."""


@dataclass(frozen=True, kw_only=True)
class FoundStudy:
    """A study that a server has."""

    study_uid: str
    study_date: str | None
    """YYYYMMDD."""
    modalities: tuple[str, ...]
    description: str | None
    instances: int | None
    patient_id: str | None
    patient_name: str | None


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What was put into the new folder."""

    instances: int
    size: int
    """Bytes."""
    refusals: str | None
    """How many of them ``mmfm.io.read`` cannot open, and the first reason."""


def find(
    url: str, *, patient_id: str | None = None, modality: str | None = None, date: str | None = None
) -> tuple[FoundStudy, ...]:
    """Returns the studies of a server that match everything given, at most ``MAX_FOUND``: QIDO-RS, PS3.18 10.6.

    Args:
        url: of the DICOMweb service.
        patient_id: Patient ID; the server may take ``*`` and ``?`` as wildcards.
        modality: one that the study holds, such as CT.
        date: of the study, YYYYMMDD, or a range YYYYMMDD-YYYYMMDD that may be open at one end.

    Raises:
        ConfigError: the host is not allowed, or a value is of another form.
        ServerError: it cannot be reached, refuses, or answers something else.
    """
    _require(_MODALITY, modality, "--modality", "a code such as CT")
    _require(_DATE, date, "--date", "YYYYMMDD or YYYYMMDD-YYYYMMDD")
    server = _web_server(url)
    filters = {"PatientID": patient_id, "ModalitiesInStudy": modality, "StudyDate": date}
    found: dict[str, FoundStudy] = {}
    with _Session(server) as session:
        client = DICOMwebClient(server.url, session=session, timeout=TIMEOUT)
        client.set_http_retry_params(retry=False)
        while len(found) < MAX_FOUND:
            try:
                page = client.search_for_studies(
                    limit=_PAGE,
                    offset=len(found),
                    fields=["ModalitiesInStudy", "StudyDescription", "NumberOfStudyRelatedInstances"],
                    search_filters={key: value for key, value in filters.items() if value},
                )
                studies = {study.study_uid: study for study in map(_found_study, page)}
            except (ValueError, TypeError, AttributeError, RecursionError):
                raise _unexpected(server, "a list of studies in DICOM JSON", "something else") from None
            new = {uid: study for uid, study in studies.items() if uid not in found}
            found |= new
            if len(page) < _PAGE or not new:  # a server that ignores the offset sends the same page for ever
                break
    return tuple(found.values())[:MAX_FOUND]


def found_text(studies: Sequence[FoundStudy], *, names: bool) -> str:
    """Returns a table of the studies; who the patients are only where ``names`` says so."""
    lines = [
        [
            study.study_date or "-",
            "/".join(study.modalities) or "-",
            f"{study.instances if study.instances is not None else '-'} instances",
            study.study_uid,
            *([study.patient_id or "-", study.patient_name or "-"] if names else []),
            study.description or "",
        ]
        for study in studies
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*table, f"{len(studies)} studies" + (", perhaps more" if len(studies) >= MAX_FOUND else "")])


def found_json(studies: Sequence[FoundStudy], *, names: bool) -> str:
    """Returns the studies as JSON; who the patients are only where ``names`` says so."""
    hidden = () if names else ("patient_id", "patient_name")
    return json.dumps([{key: item for key, item in to_json(s).items() if key not in hidden} for s in studies])


def pull(url: str, out: str | Path, *, study_uid: str, series_uid: str | None = None) -> Pulled:
    """Retrieves a study, or one of its series, into the new folder ``out`` (WADO-RS, PS3.18 section 10.4).

    Files have random names, can be read by their owner alone and carry no preamble; the transfer syntax is the stored
    one. ``out`` appears when everything is there, and not at all otherwise.

    Raises:
        ConfigError: the host is not allowed, a UID is none, or ``out`` cannot be made or is not empty.
        ServerError: it cannot be reached, refuses, sends something else or more than ``MAX_BYTES``.
    """
    _require(_UID, study_uid, "--study", "a Study Instance UID")
    _require(_UID, series_uid, "--series", "a Series Instance UID")
    server = _web_server(url)
    address = f"{server.url}/studies/{study_uid}" + (f"/series/{series_uid}" if series_uid else "")
    with new_folder(Path(out)) as folder:
        size = _retrieve(server, address, folder)
        reading = read(folder)
        for file in reading.files:
            series = (file.series_uid or "").partition("#")[0]
            if file.study_uid not in (None, study_uid) or (series_uid and series not in ("", series_uid)):
                raise _unexpected(
                    server, "instances of what was asked for alone", "others among them", "ask who keeps the server"
                )
    return Pulled(instances=len(reading.files), size=size, refusals=reading.refusals)


def push(url: str, path: str | Path) -> Pushed:
    """Sends every DICOM file at ``path`` (a folder, zip or file), unchanged but for an emptied preamble.

    STOW-RS, PS3.18 section 10.5, in requests of at most ``BATCH_BYTES``.

    Raises:
        ConfigError: the host is not allowed.
        ReadError: there is no DICOM file at ``path``.
        ServerError: it cannot be reached, refuses, or answers something else.
    """
    server = _web_server(url)
    instances, skipped = outgoing(path)
    size = sum(instance.size for instance in instances)
    stored, refused = 0, []
    with _Session(server) as session, progress("Sending", size) as advance:
        for batch in _batches(instances):
            try:
                reasons = _store(session, server, batch)
            except ServerError as error:
                raise error.after(stored) from None
            stored += len(batch) - len(reasons)
            refused += reasons
            advance(sum(instance.size for instance in batch))
    return Pushed(stored=stored, size=size, skipped=skipped, refused=tuple(refused))


# --- HTTP ----------------------------------------------------------------------------------------------------------


class _Session(requests.Session):
    """HTTP under the rules of this module, whoever asks: no redirects, no proxies, no endless answers.

    Nothing of the environment is used but ``MMFM_PACS_AUTH`` and OpenSSL's ``SSL_CERT_FILE``, for the certificate
    authority of a hospital.
    """

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self.trust_env = False
        self.verify = os.environ.get("SSL_CERT_FILE") or True
        self.headers.update({"Accept-Encoding": "identity"} | _authorization())

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Sends ``request``; the answer is read as it is asked for, and has a status that says that all went well."""
        self.close()  # a connection that was kept may be closed by the server just as the next request goes out
        request.headers.pop("Host", None)  # dicomweb-client sets it without the port
        options |= {"timeout": TIMEOUT, "allow_redirects": False, "stream": True}
        try:
            response = super().send(request, **options)
        except requests.exceptions.SSLError:
            raise _unexpected(
                self._server,
                "a TLS certificate that can be verified",
                "none",
                "set SSL_CERT_FILE to the certificates of your hospital's authority",
            ) from None
        except requests.Timeout:
            raise _unexpected(
                self._server, "an answer", "none in time", "see whether the server runs, or try again later"
            ) from None
        except requests.RequestException:
            raise _unexpected(
                self._server,
                "an answer",
                "no connection, or one that was lost",
                "see whether the server runs at that address",
            ) from None
        except OSError:  # raised for SSL_CERT_FILE alone, before anything is sent
            raise ConfigError(
                "SSL_CERT_FILE", expected="a file of certificates", found="none there", fix="correct its path"
            ) from None
        # Instances that cannot be stored are listed in an answer of status 202 or 409 (PS3.18 table 10.5.3-1).
        searches = request.method == "GET" and "dicom+json" in request.headers.get("Accept", "")
        fine = (200, 202, 409, *_UNREAD) if request.method == "POST" else (200, 204) if searches else (200,)
        if response.status_code not in fine:
            response.close()
            raise self._refusal(response.status_code)
        carries = not searches and request.method == "GET"
        response.raw = _Body(response.raw, self._server, MAX_BYTES if carries else MAX_TEXT)
        return response

    def _refusal(self, status: int) -> ServerError:
        if 300 <= status < 400:
            found, fix = f"HTTP {status}, a redirect", "give the URL that it leads to, if you trust that server"
        else:
            found, fix = _STATUS.get(status, (f"HTTP {status}", "look into the server's own log"))
        return _unexpected(self._server, "what was asked for", found, fix)


class _Body:
    """The body of an answer, counted and timed as it comes in; what requests wants beside that is the wrapped one's."""

    def __init__(self, raw: Any, server: Server, limit: int) -> None:
        self._raw, self._server, self._limit = raw, server, limit

    def stream(self, amount: int, decode_content: bool | None = None) -> Iterator[bytes]:
        """Yields what has come in, ``amount`` bytes at most."""
        start, count = time.monotonic(), 0
        try:
            # read() would wait for `amount` bytes, each as late as the time-out of the socket allows.
            while piece := self._raw.read1(min(amount, _CHUNK), decode_content=decode_content):
                count += len(piece)
                if count > self._limit:
                    expected = f"an answer of at most {self._limit >> 20} MiB"
                    raise _unexpected(self._server, expected, "a larger one", _SMALLER)
                if time.monotonic() - start > PATIENCE + count / SLOWEST:
                    expected = f"at least {SLOWEST >> 10} KiB a second"
                    raise _unexpected(self._server, expected, "a slower answer", "try again when the line is free")
                yield piece
        except (urllib3.exceptions.HTTPError, OSError):
            found = f"a connection that was lost after {count} bytes"
            raise _unexpected(self._server, "a whole answer", found, _AGAIN) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _web_server(url: str) -> Server:
    server = Server.from_url(url)
    if server.scheme == "dicom":
        raise ConfigError(
            "URL", expected="https:// of a DICOMweb server", found="dicom://", fix="give the server's DICOMweb address"
        )
    return server


def _authorization() -> dict[str, str]:
    """Returns the header for ``MMFM_PACS_AUTH``, or for the content of the file that ``MMFM_PACS_AUTH_FILE`` names.

    Raises:
        ConfigError: it is neither ``basic USER:PASSWORD`` nor ``bearer TOKEN``, or the file cannot be read.
    """
    value, file = os.environ.get(AUTH), os.environ.get(f"{AUTH}_FILE")
    if not value and not file:
        return {}
    try:
        text = value or Path(str(file)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    kind, _, secret = text.strip().partition(" ")
    if kind.lower() == "basic" and ":" in secret:
        return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
    if kind.lower() == "bearer" and re.fullmatch(r"[!-~]+", secret):
        return {"Authorization": f"Bearer {secret}"}
    raise ConfigError(
        AUTH if value else f"{AUTH}_FILE",
        expected="basic USER:PASSWORD, or bearer TOKEN",
        found="another form" if value else "no file of that form",
        fix="write it so",
    )


def _require(pattern: re.Pattern[str], value: str | None, where: str, expected: str) -> None:
    """Checks a value that goes into a URL; the message does not repeat it, since it may be a patient's."""
    if value is not None and not pattern.fullmatch(value):
        raise ConfigError(where, expected=expected, found="another form", fix="correct it")


def _unexpected(
    server: Server, expected: str, found: str, fix: str = "see whether the URL is that of DICOMweb"
) -> ServerError:
    return ServerError(server.where, expected=expected, found=found, fix=fix)


# --- QIDO-RS -------------------------------------------------------------------------------------------------------


def _found_study(item: dict[str, Any]) -> FoundStudy:
    """Returns one study of a search answer, in DICOM JSON (PS3.18 section F.2).

    Raises:
        ValueError, TypeError, AttributeError: it is not of that form.
    """

    def values(tag: str) -> list[Any]:
        return [value for value in item.get(tag, {}).get("Value", []) if value is not None]

    def text(tag: str) -> str | None:
        first = next(iter(values(tag)), None)
        if isinstance(first, dict):  # a person's name
            first = first.get("Alphabetic")
        return "".join(filter(str.isprintable, str(first))).strip() or None if first is not None else None

    study_uid = text("0020000D")
    if study_uid is None or not _UID.fullmatch(study_uid):
        raise ValueError("a study without a UID")
    count = text("00201208")
    return FoundStudy(
        study_uid=study_uid,
        study_date=text("00080020"),
        modalities=tuple(sorted(str(value) for value in values("00080061") if _MODALITY.fullmatch(str(value)))),
        description=text("00081030"),
        instances=int(count) if count else None,
        patient_id=text("00100020"),
        patient_name=text("00100010"),
    )


# --- WADO-RS -------------------------------------------------------------------------------------------------------


def _retrieve(server: Server, address: str, folder: Path) -> int:
    """Writes every instance of an answer into ``folder`` as it comes in; returns how many bytes they have."""
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    total = 0
    with _Session(server) as session, session.get(address, headers={"Accept": accept}) as response:
        length = response.headers.get("Content-Length", "")
        with progress("Retrieving", int(length) if length.isdecimal() else None) as advance:
            pieces = _multipart(server, response.iter_content(_CHUNK), _boundary(server, response))
            for number, part in groupby(pieces, key=lambda piece: piece[0]):
                if number >= MAX_INSTANCES:
                    raise _unexpected(server, f"fewer than {MAX_INSTANCES} instances", "more", _SMALLER)
                path = folder / f"{secrets.token_hex(16)}.dcm"  # the name on the server may be a patient's
                with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
                    for _, piece in part:
                        file.write(piece)
                        advance(len(piece))
                    total += file.tell()
                    _empty_preamble(server, file)
    if not total:
        raise _unexpected(server, "at least one instance", "none")
    return total


def _empty_preamble(server: Server, file: BinaryIO) -> None:
    file.seek(PREAMBLE)
    if file.read(4) != b"DICM":
        raise _unexpected(server, "DICOM files (PS3.10) alone", "something else among them")
    file.seek(0)
    file.write(bytes(PREAMBLE))


def _boundary(server: Server, response: requests.Response) -> bytes:
    """Returns what separates the parts of an answer (RFC 2046 section 5.1.1)."""
    header = Message()
    header["Content-Type"] = response.headers.get("Content-Type", "")
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/related" or not isinstance(boundary, str) or not boundary:
        raise _unexpected(server, "an answer of several parts (multipart/related)", "another content type")
    return boundary.encode("latin-1", "replace")


def _multipart(server: Server, chunks: Iterable[bytes], boundary: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the part, a piece of its content), each part at least once; the last boundary has to come."""
    mark = b"\r\n--" + boundary
    held = b"\r\n"  # a boundary at the very start is found like any other
    number, in_header = 0, False  # part 0 is what stands before the first boundary: nobody's
    for chunk in chunks:
        held += chunk
        while True:
            if in_header:
                if held.startswith(b"--"):
                    return
                end = held.find(b"\r\n\r\n")
                if end < 0:
                    if len(held) > _MAX_PART_HEADER:
                        raise _unexpected(server, "parts with a header", "a header without an end")
                    break
                held, in_header = held[end + 4 :], False
            end = held.find(mark)
            piece = held[: end if end >= 0 else max(0, len(held) - len(mark))]
            if number:
                yield number, piece
            held = held[len(piece) :]
            if end < 0:
                break
            held, number, in_header = held[len(mark) :], number + 1, True
    raise _unexpected(server, "a whole answer", "one that ends in the middle", _AGAIN)


# --- STOW-RS -------------------------------------------------------------------------------------------------------


class _Request:
    """The body of a STOW-RS request, read from the files as it is sent; its length is known before."""

    def __init__(self, instances: Sequence[Outgoing]) -> None:
        self._instances = instances
        self.boundary = secrets.token_hex(16)
        self._start = f"\r\n--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._end = f"\r\n--{self.boundary}--\r\n".encode()

    def __len__(self) -> int:
        return sum(len(self._start) + instance.size for instance in self._instances) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for instance in self._instances:
            yield self._start
            with instance.source.open() as stream:
                yield bytes(len(stream.read(PREAMBLE)))  # what hides there is not passed on
                while piece := stream.read(_CHUNK):
                    yield piece
        yield self._end


def _batches(instances: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    batch: list[Outgoing] = []
    size = 0
    for instance in instances:
        size += instance.size
        if batch and (size > BATCH_BYTES or len(batch) == MAX_INSTANCES - 1):
            yield batch
            batch, size = [], instance.size
        batch.append(instance)
    yield batch


def _store(session: _Session, server: Server, batch: list[Outgoing]) -> list[str]:
    """Sends a batch and returns why instances were not stored, one reason each (PS3.18 section 10.5.3)."""
    body = _Request(batch)
    content_type = f'multipart/related; type="application/dicom"; boundary={body.boundary}'
    headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
    with session.post(f"{server.url}/studies", data=body, headers=headers) as response:
        if response.status_code in _UNREAD:
            if len(batch) == 1:
                return [_STATUS[response.status_code][0]]
            return [reason for instance in batch for reason in _store(session, server, [instance])]
        try:
            answer = json.loads(response.content)
            stored = len(answer.get("00081199", {}).get("Value", []))  # Referenced SOP Sequence
            failed = [
                int(item.get("00081197", {}).get("Value", [0x0110])[0])  # Failure Reason
                for tag in ("00081198", "0008119A")  # Failed SOP Sequence, Other Failures Sequence
                for item in answer.get(tag, {}).get("Value", [])
            ]
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            raise _unexpected(server, "word of each instance, in DICOM JSON", "something else") from None
    silent = max(0, len(batch) - stored - len(failed))
    return [status_meaning(code) for code in failed] + ["the server says nothing of it"] * silent
