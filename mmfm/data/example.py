"""Example: what a dataset yields, one study with what is to be learned from it."""

from __future__ import annotations

from dataclasses import dataclass

from mmfm.data.manifest import NORMAL, OTHER_REGION, Manifest, ManifestRow
from mmfm.data.synthetic_volumes.drawing import DrawnVolume
from mmfm.jsonable import from_json
from mmfm.report import Finding, Sections, Status
from mmfm.study import Study
from mmfm.text import CHEST_RADIOGRAPH, label_report


@dataclass(frozen=True, kw_only=True)
class Example:
    """One study, its training text and its finding states."""

    study_uid: str
    study: Study | None
    """``None`` of a volume that is drawn in memory."""
    region: str
    """Of the manifest."""
    indication: str | None
    target: Sections
    """The text to learn; sections without text are ``None``."""
    target_findings: tuple[Finding, ...]
    """What ``target`` states, by its source or by the labeller: the decisions that the text is to follow."""
    states: dict[str, Status | None]
    """Finding states to learn, by observation; ``None`` where nobody said."""
    report_findings: tuple[Finding, ...]
    """What the full report states, sides included."""
    outlined: bool = False
    """The source knows every lesion: ``report_findings`` hold them all."""
    codes: tuple[str, ...] | None = None
    """Codes of the source, as in the manifest."""

    @classmethod
    def from_row(cls, manifest: Manifest, row: ManifestRow) -> Example:
        """Returns the example of a manifest row; pixels are read later."""
        target = row.target if row.target is not None else row.report
        known = None if row.region == CHEST_RADIOGRAPH else (row.truth or {}).get("findings")
        if known is not None:
            found = stated = tuple(from_json(Finding, finding) for finding in known)
        else:
            found, stated = (_labelled(text, row.region) for text in (row.report, target))
        return cls(
            study_uid=row.study_uid,
            study=manifest.study(row),
            region=row.region,
            indication=row.report.indication,
            target=Sections(findings=target.findings, impression=target.impression),
            target_findings=stated,
            states=dict(row.labels),
            report_findings=found,
            outlined=known is not None,
            codes=row.codes,
        )

    @classmethod
    def from_drawn(cls, drawn: DrawnVolume, report: Sections) -> Example:
        """Returns the example of a drawn volume and its report."""
        return cls(
            study_uid=f"{drawn.region}-{drawn.seed}",
            study=None,
            region=drawn.region,
            indication=report.indication,
            target=Sections(findings=report.findings, impression=report.impression),
            target_findings=drawn.findings,
            states={**drawn.labels, NORMAL: Status.ABSENT if drawn.findings else Status.PRESENT},
            report_findings=drawn.findings,
            outlined=True,
        )


def _labelled(report: Sections, region: str) -> tuple[Finding, ...]:
    if region == OTHER_REGION:
        return ()
    return label_report(report.findings, report.impression, region=region)
