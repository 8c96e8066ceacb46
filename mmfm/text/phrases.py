"""The phrases of the vocabulary files as one compiled search over a sentence.

A language is a folder of ``vocabulary``: put another beside ``en``, with the same files (of the regions that it needs),
and hand its name as ``language`` to the functions of ``mmfm.text``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from mmfm.errors import ConfigError

FOLDER = Path(__file__).parent / "vocabulary"


@cache
def vocabulary(name: str, language: str = "en") -> dict[str, Any]:
    """Returns the vocabulary file ``name`` of a language as tables, with those of the files that it ``shares``.

    Read it only: it is kept.

    Raises:
        ConfigError: there is no such language, or it has no such file.
    """
    languages = sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())
    if language not in languages:
        raise ConfigError(
            "language", expected=" or ".join(languages), found=repr(language), fix="hand in one that has a vocabulary"
        )
    path = FOLDER / language / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(
            "vocabulary", expected=f"a file of {language!r}", found=repr(name), fix="hand in a region that has one"
        )
    own = tomllib.loads(path.read_text(encoding="utf-8"))
    tables: dict[str, Any] = {}
    for shared in (*(vocabulary(other, language) for other in own.pop("shares", ())), own):
        tables = _together(tables, shared)
    return tables


def _together(first: Any, second: Any) -> Any:
    """Two tables in one: lists of the same name one after the other, else what the second says."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first | {key: _together(first.get(key), value) for key, value in second.items()}
    return [*first, *second] if isinstance(first, list) and isinstance(second, list) else second


def plain(text: str) -> str:
    """Returns ``text`` in lower case with single blanks, as phrases are looked for."""
    return " ".join(text.lower().split())


def spellings(phrase: str) -> list[str]:
    """Returns every spelling of a phrase: ``(s)`` may be there or not, ``(y|ies)`` is one of them."""
    parts = [
        ["", part] if bracketed and "|" not in part else part.split("|") if bracketed else [part]
        for bracketed, part in ((i % 2, part) for i, part in enumerate(re.split(r"[()]", phrase.lower())))
    ]
    return [plain("".join(choice)) for choice in product(*parts)]


def any_of(phrases: Iterable[str]) -> str:
    """Returns a pattern for any spelling of ``phrases``."""
    return f"(?:{_trie(spelling for phrase in phrases for spelling in spellings(phrase))})"


class Token(NamedTuple):
    """A meaning of a phrase in a sentence, and where the phrase stands."""

    start: int
    end: int
    kind: str
    value: Any


class Phrases:
    """Finds phrases, leftmost first and the longest at each place.

    Args:
        entries: for each kind of phrase, its phrases and what each means.
    """

    def __init__(self, entries: Iterable[tuple[str, Iterable[str], Any]]) -> None:
        self._meanings: dict[str, list[tuple[str, Any]]] = {}
        for kind, phrases, value in entries:
            for phrase in phrases:
                for spelling in spellings(phrase):
                    known = self._meanings.setdefault(spelling, [])
                    if (kind, value) not in known:
                        known.append((kind, value))

    @cached_property
    def _search(self) -> re.Pattern[str]:
        # Compiled at first use: importing mmfm.text stays quick.
        # Whole words; a mark needs no blank beside it ("?PTX"), but for the point: that of 1.5 ends nothing.
        marks = [re.escape(phrase) for phrase in self._meanings if not re.search(r"[\w.]", phrase)]
        return re.compile("|".join([rf"\b(?:{_trie(self._meanings)})(?!\w)", *marks]))

    def find(self, sentence: str) -> list[Token]:
        """Returns the phrases of a ``plain`` sentence in order."""
        tokens = []
        for found in self._search.finditer(sentence):
            start, end = found.span()
            for kind, value in self._meanings[found[0]]:
                tokens.append(Token(start, end, kind, value))
        return tokens


def _trie(words: Iterable[str]) -> str:
    """Returns a pattern for any of ``words``, the longest first, that reads each character once."""
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}

    def pattern(node: dict[str, Any]) -> str:
        branches = [re.escape(character) + pattern(child) for character, child in sorted(node.items()) if character]
        if not branches:
            return ""
        if len(branches) == 1 and "" not in node:
            return branches[0]
        return f"(?:{'|'.join(branches)})" + ("?" if "" in node else "")

    return pattern(tree)
