"""From a study to a report that a reader may see: checkpoint, scope, draft, what is withheld, differential, prior."""

from mmfm.inference.choosing import AutoReporter, choose_checkpoint
from mmfm.inference.compose import assessed, compose
from mmfm.inference.differential import suggest
from mmfm.inference.reporter import Reporter, choose_device
from mmfm.inference.scope import check_contrast, check_study, region_of

__all__ = [
    "AutoReporter",
    "Reporter",
    "assessed",
    "check_contrast",
    "check_study",
    "choose_checkpoint",
    "choose_device",
    "compose",
    "region_of",
    "suggest",
]
