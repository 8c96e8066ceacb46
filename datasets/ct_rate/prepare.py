"""Prepare CT-RATE in the folders that Hugging Face publishes: chest CT as NIfTI in place, reports, labels.

    python datasets/ct_rate/prepare.py --source CT-RATE/dataset --out $MMFM_DATA/ct_rate

Writes manifest.jsonl and links to the volumes under --out, all or nothing, and prints what was counted. See README.md
beside this file for who may have the data, what must lie in --source, and for the numbers that must come out.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mmfm.data.manifest import ManifestPatient, ManifestRow, ManifestSeries, write_manifest
from mmfm.data.preparing import check_counts, fresh_folder, link_folder, progress, run, table_rows, tidy, training_text
from mmfm.errors import ManifestError
from mmfm.report import Sections, Status
from mmfm.study import Sex
from mmfm.text import label_report, states

SPLITS = {
    "train": ("train", "train_reports.csv", "train_predicted_labels.csv", "train_metadata.csv", "no_chest_train.txt"),
    "valid": (
        "val",
        "validation_reports.csv",
        "valid_predicted_labels.csv",
        "validation_metadata.csv",
        "no_chest_valid.txt",
    ),
}
"""The publisher's split to ours, and its tables of reports, labels and headers and its list of what is no chest."""

LABELS = {
    "Medical material": "medical_material",
    "Arterial wall calcification": "arterial_calcification",
    "Cardiomegaly": "cardiomegaly",
    "Pericardial effusion": "pericardial_effusion",
    "Coronary artery wall calcification": "coronary_calcification",
    "Hiatal hernia": "hiatal_hernia",
    "Lymphadenopathy": "lymphadenopathy",
    "Emphysema": "emphysema",
    "Atelectasis": "atelectasis",
    "Lung nodule": "nodule",
    "Lung opacity": "lung_opacity",
    "Pulmonary fibrotic sequela": "fibrosis",
    "Pleural effusion": "pleural_effusion",
    "Mosaic attenuation pattern": "mosaic_attenuation",
    "Peribronchial thickening": "peribronchial_thickening",
    "Consolidation": "consolidation",
    "Bronchiectasis": "bronchiectasis",
    "Interlobular septal thickening": "interlobular_septal_thickening",
}
"""Columns of the tables of labels to observations."""

EXPECTED = {
    "patients": 21304,
    "studies train": 24128,
    "studies val": 1564,
    "volumes train": 46397,
    "volumes val": 3002,
    "volumes that are no chest, left out": 789,
    "volumes not there, left out": 0,
    "studies without a volume, left out": 0,
}
"""Counts of the published folder, as the card tells where from."""

NAME = re.compile(r"((train|valid)_\d+)_([a-z]+)_\d+\.nii\.gz")
"""Of a volume: patient (with its split), scan of the patient, reconstruction of the scan."""

VALUES = {"1": Status.PRESENT, "1.0": Status.PRESENT, "0": Status.ABSENT, "0.0": Status.ABSENT, "": None}

SAID_NOTHING = re.compile(r"not given\W*|none\W*|n/?a\W*", re.IGNORECASE)


def prepare(source: Path, out: Path, *, expect: bool) -> None:
    """Writes the manifest of ``source`` into ``out``, and links to its volumes; a scan is a study.

    Args:
        source: folder with train_fixed/ and valid_fixed/ (or one of them), radiology_text_reports/,
            multi_abnormality_labels/ and metadata/.
        out: folder to write; an earlier result is replaced.
        expect: check the counts of the published folder.

    Raises:
        ManifestError: a table or the volumes are missing or broken, or a count is not as expected.
    """
    counts: Counter[str] = Counter()
    rows: list[ManifestRow] = []
    with fresh_folder(out) as folder:
        there = [split for split in SPLITS if (source / f"{split}_fixed").is_dir()]
        for split in there or SPLITS:
            link_folder(folder / f"{split}_fixed", source / f"{split}_fixed")
        for split in there:
            rows += _split(source, split, counts)
        counts["patients"] = len({row.patient_id for row in rows})
        if expect:
            check_counts(EXPECTED, counts)
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


