"""What does a volume checkpoint find on drawn volumes that nobody trained on? One table a region, and one over all.

    python benchmarks/synthetic_volumes.py --checkpoint mmfm-volume-small --studies 200 --rewritten 40 --lacking 66

Each study is drawn finer than the checkpoint reads, written as DICOM, read back and drafted, as `mmfm report` does it.
Seeds are those of the test split of ``datasets/synthetic``. The first studies are written a second time in other
planes, order, tilt and spacing, and the first heads without some of their sequences. "Without looking" are the same
scores where drafts are exchanged between studies of a region.
What was drafted stands as lines of JSON in ``--out``, and an interrupted run goes on there: its file is named by the
checkpoint and by the code of mmfm and of this file.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

import mmfm
from mmfm.data.drawn import COUNTED
from mmfm.data.seeds import study_seed
from mmfm.data.synthetic_volumes import DRAWN, Writing, draw_volume, write_dicom
from mmfm.data.synthetic_volumes.head import SEQUENCES
from mmfm.data.synthetic_volumes.writing import another_writing
from mmfm.errors import MmfmError
from mmfm.evaluation.intervals import Estimate
from mmfm.evaluation.volumes import (
    Counts,
    VolumeDraft,
    VolumeTruth,
    agreement_counts,
    estimates,
    merged,
    shuffled_counts,
    text_counts,
    volume_counts,
)
from mmfm.files import sha256_of
from mmfm.io import read_studies
from mmfm.jsonable import from_json, to_json
from mmfm.models import draft, load_checkpoint
from mmfm.models.checkpoint import SUMS, Checkpoint, resolve_checkpoint
from mmfm.report import Finding, Status

SPACING = {"chest_ct": (1.6, 1.25, 1.25), "abdomen": (1.6, 1.25, 1.25), "head": (1.2, 1.0, 1.0)}
"""(slice, row, column) mm: finer than a checkpoint at 2.5 and 1.5 mm reads, and drawn in 2 to 3 seconds each."""
REGIONS = tuple(SPACING)
FEW_DIFFERENCES, FEW_LESIONS = 10, 4
"""Studies that differ between two writings and refusals that are printed one by one, and lesions of a finding."""
AS_DRAWN, REWRITTEN, LACKING = "as drawn", "rewritten", "lacking sequences"
"""Ways in which a study is written."""
LEFT = tuple(some for n in range(1, len(SEQUENCES)) for some in itertools.combinations(SEQUENCES, n))
"""Sequences that heads are left with, in turn: one, two or three of four."""
LACKING_SCORES = (
    "lesions found, above 10 mm", "false lesions a volume", "side of a lesion right", "sensitivity", "specificity",
)  # fmt: skip
"""Columns of heads that lack sequences."""

Way = tuple[int, str]
"""Number of a study, and how it is written."""


def main() -> None:
    """Drafts what is not drafted yet, and prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="mmfm-volume-small")
    parser.add_argument("--studies", type=int, default=200, help="of chest, abdomen and head in turn")
    parser.add_argument("--rewritten", type=int, default=40, help="how many of them are written a second time")
    parser.add_argument("--lacking", type=int, default=66, help="how many heads are written without some sequences")
    parser.add_argument("--out", type=Path, default=Path("runs/synthetic_volumes"), help="keeps what was drafted")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, about 2 GB each")
    arguments = parser.parse_args()
    numbers = range(arguments.studies)
    heads = [n for n in numbers if region_of(n) == "head"][: arguments.lacking]
    again = numbers[: arguments.rewritten]
    wanted = [(n, AS_DRAWN) for n in numbers] + [(n, REWRITTEN) for n in again] + [(n, LACKING) for n in heads]
    results = drafted(arguments.checkpoint, wanted, out=arguments.out, workers=arguments.workers)
    print_tables([results[n, AS_DRAWN] for n in numbers])
    if again:
        print_agreement([(results[n, AS_DRAWN], results[n, REWRITTEN]) for n in again])
    if heads:
        print_lacking([results[n, AS_DRAWN] for n in heads], [results[n, LACKING] for n in heads])
    seconds = [one["seconds"] for one in results.values()]
    print(f"\n{np.median(seconds):.1f} s a study, from the files to the draft (median, on one core)")


def region_of(number: int) -> str:
    """Returns the region of a study."""
    return REGIONS[number % len(REGIONS)]


