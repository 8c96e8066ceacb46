"""The two commands: ``predict`` drafts a split, ``evaluate`` drafts it with its controls and scores all.

A result counts only beside its controls. Drafted here are: shuffled images (each study drafted from another patient's
pictures, with its own indication), the mean image of the training studies, the indication alone without any picture,
the finding heads written out as template sentences, and, from a frozen ImageNet network, the nearest training study
and a linear probe. ``mmfm.evaluation`` makes the others. A study outside the checkpoint's scope is scored as one of
which nothing is said.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from mmfm.data.manifest import Manifest, ManifestRow, read_manifest
from mmfm.errors import ManifestError, ScopeError
from mmfm.evaluation import (
    Prediction,
    Provenance,
    Reference,
    Scorecard,
    score_card,
    update_leaderboard,
    update_summary,
    write_predictions,
)
from mmfm.evaluation.controls import shuffled
from mmfm.evaluation.files import TRAIN_SPLITS, training_rows
from mmfm.evaluation.leaderboard import check_summary
from mmfm.evaluation.leaks import NO_HASHES, Leaks, find_leaks
from mmfm.evaluation.per_study import FAMILIES
from mmfm.evaluation.references import GROUPINGS
from mmfm.evaluation.resources import Resources
from mmfm.evaluation.results import write_results
from mmfm.evaluation.robustness import Robustness
from mmfm.evaluation.scorecard import NOT_STATED
from mmfm.evaluation.scoring import check_apart
from mmfm.inference import choose_device
from mmfm.measure.controls import frozen_encoder, linear_probe, template, train_pass
from mmfm.measure.cost import Meter, resources_of
from mmfm.measure.drafts import (
    draft_all,
    draft_all_text_only,
    hashes_of,
    in_scope,
    predictions_of,
    those_in_scope,
)
from mmfm.measure.robustness import measure_robustness
from mmfm.models.checkpoint import Checkpoint, load_checkpoint, renew_card_sum, resolve_checkpoint
from mmfm.models.processor import StudyPixels
from mmfm.study import Study
from mmfm.training.provenance import git_commit


def predict(
    *, manifest: Path, split: str, checkpoint: str, out: Path, batch_size: int = 16, device: str = "auto"
) -> tuple[Prediction, ...]:
    """Drafts the studies of a split and writes them as ``predictions.jsonl``, whole or not at all.

    A study outside the checkpoint's scope gets a line without text, and is counted on standard error.

    Raises:
        MmfmError: the manifest, the split or the checkpoint is wrong, or a study cannot be read.
    """
    opened = load_checkpoint(checkpoint, device=choose_device(device))
    source = read_manifest(manifest)
    rows = source.split(split)
    _, read = _read(opened, source, rows)
    inside, pixels = those_in_scope(rows, read)
    drafts = draft_all(opened, inside, pixels, batch_size=batch_size)
    written = {p.study_uid: p for p in predictions_of(drafts)}
    nothing = [Prediction(study_uid=row.study_uid, findings=None, impression=None) for row in rows]
    predictions = tuple(written.get(p.study_uid, p) for p in nothing)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(predictions, out)
    return predictions


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything about a checkpoint on a split that takes the checkpoint or pictures to know."""

    references: tuple[Reference, ...]
    """The studies scored, with sex, age and views that only their files state."""
    train: tuple[Reference, ...]
    """The studies that the model was trained on."""
    predictions: tuple[Prediction, ...]
    controls: dict[str, tuple[Prediction, ...]]
    thresholds: dict[str, float]
    """P(present) from which on the checkpoint states a finding: frozen with it, never chosen on the studies scored."""
    features_NE: np.ndarray | None
    """Of a frozen ImageNet network, of the studies scored; None without its weights."""
    train_features_NE: np.ndarray | None
    leaks: Leaks
    resources: Resources
    robustness: tuple[Robustness, ...] | None
    """None where it was not run."""


