import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.errors import ManifestError
from mmfm.evaluation.controls import constant_report, nearest_neighbour, reference_text, shuffled
from mmfm.evaluation.references import Reference
from mmfm.evaluation.wording import Wording, normalise
from mmfm.report import Sections, Status
from mmfm.text import label_report


def test_the_constant_report_scores_best_against_the_others(row, rows):
    drafts = constant_report(rows[:3], rows[20:60])
    assert [d.study_uid for d in drafts] == [r.study_uid for r in rows[:3]]
    assert len({(d.findings, d.impression) for d in drafts}) == 1
    texts = [normalise(r.report.findings) for r in rows[20:60]]

    def mean(candidate):
        others = [text for i, text in enumerate(texts) if i != candidate]
        return Wording.of([texts[candidate]] * len(others), others).scores(np.ones((1, len(others))))["rouge_l"][0]

    best = max(range(40), key=mean)
    assert mean(texts.index(normalise(drafts[0].findings))) == pytest.approx(mean(best))
    with pytest.raises(ManifestError, match="at least two"):
        constant_report(rows, [rows[0], row("x", None, "Normal.")])


def test_a_constant_report_is_chosen_by_the_sections_compared(row, rows):
    train = [row("a", "Clear lungs.", "Old scar."), row("b", None, "No acute disease.")]
    train += [row("c", "Clear lungs.", "No acute disease."), row("d", "Clear lungs.", "Old fracture.")]
    assert constant_report(rows[:1], train)[0].impression == "Old scar."
    assert constant_report(rows[:1], train, sections=("impression",))[0].impression == "No acute disease."


def test_the_nearest_neighbour_is_by_cosine_and_has_findings(row, rows):
    train = [row("a", "Large heart."), row("b", "Clear lungs."), row("c", None, "Normal.")]
    directions = np.array([[1.0, 0], [0, 1], [1, 1]])
    drafts = nearest_neighbour(
        rows[:3], train, features_NE=np.array([[9.0, 1], [1, 5], [5, 4.9]]), train_features_NE=directions * 7
    )
    assert [d.findings for d in drafts] == ["Large heart.", "Clear lungs.", "Large heart."]
    with pytest.raises(ValueError, match="train_features"):
        nearest_neighbour(rows[:3], train, features_NE=np.ones((3, 2)), train_features_NE=np.ones((2, 2)))
    with pytest.raises(ValueError, match="finite"):
        nearest_neighbour(rows[:1], train, features_NE=np.array([[np.nan, 1]]), train_features_NE=directions)


def test_the_reference_is_copied(rows):
    assert [d.sections for d in reference_text(rows)] == [r.report for r in rows]


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.integers(0, 5))
def test_shuffled_images_are_of_another_patient(patients, seed):
    ids = [str(p) for p in patients]
    if 2 * max(map(ids.count, ids)) > len(ids):
        with pytest.raises(ManifestError, match="more than half"):
            shuffled(ids, np.random.default_rng(seed))
        return
    assignment = shuffled(ids, np.random.default_rng(seed))
    assert sorted(assignment) == list(range(len(ids)))
    assert all(ids[i] != ids[j] for i, j in enumerate(assignment))
    assert assignment.tolist() == shuffled(ids, np.random.default_rng(seed)).tolist()


def test_the_constant_report_of_iu_xray_names_no_finding_and_is_worded_like_published_systems():
    reports = Path(__file__).parents[3] / "shared" / "data" / "iu_xray" / "reports.csv"
    if not reports.is_file():
        pytest.skip("needs the IU X-Ray reports")
    splits: dict[str, list[Reference]] = {"train": [], "val": [], "extra": []}
    with reports.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            report = Sections(findings=row["findings"], impression=row["impression"])
            splits[row["split"]].append(Reference(study_uid=row["uid"], report=report))
    drafts = constant_report(splits["val"], splits["train"])
    assert [f for f in label_report(drafts[0].findings, drafts[0].impression) if f.status is Status.PRESENT] == []
    texts = [normalise(each.report.findings) for each in splits["val"]]
    scores = Wording.of([normalise(d.findings) for d in drafts], texts).scores(np.ones((1, len(texts))))
    assert scores["bleu_4"][0] > 0.13 and scores["rouge_l"][0] > 0.33  # R2Gen, Chen et al. 2020: .165 and .371 on test
