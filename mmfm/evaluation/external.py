"""RadGraph, CheXbert, RadCliQ, RaTEScore and GREEN, scored by a command of the user's own environment.

    export MMFM_RADIOLOGY_METRICS="conda run -n radeval python docs/radeval_adapter.py"

These need weights and packages that do not fit beside mmfm. The command gets three paths (drafts, references, scores),
and the contract is docs/external_metrics.md. All sets of drafts go in one call; what comes back is a score for each
study, which is resampled and compared with the controls like any other. Where the command is not set or fails, nothing
is raised: ``not_run`` says why, for the card. Messages count studies and name none.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mmfm.evaluation.predictions import Prediction
    from mmfm.evaluation.references import Reference

VARIABLE = "MMFM_RADIOLOGY_METRICS"
TIMEOUT_S = 6 * 3600.0

FAMILIES = {"radgraph": "RadGraph", "chexbert": "CheXbert", "radcliq": "RadCliQ"} | {
    "ratescore": "RaTEScore",
    "green": "GREEN",
}
"""What the name of a metric begins with, and what the card names as not run where no metric does."""

_DIRECTIONS = ("higher", "lower")
_COUNTS = ("tp", "fp", "fn")
_LARGEST = 2**53  # beyond it, sums of whole numbers are no longer exact


@dataclass(frozen=True, kw_only=True)
class ExternalScores:
    """What M metrics say of N drafts. A score is a ratio of sums, so that means and micro F1 are resampled alike."""

    names: tuple[str, ...]
    """Each with ``external.`` before it."""
    numerators_MN: np.ndarray
    """float64; of a mean the study's number, of F1 2 tp."""
    denominators_MN: np.ndarray
    """float64; of a mean 1, of F1 2 tp + fp + fn. 0 for a study that is not scored."""
    scored_MN: np.ndarray
    """bool; False where the reference has no text, or the metric gave no number for some set of drafts."""
    positives_MN: np.ndarray
    """float64; of F1 tp + fn, of a mean NaN."""

    def take(self, index: np.ndarray) -> ExternalScores:
        """Returns the statistics of the studies at ``index``."""
        return ExternalScores(
            names=self.names, **{name: value[:, index] for name, value in vars(self).items() if name != "names"}
        )

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each score, of shape (R,), for R weightings of the studies; NaN for 0 / 0."""
        above_MR, below_MR = self.numerators_MN @ weights_RN.T, self.denominators_MN @ weights_RN.T
        ratio_MR = np.divide(above_MR, below_MR, out=np.full(below_MR.shape, np.nan), where=below_MR > 0)
        return dict(zip(self.names, ratio_MR, strict=True))

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Returns of each score the number of studies and, of F1, of positive references."""
        counts = {}
        for name, scored_N, positives_N in zip(self.names, self.scored_MN, self.positives_MN, strict=True):
            positives = positives_N[scored_N].sum()
            counts[name] = int(scored_N.sum()), None if np.isnan(positives) else int(positives)
        return counts


@dataclass(frozen=True, kw_only=True)
class ExternalRun:
    """What came of a call of the command."""

    scores: dict[str, ExternalScores] = field(default_factory=dict)
    """By set of drafts; empty where nothing was scored."""
    lower_is_better: frozenset[str] = frozenset()
    """Names of scores."""
    versions: dict[str, str] = field(default_factory=dict)
    """As the command states them."""
    not_run: dict[str, str] = field(default_factory=dict)
    """RadGraph, CheXbert, RadCliQ, RaTEScore, GREEN, or the name of a metric, to why there is no score of it."""
    notes: tuple[str, ...] = ()
    """What else a reader has to know, one line each."""


