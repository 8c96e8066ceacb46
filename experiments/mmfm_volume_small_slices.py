"""Third part of the shipped checkpoint mmfm-volume-small: findings, modality and part of the body of single slices.

    mmfm train experiments/mmfm_volume_small_lesions.py
    mmfm train experiments/mmfm_volume_small_findings.py
    mmfm train experiments/mmfm_volume_small_slices.py

Starts from what reads volumes, which stays as it is. The report follows in ``mmfm_volume_small.py``.
"""

from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(train=(Source(name="medpix2"),), batch_size=16),
    init_from="runs/mmfm_volume_small_findings/latest/checkpoint",
    task=SFTConfig(
        lr=3e-4,
        freeze=(
            "volume_encoder",
            "volume_heads",
            "encoder.network.conv_stem",
            "encoder.network.bn1",
            "encoder.network.blocks.0",
            "encoder.network.blocks.1",
        ),
        report_weight=0.0,
    ),
    trainer=Trainer(max_epochs=5),
    summary="mmfm-volume-small, third part: slices",
    license="MedPix terms (non-commercial, attribution): research only",
)
