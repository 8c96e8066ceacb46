"""How many questions about images are answered rightly without looking at one? The figures of a question set's card.

    python benchmarks/blind_answers.py --manifest $MMFM_DATA/vqa_rad/manifest.jsonl --split val --train-split train

Prints, as a Markdown table, the scores of the two image-blind controls of `mmfm evaluate-answers`, each with n and
its 95 % interval over images (none where the questions are about fewer than ten).
"""

from __future__ import annotations

import argparse

import numpy as np

from mmfm.data.manifest import read_manifest
from mmfm.evaluation.questions import score_questions
from mmfm.evaluation.scorecard import Estimate


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, help="manifest.jsonl of studies with questions")
    parser.add_argument("--split", default="val")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    arguments = parser.parse_args()
    manifest = read_manifest(arguments.manifest)
    rows, train_rows = manifest.split(arguments.split), manifest.split(arguments.train_split)
    card = score_questions([], rows, train_rows, np.random.default_rng(arguments.seed))
    print("| | questions |" + "".join(f" {name.replace('_', ' ')} |" for name in card.controls))
    print("|---" * (2 + len(card.controls)) + "|")
    for name in card.metrics:
        scores = [control[name] for control in card.controls.values()]
        print(f"| {name} | {scores[0].n} |" + "".join(f" {words(score)} |" for score in scores))


def words(estimate: Estimate) -> str:
    if estimate.low is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


if __name__ == "__main__":
    main()
