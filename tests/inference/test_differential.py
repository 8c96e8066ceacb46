import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfm.inference.differential import LIKELIHOODS, read_rules, suggest
from mmfm.report import Finding, Measurement, Side, Status
from mmfm.text import OBSERVATIONS
from mmfm.text.regions import REGIONS, observations, region_words


def present(observation, side=None, **more):
    return Finding(observation=observation, status=Status.PRESENT, laterality=side, **more)


def absent(observation):
    return Finding(observation=observation, status=Status.ABSENT)


def words(findings):
    return {entry.diagnosis: entry.likelihood for entry in suggest(findings)[0]}


def test_effusions_with_a_large_heart_and_edema_are_likely_heart_failure():
    entries, note = suggest(
        [
            present("pleural_effusion", Side.BILATERAL),
            present("cardiomegaly"),
            present("edema"),
            absent("consolidation"),
        ]
    )
    first = entries[0]
    assert (first.diagnosis, first.likelihood) == ("congestive heart failure", "likely")
    assert set(first.supporting) == {"edema", "cardiomegaly", "bilateral pleural effusion"}
    assert first.probability is None
    assert "not calibrated" in note
    assert "Gluecker" in note


def test_a_normal_heart_speaks_against_heart_failure():
    entries, _ = suggest([present("edema"), absent("cardiomegaly")])
    [failure] = [e for e in entries if e.diagnosis == "congestive heart failure"]
    assert failure.likelihood == "less likely"
    assert failure.against == ("no cardiomegaly",)


def test_consolidation_is_possible_pneumonia_and_fluid_beside_it_does_not_make_it_likely():
    assert words([present("consolidation", Side.RIGHT)])["pneumonia"] == "possible"
    both = words([present("consolidation", Side.RIGHT), present("pleural_effusion", Side.RIGHT)])
    assert both["pneumonia"] == "possible"
    assert both["parapneumonic effusion"] == "likely"


def test_a_radiograph_alone_does_not_make_chronic_obstructive_disease_likely():
    assert words([present("emphysema")])["chronic obstructive pulmonary disease with emphysema"] == "possible"


def test_thickened_pleura_on_both_sides_does_not_tell_of_asbestos():
    assert not any("asbestos" in diagnosis for diagnosis in words([present("pleural_thickening", Side.BILATERAL)]))


def test_an_uncertain_finding_weakens():
    finding = Finding(observation="hernia", status=Status.UNCERTAIN)
    entries, _ = suggest([finding])
    assert (entries[0].likelihood, entries[0].supporting) == ("possible", ("hernia (uncertain)",))
    assert words([present("hernia")])["hiatal hernia"] == "likely"


def test_two_nodules_bring_metastases():
    assert "pulmonary metastases" not in words([present("nodule", count=1)])
    assert "pulmonary metastases" in words([present("nodule", count=3)])


@pytest.mark.parametrize("findings", [[], [absent("edema")], [present("support_devices")]])
def test_without_an_abnormal_finding_it_is_empty_with_a_reason(findings):
    assert suggest(findings) == ((), "empty: no abnormal finding above the operating point")


def test_the_rule_file_is_whole():
    rules, sources = read_rules()
    conditions = {c for rule in rules for c in (*rule.needs, *rule.supports, *rule.against)}
    for condition in conditions:
        *before, observation = condition.split()
        assert observation in OBSERVATIONS
        assert before in ([], ["no"], ["bilateral"], ["unilateral"], ["multiple"])
    assert all(rule.sources and set(rule.sources) <= set(sources) for rule in rules)
    assert set(sources) == {key for rule in rules for key in rule.sources}, "every source is used"
    text = " ".join(rule.diagnosis for rule in rules)
    assert not re.search(r"\d|\bmg\b|treat|antibiotic|diuretic|\bgive\b|drain", text, re.IGNORECASE), "no advice"


@pytest.mark.parametrize("region", REGIONS[1:])
def test_the_rule_files_of_volumes_are_whole(region):
    rules, sources = read_rules(region)
    conditions = {c for rule in rules for c in (*rule.needs, *rule.supports, *rule.against)}
    for condition in conditions:
        *before, observation = condition.split()
        assert observation in observations(region)
        if before and before[0].startswith("in_"):
            assert before[0].removeprefix("in_").replace("_", " ") in region_words(region)["location"]
        suggest([Finding(observation=observation, status=Status.PRESENT)], region=region)  # every condition is read
    assert set(sources) == {key for rule in rules for key in rule.sources}, "every source is used and there"
    assert all(len(rule.supports) >= (rule.likely_with or 0) for rule in rules)
    text = " ".join(rule.diagnosis for rule in rules)
    assert not re.search(r"\d|\bmg\b|treat|antibiotic|\bgive\b|drain", text, re.IGNORECASE), "no advice"
    assert len(rules) >= 8


def test_size_number_and_place_speak_for_a_diagnosis():
    def likelihoods(region, *findings):
        return {entry.diagnosis: (entry.likelihood, entry.supporting) for entry in suggest(findings, region=region)[0]}

    small = present("nodule", Side.RIGHT, count=1, measurement=Measurement(value=5.0, unit="mm"))
    large = present("nodule", Side.RIGHT, count=1, measurement=Measurement(value=34.0, unit="mm"))
    assert "primary lung cancer" not in likelihoods("chest_ct", small)
    assert likelihoods("chest_ct", large)["primary lung cancer"] == (
        "likely",
        ("nodule of 30 mm and more", "single nodule"),
    )
    blood = present("intracranial_hemorrhage", Side.LEFT)
    assert likelihoods("head", blood)["hypertensive hemorrhage"][0] == "possible"
    deep = present("intracranial_hemorrhage", Side.LEFT, location="basal ganglia")
    assert likelihoods("head", deep)["hypertensive hemorrhage"] == (
        "likely",
        ("intracranial hemorrhage", "intracranial hemorrhage in the basal ganglia"),
    )
    assert "hepatic metastases" in likelihoods("abdomen", present("liver_lesion", count=3))
    assert "hepatic metastases" not in likelihoods("abdomen", present("liver_lesion", count=1))


@given(st.lists(st.builds(
    Finding,
    observation=st.sampled_from(OBSERVATIONS),
    status=st.sampled_from(list(Status)),
    laterality=st.none() | st.sampled_from(list(Side)),
    count=st.none() | st.integers(1, 5),
)))  # fmt: skip
def test_any_findings_give_an_ordered_list_and_a_note(findings):
    entries, note = suggest(findings)
    steps = [LIKELIHOODS.index(entry.likelihood) for entry in entries]
    assert steps == sorted(steps)
    assert len({entry.diagnosis for entry in entries}) == len(entries) <= 6
    assert note.startswith("not calibrated" if entries else "empty: ")
    assert all(entry.supporting for entry in entries)
