"""NIfTI files made here, against nibabel's own affine and values, and SimpleITK's."""

import gzip
import struct
import zipfile
from contextlib import suppress

import nibabel
import numpy as np
import pytest
import SimpleITK

from mmfm.data.inspection import inspect, render
from mmfm.errors import ConfigError, ReadError, ScopeError
from mmfm.imaging import Volume, check_for_model, choose_series
from mmfm.imaging.transforms import reorient
from mmfm.io import attach, deidentify, read, read_studies, with_modality
from mmfm.study import Study

SHAPE = (5, 6, 7)
"""(i, j, k) of nibabel: columns, rows, slices."""


def rotation(*degrees):
    x, y, z = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def ras(matrix, origin=(-30.0, 12.5, 7.0)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, origin
    return affine


AFFINES = {
    "RAS": ras(np.diag([1.0, 1.5, 2.0])),
    "LPI": ras(np.diag([-1.0, -1.5, -2.0])),
    "LAS": ras(np.diag([-1.0, 1.5, 2.0])),
    "PIR, sagittal slices": ras(np.array([[0, 0, 1.2], [-1, 0, 0], [0, -0.9, 0.0]])),
    "oblique": ras(rotation(12, -20, 33) @ np.diag([0.8, 0.9, 3.0])),
    "oblique, left-handed": ras(rotation(-15, 8, 100) @ np.diag([-0.8, 0.9, 3.0])),
}
SHEARED = ras(np.array([[1.0, 0.1, 0.2], [0, 1.1, 0.3], [0, 0, 2.0]]))


def values(dtype=np.int16):
    numbers = np.random.default_rng(3).integers(0, 100, SHAPE) - (50 if np.dtype(dtype).kind != "u" else 0)
    return numbers.astype(dtype)


def image(affine, *, sform=1, qform=1, dtype=np.int16, kind=nibabel.Nifti1Image, endian="<", array=None):
    array = values(dtype) if array is None else array
    header = kind.header_class(endianness=endian)
    header.set_data_dtype(np.dtype(array.dtype).newbyteorder(endian))
    made = kind(array, affine, header)
    made.header.set_xyzt_units("mm")
    made.set_sform(affine, sform)
    made.set_qform(affine, qform)
    return made


def saved(path, made):
    nibabel.save(made, path)
    return path


def volume_of(path, modality="MR"):
    (study,) = read_studies(path)
    (series,) = with_modality(study, modality).series
    return *Volume.from_series(series), series


def expected_lps(affine):
    return (np.diag([-1, -1, 1, 1]) @ affine)[:, [2, 1, 0, 3]]


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_places_are_those_of_nibabel_and_simpleitk(tmp_path, name, ending):
    path = saved(tmp_path / f"a{ending}", image(AFFINES[name]))
    volume, receipt, _ = volume_of(path)
    theirs = nibabel.load(path)
    np.testing.assert_allclose(volume.affine, expected_lps(theirs.affine), atol=1e-5)
    np.testing.assert_array_equal(volume.array, np.asarray(theirs.dataobj).T)
    sitk = SimpleITK.ReadImage(str(path))
    np.testing.assert_array_equal(volume.array, SimpleITK.GetArrayFromImage(sitk))
    for index in [(0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4), (3, 2, 1)]:
        point = sitk.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]])
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], point, atol=1e-3)
    np.testing.assert_allclose(receipt.spacing, sitk.GetSpacing()[::-1], rtol=1e-5)
    assert (
        "7 slices in stored order; place, orientation and spacing from the sform (scanner coordinates)" in receipt.steps
    )
    assert receipt.source_format == "NIFTI" and receipt.quantity == "stored"


def test_sheared_axes_keep_their_affine(tmp_path):
    made = image(SHEARED, qform=0)
    volume, receipt, _ = volume_of(saved(tmp_path / "a.nii", made))
    np.testing.assert_allclose(volume.affine, expected_lps(SHEARED), atol=1e-5)
    assert any("sheared by" in warning for warning in receipt.warnings)
    assert receipt.spacing[0] == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["RAS", "LPI", "LAS", "PIR, sagittal slices"])
def test_one_patient_in_every_orientation_is_one_volume(tmp_path, name):
    """The same places, stored along other axes: turned to SPL, the values are the same."""
    whole = np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32)
    plain = nibabel.Nifti1Image(whole, np.diag([1.0, 1, 1, 1]))
    codes = "PIR" if name.startswith("PIR") else name
    turned = plain.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.io_orientation(plain.affine), nibabel.orientations.axcodes2ornt(codes)
        )
    )
    assert "".join(nibabel.aff2axcodes(turned.affine)) == codes
    expected = reorient(volume_of(saved(tmp_path / "a.nii", plain))[0], "SPL")[0]
    found = reorient(volume_of(saved(tmp_path / "b.nii.gz", turned))[0], "SPL")[0]
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)


