from __future__ import annotations

import pytest

from mmfm.report import Status
from mmfm.text.certainty import certainty_of


@pytest.mark.parametrize(
    ("sentence", "mention", "status"),
    [
        ("She denies any CHEST  PAIN.", "CHEST  PAIN", Status.ABSENT),
        ("No nausea, vomiting, or diarrhea.", "diarrhea", Status.ABSENT),
        ("His nausea and vomiting resolved.", "nausea", Status.ABSENT),
        ("ALLERGIES: He has no known ALLERGIES.", "known ALLERGIES", Status.ABSENT),
        ("She denies a change in vision.", "change in vision", Status.ABSENT),
        ("There was no change in her pain.", "pain", Status.PRESENT),
        ("No biliary dilatation and positive for gallstones.", "gallstones", Status.PRESENT),
        ("No history of asthma who presents with chest pain.", "chest pain", Status.PRESENT),
        ("No fever. The spleen is enlarged.", "spleen", Status.PRESENT),
        ("Questionable splenic rupture.", "splenic rupture", Status.UNCERTAIN),
        ("Fever", "Fever", Status.PRESENT),
    ],
)
def test_any_words_of_any_sentence(sentence: str, mention: str, status: Status) -> None:
    start = sentence.rindex(mention)
    assert certainty_of(sentence, start, start + len(mention)) is status
