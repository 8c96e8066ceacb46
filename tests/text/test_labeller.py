from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mmfm.report import Finding, Side, Status
from mmfm.text import OBSERVATIONS, label_report, states
from mmfm.text.labeller import label_sentences, no_finding

IU_XRAY = Path(__file__).parents[3] / "shared" / "data" / "iu_xray"
PRESENT, ABSENT, UNCERTAIN = Status.PRESENT, Status.ABSENT, Status.UNCERTAIN


def read(text: str) -> dict[str, Finding]:
    return {finding.observation: finding for finding in label_report(text)}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        # denials
        ("No pneumothorax, effusion or focal consolidation.", {"pneumothorax": ABSENT, "pleural_effusion": ABSENT}),
        ("No evidence of pneumonia.", {"pneumonia": ABSENT}),
        ("Negative for pneumothorax or effusion.", {"pneumothorax": ABSENT, "pleural_effusion": ABSENT}),
        ("Emphysema without infiltrate.", {"emphysema": PRESENT, "infiltration": ABSENT}),
        ("Pneumothorax is not identified.", {"pneumothorax": ABSENT}),
        ("Effusion and pneumothorax are not seen.", {"pleural_effusion": ABSENT, "pneumothorax": ABSENT}),
        ("The effusion has resolved.", {"pleural_effusion": ABSENT}),
        ("Resolved left pneumothorax.", {"pneumothorax": ABSENT}),
        ("Pleural effusion: none.", {"pleural_effusion": ABSENT}),
        ("Pneumonia is unlikely.", {"pneumonia": ABSENT}),
        ("Removal of the left chest tube.", {"support_devices": ABSENT}),
        # the reach of a denial ends
        ("No pneumothorax but there is an effusion.", {"pneumothorax": ABSENT, "pleural_effusion": PRESENT}),
        ("No effusion, mild cardiomegaly.", {"pleural_effusion": ABSENT, "cardiomegaly": PRESENT}),
        ("Left effusion is present without pneumothorax.", {"pleural_effusion": PRESENT, "pneumothorax": ABSENT}),
        ("No edema, and the heart is enlarged.", {"edema": ABSENT, "cardiomegaly": PRESENT}),
        ("No effusion; atelectasis is present.", {"pleural_effusion": ABSENT, "atelectasis": PRESENT}),
        # what only looks like a denial
        ("No change in the left effusion.", {"pleural_effusion": PRESENT}),
        ("No increase in the pneumothorax.", {"pneumothorax": PRESENT}),
        ("Not only cardiomegaly but also edema.", {"cardiomegaly": PRESENT, "edema": PRESENT}),
        # doubt
        ("Opacity may represent pneumonia.", {"lung_opacity": PRESENT, "pneumonia": UNCERTAIN}),
        ("Cannot exclude pneumothorax.", {"pneumothorax": UNCERTAIN}),
        ("Pneumonia cannot be excluded.", {"pneumonia": UNCERTAIN}),
        ("Possible left effusion.", {"pleural_effusion": UNCERTAIN}),
        ("Atelectasis versus consolidation.", {"atelectasis": UNCERTAIN, "consolidation": UNCERTAIN}),
        ("Left effusion with possible pneumonia.", {"pleural_effusion": PRESENT, "pneumonia": UNCERTAIN}),
        ("Effusion and pneumonia versus edema.", {"pleural_effusion": PRESENT, "pneumonia": UNCERTAIN}),
        ("Atelectasis, less likely pneumonia.", {"atelectasis": PRESENT, "pneumonia": UNCERTAIN}),
        ("Pneumonia?", {"pneumonia": UNCERTAIN}),
        ("Findings suggest edema.", {"edema": UNCERTAIN}),
        ("No opacity to suggest pneumonia.", {"lung_opacity": ABSENT, "pneumonia": ABSENT}),
        ("Blunting of the left costophrenic angle.", {"pleural_effusion": UNCERTAIN}),
        # what the reader holds for probable is stated
        ("Probable left lower lobe pneumonia.", {"pneumonia": PRESENT}),
        ("Opacity most consistent with atelectasis.", {"lung_opacity": PRESENT, "atelectasis": PRESENT}),
        ("Scarring or atelectasis at the base.", {"atelectasis": PRESENT}),
        # parts of the body
        ("Heart size is normal.", {"cardiomegaly": ABSENT}),
        ("Normal heart size and mediastinal contours.", {"cardiomegaly": ABSENT}),
        ("Heart and mediastinum are normal.", {"cardiomegaly": ABSENT, "enlarged_cardiomediastinum": ABSENT}),
        ("The heart is not enlarged.", {"cardiomegaly": ABSENT}),
        ("The heart is mildly enlarged.", {"cardiomegaly": PRESENT}),
        ("Enlargement of the cardiac silhouette.", {"cardiomegaly": PRESENT}),
        ("No enlargement of the heart.", {"cardiomegaly": ABSENT}),
        ("The mediastinum is widened.", {"enlarged_cardiomediastinum": PRESENT}),
        ("Lungs are clear.", {"consolidation": ABSENT, "lung_opacity": ABSENT}),
        ("Costophrenic sulci are sharp.", {"pleural_effusion": ABSENT}),
        ("No acute cardiopulmonary abnormality.", {"pneumonia": ABSENT, "edema": ABSENT}),
        # none of ours
        ("Pericardial effusion is present.", {"pleural_effusion": None}),
        ("Subcutaneous emphysema.", {"emphysema": None}),
        ("Degenerative changes of the spine.", dict.fromkeys(OBSERVATIONS)),
        # one word, two observations
        ("Large hydropneumothorax.", {"pleural_effusion": PRESENT, "pneumothorax": PRESENT}),
    ],
)
def test_status(sentence: str, expected: dict[str, Status | None]) -> None:
    found = states(label_report(sentence))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Small left pleural effusion.", {"pleural_effusion": Side.LEFT}),
        ("Effusion on the right.", {"pleural_effusion": Side.RIGHT}),
        ("Bibasilar atelectasis.", {"atelectasis": Side.BILATERAL}),
        ("Bilateral effusions, left greater than right.", {"pleural_effusion": Side.BILATERAL}),
        ("Left effusion. Right effusion.", {"pleural_effusion": Side.BILATERAL}),
        ("Moderate left and small right effusions.", {"pleural_effusion": Side.BILATERAL}),
        ("Right upper and left lower lobe consolidation.", {"consolidation": Side.BILATERAL}),
        ("Left effusion and atelectasis.", {"pleural_effusion": Side.LEFT, "atelectasis": Side.LEFT}),
        ("Effusion and atelectasis on the left.", {"pleural_effusion": Side.LEFT, "atelectasis": Side.LEFT}),
        (
            "Atelectasis in the left base and right effusion.",
            {"atelectasis": Side.LEFT, "pleural_effusion": Side.RIGHT},
        ),
        ("Left effusion with edema.", {"pleural_effusion": Side.LEFT, "edema": None}),
        ("Right lower lobe opacity representing pneumonia.", {"lung_opacity": Side.RIGHT, "pneumonia": Side.RIGHT}),
        ("No left effusion. Right effusion is large.", {"pleural_effusion": Side.RIGHT}),
        ("The left lung is clear and there is a right effusion.", {"pleural_effusion": Side.RIGHT}),
        ("No pneumothorax, but there is a right effusion.", {"pleural_effusion": Side.RIGHT}),
        ("Left PICC with its tip in the right atrium.", {"support_devices": Side.LEFT}),
        ("Left cardiomegaly.", {"cardiomegaly": None}),
        ("Lingular consolidation.", {"consolidation": Side.LEFT}),
        ("Opacity in the middle lobe.", {"lung_opacity": Side.RIGHT}),
        ("Consolidation obscures the right heart border.", {"consolidation": Side.RIGHT}),
        ("Opacity along the left heart border.", {"lung_opacity": Side.LEFT}),
        ("Pleural effusions, larger on the left.", {"pleural_effusion": Side.BILATERAL}),
        ("Airspace disease, worse on the right.", {"lung_opacity": Side.BILATERAL}),
        ("Right heart catheter and effusion.", {"pleural_effusion": None}),
        ("Effusion.", {"pleural_effusion": None}),
    ],
)
def test_side(sentence: str, expected: dict[str, Side | None]) -> None:
    found = read(sentence)
    assert {name: found[name].laterality for name in expected} == expected


