"""The reports of synthetic studies: structured findings and measurements to a radiologist's prose, varied by a seed.

Several wordings for each statement, sides and sizes from the findings alone, negatives as usual reports have them. The
choice of words never depends on a side, so that a mirrored study has the same report with left and right exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mmfm.report import Finding, Sections, Side

_INDICATIONS = (
    "Shortness of breath.",
    "Cough and fever.",
    "Chest pain.",
    "Preoperative evaluation.",
    "Dyspnea on exertion.",
    "Fall, chest wall pain.",
    "Evaluate for pneumonia.",
    "Follow-up.",
    "Weakness.",
    "Routine examination.",
)
_TECHNIQUES = (
    "PA and lateral views of the chest.",
    "Two views of the chest, PA and lateral.",
    "Frontal and lateral radiographs of the chest.",
)
_NUMBERS = ("no", "one", "two", "three")
_ORDINALS = {4: "fourth", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth"}


def write_report(
    findings: Sequence[Finding], counts: dict[Side, int], rng: np.random.Generator
) -> tuple[Sections, tuple[Finding, ...]]:
    """Writes the report of a study.

    Args:
        findings: what is present, at most one for each observation.
        counts: nodules on each side, in the order to name them.
        rng: chooses among wordings.

    Returns:
        All sections, and the findings with ``evidence``: the sentence of the findings section that states each.
    """

    def pick(*options: str) -> str:
        return options[int(rng.integers(len(options)))]

    def size(mm: float) -> str:
        return pick(f"{mm:.0f} mm", f"{mm / 10:.1f} cm")

    by_name = {finding.observation: finding for finding in findings}
    sentences: list[str] = []
    evidence: dict[str, str] = {}
    conclusions: list[str] = []

    def state(name: str, sentence: str, conclusion: str) -> None:
        sentences.append(sentence)
        evidence[name] = sentence
        conclusions.append(conclusion)

    device = by_name.get("support_devices")
    if device:
        _device(device, pick, state)
    heart = by_name.get("cardiomegaly")
    if heart:
        grade = heart.severity
        state(
            "cardiomegaly",
            pick(
                f"The cardiac silhouette is {_adverb(grade)} enlarged.",
                f"There is {grade} cardiomegaly.",
                f"The heart is {_adverb(grade)} enlarged. The mediastinal contours are unremarkable.",
            ),
            pick(f"{_capital(grade)} cardiomegaly.", "Cardiomegaly.", f"{_capital(grade)} enlargement of the heart."),
        )
        evidence["cardiomegaly"] = evidence["cardiomegaly"].split(". ")[0].rstrip(".") + "."
    else:
        sentences.append(
            pick(
                "The heart size and mediastinal contours are within normal limits.",
                "The cardiomediastinal silhouette is normal.",
                "Heart size is normal.",
                "The heart is normal in size. The mediastinum is unremarkable.",
            )
        )
    _lungs(by_name, counts, pick, size, state, sentences)
    _pleura(by_name, pick, size, state, sentences)
    fracture = by_name.get("fracture")
    if fracture:
        where = fracture.location
        several = fracture.count != 1
        noun = "fractures" if several else "fracture"
        be = "are" if several else "is"
        article = "" if several else "a "
        state(
            "fracture",
            pick(
                f"There {be} {article}displaced {noun} of the {where}.",
                f"{_capital(article)}{'Displaced' if several else 'displaced'} {noun} of the {where} {be} noted.",
                f"Displaced {noun} of the {where}.",
            ),
            pick(f"{_capital(fracture.laterality)} rib {noun}.", f"Displaced {noun} of the {where}."),
        )
    else:
        bones = pick(
            "No acute osseous abnormality.",
            "The osseous structures are intact.",
            "No displaced rib fracture is seen.",
            "",
        )
        if bones:
            sentences.append(bones)
    if not conclusions:
        conclusions.append(
            pick(
                "No acute cardiopulmonary abnormality.",
                "Normal chest radiograph.",
                "No acute cardiopulmonary process.",
                "No acute disease.",
            )
        )
    impression = conclusions[0] if len(conclusions) == 1 else _list(conclusions, pick)
    sections = Sections(
        indication=pick(*_INDICATIONS),
        technique=pick(*_TECHNIQUES),
        comparison="None.",
        findings=" ".join(sentences),
        impression=impression,
    )
    return sections, tuple(replace(f, evidence=evidence[f.observation]) for f in findings)


_Pick = Callable[..., str]
_State = Callable[[str, str, str], None]


def _device(device: Finding, pick: _Pick, state: _State) -> None:
    kind, tip = (device.location or "").split(", tip ")
    if device.laterality is None:
        state(
            "support_devices",
            pick(
                f"An endotracheal tube is present with its tip {tip}.",
                f"Endotracheal tube with the tip {tip}.",
                f"The tip of the endotracheal tube is {tip}.",
            ),
            pick("Endotracheal tube as described.", f"Endotracheal tube tip {tip}."),
        )
        return
    state(
        "support_devices",
        pick(
            f"{_capital(kind)} with its tip in the {tip}.",
            f"A {kind} terminates in the {tip}.",
            f"There is a {kind} with the tip projecting over the {tip}.",
        ),
        pick(f"{_capital(kind)} in place.", f"{_capital(kind)} with tip in the {tip}."),
    )


def _lungs(
    by_name: dict[str, Finding],
    counts: dict[Side, int],
    pick: _Pick,
    size: Callable[[float], str],
    state: _State,
    sentences: list[str],
) -> None:
    consolidation, edema, nodule = (by_name.get(name) for name in ("consolidation", "edema", "nodule"))
    if consolidation:
        where = consolidation.location
        state(
            "consolidation",
            pick(
                f"There is focal consolidation in the {where}.",
                f"Airspace consolidation is present in the {where}.",
                f"{_capital(where)} consolidation.",
                f"There is a consolidation in the {where} with ill-defined margins.",
            ),
            pick(f"{_capital(where)} consolidation.", f"Consolidation in the {where}."),
        )
    if edema:
        grade = edema.severity
        state(
            "edema",
            pick(
                f"There is {grade} bilateral pulmonary edema with perihilar haziness.",
                f"Bilateral perihilar haze and indistinct vessels, consistent with {grade} pulmonary edema.",
                f"{_capital(grade)} bilateral pulmonary edema.",
            ),
            pick(f"{_capital(grade)} pulmonary edema.", "Pulmonary edema."),
        )
    if nodule:
        _nodules(nodule, counts, pick, size, state)
    if not (consolidation or edema or nodule or "pneumothorax" in by_name or "pleural_effusion" in by_name):
        sentences.append(
            pick(
                "The lungs are clear.",
                "Lungs are clear bilaterally.",
                "The lungs are clear without focal consolidation.",
                "There is no focal consolidation or pulmonary edema.",
            )
        )
        return
    negatives = [] if consolidation else ["focal consolidation"]
    if not edema and pick("said", "unsaid") == "said":
        negatives.append("pulmonary edema")
    if negatives:
        sentences.append(pick("There is no ", "No ") + " or ".join(negatives) + ".")


def _nodules(
    nodule: Finding, counts: dict[Side, int], pick: _Pick, size: Callable[[float], str], state: _State
) -> None:
    assert nodule.measurement is not None
    assert nodule.count is not None
    largest = size(nodule.measurement.value)
    if nodule.count == 1:
        where = nodule.location
        state(
            "nodule",
            pick(
                f"There is a {largest} nodule in the {where}.",
                f"A single nodule measuring {largest} projects over the {where}.",
                f"Solitary nodule in the {where} measuring {largest}.",
            ),
            pick(f"{_capital(nodule.laterality)} lung nodule measuring {largest}.", f"Nodule in the {where}."),
        )
        return
    many = _NUMBERS[nodule.count]
    among = "larger" if nodule.count == 2 else "largest"
    if nodule.laterality is Side.BILATERAL:
        parts = [f"{_NUMBERS[n]} in the {side} lung" for side, n in counts.items()]
        state(
            "nodule",
            pick(
                f"There are {many} bilateral nodules, {parts[0]} and {parts[1]}, the {among} measuring {largest}.",
                f"{_capital(many)} bilateral pulmonary nodules are seen, {parts[0]} and {parts[1]}, "
                f"up to {largest} in diameter.",
            ),
            pick(f"{_capital(many)} bilateral pulmonary nodules.", f"Bilateral nodules measuring up to {largest}."),
        )
        return
    side = nodule.laterality
    state(
        "nodule",
        pick(
            f"There are {many} nodules in the {side} lung, the {among} measuring {largest}.",
            f"{_capital(many)} {side} lung nodules are present, up to {largest} in diameter.",
            f"{_capital(many)} nodules project over the {side} lung, the {among} measuring {largest}.",
        ),
        pick(f"{_capital(many)} {side} lung nodules.", f"Nodules in the {side} lung measuring up to {largest}."),
    )


def _pleura(
    by_name: dict[str, Finding], pick: _Pick, size: Callable[[float], str], state: _State, sentences: list[str]
) -> None:
    effusion, pneumothorax = by_name.get("pleural_effusion"), by_name.get("pneumothorax")
    if effusion:
        side, grade = effusion.laterality, effusion.severity
        plural = side is Side.BILATERAL
        noun = "pleural effusions" if plural else "pleural effusion"
        state(
            "pleural_effusion",
            pick(
                f"There {'are' if plural else 'is a'} {grade} {side} {noun}.",
                f"{_capital(grade)} {side} {noun} {'are' if plural else 'is'} present.",
                f"Blunting of the {side} costophrenic {'angles' if plural else 'angle'}, consistent with "
                f"{'' if plural else 'a '}{grade} {side} {noun}.",
            ),
            pick(f"{_capital(grade)} {side} {noun}.", f"{_capital(side)} {noun}, {grade}."),
        )
    if pneumothorax:
        assert pneumothorax.measurement is not None
        side, grade, apical = pneumothorax.laterality, pneumothorax.severity, size(pneumothorax.measurement.value)
        state(
            "pneumothorax",
            pick(
                f"There is a {grade} {side} pneumothorax with {apical} of apical separation.",
                f"{_capital(grade)} {side} pneumothorax, measuring {apical} at the apex.",
                f"A {side} pleural line is visible, consistent with a {grade} {side} pneumothorax of {apical} "
                "at the apex.",
            ),
            pick(f"{_capital(grade)} {side} pneumothorax.", f"{_capital(side)} pneumothorax, {grade}."),
        )
    if not effusion and not pneumothorax:
        sentences.append(
            pick(
                "There is no pleural effusion or pneumothorax.",
                "No pleural effusion or pneumothorax is seen.",
                "No pneumothorax. No pleural effusion.",
                "No evidence of pleural effusion or pneumothorax.",
            )
        )
    elif not effusion:
        sentences.append(pick("No pleural effusion.", "There is no pleural effusion."))
    elif not pneumothorax:
        sentences.append(pick("No pneumothorax.", "There is no pneumothorax.", "No pneumothorax is seen."))


def rib_location(side: Side, numbers: Sequence[int], part: str) -> str:
    """Returns such as ``right lateral sixth and seventh ribs``."""
    names = [_ORDINALS[number] for number in numbers]
    return f"{side} {part} {' and '.join(names)} {'rib' if len(names) == 1 else 'ribs'}"


def _list(conclusions: list[str], pick: _Pick) -> str:
    if pick("numbered", "plain") == "plain":
        return " ".join(conclusions)
    return " ".join(f"{number}. {text}" for number, text in enumerate(conclusions, start=1))


def _capital(text: str | None) -> str:
    assert text is not None
    return text[:1].upper() + text[1:]


def _adverb(grade: str | None) -> str:
    return {"mild": "mildly", "moderate": "moderately", "severe": "severely"}[grade or ""]
