import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mmfm.io import read_studies
from mmfm.report import NOTICE
from mmfm.study import Geometry, Instance, PixelHeader, Series, ViewPosition
from mmfm.ui import panels
from mmfm.ui.samples import synthetic_study


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return synthetic_study(5, tmp_path_factory.mktemp("synthetic"))


def test_foreign_text_is_never_html(report, evil):
    pages = [
        panels.report_html(report),
        panels.probabilities_html(report, {"nodule": 0.5}),
        panels.details_html(report),
        panels.refusal_html(evil),
    ]
    for page in pages:
        assert not {"script", "a", "iframe"} & set(Tags(page).tags)
    assert evil in Tags(pages[0]).text
    assert evil in Tags(pages[2]).text


def test_the_report_panel_says_everything(report):
    text = Tags(panels.report_html(report)).text
    for words in (
        "draft",
        "frontal only",
        "Findings",
        "Impression",
        "Differential",
        "not calibrated",
        "Not assessed",
        "lung opacity",
    ):
        assert words in text


def test_bars_mark_what_is_above_its_operating_point(report):
    page = panels.probabilities_html(report, {"pleural_effusion": 0.6, "nodule": 0.5})
    assert page.count("mm-above") == 1
    assert page.index("pleural effusion") < page.index("nodule")
    assert NOTICE in panels.notice_html()


def test_pictures_show_the_patients_right_on_the_left_with_letters(study):
    frontal, lateral = panels.pictures_of(study)
    assert frontal.edges == ("R", "L", "H", "F")
    assert lateral.edges[2:] == ("H", "F")
    assert "not diagnostic" in frontal.badge
    assert frontal.pixels.dtype == np.uint8
    assert frontal.pixels.max() - frontal.pixels.min() > 100
    page = Tags(panels.pictures_html([frontal, lateral]))
    assert page.tags.count("img") == 2
    decoded = np.asarray(Image.open(io.BytesIO(frontal.png())))
    assert np.array_equal(decoded, frontal.pixels), "PNG loses nothing"


def test_frontal_views_come_first(study):
    assert [s.view.is_lateral for s in sorted(study.series, key=lambda s: s.view is ViewPosition.PA)] == [True, False]
    assert [p.receipt.view.is_lateral for p in panels.pictures_of(study)] == [False, True]


@pytest.mark.parametrize(
    ("orientation", "edges"),
    [
        (("L", "F"), ("R", "L", "H", "F")),
        (("P", "F"), ("A", "P", "H", "F")),
        (("LA", "FP"), ("RP", "LA", "HA", "FP")),
        ((), None),
        (("L",), None),
        (("L", "<b>"), None),
    ],
)
def test_edge_letters_come_from_patient_orientation_alone(orientation, edges):
    assert panels.edge_letters(orientation) == edges


def axial_series(modality, slices, **pixels):
    header = PixelHeader(rows=8, columns=8, bits_stored=16, signed=True, **pixels)
    directions = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    instances = tuple(
        Instance(
            sop_instance_uid=f"1.{place}",
            pixels=header,
            geometry=Geometry(position=(0.0, 0.0, 5.0 * place), orientation=directions, pixel_spacing=(1.0, 1.0)),
            load=lambda values=values: values[np.newaxis],
        )
        for place, values in enumerate(slices)
    )
    return Series(series_uid="1", instances=instances, modality=modality)


def test_a_ct_shows_its_middle_slice_in_the_window_of_the_mediastinum():
    water, bone = np.zeros((8, 8), np.int16), np.full((8, 8), 1000, np.int16)
    middle = water.copy()
    middle[:, :2], middle[:, 2:4], middle[:, 4:6] = -1000, 40, 400
    picture = panels.Picture.from_series(axial_series("CT", [bone, middle, bone], rescale_type="HU"))
    assert picture.pixels.dtype == np.uint8
    # Center 40, width 400: -160 is black, 240 is white.
    np.testing.assert_allclose(picture.pixels[0, ::2], [0, 128, 255, 102], atol=1)


def test_an_mr_is_stretched_between_percentiles_of_its_middle_slice():
    ramp = np.arange(64, dtype=np.int16).reshape(8, 8)
    picture = panels.Picture.from_series(axial_series("MR", [ramp * 0, ramp * 30 + 500, ramp * 0]))
    assert picture.pixels.min() == 0
    assert picture.pixels.max() == 255
    assert 120 <= np.median(picture.pixels) <= 135
    flat = panels.Picture.from_series(axial_series("MR", [ramp * 0 + 7]))
    assert not flat.pixels.any()


@pytest.mark.parametrize(
    ("shape", "badge"),
    [
        ((256, 256), "256 px, shape distorted, not diagnostic"),
        ((300, 256), "300 px, not diagnostic"),
        ((1500, 1200), "shown at 1024 px, not diagnostic"),
    ],
)
def test_pictures_without_tags_are_badged(tmp_path, shape, badge):
    ramp = np.linspace(0, 255, shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    [picture] = panels.pictures_of(read_studies(tmp_path)[0])
    assert picture.badge == badge
    assert picture.edges is None
    assert max(picture.pixels.shape) <= 1024
    assert "orientation not stated" in panels.pictures_html([picture])
