import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from mmfm.evaluation.clinical import OPENI_LABELS, FindingScores, WrongDetails, label_text
from mmfm.evaluation.intervals import patient_resamples, wilson_interval
from mmfm.evaluation.resampling import Resampled
from mmfm.report import Finding, Side, Status
from mmfm.text import OBSERVATIONS, label_report


def _report(**states):
    return tuple(Finding(observation=name, status=Status(status)) for name, status in states.items())


def _values(scores):
    return {name: float(value[0]) for name, value in scores.scores(np.ones((1, len(scores.known_NO)))).items()}


def test_only_present_is_positive():
    references = [_report(edema="present", mass="uncertain"), _report(edema="absent"), ()]
    drafts = [_report(edema="present"), _report(edema="uncertain", nodule="present"), ()]
    scores = FindingScores.against_text(drafts, references)
    values = _values(scores)
    assert values["finding_f1.edema"] == 1
    assert "finding_f1.mass" not in values
    assert values["finding_precision_micro"] == 0.5  # the invented nodule costs, though no reference has one
    assert values["finding_recall_micro"] == 1
    assert values["finding_f1_macro"] == 1
    assert scores.counts()["finding_f1.edema"] == (3, 1)


def test_micro_and_macro_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    reference, draft = generator.random((2, 50, len(OBSERVATIONS))) < 0.2
    scores = FindingScores(
        prefix="finding",
        observations=OBSERVATIONS,
        drafted_NO=draft,
        reference_NO=reference,
        known_NO=np.ones_like(draft),
    )
    values = _values(scores)
    for average in ("micro", "macro"):
        expected = precision_recall_fscore_support(reference, draft, average=average, zero_division=0)
        assert values[f"finding_f1_{average}"] == pytest.approx(expected[2])
    weights = generator.integers(0, 3, size=(1, 50)).astype(float)
    index = np.repeat(np.arange(50), weights[0].astype(int))
    expected = precision_recall_fscore_support(reference[index], draft[index], average="micro")
    resampled = scores.scores(weights)
    kinds = ("precision", "recall", "f1")
    assert [resampled[f"finding_{kind}_micro"][0] for kind in kinds] == pytest.approx(expected[:3])
    assert _values(scores.take(index))["finding_f1_micro"] == pytest.approx(expected[2])


def test_specificity_example_f1_and_the_five():
    references = [_report(edema="present"), _report(atelectasis="present", nodule="present"), (), ()]
    drafts = [_report(edema="present"), _report(nodule="present"), _report(edema="present"), ()]
    values = _values(FindingScores.against_text(drafts, references))
    assert values["finding_specificity.edema"] == pytest.approx(2 / 3)
    assert values["finding_npv.atelectasis"] == pytest.approx(3 / 4)
    assert values["finding_f1_example"] == pytest.approx((1 + 2 / 3 + 0) / 3)  # the fourth study names nothing
    assert values["finding_f1_micro_5"] == pytest.approx(2 / (2 + 2))
    assert values["finding_f1_macro_5"] == pytest.approx((2 / 3 + 0) / 2)


def test_places_and_severities_that_both_texts_state_are_compared():
    reference = label_report("Small left apical pneumothorax. Mild cardiomegaly.", None)
    draft = label_report("Large left basilar pneumothorax. Mild cardiomegaly.", None)
    assert WrongDetails.of([draft], [reference]).counts() == {
        "wrong_side_rate": (1, 0),
        "wrong_place_rate": (1, 1),
        "wrong_severity_rate": (2, 1),
    }


def test_labels_that_nobody_gave_are_left_out():
    drafts = [_report(edema="present"), _report(edema="present"), _report(edema="present", fracture="present")]
    labels = [{"edema": Status.PRESENT}, {"edema": None, "mass": Status.ABSENT}, {"edema": Status.UNCERTAIN}]
    scores = FindingScores.against_labels(drafts, labels)
    assert _values(scores)["label_f1_micro"] == 1
    assert scores.counts()["label_f1.edema"] == (1, 1)
    assert scores.counts()["label_f1_micro"] == (2, 1)
    assert FindingScores.against_labels(drafts, [{}, {}, {}]).scores(np.ones((1, 3))) == {}
    assert set(OPENI_LABELS) <= set(OBSERVATIONS)


