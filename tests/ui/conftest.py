import pytest

from mmfm.report import Differential, Finding, Provenance, Report, Sections, Side, Status
from mmfm.study import Receipt

EVIL = "<script>alert(1)</script> **bold** [x](javascript:y) | a`b"


@pytest.fixture
def evil():
    """Text that would do harm where it is rendered as HTML or Markdown."""
    return EVIL


@pytest.fixture
def report():
    """A report whose every free text is EVIL."""
    return Report(
        study_uid=EVIL,
        sections=Sections(indication=EVIL, findings=EVIL, impression=EVIL),
        findings=(
            Finding(observation="nodule", status=Status.ABSENT, probability=0.1),
            Finding(
                observation="pleural_effusion",
                status=Status.PRESENT,
                laterality=Side.LEFT,
                probability=0.8,
                severity=EVIL,
            ),
        ),
        finding_probabilities={"nodule": 0.1, "pleural_effusion": 0.8, "normal": 0.05},
        differential=(
            Differential(diagnosis=EVIL, likelihood="possible", supporting=("left fluid",), against=("none",)),
        ),
        differential_note=f"not calibrated {EVIL}",
        not_assessed=("lung_opacity",),
        coverage="frontal only: lateral not read",
        scope_notes=(EVIL,),
        receipts=(
            Receipt(
                series_uid="1.2",
                source_format="PNG",
                shape=(1, 8, 8),
                quantity="display",
                orientation="not stated",
                window=EVIL,
                steps=("resized",),
                slices_used=1,
                warnings=(EVIL,),
            ),
        ),
        provenance=Provenance(checkpoint=EVIL, sha256="0" * 64, raw_text=EVIL, seconds=0.5, decoding=EVIL),
    )
