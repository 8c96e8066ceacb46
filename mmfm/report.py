"""Report, Finding and Differential: what a model drafts and a radiologist corrects.

The JSON form (``Report.to_json``) is what ``mmfm report --format json`` prints and everything else reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mmfm.jsonable import from_json, to_json
from mmfm.study import Receipt

NOTICE = "Research use only, not a medical device"
"""Stands on every screen and in every export."""

SECTION_NAMES = ("indication", "technique", "comparison", "findings", "impression")


class Status(StrEnum):
    """Status of a finding in a text. Not mentioned is ``None``."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


class Side(StrEnum):
    """The patient's own side that a finding is on."""

    LEFT = "left"
    RIGHT = "right"
    BILATERAL = "bilateral"


class Change(StrEnum):
    """Change against a prior study, where the text states one."""

    NEW = "new"
    INCREASED = "increased"
    STABLE = "stable"
    DECREASED = "decreased"
    RESOLVED = "resolved"


class ReportStatus(StrEnum):
    """State of a report; only a person's action leaves ``draft``."""

    DRAFT = "draft"
    PRELIMINARY = "preliminary"
    FINAL = "final"
    AMENDED = "amended"
    ADDENDUM = "addendum"
    ENTERED_IN_ERROR = "entered_in_error"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A measured size."""

    value: float
    unit: str
    """UCUM code such as ``mm``."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a lesion may be."""

    laterality: Side | None = None
    location: str
    """Name in the vocabulary's ``location``, such as ``upper lobe``."""
    observations: tuple[str, ...]
    """Of what lesions may be there."""


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One of the things that a finding counts, with its place in the patient: what a volume shows and a text seldom."""

    center_mm: tuple[float, float, float]
    """LPS, in the coordinates of the series that it was seen on."""
    diameter_mm: float
    """Longest."""
    laterality: Side | None = None
    location: str | None = None
    """Name in the vocabulary's ``location``, such as ``upper lobe``."""
    probability: float | None = None

    def __post_init__(self) -> None:
        if not self.diameter_mm > 0:
            raise ValueError(f"diameter_mm: expected above 0, found {self.diameter_mm}")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement about one observation."""

    observation: str
    """Name in the vocabulary of ``mmfm.text``, such as ``pleural_effusion``."""
    status: Status
    laterality: Side | None = None
    location: str | None = None
    severity: str | None = None
    count: int | None = None
    measurement: Measurement | None = None
    change: Change | None = None
    probability: float | None = None
    """P(present) by the finding heads, 0 to 1."""
    evidence: str | None = None
    """The sentence that states it."""
    lesions: tuple[Lesion, ...] = ()
    """Of what can be counted on a volume: each one, largest first."""

    def __post_init__(self) -> None:
        if self.observation == "no_finding":
            raise ValueError("observation: no_finding is derived from the others, never a finding")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"probability: expected 0 to 1, found {self.probability}")


@dataclass(frozen=True, kw_only=True)
class Differential:
    """One diagnosis of a ranked differential."""

    diagnosis: str
    likelihood: str
    """In words; ``probability`` stays ``None`` unless it was calibrated."""
    probability: float | None = None
    supporting: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sections:
    """The text of a report by section; ``None`` where there is none."""

    indication: str | None = None
    technique: str | None = None
    comparison: str | None = None
    findings: str | None = None
    impression: str | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a draft was made, exactly enough to make it again."""

    checkpoint: str
    sha256: str
    """Of the checkpoint's weights."""
    chosen: str | None = None
    """Why this checkpoint, where it was chosen among those shipped and not named."""
    prompt_sha256: str | None = None
    decoding: str | None = None
    seed: int | None = None
    raw_text: str | None = None
    """The draft as decoding gave it, before any sentence was withheld from a reader: what ``mmfm predict`` writes."""
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A drafted or signed report of one study."""

    study_uid: str
    status: ReportStatus = ReportStatus.DRAFT
    notice: str = NOTICE
    sections: Sections = Sections()
    findings: tuple[Finding, ...] = ()
    finding_probabilities: dict[str, float]
    """P(present) of every observation that the checkpoint has a head for."""
    differential: tuple[Differential, ...] = ()
    differential_note: str
    """How the differential was made ("not calibrated"), or why it is empty."""
    not_assessed: tuple[str, ...] = ()
    """Observations that the draft says nothing reliable about."""
    coverage: str
    """What of the study was read, such as "frontal, lateral"."""
    scope_notes: tuple[str, ...] = ()
    """What could not be verified of the checkpoint's scope, such as "age not verified"."""
    receipts: tuple[Receipt, ...] = ()
    provenance: Provenance

    def __post_init__(self) -> None:
        if NOTICE not in self.notice:
            raise ValueError(f"notice: expected to contain {NOTICE!r}")
        for name, value in self.finding_probabilities.items():
            if not 0 <= value <= 1:
                raise ValueError(f"finding_probabilities[{name!r}]: expected 0 to 1, found {value}")

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return to_json(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Report:
        """Returns the report of ``to_json``."""
        return from_json(cls, value)