def score_externally(
    drafts: Mapping[str, Sequence[Prediction]],
    references: Sequence[Reference],
    *,
    command: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> ExternalRun:
    """Has sets of drafts scored by the user's command, all in one call.

    Studies whose reference has neither findings nor impression are not sent. Identifiers are replaced by numbers.

    Args:
        drafts: name of a set, such as that of a control, to its drafts in the order of ``references``.
        references: what they are scored against.
        command: split as a shell would, but run without one; that of ``MMFM_RADIOLOGY_METRICS`` where ``None``.
        timeout_s: seconds after which the command, and what it started, is killed.
    """
    try:
        words = shlex.split(os.environ.get(VARIABLE, "") if command is None else command)
    except ValueError as error:
        return _nothing(f"{VARIABLE} cannot be split into words ({error})")
    if not words:
        return _nothing(f"{VARIABLE} is not set (docs/external_metrics.md)")
    sent = [i for i, reference in enumerate(references) if _has_text(reference)]
    if not sent:
        return _nothing("no reference has findings or impression")
    pairs = [(each[i], references[i]) for each in drafts.values() for i in sent]
    # A folder of mkdtemp is its owner's alone (0700); report texts stay in it, and go with it.
    with tempfile.TemporaryDirectory(prefix="mmfm-metrics-") as folder:
        paths = [Path(folder) / name for name in ("drafts.jsonl", "references.jsonl", "scores.jsonl")]
        _write(paths[0], [(draft.findings, draft.impression) for draft, _ in pairs])
        _write(paths[1], [(reference.report.findings, reference.report.impression) for _, reference in pairs])
        if fault := _run([*words, *map(str, paths)], timeout_s):
            return _nothing(fault)
        try:
            header, values = _read(paths[2], len(pairs))
        except ValueError as error:
            return _nothing(f"the command's scores cannot be used: {error}")
    return _result(header, values, list(drafts), np.array(sent), len(references))


def _has_text(reference: Reference) -> bool:
    return any((text or "").strip() for text in (reference.report.findings, reference.report.impression))


def _write(path: Path, texts: Sequence[tuple[str | None, str | None]]) -> None:
    lines = (
        json.dumps({"study_uid": str(number), "findings": findings, "impression": impression}) + "\n"
        for number, (findings, impression) in enumerate(texts, start=1)
    )
    path.write_text("".join(lines), encoding="utf-8")


def _run(words: Sequence[str], timeout_s: float) -> str | None:
    """Runs the command in a process group of its own and returns what went wrong, if anything did."""
    # Credentials of a PACS are no business of it. What it prints goes to standard error: it may hold report text.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MMFM_PACS")}
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=2, env=environment, start_new_session=True)
    except (OSError, ValueError) as error:
        return f"the command cannot be started ({getattr(error, 'strerror', None) or 'not a command'})"
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return f"the command took longer than {timeout_s:g} s"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started goes with it, whichever way this is left
        process.wait()
    return f"the command ended with exit code {code}; standard error has what it wrote" if code else None


@dataclass(frozen=True, kw_only=True)
class _Header:
    metrics: dict[str, str]
    versions: dict[str, str]
    not_run: dict[str, str]


