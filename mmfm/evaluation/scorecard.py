"""The score card: every score of a set of drafts with its interval, beside its controls, under a stated policy.

    card = score_card(
        predictions=drafts, rows=val, train_rows=train, controls={"shuffled_images": ...},
        generator=np.random.default_rng(0), provenance=provenance,
    )
    card.write("scorecard.json")

Scores of each study are computed once and only resampled, with the same resamples for the drafts and every control.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mmfm import __version__
from mmfm.errors import ManifestError
from mmfm.evaluation.clinical import OPENI_LABELS, FindingScores, WrongSides
from mmfm.evaluation.controls import CEILING, CONTROLS, constant_report, nearest_neighbour, reference_text
from mmfm.evaluation.intervals import LEVEL, ROUNDS, bootstrap_p, holm, patient_resamples, percentile_interval
from mmfm.evaluation.predictions import Prediction, in_row_order
from mmfm.evaluation.probabilities import MACRO_LABELS, MIN_POSITIVES, Probabilities
from mmfm.evaluation.wording import NORMALISATION, Wording, normalise
from mmfm.files import sha256_of, write_whole
from mmfm.jsonable import from_json, to_json
from mmfm.report import Finding, Sections, Status
from mmfm.text import OBSERVATIONS, label_report

if TYPE_CHECKING:
    from mmfm.data.manifest import ManifestRow

HEADLINE = ("auroc_macro", "finding_f1_micro", "finding_f1_macro", "label_f1_micro", "bleu_4", "rouge_l")
"""The scores that are compared with each control: one family of Holm's correction. All are better when higher."""

ABNORMAL, UNSEEN = "abnormal studies", "findings text not in train"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the drafts come from: what the leaderboard prints, and what pins the card to its inputs."""

    experiment: str
    """Name of the experiment file."""
    data: str
    """Source and split scored, such as ``iu_xray val``."""
    hardware: str
    """That the model was trained on."""
    time: str
    """That the training took."""
    date: str
    """Of the scoring, YYYY-MM-DD."""
    commit: str
    manifest_sha256: str
    checkpoint_sha256: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score with its 95 % interval; ``None`` where it is undefined (0 / 0)."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Studies scored; for ``wrong_side_rate`` findings compared."""
    events: int | None = None
    """Positive references among them; for ``wrong_side_rate`` the wrong sides."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Drafts minus control, paired, with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    """Two-sided, adjusted over the compared scores of this control."""
    better: bool
    """The interval lies above 0, and ``p_holm`` is below 0.05."""
    verdict: str
    """The same in words."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of some of the studies."""

    n: int
    metrics: dict[str, Estimate]
    controls: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Difference]]
    """Control to score of ``HEADLINE`` to difference; not for the reference text, which is a ceiling."""


@dataclass(frozen=True, kw_only=True)
class Scorecard(Scores):
    """The scores of all studies, and of the two parts that templates help least."""

    subsets: dict[str, Scores]
    controls_not_run: tuple[str, ...]
    empty_drafts: int
    """Studies without any drafted text; they are scored as saying nothing."""
    policy: dict[str, Any]
    """Everything that decides the numbers."""
    policy_sha256: str
    """Of ``policy`` as compact JSON with sorted keys."""
    provenance: Provenance

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
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            found = " ".join((getattr(error, "strerror", None) or str(error)).split())
            fix = "score the drafts again"
            raise ManifestError(path.name, expected="a score card", found=found, fix=fix) from None


