import json
import os

import pytest

from mmfm.errors import ConfigError, ManifestError
from mmfm.evaluation import Prediction
from mmfm.evaluation.files import chosen, evaluate_files, named_files, read_sources, read_thresholds
from mmfm.evaluation.results import check_folder, write_results

DRAFT = Prediction(study_uid="s0", findings="The heart is enlarged.", impression=None)


@pytest.fixture
def write(tmp_path):
    """Writes JSON Lines and returns the path."""

    def call(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return call


@pytest.fixture
def references(write):
    """12 studies of 12 patients."""
    texts = ["The heart is enlarged.", "The heart is normal.", "There is a left pleural effusion."]
    rows = [
        {"study_uid": f"s{i}", "patient_id": f"p{i}", "findings": texts[i % 3], "impression": None} for i in range(12)
    ]
    return write("references.jsonl", rows)


def drafts(count=12, **more):
    return [
        {"study_uid": f"s{i}", "findings": "The heart is normal.", "impression": None, **more} for i in range(count)
    ]


def manifest(write, name="manifest.jsonl", splits=("train", "train", "val", "val")):
    row = {"source": "made_up", "series": [{"series_uid": "x", "path": "a.png"}]}
    reports = {"report": {"findings": "The heart is normal."}}
    return write(
        name,
        [
            {**row, **reports, "study_uid": f"{split}{i}", "patient_id": f"{split}{i}", "split": split}
            for i, split in enumerate(splits)
        ],
    )


def test_a_file_of_drafts_becomes_a_folder_of_results(write, references, tmp_path):
    card = evaluate_files(
        predictions=write("mine.jsonl", drafts(10)),
        sources=read_sources(references=references),
        controls={"mean_image": write("mean.jsonl", drafts())},
        families=["findings"],
        out=tmp_path / "a folder" / "out",
        features=lambda: {"not_run": {"nearest_neighbour": "no encoder"}},
    )
    assert (card.coverage.studies, card.coverage.missing, card.provenance.experiment) == (12, 2, "mine")
    assert card.controls_not_run["nearest_neighbour"] == "no encoder"
    assert set(card.differences["mean_image"]) == {"finding_f1_micro", "finding_f1_macro"} & set(card.metrics)
    assert {path.name for path in (tmp_path / "a folder" / "out").iterdir()} == {
        "scorecard.json",
        "report.html",
        "predictions.jsonl",
        "references.jsonl",
        "errors.jsonl",
        "control_mean_image.jsonl",
    }


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ({"predictions": drafts(13)}, "predictions: .* 1 of them unknown"),
        ({"mean_image": [{**each, "study_uid": "other"} for each in drafts(1)]}, "mean_image: .* 1 of them unknown"),
        ({"thresholds": [{"edema": 0.5}]}, "1 of 1 of labels without any"),
    ],
)
def test_what_is_wrong_is_said_before_what_takes_long_and_nothing_is_written(
    write, references, tmp_path, broken, found
):
    def features():
        raise AssertionError("looked at the images first")

    files = {name: write(f"{name}.jsonl", rows) for name, rows in {"predictions": drafts(), **broken}.items()}
    with pytest.raises((ConfigError, ManifestError), match=found):
        evaluate_files(
            predictions=files["predictions"],
            sources=read_sources(references=references),
            controls={"mean_image": files["mean_image"]} if "mean_image" in files else {},
            thresholds=files.get("thresholds"),
            out=tmp_path / "out",
            features=features,
        )
    assert not (tmp_path / "out").exists()


def test_where_writing_ends_early_there_is_no_card_of_an_earlier_run(write, references, tmp_path, monkeypatch):
    sources, out = read_sources(references=references), tmp_path / "out"
    words = {"sources": sources, "families": ["findings"], "out": out, "predictions": write("p.jsonl", drafts())}
    card = evaluate_files(**words)
    assert (out / "scorecard.json").is_file()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("mmfm.evaluation.results.write_references", full)
    with pytest.raises(OSError, match="No space"):
        write_results(out, card, predictions=[DRAFT], references=sources.references, controls={})
    assert not (out / "scorecard.json").exists()
    assert not (out / "report.html").exists()


