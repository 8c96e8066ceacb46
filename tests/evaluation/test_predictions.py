import json

import pytest

from mmfm.errors import ManifestError
from mmfm.evaluation import Prediction, read_predictions, write_predictions
from mmfm.evaluation.predictions import in_order

DRAFT = Prediction(study_uid="1", findings="Clear.", impression=None)
LINE = {"study_uid": "1", "findings": "Clear.", "impression": None}


def test_a_file_gives_back_what_was_written(tmp_path):
    drafts = (
        DRAFT,
        Prediction(study_uid="2", findings="a\u2028b\n", impression="é\ud800", finding_probabilities={"edema": 0.25}),
    )
    write_predictions(drafts, tmp_path / "predictions.jsonl")
    assert read_predictions(tmp_path / "predictions.jsonl") == drafts
    assert [f.name for f in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert "finding_probabilities" not in json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{", "not JSON"),
        ("[]", "list"),
        ("", "not JSON"),
        (json.dumps({"study_uid": "1", "findings": ""}), "no field impression"),
        (json.dumps({**LINE, "finding": ""}), "unknown fields"),
        (json.dumps({**LINE, "study_uid": 1}), "study_uid"),
        (json.dumps({**LINE, "findings": ["Clear."]}), "findings: expected text or null, found list"),
        (json.dumps({**LINE, "finding_probabilities": [0.1]}), "finding_probabilities"),
        (json.dumps({**LINE, "finding_probabilities": {"edema": 1.5}}), "found 1.5"),
        (json.dumps({**LINE, "finding_probabilities": {"edema": True}}), "found True"),
        (json.dumps({**LINE, "finding_probabilities": {"edema": float("nan")}}), "found nan"),
    ],
)
def test_a_bad_line_is_one_message_with_its_number(tmp_path, line, found):
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps({**LINE, "study_uid": "0"}) + "\n" + line + "\n")
    with pytest.raises(ManifestError, match="line 2") as caught:
        read_predictions(path)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absent_empty_and_repeated(tmp_path):
    path = tmp_path / "predictions.jsonl"
    with pytest.raises(ManifestError, match="No such file"):
        read_predictions(path)
    path.write_text("")
    with pytest.raises(ManifestError, match="found no line"):
        read_predictions(path)
    write_predictions([DRAFT, DRAFT], path)
    with pytest.raises(ManifestError, match="line 2: expected one line a study; found the study of line 1 again"):
        read_predictions(path)


def test_predictions_follow_the_references(row):
    other = Prediction(study_uid="2", findings="Large heart.", impression=None)
    references = [row("2", "x"), row("1", "x")]
    assert in_order([DRAFT, other], references) == (other, DRAFT)
    assert in_order([DRAFT], references) == (None, DRAFT)
    with pytest.raises(ManifestError, match=r"mean_image.*2 studies, 1 of them unknown"):
        in_order([DRAFT, Prediction(study_uid="3", findings="", impression="")], references, where="mean_image")
    with pytest.raises(ManifestError, match="1 lines of a study again"):
        in_order([DRAFT, DRAFT], references)
