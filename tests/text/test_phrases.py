from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.text.phrases import Phrases, plain, spellings, vocabulary

OBSERVATIONS = vocabulary("chest_radiograph")["observation"]


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("effusion(s)", ["effusion", "effusions"]),
        ("(focal) opacit(y|ies)", ["opacity", "opacities", "focal opacity", "focal opacities"]),
        ("not (clearly|) seen", ["not clearly seen", "not seen"]),
        ("Plain  words", ["plain words"]),
    ],
)
def test_spellings(phrase: str, expected: list[str]) -> None:
    assert spellings(phrase) == expected


def test_the_longest_phrase_wins_and_only_whole_words_match() -> None:
    phrases = Phrases([("cue", ["no", "no change in"], None), ("mention", ["mass(es)"], "mass"), ("cue", [";"], 1)])
    found = phrases.find("no change in massive masses; no mass")
    assert [(t.start, t.kind, t.value) for t in found] == [
        (0, "cue", None),
        (21, "mention", "mass"),
        (27, "cue", 1),
        (29, "cue", None),
        (32, "mention", "mass"),
    ]


@given(st.sets(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1), st.text(alphabet="abc ", max_size=30))
def test_search_agrees_with_looking_at_each_word(words: set[str], text: str) -> None:
    found = Phrases([("word", words, None)]).find(plain(text))
    assert [plain(text)[t.start : t.end] for t in found] == [word for word in text.split() if word in words]


def test_every_observation_is_complete_and_each_phrase_has_one_observation() -> None:
    for table in OBSERVATIONS.values():
        assert table["sides"] in ("shared", "own", "none")
        assert table["wording"]
    owners: dict[str, list[str]] = {}
    for name, table in OBSERVATIONS.items():
        for phrase in table["says"]:
            for spelling in spellings(phrase):
                owners.setdefault(spelling, []).append(name)
    shared = {spelling for spelling, names in owners.items() if len(set(names)) > 1}
    assert all("pneumothora" in spelling for spelling in shared), shared


def test_no_cue_is_of_two_kinds() -> None:
    kinds: dict[str, set[str]] = {}
    for kind, phrases in vocabulary("cues").items():
        for phrase in phrases:
            for spelling in spellings(phrase):
                kinds.setdefault(spelling, set()).add(kind)
    assert {s: k for s, k in kinds.items() if len(k) > 1} == {}


def test_words_for_parts_of_the_body_name_known_observations() -> None:
    words = vocabulary("chest_radiograph")
    for table in (*words["part"], *words["collective"], *words["normal"]):
        named = {*table["denies"], *table.get("states", {}), *table.get("hints", {})}
        assert named <= set(OBSERVATIONS)
