"""Drafts and references to a score card.

    card = score_card(
        predictions=drafts, references=val, train=train, controls={"shuffled_images": ...},
        generator=np.random.default_rng(0), provenance=provenance,
    )

Scores of each study are computed once and only resampled, with the same resamples for the drafts and every control.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mmfm.errors import ManifestError
from mmfm.evaluation.calibration import calibration_scores
from mmfm.evaluation.clinical import all_labels, all_observations
from mmfm.evaluation.conformal import conformal_scores
from mmfm.evaluation.controls import CEILING, CONTROLS, constant_report, nearest_neighbour, reference_text
from mmfm.evaluation.curves import Curves
from mmfm.evaluation.external import ExternalRun, score_externally
from mmfm.evaluation.intervals import MIN_PATIENTS, patient_resamples
from mmfm.evaluation.leaks import Leaks, find_leaks
from mmfm.evaluation.per_study import FAMILIES, Compared
from mmfm.evaluation.policy import ABNORMAL, UNSEEN, UNSEEN_IMAGE, policy, policy_sha256
from mmfm.evaluation.predictions import Prediction, have_text, in_order
from mmfm.evaluation.references import GROUPINGS, Reference
from mmfm.evaluation.resampling import Resampled, Statistics
from mmfm.evaluation.resources import Resources
from mmfm.evaluation.robustness import Robustness
from mmfm.evaluation.scorecard import (
    HEADLINE,
    LOWER_IS_BETTER,
    Coverage,
    Provenance,
    Scorecard,
    Scores,
)
from mmfm.evaluation.subgroups import Grouping, subgroup_scores
from mmfm.evaluation.wording import normalise
from mmfm.report import Status

CALIBRATION_ROUNDS = 200
"""Of the bootstrap: three sets of probabilities with a slope each are refitted in every round."""

_DRAFTS, _SUBGROUPS = "drafts", "subgroups by {}"
ALL = "all studies"

_NEEDS = {
    "constant_report": "no training reports were given",
    "shuffled_images": "needs the model, or its drafts from another patient's images",
    "mean_image": "needs the model, or its drafts from the mean training image",
    "text_only": "needs the model, or its drafts from the indication alone",
    "nearest_neighbour": "needs the images of both splits, and a frozen encoder",
    "heads_template": "needs the model's finding heads, or such drafts",
    "robustness": "not run; needs the model, and `--robustness N`",
}
"""What is missing where a control was neither made nor handed in, or robustness not measured."""


def score_card(
    *,
    predictions: Sequence[Prediction],
    references: Sequence[Reference],
    train: Sequence[Reference],
    controls: Mapping[str, Sequence[Prediction]],
    generator: np.random.Generator,
    provenance: Provenance,
    features_NE: np.ndarray | None = None,
    train_features_NE: np.ndarray | None = None,
    wording_sections: Sequence[str] = ("findings",),
    families: Sequence[str] = FAMILIES,
    groupings: Sequence[str] = GROUPINGS,
    thresholds: Mapping[str, float] | None = None,
    not_run: Mapping[str, str] | None = None,
    leaks: Leaks | None = None,
    robustness: Sequence[Robustness] = (),
    resources: Resources | None = None,
) -> Scorecard:
    """Scores drafts beside their controls.

    The reference text is always made here, the constant report where there are training reports, the nearest neighbour
    where features are given; one in ``controls`` takes the place of the nearest neighbour, but not of the
    others. A control may have probabilities and no text, or the reverse: it is then compared on what it has.

    Args:
        predictions: the drafts, at most one for each of ``references``.
        references: the studies scored.
        train: the studies that the model was trained on; may be empty.
        controls: name to drafts made elsewhere; see ``CONTROLS`` for the usual names.
        generator: draws the bootstrap.
        provenance: stands in the card, and in its policy by the hashes.
        features_NE: frozen image features of ``references``.
        train_features_NE: those of ``train``.
        wording_sections: sections of the report that wording metrics compare.
        families: which of ``FAMILIES`` are scored.
        groupings: which of ``GROUPINGS`` subgroups are told apart by.
        thresholds: label to the P(present) from which on it counts, chosen on other studies.
        not_run: control, or ``robustness``, to why it could not be made, where that is known better than here.
        leaks: where pictures were looked at too; else the texts are looked at here.
        robustness: what altered pictures did, where that was measured.
        resources: what the drafts cost, where that was measured.

    Raises:
        ManifestError: predictions do not fit the references, a patient is scored and trained on, or a control handed in
            has the name of one that is made here.
    """
    check_apart(references, train)
    made = {CEILING: reference_text(references)}
    reasons = {**_NEEDS, **(not_run or {})}
    if train:
        try:
            made["constant_report"] = constant_report(references, train, sections=wording_sections)
        except ManifestError as error:
            reasons["constant_report"] = f"expected {error.expected}; found {error.found}"
    if features_NE is not None and train_features_NE is not None:
        made["nearest_neighbour"] = nearest_neighbour(
            references,
            train,
            features_NE=features_NE,
            train_features_NE=train_features_NE,
            sections=wording_sections,
        )
    if taken := sorted({CEILING, "constant_report"} & made.keys() & controls.keys()):
        raise ManifestError(
            "controls",
            expected="drafts of other controls: these are made here, and a weaker one would flatter",
            found=", ".join(taken),
            fix="leave it out, or give it another name",
        )
    every = {**made, **controls}
    drafts = in_order(predictions, references)
    beside = {
        name: in_order(every[name], references, where=name) for name in sorted(every, key=[*CONTROLS, *controls].index)
    }
    compared = Compared.of(references, sections=wording_sections, families=families, thresholds=thresholds)
    statistics = compared.statistics(drafts)
    control_statistics = {name: compared.statistics(drafted) for name, drafted in beside.items()}
    external = _external(compared, drafts, beside)
    for name, each in {_DRAFTS: statistics, **control_statistics}.items():
        each += [external.scores[name]] if name in external.scores else []

    if leaks is None and train:
        leaks = find_leaks(references, train)
    parts = {
        ALL: np.ones(len(references), dtype=bool),
        ABNORMAL: np.array([compared.is_abnormal(i) for i in range(len(references))], dtype=bool),
    }
    if leaks is not None:
        parts[UNSEEN] = leaks.has_text & ~leaks.near_text
        if leaks.near_image is not None and leaks.near_image.any():
            parts[UNSEEN_IMAGE] = ~leaks.near_image
    patients = [reference.patient for reference in references]
    whose = {
        name: len({patient for patient, inside in zip(patients, part, strict=True) if inside})
        for name, part in parts.items()
    }
    resamples_RN = patient_resamples(patients, generator=generator)
    scored = {
        name: _scores(
            statistics,
            control_statistics,
            np.flatnonzero(part),
            resamples_RN,
            external.lower_is_better,
            few=whose[name] < MIN_PATIENTS,
        )
        for name, part in parts.items()
        if part.any()
    }
    stated = policy(wording_sections, provenance, external.versions, thresholds or {})
    return Scorecard(
        **vars(scored.pop(ALL)),
        provenance=provenance,
        policy=stated,
        policy_sha256=policy_sha256(stated),
        coverage=_coverage(drafts, references, compared),
        subsets=scored,
        controls_not_run={name: reasons[name] for name in CONTROLS if name not in beside},
        not_scored={
            **_not_scored(compared, drafts),
            **external.not_run,
            **{f"scores of {name}": "no study is one" for name, part in parts.items() if not part.any()},
            **({} if robustness else {"robustness": reasons["robustness"]}),
            **({} if resources else {"resources": "not measured; the drafts came as a file"}),
            **({} if leaks else {"leaks": "no training studies were given"}),
            **_untold(references, groupings),
        },
        notes=(
            *external.notes,
            *_unstated(drafts, references),
            *(
                f"{name}: {count} patients, too few for intervals, and nothing is shown to be better"
                for name, count in whose.items()
                if 0 < count < MIN_PATIENTS
            ),
        ),
        **_of_probabilities(compared, drafts, generator, resamples_RN),
        subgroups=_subgroups(compared, drafts, groupings),
        leaks=leaks.counts() if leaks is not None else None,
        robustness=tuple(robustness),
        resources=resources,
    )


def _scores(
    statistics: Sequence[Statistics],
    control_statistics: Mapping[str, Sequence[Statistics]],
    index: np.ndarray,
    resamples_RN: np.ndarray,
    lower_is_better: Collection[str],
    *,
    few: bool,
) -> Scores:
    """The scores of the studies at ``index``, on the rounds of all studies; of too few patients without intervals."""
    resamples_RN = resamples_RN[:, index]
    lower = {*LOWER_IS_BETTER, *lower_is_better}

    def resampled(each: Sequence[Statistics]) -> Resampled:
        resampled = Resampled.of([whole.take(index) for whole in each], resamples_RN)
        return resampled.without_rounds(resampled.draws) if few else resampled

    own, theirs = resampled(statistics), {name: resampled(each) for name, each in control_statistics.items()}
    external = [name for name in own.values if name.startswith("external.")]
    return Scores(
        n=len(index),
        metrics=own.estimates(),
        controls={name: control.estimates() for name, control in theirs.items()},
        differences={
            name: own.differences(control, name, among=[*HEADLINE, *external], lower_is_better=lower)
            for name, control in theirs.items()
            if name != CEILING
        },
    )


def _external(
    compared: Compared, drafts: Sequence[Prediction | None], beside: Mapping[str, Sequence[Prediction | None]]
) -> ExternalRun:
    """What the user's command says of the drafts and of all controls that have text; nothing where not asked."""
    if "external" not in compared.families:
        return ExternalRun()
    silent = [Prediction(study_uid=r.study_uid, findings=None, impression=None) for r in compared.references]
    sets = {
        name: [draft or nothing for draft, nothing in zip(each, silent, strict=True)]
        for name, each in {_DRAFTS: drafts, **beside}.items()
        if have_text(each)
    }
    return score_externally(sets, compared.references)


