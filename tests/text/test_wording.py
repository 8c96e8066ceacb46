"""What ``describe`` writes, the labeller reads back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfm.report import Finding, Side, Status
from mmfm.text import OBSERVATIONS, describe, label_report
from mmfm.text.labeller import no_finding
from mmfm.text.phrases import vocabulary

MIDLINE = {"cardiomegaly", "enlarged_cardiomediastinum"}
SIDES = (None, *Side)
SEVERITIES = (None, *vocabulary("chest_radiograph")["severity"])


def present(findings: list[Finding] | tuple[Finding, ...]) -> dict[str, Side | None]:
    return {f.observation: f.laterality for f in findings if f.status is Status.PRESENT}


def finding(name: str, side: Side | None, status: Status = Status.PRESENT) -> Finding:
    return Finding(observation=name, status=status, laterality=None if name in MIDLINE else side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_each_observation_and_side_comes_back(name: str, side: Side | None) -> None:
    given_finding = finding(name, side)
    assert present(label_report(*describe([given_finding]))) == present([given_finding])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(OBSERVATIONS), st.tuples(st.sampled_from(SIDES), st.sampled_from(list(Status)))))
def test_any_set_comes_back(chosen: dict[str, tuple[Side | None, Status]]) -> None:
    findings = [finding(name, side, status) for name, (side, status) in chosen.items()]
    assert present(label_report(*describe(findings))) == present(findings)


@given(st.sampled_from(OBSERVATIONS), st.sampled_from(SIDES), st.sampled_from(SEVERITIES))
def test_the_severity_comes_back(name: str, side: Side | None, severity: str | None) -> None:
    (found,) = label_report(*describe([replace(finding(name, side), severity=severity)]))
    assert (found.observation, found.severity) == (name, severity)


def test_a_normal_report_denies_and_states_nothing() -> None:
    findings = label_report(*describe([]))
    assert no_finding(findings)
    denied = {f.observation for f in findings}
    assert {"cardiomegaly", "pleural_effusion", "pneumothorax", "consolidation"} <= denied


def test_a_side_of_a_midline_observation_is_not_written() -> None:
    findings, _ = describe([Finding(observation="cardiomegaly", status=Status.PRESENT, laterality=Side.LEFT)])
    assert "left" not in findings.lower()
