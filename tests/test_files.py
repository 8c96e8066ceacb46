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


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a.txt").read_text() == "a"
    with pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "other"):
        raise ValueError("stop")
    with pytest.raises(ConfigError, match="new or empty"), new_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
