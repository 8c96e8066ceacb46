"""Prepare MedPix 2.0: teaching cases of CT and MR, a few chosen slices each, with findings and a diagnosis.

    python datasets/medpix2/prepare.py --source ../shared/data/medpix2 --out $MMFM_DATA/medpix2

Writes manifest.jsonl and images/ (marks covered, as PNG) under --out, all or nothing, and prints what was counted. See
README.md beside this file for what the source is and for the numbers that must come out.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from mmfm.data.manifest import OTHER_REGION, ManifestPatient, ManifestRow, ManifestSeries, sha256, write_manifest
from mmfm.data.preparing import (
    check_counts,
    fresh_folder,
    list_items,
    member,
    plain_name,
    progress,
    read_table,
    run,
    take_out,
    tidy,
    training_text,
)
from mmfm.errors import ManifestError
from mmfm.report import Sections
from mmfm.study import Sex
from mmfm.text import label_report, split_sentences, states

REGIONS = {
    "Head": ("head", "head"),
    "Thorax": ("chest_ct", OTHER_REGION),
    "Abdomen": ("abdomen", "abdomen"),
    "Spine and Muscles": (OTHER_REGION, OTHER_REGION),
    "Reproductive and Urinary System": (OTHER_REGION, OTHER_REGION),
}
"""Part of the body to the region of a case with a CT, and of one with MR alone."""

PLANES = {"Transverse": "Axial"}
"""Another word for the same plane."""

NO_SLICE = re.compile("montage|drawing|photograph|gross pathology|spectroscopy|virtual colonoscopy", re.IGNORECASE)
"""Planes and modalities of pictures that are no slice."""

MARKS = ((0, 0, 64, 28), (-118, 0, 0, 36), (0, -44, 150, 0), (0, -28, 0, 0))
"""Left, top, right, bottom in pixels of the original picture, from the far edge where negative, or 0 for right and
bottom: number of the image, the "MedPix" mark, the window, and the lines with the uploader's name."""

EXPECTED = {
    "cases in cases.jsonl": 571,
    "cases without image, left out": 0,
    "images that are said to be no slice, left out": 20,
    "images that are said to be no slice, kept as the only ones of a case": 32,
    **{"cases train": 504, "cases dev": 67},
    **{"images train CT": 800, "images train MR": 712, "images dev CT": 84, "images dev MR": 113},
    **{"cases train chest_ct": 91, "cases train abdomen": 101, "cases train head": 173, "cases train other": 139},
    **{"cases dev chest_ct": 10, "cases dev abdomen": 13, "cases dev head": 17, "cases dev other": 27},
    **{"cases train with a differential diagnosis": 451, "cases dev with a differential diagnosis": 62},
}
"""Counts of the published folder."""

SAID_NOTHING = re.compile(r"\W*(?:n\W?[ac]|none(?: provided)?|not applicable|unknown)?\W*", re.IGNORECASE)

BULLET = re.compile(r"^\s*(?:[•»·▪*–—-]+|\(?\d{1,2}[.)](?!\d)|[a-h][.)](?=\s))\s*")

OTHER_IMAGES = re.compile(
    r"radiogra|x-?rays?\b|plain films?|\bPA ?(?:/|and|&) ?lat|(?:frontal|lateral|overhead) views?\b|\bfilms?\b|\bcxr\b|"
    r"\bkub\b|\bscout\b|ultraso|sonogra|\bus\b:|^us\b|\btvus\b|\bdoppler|echocardiogra|scintigra|bone scan|"
    r"nuclear medicine|radiotracer|\bindium\b|tagged red|hepatobiliary scan|\bpet\b|\bspect\b|mammogra|fluorosc|"
    r"spot images?|barium|esophagra|\bugi\b|upper gi\b|follow[- ]through|enema|urogra|pyelogra|\bivp\b|cystogra|"
    r"\bercp\b|myelogra|hysterosalpingo|arteriogra|angiogra|venogra|(?<!virtual )(?:endo|colono|broncho)scop|photogra|"
    r"(?:fundu|fundo|ophthalmo)sco|electrocardio|patholog(?:y|ic|ist)|histolog|histopath|microscop|biops|autops|"
    r"gross (?:specimen|section)|at surgery|\bstain",
    re.IGNORECASE,
)
"""Words for what is no CT and no MR."""

