"""Reports of drawn volumes: every fact is in the text, the mirrored twin's has the sides exchanged and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mmfm.data.synthetic_volumes.wording import _INDICATIONS, write_report
from mmfm.report import Finding, Lesion, Measurement, Side, Status
from mmfm.text import split_sentences

LEFT, RIGHT, BOTH = Side.LEFT, Side.RIGHT, Side.BILATERAL
OTHER = {LEFT: RIGHT, RIGHT: LEFT}


def lesion(diameter, side, location):
    return Lesion(center_mm=(0.0, 0.0, 0.0), diameter_mm=diameter, laterality=side, location=location)


def finding(observation, *lesions, **details):
    """Returns a present finding as the anatomies give it: of ``lesions``, or with the details of a diffuse one."""
    if lesions:
        sides = {one.laterality for one in lesions}
        details |= {
            "laterality": lesions[0].laterality if len(sides) == 1 else Side.BILATERAL,
            "count": len(lesions),
            "measurement": Measurement(value=lesions[0].diameter_mm, unit="mm"),
            "lesions": lesions,
        }
    return Finding(observation=observation, status=Status.PRESENT, **details)


NODULES = finding(
    "nodule",
    lesion(14, LEFT, "lower lobe"),
    lesion(9.4, RIGHT, "upper lobe"),
    lesion(8, RIGHT, "middle lobe"),
    lesion(5, LEFT, "upper lobe"),
)
STUDIES = {
    "many nodules": ("chest_ct", NODULES, finding("pleural_effusion", laterality=RIGHT, severity="small")),
    "one nodule": ("chest_ct", finding("nodule", lesion(8, RIGHT, "upper lobe"))),
    "airspace": (
        "chest_ct",
        finding("consolidation", lesion(60, LEFT, "lower lobe"), lesion(40, RIGHT, "upper lobe")),
        finding("pneumothorax", laterality=LEFT, severity="moderate"),
        finding("cardiomegaly", severity="severe"),
    ),
    "bones": (
        "chest_ct",
        finding("fracture", lesion(20, LEFT, "ribs"), lesion(19, LEFT, "ribs"), lesion(18, RIGHT, "ribs")),
        finding("emphysema", severity="mild"),
        finding("pleural_effusion", laterality=BOTH, severity="large"),
    ),
    "one rib": ("chest_ct", finding("fracture", lesion(20, LEFT, "ribs"))),
    "normal chest": ("chest_ct",),
    "belly": (
        "abdomen",
        finding("liver_lesion", lesion(11, None, "right hepatic lobe"), lesion(8, None, "right hepatic lobe")),
        finding("kidney_lesion", lesion(30, LEFT, "upper pole")),
        finding("free_fluid", severity="small"),
    ),
    "pancreas": ("abdomen", finding("pancreas_lesion", lesion(18, None, "pancreatic tail"))),
    "normal belly": ("abdomen",),
    "brain": (
        "head",
        finding("brain_mass", lesion(20, None, "brainstem"), lesion(9, LEFT, "cerebellum")),
        finding("infarct", lesion(40, RIGHT, "parietal lobe")),
        finding("hydrocephalus", severity="moderate"),
    ),
    "bleed": ("head", finding("intracranial_hemorrhage", lesion(33, LEFT, "basal ganglia"))),
    "normal head": ("head",),
}


@pytest.fixture(scope="module")
def written(drawn_volume):
    """Returns a function: name of a study and seed to its report, of the study or of its mirrored twin."""

    @cache
    def drawn(name, mirrored):
        region, *findings = STUDIES[name]
        return drawn_volume(region, *(exchanged(f) if mirrored else f for f in findings))

    def written(name, seed, *, mirrored=False):
        return write_report(drawn(name, mirrored), np.random.default_rng(seed))

    return written


def exchanged(finding):
    """Returns the finding with left and right exchanged."""
    lesions = tuple(replace(one, laterality=OTHER.get(one.laterality)) for one in finding.lesions)
    return replace(finding, laterality=OTHER.get(finding.laterality, finding.laterality), lesions=lesions)


def swapped(text):
    """Returns the text with left and right exchanged; a lobe of the liver keeps its name."""
    sides = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"(left|right|Left|Right)(?! hepatic)", lambda match: sides[match.group()], text)


@pytest.mark.parametrize("name", STUDIES)
def test_each_finding_has_its_sentence_and_an_impression(written, name):
    for seed in range(12):
        sections, findings = written(name, seed)
        sentences = split_sentences(sections.findings)
        assert [f.observation for f in findings] == [f.observation for f in STUDIES[name][1:]]
        for stated in findings:
            assert stated.evidence in sentences
        for part in (sections.findings, sections.impression):
            assert not re.search(r"\bNone\b|  |\.\.|\{", part)
            assert all(sentence[0].isupper() or sentence[0].isdigit() for sentence in split_sentences(part))
        assert sections.comparison == "None."
        assert bool(findings) != bool(re.search("Normal|No ", sections.impression))


@pytest.mark.parametrize("name", STUDIES)
def test_lesions_are_counted_placed_and_measured(written, name):
    for seed in range(12):
        sections, findings = written(name, seed)
        for stated in findings:
            text = stated.evidence.lower()
            if stated.severity:
                assert stated.severity in text
            if stated.laterality is Side.BILATERAL and not stated.lesions:
                assert "bilateral" in text
            count = len(stated.lesions)
            if count > 1:
                assert ("two", "three", "four")[count - 2] in text
                assert ("two", "three", "four")[count - 2] in sections.impression.lower() or count == 2
            for one in stated.lesions[:3]:
                assert one.laterality is None or one.laterality in text
                if stated.observation not in ("fracture", "consolidation"):
                    sizes = {f"{one.diameter_mm:.0f} mm", f"{one.diameter_mm / 10:.1f} cm"}
                    assert any(size in text for size in sizes)
                if stated.observation == "kidney_lesion":
                    assert f"{one.location} of the {one.laterality} kidney" in text
                elif stated.observation != "fracture":
                    assert " ".join(filter(None, (one.laterality, one.location))) in text
            if count > 3:
                assert re.search("one further .*nodule measures (5 mm|0.5 cm)", text)


@pytest.mark.parametrize("name", STUDIES)
def test_the_mirrored_twins_report_has_the_sides_exchanged_and_nothing_else(written, name):
    for seed in range(12):
        own, stated = written(name, seed)
        twin, mirrored = written(name, seed, mirrored=True)
        for section in ("indication", "technique", "findings", "impression"):
            assert swapped(getattr(own, section)) == getattr(twin, section)
        assert [swapped(f.evidence) for f in stated] == [f.evidence for f in mirrored]


def test_the_indication_and_technique_give_nothing_away(written):
    """The same words whatever is found: an indication does not depend on the findings but by the seed's stream."""
    for region, ill, healthy in (("chest_ct", "many nodules", "normal chest"), ("head", "bleed", "normal head")):
        for name in (ill, healthy):
            assert {written(name, seed)[0].indication for seed in range(200)} == set(_INDICATIONS[region])
    for region, words in _INDICATIONS.items():
        text = " ".join(words).lower()
        assert not re.search("nodule|effusion|fracture|mass|lesion|infarct|hemorrhage|hydrocephalus|fluid|stroke", text)
        assert len(words) >= 5, region


