"""Prepare PadChest-GR in the folders that BIMCV publishes: grounded sentences, boxes, labels; images stay in place.

    python datasets/padchest_gr/prepare.py --source PadChest-GR --out $MMFM_DATA/padchest_gr

Writes manifest.jsonl and a link to the images under --out, all or nothing, and prints what was counted. See README.md
beside this file for who may have the data, what must lie in --source, and for the numbers that must come out.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmfm.data.manifest import NORMAL, ManifestPatient, ManifestRow, ManifestSeries, sha256, write_manifest
from mmfm.data.preparing import (
    check_counts,
    fresh_folder,
    link_folder,
    member,
    progress,
    read_json,
    read_table,
    run,
    tidy,
    training_text,
)
from mmfm.errors import ManifestError
from mmfm.report import Sections, Status
from mmfm.study import Sex, ViewPosition
from mmfm.text import label_report, states

REPORTS = "grounded_reports_20240819.json"
TABLE = "master_table.csv"
IMAGES = "PadChest_GR"
"""Folder of the unpacked images, and name of the link to it."""

SPLITS = {"train": "train", "validation": "val", "test": "test"}

SEXES = {"F": Sex.FEMALE, "M": Sex.MALE, "O": Sex.OTHER}

OBSERVATION_OF = {
    label: names
    for names, labels in {
        ("atelectasis",): (
            "atelectasis",
            "atelectasis basal",
            "laminar atelectasis",
            "lobar atelectasis",
            "round atelectasis",
            "segmental atelectasis",
            "total atelectasis",
        ),
        ("cardiomegaly",): ("cardiomegaly",),
        ("consolidation",): ("consolidation",),
        ("edema",): ("pulmonary edema",),
        ("emphysema",): ("emphysema",),
        ("enlarged_cardiomediastinum",): ("mediastinal enlargement", "superior mediastinal enlargement"),
        ("fibrosis",): ("pulmonary fibrosis",),
        ("fracture",): (
            "fracture",
            "rib fracture",
            "callus rib fracture",
            "clavicle fracture",
            "humeral fracture",
            "vertebral fracture",
        ),
        ("hernia",): ("hiatal hernia",),
        ("infiltration",): ("infiltrates",),
        ("lung_opacity",): (
            "alveolar pattern",
            "ground glass pattern",
            "interstitial pattern",
            "miliary opacities",
            "reticular interstitial pattern",
            "reticulonodular interstitial pattern",
        ),
        ("mass",): ("pulmonary mass",),
        ("nodule",): ("nodule", "multiple nodules"),
        ("pleural_effusion",): ("pleural effusion", "loculated pleural effusion", "loculated fissural effusion"),
        ("pleural_effusion", "pneumothorax"): ("hydropneumothorax",),
        ("pleural_other",): ("calcified pleural plaques", "pleural plaques", "pleural mass"),
        ("pleural_thickening",): (
            "pleural thickening",
            "apical pleural thickening",
            "fissure thickening",
            "major fissure thickening",
            "minor fissure thickening",
        ),
        ("pleural_other", "pleural_thickening"): ("calcified pleural thickening",),
        ("pneumonia",): ("pneumonia", "atypical pneumonia"),
        ("pneumothorax",): ("pneumothorax",),
        ("support_devices",): (
            "artificial aortic heart valve",
            "artificial heart valve",
            "artificial mitral heart valve",
            "catheter",
            "central venous catheter",
            "central venous catheter via jugular vein",
            "central venous catheter via subclavian vein",
            "central venous catheter via umbilical vein",
            "chest drain tube",
            "dai",  # desfibrilador automático implantable
            "dual chamber device",
            "electrical device",
            "endotracheal tube",
            "nsg tube",
            "pacemaker",
            "reservoir central venous catheter",
            "single chamber device",
            "tracheostomy tube",
            "ventriculoperitoneal drain tube",
        ),
    }.items()
    for label in labels
}
"""Labels of PadChest, in small letters, to the observations that mean the same or something wider; others have none."""

TRUTH = ("sentence_en", "sentence_es", "abnormal", "labels", "locations", "progression", "boxes", "extra_boxes")
"""What of a finding goes to ``truth``."""

EXPECTED = {
    "studies in the reports": 4555,
    "studies without a row in the table, left out": 0,
    "studies of the table without a report, left out": 0,
    "studies without image, left out": 0,
    "studies train": 3185,
    "studies val": 455,
    "studies test": 915,
    "studies with a positive sentence": 3099,
    "studies without one (normal)": 1456,
    "positive sentences": 7037,
    "negative sentences": 3422,
}
"""Counts of the published folder, as the card tells where from."""


def prepare(source: Path, out: Path, *, expect: bool) -> None:
    """Writes the manifest of ``source`` into ``out``, and a link to its images.

    Args:
        source: folder with grounded_reports_20240819.json, master_table.csv and the unpacked images.
        out: folder to write; an earlier result is replaced.
        expect: check the counts of the published folder.

    Raises:
        ManifestError: a table or the images are missing or broken, or a count is not as expected.
    """
    entries = read_json(source / REPORTS)
    if not isinstance(entries, list):
        raise _wrong(REPORTS, expected="a list of studies", found="something else")
    listed = listed_studies(source)
    images = image_folder(source)
    counts = Counter({"studies in the reports": len(entries)})
    with fresh_folder(out) as folder:
        link_folder(folder / IMAGES, images)
        rows, reported = [], set()
        for number, entry in enumerate(progress(entries, "Reading reports and images"), start=1):
            where = f"{REPORTS} study {number}"
            study = member(entry, "StudyID", str, where)
            reported.add(study)
            if study not in listed:
                counts["studies without a row in the table, left out"] += 1
                continue
            row = _row(entry, listed[study], where, counts)
            image = folder / row.series[0].path
            if not image.is_file():
                counts["studies without image, left out"] += 1
                continue
            rows.append(replace(row, series=(replace(row.series[0], sha256=sha256(image)),)))
        counts["studies of the table without a report, left out"] = len(set(listed) - reported)
        for row in rows:
            counts[f"studies {row.split}"] += 1
            normal = row.labels[NORMAL] is Status.PRESENT
            counts["studies without one (normal)" if normal else "studies with a positive sentence"] += 1
            for finding in (row.truth or {}).get("findings", ()):
                counts["positive sentences" if finding["abnormal"] else "negative sentences"] += 1
        counts["patients"] = len({row.patient_id for row in rows})
        counts["studies with a prior study"] = sum(row.prior_study_uid is not None for row in rows)
        if expect:
            check_counts(EXPECTED, counts)
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


def listed_studies(source: Path) -> dict[str, dict[str, str]]:
    """Returns a row of the table for each StudyID; it has one for each label of a study."""
    of_study = ("PatientID", "split", "PatientSex_DICOM", "PatientAge")
    studies: dict[str, dict[str, str]] = {}
    for line, row in enumerate(read_table(source / TABLE, ("StudyID", *of_study)), start=2):
        where = f"{TABLE} row {line}"
        if row["split"] not in SPLITS:
            raise _wrong(where, expected=f"split {', '.join(SPLITS)}", found="something else")
        first = studies.setdefault(row["StudyID"], row)
        if any(first[name] != row[name] for name in of_study):
            raise _wrong(where, expected="one patient and split for each study", found="a study with two")
    return studies


def image_folder(source: Path) -> Path:
    """Returns where the images were unpacked: into a folder of their own, or among the parts of the archive."""
    parts = source / "Padchest_GR_files"
    for folder in (parts / IMAGES, source / IMAGES, parts):
        if next(folder.glob("*.png"), None):
            return folder
    raise ManifestError(
        IMAGES,
        expected="a folder with the unpacked images in --source or its Padchest_GR_files",
        found="none with a .png in it",
        fix="join the parts PadChest_GR.zip.001 and so on, and unpack them, as the dataset's card says",
    )


def _row(entry: dict[str, Any], listed: dict[str, str], where: str, counts: Counter[str]) -> ManifestRow:
    uid = f"padchest_gr-{entry['StudyID']}"
    findings = [_finding(finding, where, counts) for finding in member(entry, "findings", list, where)]
    texts = [finding["sentence_en"] for finding in findings if "sentence_en" in finding]
    counts["sentences without English"] += len(findings) - len(texts)
    counts["studies without a sentence"] += not texts
    text = tidy(" ".join(texts))
    # What a person marked as a change is not seen in one picture, however it is worded.
    timeless = [f["sentence_en"] for f in findings if "sentence_en" in f and "progression" not in f]
    counts["sentences with a progression, not in target"] += len(texts) - len(timeless)
    target = Sections(findings=training_text(" ".join(timeless), counts))
    counts["studies with text, but none left to train on"] += bool(text) and target == Sections()
    codes = tuple(dict.fromkeys(label for f in findings if f["abnormal"] for label in f.get("labels", ())))
    labels: dict[str, Status | None] = dict(states(label_report(text, None)))
    # The labels that people checked win over the labeller.
    labels |= {name: Status.PRESENT for code in codes for name in OBSERVATION_OF.get(code.lower(), ())}
    labels[NORMAL] = Status.ABSENT if any(f["abnormal"] for f in findings) else Status.PRESENT
    previous = member(entry, "PreviousStudyID", str, where, default="")
    return ManifestRow(
        study_uid=uid,
        patient_id=f"padchest_gr-{listed['PatientID']}",
        source="padchest_gr",
        split=SPLITS[listed["split"]],
        patient=ManifestPatient(sex=SEXES.get(listed["PatientSex_DICOM"]), age=_age(listed["PatientAge"])),
        series=(
            ManifestSeries(
                series_uid=f"{uid}-1",
                path=f"{IMAGES}/{member(entry, 'ImageID', str, where)}",
                view=ViewPosition.FRONTAL,
            ),
        ),
        report=Sections(findings=text),
        target=target,
        labels=labels,
        codes=codes,
        truth={"findings": findings} if findings else None,
        prior_study_uid=f"padchest_gr-{previous}" if previous else None,
    )


def _finding(finding: Any, where: str, counts: Counter[str]) -> dict[str, Any]:
    """Returns what is known of one sentence, without what is empty; sentences end in a full stop."""
    abnormal = member(finding, "abnormal", bool, where)
    known = {name: finding[name] for name in TRUTH if finding.get(name) not in (None, "", [])}
    for name in ("sentence_en", "sentence_es"):
        if sentence := tidy(member(finding, name, str, where, default="")):
            known[name] = sentence if sentence[-1] in ".!?" else f"{sentence}."
        else:
            known.pop(name, None)
    for name in ("labels", "locations"):
        if not all(isinstance(word, str) for word in member(finding, name, list, where, default=[])):
            raise _wrong(where, expected=f"words as {name}", found="something else")
    for name in ("boxes", "extra_boxes"):
        for box in member(finding, name, list, where, default=[]):
            if not _is_box(box):
                raise _wrong(where, expected=f"{name} of four numbers x1, y1, x2, y2, x1 < x2, y1 < y2", found="others")
            counts[name] += 1
            counts["boxes that reach beyond the picture"] += min(box) < 0 or max(box) > 1
    return known | {"abnormal": abnormal}


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    if not all(type(x) in (int, float) and math.isfinite(x) for x in box):
        return False
    return bool(box[0] < box[2] and box[1] < box[3])


def _age(text: str) -> float | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise _wrong(TABLE, expected="years or nothing as PatientAge", found="something else") from None


def _wrong(where: str, *, expected: str, found: str) -> ManifestError:
    return ManifestError(where, expected=expected, found=found, fix="use the file as its publisher wrote it")


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__))
