import itertools
from dataclasses import replace

import pytest
import torch

from mmfm.data.collate import collate
from mmfm.data.example import Example
from mmfm.errors import ConfigError
from mmfm.io import read_studies
from mmfm.models import VLM, Connector, LanguageModelConfig
from mmfm.models.volume_heads import peaks, readings, shifted
from mmfm.report import Sections
from mmfm.training import SFTConfig


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


REPORT = Sections(findings="There is a lesion.", impression="Lesion.")


@pytest.fixture
def inputs(volume_processor, drawn_abdomen, drawn_head, two_pictures):
    """One study of two pictures, one CT of the abdomen and one MR of the head, as they are trained on."""
    (study,) = read_studies(two_pictures)
    example = Example(
        study_uid="pictures", study=study, region="chest_radiograph", indication=None, target=REPORT,
        target_findings=(), states={}, report_findings=(), codes=("modality/CT",),
    )  # fmt: skip
    drawn = [volume_processor.drawn(one, REPORT) for one in (drawn_abdomen, drawn_head)]
    return [volume_processor(example), *drawn]


def _collated(processor, items):
    return collate(items, pad_token_id=processor.tokenizer.pad_token_id)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2), (0, 0, 1)])
def test_pictures_and_volumes_in_one_batch_are_read_as_each_alone(volume_model, volume_processor, inputs, order):
    items = [inputs[i] for i in order]
    with torch.no_grad():
        together, logits = volume_model(_collated(volume_processor, items))
        alone = [volume_model(_collated(volume_processor, [item])) for item in items]
    close = {"atol": 2e-5, "rtol": 1e-4}
    torch.testing.assert_close(together.tokens_VE, torch.cat([one.tokens_VE for one, _ in alone]), **close)
    for row, (item, (one, own_logits)) in enumerate(zip(items, alone, strict=True)):
        for name in ("present_BO", "sides_BO2", "sided_B"):
            torch.testing.assert_close(getattr(together.heads, name)[row], getattr(one.heads, name)[0], **close)
        if item.volumes:
            torch.testing.assert_close(together.heads.severity_BOG[row], one.heads.severity_BOG[0], **close)
        else:
            torch.testing.assert_close(together.heads.codes_BK[row], one.heads.codes_BK[0], **close)
        length = len(item.input_ids_T)
        torch.testing.assert_close(logits[row, :length], own_logits[0, :length], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(together.heads.codes_NK, torch.cat([one.heads.codes_NK for one, _ in alone]), **close)
    maps = [part for one, _ in alone for part in one.volumes]
    assert len(maps) == len(together.volumes)
    for found, wanted in zip(together.volumes, maps, strict=True):
        torch.testing.assert_close(found.heat_NLDHW, wanted.heat_NLDHW, **close)


def test_what_any_slab_shows_the_study_has_and_its_side_is_read_there(volume_model, volume_processor, inputs):
    _, abdomen, head = inputs
    both = replace(abdomen, volumes=(*abdomen.volumes, *head.volumes))
    with torch.no_grad():
        study = volume_model.encode(_collated(volume_processor, [both])).heads
        first, second = (volume_model.encode(_collated(volume_processor, [one])).heads for one in (abdomen, head))
    assert first.present_BO.shape == study.present_BO.shape
    higher = (first.present_BO >= second.present_BO)[0]
    normal = volume_processor.config.observations.index("normal")
    higher[normal] = ~higher[normal]  # normal only where both are
    for column, own in enumerate(higher.tolist()):
        shown = first if own else second
        for name in ("present_BO", "sides_BO2", "severity_BOG"):
            torch.testing.assert_close(
                getattr(study, name)[0, column], getattr(shown, name)[0, column], atol=2e-5, rtol=1e-4
            )


@pytest.mark.parametrize("corner", [(4, 8, 6), (3, 5, 7)])  # the second begins within patches
def test_a_part_of_a_volume_knows_where_it_lies(volume_model, volume_processor, inputs, corner):
    whole = inputs[1]
    (volume,) = whole.volumes
    size = (16, 16, 12)
    d, h, w = (slice(c, c + n) for c, n in zip(corner, size, strict=True))
    part = replace(volume, pixels_CDHW=volume.pixels_CDHW[:, d, h, w], mask_DHW=None, corner=corner)
    with torch.no_grad():
        coordinates, own = (
            volume_model.encode(_collated(volume_processor, [replace(whole, volumes=(one,))])).volumes[0]
            for one in (volume, part)
        )
    axes = zip(coordinates.heat_NLDHW.shape[2:], volume_model.fine_stride, corner, strict=True)
    first = [-1 + 2 * (c / stride) / (patches - 1) for patches, stride, c in axes]
    assert own.position_NQDHW[0, -3:, 0, 0, 0].tolist() == pytest.approx(first, abs=1e-5)
    step = own.position_NQDHW[0, -3:, 1, 1, 1] - own.position_NQDHW[0, -3:, 0, 0, 0]
    wanted = coordinates.position_NQDHW[0, -3:, 1, 1, 1] - coordinates.position_NQDHW[0, -3:, 0, 0, 0]
    torch.testing.assert_close(step, wanted, atol=1e-5, rtol=0)


def test_where_lesions_are_sought_a_slab_is_read_from_between_its_patches_and_voxels_too(
    volume_model, volume_processor, inputs
):
    whole = inputs[1]
    (volume,) = whole.volumes
    grid = tuple(volume.pixels_CDHW.shape[1:])
    with torch.no_grad():
        volume_model.volume_heads.dense.bias += 4.0  # what was never taught has no peaks
        encoded = volume_model.encode(_collated(volume_processor, [whole]), seek_lesions=True)
        plain = volume_model.encode(_collated(volume_processor, [whole]))
        heads, wanted = [], []
        for way in readings(volume_model.fine_stride):
            pixels = shifted(volume.between_CDHW if way.between else volume.pixels_CDHW, way.voxels)
            moved = replace(volume, pixels_CDHW=pixels, mask_DHW=None, corner=way.shift, grid=grid)
            read = volume_model.encode(_collated(volume_processor, [replace(whole, volumes=(moved,))]))
            heads.append(read.heads)
            wanted.append(
                peaks(volume_model.volume_heads, read.volumes[0], 0, volume_model.fine_stride, shift=way.shift)
            )
    assert len(heads) == 8 and plain.peaks == ()
    assert all(wanted) and [len(own) for own in encoded.peaks[0]] == [len(own) for own in wanted]
    for found, peak in zip(itertools.chain(*encoded.peaks[0]), itertools.chain(*wanted), strict=True):
        assert (found.lesion, found.place) == (peak.lesion, peak.place)
        assert found.index == pytest.approx(peak.index, abs=1e-3) and found.probability == pytest.approx(
            peak.probability, abs=1e-4
        )
    for name in ("present_BO", "sides_BO2", "severity_BOG"):
        mean = torch.stack([getattr(one, name) for one in heads]).mean(0)
        torch.testing.assert_close(getattr(encoded.heads, name), mean, atol=2e-5, rtol=1e-4)
        assert (getattr(plain.heads, name) - mean).abs().max() > 1e-5
    torch.testing.assert_close(encoded.tokens_VE, plain.tokens_VE)
    assert encoded.volumes == () and len(plain.volumes) == 1
    to_learn_from = _collated(volume_processor, [replace(whole, volumes=(replace(volume, between_CDHW=None),))])
    with pytest.raises(ValueError, match="to seek lesions in"):
        volume_model.encode(to_learn_from, seek_lesions=True)


def _step(model, processor, inputs, device="cpu"):
    task = SFTConfig(augmentation=None).build(model.to(device).train(), seed=0, names=processor.config)
    with torch.autocast(device, torch.bfloat16):
        losses, _ = task.losses(_collated(processor, inputs).to(device))
    losses["loss"].backward()
    return losses, {name: p.grad for name, p in model.named_parameters()}


def test_a_step_in_bf16_teaches_every_part_of_pictures_and_volumes(volume_model, volume_processor, inputs):
    losses, gradients = _step(volume_model, volume_processor, inputs)
    assert all(torch.isfinite(part) for part in losses.values())
    assert all(losses[name] > 0 for name in ("report", "findings", "lesions", "masks", "severity"))
    assert {name for name, grad in gradients.items() if grad is None} <= {"heads.missing_2E"}
    assert all(torch.isfinite(grad).all() for grad in gradients.values() if grad is not None)
    for part in ("volume_encoder.", "volume_heads.", "volume_connector.", "encoder.", "language."):
        assert any(grad is not None and grad.any() for name, grad in gradients.items() if name.startswith(part)), part


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_step_in_bf16_on_the_accelerator(volume_model, volume_processor, inputs):
    losses, gradients = _step(volume_model, volume_processor, inputs, device="cuda")
    assert all(torch.isfinite(part) for part in losses.values())
    assert gradients["volume_encoder.network.input_block.conv1.conv.weight"].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_lesions_are_sought_in_bf16_on_the_accelerator(volume_model, volume_processor, inputs):
    batch = _collated(volume_processor, inputs[1:]).to("cuda")
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        volume_model.volume_heads.dense.bias += 4.0
        encoded = volume_model.to("cuda").eval().encode(batch, seek_lesions=True)
    assert [len(own) for own in encoded.peaks] == [8, 8] and all(map(all, encoded.peaks))
    assert torch.isfinite(encoded.heads.present_BO).all()


def test_a_batch_of_volumes_leaves_the_picture_encoder_alone(volume_model, volume_processor, inputs):
    _, gradients = _step(volume_model, volume_processor, inputs[1:])
    assert not [
        name for name, grad in gradients.items() if name.startswith(("encoder.", "heads.")) and grad is not None
    ]


def test_what_a_model_has_no_encoder_for_is_refused(tiny_model, volume_config, volume_processor, inputs):
    with pytest.raises(ValueError, match="found volumes"):
        tiny_model.encode(_collated(volume_processor, inputs[1:]))
    blind = replace(volume_config, encoder=None).build(volume_processor)
    with pytest.raises(ValueError, match="found pictures"):
        blind.encode(_collated(volume_processor, inputs[:1]))
    with pytest.raises(ConfigError, match="neither"):
        VLM.Config(encoder=None)
    with pytest.raises(ConfigError, match="tokens_per_slab"):
        VLM.Config(tokens_per_slab=10)


def test_the_names_of_the_weights_stay(tiny_model):
    """A checkpoint of pictures opens by them."""
    names = {name.partition(".")[0] for name in tiny_model.state_dict()}
    assert names == {"encoder", "connector", "view_2E", "heads", "language"}
