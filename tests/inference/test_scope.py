import numpy as np
import pytest

from mmfm.errors import ScopeError
from mmfm.inference.scope import check_contrast, check_study, views_read
from mmfm.models.checkpoint import Scope
from mmfm.study import ViewPosition

SCOPE = Scope()
CHEST_PA = {"modality": "DX", "view": ViewPosition.PA, "body_part": "CHEST"}


def check(study):
    return check_study(study, SCOPE, checkpoint="some-checkpoint")


def test_a_study_that_states_everything_has_no_notes(make_study):
    assert check(make_study(CHEST_PA, CHEST_PA | {"view": ViewPosition.LL})) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modality": "CT"}, ("modality", "CR or DX", "CT")),
        ({"modality": "MG"}, ("modality", "MG")),
        ({"body_part": "KNEE"}, ("body part", "CHEST", "KNEE")),
        ({"body_part": "CHEST ABDOMEN"}, ("body part", "CHEST ABDOMEN")),
        ({"body_part": None, "description": "Knee, 2 views"}, ("body part", "KNEE in the description")),
        ({"view": ViewPosition.LLD}, ("view", "frontal or lateral", "LLD")),
    ],
)
def test_a_contradicting_tag_is_refused_in_one_line(make_study, change, words):
    with pytest.raises(ScopeError) as caught:
        check(make_study(CHEST_PA, CHEST_PA | change))
    line = str(caught.value)
    assert "\n" not in line
    assert "no draft" in line
    assert "some-checkpoint" in line
    assert all(word in line for word in words)


@pytest.mark.parametrize("age", [0, 3, 17.9])
def test_a_child_is_refused_and_a_missing_age_is_not_adult(make_study, age):
    with pytest.raises(ScopeError, match="at least 18 years"):
        check(make_study(CHEST_PA, age=age))
    assert check(make_study(CHEST_PA, age=None)) == ("age not verified: not stated",)
    assert check(make_study(CHEST_PA, age=18.0)) == ()


def test_a_tomosynthesis_is_refused(make_study):
    with pytest.raises(ScopeError, match="frames"):
        check(make_study(CHEST_PA, frames=40))


def test_raw_detector_data_is_refused(make_study):
    with pytest.raises(ScopeError, match="FOR PROCESSING"):
        check(make_study(CHEST_PA, for_processing=True))


@pytest.mark.parametrize(
    ("view", "orientation"),
    [
        (ViewPosition.PA, ("R", "F")),
        (ViewPosition.AP, ("L", "H")),
        (ViewPosition.FRONTAL, ("F", "L")),
        (None, ("F", "L")),
        (None, ("R", "F")),
    ],
)
def test_a_mirrored_or_turned_frontal_picture_is_refused(make_study, view, orientation):
    with pytest.raises(ScopeError, match=f"orientation.*left on the picture's right.*{'/'.join(orientation)}"):
        check(make_study(CHEST_PA | {"view": view}, patient_orientation=orientation))


@pytest.mark.parametrize(
    ("view", "orientation"),
    [
        (ViewPosition.PA, ("L", "F")),
        (ViewPosition.PA, ("LH", "FP")),
        (ViewPosition.PA, ()),
        (ViewPosition.PA, ("L",)),
        (ViewPosition.LL, ("P", "F")),
        (ViewPosition.LL, ("A", "F")),
        (None, ("P", "F")),
        (None, ("L", "F")),
    ],
)
def test_an_upright_lateral_or_unstated_orientation_is_drafted(make_study, view, orientation):
    assert check(make_study(CHEST_PA | {"view": view}, patient_orientation=orientation)) == ()


@pytest.mark.parametrize("part", ["CHEST", "chest", "Chest PA", "THORAX", "CHEST 2 VIEWS", "PORT CHEST", "CHEST_AP"])
def test_spellings_of_the_chest_are_the_chest(make_study, part):
    assert check(make_study(CHEST_PA | {"body_part": part})) == ()


def test_a_picture_without_tags_is_drafted_with_notes(make_study):
    notes = " | ".join(check(make_study({"source_format": "PNG"}, age=None)))
    assert "scope not verified" in notes
    assert "age not verified" in notes
    assert "body part not verified" in notes


def test_several_pictures_without_tags_are_noted_as_taken_for_one_patient(make_study):
    taken = "pictures without tags were taken as one study of one patient"
    assert f"4 {taken}" in check(make_study(*[{"source_format": "PNG"}] * 3, {"source_format": "JPEG"}))
    assert taken not in " | ".join(check(make_study({"source_format": "PNG"}, CHEST_PA)))
    assert taken not in " | ".join(check(make_study({"modality": None}, {"modality": None})))


def test_modality_other_says_nothing(make_study):
    assert any("scope not verified" in note for note in check(make_study(CHEST_PA | {"modality": "OT"})))


def test_an_ap_view_is_noted(make_study):
    assert any("AP view" in note for note in check(make_study(CHEST_PA | {"view": ViewPosition.AP})))


@pytest.mark.parametrize(
    ("views", "coverage"),
    [
        (("frontal", "lateral"), "frontal, lateral"),
        (("lateral", "frontal"), "frontal, lateral"),
        (("frontal",), "frontal only: lateral not read; 1 further picture(s) not read"),
        (("lateral", "lateral"), "lateral only: frontal not read"),
    ],
)
def test_coverage_says_what_was_read(make_study, views, coverage):
    assert views_read(make_study(CHEST_PA, CHEST_PA), views) == (coverage, ())


def test_a_view_that_was_read_from_the_picture_is_noted(make_study):
    study = make_study(CHEST_PA, CHEST_PA | {"view": None})
    assert views_read(study, ("frontal", "lateral"))[1] == ("view not stated, read as lateral by the picture",)


@pytest.mark.parametrize("kind", ["black", "white", "noise", "burned-in text"])
def test_a_blank_picture_is_refused(kind):
    rng = np.random.default_rng(0)
    picture = np.zeros((256, 256), np.float32)
    match kind:
        case "white":
            picture += 1
        case "noise":
            picture = rng.random((256, 256), np.float32)
        case "burned-in text":
            picture[4:20, 4:60] = 1
    with pytest.raises(ScopeError, match=r"picture 1 of the study.*blank.*no draft is made"):
        check_contrast(picture, where="picture 1 of the study")


def test_a_picture_that_shows_something_passes():
    rows, columns = np.mgrid[-1:1:256j, -1:1:256j]
    lungs = np.exp(-((np.abs(columns) - 0.45) ** 2) / 0.05 - rows**2 / 0.4)
    check_contrast((1 - lungs).astype(np.float32), where="picture 1 of the study")
