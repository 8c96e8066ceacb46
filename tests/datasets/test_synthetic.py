"""datasets/synthetic/prepare.py: what it writes is a manifest whose truth is that of the drawn studies."""

from __future__ import annotations

import dataclasses
import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.data.synthetic import draw_study
from mmfm.data.synthetic_volumes import DRAWN, draw_volume
from mmfm.errors import ConfigError
from mmfm.files import sha256_of
from mmfm.imaging import Volume
from mmfm.imaging.transforms import map_points
from mmfm.jsonable import from_json
from mmfm.report import Finding, Status
from mmfm.text import CHEST_RADIOGRAPH, REGIONS

COUNTS = {"train": 5, "val": 2, "test": 1}
SPACING = (4.0, 3.0, 3.0)
LESIONS = {"chest_ct": "nodule", "abdomen": "liver_lesion"}


@pytest.fixture(scope="module")
def module(load):
    return load("synthetic")


@pytest.fixture(scope="module")
def rows(module, tmp_path_factory):
    """The rows and the folder that ``prepare`` would write, without worker processes."""
    folder = tmp_path_factory.mktemp("synthetic")
    tasks = [(s, module.study_seed(3, s, n)) for s, count in COUNTS.items() for n in range(count)]
    rows = [module.write_study(task, folder=folder, size=96, mirrored=0.0) for task in tasks]
    module.write_manifest(rows, folder / "manifest.jsonl")
    return read_manifest(folder / "manifest.jsonl")


def test_the_manifest_counts_and_reads(rows):
    summary = check_manifest(rows.root / "manifest.jsonl")
    assert summary.splits == COUNTS
    assert summary.views == {"PA": 8, "LL": 8}
    assert not summary.missing
    assert not summary.altered
    study = rows.study(rows.rows[0])
    assert study.series[0].instances[0].load().shape == (1, 96, 96)


def test_a_row_says_what_was_drawn(rows):
    for row in rows.rows:
        study = draw_study(row.truth["seed"], size=96)
        assert row.study_uid == study.study_uid
        assert row.target.findings == row.report.findings == study.report.findings
        assert row.target.impression == row.report.impression
        assert (row.labels["normal"] is Status.PRESENT) == (not study.findings)
        assert {k: v for k, v in row.labels.items() if k != "normal"} == study.labels
        drawn = [region for view in study.views for region in view.regions]
        assert len(row.truth["regions"]) == len(drawn)
        for written, region in zip(row.truth["regions"], drawn, strict=True):
            assert tuple(written["box"]) == region.box
            assert written["laterality"] == region.laterality
            assert np.array_equal(np.asarray(Image.open(rows.root / written["mask"])), region.mask)


def test_no_two_splits_share_a_study_under_any_region_and_seed(module):
    seeds = (0, 1, 2, module.MOST - 1)
    starts = sorted(
        module.study_seed(seed, split, 0, region=region)
        for seed, split, region in itertools.product(seeds, module.SPLITS, REGIONS)
    )
    assert len(set(starts)) == len(seeds) * len(module.SPLITS) * len(REGIONS)
    assert min(np.diff(starts)) >= module.MOST
    assert module.study_seed(3, "val", 5) == 10_000_005  # as it was before there were regions


def test_the_command_writes_all_with_workers_and_prints_counts(root, tmp_path):
    command = [sys.executable, root / "datasets/synthetic/prepare.py", "--out", tmp_path / "out", "--size", "64"]
    given = ["--train", "4", "--val", "1", "--test", "0"]
    done = subprocess.run([*command, *given], capture_output=True, text=True, check=True)
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert [row.split for row in manifest.rows] == ["train"] * 4 + ["val"]
    assert ["studies", "4", "1", "0"] in [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("mirrored", [0.0, 1.0])
def test_the_part_asked_for_is_mirrored(module, tmp_path, mirrored):
    seed = module.study_seed(0, "train", 0)
    row = module.write_study(("train", seed), folder=tmp_path, size=64, mirrored=mirrored)
    assert row.truth["mirrored"] is bool(mirrored)
    assert row.study_uid == draw_study(seed, size=64, mirror=bool(mirrored)).study_uid


@pytest.mark.parametrize(
    ("option", "value"),
    [("size", 8), ("seed", -1), ("mirrored", 1.5), ("train", -1), ("rewritten", -1), ("spacing", (2.0, 0.1, 1.0))],
)
def test_wrong_numbers_are_refused_and_leave_nothing(module, tmp_path, option, value):
    counts = {"train": 1, "val": 0, "test": 0}
    given = {"counts": {CHEST_RADIOGRAPH: counts}, "seed": 0, "size": 64, "mirrored": 0.0}
    if option == "train":
        counts["train"] = value
    else:
        given[option] = value
    with pytest.raises(ConfigError, match=option):
        module.prepare(tmp_path / "out", **given)
    assert not list(tmp_path.iterdir())


def drawn_with(region, seed, *, spacing, mirror=False):
    """Draws one that always has lesions to look at."""
    return draw_volume(region, seed, spacing=spacing, mirror=mirror, findings=(LESIONS[region],))


@pytest.fixture(scope="module")
def volumes(module, tmp_path_factory):
    """A chest and an abdomen with lesions above 12 mm, each written as drawn and once more."""
    folder = tmp_path_factory.mktemp("volumes")
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "draw_volume", drawn_with)
        for region in LESIONS:
            seeds = (module.study_seed(0, "test", number, region=region) for number in range(100))
            coarse = (drawn_with(region, seed, spacing=(12.0, 9.0, 9.0)) for seed in seeds)
            seed = next(d.seed for d in coarse if d.findings[0].lesions[-1].diameter_mm > 12)
            rows += module.write_volume(
                (region, "test", seed), folder=folder, spacing=SPACING, mirrored=0.0, rewritten=True
            )
        module.write_manifest(rows, folder / "manifest.jsonl")
        yield read_manifest(folder / "manifest.jsonl")


