"""How far the labeller agrees with people, and how fast it is: writes the tables of docs/labeller.md.

    python benchmarks/labeller_agreement.py --source DIR [--write docs/labeller.md]

DIR holds ``iu_xray/`` (reports.csv, labels_openi14.csv) and ``nlp_eval/`` (negation_clinical.tsv). The labeller was
built on the IU X-Ray ``train`` split and on the negation sentences with odd report numbers; the rest was only measured.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mmfm.report import Side, Status
from mmfm.text import OBSERVATIONS, certainty_of, label_report, states
from mmfm.text.labeller import words_of

MARK = "<!-- everything below is written by benchmarks/labeller_agreement.py -->"
SPLITS = ("train", "val", "extra")
SEVEN = ("atelectasis", "cardiomegaly", "pleural_effusion", "pneumonia", "pneumothorax", "consolidation", "edema")
MESH = {
    "Pulmonary Atelectasis": "atelectasis",
    "Pleural Effusion": "pleural_effusion",
    "Infiltrate": "infiltration",
    "Consolidation": "consolidation",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
    "Nodule": "nodule",
    "Mass": "mass",
    "Fractures, Bone": "fracture",
    "Opacity": "lung_opacity",
    "Airspace Disease": "lung_opacity",
    "Thickening": "pleural_thickening",
}
"""Headings of Open-i's MeSH coding, which also state sides."""

Pair = tuple[set[str], set[str]]
"""Observations that the labeller states, and those that people labelled, of one study."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with iu_xray/ and nlp_eval/")
    parser.add_argument("--write", type=Path, help="Markdown file whose tables to replace")
    arguments = parser.parse_args()
    folder = arguments.source / "iu_xray"
    reports = list(rows(folder / "reports.csv"))
    tables = [
        openi(reports, folder / "labels_openi14.csv"),
        sides(reports),
        negation(arguments.source / "nlp_eval" / "negation_clinical.tsv"),
        speed(reports),
    ]
    text = "\n\n".join("\n".join(table) for table in tables) + "\n"
    print(text)
    if arguments.write:
        head = arguments.write.read_text(encoding="utf-8").split(MARK)[0]
        arguments.write.write_text(f"{head}{MARK}\n\n{text}", encoding="utf-8")


def rows(path: Path, **style: object) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, **style)  # type: ignore[arg-type]


def openi(reports: list[dict[str, str]], path: Path) -> list[str]:
    """F1 against the Open-i labels, with each of the two ways to count what the labeller calls uncertain."""
    labels = {
        row["uid"]: {
            name
            for column, value in row.items()
            if value == "1" and (name := {"Effusion": "pleural_effusion"}.get(column, column.lower())) in OBSERVATIONS
        }
        for row in rows(path)
    }
    names = tuple(name for name in OBSERVATIONS if any(name in found for found in labels.values()))
    stated: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    loose: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for row in reports:
        status = states(label_report(row["findings"], row["impression"]))
        present = {name for name in names if status[name] is Status.PRESENT}
        open_too = present | {name for name in names if status[name] is Status.UNCERTAIN}
        stated[row["split"]].append((present, labels[row["uid"]]))
        loose[row["split"]].append((open_too, labels[row["uid"]]))
    lines = [
        "| F1 against Open-i labels (positives) | " + " | ".join(f"{s}, n = {len(stated[s])}" for s in SPLITS) + " |",
        "|---|" + "---|" * len(SPLITS),
    ]
    for name in names:
        cells = []
        for split in SPLITS:
            both, _, missed = counts(stated[split], (name,))
            cells.append(f"{f1(counts(stated[split], (name,))):.3f} ({both + missed})" if both + missed else "none")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for note, pairs in (("", stated), (", if uncertain counted as positive", loose)):
        for title, chosen in (("micro over 7", SEVEN), (f"micro over all {len(names)}", names)):
            cells = [
                "{:.3f} ({:.3f} to {:.3f})".format(f1(counts(pairs[s], chosen)), *interval(pairs[s], chosen))
                for s in SPLITS
            ]
            lines.append(f"| **{title}**{note} | " + " | ".join(cells) + " |")
    return lines


def counts(pairs: list[Pair], names: tuple[str, ...]) -> tuple[int, int, int]:
    """Observations in both, in the text's reading alone, and in the label alone."""
    chosen = set(names)
    return (
        sum(len(stated & labelled & chosen) for stated, labelled in pairs),
        sum(len((stated - labelled) & chosen) for stated, labelled in pairs),
        sum(len((labelled - stated) & chosen) for stated, labelled in pairs),
    )


