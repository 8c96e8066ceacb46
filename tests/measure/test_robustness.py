from dataclasses import replace

import numpy as np
import pytest
import torch

from mmfm.data.manifest import read_manifest
from mmfm.errors import ScopeError
from mmfm.imaging.alterations import ALTERATIONS, SAME, Alteration
from mmfm.measure.drafts import draft_all, in_scope, predictions_of
from mmfm.measure.robustness import alter_study, measure_robustness
from mmfm.models import load_checkpoint
from mmfm.models.processor import StudyPixels
from mmfm.text import CHEST_RADIOGRAPH

BY_NAME = {alteration.name: alteration for alteration in ALTERATIONS}
UNTOUCHED = Alteration(name="none", amount="nothing", expected=SAME, alter=lambda picture, _: picture)


@pytest.fixture
def opened(tiny_checkpoint):
    return load_checkpoint(str(tiny_checkpoint))


@pytest.fixture
def manifest(tiny_manifest):
    return read_manifest(tiny_manifest)


def read(opened, study) -> StudyPixels:
    found = in_scope(opened, study, CHEST_RADIOGRAPH)
    assert isinstance(found, StudyPixels)
    return found


def test_a_study_handed_back_untouched_is_read_as_before(opened, manifest):
    study = manifest.study(manifest.rows[0])
    altered = alter_study(study, UNTOUCHED, np.random.default_rng(0))
    before, after = read(opened, study), read(opened, altered)
    assert torch.allclose(before.pixels_SCHW, after.pixels_SCHW, atol=1e-4)
    assert before.views_S.tolist() == after.views_S.tolist()
    for series, kept in zip(study.series, altered.series, strict=True):
        assert (series.modality, series.body_part, series.view) == (kept.modality, kept.body_part, kept.view)
        assert series.instances[0].patient_orientation == kept.instances[0].patient_orientation


def test_a_mirrored_study_reaches_the_model_mirrored(opened, manifest):
    study = manifest.study(manifest.rows[0])
    before = read(opened, study).pixels_SCHW
    after = read(opened, alter_study(study, BY_NAME["mirroring"], np.random.default_rng(0))).pixels_SCHW
    assert torch.allclose(before.flip(-1), after, atol=1e-3)


def test_noise_instead_of_a_picture_is_refused(opened, manifest):
    larger = replace(UNTOUCHED, alter=lambda picture, _: np.kron(picture, np.ones((4, 4))))
    study = alter_study(manifest.study(manifest.rows[0]), larger, np.random.default_rng(0))
    assert isinstance(in_scope(opened, study, CHEST_RADIOGRAPH), StudyPixels)
    noise = alter_study(study, BY_NAME["even_noise"], np.random.default_rng(0))
    assert isinstance(in_scope(opened, noise, CHEST_RADIOGRAPH), ScopeError)


def test_the_panel_refuses_by_header_and_drafts_the_rest(opened, manifest):
    rows = manifest.split("train")
    pixels = [read(opened, manifest.study(row)) for row in rows]
    unaltered = predictions_of(draft_all(opened, rows, pixels, batch_size=8))

    def panel(seed):
        return measure_robustness(
            opened, manifest, rows, unaltered, num_studies=3, generator=np.random.default_rng(seed), batch_size=2
        )

    found = {one.name: one for one in panel(0)}
    assert [*found] == [*BY_NAME, "wrong_modality", "wrong_body_part"]
    for name in ("wrong_modality", "wrong_body_part"):
        assert found[name].refused.value == 1 and not found[name].scores
    for name in ("window_lower", "noise", "blur", "jpeg", "crop", "rotation", "mirroring"):
        one = found[name]
        assert (one.n, one.refused.value, one.agreement["same_findings"].n) == (3, 0, 3)
        # Random weights always state the effusion that this checkpoint's operating point of 0 makes them state.
        assert one.agreement["findings"].value == 1 and one.scores["finding_f1_micro"].n == 3
        assert one.agreement["probability_change"].value > 0
    assert list(panel(0)) == list(found.values()) and list(panel(1)) != list(found.values())
