"""The differential of a draft: from its findings, by one rule file a region with its sources cited.

The rules are in ``differential_REGION.toml``; ``differential_chest_radiograph.toml`` says how they are read. The words
of likelihood order the list; no probability is given, because nothing of it was calibrated.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mmfm.report import Differential, Finding, Side, Status
from mmfm.text.regions import CHEST_RADIOGRAPH

LIKELIHOODS = ("likely", "possible", "less likely")
"""The words used, most likely first."""

_DEVICES = ("support_devices", "medical_material")
_LONGEST = 6
"""Diagnoses listed at most: a longer list is not read."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One ``[[rule]]`` of the file; the file's head says what each field means."""

    diagnosis: str
    needs: tuple[str, ...]
    supports: tuple[str, ...]
    against: tuple[str, ...] = ()
    likely_with: int | None = None
    sources: tuple[str, ...]


@cache
def read_rules(region: str = CHEST_RADIOGRAPH) -> tuple[tuple[Rule, ...], dict[str, str]]:
    """Returns the rules of a region in the order of the file, and the citation of each source by its key."""
    text = files("mmfm.inference").joinpath(f"differential_{region}.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    rules = tuple(
        Rule(
            diagnosis=rule["diagnosis"],
            needs=tuple(rule["needs"]),
            supports=tuple(rule["supports"]),
            against=tuple(rule.get("against", ())),
            likely_with=rule.get("likely_with"),
            sources=tuple(rule["sources"]),
        )
        for rule in content["rule"]
    )
    return rules, content["sources"]


def suggest(findings: Sequence[Finding], *, region: str = CHEST_RADIOGRAPH) -> tuple[tuple[Differential, ...], str]:
    """Makes the differential of a report's findings.

    Args:
        findings: of the report as shown to the reader; several of one observation are allowed.
        region: whose rules are read, one of ``mmfm.text.REGIONS``.

    Returns:
        The diagnoses, most likely first, each with the findings for and against it; and the note that says how they
        were made, or why there are none.
    """
    if not any(f.status is not Status.ABSENT and f.observation not in _DEVICES for f in findings):
        return (), "empty: no abnormal finding above the operating point"
    rules, citations = read_rules(region)
    ranked: dict[str, tuple[tuple[int, int, int], Differential, Rule]] = {}
    for place, rule in enumerate(rules):
        holding = [_holding(need, findings) for need in rule.needs]
        if not all(holding):
            continue
        supporting = [_say(c) for c in rule.supports if _holding(c, findings)]
        against = [_say(c) for c in rule.against if _holding(c, findings)]
        unsure = [
            need
            for need, found in zip(rule.needs, holding, strict=True)
            if all(f.status is Status.UNCERTAIN for f in found)
        ]
        step = 0 if rule.likely_with is not None and len(supporting) >= rule.likely_with else 1
        step = min(step + len(against) + len(unsure), len(LIKELIHOODS) - 1)
        named = dict.fromkeys([*(_say(c) + (" (uncertain)" if c in unsure else "") for c in rule.needs), *supporting])
        # Named once: "bilateral pleural effusion" says "pleural effusion" too.
        bare = {name.removesuffix(" (uncertain)") for name in named}
        evidence = [n for n in named if not any(other.endswith(f" {n}") for other in bare)]
        evidence = [n for n in evidence if f"{n} (uncertain)" not in evidence]
        entry = Differential(
            diagnosis=rule.diagnosis, likelihood=LIKELIHOODS[step], supporting=tuple(evidence), against=tuple(against)
        )
        order = (step, -len(evidence), place)
        if rule.diagnosis not in ranked or order < ranked[rule.diagnosis][0]:
            ranked[rule.diagnosis] = (order, entry, rule)
    best = sorted(ranked.values(), key=lambda item: item[0])[:_LONGEST]
    if not best:
        return (), "empty: no rule fits the findings"
    sources = "; ".join(dict.fromkeys(citations[key] for _, _, rule in best for key in rule.sources))
    return tuple(
        entry for _, entry, _ in best
    ), f"not calibrated; by rules from the findings of this draft. Sources: {sources}"


def _say(condition: str) -> str:
    *words, observation = condition.split()
    name = observation.replace("_", " ")
    if words and (size := _SIZE.fullmatch(words[0])):
        return f"{name} {'of' if size[1] == 'from' else size[1]} {size[2]} mm{' and more' * (size[1] == 'from')}"
    if words and words[0].startswith("in_"):
        return f"{name} in the {words[0].removeprefix('in_').replace('_', ' ')}"
    return " ".join([*words, name])


_SIZE = re.compile(r"(from|under)_(\d+)mm")


def _holding(condition: str, findings: Sequence[Finding]) -> list[Finding]:
    """The findings that make a condition hold; empty where it does not."""
    *words, observation = condition.split()
    word = words[0] if words else ""
    same = [f for f in findings if f.observation == observation]
    positive = [f for f in same if f.status is not Status.ABSENT]
    sides = {f.laterality for f in positive}
    both = Side.BILATERAL in sides or {Side.LEFT, Side.RIGHT} <= sides
    if size := _SIZE.fullmatch(word):
        limit = float(size[2])
        sized = [f for f in positive if f.measurement is not None and f.measurement.unit == "mm"]
        return [f for f in sized if (f.measurement.value >= limit) == (size[1] == "from")]  # type: ignore[union-attr]
    if word.startswith("in_"):
        place = word.removeprefix("in_").replace("_", " ")
        return [f for f in positive if place in {f.location, *(lesion.location for lesion in f.lesions)}]
    match word:
        case "":
            return positive
        case "no":
            return [] if positive else same
        case "bilateral":
            return positive if both else []
        case "unilateral":
            return positive if not both and sides & {Side.LEFT, Side.RIGHT} else []
        case "single":
            return [f for f in positive if f.count == 1]
        case "multiple":
            return [f for f in positive if (f.count or 0) > 1]
    raise ValueError(
        f"condition {condition!r}: expected no, bilateral, unilateral, single, multiple, from_10mm, under_10mm or"
        " in_upper_lobe before the observation"
    )
