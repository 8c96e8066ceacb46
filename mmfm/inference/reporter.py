"""Reporter: Study -> Report, the class that most users meet.

reporter = Reporter.from_pretrained("mmfm-cxr-small")
for study in read_studies("folder"):
    print(reporter.report(study).sections.impression)

``AutoReporter`` beside it picks the checkpoint for each study.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mmfm.errors import ConfigError, ScopeError
from mmfm.inference.compose import assessed, compose
from mmfm.inference.prior import check_prior, compare
from mmfm.inference.scope import check_contrast, check_sequences, check_study, region_of
from mmfm.models import Checkpoint, Draft, draft, load_checkpoint
from mmfm.models.drafting import encode_features, stream_draft
from mmfm.models.processor import StudyPixels
from mmfm.report import Report
from mmfm.study import Study


def choose_device(name: str = "auto") -> torch.device:
    """Returns the device of that name; ``auto`` is CUDA, else Apple's mps, else the CPU.

    Raises:
        ConfigError: there is no such device here.
    """
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if name == "auto":
        return torch.device(there[0])
    if name.partition(":")[0] not in there:
        raise ConfigError(
            "device", expected=f"auto or {' or '.join(there)}", found=name, fix="name a device of this machine"
        )
    return torch.device(name)


class Reporter:
    """Drafts reports with one checkpoint.

    Args:
        checkpoint: an opened checkpoint, its model on the device that is to be used.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @classmethod
    def from_pretrained(cls, name: str, *, device: str = "auto") -> Reporter:
        """Opens a checkpoint: a shipped name, a folder, ``local-dir:PATH`` or ``hf-hub:owner/name``.

        Raises:
            CheckpointError: it is unknown, incomplete or altered.
            ConfigError: there is no such device here.
        """
        return cls(load_checkpoint(name, device=choose_device(device)))

    @property
    def operating_points(self) -> dict[str, float]:
        """P(present) from which on a finding is stated, by observation."""
        return self.checkpoint.facts.operating_points

    def report(
        self,
        study: Study,
        *,
        indication: str | None = None,
        region: str | None = None,
        only: Sequence[str] = (),
        prior: Study | None = None,
    ) -> Report:
        """Drafts the report of a study.

        Args:
            study: with pixels at hand (as ``mmfm.io.read_studies`` gives it).
            indication: why the study was made; the study's own where not given.
            region: as which a CT or MR study is read where its headers state no part of the body, or several:
                ``chest_ct``, ``abdomen`` or ``head``.
            only: series of a CT or MR study that are read, by Series Instance UID or place ("#3"); where empty, the
                best are chosen, and the receipts say why.
            prior: an earlier study of the same patient, which is drafted too and compared with (``prior.compare``).

        Raises:
            ScopeError: the study contradicts the checkpoint's scope, a picture is blank, the model's text never ended,
                or the prior study is not comparable. No draft is made, and the message says why.
            ConfigError: ``only`` names a series that is not there or cannot be read.
            ReadError: a picture could not be decoded.
        """
        if prior is not None:
            check_prior(study, prior)
        started = time.perf_counter()
        notes, pixels = self._prepare(study, region, only)
        indication = indication or study.indication
        [written] = draft(self.checkpoint, [(study.study_uid, pixels, indication)])
        report = self._compose(study, written, pixels, notes, indication, started)
        if prior is None:
            return report
        before = self._draft_prior(prior, region, written)
        volume = bool(pixels.slabs)
        may_be_absent = () if written.region is None else assessed(self.checkpoint.facts, written.region, volume=volume)
        return compare(report, before, region=written.region, assessed=may_be_absent)

    def stream(
        self, study: Study, *, indication: str | None = None, region: str | None = None, only: Sequence[str] = ()
    ) -> Iterator[str | Report]:
        """Yields the model's own text as it grows, then the Report.

        The growing text is raw: it may deny what was never measured. Show the Report to a reader, not the text.

        Raises:
            ScopeError: as for ``report``.
            ConfigError: as for ``report``.
            ReadError: as for ``report``.
        """
        started = time.perf_counter()
        notes, pixels = self._prepare(study, region, only)
        indication = indication or study.indication
        for piece in stream_draft(self.checkpoint, (study.study_uid, pixels, indication)):
            if isinstance(piece, str):
                yield piece
            else:
                yield self._compose(study, piece, pixels, notes, indication, started)

    def features(self, study: Study, *, region: str | None = None) -> np.ndarray:
        """Returns the mean patch feature of the study's pictures or volume, float32 (E,).

        Raises:
            ScopeError: a picture is blank or has several frames, or no recipe fits a volume.
            ReadError: a picture could not be decoded.
        """
        pixels = self.checkpoint.processor.pixels(
            study, region=region or region_of(study, scope=self.checkpoint.facts.scope)
        )
        return encode_features(self.checkpoint, pixels).float().numpy()

    def _prepare(self, study: Study, region: str | None, only: Sequence[str]) -> tuple[tuple[str, ...], StudyPixels]:
        scope, name = self.checkpoint.facts.scope, self.checkpoint.name
        notes = check_study(study, scope, checkpoint=name, region=region, only=only)
        region = region or region_of(study, only=only, scope=scope)
        pixels = self.checkpoint.processor.pixels(study, region=region, only=only)
        for place, picture in enumerate(pixels.pixels_SCHW, start=1):
            check_contrast(picture[0].numpy(), where=f"picture {place} of the study")
        return (*notes, *check_sequences(pixels, only=only)), pixels

    def _draft_prior(self, prior: Study, region: str | None, current: Draft) -> Report:
        """Returns the report of a prior study; raises ScopeError where it cannot be compared with ``current``."""
        started = time.perf_counter()
        try:
            notes, pixels = self._prepare(prior, region_of(prior, scope=self.checkpoint.facts.scope) or region, ())
            [written] = draft(self.checkpoint, [(prior.study_uid, pixels, prior.indication)])
            if written.region != current.region or bool(pixels.slabs) == bool(current.views):
                raise ScopeError(
                    "study",
                    expected=f"{current.kind or 'the same part of the body'}, as the current study",
                    found=written.kind or "another",
                    fix="leave it out, or give another one",
                )
            return self._compose(prior, written, pixels, notes, None, started)
        except ScopeError as error:
            raise ScopeError(
                f"the prior study, {error.where}", expected=error.expected, found=error.found, fix=error.fix
            ) from None

    def _compose(
        self,
        study: Study,
        written: Draft,
        pixels: StudyPixels,
        notes: tuple[str, ...],
        indication: str | None,
        started: float,
    ) -> Report:
        return compose(
            study,
            written,
            self.checkpoint,
            pixels=pixels,
            scope_notes=notes,
            indication=indication,
            seconds=time.perf_counter() - started,
        )
