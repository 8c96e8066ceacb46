from dataclasses import fields, replace

import pytest
import torch

from mmfm.batch import IGNORE_INDEX, Batch, VolumeInputs


def batch(B: int = 2, S: int = 2, T: int = 6, O: int = 3) -> Batch:
    return Batch(
        study_uids=tuple(str(b) for b in range(B)),
        regions=("chest_radiograph",) * B,
        pixels_BSCHW=torch.zeros(B, S, 3, 8, 8),
        image_mask_BS=torch.ones(B, S, dtype=torch.bool),
        views_BS=torch.zeros(B, S, dtype=torch.int64),
        modalities_BS=torch.full((B, S), -1),
        input_ids_BT=torch.zeros(B, T, dtype=torch.int64),
        attention_mask_BT=torch.ones(B, T, dtype=torch.bool),
        labels_BT=torch.full((B, T), IGNORE_INDEX),
        states_BO=torch.zeros(B, O),
        sides_BO2=torch.zeros(B, O, 2),
        severity_BO=torch.full((B, O), float("nan")),
        codes_BK=torch.zeros(B, 0),
        volumes=(
            VolumeInputs(
                pixels_CDHW=torch.zeros(1, 2, 2, 2), between_CDHW=torch.ones(1, 2, 2, 2), affine_44=torch.eye(4)
            ),
        ),
        volume_study_N=torch.tensor([B - 1]),
    )


def test_ignored_labels_carry_no_loss():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = batch(B=1).labels_BT[0].clone()
    labels[0] = 3
    wanted = torch.nn.functional.cross_entropy(logits[:1], labels[:1])
    assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("pixels_BSCHW", torch.zeros(2, 1, 3, 8, 8)),
        ("views_BS", torch.zeros(2, 3, dtype=torch.int64)),
        ("modalities_BS", torch.zeros(2, 3, dtype=torch.int64)),
        ("labels_BT", torch.zeros(2, 5, dtype=torch.int64)),
        ("attention_mask_BT", torch.ones(1, 6, dtype=torch.bool)),
        ("states_BO", torch.zeros(3, 3)),
        ("sides_BO2", torch.zeros(2, 3, 1)),
        ("severity_BO", torch.zeros(2, 2)),
        ("volume_study_N", torch.zeros(2, dtype=torch.int64)),
    ],
)
def test_shapes_that_disagree_are_refused_by_name(name, tensor):
    with pytest.raises(ValueError, match=name):
        replace(batch(), **{name: tensor})


def test_every_row_has_a_study_uid():
    with pytest.raises(ValueError, match="study_uids"):
        replace(batch(), study_uids=("0",))


def test_moving_moves_every_tensor_and_keeps_the_uids():
    moved = batch().to("meta")
    assert moved.study_uids == ("0", "1")
    assert moved.regions == ("chest_radiograph",) * 2
    tensors = [getattr(moved, f.name) for f in fields(moved) if isinstance(getattr(moved, f.name), torch.Tensor)]
    assert len(tensors) == len(fields(moved)) - 3 and {tensor.device.type for tensor in tensors} == {"meta"}
    (slab,) = moved.volumes
    assert slab.pixels_CDHW.device.type == slab.between_CDHW.device.type == "meta"
    assert slab.affine_44.device.type == "cpu"


def test_what_is_done_to_the_pixels_of_a_slab_is_done_between_its_voxels_too():
    (slab,) = batch().volumes
    halved = slab.with_pixels(lambda pixels: pixels.half() - 1)
    assert halved.pixels_CDHW.dtype == halved.between_CDHW.dtype == torch.float16
    assert (halved.pixels_CDHW == -1).all() and not halved.between_CDHW.any()
    alone = replace(slab, between_CDHW=None).with_pixels(lambda pixels: pixels + 1)
    assert alone.between_CDHW is None and (alone.pixels_CDHW == 1).all()
