"""C-STORE against a real Orthanc, which a fixture starts; failures of servers by a stand-in on this machine."""

import contextlib
import logging
import resource
import shutil
import socket
import threading
import time
import zipfile

import pydicom
import pytest
from pydicom.uid import DigitalXRayImageStorageForPresentation
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt

from mmfm.errors import ConfigError, ServerError
from mmfm.io import dicomweb, dimse, read

pytestmark = pytest.mark.pacs


@pytest.fixture(autouse=True)
def _allowed(monkeypatch):
    monkeypatch.setenv("MMFM_PACS_HOSTS", "127.0.0.1")
    monkeypatch.setenv("MMFM_PACS_AUTH", "basic reader:secret")


def contents(folder):
    """Transfer syntax and pixels by SOP instance UID."""
    files = {f.sop_instance_uid: f.transfer_syntax for f in read(folder).files if f.status == "ok"}
    instances = [i for study in read(folder).studies for series in study.series for i in series.instances]
    assert len(instances) == len(files)
    return {i.sop_instance_uid: (files[i.sop_instance_uid], i.load().tobytes()) for i in instances}


def test_every_syntax_is_stored_as_it_is(orthanc, mixed_study, tmp_path):
    pushed = dimse.push(orthanc.dicom_url(), mixed_study)
    assert (pushed.stored, pushed.skipped, pushed.refused, pushed.reasons) == (5, 1, (), None)
    (study,) = read(mixed_study).studies
    pulled = dicomweb.pull(orthanc.url, tmp_path / "out", study_uid=study.study_uid)
    assert pulled.instances == 5
    assert contents(tmp_path / "out") == contents(mixed_study)


def test_log_lines_hold_no_uid(orthanc, write_dicom, picture, tmp_path, caplog):
    path = write_dicom("made/0.dcm", picture, SOPInstanceUID="1.2.3.4567")
    path.write_bytes(path.read_bytes().replace(b"1.2.3.4567", b"1.2.3.04.7"))  # not valid: pydicom says so
    caplog.set_level(logging.DEBUG)
    dimse.push(orthanc.dicom_url(), tmp_path / "made")
    assert "1.2." not in caplog.text


def test_members_of_a_zip_are_sent(orthanc, mixed_study, tmp_path):
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in mixed_study.iterdir():
            archive.write(file, file.name)
    assert dimse.push(orthanc.dicom_url(), tmp_path / "study.zip").stored == 5


def test_more_kinds_than_fit_into_one_association(orthanc, mixed_study, monkeypatch):
    monkeypatch.setattr(dimse, "MAX_CONTEXTS", 2)
    assert dimse.push(orthanc.dicom_url(), mixed_study).stored == 5


def test_a_wrong_title_is_one_line(orthanc, mixed_study):
    with pytest.raises(
        ServerError, match=rf"^127\.0\.0\.1:{orthanc.dicom}: .* a rejection: Called AE title not recogni"
    ):
        dimse.push(orthanc.dicom_url("OTHER"), mixed_study)
    with pytest.raises(ServerError, match=r"found none, or an association that it ended.* knows the calling AE title"):
        dimse.push(orthanc.dicom_url(), mixed_study, calling_aet="STRANGER")


@pytest.mark.parametrize("title", ["", " ", "A" * 17, "A\\B", "Ä"])
def test_a_calling_title_of_another_form_is_refused(mixed_study, title):
    with pytest.raises(ConfigError, match="--calling-aet: expected"):
        dimse.push("dicom://AET@127.0.0.1:1", mixed_study, calling_aet=title)


def test_no_server_is_one_line(orthanc, mixed_study):
    for port in (1, orthanc.web):
        with pytest.raises(ServerError, match="no answer of a DICOM server"):
            dimse.push(f"dicom://ORTHANC@127.0.0.1:{port}", mixed_study)


def test_what_the_server_refuses_is_counted_with_its_reason(orthanc, write_dicom, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(dimse, "TIMEOUT", 2)  # Orthanc says nothing of a data set that it cannot read
    write_dicom("made/0.dcm", picture)
    write_dicom("made/1.dcm", picture, SOPClassUID="1.2.3.4")
    write_dicom("made/3.dcm", picture)
    path = write_dicom("made/2.dcm", picture)
    start = path.read_bytes().index(b"\x08\x00\x16\x00")  # SOP Class UID, the first element of the data set
    path.write_bytes(path.read_bytes()[:start] + b"no data set")
    pushed = dimse.push(orthanc.dicom_url(), tmp_path / "made")
    assert pushed.stored == 2
    assert set(pushed.refused) == {
        "the server does not take its SOP class in its transfer syntax",
        "the server gave no answer, or ended the association",
    }


def test_a_server_that_stops_in_the_middle(start_orthanc, relay, mixed_study):
    server = start_orthanc()
    port = relay(server.dicom, 20_000, server.process.kill)
    with pytest.raises(ServerError, match=r"found (none|no answer of a DICOM server)\b.*; see whether"):
        dimse.push(f"dicom://ORTHANC@127.0.0.1:{port}", mixed_study)


# --- servers that do wrong -----------------------------------------------------------------------------------------


@pytest.fixture
def store():
    """Returns store(answer): the URL of a server that calls answer(event) for each instance."""
    servers = []

    def start(answer):
        entity = AE(ae_title="STANDIN")
        entity.add_supported_context(DigitalXRayImageStorageForPresentation, ALL_TRANSFER_SYNTAXES)
        servers.append(entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)]))
        return f"dicom://STANDIN@127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()


