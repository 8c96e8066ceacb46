from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from PIL import Image

from mmfm.data.manifest import NORMAL, check_manifest, read_manifest
from mmfm.errors import ManifestError
from mmfm.report import Status
from mmfm.study import Sex, ViewPosition
from mmfm.text import OBSERVATIONS

COLUMNS = [
    "StudyID",
    "ImageID",
    "label",
    "boxes_count",
    "extra_boxes_count",
    "locations",
    "prior_study",
    "progression_status",
    "prior_imageID",
    "sentence_en",
    "sentence_es",
    "study_is_benchmark",
    "study_is_validation",
    "split",
    "PatientID",
    "patient_is_benchmark",
    "PatientBirth",
    "PatientSex_DICOM",
    "StudyDate_DICOM",
    "StudyDate",
    "PatientAge",
    "label_group",
    "Year",
]

REPORTS = [
    {
        "StudyID": "11",
        "ImageID": "11_abc.png",
        "PreviousStudyID": "9",
        "PreviousImageID": "9_xyz.png",
        "findings": [
            {
                "sentence_en": "Small left pleural  effusion.",
                "sentence_es": "Pequeño derrame pleural izquierdo",
                "abnormal": True,
                "boxes": [[0.5, 0.75, 0.875, 1.0]],
                "extra_boxes": [[0.5, 0.5, 0.75, 1.0], [0.25, 0.5, 0.5, 1.0625]],
                "labels": ["pleural effusion"],
                "locations": ["left", "pleural"],
                "progression": None,
            },
            {
                "sentence_en": "Scarring in the apices, known since before",
                "sentence_es": "Cicatrices apicales ya conocidas.",
                "abnormal": True,
                "boxes": [],
                "extra_boxes": [],
                "labels": ["NSG tube", "aortic elongation"],
                "locations": [],
                "progression": "stable",
            },
            {
                "sentence_en": "No pneumothorax.",
                "sentence_es": "Sin neumotórax.",
                "abnormal": False,
            },
        ],
    },
    {
        "StudyID": "12",
        "ImageID": "12_abc.png",
        "PreviousStudyID": None,
        "PreviousImageID": None,
        "findings": [{"sentence_en": "No alterations.", "sentence_es": "Sin alteraciones.", "abnormal": False}],
    },
    {"StudyID": "13", "ImageID": "13_abc.png", "PreviousStudyID": None, "PreviousImageID": None, "findings": []},
]
FIRST = {"StudyID": "11", "split": "train", "PatientID": "1", "PatientSex_DICOM": "F", "PatientAge": "64"}
TABLE = [
    FIRST | {"label": "pleural effusion", "boxes_count": "1", "extra_boxes_count": "2"},
    FIRST | {"label": "NSG tube", "boxes_count": "0"},
    {
        "StudyID": "12",
        "split": "validation",
        "PatientID": "2",
        "PatientSex_DICOM": "M",
        "PatientAge": "",
        "label": "Normal",
    },
    {
        "StudyID": "13",
        "split": "test",
        "PatientID": "3",
        "PatientSex_DICOM": "",
        "PatientAge": "50.0",
        "label": "Normal",
    },
]


@pytest.fixture
def prepare(load):
    return load("padchest_gr")


@pytest.fixture
def write(tmp_path, write_csv):
    """Writes a source in the layout of the publisher, its archive unpacked where its parts lie."""

    def write(reports=REPORTS, table=TABLE, columns=COLUMNS, images="Padchest_GR_files/PadChest_GR"):
        source = tmp_path / "source"
        (source / images).mkdir(parents=True)
        (source / "Padchest_GR_files").mkdir(exist_ok=True)
        (source / "Padchest_GR_files" / "PadChest_GR.zip.001").write_bytes(b"PK")
        (source / "PadChest_GR_progression_prior_studies").mkdir()
        text = json.dumps(reports, ensure_ascii=False)
        (source / "grounded_reports_20240819.json").write_text(text, encoding="utf-8")
        write_csv(
            source / "master_table.csv", [{k: v for k, v in row.items() if k in columns} for row in table], columns
        )
        for number, report in enumerate(reports):
            pixels = np.random.default_rng(number).integers(0, 4096, (12, 16), np.uint16)
            Image.fromarray(pixels).save(source / images / report["ImageID"])
        return source

    return write


