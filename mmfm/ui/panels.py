"""The panels of a page as HTML text: pictures, report, probabilities, details.

Everything that comes from a model, a file or a DICOM tag is escaped here, in one place; pictures go inline as PNG, so
that no page server keeps a copy of them. Nothing here knows gradio.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from mmfm.imaging import NAMED_WINDOWS, Volume, apply_window
from mmfm.report import NOTICE, Report
from mmfm.study import Receipt, Series, Study
from mmfm.ui.render import differential_line, finding_rows, lesion_lines, provenance_line, readable, receipt_lines

_LONGEST_SIDE = 1024
"""Pixels of a picture on the page: enough to recognise, and the badge says that it is not for diagnosis."""

_OPPOSITE = str.maketrans("LRAPHF", "RLPAFH")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One series as a page shows it: a radiograph, or the middle slice of a volume."""

    pixels: np.ndarray
    """uint8 (rows, columns) or (rows, columns, 3), windowed, 0 black; at most 1024 on the longer side."""
    caption: str
    edges: tuple[str, str, str, str] | None
    """Patient letters at the left, right, top and bottom edge; ``None`` where no tag states them."""
    badge: str
    receipt: Receipt

    @classmethod
    def from_series(cls, series: Series) -> Picture:
        """Reads the middle slice: a radiograph with the file's own window, HU windowed for the mediastinum.

        Stored units, which mean nothing between scanners, are stretched between the 1st and the 99th percentile of the
        slice. A radiograph is its own middle slice.

        Raises:
            ReadError: the pixels could not be decoded.
        """
        volume, receipt = Volume.from_series(series)
        shown = _display(volume.array[len(volume.array) // 2], volume.quantity)
        rows, columns = shown.shape[:2]
        image = Image.fromarray(np.round(shown * 255).astype(np.uint8))
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
        view = "view not stated" if series.view is None else str(series.view)
        return cls(
            pixels=np.asarray(image),
            caption=f"{series.modality or 'modality not stated'} · {view} · {columns} x {rows}",
            edges=edge_letters(series.instances[0].patient_orientation),
            badge=_badge(series, rows, columns),
            receipt=receipt,
        )

    def png(self) -> bytes:
        """Returns the picture as a PNG file."""
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "PNG")
        return file.getvalue()


def edge_letters(patient_orientation: tuple[str, ...]) -> tuple[str, str, str, str] | None:
    """Returns the patient letters at the left, right, top and bottom edge of a picture.

    Args:
        patient_orientation: DICOM Patient Orientation (0020,0020): where rows lead to (the right edge), where columns
            lead to (the bottom edge). Anything else than two values of the letters LRAPHF gives ``None``.
    """
    if len(patient_orientation) != 2 or not all(v and set(v) <= set("LRAPHF") for v in patient_orientation):
        return None
    right, bottom = patient_orientation
    return right.translate(_OPPOSITE), right, bottom.translate(_OPPOSITE), bottom


def _display(pixels: np.ndarray, quantity: str) -> np.ndarray:
    """Returns (rows, columns) or (rows, columns, 3), 0 black to 1 white."""
    if quantity == "HU":
        center, width = NAMED_WINDOWS["mediastinum"]
        return apply_window(pixels, center, width)
    low, high = np.percentile(pixels, (1, 99)) if quantity == "stored" else (0.0, 1.0)
    return np.clip((pixels - low) / ((high - low) or 1.0), 0, 1)


def _badge(series: Series, rows: int, columns: int) -> str:
    # Film is not square: a small square picture is a training copy whose width and height were scaled apart.
    if series.source_format != "DICOM" and rows == columns <= 512:
        return f"{rows} px, shape distorted, not diagnostic"
    if max(rows, columns) > _LONGEST_SIDE:
        return f"shown at {_LONGEST_SIDE} px, not diagnostic"
    return f"{max(rows, columns)} px, not diagnostic"


def pictures_html(pictures: Iterable[Picture]) -> str:
    """Returns the pictures side by side, each with edge letters, badge and caption."""
    return f'<div class="mm-pictures">{"".join(map(_figure, pictures))}</div>'


def _figure(picture: Picture) -> str:
    source = f"data:image/png;base64,{base64.b64encode(picture.png()).decode()}"
    if picture.edges is None:
        letters = '<span class="mm-edge mm-top">orientation not stated</span>'
    else:
        places = ("left", "right", "top", "bottom")
        letters = "".join(
            f'<span class="mm-edge mm-{p}">{escape(e)}</span>' for p, e in zip(places, picture.edges, strict=True)
        )
    return (
        f'<figure class="mm-figure"><div class="mm-film"><img src="{source}" alt="radiograph">{letters}</div>'
        f'<figcaption><span class="mm-badge">{escape(picture.badge)}</span> {escape(picture.caption)}</figcaption>'
        "</figure>"
    )


def empty_pictures_html() -> str:
    """Returns the dark space that waits for pictures."""
    return '<div class="mm-empty">Frontal and lateral appear here.</div>'


def notice_html() -> str:
    """Returns the line that stands above every page."""
    return f'<div class="mm-notice" role="note">{escape(NOTICE)}</div>'


def refusal_html(reason: str) -> str:
    """Returns one line about why there is no draft."""
    return f'<div class="mm-message" role="alert"><strong>No draft.</strong> {escape(reason)}</div>'


def remark_html(text: str) -> str:
    """Returns one calm line beside what is shown."""
    return f'<div class="mm-remark" role="note">{escape(text)}</div>'


def report_html(report: Report) -> str:
    """Returns findings, impression, the findings table, the differential and what was not assessed."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.scope_notes)
    rows = "".join(
        f'<tr class="mm-{escape(status)}"><td>{escape(name)}</td><td>{escape(status)}</td><td>{escape(side)}</td>'
        f"<td>{escape(details)}</td><td>{escape(p)}</td></tr>"
        for name, status, side, details, p in finding_rows(report)
    )
    table = (
        "<table><thead><tr><th>finding</th><th>status</th><th>side</th><th>details</th><th>P(present)</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
    lesions = "".join(f"<li>{escape(line)}</li>" for line in lesion_lines(report))
    suggested = "".join(f"<li>{escape(differential_line(entry))}</li>" for entry in report.differential)
    indication = (
        f'<p class="mm-quiet">Indication: {escape(report.sections.indication)}</p>'
        if report.sections.indication
        else ""
    )
    return (
        '<div class="mm-report">'
        f'<p><span class="mm-status">{escape(str(report.status))}</span>'
        f'<span class="mm-quiet">Read: {escape(report.coverage)}</span></p>'
        + (f'<ul class="mm-notes">{notes}</ul>' if notes else "")
        + indication
        + f"<h3>Findings</h3><p>{escape(report.sections.findings or '')}</p>"
        f"<h3>Impression</h3><p>{escape(report.sections.impression or '')}</p>"
        + (table if rows else "")
        + (f"<h3>Lesions</h3><ul>{lesions}</ul>" if lesions else "")
        + f"<h3>Differential</h3>{f'<ol>{suggested}</ol>' if suggested else ''}"
        f'<p class="mm-quiet">{escape(report.differential_note)}</p>'
        f"<h3>Not assessed</h3><p>{escape(', '.join(map(readable, report.not_assessed)) or 'none')}</p></div>"
    )


def probabilities_html(report: Report, operating_points: Mapping[str, float]) -> str:
    """Returns a bar for each finding head, most probable first, with a mark at its operating point."""
    bars = []
    for name, p in sorted(report.finding_probabilities.items(), key=lambda item: -item[1]):
        point = operating_points.get(name)
        mark = "" if point is None else f'<i style="left:{100 * point:.1f}%" title="operating point {point:.2f}"></i>'
        above = " mm-above" if point is not None and p >= point and name != "normal" else ""
        bars.append(
            f'<div class="mm-bar{above}"><span>{escape(readable(name))}</span>'
            f'<div class="mm-track"><b style="width:{100 * p:.1f}%"></b>{mark}</div><span>{p:.2f}</span></div>'
        )
    legend = "P(present) by the finding heads; the tick is the operating point from which on a finding is stated."
    return f'<div class="mm-bars">{"".join(bars)}<p class="mm-quiet">{legend}</p></div>'


def details_html(report: Report) -> str:
    """Returns the preprocessing receipt of each picture and the provenance of the draft."""
    series = "".join(
        f"<h4>{'picture' if receipt.shape[0] == 1 else 'series'} {place}</h4>"
        f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in receipt_lines(receipt))}</ul>"
        for place, receipt in enumerate(report.receipts, start=1)
    )
    raw = escape(report.provenance.raw_text or "")
    return (
        f'<div class="mm-details">{series}<h4>provenance</h4><p>{escape(provenance_line(report))}</p>'
        f"<h4>the text as drafted, before anything was withheld from a reader</h4><pre>{raw}</pre></div>"
    )


def pictures_of(study: Study) -> tuple[Picture, ...]:
    """Returns the pictures of a study, frontal views first.

    Raises:
        ReadError: pixels could not be decoded.
    """
    ordered = sorted(study.series, key=lambda s: s.view is not None and s.view.is_lateral)
    return tuple(Picture.from_series(series) for series in ordered)
