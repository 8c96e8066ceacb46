import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmfm.errors import ConfigError
from mmfm.ui import samples as module
from mmfm.ui.samples import REAL_BADGE, real_study, samples, synthetic_study, volume_samples


@pytest.fixture
def downloaded(tmp_path):
    """A source in the format of IU X-Ray, with made pictures: study 7 has two views, 5 one, 3 is for training."""
    folder = tmp_path / "iu_xray"
    folder.mkdir()
    rows = ["uid,file,projection,split,shard", "3,t.jpg,Frontal,train,a.tar", "5,o.jpg,Frontal,val,a.tar"]
    rows += ["7,l.jpg,Lateral,val,a.tar", "7,f.jpg,Frontal,val,a.tar"]
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    (folder / "reports.csv").write_text("uid,split,indication\n5,val,no\n7,val,Cough\n")
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name in "tolf":
            file = io.BytesIO()
            Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1))).save(file, "JPEG")
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = len(file.getvalue())
            archive.addfile(info, io.BytesIO(file.getvalue()))
    return folder


def test_the_same_seed_gives_the_same_study(tmp_path):
    first, again = (synthetic_study(4, tmp_path / name) for name in ("a", "b"))
    assert first.to_json() == again.to_json()
    assert {series.view.is_lateral for series in first.series} == {False, True}
    assert synthetic_study(5, tmp_path / "a").study_uid != first.study_uid


def test_a_real_val_study_of_two_views_comes_first(downloaded, tmp_path):
    real, *drawn = samples(tmp_path, source=downloaded)
    assert REAL_BADGE in real.title
    assert real.study.study_uid == "iu_xray-7"
    assert real.study.indication == "Cough"
    assert {str(series.view) for series in real.study.series} == {"frontal", "lateral"}
    assert all("not a patient" in sample.title for sample in drawn)
    assert len(drawn) == 3


def test_without_the_data_there_are_drawn_studies_only(tmp_path, monkeypatch):
    monkeypatch.delenv("MMFM_DATA", raising=False)
    monkeypatch.setattr(module, "_DATA_BESIDE_CHECKOUT", tmp_path / "absent")
    assert real_study(tmp_path) is None
    assert all("not a patient" in sample.title for sample in samples(tmp_path))


def test_a_folder_that_is_no_source_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--data"):
        real_study(tmp_path, source=tmp_path)


def test_the_real_data_gives_a_study(shared_data, tmp_path):
    study = real_study(tmp_path, source=shared_data / "iu_xray")
    assert study is not None
    assert len(study.series) >= 2


def test_volumes_are_drawn_too_and_come_back_from_dicom(tmp_path):
    chest, head = volume_samples(tmp_path)
    assert "CT of the chest" in chest.title and "nodule and pleural effusion" in chest.title
    assert {series.modality for series in chest.study.series} >= {"CT"}
    assert {series.modality for series in head.study.series} >= {"MR"}
