"""Prepare ReXGradient-160K in the folders that its publisher distributes: reports in sections; images stay in place.

    python datasets/rexgradient/prepare.py --source ReXGradient-160K --out $MMFM_DATA/rexgradient

Writes manifest.jsonl and a link to the images under --out, all or nothing, and prints what was counted. See README.md
beside this file for who may have the data, what must lie in --source, and for the numbers that must come out.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mmfm.data.manifest import ManifestPatient, ManifestRow, ManifestSeries, sha256, write_manifest
from mmfm.data.preparing import (
    check_counts,
    fresh_folder,
    link_folder,
    member,
    progress,
    read_json,
    run,
    tidy,
    training_text,
)
from mmfm.errors import ManifestError
from mmfm.report import Sections
from mmfm.study import Sex, ViewPosition
from mmfm.text import label_report, states

SPLITS = {"train": "train", "valid": "val", "test": "test"}

IMAGES = "deid_png"
"""Folder of the unpacked images, and name of the link to it."""

VIEWS = {
    "PA": ViewPosition.PA,
    "POSTERO_ANTERIOR": ViewPosition.PA,
    "AP": ViewPosition.AP,
    "ANTERO_POSTERIOR": ViewPosition.AP,
    "AP AXIAL": ViewPosition.AP,
    "LL": ViewPosition.LL,
    "LATERAL": ViewPosition.LATERAL,
    "LAT": ViewPosition.LATERAL,
}
"""ImageViewPosition to a view; obliques, UNKNOWN, ERECT and the like have none."""

MODALITIES = ("CR", "DX")

SEXES = {"F": Sex.FEMALE, "M": Sex.MALE, "O": Sex.OTHER}

YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
"""Years of the units of a DICOM age string (PS3.5 6.2, AS)."""

EXPECTED = {
    "studies train": 140000,
    "studies val": 10000,
    "studies test": 10000,
    "patients train": 95716,
    "patients val": 6964,
    "patients test": 6807,
    "images train": 238968,
    "images val": 17007,
    "images test": 17029,
    "images not there, left out": 0,
    "studies without image, left out": 0,
}
"""Counts of the published folder, as the card tells where from."""


def prepare(source: Path, out: Path, *, expect: bool) -> None:
    """Writes the manifest of ``source`` into ``out``, and a link to its images.

    Args:
        source: folder with metadata/{train,valid,test}_metadata_view_position.json and the unpacked deid_png/.
        out: folder to write; an earlier result is replaced.
        expect: check the counts of the published folder; otherwise one of the three files is enough.

    Raises:
        ManifestError: a file or the images are missing or broken, or a count is not as expected.
    """
    files = {split: source / "metadata" / f"{split}_metadata_view_position.json" for split in SPLITS}
    if not expect:
        files = {split: file for split, file in files.items() if file.exists()} or files
    counts: Counter[str] = Counter()
    with fresh_folder(out) as folder:
        link_folder(folder / IMAGES, source / IMAGES)
        rows: list[ManifestRow] = []
        for split, file in files.items():
            studies = read_json(file)
            if not isinstance(studies, dict):
                raise _wrong(file.name, expected="an object with a member for each study", found="something else")
            for number, key in enumerate(progress(list(studies), f"Reading reports and images of {split}"), start=1):
                row = _row(key, studies[key], split, folder, f"{file.name} study {number}", counts)
                if row is None:
                    counts["studies without image, left out"] += 1
                else:
                    rows.append(row)
        for row in rows:
            counts[f"studies {row.split}"] += 1
            counts[f"images {row.split}"] += len(row.series)
            for series in row.series:
                counts[f"images {series.view or 'of no stated view'}"] += 1
        for split in SPLITS.values():
            counts[f"patients {split}"] = len({row.patient_id for row in rows if row.split == split})
        if expect:
            check_counts(EXPECTED, counts)
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


def _row(key: str, study: Any, split: str, folder: Path, where: str, counts: Counter[str]) -> ManifestRow | None:
    """Returns the row of a study, or ``None`` where none of its images is there."""
    uid = f"rexgradient-{key}"
    series = []
    for item in _series(uid, study, where, counts):
        image = folder / item.path
        if image.is_file():
            series.append(replace(item, sha256=sha256(image)))
        else:
            counts["images not there, left out"] += 1
    if not series:
        return None
    findings, impression = _text(study, "Findings", where), _text(study, "Impression", where)
    counts["studies without findings and impression"] += not (findings or impression)
    target = Sections(findings=training_text(findings, counts), impression=training_text(impression, counts))
    counts["studies with text, but none left to train on"] += bool(findings or impression) and target == Sections()
    return ManifestRow(
        study_uid=uid,
        patient_id=f"rexgradient-{member(study, 'PatientID', str, where)}",
        source="rexgradient",
        split=SPLITS[split],
        patient=ManifestPatient(
            sex=SEXES.get(member(study, "PatientSex", str, where, default="")),
            age=years(member(study, "PatientAge", str, where, default="")),
        ),
        series=tuple(series),
        report=Sections(
            indication=_text(study, "Indication", where),
            technique=tidy(member(study, "StudyDescription", str, where, default="")),
            comparison=_text(study, "Comparison", where),
            findings=findings,
            impression=impression,
        ),
        target=target,
        labels=dict(states(label_report(findings, impression))),
    )


def _series(uid: str, study: Any, where: str, counts: Counter[str]) -> list[ManifestSeries]:
    """Returns the images of a study, each a series, with what the parallel lists say of it."""
    paths = member(study, "ImagePath", list, where)
    views = member(study, "ImageViewPosition", list, where, default=[])
    modalities = member(study, "ImageModality", list, where, default=[])
    if not len(paths) == len(views) == len(modalities):
        counts["studies with other than one view and modality an image, not read"] += 1
        views = modalities = []
    series = []
    for number, (path, view, modality) in enumerate(zip_longest(paths, views, modalities), start=1):
        # The paths are relative to metadata/.
        if not isinstance(path, str) or not path.startswith(f"../{IMAGES}/"):
            raise _wrong(where, expected=f"an ImagePath that starts with ../{IMAGES}/", found="another one")
        series.append(
            ManifestSeries(
                series_uid=f"{uid}-{number}",
                path=path.removeprefix("../"),
                modality=modality if modality in MODALITIES else None,
                view=VIEWS.get(str(view).strip().upper()),
            )
        )
    return series


def _text(study: Any, name: str, where: str) -> str | None:
    """Returns a section, which may be empty; "None" and the like, written where it is, are nothing."""
    if name not in study:
        raise _wrong(where, expected=f"a member {name!r}", found="none")
    text = tidy(member(study, name, str, where, default=""))
    return None if text is None or text.lower() in ("none", "nan", "n/a") else text


def years(age: str) -> float | None:
    """Returns the years of an age such as 036Y or 007M, or ``None`` where it is none from 0 to 150 years."""
    number, unit = age[:-1], age[-1:].upper()
    if not number.isdecimal() or unit not in YEARS:
        return None
    found = round(int(number) * YEARS[unit], 3)
    return found if found <= 150 else None


def _wrong(where: str, *, expected: str, found: str) -> ManifestError:
    return ManifestError(where, expected=expected, found=found, fix="use the file as its publisher wrote it")


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__))
