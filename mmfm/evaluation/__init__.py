"""Scores of drafted reports with intervals, beside controls, under a stated policy. numpy only, no model."""

from mmfm.evaluation.leaderboard import update_leaderboard, update_summary
from mmfm.evaluation.predictions import Prediction, read_predictions, write_predictions
from mmfm.evaluation.references import Reference, read_references
from mmfm.evaluation.scorecard import Provenance, Scorecard
from mmfm.evaluation.scoring import score_card

__all__ = [
    "Prediction",
    "Provenance",
    "Reference",
    "Scorecard",
    "read_predictions",
    "read_references",
    "score_card",
    "update_leaderboard",
    "update_summary",
    "write_predictions",
]
