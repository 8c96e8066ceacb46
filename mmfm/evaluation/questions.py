"""Answers to questions about images, scored beside answers that never looked at one.

    answers = read_answers("answers.jsonl")           # {"question_id": "vqa_rad-9", "answer": "yes"} a line
    card = score_questions(answers, val, train, np.random.default_rng(0))
    card.write(out)                                   # out/scorecard.json

Many questions are answered rightly by a system that never sees the image: the question and other questions suffice. So
the answer given most often in training, and that of the training question with the most similar words, stand beside
every score. The interval is over images: the questions of one are drawn together.

Sources: Rajpurkar et al., EMNLP 2016 (normalisation, exact match and token F1 of SQuAD 1.1).
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mmfm import __version__
from mmfm.data.manifest import ManifestQuestion, ManifestRow, read_manifest
from mmfm.errors import ManifestError
from mmfm.evaluation.intervals import LEVEL, MIN_PATIENTS, ROUNDS, Estimate, patient_resamples
from mmfm.evaluation.references import read_lines
from mmfm.evaluation.resampling import Difference, Resampled
from mmfm.evaluation.results import check_folder
from mmfm.files import write_whole
from mmfm.jsonable import from_json, to_json

HEADLINE = ("exact_match_closed", "exact_match_open", "token_f1_open", "yes_no_accuracy")
"""The scores that are compared with each control: one family of Holm's correction. All are better when higher."""

CONTROLS = ("majority_answer", "text_only", "shuffled_images", "mean_image")
"""The controls that every card has, or names as not run; the last two need the model and arrive as answers."""

