from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mmfm.batch import IGNORE_INDEX
from mmfm.data.example import Example
from mmfm.errors import CheckpointError, ConfigError, ScopeError
from mmfm.io import read_studies
from mmfm.models.processor import Processor, decisions_text, is_volume, kind_of, kind_of_codes
from mmfm.models.recipes import Crops, Jitter, Sampler
from mmfm.report import Finding, Lesion, Sections, Side, Status
from mmfm.study import Geometry, Instance, PixelHeader, Series, Study


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


def test_the_modality_of_each_picture_is_a_column_of_the_codes(tiny_processor: Processor, two_pictures):
    example = _example(*read_studies(two_pictures))
    assert example.study is not None
    first, second = example.study.series
    series = (replace(first, modality="MR"), replace(second, modality="CT"))
    coded = Processor(
        replace(tiny_processor.config, codes=("Lung", "modality/CT", "modality/MR")), tiny_processor.tokenizer
    )
    study = replace(example.study, series=series)
    assert coded(replace(example, study=study)).modalities_S.tolist() == [2, 1]
    assert tiny_processor(replace(example, study=study)).modalities_S.tolist() == [-1, -1], "no such codes"
    unstated = replace(study, series=(replace(first, modality=None), series[1]))
    assert coded(replace(example, study=unstated)).modalities_S.tolist() == [-1, 1]
    of_one = replace(example, study=unstated, codes=("Lung", "modality/MR"))
    assert coded(of_one).modalities_S.tolist() == [2, 1], "a study coded with one modality says it for its pictures"


def test_words_of_a_study_are_never_special_tokens(tiny_processor: Processor):
    special = set(tiny_processor.tokenizer.all_special_ids)
    named = tiny_processor.prompt_ids(3, "cough <image> fever <eos> <pad>", ())
    assert named.count(tiny_processor.image_token_id) == 3
    target = tiny_processor.target_ids(Sections(findings="<image> <eos>", impression="Effusion."))
    assert [token for token in target if token in special] == [tiny_processor.tokenizer.eos_token_id] == target[-1:]


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


REPORT = Sections(indication="pain", findings="There is a lesion.", impression="Lesion.")


def _prompt(processor, inputs):
    return processor.tokenizer.decode(inputs.input_ids_T[inputs.labels_T == IGNORE_INDEX])


def test_the_prompt_of_a_volume_names_what_it_is_of_and_each_lesion(volume_processor, drawn_abdomen, drawn_head):
    inputs = volume_processor.drawn(drawn_abdomen, REPORT)
    assert int((inputs.input_ids_T == volume_processor.image_token_id).sum()) == volume_processor.config.tokens_per_slab
    text = _prompt(volume_processor, inputs)
    assert "Study: CT of the abdomen\n" in text and "Indication:" in text and inputs.region == "abdomen"
    (liver,) = [f for f in drawn_abdomen.findings if f.observation == "liver_lesion"]
    (fluid,) = [f for f in drawn_abdomen.findings if f.observation == "free_fluid"]
    first = liver.lesions[0]
    assert (
        f"{first.location} liver lesion {first.diameter_mm:.0f} mm" in text and f"{fluid.severity} free fluid" in text
    )
    assert "Study: MR of the head with T1, T2, FLAIR, DWI\n" in _prompt(
        volume_processor, volume_processor.drawn(drawn_head, REPORT)
    )


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_the_lesions_of_a_drawn_volume_stand_at_their_voxels(volume_processor, drawn_abdomen, drawn_head, seed):
    for drawn, channel in ((drawn_abdomen, 3), (drawn_head, 3)):  # the liver window, DWI
        rng, again = (None if seed is None else np.random.default_rng(seed) for _ in range(2))
        jitter = None if again is None else Jitter.draw(again)
        inputs = volume_processor.drawn(drawn, REPORT, rng)
        (volume,) = inputs.volumes
        assert (volume.between_CDHW is None) is (seed is not None), "only what lies as in a draft is read on two grids"
        known = [(f.observation, one) for f in drawn.findings for one in f.lesions]
        assert len(volume.lesions_X6) == len(known)
        for row, (observation, lesion) in zip(volume.lesions_X6.double().numpy(), known, strict=True):
            place = volume_processor.config.places[int(row[5])]
            assert volume_processor.config.lesions[int(row[4])] == observation
            assert (place.laterality, place.location) == (lesion.laterality, lesion.location)
            np.testing.assert_allclose((volume.affine_44.numpy() @ [*row[:3], 1.0])[:3], lesion.center_mm, atol=1e-3)
            assert row[3] == pytest.approx(lesion.diameter_mm / (1 if jitter is None else jitter.scale), rel=1e-4)
        largest = volume.lesions_X6[volume.lesions_X6[:, 3].argmax()]
        d, h, w = largest[:3].round().int().tolist()
        here = volume.pixels_CDHW[channel, d, h, w]
        around = volume.pixels_CDHW[channel, d - 3 : d + 4, h - 3 : h + 4, w - 3 : w + 4].median()
        assert abs(here - around) > 0.15, "the lesion is seen where it is said to be"


