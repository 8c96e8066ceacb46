"""BLEU-1..4 and ROUGE-L with the semantics of pycocoevalcap 1.2, as per-study statistics that are only resampled.

Published scores of report generators come from that package. Its BLEU is of the corpus (counts are summed over the
studies, then divided), so that a bootstrap must sum counts again and cannot average scores of studies.

Sources: Papineni et al., ACL 2002 (BLEU); Lin, 2004 (ROUGE-L); pycocoevalcap 1.2 (the constants).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NORMALISATION = (
    "lower case; list numbers dropped; sentences split at . ! or ? before a space; punctuation dropped, except hyphens "
    "within words and decimal points; sentences joined by ' . '; no truncation; words of the publisher's own "
    "de-identification (xxxx) kept; tokens split at spaces"
)
"""What ``normalise`` does, in words, for the policy of a score card."""

ORDERS = 4  # n-grams of 1 to 4 words
BETA = 1.2  # weight of recall in ROUGE-L, pycocoevalcap rouge.py
TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap bleu_scorer.py: keep empty numerators and denominators finite


def normalise(text: str | None) -> str:
    """Returns the text in the form that is compared word by word; see ``NORMALISATION``. None gives ""."""
    text = re.sub(r"(?:^|(?<=[.!?:;])\s|\n)\s*\d{1,2}[.)]\s+", " ", (text or "").lower())
    sentences = (_words(sentence) for sentence in re.split(r"[.!?]+(?=\s|$)", text))
    return " . ".join(sentence for sentence in sentences if sentence)


def _words(sentence: str) -> str:
    kept = re.sub(r"(?<=\d)\.(?=\d)", "\0", sentence)  # a decimal point belongs to its number
    kept = re.sub(r"[^\w\s\0-]|_|(?<!\w)-+|-+(?!\w)", "", kept)
    return " ".join(kept.replace("\0", ".").split())


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Word overlap of N drafts with their reference texts."""

    scored_N: np.ndarray
    """bool; False where the reference has no such text. Such a study adds nothing."""
    matches_N4: np.ndarray
    """float64, n-grams of the draft that the reference has too (clipped), for n = 1 to 4."""
    drafted_N4: np.ndarray
    """float64, n-grams of the draft."""
    lengths_N2: np.ndarray
    """float64, words of the draft and of the reference."""
    rouge_N: np.ndarray
    """float64, ROUGE-L of each study; 0 where not scored."""

    @classmethod
    def of(cls, drafts: Sequence[str], references: Sequence[str]) -> Wording:
        """Returns the statistics of normalised drafts against normalised references, one reference a study."""
        N = len(references)
        matches, drafted, lengths, rouge = np.zeros((N, 4)), np.zeros((N, 4)), np.zeros((N, 2)), np.zeros(N)
        scored = np.array([bool(reference) for reference in references], dtype=bool)
        for i in np.flatnonzero(scored).tolist():
            draft, reference = drafts[i].split(), references[i].split()
            lengths[i] = len(draft), len(reference)
            for n in range(ORDERS):
                grams = _ngrams(draft, n + 1)
                matches[i, n] = (grams & _ngrams(reference, n + 1)).total()
                drafted[i, n] = grams.total()
            rouge[i] = _f_beta(PackedTexts.of([reference]).common(draft), len(draft), lengths[i, 1:])[0]
        return cls(scored_N=scored, matches_N4=matches, drafted_N4=drafted, lengths_N2=lengths, rouge_N=rouge)

    def take(self, index: np.ndarray) -> Wording:
        """Returns the statistics of the studies at ``index``."""
        return Wording(**{name: value[index] for name, value in vars(self).items()})

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each score, of shape (R,), for R weightings of the studies (how often each one was drawn)."""
        if not self.scored_N.any():
            return {}
        precision_R4 = (weights_RN @ self.matches_N4 + TINY) / (weights_RN @ self.drafted_N4 + SMALL)
        drafted_R, reference_R = (weights_RN @ self.lengths_N2).T
        ratio_R = (drafted_R + TINY) / (reference_R + SMALL)
        brevity_R = np.where(ratio_R < 1, np.exp(1 - 1 / np.minimum(ratio_R, 1)), 1)
        bleu_R4 = np.cumprod(precision_R4, axis=1) ** (1 / np.arange(1, ORDERS + 1)) * brevity_R[:, None]
        scores = {f"bleu_{n + 1}": bleu_R4[:, n] for n in range(ORDERS)}
        return scores | {"rouge_l": (weights_RN @ self.rouge_N) / (weights_RN @ self.scored_N)}

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Returns of each score the number of studies; events do not apply."""
        return {name: (int(self.scored_N.sum()), None) for name in self.scores(np.ones((1, len(self.scored_N))))}


@dataclass(frozen=True, kw_only=True)
class PackedTexts:
    """Texts as bit rows, so that one pass over a draft gives its longest common subsequence with all of them.

    The bit-parallel algorithm of Hyyrö (2004) on one long integer: each text has one bit a word and a guard bit
    behind, which catches the carry of the addition.
    """

    starts: np.ndarray
    """First bit of each text."""
    lengths: np.ndarray
    """Words of each text."""
    words: dict[str, int]
    """For each word, the bits where it stands."""
    full: int
    """All bits except the guards."""

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> PackedTexts:
        """Returns the tokenised texts, at least one, packed."""
        words: dict[str, int] = {}
        starts, full, bit = [], 0, 0
        for text in texts:
            starts.append(bit)
            for word in text:
                words[word] = words.get(word, 0) | 1 << bit
                bit += 1
            full |= ((1 << len(text)) - 1) << starts[-1]
            bit += 1
        return cls(starts=np.array(starts), lengths=np.array([len(t) for t in texts]), words=words, full=full)

    def common(self, draft: Sequence[str]) -> np.ndarray:
        """Returns the length of the longest common subsequence of ``draft`` with each text, (texts,)."""
        row = self.full
        for word in draft:
            if hits := row & self.words.get(word, 0):
                row = ((row + hits) | (row - hits)) & self.full
        size = int(self.starts[-1] + self.lengths[-1]) // 8 + 1
        bits = np.unpackbits(np.frombuffer(row.to_bytes(size, "little"), np.uint8), bitorder="little")
        return self.lengths - np.add.reduceat(bits, self.starts, dtype=np.int64)

    def mean_rouge_l(self, draft: Sequence[str]) -> float:
        """Returns the mean ROUGE-L of ``draft`` over the texts."""
        return float(_f_beta(self.common(draft), len(draft), self.lengths).mean())


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    # The shifted copies are shorter, each by one more word: the shortest ends the last n-gram.
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _f_beta(common: np.ndarray, drafted: int, lengths: np.ndarray) -> np.ndarray:
    """ROUGE-L from longest common subsequences; 0 where nothing is common."""
    precision, recall = common / max(drafted, 1), common / np.maximum(lengths, 1)
    return (1 + BETA**2) * precision * recall / np.where(common > 0, recall + BETA**2 * precision, 1)
