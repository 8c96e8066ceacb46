import socket
import zipfile

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import MediaStorageDirectoryStorage

from mmfm import doctor
from mmfm.errors import ConfigError, ReadError
from mmfm.io import dicomweb, dimse, pacs
from mmfm.io.pacs import Server, allowed_hosts, outgoing, status_meaning


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        ("pacs.example.org", "https://pacs.example.org/dicom-web"),
        ("other.org, pacs.example.org:8443", "https://PACS.example.org:8443"),
        ("pacs.example.org:443", "https://pacs.example.org"),
        ("http://pacs.example.org:8042", "http://pacs.example.org:8042/dicom-web/"),
        ("http://pacs.example.org", "https://pacs.example.org"),
        ("dicom://pacs.example.org:104", "dicom://AET@pacs.example.org"),
        ("127.0.0.1", "http://127.0.0.1:8042/dicom-web"),
        ("localhost:4242", "dicom://AET@localhost:4242"),
        ("[::1]:8042", "http://[0:0::1]:8042"),
        ("pacs_1", "https://pacs_1"),
    ],
)
def test_a_listed_host_is_allowed(monkeypatch, hosts, url):
    monkeypatch.setenv("MMFM_PACS_HOSTS", hosts)
    server = Server.from_url(url)
    assert server.port > 0
    assert Server.from_url(server.url.replace("dicom://", f"dicom://{server.called_aet}@")) == server


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        (None, "https://pacs.example.org"),
        ("", "http://127.0.0.1:8042"),
        ("example.org", "https://pacs.example.org"),
        ("pacs.example.org", "https://pacs.example.org.evil.net"),
        ("pacs.example.org:8443", "https://pacs.example.org"),
        ("pacs.example.org", "http://pacs.example.org"),
        ("https://pacs.example.org", "http://pacs.example.org"),
        ("http://pacs.example.org", "dicom://AET@pacs.example.org"),
        ("127.0.0.2", "https://127.0.0.1"),
        ("127.0.0.1", "https://2130706433"),
        ("127.0.0.1", "https://0x7f000001"),
        ("127.0.0.1", "https://[::ffff:127.0.0.1]"),
        ("example.org", "https://xn--pacs-example-org-x.net"),
        ("*", "https://pacs.example.org"),
    ],
)
def test_another_is_not_and_the_line_says_which(monkeypatch, hosts, url):
    monkeypatch.delenv("MMFM_PACS_HOSTS", raising=False)
    if hosts is not None:
        monkeypatch.setenv("MMFM_PACS_HOSTS", hosts)
    with pytest.raises(ConfigError, match="MMFM_PACS_HOSTS: expected") as raised:
        Server.from_url(url)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("action", ["find", "pull", "stow", "store"])
