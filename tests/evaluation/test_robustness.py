from dataclasses import replace

import numpy as np
import pytest

from mmfm.evaluation.predictions import Prediction
from mmfm.evaluation.references import Reference
from mmfm.evaluation.robustness import Robustness, score_robustness
from mmfm.jsonable import from_json, to_json
from mmfm.report import Sections, Status

EFFUSION, CLEAR = "Left pleural effusion.", "The lungs are clear."


def make_reference(i, findings, labels=None):
    return Reference(study_uid=str(i), patient_id=f"p{i}", report=Sections(findings=findings), labels=labels or {})


def make_draft(i, findings, probability=0.5):
    return Prediction(
        study_uid=str(i), findings=findings, impression=None, finding_probabilities={"pleural_effusion": probability}
    )


def score(references, unaltered, altered):
    return score_robustness(
        name="mirroring", amount="all of it", expected="sides swapped", references=references, unaltered=unaltered,
        altered=altered, generator=np.random.default_rng(0),
    )  # fmt: skip


REFERENCES = [make_reference(i, EFFUSION if i % 2 else CLEAR) for i in range(12)]
DRAFTS = [make_draft(i, EFFUSION if i % 2 else CLEAR) for i in range(12)]


def test_unaltered_drafts_agree_with_themselves():
    found = score(REFERENCES, DRAFTS, DRAFTS)
    assert found.n == 12 and found.refused.value == 0
    assert found.refused.low == 0 and found.refused.high > 0.2  # none of 12 says little
    assert found.scores["finding_f1_micro"].value == 1 and found.changes["finding_f1_micro"].value == 0
    values = {name: estimate.value for name, estimate in found.agreement.items()}
    assert values == {"findings": 1, "same_findings": 1, "sides_swapped": 0, "probability_change": 0}
    assert found.agreement["sides_swapped"].n == 6


def test_swapped_sides_are_seen():
    mirrored = [make_draft(i, d.findings.replace("Left", "Right"), 0.5) for i, d in enumerate(DRAFTS)]
    found = score(REFERENCES, DRAFTS, mirrored)
    swapped = found.agreement["sides_swapped"]
    assert (swapped.value, swapped.n, swapped.events) == (1, 6, 6)
    assert found.agreement["same_findings"].value == 1


def test_changes_are_paired_and_counted():
    altered = [make_draft(i, CLEAR if i == 1 else d.findings, 0.5 + 0.1 * (i == 1)) for i, d in enumerate(DRAFTS)]
    found = score(REFERENCES, DRAFTS, altered)
    assert found.agreement["findings"].value == pytest.approx(10 / 11, abs=1e-6)
    assert found.agreement["same_findings"].value == pytest.approx(11 / 12, abs=1e-6)
    assert found.agreement["probability_change"].value == pytest.approx(0.1 / 12, abs=1e-6)
    change = found.changes["finding_f1_micro"]
    assert change.value == pytest.approx(10 / 11 - 1, abs=1e-6)
    assert change.low < change.value < change.high == 0


def test_refused_studies_are_counted_and_not_scored():
    found = score(REFERENCES, DRAFTS, [None, *DRAFTS[1:]])
    assert (found.n, found.refused.events, found.refused.n) == (12, 1, 12)
    assert found.agreement["same_findings"].n == 11
    none = score(REFERENCES, DRAFTS, [None] * 12)
    assert none.refused.value == 1 and not none.scores and not none.agreement


def test_probabilities_are_scored_where_there_are_enough_studies():
    names = ("normal", "cardiomegaly", "atelectasis", "pleural_effusion", "emphysema")
    states = [Status.PRESENT, Status.ABSENT] * 12
    references = [make_reference(i, CLEAR, dict.fromkeys(names, s)) for i, s in enumerate(states)]

    def drafts(good, bad):
        return [
            Prediction(
                study_uid=str(i),
                findings=CLEAR,
                impression=None,
                finding_probabilities=dict.fromkeys(names, good if s is Status.PRESENT else bad),
            )
            for i, s in enumerate(states)
        ]

    found = score(references, drafts(0.9, 0.1), drafts(0.1, 0.9))
    assert found.scores["auroc_macro"].value == 0 and found.changes["auroc_macro"].value == -1
    assert found.agreement["probability_change"].value == pytest.approx(0.8)


def test_a_draft_of_another_part_of_the_body_states_other_probabilities():
    one, other = ({"nodule": 0.5, "normal": 0.25}, {"infarct": 0.5, "normal": 0.25})
    before, after = (
        [replace(draft, finding_probabilities=probabilities) for draft in DRAFTS] for probabilities in (one, other)
    )
    found = score(REFERENCES, before, after)
    assert found.agreement["probability_change"].value == pytest.approx(1 / 3)


def test_it_stands_in_json():
    found = score(REFERENCES, DRAFTS, [None, *DRAFTS[1:]])
    assert from_json(Robustness, to_json(found)) == found