POLICY = {
    "normalisation": "SQuAD 1.1: lower case, punctuation dropped, a / an / the dropped, blanks joined; a reference of "
    "which nothing would be left is compared in lower case",
    "exact_match": "normalised answer equal to the normalised reference; mean over questions",
    "token_f1": "F1 of the words of the normalised answer against those of the reference; mean over questions",
    "yes_no_accuracy": "of questions whose reference is yes or no: the answer's first word is that word, and the other "
    "does not follow anywhere in it",
    "closed, open": "the kind of the manifest; a question without one counts in the overall scores alone",
    "types": "a question of two types counts in each",
    "missing or empty answer": "wrong, and counted",
    "majority_answer": "the most frequent training answer to questions of the same types and kind; where there is "
    "none, of the same kind, or of all; the first in the manifest wins a tie",
    "text_only": "the answer of the training question with the most similar words (cosine of tf-idf, words and pairs "
    "of words); of several as similar the most frequent answer",
    "comparison": f"interval of the paired difference above 0, and its p by Holm over {', '.join(HEADLINE)} below "
    f"{1 - LEVEL:.2f}",
    "intervals": f"percentile bootstrap over patients (images, where the source states no patient), {ROUNDS} rounds, "
    f"{LEVEL:.0%}; none for questions of fewer than {MIN_PATIENTS}",
}
"""What decides the numbers, in words."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a system answers to one question; ``None`` where it says nothing."""

    question_id: str
    answer: str | None

    def __post_init__(self) -> None:
        if not isinstance(self.question_id, str) or not self.question_id:
            raise ValueError("question_id: expected text, found none")
        if not isinstance(self.answer, str | None):
            raise ValueError(f"answer: expected text or null, found {type(self.answer).__name__}")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with what it belongs to."""

    question_id: str
    patient_id: str
    asked: ManifestQuestion


@dataclass(frozen=True, kw_only=True)
class QuestionCard:
    """The scores of the answers to the questions of some studies, beside their controls."""

    questions: int
    """All are scored."""
    images: int
    """Studies with questions."""
    answered: int
    empty: int
    """Answers without any text; they are scored as wrong."""
    missing: int
    """Questions without an answer; they are scored as wrong too."""
    metrics: dict[str, Estimate]
    controls: dict[str, dict[str, Estimate]]
    controls_not_run: dict[str, str]
    """Control to what is missing."""
    differences: dict[str, dict[str, Difference]]
    """Control to score of ``HEADLINE`` to answers minus control, paired."""
    policy: dict[str, Any]
    policy_sha256: str
    """Of ``policy`` as compact JSON with sorted keys."""

    def to_json(self) -> dict[str, Any]:
        """Returns the card as JSON values."""
        return to_json(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> QuestionCard:
        """Returns the card of ``to_json``."""
        return from_json(cls, value)

    def write(self, out: str | Path) -> None:
        """Writes ``scorecard.json`` into the folder ``out``; the file appears whole or not at all."""
        write_whole(Path(out) / "scorecard.json", json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")

    def lines(self) -> list[str]:
        """Returns what was scored, each headline score beside its controls, and what may be said of it."""
        lines = [f"{self.questions} of {self.questions} questions about {self.images} images scored"]
        for count, what in ((self.missing, "no answer"), (self.empty, "an empty answer")):
            if count:
                lines.append(f"{what} to {count} of {self.questions} questions: scored as wrong")
        for name in (name for name in HEADLINE if name in self.metrics):
            lines.append(f"{name}: {_words(self.metrics[name])}, n {self.metrics[name].n}")
            for control, scores in self.controls.items():
                verdict = self.differences[control][name].verdict
                lines.append(f"  {control.replace('_', ' ')}: {_words(scores[name])}; {verdict}")
        lines += [f"{name.replace('_', ' ')} not run: {why}" for name, why in self.controls_not_run.items()]
        return lines


def read_answers(path: str | Path) -> tuple[Answer, ...]:
    """Returns the answers of a file, in its order.

    Raises:
        ManifestError: the file is absent, a line breaks the schema (named by its number), or a question is repeated.
    """
    return read_lines(path, _answer, schema='an object {"question_id", "answer"}', key="question_id", noun="question")


def write_answers(answers: Iterable[Answer], path: str | Path) -> None:
    """Writes one line a question; the file appears whole or not at all."""
    write_whole(Path(path), "".join(json.dumps(vars(answer)) + "\n" for answer in answers))


def questions_of(rows: Sequence[ManifestRow]) -> list[Question]:
    """Returns the questions of the studies in their order.

    The id of a question is its ``question_id`` in the manifest or, where it has none, ``<study_uid>#<number>``,
    numbered from 1 in its study.
    """
    return [
        Question(question_id=asked.question_id or f"{row.study_uid}#{number}", patient_id=row.patient_id, asked=asked)
        for row in rows
        for number, asked in enumerate(row.questions, start=1)
    ]


def majority_answers(questions: Sequence[Question], train: Sequence[Question]) -> tuple[Answer, ...]:
    """Returns for each question the most frequent training answer to questions of its types and kind."""
    frequent: dict[Any, Counter[str]] = {}
    for each in (question.asked for question in train):
        for group in ((each.question_types, each.kind), each.kind, "all"):
            frequent.setdefault(group, Counter())[each.answer.lower()] += 1
    answers = []
    for question in questions:
        groups = ((question.asked.question_types, question.asked.kind), question.asked.kind, "all")
        ((answer, _),) = next(frequent[group] for group in groups if group in frequent).most_common(1)
        answers.append(Answer(question_id=question.question_id, answer=answer))
    return tuple(answers)


def text_only_answers(questions: Sequence[Question], train: Sequence[Question]) -> tuple[Answer, ...]:
    """Returns for each question the answer of the training question with the most similar words."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # `mmfm --help` would wait for it

    known = [question.asked for question in train]
    vectors = TfidfVectorizer(token_pattern=r"(?u)\w+", ngram_range=(1, 2), sublinear_tf=True)
    train_TW = vectors.fit_transform([each.question for each in known])
    asked_QW = vectors.transform([question.asked.question for question in questions])
    answers = []
    for question, asked_W in zip(questions, asked_QW, strict=True):  # all at once would be gigabytes for some sources
        similar_T = (asked_W @ train_TW.T).toarray().ravel()
        nearest = np.flatnonzero(similar_T >= similar_T.max() - 1e-9)
        ((answer, _),) = Counter(known[i].answer.lower() for i in nearest).most_common(1)
        answers.append(Answer(question_id=question.question_id, answer=answer))
    return tuple(answers)