def score_card(
    *,
    predictions: Sequence[Prediction],
    rows: Sequence[ManifestRow],
    train_rows: Sequence[ManifestRow],
    controls: Mapping[str, Sequence[Prediction]],
    generator: np.random.Generator,
    provenance: Provenance,
    features_NE: np.ndarray | None = None,
    train_features_NE: np.ndarray | None = None,
    wording_sections: Sequence[str] = ("findings",),
) -> Scorecard:
    """Scores drafts beside their controls.

    The constant report and the reference text are always made here, the nearest neighbour where features are given;
    a control of that name in ``controls`` takes its place. A control may have probabilities and no text, or the
    reverse: it is then compared on what it has.

    Args:
        predictions: the drafts, one for each of ``rows``.
        rows: the studies scored; ``report`` is the reference text, whole.
        train_rows: the studies that the model was trained on.
        controls: name to drafts made elsewhere; see ``CONTROLS`` for the usual names.
        generator: draws the bootstrap.
        provenance: stands in the card, and in its policy by the hashes.
        features_NE: frozen image features of ``rows``.
        train_features_NE: those of ``train_rows``.
        wording_sections: sections of the report that BLEU and ROUGE-L compare.

    Raises:
        ManifestError: predictions do not fit the rows.
    """
    made = {"constant_report": constant_report(rows, train_rows), CEILING: reference_text(rows)}
    if features_NE is not None and train_features_NE is not None:
        made["nearest_neighbour"] = nearest_neighbour(
            rows, train_rows, features_NE=features_NE, train_features_NE=train_features_NE
        )
    drafts = in_row_order(predictions, rows)
    every = {**made, **controls}
    names = sorted(every, key=[*CONTROLS, *controls].index)
    beside = {name: in_row_order(every[name], rows, where=name) for name in names}
    references = _References.of(rows, tuple(wording_sections))
    statistics = references.compare(drafts)
    control_statistics = {name: references.compare(drafted) for name, drafted in beside.items()}

    seen = {_bare(row.report.findings) for row in train_rows}
    parts = {
        "all": np.ones(len(rows), dtype=bool),
        ABNORMAL: np.array([_is_abnormal(row) for row in rows], dtype=bool),
        UNSEEN: np.array([_bare(row.report.findings) not in seen | {""} for row in rows], dtype=bool),
    }
    patients = np.array([row.patient_id for row in rows])
    scored = {
        name: _scores(statistics, control_statistics, np.flatnonzero(part), patients, generator)
        for name, part in parts.items()
        if part.any()
    }
    policy = _policy(wording_sections, provenance)
    return Scorecard(
        **vars(scored.pop("all")),
        subsets=scored,
        controls_not_run=tuple(name for name in CONTROLS if name not in beside),
        empty_drafts=sum(not normalise(p.findings) + normalise(p.impression) for p in drafts),
        policy=policy,
        policy_sha256=hashlib.sha256(json.dumps(policy, sort_keys=True, separators=(",", ":")).encode()).hexdigest(),
        provenance=provenance,
    )


class _Statistics(Protocol):
    """Per-study statistics of one kind: see ``Wording``, ``FindingScores``, ``WrongSides`` and ``Probabilities``."""

    def take(self, index: np.ndarray) -> _Statistics: ...

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]: ...

    def counts(self) -> dict[str, tuple[int, int | None]]: ...


@dataclass(frozen=True, kw_only=True)
class _References:
    """The references in the forms that drafts are compared with, made once for all sets of drafts."""

    sections: tuple[str, ...]
    texts: list[str]
    findings: list[tuple[Finding, ...]]
    labels: list[dict[str, Status | None]]
    label: Callable[[str | None, str | None], tuple[Finding, ...]]

    @classmethod
    def of(cls, rows: Sequence[ManifestRow], sections: tuple[str, ...]) -> _References:
        label = cache(label_report)  # a constant report is labelled once
        return cls(
            sections=sections,
            texts=[_text(row.report, sections) for row in rows],
            findings=[label(row.report.findings, row.report.impression) for row in rows],
            labels=[row.labels for row in rows],
            label=label,
        )

    def compare(self, drafts: Sequence[Prediction]) -> list[_Statistics]:
        """Returns what the drafts can be scored on: their text and their probabilities, where they have any."""
        statistics: list[_Statistics] = []
        if any(p.findings or p.impression for p in drafts):
            found = [self.label(p.findings, p.impression) for p in drafts]
            statistics += [
                Wording.of([_text(p.sections, self.sections) for p in drafts], self.texts),
                FindingScores.against_text(found, self.findings),
                FindingScores.against_labels(found, self.labels),
                WrongSides.of(found, self.findings),
            ]
        predicted = [p.finding_probabilities for p in drafts if p.finding_probabilities]
        if predicted:
            statistics.append(Probabilities.of(predicted, self.labels))
        return statistics


