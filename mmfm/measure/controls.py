"""Controls that need the model or pictures: drafts that say how much of a score the pictures account for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from mmfm.data.manifest import Manifest, ManifestRow, read_manifest
from mmfm.errors import ConfigError, MmfmError
from mmfm.evaluation import Prediction
from mmfm.evaluation.files import training_rows
from mmfm.measure.drafts import hashes_of
from mmfm.models.checkpoint import Checkpoint, resolve_checkpoint
from mmfm.models.drafting import Draft
from mmfm.models.encoder2d import Encoder2D
from mmfm.models.processor import Processor, StudyPixels
from mmfm.report import Status
from mmfm.study import Study
from mmfm.text import REGIONS, describe

FROZEN_ENCODER, FROZEN_SIZE = "tf_efficientnet_lite2", 260
PROBE_C = 1e-2
"""Inverse of the probe's ridge penalty. Of the values 1e-5 to 1, on features as they are and standardised, this one on
features as they are was best in three-fold cross-validation on the training studies of IU X-Ray."""
PROBE_MIN_POSITIVES = 10


def template(drafted: Draft) -> Prediction:
    """Returns what the finding heads decide, as template sentences; none of a region without a vocabulary."""
    findings, impression = None, None
    if drafted.region in REGIONS:
        findings, impression = describe(drafted.decisions, region=drafted.region)
    return Prediction(study_uid=drafted.study_uid, findings=findings, impression=impression)


def frozen_encoder(prepared_as: Processor, device: torch.device) -> Callable[[Study], np.ndarray] | None:
    """Returns study -> features of a frozen ImageNet network (frontal, then lateral); None without its weights.

    The network reads pictures of its own size, else prepared as those of a checkpoint.
    """
    try:
        encoder = Encoder2D.Config(name=FROZEN_ENCODER, image_size=FROZEN_SIZE).build().eval()
    except ConfigError:
        return None
    processor = Processor(replace(prepared_as.config, image_size=FROZEN_SIZE), prepared_as.tokenizer)
    encoder.to(device)

    def features(study: Study) -> np.ndarray:
        pixels = processor.pixels(study)
        with torch.inference_mode():
            pooled_SE = encoder(pixels.pixels_SCHW.to(device)).mean((2, 3)).cpu()
        views_S = _views(pixels)
        by_view = [
            pooled_SE[views_S == view].mean(0) if (views_S == view).any() else torch.zeros_like(pooled_SE[0])
            for view in (0, 1)
        ]
        return torch.cat(by_view).numpy()

    return features


def neighbour_features(manifest: Path, split: str, train_manifest: Path, *, prepared_as: str) -> dict[str, Any]:
    """Returns frozen features of the studies of a split and of the training studies, or why there are none.

    Args:
        manifest: holds the studies scored.
        split: theirs.
        train_manifest: holds the training studies.
        prepared_as: name or folder of the checkpoint whose way of preparing pictures is taken.

    Returns:
        ``features_NE`` and ``train_features_NE``, or ``not_run``, as ``evaluate_files`` takes them.
    """
    frozen = frozen_encoder(Processor.load(resolve_checkpoint(prepared_as)), torch.device("cpu"))
    if frozen is None:
        return {"not_run": {"nearest_neighbour": f"the weights of {FROZEN_ENCODER} are not installed"}}
    scored, trained = read_manifest(manifest), read_manifest(train_manifest)
    sources = {"features_NE": (scored, scored.split(split)), "train_features_NE": (trained, training_rows(trained))}
    try:
        return {
            name: np.stack([frozen(source.study(row)) for row in track(rows, description="frozen features")])
            for name, (source, rows) in sources.items()
        }
    except MmfmError as error:
        return {"not_run": {"nearest_neighbour": f"an image cannot be read: {error}"}}


@dataclass(frozen=True, kw_only=True)
class TrainPass:
    """What the pictures of the training studies give."""

    features_NE: np.ndarray | None
    """Of the frozen network; None without it."""
    mean_image: StudyPixels
    """The mean frontal and lateral picture as one study."""
    hashes: list[np.ndarray]
    """Of each study the difference hashes of its pictures, (pictures, 64)."""


def train_pass(
    checkpoint: Checkpoint,
    manifest: Manifest,
    rows: Sequence[ManifestRow],
    frozen: Callable[[Study], np.ndarray] | None,
) -> TrainPass:
    """Reads the pictures of the training studies once, for everything that is needed of them."""
    size = checkpoint.processor.config.image_size
    total_2CHW, count_2 = torch.zeros(2, 1, size, size), torch.zeros(2)
    features, hashes = [], []
    for row in track(rows, description="training studies"):
        study = manifest.study(row)
        pixels = checkpoint.processor.pixels(study)
        hashes.append(hashes_of(pixels))
        for picture, view in zip(pixels.pixels_SCHW, _views(pixels).tolist(), strict=True):
            if view >= 0:
                total_2CHW[view] += picture
                count_2[view] += 1
        if frozen is not None:
            features.append(frozen(study))
    seen = count_2 > 0
    mean = StudyPixels(
        pixels_SCHW=total_2CHW[seen] / count_2[seen][:, None, None, None],
        views_S=torch.arange(2)[seen],
        receipts=(),
    )
    return TrainPass(features_NE=np.stack(features) if features else None, mean_image=mean, hashes=hashes)


def _views(pixels: StudyPixels) -> torch.Tensor:
    """Returns the views; where a study states none, as one of slices of CT or MR, all its pictures count as frontal."""
    views_S = pixels.views_S
    return torch.zeros_like(views_S) if bool((views_S < 0).all()) else views_S


def linear_probe(
    rows: Sequence[ManifestRow],
    features_NE: np.ndarray,
    train_rows: Sequence[ManifestRow],
    train_features_NE: np.ndarray,
) -> tuple[Prediction, ...]:
    """Returns probabilities of a logistic regression on frozen features, for labels with enough positives."""
    names = sorted({name for row in train_rows for name in row.labels})
    scores: dict[str, np.ndarray] = {}
    for name in names:
        states = [row.labels.get(name) for row in train_rows]
        known = np.array([state in (Status.PRESENT, Status.ABSENT) for state in states])
        truth = np.array([state is Status.PRESENT for state in states])[known]
        if min(truth.sum(), (~truth).sum()) >= PROBE_MIN_POSITIVES:
            probe = LogisticRegression(C=PROBE_C, max_iter=500)
            scores[name] = probe.fit(train_features_NE[known], truth).predict_proba(features_NE)[:, 1]
    return tuple(
        Prediction(
            study_uid=row.study_uid,
            findings=None,
            impression=None,
            finding_probabilities={name: float(values[i]) for name, values in scores.items()},
        )
        for i, row in enumerate(rows)
    )