def _of_probabilities(
    compared: Compared,
    drafts: Sequence[Prediction | None],
    generator: np.random.Generator,
    resamples_RN: np.ndarray,
) -> dict[str, Any]:
    probabilities = compared.probabilities(drafts)
    if "probabilities" not in compared.families or probabilities is None or not probabilities.qualifying():
        return {}
    patients = [reference.patient for reference in compared.references]
    return {
        "calibration": calibration_scores(
            probabilities, patients=patients, generator=generator, resamples_RN=resamples_RN[:CALIBRATION_ROUNDS]
        ),
        "conformal": conformal_scores(probabilities, patients=patients, generator=generator),
        "curves": Curves.of(probabilities),
    }


def _subgroups(
    compared: Compared, drafts: Sequence[Prediction | None], groupings: Sequence[str]
) -> tuple[Grouping, ...]:
    """Groupings of which at least two groups are there, of the findings that drafts name."""
    if "findings" not in compared.families or not have_text(drafts):
        return ()
    groups = [reference.groups for reference in compared.references]
    untold = _untold(compared.references, groupings)
    told = [name for name in groupings if _SUBGROUPS.format(name) not in untold]
    present = compared.present(drafts)
    return subgroup_scores(
        groups,
        observations=present.observations,
        drafted_NO=present.drafted_NO,
        reference_NO=present.reference_NO,
        known_NO=present.known_NO,
        patients=[reference.patient for reference in compared.references],
        probabilities=compared.probabilities(drafts) if "probabilities" in compared.families else None,
        groupings=told,
    )