def drafted(checkpoint: str, wanted: Sequence[Way], *, out: Path, workers: int) -> dict[Way, dict[str, Any]]:
    """Returns what was drafted; what ``out`` does not hold yet is drafted."""
    folder = resolve_checkpoint(checkpoint)
    code = sha256_of([*sorted(Path(mmfm.__file__).parent.rglob("*.py")), Path(__file__)])
    key = hashlib.sha256((folder / SUMS).read_bytes() + code.encode()).hexdigest()[:12]
    place = out / f"{folder.name}-{key}.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    done = {(one["number"], one["way"]): one for one in kept(place)}
    tasks = [(checkpoint, *one) for one in wanted if one not in done]
    if tasks:
        with get_context("spawn").Pool(min(workers, len(tasks)), initializer=start, initargs=(workers,)) as pool:
            for one in track(pool.imap_unordered(draft_one, tasks), description="drafting", total=len(tasks)):
                with place.open("a") as opened:
                    opened.write(json.dumps(one) + "\n")
                done[one["number"], one["way"]] = one
    return {one: done[one] for one in wanted}


def kept(place: Path) -> Iterator[dict[str, Any]]:
    """Yields the whole lines of a file, which may end in a half one; that one is taken off."""
    if not place.is_file():
        return
    whole = "".join(line for line in place.read_text().splitlines(keepends=True) if line.endswith("\n"))
    place.write_text(whole)
    yield from map(json.loads, whole.splitlines())


def start(workers: int) -> None:
    """Gives each process its part of the cores."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


@cache
def opened_checkpoint(name: str) -> Checkpoint:
    """Returns a checkpoint, opened once a process."""
    return load_checkpoint(name)


def draft_one(task: tuple[str, int, str]) -> dict[str, Any]:
    """Draws a study, writes it into a temporary folder, reads it back and drafts it; returns truth and draft."""
    name, number, way = task
    region = region_of(number)
    seed = study_seed(0, "test", number // len(REGIONS), region=region)
    drawn = draw_volume(region, seed, spacing=SPACING[region])
    if way == LACKING:
        left = LEFT[number // len(REGIONS) % len(LEFT)]
        drawn = replace(drawn, images={sequence: drawn.images[sequence] for sequence in left})
    checkpoint = opened_checkpoint(name)
    stated, refused = {"findings": [], "text": None, "impression": None}, None
    with tempfile.TemporaryDirectory() as folder:
        writing = another_writing(drawn) if way == REWRITTEN else Writing()
        write_dicom(drawn, Path(folder), writing=writing)
        started = time.perf_counter()
        try:
            (study,) = read_studies(folder)
            pixels = checkpoint.processor.pixels(study, region=region)
            (made,) = draft(checkpoint, [(study.study_uid, pixels, None)])
            stated = {"findings": to_json(made.decisions), "text": made.findings, "impression": made.impression}
        except MmfmError as error:
            refused = str(error)
        seconds = time.perf_counter() - started
    return {
        "number": number,
        "way": way,
        "series": list(drawn.images),
        "region": region,
        "seed": seed,
        "writing": to_json(writing),
        "truth": to_json(drawn.findings),
        "labels": to_json({name: drawn.labels[name] for name in DRAWN[region]}),
        **stated,
        "refused": refused,
        "seconds": seconds,
    }


def truth_of(result: dict[str, Any]) -> VolumeTruth:
    """Returns what was drawn."""
    findings = tuple(from_json(Finding, one) for one in result["truth"])
    labels = {name: Status(status) for name, status in result["labels"].items()}
    return VolumeTruth(region=result["region"], findings=findings, labels=labels)


def draft_of(result: dict[str, Any]) -> VolumeDraft:
    """Returns what was drafted, with both sections of its text; nothing, where the study was refused."""
    text = "\n".join(filter(None, (result["text"], result["impression"])))
    return VolumeDraft(findings=tuple(from_json(Finding, one) for one in result["findings"]), text=text or None)


def counts_of(result: dict[str, Any]) -> Counts:
    """Returns what is right and what is wrong in a draft."""
    truth, made = truth_of(result), draft_of(result)
    return merged((volume_counts(truth, made, counted=COUNTED), text_counts(made, region=truth.region)))


def print_tables(results: Sequence[dict[str, Any]]) -> None:
    """Prints the scores of each region and of all, beside those of exchanged drafts."""
    truths, drafts = [truth_of(one) for one in results], [draft_of(one) for one in results]
    counts = [counts_of(one) for one in results]
    shuffled = shuffled_counts(truths, drafts, counted=COUNTED)
    for region in (*REGIONS, "all"):
        rows = [index for index, truth in enumerate(truths) if region in ("all", truth.region)]
        if not rows:
            continue
        print(f"\n## {region.replace('_', ' ')}: {len(rows)} volumes\n")
        blind = estimates([shuffled[index] for index in rows])
        print_scores(estimates([counts[index] for index in rows]), blind, only_sums=region == "all")
    refused = [f"{one['region']} {one['number']}: {one['refused']}" for one in results if one["refused"]]
    print(f"\n{len(refused)} of {len(results)} studies were refused and count as drafts that state nothing")
    print("\n".join(refused[:FEW_DIFFERENCES]))


def print_scores(
    found: dict[tuple[str, str], Estimate], blind: dict[tuple[str, str], Estimate], *, only_sums: bool
) -> None:
    """Prints one table: a row for each score over all observations, and for each observation."""
    print("| score | of | value | 95 % interval | right / of | without looking |")
    print("| --- | --- | --- | --- | --- | --- |")
    for score in sorted({score for score, _ in found}):
        names = sorted((name for s, name in found if s == score), key=lambda name: (name != "all", name))
        for name in names[:1] if only_sums else names:
            one, other = found[score, name], blind.get((score, name))
            control = "" if other is None or other.value is None else f"{other.value:.3f}"
            print(f"| {score} | {name} | {told(one)} | {one.events} / {one.n} | {control} |")


def told(one: Estimate) -> str:
    """Returns value and interval as two cells."""
    return f"{one.value:.3f} | " + ("" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}")


def print_agreement(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Prints how far drafts of the same patients, written otherwise, are the same."""
    counts: list[Counts] = [
        agreement_counts(*(None if result["refused"] else draft_of(result) for result in pair)) for pair in pairs
    ]
    print(f"\n## The same in other planes, order, tilt and spacing: {len(pairs)} volumes\n")
    print("| score | of | value | 95 % interval | same / of |")
    print("| --- | --- | --- | --- | --- |")
    for (score, name), one in sorted(estimates(counts).items()):
        if name == "all":
            print(f"| {score} | {name} | {told(one)} | {one.events} / {one.n} |")
    differ = [pair for pair, c in zip(pairs, counts, strict=True) if any(right < of for right, of in c.values())]
    print(f"\n{len(differ)} differ in something; the first of them:")
    for one, other in differ[:FEW_DIFFERENCES]:
        print(f"{one['region']} {one['number']}, written with {other['writing']}")
        print(f"  as drawn:  {one['refused'] or summary(one)}\n  otherwise: {other['refused'] or summary(other)}")