def test_place_severity_count_and_evidence() -> None:
    text = "Heart is normal. There are two nodules in the left upper lobe.  Small right apical pneumothorax."
    found = read(text)
    nodule, pneumothorax = found["nodule"], found["pneumothorax"]
    assert (nodule.location, nodule.count, nodule.laterality) == ("upper lobe", 2, Side.LEFT)
    assert nodule.evidence == "There are two nodules in the left upper lobe."
    assert (pneumothorax.location, pneumothorax.severity) == ("apex", "small")
    assert read("A 2 cm nodule.")["nodule"].count is None
    assert read("The right effusion is large.")["pleural_effusion"].severity == "large"


def test_present_counts_over_uncertain_over_absent() -> None:
    assert read("No pneumonia. Possible pneumonia.")["pneumonia"].status is UNCERTAIN
    assert read("Possible pneumonia. Pneumonia. No pneumonia.")["pneumonia"].status is PRESENT
    merged = read("Possible right effusion. Left effusion.")["pleural_effusion"]
    assert (merged.status, merged.laterality, merged.evidence) == (PRESENT, Side.LEFT, "Left effusion.")


def test_both_sections_are_read() -> None:
    found = states(label_report("No effusion.", "1. Left lower lobe pneumonia."))
    assert (found["pleural_effusion"], found["pneumonia"]) == (ABSENT, PRESENT)
    assert label_report(None) == ()
    assert label_report("", None) == ()