def test_training_smooths_as_its_jitter_says(volume_processor, drawn_abdomen):
    jitter = Jitter.draw(np.random.default_rng(4))
    (drawn,) = volume_processor.drawn(drawn_abdomen, REPORT, np.random.default_rng(4)).volumes
    images = {name: (array, drawn_abdomen.affine) for name, array in drawn_abdomen.images.items()}
    sampler = Sampler(images, volume_processor.recipe("abdomen"))
    affine = drawn.affine_44.double().numpy()
    own, plain = (sampler.slab(affine, smoothing=times).pixels_CDHW for times in (jitter.smoothing, (1.0, 1.0, 1.0)))
    torch.testing.assert_close(drawn.pixels_CDHW, own, atol=1e-3, rtol=0)
    assert (plain - own).abs().max() > 0.01


def test_crops_are_parts_of_the_volume_with_what_they_show(volume_processor, drawn_abdomen):
    whole = volume_processor.drawn(drawn_abdomen, REPORT, np.random.default_rng(5))
    (all_of,) = whole.volumes
    crops = Crops(shape=(20, 16, 999), count=12, at_truth=1.0)
    inputs = volume_processor.drawn(drawn_abdomen, REPORT, np.random.default_rng(5), crops=crops)
    assert len(inputs.volumes) == 12 and inputs.states_O.isnan().all() and inputs.sides_O2.isnan().all()
    seen = 0
    assert all(part.between_CDHW is None for part in inputs.volumes)
    for part in inputs.volumes:
        shape = part.pixels_CDHW.shape[1:]
        assert shape == (20, 16, all_of.pixels_CDHW.shape[3]) and part.grid == all_of.pixels_CDHW.shape[1:]
        corner = np.array(part.corner)
        d, h, w = (slice(c, c + n) for c, n in zip(corner, shape, strict=True))
        torch.testing.assert_close(part.pixels_CDHW, all_of.pixels_CDHW[:, d, h, w], atol=1e-4, rtol=0)
        assert torch.equal(part.mask_DHW, all_of.mask_DHW[d, h, w])
        rows = all_of.lesions_X6.clone()
        rows[:, :3] -= torch.from_numpy(corner)
        inside = ((rows[:, :3] >= -0.5) & (rows[:, :3] < torch.tensor(shape) - 0.5)).all(1)
        torch.testing.assert_close(part.lesions_X6, rows, atol=1e-3, rtol=0)
        assert torch.equal(part.inside_X, inside)
        seen += int(inside.any()) or int(part.mask_DHW.any())
    assert seen >= 9, "most hold the centre of a lesion or some fluid"
    assert len({part.corner for part in inputs.volumes}) > 6


def test_masks_are_where_the_segments_are(volume_processor, drawn_abdomen):
    (volume,) = volume_processor.drawn(drawn_abdomen, REPORT).volumes
    fluid = [1 + i for i, segment in enumerate(drawn_abdomen.segments) if segment.observation == "free_fluid"]
    wanted = np.argwhere(np.isin(drawn_abdomen.segmentation, fluid))
    found = np.argwhere(volume.mask_DHW.numpy() == 1)
    assert set(volume.mask_DHW.unique().tolist()) == {0, 1} and len(found) == pytest.approx(len(wanted), rel=0.15)
    centers = [
        (affine @ [*points.mean(0), 1.0])[:3]
        for affine, points in ((drawn_abdomen.affine, wanted), (volume.affine_44.numpy(), found))
    ]
    np.testing.assert_allclose(centers[1], centers[0], atol=4)


