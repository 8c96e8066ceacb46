import pytest

from mmfm.errors import ConfigError
from mmfm.files import new_folder, write_whole


def test_the_text_takes_the_place_of_an_earlier_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    write_whole(path, "Ödem\nnone\n")
    assert path.read_bytes() == "Ödem\nnone\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half a character \ud800")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_appears_whole_and_private(tmp_path):
    path = tmp_path / "a" / "b"
    with new_folder(path) as folder:
        (folder / "c").write_text("c")
        assert not path.exists()
    assert [p.name for p in path.iterdir()] == ["c"]
    assert path.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_new_folder_that_fails_is_none(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(UnicodeEncodeError), new_folder(tmp_path / "a") as folder:
        (folder / "c").write_text("half a character \ud800")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_a_new_folder_takes_the_place_of_nothing(tmp_path):
    (tmp_path / "a").write_text("before")
    for path in (tmp_path, tmp_path / "a"):
        with pytest.raises(ConfigError, match="new or empty"), new_folder(path):
            pass
    assert (tmp_path / "a").read_text() == "before"
