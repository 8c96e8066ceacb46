from __future__ import annotations

import json

import pytest

from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.errors import ManifestError

QUESTION = {
    "qid": 9,
    "file": "a.jpg",
    "organ": "CHEST",
    "question": " Is there  an effusion?",
    "answer": "Yes",
    "answer_type": "CLOSED",
    "question_type": "PRES",
    "phrase_type": "freeform",
    "original_split": "train",
}
COLUMNS = ("file", "organ", "width", "height", "orig_width", "orig_height", "medpix2_case")


@pytest.fixture
def prepare(load):
    return load("vqa_rad")


@pytest.fixture
def write(tmp_path, jpeg, write_tar, write_csv):
    def write(files, *, questions=None, medpix2=(), pictures=None):
        source = tmp_path / "source"
        source.mkdir()
        images = [{"file": f, "organ": "CHEST", "medpix2_case": "MPX1" if f in medpix2 else ""} for f in files]
        if questions is None:
            questions = [QUESTION | {"file": file, "qid": n} for n, file in enumerate(files)]
        write_csv(source / "images.csv", images, COLUMNS)
        (source / "qa.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
        write_tar(source / "images.tar", pictures or {file: jpeg(n) for n, file in enumerate(files)})
        return source

    return write


def test_an_image_is_a_study_with_all_its_questions(tmp_path, prepare, write, jpeg):
    questions = [
        QUESTION,
        QUESTION | {"qid": 12, "file": "b.jpg"},
        QUESTION
        | {"qid": 10, "question": "Where?", "answer": "left", "answer_type": "OPEN", "question_type": "PRSE, POS"}
        | {"phrase_type": "para", "original_split": "test"},
    ]
    prepare.prepare(write(["a.jpg", "b.jpg"], questions=questions, medpix2=["a.jpg"]), tmp_path / "out", expect=False)
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    a, b = manifest.rows
    assert (a.study_uid, a.patient_id, a.source) == ("vqa_rad-a", "vqa_rad-a", "vqa_rad")
    assert [q.question_id for q in a.questions] == ["vqa_rad-9", "vqa_rad-10"]
    closed, open_ = a.questions
    assert (closed.question, closed.answer, closed.kind) == ("Is there an effusion?", "Yes", "closed")
    assert (open_.kind, open_.question_types, open_.organ) == ("open", ("PRES", "POS"), "CHEST")
    assert (a.truth, b.truth) == ({"medpix2_case": "MPX1"}, None)
    assert manifest.path(b.series[0]).read_bytes() == jpeg(1)
    assert manifest.study(a).series[0].instances


def test_the_split_is_by_image_and_does_not_change(tmp_path, prepare, write):
    files = [f"synpic{n}.jpg" for n in range(100)]
    questions = [QUESTION | {"qid": 2 * n + i, "file": f} for n, f in enumerate(files) for i in range(2)]
    prepare.prepare(write(files, questions=questions), tmp_path / "out", expect=False)
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    train, val = manifest.split("train"), manifest.split("val")
    assert 10 <= len(val) <= 30
    assert {row.series[0].sha256 for row in train}.isdisjoint(row.series[0].sha256 for row in val)
    assert all(len(row.questions) == 2 for row in manifest.rows)
    assert [prepare.split_of(f"synpic{n}.jpg") for n in range(4)] == [row.split for row in manifest.rows[:4]]
    assert prepare.split_of("synpic9.jpg") == "val", "a constant of the published split"


def test_two_slices_of_one_patient_are_in_one_split(tmp_path, prepare, write):
    prepare.prepare(write(["synpic39086.jpg", "synpic39088.jpg"]), tmp_path / "out", expect=False)
    first, second = read_manifest(tmp_path / "out" / "manifest.jsonl").rows
    assert (first.patient_id, first.split) == (second.patient_id, second.split)
    assert prepare.split_of("synpic39088.jpg") != first.split, "their names alone would part them"


def test_images_that_another_source_has_too_are_all_trained_on(tmp_path, prepare, write):
    files = [f"synpic{n}.jpg" for n in range(30)]
    prepare.prepare(write(files, medpix2=files), tmp_path / "out", expect=False)
    assert {row.split for row in read_manifest(tmp_path / "out" / "manifest.jsonl").rows} == {"train"}


def test_one_picture_under_two_names_in_both_splits_is_refused(tmp_path, prepare, write, jpeg):
    files = [f"synpic{n}.jpg" for n in range(30)]
    with pytest.raises(ManifestError, match="each picture in one split"):
        prepare.prepare(write(files, pictures=dict.fromkeys(files, jpeg(0))), tmp_path / "out", expect=False)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "changes",
    [
        {"organ": "LEG"},
        {"answer_type": "YES"},
        {"question_type": "WHY"},
        {"answer": " "},
        {"file": "c.jpg"},
        {"question": None},
    ],
)
def test_what_the_format_does_not_know_is_refused_by_its_line(tmp_path, prepare, write, changes):
    source = write(["a.jpg"], questions=[QUESTION, QUESTION | {"qid": 10} | changes])
    with pytest.raises(ManifestError, match=r"qa\.jsonl line 2"):
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_an_image_without_questions_is_refused(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match="questions about every image"):
        prepare.prepare(write(["a.jpg", "b.jpg"], questions=[QUESTION]), tmp_path / "out", expect=False)


def test_other_counts_are_refused(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match="images train 222; found"):
        prepare.prepare(write(["a.jpg"]), tmp_path / "out", expect=True)


def test_the_published_folder_gives_the_numbers_of_the_card(tmp_path, prepare, shared_data):
    source = shared_data / "vqa_rad"
    if not source.is_dir():
        pytest.skip("no vqa_rad in shared/data")
    prepare.prepare(source, tmp_path / "out", expect=True)
    summary = check_manifest(tmp_path / "out" / "manifest.jsonl")
    assert summary.ok
    assert (summary.patients, summary.reports) == (266, 0)
    assert (summary.rows, summary.questions, summary.splits) == (267, 2977, {"train": 222, "val": 45})
