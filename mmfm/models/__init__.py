"""Encoder, connector, finding heads, language model; the processor in front of them; checkpoints."""

from mmfm.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mmfm.models.connector import Connector
from mmfm.models.drafting import Draft, draft
from mmfm.models.encoder2d import Encoder2D
from mmfm.models.language import LanguageModelConfig
from mmfm.models.processor import Processor
from mmfm.models.vlm import VLM

__all__ = [
    "VLM",
    "Checkpoint",
    "Connector",
    "Draft",
    "Encoder2D",
    "LanguageModelConfig",
    "Processor",
    "draft",
    "load_checkpoint",
    "save_checkpoint",
]
