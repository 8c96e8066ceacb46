import time

import numpy as np
import pytest

from mmfm.evaluation.clinical_errors import ClinicalError, ErrorKind, ErrorRates, clinical_errors
from mmfm.evaluation.references import Reference
from mmfm.report import Sections

NORMAL = "The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax."


def reference(findings, impression=None, *, comparison=None, prior=None):
    report = Sections(findings=findings, impression=impression, comparison=comparison)
    return Reference(study_uid="s", patient_id="p", report=report, prior_study_uid=prior)


def errors(draft, findings, impression=None, **known):
    return clinical_errors(Sections(findings=draft), reference(findings, impression, **known))


def kinds(*arguments, **known):
    return [str(error.kind) for error in errors(*arguments, **known)]


# Draft, reference, and the errors between them.


@pytest.mark.parametrize(
    ("draft", "truth"),
    [
        ("Small right pleural effusion.", "Small left pleural effusion."),
        ("There is a right pneumothorax.", "A left apical pneumothorax is seen."),
        ("Calcified granuloma in the right apex.", "Calcified granuloma in the left apex."),
        ("Status post left shoulder arthroplasty.", "Status post right shoulder arthroplasty."),
        ("There is a left-sided aortic arch.", "There is a right-sided aortic arch."),
        ("Mild rightward tracheal deviation.", "Mild leftward tracheal deviation."),
        ("Left hilar calcified lymph nodes.", "Right hilar calcified lymph nodes."),
        ("Mild levoscoliosis.", "Mild dextroscoliosis."),
        ("RLL opacity.", "LLL opacity."),
        ("Bibasilar opacities, right greater than left.", "Bibasilar opacities, left greater than right."),
        ("Opacities in the left lower and right upper lobes.", "Opacities in the right lower and left upper lobes."),
        ("No left pleural effusion.", "No right pleural effusion."),
        ("Calcified left and left hilar nodes.", "Calcified right and left hilar nodes."),
    ],
)
def test_the_other_side(draft, truth):
    assert kinds(draft, truth) == ["wrong_side"]
    assert set(kinds(f"{NORMAL} {draft}", f"{NORMAL} {truth}")) - {"contradiction"} == {"wrong_side"}


@pytest.mark.parametrize(
    ("draft", "truth"),
    [
        ("Displaced rib fractures.", "No displaced rib fractures."),
        ("There is a pneumothorax.", "There is no pneumothorax."),
        ("There is hyperexpansion with focal consolidation.", "There is hyperexpansion without focal consolidation."),
        ("The nodule is seen.", "The nodule is not seen."),
        ("The heart is enlarged.", "The heart is not enlarged."),
        ("Evidence of tuberculosis.", "No evidence of tuberculosis."),
        ("Positive for free intraperitoneal air.", "Negative for free intraperitoneal air."),
        ("Pneumothorax and no effusion.", "No pneumothorax and no effusion."),
        ("No pneumothorax and effusion.", "No pneumothorax and no effusion."),
        ("The lungs are full of XXXX.", "The lungs are not full of XXXX."),
        ("The visualized bones are abnormal.", "The visualized bones are unremarkable."),
        ("No cavitary lesion is present.", "A cavitary lesion is present."),
        ("The trachea is not midline.", "The trachea is midline."),
        ("The lungs show focal airspace disease.", "The lungs are clear of focal airspace disease."),
        ("The lungs are remarkable for focal airspace disease.", "The lungs are free of focal airspace disease."),
        ("A nodule is visualised.", "A nodule is not visualized."),
        ("Adenopathy is present. No fibrosis.", "No adenopathy or fibrosis."),
        ("Evidence of abnormal airspace opacities.", "No abnormal airspace opacities."),
    ],
)
def test_a_statement_turned_round(draft, truth):
    assert set(kinds(draft, truth)) == {"negation_flip"}
    assert (
        {"negation_flip"}
        <= set(kinds(f"{NORMAL} {draft}", f"{NORMAL} {truth}"))
        <= {
            "negation_flip",
            "contradiction",
        }
    )


@pytest.mark.parametrize(
    "sentence",
    [
        "There is a cavitary lesion in the right apex.",
        "Pneumoperitoneum is present.",
        "Free air is seen under the diaphragm.",
        "Aneurysm of the thoracic aorta.",
        "A cervical rib is present on the left.",
        "Gallstones.",
        "Bullet fragments are seen on the lateral view.",
        "Old healed fracture of the left clavicle.",
        "There is a large hiatal hernia.",
        "Moderate left pleural effusion.",
    ],
)
def test_what_the_reference_does_not_mention_is_invented_and_the_reverse_is_missed(sentence):
    assert set(kinds(f"{NORMAL} {sentence}", NORMAL)) - {"contradiction"} == {"invented_finding"}
    assert kinds(NORMAL, f"{NORMAL} {sentence}") == ["missed_finding"]
    (invented,) = (e for e in errors(f"{NORMAL} {sentence}", NORMAL) if e.kind == "invented_finding")
    assert invented.draft == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "The osseous structures are intact.",
        "The trachea is midline.",
        "There is no free air.",
        "The mediastinal contours are within normal limits.",
        "PA and lateral views of the chest were obtained.",
        "Clinical correlation is recommended.",
        "XXXX.",
        "No acute cardiopulmonary abnormality.",
    ],
)
def test_more_about_the_normal_is_no_error(sentence):
    assert kinds(f"{NORMAL} {sentence}", NORMAL) == kinds(NORMAL, f"{NORMAL} {sentence}") == []


