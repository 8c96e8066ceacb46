from __future__ import annotations

from collections import Counter

import pytest

from mmfm.data.manifest import NORMAL, check_manifest, read_manifest
from mmfm.errors import ManifestError
from mmfm.report import Status
from mmfm.study import ViewPosition
from mmfm.text import OBSERVATIONS

REPORTS = [
    {
        "uid": "7",
        "split": "train",
        "findings": "There is an acute fracture of the left  5th rib. No pneumothorax.\nThe heart is XXXX enlarged. "
        "Small left effusion, unchanged since the prior study.",
        "impression": "1. Rib fracture 2. XXXX edema. 3. Recommend chest x-XXXX in 6 weeks. .",
        "indication": "XXXX-year-old with fall",
        "comparison": "None.",
        "image": " PA and lateral chest ",
    },
    {"uid": "8", "split": "train", "impression": "Unchanged XXXX. Stable cardiomegaly."},
    {"uid": "9", "split": "val", "findings": "Clear lungs.", "impression": "Normal chest."},
    {"uid": "10", "split": "extra"},
]
IMAGES = [
    {"uid": "7", "file": "7_IM-1-4001.dcm.jpg", "projection": "Frontal", "shard": "images_00.tar"},
    {"uid": "7", "file": "7_IM-1-3001.dcm.jpg", "projection": "Lateral", "shard": "images_01.tar"},
    {"uid": "7", "file": "7_IM-1-5001.dcm.jpg", "projection": "Frontal", "shard": "images_01.tar"},
    {"uid": "8", "file": "8_IM-2-1001.dcm.jpg", "projection": "Frontal", "shard": "images_00.tar"},
    {"uid": "9", "file": "9_IM-3-1001.dcm.jpg", "projection": "Lateral", "shard": "images_00.tar"},
]


@pytest.fixture
def prepare(load):
    return load("iu_xray")


@pytest.fixture
def write(tmp_path, prepare, jpeg, write_tar, write_csv):
    """Writes a source in the format of the published folder."""

    def write(reports=REPORTS, images=IMAGES, labels=()):
        source = tmp_path / "source"
        source.mkdir()
        columns = ["uid", "split", "findings", "impression", "indication", "comparison", "image", "Problems", "MeSH"]
        write_csv(source / "reports.csv", reports, columns)
        write_csv(source / "images.csv", images, ["uid", "file", "projection", "split", "shard"])
        for shard in {image["shard"] for image in images}:
            files = {image["file"]: jpeg(n) for n, image in enumerate(images) if image["shard"] == shard}
            write_tar(source / shard, files)
        if labels:
            rows = [dict.fromkeys(prepare.OPENI, 0) | row for row in labels]
            write_csv(source / "labels_openi14.csv", rows, ["uid", *prepare.OPENI])
        return source

    return write


def test_a_source_becomes_a_manifest(tmp_path, prepare, write, jpeg, capsys):
    labels = [{"uid": "7", "Effusion": 1}, {"uid": "9", "normal": 1}, {"uid": "8", "Cardiomegaly": 1}]
    prepare.prepare(write(labels=labels), tmp_path / "out", expect=False)
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert [row.study_uid for row in manifest.rows] == ["iu_xray-7", "iu_xray-8", "iu_xray-9"]
    first, second, third = manifest.rows
    assert [(s.series_uid, s.view) for s in first.series] == [
        ("iu_xray-7_IM-1-4001", ViewPosition.FRONTAL),
        ("iu_xray-7_IM-1-3001", ViewPosition.LATERAL),
        ("iu_xray-7_IM-1-5001", ViewPosition.FRONTAL),
    ]
    assert [manifest.path(s).read_bytes() for s in first.series] == [jpeg(0), jpeg(1), jpeg(2)], "bytes unchanged"
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok
    assert (first.split, third.split, first.patient_id, first.source) == ("train", "val", "iu_xray-7", "iu_xray")
    assert first.report.findings.startswith(
        "There is an acute fracture of the left 5th rib. No pneumothorax. The heart"
    )
    assert first.report.technique == "PA and lateral chest"
    assert first.report.comparison == "None."
    assert first.target.findings == "There is an acute fracture of the left 5th rib. No pneumothorax."
    assert first.target.impression == "Rib fracture. Recommend chest x-ray in 6 weeks."
    assert first.target.indication is None
    assert second.target.findings is None
    assert second.target.impression is None, "nothing is left to train on, and the study stays"
    assert third.report.indication is None
    said = " ".join(capsys.readouterr().out.split())
    assert "1 studies without image, left out" in said
    assert "3 sentences that compare with a prior, not in target" in said
    assert "2 other sentences that hold XXXX, not in target" in said
    assert "1 studies with text, but none left to train on" in said


