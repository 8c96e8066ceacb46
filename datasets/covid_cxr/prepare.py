"""Prepare the openly licensed part of the COVID-19 image data collection: a check, not for training.

    python datasets/covid_cxr/prepare.py --source ../shared/data/covid_cxr --out $MMFM_DATA/covid_cxr

Writes manifest.jsonl, images/ and attribution.csv under --out, all or nothing, and prints what was counted. See
README.md beside this file for what the source is and for the numbers that must come out.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

from mmfm.data.manifest import ManifestPatient, ManifestRow, ManifestSeries, write_manifest
from mmfm.data.preparing import check_counts, fresh_folder, read_table, run, take_out, tidy
from mmfm.errors import ManifestError
from mmfm.study import Sex, ViewPosition

SPLIT = "ood"
"""Out of distribution: measured on, never trained on."""

MODALITIES = {"X-ray": None, "CT": "CT"}
"""The source says X-ray, which DICOM splits into CR and DX; nobody can tell which."""

VIEWS = {
    "PA": ViewPosition.PA,
    "AP": ViewPosition.AP,
    "AP Supine": ViewPosition.AP,
    "AP Erect": ViewPosition.AP,
    "L": ViewPosition.LATERAL,
}
"""Of radiographs; "L" is a lateral view, whose side the source does not state."""

ATTRIBUTION = ("license", "doi", "url", "clinical_notes", "other_notes", "location")

EXPECTED = {
    "studies ood": 328,
    "patients": 149,
    "X-ray PA": 167,
    "X-ray AP": 40,
    "X-ray AP Supine": 51,
    "X-ray L": 27,
    "CT Axial": 29,
    "CT Coronal": 14,
    "diagnosis COVID-19": 230,
    "diagnosis COVID-19, ARDS": 5,
    "diagnosis ARDS": 4,
    "diagnosis No Finding": 16,
    "diagnosis Pneumonia": 14,
    "diagnosis Pneumocystis": 12,
    "diagnosis Streptococcus": 11,
    "diagnosis Klebsiella": 8,
    "diagnosis Mycoplasma Bacterial Pneumonia": 8,
    "diagnosis Legionella": 6,
    "diagnosis Varicella": 5,
    "diagnosis Bacterial": 4,
    "diagnosis Lipoid": 3,
    "diagnosis Influenza": 2,
    "notes": 260,
}
"""Counts of the published folder."""


def prepare(source: Path, out: Path, *, expect: bool) -> None:
    """Writes the manifest and images of ``source`` into ``out``; each picture is a study of its own.

    Args:
        source: folder with images.csv and images.tar.
        out: folder to write; an earlier result is replaced.
        expect: check the counts of the published folder.

    Raises:
        ManifestError: the table or the archive is missing or broken, or a count is not as expected.
    """
    columns = ("file", "patientid", "sex", "age", "finding", "modality", "view", *ATTRIBUTION)
    images = read_table(source / "images.csv", columns)
    with fresh_folder(out) as folder:
        sha256 = take_out([source / "images.tar"], [image["file"] for image in images], folder / "images")
        rows = [_row(image, sha256[image["file"]]) for image in images]
        counts = Counter({f"studies {SPLIT}": len(rows), "patients": len({row.patient_id for row in rows})})
        for image in images:
            counts[f"{image['modality']} {image['view']}"] += 1
            counts[f"diagnosis {image['finding']}"] += 1
            counts["notes"] += bool(image["clinical_notes"].strip())
        if expect:
            check_counts(EXPECTED, counts)
        with (folder / "attribution.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, ("study_uid", *ATTRIBUTION), extrasaction="ignore")
            table.writeheader()
            table.writerows({"study_uid": row.study_uid} | image for row, image in zip(rows, images, strict=True))
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


def _row(image: dict[str, str], sha256: str) -> ManifestRow:
    uid = f"covid_cxr-{image['file'].split('_')[0].split('.')[0]}"
    try:
        modality = MODALITIES[image["modality"]]
        patient = ManifestPatient(
            sex=Sex(image["sex"]) if image["sex"] else None,
            age=float(image["age"]) if image["age"] else None,
        )
    except (KeyError, ValueError) as error:
        raise ManifestError(
            "images.csv",
            expected=f"modality {' or '.join(MODALITIES)}, sex M, F or empty, age a number or empty",
            found=str(error),
            fix="use the table as its publisher wrote it",
        ) from error
    return ManifestRow(
        study_uid=uid,
        patient_id=f"covid_cxr-{image['patientid']}",
        source="covid_cxr",
        split=SPLIT,
        patient=patient,
        series=(
            ManifestSeries(
                series_uid=f"{uid}-1",
                path=f"images/{image['file']}",
                modality=modality,
                view=VIEWS.get(image["view"]) if image["modality"] == "X-ray" else None,
                sha256=sha256,
            ),
        ),
        diagnosis=tidy(image["finding"]),
    )


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__))