def test_each_status_is_told(store, mixed_study):
    statuses = iter((0x0000, 0xB000, 0xA701, 0xB000, 0xFF00))
    pushed = dimse.push(store(lambda event: next(statuses)), mixed_study)
    assert (pushed.stored, len(pushed.refused), len(pushed.warned)) == (3, 2, 2)
    assert pushed.reasons == (
        "1 not stored: out of resources (A701); 1 not stored: an unknown reason (FF00); "
        "2 stored with a warning: the server changed elements (B000)"
    )


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"\x04\0\0", b""),
        (b"\x04\0\0\0\x10\0", b"a"),
        (b"\x04\0\xff\xff\xff\xff", bytes(1 << 20)),
        (b"", b"\x04\0\0\0\x20\0\0\0\x1f\xfc\x01\x01" + bytes(0x1FFA)),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", b""),
        (b"\x07\0\0\0\0\x04\0\0\0\0", b""),
    ],
    ids=["half a header", "drip", "4 GiB", "fragments without end", "HTTP", "abort"],
)
def test_an_answer_that_does_not_end_is_left(store, mixed_study, monkeypatch, start, piece):
    def drip(event):
        connection = event.assoc.dul.socket.socket
        connection.sendall(start)
        for _ in range(200):
            connection.sendall(piece)
            time.sleep(0.01)

    monkeypatch.setattr(dimse, "TIMEOUT", 0.3)
    peak, before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ServerError, match="expected an answer to every instance"):
        dimse.push(store(drip), mixed_study)
    assert time.monotonic() - before < 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200 << 10  # KiB


@pytest.mark.parametrize("said", [b"", b"\x02\0\0", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x02\0\xff\xff\xff\xff"])
def test_another_server_is_left(mixed_study, monkeypatch, said):
    monkeypatch.setattr(dimse, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            connections.append(connection)
            with contextlib.suppress(OSError):  # on a busy machine the sender may have given up already
                connection.sendall(said)

        connections = []
        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        with pytest.raises(ServerError, match="no answer of a DICOM server"):
            dimse.push(f"dicom://AET@127.0.0.1:{server.getsockname()[1]}", mixed_study)
        answering.join()
        connections[0].close()


def test_an_unknown_host_is_one_line(mixed_study, monkeypatch):
    monkeypatch.setenv("MMFM_PACS_HOSTS", "dicom://absent.invalid")
    with pytest.raises(ServerError, match=r"^absent\.invalid:104: .* no answer of a DICOM server"):
        dimse.push("dicom://AET@absent.invalid", mixed_study)


def test_a_large_instance_may_take_its_time(store, write_dicom, picture, tmp_path, monkeypatch):
    write_dicom("made/0.dcm", picture, PixelData=bytes(8 << 20))
    monkeypatch.setattr(dimse, "TIMEOUT", 0.5)

    def late(event):
        time.sleep(1)
        return 0

    assert dimse.push(store(late), tmp_path / "made").stored == 1
    monkeypatch.setattr(dimse, "SLOWEST", 1 << 30)
    assert dimse.push(store(late), tmp_path / "made").stored == 0


def test_a_member_of_a_zip_that_is_gone_is_refused(store, mixed_study, tmp_path):
    def answer(event):
        (tmp_path / "study.zip").unlink(missing_ok=True)
        return 0

    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in mixed_study.iterdir():
            archive.write(file, file.name)
    pushed = dimse.push(store(answer), tmp_path / "study.zip")
    assert (pushed.stored, pushed.reasons) == (1, "4 not stored: the file cannot be read any more")


# pynetdicom brings a program of the same name with other options, which an activated environment finds first.
STORESCP = shutil.which("storescp", path="/usr/bin:/usr/local/bin")


@pytest.mark.skipif(STORESCP is None, reason="no storescp here: install Debian's dcmtk")
def test_a_syntax_that_the_server_does_not_take_is_not_converted(start_server, free_port, mixed_study, tmp_path):
    port = free_port()
    options = ("--implicit", "--aetitle", "SMALL", "--output-directory", tmp_path)
    start_server(STORESCP, *options, str(port), ports=(port,))
    pushed = dimse.push(f"dicom://SMALL@127.0.0.1:{port}", mixed_study)
    assert pushed.stored == 1
    assert pushed.reasons == "4 not stored: the server does not take its SOP class in its transfer syntax"
    (stored,) = tmp_path.iterdir()
    assert pydicom.dcmread(stored).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
