"""The vocabularies of chest CT, abdomen and head: template sentences come back whole, and the files are sound."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfm.errors import ConfigError
from mmfm.report import Finding, Measurement, Side, Status
from mmfm.text import REGIONS, describe, label_report, mentions, observations, states
from mmfm.text.labeller import no_finding
from mmfm.text.phrases import spellings, vocabulary

VOLUMES = ("chest_ct", "abdomen", "head")
DRAWN = {
    "chest_ct": {
        "nodule",
        "pleural_effusion",
        "consolidation",
        "emphysema",
        "pneumothorax",
        "cardiomegaly",
        "fracture",
    },
    "abdomen": {"liver_lesion", "kidney_lesion", "pancreas_lesion", "free_fluid"},
    "head": {"brain_mass", "infarct", "intracranial_hemorrhage", "hydrocephalus"},
}
EACH = [(region, name) for region in VOLUMES for name in observations(region)]


def details(found: Finding) -> tuple[Any, ...]:
    size = found.measurement.value if found.measurement else None
    return found.status, found.laterality, found.location, found.severity, found.count, size


def finding(region: str, name: str, status: Status, side: Side | None, place: str | None, **more: Any) -> Finding:
    """A finding that the region's templates can tell whole: no side of the midline, no count of what is not counted."""
    words = vocabulary(region)
    table = words["observation"][name]
    side = Side.RIGHT if place == "middle lobe" else side
    if table["sides"] == "none" or place in words["midline"]["locations"]:
        side = None
    if "plural" not in table:
        more.pop("count", None)
    return Finding(observation=name, status=status, laterality=side, location=place, **more)


def places(region: str) -> list[str | None]:
    return [None, *(place for place in vocabulary(region)["location"] if place != "ignored")]


def severities(region: str) -> list[str | None]:
    return [None, *(severity for severity in vocabulary(region)["severity"] if severity != "ignored")]


@pytest.mark.parametrize(("region", "name"), EACH)
def test_each_side_place_and_status_comes_back(region: str, name: str) -> None:
    for side, place, status in product((None, *Side), places(region), (Status.PRESENT, Status.UNCERTAIN)):
        given_finding = finding(region, name, status, side, place)
        back = label_report(*describe([given_finding], region=region), region=region)
        assert [f.observation for f in back] == [name]
        assert details(back[0]) == details(given_finding)


@pytest.mark.parametrize(("region", "name"), EACH)
def test_each_severity_count_and_size_comes_back(region: str, name: str) -> None:
    place = places(region)[1]
    for severity, count, size in product(severities(region), (None, 1, 2, 3, 7, 10), (None, 4.0, 12.5, 130.0)):
        measurement = None if size is None else Measurement(value=size, unit="mm")
        more = {"severity": severity, "count": count, "measurement": measurement}
        given_finding = finding(region, name, Status.PRESENT, Side.RIGHT, place, **more)
        (back,) = label_report(*describe([given_finding], region=region), region=region)
        assert details(back) == details(given_finding)


@pytest.mark.parametrize("region", VOLUMES)
def test_what_is_absent_comes_back(region: str) -> None:
    absent = [Finding(observation=name, status=Status.ABSENT) for name in observations(region)]
    back = label_report(describe(absent, region=region)[0], region=region)
    assert {f.observation: f.status for f in back} == dict.fromkeys(observations(region), Status.ABSENT)
    for one in absent:
        assert [f.observation for f in label_report(describe([one], region=region)[0], region=region)] == [
            one.observation
        ]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_set_comes_back(data: st.DataObject) -> None:
    region = data.draw(st.sampled_from(VOLUMES))
    names = data.draw(st.lists(st.sampled_from(observations(region)), unique=True, min_size=1, max_size=6))
    sides, statuses = st.sampled_from((None, *Side)), st.sampled_from(list(Status))
    findings = []
    for name in names:
        status, side = data.draw(statuses), data.draw(sides)
        place = data.draw(st.sampled_from(places(region)))
        if status is Status.ABSENT:
            findings.append(Finding(observation=name, status=status))
        else:
            size = data.draw(st.sampled_from((None, Measurement(value=8, unit="mm"))))
            findings.append(finding(region, name, status, side, place, measurement=size))
    back = label_report(describe(findings, region=region)[0], region=region)
    assert {f.observation: details(f) for f in back} == {f.observation: details(f) for f in findings}


@pytest.mark.parametrize("region", REGIONS)
def test_a_normal_report_denies_and_states_nothing(region: str) -> None:
    found = label_report(*describe([], region=region), region=region)
    assert no_finding(found)
    assert len(found) >= 6
    assert set(states(found, region=region)) == set(observations(region))


@pytest.mark.parametrize("region", VOLUMES)
def test_a_vocabulary_is_sound(region: str) -> None:
    words = vocabulary(region)
    assert set(observations(region)) >= DRAWN[region]
    for table in words["observation"].values():
        assert table["sides"] in ("shared", "own", "none")
        assert table["wording"]
    named = [
        *(
            name
            for table in words["part"]
            for name in (*table["denies"], *table.get("states", {}), *table.get("hints", {}))
        ),
        *(name for table in (*words["collective"], *words["normal"]) for name in table["denies"]),
        *(name for table in words["bare"] for name in (*table["of"], table.get("otherwise", "none"))),
    ]
    assert set(named) <= {*observations(region), "none"}
    assert set(words["midline"]["locations"]) <= set(words["location"])
    assert "" not in _all_spellings(words)


def _all_spellings(words: Any) -> set[str]:
    if isinstance(words, str):
        return set(spellings(words))
    values = words.values() if isinstance(words, dict) else words
    return (
        {spelling for value in values for spelling in _all_spellings(value)} if not isinstance(words, bool) else set()
    )


def test_every_mention_stands_for_itself() -> None:
    text = "8 mm nodule in the right upper lobe. Three nodules in the left lower lobe, up to 1.2 cm. No effusion."
    single = mentions(text, region="chest_ct")
    assert [(f.observation, f.evidence) for f in single] == [
        ("nodule", "8 mm nodule in the right upper lobe."),
        ("nodule", "Three nodules in the left lower lobe, up to 1.2 cm."),
        ("pleural_effusion", "No effusion."),
    ]
    assert details(single[0]) == (Status.PRESENT, Side.RIGHT, "upper lobe", None, None, 8.0)
    assert details(single[1]) == (Status.PRESENT, Side.LEFT, "lower lobe", None, 3, 12.0)
    merged, _ = sorted(label_report(text, region="chest_ct"), key=lambda f: f.observation)
    assert details(merged) == (Status.PRESENT, Side.BILATERAL, "upper lobe", None, 3, 12.0)


@pytest.mark.parametrize("call", [label_report, mentions])
def test_a_region_without_words_is_refused(call: Any) -> None:
    with pytest.raises(ConfigError, match=r"^region: expected one of chest_radiograph, chest_ct, .*; found 'other'; "):
        call("Effusion.", region="other")


def test_a_language_without_the_region_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "italian").mkdir()
    monkeypatch.setattr("mmfm.text.phrases.FOLDER", tmp_path)
    with pytest.raises(ConfigError, match=r"'italian'.*'head'"):
        label_report("Emorragia.", region="head", language="italian")


def test_a_radiograph_states_sizes_too() -> None:
    nodule = next(iter(label_report("A 2 x 1.5 cm nodule in the left upper lobe, 3 cm from the pleura.")))
    assert details(nodule) == (Status.PRESENT, Side.LEFT, "upper lobe", None, None, 20.0)
