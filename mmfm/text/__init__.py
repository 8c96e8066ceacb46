"""Report text: sections, sentences, and the labeller that reads findings from them and writes them out again."""

from mmfm.text.labeller import OBSERVATIONS, label_report, mentions, states
from mmfm.text.regions import CHEST_RADIOGRAPH, REGIONS, observations
from mmfm.text.sections import compares_with_prior, split_sentences
from mmfm.text.wording import describe

__all__ = [
    "CHEST_RADIOGRAPH",
    "OBSERVATIONS",
    "REGIONS",
    "compares_with_prior",
    "describe",
    "label_report",
    "mentions",
    "observations",
    "split_sentences",
    "states",
]
