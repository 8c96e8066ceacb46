"""predictions.jsonl: one drafted report a line, what ``mmfm predict`` writes and everything here scores.

    {"study_uid": "iu_xray-123", "findings": "...", "impression": null, "finding_probabilities": {"edema": 0.02}}

``finding_probabilities`` may be left out; a study that was refused has neither text nor these. An observation that a
line leaves out and another states counts as 0: a draft states those of the part of the body that it reads.
Messages name lines and counts, never a study.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfm.errors import ManifestError
from mmfm.evaluation.references import Reference, read_lines
from mmfm.files import write_whole
from mmfm.report import Sections

_FIELDS = ("study_uid", "findings", "impression", "finding_probabilities")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The text drafted for one study, and P(present) of each observation where there are finding heads."""

    study_uid: str
    findings: str | None
    impression: str | None
    finding_probabilities: dict[str, float] | None = None
    """Observation to P(present), 0 to 1."""

    def __post_init__(self) -> None:
        if not isinstance(self.study_uid, str) or not self.study_uid:
            raise ValueError("study_uid: expected text that is not empty")
        for name in ("findings", "impression"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name}: expected text or null, found {type(getattr(self, name)).__name__}")
        if not isinstance(self.finding_probabilities, dict | None):
            raise ValueError("finding_probabilities: expected an object of numbers from 0 to 1")
        for name, value in (self.finding_probabilities or {}).items():
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise ValueError(f"finding_probabilities.{name}: expected a number from 0 to 1, found {value!r}")

    @property
    def sections(self) -> Sections:
        """The drafted text as sections of a report."""
        return Sections(findings=self.findings, impression=self.impression)


def read_predictions(path: str | Path) -> tuple[Prediction, ...]:
    """Returns the predictions of a file, in its order.

    Raises:
        ManifestError: the file is absent, a line breaks the schema (named by its number), or a study is repeated.
    """
    schema = 'an object {"study_uid", "findings", "impression", "finding_probabilities"}'
    return read_lines(path, _prediction, schema=schema)


def write_predictions(predictions: Iterable[Prediction], path: str | Path) -> None:
    """Writes one line a study; the file appears whole or not at all."""
    lines = []
    for prediction in predictions:
        values = {name: getattr(prediction, name) for name in _FIELDS}
        if prediction.finding_probabilities is None:
            del values["finding_probabilities"]
        lines.append(json.dumps(values) + "\n")
    write_whole(path, "".join(lines))


def have_text(drafts: Iterable[Prediction | None]) -> bool:
    """Whether a set of drafts is to be scored on its text: a set of null texts beside probabilities has none.

    Texts that are all empty are texts: they say nothing, and are scored so.
    """
    given = [draft for draft in drafts if draft is not None]
    stated = any(draft.findings is not None or draft.impression is not None for draft in given)
    return stated or not any(draft.finding_probabilities for draft in given)


def in_order(
    predictions: Sequence[Prediction], references: Sequence[Reference], *, where: str = "predictions"
) -> tuple[Prediction | None, ...]:
    """Returns the prediction for each reference, None where there is none.

    Args:
        predictions: at most one for each reference.
        references: the studies scored.
        where: what the predictions are called in a message.

    Raises:
        ManifestError: a study is unknown or repeated, or none is known.
    """
    by_study = {p.study_uid: p for p in predictions}
    wanted = {reference.study_uid for reference in references}
    unknown, repeated = len(set(by_study) - wanted), len(predictions) - len(by_study)
    if unknown or repeated or not by_study:
        raise ManifestError(
            where,
            expected=f"at most one prediction for each of the {len(wanted)} studies scored, and no other",
            found=f"{len(by_study)} studies, {unknown} of them unknown, and {repeated} lines of a study again",
            fix="draft them again from the same manifest and split",
        )
    return tuple(by_study.get(reference.study_uid) for reference in references)


def _prediction(value: Any) -> Prediction:
    if not isinstance(value, dict):
        raise ValueError(f"a line of type {type(value).__name__}")
    # in this order: keys may be studies where a whole file is one object, and a message names no study
    if missing := [name for name in _FIELDS[:3] if name not in value]:
        raise ValueError(f"no field {', '.join(missing)}")
    if unknown := sorted(set(value) - set(_FIELDS)):
        raise ValueError(f"unknown fields {unknown}")
    return Prediction(**value)
