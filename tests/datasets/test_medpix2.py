from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmfm import text
from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.errors import ManifestError
from mmfm.imaging import Volume
from mmfm.report import Status
from mmfm.study import Sex

CASE = {
    "case_id": "MPX1",
    "split": "train",
    "ct_images": ["MPX1_a.jpg"],
    "mr_images": [],
    "title": "A secret title",
    "history": "54 year old man with cough.\n\nKnown granular lung.",
    "exam": "A secret exam.",
    "findings": (
        "•  CT: Nodule in the right\nupper lobe (Figure 1, arrow)\n\n"
        "•  CXR: Opacity. It is round.\n- New effusion\n- No mass"
    ),
    "differential_diagnosis": "1. Granular lung\n2. Lung cancer\n",
    "case_diagnosis": "Granular Lung.",
    "discussion": "A secret discussion.",
    "topic_title": None,
}
COLUMNS = ("case_id", "file", "type", "modality", "plane", "location_category", "age", "sex", "orig_width", "shard")
IMAGE = {
    "case_id": "MPX1",
    "file": "MPX1_a.jpg",
    "type": "CT",
    "modality": "CT - noncontrast",
    "plane": "Axial",
    "location_category": "Thorax",
    "age": "54",
    "sex": "male",
    "orig_width": "400",
    "shard": "images_00.tar",
}


