import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mmfm.errors import ConfigError
from mmfm.models.language import IMAGE_TOKEN, LanguageModelConfig

TEXTS = ["Small left pleural effusion.", "The heart is enlarged."] * 20
SMALL = LanguageModelConfig(hidden_size=32, num_layers=1, num_heads=2, vocab_size=400)


def test_the_image_token_is_one_token_and_text_survives():
    tokenizer = SMALL.build_tokenizer(TEXTS)
    ids = tokenizer(f"{IMAGE_TOKEN} Größe 5 µm", add_special_tokens=False)["input_ids"]
    assert ids[0] == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) and ids.count(ids[0]) == 1
    assert tokenizer.decode(ids[1:]) == " Größe 5 µm"


def test_a_scratch_model_has_room_for_every_token():
    tokenizer = SMALL.build_tokenizer(TEXTS)
    model = SMALL.build(tokenizer)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_local_folder_gives_its_weights_and_grows_for_the_image_token(tmp_path):
    tokenizer = SMALL.build_tokenizer(TEXTS)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer) - 1, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2,
        )
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    local = LanguageModelConfig(name=str(tmp_path))
    model = local.build(local.build_tokenizer([]))
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    ours = model.get_input_embeddings().weight[: len(tokenizer) - 1]
    assert torch.equal(ours, theirs.get_input_embeddings().weight)


def test_a_local_folder_without_weights_gives_its_architecture(tmp_path):
    tokenizer = SMALL.build_tokenizer(TEXTS)
    SMALL.build(tokenizer).config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert LanguageModelConfig(name=str(tmp_path)).build(tokenizer).config.hidden_size == 32


def test_a_name_that_cannot_be_had_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"model\.language\.name") as caught:
        LanguageModelConfig(name="nobody/nothing-at-all").build_tokenizer([])
    assert "\n" not in str(caught.value)
