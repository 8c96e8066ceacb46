from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mmfm.data.manifest import ManifestQuestion, ManifestRow, ManifestSeries
from mmfm.errors import ManifestError
from mmfm.evaluation.questions import (
    CONTROLS,
    HEADLINE,
    Answer,
    QuestionCard,
    majority_answers,
    normalise,
    questions_of,
    read_answers,
    score_questions,
    text_only_answers,
    write_answers,
)


def ask(question, answer, kind="closed", types=("PRES",), organ="CHEST", name=None):
    return ManifestQuestion(
        question=question, answer=answer, kind=kind, question_types=types, organ=organ, question_id=name
    )


def image(name, *questions, patient=None, split="val", sha256=None):
    return ManifestRow(
        study_uid=name,
        patient_id=patient or name,
        source="made_up",
        split=split,
        series=(ManifestSeries(series_uid=f"{name}.1", path=f"{name}.png", sha256=sha256),),
        questions=questions,
    )


def several(count, prefix, split):
    """Images with a yes/no question, another one, and where something lies; the answers can only be seen."""
    generator = np.random.default_rng(len(prefix) + count)
    return [
        image(
            f"{prefix}{i}",
            ask("Is there an effusion?", str(generator.choice(["yes", "no"]))),
            ask("Is this a CT image?", str(generator.choice(["Yes", "No"])), types=("MODALITY",), organ="HEAD"),
            ask("Where is the lesion?", str(generator.choice(["left lung", "right lung"])), "open", ("POS", "PRES")),
            split=split,
        )
        for i in range(count)
    ]


TRAIN, VAL = several(60, "train-", "train"), several(40, "v-", "val")


def right(rows):
    return [Answer(question_id=q.question_id, answer=q.asked.answer) for q in questions_of(rows)]


def score(answers, rows=VAL, train=TRAIN, **changes):
    return score_questions(answers, rows, train, np.random.default_rng(0), **changes)


def one(answer, reference, **fields):
    """The scores of a single answer to a single question."""
    card = score([Answer(question_id="q", answer=answer)], [image("v", ask("?", reference, name="q", **fields))], [])
    return {name: estimate.value for name, estimate in card.metrics.items()}


def test_right_answers_score_one_and_are_better_than_both_controls():
    card = score(right(VAL))
    assert {e.value for e in card.metrics.values()} == {1.0}
    assert list(card.controls) == ["majority_answer", "text_only"]
    for control in card.differences.values():
        assert list(control) == list(HEADLINE)
        assert all(d.better and d.low > 0 and d.verdict.startswith("better than ") for d in control.values())
    assert (card.questions, card.images, card.answered, card.empty, card.missing) == (120, 40, 120, 0, 0)
    assert card.metrics["exact_match"].n == 120
    assert (card.metrics["yes_no_accuracy"].n, card.metrics["yes_no_accuracy"].events) == (80, 80)
    assert card.metrics["exact_match.type.PRES"].n == 80, "a question of two types counts in each"
    assert (card.metrics["yes_no_accuracy.type.PRES"].n, card.metrics["yes_no_accuracy.organ.HEAD"].n) == (40, 40)
    assert "yes_no_accuracy.type.POS" not in card.metrics, "no reference of that type is yes or no"


def test_a_control_is_not_shown_to_be_better_than_itself():
    questions, train = questions_of(VAL), questions_of(TRAIN)
    for name, control in (("majority_answer", majority_answers), ("text_only", text_only_answers)):
        card = score(control(questions, train))
        assert card.metrics == card.controls[name]
        for difference in card.differences[name].values():
            assert (difference.value, difference.better) == (0.0, False)
            assert difference.verdict == f"not shown to be better than {name.replace('_', ' ')}"


def test_answers_that_do_not_look_are_not_better_than_controls_that_do_not_either():
    generator = np.random.default_rng(5)
    guessed = [replace(a, answer=str(generator.choice(["yes", "no", "left lung", "right lung"]))) for a in right(VAL)]
    assert not any(d.better for control in score(guessed).differences.values() for d in control.values())