def test_the_qform_is_used_where_no_sform_is_stated(tmp_path):
    made = image(AFFINES["oblique"], sform=0, qform=1)
    volume, receipt, _ = volume_of(saved(tmp_path / "a.nii", made))
    np.testing.assert_allclose(volume.affine, expected_lps(AFFINES["oblique"]), atol=1e-4)
    assert any("from the qform (scanner coordinates)" in step for step in receipt.steps)


def test_without_both_there_is_no_place(tmp_path):
    made = image(AFFINES["RAS"], sform=0, qform=0)
    volume, receipt, _ = volume_of(saved(tmp_path / "a.nii", made))
    assert volume.affine is None and receipt.orientation == "not stated"
    assert "neither sform nor qform is stated: no place in the patient, left and right not known" in receipt.warnings


def test_what_the_forms_say_beside_a_place_is_told(tmp_path):
    made = image(AFFINES["RAS"], sform=4)
    turn = np.deg2rad(20)
    around_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    turned = AFFINES["RAS"].copy()
    turned[:3, :3] = around_z @ turned[:3, :3]
    made.set_qform(turned, 1)
    _, receipt, _ = volume_of(saved(tmp_path / "a.nii", made))
    assert "sform and qform state different places: the sform is used" in receipt.warnings
    assert "the sform states a place in MNI space, not in the patient" in receipt.warnings
    made = image(AFFINES["RAS"], qform=0)
    made.header["pixdim"][1] *= 2
    _, receipt, _ = volume_of(saved(tmp_path / "a.nii", made))
    assert "pixdim and sform state different spacings: that of the sform is used" in receipt.warnings


def test_forms_that_contradict_each_other_on_left_and_right_are_no_place(tmp_path):
    made = image(AFFINES["RAS"])
    made.set_qform(AFFINES["LAS"], 1)
    volume, receipt, _ = volume_of(saved(tmp_path / "a.nii", made))
    assert volume.affine is None
    assert "sform and qform contradict each other on left and right: no place in the patient" in receipt.warnings


def test_metres_are_millimetres(tmp_path):
    made = image(ras(np.diag([0.001, 0.0015, 0.002]), (0.01, 0, 0)))
    made.header.set_xyzt_units("meter")
    volume, _, _ = volume_of(saved(tmp_path / "a.nii", made))
    np.testing.assert_allclose(volume.affine, expected_lps(ras(np.diag([1, 1.5, 2]), (10, 0, 0))), atol=1e-4)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_types_and_byte_orders(tmp_path, dtype, endian, kind):
    path = saved(tmp_path / "a.nii", image(AFFINES["RAS"], dtype=dtype, endian=endian, kind=kind))
    assert nibabel.load(path).header.endianness == endian
    volume, _, _ = volume_of(path)
    np.testing.assert_array_equal(volume.array, values(dtype).T)
    np.testing.assert_allclose(volume.affine, expected_lps(AFFINES["RAS"]), atol=1e-5)


def test_scale_is_applied_once(tmp_path):
    made = image(AFFINES["RAS"])
    made.header.set_slope_inter(2.5, -1000)
    path = tmp_path / "a.nii.gz"
    made.to_filename(path)
    with gzip.open(path) as stream:  # nibabel divides what it writes by the slope
        content = bytearray(stream.read())
    stored = np.frombuffer(content, "<i2", offset=352)
    struct.pack_into("<ff", content, 112, 2.5, -1000.0)
    path.write_bytes(gzip.compress(bytes(content)))
    volume, receipt, _ = volume_of(path, "CT")
    np.testing.assert_allclose(volume.array, nibabel.load(path).get_fdata().T)
    np.testing.assert_allclose(volume.array.ravel(), stored * 2.5 - 1000)
    assert "rescaled: x 2.5 + -1000" in receipt.steps
    assert receipt.quantity == "HU" and "NIfTI states no unit: values are taken as HU" in receipt.warnings


def test_modality_is_what_the_user_says(tmp_path):
    path = saved(tmp_path / "sub-1_FLAIR.nii.gz", image(AFFINES["RAS"]))
    (study,) = read_studies(path)
    assert study.series[0].modality is None and study.series[0].description == "sub-1_FLAIR"
    assert Volume.from_series(study.series[0])[1].quantity == "stored"
    assert with_modality(study, "CT").series[0].modality == "CT"
    with pytest.raises(ConfigError, match="expected CT or MR"):
        with_modality(study, "DX")


