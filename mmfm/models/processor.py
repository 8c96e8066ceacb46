"""Processor: the one place that turns a study into model inputs and counts image tokens.

Training and inference run the same preprocessing: each picture is stretched between its own 0.5th and 99.5th
percentile (so that bit depth, a window without clipping and MONOCHROME1 do not matter) and squashed to a square as the
training pictures were; the encoder normalises. The series of a CT or MR study become slabs by the recipe of their
region (``recipes``). The Receipt says so. Nothing flips a picture or a volume.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mmfm.batch import IGNORE_INDEX, Inputs, VolumeInputs
from mmfm.data.cache import VolumeCache
from mmfm.data.example import Example
from mmfm.data.synthetic_volumes.drawing import DrawnVolume
from mmfm.errors import CheckpointError, ConfigError, ScopeError
from mmfm.files import sha256_of
from mmfm.imaging import Volume, check_for_model
from mmfm.imaging.choice import choose_series, plane_of
from mmfm.jsonable import from_json, to_json
from mmfm.models.language import image_token_id
from mmfm.models.recipes import Crops, Jitter, Recipe, Sampler, Slab, grid_affine, resampled, sample, those_of_one_place
from mmfm.report import Finding, Lesion, Place, Sections, Side, Status
from mmfm.study import Receipt, Series, Study
from mmfm.text import CHEST_RADIOGRAPH
from mmfm.text.wording import LESIONS_DESCRIBED

STRETCH_PERCENTILES = (0.5, 99.5)
STATE_VALUES = {Status.PRESENT: 1.0, Status.ABSENT: 0.0, Status.UNCERTAIN: 0.5, None: float("nan")}
ROOM_FOR_PROMPT = 100
"""Tokens kept for the words of the prompt and the findings that it names."""
FINDINGS_MARK, IMPRESSION_MARK = "Findings:", "Impression:"
GRADES = {"small": 0, "mild": 0, "moderate": 1, "large": 2, "severe": 2}
"""Severity in words -> grade of the severity heads."""
REGION_WORDS = {"chest_ct": "chest", "abdomen": "abdomen", "head": "head"}
MODALITY_CODE, BODY_PART_CODE = "modality/", "body_part/"
"""How the codes of a source begin that say what its pictures are."""
CODE_REGIONS = {"body_part/Head": "head", "body_part/Thorax": "chest_ct", "body_part/Abdomen": "abdomen"}
"""Codes whose pictures have a vocabulary."""
SOME_VOXELS = 200
"""Of each thing that is outlined, about, among which the place of a crop is drawn."""


@dataclass(frozen=True, kw_only=True)
class StudyPixels:
    """The pictures of one study as a model takes them."""

    pixels_SCHW: Tensor
    """float32, one channel, 0 black to 1 white."""
    views_S: Tensor
    """int64: 0 frontal, 1 lateral, -1 not stated."""
    receipts: tuple[Receipt, ...]
    slabs: tuple[Slab, ...] = ()
    """Of a study that is read as a volume; it then has no pictures."""
    kind: str | None = None
    """What a volume is of, such as "MR of the head with T1, FLAIR"; pictures do not say."""

    @property
    def region(self) -> str | None:
        """Whose recipe a volume was read with; ``None`` of pictures."""
        return self.slabs[0].recipe.region if self.slabs else None


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
        """Vision tokens that the connector gives a picture; 0 where the model reads no pictures."""
        recipes: tuple[Recipe, ...] = ()
        """How volumes are read, one for each region; none where the model reads pictures alone."""
        tokens_per_slab: int = 0
        """Vision tokens that the connector gives a slab of a volume."""
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
        lesions: tuple[str, ...] = ()
        """Observations that are counted on volumes, in the order of their heat maps."""
        masks: tuple[str, ...] = ()
        """Observations that have an extent on volumes and no count, in the order of their masks."""
        places: tuple[Place, ...] = ()
        """Of lesions, in the order of the place logits."""

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.cache: VolumeCache | None = None
        """For training: keeps each picture as it becomes here, in half precision."""
        slabs = max((recipe.max_slabs for recipe in config.recipes), default=0)
        vision = max(config.max_images * config.tokens_per_image, slabs * config.tokens_per_slab)
        needed = vision + config.max_indication_tokens + ROOM_FOR_PROMPT
        if needed >= config.max_length:
            raise ConfigError(
                "model.language.max_length",
                expected=f"more than {needed} tokens, for the vision tokens of a study and the prompt",
                found=str(config.max_length),
                fix="raise it, or lower model.connector.num_tokens",
            )
        self.image_token_id = image_token_id(tokenizer)

    def pixels(self, study: Study, *, region: str | None = None, only: Sequence[str] = ()) -> StudyPixels:
        """Returns the pictures of a study, at most ``max_images``, or the slabs of its volume, with receipts.

        Args:
            study: with pixels at hand.
            region: whose recipe a volume is read with; pictures need none.
            only: series that may be read, as ``choose_series`` takes them; all where empty.

        Raises:
            ScopeError: a picture shows nothing, or the study is a volume and no recipe fits it.
        """
        if is_volume(study):
            return self._slabs(study, region, only)
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

    def recipe(self, region: str | None) -> Recipe:
        """Returns how volumes of a region are read.

        Raises:
            ScopeError: this checkpoint reads no volumes of it.
        """
        for recipe in self.config.recipes:
            if recipe.region == region:
                return recipe
        regions = ", ".join(recipe.region for recipe in self.config.recipes)
        raise ScopeError(
            "study",
            expected=f"a volume of {regions}" if regions else "pictures of one frame each",
            found=f"a volume of {region or 'an unknown region'}" if regions else "a series of several slices",
            fix="use a checkpoint made for it",
        )

    def _slabs(self, study: Study, region: str | None, only: Sequence[str]) -> StudyPixels:
        recipe = self.recipe(region)
        choice = choose_series(study, channels=recipe.series, only=tuple(only))
        images, receipts = {}, {}
        for name, series in choice.chosen.items():
            volume, receipt = Volume.from_series(series)
            warnings = check_for_model(volume, receipt, modality=recipe.modality)
            assert volume.affine is not None, "checked to have a place in the patient"
            images[name] = (volume.array, volume.affine)
            receipts[name] = replace(receipt, warnings=(*receipt.warnings, *warnings))
        images, left_out = those_of_one_place(images, recipe)
        slabs, steps = sample(images, recipe)
        steps = (*choice.reasons, *left_out, *steps)
        told = tuple(replace(receipts[name], steps=(*receipts[name].steps, *steps)) for name in images)
        return self._volume(slabs, recipe, images, told)

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

    def num_vision_tokens(self, pixels: StudyPixels) -> int:
        """Returns how many vision tokens the model gives a study."""
        return len(pixels.views_S) * self.config.tokens_per_image + len(pixels.slabs) * self.config.tokens_per_slab

    def prompt_ids(
        self,
        num_vision_tokens: int,
        indication: str | None,
        decisions: Sequence[Finding] | None,
        *,
        kind: str | None = None,
    ) -> list[int]:
        """Returns the prompt: image tokens, what was examined, why, and the findings that the text is to state.

        ``decisions`` is None where nothing was decided: the prompt then has no line for them, since "nothing" in that
        line would say that the study is normal. ``kind`` is such as "CT of the chest".
        """
        asked = " ".join((indication or "").replace("XXXX", " ").split()) or "not stated"
        short = self._ids(asked)[: self.config.max_indication_tokens]
        examined = "" if kind is None else f"\nStudy: {kind}"
        before = self._ids(f"\n{self.config.prompt}{examined}\nIndication: ")
        detailed = bool(self.config.recipes)
        present = "" if decisions is None else f"\nPresent: {decisions_text(decisions, detailed=detailed)}."
        after = self._ids(f"{present}\n{FINDINGS_MARK}")
        start = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else []
        return [*start, *[self.image_token_id] * num_vision_tokens, *before, *short, *after]

    def target_ids(self, target: Sections) -> list[int]:
        """Returns the report to learn, from behind the findings mark to the end token."""
        text = f" {target.findings or ''}\n{IMPRESSION_MARK} {target.impression or ''}"
        return [*self._ids(text), self.tokenizer.eos_token_id]

    def __call__(self, example: Example) -> Inputs:
        """Returns the training inputs of an example.

        A report beyond ``max_length`` tokens is cut; its end token is then not learned.
        """
        assert example.study is not None, "what is drawn in memory goes through drawn()"
        pixels = self.pixels(example.study, region=example.region)
        outlined = example.report_findings if example.outlined else None
        return self._inputs(example, pixels, tuple(self.volume_inputs(slab, outlined) for slab in pixels.slabs))

    def drawn(
        self,
        drawn: DrawnVolume,
        report: Sections,
        rng: np.random.Generator | None = None,
        *,
        crops: Crops | None = None,
    ) -> Inputs:
        """Returns the training inputs of a drawn volume, whose lesions and extents are all known.

        Args:
            drawn: at any spacing.
            report: that is to be learned.
            rng: draws how it lies; straight where ``None``.
            crops: which parts of it to give instead, with what they show where and nothing of the whole study; the
                whole without ``rng``.
        """
        recipe = self.recipe(drawn.region)
        sampler = Sampler({name: (array, drawn.affine) for name, array in drawn.images.items()}, recipe)
        if rng is None:
            slabs = list(sampler.slabs())
        else:
            # Fields of view are drawn to fit the grid; where one is a little longer, one of its slabs is learned.
            jitter = Jitter.draw(rng)
            affine = grid_affine(sampler.centers[rng.integers(len(sampler.centers))], recipe, jitter)
            if crops is None:
                slabs = [sampler.slab(affine, smoothing=jitter.smoothing)]
            else:
                corners = crops.corners(recipe.shape, self._outlined(drawn, affine), rng)
                shape = crops.within(recipe.shape)
                slabs = [
                    sampler.slab(affine, corner=corner, shape=shape, smoothing=jitter.smoothing) for corner in corners
                ]
        masks = self.config.masks
        rows = [1 + masks.index(s.observation) if s.observation in masks else 0 for s in drawn.segments]
        own = np.array([0, *rows], np.uint8)[drawn.segmentation]
        volumes = []
        for slab in slabs:
            mask = resampled(own, drawn.affine, slab.affine, slab.shape, fill=0, nearest=True)
            volumes.append(replace(self.volume_inputs(slab, drawn.findings), mask_DHW=mask.to(torch.uint8)))
        example = Example.from_drawn(drawn, report)
        pixels = self._volume(tuple(slabs), recipe, drawn.images)
        if crops is not None and rng is not None:
            return replace(self.query(example.study_uid, pixels), volumes=tuple(volumes))
        return self._inputs(example, pixels, tuple(volumes))

    def _outlined(self, drawn: DrawnVolume, affine: np.ndarray) -> list[np.ndarray]:
        """Returns some voxels, in the grid of ``affine``, of each lesion and extent that there are heads for."""
        names = {*self.config.lesions, *self.config.masks}
        to_grid = np.linalg.inv(affine) @ drawn.affine
        found = []
        for number, segment in enumerate(drawn.segments, start=1):
            voxels_N3 = np.argwhere(drawn.segmentation == number) if segment.observation in names else np.zeros((0, 3))
            if len(voxels_N3):
                some_N3 = voxels_N3[:: max(1, len(voxels_N3) // SOME_VOXELS)]
                found.append(some_N3 @ to_grid[:3, :3].T + to_grid[:3, 3])
        return found

    def _volume(
        self, slabs: tuple[Slab, ...], recipe: Recipe, series: Iterable[str], receipts: tuple[Receipt, ...] = ()
    ) -> StudyPixels:
        words = REGION_WORDS[recipe.region]
        sequences = f" with {', '.join(series)}" if recipe.modality == "MR" else ""
        return StudyPixels(
            pixels_SCHW=torch.zeros(0, 1, self.config.image_size, self.config.image_size),
            views_S=torch.zeros(0, dtype=torch.long),
            receipts=receipts,
            slabs=slabs,
            kind=f"{recipe.modality} of the {words}{sequences}",
        )

    def volume_inputs(self, slab: Slab, findings: Sequence[Finding] | None) -> VolumeInputs:
        """Returns a slab with the lesions of ``findings``; without any where nobody outlined them."""
        voxel_mm = slab.recipe.spacing_mm[0]
        inputs = VolumeInputs(
            pixels_CDHW=slab.pixels_CDHW, between_CDHW=slab.between_CDHW, affine_44=torch.from_numpy(slab.affine),
            voxel_mm=voxel_mm, corner=slab.corner, grid=slab.recipe.shape,
        )  # fmt: skip
        if findings is None:
            return inputs
        back = np.linalg.inv(slab.affine)
        # A patient who is made larger for training shows larger lesions.
        larger = voxel_mm / float(np.linalg.norm(slab.affine[:3, 0]))
        rows = []
        for finding in findings:
            for lesion in finding.lesions if finding.observation in self.config.lesions else ():
                index = (back @ [*lesion.center_mm, 1.0])[:3]
                place = _place_row(self.config.places, finding.observation, lesion)
                row = self.config.lesions.index(finding.observation)
                rows.append([*index, larger * lesion.diameter_mm, row, place])
        return replace(inputs, lesions_X6=torch.tensor(rows, dtype=torch.float32).reshape(-1, 6))

    def _inputs(self, example: Example, pixels: StudyPixels, volumes: tuple[VolumeInputs, ...]) -> Inputs:
        prompt = self.prompt_ids(
            self.num_vision_tokens(pixels),
            example.indication,
            example.target_findings,
            kind=pixels.kind or kind_of(example.codes or ()),
        )
        has_text = bool(example.target.findings or example.target.impression)
        target = self.target_ids(example.target)
        ids = torch.tensor([*prompt, *target][: self.config.max_length])
        labels = torch.full_like(ids, IGNORE_INDEX)
        if has_text:
            labels[len(prompt) :] = ids[len(prompt) :]
        return Inputs(
            study_uid=example.study_uid,
            region=example.region,
            pixels_SCHW=pixels.pixels_SCHW,
            views_S=pixels.views_S,
            modalities_S=self._modalities(example, len(pixels.views_S)),
            input_ids_T=ids,
            labels_T=labels,
            states_O=torch.tensor([STATE_VALUES[example.states.get(o)] for o in self.config.observations]),
            sides_O2=self._sides(example.report_findings),
            severity_O=self._severities(example.report_findings),
            codes_K=torch.tensor(
                [math.nan if example.codes is None else float(code in example.codes) for code in self.config.codes]
            ),
            volumes=volumes,
        )

    def query(self, study_uid: str, pixels: StudyPixels) -> Inputs:
        """Returns inputs for inference: the pictures, and no text yet."""
        count = len(self.config.observations)
        empty = torch.zeros(0, dtype=torch.long)
        return Inputs(
            study_uid=study_uid,
            region=pixels.region or CHEST_RADIOGRAPH,
            pixels_SCHW=pixels.pixels_SCHW,
            views_S=pixels.views_S,
            modalities_S=torch.full_like(pixels.views_S, -1),
            input_ids_T=empty,
            labels_T=empty,
            states_O=torch.full((count,), float("nan")),
            sides_O2=torch.full((count, 2), float("nan")),
            severity_O=torch.full((count,), float("nan")),
            codes_K=torch.full((len(self.config.codes),), float("nan")),
            volumes=tuple(self.volume_inputs(slab, None) for slab in pixels.slabs),
        )

    def _modalities(self, example: Example, pictures: int) -> Tensor:
        """Returns the column of the codes that names the modality of each picture, -1 where there is none.

        A picture that states none has that of its study, where it is coded with one.
        """
        columns = {code: column for column, code in enumerate(self.config.codes)}
        coded = [code for code in example.codes or () if code.startswith(MODALITY_CODE)]
        unstated = columns.get(coded[0], -1) if len(coded) == 1 else -1
        read = () if example.study is None else example.study.series[:pictures]
        return torch.tensor(
            [columns.get(f"{MODALITY_CODE}{s.modality}", -1) if s.modality else unstated for s in read],
            dtype=torch.long,
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

    def _severities(self, findings: Iterable[Finding]) -> Tensor:
        severity_O = torch.full((len(self.config.observations),), float("nan"))
        for finding in findings:
            if finding.status is Status.PRESENT and finding.observation in self.config.observations:
                grade = GRADES.get(finding.severity or "")
                if grade is not None:
                    severity_O[self.config.observations.index(finding.observation)] = grade
        return severity_O

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
        # Words of a study are words: "<image>" or "<eos>" in an indication must not become the token of that name.
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

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


def _place_row(places: Sequence[Place], observation: str, lesion: Lesion) -> int:
    """Returns which of the places of an observation a lesion is in, -1 for none of them."""
    own = (lesion.laterality, lesion.location)
    rows = [i for i, p in enumerate(places) if observation in p.observations and (p.laterality, p.location) == own]
    return rows[0] if rows else -1


def is_volume(study: Study) -> bool:
    """Whether a study has slices with a place in the patient, and is not read picture by picture.

    A series of one frame that states no place, such as a screenshot, is a picture whatever its modality.
    """
    return any(
        series.source_format == "NIFTI" or (series.modality in ("CT", "MR") and not _is_picture(series))
        for series in study.series
        if series.source_format in ("DICOM", "NIFTI")
    )


def _is_picture(series: Series) -> bool:
    return len(series.instances) == 1 and series.instances[0].pixels.frames == 1 and plane_of(series) is None


def kind_of(codes: Iterable[str]) -> str | None:
    """Returns what codes say was examined, such as "CT of the head" of ``modality/CT`` and ``body_part/Head``."""
    named = {
        prefix: [c.removeprefix(prefix) for c in codes if c.startswith(prefix)]
        for prefix in (MODALITY_CODE, BODY_PART_CODE)
    }
    modalities, parts = named[MODALITY_CODE], named[BODY_PART_CODE]
    if not modalities or not parts:
        return None
    return f"{' and '.join(modalities)} of the {' and '.join(part.lower() for part in parts)}"


def kind_of_codes(study: Mapping[str, float], pictures: Sequence[Mapping[str, float]]) -> tuple[str | None, str | None]:
    """Returns what pictures show by the logits of the codes of their source, and whose vocabulary that has.

    The part of the body is the likeliest of the study. A picture is of one modality; its own logits and those of the
    study count alike, since most studies have one.

    Args:
        study: logit by code, of all pictures together.
        pictures: the same of each alone.
    """
    modalities, parts = ([code for code in study if code.startswith(p)] for p in (MODALITY_CODE, BODY_PART_CODE))
    if not parts:
        return None, None
    part = max(parts, key=lambda code: study[code])
    seen = {max(modalities, key=lambda code: own[code] + study[code], default=None) for own in pictures}
    return kind_of([*(code for code in modalities if code in seen), part]), CODE_REGIONS.get(part)


def place_name(lesion: Lesion) -> str:
    """Returns side and location of a lesion in words, such as ``right upper lobe``."""
    return " ".join(filter(None, [lesion.laterality, lesion.location]))


def decisions_text(decisions: Sequence[Finding], *, detailed: bool = False) -> str:
    """Returns findings as the prompt names them: ``left pleural effusion; cardiomegaly``, or ``nothing``.

    Args:
        decisions: those that are not present are not named.
        detailed: with severity, and each of a few lesions with place and size: ``right upper lobe nodule 8 mm``.
    """
    present = sorted(
        (f for f in decisions if f.status is Status.PRESENT), key=lambda f: (f.observation, f.laterality or "")
    )
    names = []
    for finding in present:
        words = finding.observation.replace("_", " ")
        if detailed and finding.lesions:
            named = finding.lesions[:LESIONS_DESCRIBED]
            names += [f"{place_name(lesion)} {words} {lesion.diameter_mm:.0f} mm".strip() for lesion in named]
            if len(finding.lesions) > len(named):
                names.append(f"{len(finding.lesions)} {words} in all")
        elif detailed:
            names.append(" ".join(filter(None, [finding.severity, finding.laterality, finding.location, words])))
        else:
            names.append(" ".join(filter(None, [finding.laterality, words])))
    return "; ".join(names) or "nothing"


def _percentiles(picture: Tensor, percents: tuple[float, float]) -> tuple[float, float]:
    """Returns percentiles of the pixels; ``torch.quantile`` refuses large pictures, sorting does not."""
    ordered = picture.flatten().sort().values
    last = len(ordered) - 1
    low, high = (float(ordered[round(last * p / 100)]) for p in percents)
    return low, high


def _tidy(text: str) -> str | None:
    return " ".join(text.split()) or None