@pytest.mark.parametrize(
    "sentence",
    [
        "Compared to the previous study of last year the appearance has improved.",
        "Interval development of mild vascular prominence.",
        "The heart is smaller than before.",
        "In the meantime the lungs have cleared.",
        "No change since the prior examination.",
        "Stable cardiomediastinal silhouette.",
        "In comparison with the exam of 03/12/2011 there is no change.",
        "The opacity is no longer seen.",
        "The lungs are still clear.",
        "As before, the heart is normal.",
        "The heart size is normal, not significantly changed in the interval.",
        "The heart size is not appreciably different.",
        "Right lung volume greater than left lung volume, unchanged from the prior study.",
        "Stable scoliosis, clinical follow-up is recommended.",
        "No deterioration.",
        "The lungs have returned to their baseline.",
        "Decrease in the vascular congestion.",
        "Radiographic deterioration.",
    ],
)
def test_a_comparison_without_a_prior(sentence):
    assert kinds(f"{sentence} {NORMAL}", NORMAL) == ["invented_comparison"]
    assert kinds(f"{sentence} {NORMAL}", NORMAL, comparison="None available.") == ["invented_comparison"]
    assert "invented_comparison" not in kinds(f"{sentence} {NORMAL}", NORMAL, prior="s0")


@pytest.mark.parametrize(
    "sentence",
    [
        "Sequela of prior granulomatous disease.",
        "Comparison with prior studies is recommended.",
        "There is no prior study for comparison.",
        "Short interval follow-up would be helpful.",
        "The left lung is larger compared to the right.",
        "No prior studies are available for comparison.",
        "If old films are available, comparison is recommended.",
        "Comparison with prior films, if available, would be helpful.",
    ],
)
def test_words_of_comparing_that_compare_with_no_prior(sentence):
    assert "invented_comparison" not in kinds(f"{NORMAL} {sentence}", NORMAL)


def test_a_comparison_that_the_reference_makes_too():
    draft = "The cardiac silhouette is unchanged."
    assert kinds(draft, "Stable cardiac silhouette.") == []
    assert kinds("No interval change.", "Stable cardiac silhouette.") == []
    # The reference compares the heart, so there is a prior; that the effusion has changed is nowhere said.
    assert "invented_comparison" in kinds("The effusion has decreased.", "Stable cardiac silhouette.")
    known = {"comparison": "Chest radiograph of last year."}
    assert "invented_comparison" not in kinds("The effusion has decreased.", "Stable cardiac silhouette.", **known)
    assert "invented_comparison" in kinds(f"{NORMAL} {draft}", NORMAL, **known)


def test_a_new_finding_is_a_finding_and_a_comparison():
    assert kinds(f"{NORMAL} New spiculated nodule.", NORMAL) == ["invented_finding", "invented_comparison"]


@pytest.mark.parametrize(
    ("draft", "truth", "expected"),
    [
        ("Small left pleural effusion.", "Large left pleural effusion.", ["wrong_severity"]),
        ("Mild cardiomegaly.", "The heart is severely enlarged.", ["wrong_severity"]),
        ("Moderate kyphosis of the thoracic spine.", "Mild kyphosis of the thoracic spine.", ["wrong_severity"]),
        ("Small left pleural effusion.", "Tiny left pleural effusion.", []),
        ("Small left pleural effusion.", "Left pleural effusion.", []),
        ("Small left pleural effusion.", "Small to moderate left pleural effusion.", []),
        ("No large effusion.", "No small effusion.", []),
        ("Mild degenerative change of the spine.", "Severe degenerative change of the shoulder.", []),
    ],
)
def test_another_severity(draft, truth, expected):
    assert kinds(draft, truth) == expected


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        ("No pleural effusion. There is a small left pleural effusion.", ["contradiction"]),
        ("There is no pneumothorax. Left apical pneumothorax.", ["contradiction"]),
        ("Hiatal gremlin. No hiatal gremlin.", ["contradiction"]),
        ("No right pleural effusion. Left pleural effusion.", []),
        ("No large pleural effusion. Small left pleural effusion.", []),
        ("No suspicious masses or nodules. Calcified nodule in the left apex.", []),
        ("No displaced rib fracture. Old rib fracture.", []),
        ("No change in the left pleural effusion. Left pleural effusion.", []),
        ("Left base opacity. Left base opacity.", ["repeat"]),
        ("Clear lungs. Clear lungs! 3. Clear lungs.", ["repeat", "repeat"]),
    ],
)
def test_errors_within_the_draft(draft, expected):
    # The reference is the same text: nothing but the draft itself is at fault.
    assert kinds(draft, draft) == expected


