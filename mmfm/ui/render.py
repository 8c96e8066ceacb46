"""A Report as plain text and as Markdown, for people; ``Report.to_json`` is for programs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mmfm.report import Differential, Lesion, Report, Status
from mmfm.study import Receipt

_TOWARDS = {"S": "the head", "I": "the feet", "A": "the front", "P": "the back", "L": "the left", "R": "the right"}
_HEADINGS = ("indication", "technique", "comparison", "findings", "impression")


def readable(name: str) -> str:
    """Returns a snake_case name in words."""
    return name.replace("_", " ")


def finding_rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    """Returns (finding, status, side, details, probability) of each finding, the present and probable first."""
    order = {Status.PRESENT: 0, Status.UNCERTAIN: 1, Status.ABSENT: 2}
    rows = []
    for f in sorted(report.findings, key=lambda f: (order[f.status], -(f.probability or 0.0))):
        size = f"{f.measurement.value:g} {f.measurement.unit}" if f.measurement else None
        count = f"count {f.count}" if f.count is not None else None
        details = ", ".join(filter(None, [f.severity, f.location, count, size, f.change]))
        probability = "" if f.probability is None else f"{f.probability:.2f}"
        rows.append((readable(f.observation), str(f.status), str(f.laterality or ""), details, probability))
    return rows


def lesion_lines(report: Report) -> list[str]:
    """Returns each lesion with its size and place, in mm and as a slice of the first series that was read."""
    lines = []
    for finding in report.findings:
        for number, lesion in enumerate(finding.lesions, start=1):
            where = " ".join(filter(None, [lesion.laterality, lesion.location]))
            left, posterior, head = lesion.center_mm
            words = [
                f"{readable(finding.observation)} {number}: {lesion.diameter_mm:.0f} mm",
                where,
                f"at L {left:.0f}, P {posterior:.0f}, H {head:.0f} mm",
                _slice_of(lesion, report.receipts),
                "" if lesion.probability is None else f"P {lesion.probability:.2f}",
            ]
            lines.append(", ".join(word for word in words if word))
    return lines


def _slice_of(lesion: Lesion, receipts: Sequence[Receipt]) -> str:
    """Returns the slice of the first series that a lesion is centred on, counted from 1 as its Volume has them."""
    receipt = receipts[0] if receipts else None
    if receipt is None or receipt.affine is None:
        return ""
    index = float((np.linalg.inv(np.array(receipt.affine)) @ [*lesion.center_mm, 1.0])[0])
    count = receipt.shape[0]
    if not -0.5 <= index < count - 0.5:
        return ""
    return f"slice {round(index) + 1} of {count} (counted towards {_TOWARDS.get(receipt.orientation[:1], 'the end')})"


def differential_line(entry: Differential) -> str:
    """Returns one diagnosis with its likelihood and what speaks for and against it."""
    line = f"{entry.likelihood}: {entry.diagnosis}"
    if entry.supporting:
        line += f"; for: {', '.join(entry.supporting)}"
    if entry.against:
        line += f"; against: {', '.join(entry.against)}"
    return line


def receipt_lines(receipt: Receipt) -> list[str]:
    """Returns what preprocessing did to one series, a line each."""
    spacing = "spacing not stated"
    if receipt.spacing is not None:
        in_plane = receipt.spacing[1:] if receipt.shape[0] == 1 else receipt.spacing
        spacing = " x ".join(f"{s:.4g}" for s in in_plane) + " mm"
    lines = [
        f"{receipt.source_format}, {receipt.modality or 'modality not stated'}, view {receipt.view or 'not stated'},"
        f" {' x '.join(map(str, receipt.shape))}, {spacing}, orientation {receipt.orientation}",
        f"window: {receipt.window}" + ("; inverted" if receipt.inverted else ""),
        *receipt.steps,
        *(f"warning: {warning}" for warning in receipt.warnings),
    ]
    if receipt.slices_dropped:
        lines.append("dropped: " + "; ".join(sorted({dropped.reason for dropped in receipt.slices_dropped})))
    return lines


def provenance_line(report: Report) -> str:
    """Returns checkpoint, hash, decoding and time in one line."""
    p = report.provenance
    seconds = f"{p.seconds:.2f} s" if p.seconds is not None else None
    checkpoint = f"checkpoint {p.checkpoint}" + (f" ({p.chosen})" if p.chosen else "")
    return ", ".join(filter(None, [checkpoint, f"sha256 {p.sha256[:12]}", p.decoding, seconds]))


def report_text(report: Report) -> str:
    """Returns the report as plain text for a terminal."""
    lines = [f"{report.notice}. Status: {report.status}. Study {report.study_uid}", f"Read: {report.coverage}"]
    lines += [f"Note: {note}" for note in report.scope_notes]
    for name in _HEADINGS:
        text = getattr(report.sections, name)
        if text:
            lines += ["", name.upper(), text]
    rows = finding_rows(report)
    if rows:
        lines += ["", "FINDINGS, P(present)"]
        lines += [
            f"  {name:<28} {status:<10} {side:<10} {details:<24} {p}".rstrip()
            for name, status, side, details, p in rows
        ]
    lesions = lesion_lines(report)
    if lesions:
        lines += ["", "LESIONS", *(f"  {line}" for line in lesions)]
    lines += ["", "PROBABILITIES OF THE FINDING HEADS"]
    lines += [f"  {readable(name):<28} {p:.2f}" for name, p in _ranked(report)]
    lines += ["", f"DIFFERENTIAL ({report.differential_note})"]
    lines += [f"  {differential_line(entry)}" for entry in report.differential]
    lines += ["", "NOT ASSESSED", "  " + (", ".join(map(readable, report.not_assessed)) or "none")]
    lines += ["", "PREPROCESSING"]
    for receipt in report.receipts:
        first, *others = receipt_lines(receipt)
        lines += [f"  {first}", *(f"    {line}" for line in others)]
    lines += ["", provenance_line(report), report.notice]
    # Tags and model text may hold control characters, which a terminal would obey.
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in "\n".join(lines))


def report_markdown(report: Report) -> str:
    """Returns the report as Markdown; text of the model and of DICOM tags is escaped."""
    parts = [
        f"**{report.notice}.** Status: {report.status}. Study {_escaped(report.study_uid)}",
        f"Read: {report.coverage}",
    ]
    parts += [f"- {_escaped(note)}" for note in report.scope_notes]
    for name in _HEADINGS:
        text = getattr(report.sections, name)
        if text:
            parts += ["", f"## {name.capitalize()}", "", _escaped(text)]
    rows = finding_rows(report)
    if rows:
        parts += [
            "",
            "## Findings table",
            "",
            "| finding | status | side | details | P(present) |",
            "|---|---|---|---|---|",
        ]
        parts += ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
    lesions = lesion_lines(report)
    if lesions:
        parts += ["", "## Lesions", "", *(f"- {_escaped(line)}" for line in lesions)]
    parts += ["", "## Probabilities of the finding heads", "", "| observation | P(present) |", "|---|---|"]
    parts += [f"| {_escaped(readable(name))} | {p:.2f} |" for name, p in _ranked(report)]
    parts += ["", "## Differential", "", _escaped(report.differential_note), ""]
    parts += [f"- {_escaped(differential_line(entry))}" for entry in report.differential]
    parts += ["", "## Not assessed", "", ", ".join(map(readable, report.not_assessed)) or "none"]
    parts += ["", "## Preprocessing", ""]
    for receipt in report.receipts:
        first, *others = receipt_lines(receipt)
        parts += [f"- {_escaped(first)}", *(f"    - {_escaped(line)}" for line in others)]
    parts += ["", _escaped(provenance_line(report)), "", f"**{report.notice}**"]
    return "\n".join(parts)


def _ranked(report: Report) -> list[tuple[str, float]]:
    return sorted(report.finding_probabilities.items(), key=lambda item: -item[1])


def _escaped(text: str) -> str:
    r"""Markdown and HTML signs of foreign text made harmless, and its line breaks taken out."""
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", " ".join(text.split()))