def test_every_image_is_drawn_with_all_its_questions():
    """Ten questions of an image that are right or wrong together carry no more than one."""
    alone = [image(f"v{i}", ask("Is it?", "yes")) for i in range(40)]
    tenfold = [image(f"v{i}", *[ask("Is it?", "yes")] * 10) for i in range(40)]

    def half(rows):
        return [
            Answer(question_id=q.question_id, answer="yes" if int(q.patient_id[1:]) % 2 else "no")
            for q in questions_of(rows)
        ]

    widths = [card.metrics["exact_match"].high - card.metrics["exact_match"].low for card in (
        score(half(alone), alone), score(half(tenfold), tenfold)
    )]  # fmt: skip
    assert widths[0] == pytest.approx(widths[1])
    assert widths[0] == pytest.approx(2 * 1.96 * 0.5 / 40**0.5, rel=0.15), "as the normal approximation has it"


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("The right lung.", "right lung", 1, 1),
        ("X-ray", "xray", 1, 1),
        ("in the right upper lung", "right lung", 0, 2 * 2 / (4 + 2)),
        ("right right", "right lung", 0, 2 * 1 / 4),
        ("left", "right lung", 0, 0),
        ("", "right lung", 0, 0),
        (None, "right lung", 0, 0),
        ("vitamin a", "A", 0, 2 * 1 / 3),
        ("", "A", 0, 0),
        ("a", "A", 1, 1),
    ],
)
def test_exact_match_and_token_f1_are_those_of_squad(answer, reference, exact, f1):
    scores = one(answer, reference, kind="open")
    assert scores["exact_match_open"] == scores["exact_match"] == exact
    assert scores["token_f1_open"] == pytest.approx(f1, abs=1e-6)
    assert "yes_no_accuracy" not in scores


@pytest.mark.parametrize(
    ("answer", "reference", "says", "exact"),
    [
        ("Yes", "yes", 1, 1),
        ("Yes, there is an effusion.", "yes", 1, 0),
        ("No. There is none.", "yes", 0, 0),
        ("yes and no", "yes", 0, 0),
        ("There is: yes", "yes", 0, 0),
        ("not seen", "No", 0, 0),
        (None, "no", 0, 0),
    ],
)
def test_a_yes_no_question_is_answered_by_the_first_word(answer, reference, says, exact):
    scores = one(answer, reference)
    assert (scores["yes_no_accuracy"], scores["exact_match_closed"]) == (says, exact)


def test_normalisation():
    assert normalise(" The  Heart, an X-ray of a chest! ") == "heart xray of chest"
    assert normalise(None) == ""


def test_nothing_is_dropped_in_silence():
    answers = right(VAL)
    given = [*answers[:-3], replace(answers[-3], answer=" "), replace(answers[-2], answer=None)]
    card = score(given)
    assert (card.questions, card.answered, card.empty, card.missing) == (120, 117, 2, 1)
    assert card.metrics["exact_match"].value == pytest.approx(117 / 120)
    lines = "\n".join(card.lines())
    assert "120 of 120 questions about 40 images scored" in lines
    assert "no answer to 1 of 120 questions: scored as wrong" in lines
    assert "an empty answer to 2 of 120 questions: scored as wrong" in lines
    assert "better than text only" in lines
    assert "shuffled images not run: answers of the same model to such images" in lines


def test_no_answer_at_all_scores_zero():
    card = score([])
    assert {e.value for e in card.metrics.values()} == {0.0}
    assert (card.answered, card.missing) == (0, 120)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([Answer(question_id="other", answer="yes")], "1 to unknown questions, 0 repeated"),
        ([Answer(question_id="v-0#1", answer=x) for x in ("yes", "no")], "0 to unknown questions, 1 repeated"),
    ],
)
def test_unknown_and_repeated_answers_are_refused(answers, says):
    with pytest.raises(ManifestError, match=says) as error:
        score(answers)
    assert "v-0" not in str(error.value) and "\n" not in str(error.value)


def test_studies_without_questions_are_refused():
    with pytest.raises(ManifestError, match="studies with questions; found none"):
        score([], [image("v")])


@pytest.mark.parametrize("shared", ["patient", "image"])
def test_an_image_in_training_too_is_refused(shared):
    """Its paraphrased questions would be known."""
    asked = ask("Is there an effusion?", "yes")
    same = {"patient": {"patient": "p"}, "image": {"sha256": "0" * 64}}[shared]
    with pytest.raises(ManifestError, match=rf"1 {shared}s in both"):
        score([], [image("v", asked, **same)], [image("t", asked, split="train", **same)])


