from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmfm.data.manifest import (
    LABEL_NAMES,
    Manifest,
    ManifestPatient,
    ManifestQuestion,
    ManifestRow,
    ManifestSeries,
    check_manifest,
    prepared,
    read_manifest,
    sha256,
    write_manifest,
)
from mmfm.errors import ConfigError, ManifestError
from mmfm.imaging import Volume
from mmfm.report import Sections, Status
from mmfm.study import Sex, ViewPosition


def a_row(number: int = 1, *, split: str = "train", patient: int | None = None, path: str | None = None) -> ManifestRow:
    return ManifestRow(
        study_uid=f"s-{number}",
        patient_id=f"p-{patient or number}",
        source="test",
        split=split,
        series=(ManifestSeries(series_uid=f"s-{number}-1", path=path or f"images/{number}.png"),),
    )


FULL = ManifestRow(
    study_uid="s-1",
    patient_id="p-1",
    source="test",
    split="val",
    patient=ManifestPatient(sex=Sex.FEMALE, age=61.5),
    series=(
        ManifestSeries(series_uid="a", path="images/a.png", modality="DX", view=ViewPosition.FRONTAL, sha256="0" * 64),
        ManifestSeries(series_uid="b", path="images/b", view=ViewPosition.LL),
    ),
    report=Sections(indication="Cough", findings="No effusion.\u2028Clear × lungs.", impression="Normal."),
    target=Sections(findings="No effusion."),
    labels={"pleural_effusion": Status.ABSENT, "nodule": Status.UNCERTAIN, "mass": None, "normal": Status.PRESENT},
    codes=("Lung", "Lung/hypoinflation"),
    diagnosis="None",
    differential=("pneumonia", "edema"),
    truth={"boxes": [{"observation": "nodule", "box": [1, 2, 3, 4]}]},
    questions=(
        ManifestQuestion(question="Is there an effusion?", answer="no", kind="closed"),
        ManifestQuestion(
            question="How large is it, and where?",
            answer="small, left",
            kind="open",
            question_id="q-2",
            question_types=("SIZE", "POS"),
            organ="CHEST",
        ),
    ),
    prior_study_uid="s-0",
)


def some(n):
    """Two questions with ids of their own."""
    return tuple(ManifestQuestion(**(vars(q) | {"question_id": f"q{n}-{i}"})) for i, q in enumerate(FULL.questions))


def write_lines(path, *values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def broken(**changes):
    value = a_row().to_json()
    value |= changes
    return {key: item for key, item in value.items() if item is not ...}


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "manifest.jsonl"
    written = write_manifest([FULL, a_row(2)], path)
    assert read_manifest(path) == written == Manifest(root=tmp_path, rows=(FULL, a_row(2)))
    assert len(path.read_text().split("\n")) == 3, "a line separator inside a text is no end of a row"


def test_the_json_is_the_one_of_the_house():
    value = FULL.to_json()
    assert value["patient"] == {"sex": "F", "age": 61.5}
    assert value["series"][1] == {"series_uid": "b", "path": "images/b", "modality": None, "view": "LL", "sha256": None}
    assert value["labels"] == {"pleural_effusion": "absent", "nodule": "uncertain", "mass": None, "normal": "present"}
    assert set(value["report"]) == {"indication", "comparison", "technique", "findings", "impression"}
    assert "truth" not in a_row().to_json()


words = st.text(min_size=1, max_size=20).filter(str.strip)


@given(
    findings=st.none() | words,
    age=st.none() | st.floats(0, 150),
    labels=st.dictionaries(st.sampled_from(LABEL_NAMES), st.none() | st.sampled_from(Status)),
    differential=st.lists(words, max_size=3),
    codes=st.none() | st.lists(words, max_size=3).map(tuple),
)
def test_any_row_survives_json(findings, age, labels, differential, codes):
    row = ManifestRow(
        study_uid="s",
        patient_id="p",
        source="test",
        split="train",
        patient=ManifestPatient(age=age),
        series=a_row().series,
        report=Sections(findings=findings),
        labels=labels,
        codes=codes,
        differential=tuple(differential),
    )
    assert ManifestRow.from_json(json.loads(json.dumps(row.to_json()))) == row


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"study_uid": ', "no JSON"),
        ("", "an empty line"),
        ("[1]", "a JSON object"),
        (broken(patients={}), "patients"),
        (broken(split=...), "the key 'split'"),
        (broken(split=3), "split"),
        (broken(study_uid=" "), "study_uid"),
        (broken(series=[]), "at least one"),
        (broken(series={}), "a list"),
        (broken(series=[{"series_uid": "a", "path": "a.png", "sha": None}]), "sha"),
        (broken(series=[{"series_uid": "a", "path": "a.png"}, {"series_uid": "a", "path": "b.png"}]), "a repeated one"),
        (broken(series=[{"series_uid": "a", "path": "a.png", "view": "front"}]), '"front"'),
        (broken(series=[{"series_uid": "a", "path": "a.png", "modality": "x-ray"}]), "'x-ray'"),
        (broken(series=[{"series_uid": "a", "path": "a.png", "sha256": "12"}]), "64 hexadecimal"),
        (broken(patient={"sex": "female"}), '"female"'),
        (broken(patient={"age": -1}), "patient.age"),
        (broken(codes=["Lung", 3]), "codes"),
        (broken(differential=None), "differential"),
        (broken(patient={"age": True}), "patient.age"),
        (broken(patient={"name": "Someone"}), "keys among sex, age"),
        (broken(report={"finding": "Clear."}), "finding"),
        (broken(report={"findings": ""}), "empty text"),
        (broken(labels={"no_finding": "present"}), "no_finding"),
        (broken(labels={"edema": 1}), "labels.edema"),
        (broken(labels=[]), "labels"),
        (broken(differential=["a", 1]), "differential"),
        (broken(truth=[]), "truth"),
        (broken(questions=[{"question": "Side?"}]), "'answer'"),
        (broken(questions=[{"question": "Side?", "answer": "left", "kind": "yes/no"}]), "one of closed, open"),
        (broken(questions=[{"question": "Side?", "answer": "left", "question_types": "POS"}]), "question_types"),
        (broken(questions=[{"question": "Side?", "answer": "left", "question_types": [" "]}]), "question_types"),
        (broken(questions=[{"question": "Side?", "answer": "left", "question_id": 3}]), "question_id"),
        ('{"study_uid": NaN}', "NaN"),
    ],
)
def test_a_broken_line_is_named_with_what_to_do(tmp_path, line, says):
    path = tmp_path / "manifest.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(json.dumps(a_row(7).to_json()) + "\n" + text + "\n")
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    message = str(error.value)
    assert "manifest.jsonl line 2" in message
    assert says in message
    assert "expected" in message
    assert "found" in message
    assert "\n" not in message
    assert str(tmp_path) not in message
    assert "Someone" not in message


