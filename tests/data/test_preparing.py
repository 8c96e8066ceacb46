from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from mmfm.data.preparing import (
    check_counts,
    fresh_folder,
    member,
    plain_name,
    read_json,
    read_table,
    run,
    take_out,
    tidy,
)
from mmfm.errors import ManifestError


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_files_are_taken_out_unchanged(tmp_path):
    archives = [
        write_tar(tmp_path / "0.tar", {"a.jpg": b"aaa", "z.jpg": b"z"}),
        write_tar(tmp_path / "1.tar", {"b.jpg": b"bb"}),
    ]
    digests = take_out(archives, ["a.jpg", "b.jpg"], tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {"a.jpg": b"aaa", "b.jpg": b"bb"}
    assert digests["a.jpg"] == hashlib.sha256(b"aaa").hexdigest()


def test_a_member_outside_the_folder_is_never_written(tmp_path):
    archive = write_tar(tmp_path / "0.tar", {"../evil.jpg": b"x", "a.jpg": b"a"})
    take_out([archive], ["a.jpg"], tmp_path / "out" / "images")
    assert sorted(p.name for p in tmp_path.rglob("*.jpg")) == ["a.jpg"]
    with pytest.raises(ManifestError, match="without folders"):
        take_out([archive], ["../evil.jpg"], tmp_path / "out" / "images")
    assert not list(tmp_path.rglob("evil.jpg"))


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        tar.addfile(info)
    with pytest.raises(ManifestError, match=r"1 in none, first a\.jpg"):
        take_out([tmp_path / "0.tar"], ["a.jpg"], tmp_path / "out")


@pytest.mark.parametrize("make", ["absent", "text", "cut"])
def test_a_broken_archive_is_named(tmp_path, make):
    archive = tmp_path / "images_00.tar"
    if make == "text":
        archive.write_text("not an archive" * 100)
    if make == "cut":
        write_tar(archive, {"a.jpg": b"a" * 5000})
        archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(ManifestError, match=r"images_00\.tar"):
        take_out([archive], ["a.jpg"], tmp_path / "out")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "/a", "c:a", "a\0"])
def test_a_name_with_a_folder_is_refused(name):
    with pytest.raises(ManifestError):
        plain_name(name)


def test_a_fresh_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "made" / "out"

    def fail():
        with fresh_folder(out) as folder:
            (folder / "manifest.jsonl").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list((tmp_path / "made").iterdir())
    with fresh_folder(out) as folder:
        (folder / "manifest.jsonl").write_text("1")
        (folder / "old.csv").write_text("1")
        assert not out.exists()
    assert sorted(p.name for p in out.iterdir()) == ["manifest.jsonl", "old.csv"]
    with fresh_folder(out) as folder:
        (folder / "manifest.jsonl").write_text("2")
        (folder / "old.csv").write_text("2")
    assert (out / "manifest.jsonl").read_text() == "2"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ManifestError, match=r"thesis\.txt"), fresh_folder(out):
        pytest.fail("not reached")
    (out / "manifest.jsonl").write_text("1")
    with pytest.raises(ManifestError, match=r"thesis\.txt"), fresh_folder(out) as folder:
        (folder / "manifest.jsonl").write_text("2")
    assert (out / "thesis.txt").read_text() == "mine"
    assert (out / "manifest.jsonl").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ManifestError, match="--out"), fresh_folder(tmp_path / "out"):
        pytest.fail("not reached")


@pytest.mark.parametrize(("text", "says"), [(None, "t.csv"), ("a,c\n1,2\n", "'b'"), ("a,b\n1,2\n3\n", "row 3")])
def test_a_broken_table_is_named(tmp_path, text, says):
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ManifestError, match=says):
        read_table(tmp_path / "t.csv", ("a", "b"))


def test_a_table_is_read_with_its_line_breaks_and_its_byte_order_mark(tmp_path):
    (tmp_path / "t.csv").write_bytes('\ufeffa,b\n1,"x\ny"\n'.encode())
    assert read_table(tmp_path / "t.csv", ("a",)) == [{"a": "1", "b": "x\ny"}]


def test_counts_that_differ_are_named():
    check_counts({"a": 1, "b": 0}, {"a": 1, "c": 5})
    with pytest.raises(ManifestError, match=r"expected a 2; found 1 \(1 of 2 counts differ\).*--no-expect"):
        check_counts({"a": 2, "b": 0}, {"a": 1})


def test_tidy():
    assert tidy("  a \n b\t") == "a b"
    assert tidy(" ") is None
    assert tidy(None) is None


def test_the_command_prints_one_line_and_returns_2(tmp_path, monkeypatch, capsys):
    def prepare(source, out, *, expect):
        assert expect is False
        raise ManifestError("reports.csv", expected="a", found="b", fix="c")

    monkeypatch.setattr("sys.argv", ["prepare.py", "--source", "x", "--out", "y", "--no-expect"])
    assert run(prepare, "Help.") == 2
    assert capsys.readouterr().err == "reports.csv: expected a; found b; c\n"


def test_json_is_read_with_nothing_for_nan(tmp_path):
    (tmp_path / "a.json").write_text('\ufeff{"a": NaN, "b": ["\u00e9"]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": None, "b": ["\u00e9"]}


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff", b"[" * 200_000])
def test_what_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ManifestError, match=r"a\.json: expected a JSON file; found something else"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ManifestError, match=r"b\.json: expected a JSON file; found No such file"):
        read_json(tmp_path / "b.json")


def test_a_member_of_an_object():
    assert member({"a": "x"}, "a", str, "file") == "x"
    assert member({"a": None}, "a", list, "file", default=[]) == []
    for value in ({}, {"a": 3}, {"a": None}, "text", None):
        with pytest.raises(ManifestError, match="file: expected an object whose 'a' is text"):
            member(value, "a", str, "file")
    with pytest.raises(ManifestError, match="'a' is a list"):
        member([], "a", list, "file", default=[])
