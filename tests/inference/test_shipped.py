"""What is drafted by the checkpoints in ``checkpoints/``, and that they still read as they were trained to."""

import math

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
    ("region", "observation", "seed"),
    [("chest_ct", "nodule", 4), ("abdomen", "liver_lesion", 2), ("head", "brain_mass", 3)],
)
def test_the_largest_lesion_stated_of_a_drawn_volume_is_there(region, observation, seed, tmp_path):
    """On patients with lesions well above 10 mm; how many are found is for ``benchmarks/synthetic_volumes.py``."""
    drawn = draw_volume(region, seed, findings=(observation,), spacing=(1.6, 1.25, 1.25))
    write_dicom(drawn, tmp_path)
    report = _drafted(tmp_path)
    assert report.provenance.checkpoint.startswith("mmfm-volume-small")
    (known,), (found,) = (
        [one.lesions for one in findings if one.observation == observation]
        for findings in (drawn.findings, report.findings)
    )
    near = min(known, key=lambda one: math.dist(one.center_mm, found[0].center_mm))
    assert (found[0].laterality, found[0].location) == (near.laterality, near.location)
    assert math.dist(near.center_mm, found[0].center_mm) < 10.0
