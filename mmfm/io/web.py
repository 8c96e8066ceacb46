"""HTTP to a DICOMweb server, which may do wrong: no endless answer, nothing followed, one line for each failure.

Standard library alone: ``http.client`` knows no redirects, proxies, cookies, ``.netrc`` or compressed answers that
would have to be forbidden, and connects to the host that was checked, not to one that it reads out of a URL again.
"""

from __future__ import annotations

import base64
import http.client
import io
import os
import re
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from mmfm.errors import ConfigError, ServerError
from mmfm.io.pacs import Server

AUTH = "MMFM_PACS_AUTH"
TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and for each piece of a request to be taken and of an answer to come."""
PATIENCE = 60.0
"""Seconds that an answer may be slower than ``SLOWEST``, its header too."""
SLOWEST = 1 << 14
"""Bytes of content a second; an answer that drips more slowly is left, or it would never end."""
CHUNK = 1 << 16
"""Bytes that are read and written at a time."""

AGAIN = "try again; nothing of this answer was kept"
KEEPER = "ask who keeps the server"
SMALLER = "ask for less: a narrower search, or a study series by series"
_CREDENTIALS = f"set {AUTH} or {AUTH}_FILE to what that server knows"
STATUS = {  # PS3.18 section 8.5
    204: ("HTTP 204, nothing there", "look for the UID with `mmfm pull URL --find`"),
    206: ("HTTP 206, only a part of it", SMALLER),
    400: ("HTTP 400, a request that it does not understand", "check the URL and the UIDs"),
    401: ("HTTP 401, no credentials that it knows", _CREDENTIALS),
    403: ("HTTP 403, not allowed with these credentials", _CREDENTIALS),
    404: ("HTTP 404, no such study, or no DICOMweb at that path", "look for it with `mmfm pull URL --find`"),
    406: ("HTTP 406, it cannot send DICOM in the syntax that it stores", KEEPER),
    410: ("HTTP 410, a study that is gone", "look for another with `mmfm pull URL --find`"),
    413: ("HTTP 413, a request too large for it", "push fewer files, or by C-STORE"),
    415: ("HTTP 415, a kind of file that it does not take", "push by C-STORE"),
    429: ("HTTP 429, too many requests", "try again later"),
    503: ("HTTP 503, a server that is too busy", "try again later"),
}


class _Incoming(io.RawIOBase):
    """What comes in over a connection, until a deadline that moves on as content arrives."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.deadline = time.monotonic() + PATIENCE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._raw.readinto(buffer)
        if time.monotonic() > self.deadline:
            raise TimeoutError
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class Answer(http.client.HTTPResponse):
    """An answer that cannot last for ever, be it by its header, by one "100 Continue" after another, or by trailers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._incoming = _Incoming(self.fp.detach())
        self.fp = io.BufferedReader(self._incoming)

    def pieces(self, server: Server, limit: int) -> Iterator[bytes]:
        """Yields the content as it comes in.

        Raises:
            ServerError: it has more than ``limit`` bytes, comes too slowly, or ends too early.
        """
        count = 0
        try:
            while piece := self.read1(CHUNK):
                count += len(piece)
                self._incoming.deadline += len(piece) / SLOWEST
                if count > limit:
                    raise unexpected(server, f"an answer of at most {limit >> 20} MiB", "a larger one", SMALLER)
                yield piece
            if self.length:  # that is still to come
                raise http.client.IncompleteRead(b"", self.length)
        except TimeoutError:
            expected = f"at least {SLOWEST >> 10} KiB a second"
            raise unexpected(server, expected, "a slower answer", "try again when the line is free") from None
        except (http.client.HTTPException, OSError):
            found = f"a connection that was lost after {count} bytes"
            raise unexpected(server, "a whole answer", found, AGAIN) from None


@contextmanager
def exchange(
    server: Server,
    target: str,
    headers: Mapping[str, str],
    body: Iterable[bytes] | None = None,
    *,
    fine: Sequence[int] = (200,),
) -> Iterator[Answer]:
    """Sends a request over a connection of its own, and yields the answer; its content is still to be read.

    Nothing of the environment is used but ``MMFM_PACS_AUTH`` and OpenSSL's ``SSL_CERT_FILE``, for the certificate
    authority of a hospital.

    Args:
        server: where to.
        target: path and query.
        headers: what is sent beside the credentials; ``Content-Length`` where there is a body.
        body: what is posted, in pieces; a request without is a GET.
        fine: the statuses that say that all went well.

    Raises:
        ConfigError: the credentials are of another form, or there are no certificates to verify with.
        ServerError: there is no answer, or one of another status.
    """
    headers = {"User-Agent": "mmfm"} | _authorization() | dict(headers)
    with closing(_connection(server)) as connection:
        try:
            connection.connect()
            connection.sock.settimeout(TIMEOUT[1])
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have said why before it took everything
                connection.request("POST" if body else "GET", target, body, headers)
            answer = connection.getresponse()
            assert isinstance(answer, Answer), "the connection makes them"
        except ssl.SSLError:
            fix = "check the address, or set SSL_CERT_FILE to the certificates of your hospital's authority"
            raise unexpected(server, "TLS with a certificate that can be verified", "none", fix) from None
        except TimeoutError:
            fix = "see whether the server runs, or try again later"
            raise unexpected(server, "an answer", "none in time", fix) from None
        except (http.client.HTTPException, OSError):
            fix = "see whether the server runs at that address"
            raise unexpected(server, "an answer", "no connection, or one that was lost", fix) from None
        if 300 <= answer.status < 400:
            fix = "give the URL that it leads to, if you trust that server"
            raise unexpected(server, "what was asked for", f"HTTP {answer.status}, a redirect", fix)
        if answer.status not in fine:
            found, fix = STATUS.get(answer.status, (f"HTTP {answer.status}", "look into the server's own log"))
            raise unexpected(server, "what was asked for", found, fix)
        if answer.getheader("Content-Encoding", "identity").lower() != "identity":
            raise unexpected(server, "an answer that is not compressed, as asked", "another", KEEPER)
        yield answer


def _connection(server: Server) -> http.client.HTTPConnection:
    connection: http.client.HTTPConnection
    if server.scheme == "https":
        try:
            trusted = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None)
        except OSError:
            raise ConfigError(
                "SSL_CERT_FILE", expected="a file of certificates (PEM)", found="none there", fix="correct its path"
            ) from None
        connection = http.client.HTTPSConnection(server.host, server.port, timeout=TIMEOUT[0], context=trusted)
    else:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=TIMEOUT[0])
    connection.response_class = Answer
    return connection


def web_server(url: str) -> Server:
    """Returns the DICOMweb server of ``url``; sends nothing.

    Raises:
        ConfigError: it is none, or not allowed.
    """
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
        return {"Authorization": f"Basic {base64.b64encode(os.fsencode(secret)).decode()}"}
    if kind.lower() == "bearer" and re.fullmatch(r"[!-~]+", secret):
        return {"Authorization": f"Bearer {secret}"}
    raise ConfigError(
        AUTH if value else f"{AUTH}_FILE",
        expected="basic USER:PASSWORD, or bearer TOKEN",
        found="another form" if value else "no file of that form",
        fix="write it so",
    )


def unexpected(
    server: Server, expected: str, found: str, fix: str = "see whether the URL is that of DICOMweb"
) -> ServerError:
    """Returns the error for an answer that is another than the protocol says."""
    return ServerError(server.where, expected=expected, found=found, fix=fix)
