import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.report import (
    NOTICE,
    SECTION_NAMES,
    Change,
    Differential,
    Finding,
    Measurement,
    Provenance,
    Report,
    ReportStatus,
    Sections,
    Side,
    Status,
)
from mmfm.study import Receipt

REPORT = Report(
    study_uid="1",
    finding_probabilities={"pleural_effusion": 0.75},
    differential_note="not calibrated",
    coverage="frontal",
    provenance=Provenance(checkpoint="tiny", sha256="0" * 64),
    receipts=(
        Receipt(
            series_uid="1.2",
            source_format="PNG",
            shape=(1, 4, 5),
            quantity="display",
            orientation="not stated",
            window="none",
            slices_used=1,
        ),
    ),
)

probabilities = st.floats(0, 1)
maybe_text = st.none() | st.text(max_size=20)
findings = st.builds(
    Finding,
    observation=st.sampled_from(["pleural_effusion", "nodule"]),
    status=st.sampled_from(Status),
    laterality=st.none() | st.sampled_from(Side),
    count=st.none() | st.integers(0, 9),
    measurement=st.none() | st.builds(Measurement, value=st.floats(0, 500), unit=st.just("mm")),
    change=st.none() | st.sampled_from(Change),
    probability=st.none() | probabilities,
    evidence=maybe_text,
)
differentials = st.builds(
    Differential,
    diagnosis=st.text(max_size=9),
    likelihood=st.just("likely"),
    supporting=st.lists(st.text(max_size=9), max_size=2).map(tuple),
)
reports = st.builds(
    replace,
    st.just(REPORT),
    status=st.sampled_from(ReportStatus),
    sections=st.builds(Sections, **dict.fromkeys(SECTION_NAMES, maybe_text)),
    findings=st.lists(findings, max_size=3).map(tuple),
    finding_probabilities=st.dictionaries(st.text(max_size=9), probabilities, max_size=3),
    differential=st.lists(differentials, max_size=2).map(tuple),
    not_assessed=st.lists(st.text(max_size=9), max_size=2).map(tuple),
)


@given(reports)
def test_report_round_trips_through_json_text(report):
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_report_is_a_draft_that_says_what_it_is_for():
    json_form = REPORT.to_json()
    assert json_form["status"] == "draft"
    assert json_form["notice"] == NOTICE == "Research use only, not a medical device"
    assert set(json_form["sections"]) == set(SECTION_NAMES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(REPORT, notice=""), "notice"),
        (lambda: replace(REPORT, finding_probabilities={"nodule": 1.2}), "nodule"),
        (lambda: Finding(observation="nodule", status=Status.PRESENT, probability=-0.1), "probability"),
        (lambda: Finding(observation="no_finding", status=Status.PRESENT), "derived"),
    ],
)
def test_what_is_not_valid_cannot_be_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()
