"""A chest radiograph goes in, a drafted report comes out. Layout and wiring only.

mmfm demo                       drafts sample studies, then serves this page on 127.0.0.1:7860
"""

from __future__ import annotations

import itertools
import tempfile

import gradio as gr

from mmfm.errors import MmfmError, ReadError
from mmfm.ui import panels
from mmfm.ui.page import uploaded
from mmfm.ui.samples import synthetic_study

TITLE = '<div class="mm-title">Chest radiograph draft<small>frontal and lateral</small></div>'


def build(reporter) -> gr.Blocks:
    """Returns the page; ``reporter`` drafts (``report(study, indication=...)``) and has ``operating_points``."""
    seeds = itertools.count(1)

    def draft(study, indication):
        pictures = panels.pictures_html(panels.pictures_of(study))
        try:
            report = reporter.report(study, indication=indication or None)
        except ReadError:
            raise  # it names a file: ``uploaded`` tells it without
        except MmfmError as error:
            return pictures, panels.refusal_html(str(error)), "", ""
        return (
            pictures,
            panels.report_html(report),
            panels.probabilities_html(report, reporter.operating_points),
            panels.details_html(report),
        )

    def draft_upload(files, indication):
        try:
            with uploaded(files or []) as reading:
                pictures, report, bars, details = draft(reading.studies[0], indication)
        except MmfmError as error:
            return None, panels.empty_pictures_html(), panels.refusal_html(str(error)), "", ""
        if len(reading.studies) > 1:
            remark = f"{len(reading.studies)} studies were given, only the first is drafted"
            report = panels.remark_html(remark) + report
        if reading.refusals:
            report = panels.remark_html(reading.refusals) + report
        return None, pictures, report, bars, details

    def draft_example(indication):
        with tempfile.TemporaryDirectory(prefix="mmfm-example-") as folder:
            seed = next(seeds)
            pictures, *others = draft(synthetic_study(seed, folder), indication)
            return panels.remark_html(f"Synthetic study {seed}: drawn, not a patient") + pictures, *others

    with gr.Blocks(title="mmfm: chest radiograph draft", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.HTML(panels.notice_html(), padding=False)
        gr.HTML(TITLE, padding=False)
        with gr.Row():
            with gr.Column(scale=7):
                pictures = gr.HTML(panels.empty_pictures_html(), padding=False)
                with gr.Row():
                    files = gr.File(label="DICOM, zip, PNG or JPEG of one study", file_count="multiple", height=130)
                    with gr.Column():
                        indication = gr.Textbox(label="Indication (may stay empty)", max_length=500)
                        with gr.Row():
                            start = gr.Button("Draft", variant="primary", elem_id="mm-draft")
                            example = gr.Button("Synthetic example", elem_id="mm-example")
                with gr.Accordion("Finding probabilities", open=True):
                    bars = gr.HTML()
            with gr.Column(scale=5):
                report = gr.HTML('<p class="mm-quiet">Give a study, or take the synthetic example.</p>', padding=False)
                with gr.Accordion("Preprocessing receipt and provenance", open=False):
                    details = gr.HTML()
        start.click(
            draft_upload, [files, indication], [files, pictures, report, bars, details], api_visibility="private"
        )
        example.click(draft_example, [indication], [pictures, report, bars, details], api_visibility="private")
    return page
