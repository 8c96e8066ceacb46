"""Whether a sentence states, denies or leaves open what it mentions, after NegEx and ConText.

Cues (``cues.toml`` of a language) reach forwards or backwards over a list of mentions ("no A, B or C"; "A and B are not
seen") until a word that ends their reach ("but", "however") or a statement of the other kind stands between.

Sources: Chapman et al., J Biomed Inform 2001 (NegEx); Harkema et al., J Biomed Inform 2009 (ConText);
Irvin et al., AAAI 2019 (the CheXpert labeller).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from mmfm.report import Status
from mmfm.text.phrases import Phrases, Token, plain, vocabulary

_MENTIONS = frozenset({"mention", "hint", "bare"})


def cues(language: str) -> list[tuple[str, list[str], None]]:
    """Returns the cues of a language, as entries of ``Phrases``."""
    return [(kind, phrases, None) for kind, phrases in vocabulary("cues", language).items()]


def certainty(tokens: Sequence[Token], start: int, end: int, *, since: int = 0) -> Status:
    """Returns the status of the mention between ``start`` and ``end``.

    Args:
        tokens: what ``Phrases.find`` found in the sentence, with the cues among it, in order.
        start: where the mention starts.
        end: where it ends.
        since: cues that start before this do not count.
    """
    doubted = crossed = False
    for token in reversed(tokens):
        kind = token.kind
        if token.start >= start:
            continue
        if token.start < since or kind in ("ends", "affirms", "denies_after"):
            break
        if kind in ("denies_before", "denies_both") or (kind == "nothing" and token.end > start):
            # "No change in" is no denial of what follows it, but it denies a mention of the change itself.
            return Status.ABSENT
        doubted = doubted or kind == "doubts_before" or (kind == "doubts_both" and not crossed)
        crossed = crossed or kind in _MENTIONS
    crossed = False
    for token in tokens:
        kind = token.kind
        if token.start < end:
            continue
        if kind in ("ends", "affirms", "denies_before"):
            break
        if kind in ("denies_after", "denies_both"):
            return Status.ABSENT
        doubted = doubted or kind == "doubts_after" or (kind == "doubts_both" and not crossed)
        crossed = crossed or kind in _MENTIONS
    return Status.UNCERTAIN if doubted else Status.PRESENT


@cache
def _cues_alone(language: str) -> Phrases:
    return Phrases(cues(language))


def certainty_of(sentence: str, start: int, end: int, *, language: str = "en") -> Status:
    """Returns the status of whatever stands between two places of a sentence, in the vocabulary or not.

    Args:
        sentence: one sentence, as written.
        start: where the mention starts in it.
        end: where it ends.
        language: of the sentence; each has a folder of ``vocabulary``.
    """
    before, mention, after = plain(sentence[:start]), plain(sentence[start:end]), plain(sentence[end:])
    if before and sentence[start - 1].isspace():
        before += " "
    if after and sentence[end].isspace():
        after = " " + after
    return certainty(_cues_alone(language).find(before + mention + after), len(before), len(before) + len(mention))
