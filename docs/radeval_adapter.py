"""Scores drafts by RadEval 2.2.1, in the environment of RadEval; the contract is in external_metrics.md beside it.

    python radeval_adapter.py [--metrics radgraph,f1chexbert,radcliq,ratescore,green] DRAFTS REFERENCES SCORES

Needs nothing of mmfm, so that this file can be copied alone. A metric that fails is named in the header as not run,
with the kind of its error; its message goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import traceback
from importlib.metadata import version
from pathlib import Path

from radeval import RadEval

METRICS = ("radgraph", "f1chexbert", "radcliq", "ratescore", "green")
FAMILY = {"f1chexbert": "chexbert"}
LOWER_IS_BETTER = ("radcliq_v1",)  # of a single pair; RadEval's own mean is inverted


def main() -> None:
    """Reads both files, runs one metric after the other, and writes the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", default=",".join(METRICS[:-1]), help="comma-separated; green needs a large GPU")
    parser.add_argument("drafts", type=Path)
    parser.add_argument("references", type=Path)
    parser.add_argument("scores", type=Path)
    arguments = parser.parse_args()
    drafts, references = read(arguments.drafts), read(arguments.references)
    scores = arguments.scores.resolve()
    os.chdir(scores.parent)  # GREEN writes its explanations, which quote reports, into the working folder
    columns: dict[str, list] = {}
    not_run: dict[str, str] = {}
    for name in arguments.metrics.split(","):
        try:
            computed = compute(name, hyps=list(drafts.values()), refs=[references[study] for study in drafts])
            if {len(column) for column in computed.values()} != {len(drafts)}:
                raise ValueError(f"{name}: expected a value for each of {len(drafts)} studies")
            columns |= computed
        except Exception as error:  # weights that cannot be had must not cost the other metrics
            traceback.print_exc()
            not_run[FAMILY.get(name, name)] = f"RadEval raised {type(error).__name__}"
    header = {
        "metrics": {name: "lower" if name in LOWER_IS_BETTER else "higher" for name in columns},
        "versions": {name: version(name) for name in ("radeval", "torch", "transformers")},
        "not_run": not_run,
    }
    lines = [header]
    for i, study in enumerate(drafts):
        lines.append({"study_uid": study} | {name: column[i] for name, column in columns.items()})
    scores.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read(path: Path) -> dict[str, str]:
    """Returns the text of each study: findings, then impression; a full stop where there is none."""
    texts = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            study = json.loads(line)
            sections = [" ".join((study[name] or "").split()) for name in ("findings", "impression")]
            # an empty text is one that several metrics cannot take
            texts[study["study_uid"]] = " ".join(filter(None, sections)) or "."
    return texts


def compute(name: str, *, hyps: list[str], refs: list[str]) -> dict[str, list]:
    """Returns the values of each study by the names of the scores."""
    evaluator = RadEval(metrics=[name], per_sample=True, show_progress=False)
    if name == "f1chexbert":  # RadEval gives its accuracy for each study, and F1 only for all: counts give both
        scorer = evaluator.f1chexbert_scorer
        drafted, stated = scorer.get_labels(hyps), scorer.get_labels(refs)
        return {
            "chexbert_14_f1": [counts(a, b, range(len(b))) for a, b in zip(drafted, stated, strict=True)],
            "chexbert_5_f1": [counts(a, b, scorer.top5_idx) for a, b in zip(drafted, stated, strict=True)],
        }
    values = evaluator(refs=refs, hyps=hyps)
    return {key: [None if value is None else float(value) for value in column] for key, column in values.items()}


def counts(drafted: list[int], stated: list[int], labels: range | list[int]) -> dict[str, int]:
    """Returns the true positives, false positives and false negatives among these labels."""
    pairs = [(drafted[i], stated[i]) for i in labels]
    return {"tp": pairs.count((1, 1)), "fp": pairs.count((1, 0)), "fn": pairs.count((0, 1))}


if __name__ == "__main__":
    main()
