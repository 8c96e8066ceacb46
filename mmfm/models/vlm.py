"""VLM: encoders, connectors, finding heads and language model over the pictures or the volume of a study.

Each picture, and each slab of a volume, gives vision tokens that take the place of the image tokens in the prompt, in
order. The finding heads read the same patch features, so that report and findings are learned together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmfm.batch import Batch, VolumeInputs
from mmfm.data.manifest import NORMAL
from mmfm.errors import ConfigError
from mmfm.models.connector import Connector
from mmfm.models.encoder2d import Encoder2D
from mmfm.models.encoder3d import Encoder3D, Features3D
from mmfm.models.heads import FindingHeads, HeadLogits
from mmfm.models.language import LanguageModelConfig
from mmfm.models.processor import Processor
from mmfm.models.volume_heads import PeaksByReading, Reading, VolumeHeads, VolumeLogits, peaks, readings, shifted


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the pictures and volumes of a batch give, before any text."""

    tokens_VE: Tensor
    """Vision tokens of all studies, one study after the other."""
    features_BE: Tensor
    """Mean patch feature of each study. Where a batch has pictures and volumes, the features of both encoders stand
    side by side, zeros for the one that a study was not read by."""
    heads: HeadLogits
    """Of every study of the batch."""
    volumes: tuple[VolumeLogits, ...] = ()
    """Of every slab, one after the other; each holds one. Where lesions were sought, their peaks are kept instead."""
    peaks: tuple[PeaksByReading, ...] = ()
    """Of every slab: what may be a lesion in each of its readings; empty where lesions were not sought."""


