from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmfm.errors import ScopeError
from mmfm.inference.compose import assessed, compose, shown_text
from mmfm.models import Draft
from mmfm.models.checkpoint import Facts, Sensitivity, VolumeFacts
from mmfm.models.processor import StudyPixels
from mmfm.report import Report, Side, Status
from mmfm.study import ViewPosition
from mmfm.text import OBSERVATIONS, label_report

LOW = dict.fromkeys((*OBSERVATIONS, "normal"), 0.1)


def make_draft(findings, impression=None, *, finished=True, probabilities=None):
    return Draft(
        study_uid="1.2",
        probabilities=LOW | (probabilities or {}),
        decisions=(),
        region="chest_radiograph",
        kind=None,
        views=("frontal",),
        findings=findings,
        impression=impression,
        finished=finished,
        num_tokens=12,
        prompt_sha256="0" * 64,
        decoding="greedy",
    )


@pytest.fixture
def report(make_study, facts):
    def make(findings, impression=None, **more):
        return compose(
            make_study({"modality": "DX", "view": ViewPosition.PA, "body_part": "CHEST"}),
            make_draft(findings, impression, **more),
            SimpleNamespace(name="some-checkpoint", sha256="1" * 64, facts=facts),
            pixels=StudyPixels(pixels_SCHW=torch.zeros(1, 1, 8, 8), views_S=torch.tensor([0]), receipts=()),
            scope_notes=("age not verified: not stated",),
            indication="cough",
            seconds=0.5,
        )

    return make


def test_only_a_well_measured_absence_may_be_shown(facts):
    assert assessed(facts) == ("cardiomegaly",)


def test_positive_sentences_are_shown_as_written(report):
    made = report("There is a small left pleural effusion. Degenerative changes of the spine.")
    assert made.sections.findings.startswith(
        "There is a small left pleural effusion. Degenerative changes of the spine."
    )
    [effusion] = [f for f in made.findings if f.observation == "pleural_effusion"]
    assert (effusion.status, effusion.laterality, effusion.probability) == (Status.PRESENT, Side.LEFT, 0.1)


def test_the_number_of_a_list_goes_with_its_sentence(report):
    made = report("There is a small left pleural effusion.", "1. Small left pleural effusion. 2. No pneumothorax.")
    assert "Small left pleural effusion." in made.sections.impression
    assert "2." not in made.sections.impression


def test_negatives_that_were_not_measured_are_withheld_and_listed(report):
    raw = "No pneumothorax. No pulmonary edema. There is a right pleural effusion."
    made = report(raw)
    shown = f"{made.sections.findings} {made.sections.impression}"
    assert "pneumothorax" not in shown
    assert "edema" not in shown
    assert {"pneumothorax", "edema", "nodule", "mass"} <= set(made.not_assessed)
    assert {f.observation for f in made.findings if f.status is Status.ABSENT} == {"cardiomegaly"}
    assert raw in made.provenance.raw_text


@pytest.mark.parametrize(
    "blanket",
    [
        "The lungs are clear.",
        "No acute cardiopulmonary abnormality.",
        "Normal chest.",
        "The heart is normal in size and the lungs are clear.",
        "Osseous structures are intact.",
        "The pulmonary vasculature is within normal limits.",
        "No free air under the diaphragm.",
        "Negative chest.",
    ],
)
def test_blanket_statements_are_withheld(report, blanket):
    made = report(blanket, blanket)
    assert blanket.rstrip(".").lower() not in f"{made.sections.findings} {made.sections.impression}".lower()
    assert made.sections.findings == (
        "No finding above the operating point among those assessed. No cardiomegaly above the operating point."
    )
    assert made.sections.impression == "No finding above the operating point among those assessed."
    assert made.differential == ()
    assert made.differential_note == "empty: no abnormal finding above the operating point"


def test_a_mixed_sentence_keeps_what_it_states(report):
    made = report("Moderate left pleural effusion without pneumothorax.")
    assert made.sections.findings == "Moderate left pleural effusion. No cardiomegaly above the operating point."
    assert made.sections.impression == "Moderate left pleural effusion."


def test_an_uncertain_statement_stays_uncertain_when_it_is_written_again(report):
    made = report("Right lower lobe pneumonia is not excluded.")
    [pneumonia] = [f for f in made.findings if f.observation == "pneumonia"]
    assert pneumonia.status is Status.UNCERTAIN
    assert "Possible" in made.sections.findings


def test_comparisons_are_withheld_since_no_prior_was_given(report):
    made = report("Unchanged small left pleural effusion.")
    assert "nchanged" not in made.sections.findings
    assert "Small left pleural effusion." in made.sections.findings


