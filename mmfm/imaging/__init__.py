"""Stored pixels -> physical space: Volumes with an affine in LPS millimetres, and the Receipt of what was done."""

from mmfm.imaging.checking import check_for_model
from mmfm.imaging.choice import Choice, choose_series, plane_of, sequence_of
from mmfm.imaging.pixels import NAMED_WINDOWS, apply_window
from mmfm.imaging.volume import Volume

__all__ = [
    "NAMED_WINDOWS",
    "Choice",
    "Volume",
    "apply_window",
    "check_for_model",
    "choose_series",
    "plane_of",
    "sequence_of",
]
