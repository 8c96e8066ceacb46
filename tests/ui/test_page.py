import os
import stat
import zipfile

import numpy as np
import pytest
from PIL import Image

from mmfm.errors import ReadError
from mmfm.ui.page import private_cache, uploaded


@pytest.fixture
def pictures(tmp_path):
    """Two pictures, each in a folder of its own as a page server stores uploads."""
    paths = []
    for place, size in enumerate((20, 30)):
        folder = tmp_path / f"cache{place}"
        folder.mkdir()
        paths.append(folder / "same name.png")
        Image.fromarray(np.arange(size * size, dtype=np.uint16).reshape(size, size).astype(np.uint8)).save(paths[-1])
    return paths


def test_several_pictures_are_one_study_and_are_deleted(pictures):
    with uploaded(pictures) as reading:
        [study] = reading.studies
        assert len(study.series) == 2
        assert study.series[0].instances[0].load().size
        load = study.series[0].instances[0].load
    assert not any(path.exists() or path.parent.exists() for path in pictures)
    with pytest.raises((ReadError, OSError)):
        load()


def test_a_zip_is_read(pictures, tmp_path):
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for place, path in enumerate(pictures):
            file.write(path, f"{place}.png")
    with uploaded([archive]) as reading:
        assert len(reading.studies[0].series) == 2
        assert reading.refusals is None
    assert not archive.exists()


def test_what_is_no_image_is_refused_and_deleted(tmp_path):
    path = tmp_path / "name of a patient.dcm"
    path.write_text("text")
    with pytest.raises(ReadError) as caught, uploaded([path]):
        pass
    assert "patient" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert not path.exists()
    with pytest.raises(ReadError), uploaded([]):
        pass


def test_refused_files_are_counted_without_their_names(pictures, tmp_path):
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("DOE^JANE/1.dcm", "text")
        file.writestr("DOE^JANE/2.dcm", "")
        file.write(pictures[0], "DOE^JANE/3.png")
        file.write(pictures[0], "DOE^JANE/4.png")
    with uploaded([archive]) as reading:
        refusals = reading.refusals
    assert refusals == "3 of 4 files refused; the first: expected DICOM, NIfTI, PNG, JPEG or zip, found text"


@pytest.mark.parametrize("members", [("1.dcm",), ("1.dcm", "2.dcm")])
def test_names_in_an_archive_are_not_in_the_error(tmp_path, members):
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for member in members:
            file.writestr(f"DOE^JANE/{member}", "text")
    with pytest.raises(ReadError, match="found text") as caught, uploaded([archive]):
        pass
    assert not any(word in str(caught.value) for word in ("JANE", "mmfm-upload", ".dcm", ".zip"))


def test_a_picture_that_fails_later_is_told_without_its_name(pictures, tmp_path):
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("DOE^JANE/1.png", pictures[0].read_bytes()[:-60])
    with pytest.raises(ReadError, match="PNG") as caught, uploaded([archive]) as reading:
        reading.studies[0].series[0].instances[0].load()
    assert not any(word in str(caught.value) for word in ("JANE", "mmfm-upload", "1.png", ".zip"))


def test_the_cache_is_private(monkeypatch):
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")
    folder = private_cache()
    assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()
