"""Drafts and references to a score card.

    card = score_card(
        predictions=drafts, references=val, train=train, controls={"shuffled_images": ...},
        generator=np.random.default_rng(0), provenance=provenance,
    )

Scores of each study are computed once and only resampled, with the same resamples for the drafts and every control.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfm.errors import ManifestError
from mmfm.evaluation.controls import CEILING, CONTROLS, constant_report, nearest_neighbour, reference_text
from mmfm.evaluation.intervals import LEVEL, bootstrap_p, holm, patient_resamples, percentile_interval
from mmfm.evaluation.per_study import FAMILIES, Compared, Statistics
from mmfm.evaluation.policy import ABNORMAL, UNSEEN, policy, policy_sha256
from mmfm.evaluation.predictions import Prediction, in_order
from mmfm.evaluation.references import Reference
from mmfm.evaluation.scorecard import (
    HEADLINE,
    LOWER_IS_BETTER,
    Coverage,
    Difference,
    Estimate,
    Provenance,
    Scorecard,
    Scores,
)
from mmfm.evaluation.wording import normalise

_NEEDS = {
    "constant_report": "no training reports were given",
    "shuffled_images": "needs the model, or its drafts from another patient's images",
    "mean_image": "needs the model, or its drafts from the mean training image",
    "text_only": "needs the model, or its drafts from the indication alone",
    "nearest_neighbour": "needs the images of both splits, and a frozen encoder",
    "heads_template": "needs the model's finding heads, or such drafts",
}
"""What is missing where a control was neither made nor handed in."""


def score_card(
    *,
    predictions: Sequence[Prediction],
    references: Sequence[Reference],
    train: Sequence[Reference],
    controls: Mapping[str, Sequence[Prediction]],
    generator: np.random.Generator,
    provenance: Provenance,
    features_NE: np.ndarray | None = None,
    train_features_NE: np.ndarray | None = None,
    wording_sections: Sequence[str] = ("findings",),
    families: Sequence[str] = FAMILIES,
    groupings: Sequence[str] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> Scorecard:
    """Scores drafts beside their controls.

    The reference text is always made here, the constant report where there are training reports, the nearest neighbour
    where features are given; a control of that name in ``controls`` takes its place. A control may have probabilities
    and no text, or the reverse: it is then compared on what it has.

    Args:
        predictions: the drafts, at most one for each of ``references``.
        references: the studies scored.
        train: the studies that the model was trained on; may be empty.
        controls: name to drafts made elsewhere; see ``CONTROLS`` for the usual names.
        generator: draws the bootstrap.
        provenance: stands in the card, and in its policy by the hashes.
        features_NE: frozen image features of ``references``.
        train_features_NE: those of ``train``.
        wording_sections: sections of the report that wording metrics compare.
        families: which of ``FAMILIES`` are scored.

    Raises:
        ManifestError: predictions do not fit the references, or a patient is scored and trained on.
    """
    _no_shared_patient(references, train)
    made = {CEILING: reference_text(references)}
    if train:
        made["constant_report"] = constant_report(references, train)
    if features_NE is not None and train_features_NE is not None:
        made["nearest_neighbour"] = nearest_neighbour(
            references, train, features_NE=features_NE, train_features_NE=train_features_NE
        )
    every = {**made, **controls}
    drafts = in_order(predictions, references)
    beside = {
        name: in_order(every[name], references, where=name) for name in sorted(every, key=[*CONTROLS, *controls].index)
    }
    compared = Compared.of(references, sections=wording_sections, families=families)
    statistics = compared.statistics(drafts)
    control_statistics = {name: compared.statistics(drafted) for name, drafted in beside.items()}

    seen = {_bare(reference.report.findings) for reference in train}
    parts = {
        "all": np.ones(len(references), dtype=bool),
        ABNORMAL: np.array([compared.is_abnormal(i) for i in range(len(references))], dtype=bool),
        UNSEEN: np.array([_bare(r.report.findings) not in seen | {""} for r in references], dtype=bool),
    }
    patients = np.array([reference.patient_id for reference in references])
    scored = {
        name: _scores(statistics, control_statistics, np.flatnonzero(part), patients, generator)
        for name, part in parts.items()
        if part.any()
    }
    stated = policy(wording_sections, provenance)
    return Scorecard(
        **vars(scored.pop("all")),
        coverage=_coverage(drafts, references, compared),
        subsets=scored,
        controls_not_run={name: _NEEDS[name] for name in CONTROLS if name not in beside},
        not_scored={},
        policy=stated,
        policy_sha256=policy_sha256(stated),
        provenance=provenance,
    )


def _scores(
    statistics: Sequence[Statistics],
    control_statistics: Mapping[str, Sequence[Statistics]],
    index: np.ndarray,
    patients: np.ndarray,
    generator: np.random.Generator,
) -> Scores:
    resamples_RN = patient_resamples(patients[index], generator=generator)
    own = _Resampled.of(statistics, index, resamples_RN)
    theirs = {name: _Resampled.of(each, index, resamples_RN) for name, each in control_statistics.items()}
    return Scores(
        n=len(index),
        metrics=own.estimates(),
        controls={name: control.estimates() for name, control in theirs.items()},
        differences={name: _differences(own, control, name) for name, control in theirs.items() if name != CEILING},
    )


@dataclass(frozen=True, kw_only=True)
class _Resampled:
    """The scores of one set of drafts: as they are, and in every bootstrap round."""

    values: dict[str, float]
    draws: dict[str, np.ndarray]
    counts: dict[str, tuple[int, int | None]]

    @classmethod
    def of(cls, statistics: Sequence[Statistics], index: np.ndarray, resamples_RN: np.ndarray) -> _Resampled:
        values: dict[str, float] = {}
        draws: dict[str, np.ndarray] = {}
        counts: dict[str, tuple[int, int | None]] = {}
        for each in (whole.take(index) for whole in statistics):
            values |= {name: float(score[0]) for name, score in each.scores(np.ones((1, len(index)))).items()}
            draws |= each.scores(resamples_RN)
            counts |= each.counts()
        return cls(values=values, draws=draws, counts=counts)

    def estimates(self) -> dict[str, Estimate]:
        estimates = {}
        for name, value in self.values.items():
            low, high = percentile_interval(self.draws[name])
            n, events = self.counts[name]
            estimates[name] = Estimate(value=number(value), low=number(low), high=number(high), n=n, events=events)
        return estimates


def _differences(own: _Resampled, control: _Resampled, name: str) -> dict[str, Difference]:
    shared = [metric for metric in HEADLINE if metric in own.values and metric in control.values]
    draws = {metric: own.draws[metric] - control.draws[metric] for metric in shared}
    adjusted = holm({metric: bootstrap_p(draws[metric]) for metric in shared})
    differences = {}
    for metric in shared:
        low, high = percentile_interval(draws[metric])
        apart = high < 0 if metric in LOWER_IS_BETTER else low > 0
        better = bool(apart and adjusted[metric] < 1 - LEVEL)
        differences[metric] = Difference(
            value=number(own.values[metric] - control.values[metric]),
            low=number(low),
            high=number(high),
            p_holm=number(adjusted[metric]),
            better=better,
            verdict=f"{'better' if better else 'not shown to be better'} than {name.replace('_', ' ')}",
        )
    return differences


def _coverage(drafts: Sequence[Prediction | None], references: Sequence[Reference], compared: Compared) -> Coverage:
    drafted = sum(bool(p and normalise(p.findings) + normalise(p.impression)) for p in drafts)
    missing = sum(p is None for p in drafts)
    return Coverage(
        studies=len(references),
        patients=len({reference.patient_id for reference in references}),
        patients_stated=any(reference.patient_id != reference.study_uid for reference in references),
        drafted=drafted,
        empty=len(drafts) - missing - drafted,
        missing=missing,
        without_findings=sum(not text for text in compared.texts),
        without_text=sum(not normalise(r.report.findings) + normalise(r.report.impression) for r in references),
    )


def _no_shared_patient(references: Sequence[Reference], train: Sequence[Reference]) -> None:
    shared = {reference.patient_id for reference in references} & {reference.patient_id for reference in train}
    if shared:
        raise ManifestError(
            "studies scored",
            expected="no patient of the training studies",
            found=f"{len(shared)} patients in both",
            fix="split by patient, and score studies of others",
        )


def _bare(text: str | None) -> str:
    """The words alone: texts that differ in case and punctuation are the same text."""
    return " ".join(re.findall(r"\w+", (text or "").lower()))


def number(value: float) -> float | None:
    """Returns the value as it stands in a card: six decimals, None where it is undefined."""
    return None if np.isnan(value) else round(float(value), 6)
