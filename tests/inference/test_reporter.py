import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mmfm.errors import CheckpointError, ConfigError, ScopeError
from mmfm.inference import Reporter, choose_device
from mmfm.io import read_studies
from mmfm.report import Report, ReportStatus, Status


@pytest.fixture(scope="module")
def reporter(tiny_checkpoint):
    return Reporter.from_pretrained(str(tiny_checkpoint), device="cpu")


@pytest.fixture
def study(tmp_path):
    """Two pictures without tags."""
    rows, columns = np.mgrid[-1:1:96j, -1:1:80j]
    for name, width in (("a", 0.05), ("b", 0.1)):
        lungs = np.exp(-((np.abs(columns) - 0.45) ** 2) / width - rows**2 / 0.4)
        Image.fromarray(np.uint8(255 * (1 - lungs))).save(tmp_path / f"{name}.png")
    [study] = read_studies(tmp_path)
    return study


def test_a_study_is_drafted(reporter, study):
    report = reporter.report(study, indication="Cough")
    assert report.status is ReportStatus.DRAFT
    assert report.study_uid == study.study_uid
    assert report.sections.indication == "Cough"
    assert "pleural effusion" in report.sections.findings
    assert "No cardiomegaly above the operating point." in report.sections.findings
    assert {f.observation: f.status for f in report.findings} == {
        "pleural_effusion": Status.PRESENT,
        "cardiomegaly": Status.ABSENT,
    }
    assert "pneumothorax" in report.not_assessed
    assert any("scope not verified" in note for note in report.scope_notes)
    assert any("age not verified" in note for note in report.scope_notes)
    assert any("by the picture" in note for note in report.scope_notes)
    assert len(report.receipts) == 2
    assert report.provenance.checkpoint == "tiny"
    assert report.provenance.seconds > 0
    assert Report.from_json(report.to_json()) == report


def test_the_same_study_gives_the_same_draft(reporter, study):
    first, second = reporter.report(study), reporter.report(study)
    assert first.sections == second.sections
    assert first.finding_probabilities == second.finding_probabilities


def test_streaming_ends_with_the_report(reporter, study):
    *texts, last = reporter.stream(study)
    assert all(isinstance(text, str) for text in texts)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert isinstance(last, Report)
    assert last.sections == reporter.report(study).sections


def test_features_are_one_vector(reporter, study):
    features = reporter.features(study)
    assert features.ndim == 1
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_an_output_that_never_ends_gives_no_draft(tiny_checkpoint, study):
    reporter = Reporter.from_pretrained(str(tiny_checkpoint), device="cpu")
    tokenizer = reporter.checkpoint.processor.tokenizer
    with torch.no_grad():
        table = reporter.checkpoint.model.language.get_input_embeddings().weight
        table[tokenizer.eos_token_id, 0] = 0
    with pytest.raises(ScopeError, match="never ended"):
        reporter.report(study)


def test_a_blank_picture_gives_no_draft(reporter, tmp_path):
    noise = np.random.default_rng(0).integers(120, 136, (200, 200), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    with pytest.raises(ScopeError, match="blank"):
        reporter.report(read_studies(tmp_path)[0])


def test_devices_are_chosen_by_what_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="cuda"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


def test_an_unknown_or_altered_checkpoint_is_refused(tiny_checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="no-such-checkpoint"):
        Reporter.from_pretrained("no-such-checkpoint")
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    (copy / "card.md").write_text("altered")
    with pytest.raises(CheckpointError, match=r"card\.md altered"):
        Reporter.from_pretrained(str(copy))