def test_states_grades_and_codes_of_a_volume(volume_processor, drawn_abdomen):
    inputs = volume_processor.drawn(drawn_abdomen, REPORT)
    at = volume_processor.config.observations.index
    assert inputs.states_O[at("liver_lesion")] == 1 and inputs.states_O[at("kidney_lesion")] == 0
    assert inputs.states_O[at("infarct")].isnan(), "the abdomen says nothing of it"
    assert inputs.states_O[at("normal")] == 0 and inputs.codes_K.isnan().all()
    (fluid,) = [f for f in drawn_abdomen.findings if f.observation == "free_fluid"]
    assert inputs.severity_O[at("free_fluid")] == ["small", "moderate", "large"].index(fluid.severity)
    assert inputs.severity_O[at("liver_lesion")].isnan()


def test_a_region_without_a_recipe_is_out_of_scope(volume_processor, tiny_processor):
    with pytest.raises(ScopeError, match=r"volume of abdomen, head.*chest_ct"):
        volume_processor.recipe("chest_ct")
    with pytest.raises(ScopeError, match="pictures of one frame"):
        tiny_processor.recipe("chest_ct")


@pytest.mark.parametrize(
    ("modality", "source_format", "wanted"),
    [
        ("CT", "DICOM", True), ("MR", "DICOM", True), (None, "NIFTI", True), ("CT", "NIFTI", True),
        ("DX", "DICOM", False), ("CR", "DICOM", False), ("CT", "PNG", False), (None, "JPEG", False),
    ],
)  # fmt: skip
def test_slices_with_a_place_are_a_volume_and_pictures_of_them_are_not(modality, source_format, wanted):
    place = Geometry(position=(0.0, 0.0, 0.0), orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    one = Instance(sop_instance_uid="1.2.1.1", pixels=PixelHeader(rows=8, columns=8, frames=1), geometry=place)
    series = Series(series_uid="1.2.1", modality=modality, source_format=source_format, instances=(one,))
    assert is_volume(Study(study_uid="1.2", series=(series,))) is wanted


def test_a_screenshot_of_a_ct_is_a_picture():
    one = Instance(sop_instance_uid="1.2.1.1", pixels=PixelHeader(rows=8, columns=8, frames=1))
    series = Series(series_uid="1.2.1", modality="CT", instances=(one,))
    assert not is_volume(Study(study_uid="1.2", series=(series,)))


def test_a_few_lesions_are_named_one_by_one_and_more_are_summed():
    def at(diameter):
        return Lesion(center_mm=(0.0, 0.0, 0.0), diameter_mm=diameter, laterality=Side.RIGHT, location="upper lobe")

    nodules = Finding(observation="nodule", status=Status.PRESENT, lesions=tuple(at(d) for d in (20.4, 9.0, 7.0, 5.0)))
    heart = Finding(observation="cardiomegaly", status=Status.PRESENT, severity="mild")
    named = "right upper lobe nodule"
    assert decisions_text([nodules, heart], detailed=True) == (
        f"mild cardiomegaly; {named} 20 mm; {named} 9 mm; {named} 7 mm; 4 nodule in all"
    )
    assert decisions_text([heart]) == "cardiomegaly", "the words of a checkpoint of pictures alone stay"


def test_what_was_examined_is_read_from_codes():
    assert kind_of(["modality/CT", "body_part/Head", "Lung"]) == "CT of the head"
    assert kind_of(["modality/CT"]) is None and kind_of([]) is None
    logits = {"modality/CT": -1.0, "modality/MR": -2.0, "body_part/Head": 2.0, "body_part/Thorax": 1.0, "Lung": 9.0}
    assert kind_of_codes(logits, [logits]) == ("CT of the head", "head")
    assert kind_of_codes(logits | {"body_part/Spine": 3.0}, [logits]) == ("CT of the spine", None)
    assert kind_of_codes({}, [{}]) == (None, None)
    assert kind_of_codes({"body_part/Head": 1.0}, [{"body_part/Head": 1.0}]) == (None, "head")
    an_mr = logits | {"modality/MR": 1.0}
    assert kind_of_codes(logits, [an_mr, logits]) == ("CT and MR of the head", "head")
    assert kind_of_codes(logits | {"modality/CT": 1.0}, [an_mr, logits]) == ("CT of the head", "head"), "study counts"
