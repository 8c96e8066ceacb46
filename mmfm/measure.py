"""Measure a checkpoint: draft every study of a split, and score the drafts beside their controls.

    mmfm predict --manifest M --split val --checkpoint C --out predictions.jsonl
    mmfm evaluate --checkpoint C --manifest M --split val --train-manifest T --out DIR

The controls that need a model or pictures are drafted here (design: a result counts only beside its controls):
shuffled images (each study drafted from another patient's pictures, with its own indication), the mean image of the
training studies, the finding heads written out as template sentences, and, from a frozen ImageNet network, the
nearest training study and a linear probe. ``mmfm.evaluation`` makes the others and scores all.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from mmfm.data.manifest import Manifest, ManifestRow, read_manifest
from mmfm.errors import ConfigError, ManifestError, ScopeError
from mmfm.evaluation import (
    Prediction,
    Provenance,
    Scorecard,
    score_card,
    shuffled,
    update_leaderboard,
    update_summary,
    write_predictions,
)
from mmfm.evaluation.leaderboard import check_summary
from mmfm.inference import check_study, choose_device
from mmfm.models.checkpoint import Checkpoint, load_checkpoint, renew_card_sum, resolve_checkpoint
from mmfm.models.drafting import Draft, draft
from mmfm.models.encoder2d import Encoder2D
from mmfm.models.processor import Processor, StudyPixels
from mmfm.report import Status
from mmfm.study import Study
from mmfm.text import describe
from mmfm.training.provenance import git_commit

FROZEN_ENCODER, FROZEN_SIZE = "tf_efficientnet_lite2", 260
PROBE_C = 1e-2
"""Inverse of the probe's ridge penalty. Of the values 1e-5 to 1, on features as they are and standardised, this one on
features as they are was best in three-fold cross-validation on the training studies of IU X-Ray."""
PROBE_MIN_POSITIVES = 10
T = TypeVar("T")


def predict(
    *, manifest: Path, split: str, checkpoint: str, out: Path, batch_size: int = 16, device: str = "auto"
) -> tuple[Prediction, ...]:
    """Drafts the studies of a split and writes them as ``predictions.jsonl``, whole or not at all.

    A study outside the checkpoint's scope gets a line without text, and is counted on standard error.

    Raises:
        MmfmError: the manifest, the split or the checkpoint is wrong, or a study cannot be read.
    """
    opened = load_checkpoint(checkpoint, device=choose_device(device))
    studies = read_manifest(manifest)
    rows = studies.split(split)
    read = [_in_scope(opened, studies, row) for row in track(rows, description="reading")]
    inside = [(row, item) for row, item in zip(rows, read, strict=True) if isinstance(item, StudyPixels)]
    drafts = draft_all(opened, [row for row, _ in inside], [item for _, item in inside], batch_size=batch_size)
    written = {p.study_uid: p for p in _predictions(drafts)}
    nothing = [Prediction(study_uid=row.study_uid, findings=None, impression=None) for row in rows]
    predictions = tuple(written.get(p.study_uid, p) for p in nothing)
    refused = [item for item in read if isinstance(item, ScopeError)]
    if refused:
        print(f"{len(refused)} of {len(rows)} studies not drafted; the first: {refused[0]}", file=sys.stderr)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(predictions, out)
    return predictions


def evaluate(
    *,
    checkpoint: str,
    manifest: Path,
    split: str,
    train_manifest: Path,
    out: Path,
    train_splits: Sequence[str] = ("train", "extra"),
    leaderboard: Path | None = None,
    summary: Path | None = None,
    write_card: bool = False,
    batch_size: int = 16,
    device: str = "auto",
    seed: int = 0,
) -> Scorecard:
    """Drafts a split with its controls, scores them, and writes ``scorecard.json`` and ``predictions.jsonl``.

    Args:
        checkpoint: name or folder.
        manifest: holds the studies scored.
        split: theirs.
        train_manifest: holds the studies that the model was trained on, for the controls.
        out: a folder for the results.
        train_splits: splits of ``train_manifest`` that count as training studies.
        leaderboard: a page such as ``experiments/README.md`` that gets a row and a table.
        summary: a page such as ``README.md`` that gets the headline scores between its markers.
        write_card: write the headline scores into the checkpoint's own card.
        batch_size: studies drafted at once.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        seed: of the bootstrap and of the shuffling.

    Raises:
        MmfmError: an input is wrong.
    """
    folder = resolve_checkpoint(checkpoint)
    for page in filter(None, (summary, folder / "card.md" if write_card else None)):
        check_summary(page)  # not after an hour of drafting
    opened = load_checkpoint(checkpoint, device=choose_device(device))
    scored, trained = read_manifest(manifest), read_manifest(train_manifest)
    rows = scored.split(split)
    known = {row.split for row in trained.rows}
    train_rows = trained.split(*(name for name in train_splits if name in known))
    generator = np.random.default_rng(seed)

    read = [_in_scope(opened, scored, row) for row in track(rows, description="reading")]
    for place, item in enumerate(read, start=1):
        if isinstance(item, ScopeError):
            raise ManifestError(
                f"study {place} of split {split}", expected=item.expected, found=item.found,
                fix="score a split whose studies lie in the checkpoint's scope",
            )  # fmt: skip
    pixels = [item for item in read if isinstance(item, StudyPixels)]
    drafts = draft_all(opened, rows, pixels, batch_size=batch_size)
    order = shuffled([row.patient_id for row in rows], generator)
    frozen = _frozen_encoder(opened)
    train_features, mean_image = _train_pass(opened, trained, train_rows, frozen)
    controls = {
        "shuffled_images": _predictions(draft_all(opened, rows, [pixels[i] for i in order], batch_size=batch_size)),
        "mean_image": _predictions(draft_all(opened, rows, [mean_image] * len(rows), batch_size=batch_size)),
        "heads_template": tuple(_template(d) for d in drafts),
    }
    features = None
    if frozen is not None and train_features is not None:
        features = np.stack([frozen(scored.study(row)) for row in track(rows, description="frozen features")])
        controls["linear_probe"] = _linear_probe(rows, features, train_rows, train_features)
    hardware, hours = _training_cost(folder)
    card = score_card(
        predictions=_predictions(drafts),
        rows=rows,
        train_rows=train_rows,
        controls=controls,
        generator=generator,
        features_NE=features,
        train_features_NE=train_features,
        provenance=Provenance(
            experiment=opened.name,
            data=f"{rows[0].source} {split}",
            hardware=hardware,
            time=hours,
            date=datetime.date.today().isoformat(),
            commit=git_commit() or "not stated",
            manifest_sha256=hashlib.sha256(Path(manifest).read_bytes()).hexdigest(),
            checkpoint_sha256=opened.sha256,
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    write_predictions(_predictions(drafts), out / "predictions.jsonl")
    for name, predictions in controls.items():
        write_predictions(predictions, out / f"control_{name}.jsonl")
    card.write(out / "scorecard.json")
    if leaderboard is not None:
        update_leaderboard(leaderboard, card)
    if summary is not None:
        update_summary(summary, card)
    if write_card:
        update_summary(folder / "card.md", card)
        renew_card_sum(folder)
    return card


def _in_scope(checkpoint: Checkpoint, manifest: Manifest, row: ManifestRow) -> StudyPixels | ScopeError:
    """Returns the pictures of a row, or why the checkpoint drafts nothing from it."""
    study = manifest.study(row)
    try:
        check_study(study, checkpoint.facts.scope, checkpoint=checkpoint.name)
        return checkpoint.processor.pixels(study)
    except ScopeError as error:
        return error


def draft_all(
    checkpoint: Checkpoint,
    rows: Sequence[ManifestRow],
    pixels: Sequence[StudyPixels],
    *,
    batch_size: int,
) -> list[Draft]:
    """Returns a draft of each row from the pictures given, in batches, with a progress bar."""
    studies = [(row.study_uid, item, row.report.indication) for row, item in zip(rows, pixels, strict=True)]
    drafts: list[Draft] = []
    batches = list(_batches(studies, batch_size))
    for batch in track(batches, description="drafting"):
        drafts += draft(checkpoint, batch)
    return drafts


def _predictions(drafts: Sequence[Draft]) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(
            study_uid=d.study_uid,
            findings=d.findings or "",
            impression=d.impression or "",
            finding_probabilities=d.probabilities,
        )
        for d in drafts
    )


def _template(drafted: Draft) -> Prediction:
    findings, impression = describe(drafted.decisions)
    return Prediction(study_uid=drafted.study_uid, findings=findings, impression=impression)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _frozen_encoder(checkpoint: Checkpoint) -> Callable[[Study], np.ndarray] | None:
    """Returns study -> features of a frozen ImageNet network (frontal, then lateral); None without its weights.

    The network reads pictures of its own size, whatever the checkpoint reads.
    """
    try:
        encoder = Encoder2D.Config(name=FROZEN_ENCODER, image_size=FROZEN_SIZE).build().eval()
    except ConfigError:
        return None
    config = replace(checkpoint.processor.config, image_size=FROZEN_SIZE)
    processor = Processor(config, checkpoint.processor.tokenizer)
    device = next(checkpoint.model.parameters()).device
    encoder.to(device)

    def features(study: Study) -> np.ndarray:
        pixels = processor.pixels(study)
        with torch.inference_mode():
            pooled_SE = encoder(pixels.pixels_SCHW.to(device)).mean((2, 3)).cpu()
        by_view = [
            pooled_SE[pixels.views_S == view].mean(0)
            if (pixels.views_S == view).any()
            else torch.zeros_like(pooled_SE[0])
            for view in (0, 1)
        ]
        return torch.cat(by_view).numpy()

    return features


def _train_pass(
    checkpoint: Checkpoint,
    manifest: Manifest,
    rows: Sequence[ManifestRow],
    frozen: Callable[[Study], np.ndarray] | None,
) -> tuple[np.ndarray | None, StudyPixels]:
    """Returns frozen features of the training studies, and their mean frontal and lateral picture as one study."""
    size = checkpoint.processor.config.image_size
    total_2CHW, count_2 = torch.zeros(2, 1, size, size), torch.zeros(2)
    features = []
    for row in track(rows, description="training studies"):
        study = manifest.study(row)
        pixels = checkpoint.processor.pixels(study)
        for picture, view in zip(pixels.pixels_SCHW, pixels.views_S.tolist(), strict=True):
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
    return np.stack(features) if features else None, mean


def _linear_probe(
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


def _training_cost(folder: Path) -> tuple[str, str]:
    """Returns hardware and time of the training, as the checkpoint says."""
    record = json.loads((folder / "provenance.json").read_text())
    if "hardware" not in record:
        return "not stated", "not stated"
    return record["hardware"], f"{record['seconds'] / 3600:.2f} h"


__all__ = ["draft_all", "evaluate", "predict"]