def test_controls_learn_from_training_questions_alone():
    train = [
        image("t1", ask("Is there air?", "Yes"), ask("Which plane?", "coronal", "open", ("PLANE",))),
        image("t2", ask("Is there fluid?", "no"), ask("Which plane is this?", "Axial", "open", ("PLANE",))),
        image("t3", ask("Is there any fluid?", "No"), ask("Which plane is it?", "axial", "open", ("PLANE",))),
    ]
    val = [
        image(
            "v",
            ask("Is there air?", "no"),
            ask("Which plane?", "sagittal", "open", ("PLANE",)),
            ask("What shape?", "round", "open", ("ATTRIB",)),
            ask("What shape?", "round", None, ()),
        )
    ]
    questions, known = questions_of(val), questions_of(train)
    assert [a.question_id for a in majority_answers(questions, known)] == ["v#1", "v#2", "v#3", "v#4"]
    assert [a.answer for a in majority_answers(questions, known)] == ["no", "axial", "axial", "no"]
    assert [a.answer for a in text_only_answers(questions, known)][:2] == ["yes", "coronal"]


def test_of_several_questions_as_similar_the_most_frequent_answer_is_taken():
    train = [image(f"t{i}", ask("Is there air?", answer)) for i, answer in enumerate(["yes", "no", "no"])]
    val = questions_of([image("v", ask("is there AIR", "yes"))])
    assert [a.answer for a in text_only_answers(val, questions_of(train))] == ["no"]


def test_controls_made_elsewhere_stand_beside_the_others_and_missing_ones_are_named():
    card = score(right(VAL), controls={"shuffled_images": right(VAL)})
    assert set(card.controls) | set(card.controls_not_run) == set(CONTROLS)
    assert list(card.controls_not_run) == ["mean_image"]
    assert card.differences["shuffled_images"]["exact_match_closed"].verdict.startswith("not shown")
    without = score(right(VAL), train=[])
    assert without.controls == {}
    assert without.controls_not_run["text_only"] == "training questions"


def test_few_images_give_no_interval():
    few = VAL[:5]
    card = score(right(few), few)
    assert all(e.low is None and e.high is None and e.value == 1 for e in card.metrics.values())
    assert not any(d.better for control in card.differences.values() for d in control.values())
    assert "no interval, fewer than 10 patients" in "\n".join(card.lines())


def test_a_card_is_written_and_pins_what_decides_its_numbers(tmp_path):
    card = score(right(VAL), inputs={"answers_sha256": "0" * 64})
    card.write(tmp_path)
    written = json.loads((tmp_path / "scorecard.json").read_text())
    assert QuestionCard.from_json(written) == card
    assert set(written["metrics"]["token_f1_open"]) == {"value", "low", "high", "n", "events"}
    assert card.policy["inputs"] == {"answers_sha256": "0" * 64}
    assert card.policy_sha256 != score(right(VAL)).policy_sha256
    assert card == score(right(VAL), inputs={"answers_sha256": "0" * 64}), "the same seed gives the same card"


def test_answers_come_back_as_they_were_written(tmp_path):
    answers = (Answer(question_id="a", answer="left\u2028lung"), Answer(question_id="b", answer=None))
    write_answers(answers, tmp_path / "answers.jsonl")
    assert read_answers(tmp_path / "answers.jsonl") == answers


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[]", "a line of type list"),
        ('{"question_id": "a"}', "no field answer"),
        ('{"question_id": "a", "answer": "x", "score": 1}', "unknown fields ['score']"),
        ('{"question_id": "a", "answer": 3}', "answer: expected text or null, found int"),
        ('{"question_id": 3, "answer": "x"}', "question_id"),
        ('{"question_id": "q", "answer": "x"}', "the question of line 1 again"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, says):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question_id": "q", "answer": "y"}\n' + line + "\n")
    with pytest.raises(ManifestError) as error:
        read_answers(path)
    assert "answers.jsonl line 2" in str(error.value) and says in str(error.value)
