"""Measure a checkpoint: draft every study of a split, and score the drafts beside their controls.

    mmfm predict --manifest M --split val --checkpoint C --out predictions.jsonl
    mmfm evaluate --checkpoint C --manifest M --split val --train-manifest T --out DIR

What needs a model or pictures is done here: the drafts and what they cost, their controls, drafts of altered pictures,
and hashes of the pictures by which leaks are found. ``mmfm.evaluation`` scores all of it.
"""

from mmfm.measure.controls import neighbour_features
from mmfm.measure.drafts import draft_all
from mmfm.measure.evaluating import evaluate, predict

__all__ = ["draft_all", "evaluate", "neighbour_features", "predict"]