def test_texts_and_groups_of_any_kind_make_a_page_that_runs_and_loads_nothing(write, tmp_path):
    text = "<script>alert(1)</script><img src=x> {{ 7 * 7 }} 心影增大 The heart is enlarged. \ud800"
    rows = [
        {"study_uid": f"s{i}", "findings": "Normal.", "impression": None, "sex": ("$\\frac$ 女" * 20, "M")[i % 2]}
        for i in range(12)
    ]
    evaluate_files(
        predictions=write("p.jsonl", [{**each, "findings": text} for each in drafts()]),
        sources=read_sources(references=write("r.jsonl", rows)),
        name=text,
        families=["findings", "errors"],
        out=tmp_path / "out",
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    for word in ("<script", "<img", "\ud800", "<link", "@import"):
        assert word not in page


def test_references_come_from_a_file_or_a_manifest(write, references):
    of_file = read_sources(references=references, train_references=write("t.jsonl", [{**r} for r in drafts(2)]))
    assert (len(of_file.references), len(of_file.train), of_file.data) == (12, 2, "references")
    path = manifest(write)
    of_manifest = read_sources(manifest=path, split="val", train_manifest=path)
    assert [len(of_manifest.references), len(of_manifest.train), of_manifest.data] == [2, 2, "made_up val"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "found neither"),
        (["references", "manifest"], "found both"),
        (["manifest"], "expected --split"),
        (["references", "train_manifest", "train_references"], "one of --train-manifest and --train-references"),
    ],
)
def test_sources_that_contradict_each_other_are_refused(references, words, found):
    with pytest.raises(ConfigError, match=found):
        read_sources(**dict.fromkeys(words, references))


def test_a_patient_without_a_name_is_no_patient(write):
    rows = [{**each, "patient_id": ""} for each in drafts(2)]
    assert [r.patient_id for r in read_sources(references=write("r.jsonl", rows)).references] == [None, None]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[" * 100_000, "nested too deeply"),
        (json.dumps({"secret-1": {"findings": "", "impression": ""}}), "no field study_uid"),
        (json.dumps({"study_uid": "1", "findings": "", "impression": "", "x" * 9000: 1}), "unknown fields"),
    ],
)
def test_a_bad_line_is_one_short_message_without_its_keys(tmp_path, text, found):
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(ManifestError, match=found) as caught:
        read_sources(references=tmp_path / "r.jsonl")
    assert len(str(caught.value)) < 600
    assert "secret" not in str(caught.value)


def test_names_are_chosen_once_and_in_the_order_of_all():
    assert chosen("--sections", " impression, findings,impression", ("findings", "impression")) == (
        "findings",
        "impression",
    )
    for words in ("", ",", "findings,other"):
        with pytest.raises(ConfigError, match="--sections: expected names among findings, impression"):
            chosen("--sections", words, ("findings", "impression"))


def test_controls_are_names_with_files(tmp_path):
    assert named_files("--control", [f"mean_image={tmp_path}/a=b.jsonl"]) == {"mean_image": tmp_path / "a=b.jsonl"}
    bad = (["a"], ["a="], ["=b"], ["../a=b"], ["a=b", "a=c"], ["drafts=b"], ["reference_text=b"], ["a" * 41 + "=b"])
    for words in bad:
        with pytest.raises(ConfigError, match="--control: expected NAME=FILE"):
            named_files("--control", words)


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "[]", "{}", '{"edema": 2}', '{"edema": NaN}', '{"edema": true}', '{"other": 0.1}']
)
def test_thresholds_are_numbers_of_labels_that_the_drafts_state(tmp_path, text):
    stated = [Prediction(study_uid="1", findings=None, impression=None, finding_probabilities={"edema": 0.5})]
    path = tmp_path / "thresholds.json"
    path.write_text('\ufeff{"edema": 0.3}', encoding="utf-8")
    assert read_thresholds(path, stated) == {"edema": 0.3}
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"thresholds\.json: expected"):
        read_thresholds(path, stated)


def test_a_folder_that_cannot_be_written_into_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(ConfigError, match="--out: expected a folder"):
            check_folder(out)
    check_folder(tmp_path / "new" / "out")
    assert (tmp_path / "new" / "out").stat().st_mode & 0o077 == 0  # it will hold texts of studies
    assert os.listdir(tmp_path / "new" / "out") == []
