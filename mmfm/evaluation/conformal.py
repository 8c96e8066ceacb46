"""Split conformal sets of one finding: {present}, {absent}, both, or none, and how often the truth is in them.

    table = conformal_scores(probabilities, patients=patients, generator=np.random.default_rng(0))

The patients are split in two halves at random, over and over. The limit is the ceil((n + 1) (1 - alpha))-th smallest
1 - P(truth) of the n studies of one half; on the other half a set holds each of present and absent whose 1 - P is
within it, and covers where it holds the truth, which it does in 1 - alpha of the studies (Vovk, Gammerman and Shafer,
Algorithmic Learning in a Random World, 2005; Angelopoulos and Bates, Found Trends Mach Learn 2023). ``marginal`` has
one limit, and covers 1 - alpha of all studies, of which a rare finding is a small part: it can miss most of the
positive ones. ``by_class`` has one limit for present and one for absent, and covers 1 - alpha of each (Mondrian: Vovk,
ACML 2012; Sadinle, Lei and Wasserman, JASA 2019). One split alone says little: its coverage is random.

With fewer than 1 / alpha - 1 positive studies in a half there is no limit, and every set holds present.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfm.evaluation.probabilities import Probabilities

ALPHA = 0.1
SPLITS = 100


@dataclass(frozen=True, kw_only=True)
class Conformal:
    """The sets of one label: means over the splits, and standard deviations between them."""

    label: str
    variant: str
    """``marginal`` or ``by_class``."""
    alpha: float
    splits: int
    n: int
    """Studies with the label; about half of them are scored in each split."""
    positives: int
    coverage: float
    """Share of the studies whose set holds the truth: 1 - ``alpha`` is wanted."""
    coverage_sd: float
    coverage_positives: float
    """The same among the positive studies."""
    coverage_positives_sd: float
    set_size: float
    """Findings in a set, 0 to 2."""
    only_present: float
    """Share of the sets, as are the next three."""
    only_absent: float
    both: float
    neither: float


def conformal_scores(
    probabilities: Probabilities,
    *,
    patients: Sequence[str],
    generator: np.random.Generator,
    alpha: float = ALPHA,
    splits: int = SPLITS,
) -> tuple[Conformal, ...]:
    """Returns for each label that qualifies its ``marginal`` and its ``by_class`` sets, on the same splits.

    Args:
        probabilities: of N studies.
        patients: whose study each is; those of one patient are in one half.
        generator: draws the splits.
        alpha: share of the truths that may be outside.
        splits: how many.
    """
    _, patient_N = np.unique(patients, return_inverse=True)
    count = patient_N.max(initial=-1) + 1
    halves = generator.permuted(np.tile(np.arange(count) < count / 2, (splits, 1)), axis=1)
    fitted_SN = halves[:, patient_N]
    rows = []
    for label, column in probabilities.qualifying():
        predicted, truth, known_N = probabilities.known(column)
        for variant, limits in (("marginal", _one_limit), ("by_class", _two_limits)):
            present_limit_S, absent_limit_S = limits(predicted, truth, fitted_SN[:, known_N], alpha)
            present_SN = 1 - predicted <= present_limit_S[:, None]
            absent_SN = predicted <= absent_limit_S[:, None]
            scored = _scored(present_SN, absent_SN, truth == 1, ~fitted_SN[:, known_N])
            n, positives = len(truth), int(truth.sum())
            rows.append(
                Conformal(label=label, variant=variant, alpha=alpha, splits=splits, n=n, positives=positives, **scored)
            )
    return tuple(rows)


def _one_limit(
    predicted_N: np.ndarray, truth_N: np.ndarray, fitted_SN: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    limit_S = conformal_limits(np.where(truth_N == 1, 1 - predicted_N, predicted_N), fitted_SN, alpha)
    return limit_S, limit_S


def _two_limits(
    predicted_N: np.ndarray, truth_N: np.ndarray, fitted_SN: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    positive_N = truth_N == 1
    return (
        conformal_limits(1 - predicted_N[positive_N], fitted_SN[:, positive_N], alpha),
        conformal_limits(predicted_N[~positive_N], fitted_SN[:, ~positive_N], alpha),
    )


def conformal_limits(scores_N: np.ndarray, fitted_SN: np.ndarray, alpha: float) -> np.ndarray:
    """Returns of each split the ceil((n + 1) (1 - alpha))-th smallest of the n scores in it, inf where n is less."""
    order = np.argsort(scores_N, kind="stable")
    rank_SN = np.cumsum(fitted_SN[:, order], axis=1, dtype=np.int32)
    n_S = rank_SN[:, -1]
    wanted_S = np.ceil((n_S + 1) * (1 - alpha) - 1e-9)  # 0.9 * 10 is no more than 9
    found_S = np.minimum((rank_SN < wanted_S[:, None]).sum(axis=1), len(order) - 1)
    return np.where(wanted_S > n_S, np.inf, scores_N[order][found_S])


def _scored(
    present_SN: np.ndarray, absent_SN: np.ndarray, positive_N: np.ndarray, scored_SN: np.ndarray
) -> dict[str, Any]:
    def share(of_SN: np.ndarray, among_SN: np.ndarray) -> np.ndarray:
        counts = among_SN.sum(axis=1)
        return (of_SN & among_SN).sum(axis=1)[counts > 0] / counts[counts > 0]  # a half may hold no positive study

    covered = share(np.where(positive_N, present_SN, absent_SN), scored_SN)
    covered_positives = share(present_SN, scored_SN & positive_N)
    sets = {
        "only_present": present_SN & ~absent_SN,
        "only_absent": absent_SN & ~present_SN,
        "both": present_SN & absent_SN,
        "neither": ~present_SN & ~absent_SN,
    }
    return {
        "coverage": float(covered.mean()),
        "coverage_sd": float(covered.std(ddof=1)),
        "coverage_positives": float(covered_positives.mean()),
        "coverage_positives_sd": float(covered_positives.std(ddof=1)),
        "set_size": float((share(present_SN, scored_SN) + share(absent_SN, scored_SN)).mean()),
        **{name: float(share(of_SN, scored_SN).mean()) for name, of_SN in sets.items()},
    }
