"""What is drafted by the checkpoints in ``checkpoints/``, and that they still read as they were trained to."""

import pytest

from mmfm.data.synthetic import draw_study
from mmfm.data.synthetic import write_dicom as write_radiograph
from mmfm.data.synthetic_volumes import draw_volume, write_dicom
from mmfm.inference import AutoReporter
from mmfm.io import read_studies
from mmfm.models.checkpoint import resolve_checkpoint
from mmfm.models.processor import Processor
from mmfm.models.recipes import RECIPES


def _drafted(folder):
    (study,) = read_studies(folder)
    return AutoReporter(device="cpu").report(study)


def test_the_recipes_that_are_tested_are_those_of_the_shipped_checkpoint():
    assert Processor.load(resolve_checkpoint("mmfm-volume-small")).config.recipes == RECIPES


@pytest.mark.slow
def test_a_radiograph_is_drafted_by_the_checkpoint_made_for_it(tmp_path):
    write_radiograph(draw_study(1), tmp_path)
    report = _drafted(tmp_path)
    assert report.provenance.checkpoint.startswith("mmfm-cxr-small")
    assert report.sections.findings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("region", "observation"), [("chest_ct", "nodule"), ("abdomen", "liver_lesion"), ("head", "brain_mass")]
)
def test_a_drawn_volume_is_drafted_with_its_largest_lesion(region, observation, tmp_path):
    drawn = draw_volume(region, 1, findings=(observation,), spacing=(1.6, 1.25, 1.25))
    write_dicom(drawn, tmp_path)
    report = _drafted(tmp_path)
    assert report.provenance.checkpoint.startswith("mmfm-volume-small")
    known, found = (
        next(one for one in findings if one.observation == observation).lesions[0]
        for findings in (drawn.findings, report.findings)
    )
    assert (found.laterality, found.location) == (known.laterality, known.location)
    assert found.diameter_mm == pytest.approx(known.diameter_mm, rel=0.3)