@pytest.mark.parametrize(
    ("draft", "truth"),
    [
        (NORMAL, NORMAL),
        ("", ""),
        ("There is cardiomegaly.", "The heart is enlarged."),
        ("Left basilar opacity.", "Consolidation in the left lower lobe."),
        ("Bilateral pleural effusions.", "Left pleural effusion. Right pleural effusion."),
        ("Possible left lower lobe pneumonia.", "Left lower lobe pneumonia."),
        ("The lungs are clear. The heart is normal.", "Normal heart. Clear lungs."),
        ("Calcified granulomas are seen in the right lung.", "There is a right calcified granuloma."),
        ("No effusion or pneumothorax.", "There is no pneumothorax. No pleural effusion."),
        ("Right and left basilar opacities.", "Left and right basilar opacities."),
        ("heart size normal . lungs clear", "Heart size normal. Lungs clear."),
        ("No left effusion.", "No left effusion.\n\nNo pneumothorax."),
    ],
)
def test_the_same_in_other_words_is_no_error(draft, truth):
    assert kinds(draft, truth) == []


def test_a_statement_that_the_draft_denies_as_well_is_invented_not_turned_round():
    found = errors(f"{NORMAL} Large left pneumothorax.", NORMAL)
    assert [error.kind for error in found] == ["invented_finding", "contradiction"]
    assert found[0].reference == "No pleural effusion or pneumothorax."


def test_lungs_called_clear_do_not_make_a_turned_denial_an_invention():
    assert kinds("No effusion. There is CHF. Lungs are clear.", "No effusion or CHF. Lungs are clear.") == [
        "negation_flip"
    ]


def test_what_follows_a_semicolon_is_read_alone():
    truth = "There is mild cardiomegaly."
    assert kinds("There is mild cardiomegaly; dilated stomach with air-fluid level.", truth) == ["invented_finding"]


def test_a_forgotten_full_stop_hides_nothing():
    assert kinds(f"{NORMAL.rstrip('.')} Splenomegaly is noted.", NORMAL) == ["invented_finding"]
    assert kinds(f"Splenomegaly is noted {NORMAL}", NORMAL) == ["invented_finding"]


def test_the_second_finding_of_a_sentence_is_seen():
    found = errors("Small right pleural effusion with pneumothorax.", "Small left pleural effusion.")
    assert {(e.kind, e.observation) for e in found} == {
        ("wrong_side", "pleural_effusion"),
        ("invented_finding", "pneumothorax"),
    }


def test_findings_and_impression_are_read_as_one_text():
    draft = Sections(findings="The lungs are clear.", impression="Right pleural effusion.")
    found = clinical_errors(draft, reference("Left pleural effusion. The lungs are clear."))
    assert found == (
        ClinicalError(
            kind=ErrorKind.WRONG_SIDE,
            observation="pleural_effusion",
            draft="Right pleural effusion.",
            reference="Left pleural effusion.",
        ),
    )


def test_only_the_changed_one_of_two_equal_sentences_is_reported():
    truth = "The left lung is clear. The right lung is clear."
    assert kinds("The left lung is clear. The left lung is clear.", truth) == ["wrong_side", "repeat"]


def test_a_draft_that_stammers_takes_no_time():
    draft = "The heart has " + "slightly " * 3000 + "x. " + "No effusion. Effusion. " * 500
    began = time.process_time()
    found = errors(draft, NORMAL)
    assert time.process_time() - began < 5
    assert sum(error.kind == "repeat" for error in found) == 499


def test_rates_are_sums_over_studies_that_are_only_resampled():
    two = errors("Right effusion. Splenomegaly.", "Left effusion.")
    rates = ErrorRates.of([two, (), ()])
    names = [f"error_rate.{kind}" for kind in ErrorKind]
    once = rates.scores(np.ones((1, 3)))
    assert list(once) == [*names, "error_rate", "reports_with_error"]
    assert once["error_rate.wrong_side"] == once["error_rate.invented_finding"] == pytest.approx(1 / 3)
    assert once["error_rate"] == pytest.approx(2 / 3)
    assert once["reports_with_error"] == pytest.approx(1 / 3)
    weights = np.array([[3.0, 0, 0], [0, 1, 2]])
    assert rates.scores(weights)["error_rate"].tolist() == [2, 0]
    assert rates.take(np.array([0, 0, 1])).scores(np.ones((1, 3)))["error_rate"] == pytest.approx(4 / 3)
    assert rates.counts()["error_rate"] == (3, 2)
    assert rates.counts()["reports_with_error"] == (3, 1)
    empty = ErrorRates.of([])
    assert empty.scores(np.ones((1, 0))) == empty.counts() == {}
