from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mmfm.batch import IGNORE_INDEX
from mmfm.data.example import Example
from mmfm.errors import CheckpointError, ConfigError, ScopeError
from mmfm.io import read_studies
from mmfm.models.processor import Processor, decisions_text
from mmfm.report import Finding, Sections, Side, Status
from mmfm.study import Study


def _example(study: Study) -> Example:
    effusion = Finding(observation="pleural_effusion", status=Status.PRESENT, laterality=Side.LEFT)
    return Example(
        study_uid=study.study_uid,
        study=study,
        region="chest_radiograph",
        indication="cough XXXX",
        target=Sections(findings="Small left pleural effusion.", impression="Effusion."),
        target_findings=(effusion,),
        states={"pleural_effusion": Status.PRESENT, "cardiomegaly": Status.ABSENT},
        report_findings=(effusion,),
        codes=("Lung",),
    )


def test_codes_are_given_not_given_or_unknown(tiny_processor: Processor, two_pictures):
    example = _example(*read_studies(two_pictures))
    config = replace(tiny_processor.config, codes=("Lung", "Spine"))
    coded = Processor(config, tiny_processor.tokenizer)
    assert coded(example).codes_K.tolist() == [1.0, 0.0]
    assert coded(replace(example, codes=None)).codes_K.isnan().all()
    assert tiny_processor(example).codes_K.shape == (0,)


def test_prompt_holds_the_image_tokens_of_every_picture(tiny_processor: Processor, two_pictures):
    (study,) = read_studies(two_pictures)
    inputs = tiny_processor(_example(study))
    assert int((inputs.input_ids_T == tiny_processor.image_token_id).sum()) == 2 * 4
    assert inputs.pixels_SCHW.shape == (2, 1, 64, 64)


def test_only_the_report_and_its_end_are_learned(tiny_processor: Processor, two_pictures):
    (study,) = read_studies(two_pictures)
    inputs = tiny_processor(_example(study))
    learned = inputs.labels_T[inputs.labels_T != IGNORE_INDEX]
    drafted = tiny_processor.parse(learned.tolist())
    assert (drafted.findings, drafted.impression, drafted.finished) == (
        "Small left pleural effusion.",
        "Effusion.",
        True,
    )
    text = tiny_processor.tokenizer.decode(inputs.input_ids_T[inputs.labels_T == IGNORE_INDEX])
    assert "Present: left pleural effusion." in text and "cough" in text and "XXXX" not in text


def test_states_and_sides_follow_the_order_of_the_observations(tiny_processor: Processor, two_pictures):
    (study,) = read_studies(two_pictures)
    inputs = tiny_processor(_example(study))
    assert inputs.states_O[:2].tolist() == [0.0, 1.0] and inputs.states_O[2].isnan()
    assert inputs.sides_O2[1].tolist() == [1.0, 0.0] and inputs.sides_O2[0].isnan().all()


def test_text_that_was_cut_is_not_finished(tiny_processor: Processor):
    ids = tiny_processor.tokenizer("The heart is", add_special_tokens=False)["input_ids"]
    assert not tiny_processor.parse(ids).finished


def test_bit_depth_and_inversion_of_storage_do_not_change_the_pixels(tiny_processor: Processor, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "eight.png")
    Image.fromarray(pixels.astype(np.uint16) * 16).save(tmp_path / "sixteen.png")
    eight, sixteen = (
        tiny_processor.pixels(read_studies(tmp_path / name)[0]).pixels_SCHW for name in ("eight.png", "sixteen.png")
    )
    torch.testing.assert_close(eight, sixteen, atol=1e-5, rtol=0)


def test_left_stays_left(tiny_processor: Processor, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 100, (64, 64), dtype=np.uint8)
    pixels[:, :16] += 150
    Image.fromarray(pixels).save(tmp_path / "p.png")
    picture = tiny_processor.pixels(read_studies(tmp_path / "p.png")[0]).pixels_SCHW[0, 0]
    assert picture[:, :16].mean() > picture[:, -16:].mean() + 0.5


def test_a_blank_picture_is_out_of_scope(tiny_processor: Processor, tmp_path):
    Image.fromarray(np.full((64, 64), 7, dtype=np.uint8)).save(tmp_path / "blank.png")
    with pytest.raises(ScopeError, match="without contrast"):
        tiny_processor.pixels(read_studies(tmp_path / "blank.png")[0])


def test_pictures_beyond_the_limit_are_named_in_the_receipt(tiny_processor: Processor, tmp_path):
    for seed in range(6):
        noise = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{seed}.png")
    pixels = tiny_processor.pixels(read_studies(tmp_path)[0])
    assert len(pixels.receipts) == 4 and "2 further picture(s)" in pixels.receipts[0].warnings[-1]


def test_receipt_says_that_the_shape_was_not_kept(tiny_processor: Processor, two_pictures):
    receipt = tiny_processor.pixels(read_studies(two_pictures)[0]).receipts[0]
    assert "64 x 80 to 64 x 64" in receipt.steps[-1] and "shape not kept" in receipt.steps[-1]


def test_saved_and_loaded_processor_asks_the_same(tiny_processor: Processor, tmp_path):
    tiny_processor.save(tmp_path)
    again = Processor.load(tmp_path)
    assert again.config == tiny_processor.config
    assert again.prompt_ids(2, "pain", ()) == tiny_processor.prompt_ids(2, "pain", ())


def test_a_folder_without_a_processor_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"processor\.json"):
        Processor.load(tmp_path)


def test_a_length_without_room_for_the_pictures_is_refused(tiny_processor: Processor):
    with pytest.raises(ConfigError, match="num_tokens"):
        Processor(replace(tiny_processor.config, tokens_per_image=64), tiny_processor.tokenizer)


def test_decisions_are_named_in_a_fixed_order():
    heart = Finding(observation="cardiomegaly", status=Status.PRESENT)
    effusion = Finding(observation="pleural_effusion", status=Status.PRESENT, laterality=Side.RIGHT)
    absent = Finding(observation="edema", status=Status.ABSENT)
    assert decisions_text([effusion, absent, heart]) == "cardiomegaly; right pleural effusion"
    assert decisions_text([absent]) == "nothing"
