"""Processor: the one place that turns a study into model inputs and counts image tokens.

Training and inference run the same preprocessing: each picture is stretched between its own 0.5th and 99.5th
percentile (so that bit depth, a window without clipping and MONOCHROME1 do not matter) and squashed to a square as the
training pictures were; the encoder normalises. The Receipt says so. Nothing flips a picture.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mmfm.batch import IGNORE_INDEX, Inputs
from mmfm.data.cache import VolumeCache
from mmfm.data.example import Example
from mmfm.errors import CheckpointError, ConfigError, ScopeError
from mmfm.files import sha256_of
from mmfm.imaging import Volume
from mmfm.jsonable import from_json, to_json
from mmfm.models.language import image_token_id
from mmfm.report import Finding, Sections, Side, Status
from mmfm.study import Receipt, Series, Study

STRETCH_PERCENTILES = (0.5, 99.5)
STATE_VALUES = {Status.PRESENT: 1.0, Status.ABSENT: 0.0, Status.UNCERTAIN: 0.5, None: float("nan")}
ROOM_FOR_PROMPT = 100
"""Tokens kept for the words of the prompt and the findings that it names."""
FINDINGS_MARK, IMPRESSION_MARK = "Findings:", "Impression:"


@dataclass(frozen=True, kw_only=True)
class StudyPixels:
    """The pictures of one study as a model takes them."""

    pixels_SCHW: Tensor
    """float32, one channel, 0 black to 1 white."""
    views_S: Tensor
    """int64: 0 frontal, 1 lateral, -1 not stated."""
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, kw_only=True)
class Drafted:
    """Text that a model wrote, taken apart."""

    findings: str | None
    impression: str | None
    finished: bool
    """The model ended the text itself, within the length that it was given."""


class Processor:
    """Study -> pixels, prompt -> ids, ids -> text."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What must stay the same between training and inference."""

        image_size: int
        tokens_per_image: int
        """Vision tokens that the connector gives a picture."""
        max_images: int = 4
        """Pictures of a study that are read; further ones are named in the receipt."""
        max_length: int = 512
        """Tokens of prompt and report together."""
        max_indication_tokens: int = 64
        prompt: str = "Write the findings and the impression."
        observations: tuple[str, ...]
        """Observations of the finding heads, in their order."""
        codes: tuple[str, ...] = ()
        """Codes of the training sources that are learned beside them, in their order."""

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.cache: VolumeCache | None = None
        """For training: keeps each picture as it becomes here, in half precision."""
        needed = config.max_images * config.tokens_per_image + config.max_indication_tokens + ROOM_FOR_PROMPT
        if needed >= config.max_length:
            raise ConfigError(
                "model.language.max_length",
                expected=f"more than {needed} tokens, for {config.max_images} pictures and the prompt",
                found=str(config.max_length),
                fix="raise it, or lower model.connector.num_tokens",
            )
        self.image_token_id = image_token_id(tokenizer)

    def pixels(self, study: Study) -> StudyPixels:
        """Returns the pictures of a study, at most ``max_images``, and a receipt for each.

        Raises:
            ScopeError: a picture shows nothing, or a series is a volume of several slices.
        """
        read = study.series[: self.config.max_images]
        done = [self._picture(series) if self.cache is None else self._kept(series, self.cache) for series in read]
        left_out = len(study.series) - len(read)
        if left_out:
            note = f"{left_out} further picture(s) of the study were not read (at most {self.config.max_images})"
            done = [(pixels, replace(receipt, warnings=(*receipt.warnings, note))) for pixels, receipt in done]
        views = [-1 if s.view is None else int(s.view.is_lateral) for s in read]
        return StudyPixels(
            pixels_SCHW=torch.stack([pixels for pixels, _ in done]),
            views_S=torch.tensor(views),
            receipts=tuple(receipt for _, receipt in done),
        )

    def _kept(self, series: Series, cache: VolumeCache) -> tuple[Tensor, Receipt]:
        def make() -> tuple[np.ndarray, Receipt]:
            picture, receipt = self._picture(series)
            return picture.half().numpy(), receipt

        array, receipt = cache.get(series, {"image_size": self.config.image_size, "processor": _code()}, make)
        return torch.from_numpy(array).float(), receipt

    def _picture(self, series: Series) -> tuple[Tensor, Receipt]:
        volume, receipt = Volume.from_series(series)
        if volume.array.shape[0] != 1:
            raise ScopeError(
                "study",
                expected="pictures of one frame each",
                found=f"a series of {volume.array.shape[0]} slices",
                fix="give radiographs; this checkpoint reads no volumes",
            )
        picture = torch.from_numpy(volume.array[0])
        if picture.ndim == 3:
            picture = picture.mean(-1)
        low, high = _percentiles(picture, STRETCH_PERCENTILES)
        if not high - low > 1e-6 * max(abs(low), abs(high), 1.0):
            raise ScopeError(
                "study", expected="a picture", found="one without contrast", fix="check that the pixels were exported"
            )
        stretched = ((picture - low) / (high - low)).clamp(0, 1)
        size = self.config.image_size
        rows, columns = stretched.shape
        square = F.interpolate(
            stretched[None, None], (size, size), mode="bilinear", antialias=True, align_corners=False
        )
        steps = (
            "stretched between the {}th and {}th percentile of the picture".format(*STRETCH_PERCENTILES),
            f"resized from {columns} x {rows} to {size} x {size} pixels, shape not kept",
        )
        return square[0], replace(receipt, steps=(*receipt.steps, *steps))

    def prompt_ids(self, num_images: int, indication: str | None, decisions: Sequence[Finding] | None) -> list[int]:
        """Returns the prompt: image tokens, the indication, and the findings that the text is to state.

        ``decisions`` is None where nothing was decided: the prompt then has no line for them, since "nothing" in that
        line would say that the study is normal.
        """
        asked = " ".join((indication or "").replace("XXXX", " ").split()) or "not stated"
        short = self.tokenizer(asked, add_special_tokens=False)["input_ids"][: self.config.max_indication_tokens]
        before = self._ids(f"\n{self.config.prompt}\nIndication: ")
        present = "" if decisions is None else f"\nPresent: {decisions_text(decisions)}."
        after = self._ids(f"{present}\n{FINDINGS_MARK}")
        start = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else []
        return [*start, *[self.image_token_id] * (num_images * self.config.tokens_per_image), *before, *short, *after]

    def target_ids(self, target: Sections) -> list[int]:
        """Returns the report to learn, from behind the findings mark to the end token."""
        text = f" {target.findings or ''}\n{IMPRESSION_MARK} {target.impression or ''}"
        return [*self._ids(text), self.tokenizer.eos_token_id]

    def __call__(self, example: Example, pixels: StudyPixels | None = None) -> Inputs:
        """Returns the training inputs of an example; ``pixels`` where they were made before.

        A report beyond ``max_length`` tokens is cut; its end token is then not learned.
        """
        pixels = pixels if pixels is not None else self.pixels(example.study)
        prompt = self.prompt_ids(len(pixels.views_S), example.indication, example.target_findings)
        has_text = bool(example.target.findings or example.target.impression)
        target = self.target_ids(example.target)
        ids = torch.tensor([*prompt, *target][: self.config.max_length])
        labels = torch.full_like(ids, IGNORE_INDEX)
        if has_text:
            labels[len(prompt) :] = ids[len(prompt) :]
        return Inputs(
            study_uid=example.study.study_uid,
            pixels_SCHW=pixels.pixels_SCHW,
            views_S=pixels.views_S,
            input_ids_T=ids,
            labels_T=labels,
            states_O=torch.tensor([STATE_VALUES[example.states.get(o)] for o in self.config.observations]),
            sides_O2=self._sides(example.report_findings),
            codes_K=torch.tensor(
                [math.nan if example.codes is None else float(code in example.codes) for code in self.config.codes]
            ),
        )

    def query(self, study_uid: str, pixels: StudyPixels) -> Inputs:
        """Returns inputs for inference: the pictures, and no text yet."""
        count = len(self.config.observations)
        empty = torch.zeros(0, dtype=torch.long)
        return Inputs(
            study_uid=study_uid,
            pixels_SCHW=pixels.pixels_SCHW,
            views_S=pixels.views_S,
            input_ids_T=empty,
            labels_T=empty,
            states_O=torch.full((count,), float("nan")),
            sides_O2=torch.full((count, 2), float("nan")),
            codes_K=torch.full((len(self.config.codes),), float("nan")),
        )

    def _sides(self, findings: Iterable[Finding]) -> Tensor:
        sides_O2 = torch.full((len(self.config.observations), 2), float("nan"))
        for finding in findings:
            if finding.observation in self.config.observations and finding.status is Status.PRESENT:
                row = self.config.observations.index(finding.observation)
                if finding.laterality is not None:
                    left = finding.laterality in (Side.LEFT, Side.BILATERAL)
                    right = finding.laterality in (Side.RIGHT, Side.BILATERAL)
                    sides_O2[row] = torch.tensor([float(left), float(right)])
        return sides_O2

    def parse(self, token_ids: Sequence[int]) -> Drafted:
        """Returns the sections of generated ids (what follows the findings mark)."""
        end = self.tokenizer.eos_token_id
        ids = list(token_ids)
        finished = end in ids
        if finished:
            ids = ids[: ids.index(end)]
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        findings, _, impression = text.partition(IMPRESSION_MARK)
        return Drafted(findings=_tidy(findings), impression=_tidy(impression), finished=finished)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def save(self, folder: Path) -> None:
        """Writes ``processor.json`` and the tokenizer into ``folder``."""
        (folder / "processor.json").write_text(json.dumps(to_json(self.config), indent=2) + "\n")
        self.tokenizer.save_pretrained(folder / "tokenizer")

    @classmethod
    def load(cls, folder: Path) -> Processor:
        """Returns the processor that ``save`` wrote.

        Raises:
            CheckpointError: a file is missing or does not fit.
        """
        try:
            config = from_json(cls.Config, json.loads((folder / "processor.json").read_text()))
            return cls(config, AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                str(folder),
                expected="processor.json and tokenizer/ as a checkpoint holds them",
                found=str(error).splitlines()[0][:160],
                fix="take the checkpoint folder whole from where it was published",
            ) from None


@functools.cache
def _code() -> str:
    """Returns the SHA-256 of this file, on which the pictures depend."""
    return sha256_of([Path(__file__)])


def decisions_text(decisions: Sequence[Finding]) -> str:
    """Returns findings as the prompt names them: ``left pleural effusion; cardiomegaly``, or ``nothing``."""
    present = sorted(
        (f for f in decisions if f.status is Status.PRESENT), key=lambda f: (f.observation, f.laterality or "")
    )
    names = [" ".join(filter(None, [f.laterality, f.observation.replace("_", " ")])) for f in present]
    return "; ".join(names) or "nothing"


def _percentiles(picture: Tensor, percents: tuple[float, float]) -> tuple[float, float]:
    """Returns percentiles of the pixels; ``torch.quantile`` refuses large pictures, sorting does not."""
    ordered = picture.flatten().sort().values
    last = len(ordered) - 1
    low, high = (float(ordered[round(last * p / 100)]) for p in percents)
    return low, high


def _tidy(text: str) -> str | None:
    return " ".join(text.split()) or None
