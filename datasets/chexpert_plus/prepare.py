"""Prepare CheXpert Plus in the folders that Stanford AIMI publishes: reports, labels, images in place.

    python datasets/chexpert_plus/prepare.py --source DIR --out $MMFM_DATA/chexpert_plus

Writes manifest.jsonl and a link to the images under --out, all or nothing, and prints what was counted. See README.md
beside this file for who may have the data, what must lie in --source, and for the numbers that must come out.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mmfm.data.manifest import ManifestPatient, ManifestRow, ManifestSeries, write_manifest
from mmfm.data.preparing import (
    check_counts,
    chexpert_states,
    fresh_folder,
    link_folder,
    progress,
    run,
    table_rows,
    tidy,
    training_text,
)
from mmfm.errors import ManifestError
from mmfm.report import Sections, Status
from mmfm.study import Sex, ViewPosition
from mmfm.text import label_report, states

TABLE = "df_chexpert_plus_240401.csv"
LABELS = "chexbert_labels/impression_fixed.json"

SPLITS = {"train": "train", "valid": "val"}

FOLDERS = ("DICOM/Uncompressed", "DICOM", "PNG/PNG", "PNG")
"""Where train/ and valid/ may lie in the source; the first one that is there is used. DICOM wins over PNG."""

VIEWS = {
    ("Lateral", ""): ViewPosition.LATERAL,
    ("Frontal", "AP"): ViewPosition.AP,
    ("Frontal", "PA"): ViewPosition.PA,
    ("Frontal", ""): ViewPosition.FRONTAL,
    ("Frontal", "LL"): ViewPosition.FRONTAL,
    ("Frontal", "RL"): ViewPosition.FRONTAL,
}
"""frontal_lateral and ap_pa to a view; a frontal image with the direction of a lateral one is called frontal."""

SEXES = {"Female": Sex.FEMALE, "Male": Sex.MALE, "Unknown": None, "": None}

COLUMNS = (
    "path_to_image",
    "path_to_dcm",
    "frontal_lateral",
    "ap_pa",
    "deid_patient_id",
    "section_clinical_history",
    "section_history",
    "section_comparison",
    "section_technique",
    "section_findings",
    "section_impression",
    "age",
    "sex",
    "split",
)

EXPECTED = {
    "patients": 64725,
    "studies train": 187511,
    "studies val": 200,
    "images train": 223228,
    "images val": 234,
    "images not there, left out": 0,
    "studies without image, left out": 0,
    "studies that CheXbert labelled": 187711,
}
"""Counts of the published folder, as the card tells where from."""


def prepare(source: Path, out: Path, *, expect: bool) -> None:
    """Writes the manifest of ``source`` into ``out``, and a link to its images.

    Args:
        source: folder with df_chexpert_plus_240401.csv (or .csv.gz), the images in one of ``FOLDERS`` and, where there
            are labels, chexbert_labels/impression_fixed.json.
        out: folder to write; an earlier result is replaced.
        expect: check the counts of the published folder.

    Raises:
        ManifestError: the table, the labels or the images are missing or broken, or a count is not as expected.
    """
    root = next((name for name in FOLDERS if any((source / name / split).is_dir() for split in SPLITS)), None)
    if root is None:
        raise ManifestError(
            "--source",
            expected=f"train/ and valid/ in one of {', '.join(FOLDERS)}",
            found="none of them",
            fix="unpack the images as the dataset's card says",
        )
    column, suffix = ("path_to_dcm", ".dcm") if root.startswith("DICOM") else ("path_to_image", ".png")
    counts: Counter[str] = Counter()
    # The first line of each study. Its others repeat the report, with the dates of another de-identification.
    first: dict[str, dict[str, str]] = {}
    series: dict[str, list[ManifestSeries]] = {}
    for row in table_rows(source / TABLE, COLUMNS):
        line = {name: row[name] for name in COLUMNS}
        key = study_key(line["path_to_image"])
        if key not in first:
            first[key], series[key] = line, []
        if not line["deid_patient_id"] or any(line[name] != first[key][name] for name in ("deid_patient_id", "split")):
            raise _wrong("one patient and one split for each study", "a study with two, or no patient")
        if study_key(line[column]) != key:
            raise _wrong("path_to_image and path_to_dcm of the same study", "two")
        image = str(PurePosixPath(line[column]).with_suffix(suffix))  # the table says .jpg of what is published as .png
        if (source / root / image).is_file():
            series[key].append(_series(image, line))
        else:
            counts["images not there, left out"] += 1
    labels = table_labels(source, {line["path_to_image"]: key for key, line in first.items()}, counts)
    with fresh_folder(out) as folder:
        link_folder(folder / "images", source / root)
        rows = []
        for key, line in progress(list(first.items()), "Reading reports"):
            if not series[key]:
                counts["studies without image, left out"] += 1
                continue
            row = _row(key, line, series[key], labels.get(key), counts)
            rows.append(row)
            counts[f"studies {row.split}"] += 1
            counts[f"images {row.split}"] += len(row.series)
            counts[f"images as {suffix[1:]}"] += len(row.series)
        counts["patients"] = len({row.patient_id for row in rows})
        if expect:
            check_counts(EXPECTED, counts)
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


def study_key(path: str) -> str:
    """Returns "patient42142-study5" of "train/patient42142/study5/view1_frontal.jpg".

    Raises:
        ManifestError: the path has another form.
    """
    parts = re.fullmatch(r"(?:train|valid)/(patient\d+)/(study\d+)/view\d+_\w+\.\w+", path)
    if parts is None:
        raise _wrong("paths such as train/patient00001/study1/view1_frontal.jpg", "another form")
    return f"{parts[1]}-{parts[2]}"


def table_labels(source: Path, keys: Mapping[str, str], counts: Counter[str]) -> dict[str, dict[str, Status | None]]:
    """Returns what CheXbert read in the impressions, by study; empty where the file is not there.

    Args:
        source: the folder that holds the file.
        keys: the study by the path_to_image whose report is used; another image of it may have other labels.
        counts: counts the studies.

    Raises:
        ManifestError: a line is no JSON object of the published form.
    """
    labels: dict[str, dict[str, Status | None]] = {}
    try:
        with (source / LABELS).open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                if record["path_to_image"] in keys:
                    labels[keys[record["path_to_image"]]] = chexpert_states(record, LABELS)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ManifestError(
            LABELS,
            expected="one JSON object a line, with path_to_image and the labels",
            found="something else",
            fix="use the file as its publisher wrote it",
        ) from error
    counts["studies that CheXbert labelled"] = len(labels)
    return labels


def _series(image: str, line: Mapping[str, str]) -> ManifestSeries:
    try:
        view = VIEWS[line["frontal_lateral"], line["ap_pa"]]
    except KeyError:
        raise _wrong(
            "Frontal or Lateral as frontal_lateral, and AP, PA, LL, RL or nothing as ap_pa", "something else"
        ) from None
    return ManifestSeries(
        series_uid="chexpert_plus-" + image.partition("/")[2].rpartition(".")[0].replace("/", "-"),
        path=f"images/{image}",
        view=view,
    )


def _row(
    key: str,
    line: Mapping[str, str],
    series: list[ManifestSeries],
    published: Mapping[str, Status | None] | None,
    counts: Counter[str],
) -> ManifestRow:
    try:
        split, age = SPLITS[line["split"]], float(line["age"]) if line["age"] else None
        patient = ManifestPatient(sex=SEXES[line["sex"]], age=age)
    except (KeyError, ValueError):
        raise _wrong(
            f"split {' or '.join(SPLITS)}, sex Female, Male, Unknown or nothing, age a number or nothing",
            "something else",
        ) from None
    report = Sections(
        indication=_text(" ".join((line["section_clinical_history"], line["section_history"]))),
        technique=_text(line["section_technique"]),
        comparison=_text(line["section_comparison"]),
        findings=_text(line["section_findings"]),
        impression=_text(line["section_impression"]),
    )
    target = Sections(
        findings=training_text(report.findings, counts), impression=training_text(report.impression, counts)
    )
    counts["studies without findings"] += report.findings is None
    counts["studies without findings and impression"] += not (report.findings or report.impression)
    counts["studies with text, but none left to train on"] += (
        bool(report.findings or report.impression) and target == Sections()
    )
    return ManifestRow(
        study_uid=f"chexpert_plus-{key}",
        patient_id=f"chexpert_plus-{line['deid_patient_id']}",
        source="chexpert_plus",
        split=split,
        series=tuple(series),
        patient=patient,
        report=report,
        target=target,
        labels=dict(states(label_report(report.findings, report.impression))) | dict(published or {}),
    )


def _text(text: str) -> str | None:
    return tidy(text.replace("\\n", " "))  # some cells hold the two characters \n where a line ends


def _wrong(expected: str, found: str) -> ManifestError:
    return ManifestError(TABLE, expected=expected, found=found, fix="use the table as its publisher wrote it")


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__))
