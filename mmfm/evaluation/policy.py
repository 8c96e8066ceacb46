"""The metric's policy as data: everything that decides a number, recorded in each score card and hashed."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from importlib.resources.abc import Traversable
from typing import Any

from mmfm import __version__
from mmfm.evaluation.calibration import FOLDS
from mmfm.evaluation.clinical import FIVE, OPENI_LABELS
from mmfm.evaluation.conformal import ALPHA, SPLITS
from mmfm.evaluation.controls import MAX_CANDIDATES
from mmfm.evaluation.intervals import LEVEL, MIN_PATIENTS, ROUNDS
from mmfm.evaluation.leaks import LEAK_RULES
from mmfm.evaluation.probabilities import ECE_BINS, MACRO_LABELS, MIN_POSITIVES
from mmfm.evaluation.scorecard import HEADLINE, LOWER_IS_BETTER, Provenance
from mmfm.evaluation.subgroups import ALPHA as FLAG_ALPHA
from mmfm.evaluation.wording import NORMALISATION, POLICY
from mmfm.files import sha256_of
from mmfm.text import OBSERVATIONS

ABNORMAL = "abnormal studies"
UNSEEN = "text not in train, nor nearly"
UNSEEN_IMAGE = "images not in train, nor nearly"


def policy(
    wording_sections: Sequence[str],
    provenance: Provenance,
    external_versions: Mapping[str, str],
    thresholds: Mapping[str, float],
) -> dict[str, Any]:
    """Returns the policy of a card as JSON values."""
    return {
        "references": "the whole report, sentences that compare with a prior included",
        "drafts": "a study without a draft, or with an empty one, is scored as saying nothing, with P(present) 0",
        "wording": {
            "sections": list(wording_sections),
            "normalisation": NORMALISATION,
            **POLICY,
            "studies": "those whose reference has such text",
        },
        "findings": {
            "sections": ["findings", "impression"],
            "labeller": "mmfm.text",
            "labeller_sha256": _code_sha256(resources.files("mmfm.text")),
            "finding_*": {"reference": "the labelled reference text", "observations": list(OBSERVATIONS)},
            "label_*": {
                "reference": "labels of the references, null and uncertain left out",
                "observations": list(OPENI_LABELS),
            },
            "positive": "present",
            "uncertain": "not positive",
            "not_mentioned": "not positive",
            "no_finding": "derived, not counted",
            "micro": "over all observations",
            "macro": "mean F1 over the observations with at least one positive reference",
            "example": "mean F1 over the studies in which draft or reference names a finding",
            "*_5": list(FIVE),
            "wrong_*_rate": "of findings present in both texts, with left or right, a place, a severity in each",
        },
        "probabilities": {
            "reference": "labels of the references, null and uncertain left out",
            "unstated": "an observation that other drafts of the set state and this one does not counts as 0",
            "min_positives_and_negatives": MIN_POSITIVES,
            "macro": list(MACRO_LABELS),
            "auroc_mean": "over all labels that a set of drafts states and that are scored; not compared",
            "brier_skill": "against the base rate of the studies scored",
            "thresholds": dict(thresholds),
            "ece": f"at most {ECE_BINS} bins of equal mass",
            "calibration": f"cross-fitted over patients, {FOLDS} folds; scored out of fold",
            "conformal": f"split by patient into halves, {SPLITS} times, alpha {ALPHA}",
        },
        "subgroups": {"intervals": "Wilson, patients as clusters", "alpha": FLAG_ALPHA, "adjusted": "Holm over groups"},
        "controls": {
            "constant_report": "the training report with the highest mean ROUGE-L, of the wording sections, to others; "
            f"of more than {MAX_CANDIDATES} as many at equal distances",
        },
        "intervals": f"percentile bootstrap over patients, {ROUNDS} rounds, {LEVEL:.0%}; differences paired; "
        f"of a share of one label at 0 or 1 Wilson's; none of fewer than {MIN_PATIENTS} patients",
        "comparison": {
            "scores": list(HEADLINE),
            "lower_is_better": sorted(LOWER_IS_BETTER),
            "better": "interval of the difference on the better side of 0, and its p by Holm over these scores below "
            f"{1 - LEVEL:.2f}",
        },
        "subsets": {
            ABNORMAL: "label normal absent, or, without that label, a finding present in the labelled reference",
            UNSEEN: "of studies with text; see leaks",
            UNSEEN_IMAGE: "where there are such; see leaks",
        },
        "leaks": LEAK_RULES,
        "scorer_sha256": _code_sha256(resources.files("mmfm.evaluation")),
        "versions": {
            "mmfm": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scikit-learn", "nltk")},
            **external_versions,
        },
        "inputs": {
            "references_sha256": provenance.references_sha256,
            "predictions_sha256": provenance.predictions_sha256,
            "checkpoint_sha256": provenance.checkpoint_sha256,
            "commit": provenance.commit,
        },
    }


def policy_sha256(policy: dict[str, Any]) -> str:
    """Returns the SHA-256 of a policy as compact JSON with sorted keys."""
    return hashlib.sha256(json.dumps(policy, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _code_sha256(package: Traversable) -> str:
    """Of all code and words of a package, which decide its labels or scores."""
    files, folders = [], [package]
    while folders:
        for item in folders.pop().iterdir():
            if item.is_dir():
                folders.append(item)
            elif item.name.endswith((".py", ".toml")):
                files.append(item)
    return sha256_of(files)
