"""Example: what a dataset yields, one study with what is to be learned from it."""

from __future__ import annotations

from dataclasses import dataclass

from mmfm.data.manifest import Manifest, ManifestRow
from mmfm.report import Finding, Sections, Status
from mmfm.study import Study
from mmfm.text import label_report


@dataclass(frozen=True, kw_only=True)
class Example:
    """One study, its training text and its finding states."""

    study: Study
    indication: str | None
    target: Sections
    """The text to learn; sections without text are ``None``."""
    target_findings: tuple[Finding, ...]
    """What the labeller reads in ``target``: the decisions that the text is to follow."""
    states: dict[str, Status | None]
    """Finding states to learn, by observation; ``None`` where nobody said."""
    report_findings: tuple[Finding, ...]
    """What the labeller reads in the full report, sides included."""

    codes: tuple[str, ...] | None
    """Codes of the source, as in the manifest."""

    @classmethod
    def from_row(cls, manifest: Manifest, row: ManifestRow) -> Example:
        """Returns the example of a manifest row; pixels are read later."""
        target = row.target if row.target is not None else row.report
        return cls(
            study=manifest.study(row),
            indication=row.report.indication,
            target=Sections(findings=target.findings, impression=target.impression),
            target_findings=label_report(target.findings, target.impression),
            states=dict(row.labels),
            report_findings=label_report(row.report.findings, row.report.impression),
            codes=row.codes,
        )
