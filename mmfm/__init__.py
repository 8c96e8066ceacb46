"""mmfm drafts radiology reports from DICOM studies. Research use only, not a medical device."""

from mmfm import _torchvision_cpu

__version__ = "0.1.0"

_torchvision_cpu.install()
