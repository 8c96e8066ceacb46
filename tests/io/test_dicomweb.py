"""DICOMweb: failures of servers by a stand-in on this machine, the rest against a real Orthanc (marker pacs)."""

import gzip
import json
import logging
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm import cli
from mmfm.errors import ConfigError, ReadError, ServerError
from mmfm.io import dicomweb, read, web

MULTIPART = 'multipart/related; type="application/dicom"; boundary=b'
STUDY = "1.2.3.4.5"


@pytest.fixture(autouse=True)
def _allowed(monkeypatch):
    monkeypatch.setenv("MMFM_PACS_HOSTS", "127.0.0.1,localhost")
    for name in ("MMFM_PACS_AUTH", "MMFM_PACS_AUTH_FILE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve():
    """Returns serve(answer, tls=None): a server that calls answer(handler) for each request, and records them."""
    servers = []

    def start(answer, tls=None):
        requests = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            close_connection = True

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                requests.append(SimpleNamespace(path=self.path, headers=dict(self.headers), body=body))
                answer(self)
                self.close_connection = True

            do_POST = do_GET

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *arguments: None
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        scheme = "https" if tls else "http"
        return SimpleNamespace(url=f"{scheme}://127.0.0.1:{server.server_port}/dicom-web", requests=requests)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(body=b"", status=200, kind=MULTIPART, length=None, **headers):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def parts(*contents, end=b"\r\n--b--\r\n"):
    head = b"\r\n--b\r\nContent-Type: application/dicom\r\nContent-Location: /x\r\n\r\n"
    return b"".join(head + content for content in contents) + end


@pytest.fixture
def files(write_dicom, picture):
    """The bytes of three instances of STUDY with a preamble that looks like a program."""
    paths = [
        write_dicom(f"made/{n}.dcm", picture, StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.{n // 2}")
        for n in range(3)
    ]
    return [b"MZ" + bytes(126) + path.read_bytes()[128:] for path in paths]


# --- pulling from servers that do wrong ----------------------------------------------------------------------------


def test_what_is_pulled_is_private_and_nameless(serve, files, tmp_path):
    server = serve(reply(parts(*files)))
    out = tmp_path / "new" / "out"
    pulled = dicomweb.pull(server.url + "/", out, study_uid=STUDY)
    assert (pulled.instances, pulled.size, pulled.refusals) == (3, sum(map(len, files)), None)
    assert sorted(p.read_bytes() for p in out.iterdir()) == sorted(bytes(128) + file[128:] for file in files)
    assert out.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in out.iterdir()} == {0o600}
    assert all(re.fullmatch(r"[0-9a-f]{32}\.dcm", p.name) for p in out.iterdir())
    (request,) = server.requests
    assert request.path == f"/dicom-web/studies/{STUDY}"
    assert request.headers["Accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("cut", "ends in the middle"),
        ("short", "lost after"),
        ("empty", "found none"),
        ("no final boundary", "ends in the middle"),
        ("not multipart", "another content type"),
        ("no boundary", "another content type"),
        ("a part that is no DICOM", "something else among them"),
        ("another study", "others among them"),
        ("endless header", "without an end"),
    ],
)
def test_a_wrong_answer_leaves_nothing(serve, files, tmp_path, case, found):
    whole = parts(*files)
    answers = {
        "cut": reply(whole[:-2000]),
        "short": reply(whole[:-2000], length=len(whole)),
        "empty": reply(parts()),
        "no final boundary": reply(parts(*files, end=b"")),
        "not multipart": reply(files[0], kind="application/dicom"),
        "no boundary": reply(whole, kind="multipart/related"),
        "a part that is no DICOM": reply(parts(files[0], b"<html>" * 50)),
        "another study": reply(parts(*files)),
        "endless header": reply(b"\r\n--b\r\nX: " + b"a" * 40_000),
    }
    server = serve(answers[case])
    study = "1.2.3" if case == "another study" else STUDY
    with pytest.raises(ServerError, match=found) as raised:
        dicomweb.pull(server.url, tmp_path / "out", study_uid=study)
    assert STUDY not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_of_a_series_nothing_else_is_taken(serve, files, tmp_path):
    server = serve(reply(parts(*files)))
    with pytest.raises(ServerError, match="others among them"):
        dicomweb.pull(server.url, tmp_path / "out", study_uid=STUDY, series_uid=f"{STUDY}.1")
    assert server.requests[0].path == f"/dicom-web/studies/{STUDY}/series/{STUDY}.1"


def chunked(*pieces, end=b"0\r\n\r\n"):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", MULTIPART)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end)

    return answer


def test_an_answer_of_unknown_length_is_read(serve, files, tmp_path):
    whole = parts(*files)
    server = serve(chunked(whole[:1000], whole[1000:]))
    assert dicomweb.pull(server.url, tmp_path / "out", study_uid=STUDY).instances == 3
    for end in (b"", b"40\r\nshort", b"no number\r\n"):
        with pytest.raises(ServerError, match=r"lost after|ends in the middle"):
            dicomweb.pull(serve(chunked(whole[:1000], end=end)).url, tmp_path / "cut", study_uid=STUDY)
    assert not (tmp_path / "cut").exists()


def test_bytes_are_counted_as_they_come_in(serve, files, tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(dicomweb, "MAX_TEXT", 1 << 20)
    body = parts(files[0] + bytes(4 << 20))
    with pytest.raises(ServerError, match="at most 1 MiB"):
        dicomweb.pull(serve(reply(body)).url, tmp_path / "out", study_uid=STUDY)
    assert not (tmp_path / "out").exists()
    for call in (lambda url: dicomweb.find(url), lambda url: dicomweb.push(url, tmp_path / "made")):
        with pytest.raises(ServerError, match="at most 1 MiB"):
            call(serve(reply(b" " * (4 << 20))).url)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip", "br"])
def test_nothing_is_inflated(serve, files, tmp_path, coding):
    server = serve(reply(gzip.compress(parts(*files)), Content_Encoding=coding))
    for call in (
        lambda: dicomweb.pull(server.url, tmp_path / "out", study_uid=STUDY),
        lambda: dicomweb.find(server.url),
    ):
        with pytest.raises(ServerError, match="not compressed, as asked"):
            call()
    assert "Content-Encoding" not in server.requests[0].headers
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_instances_are_counted(serve, files, tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb, "MAX_INSTANCES", 3)
    server = serve(reply(parts(*files)))
    with pytest.raises(ServerError, match="fewer than 3 instances"):
        dicomweb.pull(server.url, tmp_path / "out", study_uid=STUDY)


def test_a_redirect_is_not_followed(serve, tmp_path, files):
    other = serve(reply(parts(*files)))
    server = serve(reply(status=302, Location=f"{other.url}/{STUDY}"))
    for call in (
        lambda: dicomweb.pull(server.url, tmp_path / "out", study_uid=STUDY),
        lambda: dicomweb.find(server.url),
        lambda: dicomweb.push(server.url, tmp_path / "made"),
    ):
        with pytest.raises(ServerError, match="HTTP 302, a redirect"):
            call()
    assert (len(server.requests), other.requests) == (3, [])


@pytest.mark.parametrize(
    "target", [b"http://[::1", b"/\xff\xfe", b"//other.org/", b"https://Doe^Jane@other.org", b"/\0"]
)
def test_of_a_redirect_nothing_is_read(serve, target):
    def lead(handler):
        handler.wfile.write(b"HTTP/1.1 307 X\r\nLocation: %s\r\n\r\n" % target)
        while True:
            handler.wfile.write(bytes(1 << 16))

    with pytest.raises(ServerError, match=r"HTTP 307, a redirect") as raised:
        dicomweb.find(serve(lead).url)
    assert "Doe" not in str(raised.value)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=b\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece", "pause", "found"),
    [
        (OK + b"Content-Length: 10000\r\n\r\n", b"a", 0.02, "a slower answer"),
        (OK + b"X: ", b"a", 0.02, "none in time"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0, "none in time"),
        (CHUNKED + b"1;", b"a", 0.02, "a slower answer"),
        (CHUNKED + b"0\r\n", b"a: b\r\n", 0, "a slower answer"),
        (CHUNKED + b"1;", bytes(1 << 16), 0, "lost after 0 bytes"),
        (OK, b"X: a\r\n" * 100, 0, "no connection, or one that was lost"),
    ],
    ids=["content", "header", "100 Continue", "chunk header", "trailer", "long chunk header", "headers"],
)
def test_an_answer_that_does_not_end_is_left(serve, tmp_path, monkeypatch, start, piece, pause, found):
    def drip(handler):
        handler.wfile.write(start)
        while True:
            handler.wfile.write(piece)
            time.sleep(pause)

    monkeypatch.setattr(web, "PATIENCE", 0.3)
    monkeypatch.setattr(web, "TIMEOUT", (1, 1))
    before = time.monotonic()
    with pytest.raises(ServerError, match=found):
        dicomweb.pull(serve(drip).url, tmp_path / "out", study_uid=STUDY)
    assert time.monotonic() - before < 3
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_comes_fast_enough_is_waited_for(serve, files, tmp_path, monkeypatch):
    def trickle(handler):
        body = parts(*files)
        reply(length=len(body))(handler)
        for start in range(0, len(body), 512):
            handler.wfile.write(body[start : start + 512])
            time.sleep(0.05)

    monkeypatch.setattr(web, "PATIENCE", 0.2)
    monkeypatch.setattr(web, "SLOWEST", 2_000)
    before = time.monotonic()
    assert dicomweb.pull(serve(trickle).url, tmp_path / "out", study_uid=STUDY).instances == 3
    assert time.monotonic() - before > 0.2


def test_a_length_that_is_no_number_is_no_traceback(serve, files, tmp_path):
    server = serve(reply(parts(*files), length="9" * 5000))
    assert dicomweb.pull(server.url, tmp_path / "out", study_uid=STUDY).instances == 3


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_that_does_not_come_is_left(serve, tmp_path, monkeypatch, begun):
    ended = threading.Event()

    def wait(handler):
        if begun:
            reply(length=10_000)(handler)
        ended.wait(5)

    monkeypatch.setattr(web, "TIMEOUT", (1, 0.2))
    with pytest.raises(ServerError, match="a slower answer" if begun else "none in time"):
        dicomweb.pull(serve(wait).url, tmp_path / "out", study_uid=STUDY)
    ended.set()


@pytest.mark.parametrize(
    ("status", "said"),
    [(204, "nothing there"), (206, "only a part"), (401, "MMFM_PACS_AUTH"), (404, "no such study"), (500, "HTTP 500")],
)
def test_a_status_is_said_in_words(serve, tmp_path, status, said):
    server = serve(reply(b"Jane Doe" if status != 204 else b"", status=status))
    with pytest.raises(ServerError, match=said) as raised:
        dicomweb.pull(server.url, tmp_path / "out", study_uid=STUDY)
    assert str(raised.value).startswith("127.0.0.1:")
    assert not {"Jane", STUDY} & set(re.split(r"[ /;:]", str(raised.value)))


def test_no_server_is_one_line():
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:1: expected an answer; found no connection"):
        dicomweb.find("http://127.0.0.1:1")


def test_nothing_is_asked_where_the_folder_is_taken(serve, tmp_path, files):
    server = serve(reply(parts(*files)))
    for out in (tmp_path, tmp_path / "made" / "0.dcm"):
        with pytest.raises(ConfigError, match="OUT: expected a new or empty folder"):
            dicomweb.pull(server.url, out, study_uid=STUDY)
    assert server.requests == []


@pytest.mark.parametrize("uid", ["", "1", "1.2/../../x", "1.2?x", "1.2.3\n", "Doe^Jane", "1." + "2" * 70])
def test_a_uid_is_a_uid(tmp_path, uid):
    with pytest.raises(ConfigError, match=r"--study: expected a Study Instance UID; found another form"):
        dicomweb.pull("http://127.0.0.1:1", tmp_path / "out", study_uid=uid)


@given(
    contents=st.lists(st.binary(max_size=60).filter(lambda b: b"\r\n--b" not in b), max_size=4), size=st.integers(1, 40)
)
def test_parts_are_the_same_however_they_are_cut(contents, size):
    body = b"preamble" + parts(*contents)
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    found = [b""] * len(contents)
    for number, piece in dicomweb._multipart(None, chunks, b"b"):
        found[number - 1] += piece
    assert found == contents


# --- credentials, TLS, log lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("basic a:b:c", "Basic YTpiOmM="),
        ("basic a:ä", "Basic YTrDpA=="),
        ("Bearer abc.def", "Bearer abc.def"),
        (None, None),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_credentials_come_from_the_environment(serve, tmp_path, monkeypatch, value, header, in_file):
    if value and in_file:
        (tmp_path / "auth").write_text(value + "\n")
        monkeypatch.setenv("MMFM_PACS_AUTH_FILE", str(tmp_path / "auth"))
    elif value:
        monkeypatch.setenv("MMFM_PACS_AUTH", value)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login x password y")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = serve(reply(b"[]", kind="application/dicom+json"))
    assert dicomweb.find(server.url) == ()
    assert server.requests[0].headers.get("Authorization") == header
    assert server.requests[0].headers["Host"] == server.url.split("/")[2]


@pytest.mark.parametrize("value", ["hunter2", "basic hunter2", "bearer a hunter2", "bearer hunter2\r\nX: y"])
def test_credentials_of_another_form_are_refused_and_not_repeated(monkeypatch, value):
    monkeypatch.setenv("MMFM_PACS_AUTH", value)
    with pytest.raises(ConfigError, match="MMFM_PACS_AUTH: expected basic") as raised:
        dicomweb.find("http://127.0.0.1:1")
    assert "hunter2" not in str(raised.value)
    monkeypatch.delenv("MMFM_PACS_AUTH")
    monkeypatch.setenv("MMFM_PACS_AUTH_FILE", "/nowhere")
    with pytest.raises(ConfigError, match="MMFM_PACS_AUTH_FILE: expected basic"):
        dicomweb.find("http://127.0.0.1:1")


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here to make a certificate with")
def test_certificates_are_verified(serve, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = serve(reply(b"[]", kind="application/dicom+json"), tls)
    with pytest.raises(ServerError, match="TLS with a certificate that can be verified"):
        dicomweb.find(server.url)
    assert server.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert dicomweb.find(server.url) == ()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE: expected a file"):
        dicomweb.find(server.url)


def test_log_lines_hold_no_uid(serve, files, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    dicomweb.pull(serve(reply(parts(*files))).url, tmp_path / "out", study_uid=STUDY)
    dicomweb.find(serve(reply(b"[]", kind="application/dicom+json", Warning="299 Jane Doe")).url, patient_id="Doe")
    assert not re.search(rf"Doe|{re.escape(STUDY)}", caplog.text)


# --- finding -------------------------------------------------------------------------------------------------------


def found(uid, **tags):
    values = {"0020000D": [uid], **{f"{tag}": value for tag, value in tags.items()}}
    return {tag: {"vr": "LO", "Value": value} for tag, value in values.items()}


def pages(studies, ignore_offset=False):
    def answer(handler):
        query = dict(re.findall(r"(\w+)=(\w+)", handler.path))
        start = 0 if ignore_offset else int(query["offset"])
        body = json.dumps(studies[start : start + int(query["limit"])]).encode()
        reply(body, kind="application/dicom+json")(handler)

    return answer


def test_all_pages_are_read(serve):
    studies = [found(f"1.2.{n}") for n in range(250)]
    server = serve(pages(studies))
    assert [s.study_uid for s in dicomweb.find(server.url, patient_id="A&B", modality="CT", date="20260101-")]
    assert len(server.requests) == 4
    assert "PatientID=A%26B" in server.requests[0].path


def test_a_server_with_smaller_pages_is_asked_to_the_end(serve):
    def answer(handler):
        start = int(re.search(r"offset=(\d+)", handler.path)[1])
        reply(json.dumps(studies[start : start + 30]).encode(), kind="application/dicom+json")(handler)

    studies = [found(f"1.2.{n}") for n in range(70)]
    assert len(dicomweb.find(serve(answer).url)) == 70


def test_a_server_that_repeats_itself_ends(serve):
    server = serve(pages([found(f"1.2.{n}") for n in range(250)], ignore_offset=True))
    assert len(dicomweb.find(server.url)) == 100
    assert len(server.requests) == 2


def test_what_was_found_is_shown_without_names(serve):
    study = found(
        "1.2.3",
        **{
            "00080020": ["20260102"],
            "00080061": ["SR", "CT"],
            "00081030": ["Chest\x1b[2J"],
            "00201208": [7],
            "00100010": [{"Alphabetic": "Doe^Jane"}],
            "00100020": ["MRN1"],
        },
    )
    studies = dicomweb.find(serve(pages([study, found("1.2.4")])).url)
    text = dicomweb.found_text(studies, names=False)
    assert text.splitlines()[0] == "20260102  CT/SR  7 instances  1.2.3  Chest[2J"
    assert text.splitlines()[-1] == "2 studies"
    assert "MRN1  Doe^Jane" in dicomweb.found_text(studies, names=True)
    assert json.loads(dicomweb.found_json(studies, names=False))[0] == {
        "study_uid": "1.2.3",
        "study_date": "20260102",
        "modalities": ["CT", "SR"],
        "description": "Chest[2J",
        "instances": 7,
    }
    assert json.loads(dicomweb.found_json(studies, names=True))[0]["patient_name"] == "Doe^Jane"
    assert dicomweb.found_text((), names=False) == "0 studies"


@pytest.mark.parametrize(
    "body", [b"<html>", b'"text"', b"[1]", b"[{}]", b'[{"0020000D": 1}]', b"[" * 100_000, b'{"a": 1}', b"\xff"]
)
def test_another_answer_is_one_line(serve, body):
    with pytest.raises(ServerError, match="a list of studies in DICOM JSON"):
        dicomweb.find(serve(reply(body, kind="application/dicom+json")).url)


@pytest.mark.parametrize(
    "values",
    [{"patient_id": ""}, {"modality": "ct&x"}, {"date": "2026-01-01"}, {"date": "-"}, {"date": "20260101-20260102-"}],
)
def test_values_of_another_form_are_refused(values):
    with pytest.raises(ConfigError, match="found another form"):
        dicomweb.find("http://127.0.0.1:1", **values)


# --- pushing -------------------------------------------------------------------------------------------------------


def told(stored=(), failed=(), warned=()):
    sequences = {
        "00081199": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in stored]
        + [{"00081196": {"vr": "US", "Value": [code]}} for code in warned],
        "00081198": [{"00081197": {"vr": "US", "Value": [code]}} for code in failed],
    }
    return json.dumps({tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}).encode()


def test_a_request_holds_the_files_without_their_preambles(serve, files, tmp_path):
    for number, file in enumerate(files):
        (tmp_path / "made" / f"{number}.dcm").write_bytes(file)
    server = serve(reply(told(["1"] * 3), kind="application/dicom+json"))
    pushed = dicomweb.push(server.url, tmp_path / "made")
    assert (pushed.stored, pushed.refused, pushed.reasons) == (3, (), None)
    (request,) = server.requests
    boundary = re.search("boundary=(.*)", request.headers["Content-Type"])[1].encode()
    sent = b"".join(piece for _, piece in dicomweb._multipart(None, [request.body], boundary))
    assert sent == b"".join(bytes(128) + file[128:] for file in files)


def test_requests_stay_below_a_limit(serve, files, tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb, "BATCH_BYTES", 2 * len(files[0]) + 10)
    answers = iter((2, 1))
    server = serve(lambda handler: reply(told(["1"] * next(answers)), kind="application/dicom+json")(handler))
    assert dicomweb.push(server.url, tmp_path / "made").stored == 3
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "body", "stored", "reasons"),
    [
        (202, told(["1"], [0xA700, 0xA700]), 1, "2 not stored: out of resources (A700)"),
        (409, told([], [0x0122, 0xC000, 0x0122]), 0, "2 not stored: the SOP class is not supported (0122); 1 not"),
        (200, told(["1", "2"]), 2, "1 not stored: the server says nothing of it"),
        (200, b"{}", 0, "3 not stored: the server says nothing of it"),
        (200, told(["1"], [], [0xB000, 0xB000]), 3, "2 stored with a warning: the server changed elements (B000)"),
        (
            202,
            told(["1"], [0xA700], [0xB006]),
            2,
            "1 not stored: out of resources (A700); 1 stored with a warning: the",
        ),
        (202, told(["1", "2", "3"], [0xA700] * 9), 0, "3 not stored: out of resources (A700)"),
        (202, told(["1"] * 9, [0xA700]), 2, "1 not stored: out of resources (A700)"),
    ],
)
def test_what_was_not_stored_is_counted_with_its_reason(serve, files, tmp_path, status, body, stored, reasons):
    server = serve(reply(body, status=status, kind="application/dicom+json"))
    pushed = dicomweb.push(server.url, tmp_path / "made")
    assert pushed.stored == stored
    assert pushed.reasons.startswith(reasons)


