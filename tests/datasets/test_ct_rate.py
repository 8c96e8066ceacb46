from __future__ import annotations

import nibabel
import numpy as np
import pytest

from mmfm import text
from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.errors import ManifestError
from mmfm.imaging import Volume
from mmfm.report import Status
from mmfm.study import Sex

REPORTS = ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")
METADATA = ("VolumeName", "Manufacturer", "PatientSex", "PatientAge", "RescaleSlope", "RescaleIntercept", "XYSpacing")
TRAIN = ("train_1_a_1", "train_1_a_2", "train_1_b_1", "train_20_a_1", "train_20_a_2")
VALID = ("valid_1_a_1",)
REPORT = {
    "ClinicalInformation_EN": "Not given.",
    "Technique_EN": "Non-contrast images were taken.",
    "Findings_EN": "Trachea is open. A nodule of 5 mm is seen.  The effusion has increased compared to the prior. "
    "No pneumothorax.",
    "Impressions_EN": "Nodule in the right lung",
}


@pytest.fixture
def prepare(load):
    return load("ct_rate")


@pytest.fixture
def write(tmp_path, prepare, write_csv):
    """Writes a source of empty volumes in the published layout."""

    def write(volumes=(*TRAIN, *VALID), *, missing=(), no_chest=("train_20_a_2",), report=None, label=None):
        source = tmp_path / "dataset"
        for folder in ("radiology_text_reports", "multi_abnormality_labels", "metadata"):
            (source / folder).mkdir(parents=True)
        for split, (_, reports, labels, headers, listed) in prepare.SPLITS.items():
            names = [f"{v}.nii.gz" for v in volumes if v.startswith(split)]
            for name in names:
                patient, study = name.rsplit("_", 2)[0], name.rsplit("_", 1)[0]
                path = source / f"{split}_fixed" / patient / study / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if name.removesuffix(".nii.gz") not in missing:
                    path.write_bytes(b"")
            rows = [{"VolumeName": n, **REPORT, **(report or {}).get(n, {})} for n in names]
            write_csv(source / "radiology_text_reports" / reports, rows, REPORTS)
            zeros = dict.fromkeys(prepare.LABELS, "0") | {"Lung nodule": "1"} | (label or {})
            rows = [{"VolumeName": n, **zeros} for n in names]
            write_csv(source / "multi_abnormality_labels" / labels, rows, ("VolumeName", *prepare.LABELS))
            rows = [{"VolumeName": n, "PatientSex": "F", "PatientAge": "041Y"} for n in names]
            write_csv(source / "metadata" / headers, rows, METADATA)
            lines = [f"{split}/{n.rsplit('_', 2)[0]}/x/{n}.nii.gz\n" for n in no_chest if n.startswith(split)]
            (source / "metadata" / listed).write_text("".join(lines))
        return source

    return write


def _manifest(prepare, source, out):
    prepare.prepare(source, out, expect=False)
    return read_manifest(out / "manifest.jsonl")


def test_a_scan_is_a_study_with_a_series_for_each_reconstruction(tmp_path, prepare, write, capsys):
    source = write()
    manifest = _manifest(prepare, source, tmp_path / "out")
    assert [(row.study_uid, row.patient_id, row.split) for row in manifest.rows] == [
        ("ct_rate-train_1_a", "ct_rate-train_1", "train"),
        ("ct_rate-train_1_b", "ct_rate-train_1", "train"),
        ("ct_rate-train_20_a", "ct_rate-train_20", "train"),
        ("ct_rate-valid_1_a", "ct_rate-valid_1", "val"),
    ]
    first = manifest.rows[0]
    assert [(s.series_uid, s.path, s.modality) for s in first.series] == [
        ("ct_rate-train_1_a_1", "train_fixed/train_1/train_1_a/train_1_a_1.nii.gz", "CT"),
        ("ct_rate-train_1_a_2", "train_fixed/train_1/train_1_a/train_1_a_2.nii.gz", "CT"),
    ]
    assert first.region == "chest_ct"
    assert (first.patient.sex, first.patient.age) == (Sex.FEMALE, 41)
    said = " ".join(capsys.readouterr().out.split())
    assert "3 patients" in said
    assert "4 volumes train" in said


