from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.errors import ManifestError
from mmfm.report import Status
from mmfm.study import Sex, ViewPosition

COLUMNS = ["study_uid", "split", "indication", "findings", "impression"]


def write_dicom(path, *, study, series, number=1, patient="P1", modality="DX", view="PA"):
    """Writes one small DICOM image; its pixels are all ``number``."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ct = modality == "CT"
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2" if ct else "1.2.840.10008.5.1.4.1.1.1.1"
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[study, series, str(number)])
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.PatientID, ds.PatientSex, ds.PatientAge = patient, "F", "061Y"
    ds.Modality, ds.InstanceNumber = modality, number
    if ct:
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 5 * number], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing = [1, 1]
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    else:
        ds.ViewPosition = view
    ds.Rows = ds.Columns = 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelData = np.full((8, 8), number, np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


@pytest.fixture
def prepare(load):
    return load("forkme").prepare


@pytest.fixture
def source(tmp_path, write_csv):
    """Two studies of two patients (PA and lateral; a CT of three slices), and one without a report."""
    source = tmp_path / "source"
    write_dicom(source / "a" / "1.dcm", study="1.2.1", series="1.2.1.1")
    write_dicom(source / "a" / "2.dcm", study="1.2.1", series="1.2.1.2", number=2, view="LL")
    for number in (3, 1, 2):
        where = source / "b" / f"{number}.dcm"
        write_dicom(where, study="1.2.2", series="1.2.2.1", number=number, patient="P2", modality="CT")
    write_dicom(source / "c.dcm", study="1.2.3", series="1.2.3.1", patient="P3")
    (source / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM")
    reports = [
        {
            "study_uid": "1.2.1",
            "split": "train",
            "indication": "Cough",
            "findings": "No pleural effusion. Cardiomegaly is unchanged.",
        },
        {"study_uid": "1.2.2", "split": "val", "impression": "Left pneumothorax."},
        {"study_uid": "1.2.9", "split": "val"},
    ]
    write_csv(source / "reports.csv", reports, COLUMNS)
    return source


def test_dicom_and_reports_become_a_manifest(tmp_path, prepare, source, capsys):
    prepare(source, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok
    radiographs, ct = sorted(manifest.rows, key=lambda row: row.study_uid)
    assert (radiographs.study_uid, radiographs.split, radiographs.patient_id) == ("1.2.1", "train", "P1")
    assert (radiographs.patient.sex, radiographs.patient.age) == (Sex.FEMALE, 61)
    assert {s.view for s in radiographs.series} == {ViewPosition.PA, ViewPosition.LL}
    assert radiographs.report.findings == "No pleural effusion. Cardiomegaly is unchanged."
    assert radiographs.target.findings == "No pleural effusion."
    assert radiographs.labels["pleural_effusion"] is Status.ABSENT
    assert radiographs.labels["cardiomegaly"] is Status.PRESENT
    assert ct.labels["pneumothorax"] is Status.PRESENT
    (stack,) = manifest.study(ct).series
    assert [int(i.load().flat[0]) for i in stack.instances] == [1, 2, 3]
    assert manifest.study(radiographs).indication == "Cough"
    said = " ".join(capsys.readouterr().out.split())
    assert "1 studies without a report, left out" in said
    assert "1 reports without a study, left out" in said
    assert "files refused" in said


def test_a_row_that_contradicts_its_file_is_refused(tmp_path, prepare, source):
    prepare(source, tmp_path / "out")
    path = tmp_path / "out" / "manifest.jsonl"
    path.write_text(path.read_text().replace('"view": "PA"', '"view": "lateral"'))
    manifest = read_manifest(path)
    with pytest.raises(ManifestError, match="expected view lateral as its row states; found PA in the file"):
        [manifest.study(row) for row in manifest.rows]
    path.write_text(path.read_text().replace('"view": "lateral"', '"view": "frontal"'))
    manifest = read_manifest(path)
    assert ViewPosition.PA in {s.view for row in manifest.rows for s in manifest.study(row).series}


def test_a_slice_that_cannot_be_read_stops_the_study(tmp_path, prepare, source):
    prepare(source, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    ct = next(row for row in manifest.rows if row.study_uid == "1.2.2")
    file = sorted(manifest.path(ct.series[0]).iterdir())[0]
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ManifestError, match="images that can be read"):
        manifest.study(ct)


def test_a_patient_in_two_splits_stops_it_and_nothing_stays(tmp_path, prepare, source, write_csv):
    write_dicom(source / "d.dcm", study="1.2.4", series="1.2.4.1", patient="P1")
    reports = [{"study_uid": "1.2.1", "split": "train"}, {"study_uid": "1.2.4", "split": "val"}]
    write_csv(source / "reports.csv", reports, COLUMNS)
    with pytest.raises(ManifestError, match="every patient in one split"):
        prepare(source, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_the_command_ends_with_one_line_and_code_2(tmp_path, root):
    command = [sys.executable, "datasets/forkme/prepare.py", "--source", tmp_path / "no", "--out", tmp_path / "out"]
    done = subprocess.run(command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("reports.csv: expected")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
