"""Draw synthetic chest radiographs with their truth, and write them as DICOM with a manifest. Needs no download.

    python datasets/synthetic/prepare.py --out $MMFM_DATA/synthetic
    python datasets/synthetic/prepare.py --out DIR --train 2000 --val 200 --test 200 --seed 1 --size 256 --mirrored 0.5
    mmfm inspect $MMFM_DATA/synthetic/manifest.jsonl

About 1 MB and, on one core, a third of a second for each study at 512 pixels. No study is ever in two splits, whatever
the seeds of two calls: each seed owns three million studies, a million for each split.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmfm.data.manifest import NORMAL, ManifestPatient, ManifestRow, ManifestSeries, sha256, write_manifest
from mmfm.data.preparing import fresh_folder, progress
from mmfm.data.synthetic import DRAWN, SyntheticStudy, draw_study, write_dicom
from mmfm.errors import ConfigError, MmfmError
from mmfm.jsonable import to_json
from mmfm.report import Sections, Status

SPLITS = ("train", "val", "test")
MOST = 1_000_000
"""Studies that a split of one seed can have."""
MIRROR_STREAM = 1_000
"""Of random numbers, beside those that ``draw_study`` draws from the same seed."""


def study_seed(seed: int, split: str, number: int) -> int:
    """Returns the seed of a split's study ``number``; no two splits share one, under any seed."""
    return (seed * len(SPLITS) + SPLITS.index(split)) * MOST + number


def write_study(task: tuple[str, int], *, folder: Path, size: int, mirrored: float) -> ManifestRow:
    """Draws the study of (split, seed), writes its DICOM files and masks under ``folder`` and returns its row."""
    split, seed = task
    mirror = bool(np.random.default_rng([seed, MIRROR_STREAM]).random() < mirrored)
    study = draw_study(seed, size=size, mirror=mirror)
    place = folder / "images" / str(seed)
    series = tuple(
        ManifestSeries(
            series_uid=view.series_uid,
            path=path.relative_to(folder).as_posix(),
            modality="DX",
            view=view.view,
            sha256=sha256(path),
        )
        for path, view in zip(write_dicom(study, place), study.views, strict=True)
    )
    assert study.patient.patient_id is not None
    return ManifestRow(
        study_uid=study.study_uid,
        patient_id=study.patient.patient_id,
        source="synthetic",
        split=split,
        patient=ManifestPatient(sex=study.patient.sex, age=study.patient.age_years),
        series=series,
        report=study.report,
        target=Sections(findings=study.report.findings, impression=study.report.impression),
        labels={**study.labels, NORMAL: Status.ABSENT if study.findings else Status.PRESENT},
        truth=truth(study, folder, place, mirrored=mirror),
    )


def truth(study: SyntheticStudy, folder: Path, place: Path, *, mirrored: bool) -> dict[str, Any]:
    """Returns what is known exactly of a study, as the card describes it, and writes its masks into ``place``."""
    regions = []
    for view in study.views:
        for region in view.regions:
            mask = place / f"mask-{len(regions)}.png"
            Image.fromarray(region.mask).save(mask)
            regions.append(
                {
                    "view": view.view.value,
                    "observation": region.observation,
                    "laterality": region.laterality,
                    "box": list(region.box),
                    "mask": mask.relative_to(folder).as_posix(),
                }
            )
    return {
        "seed": study.seed,
        "mirrored": mirrored,
        "pixel_spacing_mm": study.views[0].pixel_spacing,
        "cardiothoracic_ratio": study.cardiothoracic_ratio,
        "findings": to_json(study.findings),
        "regions": regions,
    }


def prepare(out: Path, *, counts: dict[str, int], seed: int, size: int, mirrored: float) -> None:
    """Writes ``counts`` studies of each split into ``out`` and prints what was drawn."""
    if not 0 <= mirrored <= 1:
        raise ConfigError("--mirrored", expected="0 to 1", found=f"{mirrored:g}", fix="give a part of the studies")
    for name, count in {**counts, "seed": seed}.items():
        if not 0 <= count <= MOST:
            raise ConfigError(f"--{name}", expected=f"0 to {MOST:,}", found=str(count), fix="give another number")
    if not 64 <= size <= 4096:
        raise ConfigError("--size", expected="64 to 4096 pixels", found=str(size), fix="give another number")
    tasks = [(split, study_seed(seed, split, number)) for split in SPLITS for number in range(counts[split])]
    workers = max(1, min(os.cpu_count() or 1, len(tasks) // 4))
    with fresh_folder(out) as folder, get_context("spawn").Pool(workers) as pool:
        drawn = pool.imap(partial(write_study, folder=folder, size=size, mirrored=mirrored), tasks, chunksize=4)
        rows = [row for _, row in zip(progress(tasks, "Drawing studies"), drawn, strict=True)]
        write_manifest(rows, folder / "manifest.jsonl")
    print(f"{'':17} " + " ".join(f"{split:>7}" for split in SPLITS))
    for name in ("studies", NORMAL, *DRAWN):
        shown = Counter(r.split for r in rows if name == "studies" or r.labels[name] is Status.PRESENT)
        print(f"{name:17} " + " ".join(f"{shown[split]:7,}" for split in SPLITS))


def main() -> int:
    """Reads the command line and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write manifest.jsonl and its images to")
    for split, count in zip(SPLITS, (400, 100, 100), strict=True):
        parser.add_argument(f"--{split}", type=int, default=count, help="number of studies (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other studies (default: %(default)s)")
    parser.add_argument("--size", type=int, default=512, help="rows and columns of the views (default: %(default)s)")
    parser.add_argument(
        "--mirrored",
        type=float,
        default=0.0,
        metavar="PART",
        help="of the studies, drawn with left and right exchanged, organs included, so that a model learns to read "
        "sides from the picture and not from the heart (default: %(default)s)",
    )
    given = parser.parse_args()
    try:
        counts = {split: getattr(given, split) for split in SPLITS}
        prepare(given.out, counts=counts, seed=given.seed, size=given.size, mirrored=given.mirrored)
    except MmfmError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
