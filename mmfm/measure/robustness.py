"""Drafts of altered studies: does the checkpoint refuse them, and what becomes of its findings?

A study is altered in front of the door: its pictures are rendered, changed and handed back as stored pixels, so that
checks, stretch and resizing run as for any other study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.progress import track

from mmfm.data.manifest import Manifest, ManifestRow
from mmfm.evaluation import Prediction
from mmfm.evaluation.references import Reference
from mmfm.evaluation.robustness import Robustness, score_robustness
from mmfm.imaging import Volume
from mmfm.imaging.alterations import ALTERATIONS, REFUSED, Alteration
from mmfm.measure.drafts import draft_all, in_scope, predictions_of, those_in_scope
from mmfm.models.checkpoint import Checkpoint, Scope
from mmfm.study import PixelHeader, Series, Study


@dataclass(frozen=True, kw_only=True)
class _Change:
    """One change to a study."""

    name: str
    amount: str
    expected: str
    apply: Callable[[Study, np.random.Generator], Study]


def measure_robustness(
    checkpoint: Checkpoint,
    manifest: Manifest,
    rows: Sequence[ManifestRow],
    unaltered: Sequence[Prediction],
    *,
    num_studies: int,
    generator: np.random.Generator,
    batch_size: int,
) -> tuple[Robustness, ...]:
    """Drafts some studies from altered pictures and headers.

    Args:
        checkpoint: to be tried.
        manifest: of ``rows``.
        rows: the studies to draw from, all in the checkpoint's scope.
        unaltered: their drafts from the pictures as they are, in the same order.
        num_studies: how many are drawn; all, where there are fewer.
        generator: draws the studies, the noise and the bootstrap.
        batch_size: studies drafted at once.
    """
    chosen = np.sort(generator.choice(len(rows), size=min(num_studies, len(rows)), replace=False)).tolist()
    some = [rows[i] for i in chosen]
    found = []
    for change in _changes(checkpoint.facts.scope):
        read = [
            in_scope(checkpoint, change.apply(manifest.study(row), generator), row.region)
            for row in track(some, description=change.name)
        ]
        inside, pixels = those_in_scope(some, read)
        drafts = draft_all(checkpoint, inside, pixels, batch_size=batch_size, description=change.name)
        by_study = {prediction.study_uid: prediction for prediction in predictions_of(drafts)}
        found.append(
            score_robustness(
                name=change.name,
                amount=change.amount,
                expected=change.expected,
                references=[Reference.from_row(row) for row in some],
                unaltered=[unaltered[i] for i in chosen],
                altered=[by_study.get(row.study_uid) for row in some],
                generator=generator,
            )
        )
    return tuple(found)


def alter_study(study: Study, alteration: Alteration, generator: np.random.Generator) -> Study:
    """Returns the study with every picture altered and its headers as they are, but for those of the stored values."""
    return replace(study, series=tuple(_altered(series, alteration, generator) for series in study.series))


def _altered(series: Series, alteration: Alteration, generator: np.random.Generator) -> Series:
    picture = Volume.from_series(series)[0].array[0]
    if picture.ndim == 3:
        picture = picture.mean(-1)
    stored = np.rint(alteration(picture, generator) * (2**16 - 1)).astype(np.uint16)[None]
    header = PixelHeader(rows=stored.shape[1], columns=stored.shape[2], bits_stored=16)
    instance = replace(series.instances[0], pixels=header, frames=(), load=lambda: stored)
    return replace(series, instances=(instance,), sha256=None)


def _changes(scope: Scope) -> list[_Change]:
    modality = next(name for name in ("CT", "MR") if name not in scope.modalities)
    part = next(name for name in ("KNEE", "SKULL") if name not in scope.body_parts)
    return [
        *(_picture_change(alteration) for alteration in ALTERATIONS),
        _header_change("wrong_modality", f"header says Modality {modality}", lambda s: replace(s, modality=modality)),
        _header_change(
            "wrong_body_part", f"header says Body Part Examined {part}", lambda s: replace(s, body_part=part)
        ),
    ]


def _picture_change(alteration: Alteration) -> _Change:
    return _Change(
        name=alteration.name,
        amount=alteration.amount,
        expected=alteration.expected,
        apply=lambda study, generator: alter_study(study, alteration, generator),
    )


def _header_change(name: str, amount: str, change: Callable[[Series], Series]) -> _Change:
    return _Change(
        name=name,
        amount=amount,
        expected=REFUSED,
        apply=lambda study, _: replace(study, series=tuple(map(change, study.series))),
    )
