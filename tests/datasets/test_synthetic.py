"""datasets/synthetic/prepare.py: what it writes is a manifest whose truth is the drawn study's."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmfm.data.manifest import check_manifest, read_manifest
from mmfm.data.synthetic import draw_study
from mmfm.errors import ConfigError
from mmfm.report import Status

COUNTS = {"train": 5, "val": 2, "test": 1}


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


def test_no_two_splits_share_a_study_under_any_seed(module):
    owners = [(module.study_seed(seed, split, 0), split) for seed, split in itertools.product(range(4), module.SPLITS)]
    starts = sorted(start for start, _ in owners)
    assert len(set(starts)) == len(owners)
    assert min(np.diff(starts)) >= module.MOST


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


@pytest.mark.parametrize(("option", "value"), [("size", 8), ("seed", -1), ("mirrored", 1.5), ("train", -1)])
def test_wrong_numbers_are_refused_and_leave_nothing(module, tmp_path, option, value):
    given = {"counts": {"train": 1, "val": 0, "test": 0}, "seed": 0, "size": 64, "mirrored": 0.0}
    if option == "train":
        given["counts"]["train"] = value
    else:
        given[option] = value
    with pytest.raises(ConfigError, match=option):
        module.prepare(tmp_path / "out", **given)
    assert not list(tmp_path.iterdir())
