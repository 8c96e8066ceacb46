import pytest

from mmfm.files import write_whole


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
