import math

import torch

from mmfm.batch import IGNORE_INDEX, Inputs, VolumeInputs
from mmfm.data.collate import collate


def _inputs(uid, *, pictures, slabs, tokens, region="head"):
    return Inputs(
        study_uid=uid,
        region=region,
        pixels_SCHW=torch.ones(pictures, 1, 4, 4),
        views_S=torch.zeros(pictures, dtype=torch.long),
        modalities_S=torch.arange(pictures),
        input_ids_T=torch.arange(tokens) + 5,
        labels_T=torch.arange(tokens),
        states_O=torch.tensor([1.0, math.nan]),
        sides_O2=torch.zeros(2, 2),
        severity_O=torch.tensor([2.0, math.nan]),
        codes_K=torch.zeros(3),
        volumes=tuple(
            VolumeInputs(pixels_CDHW=torch.full((1, 2, 2, 2), float(i)), affine_44=torch.eye(4)) for i in range(slabs)
        ),
    )


def test_pictures_and_slabs_stand_beside_each_other_with_the_study_they_belong_to():
    items = [
        _inputs("a", pictures=0, slabs=2, tokens=4),
        _inputs("b", pictures=2, slabs=0, tokens=2, region="chest_radiograph"),
        _inputs("c", pictures=0, slabs=1, tokens=3, region="abdomen"),
    ]
    batch = collate(items, pad_token_id=1)
    assert batch.regions == ("head", "chest_radiograph", "abdomen")
    assert batch.volume_study_N.tolist() == [0, 0, 2]
    assert [float(volume.pixels_CDHW.mean()) for volume in batch.volumes] == [0.0, 1.0, 0.0]
    assert batch.image_mask_BS.tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert batch.modalities_BS.tolist() == [[-1, -1], [0, 1], [-1, -1]]
    assert batch.pixels_BSCHW.flatten(1).sum(1).tolist() == [0, 32, 0]
    assert batch.input_ids_BT[1].tolist() == [5, 6, 1, 1] and batch.labels_BT[1, 2:].tolist() == [IGNORE_INDEX] * 2
    assert batch.severity_BO[:, 0].tolist() == [2.0] * 3 and batch.severity_BO[:, 1].isnan().all()


def test_volumes_alone_need_no_pictures():
    batch = collate([_inputs("a", pictures=0, slabs=1, tokens=2)], pad_token_id=1)
    assert batch.pixels_BSCHW.shape == (1, 0, 1, 4, 4) and not batch.image_mask_BS.any()
    assert collate([_inputs("a", pictures=1, slabs=0, tokens=2)], pad_token_id=1).volume_study_N.shape == (0,)
