from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.errors import ManifestError
from mmfm.report import Status
from mmfm.study import Sex, ViewPosition


def path(patient, study, image):
    return f"../deid_png/{patient}/A{study}/studies/1.{study}/series/1.{study}.1/instances/{image}.png"


FIRST = {
    "PatientID": "GRDNA",
    "AccessionNumber": "A1",
    "StudyInstanceUid": "1.1",
    "PatientSex": "F",
    "PatientAge": "036Y",
    "StudyDate": 20150203,
    "EthnicGroup": None,
    "StudyDescription": "XR CHEST 2 VIEWS",
    "Indication": "Cough.",
    "Comparison": "None.",
    "Findings": "Small  left pleural effusion. No pneumothorax. Cardiomegaly is unchanged.",
    "Impression": "1. Small effusion.",
    "ImagePath": [path("GRDNA", 1, "1.1.1.1"), path("GRDNA", 1, "1.1.1.2"), path("GRDNA", 1, "1.1.1.3")],
    "ImageViewPosition": ["POSTERO_ANTERIOR", "LATERAL", "UNKNOWN"],
    "ImageModality": ["DX", "CR", "OT"],
    "ImageShape": [[12, 16], [12, 16], [12, 16]],
    "ImageBodyPart": ["CHEST", "CHEST", None],
}
SECOND = FIRST | {
    "PatientID": "GRDNB",
    "StudyInstanceUid": "1.2",
    "PatientSex": None,
    "PatientAge": "003M",
    "Indication": float("nan"),
    "Comparison": "None",
    "Findings": None,
    "Impression": None,
    "ImagePath": [path("GRDNB", 2, "1.2.1.1")],
    "ImageViewPosition": [None],
    "ImageModality": ["DX"],
}
THIRD = SECOND | {
    "PatientID": "GRDNC",
    "StudyInstanceUid": "1.3",
    "Findings": "Clear lungs.",
    "ImagePath": [path("GRDNC", 3, "1.3.1.1")],
    "ImageViewPosition": ["LL"],
}
del THIRD["StudyDescription"]
STUDIES = {"train": {"pA_a1_s1": FIRST}, "valid": {"pB_a2_s2": SECOND}, "test": {"pC_a3_s3": THIRD}}


@pytest.fixture
def prepare(load):
    return load("rexgradient")


@pytest.fixture
def write(tmp_path):
    """Writes a source in the layout of the publisher, its archive unpacked beside its parts."""

    def write(studies=STUDIES):
        source = tmp_path / "source"
        (source / "metadata").mkdir(parents=True)
        (source / "deid_png").mkdir()
        (source / "deid_png.part00").write_bytes(b"zstd")
        number = 0
        for split, of_split in studies.items():
            file = source / "metadata" / f"{split}_metadata_view_position.json"
            file.write_text(json.dumps(of_split), encoding="utf-8")
            for study in of_split.values():
                for image in study["ImagePath"]:
                    image = (source / "metadata" / image).resolve()
                    image.parent.mkdir(parents=True, exist_ok=True)
                    number += 1
                    pixels = np.random.default_rng(number).integers(0, 256, (12, 16), np.uint8)
                    Image.fromarray(pixels).save(image)
        return source

    return write


def test_a_source_becomes_a_manifest(tmp_path, prepare, write, capsys):
    prepare.prepare(write(), tmp_path / "out", expect=False)
    assert (tmp_path / "out" / "deid_png").is_symlink(), "nothing is copied"
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    first, second, third = manifest.rows
    assert [row.study_uid for row in manifest.rows] == [
        "rexgradient-pA_a1_s1",
        "rexgradient-pB_a2_s2",
        "rexgradient-pC_a3_s3",
    ]
    assert [row.split for row in manifest.rows] == ["train", "val", "test"]
    assert (first.patient_id, first.source) == ("rexgradient-GRDNA", "rexgradient")
    assert [(s.view, s.modality) for s in first.series] == [
        (ViewPosition.PA, "DX"),
        (ViewPosition.LATERAL, "CR"),
        (None, None),
    ]
    assert second.series[0].view is None
    assert third.series[0].view is ViewPosition.LL
    assert (first.patient.sex, first.patient.age) == (Sex.FEMALE, 36)
    assert (second.patient.sex, second.patient.age) == (None, 0.25)
    assert first.report.indication == "Cough."
    assert first.report.technique == "XR CHEST 2 VIEWS"
    assert first.report.comparison == "None.", "a sentence of the report"
    assert first.report.findings == "Small left pleural effusion. No pneumothorax. Cardiomegaly is unchanged."
    assert first.target.findings == "Small left pleural effusion. No pneumothorax."
    assert first.target.impression == "Small effusion."
    assert (second.report.indication, second.report.comparison) == (None, None)
    assert third.report.technique is None
    assert first.labels["pleural_effusion"] is Status.PRESENT
    assert first.labels["pneumothorax"] is Status.ABSENT
    assert first.labels["fracture"] is None
    assert "normal" not in first.labels, "nobody coded it"
    assert len(manifest.study(first).series) == 3
    assert manifest.study(third).series[0].instances[0].load().shape == (1, 12, 16)
    said = " ".join(capsys.readouterr().out.split())
    assert "1 studies without findings and impression" in said
    assert "3 images train" in said
    assert "2 images of no stated view" in said
    assert "1 patients val" in said
    assert "1 sentences that compare with a prior, not in target" in said


