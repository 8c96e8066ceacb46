"""Another language is another folder of words: a small German one is made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmfm.errors import ConfigError
from mmfm.report import Side, Status
from mmfm.text import compares_with_prior, label_report, phrases, split_sentences
from mmfm.text.certainty import certainty_of
from mmfm.text.labeller import label_sentences
from mmfm.text.sections import split_sections, without_comparisons

GERMAN = {
    "chest_radiograph": """
        links.words = ["vereinbar mit"]
        ignored.says = ["Perikarderguss"]
        joints.words = ["und", "mit", "oder"]
        joined_sides = { places = ["basal"], words = ["und"], articles = ["der"] }
        side = { left = ["links", "linksseitig(er|e)"], right = ["rechts"], bilateral = ["beidseits"] }
        severity.small = ["klein(er|e)"]
        location.base = ["basal"]
        count.2 = ["zwei"]
        collective = [{ names = ["Akutpathologie"], denies = ["pneumonia"] }]
        normal = [{ names = ["unauffälliger Thorax"], denies = ["pneumothorax"] }]
        [observation]
        cardiomegaly = { says = ["Kardiomegalie"], sides = "none" }
        pneumothorax = { says = ["Pneumothorax"], sides = "shared" }
        pleural_effusion = { says = ["(Pleura)erguss"], sides = "shared" }
        [[part]]
        names = ["Herz"]
        denies = ["cardiomegaly"]
        normal = ["normal groß"]
        states.cardiomegaly = ["vergrößert"]
    """,
    "cues": """
        denies_before = ["kein(e|en|)"]
        doubts_before = ["fraglicher"]
        affirms = ["ist"]
        ends = ["."]
    """,
    "comparisons": 'compares = ["unverändert"]',
    "sections": """
        titles.words = ["Thorax"]
        abbreviations.words = ["bzw"]
        [headings]
        indication = ["Fragestellung"]
        technique = ["Technik"]
        comparison = ["Voraufnahmen"]
        findings = ["Befund"]
        impression = ["Beurteilung"]
    """,
}
REPORT = "FRAGESTELLUNG: Pneumothorax. BEFUND: Das Herz ist vergrößert. Kleiner Erguss bzw. Pleuraerguss links basal."


@pytest.fixture
def german(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "german"
    folder.mkdir()
    for name, text in GERMAN.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(phrases, "FOLDER", tmp_path)
    return folder.name


def test_another_language_is_read_by_its_own_words(german: str) -> None:
    found = {f.observation: f for f in label_report(REPORT, "Kein Pneumothorax.", language=german)}
    assert {name: (f.status, f.laterality, f.severity, f.location) for name, f in found.items()} == {
        "cardiomegaly": (Status.PRESENT, None, None, None),
        "pleural_effusion": (Status.PRESENT, Side.LEFT, "small", "base"),
        "pneumothorax": (Status.ABSENT, None, None, None),
    }
    assert len(label_sentences(REPORT, language=german)) == 2
    assert split_sections(REPORT, language=german).indication == "Pneumothorax."
    assert split_sentences("Erguss bzw. Schwarte. Herz groß.", language=german)[0] == "Erguss bzw. Schwarte."
    assert certainty_of("Kein Husten.", 5, 11, language=german) is Status.ABSENT
    assert compares_with_prior("Unverändert.", language=german)
    assert without_comparisons("Unverändert. Erguss.", language=german) == "Erguss."


def test_languages_do_not_mix(german: str) -> None:
    assert label_report("No pleural effusion. Cardiomegaly.", language=german) == ()
    assert label_report("Linksseitiger Erguss.") == ()


def test_an_unknown_language_is_refused_with_those_that_there_are() -> None:
    for call in (label_report, label_sentences, split_sections, split_sentences, compares_with_prior):
        with pytest.raises(ConfigError, match=r"^language: expected en; found 'fr'; "):
            call("Effusion.", language="fr")
