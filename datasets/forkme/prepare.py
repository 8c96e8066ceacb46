"""Prepare your own studies: a folder of DICOM files and a table of reports. Copy this folder and edit ``row``.

    python datasets/forkme/prepare.py --source DIR --out $MMFM_DATA/my_hospital
    mmfm inspect $MMFM_DATA/my_hospital/manifest.jsonl

DIR holds DICOM files in any folders, and reports.csv: study_uid (StudyInstanceUID), split, and as far as you have them
indication, technique, comparison, findings, impression.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

from mmfm.data.manifest import ManifestPatient, ManifestRow, ManifestSeries, sha256, write_manifest
from mmfm.data.preparing import fresh_folder, progress, read_table, run, tidy
from mmfm.errors import ManifestError
from mmfm.io import read
from mmfm.report import SECTION_NAMES, Sections
from mmfm.study import Study
from mmfm.text import label_report, states
from mmfm.text.sections import without_comparisons


def row(study: Study, report: dict[str, str], series: tuple[ManifestSeries, ...]) -> ManifestRow:
    """The function to edit: one study with its line of reports.csv and its copied images becomes a manifest row."""
    text = Sections(**{name: tidy(report.get(name)) for name in SECTION_NAMES})
    return ManifestRow(
        study_uid=study.study_uid,
        patient_id=study.patient.patient_id or study.study_uid,
        source="forkme",
        split=report["split"],
        patient=ManifestPatient(sex=study.patient.sex, age=study.patient.age_years),
        series=series,
        report=text,
        target=Sections(
            findings=tidy(without_comparisons(text.findings or "")),
            impression=tidy(without_comparisons(text.impression or "")),
        ),
        labels=dict(states(label_report(text.findings, text.impression))),
    )


def prepare(source: Path, out: Path) -> None:
    """Copies the images into ``out``, a folder for each series, and writes the manifest; prints what was left out."""
    reports = {report["study_uid"]: report for report in read_table(source / "reports.csv", ("study_uid", "split"))}
    reading = read(source)
    files: dict[str | None, list[Path]] = {}
    for outcome in reading.files:
        if outcome.status == "ok":
            files.setdefault(outcome.series_uid, []).append(Path(outcome.file))
    if zipped := [file for group in files.values() for file in group if not file.is_file()]:
        found = f"{len(zipped)} inside archives"
        raise ManifestError("--source", expected="DICOM files in folders", found=found, fix="unpack them first")
    counts = Counter(f"files {outcome.status}" for outcome in reading.files)
    counts["studies without a report, left out"] = sum(s.study_uid not in reports for s in reading.studies)
    counts["reports without a study, left out"] = len(set(reports) - {s.study_uid for s in reading.studies})
    with fresh_folder(out) as folder:
        rows = []
        for study in progress([s for s in reading.studies if s.study_uid in reports], "Copying studies"):
            copied = []
            for number, series in enumerate(study.series, start=1):
                if series.series_uid not in files:
                    counts["volumes that share one file, left out"] += 1
                    continue
                path = f"images/{len(rows) + 1}/{number}"
                (folder / path).mkdir(parents=True)
                for index, file in enumerate(files[series.series_uid]):
                    shutil.copyfile(file, folder / path / f"{index:05}.dcm")
                copied.append(
                    ManifestSeries(
                        series_uid=series.series_uid,
                        path=path,
                        modality=series.modality,
                        view=series.view,
                        sha256=sha256(folder / path),
                    )
                )
            if not copied:
                continue
            rows.append(row(study, reports[study.study_uid], tuple(copied)))
            counts[f"studies {rows[-1].split}"] += 1
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__, counted=False))
