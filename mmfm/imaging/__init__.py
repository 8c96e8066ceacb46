"""Stored pixels -> physical space: Volumes with an affine in LPS millimetres, and the Receipt of what was done."""

from mmfm.imaging.pixels import NAMED_WINDOWS, apply_window
from mmfm.imaging.volume import Volume

__all__ = ["NAMED_WINDOWS", "Volume", "apply_window"]
