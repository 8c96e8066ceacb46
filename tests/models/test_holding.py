import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.data.drawn import COUNTED, PLACES
from mmfm.data.synthetic_volumes import DRAWN
from mmfm.models.decisions import SIDELESS, _counted, _severity
from mmfm.models.holding import hold_to_decisions
from mmfm.models.processor import Drafted
from mmfm.report import Finding, Lesion, Side, Status
from mmfm.text import OBSERVATIONS, describe, label_report, mentions
from mmfm.text.wording import LESIONS_DESCRIBED


def _present(observation, side=None):
    return Finding(observation=observation, status=Status.PRESENT, laterality=side)


def _text(findings, impression=None):
    return Drafted(findings=findings, impression=impression, finished=True)


def test_text_that_fits_the_decisions_is_left_as_it_is():
    text = _text("Small left pleural effusion. The heart is normal in size.", "Left pleural effusion.")
    held = hold_to_decisions(text, [_present("pleural_effusion", Side.LEFT)])
    assert held == (text.findings, text.impression, "held to the finding heads: 0 sentence(s) out, 0 in")


def test_findings_beyond_the_decisions_are_taken_out():
    findings, impression, _ = hold_to_decisions(_text("Left pleural effusion. Heart size is normal.", "Effusion."), [])
    assert findings == "Heart size is normal." and impression is None


def test_the_other_side_is_taken_out_and_the_decided_one_written():
    decided = [_present("pleural_effusion", Side.RIGHT)]
    findings, _, changed = hold_to_decisions(_text("There is a left pleural effusion."), decided)
    (found,) = label_report(findings)
    assert (found.laterality, found.status) == (Side.RIGHT, Status.PRESENT) and "1 sentence(s) out, 2 in" in changed


def test_a_sentence_that_names_both_sides_is_taken_out():
    words = "Blunting of the right costophrenic angle, consistent with a large left pleural effusion."
    findings, _, _ = hold_to_decisions(_text(words), [_present("pleural_effusion", Side.RIGHT)])
    assert findings == "Right pleural effusion."
    both = "Bilateral pleural effusions."
    assert hold_to_decisions(_text(both), [_present("pleural_effusion", Side.BILATERAL)])[0] == both
    assert hold_to_decisions(_text(both), [_present("pleural_effusion", Side.LEFT)])[0] == "Left pleural effusion."


def test_a_side_that_nobody_decided_is_taken_out():
    findings, _, _ = hold_to_decisions(_text("Small left pleural effusion."), [_present("pleural_effusion", None)])
    assert findings == "Pleural effusion."
    apex = "Cardiomegaly with a prominent left ventricle."
    assert hold_to_decisions(_text(apex), [_present("cardiomegaly", None)])[0] == apex


def test_a_side_that_the_text_leaves_out_is_written():
    decided = [_present("pleural_effusion", Side.LEFT)]
    findings, impression, _ = hold_to_decisions(_text("Pleural effusion is present.", "Pleural effusion."), decided)
    for section in (findings, impression):
        assert {f.laterality for f in label_report(section)} == {Side.LEFT}


def test_an_impression_does_not_call_normal_what_it_states():
    decided = [_present("pleural_effusion", Side.LEFT)]
    _, impression, _ = hold_to_decisions(
        _text("Left pleural effusion.", "No acute cardiopulmonary abnormality."), decided
    )
    assert impression == "Left pleural effusion."


def test_text_of_which_nothing_is_left_becomes_the_normal_template():
    findings, impression, _ = hold_to_decisions(_text("Left pleural effusion."), [])
    assert (findings, impression) == describe(())
    assert hold_to_decisions(_text(None), [])[:2] == (None, None)


def test_a_denial_of_a_decision_is_taken_out():
    findings, _, _ = hold_to_decisions(_text("No pneumothorax. Lungs are hyperinflated."), [_present("pneumothorax")])
    states = {f.observation: f.status for f in label_report(findings)}
    assert states["pneumothorax"] is Status.PRESENT


@given(
    decided=st.sets(st.sampled_from(OBSERVATIONS), max_size=4),
    written=st.lists(
        st.sampled_from(
            ["Left pleural effusion.", "Cardiomegaly.", "No focal consolidation.", "The lungs are clear.",
             "Right upper lobe nodule.", "No acute disease.", "Possible pneumonia."]
        ),
        max_size=5,
    ),
)  # fmt: skip
def test_held_text_states_exactly_the_decisions(decided, written):
    text = _text(" ".join(written) or None, " ".join(written[:1]) or None)
    findings, impression, _ = hold_to_decisions(text, [_present(o) for o in sorted(decided)])
    stated = {f.observation for f in label_report(findings, impression) if f.status is not Status.ABSENT}
    assert stated == decided


def _lesions(*some):
    return tuple(
        Lesion(center_mm=(float(10 * i), 0.0, 0.0), diameter_mm=mm, laterality=side, location=location)
        for i, (side, location, mm) in enumerate(some)
    )


NODULES = _counted("nodule", _lesions((Side.RIGHT, "upper lobe", 12.3), (Side.LEFT, "lower lobe", 6.0)))


def _held(written, decisions, region):
    return hold_to_decisions(_text(written, written), decisions, region=region)


def test_what_is_counted_is_summed_up_and_told_one_by_one():
    assert (NODULES.count, NODULES.laterality, NODULES.location) == (2, Side.BILATERAL, None)
    assert NODULES.measurement.value == 12
    one = _counted("infarct", _lesions((None, "brainstem", 7.6)))
    assert (one.count, one.laterality, one.location, one.measurement.value) == (1, None, "brainstem", 8)