@pytest.mark.parametrize(
    "body",
    [
        b"<xml/>",
        b"[]",
        b'{"00081199": 1}',
        b'{"00081198": {"Value": [1]}}',
        b'{"00081198": {"Value": [{"00081197": {"Value": [1e999]}}]}}',
        b'{"00081198": {"Value": [{"00081197": {"Value": {"a": 1}}}]}}',
    ],
)
def test_an_answer_that_says_nothing_is_one_line(serve, files, tmp_path, body):
    with pytest.raises(ServerError, match="word of each instance"):
        dicomweb.push(serve(reply(body)).url, tmp_path / "made")


def test_what_was_refused_as_a_whole_is_halved(serve, write_dicom, picture, tmp_path):
    for number in range(16):
        write_dicom(f"made/{number:02}.dcm", picture, PatientID="WRONG" if number == 11 else "RIGHT")
    sizes = []

    def answer(handler):
        body = server.requests[-1].body
        sizes.append(body.count(b"Content-Type: application/dicom"))
        wrong = b"WRONG" in body
        reply(b"" if wrong else told(["1"] * sizes[-1]), status=400 if wrong else 200)(handler)

    server = serve(answer)
    pushed = dicomweb.push(server.url, tmp_path / "made")
    assert pushed.stored == 15
    assert pushed.reasons == "1 not stored: HTTP 400, a request that it does not understand"
    assert sizes == [16, 8, 8, 4, 2, 2, 1, 1, 4]


