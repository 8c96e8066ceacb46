"""Prepare MIMIC-CXR (DICOM) or MIMIC-CXR-JPG in the folders that PhysioNet publishes: reports, labels, images in place.

    python datasets/mimic_cxr/prepare.py --source physionet.org/files/mimic-cxr-jpg/2.1.0 --out $MMFM_DATA/mimic_cxr

Writes manifest.jsonl and a link to the images under --out, all or nothing, and prints what was counted. See README.md
beside this file for who may have the data, what must lie in --source, and for the numbers that must come out.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmfm.data.manifest import ManifestRow, ManifestSeries, write_manifest
from mmfm.data.preparing import (
    check_counts,
    chexpert_states,
    fresh_folder,
    has_table,
    link_folder,
    progress,
    run,
    table_rows,
    tidy,
    training_text,
)
from mmfm.errors import ManifestError
from mmfm.report import Sections, Status
from mmfm.study import ViewPosition
from mmfm.text import label_report, states
from mmfm.text.sections import split_sections

SPLITS = {"train": "train", "validate": "val", "test": "test"}

VIEWS = {
    "PA": ViewPosition.PA,
    "PA LLD": ViewPosition.PA,
    "PA RLD": ViewPosition.PA,
    "AP": ViewPosition.AP,
    "AP AXIAL": ViewPosition.AP,
    "AP LLD": ViewPosition.AP,
    "AP RLD": ViewPosition.AP,
    "LL": ViewPosition.LL,
    "RL": ViewPosition.RL,
    "LATERAL": ViewPosition.LATERAL,
    "XTABLE LATERAL": ViewPosition.LATERAL,
}
"""ViewPosition to a view; obliques and the like have none."""

VIEW_MEANINGS = {
    "postero-anterior": ViewPosition.PA,
    "antero-posterior": ViewPosition.AP,
    "lateral": ViewPosition.LATERAL,
}
"""ViewCodeSequence_CodeMeaning to a view, asked where ViewPosition says none."""

MASK = "___"
"""What de-identification put in place of words."""

EXPECTED = {
    "patients": 65379,
    "images train": 368960,
    "images val": 2991,
    "images test": 5159,
    "images not there, left out": 0,
    "studies without image, left out": 0,
    "studies train": 222758,
    "studies val": 1808,
    "studies test": 3269,
    "studies without a report": 0,
    "studies that CheXpert or NegBio labelled": 227827,
}
"""Counts of the published folder, as the card tells where from."""


@dataclass(kw_only=True)
class Images:
    """The images of a study, as the tables list them."""

    patient: str
    split: str
    views: dict[str, ViewPosition | None] = field(default_factory=dict)
    """By dicom_id."""
    when: tuple[int, float] | None = None
    """StudyDate and StudyTime."""

    def folder(self, study: str) -> str:
        """Returns where the images lie; the report lies beside, with .txt."""
        return f"p{self.patient[:2]}/p{self.patient}/s{study}"


def prepare(source: Path, out: Path, *, expect: bool) -> None:
    """Writes the manifest of ``source`` into ``out``, and a link to its images.

    Args:
        source: folder with files/ (images, and reports as .txt beside the folder of each study) and the tables
            mimic-cxr-2.0.0-split.csv, -metadata.csv and, where there are labels, -chexpert.csv or -negbio.csv, and
            mimic-cxr-2.1.0-test-set-labeled.csv; each of them plain or as .gz.
        out: folder to write; an earlier result is replaced.
        expect: check the counts of the published folder.

    Raises:
        ManifestError: a table or the images are missing or broken, or a count is not as expected.
    """
    counts: Counter[str] = Counter()
    studies = listed_studies(source, counts)
    labels = table_labels(source, counts)
    with fresh_folder(out) as folder:
        link_folder(folder / "files", source / "files")
        files = {}
        for study, images in progress(list(studies.items()), "Looking for images"):
            there = present(source / "files" / images.folder(study))
            files[study] = [there[dicom_id] for dicom_id in images.views if dicom_id in there]
            counts["images not there, left out"] += len(images.views) - len(files[study])
        kept = {study: images for study, images in studies.items() if files[study]}
        counts["studies without image, left out"] = len(studies) - len(kept)
        prior = priors(kept)
        rows = []
        for study, images in progress(list(kept.items()), "Reading reports"):
            text = _report(source / "files" / f"{images.folder(study)}.txt")
            counts["studies without a report"] += text is None
            row = _row(study, images, files[study], text, labels.get(study), counts)
            rows.append(replace(row, prior_study_uid=_uid(prior[study]) if study in prior else None))
            counts[f"studies {row.split}"] += 1
            counts[f"images {row.split}"] += len(row.series)
            for file in files[study]:
                counts[f"images as {file.rpartition('.')[2]}"] += 1
        counts["patients"] = len({row.patient_id for row in rows})
        counts["studies with a prior study"] = len(prior)
        if expect:
            check_counts(EXPECTED, counts)
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


def listed_studies(source: Path, counts: Counter[str]) -> dict[str, Images]:
    """Returns the studies of the split table by study_id, with the view and the time of the metadata table."""
    columns = ("dicom_id", "ViewPosition", "ViewCodeSequence_CodeMeaning", "StudyDate", "StudyTime")
    metadata = {}
    for row in table_rows(source / "mimic-cxr-2.0.0-metadata.csv", columns):
        view = VIEWS.get(row["ViewPosition"].strip().upper())
        if not row["ViewPosition"].strip():
            view = VIEW_MEANINGS.get(row["ViewCodeSequence_CodeMeaning"].strip().lower())
        metadata[row["dicom_id"]] = view, _when(row["StudyDate"], row["StudyTime"])
    studies: dict[str, Images] = {}
    table = "mimic-cxr-2.0.0-split.csv"
    for row in table_rows(source / table, ("dicom_id", "study_id", "subject_id", "split")):
        study, patient, dicom_id = row["study_id"], row["subject_id"], row["dicom_id"]
        named = re.fullmatch(r"\d+", study) and re.fullmatch(r"\d+", patient) and re.fullmatch(r"[0-9a-f-]+", dicom_id)
        if not named or row["split"] not in SPLITS:
            raise ManifestError(
                table,
                expected=f"numbers as study_id and subject_id, dicom_id of 0-9a-f-, split {' or '.join(SPLITS)}",
                found="a row with something else",
                fix="use the table as its publisher wrote it",
            )
        images = studies.setdefault(study, Images(patient=patient, split=SPLITS[row["split"]]))
        if (images.patient, images.split) != (patient, SPLITS[row["split"]]) or dicom_id in images.views:
            raise ManifestError(
                table,
                expected="one patient and one split for each study, and each image once",
                found="a study with two, or an image twice",
                fix="use the table as its publisher wrote it",
            )
        counts["images without metadata"] += dicom_id not in metadata
        images.views[dicom_id], when = metadata.get(dicom_id, (None, None))
        images.when = images.when or when
    return studies


def table_labels(source: Path, counts: Counter[str]) -> dict[str, dict[str, Status | None]]:
    """Returns the published labels by study_id: a radiologist's where there are any, else CheXpert's, else NegBio's."""
    labels = {}
    for name in ("chexpert", "negbio"):
        table = f"mimic-cxr-2.0.0-{name}.csv"
        if has_table(source / table):
            for row in table_rows(source / table, ("study_id",)):
                labels[row["study_id"]] = chexpert_states(row, table)
            break
    counts["studies that CheXpert or NegBio labelled"] = len(labels)
    table = "mimic-cxr-2.1.0-test-set-labeled.csv"
    if has_table(source / table):
        for row in table_rows(source / table, ("study_id",)):
            if "Airspace Opacity" in row:  # the only table with this name for it
                row["Lung Opacity"] = row["Airspace Opacity"]
            labels[row["study_id"]] = chexpert_states(row, table)
            counts["studies that a radiologist labelled from the report"] += 1
    return labels


