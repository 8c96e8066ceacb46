import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.study import (
    DroppedSlice,
    Frame,
    Geometry,
    Instance,
    Laterality,
    LookupTable,
    Patient,
    PixelHeader,
    Receipt,
    Series,
    Sex,
    Study,
    ViewPosition,
)

PIXELS = PixelHeader(rows=4, columns=5)
INSTANCE = Instance(sop_instance_uid="1.2.3", pixels=PIXELS, load=lambda: np.zeros((1, 4, 5), np.uint8))
SERIES = Series(series_uid="1.2", instances=(INSTANCE,), modality="DX", view=ViewPosition.PA)
STUDY = Study(study_uid="1", series=(SERIES,))
RECEIPT = Receipt(
    series_uid="1.2",
    source_format="DICOM",
    shape=(1, 4, 5),
    quantity="display",
    orientation="not stated",
    window="none",
    slices_used=1,
)

numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
texts = st.text(max_size=12)
names = st.text(min_size=1, max_size=12)
headers = st.builds(
    PixelHeader,
    rows=st.integers(1, 4096),
    columns=st.integers(1, 4096),
    frames=st.integers(1, 300),
    samples=st.sampled_from([1, 3]),
    rescale_slope=numbers,
    window_centers=st.just((40.0, 600.0)),
    window_widths=st.tuples(numbers, numbers),
    modality_lut=st.none()
    | st.builds(LookupTable, first_value=st.integers(-9, 9), bits=st.just(16), entries=st.just((1, 2, 3))),
)
geometries = st.builds(
    Geometry,
    position=st.none() | st.tuples(numbers, numbers, numbers),
    orientation=st.none() | st.tuples(*[numbers] * 6),
    pixel_spacing=st.none() | st.tuples(numbers, numbers),
)
instances = st.builds(
    Instance,
    sop_instance_uid=names,
    pixels=headers,
    geometry=geometries,
    patient_orientation=st.sampled_from([(), ("L", "F")]),
    for_processing=st.booleans(),
    load=st.just(lambda: np.zeros((1, 1, 1))),
)
series = st.builds(
    Series,
    series_uid=names,
    instances=st.lists(instances, min_size=1, max_size=3, unique_by=lambda i: i.sop_instance_uid).map(tuple),
    modality=st.none() | st.sampled_from(["CR", "CT"]),
    view=st.none() | st.sampled_from(ViewPosition),
    laterality=st.none() | st.sampled_from(Laterality),
    description=st.none() | texts,
)
studies = st.builds(
    Study,
    study_uid=names,
    series=st.lists(series, min_size=1, max_size=3, unique_by=lambda s: s.series_uid).map(tuple),
    patient=st.builds(
        Patient,
        patient_id=st.none() | texts,
        sex=st.none() | st.sampled_from(Sex),
        age_years=st.none() | st.floats(0, 150),
    ),
    indication=st.none() | texts,
)
receipts = st.builds(
    replace,
    st.just(RECEIPT),
    affine=st.none() | st.tuples(*[st.tuples(*[numbers] * 4)] * 4),
    spacing=st.none() | st.tuples(numbers, numbers, numbers),
    view=st.none() | st.sampled_from(ViewPosition),
    steps=st.lists(texts, max_size=3).map(tuple),
    slices_dropped=st.lists(st.builds(DroppedSlice, sop_instance_uid=names, reason=texts), max_size=2).map(tuple),
)


@given(studies)
def test_study_round_trips_through_json_text(study):
    assert Study.from_json(json.loads(json.dumps(study.to_json()))) == study


@given(receipts)
def test_receipt_round_trips_through_json_text(receipt):
    assert Receipt.from_json(json.loads(json.dumps(receipt.to_json()))) == receipt


def test_pixels_stay_out_of_json_and_out_of_equality():
    again = Study.from_json(STUDY.to_json())
    assert "load" not in json.dumps(STUDY.to_json())
    assert again == STUDY
    assert again.series[0].instances[0].load is None


def test_nouns_are_frozen():
    with pytest.raises(FrozenInstanceError):
        STUDY.study_uid = "2"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(STUDY, study_uid=""), "study_uid"),
        (lambda: replace(STUDY, series=()), "series"),
        (lambda: replace(STUDY, series=(SERIES, SERIES)), "distinct series_uid"),
        (lambda: replace(SERIES, instances=()), "instances"),
        (lambda: replace(SERIES, instances=(INSTANCE, INSTANCE)), "distinct sop_instance_uid"),
        (lambda: replace(INSTANCE, sop_instance_uid=""), "sop_instance_uid"),
        (lambda: replace(INSTANCE, frames=(Frame(pixels=PIXELS),) * 2), "expected none or 1, found 2"),
        (lambda: Frame(pixels=replace(PIXELS, frames=2)), "pixels.frames"),
        (lambda: Patient(age_years=-1), "age_years"),
        (lambda: Patient(age_years=math.nan), "age_years"),
        (lambda: replace(PIXELS, rows=0), "rows"),
        (lambda: replace(PIXELS, samples=2), "samples"),
        (lambda: replace(PIXELS, window_centers=(40.0,)), "equal lengths"),
        (lambda: LookupTable(first_value=0, bits=8, entries=()), "entries"),
        (lambda: Geometry(position=(0.0, math.nan, 0.0)), "position"),
        (lambda: Geometry(pixel_spacing=(math.inf, 1.0)), "pixel_spacing"),
    ],
)
def test_what_is_not_valid_cannot_be_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("view", ViewPosition)
def test_decubitus_views_are_frontal(view):
    assert view.is_lateral == (view.value in {"LL", "RL", "lateral"})
