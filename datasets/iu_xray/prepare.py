"""Prepare the Indiana University chest X-ray collection (Open-i): reports, labels and JPEG images in .tar files.

    python datasets/iu_xray/prepare.py --source ../shared/data/iu_xray --out $MMFM_DATA/iu_xray

Writes manifest.jsonl and images/ under --out, all or nothing, and prints what was counted. See README.md beside this
file for what the source is and for the numbers that must come out.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from mmfm.data.manifest import NORMAL, ManifestRow, ManifestSeries, write_manifest
from mmfm.data.preparing import (
    check_counts,
    fresh_folder,
    plain_name,
    progress,
    read_table,
    run,
    take_out,
    tidy,
    training_text,
)
from mmfm.report import Sections, Status
from mmfm.study import ViewPosition
from mmfm.text import label_report, states

VIEWS = {"Frontal": ViewPosition.FRONTAL, "Lateral": ViewPosition.LATERAL}

OPENI = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Effusion": "pleural_effusion",
    "Infiltration": "infiltration",
    "Mass": "mass",
    "Nodule": "nodule",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Emphysema": "emphysema",
    "Fibrosis": "fibrosis",
    "Pleural_Thickening": "pleural_thickening",
    "Hernia": "hernia",
    "normal": NORMAL,
}
"""Columns of labels_openi14.csv to labels of the manifest."""

EXPECTED = {
    "studies in reports.csv": 3261,
    "studies without image, left out": 25,
    "images of no study, left out": 0,
    "studies train": 2069,
    "studies val": 296,
    "studies extra": 871,
    "images train frontal": 2140,
    "images train lateral": 2118,
    "images val frontal": 300,
    "images val lateral": 306,
    "images extra frontal": 739,
    "images extra lateral": 600,
} | {
    f"Open-i {split} {name}": count
    for split, counts in {
        "train": (176, 180, 69, 25, 9, 59, 28, 9, 19, 22, 56, 7, 27, 0, 682),
        "val": (19, 32, 15, 5, 0, 7, 2, 3, 1, 3, 12, 1, 4, 0, 98),
        "extra": (81, 104, 52, 26, 6, 31, 8, 8, 8, 11, 19, 10, 15, 0, 267),
    }.items()
    for name, count in zip(OPENI.values(), counts, strict=True)
}
"""Counts of the published folder; positives of Open-i are of the studies that have an image."""


def prepare(source: Path, out: Path, *, expect: bool) -> None:
    """Writes the manifest and images of ``source`` into ``out``.

    Args:
        source: folder with reports.csv, images.csv, the archives that images.csv names, and labels_openi14.csv where
            there are labels.
        out: folder to write; an earlier result is replaced.
        expect: check the counts of the published folder.

    Raises:
        ManifestError: a table or an archive is missing or broken, or a count is not as expected.
    """
    reports = read_table(source / "reports.csv", ("uid", "split", "findings", "impression", "indication", "comparison"))
    images = read_table(source / "images.csv", ("uid", "file", "projection", "shard"))
    coded = {}
    if (source / "labels_openi14.csv").exists():
        coded = {row["uid"]: row for row in read_table(source / "labels_openi14.csv", ("uid", *OPENI))}
    by_study: dict[str, list[dict[str, str]]] = {report["uid"]: [] for report in reports}
    counts = Counter({"studies in reports.csv": len(reports)})
    for image in images:
        if image["uid"] in by_study:
            by_study[image["uid"]].append(image)
        else:
            counts["images of no study, left out"] += 1

    with fresh_folder(out) as folder:
        kept = [image for of_study in by_study.values() for image in of_study]
        archives = {source / plain_name(image["shard"]) for image in kept}
        sha256 = take_out(archives, [image["file"] for image in kept], folder / "images")
        rows = []
        for report in progress(reports, "Reading reports"):
            of_study = by_study[report["uid"]]
            if not of_study:
                counts["studies without image, left out"] += 1
                continue
            row = _row(report, of_study, coded.get(report["uid"]), sha256, counts)
            rows.append(row)
            counts[f"studies {row.split}"] += 1
            for series in row.series:
                counts[f"images {row.split} {series.view or 'of no stated view'}"] += 1
            for name in OPENI.values() if report["uid"] in coded else ():
                counts[f"Open-i {row.split} {name}"] += row.labels[name] is Status.PRESENT
        if expect:
            check_counts(EXPECTED, counts)
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


def _row(
    report: dict[str, str],
    images: list[dict[str, str]],
    coded: dict[str, str] | None,
    sha256: dict[str, str],
    counts: Counter[str],
) -> ManifestRow:
    findings, impression = tidy(report["findings"]), tidy(report["impression"])
    labels: dict[str, Status | None] = {**states(label_report(findings, impression)), NORMAL: None}
    if coded:
        # A person's coding wins over the labeller; it knows no "uncertain", and 0 is absent.
        labels |= {name: Status.PRESENT if coded[column] == "1" else Status.ABSENT for column, name in OPENI.items()}
    target = Sections(findings=target_text(findings, counts), impression=target_text(impression, counts))
    counts["studies with text, but none left to train on"] += bool(findings or impression) and target == Sections()
    return ManifestRow(
        study_uid=f"iu_xray-{report['uid']}",
        patient_id=f"iu_xray-{report['uid']}",
        source="iu_xray",
        split=report["split"],
        series=tuple(
            ManifestSeries(
                series_uid=f"iu_xray-{image['file'].split('.')[0]}",
                path=f"images/{image['file']}",
                view=VIEWS.get(image["projection"]),
                sha256=sha256[image["file"]],
            )
            for image in images
        ),
        report=Sections(
            indication=tidy(report["indication"]),
            technique=tidy(report.get("image")),
            comparison=tidy(report["comparison"]),
            findings=findings,
            impression=impression,
        ),
        target=target,
        labels=labels,
        codes=mesh_codes(report.get("MeSH")),
    )


def mesh_codes(mesh: str | None) -> tuple[str, ...] | None:
    """Returns the terms that a person coded a study with, each with its levels, or ``None`` if nobody did.

    "Lung/hypoinflation/mild;Scoliosis" gives Lung, Lung/hypoinflation, Lung/hypoinflation/mild and Scoliosis.
    """
    if mesh is None or mesh.strip() in ("", "No Indexing"):
        return None
    terms = [term.strip().split("/") for term in mesh.split(";") if term.strip()]
    return tuple(dict.fromkeys("/".join(term[:depth]) for term in terms for depth in range(1, len(term) + 1)))


def target_text(text: str | None, counts: Counter[str]) -> str | None:
    """Returns the ``training_text`` of a section, in which "x-XXXX" is read as the "x-ray" that it was."""
    return training_text(re.sub(r"\b([Xx])-XXXX", r"\1-ray", text or ""), counts, mask="XXXX")


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__))
