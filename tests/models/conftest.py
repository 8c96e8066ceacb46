"""A tiny model and processor for the tests of this folder, made once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mmfm.data.drawn import PLACES
from mmfm.data.synthetic_volumes import draw_volume
from mmfm.data.synthetic_volumes.drawing import DrawnVolume
from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig, Processor
from mmfm.models.encoder3d import Encoder3D
from mmfm.models.recipes import RECIPES

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


VOLUME_OBSERVATIONS = (
    "kidney_lesion",
    "liver_lesion",
    "free_fluid",
    "infarct",
    "brain_mass",
    "hydrocephalus",
    "normal",
)


@pytest.fixture(scope="session")
def volume_config(tiny_config: VLM.Config) -> VLM.Config:
    """Of a model of pictures and of volumes."""
    return replace(tiny_config, volume_encoder=Encoder3D.Config(width=8), tokens_per_slab=8)


@pytest.fixture(scope="session")
def volume_processor(volume_config: VLM.Config) -> Processor:
    """Reads abdomen and head on grids of 8 mm."""
    config = Processor.Config(
        image_size=64,
        tokens_per_image=4,
        recipes=tuple(recipe.coarser(8.0) for recipe in RECIPES[1:]),
        tokens_per_slab=8,
        max_length=384,
        observations=VOLUME_OBSERVATIONS,
        codes=("modality/CT", "body_part/Head"),
        lesions=("liver_lesion", "kidney_lesion", "infarct", "brain_mass"),
        masks=("free_fluid",),
        places=PLACES,
    )
    return Processor(config, volume_config.language.build_tokenizer(TEXTS * 20))


@pytest.fixture
def volume_model(volume_config: VLM.Config, volume_processor: Processor) -> VLM:
    torch.manual_seed(0)
    return volume_config.build(volume_processor).eval()


@pytest.fixture(scope="session")
def drawn_abdomen() -> DrawnVolume:
    """Has a large lesion of the liver, and fluid."""
    return draw_volume("abdomen", 5, spacing=(8.0, 8.0, 8.0), findings=("liver_lesion", "free_fluid"))


@pytest.fixture(scope="session")
def drawn_head() -> DrawnVolume:
    return draw_volume("head", 5, spacing=(8.0, 8.0, 8.0), findings=("infarct",))


@pytest.fixture
def two_pictures(tmp_path):
    """A folder with two PNG pictures of noise: one study of two series."""
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 256, (80, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
    return tmp_path