CT = re.compile(r"\bCTA?\b|computed tomogra|\bcat scan|hounsfield|\bHU\b", re.IGNORECASE)
MR = re.compile(
    r"\bMR[IAVS]?\b|\bMRCP\b|magnetic resonance|\bT[12](?:W[IS]?)?\b|T[12]-weight|\bFLAIR\b|\bDWI\b|\bADC\b|\bSTIR\b|"
    r"gadolinium|\bGRE\b|gradient[- ]echo|proton density|diffusion[- ]weighted",
    re.IGNORECASE,
)
NOT_THERE = re.compile(r"not shown|not included|not pictured|not available", re.IGNORECASE)
FIGURE = re.compile(
    r"\s*\((?:see )?(?:figs?\b|figures?\b|images?\b|arrow)[^()]*\)|^(?:figs?\.?|figures?|images?) ?#?\d*[a-z]?:\s*",
    re.IGNORECASE,
)
"""Where a text points to a picture."""

LIST_HEAD = re.compile(r"^[^:]*\b(?:differential|ddx|diff)\b[^:]*:\s*", re.IGNORECASE)

UNPARTED = re.compile(
    r"[:—]|\bsuch as\b|\binclud(?:e|es|ing)\b|\be\.?g\.?\b|\b(?:is|are|was|were|may|can|could|should|has|have)\b",
    re.IGNORECASE,
)
"""What stands in a line that is one group of diagnoses, or a sentence."""

MAX_WORDS = 12
"""Of a diagnosis: what is longer is prose."""


def prepare(source: Path, out: Path, *, expect: bool) -> None:
    """Writes the manifest and the covered pictures of ``source`` into ``out``; a case is a study.

    Args:
        source: folder with cases.jsonl, images.csv and the archives that images.csv names.
        out: folder to write; an earlier result is replaced.
        expect: check the counts of the published folder.

    Raises:
        ManifestError: a table or an archive is missing or broken, or a count is not as expected.
    """
    cases = _cases(source / "cases.jsonl")
    columns = ("case_id", "file", "type", "modality", "plane", "location_category", "age", "sex", "orig_width", "shard")
    by_case: dict[str, list[dict[str, str]]] = {case["case_id"]: [] for case in cases}
    counts = Counter({"cases in cases.jsonl": len(cases)})
    for image in read_table(source / "images.csv", columns):
        if image["type"] not in ("CT", "MR") or image["location_category"] not in REGIONS:
            raise _broken("images.csv", f"CT or MR as type, and a location_category among {', '.join(REGIONS)}")
        if image["case_id"] not in by_case:
            raise _broken("images.csv", "images of the cases in cases.jsonl")
        by_case[image["case_id"]].append(image)
    for case_id, images in by_case.items():
        # The words are often wrong of a plain slice, so that no case is left without a picture for them.
        slices = [i for i in images if not (NO_SLICE.search(i["plane"]) or NO_SLICE.search(i["modality"]))]
        if slices:
            counts["images that are said to be no slice, left out"] += len(images) - len(slices)
            by_case[case_id] = slices
        else:
            counts["images that are said to be no slice, kept as the only ones of a case"] += len(images)
    kept = [image for images in by_case.values() for image in images]
    with fresh_folder(out) as folder, tempfile.TemporaryDirectory() as raw:
        take_out({source / plain_name(i["shard"]) for i in kept}, [i["file"] for i in kept], Path(raw))
        (folder / "images").mkdir()
        for image in progress(kept, "Covering marks"):
            _write_covered(Path(raw) / image["file"], folder / _path(image), image["orig_width"])
        rows = []
        for case in progress(cases, "Reading reports"):
            images = by_case[case["case_id"]]
            if not images:
                counts["cases without image, left out"] += 1
                continue
            row = _row(case, images, {i["file"]: sha256(folder / _path(i)) for i in images}, counts)
            rows.append(row)
            counts[f"cases {row.split}"] += 1
            counts[f"cases {row.split} {row.region}"] += 1
            counts.update(f"images {row.split} {series.modality}" for series in row.series)
            counts[f"cases {row.split} with a text to train on"] += bool(row.target and row.target.findings)
            counts[f"cases {row.split} with a differential diagnosis"] += bool(row.differential)
        if expect:
            check_counts(EXPECTED, counts)
        write_manifest(rows, folder / "manifest.jsonl")
    for name, count in counts.items():
        print(f"{count:7,}  {name}")


