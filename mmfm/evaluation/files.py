"""Score the drafts of any system, which come as a file, against a manifest or a file of references.

mmfm evaluate --predictions P.jsonl --references R.jsonl --out DIR
mmfm evaluate --predictions P.jsonl --manifest M --split val --train-manifest T --out DIR
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmfm.data.manifest import Manifest, ManifestRow, read_manifest
from mmfm.errors import ConfigError
from mmfm.evaluation.controls import CEILING
from mmfm.evaluation.per_study import FAMILIES
from mmfm.evaluation.predictions import Prediction, in_order, read_predictions
from mmfm.evaluation.references import GROUPINGS, Reference, read_references
from mmfm.evaluation.results import check_folder, write_results
from mmfm.evaluation.scorecard import Provenance, Scorecard
from mmfm.evaluation.scoring import check_apart, score_card

_RESERVED = ("drafts", CEILING)
"""Names of columns that no control can have."""

TRAIN_SPLITS = ("train", "extra")


def training_rows(manifest: Manifest, splits: Sequence[str] = TRAIN_SPLITS) -> tuple[ManifestRow, ...]:
    """Returns the rows of the training studies: of those of ``splits`` that the manifest has.

    Raises:
        ManifestError: the manifest has none of the splits.
    """
    known = {row.split for row in manifest.rows}
    return manifest.split(*([name for name in splits if name in known] or splits[:1]))


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What drafts are scored against, and the studies that the system was trained on."""

    references: tuple[Reference, ...]
    origin: Path
    """The file that the references come from, which the policy states by its hash."""
    data: str
    """In words, such as ``iu_xray val``."""
    train: tuple[Reference, ...]


def read_sources(
    *,
    references: Path | None = None,
    manifest: Path | None = None,
    split: str | None = None,
    train_manifest: Path | None = None,
    train_references: Path | None = None,
) -> Sources:
    """Returns the references of a file, or of a split of a manifest, and the training studies of either.

    Raises:
        ConfigError: not exactly one of the two is given, or a manifest without a split.
        ManifestError: a file is absent or breaks its schema.
    """
    fix = "give --references R.jsonl, or --manifest M with --split S"
    if (references is None) == (manifest is None):
        both = "neither" if references is None else "both"
        raise ConfigError("mmfm evaluate", expected="--references or --manifest", found=both, fix=fix)
    if manifest is not None and split is None:
        raise ConfigError("mmfm evaluate", expected="--split with --manifest", found="none", fix=fix)
    if train_manifest is not None and train_references is not None:
        options = "one of --train-manifest and --train-references"
        raise ConfigError("mmfm evaluate", expected=options, found="both", fix="leave one out")
    train: tuple[Reference, ...] = ()
    if train_manifest is not None:
        train = tuple(Reference.from_row(row) for row in training_rows(read_manifest(train_manifest)))
    elif train_references is not None:
        train = read_references(train_references)
    if references is not None:
        return Sources(references=read_references(references), origin=references, data=references.stem, train=train)
    assert manifest is not None
    assert split is not None
    rows = read_manifest(manifest).split(split)
    data = f"{rows[0].source} {split}"
    return Sources(references=tuple(map(Reference.from_row, rows)), origin=manifest, data=data, train=train)