@pytest.mark.parametrize("path", ["/etc/hosts", "../a.png", "a/../../b.png", "C:/a.png", "a\\b.png", "a\0.png", "."])
def test_a_path_never_leaves_the_folder_of_the_manifest(path):
    with pytest.raises(ManifestError, match="inside the manifest's folder"):
        ManifestSeries(series_uid="a", path=path)


def test_a_patient_in_two_splits_is_refused(tmp_path):
    rows = [a_row(1), a_row(2, patient=9), a_row(3, patient=9, split="val")]
    path = write_lines(tmp_path / "manifest.jsonl", *(row.to_json() for row in rows))
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    assert "line 3" in str(error.value)
    assert "'val' here and in 'train' on line 2" in str(error.value)
    assert "p-9" not in str(error.value)
    with pytest.raises(ManifestError, match="every patient in one split"):
        write_manifest(rows, tmp_path / "other.jsonl")
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.jsonl"], "nothing half-written"


def test_a_repeated_study_is_refused(tmp_path):
    path = write_lines(tmp_path / "manifest.jsonl", *(a_row(n).to_json() for n in (1, 2, 1)))
    with pytest.raises(ManifestError, match=r"line 3: expected a study_uid of its own; found the one of line 1"):
        read_manifest(path)


def test_a_repeated_question_is_refused(tmp_path):
    rows = [ManifestRow(**(vars(a_row(n)) | {"questions": FULL.questions})) for n in (1, 2)]
    path = write_lines(tmp_path / "manifest.jsonl", *(row.to_json() for row in rows))
    with pytest.raises(ManifestError, match=r"line 2: expected a question_id of its own.*found one of line 1") as error:
        read_manifest(path)
    assert "q-2" not in str(error.value)


def test_a_failed_write_leaves_the_earlier_manifest(tmp_path):
    path = tmp_path / "manifest.jsonl"
    write_manifest([a_row(1)], path)
    before = path.read_bytes()
    row = ManifestRow(**(vars(a_row(2)) | {"truth": {"size": float("nan")}}))
    with pytest.raises(ValueError, match="JSON compliant"):
        write_manifest([row], path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("make", ["absent", "folder", "latin"])
def test_what_is_no_manifest_is_refused(tmp_path, make):
    path = tmp_path / "manifest.jsonl"
    if make == "folder":
        path.mkdir()
    if make == "latin":
        path.write_bytes("é".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"manifest\.jsonl"):
        read_manifest(path)


def test_an_empty_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "manifest.jsonl")


def test_five_thousand_rows_are_read_within_a_second(tmp_path):
    labels = dict.fromkeys(LABEL_NAMES, Status.ABSENT)
    rows = [
        ManifestRow(
            **(vars(FULL) | {"study_uid": f"s{n}", "patient_id": f"p{n}", "labels": labels, "questions": some(n)})
        )
        for n in range(5000)
    ]
    write_manifest(rows, tmp_path / "manifest.jsonl")
    seconds = []
    for _ in range(3):
        start = time.process_time()
        read_manifest(tmp_path / "manifest.jsonl")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1, "other work on the machine slows single runs, not what a run takes"


