"""Operating points: from which probability on a finding or a lesion is stated, chosen on studies set apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from mmfm.batch import Batch
from mmfm.data.manifest import NORMAL
from mmfm.evaluation.lesions import Match, match_lesions
from mmfm.models.checkpoint import Facts, Scope, Sensitivity, VolumeFacts
from mmfm.models.lesions import find_lesions
from mmfm.models.processor import Processor
from mmfm.models.vlm import VLM, Encoded
from mmfm.models.volume_heads import LEAST_PEAK
from mmfm.report import Lesion
from mmfm.text import REGIONS, observations

MIN_POINT_POSITIVES = 5
"""Studies set apart with a finding that an operating point needs."""
MIN_POSITIVES = 10
"""Those that a sensitivity needs, on which a reader's trust in a negative rests."""
MOST_FALSE_LESIONS = 0.1
"""Of one observation in a volume, at its operating point: of the three that a region counts, 0.3 together."""
NEARLY_BEST = 0.98
"""Of the best F1: thresholds from there on are as good, and their middle hangs least on single studies."""
MIN_AUROC = 0.75
"""Of a finding head on the studies set apart, for its finding to be stated at all: with less, the threshold of the best
F1 is to state the finding always."""


def operating_points(
    model: VLM,
    processor: Processor,
    batches: Iterable[Batch],
    *,
    measured: np.ndarray,
    scope: Scope,
    by_all: bool,
) -> Facts:
    """Returns operating points and sensitivities measured on the studies set apart.

    The operating point of an observation is in the middle of those with nearly the best F1 on the studies
    ``measured``, or on all studies set apart where those hold fewer than ``MIN_POINT_POSITIVES`` with it. What has too
    few even there, or a head below ``MIN_AUROC``, is never stated. A state that nobody gave counts as not present, as a
    text that does not name a finding does not state it; studies of regions whose vocabulary lacks the observation do
    not count. Sensitivity is measured on the studies ``measured`` alone.

    Args:
        model: in evaluation mode.
        processor: whose observations and lesions its heads have.
        batches: of the studies set apart.
        measured: bool, one for each study: of a source that sensitivities may rest on.
        scope: of the checkpoint.
        by_all: every source may be rested on, drawn volumes too.
    """
    device = next(model.parameters()).device
    present, known, volumes = [], [], []
    regions: list[str] = []
    found: dict[str, list[Match]] = {name: [] for name in processor.config.lesions}
    with torch.inference_mode():
        for batch in batches:
            encoded = model.encode(batch.to(device), seek_lesions=True)
            present.append(encoded.heads.present_BO.float().sigmoid().cpu().numpy())
            known.append(batch.states_BO.numpy())
            regions += batch.regions
            volumes.append(np.isin(np.arange(len(batch.regions)), batch.volume_study_N.numpy()))
            for name, match in _matches(batch, encoded, model, processor):
                found[name].append(match)
    scores = _Scores(
        names=processor.config.observations,
        regions=tuple(regions),
        probabilities=np.concatenate(present),
        present=np.concatenate(known) == 1,
        measured=measured,
    )
    is_volume = np.concatenate(volumes)
    points, sensitivity = _points(scores, ~is_volume)
    volume_points, volume_sensitivity = _points(scores, is_volume)
    lesion_points = {name: point for name, all_of in found.items() if (point := lesion_threshold(all_of)) is not None}
    if by_all:
        volume_sensitivity |= {name: s for name, point in lesion_points.items() if (s := _found(found[name], point))}
    counted = processor.config.lesions
    return Facts(
        scope=scope,
        operating_points=points,
        sensitivity=sensitivity,
        volumes=VolumeFacts(
            operating_points={name: point for name, point in volume_points.items() if name not in counted},
            lesion_points=lesion_points,
            sensitivity=volume_sensitivity,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """What the heads say of the studies set apart (N), and what is there."""

    names: tuple[str, ...]
    regions: tuple[str, ...]
    probabilities: np.ndarray
    """(N, O)."""
    present: np.ndarray
    """bool (N, O); a state that nobody gave counts as not present."""
    measured: np.ndarray
    """bool (N,): of ``measured_on``."""


def _points(scores: _Scores, among: np.ndarray) -> tuple[dict[str, float], dict[str, Sensitivity]]:
    """Returns operating points and sensitivities by observation on the studies ``among`` all."""
    points, sensitivity = {}, {}
    for column, name in enumerate(scores.names):
        if name == NORMAL:
            continue
        able = among & np.array([region in REGIONS and name in observations(region) for region in scores.regions])
        truth, p = scores.present[:, column], scores.probabilities[:, column]
        own = scores.measured & truth & able
        rows = able & scores.measured if own.sum() >= MIN_POINT_POSITIVES else able
        if truth[rows].sum() < MIN_POINT_POSITIVES or truth[rows].all():
            continue
        if roc_auc_score(truth[rows], p[rows]) < MIN_AUROC:
            continue
        points[name] = best_f1_threshold(truth[rows], p[rows])
        if own.sum() >= MIN_POSITIVES:
            share = float((p[own] >= points[name]).mean())
            sensitivity[name] = Sensitivity(value=round(share, 4), positives=int(own.sum()))
    return points, sensitivity


def _found(matches: Sequence[Match], point: float) -> Sensitivity | None:
    """Returns the share of volumes with lesions in which at least one was found; None where they are too few."""
    shown = [match for match in matches if match.hits or match.missed]
    if len(shown) < MIN_POSITIVES:
        return None
    found = [any((stated.probability or 0) >= point for _, stated in match.hits) for match in shown]
    return Sensitivity(value=round(sum(found) / len(found), 4), positives=len(found))


def _matches(batch: Batch, encoded: Encoded, model: VLM, processor: Processor) -> Iterator[tuple[str, Match]]:
    """Yields how what is found in each study fits what is known of it, for each observation of its region."""
    study_N = batch.volume_study_N.tolist()
    for row, region in enumerate(batch.regions):
        own = [i for i, study in enumerate(study_N) if study == row]
        slabs = [batch.volumes[i] for i in own]
        if not slabs or slabs[0].lesions_X6 is None:
            continue
        names = [name for name in processor.config.lesions if name in observations(region)]
        affines = [slab.affine_44.numpy() for slab in slabs]
        found = [encoded.peaks[i] for i in own]
        candidates = find_lesions(processor, affines, found, dict.fromkeys(names, LEAST_PEAK), stride=model.fine_stride)
        # Each slab lists all lesions of the study; those beyond every slab were not there to be found.
        shown_X = torch.stack([slab.inside_X for slab in slabs]).any(0).cpu().numpy()
        lesions_X6 = slabs[0].lesions_X6.cpu().double().numpy()[shown_X]
        for name in names:
            truth = [
                Lesion(center_mm=tuple((affines[0] @ [*lesion[:3], 1.0])[:3].tolist()), diameter_mm=float(lesion[3]))
                for lesion in lesions_X6[lesions_X6[:, 4] == processor.config.lesions.index(name)]
            ]
            yield name, match_lesions(truth, candidates.get(name, ()))


def lesion_threshold(matches: Sequence[Match]) -> float | None:
    """Returns the P in the middle of those whose F1 is nearly the best, among those with few enough false lesions.

    At the best alone it would lie beside a lesion's P, and what is found there hang on how a study was written.

    Args:
        matches: what was found in each study that may show the observation.

    Returns:
        None where fewer than ``MIN_POINT_POSITIVES`` studies have a lesion, or no P finds any at few enough false ones.
    """
    hits = np.array([lesion.probability or 0.0 for match in matches for _, lesion in match.hits])
    false = np.array([lesion.probability or 0.0 for match in matches for lesion in match.false])
    total = sum(len(match.hits) + len(match.missed) for match in matches)
    if sum(bool(match.hits or match.missed) for match in matches) < MIN_POINT_POSITIVES:
        return None
    grid = np.arange(64 * LEAST_PEAK, 64) / 64
    found, wrong = ((scores[None, :] >= grid[:, None]).sum(1) for scores in (hits, false))
    f1 = 2 * found / (found + wrong + total)
    f1[wrong > MOST_FALSE_LESIONS * len(matches)] = -1
    return _middle(grid, f1) if f1.max() > 0 else None


def best_f1_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """Returns the threshold in the middle of those whose F1 is nearly the best, among 1/64 to 63/64.

    Args:
        truth: bool, one for each study.
        scores: P(present), 0 to 1.
    """
    grid = np.arange(1, 64) / 64
    stated = scores[None, :] >= grid[:, None]
    hits = (stated & truth).sum(1)
    f1 = 2 * hits / np.maximum(stated.sum(1) + truth.sum(), 1)
    return _middle(grid, f1)


def _middle(grid: np.ndarray, f1: np.ndarray) -> float:
    """Returns the middle of the longest run of thresholds that are nearly as good as the best, the lowest of equals."""
    near = np.flatnonzero(f1 >= NEARLY_BEST * f1.max())
    together = np.split(near, np.flatnonzero(np.diff(near) > 1) + 1)
    return float(np.median(grid[max(together, key=len)]))