def test_the_coding_of_open_i_wins_over_the_labeller(tmp_path, prepare, write):
    prepare.prepare(write(labels=[{"uid": "7", "Edema": 1}]), tmp_path / "out", expect=False)
    first, second, _ = read_manifest(tmp_path / "out" / "manifest.jsonl").rows
    assert set(first.labels) == {*OBSERVATIONS, NORMAL}
    assert first.labels["edema"] is Status.PRESENT
    assert first.labels["pleural_effusion"] is Status.ABSENT, "0 is absent, although the text has a small effusion"
    assert first.labels["normal"] is Status.ABSENT
    assert first.labels["fracture"] is Status.PRESENT, "Open-i has no fracture: the labeller says"
    assert first.labels["support_devices"] is None
    assert second.labels["cardiomegaly"] is Status.PRESENT
    assert second.labels["normal"] is None
    assert second.labels["edema"] is None


def test_another_folder_with_only_a_test_split_and_no_labels(tmp_path, prepare, write):
    reports = [report | {"split": "test"} for report in REPORTS]
    images = [image | {"shard": "other.tar"} for image in IMAGES]
    prepare.prepare(write(reports, images), tmp_path / "out", expect=False)
    rows = read_manifest(tmp_path / "out" / "manifest.jsonl").rows
    assert {row.split for row in rows} == {"test"}
    assert rows[0].labels["pneumothorax"] is Status.ABSENT
    assert rows[0].labels["pleural_effusion"] is Status.PRESENT
    assert rows[0].labels["normal"] is None
    assert set(rows[0].labels) == {*OBSERVATIONS, "normal"}


def test_other_counts_are_refused_and_nothing_stays(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match=r"studies in reports\.csv 3261; found 4"):
        prepare.prepare(write(), tmp_path / "out", expect=True)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("file", "says"),
    [("reports.csv", "reports.csv"), ("images.csv", "images.csv"), ("images_01.tar", "images_01.tar")],
)
def test_a_missing_file_is_named_and_nothing_stays(tmp_path, prepare, write, file, says):
    source = write()
    (source / file).unlink()
    with pytest.raises(ManifestError, match=says):
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("changes", [{"file": "../7.jpg"}, {"shard": "/etc/images.tar"}, {"shard": "../other.tar"}])
def test_a_table_cannot_lead_out_of_the_folders(tmp_path, prepare, write, write_csv, changes):
    source = write()
    write_csv(source / "images.csv", [IMAGES[0] | changes], ["uid", "file", "projection", "split", "shard"])
    with pytest.raises(ManifestError, match="without folders"):
        prepare.prepare(source, tmp_path / "out", expect=False)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (None, None),
        ("", None),
        ("XXXX.", None),
        ("Heart size is normal", "Heart size is normal."),
        ("1. No acute disease. 2. Mild edema.", "No acute disease. Mild edema."),
        ("1.Small effusion 2. Cardiomegaly. .", "Small effusion. Cardiomegaly."),
        ("1. Stable cardiomegaly. 2. 9 mm nodule in the left lung.", "9 mm nodule in the left lung."),
        ("Fracture of right rib 4. No pneumothorax.", "Fracture of right rib 4. No pneumothorax."),
        ("Normal chest x-XXXX. Normal chest X-XXXX.", "Normal chest x-ray. Normal chest X-ray."),
        ("The nodule measures 1.5 cm.", "The nodule measures 1.5 cm."),
    ],
)
def test_the_training_text(prepare, text, kept):
    assert prepare.target_text(text, Counter()) == kept


@pytest.mark.parametrize(
    ("mesh", "codes"),
    [
        (None, None),
        ("", None),
        ("No Indexing", None),
        ("normal", ("normal",)),
        (
            "Lung/hypoinflation/mild;Lung/hyperdistention",
            ("Lung", "Lung/hypoinflation", "Lung/hypoinflation/mild", "Lung/hyperdistention"),
        ),
    ],
)
def test_a_term_stands_with_each_of_its_levels(prepare, mesh, codes):
    assert prepare.mesh_codes(mesh) == codes


@pytest.mark.slow
def test_the_published_folder_gives_the_numbers_of_the_card(tmp_path, prepare, shared_data):
    source = shared_data / "iu_xray"
    if not source.is_dir():
        pytest.skip("no iu_xray in shared/data")
    prepare.prepare(source, tmp_path / "out", expect=True)
    summary = check_manifest(tmp_path / "out" / "manifest.jsonl")
    assert summary.ok
    assert summary.splits == {"train": 2069, "extra": 871, "val": 296}
    assert summary.views == {"frontal": 3179, "lateral": 3024}
    assert summary.labels["normal"]["present"] == 1047
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    targets = [text for row in manifest.rows for text in (row.target.findings, row.target.impression) if text]
    assert len(targets) > 5000
    assert sum("Cardiomegaly/mild" in (row.codes or ()) for row in manifest.rows) > 100
    assert sum(row.codes is None for row in manifest.rows) == 67
    assert not any("XXXX" in text for text in targets)
