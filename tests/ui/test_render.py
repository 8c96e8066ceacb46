import re
from dataclasses import replace

from mmfm.report import NOTICE, Lesion, Status
from mmfm.ui.panels import report_html
from mmfm.ui.render import finding_rows, lesion_lines, report_markdown, report_text


def test_text_says_everything(report):
    text = report_text(report)
    assert text.startswith(NOTICE)
    assert text.endswith(NOTICE)
    for words in (
        "frontal only: lateral not read",
        "IMPRESSION",
        "not calibrated",
        "lung opacity",
        "resized",
        "0.50 s",
        "0.80",
    ):
        assert words in text


def test_a_terminal_gets_no_control_characters(report):
    sections = replace(report.sections, findings="red \x1b[31m\x07 text")
    assert "\x1b" not in report_text(replace(report, sections=sections))


def test_markdown_of_foreign_text_is_harmless(report):
    markdown = report_markdown(report)
    assert NOTICE in markdown
    assert not re.search(r"(?<!\\)<script", markdown)
    assert not re.search(r"(?<!\\)\[x", markdown)
    rows = [line for line in markdown.splitlines() if line.startswith("| pleural effusion")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (3, 6) for row in rows), "cells of foreign text do not split"


def test_lesions_are_listed_with_place_size_and_slice(report):
    lesion = Lesion(center_mm=(-20.0, 5.0, 30.0), diameter_mm=8.2, laterality="right", location="upper lobe")
    axis = ((0.0, 0.0, 1.0, -50.0), (0.0, 1.0, 0.0, -50.0), (-3.0, 0.0, 0.0, 60.0), (0.0, 0.0, 0.0, 1.0))
    receipt = replace(report.receipts[0], shape=(40, 100, 100), affine=axis, orientation="IPL")
    finding = replace(report.findings[0], status=Status.PRESENT, lesions=(lesion,))
    made = replace(report, findings=(finding,), receipts=(receipt,))
    line = "nodule 1: 8 mm, right upper lobe, at L -20, P 5, H 30 mm, slice 11 of 40 (counted towards the feet)"
    assert lesion_lines(made) == [line]
    assert line in report_text(made)
    assert "## Lesions" in report_markdown(made)
    assert line in report_html(made)
    outside = replace(finding, lesions=(replace(lesion, center_mm=(0.0, 0.0, 90.0)),))
    assert "slice" not in lesion_lines(replace(made, findings=(outside,)))[0]
    assert "Lesions" not in report_html(report)


def test_present_findings_come_first(report):
    assert [row[0] for row in finding_rows(report)] == ["pleural effusion", "nodule"]
