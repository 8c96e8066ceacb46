"""How far the labeller agrees with people, and how fast it is: writes the tables of docs/labeller.md.

    python benchmarks/labeller_agreement.py --source DIR [--write docs/labeller.md]

DIR holds ``iu_xray/`` (reports.csv, labels_openi14.csv, structured_radrestruct.jsonl) and ``nlp_eval/``
(negation_clinical.tsv). The labeller was built on the IU X-Ray ``train`` split and on the negation sentences with odd
report numbers; the rest was only measured. Intervals are 95 % bootstrap intervals over studies (one a patient), and for
negation over reports.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfm.report import Finding, Side, Status
from mmfm.text import OBSERVATIONS, label_report
from mmfm.text.certainty import certainty_of
from mmfm.text.labeller import words_of

MARK = "<!-- everything below is written by benchmarks/labeller_agreement.py -->"
SPLITS = {"train": ("train",), "val + extra": ("val", "extra"), "val": ("val",), "extra": ("extra",)}
"""What each column is measured on; ``train`` is what the labeller was built on."""
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
RADRESTRUCT = {
    "lung_diseases_pulmonary atelectasis": ("atelectasis",),
    "cardiovascular system_diseases_cardiomegaly": ("cardiomegaly",),
    "lung_signs_consolidation": ("consolidation",),
    "lung_diseases_pulmonary edema": ("edema",),
    "cardiovascular system_diseases_heart failure": ("edema",),
    "skeletal system_diseases_fractures, bone": ("fracture",),
    "lung_signs_opacity": ("lung_opacity",),
    "lung_signs_airspace disease": ("lung_opacity",),
    "pleura_diseases_pleural effusion": ("pleural_effusion",),
    "pleura_diseases_hemothorax": ("pleural_effusion",),
    "pleura_diseases_hydropneumothorax": ("pleural_effusion", "pneumothorax"),
    "pleura_diseases_hemopneumothorax": ("pleural_effusion", "pneumothorax"),
    "lung_diseases_pneumonia": ("pneumonia",),
    "pleura_diseases_pneumothorax": ("pneumothorax",),
    "foreign objects_objects_catheters, indwelling": ("support_devices",),
    "foreign objects_objects_tube, inserted": ("support_devices",),
    "foreign objects_objects_implanted medical device": ("support_devices",),
    "foreign objects_objects_medical device": ("support_devices",),
    "foreign objects_objects_stents": ("support_devices",),
    "foreign objects_objects_surgical instruments": ("support_devices",),
    "pleura_diseases_cicatrix": ("pleural_other",),
    "pleura_diseases_calcinosis": ("pleural_other",),
    "lung_diseases_pulmonary emphysema": ("emphysema",),
    "lung_diseases_pulmonary fibrosis": ("fibrosis",),
    "lung_diseases_infiltrate": ("infiltration",),
    "lung_diseases_mass": ("mass",),
    "lung_diseases_nodule": ("nodule",),
    "pleura_signs_thickening": ("pleural_thickening",),
}
"""Questions of Rad-ReStruct and the observations that a "yes" to them states."""
DEGREES = {
    "borderline": ("borderline",),
    "mild": ("trace", "small", "minimal", "mild"),
    "moderate": ("moderate",),
    "severe": ("large", "severe"),
}
"""Degrees of Rad-ReStruct and the severities of the labeller that are one of them."""


@dataclass(frozen=True)
class Truth:
    """What people said of one study."""

    present: frozenset[str]
    sides: dict[str, str]
    """Side of each observation for which they state one."""
    degrees: dict[str, str]


@dataclass(frozen=True)
class Reading:
    """What the labeller reads in one study."""

    split: str
    findings: dict[str, Finding]

    def names(self, *statuses: Status) -> set[str]:
        return {name for name, finding in self.findings.items() if finding.status in statuses}


Pairs = list[tuple[Reading, Truth]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with iu_xray/ and nlp_eval/")
    parser.add_argument("--write", type=Path, help="Markdown file whose tables to replace")
    arguments = parser.parse_args()
    folder = arguments.source / "iu_xray"
    reports = list(rows(folder / "reports.csv"))
    read = {
        row["uid"]: Reading(row["split"], {f.observation: f for f in label_report(row["findings"], row["impression"])})
        for row in reports
    }
    labels, structured = openi(folder / "labels_openi14.csv"), radrestruct(folder / "structured_radrestruct.jsonl")
    mesh = {row["uid"]: mesh_sides(row["MeSH"]) for row in reports}
    pairs_openi = [(read[uid], truth) for uid, truth in labels.items()]
    pairs_structured = [(read[uid], truth) for uid, truth in structured.items()]
    pairs_mesh = [(read[uid], truth) for uid, truth in mesh.items()]
    sections = [
        ["### Open-i labels"],
        averages(pairs_openi),
        each_observation(pairs_openi),
        ["### Rad-ReStruct"],
        mapping(),
        averages(pairs_structured),
        each_observation(pairs_structured),
        ["### Sides and severity of present findings"],
        details(
            [
                ("side, MeSH", pairs_mesh, side_agrees),
                ("side, Rad-ReStruct", pairs_structured, side_agrees),
                ("severity, Rad-ReStruct", pairs_structured, severity_agrees),
            ]
        ),
        ["### Negation"],
        negation(arguments.source / "nlp_eval" / "negation_clinical.tsv"),
        ["### Speed"],
        speed(reports),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections) + "\n"
    print(text)
    if arguments.write:
        head = arguments.write.read_text(encoding="utf-8").split(MARK)[0]
        arguments.write.write_text(f"{head}{MARK}\n\n{text}", encoding="utf-8")


def rows(path: Path, **style: object) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, **style)  # type: ignore[call-overload]


def openi(path: Path) -> dict[str, Truth]:
    names = {"Effusion": "pleural_effusion"}
    return {
        row["uid"]: Truth(
            frozenset(names.get(column, column.lower()) for column, value in row.items() if value == "1")
            & frozenset(OBSERVATIONS),
            {},
            {},
        )
        for row in rows(path)
    }


def mesh_sides(terms: str) -> Truth:
    sides: dict[str, set[str]] = {}
    for heading, *qualifiers in (term.strip().split("/") for term in terms.split(";")):
        found = {q for q in qualifiers if q in list(Side)} | ({"left"} if "lingula" in qualifiers else set())
        if heading in MESH and found:
            sides.setdefault(MESH[heading], set()).update(found)
    return Truth(frozenset(), {name: one_side(found) for name, found in sides.items()}, {})


def one_side(found: set[str]) -> str:
    return next(iter(found)) if len(found) == 1 else "bilateral"


def radrestruct(path: Path) -> dict[str, Truth]:
    """The structured reports as observations, with a side or degree where all answers agree on one."""
    truths = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        study = json.loads(line)
        present: set[str] = set()
        places: dict[str, set[str]] = {}
        sides: dict[str, set[str]] = {}
        degrees: dict[str, set[str]] = {}
        for entry in study["positive"]:
            question, detail = entry["path"], None
            for ending in ("_localization", "_body_region", "_degree"):
                if question.endswith(ending):
                    question, detail = question.removesuffix(ending), ending
            for name in RADRESTRUCT.get(question, ()):
                present.add(name)
                if detail == "_localization":
                    sides.setdefault(name, set()).update(set(entry["answer"]) & set(Side))
                elif detail == "_body_region":
                    # "middle lobe" states no side: the lingula is filed there too.
                    regions = {answer.split()[0] for answer in entry["answer"]}
                    places.setdefault(name, set()).update(regions & {"left", "right"})
                elif detail == "_degree":
                    degrees.setdefault(name, set()).update(set(entry["answer"]) & set(DEGREES))
        # Lobes on both sides may only mean that the text names no side.
        stated = {name: one_side(found) for name, found in sides.items() if found}
        stated |= {name: one_side(found) for name, found in places.items() if len(found) == 1 and name not in stated}
        truths[str(study["uid"])] = Truth(
            frozenset(present), stated, {name: one_side(found) for name, found in degrees.items() if len(found) == 1}
        )
    return truths


def mapping() -> list[str]:
    questions: dict[str, list[str]] = {}
    for question, names in RADRESTRUCT.items():
        for name in names:
            questions.setdefault(name, []).append(f"`{question}`")
    degrees = "; ".join(f"{degree}: {', '.join(words)}" for degree, words in DEGREES.items())
    return [
        "A question answered with yes states: "
        + "; ".join(f"{name}: {', '.join(questions[name])}" for name in OBSERVATIONS if name in questions)
        + ". No question asks for the other observations. The side is the one under `_localization`; where none stands "
        "there, that of `_body_region`, if all places with a side share it (lobes of both sides may only mean that "
        f"the text names none, and `middle lobe` is also the lingula). The degrees as severities: {degrees}."
    ]


def resamples(n: int, rounds: int = 1000) -> np.ndarray:
    """How often each of ``n`` is drawn in each round (rounds, n)."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / max(n, 1)), size=rounds)


