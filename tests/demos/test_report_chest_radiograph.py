import io
import shutil
import socket
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from mmfm.cli import _load_demo
from mmfm.errors import ScopeError
from mmfm.report import NOTICE, Finding, Provenance, Report, Sections, Side, Status
from mmfm.ui.page import private_cache, serve_page
from mmfm.ui.samples import synthetic_study


class FakeReporter:
    """Drafts the same report of any study; refuses when the indication says so."""

    def __init__(self):
        self.operating_points = {"pleural_effusion": 0.5}

    def report(self, study, *, indication=None):
        if indication == "refuse":
            raise ScopeError("age", expected="at least 18 years", found="3 years", fix="no draft is made")
        return Report(
            study_uid=study.study_uid,
            sections=Sections(indication=indication, findings="Left pleural effusion.", impression="<b>Effusion</b>."),
            findings=(
                Finding(observation="pleural_effusion", status=Status.PRESENT, laterality=Side.LEFT, probability=0.9),
            ),
            finding_probabilities={"pleural_effusion": 0.9},
            differential_note="empty: for this test",
            not_assessed=("nodule",),
            coverage="frontal, lateral",
            provenance=Provenance(checkpoint="fake", sha256="0" * 64),
        )


@pytest.fixture(scope="module")
def page():
    cache = private_cache()
    yield _load_demo("report_chest_radiograph").build(FakeReporter())
    shutil.rmtree(cache)


def call(page, name, *values):
    [found] = [f for f in page.fns.values() if f.fn is not None and f.fn.__name__ == name]
    return found.fn(*values)


@pytest.fixture
def files(tmp_path):
    synthetic_study(1, tmp_path)
    return [str(path) for path in sorted(tmp_path.rglob("*.dcm"))]


def test_the_notice_is_on_the_page(page):
    assert any(NOTICE in str(block.value) for block in page.blocks.values() if getattr(block, "value", None))


def test_an_upload_is_drafted_and_deleted(page, files):
    cleared, pictures, report, bars, _ = call(page, "draft_upload", files, "cough")
    assert cleared is None
    assert pictures.count("<img") == 2
    assert "Left pleural effusion." in report
    assert "&lt;b&gt;Effusion" in report
    assert "pleural effusion" in bars
    assert not any(Path(file).exists() for file in files)


def test_a_refusal_shows_the_pictures_and_the_reason(page, files):
    _, pictures, report, bars, details = call(page, "draft_upload", files, "refuse")
    assert "<img" in pictures
    assert "No draft." in report
    assert "at least 18 years" in report
    assert (bars, details) == ("", "")


def test_no_file_is_a_message(page):
    assert "No draft." in call(page, "draft_upload", None, "")[2]


def test_refused_files_are_told_without_a_name(page, files, tmp_path):
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("DOE^JANE/1.dcm", "text")
        file.writestr("DOE^JANE/2.dcm", "text")
        for place, path in enumerate(files, start=3):
            file.write(path, f"DOE^JANE/{place}.dcm")
    shown = call(page, "draft_upload", [str(archive)], "")
    assert "Left pleural effusion." in shown[2]
    assert "2 of 4 files refused; the first: expected DICOM, NIfTI, PNG, JPEG or zip, found text" in shown[2]
    assert not any(word in str(shown) for word in ("JANE", "mmfm-upload"))


def test_a_picture_that_cannot_be_decoded_is_told_without_a_name(page, tmp_path):
    picture, archive = io.BytesIO(), tmp_path / "study.zip"
    Image.effect_noise((40, 40), 50).save(picture, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("DOE^JANE/1.png", picture.getvalue()[:-200])
    shown = call(page, "draft_upload", [str(archive)], "")
    assert "No draft." in shown[2]
    assert not any(word in str(shown) for word in ("JANE", "mmfm-upload", "1.png"))


def test_the_example_is_said_to_be_drawn(page):
    pictures, report, *_ = call(page, "draft_example", "")
    assert "drawn, not a patient" in pictures
    assert "Left pleural effusion." in report


@pytest.mark.browser
def test_in_a_browser(page, files):
    chromium = shutil.which("chromium")
    if chromium is None or find_spec("playwright") is None:
        pytest.skip("needs Debian's chromium and playwright")
    from playwright.sync_api import expect, sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve_page(page, port=port, block=False)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            tab = browser.new_page()
            elsewhere = []
            local = (f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}", "data:", "blob:")
            tab.on("request", lambda r: None if r.url.startswith(local) else elsewhere.append(r.url))
            tab.goto(f"http://127.0.0.1:{port}", timeout=60_000)
            expect(tab.get_by_text(NOTICE)).to_be_visible(timeout=60_000)
            tab.set_input_files("input[type=file]", files)
            tab.get_by_role("button", name="Draft", exact=True).click()
            expect(tab.get_by_text("Left pleural effusion.")).to_be_visible(timeout=60_000)
            expect(tab.locator(".mm-film img")).to_have_count(2)
            tab.mouse.wheel(0, 5_000)
            expect(tab.get_by_text(NOTICE)).to_be_in_viewport()
            assert elsewhere == []
            browser.close()
    finally:
        page.close()
