"""Made-up studies to score."""

from collections.abc import Callable

import numpy as np
import pytest

from mmfm.data.manifest import ManifestRow, ManifestSeries
from mmfm.evaluation import Provenance
from mmfm.report import Sections, Status


def _row(
    name: str,
    findings: str | None,
    impression: str | None = None,
    *,
    patient: str | None = None,
    labels: dict[str, Status | None] | None = None,
) -> ManifestRow:
    return ManifestRow(
        study_uid=name,
        patient_id=patient or name,
        source="made_up",
        split="val",
        series=(ManifestSeries(series_uid=f"{name}.1", path=f"{name}.png"),),
        report=Sections(findings=findings, impression=impression),
        labels=labels or {},
    )


@pytest.fixture
def row() -> Callable[..., ManifestRow]:
    """Makes a row from a name, a findings section, an impression and labels."""
    return _row


@pytest.fixture
def rows() -> list[ManifestRow]:
    """120 studies of 100 patients: a third with cardiomegaly, a quarter with effusion on a side, the rest normal."""
    generator = np.random.default_rng(3)
    made = []
    for i in range(120):
        heart, effusion = generator.random() < 1 / 3, generator.random() < 1 / 4
        side = generator.choice(["left", "right"])
        findings = " ".join(
            [
                "The heart is enlarged." if heart else "The heart is normal in size.",
                f"There is a small {side} pleural effusion." if effusion else "There is no pleural effusion.",
                str(generator.choice(["No pneumothorax.", "No pneumothorax is seen.", "The bones are intact."])),
            ]
        )
        labels = {"cardiomegaly": heart, "pleural_effusion": effusion, "normal": not (heart or effusion)}
        states = {name: Status.PRESENT if value else Status.ABSENT for name, value in labels.items()}
        made.append(_row(f"study-{i}", findings, "No acute disease.", patient=f"patient-{i % 100}", labels=states))
    return made


@pytest.fixture
def provenance() -> Provenance:
    """Of a run that never was."""
    return Provenance(
        experiment="made_up",
        data="made_up val",
        hardware="2 CPU cores",
        time="1 h",
        date="2026-11-22",
        commit="0123456789abcdef",
        manifest_sha256="a" * 64,
        checkpoint_sha256="b" * 64,
    )