def test_images_that_are_not_there_are_counted(tmp_path, prepare, write, capsys):
    source = write()
    (source / "metadata" / FIRST["ImagePath"][1]).resolve().unlink()
    (source / "metadata" / SECOND["ImagePath"][0]).resolve().unlink()
    prepare.prepare(source, tmp_path / "out", expect=False)
    first, third = read_manifest(tmp_path / "out" / "manifest.jsonl").rows
    assert [s.series_uid for s in first.series] == ["rexgradient-pA_a1_s1-1", "rexgradient-pA_a1_s1-3"]
    assert third.split == "test"
    said = " ".join(capsys.readouterr().out.split())
    assert "2 images not there, left out" in said
    assert "1 studies without image, left out" in said


def test_a_part_of_the_set_needs_no_other_split(tmp_path, prepare, write):
    source = write({"test": STUDIES["test"]})
    prepare.prepare(source, tmp_path / "out", expect=False)
    assert [row.split for row in read_manifest(tmp_path / "out" / "manifest.jsonl").rows] == ["test"]
    with pytest.raises(ManifestError, match=r"train_metadata_view_position\.json"):
        prepare.prepare(source, tmp_path / "other", expect=True)


def test_other_counts_are_refused_and_nothing_stays(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match="studies train 140000; found 1"):
        prepare.prepare(write(), tmp_path / "out", expect=True)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_source_without_metadata_or_images_is_refused(tmp_path, prepare, write):
    source = write()
    (source / "deid_png").rename(source / "elsewhere")
    with pytest.raises(ManifestError, match="deid_png"):
        prepare.prepare(source, tmp_path / "out", expect=False)
    (source / "elsewhere").rename(source / "deid_png")
    for file in (source / "metadata").iterdir():
        file.unlink()
    with pytest.raises(ManifestError, match=r"train_metadata_view_position\.json"):
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_views_that_are_not_one_for_each_image_are_not_guessed(tmp_path, prepare, write, capsys):
    prepare.prepare(write({"train": {"s": FIRST | {"ImageViewPosition": ["PA"]}}}), tmp_path / "out", expect=False)
    row = read_manifest(tmp_path / "out" / "manifest.jsonl").rows[0]
    assert [s.view for s in row.series] == [None, None, None]
    assert "1 studies with other than one view and modality an image" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("study", "says"),
    [
        ({k: v for k, v in FIRST.items() if k != "PatientID"}, "'PatientID' is text"),
        ({k: v for k, v in FIRST.items() if k != "Findings"}, "a member 'Findings'"),
        (FIRST | {"Findings": 3}, "'Findings' is text"),
        (FIRST | {"ImagePath": "a.png"}, "'ImagePath' is a list"),
        (FIRST | {"ImagePath": ["/etc/passwd"]}, "starts with ../deid_png/"),
        (FIRST | {"ImagePath": ["../deid_png/../../a.png"]}, "inside the manifest's folder"),
    ],
)
def test_metadata_of_another_form_is_refused(tmp_path, prepare, write, study, says):
    source = write()
    (source / "metadata" / "train_metadata_view_position.json").write_text(json.dumps({"s": study}))
    with pytest.raises(ManifestError, match=says) as caught:
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_metadata_that_is_a_list_is_refused(tmp_path, prepare, write):
    source = write()
    (source / "metadata" / "train_metadata_view_position.json").write_text("[]")
    with pytest.raises(ManifestError, match="a member for each study"):
        prepare.prepare(source, tmp_path / "out", expect=False)


@pytest.mark.parametrize(
    ("age", "years"),
    [("036Y", 36), ("006M", 0.5), ("002W", 0.038), ("007D", 0.019), ("", None), ("36", None), ("999Y", None)],
)
def test_the_age(prepare, age, years):
    assert prepare.years(age) == years
