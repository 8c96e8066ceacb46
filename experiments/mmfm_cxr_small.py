"""The shipped checkpoint mmfm-cxr-small: findings, report and differential of adult chest radiographs.

    mmfm train experiments/mmfm_cxr_small_findings.py
    mmfm train experiments/mmfm_cxr_small_heads.py
    mmfm train experiments/mmfm_cxr_small.py

Starts from the second run, whose features and finding heads stay as they are, and learns to write the report that
states the findings named in its prompt, on real and on drawn studies; the drawn ones put the samples of the demo into
scope. Scores: see ``experiments/README.md``.
"""

from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.models.checkpoint import Scope
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
    init_from="runs/mmfm_cxr_small_heads/latest/checkpoint",
    task=SFTConfig(
        lr=1e-3,
        freeze=("encoder", "heads"),
    ),
    trainer=Trainer(max_epochs=4),
    scope=Scope(
        caveats=("learned from pictures of 256 pixels: small nodules and thin lines of a pneumothorax may be missed",)
    ),
    summary="mmfm-cxr-small: drafts reports of adult chest radiographs",
    license="CC BY-NC-ND 4.0 (Open-i data): research, non-commercial",
)