def _read(path: Path, count: int) -> tuple[_Header, list[dict[str, Any]]]:
    """Returns the header of the scores and, for each pair, its values.

    Raises:
        ValueError: the file is absent or breaks the contract, or a study is missing, unknown or repeated.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"no file in UTF-8 ({getattr(error, 'strerror', None) or 'other bytes'})") from None
    header = _header(_object(lines[0], 1))
    values: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines[1:], start=2):
        value = _object(line, number)
        study = value.pop("study_uid", None)
        if not isinstance(study, str) or not re.fullmatch("[1-9][0-9]{0,9}", study) or int(study) > count:
            raise ValueError(f"line {number} is of no study that was sent")
        if study in values:
            raise ValueError(f"line {number} is of a study that was scored before")
        if value.keys() != header.metrics.keys():
            raise ValueError(f"line {number} has other metrics than the header")
        values[study] = value
    if missing := count - len(values):
        raise ValueError(f"{missing} of {count} studies are missing")
    return header, [values[str(number)] for number in range(1, count + 1)]


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"line {number} is no JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"line {number} is no JSON object")
    return value


def _header(value: dict[str, Any]) -> _Header:
    parts = {name: value.get(name, {}) for name in ("metrics", "versions", "not_run")}
    if value.keys() - parts.keys() or "metrics" not in value or "versions" not in value:
        raise ValueError("line 1 is no header with metrics and versions")
    for name, part in parts.items():
        if not isinstance(part, dict) or not all(isinstance(item, str) for item in part.values()):
            raise ValueError(f"{name} of the header is no object of texts")
    for name, direction in parts["metrics"].items():
        if not re.fullmatch("[a-z][a-z0-9_]*", name) or direction not in _DIRECTIONS:
            raise ValueError(f"metrics of the header: expected a name in small letters with {' or '.join(_DIRECTIONS)}")
    return _Header(**{name: {k: " ".join(v.split())[:200] for k, v in part.items()} for name, part in parts.items()})


def _result(
    header: _Header, values: Sequence[dict[str, Any]], sets: Sequence[str], sent: np.ndarray, studies: int
) -> ExternalRun:
    names, kept, notes = [], [], []
    not_run = {FAMILIES.get(name, name): why for name, why in header.not_run.items()}
    for name in header.metrics:
        try:
            ratio_P4 = np.array([_ratio(value[name]) for value in values])
        except ValueError as error:
            not_run[name] = f"the command gave {error}"
            continue
        ratio_SN4 = ratio_P4.reshape(len(sets), len(sent), 4)
        # Paired: a study without a number for one set is left out of all.
        missing_N = (ratio_SN4[..., 3] == 0).any(axis=0)
        if missing_N.all():
            not_run[name] = "the command gave no number for any study"
            continue
        if missing_N.any():
            notes.append(f"{name}: {missing_N.sum()} of {len(sent)} studies have no number and are left out of it")
        ratio_SN4[:, missing_N] = 0
        names.append(name)
        kept.append(ratio_SN4)
    for family, title in FAMILIES.items():
        if not any(name.startswith(family) for name in (*names, *not_run)):
            not_run.setdefault(title, "the command does not compute it")
    if len(sent) < studies:
        notes.append(f"{studies - len(sent)} references have neither findings nor impression: not scored externally")
    scores = {}
    for i, each in enumerate(sets) if names else ():
        whole_MN4 = np.zeros((len(names), studies, 4))
        whole_MN4[:, sent] = np.stack([ratio_SN4[i] for ratio_SN4 in kept])
        scores[each] = ExternalScores(
            names=tuple(f"external.{name}" for name in names),
            numerators_MN=whole_MN4[..., 0],
            denominators_MN=whole_MN4[..., 1],
            positives_MN=whole_MN4[..., 2],
            scored_MN=whole_MN4[..., 3] == 1,
        )
    return ExternalRun(
        scores=scores,
        lower_is_better=frozenset(f"external.{name}" for name in names if header.metrics[name] == "lower"),
        versions=header.versions,
        not_run=not_run,
        notes=tuple(notes),
    )


def _ratio(value: Any) -> tuple[float, float, float, int]:
    """Returns numerator, denominator, positives and whether there is a number, of one value of one study.

    Raises:
        ValueError: it is no finite number, no null and no counts.
    """
    if value is None:
        return 0.0, 0.0, 0.0, 0
    if type(value) is float or (type(value) is int and abs(value) <= _LARGEST):
        if not math.isfinite(value):
            raise ValueError("NaN or infinity")
        return float(value), 1.0, math.nan, 1
    if isinstance(value, dict) and value.keys() == set(_COUNTS):
        if all(type(count) is int and 0 <= count <= _LARGEST for count in value.values()):
            tp, fp, fn = (value[name] for name in _COUNTS)
            return 2.0 * tp, 2.0 * tp + fp + fn, float(tp + fn), 1
    raise ValueError("something other than a number, null, or counts tp, fp and fn")


def _nothing(why: str) -> ExternalRun:
    return ExternalRun(not_run=dict.fromkeys(FAMILIES.values(), why))
