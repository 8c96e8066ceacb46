"""A report for the eyes: text, Markdown, the panels of a page, and what a page needs to be served."""

from mmfm.ui.panels import Picture, details_html, pictures_html, probabilities_html, report_html
from mmfm.ui.render import report_markdown, report_text

__all__ = [
    "Picture",
    "details_html",
    "pictures_html",
    "probabilities_html",
    "report_html",
    "report_markdown",
    "report_text",
]
