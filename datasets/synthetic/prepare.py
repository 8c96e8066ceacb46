"""Draw synthetic studies with their truth, and write them as DICOM with a manifest. Needs no download.

    python datasets/synthetic/prepare.py --out $MMFM_DATA/synthetic
    python datasets/synthetic/prepare.py --out DIR --train 2000 --val 200 --test 200 --seed 1 --size 256 --mirrored 0.5
    python datasets/synthetic/prepare.py --out $MMFM_DATA/synthetic_volumes --region chest_ct abdomen head --test 70
    python datasets/synthetic/prepare.py --out DIR --region head --train 0 --val 5 --test 20 --rewritten 10
    mmfm inspect $MMFM_DATA/synthetic/manifest.jsonl

A radiograph study takes about 1 MB and, on one core, a third of a second at 512 pixels; a volume about 20 MB (head: 30)
and some seconds. No study is ever in two splits, whatever the seeds of two calls: each seed owns a million studies for
each split of each region.
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

from mmfm.data import synthetic, synthetic_volumes
from mmfm.data.manifest import NORMAL, ManifestPatient, ManifestRow, ManifestSeries, sha256, write_manifest
from mmfm.data.preparing import fresh_folder, progress
from mmfm.data.seeds import MOST, SPLITS, study_seed
from mmfm.data.synthetic import SyntheticStudy, draw_study
from mmfm.data.synthetic_volumes import DrawnVolume, Writing, draw_volume, write_report
from mmfm.data.synthetic_volumes.writing import another_writing
from mmfm.errors import ConfigError, MmfmError
from mmfm.files import sha256_of
from mmfm.jsonable import to_json
from mmfm.report import Finding, Sections, Status
from mmfm.text import CHEST_RADIOGRAPH

DRAWN = {CHEST_RADIOGRAPH: synthetic.DRAWN, **synthetic_volumes.DRAWN}
RADIOGRAPHS, VOLUMES = (400, 100, 100), (0, 0, 20)
"""Studies of each split where not said otherwise."""
SPACING = {"chest_ct": (2.0, 1.25, 1.25), "abdomen": (2.0, 1.25, 1.25), "head": (1.5, 1.0, 1.0)}
"""(slice, row, column) mm."""
MIRROR_STREAM, REPORT_STREAM = 1_000, 1_001
"""Of random numbers, beside those that are drawn from the same seed."""


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
        for path, view in zip(synthetic.write_dicom(study, place), study.views, strict=True)
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


def write_volume(
    task: tuple[str, str, int],
    *,
    folder: Path,
    spacing: tuple[float, float, float] | None,
    mirrored: float,
    rewritten: bool = False,
) -> list[ManifestRow]:
    """Draws the volume of (region, split, seed) and writes it; returns its row, and that of its rewritten twin."""
    region, split, seed = task
    mirror = bool(np.random.default_rng([seed, MIRROR_STREAM]).random() < mirrored)
    drawn = draw_volume(region, seed, spacing=spacing or SPACING[region], mirror=mirror)
    report, findings = write_report(drawn, np.random.default_rng([seed, REPORT_STREAM]))
    truth = {"seed": seed, "region": region, "mirrored": mirror, "findings": to_json(findings)}
    place = folder / "images" / str(seed)
    row = partial(volume_row, drawn, report, findings, split=split, folder=folder)
    rows = [row(place=place, writing=Writing(), truth=truth)]
    if rewritten:
        writing = another_writing(drawn)
        truth = {**truth, "original": rows[0].study_uid, "writing": to_json(writing)}
        rows.append(row(place=place.with_name(f"{seed}-rewritten"), writing=writing, truth=truth))
    return rows


def volume_row(
    drawn: DrawnVolume,
    report: Sections,
    findings: tuple[Finding, ...],
    *,
    split: str,
    folder: Path,
    place: Path,
    writing: Writing,
    truth: dict[str, Any],
) -> ManifestRow:
    """Writes a volume into ``place`` and returns its row."""
    written = synthetic_volumes.write_dicom(drawn, place, writing=writing)
    segmentation = written.segmentation and written.segmentation.relative_to(folder).as_posix()
    assert drawn.patient.patient_id is not None
    return ManifestRow(
        study_uid=written.study_uid,
        patient_id=drawn.patient.patient_id,
        source="synthetic",
        split=split,
        region=drawn.region,
        patient=ManifestPatient(sex=drawn.patient.sex, age=drawn.patient.age_years),
        series=tuple(
            ManifestSeries(
                series_uid=one.series_uid,
                path=one.folder.relative_to(folder).as_posix(),
                modality=one.modality,
                sha256=sha256_of(one.folder.iterdir()),
            )
            for one in written.series
        ),
        report=report,
        target=Sections(findings=report.findings, impression=report.impression),
        labels={**drawn.labels, NORMAL: Status.ABSENT if findings else Status.PRESENT},
        truth={**truth, "segmentation": segmentation},
    )


def prepare(
    out: Path,
    *,
    counts: dict[str, dict[str, int]],
    seed: int = 0,
    mirrored: float = 0.0,
    size: int = 512,
    spacing: tuple[float, float, float] | None = None,
    rewritten: int = 0,
) -> None:
    """Writes ``counts``, by region and split, studies into ``out`` and prints what was drawn."""
    if not 0 <= mirrored <= 1:
        raise ConfigError("--mirrored", expected="0 to 1", found=f"{mirrored:g}", fix="give a part of the studies")
    given = {split: count for of_region in counts.values() for split, count in of_region.items()}
    for name, count in {**given, "seed": seed, "rewritten": rewritten}.items():
        if not 0 <= count <= MOST:
            raise ConfigError(f"--{name}", expected=f"0 to {MOST:,}", found=str(count), fix="give another number")
    if not 64 <= size <= 4096:
        raise ConfigError("--size", expected="64 to 4096 pixels", found=str(size), fix="give another number")
    if spacing is not None and not 0.3 <= min(spacing) <= max(spacing) <= 10:
        raise ConfigError("--spacing", expected="0.3 to 10 mm", found=str(spacing), fix="give slice, row, column in mm")
    tasks = [
        (region, split, number) for region in counts for split in SPLITS for number in range(counts[region][split])
    ]
    workers = max(1, min(os.cpu_count() or 1, len(tasks) // 4))
    with fresh_folder(out) as folder, get_context("spawn").Pool(workers) as pool:
        write = partial(
            write_task,
            folder=folder,
            seed=seed,
            mirrored=mirrored,
            size=size,
            spacing=spacing,
            rewritten=rewritten,
        )
        drawn = pool.imap(write, tasks, chunksize=4)
        rows = [row for _, rows in zip(progress(tasks, "Drawing studies"), drawn, strict=True) for row in rows]
        write_manifest(rows, folder / "manifest.jsonl")
    for region in counts:
        print_counts(region, [row for row in rows if row.region == region])


def write_task(
    task: tuple[str, str, int],
    *,
    folder: Path,
    seed: int,
    mirrored: float,
    size: int,
    spacing: tuple[float, float, float] | None,
    rewritten: int,
) -> list[ManifestRow]:
    """Writes study ``number`` of (region, split, number), in a process of its own."""
    region, split, number = task
    own = study_seed(seed, split, number, region=region)
    if region == CHEST_RADIOGRAPH:
        return [write_study((split, own), folder=folder, size=size, mirrored=mirrored)]
    return write_volume(
        (region, split, own), folder=folder, spacing=spacing, mirrored=mirrored, rewritten=number < rewritten
    )


def print_counts(region: str, rows: list[ManifestRow]) -> None:
    """Prints how many studies of each split show what; rewritten ones count once."""
    once = [row for row in rows if row.truth and "original" not in row.truth]
    print(f"{region:23} " + " ".join(f"{split:>7}" for split in SPLITS))
    for name in ("studies", NORMAL, *DRAWN[region]):
        shown = Counter(r.split for r in once if name == "studies" or r.labels[name] is Status.PRESENT)
        print(f"{name:23} " + " ".join(f"{shown[split]:7,}" for split in SPLITS))
    if len(once) < len(rows):
        print(f"and {len(rows) - len(once)} of them in other planes, order and spacing")


def main() -> int:
    """Reads the command line and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write manifest.jsonl and its images to")
    parser.add_argument(
        "--region",
        nargs="+",
        choices=DRAWN,
        default=[CHEST_RADIOGRAPH],
        help=f"what to draw, all into one manifest (default: {CHEST_RADIOGRAPH})",
    )
    for number, split in enumerate(SPLITS):
        parser.add_argument(
            f"--{split}",
            type=int,
            help=f"number of studies of each region (default: {RADIOGRAPHS[number]} of radiographs, "
            f"{VOLUMES[number]} of volumes)",
        )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other studies (default: %(default)s)")
    parser.add_argument(
        "--mirrored",
        type=float,
        default=0.0,
        metavar="PART",
        help="of the studies, drawn with left and right exchanged, organs included, so that a model learns to read "
        "sides from the picture and not from the heart (default: %(default)s)",
    )
    parser.add_argument("--size", type=int, default=512, help="rows and columns of radiographs (default: %(default)s)")
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar="MM",
        help="between slices, rows and columns of volumes (default: 2 1.25 1.25 of CT, 1.5 1 1 of the head)",
    )
    parser.add_argument(
        "--rewritten",
        type=int,
        default=0,
        metavar="N",
        help="the first N volumes of each region and split are written once more, in other planes, slice order, tilt "
        "and spacing; ``truth.original`` of such a row names the first (default: %(default)s)",
    )
    given = parser.parse_args()
    counts = {
        region: {
            split: default if getattr(given, split) is None else getattr(given, split)
            for split, default in zip(SPLITS, RADIOGRAPHS if region == CHEST_RADIOGRAPH else VOLUMES, strict=True)
        }
        for region in given.region
    }
    try:
        prepare(
            given.out,
            counts=counts,
            seed=given.seed,
            mirrored=given.mirrored,
            size=given.size,
            spacing=given.spacing and tuple(given.spacing),
            rewritten=given.rewritten,
        )
    except MmfmError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
