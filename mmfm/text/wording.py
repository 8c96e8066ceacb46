"""Findings to plain sentences: what a template report says, and the fallback that loses nothing of the findings.

How a region names its observations, and what else of a finding it tells, is in its vocabulary (``template``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmfm.report import Finding, Side, Status
from mmfm.text.phrases import spellings
from mmfm.text.regions import CHEST_RADIOGRAPH, region_words

LESIONS_DESCRIBED = 3
"""Lesions of one observation that a prompt and a report describe one by one; more are counted."""


def describe(findings: Iterable[Finding], *, region: str = CHEST_RADIOGRAPH) -> tuple[str, str]:
    """Writes structured findings as template sentences.

    Args:
        findings: any findings of the region, at most one for each observation. A radiograph's that are not present are
            not written, nor is a side of what lies in the midline, nor a count of what is not counted.
        region: of the body, one of ``REGIONS``.

    Returns:
        The findings section and the impression: one sentence for each present or uncertain finding and one for all
        that are absent, or a normal examination where none is present, uncertain or absent. ``label_report`` of the
        region reads them back: of a radiograph the present ones with side and severity, of other regions also status,
        place, count and size (in mm).

    Raises:
        ConfigError: there is no such region.
    """
    words, findings = region_words(region), list(findings)
    template = words["template"]
    all_told = "status" in template["tells"]
    told = (Status.PRESENT, Status.UNCERTAIN) if all_told else (Status.PRESENT,)
    stated = [_sentence(finding, words) for finding in findings if finding.status in told]
    absent = [words["observation"][f.observation]["wording"] for f in findings if f.status is Status.ABSENT]
    denial = []
    if absent and all_told:
        *others, last = absent
        denial = [f"No {', '.join(others)} or {last}." if others else f"No {last}."]
    if not stated:
        return " ".join(denial) or template["findings"], template["impression"]
    return " ".join([*stated, *denial]), " ".join(stated)


def _sentence(finding: Finding, words: dict[str, Any]) -> str:
    table, tells = words["observation"][finding.observation], words["template"]["tells"]
    name, place, size, number = table["wording"], "", "", ""
    side = finding.laterality if table["sides"] != "none" else None
    if "location" in tells and finding.location in words["location"]:
        side = None if finding.location in words.get("midline", {}).get("locations", ()) else side
        # "In the left upper lobe", but "bilateral ... in the upper lobe".
        with_place = side if side in (Side.LEFT, Side.RIGHT) else None
        place = " ".join(word for word in ("in the", with_place, finding.location) if word)
        side = None if with_place else side
    if "count" in tells and "plural" in table and str(finding.count) in words["count"]:
        number = spellings(words["count"][str(finding.count)][0])[0]
        name = name if finding.count == 1 else table["plural"]
    if "measurement" in tells and finding.measurement:
        value = finding.measurement.value * (10 if finding.measurement.unit == "cm" else 1)
        size = f"measuring {'up to ' if (finding.count or 1) > 1 else ''}{round(value, 1):g} mm"
    doubt = "possible" if finding.status is Status.UNCERTAIN else ""
    said = " ".join(word for word in (doubt, number, finding.severity, side, name, place, size) if word)
    return f"{said[0].upper()}{said[1:]}."