def evaluate_files(
    *,
    predictions: Path,
    sources: Sources,
    out: Path,
    controls: Mapping[str, Path] | None = None,
    name: str | None = None,
    subgroups: Sequence[str] = GROUPINGS,
    families: Sequence[str] = FAMILIES,
    wording_sections: Sequence[str] = ("findings",),
    thresholds: Path | None = None,
    features: Callable[[], Mapping[str, Any]] | None = None,
    seed: int = 0,
) -> Scorecard:
    """Scores a file of drafts and writes the folder of results. What can be wrong is looked at before what takes long.

    Args:
        predictions: the drafts, ``predictions.jsonl``.
        sources: what they are scored against.
        out: the folder to write.
        controls: name of a control to its drafts, such as those from shuffled images.
        name: of the system; the name of ``predictions`` otherwise.
        subgroups: groupings to score by.
        families: kinds of scores.
        wording_sections: sections that wording metrics compare.
        thresholds: JSON object of label to the P(present) from which on it counts, chosen on other studies.
        features: gives frozen image features for the nearest neighbour, ``features_NE`` and ``train_features_NE``, or
            ``not_run``, why there are none; see ``score_card``.
        seed: of the bootstrap.

    Raises:
        MmfmError: an input is wrong.
    """
    drafts = read_predictions(predictions)
    read = {control: read_predictions(path) for control, path in (controls or {}).items()}
    for where, each in {"predictions": drafts, **read}.items():
        in_order(each, sources.references, where=where)
    check_apart(sources.references, sources.train)
    frozen = read_thresholds(thresholds, drafts) if thresholds is not None else None
    check_folder(out)
    card = score_card(
        predictions=drafts,
        references=sources.references,
        train=sources.train,
        controls=read,
        generator=np.random.default_rng(seed),
        wording_sections=wording_sections,
        families=families,
        groupings=subgroups,
        thresholds=frozen,
        provenance=Provenance(
            experiment=name or predictions.stem,
            data=sources.data,
            date=datetime.date.today().isoformat(),
            references_sha256=_sha256(sources.origin),
            predictions_sha256=_sha256(predictions),
        ),
        **(features() if features is not None else {}),
    )
    write_results(out, card, predictions=drafts, references=sources.references, controls=read)
    return card


def chosen(option: str, words: str, known: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of a list with commas, each once and in the order of ``known``.

    Raises:
        ConfigError: one of them is not known.
    """
    names = [name.strip() for name in words.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        found = ", ".join(unknown) or "none"
        raise ConfigError(option, expected=f"names among {', '.join(known)}", found=found, fix="name some of these")
    return tuple(name for name in known if name in names)


def named_files(option: str, words: Sequence[str]) -> dict[str, Path]:
    """Returns name to file of words such as ``mean_image=drafts.jsonl``.

    Raises:
        ConfigError: a word has no name or no file, or a name is there again or stands for something else.
    """
    files: dict[str, Path] = {}
    for word in words:
        name, _, file = word.partition("=")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or not file or name in files or name in _RESERVED:
            expected = "NAME=FILE, the name up to 40 small letters, digits and _, each once, "
            expected += f"and none of {', '.join(_RESERVED)}"
            raise ConfigError(option, expected=expected, found=word, fix="write it as mean_image=drafts.jsonl")
        files[name] = Path(file)
    return files


def read_thresholds(path: Path, drafts: Sequence[Prediction]) -> dict[str, float]:
    """Returns label to threshold of a JSON file.

    Args:
        path: the file.
        drafts: what the thresholds are for.

    Raises:
        ConfigError: the file is absent, or holds anything but numbers from 0 to 1, each of a label of which the drafts
            state the probability.
    """
    expected = 'a JSON object of label to a number from 0 to 1, such as {"edema": 0.3}'
    fix = "write the thresholds that were chosen on validation studies"
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        found = getattr(error, "strerror", None) or "no JSON"
        raise ConfigError(path.name, expected=expected, found=found, fix=fix) from None
    if (
        not isinstance(value, dict)
        or not value
        or not all(type(v) in (int, float) and 0 <= v <= 1 for v in value.values())
    ):
        raise ConfigError(path.name, expected=expected, found="something else", fix=fix)
    stated = set().union(*(draft.finding_probabilities or () for draft in drafts))
    if unknown := len(value.keys() - stated):
        found = f"{unknown} of {len(value)} of labels without any"
        raise ConfigError(
            path.name, expected="thresholds of labels in finding_probabilities", found=found, fix="leave these out"
        )
    return value


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
