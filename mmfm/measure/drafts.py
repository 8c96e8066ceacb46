"""Drafts of many studies: which of them the checkpoint reads, and what it writes of those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from rich.progress import track

from mmfm.data.manifest import Manifest, ManifestRow
from mmfm.errors import ScopeError
from mmfm.evaluation import Prediction
from mmfm.evaluation.leaks import difference_hash
from mmfm.inference import check_contrast, check_study
from mmfm.inference.scope import check_sequences
from mmfm.models.checkpoint import Checkpoint
from mmfm.models.drafting import Draft, draft, draft_text_only
from mmfm.models.processor import StudyPixels
from mmfm.study import Study

T = TypeVar("T")


def in_scope(checkpoint: Checkpoint, study: Study, region: str) -> StudyPixels | ScopeError:
    """Returns what a checkpoint reads of a study, or why it drafts nothing from it: the rules of the ``Reporter``.

    Args:
        checkpoint: whose scope decides.
        study: with pixels at hand.
        region: of the manifest, by which a volume is read.
    """
    try:
        check_study(study, checkpoint.facts.scope, checkpoint=checkpoint.name, region=region)
        pixels = checkpoint.processor.pixels(study, region=region)
        check_sequences(pixels, only=())
        for place, picture in enumerate(pixels.pixels_SCHW, start=1):
            check_contrast(picture[0].numpy(), where=f"picture {place} of the study")
        return pixels
    except ScopeError as error:
        return error


def those_in_scope(
    rows: Sequence[ManifestRow], read: Sequence[StudyPixels | ScopeError]
) -> tuple[list[ManifestRow], list[StudyPixels]]:
    """Returns the studies that ``in_scope`` did not refuse, and what it read of them."""
    inside = [(row, item) for row, item in zip(rows, read, strict=True) if isinstance(item, StudyPixels)]
    return [row for row, _ in inside], [item for _, item in inside]


def hashes_of(pixels: StudyPixels) -> np.ndarray:
    """Returns the difference hash of each picture, (pictures, 64)."""
    return np.stack([difference_hash(picture[0].numpy()) for picture in pixels.pixels_SCHW])


def draft_all(
    checkpoint: Checkpoint,
    rows: Sequence[ManifestRow],
    pixels: Iterable[StudyPixels],
    *,
    batch_size: int,
    description: str = "drafting",
) -> list[Draft]:
    """Returns a draft of each row from the pictures given, in batches, with a progress bar of that description.

    No more than a batch of ``pixels`` is kept, so that volumes can be read as they are asked for.
    """
    studies = ((row.study_uid, item, row.report.indication) for row, item in zip(rows, pixels, strict=True))
    return _in_batches(studies, len(rows), batch_size, lambda batch: draft(checkpoint, batch), description)


def read_and_draft_all(
    checkpoint: Checkpoint, manifest: Manifest, rows: Sequence[ManifestRow], *, batch_size: int
) -> tuple[list[Draft], list[ScopeError]]:
    """Returns drafts of the rows in scope, and why the others have none; no more than a batch is kept in memory."""
    refused: list[ScopeError] = []

    def of_batch(batch: Sequence[ManifestRow]) -> list[Draft]:
        read = [in_scope(checkpoint, manifest.study(row), row.region) for row in batch]
        refused.extend(item for item in read if isinstance(item, ScopeError))
        inside, pixels = those_in_scope(batch, read)
        studies = [(row.study_uid, item, row.report.indication) for row, item in zip(inside, pixels, strict=True)]
        return draft(checkpoint, studies) if studies else []

    return _in_batches(rows, len(rows), batch_size, of_batch, "drafting"), refused


def draft_all_text_only(checkpoint: Checkpoint, rows: Sequence[ManifestRow], *, batch_size: int) -> list[Draft]:
    """Returns what the language model writes of each row from its indication alone."""
    studies = [(row.study_uid, row.report.indication) for row in rows]
    return _in_batches(studies, len(rows), batch_size, lambda batch: draft_text_only(checkpoint, batch), "text only")


def predictions_of(drafts: Sequence[Draft]) -> tuple[Prediction, ...]:
    """Returns the drafts as they are scored."""
    return tuple(
        Prediction(
            study_uid=d.study_uid,
            findings=d.findings or "",
            impression=d.impression or "",
            finding_probabilities=d.probabilities or None,
        )
        for d in drafts
    )


def _in_batches(
    studies: Iterable[T], total: int, size: int, make: Callable[[Sequence[T]], list[Draft]], description: str
) -> list[Draft]:
    upcoming = iter(studies)
    starts = track(range(0, total, size), description=description)
    return [one for _ in starts for one in make(list(islice(upcoming, size)))]
