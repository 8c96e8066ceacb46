"""DICOMweb (PS3.18 section 10): find studies, pull one into a folder, push files.

``mmfm pull`` and ``mmfm push`` call this. dicomweb-client asks the questions of QIDO-RS. What carries instances is done
here: it streams to and from files, counted, with no byte of a data set parsed on the way, where the client would hold
whole instances in memory and parse (so, inflate) whatever a server sends. ``mmfm.io.web`` carries all of it.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import requests
from dicomweb_client import DICOMwebClient

from mmfm.errors import ConfigError, ReadError, ServerError
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
from mmfm.io.web import AGAIN, CHUNK, KEEPER, SMALLER, STATUS, Answer, exchange, unexpected, web_server
from mmfm.jsonable import to_json

MAX_TEXT = 16 << 20
"""Bytes of an answer that holds no instances."""
MAX_FOUND = 1_000
"""Studies that a search returns at most."""
BATCH_BYTES = 64 << 20
"""Bytes of one STOW-RS request, unless a single instance is larger."""

_PAGE = 100
_MAX_PART_HEADER = 16 << 10
_UID = re.compile(r"(?=.{1,64}$)\d+(\.\d+)+", flags=re.ASCII)
_DATE = re.compile(r"\d{8}(-(\d{8})?)?|-\d{8}", flags=re.ASCII)
_GIVEN = re.compile(r".*\S.*")
_MODALITY = re.compile(r"[A-Z0-9_]{2,16}")

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
    _require(_GIVEN, patient_id, "--patient-id", "a Patient ID")
    _require(_MODALITY, modality, "--modality", "a code such as CT")
    _require(_DATE, date, "--date", "YYYYMMDD or YYYYMMDD-YYYYMMDD")
    server = web_server(url)
    filters = {"PatientID": patient_id, "ModalitiesInStudy": modality, "StudyDate": date}
    found: dict[str, FoundStudy] = {}
    with requests.Session() as session:
        session.trust_env = False
        session.mount(f"{server.scheme}://", _Adapter(server))
        client = DICOMwebClient(server.url, session=session)
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
                raise unexpected(server, "a list of studies in DICOM JSON", "something else") from None
            if studies.keys() <= found.keys():  # the end; or a server that ignores the offset and repeats itself
                break
            found |= studies
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
    server = web_server(url)
    target = f"{server.path}/studies/{study_uid}" + (f"/series/{series_uid}" if series_uid else "")
    with new_folder(Path(out)) as folder:
        size = _retrieve(server, target, folder)
        reading = read(folder)
        for file in reading.files:
            series = (file.series_uid or "").partition("#")[0]
            if file.study_uid not in (None, study_uid) or (series_uid and series not in ("", series_uid)):
                raise unexpected(server, "instances of what was asked for alone", "others among them", KEEPER)
    return Pulled(instances=len(reading.files), size=size, refusals=reading.refusals)


def push(url: str, path: str | Path) -> Pushed:
    """Sends every DICOM file at ``path`` (a folder, zip or file), unchanged but for an emptied preamble.

    STOW-RS, PS3.18 section 10.5, in requests of at most ``BATCH_BYTES``.

    Raises:
        ConfigError: the host is not allowed.
        ReadError: there is no DICOM file at ``path``.
        ServerError: it cannot be reached, refuses, or answers something else.
    """
    server = web_server(url)
    instances, skipped, refused = outgoing(path)
    stored, warned = 0, list[str]()
    waiting = list(_batches(instances))
    with progress("Sending", sum(instance.size for instance in instances)) as advance:
        while waiting:
            batch = waiting.pop(0)
            try:
                said = _store(server, batch)
            except ServerError as error:
                raise error.after(stored) from None
            except ReadError:
                raise ReadError(
                    str(path),
                    expected="files that stay as they are while they are sent",
                    found=f"one that changed, after {stored} instances were stored",
                    fix="push again",
                ) from None
            if said is None:  # perhaps for one of its instances
                half = len(batch) // 2
                waiting[:0] = [batch[:half], batch[half:]]
                continue
            stored += len(batch) - len(said[0])
            refused += said[0]
            warned += said[1]
            advance(sum(instance.size for instance in batch))
    return Pushed(stored=stored, skipped=skipped, refused=tuple(refused), warned=tuple(warned))


# --- QIDO-RS -------------------------------------------------------------------------------------------------------


def _require(pattern: re.Pattern[str], value: str | None, where: str, expected: str) -> None:
    """Checks a value that goes into a URL; the message does not repeat it, since it may be a patient's."""
    if value is not None and not pattern.fullmatch(value):
        raise ConfigError(where, expected=expected, found="another form", fix="correct it")


