"""VLM: encoder, connector, finding heads and language model over the pictures of a study.

Each picture gives ``V`` vision tokens that take the place of the image tokens in the prompt, in order. The finding
heads read the same patch features, so that report and findings are learned together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mmfm.batch import Batch
from mmfm.models.connector import Connector
from mmfm.models.encoder2d import Encoder2D
from mmfm.models.heads import FindingHeads, HeadLogits
from mmfm.models.language import LanguageModelConfig, image_token_id


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the pictures of a batch give, before any text."""

    tokens_NVE: Tensor
    """Vision tokens of all pictures, one after the other."""
    features_BE: Tensor
    """Mean patch feature of each study."""
    heads: HeadLogits


class VLM(nn.Module):
    """Vision-language model of radiology studies; architecture only."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """The parts by name and size."""

        encoder: Encoder2D.Config = field(default_factory=Encoder2D.Config)
        connector: Connector.Config = field(default_factory=Connector.Config)
        language: LanguageModelConfig = field(default_factory=LanguageModelConfig)
        head_dropout: float = 0.3
        """Dropout before the finding heads."""

        def build(
            self,
            tokenizer: PreTrainedTokenizerBase,
            *,
            num_observations: int,
            num_codes: int = 0,
            weights: bool = True,
        ) -> VLM:
            """Returns the model; ``weights=False`` makes the architecture only."""
            encoder = self.encoder if weights else Encoder2D.Config(
                name=self.encoder.name, image_size=self.encoder.image_size, weights=None
            )  # fmt: skip
            return VLM(
                encoder=encoder.build(),
                connector=self.connector,
                language=self.language.build(tokenizer, weights=weights),
                image_token_id=image_token_id(tokenizer),
                num_observations=num_observations,
                num_codes=num_codes,
                head_dropout=self.head_dropout,
            )

    def __init__(
        self,
        *,
        encoder: Encoder2D,
        connector: Connector.Config,
        language: Any,
        image_token_id: int,
        num_observations: int,
        num_codes: int,
        head_dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.language = language
        width = language.get_input_embeddings().embedding_dim
        self.connector = connector.build(in_features=encoder.num_features, out_features=width)
        self.view_2E = nn.Parameter(torch.zeros(2, width))
        """Added to the vision tokens of a frontal and of a lateral picture."""
        self.heads = FindingHeads(
            in_features=encoder.num_features,
            num_observations=num_observations,
            num_codes=num_codes,
            dropout=head_dropout,
        )
        self.image_token_id = image_token_id

    def encode(self, batch: Batch) -> Encoded:
        """Returns vision tokens, study features and finding logits."""
        pixels_NCHW = batch.pixels_BSCHW[batch.image_mask_BS]
        study_N = batch.image_mask_BS.nonzero()[:, 0]
        features_NEHW = self.encoder(pixels_NCHW)
        heads = self.heads(features_NEHW, study_N, batch.views_BS[batch.image_mask_BS], len(batch.study_uids))
        pooled_NE = features_NEHW.float().mean((2, 3))
        count_B = batch.image_mask_BS.sum(1).clamp(min=1)
        features_BE = pooled_NE.new_zeros(len(count_B), pooled_NE.shape[1]).index_add(0, study_N, pooled_NE)
        tokens_NVE = self.connector(features_NEHW) + self.view_2E[heads.views_N][:, None]
        return Encoded(tokens_NVE=tokens_NVE, features_BE=features_BE / count_B[:, None], heads=heads)

    def forward(self, batch: Batch) -> tuple[Encoded, Tensor]:
        """Returns what the pictures gave and the language model's logits (B, T, vocabulary)."""
        encoded = self.encode(batch)
        output = self.language(
            inputs_embeds=self.embed(batch.input_ids_BT, encoded.tokens_NVE),
            attention_mask=batch.attention_mask_BT.long(),
        )
        return encoded, output.logits

    def embed(self, input_ids_BT: Tensor, tokens_NVE: Tensor) -> Tensor:
        """Returns token embeddings (B, T, E) with the vision tokens in the places of the image tokens.

        Raises:
            ValueError: the prompt has room for another number of vision tokens.
        """
        embeddings_BTE = self.language.get_input_embeddings()(input_ids_BT)
        places_BT = input_ids_BT == self.image_token_id
        tokens = tokens_NVE.flatten(0, 1).to(embeddings_BTE.dtype)
        if int(places_BT.sum()) != len(tokens):
            raise ValueError(f"image tokens: expected {len(tokens)} in the prompts, found {int(places_BT.sum())}")
        return embeddings_BTE.masked_scatter(places_BT[..., None], tokens)
