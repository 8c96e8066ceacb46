"""Synthetic studies: their pictures, truth, labels, boxes and reports say the same, and DICOM keeps them."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import numpy as np
import pydicom
import pytest

from mmfm.data.synthetic import DRAWN, _wanted, draw_study, write_dicom
from mmfm.imaging import Volume
from mmfm.io import read
from mmfm.report import Side, Status
from mmfm.study import ViewPosition
from mmfm.text import label_report, states

SIZE = 160
SEEDS = range(100, 112)


@pytest.fixture(scope="module")
def studies():
    return [draw_study(seed, size=SIZE) for seed in SEEDS]


@pytest.fixture(scope="module")
def drawn():
    """Returns studies with exactly these findings, drawn once."""
    cache = {}

    def drawn(seed, *findings):
        if (seed, findings) not in cache:
            cache[seed, findings] = draw_study(seed, size=SIZE, findings=findings)
        return cache[seed, findings]

    return drawn


def finding(study, name):
    [found] = [f for f in study.findings if f.observation == name]
    return found


def regions(study, name, view=0):
    return [r for r in study.views[view].regions if r.observation == name]


def swapped(text):
    """Returns the text with left and right exchanged."""
    sides = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub("left|right|Left|Right", lambda match: sides[match.group()], text)


def digest(study):
    return hashlib.sha256(b"".join(view.pixels.tobytes() for view in study.views)).hexdigest()


def test_a_seed_gives_the_same_study_again_and_another_seed_another_one(studies):
    again = draw_study(100, size=SIZE)
    assert digest(again) == digest(studies[0])
    for name in ("study_uid", "patient", "findings", "report", "labels", "cardiothoracic_ratio"):
        assert getattr(again, name) == getattr(studies[0], name)
    assert len({digest(study) for study in studies}) == len(studies)
    assert len({study.study_uid for study in studies}) == len(studies)


def test_views_are_twelve_bit_radiographs_of_the_size_asked_for(studies):
    for study in studies:
        assert [view.view for view in study.views] == [ViewPosition.PA, ViewPosition.LL]
        for view in study.views:
            assert view.pixels.shape == (SIZE, SIZE)
            assert view.pixels.dtype == np.uint16
            assert view.pixels.max() < 4096
            shown = view.display()
            assert shown.min() == 0
            assert shown.max() > 0.9
            assert 0.2 < shown.mean() < 0.7


def test_about_a_third_is_normal_and_every_finding_is_common():
    wanted = [_wanted(np.random.default_rng(seed)) for seed in range(2000)]
    assert 0.3 < np.mean([not w for w in wanted]) < 0.4
    for name in DRAWN:
        assert 0.09 < np.mean([name in w for w in wanted]) < 0.2
    assert max(map(len, wanted)) == 3


@pytest.mark.parametrize("name", DRAWN)
def test_a_wanted_finding_is_drawn_alone_located_labelled_and_reported(drawn, name):
    study = drawn(7, name)
    [found] = study.findings
    assert found.observation == name
    assert study.labels[name] is Status.PRESENT
    assert all(study.labels[other] is Status.ABSENT for other in DRAWN if other != name)
    assert {r.observation for view in study.views for r in view.regions} == {name}
    assert found.evidence in study.report.findings
    [labelled] = [f for f in label_report(study.report.findings, study.report.impression) if f.observation == name]
    assert labelled.status is Status.PRESENT


def test_nothing_else_can_be_asked_for():
    with pytest.raises(ValueError, match="hernia"):
        draw_study(0, findings=("hernia",))
    with pytest.raises(ValueError, match="size"):
        draw_study(0, size=10)


def test_labels_are_what_the_labeller_reads_in_the_report(studies):
    for study in studies:
        read_back = states(label_report(study.report.findings, study.report.impression))
        for name, status in study.labels.items():
            assert read_back[name] in (status, None), (study.seed, name)
        for found in study.findings:
            assert read_back[found.observation] is Status.PRESENT


def test_the_reports_sides_and_counts_are_the_truth(studies):
    for study in studies:
        by_name = {f.observation: f for f in label_report(study.report.findings, study.report.impression)}
        for found in study.findings:
            if found.observation != "support_devices":
                assert by_name[found.observation].laterality == found.laterality, study.seed
            if found.observation == "nodule":
                assert by_name["nodule"].count in (found.count, None)


def test_boxes_hold_their_masks_exactly(studies):
    for view in (view for study in studies for view in study.views):
        for region in view.regions:
            top, left, bottom, right = region.box
            assert region.mask.shape == view.pixels.shape
            assert region.mask[top:bottom, left:right].sum() == region.mask.sum() > 0
            inside = region.mask[top:bottom, left:right]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


@pytest.mark.parametrize("name", ["pleural_effusion", "pneumothorax", "consolidation", "nodule", "fracture"])
def test_a_lesion_lies_on_the_stated_side_of_the_frontal_view(drawn, name):
    for seed in range(3):
        study = drawn(seed, name)
        laterality = finding(study, name).laterality
        for region in regions(study, name):
            column = np.nonzero(region.mask)[1].mean()
            assert region.laterality in (Side.LEFT, Side.RIGHT)
            assert laterality in (region.laterality, Side.BILATERAL)
            # The patient's left is on the image's right.
            assert (column > SIZE / 2) == (region.laterality is Side.LEFT)
            assert abs(column - SIZE / 2) > SIZE * 0.08


@pytest.mark.parametrize("name", ["consolidation", "nodule", "fracture"])
def test_what_is_dense_is_brighter_than_the_same_place_in_health(drawn, name):
    differences = []
    for seed in range(3):
        healthy = drawn(seed).views[0].display()
        ill = drawn(seed, name)
        differences += [(ill.views[0].display() - healthy)[r.mask].mean() for r in regions(ill, name)]
    assert np.mean(differences) > 0.02


def test_an_effusion_is_bright_and_a_pneumothorax_dark(drawn):
    for seed in range(3):
        [fluid, *second] = regions(drawn(seed, "pleural_effusion"), "pleural_effusion")
        if not second:
            above = fluid.mask & (np.arange(SIZE)[:, None] < np.nonzero(fluid.mask)[0].mean())
            shown = drawn(seed, "pleural_effusion").views[0].display()
            assert shown[above].mean() > shown[:, ::-1][above].mean() + 0.02
        [air] = regions(drawn(seed, "pneumothorax"), "pneumothorax")
        top = air.mask & (np.arange(SIZE)[:, None] < air.box[0] + 0.08 * SIZE)
        shown = drawn(seed, "pneumothorax").views[0].display()
        assert shown[top].mean() < shown[:, ::-1][top].mean()


def test_nodules_are_counted_and_measured_in_millimetres(drawn):
    seen = set()
    for seed in range(6):
        study = drawn(seed, "nodule")
        found, places = finding(study, "nodule"), regions(study, "nodule")
        spacing = study.views[0].pixel_spacing
        diameters = [2 * np.sqrt(r.mask.sum() * spacing**2 / np.pi) for r in places]
        assert len(places) == found.count
        assert max(diameters) == pytest.approx(found.measurement.value, abs=1.2 * spacing)
        assert {r.laterality for r in places} == (
            {Side.LEFT, Side.RIGHT} if found.laterality is Side.BILATERAL else {found.laterality}
        )
        sizes = {f"{found.measurement.value:.0f} mm", f"{found.measurement.value / 10:.1f} cm"}
        assert any(size in study.report.findings for size in sizes)
        seen.add(found.count)
    assert len(seen) > 1


def test_the_heart_is_as_wide_as_the_report_says(studies, drawn):
    for study in studies:
        if "cardiomegaly" in {f.observation for f in study.findings}:
            assert study.cardiothoracic_ratio > 0.52
        else:
            assert study.cardiothoracic_ratio < 0.5
    big = drawn(7, "cardiomegaly")
    [heart] = regions(big, "cardiomegaly")
    columns = np.nonzero(heart.mask)[1]
    # The apex points to the patient's left.
    assert columns.max() - SIZE / 2 > SIZE / 2 - columns.min()


def test_effusions_and_pneumothoraces_are_graded_by_their_size(drawn):
    for name, bounds in (("pleural_effusion", (70, 125)), ("pneumothorax", (25, 45))):
        for seed in range(3):
            found = finding(drawn(seed, name), name)
            grade = ("small", "moderate", "large")[sum(found.measurement.value >= bound for bound in bounds)]
            assert found.severity == grade
            assert grade in drawn(seed, name).report.findings.lower()


@pytest.mark.parametrize("findings", [("pleural_effusion", "fracture"), ("nodule", "consolidation"), ("cardiomegaly",)])
def test_the_mirror_twin_is_the_same_study_with_left_and_right_exchanged(findings):
    study, twin = (draw_study(11, size=SIZE, findings=findings, mirror=mirror) for mirror in (False, True))
    other = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}
    shown, mirrored = study.views[0].display(), twin.views[0].display()
    # The marker reads "L" and stands at the patient's left in both.
    corner = np.zeros((SIZE, SIZE), bool)
    corner[: SIZE // 6, -SIZE // 6 :] = corner[: SIZE // 6, : SIZE // 6] = True
    assert np.array_equal(shown[:, ::-1][~corner], mirrored[~corner])
    assert not np.array_equal(shown[~corner], mirrored[~corner])
    assert np.array_equal(study.views[1].pixels, twin.views[1].pixels)
    for view, (own, theirs) in enumerate(zip(study.views, twin.views, strict=True)):
        assert own.patient_orientation == theirs.patient_orientation
        for a, b in zip(own.regions, theirs.regions, strict=True):
            assert b.laterality == other.get(a.laterality, a.laterality)
            assert np.array_equal(a.mask[:, ::-1] if view == 0 else a.mask, b.mask)
            if view == 0:
                assert b.box == (a.box[0], SIZE - a.box[3], a.box[2], SIZE - a.box[1])
    for name in ("findings", "impression"):
        assert swapped(getattr(study.report, name)) == getattr(twin.report, name)
    for a, b in zip(study.findings, twin.findings, strict=True):
        assert (
            dataclasses.replace(
                a,
                laterality=other.get(a.laterality, a.laterality),
                location=swapped(a.location) if a.location else None,
                evidence=swapped(a.evidence),
            )
            == b
        )
    assert study.labels == twin.labels
    assert study.study_uid != twin.study_uid


def test_dicom_keeps_everything(studies, tmp_path):
    photometrics = set()
    for study in studies:
        paths = write_dicom(study, tmp_path / str(study.seed))
        for path, view in zip(paths, study.views, strict=True):
            dataset = pydicom.dcmread(path)
            assert np.array_equal(dataset.pixel_array, view.pixels)
            assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
            assert dataset.StudyInstanceUID == study.study_uid
            assert dataset.SeriesInstanceUID == view.series_uid
            assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
            assert str(dataset.PatientName) == "Synthetic^Study"
            assert dataset.PatientAge == f"{int(study.patient.age_years):03d}Y"
            assert int(dataset.PatientAge[:3]) >= 18
            assert dataset.PatientSex == study.patient.sex
            assert dataset.ViewPosition == view.view
            assert list(dataset.PatientOrientation) == (["P", "F"] if view.view.is_lateral else ["L", "F"])
            assert [float(v) for v in dataset.PixelSpacing] == pytest.approx([view.pixel_spacing] * 2)
            assert dataset.BodyPartExamined == "CHEST"
            assert dataset.BurnedInAnnotation == "NO"
            photometrics.add(dataset.PhotometricInterpretation)
        assert len({pydicom.dcmread(path).SOPInstanceUID for path in paths}) == 2
    assert photometrics == {"MONOCHROME1", "MONOCHROME2"}


def test_what_mmfm_reads_is_what_was_drawn(studies, tmp_path):
    """MONOCHROME1 and the window, seen from the other end."""
    for study in studies:
        write_dicom(study, tmp_path / str(study.seed))
        [read_back] = read(tmp_path / str(study.seed)).studies
        assert read_back.study_uid == study.study_uid
        assert read_back.patient.age_years == study.patient.age_years
        by_view = {series.view: series for series in read_back.series}
        for view in study.views:
            volume, _ = Volume.from_series(by_view[view.view])
            assert volume.array.shape == (1, SIZE, SIZE)
            np.testing.assert_allclose(volume.array[0], view.display(), atol=2e-3)