def score_questions(
    answers: Sequence[Answer],
    rows: Sequence[ManifestRow],
    train_rows: Sequence[ManifestRow],
    generator: np.random.Generator,
    *,
    controls: Mapping[str, Sequence[Answer]] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> QuestionCard:
    """Scores answers beside their controls, on the same resamples.

    Args:
        answers: at most one for each question of ``rows``; one that is missing or empty counts as wrong.
        rows: the studies scored.
        train_rows: the studies that the system was trained on; the image-blind controls learn from them. Without any
            question these controls are named as not run.
        generator: draws the bootstrap.
        controls: name to answers made elsewhere, such as those of the same model to shuffled images.
        inputs: what pins the card to its inputs, such as hashes of the files and the commit; stands in the policy.

    Raises:
        ManifestError: the studies have no question, an answer is to none of them or repeated, or an image or patient
            is in training too.
    """
    questions, train = questions_of(rows), questions_of(train_rows)
    if not questions:
        raise ManifestError(
            "questions", expected="studies with questions", found="none", fix="name a manifest and split that has them"
        )
    _check_apart(rows, train_rows)
    made, not_run = {}, dict.fromkeys(CONTROLS[2:], "answers of the same model to such images")
    if train:
        made = {"majority_answer": majority_answers(questions, train), "text_only": text_only_answers(questions, train)}
    else:
        not_run = dict.fromkeys(CONTROLS[:2], "training questions") | not_run
    every = {**made, **(controls or {})}
    resamples_RQ = patient_resamples([question.patient_id for question in questions], generator=generator)
    given = in_question_order(answers, questions)
    own = _resampled(given, questions, resamples_RQ)
    theirs = {
        name: _resampled(in_question_order(each, questions, where=name), questions, resamples_RQ)
        for name, each in every.items()
    }
    policy: dict[str, Any] = {
        **POLICY,
        "versions": {name: version(name) for name in ("numpy", "scikit-learn")} | {"mmfm": __version__},
        "inputs": dict(inputs or {}),
    }
    answered = sum(bool((answer or "").strip()) for answer in given)
    return QuestionCard(
        questions=len(questions),
        images=sum(bool(row.questions) for row in rows),
        answered=answered,
        empty=len(answers) - answered,
        missing=len(questions) - len(answers),
        metrics=own.estimates(),
        controls={name: control.estimates() for name, control in theirs.items()},
        controls_not_run={name: why for name, why in not_run.items() if name not in every},
        differences={name: own.differences(control, name, among=HEADLINE) for name, control in theirs.items()},
        policy=policy,
        policy_sha256=hashlib.sha256(json.dumps(policy, sort_keys=True, separators=(",", ":")).encode()).hexdigest(),
    )


def evaluate_answers(
    *, answers: Path, manifest: Path, split: str, train_manifest: Path | None, out: Path, seed: int = 0
) -> QuestionCard:
    """Scores a file of answers, and writes ``scorecard.json`` and ``answers.jsonl`` into the folder ``out``.

    Args:
        answers: one answer a line.
        manifest: holds the studies with their questions.
        split: of the studies scored.
        train_manifest: holds the training studies, in its split ``train``; None leaves out what learns from them.
        out: the folder to write.
        seed: of the bootstrap.

    Raises:
        ManifestError: see ``score_questions``; or a file is absent or breaks its schema.
    """
    given, rows = read_answers(answers), read_manifest(manifest).split(split)
    train = read_manifest(train_manifest).split("train") if train_manifest is not None else ()
    inputs = {
        f"{name}_sha256": hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in (("answers", answers), ("manifest", manifest))
    }
    check_folder(out)
    card = score_questions(given, rows, train, np.random.default_rng(seed), inputs=inputs)
    write_answers(given, out / "answers.jsonl")
    card.write(out)
    return card


def in_question_order(
    answers: Sequence[Answer], questions: Sequence[Question], *, where: str = "answers"
) -> list[str | None]:
    """Returns the text of the answer to each question, ``None`` where there is none.

    Raises:
        ManifestError: an answer is to no question of these, or a question is answered twice; messages count.
    """
    by_question = {answer.question_id: answer.answer for answer in answers}
    unknown = len(by_question.keys() - {question.question_id for question in questions})
    repeated = len(answers) - len(by_question)
    if unknown or repeated:
        raise ManifestError(
            where,
            expected=f"at most one answer to each of the {len(questions)} questions scored, and no other",
            found=f"{unknown} to unknown questions, {repeated} repeated",
            fix="answer the questions of this manifest and split",
        )
    return [by_question.get(question.question_id) for question in questions]


def normalise(text: str | None) -> str:
    """Returns the text as SQuAD 1.1 compares it."""
    bare = "".join(sign for sign in (text or "").lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


@dataclass(frozen=True, kw_only=True)
class Answers:
    """How N answers compare with their references; statistics of each, which are only resampled."""

    exact_N: np.ndarray
    """float64, 1 where the answer is the reference."""
    f1_N: np.ndarray
    """float64, token F1."""
    yes_no_N: np.ndarray
    """float64, 1 where the reference is yes or no and the answer says so; 0 elsewhere."""
    groups: dict[str, np.ndarray]
    """Name of a score to which questions it is of, bool (N,)."""

    @classmethod
    def of(cls, given: Sequence[str | None], questions: Sequence[Question]) -> Answers:
        """Returns the statistics of the answers to ``questions``, in their order."""
        asked = [question.asked for question in questions]
        kinds = np.array([each.kind or "" for each in asked])
        binary = np.array([normalise(each.answer) in ("yes", "no") for each in asked], dtype=bool)
        every = np.ones(len(asked), dtype=bool)
        groups = {"exact_match": every, "token_f1": every, "yes_no_accuracy": binary}
        groups |= {
            f"{score}_{kind}": kinds == kind for kind in ("closed", "open") for score in ("exact_match", "token_f1")
        }
        for name in sorted({name for each in asked for name in each.question_types}):
            of_type = np.array([name in each.question_types for each in asked], dtype=bool)
            groups |= {f"exact_match.type.{name}": of_type, f"yes_no_accuracy.type.{name}": of_type & binary}
        for name in sorted({each.organ for each in asked if each.organ}):
            of_organ = np.array([each.organ == name for each in asked], dtype=bool)
            groups |= {f"exact_match.organ.{name}": of_organ, f"yes_no_accuracy.organ.{name}": of_organ & binary}
        pairs = [(answer, each.answer) for answer, each in zip(given, asked, strict=True)]
        return cls(
            exact_N=np.array([_exact(*pair) for pair in pairs], dtype=float),
            f1_N=np.array([_token_f1(*pair) for pair in pairs]),
            yes_no_N=np.array([_says(*pair) for pair in pairs], dtype=float),
            groups={name: group for name, group in groups.items() if group.any()},
        )

    def take(self, index: np.ndarray) -> Answers:
        """Returns the statistics of the questions at ``index``."""
        return Answers(
            exact_N=self.exact_N[index],
            f1_N=self.f1_N[index],
            yes_no_N=self.yes_no_N[index],
            groups={name: group[index] for name, group in self.groups.items()},
        )

    def scores(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each score, of shape (R,), for R weightings of the questions; NaN where none was drawn."""
        of = {"exact_match": self.exact_N, "token_f1": self.f1_N, "yes_no_accuracy": self.yes_no_N}
        scores = {}
        for name, group in self.groups.items():
            values_N = next(values for score, values in of.items() if name.startswith(score))
            drawn_R = weights_RN @ group
            right_R = weights_RN @ (values_N * group)
            scores[name] = np.divide(right_R, drawn_R, out=np.full(len(drawn_R), np.nan), where=drawn_R > 0)
        return scores

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Returns of each score the number of questions and, of yes/no accuracy, how many are answered rightly."""
        return {
            name: (int(group.sum()), int(self.yes_no_N[group].sum()) if name.startswith("yes_no") else None)
            for name, group in self.groups.items()
        }


def _resampled(given: Sequence[str | None], questions: Sequence[Question], resamples_RQ: np.ndarray) -> Resampled:
    """The scores of one set of answers; of fewer than ``MIN_PATIENTS`` there is no interval."""
    answers = Answers.of(given, questions)
    resampled = Resampled.of([answers], resamples_RQ)
    patients = np.array([question.patient_id for question in questions])
    few = {name for name, group in answers.groups.items() if len(np.unique(patients[group])) < MIN_PATIENTS}
    return resampled.without_rounds(few)


def _check_apart(rows: Sequence[ManifestRow], train_rows: Sequence[ManifestRow]) -> None:
    """Refuses studies whose image or patient is in training too: their questions would be known."""
    both = {
        "patients": {row.patient_id for row in rows} & {row.patient_id for row in train_rows},
        "images": _pictures(rows) & _pictures(train_rows),
    }
    if any(both.values()):
        raise ManifestError(
            "questions",
            expected="no patient and no image both scored and trained on",
            found=", ".join(f"{len(shared)} {what} in both" for what, shared in both.items()),
            fix="split by image and patient, with all their questions",
        )


def _pictures(rows: Sequence[ManifestRow]) -> set[str]:
    return {series.sha256 for row in rows for series in row.series if series.sha256}


def _compared(answer: str | None, reference: str) -> tuple[str, str]:
    """Returns both in the form that is compared; see ``POLICY``."""
    if normalise(reference):
        return normalise(answer), normalise(reference)
    return " ".join((answer or "").lower().split()), " ".join(reference.lower().split())


def _exact(answer: str | None, reference: str) -> bool:
    answer, reference = _compared(answer, reference)
    return answer == reference


def _token_f1(answer: str | None, reference: str) -> float:
    given, wanted = (text.split() for text in _compared(answer, reference))
    common = (Counter(given) & Counter(wanted)).total()
    return 2 * common / (len(given) + len(wanted))


def _says(answer: str | None, reference: str) -> bool:
    """Whether a yes/no question is answered as its reference has it."""
    reference = normalise(reference)
    other = {"yes": "no", "no": "yes"}.get(reference)
    words = normalise(answer).split()
    return other is not None and words[:1] == [reference] and other not in words


def _answer(value: Any) -> Answer:
    if not isinstance(value, dict):
        raise ValueError(f"a line of type {type(value).__name__}")
    if unknown := sorted(set(value) - {"question_id", "answer"}):
        raise ValueError(f"unknown fields {unknown}")
    if missing := [name for name in ("question_id", "answer") if name not in value]:
        raise ValueError(f"no field {', '.join(missing)}")
    return Answer(**value)


def _words(estimate: Estimate) -> str:
    if estimate.low is None:
        return f"{estimate.value:.3f} (no interval, fewer than {MIN_PATIENTS} patients)"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
