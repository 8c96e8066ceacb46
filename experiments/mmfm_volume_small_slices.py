"""Third part of the shipped checkpoint mmfm-volume-small: findings, modality and part of the body of single slices.

    mmfm train experiments/mmfm_volume_small_lesions.py
    mmfm train experiments/mmfm_volume_small_findings.py
    mmfm train experiments/mmfm_volume_small_slices.py

Starts from what reads volumes, which stays as it is. Pictures are changed more than elsewhere: there are 459 cases.
The report follows in ``mmfm_volume_small.py``.
"""

from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.training import Augmentation, SFTConfig

experiment = Experiment(
    data=Data(train=(Source(name="medpix2"),), batch_size=16),
    init_from="runs/mmfm_volume_small_findings/latest/checkpoint",
    task=SFTConfig(
        lr=5e-4,
        freeze=(
            "volume_encoder",
            "volume_heads",
            "encoder.network.conv_stem",
            "encoder.network.bn1",
            "encoder.network.blocks.0",
            "encoder.network.blocks.1",
        ),
        report_weight=0.0,
        augmentation=Augmentation(shift=0.15, scale=(0.75, 1.5), degrees=20.0, brightness=0.15, contrast=(0.6, 1.5)),
    ),
    trainer=Trainer(max_epochs=10),
    summary="mmfm-volume-small, third part: slices",
    license="MedPix terms (non-commercial, attribution): research only",
)
