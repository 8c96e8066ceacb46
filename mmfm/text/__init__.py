"""Report text: sections, sentences, and the labeller that reads findings from them and writes them out again."""

from mmfm.text.certainty import certainty_of
from mmfm.text.labeller import OBSERVATIONS, label_report, label_sentences, mentions, no_finding, states
from mmfm.text.regions import CHEST_RADIOGRAPH, REGIONS, observations
from mmfm.text.sections import compares_with_prior, split_sections, split_sentences, without_comparisons
from mmfm.text.wording import describe

__all__ = [
    "CHEST_RADIOGRAPH",
    "OBSERVATIONS",
    "REGIONS",
    "certainty_of",
    "compares_with_prior",
    "describe",
    "label_report",
    "label_sentences",
    "mentions",
    "no_finding",
    "observations",
    "split_sections",
    "split_sentences",
    "states",
    "without_comparisons",
]
