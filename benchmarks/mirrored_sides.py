"""Does the side in a draft follow the picture? One table over drawn studies and their mirror twins.

    python benchmarks/mirrored_sides.py --checkpoint mmfm-cxr-small --studies 100

Each study has one finding on one side; its twin is the same patient with left and right exchanged. The findings are
those of ``SIDED`` that the checkpoint ever states; the others are named below the table. A pair counts as right where
the drafted text names the finding in both, in the study on the side drawn and in the twin on the other. Seeds lie
outside those that ``datasets/synthetic/prepare.py`` gives to training. Exits with 1 where fewer than 95 % of all pairs
are right.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.progress import track

from mmfm.data.synthetic import draw_study, write_dicom
from mmfm.io import read_studies
from mmfm.models import draft, load_checkpoint
from mmfm.report import Finding, Side, Status
from mmfm.text import label_report

SIDED = ("pleural_effusion", "pneumothorax", "consolidation", "nodule")
FIRST_SEED = 900_000_000
OTHER = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}


def is_present(finding: Finding) -> bool:
    """Returns whether the text states the finding as there."""
    return finding.status is Status.PRESENT


def main() -> int:
    """Prints, by finding, how many pairs there were, were named in both, and had the sides right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="mmfm-cxr-small")
    parser.add_argument("--studies", type=int, default=100)
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.checkpoint)
    stated_ever = [observation for observation in SIDED if observation in checkpoint.facts.operating_points]
    pairs, named, right = Counter(), Counter(), Counter()
    seed = FIRST_SEED
    for number in track(range(arguments.studies), description="drawing and drafting"):
        observation = stated_ever[number % len(stated_ever)]
        side = None
        while side not in OTHER:  # one side, not both
            seed += 1
            truth = draw_study(seed, findings=(observation,)).findings
            side = next(f.laterality for f in truth if f.observation == observation)
        drafted = []
        for mirror in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                write_dicom(draw_study(seed, findings=(observation,), mirror=mirror), Path(folder))
                (study,) = read_studies(folder)
                (one,) = draft(checkpoint, [(study.study_uid, checkpoint.processor.pixels(study), None)])
            stated = label_report(one.findings, one.impression)
            drafted.append(next((f.laterality for f in stated if f.observation == observation and is_present(f)), None))
        pairs[observation] += 1
        if None not in drafted:
            named[observation] += 1
            right[observation] += drafted == [side, OTHER[side]]
    print(f"{'finding':20} {'pairs':>6} {'named in both':>14} {'sides right':>12}")
    for observation in (*stated_ever, "all"):
        counts = [sum(c.values()) if observation == "all" else c[observation] for c in (pairs, named, right)]
        print(f"{observation:20} {counts[0]:6} {counts[1]:14} {counts[2]:12}")
    never = ", ".join(observation for observation in SIDED if observation not in stated_ever)
    print(f"never stated by this checkpoint, so without a side: {never or 'none'}")
    return 0 if sum(right.values()) >= 0.95 * sum(pairs.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