@pytest.mark.parametrize("change", ["shorter", "longer", "gone"])
def test_a_file_that_changes_on_the_way_is_one_line(serve, files, tmp_path, monkeypatch, change):
    monkeypatch.setattr(dicomweb, "BATCH_BYTES", 1)
    last = tmp_path / "made" / "2.dcm"

    def answer(handler):
        last.write_bytes(files[2][:-1] if change == "shorter" else files[2] + b"a")
        if change == "gone":
            last.unlink()
        reply(told(["1"]), kind="application/dicom+json")(handler)

    with pytest.raises(ReadError, match="found one that changed, after 2 instances were stored") as raised:
        dicomweb.push(serve(answer).url, tmp_path / "made")
    assert "2.dcm" not in str(raised.value)


def test_an_answer_before_everything_was_taken_is_heard(write_dicom, picture, tmp_path):
    write_dicom("made/0.dcm", picture, PixelData=bytes(32 << 20))

    def refuse():
        connection, _ = server.accept()
        connection.recv(1 << 10)
        connection.sendall(b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=refuse, daemon=True).start()
        with pytest.raises(ServerError, match="HTTP 401, no credentials"):
            dicomweb.push(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path / "made")


def test_how_much_was_stored_before_a_failure_is_said(serve, files, tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb, "BATCH_BYTES", 1)
    answers = iter((reply(told(["1"]), kind="application/dicom+json"), reply(status=503)))
    server = serve(lambda handler: next(answers)(handler))
    with pytest.raises(ServerError, match="HTTP 503, a server that is too busy, after 1 instances were stored"):
        dicomweb.push(server.url, tmp_path / "made")