class VLM(nn.Module):
    """Vision-language model of radiology studies; architecture only."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """The parts by name and size."""

        encoder: Encoder2D.Config | None = field(default_factory=Encoder2D.Config)
        """Of pictures; ``None`` where none are read."""
        connector: Connector.Config = field(default_factory=Connector.Config)
        volume_encoder: Encoder3D.Config | None = None
        """Of volumes; ``None`` where none are read."""
        tokens_per_slab: int = 27
        """Vision tokens of a slab, a cube: its features are averaged to a grid of so many."""
        language: LanguageModelConfig = field(default_factory=LanguageModelConfig)
        head_dropout: float = 0.3
        """Dropout before the finding heads."""

        def __post_init__(self) -> None:
            if self.encoder is None and self.volume_encoder is None:
                raise ConfigError(
                    "model", expected="an encoder or a volume_encoder", found="neither", fix="name one of them"
                )
            if round(self.tokens_per_slab ** (1 / 3)) ** 3 != self.tokens_per_slab:
                raise ConfigError(
                    "model.tokens_per_slab",
                    expected="a cube (the features are averaged to one)",
                    found=str(self.tokens_per_slab),
                    fix="choose 1, 8, 27, 64, ...",
                )

        def build(self, processor: Processor, *, weights: bool = True) -> VLM:
            """Returns the model of a processor's tokens, observations, lesions, masks, places and codes.

            Args:
                processor: that makes its inputs.
                weights: False makes the architecture only.
            """
            config = self if weights else replace(
                self,
                encoder=None if self.encoder is None else replace(self.encoder, weights=None),
                volume_encoder=None if self.volume_encoder is None else self.volume_encoder.without_weights(),
            )  # fmt: skip
            language = self.language.build(processor.tokenizer, weights=weights)
            return VLM(config=config, language=language, processor=processor)

    def __init__(self, *, config: Config, language: Any, processor: Processor) -> None:
        super().__init__()
        self.language = language
        width = language.get_input_embeddings().embedding_dim
        names = processor.config
        self.image_token_id = processor.image_token_id
        self.num_observations, self.num_codes = len(names.observations), len(names.codes)
        self.encoder = None if config.encoder is None else config.encoder.build()
        if self.encoder is not None:
            self.connector = config.connector.build(in_features=self.encoder.num_features, out_features=width)
            self.view_2E = nn.Parameter(torch.zeros(2, width))
            """Added to the vision tokens of a frontal and of a lateral picture."""
            self.heads = FindingHeads(
                in_features=self.encoder.num_features,
                num_observations=self.num_observations,
                num_codes=self.num_codes,
                dropout=config.head_dropout,
            )
        self.volume_encoder = None if config.volume_encoder is None else config.volume_encoder.build()
        if self.volume_encoder is not None:
            self.rank_sign_O: Tensor
            signs = [-1.0 if name == NORMAL else 1.0 for name in names.observations]
            self.register_buffer("rank_sign_O", torch.tensor(signs), persistent=False)
            self.volume_heads = VolumeHeads(
                num_fine=self.volume_encoder.num_fine,
                num_coarse=self.volume_encoder.num_coarse,
                observations=names.observations,
                lesions=names.lesions,
                masks=names.masks,
                places=names.places,
                dropout=config.head_dropout,
            )
            self.volume_side = round(config.tokens_per_slab ** (1 / 3))
            self.volume_connector = nn.Sequential(
                nn.LayerNorm(self.volume_encoder.num_coarse),
                nn.Linear(self.volume_encoder.num_coarse, width),
                nn.GELU(),
                nn.Linear(width, width),
            )

    @property
    def fine_stride(self) -> tuple[int, int, int]:
        """Voxels of a slab per patch of its heat maps and masks."""
        assert self.volume_encoder is not None, "asked for after volumes were encoded"
        depth, height, width = self.volume_encoder.fine_stride
        return depth, height, width

    def reading_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters of encoders and heads: of all that reads, and writes no text."""
        for name in ("encoder", "heads", "volume_encoder", "volume_heads"):
            module = getattr(self, name, None)
            if module is not None:
                yield from module.parameters()

    def encode(self, batch: Batch, *, seek_lesions: bool = False) -> Encoded:
        """Returns vision tokens, study features and finding logits.

        Args:
            batch: of pictures and volumes.
            seek_lesions: read each slab in all the ways of ``readings``, and keep the peaks of all readings. What
                is said of the whole is their mean then; vision tokens and features are those of the first reading.

        Raises:
            ValueError: the batch holds pictures or volumes that the model has no encoder for, or neither; or lesions
                are sought in slabs that were not sampled between their voxels.
        """
        pictures = self._encode_pictures(batch) if batch.image_mask_BS.any() else None
        volumes = self._encode_volumes(batch, seek_lesions) if batch.volumes else None
        if pictures is not None and volumes is not None:
            return _merged(batch, pictures, volumes)
        encoded = pictures or volumes
        if encoded is None:
            raise ValueError("batch: expected pictures or volumes, found neither")
        return encoded

    def _encode_pictures(self, batch: Batch) -> Encoded:
        if self.encoder is None:
            raise ValueError("batch: expected volumes, found pictures, which this model has no encoder for")
        pixels_NCHW = batch.pixels_BSCHW[batch.image_mask_BS]
        study_N = batch.image_mask_BS.nonzero()[:, 0]
        features_NEHW = self.encoder(pixels_NCHW)
        heads = self.heads(features_NEHW, study_N, batch.views_BS[batch.image_mask_BS], len(batch.study_uids))
        features_BE = _mean_of_study(features_NEHW.float().mean((2, 3)), study_N, len(batch.study_uids))
        tokens_NVE = self.connector(features_NEHW) + self.view_2E[heads.views_N][:, None]
        return Encoded(tokens_VE=tokens_NVE.flatten(0, 1), features_BE=features_BE, heads=heads)

    def _encode_volumes(self, batch: Batch, seek_lesions: bool) -> Encoded:
        """Encodes slab by slab: those of different regions differ in shape, and one at a time bounds the memory."""
        if self.volume_encoder is None:
            raise ValueError("batch: expected pictures, found volumes, which this model has no encoder for")
        if seek_lesions and any(volume.between_CDHW is None for volume in batch.volumes):
            raise ValueError(
                "batch: expected slabs as Sampler.slabs gives them, to seek lesions in; found some to learn from"
            )
        study_N, count = batch.volume_study_N, len(batch.study_uids)
        first, *again = readings(self.fine_stride)[: None if seek_lesions else 1]
        tokens, pooled, logits, found = [], [], [], []
        of_whole: dict[str, list[Tensor]] = {"present_NO": [], "sides_NO2": [], "severity_NOG": []}
        for volume in batch.volumes:
            features, said = self._read(volume, first)
            coarse = features.coarse_NEDHW
            pooled.append(coarse.float().mean((2, 3, 4)))
            grid = nn.functional.adaptive_avg_pool3d(coarse, self.volume_side).flatten(2).transpose(1, 2)
            tokens.append(self.volume_connector(grid)[0])
            sums = [getattr(said, name) for name in of_whole]
            if seek_lesions:
                own = [peaks(self.volume_heads, said, 0, self.fine_stride)]
                for reading in again:
                    del features, said  # the memory of one reading at a time
                    features, said = self._read(volume, reading)
                    sums = [total + getattr(said, name) for total, name in zip(sums, of_whole, strict=True)]
                    own.append(peaks(self.volume_heads, said, 0, self.fine_stride, shift=reading.shift))
                found.append(own)
            else:
                logits.append(said)
            for values, total in zip(of_whole.values(), sums, strict=True):
                values.append(total / (1 + len(again)))
        present_NO, sides_NO2, severity_NOG = (torch.cat(values) for values in of_whole.values())
        # What one slab shows, the study has, and it is normal only where every slab is; a side or a grade is read where
        # the observation shows most.
        own_BN = torch.arange(count, device=study_N.device)[:, None] == study_N
        best_BO = torch.where(own_BN[..., None], present_NO * self.rank_sign_O, -torch.inf).argmax(1)
        present_BO = present_NO.gather(0, best_BO)
        heads = HeadLogits(
            present_BO=present_BO,
            sides_BO2=sides_NO2.gather(0, best_BO[..., None].expand(-1, -1, 2)),
            severity_BOG=severity_NOG.gather(0, best_BO[..., None].expand(-1, -1, severity_NOG.shape[-1])),
            lateral_N=present_BO.new_zeros(0),
            sided_B=torch.ones(count, dtype=torch.bool, device=present_BO.device),
            views_N=study_N.new_zeros(0),
            codes_BK=present_BO.new_zeros(count, self.num_codes),
            codes_NK=present_BO.new_zeros(0, self.num_codes),
        )
        return Encoded(
            tokens_VE=torch.cat(tokens),
            features_BE=_mean_of_study(torch.cat(pooled), study_N, count),
            heads=heads,
            volumes=tuple(logits),
            peaks=tuple(found),
        )

    def _read(self, volume: VolumeInputs, reading: Reading) -> tuple[Features3D, VolumeLogits]:
        """Returns features and logits of a slab in one reading."""
        pixels_CDHW = volume.between_CDHW if reading.between else volume.pixels_CDHW
        assert self.volume_encoder is not None and pixels_CDHW is not None, "the caller asks"
        features = self.volume_encoder(shifted(pixels_CDHW, reading.voxels)[None])
        begin = [n + s for n, s in zip(volume.corner, reading.shift, strict=True)]
        corner, whole = (
            [n / step for n, step in zip(voxels, self.fine_stride, strict=True)]
            for voxels in (begin, volume.grid or volume.pixels_CDHW.shape[1:])
        )
        return features, self.volume_heads(features, corner=corner, whole=whole)

    def forward(self, batch: Batch) -> tuple[Encoded, Tensor]:
        """Returns what the pictures or volumes gave and the language model's logits (B, T, vocabulary)."""
        encoded = self.encode(batch)
        output = self.language(
            inputs_embeds=self.embed(batch.input_ids_BT, encoded.tokens_VE),
            attention_mask=batch.attention_mask_BT.long(),
        )
        return encoded, output.logits

    def embed(self, input_ids_BT: Tensor, tokens_VE: Tensor) -> Tensor:
        """Returns token embeddings (B, T, E) with the vision tokens in the places of the image tokens.

        Raises:
            ValueError: the prompt has room for another number of vision tokens.
        """
        embeddings_BTE = self.language.get_input_embeddings()(input_ids_BT)
        places_BT = input_ids_BT == self.image_token_id
        if int(places_BT.sum()) != len(tokens_VE):
            raise ValueError(f"image tokens: expected {len(tokens_VE)} in the prompts, found {int(places_BT.sum())}")
        return embeddings_BTE.masked_scatter(places_BT[..., None], tokens_VE.to(embeddings_BTE.dtype))


