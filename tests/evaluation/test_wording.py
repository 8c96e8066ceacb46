import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.evaluation.wording import POLICY, PackedTexts, Wording, normalise

GOLDEN = json.loads((Path(__file__).parent / "wording_golden.json").read_text())
WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


PAIRS = GOLDEN["pairs"]
NAMES = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "cider_d", "rouge_l", "rouge_l_rouge_score", "meteor_exact_stem"]
EXACT = 1e-9  # the packages promise 1e-4 between themselves; both sides here are float64


def _wording(pairs):
    return Wording.of([p["draft"] for p in pairs], [p["reference"] for p in pairs])


@pytest.fixture(scope="module")
def whole():
    return _wording(PAIRS)


def test_the_golden_pairs_are_of_every_kind():
    """Texts are stored as they are compared, so that the scores are tested apart from ``normalise``."""
    assert len(PAIRS) == 200
    texts = [p[side] for p in PAIRS for side in ("draft", "reference")]
    assert [text for text in texts if normalise(text) != text] == []
    assert all(p["reference"] for p in PAIRS)
    lengths = [len(text.split()) for text in texts]
    assert {0, 1, 2} <= set(lengths) and max(lengths) > 100
    for sign in ("-", "1.5", "xxxx"):
        assert sum(sign in text for text in texts) >= 3
    assert GOLDEN["made_by"].keys() >= {"pycocoevalcap", "rouge-score", "nltk"}


@pytest.mark.parametrize("golden", GOLDEN["corpora"], ids=lambda g: g["name"])
def test_a_corpus_scores_as_by_the_packages(golden):
    studies = golden["studies"]
    scores = _wording([PAIRS[i] for i in studies]).scores(np.ones((1, len(studies))))
    assert list(scores) == NAMES
    assert {name: float(score[0]) for name, score in scores.items()} == pytest.approx(golden["scores"], abs=EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_each_pair_scores_as_by_the_packages(name, whole):
    assert list(whole.each()) == NAMES
    np.testing.assert_allclose(whole.each()[name], [p["scores"][name] for p in PAIRS], rtol=0, atol=EXACT)


@pytest.mark.parametrize("golden", GOLDEN["corpora"], ids=lambda g: g["name"])
def test_a_resample_scores_like_the_studies_it_holds(golden, whole):
    """All but CIDEr-D, whose document frequencies stay those of the whole set."""
    studies = golden["studies"]
    weights = np.bincount(studies, minlength=len(PAIRS)).astype(float)
    wanted = golden["scores"] | {"cider_d": np.mean([PAIRS[i]["scores"]["cider_d"] for i in studies])}
    drawn = whole.scores(np.stack([np.ones_like(weights), weights]))
    taken = whole.take(np.array(studies)).scores(np.ones((1, len(studies))))
    for scores in (drawn, taken):
        assert {name: float(score[-1]) for name, score in scores.items()} == pytest.approx(wanted, abs=EXACT)


def test_a_resample_without_a_scored_study_has_no_score():
    scores = Wording.of(["lungs clear", "x"], ["lungs are clear", ""]).scores(np.array([[0.0, 3.0], [1.0, 0.0]]))
    assert list(scores) == NAMES
    assert all(np.isnan(none) and np.isfinite(one) for none, one in scores.values())


def test_the_policy_names_every_score():
    assert {name.partition("_")[0] if name.startswith("bleu") else name for name in NAMES} == set(POLICY)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (None, ""),
        ("  ", ""),
        ("The heart is normal. Lungs are CLEAR.", "the heart is normal . lungs are clear"),
        ("1. No effusion. 2. A 1.5 cm nodule.\n3) Bones intact", "no effusion . a 1.5 cm nodule . bones intact"),
        ("No effusion, (or) pneumothorax; well-expanded - clear!", "no effusion or pneumothorax well-expanded clear"),
        ("Chest x-XXXX..  No change?", "chest x-xxxx . no change"),
        ("Level of T 12. Normal", "level of t 12 . normal"),
    ],
)
def test_normalise(text, normal):
    assert normalise(text) == normal


@given(st.text(alphabet="ab1.,!? \n-_()é", max_size=40))
def test_normalise_settles_and_has_single_spaces(text):
    once = normalise(text)
    assert once == " ".join(once.split())
    assert not set(once) & set(",!?()_\n")


def _slow_common(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


@given(WORDS, st.lists(WORDS, min_size=1, max_size=5))
def test_longest_common_subsequence_with_many_texts_at_once(draft, texts):
    assert PackedTexts.of(texts).common(draft).tolist() == [_slow_common(draft, text) for text in texts]


def test_studies_without_a_reference_add_nothing():
    drafts, references = ["lungs clear", "heart normal"], ["lungs are clear", "normal heart"]
    some = Wording.of([drafts[0], "lungs clear", drafts[1]], [references[0], "", references[1]])
    alone = Wording.of(drafts, references)
    assert some.counts() == dict.fromkeys(NAMES, (2, None))
    one, two = some.scores(np.ones((1, 3))), alone.scores(np.ones((1, 2)))
    assert list(one) == NAMES
    assert all(one[name] == two[name] for name in NAMES)
    for name, score in some.each().items():
        assert np.isnan(score).tolist() == [False, True, False]
        assert np.array_equal(score[[0, 2]], alone.each()[name])


def test_no_reference_at_all_gives_no_scores():
    nothing = Wording.of(["x"], [""])
    assert nothing.scores(np.ones((1, 1))) == {}
    assert nothing.counts() == {}
    assert all(np.isnan(score).all() for score in nothing.each().values())
    assert Wording.of([], []).scores(np.ones((1, 0))) == {}


@pytest.mark.parametrize("references", [["clear"], ["clear", "clear"], ["é", "ß"]])
def test_empty_drafts_score_nothing(references):
    """Also of texts too short for the longer n-grams, and without a token of rouge-score's."""
    scores = Wording.of([""] * len(references), references).scores(np.ones((1, len(references))))
    assert all(score == pytest.approx(0, abs=EXACT) for score in scores.values())


@pytest.mark.parametrize("draft", ["y" * 20_000, "no " * 20_000, ". " * 20_000])
def test_what_a_model_that_runs_away_drafts_is_scored(draft):
    """One endless word, which a stemmer may walk through again at each letter, and endless repeats."""
    scores = Wording.of([draft.strip(), "lungs clear"], ["no effusion", "lungs clear"]).each()
    assert all(np.isfinite(score).all() and score[0] < 0.1 for score in scores.values())
    assert scores["rouge_l"][1] == 1
