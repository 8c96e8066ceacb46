"""Score the drafts of any system, which come as a file, against a manifest or a file of references.

mmfm evaluate --predictions P.jsonl --references R.jsonl --out DIR
mmfm evaluate --predictions P.jsonl --manifest M --split val --train-manifest T --out DIR
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmfm.data.manifest import Manifest, ManifestRow
from mmfm.errors import ConfigError
from mmfm.evaluation.per_study import FAMILIES
from mmfm.evaluation.predictions import read_predictions
from mmfm.evaluation.references import GROUPINGS, Reference
from mmfm.evaluation.results import write_results
from mmfm.evaluation.scorecard import Provenance, Scorecard
from mmfm.evaluation.scoring import score_card

TRAIN_SPLITS = ("train", "extra")


def training_rows(manifest: Manifest, splits: Sequence[str] = TRAIN_SPLITS) -> tuple[ManifestRow, ...]:
    """Returns the rows of the training studies: of those of ``splits`` that the manifest has.

    Raises:
        ManifestError: the manifest has none of the splits.
    """
    known = {row.split for row in manifest.rows}
    return manifest.split(*([name for name in splits if name in known] or splits[:1]))


def evaluate_files(
    *,
    predictions: Path,
    references: Sequence[Reference],
    origin: Path,
    data: str,
    out: Path,
    train: Sequence[Reference] = (),
    controls: Mapping[str, Path] | None = None,
    name: str | None = None,
    subgroups: Sequence[str] = GROUPINGS,
    families: Sequence[str] = FAMILIES,
    wording_sections: Sequence[str] = ("findings",),
    thresholds: Path | None = None,
    features_NE: np.ndarray | None = None,
    train_features_NE: np.ndarray | None = None,
    not_run: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Scorecard:
    """Scores a file of drafts and writes the folder of results.

    Args:
        predictions: the drafts, ``predictions.jsonl``.
        references: what they are scored against.
        origin: the file that the references come from, which the policy states by its hash.
        data: what was scored, in words, such as ``iu_xray val``.
        out: the folder to write.
        train: the studies that the system was trained on, for the controls made here.
        controls: name of a control to its drafts, such as those from shuffled images.
        name: of the system; the name of ``predictions`` otherwise.
        subgroups: groupings to score by.
        families: kinds of scores.
        wording_sections: sections that wording metrics compare.
        thresholds: JSON object of label to the P(present) from which on it counts, chosen on other studies.
        features_NE: frozen image features of ``references``, for the nearest neighbour.
        train_features_NE: those of ``train``.
        not_run: control to why it could not be made.
        seed: of the bootstrap.

    Raises:
        MmfmError: an input is wrong.
    """
    drafts = read_predictions(predictions)
    read = {control: read_predictions(path) for control, path in (controls or {}).items()}
    card = score_card(
        predictions=drafts,
        references=references,
        train=train,
        controls=read,
        generator=np.random.default_rng(seed),
        features_NE=features_NE,
        train_features_NE=train_features_NE,
        not_run=not_run,
        wording_sections=wording_sections,
        families=families,
        groupings=subgroups,
        thresholds=read_thresholds(thresholds) if thresholds is not None else None,
        provenance=Provenance(
            experiment=name or predictions.stem,
            data=data,
            date=datetime.date.today().isoformat(),
            references_sha256=_sha256(origin),
            predictions_sha256=_sha256(predictions),
        ),
    )
    write_results(out, card, predictions=drafts, references=references, controls=read)
    return card


def read_thresholds(path: Path) -> dict[str, float]:
    """Returns label to threshold of a JSON file.

    Raises:
        ConfigError: the file is absent, or holds anything but numbers from 0 to 1.
    """
    expected = 'a JSON object of label to a number from 0 to 1, such as {"edema": 0.3}'
    fix = "write the thresholds that were chosen on validation studies"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or "no JSON"
        raise ConfigError(path.name, expected=expected, found=found, fix=fix) from None
    if not isinstance(value, dict) or not all(type(v) in (int, float) and 0 <= v <= 1 for v in value.values()):
        raise ConfigError(path.name, expected=expected, found="something else", fix=fix)
    return value


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