def _untold(references: Sequence[Reference], groupings: Sequence[str]) -> dict[str, str]:
    """Groupings that tell nothing apart, each with the reason."""
    reasons = {}
    for name in groupings:
        groups = {reference.groups.get(name) for reference in references} - {None}
        if len(groups) < 2:
            why = f"all that state it are {groups.pop()}" if groups else "no reference states it"
            reasons[_SUBGROUPS.format(name)] = why
    return reasons


def _not_scored(compared: Compared, drafts: Sequence[Prediction | None]) -> dict[str, str]:
    few = {}
    if unread := sum(not reference.has_vocabulary for reference in compared.references):
        why = f"{unread} of {len(compared.references)} studies are of a part of the body without a vocabulary"
        few["findings and errors of some studies"] = f"{why}; their texts are scored by wording alone"
    if "findings" in compared.families:
        named = {f.observation for found in compared.findings for f in found if f.status is Status.PRESENT}
        labelled = {name for r in compared.references for name, state in r.labels.items() if state is Status.PRESENT}
        if lacking := [name for name in all_observations(compared.regions) if name not in named]:
            few["findings against the reference text"] = f"no reference names {', '.join(lacking)}"
        if lacking := [name for name in all_labels(compared.regions) if name not in labelled]:
            few["findings against the labels"] = f"no study is labelled present for {', '.join(lacking)}"
    if "probabilities" not in compared.families:
        return few
    probabilities = compared.probabilities(drafts)
    if probabilities is None:
        return few | {"probabilities": "the drafts state none"}
    few |= {f"probabilities of {name}": why for name, why in probabilities.not_scored().items()}
    if without := [name for name, _ in probabilities.qualifying() if name not in compared.thresholds]:
        given = f"none was given for {', '.join(without)}" if compared.thresholds else "no thresholds were given"
        few["decisions at a frozen threshold"] = given
    if unknown := sorted(compared.thresholds.keys() - set(probabilities.labels)):
        few["thresholds without use"] = f"the drafts state no probability of {', '.join(unknown)}"
    return few