def shown(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, interval: bool = True) -> str:
    """A statistic of the summed rows of ``values`` (n, k), with its bootstrap interval."""
    value = statistic(values.sum(axis=0)[None])[0]
    if np.isnan(value):
        return "none"
    if not interval:
        return f"{value:.3f}"
    low, high = np.nanpercentile(statistic(resamples(len(values)) @ values), (2.5, 97.5))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def share(numerator: Sequence[int], denominator: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """A share of sums of columns; NaN for 0/0."""

    def statistic(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(sums[:, list(numerator)].sum(axis=1) / sums[:, list(denominator)].sum(axis=1))

    return statistic


# Columns of ``counts``: in both, read alone, stated by people alone, uncertain, mentioned. F1 counts both twice.
PRECISION, RECALL, UNCERTAIN = share([0], [0, 1]), share([0], [0, 2]), share([3], [4])
F1 = share([0, 0], [0, 0, 1, 2])


def counts(pairs: Pairs, names: Iterable[str], *, loose: bool = False) -> np.ndarray:
    """How many of ``names`` are in both, and so on, in each study (n, 5); ``loose`` counts uncertain as positive."""
    chosen = set(names)
    table = []
    for reading, truth in pairs:
        unsure = reading.names(Status.UNCERTAIN) & chosen
        stated = (reading.names(Status.PRESENT) & chosen) | (unsure if loose else set())
        labelled = truth.present & chosen
        mentioned = set(reading.findings) & chosen
        table.append([len(x) for x in (stated & labelled, stated - labelled, labelled - stated, unsure, mentioned)])
    return np.array(table)


def of_split(pairs: Pairs, split: str) -> Pairs:
    return [pair for pair in pairs if pair[0].split in SPLITS[split]]


def asked(pairs: Pairs) -> list[str]:
    return [name for name in OBSERVATIONS if any(name in truth.present for _, truth in pairs)]


def averages(pairs: Pairs) -> list[str]:
    names = asked(pairs)
    numbers = [f"{split}, n = {len(of_split(pairs, split))}" for split in SPLITS]
    lines = ["| micro average | " + " | ".join(numbers) + " |", "|---|" + "---|" * len(SPLITS)]
    groups = (("7", SEVEN), (f"all {len(names)}", names))
    for title, statistic in (("F1", F1), ("precision", PRECISION), ("recall", RECALL)):
        for size, chosen in groups:
            cells = [shown(counts(of_split(pairs, split), chosen), statistic) for split in SPLITS]
            lines.append(f"| {title} over {size} | " + " | ".join(cells) + " |")
    for size, chosen in groups:
        cells = [shown(counts(of_split(pairs, split), chosen, loose=True), F1) for split in SPLITS]
        lines.append(f"| F1 over {size}, if uncertain counted as positive | " + " | ".join(cells) + " |")
    return lines


def each_observation(pairs: Pairs) -> list[str]:
    """Each observation on the studies that the labeller was not built on, and its F1 on those that it was."""
    unused, built_on = of_split(pairs, "val + extra"), of_split(pairs, "train")
    lines = [
        f"| val + extra, n = {len(unused)} | positives | precision | recall | F1 | uncertain, of mentioned "
        "| F1 on train (positives) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in asked(pairs):
        table, trained = counts(unused, (name,)), counts(built_on, (name,))
        uncertain, mentioned = table[:, 3].sum(), table[:, 4].sum()
        cells = [
            str(table[:, [0, 2]].sum()),
            *(shown(table, statistic) for statistic in (PRECISION, RECALL, F1)),
            f"{uncertain / max(mentioned, 1):.3f} ({uncertain} of {mentioned})",
            f"{shown(trained, F1, interval=False)} ({trained[:, [0, 2]].sum()})",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def side_agrees(finding: Finding, truth: Truth) -> bool | None:
    return None if finding.laterality is None else finding.laterality == truth.sides[finding.observation]


def severity_agrees(finding: Finding, truth: Truth) -> bool | None:
    return None if finding.severity is None else finding.severity in DEGREES[truth.degrees[finding.observation]]


def details(
    kinds: Sequence[tuple[str, Pairs, Callable[[Finding, Truth], bool | None]]],
) -> list[str]:
    """Right, wrong or not read, of the present findings for which people state a side or a degree."""
    lines = ["| against | studies | right | right, of those read | wrong | none read | n |", "|---|" + "---|" * 6]
    for title, pairs, agrees in kinds:
        for split in ("train", "val + extra"):
            table = []
            for reading, truth in of_split(pairs, split):
                stated = truth.degrees if agrees is severity_agrees else truth.sides
                found = [agrees(reading.findings[name], truth) for name in reading.names(Status.PRESENT) & set(stated)]
                table.append([sum(answer is kind for answer in found) for kind in (True, False, None)])
            values = np.array(table)
            right, wrong, none = values.sum(axis=0)
            cells = [shown(values, share([0], [0, 1, 2])), shown(values, share([0], [0, 1])), str(wrong), str(none)]
            lines.append(f"| {title} | {split} | " + " | ".join(cells) + f" | {right + wrong + none} |")
    return lines


def negation(path: Path) -> list[str]:
    """Negated or affirmed, on the sentences of the NegEx and ConText test set."""
    reports: dict[str, dict[str, np.ndarray]] = {"odd": {}, "even": {}}
    for row in rows(path, delimiter="\t", quoting=csv.QUOTE_NONE):
        half, negated = "odd" if int(row["report"]) % 2 else "even", row["negation"] == "negated"
        tally = reports[half].setdefault(row["report"], np.zeros(4, dtype=int))
        tally[2 * (not negated) + (denied(row) != negated)] += 1
    lines = ["| negation | accuracy | sensitivity for negated | specificity | n |", "|---|---|---|---|---|"]
    for half, use in (("odd", "built on"), ("even", "only measured")):
        values = np.array(list(reports[half].values()))
        cells = [shown(values, s) for s in (share([0, 2], [0, 1, 2, 3]), share([0], [0, 1]), share([2], [2, 3]))]
        lines.append(f"| {half} report numbers ({use}) | " + " | ".join(cells) + f" | {values.sum()} |")
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
        f"On one core, best of three rounds: {rates[0]:,.0f} reports a second ({len(texts)} reports, "
        f"on average {words:.0f} words), {rates[1]:,.0f} if no sentence is remembered from the report before."
    ]


def label_forgetful(findings: str, impression: str) -> None:
    words_of("en").read.cache_clear()
    label_report(findings, impression)


if __name__ == "__main__":
    main()
