from types import SimpleNamespace

import numpy as np
import torch

from mmfm.models import load_checkpoint
from mmfm.models.decisions import decide
from mmfm.models.heads import SEVERITIES, HeadLogits
from mmfm.models.vlm import Encoded


def test_each_study_of_a_batch_has_the_modalities_of_its_own_pictures(tiny_volume_checkpoint):
    checkpoint = load_checkpoint(str(tiny_volume_checkpoint))
    config = checkpoint.processor.config
    studies, observations = 3, len(config.observations)
    codes_NK = torch.full((3, len(config.codes)), -1.0)
    for picture, name in enumerate(("modality/CT", "modality/MR", "modality/MR")):
        codes_NK[picture, config.codes.index(name)] = 1.0
    heads = HeadLogits(
        present_BO=torch.full((studies, observations), -9.0),
        sides_BO2=torch.zeros(studies, observations, 2),
        lateral_N=torch.zeros(3),
        severity_BOG=torch.zeros(studies, observations, SEVERITIES),
        sided_B=torch.ones(studies, dtype=torch.bool),
        views_N=torch.zeros(3, dtype=torch.int64),
        codes_BK=torch.zeros(studies, len(config.codes)),
        codes_NK=codes_NK,
    )
    both, one = (SimpleNamespace(views_S=torch.zeros(n), slabs=(), kind=None, region=None) for n in (2, 1))
    volume = SimpleNamespace(
        views_S=torch.zeros(0), slabs=(SimpleNamespace(affine=np.eye(4)),), kind="MR of the head with T1", region="head"
    )
    encoded = Encoded(tokens_VE=torch.zeros(0), features_BE=torch.zeros(0), heads=heads, peaks=(((),),))
    decided = decide(checkpoint, [both, volume, one], encoded)
    assert [each.kind for each in decided] == ["CT and MR of the head", "MR of the head with T1", "MR of the head"]
    assert [each.region for each in decided] == ["head"] * 3