def _cases(path: Path) -> list[dict[str, str]]:
    """Returns the fields of every case that are used; those which give the diagnosis away are not among them."""
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        cases = [json.loads(line) for line in lines]
    except (OSError, ValueError, RecursionError) as error:
        found = getattr(error, "strerror", None) or "something else"
        fix = "give the folder that holds it as --source"
        raise ManifestError(path.name, expected="JSON Lines in UTF-8", found=found, fix=fix) from error
    texts = ("history", "findings", "differential_diagnosis", "case_diagnosis")
    return [
        {name: plain_name(member(case, name, str, f"cases.jsonl line {n}")) for name in ("case_id", "split")}
        | {name: member(case, name, str, f"cases.jsonl line {n}", "") for name in texts}
        for n, case in enumerate(cases, start=1)
    ]


def _row(
    case: Mapping[str, str], images: list[dict[str, str]], hashes: Mapping[str, str], counts: Counter[str]
) -> ManifestRow:
    uid, first, kinds = f"medpix2-{case['case_id']}", images[0], {image["type"] for image in images}
    region = REGIONS[first["location_category"]]["CT" not in kinds]
    diagnosis = told(case["case_diagnosis"])
    shown = shown_text(case["findings"], kinds, counts)
    planes = {PLANES.get(image["plane"], image["plane"]) for image in images if image["plane"]}
    return ManifestRow(
        study_uid=uid,
        patient_id=uid,
        source="medpix2",
        split=case["split"],
        region=region,
        patient=ManifestPatient(
            sex={"male": Sex.MALE, "female": Sex.FEMALE}.get(first["sex"]),
            age=float(first["age"]) if first["age"].isdigit() and first["age"] != "0" else None,
        ),
        series=tuple(
            ManifestSeries(
                series_uid=f"medpix2-{image['file'].split('.')[0]}",
                path=_path(image),
                modality=image["type"],
                sha256=hashes[image["file"]],
            )
            for image in images
        ),
        report=Sections(
            indication=indication(case["history"], diagnosis, counts),
            findings=told(" ".join(joined_lines(case["findings"]))),
        ),
        target=Sections(findings=training_text(shown, counts)),
        labels={} if region == OTHER_REGION else states(label_report(shown, region=region), region=region),
        codes=(
            *(f"modality/{kind}" for kind in sorted(kinds)),
            f"body_part/{first['location_category']}",
            *(f"plane/{plane}" for plane in sorted(planes)),
        ),
        diagnosis=diagnosis,
        differential=differential(case["differential_diagnosis"], counts),
    )


def _path(image: Mapping[str, str]) -> str:
    return f"images/{Path(image['file']).stem}.png"


def _write_covered(file: Path, target: Path, original_width: str) -> None:
    try:
        with Image.open(file, formats=("JPEG",)) as image:
            pixels = np.array(image.convert("L"))
        Image.fromarray(covered(pixels, scale=pixels.shape[1] / float(original_width))).save(target, compress_level=1)
    except (OSError, ValueError, ZeroDivisionError, Image.DecompressionBombError) as error:
        raise ManifestError(
            file.name,
            expected="a JPEG picture, and its original width in images.csv",
            found="something else, or only a part of one",
            fix="download the archives again",
        ) from error


def covered(pixels: np.ndarray, *, scale: float) -> np.ndarray:
    """Returns a picture whose ``MARKS`` are filled, each with its own median.

    Every picture is covered alike, whether it has a mark or not, so that the cover tells nothing of where it is from.

    Args:
        pixels: (rows, columns), uint8.
        scale: pixels of this picture to one of the original, in which the marks have a fixed size.
    """
    pixels = pixels.copy()
    rows, columns = pixels.shape
    for left, top, right, bottom in MARKS:
        box = (
            slice(_edge(top, rows, scale), _edge(bottom, rows, scale) or rows),
            slice(_edge(left, columns, scale), _edge(right, columns, scale) or columns),
        )
        pixels[box] = np.median(pixels[box])
    return pixels


def _edge(at: int, length: int, scale: float) -> int:
    return max(0, length - round(-at * scale)) if at < 0 else min(round(at * scale), length)


def told(text: str | None) -> str | None:
    """Returns the tidied text, or ``None`` where it is empty or another way to say nothing ("N/A", "None")."""
    text = tidy(text)
    return None if text is None or SAID_NOTHING.fullmatch(text) else text


