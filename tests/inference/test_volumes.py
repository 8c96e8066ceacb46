"""CT and MR from files to a report, by a tiny model with random weights."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from PIL import Image

from mmfm.errors import CheckpointError, ConfigError, ScopeError
from mmfm.imaging import sequence_of
from mmfm.inference import AutoReporter, Reporter, choose_checkpoint
from mmfm.io import read_studies
from mmfm.models import draft
from mmfm.report import Report, Status
from mmfm.ui.render import lesion_lines, report_text


@pytest.fixture(scope="module")
def reporter(tiny_volume_checkpoint):
    return Reporter.from_pretrained(str(tiny_volume_checkpoint), device="cpu")


@pytest.fixture(scope="module")
def chest(write_volume, tmp_path_factory):
    [study] = read_studies(write_volume(tmp_path_factory.mktemp("chest")))
    return study


@pytest.fixture(scope="module")
def head(write_volume, tmp_path_factory):
    [study] = read_studies(write_volume(tmp_path_factory.mktemp("head"), "head"))
    return study


@pytest.fixture
def shipped(tiny_checkpoint, tiny_volume_checkpoint, tmp_path, monkeypatch):
    """Both tiny checkpoints in one folder, and none besides them."""
    folder = tmp_path / "shipped"
    shutil.copytree(tiny_checkpoint, folder / "tiny")
    shutil.copytree(tiny_volume_checkpoint, folder / "tiny-volume")
    monkeypatch.setenv("MMFM_CHECKPOINTS", str(folder))
    monkeypatch.setattr("mmfm.inference.choosing.shipped_folders", lambda: [folder])
    return folder


def picture(path):
    rows, columns = np.mgrid[-1:1:96j, -1:1:80j]
    Image.fromarray(np.uint8(255 * np.exp(-(rows**2) - columns**2 / 0.4))).save(path)
    [study] = read_studies(path)
    return study


def test_a_chest_ct_becomes_a_report_with_its_lesions(reporter, chest):
    report = reporter.report(chest)
    assert report.sections.technique == "CT of the chest."
    assert report.coverage.startswith("1 of 3 series; 1 slab of 128 mm")
    by_name = {f.observation: f for f in report.findings}
    nodule = by_name["nodule"]
    assert nodule.status is Status.PRESENT
    assert nodule.count == len(nodule.lesions) > 0
    assert nodule.measurement.value == round(nodule.lesions[0].diameter_mm)
    assert nodule.probability == max(lesion.probability for lesion in nodule.lesions), "what it was decided by"
    assert "nodule" not in report.finding_probabilities, "P of the whole decides nothing that is counted"
    assert by_name["pleural_effusion"].status is Status.PRESENT
    assert by_name["cardiomegaly"].status is Status.ABSENT
    assert "fibrosis" in report.not_assessed
    assert "hydrocephalus" not in {*report.not_assessed, *report.finding_probabilities}
    assert "left upper lobe" in report.sections.findings
    assert any("taken as CT" in step for step in report.receipts[0].steps)
    assert any("left out, a localiser" in step for step in report.receipts[0].steps)
    assert Report.from_json(report.to_json()) == report
    assert report.sections == reporter.report(chest).sections


def test_lesions_are_listed_with_the_slice_that_they_are_on(reporter, chest):
    report = reporter.report(chest)
    [finding] = [f for f in report.findings if f.lesions]
    assert len(lesion_lines(report)) == len(finding.lesions)
    assert "LESIONS" in report_text(report)
    # Weights of chance put lesions anywhere: one that is known to lie on the third slice of 24, 5 mm apart from -60.
    known = replace(finding, lesions=(replace(finding.lesions[0], center_mm=(0.0, 0.0, -49.0)),))
    [line] = lesion_lines(replace(report, findings=(known,)))
    assert "slice 3 of 24 (counted towards the head)" in line


def test_a_head_mr_that_lacks_sequences_is_read_where_they_are_named_alone(reporter, head):
    report = reporter.report(head)
    assert report.sections.technique == "MR of the head with T1, T2, FLAIR, DWI."
    assert "without" not in report.coverage
    assert len(report.receipts) == 4
    lacking = replace(head, series=tuple(series for series in head.series if sequence_of(series) != "DWI"))
    with pytest.raises(ScopeError, match=r"expected an MR with T1, T2, FLAIR, DWI.*found none taken as DWI"):
        reporter.report(lacking)
    named = reporter.report(lacking, only=tuple(series.series_uid for series in lacking.series if sequence_of(series)))
    assert named.sections.technique == "MR of the head with T1, T2, FLAIR."
    assert "without DWI" in named.coverage
    assert any("read without DWI" in note and "made up" in note for note in named.scope_notes)


def test_a_sequence_of_another_place_is_not_read_as_one_of_the_same_head(reporter, write_volume, tmp_path):
    for path in write_volume(tmp_path, "head").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        if dataset.get("SeriesDescription", "").startswith("T2 "):
            dataset.ImagePositionPatient[2] += 60
            dataset.save_as(path)
    [study] = read_studies(tmp_path)
    with pytest.raises(ScopeError, match="found none taken as T2"):
        reporter.report(study)
    named = tuple(series.series_uid for series in study.series if sequence_of(series))
    report = reporter.report(study, only=named)
    assert report.sections.technique == "MR of the head with T1, FLAIR, DWI."
    assert "without T2" in report.coverage
    assert any("the slices of T2 were not read" in note for note in report.scope_notes)


def test_only_named_series_are_read(reporter, head):
    by_name = {sequence_of(series): place for place, series in enumerate(head.series, start=1)}
    for name in (f"#{by_name['T1']}", head.series[by_name["T1"] - 1].series_uid):
        assert reporter.report(head, only=(name,)).sections.technique == "MR of the head with T1."
    with pytest.raises(ConfigError, match="--series"):
        reporter.report(head, only=("#9",))
    with pytest.raises(ScopeError, match="--series: expected a CT or MR with slices"):
        reporter.report(head, only=(f"#{by_name[None]}",))


def test_a_region_has_to_be_stated_or_given(reporter, chest):
    silent = replace(chest, description=None, series=tuple(
        replace(s, body_part=None, description=None, acquisition=replace(s.acquisition, protocol=None))
        for s in chest.series
    ))  # fmt: skip
    with pytest.raises(ScopeError, match=r"CT that states no part of the body.*--region chest_ct or abdomen"):
        reporter.report(silent)
    report = reporter.report(silent, region="abdomen")
    assert report.sections.technique == "CT of the abdomen."
    assert any("not verified" in note for note in report.scope_notes)


def test_volumes_and_radiographs_are_refused_by_the_model_of_the_others(reporter, tiny_checkpoint, chest, tmp_path):
    with pytest.raises(ScopeError, match=r"CR or DX, the scope of tiny; found a volume \(CT\)"):
        Reporter.from_pretrained(str(tiny_checkpoint), device="cpu").report(chest)
    radiograph = picture(tmp_path / "a.png")
    radiograph = replace(radiograph, series=(replace(radiograph.series[0], modality="DX"),))
    with pytest.raises(ScopeError, match=r"CT or MR, the scope of tiny-volume; found DX"):
        reporter.report(radiograph)


def test_a_picture_is_read_with_what_it_shows_by_itself(reporter, tmp_path):
    report = reporter.report(picture(tmp_path / "a.png"))
    assert re.fullmatch(r"(CT|MR|CT and MR) of the head, as read from the pictures\.", report.sections.technique)
    assert any("read from the pictures themselves" in note for note in report.scope_notes)
    assert [f.observation for f in report.findings if f.status is Status.PRESENT] == ["hydrocephalus"]
    assert report.coverage == "1 picture"


def test_without_a_vocabulary_nothing_is_stated(reporter, tmp_path, monkeypatch):
    def spine(checkpoint, studies):
        return [
            replace(one, region=None, kind="MR of the spine", findings="Fracture.")
            for one in draft(checkpoint, studies)
        ]

    monkeypatch.setattr("mmfm.inference.reporter.draft", spine)
    report = reporter.report(picture(tmp_path / "a.png"))
    assert report.sections.technique.startswith("MR of the spine")
    assert "no vocabulary" in report.sections.findings
    assert "racture" not in f"{report.sections.findings} {report.sections.impression}"
    assert (report.findings, report.differential, report.not_assessed) == ((), (), ())
    assert "Fracture." in report.provenance.raw_text


def test_a_prior_study_is_compared_and_only_of_the_same_patient(reporter, chest, write_volume, tmp_path):
    [prior] = read_studies(write_volume(tmp_path / "prior", seed=2))
    report = reporter.report(chest, prior=prior)
    assert "its date is not read" in report.sections.comparison
    assert "before" in report.sections.findings
    assert next(f for f in report.findings if f.observation == "nodule").change is not None
    [other] = read_studies(write_volume(tmp_path / "other", seed=2, patient_id="p2"))
    with pytest.raises(ScopeError, match=r"prior study.*another one") as caught:
        reporter.report(chest, prior=other)
    assert "p2" not in str(caught.value)
    with pytest.raises(ScopeError, match="same one"):
        reporter.report(chest, prior=chest)
    [abdomen] = read_studies(write_volume(tmp_path / "abdomen", "abdomen", seed=3))
    with pytest.raises(ScopeError, match=r"prior study.*expected CT of the chest.*found CT of the abdomen"):
        reporter.report(chest, prior=abdomen)


def test_each_study_gets_the_checkpoint_made_for_it(shipped, chest, head, tmp_path):
    reporter = AutoReporter(device="cpu")
    radiograph = picture(tmp_path / "a.png")
    for study, name, why in (
        (chest, "tiny-volume", "CT of the chest"),
        (head, "tiny-volume", "MR of the head"),
        (radiograph, "tiny", "no modality"),
    ):
        provenance = reporter.report(study).provenance
        assert provenance.checkpoint == name
        assert why in provenance.chosen
        assert "among 2" in provenance.chosen
    screenshot = replace(radiograph, series=(replace(radiograph.series[0], modality="CT"),))
    assert choose_checkpoint(screenshot).name == "tiny-volume"


def test_the_reason_names_what_is_read_of_a_study_of_several(shipped, chest, head):
    mixed = replace(chest, description=None, series=(
        *(replace(s, body_part=None, description=None, acquisition=replace(s.acquisition, protocol=None))
          for s in chest.series), *head.series,
    ))  # fmt: skip
    assert choose_checkpoint(mixed, region="chest_ct").reason.endswith("read as CT of the chest, as asked")
    assert choose_checkpoint(mixed, region="head").reason.endswith("MR of the head by its headers")


def test_without_a_fitting_checkpoint_the_refusal_lists_what_each_is_made_for(shipped, tmp_path, chest):
    mammogram = picture(tmp_path / "a.png")
    mammogram = replace(mammogram, series=(replace(mammogram.series[0], modality="MG"),))
    with pytest.raises(ScopeError) as caught:
        choose_checkpoint(mammogram)
    line = str(caught.value)
    assert "found MG" in line
    assert "tiny: CR or DX pictures of chest" in line
    assert "tiny-volume: CT of the chest, CT of the abdomen, MR of the head" in line
    child = replace(chest, patient=replace(chest.patient, age_years=5))
    with pytest.raises(ScopeError, match="at least 18 years"):
        choose_checkpoint(child)


def test_only_configs_are_read_for_the_choice(shipped, chest):
    (shipped / "tiny-volume" / "model.safetensors").unlink()
    assert choose_checkpoint(chest).name == "tiny-volume"
    (shipped / "tiny-volume" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="config"):
        choose_checkpoint(chest)
