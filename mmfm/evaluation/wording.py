"""BLEU-1..4, CIDEr-D, ROUGE-L and METEOR as the packages compute them, as per-study statistics that are only resampled.

Published scores of report generators come from these packages. BLEU is of the corpus (counts are summed over the
studies, then divided), so that a bootstrap must sum counts again; all others are means over studies. METEOR is without
the WordNet stage, whose data nltk would download, and is named for the stages that are left.

Sources: Papineni et al., ACL 2002 (BLEU); Vedantam et al., CVPR 2015 (CIDEr-D); Lin, 2004 (ROUGE-L); Lavie and Agarwal,
WMT 2007 (METEOR); pycocoevalcap 1.2, rouge-score 0.1.2 and nltk 3.10 (the constants).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from types import SimpleNamespace

import numpy as np
from scipy.sparse import csr_array, diags_array

from mmfm.report import Sections

NORMALISATION = (
    "lower case; list numbers dropped; sentences split at . ! or ? before a space; punctuation dropped, except hyphens "
    "within words and decimal points; sentences joined by ' . '; no truncation; words of the publisher's own "
    "de-identification (xxxx) kept; tokens split at spaces"
)
"""What ``normalise`` does, in words, for the policy of a score card."""

POLICY = {
    "bleu": "of the corpus, closest reference length, constants of pycocoevalcap 1.2",
    "cider_d": "mean over studies, document frequencies of the references of all studies scored, as pycocoevalcap 1.2",
    "rouge_l": "mean over studies, beta 1.2, as pycocoevalcap 1.2",
    "rouge_l_rouge_score": "mean over studies, F1, tokens of a-z and 0-9 without a stemmer, as rouge-score 0.1.2",
    "meteor_exact_stem": "mean over studies, exact and Porter stem stages, no WordNet, as nltk 3.10",
}
"""What each score is, in words, for the policy of a score card."""

AVERAGED = ("cider_d", "rouge_l", "rouge_l_rouge_score", "meteor_exact_stem")
"""The scores that are means over studies."""

ORDERS = 4  # n-grams of 1 to 4 words
BETA = 1.2  # weight of recall in ROUGE-L, pycocoevalcap rouge.py
SIGMA = 6.0  # of the penalty for another length in CIDEr-D, pycocoevalcap cider.py
TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap bleu_scorer.py: keep empty numerators and denominators finite


_LIST_NUMBER = re.compile(r"(?:^|(?<=[.!?:;])\s|\n)\s*\d{1,2}[.)]\s+")
_FULL_STOP = re.compile(r"[.!?]+(?=\s|$)")
_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_PUNCTUATION = re.compile(r"[^\w\s\0-]|_|(?<!\w)-+|-+(?!\w)")


@lru_cache(maxsize=1 << 14)  # a reference is compared with the drafts and with every control
def normalise(text: str | None) -> str:
    """Returns the text in the form that is compared word by word; see ``NORMALISATION``. None gives ""."""
    text = _LIST_NUMBER.sub(" ", (text or "").lower())
    sentences = (_words(sentence) for sentence in _FULL_STOP.split(text))
    return " . ".join(sentence for sentence in sentences if sentence)


def text_of(report: Sections, sections: Sequence[str]) -> str:
    """Returns the normalised text of some sections of a report, those without text left out."""
    return " . ".join(filter(None, (normalise(getattr(report, name)) for name in sections)))


def _words(sentence: str) -> str:
    kept = _DECIMAL_POINT.sub("\0", sentence)  # a decimal point belongs to its number
    kept = _PUNCTUATION.sub("", kept)
    return " ".join(kept.replace("\0", ".").split())


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Word overlap of N drafts with their reference texts.

    CIDEr-D weighs an n-gram by how few of the references have it. These are the references of all studies that were
    passed to ``of``: a resample or a part of the studies averages the same scores of studies, and is not weighed anew.
    """

    scored_N: np.ndarray
    """bool; False where the reference has no such text. Such a study adds nothing."""
    matches_N4: np.ndarray
    """float64, n-grams of the draft that the reference has too (clipped), for n = 1 to 4."""
    drafted_N4: np.ndarray
    """float64, n-grams of the draft."""
    lengths_N2: np.ndarray
    """float64, words of the draft and of the reference."""
    averaged_N4: np.ndarray
    """float64, the scores named in ``AVERAGED`` of each study; 0 where not scored."""

    @classmethod
    def of(cls, drafts: Sequence[str], references: Sequence[str]) -> Wording:
        """Returns the statistics of normalised drafts against normalised references, one reference a study."""
        scored_N = np.array([bool(reference) for reference in references], dtype=bool)
        index = np.flatnonzero(scored_N)
        pairs = [(drafts[i], references[i]) for i in index.tolist()]
        matches, drafted, lengths, averaged = (np.zeros((len(scored_N), n)) for n in (ORDERS, ORDERS, 2, len(AVERAGED)))
        if pairs:
            words = [(draft.split(), reference.split()) for draft, reference in pairs]
            matches[index], drafted[index], cider_d = _gram_scores(*zip(*words, strict=True))
            lengths[index] = [(len(draft), len(reference)) for draft, reference in words]
            rouge_l = [_rouge_l(draft, reference, BETA) for draft, reference in words]
            rouge_score = [_rouge_l(_alphanumeric(draft), _alphanumeric(reference), 1) for draft, reference in pairs]
            meteor = _meteor()
            aligned = [meteor(reference, draft) for draft, reference in words]
            averaged[index] = np.column_stack([cider_d, rouge_l, rouge_score, aligned])
        return cls(scored_N=scored_N, matches_N4=matches, drafted_N4=drafted, lengths_N2=lengths, averaged_N4=averaged)

    def take(self, index: np.ndarray) -> Wording:
        """Returns the statistics of the studies at ``index``."""
        return Wording(**{name: value[index] for name, value in vars(self).items()})

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each score, of shape (R,), for R weightings of the studies (how often each one was drawn)."""
        if not self.scored_N.any():
            return {}
        studies_R1 = (weights_RN @ self.scored_N)[:, None]
        bleu_R4 = _bleu(weights_RN @ self.matches_N4, weights_RN @ self.drafted_N4, weights_RN @ self.lengths_N2)
        means_R4 = weights_RN @ self.averaged_N4 / np.where(studies_R1 > 0, studies_R1, 1)
        return _named(np.where(studies_R1 > 0, np.hstack([bleu_R4, means_R4]), np.nan))

    def each(self) -> dict[str, np.ndarray]:
        """Returns each score of each study alone, of shape (N,); NaN where not scored."""
        bleu_N4 = _bleu(self.matches_N4, self.drafted_N4, self.lengths_N2)
        return _named(np.where(self.scored_N[:, None], np.hstack([bleu_N4, self.averaged_N4]), np.nan))

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
        return float(_f_beta(self.common(draft), len(draft), self.lengths, BETA).mean())


def _named(values_X8: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip((*(f"bleu_{n + 1}" for n in range(ORDERS)), *AVERAGED), values_X8.T, strict=True))


def _bleu(matches_X4: np.ndarray, drafted_X4: np.ndarray, lengths_X2: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 from summed counts, (X, 4)."""
    precision_X4 = (matches_X4 + TINY) / (drafted_X4 + SMALL)
    drafted_X, reference_X = lengths_X2.T
    ratio_X = (drafted_X + TINY) / (reference_X + SMALL)
    brevity_X = np.where(ratio_X < 1, np.exp(1 - 1 / np.minimum(ratio_X, 1)), 1)
    return np.cumprod(precision_X4, axis=1) ** (1 / np.arange(1, ORDERS + 1)) * brevity_X[:, None]


