"""Findings to plain sentences: what a template report says, and the fallback that loses nothing of the findings."""

from __future__ import annotations

from collections.abc import Iterable

from mmfm.report import Finding, Status
from mmfm.text.phrases import vocabulary

_OBSERVATION = vocabulary("chest_radiograph")["observation"]

_NORMAL_FINDINGS = (
    "The heart size and mediastinal contours are within normal limits. The lungs are clear. "
    "There is no pleural effusion or pneumothorax. The osseous structures are intact."
)
_NORMAL_IMPRESSION = "No acute cardiopulmonary abnormality."


def describe(findings: Iterable[Finding]) -> tuple[str, str]:
    """Writes structured findings as template sentences.

    Args:
        findings: any findings. Those that are not present are not written, nor is a side of the heart or mediastinum.

    Returns:
        The findings section and the impression: one sentence for each present finding, or a normal chest without any.
        ``label_report`` reads the same present findings and sides back.
    """
    sentences = [_sentence(finding) for finding in findings if finding.status is Status.PRESENT]
    if not sentences:
        return _NORMAL_FINDINGS, _NORMAL_IMPRESSION
    text = " ".join(sentences)
    return text, text


def _sentence(finding: Finding) -> str:
    table = _OBSERVATION[finding.observation]
    side = finding.laterality if table["sides"] != "none" else None
    words = " ".join(word for word in (finding.severity, side, table["wording"]) if word)
    return f"{words[0].upper()}{words[1:]}."
