"""Drafts and references to the statistics of each study: made once, then only resampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from mmfm.evaluation.clinical import FindingScores, WrongDetails
from mmfm.evaluation.clinical_errors import ErrorRates, clinical_errors
from mmfm.evaluation.predictions import Prediction, have_text
from mmfm.evaluation.probabilities import Probabilities
from mmfm.evaluation.references import Reference
from mmfm.evaluation.resampling import Statistics
from mmfm.evaluation.wording import Wording, text_of
from mmfm.report import Finding, Sections, Status
from mmfm.text import label_report

FAMILIES = ("findings", "errors", "probabilities", "wording", "external")
"""Kinds of scores, which may be asked for alone."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The references in the forms that drafts are compared with, made once for all sets of drafts."""

    references: tuple[Reference, ...]
    sections: tuple[str, ...]
    """That wording metrics compare."""
    families: tuple[str, ...]
    thresholds: Mapping[str, float]
    """Label to the P(present) from which on it counts, chosen on other studies."""
    texts: list[str]
    """Normalised, of ``sections``."""
    findings: list[tuple[Finding, ...]]
    label: Callable[[str | None, str | None], tuple[Finding, ...]]

    @classmethod
    def of(
        cls,
        references: Sequence[Reference],
        *,
        sections: Sequence[str] = ("findings",),
        families: Sequence[str] = FAMILIES,
        thresholds: Mapping[str, float] | None = None,
    ) -> Compared:
        """Returns the references, labelled and normalised."""
        label = cache(label_report)  # a constant report is labelled once
        return cls(
            references=tuple(references),
            sections=tuple(sections),
            families=tuple(families),
            thresholds=dict(thresholds or {}),
            texts=[text_of(reference.report, sections) for reference in references],
            findings=[label(reference.report.findings, reference.report.impression) for reference in references],
            label=label,
        )

    def statistics(self, drafts: Sequence[Prediction | None]) -> list[Statistics]:
        """Returns what the drafts can be scored on: their text and their probabilities, where they have any.

        Args:
            drafts: one for each reference; None, where there is none, says nothing.
        """
        statistics: list[Statistics] = []
        if have_text(drafts):
            sections = [p.sections if p else Sections() for p in drafts]
            found = [self.label(each.findings, each.impression) for each in sections]
            if "findings" in self.families:
                statistics += [
                    FindingScores.against_text(found, self.findings),
                    FindingScores.against_labels(found, [r.labels for r in self.references]),
                    WrongDetails.of(found, self.findings),
                ]
            if "errors" in self.families:
                pairs = zip(sections, self.references, strict=True)
                statistics.append(ErrorRates.of(clinical_errors(draft, reference) for draft, reference in pairs))
            if "wording" in self.families:
                statistics.append(Wording.of([text_of(each, self.sections) for each in sections], self.texts))
        if "probabilities" in self.families:
            probabilities = self.probabilities(drafts)
            statistics += [probabilities] if probabilities is not None else []
        return statistics

    def present(self, drafts: Sequence[Prediction | None]) -> FindingScores:
        """Returns the present findings of the drafts against those of the reference texts."""
        found = [self.label(p.findings, p.impression) if p else () for p in drafts]
        return FindingScores.against_text(found, self.findings)

    def probabilities(self, drafts: Sequence[Prediction | None]) -> Probabilities | None:
        """Returns the probabilities of the drafts against the labels; None where they have none."""
        predicted = [p.finding_probabilities if p else None for p in drafts]
        given = next((each for each in predicted if each), None)
        if given is None:
            return None
        # a study without any is scored, as saying that nothing is present: to leave it out would reward silence, and
        # compare drafts and control on different studies
        stated = [each or dict.fromkeys(given, 0.0) for each in predicted]
        return Probabilities.of(stated, [r.labels for r in self.references], self.thresholds)

    def is_abnormal(self, study: int) -> bool:
        """Whether people coded the study as other than normal, or, where nobody did, its text names a finding."""
        normal = self.references[study].labels.get("normal")
        if normal in (Status.PRESENT, Status.ABSENT):
            return normal is Status.ABSENT
        return any(finding.status is Status.PRESENT for finding in self.findings[study])
