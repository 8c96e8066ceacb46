import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.evaluation.wording import PackedTexts, Wording, normalise

GOLDEN = json.loads((Path(__file__).parent / "wording_golden.json").read_text())
WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


def _wording(pairs):
    return Wording.of([p["draft"] for p in pairs], [p["reference"] for p in pairs])


@pytest.mark.parametrize("golden", GOLDEN["scores"], ids=lambda g: g["name"])
def test_parity_with_pycocoevalcap(golden):
    scores = _wording([GOLDEN["pairs"][i] for i in golden["studies"]]).scores(np.ones((1, len(golden["studies"]))))
    assert {name: float(score[0]) for name, score in scores.items()} == pytest.approx(
        {name: golden[name] for name in scores}, abs=1e-6
    )
    assert set(scores) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"}


@pytest.mark.parametrize("golden", GOLDEN["scores"], ids=lambda g: g["name"])
def test_a_resample_scores_like_the_studies_it_holds(golden):
    weights = np.bincount(golden["studies"], minlength=len(GOLDEN["pairs"])).astype(float)
    scores = _wording(GOLDEN["pairs"]).scores(np.stack([np.ones_like(weights), weights]))
    assert {name: float(score[1]) for name, score in scores.items()} == pytest.approx(
        {name: golden[name] for name in scores}, abs=1e-6
    )


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
    some = Wording.of(["lungs clear", "anything"], ["lungs are clear", ""])
    alone = Wording.of(["lungs clear"], ["lungs are clear"])
    assert some.counts()["bleu_4"] == (1, None)
    one, two = some.scores(np.ones((1, 2))), alone.scores(np.ones((1, 1)))
    assert all(one[name] == two[name] for name in two)
    assert Wording.of(["x"], [""]).scores(np.ones((1, 1))) == {}
