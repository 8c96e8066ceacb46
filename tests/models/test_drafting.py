from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from mmfm.io import read_studies
from mmfm.models import Draft, draft, load_checkpoint
from mmfm.models.checkpoint import Checkpoint, Facts, VolumeFacts
from mmfm.models.drafting import MAX_NEW_TOKENS, draft_text_only, encode_features, stream_draft
from mmfm.models.recipes import sample
from mmfm.report import Status
from mmfm.text import label_report


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


def test_volumes_are_drafted_alone_as_in_a_batch(
    volume_config, volume_model, volume_processor, drawn_abdomen, drawn_head
):
    config = volume_processor.config
    with torch.no_grad():
        volume_model.volume_heads.dense.bias += 4.0  # untaught heads have no peak that is looked at
    facts = Facts(
        operating_points={},
        sensitivity={},
        volumes=VolumeFacts(
            operating_points={"free_fluid": 0.0, "hydrocephalus": 0.0},
            lesion_points={name: 0.0 if name == "liver_lesion" else 1.0 for name in config.lesions},
        ),
    )
    checkpoint = Checkpoint(
        name="volumes", model=volume_model, processor=volume_processor, facts=facts, sha256="0" * 64,
        config=volume_config, card="",
    )  # fmt: skip
    studies = []
    for drawn in (drawn_abdomen, drawn_head):
        recipe = volume_processor.recipe(drawn.region)
        slabs, _ = sample({name: (array, drawn.affine) for name, array in drawn.images.items()}, recipe)
        studies.append((drawn.region, volume_processor._volume(slabs, recipe, drawn.images), None))
    abdomen, head = draft(checkpoint, studies)
    (alone,) = draft(checkpoint, studies[1:])
    assert (head.findings, head.decisions, head.prompt_sha256) == (alone.findings, alone.decisions, alone.prompt_sha256)
    assert (abdomen.kind, abdomen.region, abdomen.views) == ("CT of the abdomen", "abdomen", ())
    assert set(head.probabilities) == {"infarct", "brain_mass", "hydrocephalus", "normal"}, "its region's, and no other"
    decided = {finding.observation: finding for finding in abdomen.decisions}
    # What has a point for its lesions is stated by them alone: no infarct, whatever the whole study looks like.
    assert set(decided) == {"liver_lesion", "free_fluid"}
    assert [finding.observation for finding in head.decisions] == ["hydrocephalus"]
    assert decided["liver_lesion"].count == len(decided["liver_lesion"].lesions) > 0
    assert decided["free_fluid"].laterality is None
    assert decided["free_fluid"].severity in ("small", "moderate", "large")
    assert head.decisions[0].severity in ("mild", "moderate", "severe")
    stated = {f.observation for f in label_report(abdomen.findings, region="abdomen") if f.status is Status.PRESENT}
    assert stated == set(decided)
