"""Controls: drafts that a model must beat before its score means anything, made without the model.

The controls that need the model (shuffled images, mean image, text only, heads written out as template sentences) are
drafted by ``mmfm.measure`` and arrive as predictions; ``shuffled`` says whose images each study gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmfm.errors import ManifestError
from mmfm.evaluation.predictions import Prediction
from mmfm.evaluation.references import Reference
from mmfm.evaluation.wording import PackedTexts, text_of

IMAGE_BLIND = ("constant_report", "shuffled_images", "mean_image", "text_only")
CHEAP = ("nearest_neighbour", "heads_template")
CEILING = "reference_text"

CONTROLS = (*IMAGE_BLIND, *CHEAP, CEILING)
"""The controls that every card has, or names as not run."""

MAX_CANDIDATES = 5000
"""Training reports that the constant report is chosen from and scored against: the cost grows with the square."""


def constant_report(
    references: Sequence[Reference], train: Sequence[Reference], *, sections: Sequence[str] = ("findings",)
) -> tuple[Prediction, ...]:
    """Returns for every study the training report that scores best against the other training reports.

    Best is the highest mean ROUGE-L of ``sections``, which wording metrics compare, against those of all other training
    studies; the first such report wins a tie. Of more than ``MAX_CANDIDATES`` reports, as many are taken at equal
    distances.

    Raises:
        ManifestError: fewer than two training studies have such text.
    """
    candidates = _with_text(train, sections)
    candidates = candidates[:: -(-len(candidates) // MAX_CANDIDATES)]
    texts = [text_of(row.report, sections) for row in candidates]
    packed = PackedTexts.of([text.split() for text in texts])
    # the sum over all texts holds the candidate itself, which scores 1 whichever candidate it is
    means = {text: packed.mean_rouge_l(text.split()) for text in Counter(texts)}
    report = candidates[texts.index(max(means, key=lambda text: means[text]))].report
    return tuple(_copy(row, report.findings, report.impression) for row in references)


def nearest_neighbour(
    references: Sequence[Reference],
    train: Sequence[Reference],
    *,
    features_NE: np.ndarray,
    train_features_NE: np.ndarray,
    sections: Sequence[str] = ("findings",),
) -> tuple[Prediction, ...]:
    """Returns for each study the report of the most similar training study that has text in ``sections``.

    Args:
        references: the studies scored.
        train: the studies to copy from.
        features_NE: frozen image features of ``references``; similarity is the cosine.
        train_features_NE: those of ``train``.
        sections: that wording metrics compare.

    Raises:
        ValueError: the features do not have one row a study, or are not finite.
    """
    for name, matrix, studies in (("features", features_NE, references), ("train_features", train_features_NE, train)):
        if matrix.ndim != 2 or len(matrix) != len(studies):
            raise ValueError(f"{name}: expected ({len(studies)}, E), found {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise ValueError(f"{name}: expected finite numbers")
    kept = [i for i, row in enumerate(train) if text_of(row.report, sections)]
    sources = _with_text(train, sections)
    nearest = (_unit(features_NE) @ _unit(train_features_NE[kept]).T).argmax(axis=1)
    return tuple(
        _copy(row, sources[i].report.findings, sources[i].report.impression)
        for row, i in zip(references, nearest, strict=True)
    )


def reference_text(references: Sequence[Reference]) -> tuple[Prediction, ...]:
    """Returns the reference texts as if they were drafts: the ceiling of what the metrics can give."""
    return tuple(_copy(row, row.report.findings, row.report.impression) for row in references)


def shuffled(patient_ids: Sequence[str], generator: np.random.Generator) -> np.ndarray:
    """Returns (N,) for each study the index of another patient's study whose images it gets; each is used once.

    Raises:
        ManifestError: one patient has more than half of the studies, so that there is no such assignment.
    """
    by_patient: dict[str, list[int]] = {}
    for index in generator.permutation(len(patient_ids)):
        by_patient.setdefault(patient_ids[index], []).append(index)
    order = np.array([index for studies in by_patient.values() for index in studies], dtype=int)
    largest = max(map(len, by_patient.values()), default=0)
    if 2 * largest > len(order):
        raise ManifestError(
            "shuffled images",
            expected="no patient with more than half of the studies",
            found=f"one with {largest} of {len(order)}",
            fix="score more patients, or leave this control out",
        )
    assignment = np.empty_like(order)
    # a patient's studies stand together: moving on by the largest patient's number of studies leaves every patient
    assignment[order] = np.roll(order, -largest)
    return assignment


def _with_text(train: Sequence[Reference], sections: Sequence[str]) -> list[Reference]:
    kept = [row for row in train if text_of(row.report, sections)]
    if len(kept) < 2:
        raise ManifestError(
            "training studies",
            expected=f"at least two with text in {' or '.join(sections)}, to copy reports from",
            found=str(len(kept)),
            fix="pass the rows of the split that the model was trained on",
        )
    return kept


def _copy(row: Reference, findings: str | None, impression: str | None) -> Prediction:
    return Prediction(study_uid=row.study_uid, findings=findings, impression=impression)


def _unit(features_NE: np.ndarray) -> np.ndarray:
    features_NE = features_NE.astype(np.float64)
    return features_NE / np.maximum(np.linalg.norm(features_NE, axis=1, keepdims=True), np.finfo(float).tiny)
