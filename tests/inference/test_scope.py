import numpy as np
import pytest

from mmfm.errors import ConfigError, ScopeError
from mmfm.inference.scope import check_contrast, check_study, region_of, views_read
from mmfm.models.checkpoint import Scope
from mmfm.models.processor import is_volume
from mmfm.study import Acquisition, Geometry, ViewPosition

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


def volume(**fields):
    return {"modality": "CT", "acquisition": Acquisition(protocol=fields.pop("protocol", None))} | fields


SLICE = {"geometry": Geometry(position=(0.0, 0.0, 0.0), orientation=(1, 0, 0, 0, 1, 0), pixel_spacing=(1.0, 1.0))}


@pytest.mark.parametrize(
    ("fields", "region"),
    [
        ({"body_part": "CHEST"}, "chest_ct"),
        ({"body_part": "Thorax"}, "chest_ct"),
        ({"body_part": "ABDOMENPELVIS"}, "abdomen"),
        ({"body_part": "NECKCHEST"}, "chest_ct"),
        ({"body_part": "CHESTABDOMEN"}, None),
        ({"body_part": None, "description": "Lung 1.0"}, "chest_ct"),
        ({"body_part": None, "description": "Abdomen 5.0 lung"}, "abdomen"),
        ({"body_part": None, "description": "iMAR 1.0", "protocol": "Leber 3 phasen"}, "abdomen"),
        ({"body_part": "UNKNOWN", "description": "CT liver"}, "abdomen"),
        ({"body_part": "HEAD"}, None),
        ({"body_part": "KNEE", "description": "chest"}, None),
        ({"body_part": None}, None),
        ({"modality": "MR", "body_part": "BRAIN"}, "head"),
        ({"modality": "MR", "body_part": "HEADNECK"}, "head"),
        ({"modality": "MR", "body_part": None, "description": "hip femoral head"}, None),
        ({"modality": "MR", "body_part": "ABDOMEN"}, None),
        ({"body_part": "LSPINE", "description": "abdomen"}, None),
        ({"body_part": "ROUTINE", "description": "abdomen"}, "abdomen"),
    ],
)
def test_the_region_is_what_headers_state(make_study, fields, region):
    assert region_of(make_study(volume(**fields), **SLICE)) == region


VOLUMES = Scope(modalities=("CT", "MR"), body_parts=("CHEST", "ABDOMEN", "HEAD"), views=())


def test_the_regions_of_a_scope_alone_count(make_study):
    study = make_study(volume(body_part="CHEST"), volume(modality="MR", body_part="HEAD"), **SLICE)
    assert region_of(study) is None
    assert region_of(study, scope=Scope(modalities=("CT",), body_parts=("CHEST",), views=())) == "chest_ct"


def check_volume(*series, **more):
    make = more.pop("make_study")
    return check_study(make(*series, **SLICE), VOLUMES, checkpoint="some-checkpoint", **more)


@pytest.mark.parametrize(
    ("series", "more", "words"),
    [
        ([volume(body_part="HEAD")], {}, "expected CT of the chest, CT of the abdomen, MR of the head.*CT of the head"),
        ([volume(body_part="KNEE")], {"region": "abdomen"}, "found CT of the knee"),
        ([volume(modality="MR", body_part="LIVER")], {}, "found MR of the abdomen"),
        ([volume(body_part=None)], {}, "states no part of the body; say which it is with --region chest_ct or abdomen"),
        ([volume(body_part="CHESTABDOMEN")], {}, "say which with --region abdomen or chest_ct"),
        ([volume(body_part="CHEST"), volume(body_part="ABDOMEN")], {}, "name the series of one of them with --series"),
        ([volume(body_part="CHEST"), volume(body_part="NECK")], {}, "found CT of the neck; name the series to read"),
        (
            [volume(body_part="CHEST")],
            {"region": "head"},
            "region: expected one of chest_ct, abdomen for CT; found head; give one",
        ),
        ([{"source_format": "NIFTI"}], {}, "states none; say which it is with --modality"),
        ([volume(body_part="CHEST") | {"modality": "DX"}], {}, "found DX"),
        ([volume(body_part="HEART", description="CT chest")], {}, "found CT of another part of the body"),
        (
            [volume(modality="MR", body_part="HEAD"), volume(modality="MR", body_part="CSPINE", description="T2")],
            {},
            "expected series of the head alone; found MR of another part of the body; name the series to read",
        ),
    ],
)
def test_a_volume_that_states_another_part_or_none_is_refused_by_name(make_study, series, more, words):
    with pytest.raises(ScopeError, match=words) as caught:
        check_volume(*series, make_study=make_study, **more)
    assert "\n" not in str(caught.value)


def test_localisers_alone_are_named(make_study):
    study = make_study(volume(body_part="CHEST"), image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), **SLICE)
    with pytest.raises(ScopeError, match="found localisers alone; give the other series"):
        check_study(study, VOLUMES, checkpoint="c")


def test_what_a_volume_does_not_state_may_be_given(make_study):
    [note] = check_volume(volume(body_part=None), make_study=make_study, region="chest_ct")
    assert note == "body part not verified: read as CT of the chest, as was asked"
    assert check_volume(volume(body_part="COR ROUTINE"), make_study=make_study, region="chest_ct") == (note,)
    [half] = check_volume(volume(body_part="CHEST"), volume(body_part=None), make_study=make_study)
    assert half == "body part not verified: not every series states one; read as CT of the chest"
    mixed = [volume(body_part=None), volume(modality="MR", body_part="HEAD")]
    assert check_volume(*mixed, make_study=make_study, region="chest_ct") == (note,)
    files = [{"modality": "CT", "source_format": "NIFTI"}] * 2
    assert check_volume(*files, make_study=make_study, region="chest_ct") == (
        "2 series without tags were taken as one study of one patient", note,
    )  # fmt: skip
    assert check_volume(volume(body_part="CHESTABDOMEN"), make_study=make_study, region="abdomen") == ()
    both = [volume(body_part="CHEST"), volume(body_part="ABDOMEN")]
    assert check_volume(*both, make_study=make_study, only=("#2",)) == ()
    with pytest.raises(ScopeError, match="at least 18 years"):
        check_study(make_study(volume(body_part="CHEST"), age=3, **SLICE), VOLUMES, checkpoint="c")


def test_a_screenshot_of_a_ct_is_a_picture(make_study):
    shot = {"modality": "CT", "body_part": None}
    assert not is_volume(make_study(shot))
    assert is_volume(make_study(shot, **SLICE))
    assert "body part not verified: not stated" in check_study(make_study(shot), VOLUMES, checkpoint="c")
    with pytest.raises(ScopeError, match=r"CR or DX.*found CT"):
        check(make_study(shot))


@pytest.mark.parametrize("part", ["CHEST", "chest", "Chest PA", "THORAX", "CHEST 2 VIEWS", "PORT CHEST", "CHEST_AP"])
def test_spellings_of_the_chest_are_the_chest(make_study, part):
    assert check(make_study(CHEST_PA | {"body_part": part})) == ()


def test_what_is_asked_of_volumes_is_not_dropped_silently_with_pictures(make_study):
    with pytest.raises(ConfigError, match="--series: expected a CT or MR volume; found pictures"):
        check_study(make_study(CHEST_PA), SCOPE, checkpoint="c", only=("#1",))
    [note] = check_study(make_study(CHEST_PA), SCOPE, checkpoint="c", region="head")
    assert "region asked for was not used" in note


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