def evaluate(
    *,
    checkpoint: str,
    manifest: Path,
    split: str,
    train_manifest: Path,
    out: Path,
    train_splits: Sequence[str] = TRAIN_SPLITS,
    leaderboard: Path | None = None,
    summary: Path | None = None,
    write_card: bool = False,
    batch_size: int = 16,
    device: str = "auto",
    seed: int = 0,
    robustness: int = 0,
    families: Sequence[str] = FAMILIES,
    subgroups: Sequence[str] = GROUPINGS,
    wording_sections: Sequence[str] = ("findings",),
) -> Scorecard:
    """Drafts a split with its controls, scores them, and writes the folder of results.

    Args:
        checkpoint: name or folder.
        manifest: holds the studies scored.
        split: theirs.
        train_manifest: holds the studies that the model was trained on, for the controls and to look for leaks.
        out: a folder for the results.
        train_splits: splits of ``train_manifest`` that count as training studies.
        leaderboard: a page such as ``experiments/README.md`` that gets a row and a table.
        summary: a page such as ``README.md`` that gets the headline scores between its markers.
        write_card: write the headline scores into the checkpoint's own card.
        batch_size: studies drafted at once.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        seed: of the bootstrap, of the shuffling and of what robustness draws.
        robustness: studies that are drafted again from altered pictures, about 13 times each; 0 for none.
        families: kinds of scores.
        subgroups: groupings to score by.
        wording_sections: sections that wording metrics compare.

    Raises:
        MmfmError: an input is wrong.
    """
    folder = resolve_checkpoint(checkpoint)
    for page in filter(None, (summary, folder / "card.md" if write_card else None)):
        check_summary(page)  # not after an hour of drafting
    opened = load_checkpoint(checkpoint, device=choose_device(device))
    scored, trained = read_manifest(manifest), read_manifest(train_manifest)
    rows = scored.split(split)
    train_rows = training_rows(trained, train_splits)
    check_apart([Reference.from_row(row) for row in rows], [Reference.from_row(row) for row in train_rows])
    training = json.loads((folder / "provenance.json").read_text())
    generator = np.random.default_rng(seed)
    measured = _measure(
        opened, scored, rows, trained, train_rows,
        generator=generator, batch_size=batch_size, robustness=robustness, training=training,
    )  # fmt: skip
    hours = measured.resources.training_hours
    card = score_card(
        predictions=measured.predictions,
        references=measured.references,
        train=measured.train,
        controls=measured.controls,
        generator=generator,
        features_NE=measured.features_NE,
        train_features_NE=measured.train_features_NE,
        thresholds=measured.thresholds,
        leaks=measured.leaks,
        robustness=measured.robustness or (),
        resources=measured.resources,
        families=families,
        groupings=subgroups,
        wording_sections=wording_sections,
        provenance=Provenance(
            experiment=opened.name,
            data=f"{rows[0].source} {split}",
            hardware=measured.resources.training_device,
            time=NOT_STATED if hours is None else f"{hours:.2f} h",
            date=datetime.date.today().isoformat(),
            commit=git_commit() or NOT_STATED,
            references_sha256=hashlib.sha256(Path(manifest).read_bytes()).hexdigest(),
            checkpoint_sha256=opened.sha256,
        ),
    )
    write_results(
        out,
        card,
        predictions=measured.predictions,
        references=measured.references,
        controls=measured.controls,
    )
    if leaderboard is not None:
        update_leaderboard(leaderboard, card)
    if summary is not None:
        update_summary(summary, card)
    if write_card:
        update_summary(folder / "card.md", card)
        renew_card_sum(folder)
    return card


