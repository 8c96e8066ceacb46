"""How far the labeller agrees with people, and how fast it is. Writes the table of docs/labeller.md.

    python benchmarks/labeller_agreement.py --source DIR [--write docs/labeller.md]

DIR holds ``iu_xray/`` (reports.csv, labels_openi14.csv) and ``nlp_eval/`` (negation_clinical.tsv). The labeller was built on
the IU X-Ray ``train`` split and on the negation sentences with odd report numbers; all other rows were only measured.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections import Counter
from pathlib import Path

from mmfm.report import Status
from mmfm.text import OBSERVATIONS, label_report, states
from mmfm.text.certainty import certainty_of
from mmfm.text.labeller import _read

NAMES = {"Effusion": "pleural_effusion"}
SEVEN = ("atelectasis", "cardiomegaly", "pleural_effusion", "pneumonia", "pneumothorax", "consolidation", "edema")
MARK = "<!-- the table below is written by benchmarks/labeller_agreement.py -->"


def scores(pairs: list[tuple[set[str], set[str]]], names: tuple[str, ...]) -> tuple[float, int, int, int]:
    """Micro F1 over ``names`` of (stated, labelled) pairs, with true positives, false positives and false negatives."""
    both = sum(len(a & b & set(names)) for a, b in pairs)
    only_text = sum(len((a - b) & set(names)) for a, b in pairs)
    only_label = sum(len((b - a) & set(names)) for a, b in pairs)
    return 2 * both / max(2 * both + only_text + only_label, 1), both, only_text, only_label


def interval(pairs: list[tuple[set[str], set[str]]], names: tuple[str, ...], rounds: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of the micro F1 over studies (one study a patient)."""
    counts = [tuple(scores([pair], names)[1:]) for pair in pairs]
    counts = [count for count in counts if any(count)]
    blank, rng, values = len(pairs) - len(counts), random.Random(0), []
    for _ in range(rounds):
        drawn = [c for c in rng.choices([*counts, (0, 0, 0)], weights=[*[1] * len(counts), blank], k=len(pairs))]
        both, text, label = (sum(column) for column in zip(*drawn, strict=True))
        values.append(2 * both / max(2 * both + text + label, 1))
    values.sort()
    return values[int(0.025 * rounds)], values[int(0.975 * rounds) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    lines = [*openi(arguments.source / "iu_xray"), "", *negation(arguments.source / "nlp_eval")]
    lines += ["", *speed(arguments.source / "iu_xray")]
    print("\n".join(lines))
    if arguments.write:
        head = arguments.write.read_text(encoding="utf-8").split(MARK)[0]
        arguments.write.write_text(head + MARK + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def reports(folder: Path) -> list[dict[str, str]]:
    with (folder / "reports.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def openi(folder: Path) -> list[str]:
    with (folder / "labels_openi14.csv").open(encoding="utf-8", newline="") as file:
        labels = {
            row["uid"]: {NAMES.get(k, k.lower()) for k, v in row.items() if v == "1" and k != "normal"} & set(OBSERVATIONS)
            for row in csv.DictReader(file)
        }
        names = tuple(n for n in OBSERVATIONS if any(n in found for found in labels.values()))
    pairs: dict[str, list[tuple[set[str], set[str]]]] = {"train": [], "val": [], "extra": []}
    strict: dict[str, list[tuple[set[str], set[str]]]] = {"train": [], "val": [], "extra": []}
    for row in reports(folder):
        status = states(label_report(row["findings"], row["impression"]))
        counted = {n for n, s in status.items() if s in (Status.PRESENT, Status.UNCERTAIN)}
        pairs[row["split"]].append((counted, labels[row["uid"]]))
        strict[row["split"]].append(({n for n, s in status.items() if s is Status.PRESENT}, labels[row["uid"]]))
    lines = [
        "| Open-i labels, F1 (positives) | " + " | ".join(f"{split}, n = {len(pairs[split])}" for split in pairs) + " |",
        "|---|" + "---|" * len(pairs),
    ]
    for name in names:
        cells = []
        for found in pairs.values():
            f1, both, _, missed = scores(found, (name,))
            cells.append(f"{f1:.3f} ({both + missed})" if both + missed else "no positives")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for title, chosen in (("micro, 7 observations", SEVEN), (f"micro, all {len(names)}", names)):
        for note, group in (("uncertain counts as positive", pairs), ("uncertain counts as not positive", strict)):
            cells = []
            for found in group.values():
                low, high = interval(found, chosen)
                cells.append(f"{scores(found, chosen)[0]:.3f} ({low:.3f} to {high:.3f})")
            lines.append(f"| **{title}**, {note} | " + " | ".join(cells) + " |")
    return lines


def negation(folder: Path) -> list[str]:
    tally: Counter[tuple[str, str, bool]] = Counter()
    with (folder / "negation_clinical.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            half = "odd" if int(row["report"]) % 2 else "even"
            tally[half, row["negation"], denied(row) == (row["negation"] == "negated")] += 1
    lines = ["| negation | accuracy | n | sensitivity for negated | specificity |", "|---|---|---|---|---|"]
    for half, use in (("odd", "built on"), ("even", "only measured")):
        right = {kind: tally[half, kind, True] for kind in ("negated", "affirmed")}
        total = {kind: right[kind] + tally[half, kind, False] for kind in right}
        accuracy = sum(right.values()) / sum(total.values())
        recall, specificity = (f"{right[k] / total[k]:.3f}" for k in ("negated", "affirmed"))
        lines.append(f"| {half} reports ({use}) | {accuracy:.3f} | {sum(total.values())} | {recall} | {specificity} |")
    return lines


def denied(row: dict[str, str]) -> bool:
    # The concept stands in capitals in its sentence, though not always with the same blanks.
    concept, sentence = row["concept"].strip(), row["sentence"]
    start = sentence.find(concept.upper())
    if start < 0:
        start = sentence.lower().find(concept.lower())
    return start >= 0 and certainty_of(sentence, start, start + len(concept)) is Status.ABSENT


def speed(folder: Path) -> list[str]:
    texts = [(row["findings"], row["impression"]) for row in reports(folder) if row["findings"]]
    texts = texts * 3
    words = sum(len(f"{a} {b}".split()) for a, b in texts) / len(texts)
    rates = []
    for clear in (False, True):
        _read.cache_clear()
        began = time.perf_counter()
        for one in texts:
            if clear:
                _read.cache_clear()
            label_report(*one)
        rates.append(len(texts) / (time.perf_counter() - began))
    return [f"Speed on one core: {rates[0]:,.0f} reports a second ({words:.0f} words each); {rates[1]:,.0f} without remembering sentences."]


if __name__ == "__main__":
    main()
