"""LanguageModel: any causal language model of transformers, or a small one made from scratch with its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from mmfm.errors import ConfigError

IMAGE_TOKEN = "<image>"
"""Stands in the prompt for one vision token."""
SCRATCH = "scratch"


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """Which language model drafts the text. The sizes are for ``scratch`` alone."""

    name: str = SCRATCH
    """``scratch`` (a small Llama, random weights, byte-level BPE trained on the reports), a hub id, or a local
    folder; a folder without weights gives its ``config.json`` with random weights."""
    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 4
    vocab_size: int = 2048
    max_length: int = 512
    """Tokens of prompt and report together."""

    def build_tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Returns the tokenizer, trained on ``texts`` for ``scratch``; ``IMAGE_TOKEN`` is one of its tokens."""
        if self.name == SCRATCH:
            return _train_tokenizer(texts, self.vocab_size)
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.name)
        except (OSError, ValueError) as error:
            raise _unknown(self.name, error) from None
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def build(self, tokenizer: PreTrainedTokenizerBase, *, weights: bool = True) -> nn.Module:
        """Returns the language model with room for every token of ``tokenizer``.

        Args:
            tokenizer: of ``build_tokenizer``.
            weights: False makes the architecture only, for weights that a checkpoint brings.
        """
        if self.name == SCRATCH:
            return LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=self.hidden_size,
                    intermediate_size=self.hidden_size * 8 // 3,
                    num_hidden_layers=self.num_layers,
                    num_attention_heads=self.num_heads,
                    num_key_value_heads=self.num_heads,
                    max_position_embeddings=self.max_length,
                    tie_word_embeddings=True,
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            )
        folder = Path(self.name)
        model: Any
        has_weights = weights and not (folder.is_dir() and not [*folder.glob("*.safetensors")])
        try:
            if has_weights:
                model = AutoModelForCausalLM.from_pretrained(self.name, dtype=torch.float32, use_safetensors=True)
            else:
                model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(self.name))
        except (OSError, ValueError) as error:
            raise _unknown(self.name, error) from None
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
        return model


def image_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the id of ``IMAGE_TOKEN``."""
    token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert isinstance(token_id, int)
    return token_id


def _unknown(name: str, error: Exception) -> ConfigError:
    return ConfigError(
        "model.language.name",
        expected="'scratch', a hub id or a local folder with config.json and a tokenizer",
        found=f"{name!r} ({str(error).splitlines()[0][:120]})",
        fix="check the name; offline, give a local folder",
    )


def _train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>", IMAGE_TOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=[IMAGE_TOKEN],
    )