def test_headers_round_trip_and_values_are_attached_again(tmp_path):
    path = saved(tmp_path / "a.nii.gz", image(AFFINES["oblique"]))
    (study,) = read_studies(path)
    again = attach(Study.from_json(study.to_json()), path)
    assert again == study
    np.testing.assert_array_equal(again.series[0].instances[0].load(), values().T)


def test_files_of_a_folder_are_one_study(tmp_path):
    for name, seed in (("t1", 1), ("t2", 2)):
        array = np.random.default_rng(seed).integers(0, 9, SHAPE).astype(np.int16)
        saved(tmp_path / f"{name}.nii.gz", image(AFFINES["RAS"], array=array))
    reading = read(tmp_path)
    (study,) = reading.studies
    assert sorted(series.description for series in study.series) == ["t1", "t2"]
    assert all((file.status, file.frames) == ("ok", 7) for file in reading.files)


def body(spacing):
    array = np.full((24, 24, 30), -1000, np.int16)
    array[6:18, 6:18, 4:26] = 40
    return image(ras(rotation(4, 5, 6) @ np.diag(spacing)), array=array)


def test_the_ct_of_a_folder_is_chosen_and_checked(tmp_path):
    saved(tmp_path / "thick.nii.gz", body((3.0, 3.0, 5.0)))
    saved(tmp_path / "thin.nii.gz", body((3.0, 3.0, 2.5)))
    (study,) = read_studies(tmp_path)
    with pytest.raises(ScopeError, match=r"no modality, .* mm, 30 slices: left out, no modality stated"):
        choose_series(study, channels=("CT",))
    choice = choose_series(with_modality(study, "CT"), channels=("CT",))
    assert choice.chosen["CT"].description == "thick"  # it covers more of the body
    volume, receipt = Volume.from_series(choice.chosen["CT"])
    assert check_for_model(volume, receipt, modality="CT") == ()
    lost = with_modality(study, "MR").series[0]
    with pytest.raises(ScopeError, match="expected CT; found another modality"):
        check_for_model(*Volume.from_series(lost), modality="CT")


def test_the_sequences_of_a_folder_are_told_by_the_names_of_its_files(tmp_path):
    for number, name in enumerate(("sub-01_T1w", "sub-01_T2w", "sub-01_FLAIR", "sub-01_dwi", "sub-01_T2star")):
        saved(tmp_path / f"{name}.nii.gz", body((3.0, 3.0, 2.0 + number / 8)))
    (study,) = read_studies(tmp_path)
    choice = choose_series(with_modality(study, "MR"), channels=("T1", "T2", "FLAIR", "DWI"))
    names = {channel: one.description for channel, one in choice.chosen.items()}
    assert names == {"T1": "sub-01_T1w", "T2": "sub-01_T2w", "FLAIR": "sub-01_FLAIR", "DWI": "sub-01_dwi"}
    assert "sub" not in " ".join(choice.reasons)


def test_members_of_a_zip(tmp_path):
    plain = saved(tmp_path / "a.nii", image(AFFINES["RAS"]))
    packed = saved(tmp_path / "b.nii.gz", image(AFFINES["RAS"]))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(plain, "t1.nii")
        archive.write(packed, "t2.nii.gz")
    reading = read(tmp_path / "c.zip")
    assert [file.status for file in reading.files] == ["ok", "refused"]
    assert reading.files[1].reason == "an archive (gzip) inside an archive is not opened"
    np.testing.assert_array_equal(reading.studies[0].series[0].instances[0].load(), values().T)


def refused(path, content):
    path.write_bytes(content)
    (file,) = read(path).files
    assert file.status == "refused"
    assert "\n" not in file.reason
    return file.reason