def _split(source: Path, split: str, counts: Counter[str]) -> Iterator[ManifestRow]:
    ours, reports, labels, headers, no_chest = SPLITS[split]
    left_out = _listed(source / "metadata" / no_chest)
    columns = ("ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")
    volumes: dict[str, list[str]] = {}
    texts: dict[str, dict[str, str]] = {}
    for row in _named(source / "radiology_text_reports" / reports, columns, split):
        name = row["VolumeName"]
        if name in left_out:
            counts["volumes that are no chest, left out"] += 1
            continue
        study = name.rpartition("_")[0]
        of_study = volumes.setdefault(study, [])
        if (source / _path(name)).is_file():
            of_study.append(name)
        else:
            counts["volumes not there, left out"] += 1
        first = texts.setdefault(study, row)
        counts["volumes with another report than the first of their study"] += any(first[c] != row[c] for c in columns)
    labelled = {
        row["VolumeName"].rpartition("_")[0]: _states(row, labels)
        for row in _named(source / "multi_abnormality_labels" / labels, LABELS, split)
    }
    header = {
        row["VolumeName"].rpartition("_")[0]: row
        for row in _named(source / "metadata" / headers, ("PatientSex", "PatientAge"), split)
    }
    for study, names in progress(list(volumes.items()), f"Reading {split}"):
        if not names:
            counts["studies without a volume, left out"] += 1
            continue
        row = _row(study, names, ours, texts[study], labelled.get(study, {}), header.get(study, {}), counts)
        counts[f"studies {ours}"] += 1
        counts[f"volumes {ours}"] += len(row.series)
        counts["studies without labels of the publisher"] += study not in labelled
        counts["studies without a report"] += not (row.report.findings or row.report.impression)
        yield row


def _row(
    study: str,
    names: list[str],
    split: str,
    text: Mapping[str, str],
    labels: Mapping[str, Status | None],
    header: Mapping[str, str],
    counts: Counter[str],
) -> ManifestRow:
    findings, impression = told(text["Findings_EN"]), told(text["Impressions_EN"])
    age = re.fullmatch(r"0*(\d+)(?:\.0)?Y?", header.get("PatientAge", "").strip())
    return ManifestRow(
        study_uid=f"ct_rate-{study}",
        patient_id=f"ct_rate-{study.rpartition('_')[0]}",
        source="ct_rate",
        split=split,
        region="chest_ct",
        patient=ManifestPatient(
            sex={"M": Sex.MALE, "F": Sex.FEMALE}.get(header.get("PatientSex", "").strip()),
            age=float(age[1]) if age else None,
        ),
        series=tuple(
            ManifestSeries(series_uid=f"ct_rate-{name.removesuffix('.nii.gz')}", path=_path(name), modality="CT")
            for name in sorted(names)
        ),
        report=Sections(
            indication=told(text["ClinicalInformation_EN"]),
            technique=told(text["Technique_EN"]),
            findings=findings,
            impression=impression,
        ),
        target=Sections(findings=training_text(findings, counts), impression=training_text(impression, counts)),
        labels={**states(label_report(findings, impression, region="chest_ct"), region="chest_ct"), **labels},
    )


def _path(name: str) -> str:
    study = name.rpartition("_")[0]
    patient = study.rpartition("_")[0]
    return f"{patient.partition('_')[0]}_fixed/{patient}/{study}/{name}"


def told(text: str) -> str | None:
    """Returns the tidied text, or ``None`` where it is empty or says that nothing was given."""
    tidied = tidy(text)
    return None if tidied is None or SAID_NOTHING.fullmatch(tidied) else tidied


def _named(table: Path, columns: Iterable[str], split: str) -> Iterator[dict[str, str]]:
    """Yields the rows of a table by volume.

    Raises:
        ManifestError: the table is missing or lacks a column, or a name is none of a volume of this split.
    """
    for row in table_rows(table, ("VolumeName", *columns)):
        match = NAME.fullmatch(row["VolumeName"])
        if match is None or match[2] != split:
            raise _broken(table.name, f"names such as {split}_1_a_1.nii.gz as VolumeName")
        yield row


def _listed(path: Path) -> set[str]:
    """Returns the names of the volumes in a list, which has a path to each on a line."""
    try:
        return {line.strip().rpartition("/")[2] for line in path.read_text(encoding="utf-8").splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        fix = "download it with the tables: without it, scans of heads would be learned as chests"
        found = getattr(error, "strerror", None) or "other bytes"
        raise ManifestError(path.name, expected="a list in UTF-8", found=found, fix=fix) from error


def _states(row: Mapping[str, str], table: str) -> dict[str, Status | None]:
    try:
        return {name: VALUES[row[column].strip()] for column, name in LABELS.items()}
    except KeyError:
        raise _broken(table, "1, 0 or nothing as a label") from None


def _broken(where: str, expected: str) -> ManifestError:
    fix = "use the table as its publisher wrote it"
    return ManifestError(where, expected=expected, found="something else", fix=fix)


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__))