def _merged(batch: Batch, pictures: Encoded, volumes: Encoded) -> Encoded:
    """Returns one Encoded of a batch in which some studies are pictures and others volumes."""
    has_volume_B = torch.zeros(len(batch.study_uids), dtype=torch.bool, device=batch.volume_study_N.device)
    has_volume_B[batch.volume_study_N] = True

    def chosen(name: str) -> Tensor:
        first, second = getattr(pictures.heads, name), getattr(volumes.heads, name)
        return torch.where(has_volume_B.reshape(-1, *[1] * (first.ndim - 1)), second, first)

    names = ("present_BO", "sides_BO2", "severity_BOG", "sided_B")
    heads = replace(pictures.heads, **{name: chosen(name) for name in names})
    per_picture = len(pictures.tokens_VE) // int(batch.image_mask_BS.sum())
    per_slab = len(volumes.tokens_VE) // len(batch.volumes)
    of_pictures = pictures.tokens_VE.split((batch.image_mask_BS.sum(1) * per_picture).tolist())
    slabs_B = torch.bincount(batch.volume_study_N, minlength=len(batch.study_uids))
    of_volumes = volumes.tokens_VE.split((slabs_B * per_slab).tolist())
    return Encoded(
        tokens_VE=torch.cat([part for study in zip(of_pictures, of_volumes, strict=True) for part in study]),
        features_BE=torch.cat([pictures.features_BE, volumes.features_BE], dim=1),
        heads=heads,
        volumes=volumes.volumes,
        peaks=volumes.peaks,
    )


def _mean_of_study(values_NE: Tensor, study_N: Tensor, count: int) -> Tensor:
    total = values_NE.new_zeros(count, values_NE.shape[1]).index_add(0, study_N, values_NE)
    number = torch.bincount(study_N, minlength=count).clamp(min=1)
    return total / number[:, None]
