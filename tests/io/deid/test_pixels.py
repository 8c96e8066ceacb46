"""Burned-in text: found, blanked, and never called clean."""

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, UltrasoundImageStorage

from mmfm.errors import ConfigError
from mmfm.io import deidentify
from mmfm.io.deid.pixels import may_show_identity

NAME_BOX = (slice(10, 44), slice(20, 330))


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "a.key"
    path.write_bytes(bytes(range(32)))
    return path


def drawn(text="FEATHERSTONE 19500203", marker="L", rgb=False):
    """A smooth picture with a name at the top and a marker of the side below."""
    rows, columns = np.mgrid[-1:1:256j, -1:1:360j]
    picture = Image.fromarray(np.uint8(40 + 60 * np.exp(-(rows**2 + columns**2))))
    font, pen = ImageFont.load_default(size=24), ImageDraw.Draw(picture)
    pen.text((22, 12), text, fill=255, font=font)
    pen.text((320, 200), marker, fill=255, font=font)
    return np.repeat(np.array(picture)[..., None], 3, axis=2) if rgb else np.array(picture)


@pytest.mark.slow
@pytest.mark.parametrize(("rgb", "packed"), [(False, False), (True, False), (False, True)])
def test_burned_in_text_is_blanked_and_the_marker_stays(write_dicom, key, tmp_path, rgb, packed):
    pytest.importorskip("rapidocr")
    picture = drawn(rgb=rgb)
    path = write_dicom("in/a.dcm", picture)
    if packed:
        dataset = pydicom.dcmread(path)
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        dataset.save_as(path)
    deidentify(tmp_path / "in", tmp_path / "out", key=key, clean=["pixel-data"])
    (found,) = [pydicom.dcmread(each) for each in (tmp_path / "out" / "quarantine").rglob("*.dcm")]
    pixels = found.pixel_array
    assert pixels.shape == picture.shape
    assert picture[NAME_BOX].max() == 255
    assert pixels[NAME_BOX].max() < 120
    rest = np.ones(picture.shape[:2], bool)
    rest[:60] = False
    assert np.array_equal(pixels[rest], picture[rest]), "the marker and the picture stay"
    assert found.BurnedInAnnotation == "YES"
    assert "113101" in {item.CodeValue for item in found.DeidentificationMethodCodeSequence}
    deidentify(tmp_path / "out", tmp_path / "again", key=key, clean=["pixel-data"])
    (again,) = (tmp_path / "again").rglob("*.dcm")
    assert pydicom.dcmread(again) == found


@pytest.mark.slow
def test_pixels_without_text_stay(write_dicom, key, tmp_path):
    pytest.importorskip("rapidocr")
    picture = drawn(text="", marker="R")
    write_dicom("in/a.dcm", picture)
    deidentify(tmp_path / "in", tmp_path / "out", key=key, clean=["pixel-data"])
    (found,) = [pydicom.dcmread(each) for each in (tmp_path / "out").glob("[0-9a-f]*/*.dcm")]
    assert np.array_equal(found.pixel_array, picture)
    assert "BurnedInAnnotation" not in found


@pytest.mark.slow
def test_what_lies_around_ultrasound_regions_is_blanked(write_dicom, key, tmp_path):
    pytest.importorskip("rapidocr")
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 50, 60
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 300, 190
    picture = drawn()
    write_dicom(
        "in/a.dcm",
        picture,
        Modality="US",
        SOPClassUID=UltrasoundImageStorage,
        SequenceOfUltrasoundRegions=[region],
    )
    deidentify(tmp_path / "in", tmp_path / "out", key=key, clean=["pixel-data"])
    (found,) = [pydicom.dcmread(each) for each in (tmp_path / "out" / "quarantine").rglob("*.dcm")]
    inside = np.zeros(picture.shape, bool)
    inside[60:191, 50:301] = True
    assert np.array_equal(found.pixel_array[inside], picture[inside])
    assert len(np.unique(found.pixel_array[~inside])) == 1


def test_without_the_packages_the_error_says_what_to_install(write_dicom, key, tmp_path, monkeypatch):
    from mmfm.io.deid import pixels

    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    pixels._ocr.cache_clear()
    with pytest.raises(ConfigError, match=r"install mmfm\[deid\]"):
        deidentify(write_dicom("in/a.dcm", drawn()), tmp_path / "out", key=key, clean=["pixel-data"])
    pixels._ocr.cache_clear()
    assert not (tmp_path / "out").exists()


def test_an_ordinary_radiograph_is_not_held_back(write_dicom):
    dataset = pydicom.dcmread(write_dicom("a.dcm", drawn(), ImageType=["ORIGINAL", "PRIMARY"], BurnedInAnnotation="NO"))
    assert may_show_identity(dataset) is None
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    assert may_show_identity(dataset) is None, "it says that nothing is burned in"
    dataset.BurnedInAnnotation = "YES"
    assert may_show_identity(dataset) == "burned-in annotation"