def test_saying_nothing_has_recall_0_and_no_precision():
    values = _values(FindingScores.against_text([(), ()], [_report(edema="present"), ()]))
    assert values["finding_f1_micro"] == values["finding_recall_micro"] == 0
    assert np.isnan(values["finding_precision_micro"])


def test_wrong_sides_need_one_side_in_both_texts():
    def sided(side):
        return (Finding(observation="pleural_effusion", status=Status.PRESENT, laterality=side),)

    pairs = [(Side.LEFT, Side.RIGHT), (Side.LEFT, Side.LEFT), (Side.BILATERAL, Side.LEFT), (None, Side.LEFT)]
    sides = WrongDetails.of([sided(a) for a, _ in pairs], [sided(b) for _, b in pairs])
    assert sides.counts() == {"wrong_side_rate": (2, 1)}
    assert sides.scores(np.array([[1.0, 1, 1, 1], [2, 0, 1, 0]]))["wrong_side_rate"].tolist() == [0.5, 1]
    absent = (Finding(observation="pleural_effusion", status=Status.ABSENT, laterality=Side.LEFT),)
    assert WrongDetails.of([absent], [sided(Side.RIGHT)]).scores(np.ones((1, 1))) == {}


def test_a_text_on_the_wrong_side_is_found_through_the_labeller():
    reference = label_report("There is a small left pleural effusion. No pneumothorax.", None)
    draft = label_report("There is a small right pleural effusion. No pneumothorax.", None)
    assert WrongDetails.of([draft], [reference]).counts() == {
        "wrong_side_rate": (1, 1),
        "wrong_severity_rate": (1, 0),
    }
    assert _values(FindingScores.against_text([draft], [reference]))["finding_f1_micro"] == 1


def test_a_share_at_0_or_1_has_the_interval_of_as_many_findings():
    # 60 studies: 3 edemas, all found and none invented; 2 masses, all missed; sides stated twice, both right.
    left, right = (
        Finding(observation="edema", status=Status.PRESENT, laterality=side) for side in (Side.LEFT, Side.RIGHT)
    )
    references = [(left,), (right,), _report(edema="present"), *[_report(mass="present")] * 2, *[()] * 55]
    drafts = [(left,), (right,), _report(edema="present"), *[()] * 57]
    statistics = [FindingScores.against_text(drafts, references), WrongDetails.of(drafts, references)]
    weights = patient_resamples([str(i) for i in range(60)], generator=np.random.default_rng(0))
    found = Resampled.of(statistics, weights).estimates()
    for name, value, trials in (
        ("finding_recall.edema", 1, 3),
        ("finding_precision.edema", 1, 3),
        ("finding_specificity.edema", 1, 57),
        ("finding_recall.mass", 0, 2),
        ("finding_f1.mass", 0, 1),
        ("wrong_side_rate", 0, 2),
    ):
        low, high = wilson_interval(value, trials)
        assert (found[name].value, found[name].low, found[name].high) == (value, round(low, 6), round(high, 6)), name
    assert found["finding_precision.mass"].low is None  # no draft names one


def test_observations_take_part_in_the_studies_of_their_region() -> None:
    found = [
        label_text("There is a 12 mm lesion in the right hepatic lobe.", None, "abdomen"),
        label_text("There is a small left pleural effusion.", None, "chest_radiograph"),
        label_text("There is a small left pleural effusion.", None, "other"),
    ]
    scores = FindingScores.against_text(found, found, ["abdomen", "chest_radiograph", "other"])
    known = {name: scores.known_NO[:, i].tolist() for i, name in enumerate(scores.observations)}
    assert known["liver_lesion"] == [True, False, False]
    assert known["edema"] == [False, True, False]
    assert scores.counts()["finding_f1_micro"] == (2, 2)
    only_volumes = FindingScores.against_text(found[:1], found[:1], ["abdomen"])
    assert "finding_f1_micro_5" not in only_volumes.scores(np.ones((1, 1)))
    nothing = FindingScores.against_text(found[2:], found[2:], ["other"])
    assert nothing.scores(np.ones((1, 1))) == {}
