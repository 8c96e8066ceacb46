"""Prepare VQA-RAD: questions and answers about single images of head, chest and abdomen, split by image.

    python datasets/vqa_rad/prepare.py --source ../shared/data/vqa_rad --out $MMFM_DATA/vqa_rad

Writes manifest.jsonl and images/ under --out, all or nothing, and prints what was counted. See README.md beside this
file for what the source is and for the numbers that must come out.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

from mmfm.data.manifest import ManifestQuestion, ManifestRow, ManifestSeries, write_manifest
from mmfm.data.preparing import check_counts, fresh_folder, read_table, run, take_out, tidy
from mmfm.errors import ManifestError

ORGANS = ("CHEST", "HEAD", "ABD")

QUESTION_TYPES = {
    **{name: name for name in ("PRES", "POS", "ABN", "SIZE", "OTHER", "MODALITY")},
    **{name: name for name in ("ATTRIB", "PLANE", "COLOR", "ORGAN", "COUNT")},
    **{"Other": "OTHER", "ATRIB": "ATTRIB", "PRSE": "PRES"},
}
"""What the source writes to what is meant: six questions have a misspelt one."""

VAL_OF = 5
"""One image in five is held out."""

SAME_PATIENT = {"synpic39088.jpg": "synpic39086.jpg"}
"""Two slices of one CT, ten apart, as their numbers, window and body show; the source states no patient."""

EXPECTED = {
    "images train": 222,
    "images val": 45,
    "images in medpix2, all train": 16,
    **{"questions train": 2494, "questions val": 483},
    **{"closed train": 1502, "open train": 992, "closed val": 272, "open val": 211},
    **{"CHEST train": 965, "HEAD train": 753, "ABD train": 776, "CHEST val": 147, "HEAD val": 161, "ABD val": 175},
    **{"PRES train": 1009, "POS train": 428, "ABN train": 249, "SIZE train": 260, "OTHER train": 143},
    **{"MODALITY train": 113, "ATTRIB train": 130, "PLANE train": 74, "COLOR train": 65, "ORGAN train": 41},
    **{"COUNT train": 28, "PRES val": 175, "POS val": 72, "ABN val": 67, "SIZE val": 22, "OTHER val": 31},
    **{"MODALITY val": 37, "ATTRIB val": 26, "PLANE val": 28, "COLOR val": 19, "ORGAN val": 9, "COUNT val": 3},
}
"""Counts of the published folder."""


def prepare(source: Path, out: Path, *, expect: bool) -> None:
    """Writes the manifest and images of ``source`` into ``out``; each image is a study, with all its questions.

    Args:
        source: folder with qa.jsonl, images.csv and images.tar.
        out: folder to write; an earlier result is replaced.
        expect: check the counts of the published folder.

    Raises:
        ManifestError: a table or the archive is missing or broken, one picture would be in both splits, or a count is
            not as expected.
    """
    images = read_table(source / "images.csv", ("file", "organ", "medpix2_case"))
    questions: dict[str, list[ManifestQuestion]] = {image["file"]: [] for image in images}
    for number, line in enumerate(_lines(source / "qa.jsonl"), start=1):
        file, question = _question(line, number)
        if file not in questions:
            raise _broken(number, expected="a file of images.csv", found="another one")
        questions[file].append(question)
    with fresh_folder(out) as folder:
        sha256 = take_out([source / "images.tar"], questions, folder / "images")
        rows = [_row(image, sha256[image["file"]], questions[image["file"]]) for image in images]
        _check_pictures(rows)
        counts = Counter({"images in medpix2, all train": sum(row.truth is not None for row in rows)})
        for row in rows:
            counts[f"images {row.split}"] += 1
            counts[f"questions {row.split}"] += len(row.questions)
            counts.update(f"{question.kind} {row.split}" for question in row.questions)
            counts.update(f"{question.organ} {row.split}" for question in row.questions)
            counts.update(f"{name} {row.split}" for question in row.questions for name in question.question_types)
        if expect:
            check_counts(EXPECTED, counts)
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "other bytes"
        fix = "give the folder that holds it as --source"
        raise ManifestError(path.name, expected="JSON Lines in UTF-8", found=found, fix=fix) from error


def _question(text: str, number: int) -> tuple[str, ManifestQuestion]:
    """Returns the image of a line of qa.jsonl, and its question."""
    try:
        line = json.loads(text)
        types = tuple(QUESTION_TYPES[name.strip()] for name in line["question_type"].split(","))
        if line["organ"] not in ORGANS or line["answer_type"] not in ("CLOSED", "OPEN"):
            raise KeyError("organ or answer_type")
        return line["file"], ManifestQuestion(
            question=tidy(line["question"]) or "",
            answer=tidy(line["answer"]) or "",
            kind=line["answer_type"].lower(),
            question_id=f"vqa_rad-{line['qid']}",
            question_types=types,
            organ=line["organ"],
        )
    except ManifestError as error:
        raise _broken(number, expected=f"{error.where} as {error.expected}", found=error.found) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "an object with file, qid, question, answer, answer_type, question_type and organ of VQA-RAD"
        found = f"{error} missing or unknown" if isinstance(error, KeyError) else "something else"
        raise _broken(number, expected=expected, found=found) from error


def _row(image: dict[str, str], sha256: str, questions: list[ManifestQuestion]) -> ManifestRow:
    uid = f"vqa_rad-{Path(image['file']).stem}"
    patient = SAME_PATIENT.get(image["file"], image["file"])
    if not questions:
        raise ManifestError(
            "images.csv",
            expected="questions about every image",
            found="an image without any",
            fix="use the tables as their publisher wrote them",
        )
    return ManifestRow(
        study_uid=uid,
        patient_id=f"vqa_rad-{Path(patient).stem}",
        source="vqa_rad",
        split="train" if image["medpix2_case"] else split_of(patient),
        series=(ManifestSeries(series_uid=f"{uid}-1", path=f"images/{image['file']}", sha256=sha256),),
        truth={"medpix2_case": image["medpix2_case"]} if image["medpix2_case"] else None,
        questions=tuple(questions),
    )


def split_of(file: str) -> str:
    """Returns the split of an image by its name alone, so that it is the same in any part of the source."""
    return "train" if int(hashlib.sha256(file.encode()).hexdigest(), 16) % VAL_OF else "val"


def _check_pictures(rows: list[ManifestRow]) -> None:
    splits: dict[str | None, str] = {}
    for row in rows:
        if splits.setdefault(row.series[0].sha256, row.split) != row.split:
            raise ManifestError(
                "images.tar",
                expected="each picture in one split",
                found="one under two names in both",
                fix="leave one of them out of images.csv and qa.jsonl",
            )


def _broken(number: int, *, expected: str, found: str) -> ManifestError:
    return ManifestError(
        f"qa.jsonl line {number}", expected=expected, found=found, fix="use the file as its publisher wrote it"
    )


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__))
