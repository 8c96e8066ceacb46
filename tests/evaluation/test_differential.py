"""A ranked differential: which terms are the same, and where the first right one stands."""

import pytest

from mmfm.evaluation.differential import hits, is_same_term, most_common


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Crohn's disease", "crohn disease", True),
        ("Glioblastoma multiforme", "GLIOBLASTOMA", True),
        ("Acute infarct of the left MCA", "acute left MCA stroke", True),  # 3 of 5 words
        ("Abscess", "Metastasis", False),
        ("of the", "Metastasis", False),
        ("Pulmonary embolism", "Pulmonary fibrosis", False),  # 1 of 3 words
    ],
)
def test_terms_are_the_same_by_their_words(one: str, other: str, same: bool) -> None:
    assert is_same_term(one, other) is is_same_term(other, one) is same


def test_hits_are_counted_among_the_first_terms() -> None:
    ranked = ("Abscess", "Lymphoma", "Metastasis", "Meningioma")
    assert hits(ranked, ("metastases", "metastasis")) == {1: False, 3: True, 5: True}
    assert hits((), ("metastasis",)) == {1: False, 3: False, 5: False}


def test_the_most_common_terms_count_each_case_once() -> None:
    cases = [("Abscess", "abscess"), ("Lymphoma",), ("lymphoma", "Glioma")]
    assert most_common(cases, count=2) == ("lymphoma", "abscess")
