"""Middle of the shipped checkpoint mmfm-cxr-small: its finding heads alone see twice as many drawn studies.

    python datasets/synthetic/prepare.py --out $MMFM_DATA/synthetic_more --seed 1 --train 720 --size 256 --mirrored 0.5
    mmfm train experiments/mmfm_cxr_small_heads.py

So a drawn finding is named on either side. The encoder learned from half as many, because with more of them it read
real radiographs a little worse (see ``experiments/LOG.md``); the features stay as they are here.
"""

from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(
        train=(
            Source(name="iu_xray", splits=("train", "extra")),
            Source(name="synthetic"),
            Source(name="synthetic_more"),
        ),
        measured_on=("iu_xray",),
        batch_size=16,
    ),
    init_from="runs/mmfm_cxr_small_findings/latest/checkpoint",
    task=SFTConfig(lr=3e-4, freeze=("encoder",), report_weight=0.0),
    trainer=Trainer(max_epochs=2),
    summary="mmfm-cxr-small, finding heads",
    license="CC BY-NC-ND 4.0 (Open-i data): research, non-commercial",
)
