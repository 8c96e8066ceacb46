from __future__ import annotations

import csv

import pytest

from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.errors import ManifestError
from mmfm.report import Sections
from mmfm.study import Sex, ViewPosition

IMAGE = {
    "file": "0000_a.jpg",
    "patientid": "5b",
    "sex": "F",
    "age": "54.0",
    "finding": "COVID-19",
    "modality": "X-ray",
    "view": "AP Supine",
    "clinical_notes": "A fictitious history.",
    "license": "CC BY 4.0",
    "doi": "10.1/1",
    "url": "https://example.org",
}
IMAGES = [
    IMAGE,
    IMAGE | {"file": "0001_b.jpg", "view": "L"},
    IMAGE | {"file": "0002_c.jpg", "modality": "CT", "view": "Axial", "sex": "", "age": "", "patientid": "6"},
]


@pytest.fixture
def prepare(load):
    return load("covid_cxr")


@pytest.fixture
def write(tmp_path, prepare, jpeg, write_tar, write_csv):
    def write(images=IMAGES):
        source = tmp_path / "source"
        source.mkdir()
        columns = [*IMAGE, "other_notes", "location", "date"]
        write_csv(source / "images.csv", images, columns)
        write_tar(source / "images.tar", {image["file"]: jpeg(n) for n, image in enumerate(images)})
        return source

    return write


def test_each_picture_is_a_study_for_checks_only(tmp_path, prepare, write, jpeg):
    prepare.prepare(write(), tmp_path / "out", expect=False)
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    frontal, lateral, ct = manifest.rows
    assert {row.split for row in manifest.rows} == {"ood"}
    assert [row.study_uid for row in manifest.rows] == ["covid_cxr-0000", "covid_cxr-0001", "covid_cxr-0002"]
    assert [row.patient_id for row in manifest.rows] == ["covid_cxr-5b", "covid_cxr-5b", "covid_cxr-6"]
    assert [(row.series[0].modality, row.series[0].view) for row in manifest.rows] == [
        (None, ViewPosition.AP),
        (None, ViewPosition.LATERAL),
        ("CT", None),
    ]
    assert (frontal.patient.sex, frontal.patient.age) == (Sex.FEMALE, 54)
    assert (ct.patient.sex, ct.patient.age) == (None, None)
    assert manifest.path(lateral.series[0]).read_bytes() == jpeg(1)
    assert manifest.study(ct).series[0].modality == "CT"


def test_a_case_history_is_no_report(tmp_path, prepare, write):
    prepare.prepare(write(), tmp_path / "out", expect=False)
    row = read_manifest(tmp_path / "out" / "manifest.jsonl").rows[0]
    assert row.report == Sections()
    assert row.target is None
    assert row.labels == {}
    assert row.diagnosis == "COVID-19"
    with (tmp_path / "out" / "attribution.csv").open(encoding="utf-8", newline="") as file:
        attribution = list(csv.DictReader(file))
    assert attribution[0]["study_uid"] == "covid_cxr-0000"
    assert attribution[0]["license"] == "CC BY 4.0"
    assert attribution[0]["clinical_notes"] == "A fictitious history."


@pytest.mark.parametrize("changes", [{"modality": "MR"}, {"sex": "x"}, {"age": "old"}])
def test_what_the_format_does_not_know_is_refused(tmp_path, prepare, write, changes):
    with pytest.raises(ManifestError, match=r"images\.csv"):
        prepare.prepare(write([IMAGE | changes]), tmp_path / "out", expect=False)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_other_counts_are_refused(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match="studies ood 328; found 3"):
        prepare.prepare(write(), tmp_path / "out", expect=True)


def test_the_published_folder_gives_the_numbers_of_the_card(tmp_path, prepare, shared_data):
    source = shared_data / "covid_cxr"
    if not source.is_dir():
        pytest.skip("no covid_cxr in shared/data")
    prepare.prepare(source, tmp_path / "out", expect=True)
    summary = check_manifest(tmp_path / "out" / "manifest.jsonl")
    assert summary.ok
    assert (summary.rows, summary.patients, summary.reports) == (328, 149, 0)
    assert summary.modalities == {"not stated": 285, "CT": 43}
    assert summary.views == {"PA": 167, "AP": 91, "lateral": 27, "not stated": 43}