def test_there_has_to_be_something_to_send(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ReadError, match="expected DICOM files, with the DICM prefix; found 1 other files"):
        dicomweb.push("http://127.0.0.1:1", tmp_path)


# --- a real server -------------------------------------------------------------------------------------------------


@pytest.fixture
def allowed_in(monkeypatch):
    monkeypatch.setenv("MMFM_PACS_AUTH", "basic reader:secret")


@pytest.fixture
def mmfm(monkeypatch, capsys):
    """Runs a command line; returns (exit code, stdout, stderr)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["mmfm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return call


def contents(folder):
    """Transfer syntax and pixels by SOP instance UID."""
    reading = read(folder)
    syntaxes = {f.sop_instance_uid: f.transfer_syntax for f in reading.files if f.status == "ok"}
    instances = [i for study in reading.studies for series in study.series for i in series.instances]
    return {i.sop_instance_uid: (syntaxes[i.sop_instance_uid], i.load().tobytes()) for i in instances}


@pytest.mark.pacs
def test_there_and_back(orthanc, mmfm, allowed_in, mixed_study, tmp_path):
    (study,) = read(mixed_study).studies
    dataset = pydicom.dcmread(mixed_study / "0.dcm")
    code, out, err = mmfm("push", mixed_study, orthanc.url)
    assert (code, out, err) == (0, "5 instances stored; 1 other files were not sent\n", "")

    given = ("--patient-id", dataset.PatientID, "--modality", dataset.Modality, "--date", f"{dataset.StudyDate}-")
    code, out, err = mmfm("pull", orthanc.url, "--find", *given, "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)
    assert (code, err, found["study_uid"], found["instances"]) == (0, "", study.study_uid, 5)
    assert found["modalities"] == [dataset.Modality]
    code, out, err = mmfm("pull", orthanc.url, "--find", *given)
    assert str(dataset.PatientID) not in out
    assert study.study_uid in out
    code, out, err = mmfm("pull", orthanc.url, "--find", *given, "--names")
    assert str(dataset.PatientID) in out
    assert mmfm("pull", orthanc.url, "--find", "--modality", "NM") == (0, "0 studies\n", "")

    code, out, err = mmfm("pull", orthanc.url, tmp_path / "out", "--study", study.study_uid)
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"5 instances, 0\.\d MB: {re.escape(str(tmp_path / 'out'))}\n", out)
    assert contents(tmp_path / "out") == contents(mixed_study)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "out").iterdir()} == {0o600}
    assert {p.read_bytes()[:128] for p in (tmp_path / "out").iterdir()} == {bytes(128)}


@pytest.mark.pacs
def test_a_series_alone(orthanc, allowed_in, files, tmp_path):
    assert dicomweb.push(orthanc.url, tmp_path / "made").stored == 3
    pulled = dicomweb.pull(orthanc.url, tmp_path / "out", study_uid=STUDY, series_uid=f"{STUDY}.0")
    assert pulled.instances == 2


@pytest.mark.pacs
@pytest.mark.parametrize("uid", ["1.2.999", "1.2.3.999"])
def test_an_unknown_study_is_one_line(orthanc, mmfm, allowed_in, tmp_path, uid):
    code, out, err = mmfm("pull", orthanc.url, tmp_path / "out", "--study", uid)
    assert (code, out) == (2, "")
    assert err.startswith(f"mmfm: 127.0.0.1:{orthanc.web}: expected what was asked for; found HTTP 404, no such study")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.pacs
@pytest.mark.parametrize("auth", ["", "basic reader:wrong", "bearer secret"])
def test_wrong_credentials_are_one_line(orthanc, mmfm, monkeypatch, mixed_study, auth):
    monkeypatch.setenv("MMFM_PACS_AUTH", auth)
    for words in (("push", mixed_study, orthanc.url), ("pull", orthanc.url, "--find")):
        code, out, err = mmfm(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert re.search("HTTP 40[13], .* credentials", err)
        assert "secret" not in err


@pytest.mark.pacs
def test_what_the_server_cannot_store_is_counted(orthanc, mmfm, allowed_in, files, tmp_path):
    broken = files[0][: len(files[0]) // 4]
    for number, file in enumerate((files[0], broken, files[2])):
        (tmp_path / "made" / f"{number}.dcm").write_bytes(file)
    code, out, err = mmfm("push", tmp_path / "made", orthanc.url)
    assert (code, out, err) == (
        2,
        "2 instances stored\n",
        "1 not stored: HTTP 400, a request that it does not understand\n",
    )


@pytest.mark.pacs
@pytest.mark.parametrize("action", ["pull", "push"])
def test_a_server_that_stops_in_the_middle_leaves_nothing(start_orthanc, relay, allowed_in, files, tmp_path, action):
    server = start_orthanc()
    dicomweb.push(server.url, tmp_path / "made")
    url = f"http://127.0.0.1:{relay(server.web, 1500, server.process.kill)}/dicom-web"
    calls = {
        "pull": lambda: dicomweb.pull(url, tmp_path / "out", study_uid=STUDY),
        "push": lambda: dicomweb.push(url, tmp_path / "made"),
    }
    with pytest.raises(ServerError, match=r"lost|ends in the middle"):
        calls[action]()
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--find", "--study", "1.2"),
        ("out",),
        ("--study", "1.2"),
        ("out", "--find"),
        ("out", "--find", "--study", "1.2"),
        ("--find", "--series", "1.2"),
        ("out", "--study", "1.2", "--modality", "CT"),
        ("out", "--study", "1.2", "--patient-id", ""),
        ("out", "--study", "1.2", "--json"),
    ],
)
def test_pull_either_finds_or_retrieves(mmfm, words):
    code, out, err = mmfm("pull", "http://127.0.0.1:1", *words)
    assert (code, out) == (2, "")
    assert err.startswith("mmfm: mmfm pull: expected either --find with what belongs to it, or OUT and --study")