def present(folder: Path) -> dict[str, str]:
    """Returns the image files of a folder by dicom_id; DICOM wins over JPEG, which has lost depth."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name[:-4]: name for suffix in (".jpg", ".dcm") for name in names if name.endswith(suffix)}


def priors(studies: Mapping[str, Images]) -> dict[str, str]:
    """Returns the last earlier study of the same patient, by study; studies of the same time are not earlier."""
    of_patient: dict[str, list[tuple[tuple[int, float], str]]] = {}
    for study, images in studies.items():
        if images.when is not None:
            of_patient.setdefault(images.patient, []).append((images.when, study))
    found = {}
    for timed in of_patient.values():
        for when, study in timed:
            earlier = [other for other in timed if other[0] < when]
            if earlier:
                found[study] = max(earlier)[1]
    return found


def report_sections(text: str, counts: Counter[str]) -> Sections:
    """Returns the sections of a report of MIMIC-CXR.

    What stands before FINAL REPORT (a preliminary reading) is left out, and a title in capitals is the technique. Only
    the first paragraph of indication, technique and comparison belongs to them: what follows without a heading is the
    findings, or the technique where there are findings under a heading. Otherwise an indication, which is given to a
    model, would give the findings away.
    """
    before, mark, body = text.partition("FINAL REPORT")
    if not mark:
        counts["reports without the words FINAL REPORT"] += 1
        body = before
    body = re.sub(r"(?im)^ *(findings? *(and|&|/) *impression|impression *(and|&|/) *findings?) *:", "FINDINGS:", body)
    title, *rest = re.split(r"\n\s*\n", body.strip(), maxsplit=1)
    if rest and not re.search(r"[a-z]|^ *[A-Z ()/]+:", title, re.MULTILINE):
        body = rest[0]
    else:
        title = ""
    found = split_sections(body)
    first, loose = {}, []
    for name in ("indication", "technique", "comparison"):
        head, *others = re.split(r"\n\s*\n", getattr(found, name) or "")
        first[name] = head
        loose += others
    findings = found.findings
    if loose and findings is None:
        counts["reports with findings under no heading of their own"] += 1
        findings, loose = "\n".join(loose), []
    return Sections(
        indication=tidy(first["indication"]),
        technique=tidy(" ".join((title, first["technique"], *loose))),
        comparison=tidy(first["comparison"]),
        findings=tidy(findings),
        impression=tidy(found.impression),
    )


def _row(
    study: str,
    images: Images,
    files: list[str],
    text: str | None,
    published: Mapping[str, Status | None] | None,
    counts: Counter[str],
) -> ManifestRow:
    report = report_sections(text or "", counts) if text is not None else Sections()
    counts["reports without findings and impression"] += text is not None and not (report.findings or report.impression)
    labels = dict(states(label_report(report.findings, report.impression)))
    target = Sections(
        findings=training_text(report.findings, counts, mask=MASK),
        impression=training_text(report.impression, counts, mask=MASK),
    )
    counts["studies with text, but none left to train on"] += (
        bool(report.findings or report.impression) and target == Sections()
    )
    return ManifestRow(
        study_uid=_uid(study),
        patient_id=f"mimic_cxr-{images.patient}",
        source="mimic_cxr",
        split=images.split,
        series=tuple(
            ManifestSeries(
                series_uid=f"mimic_cxr-{file[:-4]}",
                path=f"files/{images.folder(study)}/{file}",
                view=images.views[file[:-4]],
            )
            for file in files
        ),
        report=report,
        target=target,
        labels=labels | dict(published or {}),
    )


def _uid(study: str) -> str:
    return f"mimic_cxr-{study}"


def _report(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _when(date: str, time: str) -> tuple[int, float] | None:
    """Returns a time to sort by. StudyTime is HHMMSS.ffffff whose leading zeros may be lost, so it is a number."""
    try:
        return (int(date), float(time)) if date.strip() and time.strip() else None
    except ValueError:
        raise ManifestError(
            "mimic-cxr-2.0.0-metadata.csv",
            expected="numbers, or nothing, as StudyDate and StudyTime",
            found="something else",
            fix="use the table as its publisher wrote it",
        ) from None


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__))