def f1(found: tuple[int, int, int]) -> float:
    both, stated, labelled = found
    return 2 * both / max(2 * both + stated + labelled, 1)


def interval(pairs: list[Pair], names: tuple[str, ...], rounds: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of the micro F1 over studies, one study a patient."""
    each = Counter(counts([pair], names) for pair in pairs)
    rng, values = random.Random(0), []
    for _ in range(rounds):
        drawn = rng.choices(list(each), weights=list(each.values()), k=len(pairs))
        both, stated, labelled = map(sum, zip(*drawn, strict=True))
        values.append(f1((both, stated, labelled)))
    values.sort()
    return values[round(0.025 * rounds)], values[round(0.975 * rounds) - 1]


def sides(reports: list[dict[str, str]]) -> list[str]:
    """Sides of present findings against the sides in the MeSH coding, where that states one."""
    lines = ["| side of present findings against MeSH | right | wrong | none read | n |", "|---|---|---|---|---|"]
    for split in SPLITS:
        tally: Counter[str] = Counter()
        for row in (row for row in reports if row["split"] == split):
            coded: dict[str, set[str]] = {}
            for heading, *qualifiers in (term.strip().split("/") for term in row["MeSH"].split(";")):
                found = {q for q in qualifiers if q in list(Side)} | ({"left"} if "lingula" in qualifiers else set())
                if heading in MESH and found:
                    coded.setdefault(MESH[heading], set()).update(found)
            read = {f.observation: f for f in label_report(row["findings"], row["impression"])}
            for name, found in coded.items():
                if name in read and read[name].status is Status.PRESENT:
                    side = found.pop() if len(found) == 1 else "bilateral"
                    got = read[name].laterality
                    tally["none" if got is None else "right" if got == side else "wrong"] += 1
        total = sum(tally.values())
        lines.append(f"| {split} | {tally['right'] / total:.3f} | {tally['wrong']} | {tally['none']} | {total} |")
    return lines


def negation(path: Path) -> list[str]:
    """Negated or affirmed, on the sentences of the NegEx and ConText test set."""
    tally: Counter[tuple[str, str, bool]] = Counter()
    for row in rows(path, delimiter="\t", quoting=csv.QUOTE_NONE):
        half = "odd" if int(row["report"]) % 2 else "even"
        tally[half, row["negation"], denied(row) == (row["negation"] == "negated")] += 1
    lines = ["| negation | accuracy | sensitivity for negated | specificity | n |", "|---|---|---|---|---|"]
    for half, use in (("odd", "built on"), ("even", "only measured")):
        right = {kind: tally[half, kind, True] for kind in ("negated", "affirmed")}
        total = {kind: right[kind] + tally[half, kind, False] for kind in right}
        shares = [sum(right.values()) / sum(total.values()), *(right[kind] / total[kind] for kind in right)]
        cells = " | ".join(f"{share:.3f}" for share in shares)
        lines.append(f"| {half} report numbers ({use}) | {cells} | {sum(total.values())} |")
    return lines


def denied(row: dict[str, str]) -> bool:
    # The concept stands in capitals in its sentence, unless the whole sentence does.
    concept, sentence = row["concept"].strip(), row["sentence"]
    start = sentence.find(concept.upper())
    if start < 0:
        start = sentence.lower().find(concept.lower())
    return start >= 0 and certainty_of(sentence, start, start + len(concept)) is Status.ABSENT


def speed(reports: list[dict[str, str]]) -> list[str]:
    """Reports a second on one core, best of three rounds, on reports of 45 to 90 words."""
    texts = [(row["findings"], row["impression"]) for row in reports]
    texts = [text for text in texts if 45 <= len(" ".join(text).split()) <= 90]
    words = sum(len(" ".join(text).split()) for text in texts) / len(texts)
    rates = []
    for read in (label_report, label_forgetful):
        seconds = []
        for _ in range(3):
            words_of("en").read.cache_clear()
            began = time.process_time()
            for text in texts:
                read(*text)
            seconds.append(time.process_time() - began)
        rates.append(len(texts) / min(seconds))
    return [
        f"Speed on one core, best of three rounds: {rates[0]:,.0f} reports a second ({len(texts)} reports, "
        f"on average {words:.0f} words), {rates[1]:,.0f} if no sentence is remembered from the report before."
    ]


def label_forgetful(findings: str, impression: str) -> None:
    words_of("en").read.cache_clear()
    label_report(findings, impression)


if __name__ == "__main__":
    main()
