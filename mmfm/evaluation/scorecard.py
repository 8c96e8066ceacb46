"""The score card: every score of a set of drafts with its interval, beside its controls, under a stated policy.

The nouns alone, and their way to JSON and back; ``scoring.score_card`` fills a card in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfm.errors import ManifestError
from mmfm.evaluation.calibration import Calibration
from mmfm.evaluation.conformal import Conformal
from mmfm.evaluation.curves import Curves
from mmfm.evaluation.intervals import Estimate
from mmfm.evaluation.leaks import LeakCounts
from mmfm.evaluation.resampling import Difference
from mmfm.evaluation.resources import Resources
from mmfm.evaluation.robustness import Robustness
from mmfm.evaluation.subgroups import Grouping
from mmfm.files import write_whole
from mmfm.jsonable import from_json, to_json

HEADLINE = (
    "auroc_macro",
    "finding_f1_micro",
    "finding_f1_macro",
    "label_f1_micro",
    "error_rate",
    "bleu_4",
    "meteor_exact_stem",
    "rouge_l",
    "cider_d",
)
"""The scores that are compared with each control: one family of Holm's correction."""

LOWER_IS_BETTER = frozenset({"error_rate"})

TITLES = {
    "auroc_macro": "macro AUROC",
    "finding_f1_micro": "finding F1, micro",
    "finding_f1_macro": "finding F1, macro",
    "label_f1_micro": "label F1, micro",
    "error_rate": "clinical errors a report",
    "bleu_4": "BLEU-4",
    "meteor_exact_stem": "METEOR (exact, stem)",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
}
"""Names of ``HEADLINE`` as people write them."""

MORE_TITLES = {
    "finding_f1_example": "finding F1, example",
    "finding_f1_micro_5": "finding F1, micro of 5",
    "finding_f1_macro_5": "finding F1, macro of 5",
    "finding_precision_micro": "finding precision, micro",
    "finding_recall_micro": "finding recall, micro",
    "label_precision_micro": "label precision, micro",
    "label_recall_micro": "label recall, micro",
    "label_f1_macro": "label F1, macro",
    "label_f1_micro_5": "label F1, micro of 5",
    "wrong_side_rate": "findings on the wrong side",
    "wrong_place_rate": "findings at the wrong place",
    "wrong_severity_rate": "findings of the wrong severity",
    "reports_with_error": "reports with a clinical error",
    "auroc_mean": "mean AUROC of its labels",
    "auprc_macro": "macro AUPRC",
    "brier_skill_macro": "macro Brier skill",
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "rouge_l_rouge_score": "ROUGE-L (rouge-score)",
}
"""Names of the other scores of the whole."""

NOT_STATED = "not stated"


def plain(name: str) -> str:
    """Returns a name of the vocabulary, a score or a control as words."""
    return name.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the drafts come from: what the leaderboard prints, and what pins the card to its inputs."""

    experiment: str
    """Name of the experiment file, or of the system that drafted."""
    data: str
    """Source and split scored, such as ``iu_xray val``."""
    date: str
    """Of the scoring, YYYY-MM-DD."""
    hardware: str = NOT_STATED
    """That the model was trained on."""
    time: str = NOT_STATED
    """That the training took."""
    commit: str = NOT_STATED
    references_sha256: str = NOT_STATED
    """Of the manifest, or of the file of references."""
    predictions_sha256: str = NOT_STATED
    """Of the file of drafts, where they came as one."""
    checkpoint_sha256: str = NOT_STATED


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of some of the studies."""

    n: int
    metrics: dict[str, Estimate]
    controls: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Difference]]
    """Control to score of ``HEADLINE`` to difference; not for the reference text, which is a ceiling."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many were scored of how many: nothing is dropped in silence."""

    studies: int
    """References, each scored."""
    patients: int
    patients_stated: bool
    """False where references do not state their patient: such a study stands for its own."""
    drafted: int
    """Studies with drafted text."""
    empty: int
    """Studies whose draft has no text; they are scored as saying nothing."""
    missing: int
    """Studies without any draft; they are scored as saying nothing too."""
    without_findings: int
    """References without the sections that wording metrics compare; these leave them out."""
    without_text: int
    """References with neither findings nor impression."""

    def lines(self) -> list[str]:
        """Returns what a reader has to know, one line each."""
        lines = [f"{self.studies} of {self.studies} studies scored, {self.drafted} of them with drafted text"]
        said = {
            f"{self.missing} studies have no draft: scored as saying nothing": self.missing,
            f"{self.empty} drafts have no text: scored as saying nothing": self.empty,
            f"{self.without_findings} references lack the sections that wording metrics compare: left out there": (
                self.without_findings
            ),
            f"{self.without_text} references have neither findings nor impression": self.without_text,
            "patients are not all stated: such a study counts as a patient of its own, intervals may be too narrow": (
                not self.patients_stated
            ),
        }
        return [*lines, *(line for line, holds in said.items() if holds)]


@dataclass(frozen=True, kw_only=True)
class Scorecard(Scores):
    """The scores of all studies, and of the two parts that templates help least."""

    provenance: Provenance
    policy: dict[str, Any]
    """Everything that decides the numbers."""
    policy_sha256: str
    """Of ``policy`` as compact JSON with sorted keys."""
    coverage: Coverage
    subsets: dict[str, Scores]
    controls_not_run: dict[str, str]
    """Control to what is missing."""
    not_scored: dict[str, str]
    """What else the card cannot show, and why."""
    notes: tuple[str, ...] = ()
    """What else a reader has to know, one line each."""
    subgroups: tuple[Grouping, ...] = ()
    calibration: tuple[Calibration, ...] = ()
    conformal: tuple[Conformal, ...] = ()
    curves: Curves | None = None
    """Of the finding probabilities, where there are any."""
    leaks: LeakCounts | None = None
    """None without training studies."""
    robustness: tuple[Robustness, ...] = ()
    resources: Resources | None = None
    """None where the drafts came as a file."""

    def to_know(self) -> list[str]:
        """Returns what a reader has to know before any score: how many were scored of how many, and the notes."""
        return [*self.coverage.lines(), *self.notes]

    def verdicts(self) -> list[str]:
        """Returns in words what the drafts are shown to be better than, one line a score."""
        lines = []
        for metric in dict.fromkeys(metric for each in self.differences.values() for metric in each):
            better = {name: each[metric].better for name, each in self.differences.items() if metric in each}
            words = [
                f"{phrase} than {', '.join(plain(name) for name, is_better in better.items() if is_better == wanted)}"
                for wanted, phrase in ((True, "better"), (False, "not shown to be better"))
                if wanted in better.values()
            ]
            lines.append(f"{TITLES.get(metric, plain(metric))}: {'; '.join(words)}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Returns the card as JSON values."""
        return to_json(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Scorecard:
        """Returns the card of ``to_json``."""
        return from_json(cls, value)

    def write(self, path: str | Path) -> None:
        """Writes the card as JSON; the file appears whole or not at all."""
        write_whole(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Scorecard:
        """Returns the card of a file.

        Raises:
            ManifestError: the file is absent or holds no score card.
        """
        path = Path(path)
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            found = " ".join((getattr(error, "strerror", None) or str(error)).split())
            fix = "score the drafts again"
            raise ManifestError(path.name, expected="a score card", found=found, fix=fix) from None
