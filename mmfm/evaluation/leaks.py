"""Leaks: what of the studies scored was already among the training studies: texts, pictures, patients.

    leaks = find_leaks(references, train, hashes=hashes, train_hashes=train_hashes)
    leaks.near_text.sum(), leaks.counts()

Texts are compared exactly, case and punctuation ignored, and by the Jaccard similarity of their shingles (runs of three
words; Broder, 1997). All pairs above the threshold are found, none by chance: the index holds of each text only its
rarest shingles, of which two texts above the threshold must share one (prefix filtering; Chaudhuri, Ganti and Kaushik,
ICDE 2006). Pictures are compared by the SHA-256 of their file and by a difference hash.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmfm.evaluation.references import Reference

SHINGLE = 3
NEAR_TEXT = 0.8
"""Jaccard similarity from which on two texts are near-duplicates."""

ROUNDING = 1e-9  # 0.8 of a whole number may come out a little above the whole number that it is

HASH_SIDE = 16
NEAR_IMAGE = 48
"""Bits of the 512 up to which two pictures are near-duplicates. Of the 606 pictures of ``val`` of IU X-Ray none came
nearer to one of the training studies than 63 bits. Of 150 pictures none moved further than 29 bits from itself by JPEG
of quality 30, a resize to 180 pixels, gamma 1.3 or less contrast; cut by 1 % on each side, 95 % moved at most 41.
Drawn studies share their anatomy: of 80 pictures of 40 of them, 38 were this near to one of another study."""
NO_HASHES = np.empty((0, 2 * HASH_SIDE**2 // 8), np.uint8)
"""Of a study without pictures, or of one that is not drafted: no picture of training could have helped it."""

LEAK_RULES = (
    f"texts: case and punctuation ignored; near from a Jaccard similarity of {NEAR_TEXT} of runs of {SHINGLE} "
    f"words on; images: SHA-256 of the file; near up to {NEAR_IMAGE} of {2 * HASH_SIDE**2} bits of difference hash"
)
"""What counts, in words, for the policy of a score card."""


@dataclass(frozen=True, kw_only=True)
class LeakCounts:
    """How much leaks, in studies scored."""

    studies: int
    train_studies: int
    shared_patients: int
    """Studies of a patient who is among the training studies too, by source and identifier."""
    exact_texts: int
    """Studies of which the findings (the impression where there are none) stand word by word in train."""
    near_texts: int
    """The same, or nearly."""
    texts: int
    """Studies that have such a text."""
    identical_images: int | None
    """Studies with a picture whose file is in train; ``None`` where the manifests state no hashes."""
    near_images: int | None
    """Studies with a picture that nearly is; ``None`` where pictures were not looked at."""


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """What leaks, study by study: each a bool array (N,), or None where it is not known."""

    train_studies: int
    shared_patient: np.ndarray
    has_text: np.ndarray
    exact_text: np.ndarray
    near_text: np.ndarray
    """``exact_text`` included."""
    identical_image: np.ndarray | None
    near_image: np.ndarray | None

    def counts(self) -> LeakCounts:
        """Returns the numbers, for a score card."""
        return LeakCounts(
            studies=len(self.has_text),
            train_studies=self.train_studies,
            shared_patients=int(self.shared_patient.sum()),
            texts=int(self.has_text.sum()),
            exact_texts=int(self.exact_text.sum()),
            near_texts=int(self.near_text.sum()),
            identical_images=None if self.identical_image is None else int(self.identical_image.sum()),
            near_images=None if self.near_image is None else int(self.near_image.sum()),
        )


def find_leaks(
    references: Sequence[Reference],
    train: Sequence[Reference],
    *,
    files: Sequence[Collection[str]] | None = None,
    train_files: Sequence[Collection[str]] | None = None,
    hashes: Sequence[np.ndarray] | None = None,
    train_hashes: Sequence[np.ndarray] | None = None,
) -> Leaks:
    """Returns what of the studies scored is among the training studies.

    Args:
        references: the studies scored.
        train: the studies that the model was trained on.
        files: of each study scored the SHA-256 of its files, as far as they are stated; None where not at hand.
        train_files: those of the training studies.
        hashes: of each study scored the ``difference_hash`` of its pictures, (pictures, 64); None where not at hand.
        train_hashes: those of the training studies.
    """
    exact, near = duplicate_texts([_text(reference) for reference in references], map(_text, train))
    patients = {(reference.source, reference.patient) for reference in train}
    known = set().union(*train_files) if train_files else set()
    stated = known and files is not None and any(files)
    return Leaks(
        train_studies=len(train),
        shared_patient=np.array([(r.source, r.patient) in patients for r in references], dtype=bool),
        has_text=np.array([bool(_words(_text(reference))) for reference in references], dtype=bool),
        exact_text=exact,
        near_text=near,
        identical_image=np.array([not known.isdisjoint(each) for each in files or ()], dtype=bool) if stated else None,
        near_image=(
            duplicate_images(hashes, train_hashes) if hashes is not None and train_hashes is not None else None
        ),
    )


def duplicate_texts(texts: Sequence[str], train_texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns which texts stand in ``train_texts`` word by word, and which do so or nearly: two bool arrays (N,).

    An empty text is no duplicate. Seconds for thousands of texts against hundreds of thousands.
    """
    bare = [_words(text) for text in texts]
    exact, near = [False] * len(bare), [False] * len(bare)
    shingles = [_shingles(words) for words in bare]
    frequency = Counter(shingle for each in shingles for shingle in each)
    rank = {shingle: i for i, shingle in enumerate(sorted(frequency, key=lambda s: (frequency[s], s)))}
    ranked = [sorted(rank[shingle] for shingle in each) for each in shingles]
    index: dict[int, list[int]] = defaultdict(list)
    for i, ranks in enumerate(ranked):
        for r in ranks[: _prefix(len(ranks))]:
            index[r].append(i)
    sets = [set(ranks) for ranks in ranked]
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, words in enumerate(bare):
        if words:
            places[words].append(i)
    for words in {_words(text) for text in train_texts}:
        for i in places.get(words, ()):
            exact[i] = near[i] = True
        theirs = _shingles(words)
        known = sorted(r for r in map(rank.get, theirs) if r is not None)
        # Shingles that no text here has are the rarest of all: they come first, and match nothing.
        first = known[: max(0, _prefix(len(theirs)) - (len(theirs) - len(known)))]
        for i in {i for r in first for i in index.get(r, ())}:
            least = NEAR_TEXT / (1 + NEAR_TEXT) * (len(sets[i]) + len(theirs)) - ROUNDING  # shared at that similarity
            if not near[i] and least <= min(len(sets[i]), len(known)):
                near[i] = len(sets[i].intersection(known)) >= least
    return np.array(exact, dtype=bool), np.array(near, dtype=bool)


