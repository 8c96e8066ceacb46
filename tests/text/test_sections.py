from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.text import compares_with_prior, split_sentences
from mmfm.text.sections import split_sections, without_comparisons


def test_headings_in_any_case_split_a_report() -> None:
    report = "INDICATION: Cough.\nComparison: None.\nFINDINGS:\nLungs are clear.\n\nImpression: 1. Normal chest."
    sections = split_sections(report)
    assert sections.indication == "Cough."
    assert sections.technique is None
    assert sections.comparison == "None."
    assert sections.findings == "Lungs are clear."
    assert sections.impression == "1. Normal chest."


def test_headings_on_one_line_split_too() -> None:
    sections = split_sections("Findings: Heart is normal. Impression: No acute disease.")
    assert (sections.findings, sections.impression) == ("Heart is normal.", "No acute disease.")
    sections = split_sections("FINDINGS: Heart is normal IMPRESSION: No acute disease.")
    assert (sections.findings, sections.impression) == ("Heart is normal", "No acute disease.")


def test_text_without_headings_is_the_findings() -> None:
    assert split_sections(" Lungs are clear. ").findings == "Lungs are clear."
    assert split_sections("").findings is None


def test_a_title_before_the_findings_is_the_technique() -> None:
    sections = split_sections("CHEST PA AND LATERAL\nFINDINGS: Clear.")
    assert (sections.technique, sections.findings) == ("CHEST PA AND LATERAL", "Clear.")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Clear lungs. No effusion.", ["Clear lungs.", "No effusion."]),
        ("Nodule in the apex.There is no effusion.", ["Nodule in the apex.", "There is no effusion."]),
        ("A 1.5 cm nodule vs. scar at T12. Stable.", ["A 1.5 cm nodule vs. scar at T12.", "Stable."]),
        ("1. Left effusion. 2. Cardiomegaly.", ["1. Left effusion.", "2. Cardiomegaly."]),
        ("Seen by Dr. XXXX. XXXX are intact. . ", ["Seen by Dr. XXXX.", "XXXX are intact.", "."]),
        ("Cardiomegaly without\nedema.\n\n2. Effusion", ["Cardiomegaly without\nedema.", "2. Effusion"]),
        ("- Effusion\n- Edema", ["- Effusion", "- Edema"]),
        ("Pneumonia? Effusion!", ["Pneumonia?", "Effusion!"]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text(alphabet="ab1X.?!\n -()", max_size=60))
def test_sentences_are_exact_pieces_that_lose_nothing(text: str) -> None:
    sentences = split_sentences(text)
    rest = text
    for sentence in sentences:
        before, found, rest = rest.partition(sentence)
        assert found
        assert not before.strip()
    assert not rest.strip()


@pytest.mark.parametrize(
    "sentence",
    [
        "Stable cardiomegaly.",
        "Unchanged left effusion.",
        "No interval change.",
        "Effusion has increased since the prior study.",
        "Again seen is a right nodule.",
        "Larger than previous.",
        "New left basilar opacity.",
        "The lungs remain hyperexpanded.",
        "Compared to the prior examination, the heart is larger.",
        "Redemonstration of a calcified granuloma.",
        "Persistent right pleural effusion.",
    ],
)
def test_comparisons(sentence: str) -> None:
    assert compares_with_prior(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "Calcified granuloma from prior granulomatous disease.",
        "Previous rotator cuff repair.",
        "Opacities are right worse than left.",
        "Asymmetric density compared to the left.",
        "Short interval follow-up is recommended.",
        "Seen at a hospital in New York.",
        "Degenerative changes of the spine.",
        "The remainder of the lungs is clear.",
        "Renewed pleural lines.",
    ],
)
def test_no_comparisons(sentence: str) -> None:
    assert not compares_with_prior(sentence)


def test_only_whole_comparing_sentences_are_dropped() -> None:
    text = "1. Stable heart size.  2. No effusion. Left PICC.\n\nNew nodule. Clear lungs."
    assert without_comparisons(text) == "2. No effusion. Left PICC.\n\nClear lungs."
    assert without_comparisons("Unchanged.") == ""


@given(st.lists(st.sampled_from(["Stable heart. ", "No effusion.\n", "Left PICC. ", "New nodule.  ", "Clear"])))
def test_what_stays_does_not_compare(parts: list[str]) -> None:
    kept = without_comparisons("".join(parts))
    assert not any(compares_with_prior(sentence) for sentence in split_sentences(kept))
    assert without_comparisons(kept) == kept


def test_titles_in_capitals_head_the_findings() -> None:
    sections = split_sections(
        "HISTORY: Chest pain.\n\nPA AND LATERAL CHEST, TWO VIEWS: Clear lungs.\n\nIMPRESSION: Normal."
    )
    assert (sections.indication, sections.findings, sections.impression) == ("Chest pain.", "Clear lungs.", "Normal.")


@pytest.mark.parametrize("heading", ["REASON FOR THIS EXAMINATION", "Clinical History", "UNDERLYING MEDICAL CONDITION"])
def test_many_names_of_an_indication(heading: str) -> None:
    assert split_sections(f"{heading}: ?PTX\nFINDINGS: Clear.").indication == "?PTX"


def test_a_word_of_a_heading_inside_a_sentence_is_none() -> None:
    text = "Study limited by motion. The chest: clear; findings stable. Views of the chest show edema."
    assert split_sections(text).findings == text


@pytest.mark.parametrize(
    "text", ["EDEMA " * 20_000, "CHEST " * 20_000, "\n" * 100_000, "FINDINGS" * 20_000, " " * 100_000]
)
def test_a_long_text_without_headings_is_split_at_once(text: str) -> None:
    began = time.process_time()
    assert split_sections(text + "x:").findings == (text + "x:").strip()
    assert time.process_time() - began < 2