def test_split_picks_rows_and_names_the_splits_there_are(tmp_path):
    manifest = Manifest(root=tmp_path, rows=(a_row(1), a_row(2, split="val"), a_row(3)))
    assert [row.study_uid for row in manifest.split("train")] == ["s-1", "s-3"]
    assert len(manifest.split("train", "val")) == 3
    with pytest.raises(ManifestError, match="one of train, val; found 'test'"):
        manifest.split("test")


def test_prepared_is_found_in_mmfm_data(tmp_path, monkeypatch):
    monkeypatch.delenv("MMFM_DATA", raising=False)
    with pytest.raises(ConfigError, match="MMFM_DATA"):
        prepared("iu_xray")
    monkeypatch.setenv("MMFM_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"MMFM_DATA: expected iu_xray/manifest\.jsonl"):
        prepared("iu_xray")
    (tmp_path / "iu_xray").mkdir()
    write_manifest([a_row()], tmp_path / "iu_xray" / "manifest.jsonl")
    assert prepared("iu_xray") == tmp_path / "iu_xray" / "manifest.jsonl"


def picture(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 6), value, np.uint8)).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_has_the_hash_of_all_its_files_whatever_their_order(tmp_path):
    for name, value in (("b/2.png", 2), ("1.png", 1), ("b/3.png", 3)):
        picture(tmp_path / "series" / name, value=value)
    digest = sha256(tmp_path / "series")
    series = ManifestSeries(series_uid="1", path="series", sha256=digest)
    write_manifest([ManifestRow(**(vars(FULL) | {"series": (series,)}))], tmp_path / "manifest.jsonl")
    assert check_manifest(tmp_path / "manifest.jsonl").ok
    for change in (lambda: picture(tmp_path / "series" / "4.png"), lambda: (tmp_path / "series/1.png").unlink()):
        change()
        assert check_manifest(tmp_path / "manifest.jsonl").altered == ("series",)


def test_a_summary_counts_and_finds_missing_and_altered_files(tmp_path):
    digest = picture(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b").mkdir()
    series = tuple(
        ManifestSeries(**(vars(s) | {"sha256": h})) for s, h in zip(FULL.series, (digest, None), strict=True)
    )
    rows = [ManifestRow(**(vars(FULL) | {"series": series})), a_row(2, path="images/gone.png")]
    path = tmp_path / "manifest.jsonl"
    write_manifest(rows, path)
    summary = check_manifest(path)
    assert (summary.rows, summary.patients, summary.series) == (2, 2, 3)
    assert summary.splits == {"val": 1, "train": 1}
    assert summary.views == {"frontal": 1, "LL": 1, "not stated": 1}
    assert summary.modalities == {"DX": 1, "not stated": 2}
    assert summary.labels["nodule"] == {"present": 0, "absent": 0, "uncertain": 1}
    assert "mass" not in summary.labels
    assert (summary.reports, summary.targets, summary.questions) == (1, 1, 2)
    assert summary.missing == ("images/gone.png",)
    assert summary.altered == ()
    assert not summary.ok
    picture(tmp_path / "images" / "a.png", value=101)
    assert check_manifest(path).altered == ("images/a.png",)
    assert json.loads(json.dumps(summary.to_json()))["missing"] == ["images/gone.png"]
    assert "questions  2" in summary.to_text()
    assert "missing    1, first images/gone.png" in summary.to_text()


def test_a_study_of_pictures_takes_its_headers_from_the_row(tmp_path):
    picture(tmp_path / "images" / "a.png", 10)
    picture(tmp_path / "images" / "b.png", 20)
    row = ManifestRow(
        **(
            vars(FULL)
            | {
                "series": (
                    ManifestSeries(series_uid="a", path="images/a.png", view=ViewPosition.FRONTAL),
                    ManifestSeries(series_uid="b", path="images/b.png", modality="CT"),
                )
            }
        )
    )
    study = Manifest(root=tmp_path, rows=(row,)).study(row)
    assert study.study_uid == "s-1"
    assert [(s.series_uid, s.view, s.modality) for s in study.series] == [
        ("a", ViewPosition.FRONTAL, None),
        ("b", None, "CT"),
    ]
    assert (study.patient.patient_id, study.patient.sex, study.patient.age_years) == ("p-1", Sex.FEMALE, 61.5)
    assert study.indication == "Cough"
    assert [int(s.instances[0].load().flat[0]) for s in study.series] == [10, 20]


def test_nifti_takes_its_modality_from_the_row(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 6), -1000, np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    row = replace(a_row(), series=(ManifestSeries(series_uid="ct", path="a.nii.gz", modality="CT"),))
    (series,) = Manifest(root=tmp_path, rows=(row,)).study(row).series
    assert (series.modality, series.source_format) == ("CT", "NIFTI")
    assert Volume.from_series(series)[1].quantity == "HU"


def test_a_study_with_a_missing_picture_is_refused(tmp_path):
    row = a_row()
    with pytest.raises(ManifestError, match=r"images/1\.png"):
        Manifest(root=tmp_path, rows=(row,)).study(row)
