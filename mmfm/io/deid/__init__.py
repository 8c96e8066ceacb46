"""De-identification by PS3.15 Annex E: DICOM objects, their pixels, and report text."""

from mmfm.io.deid.folder import deidentify
from mmfm.io.deid.text import clean_text

__all__ = ["clean_text", "deidentify"]
