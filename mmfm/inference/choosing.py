"""Which shipped checkpoint drafts a study, by the scopes that they declare; and a reporter that picks by it.

    reporter = AutoReporter(device="cpu")
    for study in read_studies("folder"):
        print(reporter.report(study).provenance.chosen)

Of each checkpoint ``config.json`` alone is read for the choice; weights are opened when the first study needs them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmfm.errors import CheckpointError, ScopeError
from mmfm.inference.reporter import Reporter, choose_device
from mmfm.inference.scope import check_study, modalities_of, region_of, region_words, volumes_read
from mmfm.jsonable import from_json
from mmfm.models.checkpoint import Scope, shipped_folders
from mmfm.models.processor import is_volume
from mmfm.report import Report
from mmfm.study import Study


@dataclass(frozen=True, kw_only=True)
class ChosenCheckpoint:
    """A checkpoint for one study."""

    name: str
    """As ``load_checkpoint`` takes it."""
    reason: str
    """In words, for the report."""


@dataclass(frozen=True, kw_only=True)
class _Shipped:
    name: str
    scope: Scope
    volumes: bool
    pictures: bool

    @property
    def made_for(self) -> str:
        """What it reads, in words."""
        parts = " or ".join(part.lower() for part in self.scope.body_parts)
        pictures = f"{' or '.join(self.scope.modalities)} pictures of {parts}"
        volumes = volumes_read(self.scope) if self.volumes else ""
        return "; ".join(words for words in (volumes, pictures if self.pictures else "") if words)


def choose_checkpoint(study: Study, *, region: str | None = None, only: Sequence[str] = ()) -> ChosenCheckpoint:
    """Chooses the shipped checkpoint whose declared scope a study lies in.

    Volumes go to one that reads volumes, pictures to one that reads pictures. Where several fit, as for pictures that
    state no modality, the one that reads the fewest kinds of studies is taken, and of those the first by name.

    Args:
        study: headers alone are looked at.
        region: as for ``Reporter.report``.
        only: series, as for ``Reporter.report``.

    Raises:
        ScopeError: none fits; the message says why, and what each is made for.
        CheckpointError: none is shipped here, or the config of one cannot be read.
        ConfigError: ``only`` names a series that is not there.
    """
    there = _shipped()
    volume = is_volume(study)
    refusals: list[tuple[_Shipped, ScopeError]] = []
    fitting = []
    for one in there:
        if not (one.volumes if volume else one.pictures):
            continue
        try:
            check_study(study, one.scope, checkpoint=one.name, region=region, only=only)
            fitting.append(one)
        except ScopeError as error:
            refusals.append((one, error))
    if fitting:
        best = min(fitting, key=lambda one: (one.volumes and one.pictures, one.name))
        return ChosenCheckpoint(name=best.name, reason=_reason(study, region, only, best, len(there), len(fitting)))
    listed = ". ".join(f"{one.name}: {one.made_for}" for one in there)
    # The one made for this modality says best what is wrong.
    refusals.sort(key=lambda item: not modalities_of(study) & set(item[0].scope.modalities))
    if not refusals:
        modalities = " and ".join(sorted(modalities_of(study) - {"SEG"})) or "modality not stated"
        raise ScopeError(
            "study", expected=f"one that a shipped checkpoint reads ({listed})",
            found=f"a {'volume' if volume else 'picture'} ({modalities})",
            fix="no draft is made; name another one with --checkpoint",
        )  # fmt: skip
    why = refusals[0][1]
    raise ScopeError(
        why.where, expected=f"{why.expected} (shipped checkpoints: {listed})", found=why.found, fix=why.fix
    )


class AutoReporter:
    """Drafts reports with the shipped checkpoint that fits each study; each is opened once, when it is first needed.

    Args:
        device: as for ``choose_device``.

    Raises:
        ConfigError: there is no such device here.
    """

    def __init__(self, *, device: str = "auto") -> None:
        self._device = str(choose_device(device))
        self._opened: dict[str, Reporter] = {}

    def report(
        self,
        study: Study,
        *,
        indication: str | None = None,
        region: str | None = None,
        only: Sequence[str] = (),
        prior: Study | None = None,
    ) -> Report:
        """Drafts the report of a study, as ``Reporter.report`` does; ``provenance.chosen`` says why by this checkpoint.

        Raises:
            ScopeError: no shipped checkpoint fits, or the one that fits makes no draft.
            CheckpointError: none is shipped here, or one is incomplete or altered.
            ConfigError: ``only`` names a series that is not there.
            ReadError: pixels could not be decoded.
        """
        chosen = choose_checkpoint(study, region=region, only=only)
        if chosen.name not in self._opened:
            self._opened[chosen.name] = Reporter.from_pretrained(chosen.name, device=self._device)
        drafted = self._opened[chosen.name].report(study, indication=indication, region=region, only=only, prior=prior)
        return replace(drafted, provenance=replace(drafted.provenance, chosen=chosen.reason))


def _shipped() -> list[_Shipped]:
    """Returns the checkpoints that names resolve to, by name; of two of one name the first folder's."""
    found: dict[str, Path] = {}
    for folder in shipped_folders():
        for config in sorted(folder.glob("*/config.json")):
            found.setdefault(config.parent.name, config)
    if not found:
        raise CheckpointError(
            "shipped checkpoints", expected="at least one", found="none",
            fix="set MMFM_CHECKPOINTS to the checkpoints/ folder of a checkout of mmfm, or give --checkpoint",
        )  # fmt: skip
    return [_read(name, config) for name, config in sorted(found.items())]


def _read(name: str, config: Path) -> _Shipped:
    try:
        values: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        model = values["model"]
        return _Shipped(
            name=name,
            scope=from_json(Scope, values["facts"]["scope"]),
            volumes=model.get("volume_encoder") is not None,
            pictures=model.get("encoder") is not None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            str(config), expected="the config of a checkpoint", found=str(error).splitlines()[0][:120] or "another",
            fix="take the checkpoint folder whole from where it was published, or give --checkpoint",
        ) from None  # fmt: skip


def _reason(study: Study, region: str | None, only: Sequence[str], best: _Shipped, shipped: int, fitting: int) -> str:
    if is_volume(study):
        stated = region_of(study, only=only, scope=best.scope)
        if region is not None and region != stated:
            words = f"read as {region_words(region)}, as asked"
        else:
            words = f"{region_words(str(stated))} by its headers"
    elif modalities := modalities_of(study):
        words = f"pictures of {' and '.join(sorted(modalities))}"
    else:
        words = "pictures that state no modality: the checkpoint made for pictures alone"
    return f"chosen by scope among {shipped}: {words}" + (f" ({fitting} fit)" if fitting > 1 else "")
