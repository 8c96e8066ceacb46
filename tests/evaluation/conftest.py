"""Made-up studies to score."""

from collections.abc import Callable

import numpy as np
import pytest

from mmfm.evaluation import Provenance, Reference
from mmfm.report import Sections, Status


def _row(
    name: str,
    findings: str | None,
    impression: str | None = None,
    *,
    patient: str | None = None,
    labels: dict[str, Status | None] | None = None,
) -> Reference:
    return Reference(
        study_uid=name,
        patient_id=patient or name,
        source="made_up",
        report=Sections(findings=findings, impression=impression),
        labels=labels or {},
    )


@pytest.fixture
def row() -> Callable[..., Reference]:
    """Makes a reference from a name, a findings section, an impression and labels."""
    return _row


@pytest.fixture
def rows() -> list[Reference]:
    """120 studies of 100 patients, of which the last 20 have one each: a third with cardiomegaly, a quarter with effusion on a side, the rest normal."""
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
        made.append(_row(f"study-{i}", findings, "No acute disease.", patient=f"patient-{i % 80 if i < 100 else i}", labels=states))
    return made


@pytest.fixture
def train(row) -> list[Reference]:
    """20 normal studies of other patients."""
    return [row(f"train-{i}", f"The heart is normal. Finding {i}: none.", "Normal.") for i in range(20)]


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
        references_sha256="a" * 64,
        checkpoint_sha256="b" * 64,
    )
