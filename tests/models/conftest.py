"""A tiny model and processor for the tests of this folder, made once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig, Processor

TEXTS = ["Small left pleural effusion.", "The heart is enlarged.", "No acute cardiopulmonary abnormality."]
OBSERVATIONS = ("cardiomegaly", "pleural_effusion", "normal")


@pytest.fixture(scope="session")
def tiny_config() -> VLM.Config:
    return VLM.Config(
        encoder=Encoder2D.Config(name="test_efficientnet", image_size=64, weights=None),
        connector=Connector.Config(kind="mlp", num_tokens=4),
        language=LanguageModelConfig(hidden_size=32, num_layers=2, num_heads=2, vocab_size=400, max_length=256),
    )


@pytest.fixture
def tiny_processor(tiny_config: VLM.Config) -> Processor:
    return Processor(
        Processor.Config(image_size=64, tokens_per_image=4, max_length=256, observations=OBSERVATIONS),
        tiny_config.language.build_tokenizer(TEXTS * 20),
    )


@pytest.fixture
def tiny_model(tiny_config: VLM.Config, tiny_processor: Processor) -> VLM:
    torch.manual_seed(0)
    return tiny_config.build(tiny_processor).eval()


@pytest.fixture
def two_pictures(tmp_path):
    """A folder with two PNG pictures of noise: one study of two series."""
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 256, (80, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
    return tmp_path