@pytest.mark.parametrize(
    "wrong",
    [
        "There is a 12 mm nodule in the left upper lobe.",
        "There is a 12 mm nodule in the right middle lobe.",
        "There is a 6 mm nodule in the right upper lobe.",
        "There are two nodules in the right upper lobe.",
        "There is a 9 mm nodule in the right upper lobe.",
        "There are three nodules.",
        "No pulmonary nodule.",
        "There is consolidation in the right lower lobe.",
        "There is a large left pleural effusion.",
    ],
)
def test_a_sentence_with_another_place_size_side_or_number_is_taken_out(wrong):
    findings, impression, _ = _held(f"{wrong} The aorta is tortuous.", [NODULES], "chest_ct")
    assert wrong not in findings and wrong not in impression


def test_lesions_that_the_text_leaves_out_are_written():
    right = "There is a 12 mm nodule in the right upper lobe."
    findings, impression, changed = _held(right, [NODULES], "chest_ct")
    assert right in findings and right in impression
    for section in (findings, impression):
        told = {
            (m.laterality, m.location, m.measurement.value)
            for m in mentions(section, region="chest_ct")
            if m.measurement
        }
        assert {(Side.RIGHT, "upper lobe", 12.0), (Side.LEFT, "lower lobe", 6.0)} <= told
        assert {m.count for m in mentions(section, region="chest_ct")} & {2}
    assert changed.endswith("0 sentence(s) out, 4 in")


def test_a_severity_that_was_not_decided_is_taken_out_of_a_volume():
    decided = [Finding(observation="pleural_effusion", status=Status.PRESENT, laterality=Side.LEFT, severity="small")]
    findings, _, _ = _held("There is a large left pleural effusion.", decided, "chest_ct")
    (found,) = label_report(findings, region="chest_ct")
    assert (found.severity, found.laterality) == ("small", Side.LEFT)


def test_without_a_vocabulary_the_text_is_left_and_said_to_be_unheld():
    findings, impression, changed = _held("A lesion of the knee.", [], None)
    assert findings == impression == "A lesion of the knee." and "no vocabulary" in changed


def _places(region, name):
    """Returns the places that a drawn lesion of an observation may have."""
    parts = {
        "kidney_lesion": ("upper pole", "interpolar region", "lower pole"),
        "liver_lesion": ("right hepatic lobe", "left hepatic lobe"),
        "pancreas_lesion": ("pancreatic head", "pancreatic body", "pancreatic tail"),
        "fracture": ("ribs",),
    }.get(name)
    if parts is None:
        wanted = ("upper lobe", "middle lobe", "lower lobe") if region == "chest_ct" else (
            "frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe", "basal ganglia", "cerebellum",
            "brainstem",
        )  # fmt: skip
        parts = wanted
    return [(p.laterality, p.location) for p in PLACES if p.location in parts]


@st.composite
def _decisions(draw, region):
    decided = []
    for name in draw(st.lists(st.sampled_from(DRAWN[region]), max_size=4, unique=True)):
        if name in COUNTED:
            sizes = st.integers(3, 45).map(float)
            one = st.tuples(st.sampled_from(_places(region, name)), sizes).map(lambda x: (*x[0], x[1]))
            lesions = draw(st.lists(one, min_size=1, max_size=5, unique=True))
            decided.append(_counted(name, _lesions(*sorted(lesions, key=lambda x: -x[2]))))
        else:
            side = None if name in SIDELESS else draw(st.sampled_from(list(Side)))
            severity = _severity(name, draw(st.integers(0, 2)))
            decided.append(Finding(observation=name, status=Status.PRESENT, laterality=side, severity=severity))
    return decided


@st.composite
def _studies(draw):
    region = draw(st.sampled_from(sorted(DRAWN)))
    written = [draw(_decisions(region)) for _ in range(2)]
    sections = [" ".join(describe(some, region=region)[i] for some in written) for i in range(2)]
    return region, draw(_decisions(region)), _text(*sections)


@given(study=_studies())
def test_held_text_of_a_volume_reads_back_to_the_decisions(study):
    region, decisions, text = study
    findings, impression, _ = hold_to_decisions(text, decisions, region=region)
    for section in (findings, impression):
        present = [f for f in label_report(section, region=region) if f.status is not Status.ABSENT]
        assert {f.observation for f in present} == {d.observation for d in decisions}, section
        for decision in decisions:
            told = [m for m in mentions(section, region=region) if m.observation == decision.observation]
            assert all(m.status is Status.PRESENT for m in told)
            if not decision.lesions:
                (found,) = [f for f in present if f.observation == decision.observation]
                assert (found.laterality, found.severity) == (decision.laterality, decision.severity), section
                continue
            single = {(m.laterality, m.location, m.measurement.value) for m in told if m.measurement and m.location}
            named = decision.lesions[:LESIONS_DESCRIBED]
            assert {(one.laterality, one.location, float(round(one.diameter_mm))) for one in named} <= single, section
            assert {m.count for m in told} - {None, 1} <= {decision.count}, section
            if decision.count > 1:
                assert decision.count in {m.count for m in told}, section
    again = hold_to_decisions(_text(findings, impression), decisions, region=region)
    assert again == (findings, impression, "held to the finding heads: 0 sentence(s) out, 0 in")


def test_what_a_draft_tells_of_another_part_of_the_body_is_taken_out():
    written = "There is free fluid in the abdomen. The ventricles are normal."
    findings, impression, _ = _held(written, (), "head")
    assert "free fluid" not in f"{findings} {impression}".lower()
    assert "The ventricles are normal." in findings
    fluid = Finding(observation="free_fluid", status=Status.PRESENT, severity="small")
    assert "free fluid" in hold_to_decisions(_text(written, None), (fluid,), region="abdomen")[0].lower()
