"""Report text: sections, sentences, and the labeller that reads findings from them and writes them out again."""

from mmfm.text.labeller import OBSERVATIONS, label_report, mentions, mentions_elsewhere, states
from mmfm.text.regions import CHEST_RADIOGRAPH, REGIONS, observations
from mmfm.text.sections import compares_with_prior, split_sentences
from mmfm.text.wording import LESIONS_DESCRIBED, describe

__all__ = [
    "CHEST_RADIOGRAPH",
    "LESIONS_DESCRIBED",
    "OBSERVATIONS",
    "REGIONS",
    "compares_with_prior",
    "describe",
    "label_report",
    "mentions",
    "mentions_elsewhere",
    "observations",
    "split_sentences",
    "states",
]
