"""Drafts and references to the statistics of each study: made once, then only resampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from mmfm.evaluation.clinical import FindingScores, WrongDetails, label_text
from mmfm.evaluation.clinical_errors import ErrorRates, clinical_errors
from mmfm.evaluation.predictions import Prediction, have_text
from mmfm.evaluation.probabilities import Probabilities
from mmfm.evaluation.references import Reference
from mmfm.evaluation.resampling import Statistics
from mmfm.evaluation.wording import Wording, text_of
from mmfm.report import Finding, Sections, Status

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
    label: Callable[[str | None, str | None, str], tuple[Finding, ...]]
    """Findings section, impression and region to what they state."""

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
        label = cache(label_text)  # a constant report is labelled once
        return cls(
            references=tuple(references),
            sections=tuple(sections),
            families=tuple(families),
            thresholds=dict(thresholds or {}),
            texts=[text_of(reference.report, sections) for reference in references],
            findings=[label(r.report.findings, r.report.impression, r.region) for r in references],
            label=label,
        )

    @property
    def regions(self) -> list[str]:
        """Of each study."""
        return [reference.region for reference in self.references]

    def statistics(self, drafts: Sequence[Prediction | None]) -> list[Statistics]:
        """Returns what the drafts can be scored on: their text and their probabilities, where they have any.

        Args:
            drafts: one for each reference; None, where there is none, says nothing.
        """
        statistics: list[Statistics] = []
        if have_text(drafts):
            sections = [p.sections if p else Sections() for p in drafts]
            pieces = zip(sections, self.regions, strict=True)
            found = [self.label(each.findings, each.impression, region) for each, region in pieces]
            if "findings" in self.families:
                statistics += [
                    FindingScores.against_text(found, self.findings, self.regions),
                    FindingScores.against_labels(found, [r.labels for r in self.references], self.regions),
                    WrongDetails.of(found, self.findings),
                ]
            if "errors" in self.families:
                pairs = zip(sections, self.references, strict=True)
                errors = [clinical_errors(draft, r) if r.has_vocabulary else None for draft, r in pairs]
                statistics.append(ErrorRates.of(errors))
            if "wording" in self.families:
                statistics.append(Wording.of([text_of(each, self.sections) for each in sections], self.texts))
        if "probabilities" in self.families:
            probabilities = self.probabilities(drafts)
            statistics += [probabilities] if probabilities is not None else []
        return statistics

    def present(self, drafts: Sequence[Prediction | None]) -> FindingScores:
        """Returns the present findings of the drafts against those of the reference texts."""
        pairs = zip(drafts, self.regions, strict=True)
        found = [self.label(p.findings, p.impression, region) if p else () for p, region in pairs]
        return FindingScores.against_text(found, self.findings, self.regions)

    def probabilities(self, drafts: Sequence[Prediction | None]) -> Probabilities | None:
        """Returns the probabilities of the drafts against the labels; None where they have none."""
        predicted = [p.finding_probabilities if p else None for p in drafts]
        if not any(predicted):
            return None
        return Probabilities.of(predicted, [r.labels for r in self.references], self.thresholds)

    def is_abnormal(self, study: int) -> bool:
        """Whether people coded the study as other than normal, or, where nobody did, its text names a finding."""
        normal = self.references[study].labels.get("normal")
        if normal in (Status.PRESENT, Status.ABSENT):
            return normal is Status.ABSENT
        return any(finding.status is Status.PRESENT for finding in self.findings[study])
