"""A made-up folder in exactly the layout of MIMIC-CXR and MIMIC-CXR-JPG; nothing of the real data is here."""

from __future__ import annotations

import gzip
import shutil
from collections import Counter

import pytest

from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.data.synthetic import draw_study, write_dicom
from mmfm.errors import ManifestError
from mmfm.report import Status
from mmfm.study import ViewPosition

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 
 INDICATION:  ___F with cough  // eval for pneumonia
 
 TECHNIQUE:  Chest PA and lateral
 
 COMPARISON:  ___
 
 FINDINGS: 
 
 There is no focal consolidation or pneumothorax.  Compared to ___, the left
 effusion is new.  Dr. ___ was told.  The heart is enlarged.
 
 IMPRESSION: 
 
 1. Cardiomegaly.  2. Hiatal hernia.
"""  # noqa: W291, W293  the lines of these reports end in blanks

IMAGES = [
    # dicom_id, subject_id, study_id, split, ViewPosition, ViewCodeSequence_CodeMeaning, StudyDate, StudyTime
    ("aaaa0001-00000000", "10000001", "50000009", "train", "PA", "postero-anterior", "21800506", "213014.531"),
    ("aaaa0002-00000000", "10000001", "50000009", "train", "LATERAL", "lateral", "21800506", "213014.531"),
    ("aaaa0003-00000000", "10000001", "50000003", "train", "AP LLD", "", "21800626", "80556.875"),
    ("aaaa0004-00000000", "10000001", "50000005", "train", "", "antero-posterior", "21800626", "165500.312"),
    ("aaaa0005-00000000", "11000002", "50000004", "validate", "LAO", "", "21200101", "90000.0"),
    ("aaaa0006-00000000", "12000003", "50000007", "test", "LL", "left lateral", "", ""),
]
COLUMNS = (
    "dicom_id",
    "subject_id",
    "study_id",
    "split",
    "ViewPosition",
    "ViewCodeSequence_CodeMeaning",
    "StudyDate",
    "StudyTime",
)


@pytest.fixture
def prepare(load):
    return load("mimic_cxr")


@pytest.fixture
def write(tmp_path, jpeg, write_csv):
    """Writes a source of JPEG images with a report for each study and no labels."""

    def write(images=IMAGES, reports=None):
        source = tmp_path / "source"
        for number, image in enumerate(images):
            dicom_id, patient, study = image[:3]
            folder = source / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{study}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{dicom_id}.jpg").write_bytes(jpeg(number))
            folder.with_suffix(".txt").write_text((reports or {}).get(study, REPORT))
        rows = [dict(zip(COLUMNS, image, strict=True)) for image in images]
        for name, columns in (
            ("split", ("dicom_id", "study_id", "subject_id", "split")),
            ("metadata", ("dicom_id", "subject_id", "study_id", *COLUMNS[4:])),
        ):
            kept = [{column: row[column] for column in columns} for row in rows]
            write_csv(source / f"mimic-cxr-2.0.0-{name}.csv", kept, columns)
        return source

    return write


@pytest.fixture
def write_labels(write_csv):
    def write_labels(path, rows, rename=None):
        columns = [rename.get(c, c) if rename else c for c in ("study_id", *LABELS, "No Finding")]
        write_csv(path, rows, columns)

    return write_labels


LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
    "Pleural Other",
    "Support Devices",
)


def _manifest(prepare, source, out):
    prepare.prepare(source, out, expect=False)
    return read_manifest(out / "manifest.jsonl")


def test_a_folder_becomes_a_manifest_and_no_image_is_copied(tmp_path, prepare, write, jpeg, capsys):
    source = write()
    manifest = _manifest(prepare, source, tmp_path / "out")
    assert [(row.study_uid, row.patient_id, row.split) for row in manifest.rows] == [
        ("mimic_cxr-50000009", "mimic_cxr-10000001", "train"),
        ("mimic_cxr-50000003", "mimic_cxr-10000001", "train"),
        ("mimic_cxr-50000005", "mimic_cxr-10000001", "train"),
        ("mimic_cxr-50000004", "mimic_cxr-11000002", "val"),
        ("mimic_cxr-50000007", "mimic_cxr-12000003", "test"),
    ]
    first = manifest.rows[0]
    assert first.series[0].path == "files/p10/p10000001/s50000009/aaaa0001-00000000.jpg"
    assert first.series[0].series_uid == "mimic_cxr-aaaa0001-00000000"
    assert [s.view for row in manifest.rows for s in row.series] == [
        ViewPosition.PA,
        ViewPosition.LATERAL,
        ViewPosition.AP,
        ViewPosition.AP,
        None,
        ViewPosition.LL,
    ]
    assert manifest.path(first.series[1]).read_bytes() == jpeg(1)
    assert (tmp_path / "out" / "files").is_symlink()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["files", "manifest.jsonl"]
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok
    assert manifest.study(first).series[1].view is ViewPosition.LATERAL
    said = " ".join(capsys.readouterr().out.split())
    assert "3 patients" in said
    assert "6 images as jpg" in said
    assert "0 studies without a report" in said


def test_the_texts(tmp_path, prepare, write, capsys):
    row = _manifest(prepare, write(), tmp_path / "out").rows[0]
    assert row.report.indication == "___F with cough // eval for pneumonia"
    assert row.report.technique == "CHEST (PA AND LAT) Chest PA and lateral"
    assert row.report.comparison == "___"
    assert row.report.findings.startswith("There is no focal consolidation or pneumothorax. Compared to ___, the left")
    assert row.target.findings == "There is no focal consolidation or pneumothorax. The heart is enlarged."
    assert row.target.impression == "Cardiomegaly. Hiatal hernia."
    assert row.target.indication is None
    said = " ".join(capsys.readouterr().out.split())
    assert "5 sentences that compare with a prior, not in target" in said
    assert "5 other sentences that hold ___, not in target" in said


def test_the_prior_is_the_last_earlier_study_of_the_patient(tmp_path, prepare, write):
    rows = {row.study_uid: row for row in _manifest(prepare, write(), tmp_path / "out").rows}
    assert rows["mimic_cxr-50000009"].prior_study_uid is None
    # 08:05:56 lost its zero in the table; as text it would come after 16:55:00.
    assert rows["mimic_cxr-50000003"].prior_study_uid == "mimic_cxr-50000009"
    assert rows["mimic_cxr-50000005"].prior_study_uid == "mimic_cxr-50000003"
    assert rows["mimic_cxr-50000004"].prior_study_uid is None
    assert rows["mimic_cxr-50000007"].prior_study_uid is None


def test_studies_of_one_time_are_not_prior_to_each_other(tmp_path, prepare, write):
    images = [*IMAGES[:3], (*IMAGES[3][:6], *IMAGES[2][6:])]
    rows = {row.study_uid: row for row in _manifest(prepare, write(images), tmp_path / "out").rows}
    assert rows["mimic_cxr-50000003"].prior_study_uid == "mimic_cxr-50000009"
    assert rows["mimic_cxr-50000005"].prior_study_uid == "mimic_cxr-50000009"


def test_dicom_files_win_over_jpeg_and_state_their_own_header(tmp_path, prepare, write, capsys):
    source = write(IMAGES[:1])
    image = source / "files/p10/p10000001/s50000009/aaaa0001-00000000.dcm"
    frontal = next(p for p in write_dicom(draw_study(1, size=64), tmp_path / "drawn"))
    shutil.copyfile(frontal, image)
    manifest = _manifest(prepare, source, tmp_path / "out")
    assert manifest.rows[0].series[0].path.endswith("aaaa0001-00000000.dcm")
    assert manifest.study(manifest.rows[0]).series[0].modality == "DX"
    assert "1 images as dcm" in " ".join(capsys.readouterr().out.split())


def test_published_labels_win_over_the_labeller_and_empty_says_nothing(tmp_path, prepare, write, write_labels):
    source = write()
    rows = [{"study_id": "50000009", "Pneumothorax": "0.0", "Edema": "-1.0", "Lung Lesion": "1.0", "No Finding": "1.0"}]
    write_labels(source / "mimic-cxr-2.0.0-chexpert.csv", rows)
    rows[0]["Edema"] = "1.0"
    write_labels(source / "mimic-cxr-2.0.0-negbio.csv", rows)
    first, second = _manifest(prepare, source, tmp_path / "out").rows[:2]
    assert first.labels["pneumothorax"] is Status.ABSENT
    assert first.labels["edema"] is Status.UNCERTAIN, "CheXpert's, not NegBio's"
    assert first.labels["lung_lesion"] is Status.PRESENT
    assert first.labels["cardiomegaly"] is None, "in the text, but the table has no mention of it"
    assert first.labels["hernia"] is Status.PRESENT, "none of CheXpert's: the labeller says"
    assert "no_finding" not in first.labels
    assert second.labels["cardiomegaly"] is Status.PRESENT, "not in the table: the labeller says"


def test_negbio_where_there_is_no_chexpert(tmp_path, prepare, write, write_labels):
    source = write()
    write_labels(source / "mimic-cxr-2.0.0-negbio.csv", [{"study_id": "50000009", "Edema": "1.0"}])
    assert _manifest(prepare, source, tmp_path / "out").rows[0].labels["edema"] is Status.PRESENT


def test_a_radiologist_wins_over_chexpert(tmp_path, prepare, write, write_labels, capsys):
    source = write()
    write_labels(source / "mimic-cxr-2.0.0-chexpert.csv", [{"study_id": "50000007", "Edema": "1", "Lung Opacity": "0"}])
    write_labels(
        source / "mimic-cxr-2.1.0-test-set-labeled.csv",
        [{"study_id": "50000007", "Airspace Opacity": "1.0"}],
        rename={"Lung Opacity": "Airspace Opacity"},
    )
    labels = _manifest(prepare, source, tmp_path / "out").rows[-1].labels
    assert labels["lung_opacity"] is Status.PRESENT
    assert labels["edema"] is None
    assert "1 studies that a radiologist labelled" in " ".join(capsys.readouterr().out.split())


def test_tables_as_gz(tmp_path, prepare, write):
    source = write()
    plain = _manifest(prepare, source, tmp_path / "plain")
    for table in source.glob("*.csv"):
        with gzip.open(f"{table}.gz", "wb") as file:
            file.write(table.read_bytes())
        table.unlink()
    assert _manifest(prepare, source, tmp_path / "out").rows == plain.rows
    broken = next(source.glob("*split.csv.gz"))
    broken.write_bytes(broken.read_bytes()[:-12])
    with pytest.raises(ManifestError, match=r"split\.csv: expected a CSV table"):
        prepare.prepare(source, tmp_path / "other", expect=False)


def test_what_is_not_there_is_counted(tmp_path, prepare, write, capsys):
    source = write()
    folder = source / "files/p10/p10000001"
    (folder / "s50000009/aaaa0002-00000000.jpg").unlink()
    shutil.rmtree(folder / "s50000003")
    (folder / "s50000005.txt").unlink()
    rows = {row.study_uid: row for row in _manifest(prepare, source, tmp_path / "out").rows}
    assert len(rows["mimic_cxr-50000009"].series) == 1
    assert "mimic_cxr-50000003" not in rows
    kept = rows["mimic_cxr-50000005"]
    assert kept.report.findings is None
    assert kept.prior_study_uid == "mimic_cxr-50000009", "the prior is a study of the manifest"
    said = " ".join(capsys.readouterr().out.split())
    assert "2 images not there, left out" in said
    assert "1 studies without image, left out" in said
    assert "1 studies without a report" in said


def test_preparing_again_replaces_the_link_and_leaves_the_source_alone(tmp_path, prepare, write):
    source = write()
    for _ in range(2):
        manifest = _manifest(prepare, source, tmp_path / "out")
    assert manifest.path(manifest.rows[0].series[0]).is_file()
    assert len(list(source.rglob("*.jpg"))) == 6
    with pytest.raises(ManifestError, match="--out: expected a new folder"):
        prepare.prepare(source, source, expect=False)
    assert len(list(source.rglob("*.jpg"))) == 6


def test_other_counts_are_refused_and_nothing_stays(tmp_path, prepare, write):
    source = write()
    with pytest.raises(ManifestError, match="patients 65379; found 3"):
        prepare.prepare(source, tmp_path / "out", expect=True)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("name", ["mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.0.0-metadata.csv", "files"])
def test_what_is_missing_is_named_and_nothing_stays(tmp_path, prepare, write, name):
    source = write()
    if (source / name).is_dir():
        shutil.rmtree(source / name)
    else:
        (source / name).unlink()
    with pytest.raises(ManifestError, match=name):
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({0: "../../x"}, "split.csv: expected numbers"),
        ({1: "../1"}, "split.csv: expected numbers"),
        ({2: "s5"}, "split.csv: expected numbers"),
        ({3: "other"}, "split.csv: expected numbers"),
        ({2: "50000003", 3: "test"}, "split.csv: expected one patient and one split for each study"),
        ({0: "aaaa0003-00000000", 2: "50000003"}, "split.csv: expected one patient"),
        ({6: "May"}, "metadata.csv: expected numbers, or nothing"),
    ],
)
def test_rows_of_another_form_are_refused(tmp_path, prepare, write, write_csv, changed, says):
    source = write()
    rows = [dict(zip(COLUMNS, image, strict=True)) for image in IMAGES]
    rows[0] |= {COLUMNS[index]: value for index, value in changed.items()}
    for name in ("split", "metadata"):
        write_csv(source / f"mimic-cxr-2.0.0-{name}.csv", rows, COLUMNS)
    with pytest.raises(ManifestError, match=says) as caught:
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert not any(value in str(caught.value) for value in ("10000001", "50000009", "aaaa0001"))


def test_a_label_table_without_a_column_or_with_another_value_is_refused(tmp_path, prepare, write, write_labels):
    source = write()
    table = source / "mimic-cxr-2.0.0-chexpert.csv"
    write_labels(table, [{"study_id": "50000009", "Edema": "yes"}])
    with pytest.raises(ManifestError, match=r"chexpert\.csv: expected 1, 0, -1 or nothing for 'Edema'"):
        prepare.prepare(source, tmp_path / "out", expect=False)
    write_labels(table, [{"study_id": "50000009"}], rename={"Pleural Other": "Other"})
    with pytest.raises(ManifestError, match="for 'Pleural Other'; found something else, or no such column"):
        prepare.prepare(source, tmp_path / "out", expect=False)


WET_READ = """                                 WET READ: ___ ___ 9:00 AM
  Possible pneumonia.
 ______________________________________________________________________________
                                 FINAL REPORT
 AP CHEST, 9:09 A.M., ___

 HISTORY:  Woman with COPD.

 IMPRESSION:  AP chest compared to ___:

 Severe emphysema.
