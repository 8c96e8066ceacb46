"""A made-up folder in exactly the layout of CheXpert Plus; nothing of the real data is here."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.data.preparing import CHEXPERT_LABELS
from mmfm.data.synthetic import draw_study, write_dicom
from mmfm.errors import ManifestError
from mmfm.report import Status
from mmfm.study import Sex, ViewPosition

TABLE = "df_chexpert_plus_240401.csv"
COLUMNS = (
    "path_to_image",
    "path_to_dcm",
    "frontal_lateral",
    "ap_pa",
    "deid_patient_id",
    "patient_report_date_order",
    "report",
    "section_narrative",
    "section_clinical_history",
    "section_history",
    "section_comparison",
    "section_technique",
    "section_procedure_comments",
    "section_findings",
    "section_impression",
    "section_end_of_impression",
    "section_summary",
    "section_accession_number",
    "age",
    "sex",
    "race",
    "ethnicity",
    "interpreter_needed",
    "insurance_type",
    "recent_bmi",
    "deceased",
    "split",
)


def line(path, **changes):
    parts = path.split("/")
    return {
        "path_to_image": f"{path}.jpg",
        "path_to_dcm": f"{path}.dcm",
        "frontal_lateral": "Frontal" if "frontal" in path else "Lateral",
        "ap_pa": "AP" if "frontal" in path else "",
        "deid_patient_id": parts[1],
        "patient_report_date_order": parts[2].removeprefix("study"),
        "report": "NARRATIVE: Chest, one view.\n\nIMPRESSION: 1. Clear lungs.",
        "section_clinical_history": "61 years of age,\nwith cough",
        "section_comparison": "1/2/2003.",
        "section_impression": "\\n1.CARDIOMEGALY.\\n\\n2.NEW LEFT EFFUSION SINCE THE PRIOR STUDY.",
        "age": "62.0",
        "sex": "Female",
        "split": parts[0],
    } | changes


LINES = [
    line("train/patient00001/study1/view1_frontal"),
    # The same report, de-identified once more: published so.
    line("train/patient00001/study1/view2_lateral", section_comparison="9/8/2001."),
    line(
        "train/patient00001/study2/view1_frontal",
        ap_pa="PA",
        section_findings="No pneumothorax.",
        section_impression="",
    ),
    line("train/patient00002/study1/view1_frontal", ap_pa="LL", section_impression="", sex="Unknown", age=""),
    line("valid/patient64541/study1/view1_frontal", ap_pa="", sex="Male"),
]


@pytest.fixture
def prepare(load):
    return load("chexpert_plus")


def png(number):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path, write_csv):
    """Writes a source whose chunks of PNG files were unpacked into ``images``, with no labels."""

    def write(lines=LINES, images="PNG/PNG"):
        source = tmp_path / "source"
        for number, row in enumerate(lines):
            file = (source / images / row["path_to_image"]).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(number))
        write_csv(source / TABLE, lines, COLUMNS)
        return source

    return write


def write_labels(source, records):
    folder = source / "chexbert_labels"
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(dict.fromkeys([*CHEXPERT_LABELS, "No Finding"]) | record) for record in records]
    (folder / "impression_fixed.json").write_text("\n".join(lines) + "\n")


def _manifest(prepare, source, out):
    prepare.prepare(source, out, expect=False)
    return read_manifest(out / "manifest.jsonl")


@pytest.mark.parametrize("images", ["PNG/PNG", "PNG"])
def test_a_folder_becomes_a_manifest_and_no_image_is_copied(tmp_path, prepare, write, capsys, images):
    manifest = _manifest(prepare, write(images=images), tmp_path / "out")
    assert [(row.study_uid, row.patient_id, row.split) for row in manifest.rows] == [
        ("chexpert_plus-patient00001-study1", "chexpert_plus-patient00001", "train"),
        ("chexpert_plus-patient00001-study2", "chexpert_plus-patient00001", "train"),
        ("chexpert_plus-patient00002-study1", "chexpert_plus-patient00002", "train"),
        ("chexpert_plus-patient64541-study1", "chexpert_plus-patient64541", "val"),
    ]
    first = manifest.rows[0]
    assert first.series[0].path == "images/train/patient00001/study1/view1_frontal.png"
    assert first.series[0].series_uid == "chexpert_plus-patient00001-study1-view1_frontal"
    assert [s.view for row in manifest.rows for s in row.series] == [
        ViewPosition.AP,
        ViewPosition.LATERAL,
        ViewPosition.PA,
        ViewPosition.FRONTAL,
        ViewPosition.FRONTAL,
    ]
    assert [(row.patient.sex, row.patient.age) for row in manifest.rows] == [
        (Sex.FEMALE, 62),
        (Sex.FEMALE, 62),
        (None, None),
        (Sex.MALE, 62),
    ]
    assert manifest.path(first.series[1]).read_bytes() == png(1)
    assert (tmp_path / "out" / "images").is_symlink()
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok
    assert manifest.study(first).series[0].view is ViewPosition.AP
    said = " ".join(capsys.readouterr().out.split())
    for count in (
        "3 patients",
        "3 studies train",
        "1 studies val",
        "4 images train",
        "1 images val",
        "5 images as png",
    ):
        assert count in said


def test_the_texts(tmp_path, prepare, write, capsys):
    first, second, third, _ = _manifest(prepare, write(), tmp_path / "out").rows
    assert first.report.indication == "61 years of age, with cough"
    assert first.report.comparison == "1/2/2003."
    assert first.report.impression == "1.CARDIOMEGALY. 2.NEW LEFT EFFUSION SINCE THE PRIOR STUDY."
    assert first.report.findings is None
    assert first.target.impression == "CARDIOMEGALY."
    assert second.target.findings == "No pneumothorax."
    assert third.report.impression is None
    assert all(row.prior_study_uid is None for row in (first, second, third))
    said = " ".join(capsys.readouterr().out.split())
    assert "3 studies without findings " in said
    assert "1 studies without findings and impression" in said


def test_labels_of_the_impression_win_over_the_labeller_and_null_says_nothing(tmp_path, prepare, write, capsys):
    source = write()
    write_labels(
        source,
        [
            {"path_to_image": LINES[0]["path_to_image"], "Edema": -1.0, "Pneumothorax": 0.0, "No Finding": 1.0},
            {"path_to_image": LINES[1]["path_to_image"], "Edema": 1.0},
            {"path_to_image": "train/patient09999/study1/view1_frontal.jpg", "Edema": 1.0},
        ],
    )
    first, second, *_ = _manifest(prepare, source, tmp_path / "out").rows
    assert first.labels["edema"] is Status.UNCERTAIN, "those of the image whose report is used"
    assert first.labels["pneumothorax"] is Status.ABSENT
    assert first.labels["cardiomegaly"] is None, "in the text, but CheXbert read no mention of it"
    assert "no_finding" not in first.labels
    assert second.labels["pneumothorax"] is Status.ABSENT, "not labelled: the labeller says"
    assert "1 studies that CheXbert labelled" in " ".join(capsys.readouterr().out.split())


def test_dicom_files_win_over_png_and_state_their_own_header(tmp_path, prepare, write, capsys):
    source = write(LINES[:1])
    image = source / "DICOM/Uncompressed" / LINES[0]["path_to_dcm"]
    image.parent.mkdir(parents=True)
    row = LINES[0] | {"ap_pa": "PA"}
    frontal = write_dicom(draw_study(1, size=64), tmp_path / "drawn")[0]
    shutil.copyfile(frontal, image)
    table = (source / TABLE).read_text()
    (source / TABLE).write_text(table.replace("Frontal,AP", f"Frontal,{row['ap_pa']}"))
    manifest = _manifest(prepare, source, tmp_path / "out")
    assert manifest.rows[0].series[0].path == "images/train/patient00001/study1/view1_frontal.dcm"
    assert manifest.study(manifest.rows[0]).series[0].modality == "DX"
    assert "1 images as dcm" in " ".join(capsys.readouterr().out.split())


def test_what_is_not_there_is_counted(tmp_path, prepare, write, capsys):
    source = write()
    (source / "PNG/PNG/train/patient00001/study1/view2_lateral.png").unlink()
    shutil.rmtree(source / "PNG/PNG/train/patient00002")
    rows = _manifest(prepare, source, tmp_path / "out").rows
    assert [len(row.series) for row in rows] == [1, 1, 1]
    said = " ".join(capsys.readouterr().out.split())
    assert "2 images not there, left out" in said
    assert "1 studies without image, left out" in said


def test_other_counts_are_refused_and_nothing_stays(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match="patients 64725; found 3"):
        prepare.prepare(write(), tmp_path / "out", expect=True)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(("gone", "says"), [(TABLE, TABLE), ("PNG", "train/ and valid/ in one of DICOM/Uncompressed")])
def test_what_is_missing_is_named_and_nothing_stays(tmp_path, prepare, write, gone, says):
    source = write()
    (source / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match=says):
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert not (tmp_path / "out").exists()


def test_a_table_without_a_column_is_refused(tmp_path, prepare, write, write_csv):
    source = write()
    columns = [column for column in COLUMNS if column != "section_findings"]
    write_csv(source / TABLE, [{c: row.get(c, "") for c in columns} for row in LINES], columns)
    with pytest.raises(ManifestError, match="expected the column 'section_findings'"):
        prepare.prepare(source, tmp_path / "out", expect=False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"path_to_image": "../patient00001/study1/view1_frontal.jpg"}, "expected paths such as"),
        ({"path_to_image": "train/patient00001/../view1_frontal.jpg"}, "expected paths such as"),
        ({"split": "test"}, "expected one patient and one split"),
        ({"deid_patient_id": "patient00002"}, "expected one patient and one split"),
        ({"deid_patient_id": ""}, "found a study with two, or no patient"),
        ({"frontal_lateral": "Oblique"}, "expected Frontal or Lateral"),
        ({"sex": "x"}, "expected split train or valid, sex Female"),
        ({"age": "old"}, "expected split train or valid, sex Female"),
    ],
)
def test_rows_of_another_form_are_refused(tmp_path, prepare, write, write_csv, changes, says):
    source = write()
    write_csv(source / TABLE, [LINES[0] | changes, *LINES[1:]], COLUMNS)
    with pytest.raises(ManifestError, match=says) as caught:
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert "patient00001" not in str(caught.value).removeprefix(f"{TABLE}: expected paths such as train/patient00001")


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"path_to_image": LINES[0]["path_to_image"], "Edema": 2.0}, "expected 1, 0, -1 or nothing for 'Edema'"),
        ({}, "expected one JSON object a line, with path_to_image"),
    ],
)
def test_labels_of_another_form_are_refused(tmp_path, prepare, write, record, says):
    source = write()
    write_labels(source, [record])
    with pytest.raises(ManifestError, match=says):
        prepare.prepare(source, tmp_path / "out", expect=False)
    (source / prepare.LABELS).write_text("no json\n")
    with pytest.raises(ManifestError, match="expected one JSON object a line"):
        prepare.prepare(source, tmp_path / "out", expect=False)
