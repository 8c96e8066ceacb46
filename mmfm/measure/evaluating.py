"""The two commands: ``predict`` drafts a split, ``evaluate`` drafts it with its controls and scores all.

A result counts only beside its controls. Drafted here are: shuffled images (each study drafted from another patient's
pictures, with its own indication), the mean image of the training studies, the indication alone without any picture,
the finding heads written out as template sentences, and, from a frozen ImageNet network, the nearest training study
and a linear probe; of volumes neither these two nor the mean image. ``mmfm.evaluation`` makes the others. A study
outside the checkpoint's scope is scored as one of which nothing is said.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
import time
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
    read_and_draft_all,
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
        MmfmError: the manifest, the split or the checkpoint is wrong, or a study cannot be read, which ends the run
            wherever it is (``mmfm inspect`` finds such studies before).
    """
    opened = load_checkpoint(checkpoint, device=choose_device(device))
    source = read_manifest(manifest)
    rows = source.split(split)
    drafts, refused = read_and_draft_all(opened, source, rows, batch_size=batch_size)
    _tell(refused, len(rows))
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
    not_run: dict[str, str]
    """What else a card may have, and why it was not made."""
    thresholds: dict[str, float]
    """P(present) from which on the checkpoint states a finding: frozen with it, never chosen on the studies scored."""
    features_NE: np.ndarray | None
    """Of a frozen ImageNet network, of the studies scored; None of volumes, and without its weights."""
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
        robustness: studies that are drafted again from altered pictures, about 13 times each; 0 for none, and for
            volumes.
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
        not_run=measured.not_run,
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
    device = next(opened.model.parameters()).device
    references, read, seconds_to_read, are_volumes = _read(opened, scored, rows, robustness=robustness)
    inside, pictures = those_in_scope(rows, read)
    # What the checkpoint refuses has no draft from any of the controls that draft; the others know every study.
    order = shuffled([row.patient_id for row in inside], generator)
    reread_s = 0.0

    def pixels(number: int) -> StudyPixels:
        nonlocal reread_s
        if not are_volumes:
            return pictures[number]
        row, start = inside[number], time.perf_counter()
        volume = opened.processor.pixels(scored.study(row), region=row.region)
        reread_s += time.perf_counter() - start
        return volume

    with Meter(device) as drafting:
        drafts = draft_all(opened, inside, map(pixels, range(len(inside))), batch_size=batch_size)
    resources = resources_of(
        opened, drafts, seconds_to_read=seconds_to_read, seconds_to_draft=drafting.seconds - reread_s,
        drafting=drafting, batch_size=batch_size, training=training,
    )  # fmt: skip
    from_others = draft_all(opened, inside, map(pixels, order), batch_size=batch_size, description="shuffled images")
    controls = {
        "shuffled_images": predictions_of(from_others),
        "text_only": predictions_of(draft_all_text_only(opened, inside, batch_size=batch_size)),
        "heads_template": tuple(template(one) for one in drafts),
    }
    not_run, of_train, features = {}, None, None
    if are_volumes:
        not_run = dict.fromkeys(
            ("mean_image", "nearest_neighbour", "robustness"), "not run; of pictures alone, not of volumes"
        )
    else:
        frozen = frozen_encoder(opened.processor, device)
        of_train = train_pass(opened, trained, train_rows, frozen)
        mean = [of_train.mean_image] * len(inside)
        from_mean = draft_all(opened, inside, mean, batch_size=batch_size, description="mean image")
        controls["mean_image"] = predictions_of(from_mean)
        if frozen is not None and of_train.features_NE is not None:
            # Of a picture that cannot be read the cheap controls know what training pictures are on average.
            unread = of_train.features_NE.mean(0)
            features = np.stack(
                [_features(frozen, scored.study(row), unread) for row in track(rows, description="frozen features")]
            )
            controls["linear_probe"] = linear_probe(rows, features, train_rows, of_train.features_NE)
    predictions = predictions_of(drafts)
    train = tuple(Reference.from_row(row) for row in train_rows)
    return Measured(
        references=references,
        train=train,
        predictions=predictions,
        controls=controls,
        not_run=not_run,
        thresholds=dict((opened.facts.volumes if are_volumes else opened.facts).operating_points),
        features_NE=features,
        train_features_NE=None if of_train is None else of_train.features_NE,
        leaks=find_leaks(
            references,
            train,
            files=_files(rows),
            train_files=_files(train_rows),
            hashes=(
                None
                if of_train is None
                else [hashes_of(item) if isinstance(item, StudyPixels) else NO_HASHES for item in read]
            ),
            train_hashes=None if of_train is None else of_train.hashes,
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
    opened: Checkpoint, manifest: Manifest, rows: Sequence[ManifestRow], *, robustness: int
) -> tuple[tuple[Reference, ...], list[StudyPixels | ScopeError], float, bool]:
    """Returns the references, what the checkpoint reads of each study, mean seconds of reading, and if it is volumes.

    The slabs of volumes are not kept: those of a split would fill any memory.

    Raises:
        ManifestError: all are refused; some are read as pictures and some as volumes; or volumes are to be altered.
    """
    references: list[Reference] = []
    read: list[StudyPixels | ScopeError] = []
    kinds: set[bool] = set()
    start = time.perf_counter()
    for row in track(rows, description="reading"):
        study = manifest.study(row)
        references.append(_reference(row, study))
        item = in_scope(opened, study, row.region)
        if isinstance(item, StudyPixels):
            kinds.add(bool(item.slabs))
            item = replace(item, slabs=())
        read.append(item)
        if len(kinds) > 1:
            raise ManifestError(
                f"split {rows[0].split}", expected="pictures or volumes: their controls differ",
                found=f"both among the first {len(read)} studies", fix="score them with a manifest each",
            )  # fmt: skip
        if robustness and True in kinds:
            raise ManifestError(
                "--robustness", expected="0 for volumes: what is altered are pictures", found=str(robustness),
                fix="leave it out",
            )  # fmt: skip
    seconds = (time.perf_counter() - start) / len(rows)
    refused = [item for item in read if isinstance(item, ScopeError)]
    if not kinds:
        raise ManifestError(
            f"split {rows[0].split}", expected=f"studies in the checkpoint's scope, as {refused[0].expected}",
            found=f"none; the first: {refused[0].found}",
            fix="score a split that the checkpoint was made for",
        )  # fmt: skip
    _tell(refused, len(rows))
    return tuple(references), read, seconds, True in kinds


def _tell(refused: Sequence[ScopeError], num_studies: int) -> None:
    if refused:
        print(f"{len(refused)} of {num_studies} studies not drafted; the first: {refused[0]}", file=sys.stderr)


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
