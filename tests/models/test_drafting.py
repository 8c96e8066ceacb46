from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmfm.io import read_studies
from mmfm.models import Draft, draft, load_checkpoint
from mmfm.models.drafting import MAX_NEW_TOKENS, draft_text_only, encode_features, hold_to_decisions, stream_draft
from mmfm.models.processor import Drafted
from mmfm.report import Finding, Side, Status
from mmfm.text import OBSERVATIONS, describe, label_report


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


@pytest.fixture
def study(two_pictures, tiny_checkpoint):
    checkpoint = load_checkpoint(str(tiny_checkpoint))
    (read,) = read_studies(two_pictures)
    return checkpoint, ("study", checkpoint.processor.pixels(read), "cough")


def test_a_draft_states_what_the_heads_decide(study):
    checkpoint, one = study
    (drafted,) = draft(checkpoint, [one])
    points = checkpoint.facts.operating_points
    decided = {o for o, p in drafted.probabilities.items() if o in points and p >= points[o]}
    assert {f.observation for f in label_report(drafted.findings)} == decided == {"pleural_effusion"}
    assert drafted.finished and len(drafted.views) == 2


def test_a_study_is_drafted_the_same_alone_and_in_a_batch(study):
    checkpoint, (_, pixels, _) = study
    (alone,) = draft(checkpoint, [("study", pixels, None)])
    beside = draft(checkpoint, [("other", pixels, "a much longer indication than that"), ("study", pixels, None)])[1]
    assert (alone.findings, alone.impression, alone.prompt_sha256) == (
        beside.findings, beside.impression, beside.prompt_sha256,
    )  # fmt: skip
    for name, value in alone.probabilities.items():
        assert beside.probabilities[name] == pytest.approx(value, abs=1e-5)


def test_without_a_frontal_picture_no_side_is_stated(study):
    checkpoint, (uid, pixels, _) = study
    lateral = replace(pixels, views_S=torch.ones_like(pixels.views_S))
    (drafted,) = draft(checkpoint, [(uid, lateral, None)])
    assert drafted.decisions and all(f.laterality is None for f in drafted.decisions)


def test_tokens_are_counted_to_the_end_token_and_not_the_padding_of_the_batch(study):
    checkpoint, one = study
    (drafted,) = draft(checkpoint, [one])
    assert drafted.num_tokens == 1  # this checkpoint ends its text at once


def _talkative(checkpoint):
    """Takes the end token's lead away, so that random weights write on until the limit."""
    with torch.no_grad():
        table = checkpoint.model.language.get_input_embeddings().weight
        table[:, 0] = 0
    return checkpoint


def test_text_alone_is_drafted_without_any_picture_or_decision(study):
    checkpoint, _ = study
    _talkative(checkpoint)
    seen = []
    checkpoint.model.encoder.register_forward_hook(lambda *_: seen.append("a picture"))
    cough, other = draft_text_only(checkpoint, [("a", "cough"), ("b", "a much longer indication than that")])
    assert not seen
    assert (cough.probabilities, cough.decisions, cough.views) == ({}, (), ())
    assert cough.num_tokens == MAX_NEW_TOKENS and not cough.finished
    assert cough.prompt_sha256 != other.prompt_sha256
    (alone,) = draft_text_only(checkpoint, [("a", "cough")])
    assert (alone.findings, alone.impression) == (cough.findings, cough.impression) and alone.findings
    assert "Pleural effusion" not in str(cough.findings)  # which the heads of this checkpoint always decide


def test_the_prompt_of_text_alone_says_nothing_of_findings(study):
    processor = study[0].processor
    words = processor.tokenizer.decode(processor.prompt_ids(0, "cough", None))
    assert "Indication: cough" in words and "Findings:" in words
    assert "Present" not in words and "<image>" not in words
    assert "Present: nothing." in processor.tokenizer.decode(processor.prompt_ids(0, "cough", ()))


def test_a_stream_grows_and_ends_with_the_draft(study):
    checkpoint, one = study
    *pieces, last = stream_draft(checkpoint, one)
    assert isinstance(last, Draft) and last.findings == draft(checkpoint, [one])[0].findings
    assert all(after.startswith(before) for before, after in pairwise(pieces))


def test_an_error_in_the_stream_reaches_the_caller(study):
    checkpoint, (uid, pixels, _) = study
    checkpoint.processor.config = None
    with pytest.raises(AttributeError):
        list(stream_draft(checkpoint, (uid, pixels, None)))


def test_features_are_one_vector_a_study(study):
    checkpoint, (_, pixels, _) = study
    features = encode_features(checkpoint, pixels)
    assert features.shape == (checkpoint.model.encoder.num_features,) and features.dtype == torch.float32
