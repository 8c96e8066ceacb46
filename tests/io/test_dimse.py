"""C-STORE against a real Orthanc, which a fixture starts."""

import zipfile

import pydicom
import pytest
from pydicom.uid import generate_uid

from mmfm.errors import ConfigError, ReadError, ServerError
from mmfm.io import dicomweb, dimse, read

pytestmark = pytest.mark.pacs


@pytest.fixture(autouse=True)
def _allowed(monkeypatch):
    monkeypatch.setenv("MMFM_PACS_HOSTS", "127.0.0.1")
    monkeypatch.setenv("MMFM_PACS_AUTH", "basic reader:secret")


def contents(folder):
    """Transfer syntax and pixels by SOP instance UID."""
    files = {f.sop_instance_uid: f.transfer_syntax for f in read(folder).files if f.status == "ok"}
    instances = [i for study in read(folder).studies for series in study.series for i in series.instances]
    assert len(instances) == len(files)
    return {i.sop_instance_uid: (files[i.sop_instance_uid], i.load().tobytes()) for i in instances}


def test_every_syntax_is_stored_as_it_is(orthanc, mixed_study, tmp_path):
    pushed = dimse.push(orthanc.dicom_url(), mixed_study)
    assert (pushed.stored, pushed.skipped, pushed.refused, pushed.reasons) == (5, 1, (), None)
    (study,) = read(mixed_study).studies
    pulled = dicomweb.pull(orthanc.url, tmp_path / "out", study_uid=study.study_uid)
    assert pulled.instances == 5
    assert contents(tmp_path / "out") == contents(mixed_study)