def _measure(
    opened: Checkpoint,
    scored: Manifest,
    rows: Sequence[ManifestRow],
    trained: Manifest,
    train_rows: Sequence[ManifestRow],
    *,
    generator: np.random.Generator,
    batch_size: int,
    robustness: int,
    training: dict[str, Any],
) -> Measured:
    """Drafts ``rows`` of ``scored`` and everything beside them; see ``evaluate``."""
    with Meter(next(opened.model.parameters()).device) as reading:
        studies, read = _read(opened, scored, rows)
    inside, pixels = those_in_scope(rows, read)
    if not inside:
        first = read[0]
        assert isinstance(first, ScopeError)
        raise ManifestError(
            f"split {rows[0].split}", expected=f"studies in the checkpoint's scope, as {first.expected}",
            found=f"none; the first: {first.found}",
            fix="score a split that the checkpoint was made for",
        )  # fmt: skip
    if any(item.slabs for item in pixels):
        raise ManifestError(
            f"split {rows[0].split}", expected="pictures: the controls are made of pictures", found="a volume",
            fix="score volumes with benchmarks/synthetic_volumes.py, or their drafts with mmfm evaluate --predictions",
        )  # fmt: skip
    with Meter(reading.device) as drafting:
        drafts = draft_all(opened, inside, pixels, batch_size=batch_size)
    resources = resources_of(
        opened, drafts, reading=reading, num_read=len(read), drafting=drafting, batch_size=batch_size,
        training=training,
    )  # fmt: skip
    # What the checkpoint refuses has no draft from any of the controls that draft; the others know every study.
    order = shuffled([row.patient_id for row in inside], generator)
    frozen = frozen_encoder(opened.processor, reading.device)
    of_train = train_pass(opened, trained, train_rows, frozen)
    from_others = draft_all(
        opened, inside, [pixels[i] for i in order], batch_size=batch_size, description="shuffled images"
    )
    from_mean = draft_all(
        opened, inside, [of_train.mean_image] * len(inside), batch_size=batch_size, description="mean image"
    )
    controls = {
        "shuffled_images": predictions_of(from_others),
        "mean_image": predictions_of(from_mean),
        "text_only": predictions_of(draft_all_text_only(opened, inside, batch_size=batch_size)),
        "heads_template": tuple(template(one) for one in drafts),
    }
    features = None
    if frozen is not None and of_train.features_NE is not None:
        # Of a picture that cannot be read the cheap controls know what training pictures are on average.
        unread = of_train.features_NE.mean(0)
        features = np.stack(
            [_features(frozen, scored.study(row), unread) for row in track(rows, description="frozen features")]
        )
        controls["linear_probe"] = linear_probe(rows, features, train_rows, of_train.features_NE)
    predictions = predictions_of(drafts)
    references = tuple(_reference(row, study) for row, study in zip(rows, studies, strict=True))
    train = tuple(Reference.from_row(row) for row in train_rows)
    return Measured(
        references=references,
        train=train,
        predictions=predictions,
        controls=controls,
        thresholds=dict(opened.facts.operating_points),
        features_NE=features,
        train_features_NE=of_train.features_NE,
        leaks=find_leaks(
            references,
            train,
            files=_files(rows),
            train_files=_files(train_rows),
            hashes=[hashes_of(item) if isinstance(item, StudyPixels) else NO_HASHES for item in read],
            train_hashes=of_train.hashes,
        ),
        resources=resources,
        robustness=(
            measure_robustness(
                opened, scored, inside, predictions,
                # draws of its own, so that the scores of the card are the same with it and without
                num_studies=robustness, generator=generator.spawn(1)[0], batch_size=batch_size,
            )
            if robustness
            else None
        ),
    )  # fmt: skip


def _read(
    opened: Checkpoint, manifest: Manifest, rows: Sequence[ManifestRow]
) -> tuple[list[Study], list[StudyPixels | ScopeError]]:
    """Returns each study and what the checkpoint reads of it; those refused are counted on standard error."""
    studies, read = [], []
    for row in track(rows, description="reading"):
        studies.append(manifest.study(row))
        read.append(in_scope(opened, studies[-1], row.region))
    refused = [item for item in read if isinstance(item, ScopeError)]
    if refused:
        print(f"{len(refused)} of {len(rows)} studies not drafted; the first: {refused[0]}", file=sys.stderr)
    return studies, read


def _features(frozen: Callable[[Study], np.ndarray], study: Study, unread: np.ndarray) -> np.ndarray:
    try:
        return frozen(study)
    except ScopeError:
        return unread


def _reference(row: ManifestRow, study: Study) -> Reference:
    views = sorted({series.view.value for series in study.series if series.view is not None})
    return replace(
        Reference.from_row(row),
        sex=study.patient.sex.value if study.patient.sex is not None else None,
        age=study.patient.age_years,
        view=", ".join(views) or None,
    )


def _files(rows: Sequence[ManifestRow]) -> list[set[str]]:
    return [{series.sha256 for series in row.series if series.sha256 is not None} for row in rows]