def _marked(seed=0):
    """A grey disc on black, with a bright mark in the corner, a line of text below and numbers at the left."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :200]
    pixels = np.where((y - 100) ** 2 + (x - 100) ** 2 < 70**2, 120, 0).astype(np.uint8)
    for box in (np.s_[4:14, 145:196:2], np.s_[190:198, 20:180:2], np.s_[180:186, 2:70:2], np.s_[2:10, 2:28:2]):
        pixels[box] = 255
    pixels[100, 100] = rng.integers(100)
    return pixels


def _jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def prepare(load):
    return load("medpix2")


@pytest.fixture
def write(tmp_path, write_tar, write_csv):
    def write(cases=(CASE,), images=(IMAGE,)):
        source = tmp_path / "source"
        source.mkdir()
        (source / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
        write_csv(source / "images.csv", images, COLUMNS)
        write_tar(source / "images_00.tar", {i["file"]: _jpeg(_marked(n)) for n, i in enumerate(images)})
        return source

    return write


def _manifest(prepare, source, out):
    prepare.prepare(source, out, expect=False)
    return read_manifest(out / "manifest.jsonl")


def test_a_case_is_a_study_with_a_series_for_each_picture(tmp_path, prepare, write):
    images = [IMAGE, IMAGE | {"file": "MPX1_b.jpg", "type": "MR", "modality": "MR - FLAIR", "plane": "Transverse"}]
    manifest = _manifest(prepare, write(images=images), tmp_path / "out")
    (row,) = manifest.rows
    assert (row.study_uid, row.patient_id, row.source) == ("medpix2-MPX1", "medpix2-MPX1", "medpix2")
    assert (row.split, row.region) == ("train", "chest_ct")
    assert [(s.series_uid, s.path, s.modality) for s in row.series] == [
        ("medpix2-MPX1_a", "images/MPX1_a.png", "CT"),
        ("medpix2-MPX1_b", "images/MPX1_b.png", "MR"),
    ]
    assert row.codes == ("modality/CT", "modality/MR", "body_part/Thorax", "plane/Axial")
    assert (row.patient.sex, row.patient.age) == (Sex.MALE, 54)
    assert check_manifest(tmp_path / "out" / "manifest.jsonl").ok
    series = manifest.study(row).series[0]
    assert series.modality == "CT"
    assert Volume.from_series(series)[0].quantity == "display", "a picture of a CT has no Hounsfield units"


def test_what_gives_the_diagnosis_away_is_nowhere_but_under_diagnosis_and_differential(tmp_path, prepare, write):
    (row,) = _manifest(prepare, write(), tmp_path / "out").rows
    assert row.diagnosis == "Granular Lung."
    assert row.differential == ("Granular lung", "Lung cancer")
    assert row.report.indication == "54 year old man with cough."
    assert "secret" not in (tmp_path / "out" / "manifest.jsonl").read_text()


def test_the_target_says_what_the_pictures_can_show(tmp_path, prepare, write, capsys):
    (row,) = _manifest(prepare, write(), tmp_path / "out").rows
    assert row.report.findings == (
        "CT: Nodule in the right upper lobe (Figure 1, arrow). CXR: Opacity. It is round. New effusion. No mass."
    )
    assert row.target.findings == "CT: Nodule in the right upper lobe. No mass."
    assert row.labels["nodule"] is Status.PRESENT
    assert row.labels["mass"] is Status.ABSENT
    assert row.labels["lung_opacity"] is None, "said of the radiograph"
    said = " ".join(capsys.readouterr().out.split())
    assert "2 sentences on images that are not there, not in target" in said
    assert "1 sentences that compare with a prior, not in target" in said


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Radiographs and CT show a fracture.", "Radiographs and CT show a fracture."),
        ("T2 signal is high.\nA mass is seen.", "A mass is seen."),
        ("Plain film:\nFracture of the rib\n\nCT:\nNo fracture", "No fracture."),
        ("Biopsy showed a carcinoma.", None),
        ("Large mass (not shown).", None),
        ("Figure 2: A mass.", "A mass."),
        ("", None),
    ],
)
def test_sentences_on_what_is_no_picture_of_the_case(prepare, given, shown):
    assert prepare.shown_text(given, {"CT"}, Counter()) == shown


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("•  Stroke\n» Tumour, benign\n-  Abscess.", ("Stroke", "Tumour, benign", "Abscess")),
        ("DDx: A1 cyst, tumour (benign, malignant), or abscess", ("A1 cyst", "tumour (benign, malignant)", "abscess")),
        ("Infectious:\nTB\n\nNeoplastic:\nmets", ("TB", "mets")),
        ("glioma,\nlymphoma, metastasis\nstroke", ("glioma", "lymphoma", "metastasis", "stroke")),
        ("Vascular lesions such as AVM, AVF, aneurysm", ("Vascular lesions such as AVM, AVF, aneurysm",)),
        ("This is a long sentence that tells, at some length, how one would come to the name.", ()),
        ("N/A", ()),
        ("None.", ()),
        ("TB\ntb\nTB", ("TB", "tb")),
    ],
)  # fmt: skip
def test_a_differential_diagnosis_becomes_a_list(prepare, given, names):
    assert prepare.differential(given, Counter()) == names


def test_marks_are_covered_and_the_middle_stays(tmp_path, prepare, write):
    manifest = _manifest(prepare, write(), tmp_path / "out")
    with Image.open(manifest.path(manifest.rows[0].series[0])) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (200, 200)
    assert pixels.max() < 150, "every mark was white"
    assert abs(int(pixels[60:140, 60:140].mean()) - 120) < 3


def test_every_picture_is_covered_alike_and_not_in_place(prepare):
    plain = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    covered = prepare.covered(plain, scale=0.5)
    assert (plain == np.arange(200)).all()
    assert len(set(covered[:18, -59:].ravel())) == 1
    assert (covered[30:170] == plain[30:170]).all()
    assert len(set(covered[-14:].ravel())) == 1
    assert prepare.covered(plain[:20, :20], scale=1.0).shape == (20, 20)


def test_pictures_said_to_be_no_slice_stay_only_where_there_is_no_other(tmp_path, prepare, write, capsys):
    cases = [CASE, CASE | {"case_id": "MPX2", "split": "dev"}]
    images = [
        IMAGE,
        IMAGE | {"file": "MPX1_b.jpg", "plane": "Photograph"},
        IMAGE | {"file": "MPX1_c.jpg", "modality": "MR - Montage of Images"},
        IMAGE | {"file": "MPX2_d.jpg", "case_id": "MPX2", "plane": "Gross Pathology"},
    ]
    rows = _manifest(prepare, write(cases, images), tmp_path / "out").rows
    assert [[s.series_uid for s in row.series] for row in rows] == [["medpix2-MPX1_a"], ["medpix2-MPX2_d"]]
    assert sorted(p.name for p in (tmp_path / "out" / "images").iterdir()) == ["MPX1_a.png", "MPX2_d.png"]
    assert "2 images that are said to be no slice, left out" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("kind", "part", "region"),
    [
        ("CT", "Thorax", "chest_ct"),
        ("MR", "Thorax", "other"),
        ("MR", "Head", "head"),
        ("CT", "Abdomen", "abdomen"),
        ("CT", "Spine and Muscles", "other"),
    ],
)
def test_the_region_follows_the_part_of_the_body(tmp_path, prepare, write, kind, part, region):
    images = [IMAGE | {"type": kind, "location_category": part, "age": "0", "sex": ""}]
    (row,) = _manifest(prepare, write(images=images), tmp_path / "out").rows
    assert row.region == region
    assert set(row.labels) == set(() if region == "other" else text.observations(region))
    assert (row.patient.sex, row.patient.age) == (None, None), "0 is written where nobody said"


@pytest.mark.parametrize(
    ("case", "image", "says"),
    [
        ({"case_id": "../x"}, {}, "expected file names without folders"),
        ({"split": 3}, {}, r"cases\.jsonl line 1"),
        ({}, {"type": "US"}, r"images\.csv: expected CT or MR"),
        ({}, {"location_category": "Foot"}, r"images\.csv: expected CT or MR"),
        ({}, {"case_id": "MPX9"}, r"images\.csv: expected images of the cases"),
        ({}, {"orig_width": "wide"}, "expected a JPEG picture, and its original width"),
        ({}, {"file": "../a.jpg"}, "expected file names without folders"),
    ],
)
def test_what_the_format_does_not_know_is_refused(tmp_path, prepare, write, case, image, says):
    source = write()
    (source / "cases.jsonl").write_text(json.dumps(CASE | case) + "\n")
    with (source / "images.csv").open("w") as file:
        file.write(",".join(COLUMNS) + "\n" + ",".join((IMAGE | image).values()) + "\n")
    with pytest.raises(ManifestError, match=says):
        prepare.prepare(source, tmp_path / "out", expect=False)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_other_counts_are_refused(tmp_path, prepare, write):
    with pytest.raises(ManifestError, match=r"cases\.jsonl 571; found 1"):
        prepare.prepare(write(), tmp_path / "out", expect=True)


def test_the_published_folder_gives_the_numbers_of_the_card(tmp_path, prepare, shared_data):
    source = shared_data / "medpix2"
    if not source.is_dir():
        pytest.skip("no medpix2 in shared/data")
    prepare.prepare(source, tmp_path / "out", expect=True)
    summary = check_manifest(tmp_path / "out" / "manifest.jsonl")
    assert summary.ok
    assert (summary.rows, summary.splits) == (571, {"dev": 67, "train": 504})
    assert summary.modalities == {"MR": 825, "CT": 884}
