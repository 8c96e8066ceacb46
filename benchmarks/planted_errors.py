"""Are errors that were planted into reports found? Recall and precision of ``mmfm.evaluation.clinical_errors``.

    python benchmarks/planted_errors.py --source DIR [--splits train] [--reports 100] [--seed 0] [--show 20]

DIR holds ``iu_xray/reports.csv``. Each kind of error is planted into reports that it can be planted into, drawn by the
seed, and as many reports are left as they are: draft and reference of those are the same text. The rules and word lists
of the planter stand in this file and were written before the detector's; they use neither the labeller nor its words.
The detector was built on ``train``; ``val`` and ``extra`` are only measured. Recall: planted errors that are reported
as that kind. Precision: reports with that kind reported, in which it was planted; every other report is a negative.
Intervals are Wilson's, 95 %. Exits with 1 where a recall is below 0.95 or a precision below 0.9.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

from mmfm.evaluation.clinical_errors import ClinicalError, clinical_errors
from mmfm.evaluation.references import Reference
from mmfm.report import Sections

ADDED = """
There is a cavitary lesion in the right apex.
Pneumoperitoneum is present.
Free air is seen under the right hemidiaphragm.
There is a large hiatal hernia.
Severe levoscoliosis of the thoracic spine.
There is a 4 cm mass in the left upper lobe.
A tension component with shift of the trachea to the right is noted.
Aneurysmal dilatation of the thoracic aorta.
Moderate left pleural effusion.
Small right apical pneumothorax.
There is consolidation throughout the right lower lobe.
The heart is markedly enlarged.
Diffuse pulmonary edema is present.
An acute compression fracture of T8 is seen.
Displaced fractures of the left sixth and seventh ribs.
Multiple pulmonary nodules are scattered in both lungs.
The right hilum is bulky, suspicious for lymphadenopathy.
The mediastinum is widened.
There is a retained metallic foreign body projecting over the stomach.
A swallowed coin lies in the upper esophagus.
Subcutaneous emphysema tracks along the left chest wall.
The endotracheal tube ends in the right main bronchus.
A dual lead pacemaker is in place.
Tip of the nasogastric tube is coiled in the esophagus.
Lytic destruction of the right fourth rib.
Old healed fracture of the left clavicle.
The left shoulder is dislocated anteriorly.
The right hemidiaphragm is elevated.
There is eventration of the left hemidiaphragm.
Pneumomediastinum outlines the heart border.
Widespread miliary nodularity.
Honeycombing at both bases in keeping with fibrosis.
The lungs are severely hyperinflated with flattened diaphragms, indicating emphysema.
Thick-walled bulla in the left upper zone.
Complete collapse of the left lung.
Plate-like atelectasis at the right base.
Dense calcification of the aortic arch.
Calcified pleural plaques along both hemidiaphragms.
The left hemithorax is completely opacified.
An air-fluid level is visible in the right mid lung, consistent with an abscess.
Extensive bronchiectasis in the lingula.
Pulmonary venous congestion with Kerley B lines.
Right lower lobe pneumonia.
There is an azygos lobe.
A large pericardial effusion gives the heart a globular shape.
The pulmonary arteries are dilated, suggesting pulmonary hypertension.
Bowel loops are interposed between liver and diaphragm.
Dextrocardia with situs inversus.
A right-sided port catheter terminates in the right atrium.
Sternal wires are broken.
Surgical clips are seen in the left axilla after mastectomy.
There is a soft tissue mass in the anterior mediastinum.
Marked kyphosis with wedging of several vertebral bodies.
Sclerotic metastases are seen throughout the spine.
Massive gastric distension.
Patchy airspace disease in the left perihilar region.
Bilateral reticular opacities suggest interstitial lung disease.
Gallstones are noted in the right upper quadrant.
The trachea is deviated to the left by a thyroid goiter.
A cervical rib is present on the right.
Blunting of the left costophrenic angle.
Ill-defined nodular density behind the heart.
""".strip().split("\n")

COMPARISONS = """
Compared to the previous study of last year the appearance has improved.
No change since the prior examination.
Unchanged from the prior radiograph.
The findings are stable compared with the earlier film.
In comparison with the exam of 03/12/2011, there has been no significant change.
There has been interval improvement.
Interval development of mild vascular prominence.
As seen on the last chest film, the lungs remain well aerated.
The heart has increased in size in the meantime.
The heart is larger than before.
Aeration is better than on the previous radiograph.
Since the last examination, the lung volumes have decreased.
The previously seen opacity has resolved.
The previously described effusion is no longer visible.
Stable appearance of the chest.
Overall the chest looks the same as two months ago.
This represents worsening from the study done in 2009.
When compared to old films, there is little difference.
There is no interval change.
Heart size is again normal.
The lungs have cleared in the interim.
Slight progression over the last six months.
Findings are similar to those reported previously.
Again noted is a normal mediastinal contour.
The right basilar density seen previously has nearly disappeared.
Relative to yesterday's image, the lungs are better expanded.
Cardiac size remains unchanged.
The appearance is identical to that of the earlier study.
Persistent mild elevation of the diaphragm, as on the prior.
A new density is not seen relative to the baseline radiograph.
Marked improvement from the previous exam.
Improved aeration of both bases.
Near complete resolution of the earlier infiltrate.
Serial radiographs show a gradual decrease in heart size.
The effusion that was present on the outside films has gone.
Lung volumes are lower than on the comparison study.
Continued clearing is noted.
The tube has been removed in the interval.
No new abnormality has appeared since the examination of January.
Chronic changes, unaltered from 2010.
The degree of inspiration has improved from prior.
Redemonstrated is a normal cardiac silhouette.
""".strip().split("\n")

SIDE = re.compile(r"\b(left|right)", re.IGNORECASE)
OTHER = {"left": "right", "right": "left"}
NEGATION = re.compile(
    r"\b(?:there (?:is|are) no(?: evidence of| evidence for| definite)?|no evidence (?:of|for)|no|without|"
    r"(?:is|are) not|not|free of|negative for)\b",
    re.IGNORECASE,
)
AFFIRMED = {"without": "with", "is not": "is", "are not": "are", "free of": "with", "negative for": "positive for"}

Report = dict[str, str]


def flip_side(report: Report, rng: random.Random) -> Report | None:
    """Left for right and right for left: once, in a whole sentence, or in the whole report."""

    def swap(found: re.Match[str]) -> str:
        return like(OTHER[found[0].lower()], found[0])

    places = [(name, found) for name in ("findings", "impression") for found in SIDE.finditer(report[name])]
    if not places:
        return None
    name, found = rng.choice(places)
    extent = rng.choice(("one", "sentence", "report"))
    if extent == "one":
        return report | {name: report[name][: found.start()] + swap(found) + report[name][found.end() :]}
    if extent == "report":
        return report | {name: SIDE.sub(swap, report[name]) for name in ("findings", "impression")}
    start = report[name].rfind(".", 0, found.start()) + 1
    end = report[name].find(".", found.end()) % (len(report[name]) + 1)
    return report | {name: report[name][:start] + SIDE.sub(swap, report[name][start:end]) + report[name][end:]}


def drop_negation(report: Report, rng: random.Random) -> Report | None:
    """The words of one negation are taken out, or all of the report's."""

    def affirm(found: re.Match[str]) -> str:
        words = found[0].lower()
        if words.startswith("there "):
            return like(words.split(" no")[0], found[0])
        return like(AFFIRMED.get(words, ""), found[0])

    places = [(name, found) for name in ("findings", "impression") for found in NEGATION.finditer(report[name])]
    if not places:
        return None
    if rng.random() < 0.2:
        return report | {name: tidy(NEGATION.sub(affirm, report[name])) for name in ("findings", "impression")}
    name, found = rng.choice(places)
    return report | {name: tidy(report[name][: found.start()] + affirm(found) + report[name][found.end() :])}