def changed(**changes):
    reports = copy.deepcopy(REPORTS)
    reports[0] |= changes
    return reports


def test_a_source_becomes_a_manifest(tmp_path, prepare, write, capsys):
    source = write()
    before = sorted(p for p in source.rglob("*"))
    prepare.prepare(source, tmp_path / "out", expect=False)
    assert sorted(p for p in source.rglob("*")) == before, "the source is left as it is"
    assert (tmp_path / "out" / "PadChest_GR").is_symlink(), "nothing is copied"
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    first, second, third = manifest.rows
    assert [row.study_uid for row in manifest.rows] == ["padchest_gr-11", "padchest_gr-12", "padchest_gr-13"]
    assert [row.split for row in manifest.rows] == ["train", "val", "test"]
    assert (first.patient_id, first.source, first.prior_study_uid) == ("padchest_gr-1", "padchest_gr", "padchest_gr-9")
    assert second.prior_study_uid is None
    assert (first.patient.sex, first.patient.age) == (Sex.FEMALE, 64)
    assert (second.patient.sex, second.patient.age) == (Sex.MALE, None)
    assert (third.patient.sex, third.patient.age) == (None, 50)
    assert first.report.findings == (
        "Small left pleural effusion. Scarring in the apices, known since before. No pneumothorax."
    )
    assert first.target.findings == "Small left pleural effusion. No pneumothorax.", "the other states a progression"
    assert first.report.impression is None
    assert third.report.findings is None
    pixels = manifest.study(first).series[0].instances[0].load()
    assert (pixels.shape, pixels.dtype, int(pixels.max()) > 255) == ((1, 12, 16), np.uint16, True)
    assert first.series[0].view is ViewPosition.FRONTAL
    said = " ".join(capsys.readouterr().out.split())
    assert "1 studies train" in said
    assert "2 positive sentences" in said
    assert "2 negative sentences" in said
    assert "1 studies without a sentence" in said
    assert "1 studies with a positive sentence" in said
    assert "2 studies without one (normal)" in said
    assert "1 sentences with a progression, not in target" in said
    assert "1 boxes that reach beyond the picture" in said
    assert "1 studies with a prior study" in said


def test_the_labels_of_people_win_and_the_rest_stays_a_code(tmp_path, prepare, write):
    prepare.prepare(write(), tmp_path / "out", expect=False)
    first, second, third = read_manifest(tmp_path / "out" / "manifest.jsonl").rows
    assert set(first.labels) == {*OBSERVATIONS, NORMAL}
    assert first.labels["pleural_effusion"] is Status.PRESENT
    assert first.labels["support_devices"] is Status.PRESENT, "NSG tube, which the sentence does not name"
    assert first.labels["pneumothorax"] is Status.ABSENT
    assert first.labels["fracture"] is None
    assert [row.labels["normal"] for row in (first, second, third)] == [Status.ABSENT, Status.PRESENT, Status.PRESENT]
    assert first.codes == ("pleural effusion", "NSG tube", "aortic elongation")
    assert second.codes == (), "people found nothing to code"


def test_boxes_go_to_the_truth_as_published(tmp_path, prepare, write):
    prepare.prepare(write(), tmp_path / "out", expect=False)
    first, second, third = read_manifest(tmp_path / "out" / "manifest.jsonl").rows
    effusion, scarring, negative = first.truth["findings"]
    assert effusion["sentence_en"] == "Small left pleural effusion."
    assert effusion["sentence_es"] == "Pequeño derrame pleural izquierdo."
    assert effusion["boxes"] == [[0.5, 0.75, 0.875, 1.0]]
    assert len(effusion["extra_boxes"]) == 2
    assert effusion["locations"] == ["left", "pleural"]
    assert "progression" not in effusion
    assert "boxes" not in scarring
    assert scarring["progression"] == "stable"
    assert negative == {"sentence_en": "No pneumothorax.", "sentence_es": "Sin neumotórax.", "abnormal": False}
    assert [f["abnormal"] for f in second.truth["findings"]] == [False]
    assert third.truth is None