def test_a_manifest_of_volumes_counts_and_reads(volumes):
    summary = check_manifest(volumes.root / "manifest.jsonl")
    assert summary.splits == {"test": 4}
    assert not summary.missing
    assert not summary.altered
    for row in volumes.rows:
        assert [series.modality for series in row.series] == ["CT"]
        folder = volumes.root / row.series[0].path
        assert row.series[0].sha256 == sha256_of(folder.iterdir())
        assert (volumes.root / row.truth["segmentation"]).is_file()
        assert set(DRAWN[row.region]) <= set(row.labels)
        assert row.labels["normal"] is Status.ABSENT


def test_the_truth_of_a_volume_is_what_was_drawn(volumes):
    for row in volumes.rows:
        drawn = drawn_with(row.region, row.truth["seed"], spacing=SPACING)
        findings = [from_json(Finding, finding) for finding in row.truth["findings"]]
        assert [dataclasses.replace(f, evidence=None) for f in findings] == list(drawn.findings)
        assert all(f.evidence in row.target.findings for f in findings)
        assert row.patient_id == drawn.patient.patient_id
        assert {k: v for k, v in row.labels.items() if k != "normal"} == drawn.labels


def test_a_rewritten_volume_is_the_same_patient_on_another_grid(volumes):
    for original, twin in (volumes.rows[:2], volumes.rows[2:]):
        assert twin.truth["original"] == original.study_uid != twin.study_uid
        assert twin.patient_id == original.patient_id
        assert (twin.report, twin.labels, twin.truth["findings"]) == (
            original.report,
            original.labels,
            original.truth["findings"],
        )
        first, second = (Volume.from_series(volumes.study(row).series[0])[0] for row in (original, twin))
        assert first.array.shape != second.array.shape
        for finding in original.truth["findings"]:
            for lesion in finding["lesions"]:
                values = []
                for volume in (first, second):
                    index = map_points(np.linalg.inv(volume.affine), np.array([lesion["center_mm"]]))[0]
                    near = tuple(slice(max(0, round(i) - 1), round(i) + 2) for i in index)
                    values.append(np.median(volume.array[near]))
                assert values[0] == pytest.approx(values[1], abs=40)


def test_no_rewriting_is_coarser_than_half_of_the_smallest_lesion(module, volumes):
    drawn = drawn_with("chest_ct", volumes.rows[0].truth["seed"], spacing=(12.0, 9.0, 9.0))
    small = dataclasses.replace(drawn.findings[0].lesions[0], diameter_mm=4.1)
    findings = (dataclasses.replace(drawn.findings[0], lesions=(small,)),)
    writings = [module.another_writing(dataclasses.replace(drawn, seed=seed, findings=findings)) for seed in range(60)]
    assert all(max(writing.spacing) <= 4.1 / 2 for writing in writings)
    assert {writing.orientation for writing in writings} == {"axial", "coronal", "sagittal"}
    assert all(bool(w.tilt_degrees) == (w.orientation == "axial") != bool(w.oblique_degrees) for w in writings)
    heads = [
        module.another_writing(dataclasses.replace(drawn, seed=seed, region="head", findings=())) for seed in range(60)
    ]
    assert not any(writing.tilt_degrees for writing in heads)
    assert max(max(writing.spacing) for writing in heads) > 2.5


def test_the_mirrored_twin_of_a_volume_has_left_and_right_exchanged(module, volumes, tmp_path):
    row = volumes.rows[0]
    seed = row.truth["seed"]
    [twin] = module.write_volume(("chest_ct", "test", seed), folder=tmp_path, spacing=SPACING, mirrored=1.0)
    sides = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    for section in ("indication", "technique", "findings", "impression"):
        swapped = re.sub("left|right|Left|Right", lambda m: sides[m.group()], getattr(row.report, section))
        assert swapped == getattr(twin.report, section)
    assert twin.truth["mirrored"] is True
    assert (twin.study_uid, twin.patient_id) != (row.study_uid, row.patient_id)
    for own, theirs in zip(row.truth["findings"], twin.truth["findings"], strict=True):
        for a, b in zip(own["lesions"], theirs["lesions"], strict=True):
            assert b["center_mm"] == pytest.approx(np.array(a["center_mm"]) * [-1, 1, 1])


def test_the_command_draws_the_regions_asked_for(module, monkeypatch, tmp_path):
    """Its defaults, without drawing: 20 test volumes of a region, and radiographs where no region is named."""
    asked = {}
    monkeypatch.setattr(module, "prepare", lambda out, **given: asked.update(given))
    for arguments, counts in (
        ([], {CHEST_RADIOGRAPH: {"train": 400, "val": 100, "test": 100}}),
        (
            ["--region", "head", "abdomen", "--val", "3"],
            {name: {"train": 0, "val": 3, "test": 20} for name in ("head", "abdomen")},
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["prepare.py", "--out", str(tmp_path), *arguments])
        assert module.main() == 0
        assert asked["counts"] == counts