class _Adapter(requests.adapters.BaseAdapter):
    """Carries what dicomweb-client asks to ``server``, by ``exchange``."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        headers = {"Accept": str(request.headers["Accept"])}
        response = requests.Response()
        with exchange(self._server, request.path_url, headers, fine=(200, 204)) as answer:
            response.status_code = answer.status
            response.raw = io.BytesIO(b"".join(answer.pieces(self._server, MAX_TEXT)))
        return response

    def close(self) -> None:
        """Each answer closed its connection."""


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


def _retrieve(server: Server, target: str, folder: Path) -> int:
    """Writes every instance of an answer into ``folder`` as it comes in; returns how many bytes they have."""
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    total = 0
    with exchange(server, target, headers) as answer, progress("Retrieving", answer.length) as advance:
        parts = _multipart(server, answer.pieces(server, MAX_BYTES), _boundary(server, answer))
        for number, part in groupby(parts, key=lambda piece: piece[0]):
            if number >= MAX_INSTANCES:
                raise unexpected(server, f"fewer than {MAX_INSTANCES} instances", "more", SMALLER)
            path = folder / f"{secrets.token_hex(16)}.dcm"  # the name on the server may be a patient's
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
                for _, piece in part:
                    file.write(piece)
                    advance(len(piece))
                total += file.tell()
                _empty_preamble(server, file)
    if not total:
        raise unexpected(server, "at least one instance", "none")
    return total


def _empty_preamble(server: Server, file: BinaryIO) -> None:
    file.seek(PREAMBLE)
    if file.read(4) != b"DICM":
        raise unexpected(server, "DICOM files (PS3.10) alone", "something else among them")
    file.seek(0)
    file.write(bytes(PREAMBLE))


def _boundary(server: Server, answer: Answer) -> bytes:
    """Returns what separates the parts of an answer (RFC 2046 section 5.1.1)."""
    header = Message()
    header["Content-Type"] = answer.getheader("Content-Type", "")
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/related" or not isinstance(boundary, str) or not boundary:
        raise unexpected(server, "an answer of several parts (multipart/related)", "another content type")
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
                        raise unexpected(server, "parts with a header", "a header without an end")
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
    raise unexpected(server, "a whole answer", "one that ends in the middle", AGAIN)


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
                while piece := stream.read(CHUNK):
                    yield piece
                if stream.tell() != instance.size:
                    raise ReadError(
                        instance.source.name, expected=f"{instance.size} bytes", found="others", fix="send it again"
                    )
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


def _store(server: Server, batch: list[Outgoing]) -> tuple[list[str], list[str]] | None:
    """Sends a batch (PS3.18 section 10.5.3).

    Returns:
        why instances were not stored, one reason each, and warnings; ``None`` where the whole of several was refused.
    """
    body = _Request(batch)
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={body.boundary}',
        "Content-Length": str(len(body)),
        "Accept": "application/dicom+json",
    }
    # Instances that cannot be stored are listed in an answer of status 202 or 409 (PS3.18 table 10.5.3-1).
    fine = (200, 202, 409, *_UNREAD)
    with exchange(server, f"{server.path}/studies", headers, body, fine=fine) as answer:
        if answer.status in _UNREAD:
            return ([STATUS[answer.status][0]], []) if len(batch) == 1 else None
        content = b"".join(answer.pieces(server, MAX_TEXT))
    try:
        told = json.loads(content)
        kept = _codes(told, "00081199", "00081196")  # Referenced SOP Sequence, Warning Reason
        # Failed SOP Sequence and Other Failures Sequence, Failure Reason
        lost = _codes(told, "00081198", "00081197") + _codes(told, "0008119A", "00081197")
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
        raise unexpected(server, "word of each instance, in DICOM JSON", "something else") from None
    refused = [status_meaning(code or 0x0110) for code in lost][: len(batch)]
    refused += ["the server says nothing of it"] * (len(batch) - len(kept) - len(refused))
    return refused, [status_meaning(code) for code in kept if code][: len(batch) - len(refused)]


def _codes(told: dict[str, Any], sequence: str, tag: str) -> list[int]:
    """Returns the code of each item of a sequence, 0 where it has none."""
    found = [item.get(tag, {}).get("Value", []) for item in told.get(sequence, {}).get("Value", [])]
    return [int(values[0]) if values else 0 for values in found]