def test_nothing_is_sent_to_a_host_that_is_not_listed(monkeypatch, mixed_study, tmp_path, action):
    monkeypatch.setenv("MMFM_PACS_HOSTS", "localhost")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        host = f"127.0.0.1:{server.getsockname()[1]}"
        calls = {
            "find": lambda: dicomweb.find(f"http://{host}"),
            "pull": lambda: dicomweb.pull(f"http://{host}", tmp_path / "out", study_uid="1.2.3"),
            "stow": lambda: dicomweb.push(f"http://{host}", mixed_study),
            "store": lambda: dimse.push(f"dicom://AET@{host}", mixed_study),
        }
        with pytest.raises(ConfigError, match=f"expected {host} to be listed"):
            calls[action]()
        with pytest.raises(BlockingIOError):
            server.accept()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@pacs.example.org",
        "https://hunter2@pacs.example.org",
        "https://pacs.example.org/?token=hunter2",
        "https://pacs.example.org/#hunter2",
        "https://pacs.example.org/a b",
        "https://pacs.example.org:0",
        "https://pacs.example.org:hunter2",
        "https://pacs.example.org\\@hunter2.org",
        "https://pacs.example.org:443@hunter2.org",
        "https://pacs.example.org%2fhunter2.org",
        "https://pacs.example.org.",
        "https://pacs..example.org",
        "https://" + 64 * "a" + ".org",
        "https://pacs.exämple.org",
        "https://*.example.org",
        "https://",
        "ftp://pacs.example.org",
        "pacs.example.org",
        "file:///etc/passwd",
        "dicom://pacs.example.org",
        "dicom://AET:hunter2@pacs.example.org",
        "dicom://AET@pacs.example.org/path",
        "dicom://ANAMEOFSEVENTEEN_@pacs.example.org",
        "https://[::1",
    ],
)
def test_a_url_of_another_form_is_refused_and_not_repeated(monkeypatch, url):
    monkeypatch.setenv("MMFM_PACS_HOSTS", "pacs.example.org,hunter2.org,dicom://pacs.example.org")
    with pytest.raises(ConfigError, match=r"^URL: ") as raised:
        Server.from_url(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "hosts", ["a b", "host:port", "user@host", "ftp://host", "host/path", "host?x", "host#x", "[::1", "host,,*.org"]
)
def test_a_list_of_another_form_is_refused(monkeypatch, hosts):
    monkeypatch.setenv("MMFM_PACS_HOSTS", hosts)
    with pytest.raises(ConfigError, match="MMFM_PACS_HOSTS: expected host"):
        allowed_hosts()
    (row,) = doctor._pacs()
    assert row.ok is False


@pytest.mark.parametrize(("hosts", "found"), [("", "no server can be reached"), ("a.org, b.org:104", "2 allowed")])
def test_the_doctor_counts_hosts_and_names_none(monkeypatch, hosts, found):
    monkeypatch.setenv("MMFM_PACS_HOSTS", hosts)
    (row,) = doctor._pacs()
    assert found in row.found
    assert "a.org" not in row.found


def test_only_instances_with_a_prefix_are_sent(mixed_study, tmp_path):
    directory = pydicom.Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    directory.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    (tmp_path / "bare").write_bytes((mixed_study / "0.dcm").read_bytes()[132:])
    (tmp_path / "text.txt").write_text("not to be sent")
    with pytest.raises(ReadError, match="found 3 other files"):
        outgoing(tmp_path)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in mixed_study.iterdir():
            archive.write(file, file.name)
    found, skipped, refused = outgoing(tmp_path)
    assert (len(found), skipped, refused) == (5, 4, [])
    assert len({instance.transfer_syntax for instance in found}) == 5
    assert sorted(i.size for i in found) == sorted(f.stat().st_size for f in mixed_study.glob("*.dcm"))


def test_what_may_be_an_instance_and_cannot_be_sent_is_told(mixed_study, tmp_path, monkeypatch, caplog):
    whole = (mixed_study / "0.dcm").read_bytes()
    largest = max(file.stat().st_size for file in mixed_study.iterdir())
    (tmp_path / "0.dcm").write_bytes(whole)
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM\x02\x00\x10")
    (tmp_path / "odd.dcm").write_bytes(
        whole.replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\x001.2.Doe^Jane 10.2.1")
    )
    (tmp_path / "large.dcm").write_bytes(whole + bytes(largest))
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04" + bytes(10))
    monkeypatch.setattr(pacs, "MAX_BYTES", largest)
    found, skipped, refused = outgoing(tmp_path)
    assert (len(found), skipped) == (1, 0)
    assert sorted(refused) == [
        "expected a complete zip, found a damaged one",
        "it is larger than 0 GiB",
        "its file meta information cannot be read",
        "its file meta information holds no valid UIDs",
    ]
    assert "Doe" not in caplog.text


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (0xA701, "out of resources (A701)"),
        (0xC000, "it cannot be understood (C000)"),
        (0xC122, "the transfer syntax is not supported (C122)"),
        (0x0122, "the SOP class is not supported (0122)"),
        (0x0001, "an unknown reason (0001)"),
        (0xB000, "the server changed elements (B000)"),
        (10**4000, "an unknown reason"),
        (-1, "an unknown reason"),
    ],
)
def test_a_status_is_said_in_words(code, meaning):
    assert status_meaning(code) == meaning