def test_no_negative_is_shown_against_a_head_above_its_operating_point(report):
    made = report("No cardiomegaly.", probabilities={"cardiomegaly": 0.7})
    assert "cardiomegaly" not in made.sections.findings.lower()
    assert "cardiomegaly" in made.not_assessed


def test_without_a_measured_absence_the_report_says_so():
    facts = Facts(operating_points={"cardiomegaly": 0.5}, sensitivity={})
    findings, impression = shown_text(make_draft("The lungs are clear."), facts)
    assert findings.endswith("No observation was measured well enough to be called absent.")
    assert label_report(findings, impression) == ()


@pytest.mark.parametrize(
    ("findings", "finished", "reason"),
    [("Cardiomegaly. Cardiomegaly.", False, "never ended"), (None, True, "no text")],
)
def test_an_output_that_never_ended_or_is_empty_gives_no_draft(report, findings, finished, reason):
    with pytest.raises(ScopeError, match=reason):
        report(findings, finished=finished)


def test_the_report_says_what_was_read_and_round_trips(report):
    made = report("Cardiomegaly.", probabilities={"cardiomegaly": 0.8, "fracture": 0.9})
    assert "fracture" not in made.finding_probabilities, "no operating point was measured for it"
    assert made.coverage == "frontal only: lateral not read"
    assert made.scope_notes == ("age not verified: not stated",)
    assert made.sections.indication == "cough"
    assert made.provenance.seconds == 0.5
    assert made.finding_probabilities["cardiomegaly"] == 0.8
    assert [d.diagnosis for d in made.differential]
    assert Report.from_json(made.to_json()) == made


SENTENCES = st.sampled_from(
    [
        "The heart is enlarged.",
        "Heart size is normal.",
        "The lungs are clear.",
        "No pleural effusion or pneumothorax.",
        "Right pleural effusion without pneumothorax.",
        "There is no evidence of focal consolidation, edema or nodule.",
        "Left lower lobe opacity may represent atelectasis or pneumonia.",
        "Cardiomediastinal silhouette is unremarkable.",
        "Negative for mass.",
        "Emphysema is not seen.",
        "Costophrenic angles are sharp.",
        "Ribs are intact, with a calcified granuloma in the right apex.",
        "No acute disease.",
        "Normal chest x-ray.",
        "Nodule in the left upper lobe, unchanged from prior.",
    ]
)


@given(
    findings=st.lists(SENTENCES, max_size=6),
    impression=st.lists(SENTENCES, max_size=2),
    measured=st.sets(st.sampled_from(OBSERVATIONS)),
    probable=st.sets(st.sampled_from(OBSERVATIONS)),
)
def test_no_shown_negative_was_not_measured_and_no_positive_is_lost(findings, impression, measured, probable):
    facts = Facts(
        operating_points=dict.fromkeys(OBSERVATIONS, 0.5),
        sensitivity=dict.fromkeys(measured, Sensitivity(value=0.95, positives=10)),
    )
    draft = make_draft(" ".join(findings), " ".join(impression), probabilities=dict.fromkeys(probable, 0.9))
    before = label_report(draft.findings or None, draft.impression or None)
    after = label_report(*shown_text(draft, facts))
    absent = {f.observation for f in after if f.status is Status.ABSENT}
    assert absent <= measured - probable
    stated = {f.observation for f in before if f.status is not Status.ABSENT}
    assert stated == {f.observation for f in after if f.status is not Status.ABSENT}


def test_what_is_counted_on_volumes_is_absent_where_no_lesion_was_found():
    measured = Sensitivity(value=0.95, positives=20)
    facts = Facts(
        operating_points={"emphysema": 0.5},
        sensitivity={"emphysema": measured},  # of pictures: says nothing about volumes
        volumes=VolumeFacts(
            operating_points={"cardiomegaly": 0.5, "emphysema": 0.5},
            lesion_points={"nodule": 0.3},
            sensitivity={"nodule": measured, "cardiomegaly": measured},
        ),
    )
    low = {"nodule": 0.9, "cardiomegaly": 0.1, "emphysema": 0.1}
    draft = replace(make_draft("No emphysema."), region="chest_ct", views=(), probabilities=low)
    assert shown_text(draft, facts)[0].endswith("No cardiomegaly or lung nodule above the operating point.")
    stated = replace(draft, findings="Lung nodule in the right upper lobe measuring 8 mm. Normal heart.")
    assert shown_text(stated, facts)[0] == (
        "Lung nodule in the right upper lobe measuring 8 mm. No cardiomegaly above the operating point."
    )