@pytest.mark.parametrize(
    ("offset", "packed", "words"),
    [
        (40, struct.pack("<5h", 4, 5, 6, 7, 3), "one volume, found 3 in one file"),
        (40, struct.pack("<4h", 3, 5, 0, 7), "dimensions of at least 1"),
        (40, struct.pack("<4h", 3, 5, -6, 7), "dimensions of at least 1"),
        (40, struct.pack("<4h", 3, 32767, 32767, 32767), "at most 2 GB"),
        (70, struct.pack("<hh", 32, 64), "complex numbers"),
        (70, struct.pack("<hh", 128, 24), "colour"),
        (70, struct.pack("<hh", 2304, 32), "colour"),
        (70, struct.pack("<hh", 1536, 128), "another"),
        (70, struct.pack("<hh", 77, 16), "a header that can be used"),
        (108, struct.pack("<f", 1e9), "cut short"),
        (108, struct.pack("<f", -5), "values behind the header"),
        (108, struct.pack("<f", float("nan")), "values behind the header"),
        (112, struct.pack("<ff", 1e30, 0), "a slope and intercept"),
        (112, struct.pack("<ff", 1, float("inf")), "a header that can be used"),
        (280, struct.pack("<4f", 0, 0, 0, 0), "axes span a volume"),
        (280, struct.pack("<4f", float("nan"), 0, 0, 0), "axes span a volume"),
        (344, b"ni1\0", "a pair"),
    ],
)
def test_headers_that_cannot_be_used_are_refused(tmp_path, offset, packed, words):
    content = bytearray(saved(tmp_path / "a.nii", image(AFFINES["RAS"])).read_bytes())
    content[offset : offset + len(packed)] = packed
    assert words in refused(tmp_path / "a.nii", bytes(content))


def test_a_quaternion_that_is_none_is_refused(tmp_path):
    content = bytearray(saved(tmp_path / "a.nii", image(AFFINES["RAS"], sform=0)).read_bytes())
    struct.pack_into("<fff", content, 256, 3.0, 3.0, 3.0)
    assert "a qform that is a place" in refused(tmp_path / "a.nii", bytes(content))


def test_what_is_cut_short_is_refused(tmp_path):
    plain = saved(tmp_path / "a.nii", image(AFFINES["RAS"])).read_bytes()
    assert f"{len(plain)} bytes, found {len(plain) - 9} (cut short)" in refused(tmp_path / "a.nii", plain[:-9])
    packed = saved(tmp_path / "b.nii.gz", image(AFFINES["RAS"])).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(packed[:-40])
    with pytest.raises(ReadError, match="complete NIfTI file; found damage or an early end"):
        read_studies(tmp_path / "b.nii.gz")[0].series[0].instances[0].load()
    (tmp_path / "b.nii.gz").write_bytes(packed[:-8] + bytes(8))
    with pytest.raises(ReadError, match="damage"):  # the checksum
        read_studies(tmp_path / "b.nii.gz")[0].series[0].instances[0].load()


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path):
    made = image(AFFINES["RAS"])
    made.header["dim"][1:4], made.header["vox_offset"] = (1024, 1024, 512), 352
    bomb = gzip.compress(made.header.binaryblock + bytes(4) + bytes(8 << 20), 9)
    assert "at most 100 unpacked bytes for each packed one" in refused(tmp_path / "a.nii.gz", bomb)
    # What hides behind a small volume, or before it, is not inflated.
    small = bytearray(saved(tmp_path / "b.nii", image(AFFINES["RAS"])).read_bytes())
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(bytes(small) + bytes(64 << 20), 9))
    np.testing.assert_array_equal(read_studies(tmp_path / "c.nii.gz")[0].series[0].instances[0].load(), values().T)
    struct.pack_into("<f", small, 108, 2.0**30)
    assert "at most 100 unpacked bytes" in refused(tmp_path / "d.nii.gz", gzip.compress(bytes(small), 9))


def test_any_cut_or_flip_raises_nothing_else(tmp_path):
    generator = np.random.default_rng(11)
    originals = [saved(tmp_path / name, image(AFFINES["oblique"])).read_bytes() for name in ("a.nii", "a.nii.gz")]
    path = tmp_path / "mutant"
    for number in range(300):
        content = bytearray(originals[number % 2])
        for place in generator.integers(0, min(len(content), 400), generator.integers(1, 6)):
            content[place] = generator.integers(0, 256)
        path.write_bytes(content[: generator.integers(1, len(content) + 1)] if number % 3 == 0 else content)
        for study in read(path).studies:
            with suppress(ReadError):
                Volume.from_series(study.series[0])


def test_inspect_shows_it(tmp_path):
    saved(tmp_path / "a.nii.gz", image(AFFINES["LPI"]))
    text = render(inspect(tmp_path))
    assert "NIFTI, 7 x 6 x 5" in text and "orientation: IPL" in text
    assert "place, orientation and spacing from the sform (scanner coordinates)" in text


def test_deidentification_says_that_it_is_not_handled(tmp_path):
    saved(tmp_path / "in.nii.gz", image(AFFINES["RAS"]))
    (tmp_path / "key").write_bytes(bytes(range(32)))
    with pytest.raises(ReadError, match="1 refused: expected a DICOM file: NIfTI is not de-identified here"):
        deidentify(tmp_path / "in.nii.gz", tmp_path / "out", key=tmp_path / "key")