def print_lacking(complete: Sequence[dict[str, Any]], lacking: Sequence[dict[str, Any]]) -> None:
    """Prints a row of scores for heads left with as many sequences, beside the same heads with all of them.

    Diffusion stands apart: an acute infarct shows there first.
    """
    print(f"\n## Heads that lack sequences: {len(lacking)} volumes\n")
    print(f"| sequences | volumes | {' | '.join(LACKING_SCORES)} |\n| --- | --- |{' --- |' * len(LACKING_SCORES)}")
    alike: dict[tuple[bool, int], list[dict[str, Any]]] = {}
    for one in (*complete, *lacking):
        alike.setdefault(("DWI" in one["series"], len(one["series"])), []).append(one)
    for (has_dwi, number), results in sorted(alike.items(), reverse=True):
        found = estimates([counts_of(one) for one in results])
        cells = [in_one_cell(found.get((score, "all"))) for score in LACKING_SCORES]
        name = f"{number} of {len(SEQUENCES)}, {'with' if has_dwi else 'without'} DWI"
        print(f"| {name} | {len(results)} | {' | '.join(cells)} |")
    refused = sum(bool(one["refused"]) for one in lacking)
    print(f"\n{refused} of {len(lacking)} that lack some were refused and count as drafts that state nothing")


def in_one_cell(one: Estimate | None) -> str:
    """Returns value, interval and counts."""
    if one is None or one.value is None:
        return ""
    interval = "" if one.low is None or one.high is None else f" ({one.low:.3f} to {one.high:.3f})"
    return f"{one.value:.3f}{interval}, {one.events} / {one.n}"


def summary(result: dict[str, Any]) -> str:
    """Returns the findings of a draft in a line."""
    parts = []
    for finding in draft_of(result).findings:
        lesions = [
            f"{x.laterality or ''} {x.location} {x.diameter_mm:.0f} mm".strip() for x in finding.lesions[:FEW_LESIONS]
        ]
        what = " ".join(filter(None, (finding.laterality, finding.severity, finding.observation)))
        parts.append(f"{finding.count or ''} {what} {'; '.join(lesions)}".strip())
    return ", ".join(parts) or "nothing"


if __name__ == "__main__":
    main()
