"""Lightning modules, thin; what they log of themselves."""

from mmfm.training.augmentation import Augmentation
from mmfm.training.sft import SFT, SFTConfig

__all__ = ["SFT", "Augmentation", "SFTConfig"]
