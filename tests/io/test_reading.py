"""mmfm.io.read: grouping, headers, outcomes and refusals, and one picture stored in many ways."""

import io
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from mmfm.errors import ReadError
from mmfm.imaging import Volume
from mmfm.io import attach, read, read_image, read_studies, sources
from mmfm.io.sources import walk
from mmfm.study import Laterality, Sex, Study, ViewPosition

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, silenced by a filter that pytest resets


def display(path: Path) -> np.ndarray:
    (study,) = read_studies(path)
    volume, _ = Volume.from_series(study.series[0])
    assert volume.quantity == "display"
    return volume.array


def stretched(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float64)
    return (array - array.min()) / (array.max() - array.min())


def outcomes(path: Path) -> dict[str, tuple[str, str | None]]:
    return {Path(file.file).name: (file.status, file.reason) for file in read(path).files}


def test_the_same_pixels_stored_in_every_way_give_affine_displays(write_dicom, picture, tmp_path):
    twelve = picture.astype(np.uint16) * 16
    Image.fromarray(picture).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([picture] * 3, axis=-1)).save(tmp_path / "rgb.png")
    Image.fromarray(picture.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(picture).convert("P").save(tmp_path / "palette.png")
    window8 = {"WindowCenter": 128, "WindowWidth": 256}
    window12 = {"WindowCenter": 2048, "WindowWidth": 4096}
    paths = [tmp_path / name for name in ("grey.png", "rgb.png", "sixteen.png", "palette.png")]
    paths += [
        write_dicom("a/8.dcm", picture),
        write_dicom("b/8w.dcm", picture, **window8),
        write_dicom("c/12.dcm", twelve, BitsStored=12),
        write_dicom("d/12w.dcm", twelve, BitsStored=12, **window12),
        write_dicom("e/12x.dcm", twelve, BitsStored=12, VOILUTFunction="LINEAR_EXACT", **window12),
        write_dicom("f/8i.dcm", 255 - picture, PhotometricInterpretation="MONOCHROME1"),
        write_dicom("g/12i.dcm", 4095 - twelve, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **window12),
        write_dicom("h/inverse.dcm", 255 - picture, PresentationLUTShape="INVERSE"),
        write_dicom("i/signed.dcm", twelve.astype(np.int16) - 2048, BitsStored=12),
        write_dicom("j/rescaled.dcm", twelve, BitsStored=12, RescaleSlope=2, RescaleIntercept=-100),
        write_dicom("k/rgb.dcm", np.stack([picture] * 3, axis=-1)),
        write_dicom("l/deflated.dcm", picture, DeflatedExplicitVRLittleEndian),
    ]
    reference = stretched(display(paths[0]))
    for path in paths:
        array = display(path)
        assert array.shape == (1, 24, 20), path
        assert array.dtype == np.float32
        np.testing.assert_allclose(stretched(array), reference, atol=1e-6, err_msg=str(path))


def test_monochrome1_with_an_inverse_presentation_is_turned_once(write_dicom, picture):
    path = write_dicom("x.dcm", 255 - picture, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    np.testing.assert_allclose(display(path)[0], picture / 255, atol=1e-6)


def test_sixteen_bit_colour_keeps_its_low_bytes(tmp_path):
    rng = np.random.default_rng(3)
    colour = rng.integers(0, 65536, (5, 4, 3), dtype=np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(png(colour))
    stored = read_image(path).load()
    np.testing.assert_array_equal(stored, colour[np.newaxis])


def png(array: np.ndarray) -> bytes:
    """A PNG of 16-bit RGB, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_transparent_pixels_are_laid_on_black(tmp_path):
    rgba = np.full((2, 2, 4), 200, np.uint8)
    rgba[..., 3] = [[255, 0], [255, 255]]
    Image.fromarray(rgba).save(tmp_path / "t.png")
    assert read_image(tmp_path / "t.png").load()[0, ..., 0].tolist() == [[200, 0], [200, 200]]


def test_headers_of_a_radiograph(write_dicom, picture):
    path = write_dicom(
        "x.dcm", picture, PatientAge="018M", PatientSex="F", ViewPosition="PA", ImageLaterality="U",
        BodyPartExamined="CHEST", ImagerPixelSpacing=[0.2, 0.3], PatientOrientation=["L", "F"],
    )  # fmt: skip
    (study,) = read_studies(path)
    series, instance = study.series[0], study.series[0].instances[0]
    assert (study.study_uid, series.series_uid, series.modality) == ("1.2.3", "1.2.3.4", "DX")
    assert (study.patient.age_years, study.patient.sex, study.patient.patient_id) == (1.5, Sex.FEMALE, "P1")
    assert (series.view, series.laterality, series.body_part) == (ViewPosition.PA, Laterality.UNPAIRED, "CHEST")
    assert instance.patient_orientation == ("L", "F")
    assert instance.geometry.pixel_spacing == (0.2, 0.3)
    assert instance.geometry.spacing_source == "ImagerPixelSpacing"
    assert "Doe" not in str(study.to_json())


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, False),
        ({"PresentationIntentType": "FOR PRESENTATION"}, False),
        ({"PresentationIntentType": "FOR PROCESSING"}, True),
        ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, True),
    ],
)
def test_raw_detector_data_is_told(write_dicom, picture, attributes, expected):
    (study,) = read_studies(write_dicom("x.dcm", picture, **attributes))
    assert study.series[0].instances[0].for_processing is expected


@pytest.mark.parametrize(
    ("age", "birth", "expected"),
    [("045Y", "", 45), ("006M", "", 0.5), ("026W", "", 0.4983), ("010D", "", 0.02738), ("", "19800102", 40.0),
     ("old", "", None), ("", "", None), ("", "20300101", None), ("999Y", "", None)],
)  # fmt: skip
def test_age(write_dicom, picture, age, birth, expected):
    path = write_dicom("x.dcm", picture, PatientAge=age, PatientBirthDate=birth, StudyDate="20200102")
    found = read_studies(path)[0].patient.age_years
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-3))


def test_pixel_spacing_is_preferred_to_the_detector(write_dicom, picture):
    path = write_dicom("x.dcm", picture, PixelSpacing=[0.1, 0.1], ImagerPixelSpacing=[0.2, 0.2])
    assert read_studies(path)[0].series[0].instances[0].geometry.spacing_source == "PixelSpacing"


def test_radiographs_of_one_series_are_series_of_their_own(write_dicom, picture, tmp_path):
    write_dicom("s/b.dcm", picture, ViewPosition="PA", InstanceNumber=1)
    write_dicom("s/a.dcm", picture[:10], ViewPosition="LL", InstanceNumber=2)
    reading = read(tmp_path / "s")
    assert [(s.series_uid, s.view) for s in reading.studies[0].series] == [("1.2.3.4#1", "PA"), ("1.2.3.4#2", "LL")]
    assert [file.series_uid for file in reading.files] == ["1.2.3.4#2", "1.2.3.4#1"]


def test_pictures_of_a_folder_are_one_study_that_depends_on_content_alone(tmp_path, picture):
    for folder, names in (("one", "ab"), ("two", "yx")):
        (tmp_path / folder).mkdir()
        for name, array in zip(names, (picture, picture[::-1]), strict=True):
            Image.fromarray(array).save(tmp_path / folder / f"{name}.png")
    (one,), (two,) = read_studies(tmp_path / "one"), read_studies(tmp_path / "two")
    assert len(one.series) == 2
    assert one.study_uid == two.study_uid
    assert {s.series_uid for s in one.series} == {s.series_uid for s in two.series}
    assert all(s.modality is None and s.view is None and s.source_format == "PNG" for s in one.series)


def test_zip_gives_what_the_folder_gives(write_dicom, picture, tmp_path):
    path = write_dicom("s/x.dcm", picture)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "deep/x.dcm")
    reading = read(tmp_path / "a.zip")
    assert reading.files[0].file == f"{tmp_path / 'a.zip'}!deep/x.dcm"
    np.testing.assert_array_equal(display(tmp_path / "a.zip"), display(path))


def test_archives_are_limited(write_dicom, picture, tmp_path):
    good = write_dicom("s/x.dcm", picture).read_bytes()
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x.dcm", good)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../up.dcm", good)
        archive.writestr("/abs.dcm", good)
        archive.writestr("C:\\drive.dcm", good)
        archive.writestr(link, "/etc/passwd")
        archive.writestr("inner.zip", inner.getvalue())
        archive.writestr("bomb.dcm", bytes(8 << 20))
        archive.writestr("good.dcm", good)
    found = {file.file.split("!")[1]: file for file in read(tmp_path / "a.zip").files}
    assert found.pop("good.dcm").status == "ok"
    assert {file.status for file in found.values()} == {"refused"}
    assert "100 unpacked bytes" in found["bomb.dcm"].reason
    assert "inside an archive is not opened" in found["inner.zip"].reason
    assert "link" in found["link"].reason


def zipped(path: Path, **contents: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name.startswith("stored") else None)
    return path


def test_members_are_opened_where_they_stand_by_many_threads(write_dicom, picture, tmp_path, monkeypatch):
    pictures = [np.roll(picture, number) for number in range(40)]
    contents = {
        f"{'stored' if number % 2 else 'packed'}{number}": write_dicom("x.dcm", array).read_bytes()
        for number, array in enumerate(pictures)
    }
    archive = b"a program that unpacks itself" + zipped(tmp_path / "a.zip", **contents).read_bytes()
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + archive)
    loads = {file.sop_instance_uid: None for file in read(tmp_path / "a.zip").files}
    for study in read(tmp_path / "a.zip").studies:
        loads |= {i.sop_instance_uid: i.load for series in study.series for i in series.instances}
    monkeypatch.setattr(zipfile, "ZipFile", None)  # the directory of the archive is not read again
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda load: load()[0], loads.values()))
    for one, array in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(one, array)


def test_members_that_overlap_are_refused(write_dicom, picture, tmp_path):
    """One packed stream under many names would unpack to many times what the archive can hold."""
    good = write_dicom("s/x.dcm", picture).read_bytes()
    path = zipped(tmp_path / "a.zip", one=good, two=good, six=good)
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x03\x04", 4)
    entry = content.index(b"PK\x01\x02", directory + 4)
    overlapping = content[: entry + 42] + bytes(4) + content[entry + 46 :]
    assert int.from_bytes(content[entry + 42 : entry + 46], "little") == second
    path.write_bytes(overlapping)
    found = {name.split("!")[1]: outcome for name, outcome in outcomes(path).items()}
    assert found["six"][0] == "ok"
    assert found["one"] == found["two"] == ("refused", found["one"][1])
    assert "overlaps the next" in found["one"][1]


def test_a_member_that_claims_more_than_the_archive_holds_is_refused(tmp_path):
    """By what it claims to be packed in, a bomb would be none."""
    path = zipped(tmp_path / "a.zip", bomb=bytes(8 << 20))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 20
    content[at : at + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    (outcome,) = outcomes(path).values()
    assert outcome[0] == "refused"
    assert "overlaps the next or the directory" in outcome[1]


def test_a_member_is_limited_by_what_memory_holds(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", stored=bytes(3000), packed=b"text")
    monkeypatch.setattr(sources, "MAX_MEMBER", 2000)
    found = {name.split("!")[1]: reason for name, (_, reason) in outcomes(path).items()}
    assert "a member of at most" in found["stored"]
    assert "found text" in found["packed"]


def test_an_archive_without_members_is_refused(tmp_path):
    for names in ((), ("one/", "one/two/")):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        assert outcomes(tmp_path / "a.zip") == {
            "a.zip": ("refused", "expected an archive of images, found an empty one")
        }


@pytest.mark.parametrize(
    ("magic", "kind"),
    [(b"\x28\xb5\x2f\xfd", "zstd"), (b"MSCF", "cab"), (b"\x04\x22\x4d\x18", "lz4"), (b"\x1f\x9d", "compress")],
)
def test_archives_of_other_kinds_are_named(tmp_path, magic, kind):
    (tmp_path / "x").write_bytes(magic + bytes(100))
    assert outcomes(tmp_path) == {
        "x": ("refused", f"expected DICOM, NIfTI, PNG, JPEG or zip, found an archive of another kind ({kind})")
    }


def test_folders_may_be_nested_deeper_than_calls(write_dicom, picture, tmp_path):
    here, good = os.getcwd(), write_dicom("x.dcm", picture)
    os.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    good.rename("deep.dcm")
    os.chdir(here)
    found = outcomes(tmp_path)
    os.chdir(tmp_path / "/".join("d" * 1500))
    os.remove("deep.dcm")
    for _ in range(1500):  # what removes the folders of tests calls itself for each
        os.chdir("..")
        os.rmdir("d")
    os.chdir(here)
    assert found == {"deep.dcm": ("ok", None)}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="who may enter every folder is not refused")
def test_a_folder_that_may_not_be_entered_is_one_line(write_dicom, picture, tmp_path):
    write_dicom("good.dcm", picture)
    for mode in (0o000, 0o400, 0o100):
        write_dicom(f"{mode}/x.dcm", picture).parent.chmod(mode)
    try:
        found = read(tmp_path).files
    finally:
        for mode in (0o000, 0o400, 0o100):
            (tmp_path / str(mode)).chmod(0o700)
    assert sorted(file.status for file in found) == ["ok", "refused", "refused", "refused"]
    assert all("ermission denied" in file.reason for file in found if file.status == "refused")


def test_an_entry_that_cannot_be_looked_at_is_one_line(write_dicom, picture, tmp_path, monkeypatch):
    """As in a folder that may be listed but not entered, whoever runs this."""
    write_dicom("s/a.dcm", picture)

    class Closed:
        name, path = "b", str(tmp_path / "s/b")

        def is_symlink(self):
            raise PermissionError(13, "Permission denied")

    real = sources._entries
    monkeypatch.setattr(sources, "_entries", lambda folder: iter([Closed(), *real(folder)]))
    found = outcomes(tmp_path / "s")
    assert found["a.dcm"][0] == "ok"
    assert found["b"] == ("refused", "expected a readable file or folder, found: Permission denied")


@pytest.mark.parametrize(
    ("path", "found"), [("y" * 300, "name too long"), ("y/" * 3000, "name too long"), ("\0", "nothing")]
)
def test_paths_that_no_system_has_are_one_line(tmp_path, path, found):
    with pytest.raises(ReadError, match=rf"expected a folder, a zip or a file; found .*{found}"):
        read(tmp_path / path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and cannot be read")
def test_a_file_that_cannot_be_read_is_one_line():
    (file,) = read("/proc/self/mem").files
    assert (file.status, file.reason) == ("refused", "expected a readable file, found: Input/output error")


@pytest.mark.parametrize("at", [3, 200, -200])
def test_a_member_that_is_damaged_later_names_itself(write_dicom, picture, tmp_path, at):
    path = zipped(tmp_path / "a.zip", packed=write_dicom("s/x.dcm", picture).read_bytes())
    (study,) = read_studies(path)
    content = bytearray(path.read_bytes())
    content[at if at > 0 else content.index(b"PK\x01\x02") + at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ReadError, match="zip!packed: expected a complete member of a zip; found damage"):
        study.series[0].instances[0].load()


@pytest.mark.parametrize("size", [1 << 20, 2 << 20, (1 << 20) + 1])
def test_members_of_whole_megabytes(tmp_path, size):
    content = np.random.default_rng(1).integers(0, 4, size, np.uint8).tobytes()
    path = zipped(tmp_path / "a.zip", packed=content)
    assert [stream.read() == content for _, stream in walk(path)] == [True]


def test_what_is_no_image_is_refused_and_only_other_dicom_is_ignored(write_dicom, picture, tmp_path):
    write_dicom("s/good.dcm", picture)
    (tmp_path / "s/note.dcm").write_text("a text file with the wrong name")
    (tmp_path / "s/report.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "s/empty").touch()
    path = write_dicom("s/sr.dcm", picture, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    import pydicom

    dataset = pydicom.dcmread(path)
    for key in ("PixelData", "Rows", "Columns"):
        delattr(dataset, key)
    dataset.save_as(path)
    found = outcomes(tmp_path / "s")
    assert found.pop("good.dcm") == ("ok", None)
    assert found.pop("sr.dcm") == ("ignored", "Basic Text SR Storage holds no image")
    assert {status for status, _ in found.values()} == {"refused"}
    assert "text" in found["note.dcm"][1]
    assert "PDF" in found["report.pdf"][1]
    assert "empty" in found["empty"][1]


def test_errors_are_one_line(tmp_path, write_dicom, picture):
    with pytest.raises(ReadError, match="nothing there"):
        read(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="an empty folder"):
        read_studies(tmp_path / "empty")
    (tmp_path / "note.dcm").write_text("hello")
    with pytest.raises(ReadError, match=r"note.dcm: expected DICOM, NIfTI, PNG or JPEG images; found .*text") as caught:
        read_studies(tmp_path / "note.dcm")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [200, 500, 900, -1, -300])
def test_truncated_dicom_is_refused(write_dicom, picture, cut):
    path = write_dicom("x.dcm", picture)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ReadError):
        read_studies(path)


def test_a_file_that_is_damaged_after_reading_names_itself(write_dicom, picture):
    path = write_dicom("x.dcm", picture)
    (study,) = read_studies(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ReadError, match=r"x\.dcm: expected pixels"):
        study.series[0].instances[0].load()
    path.unlink()
    with pytest.raises(ReadError, match=r"x\.dcm"):
        study.series[0].instances[0].load()


def test_any_cut_or_flip_raises_nothing_else(write_dicom, picture):
    path = write_dicom("x.dcm", picture)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(128, len(content) - picture.nbytes, rng.integers(1, 12)):
            damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged[: rng.integers(100, len(content) + 1)])
        for study in read(path).studies:
            for series in study.series:
                try:
                    Volume.from_series(series)
                except ReadError:
                    continue


def lut(descriptor: list[int], data: bytes | None) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.add_new("LUTData", "OW", data)
    return item


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"NumberOfFrames": 2_000_000_000}, "at most 2 GB"),
        ({"PhotometricInterpretation": "PURPLE"}, "Photometric"),
        ({"BitsStored": 20}, "Bits Stored"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "palette"),
        ({"Rows": 0}, "Rows and Columns"),
        ({"PixelRepresentation": None}, "a Pixel Representation of 0 (unsigned) or 1 (signed), found None"),
        ({"PixelRepresentation": 2}, "a Pixel Representation of 0 (unsigned) or 1 (signed), found 2"),
        ({"ModalityLUTSequence": [Dataset()]}, "a LUT Descriptor of 3 numbers"),
        ({"VOILUTSequence": [lut([4, 0], bytes(4))]}, "a LUT Descriptor of 3 numbers"),
        ({"VOILUTSequence": [lut([4, 0, 0], bytes(4))]}, "the last 1 to 16, in VOILUTSequence"),
        ({"ModalityLUTSequence": [lut([4, 0, 60000], bytes(4))]}, "the last 1 to 16, in ModalityLUTSequence"),
        ({"ModalityLUTSequence": [lut([4, 0, 8], bytes(2))]}, "4 entries in ModalityLUTSequence, found 2"),
        ({"ModalityLUTSequence": [lut([4, 0, 8], None)]}, "4 entries in ModalityLUTSequence, found 0"),
        ({"ExtendedOffsetTable": bytes(8)}, "1 extended offsets, and as many lengths"),
    ],
)
def test_headers_that_cannot_be_right_are_refused_before_decoding(write_dicom, picture, attributes, reason):
    status, found = outcomes(write_dicom("x.dcm", picture, **attributes))["x.dcm"]
    assert status == "refused"
    assert reason in found


def test_codes_in_small_letters(write_dicom, picture):
    grey = write_dicom("x.dcm", picture, PhotometricInterpretation="monochrome2", PresentationLUTShape="inverse")
    np.testing.assert_allclose(display(grey)[0], 1 - picture / 255, atol=1e-6)
    colour = write_dicom("y.dcm", np.stack([picture] * 3, axis=-1), PhotometricInterpretation="rgb")
    np.testing.assert_allclose(display(colour)[0], picture / 255, atol=1e-6)


@pytest.mark.parametrize("representation", [1, None])
def test_colours_have_no_sign(write_dicom, picture, representation):
    colours = np.stack([picture, picture, np.zeros_like(picture)], axis=-1)
    path = write_dicom("x.dcm", colours, PixelRepresentation=representation)
    np.testing.assert_array_equal(read_studies(path)[0].series[0].instances[0].load()[0], colours)


def test_a_deflated_bomb_is_refused(write_dicom):
    path = write_dicom("x.dcm", np.zeros((4096, 2048), np.uint16), DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 100_000
    status, reason = outcomes(path)["x.dcm"]
    assert status == "refused"
    assert "200:1" in reason


def test_palette_indices_beyond_8_bits(write_dicom):
    index = np.arange(600, dtype=np.uint16).reshape(20, 30)
    tables = {}
    for number, colour in enumerate(("Red", "Green", "Blue")):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [512, 0, 16]
        entries = (np.arange(512) * (number + 1)).astype("<u2")
        tables[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    path = write_dicom("x.dcm", index, PhotometricInterpretation="PALETTE COLOR", **tables)
    stored = read_studies(path)[0].series[0].instances[0].load()
    expected = np.minimum(index, 511)[np.newaxis, ..., np.newaxis].astype(int) * [1, 2, 3]
    np.testing.assert_array_equal(stored, expected)


def test_rle_is_decoded_without_loss(write_dicom, picture):
    import pydicom

    path = write_dicom("x.dcm", picture)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_studies(path)[0].series[0].instances[0].load()[0], picture)


def test_a_second_file_of_the_same_instance_is_refused(write_dicom, picture, tmp_path):
    write_dicom("s/a.dcm", picture, SOPInstanceUID="1.2.3.9")
    write_dicom("s/b.dcm", picture, SOPInstanceUID="1.2.3.9")
    found = outcomes(tmp_path / "s")
    assert found["a.dcm"][0] == "ok"
    assert found["b.dcm"][0] == "refused"


def test_two_patients_in_one_study_are_refused(write_dicom, picture, tmp_path):
    for name, patient in (("a", "P1"), ("b", "P2"), ("c", "P2")):
        write_dicom(f"s/{name}.dcm", picture, PatientID=patient)
    found = outcomes(tmp_path / "s")
    assert {status for status, _ in found.values()} == {"refused"}
    assert "2 different Patient IDs" in found["a.dcm"][1]
    assert "P1" not in str(found)


@pytest.mark.parametrize(
    ("modality", "patients", "changes", "read_as_one"),
    [
        ("DX", "abc", {}, False),  # projections of three people: no frame of reference makes them one patient's
        ("CT", "abc", {}, True),
        ("CT", "aab", {}, False),
        ("CT", "abcab", {}, False),
        ("CT", "ab", {}, False),
        ("CT", "abc", {"FrameOfReferenceUID": ["1.2.3.9", "1.2.3.9", "1.2.3.8"]}, False),
        ("CT", "abc", {"FrameOfReferenceUID": ["", "", ""]}, False),
        ("CT", "abc", {"SeriesInstanceUID": ["1.2.3.4", "1.2.3.4", "1.2.3.5"]}, False),
        ("CT", "abc", {"PatientSex": ["F", "F", "M"]}, False),
        ("CT", "abc", {"PatientAge": ["040Y", "040Y", "041Y"]}, False),
    ],
)  # fmt: skip
def test_only_slices_of_one_acquisition_may_each_state_another_patient(
    write_dicom, picture, tmp_path, modality, patients, changes, read_as_one
):
    for place, patient in enumerate(patients):
        attributes = {"FrameOfReferenceUID": "1.2.3.9"} | {key: values[place] for key, values in changes.items()}
        write_dicom(f"s/{place}.dcm", picture, Modality=modality, PatientID=patient, **attributes)
    path = tmp_path / "s/0.dcm"
    path.write_bytes(b"MZ" + path.read_bytes()[2:])
    reading = read(tmp_path / "s")
    assert "Windows program" in reading.files[0].reason
    if read_as_one:
        (study,) = reading.studies
        assert study.patient.patient_id is None
        assert len(study.series[0].instances) == len(patients)
        assert all("whose ID was replaced in each file" in file.reason for file in reading.files)
    else:
        assert reading.studies == ()
        assert all("different Patient IDs" in file.reason for file in reading.files)


def test_one_instance_of_two_patients_is_refused(write_dicom, picture, tmp_path):
    for name, study in (("a", "1.2.3"), ("b", "1.2.3"), ("c", "1.2.4")):
        uids = {"SOPInstanceUID": "1.2.3.9", "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.4"}
        write_dicom(f"same/{name}.dcm", picture, PatientID=name if name != "c" else "a", **uids)
        write_dicom(f"other/{name}.dcm", picture, PatientID="a" if study == "1.2.3" else "c", **uids)
    for folder in ("same", "other"):
        reading = read(tmp_path / folder)
        assert reading.studies == ()
        assert all("2 different Patient IDs" in file.reason for file in reading.files)


@pytest.mark.parametrize(
    ("ages", "sexes", "age", "sex"),
    [
        (("040Y", ""), ("", "F"), 40, Sex.FEMALE),
        (("041Y", "040Y"), ("F", "F"), 40, Sex.FEMALE),
        (("042Y", "040Y"), ("F", "M"), 40, None),
        (("045Y", "003Y"), ("F", "F"), 3, Sex.FEMALE),
        (("", ""), ("", ""), None, None),
    ],
)
def test_sex_and_age_count_where_the_files_of_a_study_agree(write_dicom, picture, tmp_path, ages, sexes, age, sex):
    for name, stated, kind in zip("ab", ages, sexes, strict=True):
        write_dicom(f"s/{name}.dcm", picture, PatientAge=stated, PatientSex=kind)
    (study,) = read_studies(tmp_path / "s")
    assert (study.patient.age_years, study.patient.sex) == (age, sex)


def test_a_reason_names_no_other_file(write_dicom, picture, tmp_path):
    for name in ("DOE^JANE1", "DOE^JANE2"):
        write_dicom(f"s/{name}.dcm", picture, SOPInstanceUID="1.2.3.9")
        Image.fromarray(picture).save(tmp_path / f"s/{name}.png")
    reasons = [file.reason for file in read(tmp_path / "s").files if file.status == "refused"]
    assert len(reasons) == 2
    assert "JANE" not in " ".join(reasons)


def test_headers_round_trip_and_pixels_are_attached_again(write_dicom, picture):
    path = write_dicom("x.dcm", picture)
    (study,) = read_studies(path)
    bare = Study.from_json(study.to_json())
    assert bare == study
    np.testing.assert_array_equal(attach(bare, path).series[0].instances[0].load()[0], picture)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert outcomes(tmp_path)["pipe"][0] == "refused"


def test_a_turned_photograph_is_refused(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "x.jpg", exif=exif)
    with pytest.raises(ReadError, match="EXIF orientation 6"):
        read_image(tmp_path / "x.jpg")


def test_a_turn_that_stands_behind_the_pixels_is_refused_too(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 2
    path = tmp_path / "x.png"
    Image.fromarray(picture).save(path, exif=exif)
    content = path.read_bytes()
    at = content.index(b"eXIf") - 4
    size = 12 + int.from_bytes(content[at : at + 4], "big")
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:at] + content[at + size : end] + content[at : at + size] + content[end:])
    (study,) = read_studies(path)
    with pytest.raises(ReadError, match="EXIF orientation 2"):
        study.series[0].instances[0].load()


def test_a_colour_that_stands_for_transparency_is_black(tmp_path):
    grey = np.array([[255, 10], [20, 255]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "x.png", transparency=255)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png").load()[0], [[0, 10], [20, 0]])


def test_damaged_exif_is_one_line(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "x.png", exif=b"neither byte order")
    status, reason = outcomes(tmp_path)["x.png"]
    assert status == "refused"
    assert reason == "expected a complete PNG or JPEG, found damaged EXIF data"


def test_a_large_picture_prints_nothing(tmp_path):
    Image.fromarray(np.zeros((10_000, 9_500), np.uint8)).save(tmp_path / "x.png")
    code = "import sys; from mmfm.io import read; print(read(sys.argv[1]).files[0].status)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.png"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_truncated_picture(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:-100])
    with pytest.raises(ReadError, match=r"x\.png: expected a complete PNG"):
        read_image(tmp_path / "x.png", uid="1").load()


def test_a_preamble_that_is_a_program_is_told(write_dicom, picture):
    path = write_dicom("x.dcm", picture)
    path.write_bytes(b"MZ" + path.read_bytes()[2:])
    status, reason = outcomes(path)["x.dcm"]
    assert status == "ok"
    assert "Windows program" in reason
    assert read(path).files[0].preamble_suspicious


@pytest.mark.parametrize(
    "preamble",
    [b"ZM", b"\n#!/bin/sh", b"\xef\xbb\xbf<html>", b"@echo off\r\n", b"{\\rtf1", b"Rar!\x1a\x07", b"\x1f\x8b\x08",
     b"GIF89a", b"\x89PNG\r\n", b"\0asm", b"L\0\0\0\x01\x14\x02\0", b"\0\0\0 ftyp", b"javascript:",
     b"SQLite format 3\0"],
)  # fmt: skip
def test_a_preamble_that_is_neither_empty_nor_tiff_is_told(write_dicom, picture, preamble):
    path = write_dicom("x.dcm", picture)
    path.write_bytes(preamble.ljust(128, b"\0") + path.read_bytes()[128:])
    assert read(path).files[0].preamble_suspicious


@pytest.mark.parametrize(
    "preamble", [b"", b"II*\0\x08", b"MM\0*\0\0\0\x08", b"II+\0", bytes(17) + b"\x01", b"R_1F7AAEBA35\0\0WFM02\0NAME-2"]
)
def test_a_harmless_preamble_is_not(write_dicom, picture, preamble):
    path = write_dicom("x.dcm", picture)
    path.write_bytes(preamble.ljust(128, b"\0") + path.read_bytes()[128:])
    assert outcomes(path)["x.dcm"] == ("ok", None)
    bare = path.read_bytes()[132:]
    path.write_bytes(bare)
    assert not read(path).files[0].preamble_suspicious


def test_slices_that_must_not_be_mixed_are_series_of_their_own(write_dicom, picture, tmp_path):
    axial, coronal = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]
    for z in range(3):
        place = {"ImagePositionPatient": [0, 0, z], "InstanceNumber": z, "PixelSpacing": [1, 1]}
        write_dicom(f"a{z}.dcm", picture, Modality="MR", ImageOrientationPatient=axial, EchoTime=10, **place)
        write_dicom(f"b{z}.dcm", picture, Modality="MR", ImageOrientationPatient=axial, EchoTime=80, **place)
    write_dicom(
        "c.dcm", picture, Modality="MR", ImageOrientationPatient=coronal, ImagePositionPatient=[0, 0, 0],
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], PixelSpacing=[1, 1],
    )  # fmt: skip
    found = read(tmp_path)
    assert all("one of 3 volumes" in file.reason for file in found.files)
    by_size = {len(s.instances): s for s in found.studies[0].series}
    assert sorted(len(s.instances) for s in found.studies[0].series) == [1, 3, 3]
    assert all(Volume.from_series(s)[1].slices_used == len(s.instances) for s in found.studies[0].series)
    assert "a localizer, made to plan other images" in Volume.from_series(by_size[1])[1].warnings


@pytest.fixture
def write_slices(write_dicom, picture):
    """Returns write(*slices): MR slices in one series, each the attributes that it has besides its position z."""

    def write(*slices):
        for number, attributes in enumerate(slices):
            z = attributes.pop("z")
            stated = {"Modality": "MR", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
            place = {"ImagePositionPatient": [0, 0, z], "InstanceNumber": number}
            path = write_dicom(f"series/{number:03d}.dcm", picture, **stated | place | attributes)
        return [len(series.instances) for series in read(path.parent).studies[0].series]

    return write


@pytest.mark.parametrize(
    ("slices", "sizes"),
    [
        ([{"z": z, "AcquisitionNumber": a} for a in (1, 2) for z in range(4)], [4, 4]),
        ([{"z": z, "EchoTime": e} for z in range(4) for e in (10, 80)], [4, 4]),
        ([{"z": z, "DiffusionBValue": b} for b in (0.0, 500.0, 1000.0) for z in range(3)], [3, 3, 3]),
        ([{"z": z + a / 2, "AcquisitionNumber": a} for a in (0, 1) for z in range(5)], [5, 5]),
        ([{"z": z, "FrameOfReferenceUID": f"1.2.{z // 3}"} for z in range(6)], [3, 3]),
        ([{"z": z, "InversionTime": t} for t in (100, 200) for z in range(3)], [3, 3]),
        ([{"z": z, "FrameReferenceTime": t, "Modality": "PT"} for t in (0, 1000) for z in range(3)], [3, 3]),
        ([{"z": z, "AcquisitionTime": t} for t in ("120000", "120001.5") for z in range(3)], [3, 3]),
        ([{"z": z, "ConvolutionKernel": k, "Modality": "CT"} for k in ("B30f", "B70f") for z in range(3)], [3, 3]),
        ([{"z": z, "ImageType": ["ORIGINAL", "PRIMARY", k]} for k in "MP" for z in range(3)], [3, 3]),
        ([{"z": z, "Modality": "CT" if z < 4 else "MR"} for z in range(6)], [4, 2]),
        ([{"z": z, "Modality": "CT"} | ({"RescaleSlope": 1, "RescaleIntercept": -5} if z else {}) for z in range(4)],
         [1, 3]),
        ([{"z": z, "FrameOfReferenceUID": uid} for z, uid in enumerate(("1.2", "1.3", "", "1.2"))], [2, 1, 1]),
    ],
    ids=["two passes", "two echoes", "three b-values", "interleaved acquisitions", "two frames of reference",
         "two inversion times", "two times of a dynamic PET", "two acquisition times", "two kernels",
         "magnitude and phase", "two modalities", "one without rescale", "of which frame of reference is not known"],
)  # fmt: skip
def test_what_must_not_be_mixed_is_split(write_slices, slices, sizes):
    assert write_slices(*slices) == sizes


@pytest.mark.parametrize(
    "slices",
    [
        [{"z": z, "ImageOrientationPatient": [1, 0, 0.125 + (-1) ** z * 1e-6, 0, 1, 0]} for z in range(6)],
        [{"z": z, "PixelSpacing": [0.70315 + (-1) ** z * 1e-7, 0.70315]} for z in range(6)],
        [{"z": z, "EchoTime": 10 + z / 1000} for z in range(6)],
        [{"z": z, "TemporalPositionIdentifier": z} for z in range(6)],
        [{"z": z, "AcquisitionNumber": z} for z in (0, 1, 2, 3, 3)],
        [{"z": z, "AcquisitionNumber": z // 3} for z in range(6)],
        [{"z": z, "TriggerTime": 100 * phase + z + phase / 7} for z in range(4) for phase in range(3)],
        [{"z": z, "FrameOfReferenceUID": "" if z == 2 else "1.2.3"} for z in range(5)],
        [{"z": z, "AcquisitionTime": f"1200{z:02d}", "ImageType": ["ORIGINAL", "PRIMARY", f"X{z}"]} for z in range(5)],
    ],
    ids=[
        "directions",
        "spacing",
        "echo drifts",
        "times",
        "one slice twice",
        "blocks",
        "measured trigger times",
        "one without a frame of reference",
        "measured times",
    ],
)
def test_what_belongs_together_is_not_split(write_slices, slices):
    assert write_slices(*slices) == [len(slices)]


def dicomdir(path: Path, *names: list[str]) -> Path:
    directory = Dataset()
    directory.DirectoryRecordSequence = [Dataset() for _ in names]
    for record, name in zip(directory.DirectoryRecordSequence, names, strict=True):
        record.ReferencedFileID = name
    directory.SOPClassUID, directory.SOPInstanceUID = MediaStorageDirectoryStorage, "1.2.3"
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir"])
def test_a_dicomdir_that_lists_itself_is_followed_once(write_dicom, picture, tmp_path, name):
    write_dicom("x.dcm", picture)
    found = read(dicomdir(tmp_path / "DICOMDIR", [name], ["x.dcm"])).files
    assert [file.status for file in found] == ["ignored", "ignored", "ok"]


def test_a_dicomdir_stands_for_the_files_that_it_lists(write_dicom, picture, tmp_path):
    from pydicom.fileset import FileSet

    media = FileSet()
    stated = {"StudyDate": "20260101", "StudyTime": "12", "StudyID": "1", "SeriesNumber": 1, "Modality": "CT"}
    for z in range(3):
        place = {"ImagePositionPatient": [0, 0, z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "InstanceNumber": z}
        media.add(write_dicom(f"in/{z}.dcm", picture, **stated, **place))
    media.write(tmp_path / "media")
    (tmp_path / "media" / "stray.dcm").write_bytes(write_dicom("stray.dcm", picture).read_bytes())
    found = read(tmp_path / "media" / "DICOMDIR")
    assert [file.status for file in found.files] == ["ignored", "ok", "ok", "ok"]
    assert len(found.studies[0].series[0].instances) == 3


@pytest.mark.parametrize(
    "name", [["..", "x.dcm"], ["C:", "x.dcm"], ["\\\\host", "x"], ["absent"], ["link", "x.dcm"], ["é" * 150]]
)
def test_a_dicomdir_opens_nothing_outside_its_folder(write_dicom, picture, tmp_path, name):
    write_dicom("x.dcm", picture)
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "link").symlink_to(tmp_path)
    path = dicomdir(tmp_path / "media" / "DICOMDIR", name)
    assert [file.status for file in read(path).files][1:] == ["refused"]
