import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.evaluation.leaks import NEAR_IMAGE, NO_HASHES, difference_hash, duplicate_images, duplicate_texts, find_leaks
from mmfm.evaluation.references import Reference
from mmfm.report import Sections

SENTENCE = "The heart is normal in size and the lungs are clear without effusion or pneumothorax on either side"


def brute_force(texts, train):
    """Jaccard similarity of runs of three words, pair by pair."""

    def runs(text):
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))} if words else set()

    return [any(runs(a) and 10 * len(runs(a) & runs(b)) >= 8 * len(runs(a) | runs(b)) for b in train) for a in texts]


def test_case_and_punctuation_do_not_hide_an_exact_text():
    exact, near = duplicate_texts(["The heart is NORMAL;", "the heart", ""], ["the heart, is normal.", "", "other"])
    assert exact.tolist() == [True, False, False] and near.tolist() == [True, False, False]


def test_a_text_with_one_word_more_is_near_and_another_one_is_not():
    exact, near = duplicate_texts(
        [f"{SENTENCE} today", SENTENCE.replace("lungs", "pleura"), "No acute disease."], [SENTENCE]
    )
    assert not exact.any() and near.tolist() == [True, False, False]  # one word in the middle breaks three of 17 runs


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=14).map(" ".join), max_size=8),
    st.lists(st.lists(st.sampled_from("abc"), max_size=14).map(" ".join), max_size=8),
)
def test_no_near_text_is_missed_or_invented(texts, train):
    exact, near = duplicate_texts(texts, train)
    assert near.tolist() == brute_force(texts, train)
    assert exact.tolist() == [bool(text) and text in train for text in texts]
    assert not (exact & ~near).any()


def test_many_texts_are_compared_in_seconds():
    generator = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(800)])
    train = [" ".join(words[i]) for i in generator.zipf(1.3, (30_000, 50)) % 800]
    started = time.perf_counter()
    exact, near = duplicate_texts([*train[:200], *(f"{text} more" for text in train[200:400])], train)
    assert time.perf_counter() - started < 20
    assert exact.tolist() == [True] * 200 + [False] * 200 and near.all()


@pytest.fixture
def picture():
    """Soft blobs, 200 x 160."""
    generator = np.random.default_rng(0)
    grid = np.mgrid[0:200, 0:160]
    blobs = [
        np.exp(-(((grid - generator.uniform(0, 200, 2)[:, None, None]) / generator.uniform(15, 60)) ** 2).sum(0))
        for _ in range(12)
    ]
    return np.sum(blobs, axis=0).astype(np.float32)


def bits(one, other):
    return int(np.bitwise_count(one ^ other).sum())


def test_a_hash_outlasts_brightness_and_size_but_no_mirroring(picture):
    own = difference_hash(picture)
    assert own.shape == (64,) and own.dtype == np.uint8
    assert bits(own, difference_hash(picture * 0.5 + 0.2)) <= 2
    assert bits(own, difference_hash(picture[::2, ::2])) <= NEAR_IMAGE
    assert bits(own, difference_hash(picture[:, ::-1])) > NEAR_IMAGE
    assert bits(own, difference_hash(picture.T)) > NEAR_IMAGE


def test_a_study_leaks_with_one_picture(picture):
    own, other = difference_hash(picture), difference_hash(picture[:, ::-1])
    noisy = difference_hash(picture + np.random.default_rng(1).normal(0, 1e-3, picture.shape))
    found = duplicate_images([np.stack([other, own]), np.stack([other]), NO_HASHES], [np.stack([noisy])])
    assert found.tolist() == [True, False, False]
    assert duplicate_images([own[None]], []).tolist() == [False]


def make(uid, patient, findings, *, impression=None, source="here"):
    sections = Sections(findings=findings, impression=impression)
    return Reference(study_uid=uid, patient_id=patient, report=sections, source=source)


def test_leaks_are_counted_by_study():
    scored = [
        make("1", "p1", "Heart is normal."),
        make("2", "p2", None, impression="No acute disease."),
        make("3", "p3", None),
        make("4", "p4", "Large left effusion."),
    ]
    train = [make("5", "p9", "heart is normal"), make("6", "p2", "No acute disease"), make("7", "p3", "x", source="y")]
    counts = find_leaks(
        scored, train, files=[{"a"}, set(), {"c", "d"}, {"b"}], train_files=[{"b"}, set(), {"d"}]
    ).counts()
    assert (counts.studies, counts.train_studies, counts.texts) == (4, 3, 3)
    assert (counts.exact_texts, counts.near_texts) == (2, 2)
    assert counts.shared_patients == 1  # an identifier of another source is another patient
    assert counts.identical_images == 2 and counts.near_images is None


def test_pictures_that_nobody_looked_at_are_not_said_to_be_clean():
    scored = [make("1", "p1", "Heart is normal.")]
    assert find_leaks(scored, scored).counts().identical_images is None
    assert find_leaks(scored, scored, files=[set()], train_files=[{"a"}]).counts().identical_images is None
    hashes = [np.zeros((1, 64), np.uint8)]
    assert find_leaks(scored, scored, hashes=hashes, train_hashes=hashes).counts().near_images == 1


def test_without_training_studies_nothing_leaks():
    counts = find_leaks([make("1", "p1", "Heart is normal.")], []).counts()
    assert (counts.shared_patients, counts.exact_texts, counts.near_texts) == (0, 0, 0)
