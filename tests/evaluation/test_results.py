import dataclasses
import json
import re

import numpy as np
import pytest

from mmfm.evaluation import Prediction, Scorecard, score_card
from mmfm.evaluation.results import Results, write_results
from mmfm.report import NOTICE


@pytest.fixture
def written(rows, train, provenance, tmp_path):
    drafts = [
        Prediction(study_uid=r.study_uid, findings=s.report.findings, impression="<script>alert(1)</script> Normal.")
        for r, s in zip(rows, rows[::-1], strict=True)
    ]
    card = score_card(
        predictions=drafts,
        references=rows,
        train=train,
        controls={"mean_image": drafts},
        generator=np.random.default_rng(0),
        provenance=provenance,
    )
    write_results(tmp_path / "new" / "out", card, predictions=drafts, references=rows, controls={"mean_image": drafts})
    return tmp_path / "new" / "out", card, tuple(drafts)


def test_the_folder_holds_what_it_takes_to_score_again(written, rows):
    folder, card, drafts = written
    results = Results.read(folder)
    assert results.card == card == Scorecard.read(folder / "scorecard.json")
    assert results.predictions == drafts
    # Sections that are not scored are not written.
    assert results.references == tuple(dataclasses.replace(r, labels=dict(r.labels)) for r in rows)
    names = {path.name for path in folder.iterdir()}
    expected = {"scorecard.json", "report.html", "predictions.jsonl", "references.jsonl", "errors.jsonl"}
    assert names == expected | {"control_mean_image.jsonl"}


def test_each_error_is_a_line_with_its_sentences(written):
    folder, card, _ = written
    errors = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert len(errors) == card.metrics["error_rate"].events > 0
    assert set(errors[0]) == {"study_uid", "kind", "observation", "draft", "reference"}
    assert all(error["draft"] or error["reference"] for error in errors)


def test_the_page_stands_alone_and_shows_what_the_card_says(written):
    folder, card, _ = written
    page = (folder / "report.html").read_text()
    assert NOTICE in page
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?!#)(?:https?:|//|\w)", page.replace('xlink:href="#', ""))
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("<svg") >= 3
    for line in card.coverage.lines():
        assert line in page
    f1 = card.metrics["finding_f1_micro"]
    assert f"{f1.value:.3f} ({f1.low:.3f} to {f1.high:.3f})" in page
    assert "not shown to be better than" in page
    assert "control text only: needs the model" in page
    assert card.policy_sha256 in page


def test_the_same_results_are_the_same_bytes(written, rows, tmp_path):
    folder, card, drafts = written
    write_results(tmp_path / "again", card, predictions=drafts, references=rows, controls={"mean_image": drafts})
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_nothing_to_show(row, provenance, tmp_path):
    references = [row("a", None), row("b", None)]
    drafts = [Prediction(study_uid=name, findings=None, impression=None) for name in ("a", "b")]
    card = score_card(
        predictions=drafts,
        references=references,
        train=[],
        controls={},
        generator=np.random.default_rng(0),
        provenance=provenance,
    )
    assert card.coverage.lines()[0] == "2 of 2 studies scored, 0 of them with drafted text"
    write_results(tmp_path / "out", card, predictions=drafts, references=references, controls={})
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 drafts have no text" in page
    assert "2 references have neither findings nor impression" in page
    assert "probabilities: the drafts state none" in page
