"""How often is a planted difference between groups flagged, and how often one that is not there? One table.

    python benchmarks/planted_bias.py --draws 100

Each draw has 500 present findings a group, in studies with 1 to 3 of them, of patients with 1 to 4 studies. Drafts
find them with the sensitivity of the group: one finding independent of the next, or alike within a patient (beta,
correlation 0.3). ``mmfm.evaluation.subgroups`` is beside a plain test of two shares, which takes all findings for
independent. Exits with 1 where of independent draws of two groups fewer than 95 % of the planted differences, or more
than 5 % of those that are not there, are flagged.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np

from mmfm.evaluation.intervals import holm
from mmfm.evaluation.subgroups import ALPHA, subgroup_scores

POSITIVES = 500
OBSERVATIONS = tuple("abcdef")
CORRELATION = 0.3
CASES = (
    (0.90, 0.80),
    (0.85, 0.85),
    (0.90, 0.90),
    (0.90, 0.90, 0.80),
    (0.85, 0.85, 0.85),
    (0.90, 0.90, 0.90, 0.80),
    (0.85, 0.85, 0.85, 0.85),
)
"""Sensitivity by group. Where they differ, the last is the one that has to be flagged."""


def main() -> int:
    """Prints the counts of every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    head = ("sensitivities", "misses", "flagged", "plain test")
    print(f"Of {arguments.draws} draws with {POSITIVES} findings a group, alpha {ALPHA}, Holm over the groups.\n")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    reached = True
    for alike in (False, True):
        for case in CASES:
            ours = plain = 0
            planted = len(set(case)) > 1
            for draw in range(arguments.draws):
                study = drawn(case, np.random.default_rng([arguments.seed, draw, alike]), alike)
                (grouping,) = subgroup_scores(**study, groupings=("planted",))
                worst = grouping.groups[-1:] if planted else grouping.groups
                ours += any(group.gaps["sensitivity"].flagged for group in worst)
                adjusted = plain_test({g.group: (g.sensitivity.events, g.sensitivity.n) for g in grouping.groups})
                plain += any(adjusted[group.group] < ALPHA for group in worst)
            if len(case) == 2 and not alike:
                reached &= ours >= 0.95 * arguments.draws if planted else ours <= 0.05 * arguments.draws
            words = " / ".join(f"{s:.2f}" for s in case)
            print(f"| {words} | {'alike within a patient' if alike else 'independent'} | {ours} | {plain} |")
    return 0 if reached else 1


def drawn(sensitivities: tuple[float, ...], generator: np.random.Generator, alike: bool) -> dict:
    """Returns what ``subgroup_scores`` takes."""
    groups, patients, reference, drafted = [], [], [], []
    for number, sensitivity in enumerate(sensitivities):
        left = POSITIVES
        while left:
            patient, spread = str(len(groups)), (1 - CORRELATION) / CORRELATION
            found = generator.beta(sensitivity * spread, (1 - sensitivity) * spread) if alike else sensitivity
            for _ in range(generator.integers(1, 5)):
                present = generator.permutation(len(OBSERVATIONS)) < min(left, generator.integers(1, 4))
                left -= present.sum()
                groups.append({"planted": f"group {number}"})
                patients.append(patient)
                reference.append(present)
                drafted.append(present & (generator.random(len(present)) < found))
    return {
        "groups": groups,
        "patients": patients,
        "observations": OBSERVATIONS,
        "reference_NO": np.array(reference),
        "drafted_NO": np.array(drafted),
        "known_NO": np.ones((len(groups), len(OBSERVATIONS)), dtype=bool),
    }


def plain_test(counts: dict[str, tuple[int, int]]) -> dict[str, float]:
    """Returns the p of each group against the rest by the test of two shares, corrected by Holm."""
    events, n = (sum(values) for values in zip(*counts.values(), strict=True))
    p = {}
    for group, (k, m) in counts.items():
        variance = events / n * (1 - events / n) * (1 / m + 1 / (n - m))
        p[group] = math.erfc(abs(k / m - (events - k) / (n - m)) / math.sqrt(2 * variance))
    return dict.fromkeys(p, next(iter(p.values()))) if len(p) == 2 else holm(p)


if __name__ == "__main__":
    sys.exit(main())