"""
UNHEADED = """ FINAL REPORT
 INDICATION:  Cough.

 COMPARISON:  None.

 PA and lateral views were taken.

 The lungs are clear.
"""


def test_a_preliminary_reading_is_left_out_and_a_title_is_no_finding(prepare):
    sections = prepare.report_sections(WET_READ, Counter())
    assert sections.findings is None
    assert sections.technique == "AP CHEST, 9:09 A.M., ___"
    assert sections.indication == "Woman with COPD."
    assert sections.impression == "AP chest compared to ___: Severe emphysema."


def test_findings_under_no_heading_do_not_stay_in_the_sections_that_a_model_is_given(prepare):
    counts = Counter()
    sections = prepare.report_sections(UNHEADED, counts)
    assert sections.comparison == "None."
    assert sections.findings == "PA and lateral views were taken. The lungs are clear."
    assert counts["reports with findings under no heading of their own"] == 1
    told = prepare.report_sections(
        "FINAL REPORT\n INDICATION: Cough.\n\n Large effusion.\n\n IMPRESSION: As above.", counts
    )
    assert (told.indication, told.findings) == ("Cough.", "Large effusion.")


def test_one_heading_for_findings_and_impression(prepare):
    sections = prepare.report_sections("FINAL REPORT\n FINDINGS AND IMPRESSION: The lungs are clear.", Counter())
    assert (sections.findings, sections.impression) == ("The lungs are clear.", None)


def test_a_report_with_no_heading_at_all_is_findings(prepare):
    counts = Counter()
    assert prepare.report_sections("NORMAL CHEST.", counts).findings == "NORMAL CHEST."
    assert counts["reports without the words FINAL REPORT"] == 1
