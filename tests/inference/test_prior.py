import pytest

from mmfm.inference.prior import change_of, compare, pairs
from mmfm.report import Change, Finding, Lesion, Provenance, Report, Sections, Side, Status


def lesion(mm, side=Side.RIGHT, place="upper lobe"):
    return Lesion(center_mm=(0.0, 0.0, 0.0), diameter_mm=mm, laterality=side, location=place)


def nodules(*lesions):
    return Finding(observation="nodule", status=Status.PRESENT, count=len(lesions), lesions=lesions)


def effusion(severity=None, side=Side.LEFT, status=Status.PRESENT):
    return Finding(observation="pleural_effusion", status=status, severity=severity, laterality=side)


def report(*findings, text="As found."):
    return Report(
        study_uid="1",
        sections=Sections(findings=text),
        findings=findings,
        finding_probabilities={},
        differential_note="empty",
        coverage="1 of 1 series",
        provenance=Provenance(checkpoint="c", sha256="0"),
    )


def compared(now, before, *, assessed=()):
    made = compare(report(*now), report(*before), region="chest_ct", assessed=assessed)
    return {f.observation: f.change for f in made.findings}, made.sections.findings.removeprefix("As found.").strip()


@pytest.mark.parametrize(
    ("now", "before", "change"),
    [
        (12, 8, Change.INCREASED),
        (8, 12, Change.DECREASED),
        (8, 6, Change.STABLE),
        (33, 30, Change.STABLE),
        (36, 30, Change.INCREASED),
        (11, 8, Change.INCREASED),
        (10.9, 8, Change.STABLE),
        (24, 30, Change.DECREASED),
    ],
)
def test_a_size_changed_by_a_fifth_and_three_millimetres(now, before, change):
    assert change_of(now, before) is change


def test_lesions_are_paired_once_within_their_place_by_the_nearest_size():
    now = [lesion(20), lesion(9), lesion(5, Side.LEFT)]
    before = [lesion(10), lesion(6), lesion(5, Side.LEFT, "lower lobe")]
    paired, new, gone = pairs(now, before)
    assert [(a.diameter_mm, b.diameter_mm) for a, b in paired] == [(20, 6), (9, 10)]
    assert (new, gone) == ([now[2]], [before[2]])


def test_a_larger_nodule_has_increased():
    assert compared([nodules(lesion(12))], [nodules(lesion(8))]) == (
        {"nodule": Change.INCREASED},
        "The 12 mm lung nodule in the right upper lobe was 8 mm before (increased).",
    )


def test_new_stable_and_lost_nodules_are_told_one_by_one():
    changes, text = compared(
        [nodules(lesion(8), lesion(6, Side.LEFT))], [nodules(lesion(7), lesion(5, Side.RIGHT, "lower lobe"))]
    )
    assert changes == {"nodule": Change.INCREASED}
    assert text == (
        "The 8 mm lung nodule in the right upper lobe was 7 mm before (stable)."
        " The 6 mm lung nodule in the left upper lobe was not found before (new)."
        " The 5 mm lung nodule in the right lower lobe of the prior study was not found again."
    )
    assert compared([nodules(lesion(8))], [])[0] == {"nodule": Change.NEW}
    assert compared([nodules(lesion(8))], [nodules(lesion(8), lesion(4))])[0] == {"nodule": Change.DECREASED}


@pytest.mark.parametrize(
    ("now", "before", "change", "words"),
    [
        (("moderate", Side.LEFT), ("small", Side.LEFT), Change.INCREASED, "was small before (increased)"),
        (("small", Side.LEFT), ("large", Side.BILATERAL), Change.DECREASED, "was large bilateral before (decreased)"),
        (("small", Side.LEFT), ("small", Side.LEFT), Change.STABLE, "was small before (stable)"),
        ((None, Side.BILATERAL), (None, Side.LEFT), Change.INCREASED, "was left before (increased)"),
        ((None, Side.RIGHT), (None, Side.LEFT), None, "was left before."),
        ((None, None), (None, None), None, "was there before."),
    ],
)
def test_what_is_not_counted_changes_by_severity_then_by_sides(now, before, change, words):
    changes, text = compared([effusion(*now)], [effusion(*before)])
    assert changes == {"pleural_effusion": change}
    assert words in text


def test_resolved_is_said_only_of_what_may_be_called_absent():
    absent = effusion(None, None, Status.ABSENT)
    changes, text = compared([absent], [effusion("small")], assessed=("pleural_effusion",))
    assert changes == {"pleural_effusion": Change.RESOLVED}
    assert "(resolved)" in text
    changes, text = compared([], [effusion("small")])
    assert changes == {}
    assert text == "The small left pleural effusion of the prior study is not stated now; its absence was not assessed."


def test_the_rule_stands_in_the_report():
    made = compare(report(), report(), region="chest_ct", assessed=())
    for words in ("its date is not read", "not registered", "20%", "3 mm", "1 of 1 series"):
        assert words in made.sections.comparison
    assert "nothing is compared" in compare(report(), report(), region=None, assessed=()).sections.comparison
