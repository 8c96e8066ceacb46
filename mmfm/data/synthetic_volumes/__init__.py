"""Synthetic CT and MR volumes whose truth is known: for training, for tests and for samples.

drawn = draw_volume("chest_ct", seed=7)
drawn.images["CT"], drawn.findings, drawn.labels["nodule"]
sections, findings = write_report(drawn, np.random.default_rng(7))
write_dicom(drawn, Path("sample"))
"""

from __future__ import annotations

from dataclasses import replace

from mmfm.data.synthetic_volumes import abdomen, chest, head
from mmfm.data.synthetic_volumes.drawing import DrawnVolume, Segment
from mmfm.data.synthetic_volumes.wording import write_report
from mmfm.data.synthetic_volumes.writing import Writing, WrittenSeries, WrittenStudy, write_dicom

__all__ = [
    "ANATOMIES",
    "DRAWN",
    "DrawnVolume",
    "Segment",
    "Writing",
    "WrittenSeries",
    "WrittenStudy",
    "draw_volume",
    "write_dicom",
    "write_report",
]

ANATOMIES = {"chest_ct": chest, "abdomen": abdomen, "head": head}
"""The module that draws each region."""
DRAWN = {region: anatomy.DRAWN for region, anatomy in ANATOMIES.items()}
"""Of each region, the observations that can be drawn."""


def draw_volume(
    region: str,
    seed: int,
    *,
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0),
    findings: tuple[str, ...] | None = None,
    mirror: bool = False,
) -> DrawnVolume:
    """Draws the patient of a seed.

    Args:
        region: one of ``DRAWN``.
        seed: everything follows from it.
        spacing: (slice, row, column) mm; another one shows the same patient.
        findings: exactly these observations; ``None`` draws them: about 30 % are normal, others have one to three.
        mirror: the same patient with left and right exchanged, organs included: ``-mirrored`` in the Patient ID.
    """
    drawn = ANATOMIES[region].draw(seed, spacing=spacing, findings=findings, mirror=mirror)
    patient_id = f"synthetic-{region}-{seed}{'-mirrored' if mirror else ''}"
    return replace(drawn, patient=replace(drawn.patient, patient_id=patient_id))
