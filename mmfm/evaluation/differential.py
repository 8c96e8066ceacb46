"""A ranked differential against the diagnosis and the differential that a source gives: hit among the first k.

Two terms are the same if, in lower case and without punctuation and small words, the words of one are all in the other,
or at least half of the words of both are in both (Jaccard). The rule is generous to short terms: "mass" is the same as
"pancreatic mass"; so a score stands beside those of controls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

SMALL_WORDS = frozenset(
    ("a", "an", "and", "as", "at", "by", "due", "for", "from", "in", "of", "on", "or", "the", "to", "vs", "with")
)
SAME = 0.5
"""Jaccard index of the words of two terms, from which on they are the same."""
FIRST = (1, 3, 5)


def term_words(term: str) -> frozenset[str]:
    """Returns the words of a term that count."""
    return frozenset(re.findall(r"[a-z0-9]+", term.lower().replace("'s", ""))) - SMALL_WORDS


def is_same_term(one: str, other: str) -> bool:
    """Whether two terms are the same by the rule of this module; one without words is the same as none."""
    ours, theirs = term_words(one), term_words(other)
    if not ours or not theirs:
        return False
    return ours <= theirs or theirs <= ours or len(ours & theirs) / len(ours | theirs) >= SAME


def hits(ranked: Sequence[str], known: Sequence[str]) -> dict[int, bool]:
    """Returns for each k of ``FIRST`` whether one of the first k terms is one of the known ones."""
    same = [any(is_same_term(term, one) for one in known) for term in ranked]
    return {k: any(same[:k]) for k in FIRST}


def most_common(trained: Sequence[Sequence[str]], *, count: int = FIRST[-1]) -> tuple[str, ...]:
    """Returns the terms that most training cases have, as a control: what is guessed without looking at a case.

    Args:
        trained: of each training case of a region its diagnosis and differential.
        count: how many terms.
    """
    frequent = Counter(term for terms in trained for term in {" ".join(one.lower().split()) for one in terms})
    return tuple(term for term, _ in sorted(frequent.items(), key=lambda pair: (-pair[1], pair[0]))[:count])
