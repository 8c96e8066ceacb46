"""Every outside format, in and out: DICOM, NIfTI, PNG and JPEG to Studies with late pixels; de-identification."""

from mmfm.io.deid import clean_text, deidentify
from mmfm.io.images import read_image
from mmfm.io.nifti import with_modality
from mmfm.io.reading import FileOutcome, Reading, attach, read, read_studies

__all__ = [
    "FileOutcome",
    "Reading",
    "attach",
    "clean_text",
    "deidentify",
    "read",
    "read_image",
    "read_studies",
    "with_modality",
]