def _gram_scores(
    drafts: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What n-grams give: matches (N, 4), n-grams of the drafts (N, 4) and CIDEr-D (N,)."""
    N = len(drafts)
    matches, drafted, similarity = (np.zeros((N, ORDERS)) for _ in range(3))
    for n, counts in enumerate(_gram_counts([*drafts, *references])):
        matches[:, n] = counts[:N].minimum(counts[N:]).sum(axis=1)
        drafted[:, n] = counts[:N].sum(axis=1)
        similarity[:, n] = _tf_idf_similarity(counts[:N], counts[N:])
    # the package counts 2-grams for lengths, which differ by as many as the words do
    excess_N = np.array([len(draft) - len(reference) for draft, reference in zip(drafts, references, strict=True)])
    return matches, drafted, 10 * similarity.mean(axis=1) * np.exp(-(excess_N**2) / (2 * SIGMA**2))


def _gram_counts(texts: Sequence[Sequence[str]]) -> Iterator[csr_array]:
    """Yields for n = 1 to 4 how often each text has each n-gram, (texts, n-grams of all texts)."""
    ids: dict[str, int] = {}
    word_T = np.array([ids.setdefault(word, len(ids)) for text in texts for word in text], dtype=np.int64)
    text_T = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    gram_T, grams = word_T, len(ids)
    for n in range(1, ORDERS + 1):
        if n > 1:  # one of n - 1 words, and the word behind it
            kinds, gram_T = np.unique(gram_T[:-1] * len(ids) + word_T[n - 1 :], return_inverse=True)
            grams = len(kinds)
        inside = text_T[: len(gram_T)] == text_T[n - 1 :]  # not from the end of one text into the next
        places = (text_T[: len(gram_T)][inside], gram_T[inside])
        yield csr_array((np.ones(len(places[0])), places), shape=(len(texts), grams))


def _tf_idf_similarity(drafted_NG: csr_array, reference_NG: csr_array) -> np.ndarray:
    """Cosine of the n-gram counts weighed by rarity among the references, the draft's clipped to the reference's."""
    having_G = (reference_NG > 0).sum(axis=0)
    rarity_GG = diags_array(np.log(reference_NG.shape[0]) - np.log(np.maximum(having_G, 1)))
    draft, reference = drafted_NG @ rarity_GG, reference_NG @ rarity_GG
    norms_N = np.sqrt(draft.power(2).sum(axis=1)) * np.sqrt(reference.power(2).sum(axis=1))
    return draft.minimum(reference).multiply(reference).sum(axis=1) / np.where(norms_N > 0, norms_N, 1)


def _rouge_l(draft: Sequence[str], reference: Sequence[str], beta: float) -> float:
    return float(_f_beta(PackedTexts.of([reference]).common(draft), len(draft), np.array([len(reference)]), beta)[0])


def _alphanumeric(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text)  # rouge-score tokenize.py; the text is in lower case already


def _f_beta(common: np.ndarray, drafted: int, lengths: np.ndarray, beta: float) -> np.ndarray:
    """ROUGE-L from longest common subsequences; 0 where nothing is common."""
    precision, recall = common / max(drafted, 1), common / np.maximum(lengths, 1)
    return (1 + beta**2) * precision * recall / np.where(common > 0, recall + beta**2 * precision, 1)


def _meteor() -> Callable[[Sequence[str], Sequence[str]], float]:
    """METEOR of a reference and a draft: nltk's own, with a WordNet that knows no synonyms."""
    from nltk.stem.porter import PorterStemmer  # a second or two: nltk imports pandas and scikit-learn
    from nltk.translate.meteor_score import single_meteor_score

    stemmer = SimpleNamespace(stem=cache(PorterStemmer().stem))
    return partial(single_meteor_score, stemmer=stemmer, wordnet=SimpleNamespace(synsets=lambda word: ()))
