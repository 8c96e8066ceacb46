"""draw_volume and write_report together: whatever is drawn can be said, and of a mirrored twin with the other sides."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmfm.data.synthetic_volumes import DRAWN, draw_volume, write_report
from mmfm.report import Side
from mmfm.text import observations

SPACING = (16.0, 12.0, 12.0)
OTHER = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}


@pytest.mark.parametrize("region", DRAWN)
def test_what_is_drawn_has_a_sentence_and_its_mirrored_twin_the_other_sides(region):
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    seen = set()
    for name in DRAWN[region]:
        own, twin = (draw_volume(region, 8, spacing=SPACING, findings=(name,), mirror=m) for m in (False, True))
        assert own.region == region
        [finding] = own.findings
        assert finding.observation == name
        (sections, [stated]), (mirrored, _) = (write_report(d, np.random.default_rng(0)) for d in (own, twin))
        assert stated.evidence in sections.findings
        for lesion in stated.lesions[:3]:
            assert (lesion.location or "") in stated.evidence or name == "fracture"
            assert (lesion.laterality or "") in stated.evidence
        # A lobe of the liver is called by its place in the usual body, in both.
        said = re.sub("(left|right|Left|Right)(?! hepatic)", lambda m: swap[m.group()], sections.findings)
        assert re.sub(" hepatic", "", said) == re.sub(" hepatic", "", mirrored.findings)
        for a, b in zip(own.findings[0].lesions, twin.findings[0].lesions, strict=True):
            assert b.laterality == OTHER.get(a.laterality)
            assert b.center_mm == pytest.approx(np.array(a.center_mm) * [-1, 1, 1])
        assert set(own.labels) <= set(observations(region))
        assert own.patient.patient_id == f"synthetic-{region}-8"
        assert twin.patient.patient_id == f"synthetic-{region}-8-mirrored"
        seen.add(stated.observation)
    assert seen == set(DRAWN[region])


@pytest.mark.parametrize("region", DRAWN)
def test_a_normal_one_has_a_normal_report(region):
    drawn = draw_volume(region, 8, spacing=SPACING, findings=())
    sections, findings = write_report(drawn, np.random.default_rng(0))
    assert findings == ()
    assert not drawn.segmentation.any()
    assert re.match("Normal|No ", sections.impression)
