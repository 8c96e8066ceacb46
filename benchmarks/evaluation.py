"""How long an evaluation takes: all scores of 3,858 pairs of reports with 1,000 bootstrap rounds, and its memory.

    python benchmarks/evaluation.py --source DIR [--pairs 3858] [--runs 3]

DIR holds ``iu_xray/reports.csv``. 3,858 is the number of studies in R2Gen's MIMIC-CXR test file. As these are not at
hand, references are made of sentences of IU X-Ray drawn at random (so that few texts are alike), drafts in the same
way, with labels and probabilities of 14 observations. Timed is the whole command, ``mmfm evaluate --predictions
--references``, page included; beside it what a part of it costs elsewhere: the wording scores alone by pycocoevalcap,
rouge-score and nltk, without any interval, where these are installed; and the floor, reading the two files.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmfm.evaluation.clinical import OPENI_LABELS
from mmfm.evaluation.wording import normalise
from mmfm.text import split_sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with iu_xray/")
    parser.add_argument("--pairs", type=int, default=3858)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="only score the wording of the pairs in a folder")
    arguments = parser.parse_args()
    if arguments.peer:
        peer(arguments.source)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = write_pairs(arguments.source / "iu_xray" / "reports.csv", arguments.pairs, folder)
        command = ["-c", "from mmfm.cli import main; main()", "evaluate", "--out", str(folder / "out")]
        command += ["--predictions", str(folder / "predictions.jsonl")]
        command += ["--references", str(folder / "references.jsonl")]
        ours = [timed(command) for _ in range(arguments.runs)]
        peers = [timed([__file__, "--source", str(folder), "--peer"]) for _ in range(arguments.runs)]
        began = time.perf_counter()
        for file in ("predictions.jsonl", "references.jsonl"):
            [json.loads(line) for line in (folder / file).read_text().splitlines()]
        floor = time.perf_counter() - began
    print(f"{arguments.pairs} pairs, {words:.0f} words a report; {os.cpu_count()} cores; median of {arguments.runs}\n")
    print("| what | seconds | peak memory |\n|---|---|---|")
    print(f"| `mmfm evaluate`: every score, 1,000 rounds, card and page | {row(ours)} |")
    print(f"| wording alone by the reference packages, no interval | {row(peers)} |")
    print(f"| floor: reading the files | {floor:.2f} | |")


def write_pairs(reports: Path, pairs: int, folder: Path) -> float:
    """Writes predictions.jsonl and references.jsonl, and returns the mean number of words of a report."""
    rng = random.Random(0)
    with reports.open(encoding="utf-8", newline="") as file:
        texts = [row for row in csv.DictReader(file) if row["findings"] and row["impression"]]
    sentences = [sentence for row in texts for sentence in split_sentences(row["findings"])]

    def report() -> dict[str, str]:
        lengths = len(split_sentences(rng.choice(texts)["findings"]))
        return {"findings": " ".join(rng.sample(sentences, lengths)), "impression": rng.choice(texts)["impression"]}

    words = 0
    with (folder / "predictions.jsonl").open("w") as drafts, (folder / "references.jsonl").open("w") as references:
        for i in range(pairs):
            written, drafted = report(), report()
            words += len(" ".join(written.values()).split())
            labels = {name: "present" if rng.random() < 0.2 else "absent" for name in OPENI_LABELS}
            probabilities = {name: rng.random() * (1 if state == "present" else 0.6) for name, state in labels.items()}
            known = {"patient_id": f"p{i // 2}", "sex": rng.choice("MF"), "age": rng.randrange(20, 90)}
            json.dump({"study_uid": f"s{i}", **drafted, "finding_probabilities": probabilities}, drafts)
            json.dump({"study_uid": f"s{i}", **written, "labels": labels, **known}, references)
            drafts.write("\n")
            references.write("\n")
    return words / pairs


def timed(command: list[str]) -> tuple[float, float, str]:
    """Seconds and peak gigabytes of a Python command, and what it printed."""
    before = time.perf_counter()
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "print(done.stdout, done.stderr[-2000:]); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, *command], capture_output=True, text=True, check=True
    )
    *said, kilobytes = (line.strip() for line in done.stdout.splitlines() if line.strip())
    if not said:
        raise SystemExit("the command said nothing")
    return time.perf_counter() - before, int(kilobytes) / 1e6, said[-1]


def row(runs: list[tuple[float, float, str]]) -> str:
    seconds = [each[0] for each in runs]
    if runs[0][2].startswith("not installed"):
        return f"{runs[0][2]} | "
    spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
    return f"{spread} | {max(each[1] for each in runs):.2f} GB"


def peer(folder: Path) -> None:
    """Scores BLEU, CIDEr-D, ROUGE-L twice and METEOR by the packages that define them."""
    try:
        from nltk.translate.meteor_score import single_meteor_score
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        print(f"not installed: {error.name}")
        return

    class NoWordNet:
        def synsets(self, word: str) -> list[str]:
            return []

    texts = [
        [normalise(json.loads(line)["findings"]) for line in (folder / name).read_text().splitlines()]
        for name in ("predictions.jsonl", "references.jsonl")
    ]
    drafts, references = ({i: [text] for i, text in enumerate(each)} for each in texts)
    for scorer in (Bleu(4), Cider(), Rouge()):
        scorer.compute_score(references, drafts, **({"verbose": 0} if isinstance(scorer, Bleu) else {}))
    scorer = RougeScorer(["rougeL"])
    for draft, reference in zip(*texts, strict=True):
        scorer.score(reference, draft)
        single_meteor_score(reference.split(), draft.split(), wordnet=NoWordNet())  # type: ignore[arg-type]
    print("scored")


if __name__ == "__main__":
    main()