def _scores(
    statistics: Sequence[_Statistics],
    control_statistics: Mapping[str, Sequence[_Statistics]],
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
    def of(cls, statistics: Sequence[_Statistics], index: np.ndarray, resamples_RN: np.ndarray) -> _Resampled:
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
            estimates[name] = Estimate(value=_number(value), low=_number(low), high=_number(high), n=n, events=events)
        return estimates


def _differences(own: _Resampled, control: _Resampled, name: str) -> dict[str, Difference]:
    shared = [metric for metric in HEADLINE if metric in own.values and metric in control.values]
    draws = {metric: own.draws[metric] - control.draws[metric] for metric in shared}
    adjusted = holm({metric: bootstrap_p(draws[metric]) for metric in shared})
    differences = {}
    for metric in shared:
        low, high = percentile_interval(draws[metric])
        better = bool(low > 0 and adjusted[metric] < 1 - LEVEL)
        differences[metric] = Difference(
            value=_number(own.values[metric] - control.values[metric]),
            low=_number(low),
            high=_number(high),
            p_holm=_number(adjusted[metric]),
            better=better,
            verdict=f"{'better' if better else 'not shown to be better'} than {name.replace('_', ' ')}",
        )
    return differences


def _policy(wording_sections: Sequence[str], provenance: Provenance) -> dict[str, Any]:
    return {
        "references": "the whole report of the manifest, sentences that compare with a prior included",
        "wording": {
            "sections": list(wording_sections),
            "normalisation": NORMALISATION,
            "bleu": "of the corpus, closest reference length, constants of pycocoevalcap 1.2",
            "rouge_l": "mean over studies, beta 1.2, as pycocoevalcap 1.2",
            "studies": "those whose reference has such text",
        },
        "findings": {
            "sections": ["findings", "impression"],
            "labeller": "mmfm.text",
            "labeller_sha256": _labeller_sha256(resources.files("mmfm.text")),
            "finding_*": {"reference": "the labelled reference text", "observations": list(OBSERVATIONS)},
            "label_*": {
                "reference": "labels of the manifest, null and uncertain left out",
                "observations": list(OPENI_LABELS),
            },
            "positive": "present",
            "uncertain": "not positive",
            "not_mentioned": "not positive",
            "no_finding": "derived, not counted",
            "micro": "over all observations",
            "macro": "mean F1 over the observations with at least one positive reference",
            "wrong_side_rate": "of findings present in both texts with left or right in each",
        },
        "probabilities": {
            "reference": "labels of the manifest, null and uncertain left out",
            "min_positives_and_negatives": MIN_POSITIVES,
            "macro": list(MACRO_LABELS),
            "brier_skill": "against the base rate of the studies scored",
        },
        "intervals": f"percentile bootstrap over patients, {ROUNDS} rounds, {LEVEL:.0%}; differences paired",
        "comparison": {
            "scores": list(HEADLINE),
            "better": f"interval of the difference above 0, and its p by Holm over these scores below {1 - LEVEL:.2f}",
        },
        "subsets": {
            ABNORMAL: "label normal absent, or, without that label, a finding present in the labelled reference",
            UNSEEN: "case and punctuation ignored; studies with a findings section",
        },
        "versions": {"mmfm": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "inputs": {
            "manifest_sha256": provenance.manifest_sha256,
            "checkpoint_sha256": provenance.checkpoint_sha256,
            "commit": provenance.commit,
        },
    }


def _labeller_sha256(folder: Traversable) -> str:
    """Of all that decides a label: the code in ``folder``, and the words in its vocabulary."""
    code = [file for file in folder.iterdir() if file.name.endswith(".py")]
    words = [file for file in (folder / "vocabulary").iterdir() if file.name.endswith(".toml")]
    return sha256_of([*code, *words])


def _text(report: Sections, sections: Sequence[str]) -> str:
    return " . ".join(filter(None, (normalise(getattr(report, name)) for name in sections)))


def _is_abnormal(row: ManifestRow) -> bool:
    normal = row.labels.get("normal")
    if normal in (Status.PRESENT, Status.ABSENT):
        return normal == Status.ABSENT
    found = label_report(row.report.findings, row.report.impression)
    return any(finding.status == Status.PRESENT for finding in found)


def _bare(text: str | None) -> str:
    """The words alone: texts that differ in case and punctuation are the same text."""
    return " ".join(re.findall(r"\w+", (text or "").lower()))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
