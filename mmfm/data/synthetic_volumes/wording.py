"""The reports of drawn volumes: findings and lesions to a radiologist's prose, varied by a seed.

Every lesion that is named has its place and size from the findings alone, the diffuse ones their severity, and what is
absent is said as usual reports say it. The choice of words never depends on a side, so that a mirrored patient has the
same report with left and right exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mmfm.data.synthetic_volumes.drawing import DrawnVolume
from mmfm.report import Finding, Lesion, Sections, Side, Status
from mmfm.text.wording import LESIONS_DESCRIBED

_INDICATIONS = {
    "chest_ct": (
        "Shortness of breath.",
        "Cough for three weeks.",
        "Chest pain.",
        "Weight loss, evaluate the chest.",
        "Abnormal chest radiograph.",
        "Fall from standing height.",
        "Preoperative evaluation.",
        "Follow-up.",
    ),
    "abdomen": (
        "Abdominal pain.",
        "Weight loss.",
        "Abnormal liver function tests.",
        "Microscopic hematuria.",
        "Nausea and vomiting.",
        "Staging of a known malignancy.",
        "Preoperative evaluation.",
        "Follow-up.",
    ),
    "head": (
        "Headache.",
        "Confusion.",
        "Weakness of sudden onset.",
        "First seizure.",
        "Dizziness and unsteady gait.",
        "Memory loss.",
        "Visual disturbance.",
        "Follow-up.",
    ),
}
_TECHNIQUES = (
    "CT of the {part} {contrast}.",
    "Axial CT images of the {part} were obtained {contrast}.",
    "Helical CT of the {part} {contrast}.",
)
_CONTRAST = {
    None: "without intravenous contrast",
    "arterial": "with intravenous contrast in the arterial phase",
    "portal": "with intravenous contrast in the portal venous phase",
}
_HEAD_TECHNIQUES = (
    "MRI of the brain without contrast: T1, T2, FLAIR and diffusion-weighted images.",
    "Noncontrast MRI of the brain with T1, T2, FLAIR and DWI sequences.",
    "Multisequence MRI of the head without contrast, including T1, T2, FLAIR and DWI.",
)
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def write_report(drawn: DrawnVolume, rng: np.random.Generator) -> tuple[Sections, tuple[Finding, ...]]:
    """Writes the report of a drawn volume.

    Args:
        drawn: its region, labels and findings are read, its images are not.
        rng: chooses among wordings.

    Returns:
        All sections, and ``drawn.findings`` with ``evidence``: the sentence of the findings section that states each.
        The indication is drawn apart from the findings and gives nothing away.
    """
    report = _Writer(drawn, rng)
    {"chest_ct": _chest, "abdomen": _abdomen, "head": _head}[drawn.region](report)
    techniques = _HEAD_TECHNIQUES if drawn.region == "head" else _TECHNIQUES
    part = "abdomen" if drawn.region == "abdomen" else "chest"
    sections = Sections(
        indication=report.pick(*_INDICATIONS[drawn.region]),
        technique=report.pick(*techniques).format(part=part, contrast=_CONTRAST[drawn.contrast]),
        comparison="None.",
        findings=" ".join(report.sentences),
        impression=report.impression(),
    )
    return sections, tuple(replace(f, evidence=report.evidence[f.observation]) for f in drawn.findings)


@dataclass
class _Writer:
    """A report in the making."""

    drawn: DrawnVolume
    rng: np.random.Generator
    sentences: list[str] = field(default_factory=list)
    conclusions: list[str] = field(default_factory=list)
    evidence: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.found = {finding.observation: finding for finding in self.drawn.findings}
        self.in_cm = self.pick("mm", "mm", "cm") == "cm"

    def pick(self, *options: str) -> str:
        return options[int(self.rng.integers(len(options)))]

    def size(self, mm: float) -> str:
        whole = round(mm)  # the same millimetres in both units
        return f"{whole / 10:.1f} cm" if self.in_cm else f"{whole} mm"

    def say(self, *options: str) -> None:
        self.sentences.append(self.pick(*options))

    def state(self, name: str, sentence: str, conclusion: str) -> None:
        self.sentences.append(_capital(sentence))
        self.evidence[name] = self.sentences[-1]
        self.conclusions.append(_capital(conclusion))

    def absent(self, *names: str) -> list[str]:
        """Returns those of ``names`` that are known to be absent."""
        return [name for name in names if self.drawn.labels.get(name) is Status.ABSENT]

    def deny(self, words: dict[str, str]) -> None:
        """Says in one sentence which observations of ``words`` are absent, if any is."""
        if names := self.absent(*words):
            listed = _listed([words[name] for name in names], "or")
            self.say(f"There is no {listed}.", f"No {listed}.", f"No {listed} is seen.")

    def impression(self) -> str:
        if len(self.conclusions) < 2 or self.pick("numbered", "plain") == "plain":
            return " ".join(self.conclusions)
        return " ".join(f"{number}. {text}" for number, text in enumerate(self.conclusions, start=1))

    def lesions(self, name: str, *nouns: str) -> None:
        """States the lesions of a finding, if it is present, by one of ``nouns``, singular: each with place and size.

        Three at most are described; the others are counted, with the size of the largest.
        """
        if name not in self.found:
            return
        noun = self.pick(*nouns)
        lesions = self.found[name].lesions
        sizes = [self.size(lesion.diameter_mm) for lesion in lesions]
        places = [_place(name, lesion) for lesion in lesions]
        if len(lesions) == 1:
            size, place = sizes[0], places[0]
            self.state(
                name,
                self.pick(
                    f"There is {_an(size)} {size} {noun} in the {place}.",
                    f"{_an(size)} {size} {noun} is seen in the {place}.",
                    f"{_an(noun)} {noun} in the {place} measures {size}.",
                    f"{noun} in the {place} measuring {size}.",
                ),
                self.pick(f"{size} {noun} in the {place}.", f"{noun} in the {place}, {size}."),
            )
            return
        plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
        many = f"{_NUMBERS[len(lesions)]} {plural}"
        start = self.pick(f"There are {many}", f"{many} are present", f"{many} are seen")
        shown = range(min(len(lesions), LESIONS_DESCRIBED))
        if len(set(places)) == 1:
            measured = _listed([sizes[n] for n in shown], "and")
            text = f"{start} in the {places[0]}, measuring {measured}"
        else:
            each = [f"{sizes[n]} in the {places[n]}" for n in shown]
            # Not "the largest in .., the others in ..": a labeller takes the first place for all of them.
            text = f"{start}{self.pick(':', ', measuring')} {_listed(each, 'and')}"
        if more := len(lesions) - len(shown):
            one = more == 1
            rest = f"{_NUMBERS[more]} further {noun if one else plural} {'measures' if one else 'measure up to'} "
            text += f"; {rest}{sizes[len(shown)]}"
        among = "larger" if len(lesions) == 2 else "largest"
        self.state(
            name,
            f"{text}.",
            self.pick(
                f"{many}, the {among} measuring {sizes[0]} in the {places[0]}.",
                f"{many} measuring up to {sizes[0]}.",
            ),
        )


# ------------------------------------------------------------------------------------------------------------- chest


def _chest(report: _Writer) -> None:
    pick, found = report.pick, report.found
    report.lesions("nodule", "nodule", "pulmonary nodule", "nodule")
    _consolidation(report)
    if emphysema := found.get("emphysema"):
        grade = emphysema.severity
        report.state(
            "emphysema",
            pick(f"There is {grade} emphysema.", f"{grade} diffuse emphysema.", f"{grade} emphysema is present."),
            pick(f"{grade} emphysema.", f"Emphysema, {grade}."),
        )
    lungs = {"nodule": "pulmonary nodule", "consolidation": "focal consolidation", "emphysema": "emphysema"}
    if not found.keys() & {*lungs, "pneumothorax", "pleural_effusion"}:
        report.say("The lungs are clear.", "Lungs are clear bilaterally.", "The lungs are clear without nodule.")
    report.deny(lungs)
    _pleura(report)
    if heart := found.get("cardiomegaly"):
        grade = heart.severity
        report.state(
            "cardiomegaly",
            pick(
                f"The heart is {grade}ly enlarged.",
                f"There is {grade} cardiomegaly.",
                f"{grade} enlargement of the heart.",
            ),
            pick(f"{grade} cardiomegaly.", f"Cardiomegaly, {grade}."),
        )
    else:
        report.say("Heart size is normal.", "The heart is normal in size.", "The heart is not enlarged.")
    report.deny({"pericardial_effusion": "pericardial effusion", "lymphadenopathy": "lymphadenopathy"})
    _fractures(report)
    if not report.conclusions:
        report.conclusions.append(
            pick(
                "No acute abnormality in the chest.", "Normal CT of the chest.", "No acute cardiopulmonary abnormality."
            )
        )


def _consolidation(report: _Writer) -> None:
    if not (finding := report.found.get("consolidation")):
        return
    places = list(dict.fromkeys(_place("consolidation", lesion) for lesion in finding.lesions))
    where, count = _listed(places, "and"), len(finding.lesions)
    if count == 1:
        sentence = report.pick(
            f"There is consolidation in the {where}.",
            f"Airspace consolidation is present in the {where}.",
            f"Focal consolidation in the {where} with air bronchograms.",
        )
    else:
        many = f"{_NUMBERS[count]} areas of consolidation"
        sentence = report.pick(f"There are {many} in the {where}.", f"{many} are present in the {where}.")
    report.state(
        "consolidation",
        sentence,
        report.pick(f"Consolidation in the {where}.", f"{places[0]} consolidation.")
        if len(places) == 1
        else f"Consolidation in the {where}.",
    )


def _pleura(report: _Writer) -> None:
    pick, found = report.pick, report.found
    nouns = {
        "pleural_effusion": ("pleural effusion", "pleural effusions"),
        "pneumothorax": ("pneumothorax", "pneumothoraces"),
    }
    for name, (one, both) in nouns.items():
        if not (finding := found.get(name)):
            continue
        side, grade = finding.laterality, finding.severity
        be, article, noun = ("are", "", both) if side is Side.BILATERAL else ("is", "a ", one)
        report.state(
            name,
            pick(
                f"There {be} {article}{grade} {side} {noun}.",
                f"{grade} {side} {noun} {be} present.",
                f"{article}{grade} {side} {noun} {be} seen.",
            ),
            pick(f"{grade} {side} {noun}.", f"{side} {noun}, {grade}."),
        )
    report.deny({name: one for name, (one, _) in nouns.items()})


def _fractures(report: _Writer) -> None:
    pick = report.pick
    if not (finding := report.found.get("fracture")):
        report.say("No rib fracture is seen.", "No acute osseous abnormality.", "The bones are intact. No fracture.")
        return
    count = len(finding.lesions)
    sides = [lesion.laterality for lesion in finding.lesions]
    first, *other = dict.fromkeys(sides)
    if count == 1:
        report.state(
            "fracture",
            pick(
                f"There is a fracture of a {first} rib.",
                f"A {first} rib fracture is present.",
                f"Fracture of one {first} rib.",
            ),
            pick(f"{first} rib fracture.", f"Fracture of a {first} rib."),
        )
        return
    many = _NUMBERS[count]
    if other:
        split = f"{_NUMBERS[sides.count(first)]} on the {first} and {_NUMBERS[sides.count(other[0])]} on the {other[0]}"
        report.state(
            "fracture",
            pick(f"There are {many} rib fractures, {split}.", f"{many} rib fractures are present, {split}."),
            pick(f"{many} rib fractures, {split}.", f"Bilateral rib fractures, {many} in total."),
        )
        return
    report.state(
        "fracture",
        pick(
            f"There are {many} {first} rib fractures.",
            f"{many} {first} rib fractures are present.",
            f"Fractures of {many} {first} ribs.",
        ),
        pick(f"{many} {first} rib fractures.", f"Fractures of {many} {first} ribs."),
    )


# ----------------------------------------------------------------------------------------------------------- abdomen


def _abdomen(report: _Writer) -> None:
    pick, found = report.pick, report.found
    report.lesions("liver_lesion", "liver lesion", "hepatic lesion", "focal liver lesion")
    if "liver_lesion" not in found:
        report.say("The liver is normal. No liver lesion.", "No focal liver lesion.", "There is no hepatic lesion.")
    report.lesions("pancreas_lesion", "pancreatic lesion", "pancreas lesion")
    if "pancreas_lesion" not in found:
        report.say("The pancreas is unremarkable.", "No pancreatic lesion.", "There is no lesion of the pancreas.")
    report.say("The spleen is unremarkable.", "The spleen is normal in size.", "Normal spleen.")
    report.lesions("kidney_lesion", "renal lesion", "kidney lesion")
    if "kidney_lesion" not in found:
        report.say("The kidneys are unremarkable.", "No renal lesion.", "There is no kidney lesion.")
    if fluid := found.get("free_fluid"):
        grade = fluid.severity
        report.state(
            "free_fluid",
            pick(
                f"There is a {grade} amount of free fluid in the abdomen.",
                f"{grade} volume of free intraperitoneal fluid.",
                f"A {grade} amount of ascites is present.",
            ),
            pick(f"{grade} amount of free fluid.", f"Free fluid, {grade} in amount."),
        )
    else:
        report.say("There is no free fluid.", "No ascites or free fluid.", "No free intraperitoneal fluid is seen.")
    if not report.conclusions:
        report.conclusions.append(
            pick("No acute abnormality in the abdomen.", "Normal CT of the abdomen.", "No focal abdominal abnormality.")
        )


# -------------------------------------------------------------------------------------------------------------- head


def _head(report: _Writer) -> None:
    pick, found = report.pick, report.found
    if not found.keys() & {"brain_mass", "infarct", "intracranial_hemorrhage"}:
        report.say(
            "The brain parenchyma has normal signal.", "Normal signal of the brain.", "The brain is unremarkable."
        )
    report.lesions("brain_mass", "mass", "brain mass", "intra-axial mass")
    report.lesions("infarct", "acute infarct", "infarct", "acute infarct")
    report.lesions("intracranial_hemorrhage", "intraparenchymal hemorrhage", "parenchymal hemorrhage")
    report.deny(
        {"infarct": "acute infarct", "intracranial_hemorrhage": "intracranial hemorrhage", "brain_mass": "mass"}
    )
    if ventricles := found.get("hydrocephalus"):
        grade = ventricles.severity
        report.state(
            "hydrocephalus",
            pick(
                f"There is {grade} hydrocephalus.",
                f"The ventricles are {grade}ly dilated, consistent with hydrocephalus.",
                f"{grade} hydrocephalus with dilated lateral ventricles.",
            ),
            pick(f"{grade} hydrocephalus.", f"Hydrocephalus, {grade}."),
        )
    else:
        report.say(
            "The ventricles are normal in size.",
            "There is no hydrocephalus.",
            "The ventricles and sulci are normal in size. No hydrocephalus.",
        )
    if not report.conclusions:
        report.conclusions.append(
            pick("No acute intracranial abnormality.", "Normal MRI of the brain.", "Normal MRI of the head.")
        )


def _place(name: str, lesion: Lesion) -> str:
    """Returns such as ``right upper lobe``, ``lower pole of the left kidney``, ``pancreatic head``."""
    assert lesion.location is not None
    if name == "kidney_lesion":
        return f"{lesion.location} of the {lesion.laterality} kidney"
    return f"{lesion.laterality} {lesion.location}" if lesion.laterality else lesion.location


def _listed(parts: Sequence[str], word: str) -> str:
    return f" {word} ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _an(text: str) -> str:
    """Returns the article before such as ``8 mm``, ``11 mm``, ``1.1 cm``, ``acute infarct``."""
    number = text.split(" ")[0].split(".")[0]
    return "an" if text[0] in "aeiou8" or number in ("11", "18") else "a"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