def joined_lines(text: str) -> list[str]:
    """Returns the paragraphs of a text: wrapped lines joined, bullets and numbers of lists taken off.

    A line goes on in the next one that begins with a small letter and no bullet. Every paragraph ends in a full stop,
    or in the colon of a heading.
    """
    paragraphs: list[str] = []
    for line in text.splitlines():
        bare = BULLET.sub("", line).strip()
        if not bare:
            continue
        if paragraphs and bare == line.strip() and bare[0].islower() and paragraphs[-1][-1] not in ".:!?":
            paragraphs[-1] += f" {bare}"
        else:
            paragraphs.append(bare)
    return [p if p[-1] in ".!?:" else f"{p.rstrip(',;')}." for p in paragraphs if re.search(r"\w", p)]


def shown_text(text: str, kinds: set[str], counts: Counter[str]) -> str | None:
    """Returns the sentences that the pictures of a case can show.

    Left out are sentences that name an image or a test that is neither CT nor MR, or only the one of both that the
    case has no picture of, and the sentences after them in the same paragraph that name none. A paragraph that is a
    heading ("CT:") holds for the next ones, until one names another. A sentence that names a CT or MR of the case too
    stays, as does one that names nothing.
    """
    kept: list[str] = []
    heading = True
    for paragraph in joined_lines(text):
        here = heading
        for item in list_items(paragraph):
            for sentence in split_sentences(item):
                named = _shown(sentence, kinds)
                here = here if named is None else named
                counts["sentences of findings"] += 1
                if NOT_THERE.search(sentence) or not here:
                    counts["sentences on images that are not there, not in target"] += 1
                elif not sentence.endswith(":"):
                    kept.append(FIGURE.sub("", sentence))
        if paragraph.endswith(":"):
            heading = here
        elif _shown(paragraph, kinds) is not None:
            heading = True
    return tidy(" ".join(kept))


def _shown(sentence: str, kinds: set[str]) -> bool | None:
    """Whether what a sentence names is among the pictures; ``None`` where it names nothing."""
    named = {kind for kind, words in (("CT", CT), ("MR", MR)) if words.search(sentence)}
    if named:
        return bool(named & kinds)
    return False if OTHER_IMAGES.search(sentence) else None


def indication(history: str, diagnosis: str | None, counts: Counter[str]) -> str | None:
    """Returns the history without the sentences that hold the diagnosis word for word."""
    name = _words(diagnosis)
    kept = []
    for paragraph in joined_lines(history) if told(history) else ():
        for sentence in split_sentences(paragraph):
            if name.strip() and name in _words(sentence):
                counts["sentences of a history that hold the diagnosis, left out"] += 1
            else:
                kept.append(sentence)
    return told(" ".join(kept))


def _words(text: str | None) -> str:
    return f" {re.sub(r'[^a-z0-9]+', ' ', (text or '').lower()).strip()} "


def differential(text: str, counts: Counter[str]) -> tuple[str, ...]:
    """Returns the diagnoses of a list: a line each, or what stands between the commas of a line.

    A line is parted at its commas and semicolons, and at "or" before the last, where it is the only line or gives
    three names or more; not where it has a heading of its own, gives examples or is a sentence. Headings, and what has
    more than ``MAX_WORDS`` words, are left out.
    """
    text = re.sub(r"\([^()]*\)", lambda aside: aside[0].replace("\n", " "), text)
    text = re.sub(r",[ \t]*\n\s*(?=\w)", ", ", text)
    lines = [LIST_HEAD.sub("", BULLET.sub("", line)).strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.endswith(":")]
    items: list[str] = []
    for line in lines:
        if UNPARTED.search(line):
            items.append(line)
            continue
        parts = re.split(r"[,;]\s+(?:(?:and|or)\s+)?(?![^()]*\))", line.rstrip("."))
        if len(parts) > 1:
            parts[-1:] = re.split(r"\s+or\s+", parts[-1]) if len(lines) == 1 else parts[-1:]
        items += parts if len(parts) >= (2 if len(lines) == 1 else 3) else [line]
    names = []
    for item in items:
        name = told(re.sub(r"^(?:and|or)\s+", "", BULLET.sub("", item)).strip(" .,;"))
        if name and len(name.split()) > MAX_WORDS:
            counts["items of a differential diagnosis that are prose, left out"] += 1
        elif name and re.search("[A-Za-z]", name):
            names.append(name)
    return tuple(dict.fromkeys(names))


def _broken(where: str, expected: str) -> ManifestError:
    fix = "use the table as its publisher wrote it"
    return ManifestError(where, expected=expected, found="something else", fix=fix)


if __name__ == "__main__":
    sys.exit(run(prepare, __doc__))
