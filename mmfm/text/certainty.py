"""Whether a sentence states, denies or leaves open what it mentions, after NegEx and ConText.

Cues (``vocabulary/cues.toml``) reach forwards or backwards over a list of mentions ("no A, B or C"; "A and B are not seen")
until a word that ends their reach ("but", "however") or a statement of the other kind stands between.

Sources: Chapman et al., J Biomed Inform 2001 (NegEx); Harkema et al., J Biomed Inform 2009 (ConText);
Irvin et al., AAAI 2019 (the CheXpert labeller).
"""

from __future__ import annotations

from collections.abc import Sequence

from mmfm.report import Status
from mmfm.text.phrases import Phrases, Token, vocabulary

CUES = tuple((kind, tuple(phrases), None) for kind, phrases in vocabulary("cues").items())


def certainty(tokens: Sequence[Token], start: int, end: int, *, since: int = 0) -> Status:
    """Returns the status of the mention between ``start`` and ``end``.

    Args:
        tokens: what ``Phrases.find`` found in the sentence, with the cues among it, in order.
        start: where the mention starts.
        end: where it ends.
        since: cues that start before this do not count.
    """
    doubted = False
    affirmed = False
    for token in reversed(tokens):
        kind = token.kind
        if token.end > start:
            continue
        if token.start < since or kind == "ends":
            break
        if kind == "denies_before":
            return Status.ABSENT
        if kind in ("affirms", "denies_after"):
            break
        if kind in ("doubts_before", "doubts_both"):
            doubted = True
    for token in tokens:
        kind = token.kind
        if token.start < end:
            continue
        if kind == "ends" or kind == "denies_before" or kind == "affirms":
            break
        if kind == "denies_after":
            return Status.ABSENT
        if kind in ("doubts_after", "doubts_both"):
            doubted = True
    return Status.UNCERTAIN if doubted else Status.PRESENT


_CUES_ALONE = Phrases(CUES)


def certainty_of(sentence: str, mention: str) -> Status:
    """Returns the status of the first place where ``sentence`` says ``mention``, whatever it is.

    Raises:
        ValueError: the sentence does not say it.
    """
    sentence, mention = (" ".join(text.lower().split()) for text in (sentence, mention))
    start = sentence.index(mention)
    return certainty(_CUES_ALONE.find(sentence), start, start + len(mention))