def _unstated(drafts: Sequence[Prediction | None], references: Sequence[Reference]) -> list[str]:
    """Returns how many labels count as 0 because the draft of their study says nothing of them and others do.

    Those of studies without a draft are told by the coverage.
    """
    names = {name for draft in drafts if draft for name in draft.finding_probabilities or ()}
    count = sum(
        name in names and name not in (draft.finding_probabilities or ()) and state in (Status.PRESENT, Status.ABSENT)
        for draft, reference in zip(drafts, references, strict=True)
        if draft and (draft.findings or draft.impression or draft.finding_probabilities)
        for name, state in reference.labels.items()
    )
    return (
        [f"{count} labels that the draft of their study gives no P count as P 0: other drafts state them"]
        if count
        else []
    )


def _coverage(drafts: Sequence[Prediction | None], references: Sequence[Reference], compared: Compared) -> Coverage:
    drafted = sum(bool(p and normalise(p.findings) + normalise(p.impression)) for p in drafts)
    missing = sum(p is None for p in drafts)
    return Coverage(
        studies=len(references),
        patients=len({reference.patient for reference in references}),
        patients_stated=all(reference.patient_id is not None for reference in references),
        drafted=drafted,
        empty=len(drafts) - missing - drafted,
        missing=missing,
        without_findings=sum(not text for text in compared.texts),
        without_text=sum(not normalise(r.report.findings) + normalise(r.report.impression) for r in references),
    )


def check_apart(references: Sequence[Reference], train: Sequence[Reference]) -> None:
    """Raises ManifestError where a patient or a study is scored and trained on."""
    shared = {reference.patient for reference in references} & {reference.patient for reference in train}
    studies = {reference.study_uid for reference in references} & {reference.study_uid for reference in train}
    if shared or studies:
        raise ManifestError(
            "studies scored",
            expected="no patient of the training studies",
            found=f"{len(shared)} patients and {len(studies)} studies in both",
            fix="split by patient, and score studies of others",
        )
