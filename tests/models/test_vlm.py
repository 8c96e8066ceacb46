import pytest
import torch

from mmfm.data.collate import collate
from mmfm.io import read_studies
from mmfm.models import VLM, Connector, LanguageModelConfig


def _batch(processor, study, uids=("a",)):
    pixels = processor.pixels(study)
    return collate([processor.query(uid, pixels) for uid in uids], pad_token_id=processor.tokenizer.pad_token_id)


def test_vision_tokens_stand_in_the_places_of_the_image_tokens(tiny_model, tiny_processor, two_pictures):
    (study,) = read_studies(two_pictures)
    encoded = tiny_model.encode(_batch(tiny_processor, study))
    ids = torch.tensor([tiny_processor.prompt_ids(2 * 4, None, ())])
    embedded = tiny_model.embed(ids, encoded.tokens_VE)
    places = ids == tiny_processor.image_token_id
    torch.testing.assert_close(embedded[places], encoded.tokens_VE)


def test_a_prompt_for_another_number_of_pictures_is_refused(tiny_model, tiny_processor, two_pictures):
    (study,) = read_studies(two_pictures)
    encoded = tiny_model.encode(_batch(tiny_processor, study))
    with pytest.raises(ValueError, match="expected 8"):
        tiny_model.embed(torch.tensor([tiny_processor.prompt_ids(4, None, ())]), encoded.tokens_VE)


def test_a_study_is_encoded_the_same_in_any_batch(tiny_model, tiny_processor, two_pictures):
    (study,) = read_studies(two_pictures)
    alone = tiny_model.encode(_batch(tiny_processor, study))
    beside = tiny_model.encode(_batch(tiny_processor, study, uids=("a", "b", "c")))
    torch.testing.assert_close(beside.heads.present_BO[2:], alone.heads.present_BO, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(beside.features_BE[1:2], alone.features_BE, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "mlp", "resampler"])
def test_every_connector_fits_between(tiny_config, tiny_processor, two_pictures, kind):
    config = VLM.Config(
        encoder=tiny_config.encoder,
        connector=Connector.Config(kind=kind, num_tokens=4),
        language=LanguageModelConfig(hidden_size=48, num_layers=1, num_heads=2, vocab_size=400),
    )
    model = config.build(tiny_processor)
    (study,) = read_studies(two_pictures)
    assert model.encode(_batch(tiny_processor, study)).tokens_VE.shape == (2 * 4, 48)