@pytest.mark.parametrize(
    ("region", "contrast", "words"),
    [
        ("chest_ct", None, "CT .*chest .*without intravenous contrast"),
        ("chest_ct", "arterial", "CT .*chest .*with intravenous contrast in the arterial phase"),
        ("abdomen", "portal", "CT .*abdomen .*with intravenous contrast in the portal venous phase"),
        ("head", None, "MRI .*without contrast.*T1, T2, FLAIR|Noncontrast MRI .*T1, T2, FLAIR"),
    ],
)
def test_the_technique_names_modality_part_and_contrast_or_sequences(drawn_volume, region, contrast, words):
    drawn = replace(drawn_volume(region), contrast=contrast)
    for seed in range(12):
        sections, _ = write_report(drawn, np.random.default_rng(seed))
        assert re.search(words, sections.technique)


def test_what_is_absent_is_said_and_nothing_that_is_present_is_denied(written):
    for seed in range(12):
        assert re.search(r"[Nn]o pulmonary nodule", written("airspace", seed)[0].findings)
        assert not re.search(r"[Nn]o pleural effusion", written("many nodules", seed)[0].findings)
        assert re.search(r"[Nn]o pneumothorax", written("many nodules", seed)[0].findings)
        assert not re.search(r"[Nn]o [^.]*fracture|intact", written("bones", seed)[0].findings)
        assert re.search(r"[Nn]o [^.]*intracranial hemorrhage", written("brain", seed)[0].findings)
        assert "clear" not in written("airspace", seed)[0].findings
        assert "clear" in written("normal chest", seed)[0].findings


def test_a_statement_has_several_wordings(written):
    for name in STUDIES:
        texts = {written(name, seed)[0].findings for seed in range(60)}
        assert len(texts) > 11, name


def test_sizes_have_the_article_of_how_they_are_spoken(written):
    texts = " ".join(written(name, seed)[0].findings for name in ("one nodule", "pancreas") for seed in range(60))
    assert "an 8 mm" in texts.lower()
    assert "an 18 mm" in texts.lower()
    assert "a 0.8 cm" in texts.lower()
    assert not re.search(r"\ba (8|18) mm", texts.lower())
