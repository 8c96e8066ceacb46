"""From a study to a report that a reader may see: scope, draft, what is withheld, differential."""

from mmfm.inference.compose import assessed, compose
from mmfm.inference.differential import suggest
from mmfm.inference.reporter import Reporter, choose_device
from mmfm.inference.scope import check_contrast, check_study

__all__ = ["Reporter", "assessed", "check_contrast", "check_study", "choose_device", "compose", "suggest"]
