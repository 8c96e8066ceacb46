"""Two systems on the same studies: their difference, and whether it is more than chance.

Which of two systems a draft came from is exchanged at random, patient by patient, and the difference of the scores is
taken again: how often it is as large as the one found is p, two-sided (approximate randomisation; Noreen, 1989; for
texts Yeh, COLING 2000). Probabilities are exchanged as ranks within their system, so that two scales do not blur AUROC
(Bandos, Rockette and Gur, Stat Med 2005). p is adjusted over the compared scores by Holm. The interval of the
difference is from the paired bootstrap over patients, as in a card.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmfm.errors import ManifestError
from mmfm.evaluation.intervals import LEVEL, ROUNDS, Estimate, holm, patient_resamples
from mmfm.evaluation.per_study import Compared
from mmfm.evaluation.predictions import Prediction, in_order
from mmfm.evaluation.probabilities import Probabilities
from mmfm.evaluation.resampling import Statistics
from mmfm.evaluation.results import CARD, Results
from mmfm.evaluation.scorecard import HEADLINE, LOWER_IS_BETTER
from mmfm.files import write_whole
from mmfm.jsonable import to_json

S = TypeVar("S", bound=Statistics)


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """One score of both systems, and A minus B."""

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    """Two-sided, of the paired randomisation, adjusted over the scores compared."""
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two systems on the same studies."""

    a: str
    b: str
    studies: int
    patients: int
    rounds: int
    metrics: dict[str, PairedDifference]
    not_compared: tuple[str, ...]
    """Scores that only one of the two has."""

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison as JSON values."""
        return to_json(self)

    def to_text(self) -> str:
        """Returns a table in plain text, one line a score."""
        lines = [
            f"A = {self.a}, B = {self.b}; {self.studies} studies of {self.patients} patients; A - B with its 95 % "
            f"interval (paired bootstrap), p of {self.rounds} paired randomisations, by Holm over {len(self.metrics)} "
            "scores",
            f"{'':18} {'A':>7} {'B':>7} {'A - B':>27} {'p':>7}",
        ]
        for name, each in self.metrics.items():
            interval = f"{_shown(each.difference)} ({_shown(each.low)} to {_shown(each.high)})"
            row = f"{name:18} {_shown(each.a):>7} {_shown(each.b):>7} {interval:>27} {_shown(each.p_holm):>7}"
            lines.append(f"{row}  {each.verdict}")
        if self.not_compared:
            lines.append(f"not compared, one of the two has none: {', '.join(self.not_compared)}")
        return "\n".join(lines)


def compare(
    folder_a: str | Path, folder_b: str | Path, *, generator: np.random.Generator, rounds: int = ROUNDS
) -> Comparison:
    """Compares the drafts of two result folders, scored again by the same code.

    Args:
        folder_a: what ``mmfm evaluate`` wrote of system A.
        folder_b: the same of B.
        generator: draws the exchanges and the bootstrap.
        rounds: of each.

    Raises:
        ManifestError: a folder is incomplete, or the two were not scored against the same references.
    """
    a, b = Results.read(folder_a), Results.read(folder_b)
    references = {reference.study_uid: reference for reference in a.references}
    if references != {reference.study_uid: reference for reference in b.references}:
        raise ManifestError(
            "the two folders",
            expected="drafts scored against the same references",
            found="other studies, or other references",
            fix="score both systems on the same split",
        )
    sections, others = (_sections(each) for each in (a, b))
    if sections != others:
        raise ManifestError(
            "the two folders",
            expected="cards whose wording metrics compare the same sections",
            found=f"{' and '.join(sections)} against {' and '.join(others)}",
            fix="score both with the same --sections",
        )
    compared = Compared.of(a.references, sections=sections)
    drafts_a, drafts_b = in_order(a.predictions, a.references), in_order(b.predictions, a.references)
    labels = _labels(drafts_a) & _labels(drafts_b)
    of_a, of_b = (compared.statistics(_of_labels(drafts, labels)) for drafts in (drafts_a, drafts_b))
    patients = [reference.patient for reference in a.references]
    swapped_RN = _swaps(patients, generator, rounds)
    resamples_RN = patient_resamples(patients, generator=generator, rounds=rounds)
    found: dict[str, dict[str, Any]] = {}
    for one in of_a:
        other = next((each for each in of_b if _same_kind(one, each)), None)
        if other is not None:
            found |= _paired(one, other, swapped_RN, resamples_RN)
    metrics = [name for name in HEADLINE if name in found]
    once = np.ones((1, len(patients)))
    scored = {name for each in (*of_a, *of_b) for name in each.scores(once)}
    adjusted = holm({name: found[name].pop("p") for name in metrics})
    return Comparison(
        a=_name(a, folder_a),
        b=_name(b, folder_b),
        studies=len(a.references),
        patients=len(set(patients)),
        rounds=rounds,
        metrics={
            name: PairedDifference(
                **found[name], p_holm=_rounded(adjusted[name]), verdict=_verdict(name, found[name], adjusted[name])
            )
            for name in metrics
        },
        not_compared=tuple(name for name in HEADLINE if name in scored and name not in found),
    )


def write_comparison(comparison: Comparison, path: str | Path) -> None:
    """Writes the comparison as JSON, whole or not at all."""
    write_whole(path, json.dumps(comparison.to_json(), indent=1, allow_nan=False) + "\n")


def _paired(one: S, other: S, swapped_RN: np.ndarray, resamples_RN: np.ndarray) -> dict[str, dict[str, Any]]:
    """The headline scores of both, the interval of their difference, and its p before Holm."""
    n = swapped_RN.shape[1]
    both = _joined(_in_ranks(one), _in_ranks(other))
    once = np.ones((1, n))
    a, b = one.scores(once), other.scores(once)
    drawn_a, drawn_b = one.scores(resamples_RN), other.scores(resamples_RN)
    mixed = both.scores(np.hstack([1 - swapped_RN, swapped_RN]))
    rest = both.scores(np.hstack([swapped_RN, 1 - swapped_RN]))
    found = {}
    for name in HEADLINE:
        if name not in a or name not in b:
            continue
        difference = float(a[name][0] - b[name][0])
        interval = Estimate.of(difference, drawn_a[name] - drawn_b[name], n=n)
        chance_R = np.abs(mixed[name] - rest[name])
        # one is added above and below, so that p is never 0; rounding must not hide a tie
        p = (1 + (chance_R >= abs(difference) - 1e-12).sum()) / (1 + len(chance_R))
        found[name] = {
            "a": _rounded(a[name][0]),
            "b": _rounded(b[name][0]),
            "difference": interval.value,
            "low": interval.low,
            "high": interval.high,
            "p": float(p) if not np.isnan(difference) else float("nan"),
        }
    return found


def _labels(drafts: Sequence[Prediction | None]) -> set[str]:
    return {name for draft in drafts if draft for name in draft.finding_probabilities or ()}


def _of_labels(drafts: Sequence[Prediction | None], labels: Collection[str]) -> list[Prediction | None]:
    """The drafts with the probabilities that both systems state; as they are where there are none of these."""
    if not labels:
        return list(drafts)
    return [
        draft and replace(draft, finding_probabilities={n: v for n, v in stated.items() if n in labels} or None)
        for draft, stated in ((draft, (draft.finding_probabilities if draft else None) or {}) for draft in drafts)
    ]


def _in_ranks(statistics: S) -> S:
    """Probabilities as ranks over the studies, which AUROC, the one score of them compared here, depends on alone."""
    if not isinstance(statistics, Probabilities):
        return statistics
    from scipy.stats import rankdata

    ranks_NL = rankdata(statistics.predicted_NL, axis=0)
    return replace(statistics, predicted_NL=ranks_NL / len(ranks_NL))


def _joined(one: S, other: S) -> S:
    """The statistics of both systems, one behind the other: arrays have the studies in their first dimension."""
    values = {}
    for each in fields(one):  # type: ignore[arg-type]
        mine, theirs = getattr(one, each.name), getattr(other, each.name)
        values[each.name] = np.concatenate([mine, theirs]) if isinstance(mine, np.ndarray) else mine
    return type(one)(**values)


def _same_kind(one: Statistics, other: Statistics) -> bool:
    """Whether both are of one kind and of the same observations, so that they can stand behind each other."""
    if type(one) is not type(other):
        return False
    names = [f.name for f in fields(one) if not isinstance(getattr(one, f.name), np.ndarray)]  # type: ignore[arg-type]
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _swaps(patients: Sequence[str], generator: np.random.Generator, rounds: int) -> np.ndarray:
    """(R, N) 1 where the drafts of A and B are exchanged: a patient's studies together."""
    _, index_N = np.unique(np.asarray(patients), return_inverse=True)
    return generator.integers(0, 2, size=(rounds, index_N.max() + 1))[:, index_N].astype(float)


def _verdict(name: str, found: dict[str, Any], p: float) -> str:
    if np.isnan(p) or p >= 1 - LEVEL or not (found["low"] or 0) * (found["high"] or 0) > 0:
        return "no difference shown"
    higher = found["difference"] > 0
    return "A is better" if higher != (name in LOWER_IS_BETTER) else "B is better"


def _sections(results: Results) -> tuple[str, ...]:
    """The sections that the wording metrics of a card compare."""
    stated = results.card.policy.get("wording")
    sections = stated.get("sections") if isinstance(stated, dict) else None
    if not isinstance(sections, list) or not sections or not set(map(str, sections)) <= {"findings", "impression"}:
        expected = "a policy that states findings, impression or both under wording.sections"
        raise ManifestError(CARD, expected=expected, found="another", fix="score the drafts again")
    return tuple(sections)


def _name(results: Results, folder: str | Path) -> str:
    return f"{results.card.provenance.experiment} ({Path(folder).name})"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
