import re
from dataclasses import replace

from mmfm.report import NOTICE
from mmfm.ui.render import finding_rows, report_markdown, report_text


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


def test_present_findings_come_first(report):
    assert [row[0] for row in finding_rows(report)] == ["pleural effusion", "nodule"]
