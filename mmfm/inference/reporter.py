"""Reporter: Study -> Report, the class that most users meet.

reporter = Reporter.from_pretrained("mmfm-cxr-small")
for study in read_studies("folder"):
    print(reporter.report(study).sections.impression)
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from mmfm.errors import ConfigError
from mmfm.inference.compose import compose
from mmfm.inference.scope import check_contrast, check_study
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

    def report(self, study: Study, *, indication: str | None = None) -> Report:
        """Drafts the report of a study.

        Args:
            study: with pixels at hand (as ``mmfm.io.read_studies`` gives it).
            indication: why the study was made; the study's own where not given.

        Raises:
            ScopeError: the study contradicts the checkpoint's scope, a picture is blank, or the model's text never
                ended. No draft is made, and the message says why.
            ReadError: a picture could not be decoded.
        """
        started = time.perf_counter()
        notes, pixels = self._prepare(study)
        indication = indication or study.indication
        [written] = draft(self.checkpoint, [(study.study_uid, pixels, indication)])
        return self._compose(study, written, pixels, notes, indication, started)

    def stream(self, study: Study, *, indication: str | None = None) -> Iterator[str | Report]:
        """Yields the model's own text as it grows, then the Report.

        The growing text is raw: it may deny what was never measured. Show the Report to a reader, not the text.

        Raises:
            ScopeError: as for ``report``.
            ReadError: as for ``report``.
        """
        started = time.perf_counter()
        notes, pixels = self._prepare(study)
        indication = indication or study.indication
        for piece in stream_draft(self.checkpoint, (study.study_uid, pixels, indication)):
            if isinstance(piece, str):
                yield piece
            else:
                yield self._compose(study, piece, pixels, notes, indication, started)

    def features(self, study: Study) -> np.ndarray:
        """Returns the mean patch feature of the study's pictures, float32 (E,).

        Raises:
            ScopeError: a picture is blank, or no single-frame radiograph.
            ReadError: a picture could not be decoded.
        """
        return encode_features(self.checkpoint, self.checkpoint.processor.pixels(study)).float().numpy()

    def _prepare(self, study: Study) -> tuple[tuple[str, ...], StudyPixels]:
        notes = check_study(study, self.checkpoint.facts.scope, checkpoint=self.checkpoint.name)
        pixels = self.checkpoint.processor.pixels(study)
        for place, picture in enumerate(pixels.pixels_SCHW, start=1):
            check_contrast(picture[0].numpy(), where=f"picture {place} of the study")
        return notes, pixels

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
            receipts=pixels.receipts,
            scope_notes=notes,
            indication=indication,
            seconds=time.perf_counter() - started,
        )