def difference_hash(picture: np.ndarray) -> np.ndarray:
    """Returns whether the picture grows brighter from one part to the next, along rows and columns: (64,) uint8.

    Brightness, contrast, size and compression hardly change it; a picture that is mirrored or turned is another one.

    Args:
        picture: (rows, columns), any range.
    """
    grey = Image.fromarray(np.asarray(picture, dtype=np.float32))
    across = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    down = np.asarray(grey.resize((HASH_SIDE, HASH_SIDE + 1), Image.Resampling.BOX))
    return np.packbits([across[:, 1:] > across[:, :-1], down[1:] > down[:-1]])


def duplicate_images(hashes: Sequence[np.ndarray], train_hashes: Sequence[np.ndarray]) -> np.ndarray:
    """Returns (N,) which studies have a picture that is nearly one of a training study.

    Args:
        hashes: of each study the hashes of its pictures, (pictures, 64).
        train_hashes: those of the training studies.
    """
    train = np.concatenate([*train_hashes, NO_HASHES]).view(np.uint64)
    return np.array(
        [
            any((np.bitwise_count(train ^ one).sum(axis=1, dtype=np.int64) <= NEAR_IMAGE).any() for one in pictures)
            for pictures in (np.ascontiguousarray(each).view(np.uint64) for each in hashes)
        ],
        dtype=bool,
    )


def _text(reference: Reference) -> str:
    return reference.report.findings or reference.report.impression or ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def _shingles(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    if not words:
        return set()
    return {words[i : i + SHINGLE] for i in range(max(1, len(words) - SHINGLE + 1))}


def _prefix(size: int) -> int:
    """Returns how many of its rarest shingles a text of ``size`` has to be found by: a near one lacks no more."""
    return size - math.ceil(NEAR_TEXT * size - ROUNDING) + 1 if size else 0
