"""Scores of volumes: what counts as found, where drafts are exchanged, and how two drafts of a patient agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmfm.data.synthetic_volumes import draw_volume, write_report
from mmfm.evaluation.volumes import (
    BEYOND,
    COUNT,
    FALSE_LESIONS,
    LESION_SIDE,
    PLACE,
    SAME_FINDINGS,
    SAME_LESIONS,
    SAME_STUDY,
    SENSITIVITY,
    SEVERITY,
    SIDE,
    SIZE,
    SPECIFICITY,
    TOLD,
    VolumeDraft,
    VolumeTruth,
    agreement_counts,
    estimates,
    is_same_size,
    lesion_sensitivity,
    shuffled_counts,
    text_counts,
    volume_counts,
)
from mmfm.report import Finding, Lesion, Side, Status

COUNTED = ("nodule",)
ABSENT, PRESENT = Status.ABSENT, Status.PRESENT


def nodules(*lesions: Lesion) -> Finding:
    sides = {lesion.laterality for lesion in lesions}
    side = sides.pop() if len(sides) == 1 else Side.BILATERAL
    return Finding(observation="nodule", status=PRESENT, laterality=side, count=len(lesions), lesions=lesions)


def at(x: float, diameter: float, side: Side = Side.RIGHT, location: str = "upper lobe") -> Lesion:
    return Lesion(center_mm=(x, 0.0, 0.0), diameter_mm=diameter, laterality=side, location=location)


def effusion(side: Side, severity: str) -> Finding:
    return Finding(observation="pleural_effusion", status=PRESENT, laterality=side, severity=severity)


TRUTH = VolumeTruth(
    region="chest_ct",
    findings=(nodules(at(0, 20), at(100, 10), at(200, 4)), effusion(Side.LEFT, "small")),
    labels={"nodule": PRESENT, "pleural_effusion": PRESENT, "emphysema": ABSENT},
)


def test_counts_say_what_was_found_where_and_how_large() -> None:
    found = nodules(at(6, 23.9), at(104, 14, Side.LEFT), at(300, 8))
    draft = VolumeDraft(findings=(found, effusion(Side.LEFT, "large")), text=None)
    assert volume_counts(TRUTH, draft, counted=COUNTED) == {
        (SENSITIVITY, "nodule"): (True, 1),
        (SIDE, "nodule"): (False, 1),  # right alone is there, both were stated
        (COUNT, "nodule"): (True, 1),
        (FALSE_LESIONS, "nodule"): (1, 1),
        (lesion_sensitivity("above 10 mm"), "nodule"): (1, 1),
        (lesion_sensitivity("5 to 10 mm"), "nodule"): (1, 1),
        (lesion_sensitivity("below 5 mm"), "nodule"): (0, 1),
        (PLACE, "nodule"): (1, 2),
        (LESION_SIDE, "nodule"): (1, 2),
        (SIZE, "nodule"): (1, 2),
        (SENSITIVITY, "pleural_effusion"): (True, 1),
        (SIDE, "pleural_effusion"): (True, 1),
        (SEVERITY, "pleural_effusion"): (False, 1),
        (SPECIFICITY, "emphysema"): (True, 1),
    }


def test_a_draft_that_states_nothing_has_no_false_lesion_and_a_wrong_number() -> None:
    counts = volume_counts(TRUTH, VolumeDraft(findings=(), text=None), counted=COUNTED)
    assert counts[COUNT, "nodule"] == (False, 1)
    assert counts[FALSE_LESIONS, "nodule"] == (0, 1)
    assert counts[lesion_sensitivity("above 10 mm"), "nodule"] == (0, 1)
    assert (SIDE, "nodule") not in counts
    single = replace(TRUTH, findings=(nodules(at(0, 20)),))
    assert volume_counts(single, VolumeDraft(findings=(), text=None), counted=COUNTED)[COUNT, "nodule"] == (False, 1)
    made_up = volume_counts(
        replace(TRUTH, findings=()), VolumeDraft(findings=single.findings, text=None), counted=COUNTED
    )
    assert (COUNT, "nodule") not in made_up and made_up[FALSE_LESIONS, "nodule"] == (1, 1)


@pytest.mark.parametrize(("known", "stated", "same"), [(5, 8, True), (5, 8.1, False), (30, 36, True), (30, 23, False)])
def test_a_size_is_right_within_3_mm_or_a_fifth(known: float, stated: float, same: bool) -> None:
    assert is_same_size(known, stated) is same


def test_estimates_sum_over_studies_and_false_lesions_are_a_volume() -> None:
    studies = [
        {(FALSE_LESIONS, "nodule"): (1, 1), (FALSE_LESIONS, "fracture"): (2, 1), (SIDE, "nodule"): (1, 1)},
        {(FALSE_LESIONS, "nodule"): (0, 1), (FALSE_LESIONS, "fracture"): (0, 1)},
    ] * 10
    found = estimates(studies)
    assert found[FALSE_LESIONS, "all"].value == 1.5
    assert found[SIDE, "all"].n == found[SIDE, "all"].events == 10
    side = found[SIDE, "nodule"]
    assert side.low is not None and side.low < side.value == side.high == 1  # Wilson's at 1
    of_nine = estimates(studies[:18])[SIDE, "nodule"]
    assert (of_nine.value, of_nine.n, of_nine.low) == (1.0, 9, None), "nine of the 18 studies have the score"
    few = estimates(studies[:2])[FALSE_LESIONS, "nodule"]
    assert (few.value, few.low, few.high) == (0.5, None, None)


def test_exchanged_drafts_reach_what_chance_does() -> None:
    sides = [Side.LEFT, Side.RIGHT] * 11
    truths = [
        VolumeTruth(region="chest_ct", findings=(effusion(s, "small"),), labels={"pleural_effusion": PRESENT})
        for s in sides
    ]
    drafts = [VolumeDraft(findings=truth.findings, text=None) for truth in truths]
    own = estimates([volume_counts(t, d, counted=()) for t, d in zip(truths, drafts, strict=True)])
    blind = estimates(shuffled_counts(truths, drafts, counted=()))
    assert own[SIDE, "all"].value == 1
    assert blind[SIDE, "all"].value == 0.5
    other = replace(truths[0], region="head")
    assert shuffled_counts([*truths, other], [*drafts, drafts[0]], counted=())[-1] == {}  # alone in its region


def test_two_drafts_of_a_patient_agree_by_finding_and_by_lesion() -> None:
    one = VolumeDraft(findings=(nodules(at(0, 20), at(100, 8)), effusion(Side.LEFT, "small")), text=None)
    assert set(agreement_counts(one, one).values()) == {(True, 1), (1, 1), (2, 2)}
    moved = VolumeDraft(findings=(nodules(at(6, 20), at(100, 8)), effusion(Side.RIGHT, "small")), text=None)
    counts = agreement_counts(one, moved)
    assert counts[SAME_STUDY, "study"] == (False, 1)
    assert agreement_counts(None, VolumeDraft(findings=(), text=None)) == {(SAME_STUDY, "study"): (False, 1)}, "refused"
    assert counts[SAME_FINDINGS, "pleural_effusion"] == (0, 2)
    assert counts[SAME_FINDINGS, "nodule"] == (1, 1)
    assert counts[SAME_LESIONS, "nodule"] == (1, 2)  # within the larger one's reach, but further than 5 mm


def test_a_text_that_names_another_side_or_size_does_not_tell_what_was_decided() -> None:
    draft = VolumeDraft(
        findings=(nodules(at(0, 8.3)),), text="There is an 8 mm nodule in the right upper lobe. Left pleural effusion."
    )
    counts = text_counts(draft, region="chest_ct")
    assert counts[TOLD, "nodule"] == (1, 1)
    assert counts[BEYOND, "nodule"] == (1, 1)
    assert counts[BEYOND, "pleural_effusion"] == (0, 1)
    for text in ("8 mm nodule in the left upper lobe.", "9 mm nodule in the right upper lobe.", None):
        assert text_counts(replace(draft, text=text), region="chest_ct")[TOLD, "nodule"] == (0, 1)


@pytest.mark.parametrize(("region", "wanted"), [("chest_ct", "nodule"), ("abdomen", "liver_lesion")])
def test_reports_of_drawn_volumes_tell_their_lesion(region: str, wanted: str) -> None:
    counts = []
    for seed in range(8):
        drawn = draw_volume(region, seed, spacing=(8.0, 8.0, 8.0), findings=(wanted,))
        report, findings = write_report(drawn, np.random.default_rng(seed))
        if len(findings[0].lesions) == 1:  # of a list in one sentence the labeller reads the first place alone
            counts.append(text_counts(VolumeDraft(findings=findings, text=report.findings), region=region))
    assert len(counts) >= 2
    assert estimates(counts)[TOLD, wanted].value == 1


def test_what_a_text_tells_of_another_part_of_the_body_was_not_decided() -> None:
    draft = VolumeDraft(findings=(), text="The ventricles are normal. Free fluid, small in amount.")
    assert text_counts(draft, region="head") == {(BEYOND, "free_fluid"): (0, 1)}
