"""Sending by C-STORE (PS3.4 annex B, PS3.7 section 9.1.1), as a client alone: nothing here listens.

``mmfm push PATH dicom://CALLED_AET@host:port`` calls this. Data sets go out byte for byte, in the transfer syntax that
they are stored in; where a server does not take that syntax, the instance is refused and not converted.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import AE, Association, _config, build_context, evt
from pynetdicom.status import STATUS_SUCCESS, STATUS_WARNING, code_to_category

from mmfm.errors import ConfigError, ReadError, ServerError
from mmfm.io.pacs import AE_TITLE, Outgoing, Pushed, Server, outgoing, progress, status_meaning
from mmfm.io.sources import Source

TIMEOUT = 30.0
"""Seconds to connect, for each answer, and for each piece of an instance to be taken."""
SLOWEST = 1 << 16
"""Bytes a second; an answer is waited for as long as it takes to send the instance at that rate, and ``TIMEOUT``."""
MAX_ANSWERS = 16 << 20
"""Bytes that a server may send over one association; it takes some 300 to say what became of an instance."""
MAX_CONTEXTS = 128
"""Presentation contexts of one association: their ids are the odd numbers below 256 (PS3.8 section 9.3.2.2)."""

_ENDED = "the server gave no answer, or ended the association"

_config.STORE_SEND_CHUNKED_DATASET = True  # send a file's data set as it is, instead of decoding and encoding it


def push(url: str, path: str | Path, *, calling_aet: str = "MMFM") -> Pushed:
    """Sends every DICOM file at ``path`` (a folder, zip or file).

    Args:
        url: dicom://CALLED_AET@host[:port] of the server.
        path: what to send.
        calling_aet: the Application Entity title under which the server knows this machine.

    Raises:
        ConfigError: the host is not allowed, or a title is of another form.
        ReadError: there is no DICOM file at ``path``.
        ServerError: it cannot be reached, refuses the association, or is lost.
    """
    server = Server.from_url(url)
    if server.scheme != "dicom":
        raise ConfigError("URL", expected="dicom://CALLED_AET@host", found=server.scheme, fix="push there by STOW-RS")
    if not AE_TITLE.fullmatch(calling_aet):
        raise ConfigError(
            "--calling-aet", expected="1 to 16 characters of ASCII without \\", found="others", fix="correct it"
        )
    instances, skipped, refused = outgoing(path)
    kinds = list(dict.fromkeys((instance.sop_class, instance.transfer_syntax) for instance in instances))
    stored, warned = 0, list[str]()
    with progress("Sending", sum(instance.size for instance in instances)) as advance:
        for start in range(0, len(kinds), MAX_CONTEXTS):
            group = kinds[start : start + MAX_CONTEXTS]
            members = [i for i in instances if (i.sop_class, i.transfer_syntax) in group]
            try:
                for instance, (taken, reason) in zip(members, _send(server, calling_aet, group, members), strict=True):
                    stored += taken
                    if reason:
                        (warned if taken else refused).append(reason)
                    advance(instance.size)
            except ServerError as error:
                raise error.after(stored) from None
    return Pushed(stored=stored, skipped=skipped, refused=tuple(refused), warned=tuple(warned))


def _send(
    server: Server, calling_aet: str, kinds: list[tuple[str, str]], instances: list[Outgoing]
) -> Iterator[tuple[bool, str | None]]:
    """Yields for each instance whether it was stored, and why not or with which warning.

    Some servers end the association at an instance that they cannot read: the next one then goes out over a new one.
    """
    waiting, ended = list(instances), 0
    while waiting:
        with _association(server, calling_aet, kinds) as association:
            while waiting:
                taken, reason = _store(association, waiting.pop(0))
                ended = ended + 1 if reason == _ENDED else 0
                if ended == 2:  # in a row: it is not the instance
                    raise ServerError(
                        server.where,
                        expected="an answer to every instance",
                        found="none, or an association that it ended",
                        fix="see whether it runs and knows the calling AE title (--calling-aet), and push again",
                    )
                yield taken, reason
                if ended:
                    break


@contextmanager
def _association(server: Server, calling_aet: str, kinds: list[tuple[str, str]]) -> Iterator[Association]:
    """Yields an association with one presentation context for each SOP class and transfer syntax."""
    entity = AE(ae_title=calling_aet)
    entity.connection_timeout = entity.acse_timeout = TIMEOUT
    entity.network_timeout = None  # it would count the time that an instance takes to be unpacked
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in kinds]
    silent = ServerError(
        server.where,
        expected="an association",
        found="no answer of a DICOM server",
        fix="see whether the server runs at that address",
    )
    try:
        association = entity.associate(
            server.host,
            server.port,
            contexts=contexts,
            ae_title=server.called_aet,
            evt_handlers=[(evt.EVT_CONN_OPEN, _limit_answers)],
        )
    except OSError:  # there is no host of that name
        raise silent from None
    try:
        # When none of the contexts is accepted pynetdicom aborts: that is no lost connection.
        if association.is_rejected:
            answer = association.acceptor.primitive
            raise ServerError(
                server.where,
                expected="an association",
                found=f"a rejection: {answer.reason_str}" if answer else "a rejection",
                fix="check both AE titles, and that the server knows the calling one (--calling-aet)",
            )
        if not association.is_established and not association.rejected_contexts:
            raise silent
        yield association
    finally:
        if association.is_established:
            association.release()


def _limit_answers(event: evt.Event) -> None:
    """Bounds what a server sends: pynetdicom would read a message of any length, however slow, into memory."""
    connection: Any = event.assoc.dul.socket
    connection.socket.settimeout(TIMEOUT)
    left = MAX_ANSWERS

    def receive(size: int) -> bytearray:
        nonlocal left
        left -= size
        if left < 0:
            raise OSError("more than an answer can have")
        content, end = bytearray(), time.monotonic() + TIMEOUT
        while len(content) < size and (piece := connection.socket.recv(min(size - len(content), 1 << 16))):
            content += piece
            if time.monotonic() > end:
                raise TimeoutError
        return content

    connection.recv = receive


def _store(association: Association, instance: Outgoing) -> tuple[bool, str | None]:
    """Sends an instance and returns whether it was stored, and why not or with which warning."""
    taken = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}
    if (instance.sop_class, instance.transfer_syntax) not in taken:
        return False, "the server does not take its SOP class in its transfer syntax"
    association.dimse_timeout = TIMEOUT + instance.size / SLOWEST  # it runs from the start of sending
    try:
        with _on_disk(instance.source) as path:
            status = association.send_c_store(path).get("Status")
    except (OSError, ReadError):
        return False, "the file cannot be read any more"
    except (ValueError, AttributeError):
        return False, "its SOP instance UID is missing, or not valid"
    except RuntimeError:  # the association is no more
        return False, _ENDED
    if status is None:
        return False, _ENDED
    category = code_to_category(status)
    return category in (STATUS_SUCCESS, STATUS_WARNING), None if category == STATUS_SUCCESS else status_meaning(status)


@contextmanager
def _on_disk(source: Source) -> Iterator[Path]:
    """Yields a file with the content of ``source``; a member of a zip is unpacked into a private one."""
    if source.member is None:
        yield source.path
        return
    with source.open() as stream, tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.flush()
        yield Path(copy.name)