def test_no_finding_is_derived() -> None:
    assert no_finding(label_report("Heart normal. Lungs are clear. Left PICC."))
    assert not no_finding(label_report("Possible effusion."))
    assert "no_finding" not in OBSERVATIONS
    assert len(OBSERVATIONS) == 20


def test_findings_come_in_the_order_of_the_vocabulary() -> None:
    names = [f.observation for f in label_report("Nodule. Effusion. Atelectasis.")]
    assert names == sorted(names, key=OBSERVATIONS.index)


def test_agreement_on_the_split_that_it_was_built_on() -> None:
    if not IU_XRAY.is_dir():
        pytest.skip("needs the IU X-Ray reports")
    names = {"Effusion": "pleural_effusion"}
    with (IU_XRAY / "labels_openi14.csv").open(encoding="utf-8", newline="") as file:
        labels = {
            row["uid"]: {names.get(k, k.lower()) for k, v in row.items() if v == "1" and k != "normal"}
            for row in csv.DictReader(file)
        }
    both = stated = labelled = 0
    with (IU_XRAY / "reports.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "train":
                found = {n for n, s in states(label_report(row["findings"], row["impression"])).items() if s is PRESENT}
                found &= {"atelectasis", "cardiomegaly", "pleural_effusion", "pneumonia", "pneumothorax", "edema"}
                truth = labels[row["uid"]]
                truth &= {"atelectasis", "cardiomegaly", "pleural_effusion", "pneumonia", "pneumothorax", "edema"}
                both, stated, labelled = both + len(found & truth), stated + len(found), labelled + len(truth)
    assert 2 * both / (stated + labelled) > 0.94


WHOLE = """EXAMINATION: CHEST (PA AND LAT)

INDICATION: Rule out pneumonia, history of pneumothorax.

COMPARISON: Study of left effusion.

FINDINGS: Small right pleural effusion.
The heart is enlarged.

IMPRESSION:
1. No pneumothorax.
2. Right pleural effusion.
"""


def test_of_a_whole_report_only_findings_and_impression_are_read() -> None:
    found = read(WHOLE)
    assert {name: finding.status for name, finding in found.items()} == {
        "cardiomegaly": PRESENT,
        "pleural_effusion": PRESENT,
        "pneumothorax": ABSENT,
    }
    assert found["pleural_effusion"].laterality is Side.RIGHT
    assert all(str(finding.evidence) in WHOLE for finding in found.values())


def test_a_text_with_no_other_heading_than_a_comparison_is_read_all_the_same() -> None:
    assert "pleural_effusion" in read("COMPARISON: None. There is a left effusion.")
    assert read("INDICATION: Left effusion.") == {}


def test_sentences_one_by_one() -> None:
    text = "INDICATION: Edema. FINDINGS: Left effusion. Normal hila. Right effusion without pneumothorax."
    sentences = label_sentences(text)
    assert [sentence for sentence, _ in sentences] == [
        "Left effusion.",
        "Normal hila.",
        "Right effusion without pneumothorax.",
    ]
    assert [[(f.observation, f.laterality) for f in found] for _, found in sentences] == [
        [("pleural_effusion", Side.LEFT)],
        [],
        [("pleural_effusion", Side.RIGHT), ("pneumothorax", None)],
    ]
    assert {f.observation for _, found in sentences for f in found} == set(read(text))
    assert all(f.evidence == sentence for sentence, found in sentences for f in found)
    assert label_sentences("") == []