def test_no_volume_is_copied(tmp_path, prepare, write):
    source = write()
    for _ in range(2):
        _manifest(prepare, source, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.jsonl", "train_fixed", "valid_fixed"]
    assert (tmp_path / "out" / "train_fixed").is_symlink()
    assert len(list(source.rglob("*.nii.gz"))) == 6
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok


def test_the_texts(tmp_path, prepare, write):
    row = _manifest(prepare, write(), tmp_path / "out").rows[0]
    assert row.report.indication is None, "Not given."
    assert row.report.technique == "Non-contrast images were taken."
    assert row.report.findings.endswith("compared to the prior. No pneumothorax.")
    assert row.target.findings == "Trachea is open. A nodule of 5 mm is seen. No pneumothorax."
    assert row.target.impression == "Nodule in the right lung."


def test_labels_of_the_publisher_by_our_names(tmp_path, prepare, write):
    labels = _manifest(prepare, write(label={"Emphysema": ""}), tmp_path / "out").rows[0].labels
    assert set(prepare.LABELS.values()) <= set(text.observations("chest_ct"))
    assert labels["nodule"] is Status.PRESENT
    assert labels["emphysema"] is None
    assert labels["pleural_effusion"] is Status.ABSENT, "0, whatever the text says"
    assert labels["pneumothorax"] is Status.ABSENT, "none of the publisher's: the labeller says"
    assert labels["fracture"] is None


def test_what_is_no_chest_or_not_there_is_left_out_and_counted(tmp_path, prepare, write, capsys):
    source = write(missing=("train_1_a_2", "train_1_b_1"))
    rows = {row.study_uid: row for row in _manifest(prepare, source, tmp_path / "out").rows}
    assert [s.series_uid for s in rows["ct_rate-train_1_a"].series] == ["ct_rate-train_1_a_1"]
    assert "ct_rate-train_1_b" not in rows
    assert [s.series_uid for s in rows["ct_rate-train_20_a"].series] == ["ct_rate-train_20_a_1"]
    said = " ".join(capsys.readouterr().out.split())
    assert "1 volumes that are no chest, left out" in said
    assert "2 volumes not there, left out" in said
    assert "1 studies without a volume, left out" in said


def test_reconstructions_with_different_reports_are_counted(tmp_path, prepare, write, capsys):
    source = write(report={"train_1_a_2.nii.gz": {"Findings_EN": "Other."}})
    assert "Trachea" in _manifest(prepare, source, tmp_path / "out").rows[0].report.findings
    assert "1 volumes with another report than the first" in " ".join(capsys.readouterr().out.split())


def test_one_split_alone(tmp_path, prepare, write):
    source = write(VALID)
    manifest = _manifest(prepare, source, tmp_path / "out")
    assert {row.split for row in manifest.rows} == {"val"}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.jsonl", "valid_fixed"]


@pytest.mark.parametrize(
    "name",
    [
        "radiology_text_reports/train_reports.csv",
        "multi_abnormality_labels/valid_predicted_labels.csv",
        "metadata/train_metadata.csv",
        "metadata/no_chest_valid.txt",
    ],
)
def test_a_table_that_is_missing_is_named_and_nothing_stays(tmp_path, prepare, write, name):
    source = write()
    (source / name).unlink()
    with pytest.raises(ManifestError, match=name.partition("/")[2]):
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]


def test_no_volumes_at_all_is_an_error(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match="train_fixed: expected the folder"):
        prepare.prepare(write(()), tmp_path / "out", expect=False)


def test_a_name_of_another_form_or_split_and_another_label_are_refused(tmp_path, prepare, write, write_csv):
    source = write(label={"Emphysema": "maybe"})
    with pytest.raises(ManifestError, match=r"labels\.csv: expected 1, 0 or nothing"):
        prepare.prepare(source, tmp_path / "out", expect=False)
    for name in ("train_1_a_1", "../train_1_a_1.nii.gz", "valid_1_a_1.nii.gz"):
        write_csv(source / "radiology_text_reports/train_reports.csv", [{"VolumeName": name, **REPORT}], REPORTS)
        with pytest.raises(ManifestError, match=r"train_reports\.csv: expected names such as train_1_a_1") as caught:
            prepare.prepare(source, tmp_path / "out", expect=False)
        assert "../" not in str(caught.value)


def test_other_counts_are_refused(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match="patients 21304; found 3"):
        prepare.prepare(write(), tmp_path / "out", expect=True)
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]


def test_a_volume_is_read_in_hounsfield_units_at_its_place(tmp_path, prepare, write):
    source = write(VALID)
    values = np.full((6, 5, 4), -1000, np.int16)
    values[4, 1, 3] = 300
    lps = np.diag([-0.7, -0.7, 1.5, 1.0])  # RAS of axes that run to left, posterior and superior
    image = nibabel.Nifti1Image(values, lps)
    image.set_sform(lps, code=1)
    nibabel.save(image, source / "valid_fixed/valid_1/valid_1_a/valid_1_a_1.nii.gz")
    manifest = _manifest(prepare, source, tmp_path / "out")
    (series,) = manifest.study(manifest.rows[0]).series
    volume, receipt = Volume.from_series(series)
    assert (series.modality, volume.quantity, receipt.orientation) == ("CT", "HU", "SPL")
    assert receipt.spacing == pytest.approx((1.5, 0.7, 0.7))
    assert volume.array[3, 1, 4] == 300
    assert volume.array.min() == -1000
    assert volume.affine @ (3, 1, 4, 1) == pytest.approx((2.8, 0.7, 4.5, 1))