def test_every_label_maps_to_observations(prepare):
    assert {name for names in prepare.OBSERVATION_OF.values() for name in names} <= set(OBSERVATIONS)
    assert prepare.OBSERVATION_OF["hydropneumothorax"] == ("pleural_effusion", "pneumothorax")
    assert all(label == label.lower() for label in prepare.OBSERVATION_OF)


@pytest.mark.parametrize("images", ["PadChest_GR", "Padchest_GR_files"])
def test_the_archive_may_be_unpacked_elsewhere_in_the_source(tmp_path, prepare, write, images):
    prepare.prepare(write(images=images), tmp_path / "out", expect=False)
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok


def test_what_has_no_image_or_no_counterpart_is_counted(tmp_path, prepare, write, capsys):
    reports = [*REPORTS, {"StudyID": "14", "ImageID": "14_abc.png", "findings": []}]
    table = [*TABLE, FIRST | {"StudyID": "15"}]
    source = write(reports, table)
    (source / "Padchest_GR_files" / "PadChest_GR" / "12_abc.png").unlink()
    prepare.prepare(source, tmp_path / "out", expect=False)
    rows = read_manifest(tmp_path / "out" / "manifest.jsonl").rows
    assert [row.study_uid for row in rows] == ["padchest_gr-11", "padchest_gr-13"]
    said = " ".join(capsys.readouterr().out.split())
    assert "1 studies without image, left out" in said
    assert "1 studies without a row in the table, left out" in said
    assert "1 studies of the table without a report, left out" in said


def test_other_counts_are_refused_and_nothing_stays(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match="studies in the reports 4555; found 3"):
        prepare.prepare(write(), tmp_path / "out", expect=True)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("file", ["grounded_reports_20240819.json", "master_table.csv"])
def test_a_missing_table_is_named(tmp_path, prepare, write, file):
    source = write()
    (source / file).unlink()
    with pytest.raises(ManifestError, match=file):
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_an_archive_that_was_not_unpacked_is_named(tmp_path, prepare, write):
    source = write()
    for image in source.rglob("*.png"):
        image.unlink()
    with pytest.raises(ManifestError, match=r"PadChest_GR\.zip\.001"):
        prepare.prepare(source, tmp_path / "out", expect=False)


@pytest.mark.parametrize("column", ["StudyID", "split", "PatientID", "PatientSex_DICOM", "PatientAge"])
def test_a_missing_column_is_named(tmp_path, prepare, write, column):
    source = write(columns=[name for name in COLUMNS if name != column])
    with pytest.raises(ManifestError, match=f"the column '{column}'"):
        prepare.prepare(source, tmp_path / "out", expect=False)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([FIRST | {"split": "dev"}], "row 2: expected split train, validation, test"),
        ([FIRST, FIRST | {"PatientID": "2"}], "row 3: expected one patient and split"),
        ([FIRST | {"PatientAge": "old"}], "PatientAge"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path, prepare, write, table, says):
    with pytest.raises(ManifestError, match=says):
        prepare.prepare(write(table=table), tmp_path / "out", expect=False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"findings": None}, "'findings' is a list"),
        ({"findings": ["Normal."]}, "'abnormal' is true or false"),
        ({"findings": [{"sentence_en": "Normal."}]}, "'abnormal' is true or false"),
        ({"findings": [{"abnormal": True, "labels": [3]}]}, "words as labels"),
        ({"findings": [{"abnormal": True, "boxes": [[0, 0, 1]]}]}, "four numbers"),
        ({"findings": [{"abnormal": True, "boxes": [[0.5, 0, 0.25, 1]]}]}, "x1 < x2"),
        ({"findings": [{"abnormal": True, "boxes": [[0, 0, 1, True]]}]}, "four numbers"),
        ({"PreviousStudyID": 9}, "'PreviousStudyID' is text"),
    ],
)
def test_reports_of_another_form_are_refused(tmp_path, prepare, write, changes, says):
    with pytest.raises(ManifestError, match=says) as caught:
        prepare.prepare(write(changed(**changes)), tmp_path / "out", expect=False)
    assert "study 1" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_an_image_outside_the_folder_is_refused(tmp_path, prepare, write):
    source = write()
    (source / "grounded_reports_20240819.json").write_text(json.dumps(changed(ImageID="../../11_abc.png")))
    with pytest.raises(ManifestError, match="inside the manifest's folder"):
        prepare.prepare(source, tmp_path / "out", expect=False)
