import dataclasses
import json

import numpy as np
import pytest

from mmfm.errors import ManifestError
from mmfm.evaluation import Prediction, score_card
from mmfm.evaluation.comparison import compare, write_comparison
from mmfm.evaluation.probabilities import MACRO_LABELS
from mmfm.evaluation.results import write_results
from mmfm.report import Status


@pytest.fixture
def folder(rows, train, provenance, tmp_path):
    """Writes the results of drafts that are right in a share of the studies, with probabilities that follow them."""

    def write(name, share, seed, references=rows):
        generator = np.random.default_rng(seed)
        drafts = []
        for i, reference in enumerate(references):
            source = reference if generator.random() < share else references[-1 - i]
            probabilities = {
                label: float(0.5 * (state == "present") + 0.5 * generator.random())
                for label, state in source.labels.items()
            }
            drafts.append(
                Prediction(
                    study_uid=reference.study_uid,
                    findings=source.report.findings,
                    impression=source.report.impression,
                    finding_probabilities=probabilities,
                )
            )
        card = score_card(
            predictions=drafts,
            references=references,
            train=train,
            controls={},
            generator=generator,
            provenance=dataclasses.replace(provenance, experiment=name),
        )
        out = tmp_path / name
        write_results(out, card, predictions=drafts, references=references, controls={})
        return out

    return write


def _compared(a, b, **more):
    return compare(a, b, generator=np.random.default_rng(0), **more)


def test_a_better_system_is_found_and_the_order_does_not_matter(folder):
    good, poor = folder("good", 0.95, 1), folder("poor", 0.4, 2)
    found, turned = _compared(good, poor), _compared(poor, good)
    assert (found.a, found.studies, found.patients) == ("good (good)", 120, 100)
    for metric in ("finding_f1_micro", "bleu_4", "rouge_l", "cider_d", "error_rate"):
        assert found.metrics[metric].verdict == "A is better"
        assert turned.metrics[metric].verdict == "B is better"
        assert found.metrics[metric].difference == pytest.approx(-turned.metrics[metric].difference, abs=1e-6)
        assert found.metrics[metric].p_holm < 0.05
    assert found.metrics["error_rate"].difference < 0  # fewer errors are better
    assert "A is better" in found.to_text()


def test_the_same_drafts_differ_by_nothing(folder):
    same = _compared(folder("one", 0.7, 1), folder("two", 0.7, 1))
    for each in same.metrics.values():
        assert (each.difference, each.p_holm, each.verdict) == (0, 1, "no difference shown")


def test_p_is_that_of_all_exchanges(folder, rows):
    # Of 8 patients all 256 exchanges can be taken; the drawn p has to come near theirs.
    few = rows[:8]
    a, b = folder("a", 0.9, 3, few), folder("b", 0.3, 4, few)
    p = {name: each.p_holm for name, each in _compared(a, b, rounds=4000).metrics.items()}["rouge_l"]
    cards = [json.loads((folder / "scorecard.json").read_text()) for folder in (a, b)]
    assert cards[0]["metrics"]["rouge_l"]["value"] != cards[1]["metrics"]["rouge_l"]["value"]
    from mmfm.evaluation.per_study import Compared
    from mmfm.evaluation.predictions import in_order
    from mmfm.evaluation.results import Results

    each = []
    for place in (a, b):
        results = Results.read(place)
        compared = Compared.of(results.references, families=("wording",))
        (wording,) = compared.statistics(in_order(results.predictions, results.references))
        each.append(wording.each()["rouge_l"])
    difference = each[0] - each[1]
    signs = np.array(np.meshgrid(*[[1, -1]] * 8)).reshape(8, -1)
    exact = (np.abs(difference @ signs) >= abs(difference.sum()) - 1e-12).mean()
    compared_scores = len(_compared(a, b).metrics)
    assert p <= min(1, exact * compared_scores) + 0.05
    assert p >= exact - 0.03


def test_other_references_are_refused(folder, rows):
    changed = [dataclasses.replace(rows[0], patient_id="somebody else"), *rows[1:]]
    with pytest.raises(ManifestError, match="scored against the same references"):
        _compared(folder("a", 0.9, 1), folder("b", 0.9, 1, changed))
    with pytest.raises(ManifestError, match=r"scorecard\.json"):
        _compared(folder("c", 0.9, 1), "nowhere")


def test_cards_of_other_sections_or_of_a_hand_are_refused(folder):
    one, two = folder("a", 0.9, 1), folder("b", 0.9, 2)
    value = json.loads((two / "scorecard.json").read_text())
    other = ((["impression"], "the same sections"), ("findings", "wording.sections"), ([1], "wording.sections"))
    for sections, message in other:
        value["policy"]["wording"]["sections"] = sections
        (two / "scorecard.json").write_text(json.dumps(value))
        with pytest.raises(ManifestError, match=message):
            _compared(one, two)


def test_a_comparison_is_a_file(folder, tmp_path):
    comparison = _compared(folder("a", 0.9, 1), folder("b", 0.4, 2))
    write_comparison(comparison, tmp_path / "comparison.json")
    value = json.loads((tmp_path / "comparison.json").read_text())
    assert value["metrics"]["bleu_4"]["verdict"] == comparison.metrics["bleu_4"].verdict
    assert value["rounds"] == 1000


@pytest.fixture
def probes(rows, train, provenance, tmp_path):
    """Writes the results of systems that state probabilities alone, of other labels and in another order."""
    generator = np.random.default_rng(0)
    states = generator.random((len(rows), len(MACRO_LABELS))) < 0.3
    references = [
        dataclasses.replace(
            row,
            labels={
                name: Status.PRESENT if present else Status.ABSENT
                for name, present in zip(MACRO_LABELS, here, strict=True)
            },
        )
        for row, here in zip(rows, states.tolist(), strict=True)
    ]

    def write(name, names, lean, text=None):
        drafts = [
            Prediction(
                study_uid=row.study_uid,
                findings=text,
                impression=None,
                finding_probabilities={
                    label: lean * (row.labels.get(label) == "present") + (1 - lean) * generator.random()
                    for label in names
                },
            )
            for row in references
        ]
        card = score_card(
            predictions=drafts,
            references=references,
            train=train,
            controls={},
            generator=generator,
            provenance=provenance,
            families=("probabilities",),
        )
        write_results(tmp_path / name, card, predictions=drafts, references=references, controls={})
        return tmp_path / name

    return write


def test_probabilities_are_compared_on_the_labels_of_both(probes):
    a = probes("a", [*MACRO_LABELS, "edema"], 0.5)
    b = probes("b", MACRO_LABELS[::-1], 0.1, text="No pneumothorax.")
    found = _compared(a, b)
    assert set(found.metrics) == {"auroc_macro"}
    assert found.metrics["auroc_macro"].verdict == "A is better"
    assert {"bleu_4", "finding_f1_micro", "error_rate"} <= set(found.not_compared)
    assert "not compared, one of the two has none: finding_f1_micro" in found.to_text()


def test_the_scale_of_probabilities_does_not_matter(probes):
    a, b = probes("a", MACRO_LABELS, 0.2), probes("b", MACRO_LABELS, 0.1)
    lines = [json.loads(line) for line in (b / "predictions.jsonl").read_text().splitlines()]
    same = _compared(a, b).metrics["auroc_macro"]
    for line in lines:
        line["finding_probabilities"] = {name: p**8 for name, p in line["finding_probabilities"].items()}
    (b / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _compared(a, b).metrics["auroc_macro"] == same