def add_finding(report: Report, rng: random.Random) -> Report | None:
    """One more sentence, anywhere in the findings or the impression."""
    return insert(report, rng.choice(ADDED), rng)


def invent_comparison(report: Report, rng: random.Random) -> Report | None:
    """One more sentence that compares, in a report that names no comparison."""
    if not re.fullmatch(
        r"\W*(?:none|no|n/a|not available)?(?: available| comparisons?)?\W*", report["comparison"], re.I
    ):
        return None
    return insert(report, rng.choice(COMPARISONS), rng)


def insert(report: Report, sentence: str, rng: random.Random) -> Report:
    name = rng.choice([name for name in ("findings", "impression") if report[name]])
    sentences = re.split(r"(?<=[a-z]\.)\s+(?=[A-Z])", report[name])
    sentences.insert(rng.randint(0, len(sentences)), sentence)
    return report | {name: " ".join(sentences)}


def like(word: str, pattern: str) -> str:
    """``word`` with the capitals of ``pattern``."""
    return word.upper() if pattern.isupper() else word.capitalize() if pattern[0].isupper() else word


def tidy(text: str) -> str:
    """Single blanks, and a capital at the start of each sentence."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"(?:^|(?<=\. ))[a-z]", lambda found: found[0].upper(), text)


PLANTERS: dict[str, Callable[[Report, random.Random], Report | None]] = {
    "wrong_side": flip_side,
    "negation_flip": drop_negation,
    "invented_finding": add_finding,
    "invented_comparison": invent_comparison,
}


def main() -> int:
    """Prints recall and precision by kind, and what was not found or reported without being there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with iu_xray/")
    parser.add_argument("--splits", nargs="+", default=["val", "extra"])
    parser.add_argument("--reports", type=int, default=100, help="of each kind, and untouched")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=20, help="how many mistakes of each kind to print")
    arguments = parser.parse_args()
    with (arguments.source / "iu_xray" / "reports.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in arguments.splits]
    rows = [row for row in rows if row["findings"] or row["impression"]]
    rng = random.Random(arguments.seed)
    drafts: list[tuple[str | None, Report, Report]] = []
    for kind, plant in PLANTERS.items():
        planted = ((kind, row, plant(row, rng)) for row in rng.sample(rows, len(rows)))
        made = [(kind, row, draft) for kind, row, draft in planted if draft is not None]
        drafts += made[: arguments.reports]
    drafts += [(None, row, row) for row in rng.sample(rows, len(rows))[: arguments.reports]]
    found = [errors(row, draft) for _, row, draft in drafts]
    kinds = [{error.kind for error in each} for each in found]
    enough = True
    print(f"{'kind':20} {'planted':>8} {'recall':>23} {'precision':>23}")
    for kind in PLANTERS:
        planted = [reported for (of, _, _), reported in zip(drafts, kinds, strict=True) if of == kind]
        hits = sum(kind in reported for reported in planted)
        flagged = sum(kind in reported for reported in kinds)
        print(f"{kind:20} {len(planted):8} {share(hits, len(planted)):>23} {share(hits, flagged):>23}")
        enough &= hits >= 0.95 * len(planted) and hits >= 0.9 * flagged
    untouched = [reported for (of, _, _), reported in zip(drafts, kinds, strict=True) if of is None]
    print(f"untouched with any of these kinds: {sum(bool(each & set(PLANTERS)) for each in untouched)}")
    for kind in PLANTERS:
        missed = [d for d, reported in zip(drafts, kinds, strict=True) if d[0] == kind and kind not in reported]
        wrongly = [
            (d, next(e for e in each if e.kind == kind))
            for d, each in zip(drafts, found, strict=True)
            if d[0] != kind and any(e.kind == kind for e in each)
        ]
        for _, row, draft in missed[: arguments.show]:
            print(f"\n{kind} not found:\n  was {text(row)}\n  now {text(draft)}")
        for (of, _, _), error in wrongly[: arguments.show]:
            print(f"\n{kind} reported where {of or 'nothing'} was planted:\n  {error}")
    return 0 if enough else 1


def errors(row: Report, draft: Report) -> tuple[ClinicalError, ...]:
    reference = Reference(study_uid=row["uid"], patient_id=row["uid"], report=sections(row))
    return clinical_errors(Sections(findings=draft["findings"], impression=draft["impression"]), reference)


def sections(row: Report) -> Sections:
    return Sections(**{name: row[name] or None for name in ("findings", "impression", "comparison")})


def text(row: Report) -> str:
    return f"{row['findings']} | {row['impression']} | {row['comparison']}"


def share(part: int, whole: int) -> str:
    """A share with Wilson's interval."""
    if not whole:
        return "none"
    p, z = part / whole, 1.96
    middle = (p + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z * math.sqrt(p * (1 - p) / whole + z * z / (4 * whole * whole)) / (1 + z * z / whole)
    return f"{p:.3f} ({max(0, middle - half):.3f} to {min(1, middle + half):.3f})"


if __name__ == "__main__":
    sys.exit(main())
