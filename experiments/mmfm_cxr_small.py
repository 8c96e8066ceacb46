"""The shipped checkpoint mmfm-cxr-small: findings, report and differential of adult chest radiographs.

    mmfm train experiments/mmfm_cxr_small_findings.py
    mmfm train experiments/mmfm_cxr_small.py

Starts from the first half and learns the report along with the findings, on real and on drawn studies; the drawn ones
teach side, size and count, and put the samples of the demo into scope. Scores: see ``experiments/README.md``.
"""

from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(
        train=(Source(name="iu_xray", splits=("train", "extra")), Source(name="synthetic")),
        measured_on=("iu_xray",),
        batch_size=16,
    ),
    init_from="runs/mmfm_cxr_small_findings/latest/checkpoint",
    task=SFTConfig(
        lr=1e-3,
        encoder_lr=1e-4,
        freeze=(
            "encoder.network.conv_stem",
            "encoder.network.bn1",
            "encoder.network.blocks.0",
            "encoder.network.blocks.1",
            "encoder.network.blocks.2",
            "encoder.network.blocks.3",
        ),
    ),
    trainer=Trainer(max_epochs=5),
    summary="mmfm-cxr-small: drafts reports of adult chest radiographs",
    license="CC BY-NC-ND 4.0 (Open-i data): research, non-commercial",
)
