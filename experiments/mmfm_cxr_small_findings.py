"""First part of the shipped checkpoint mmfm-cxr-small: the encoder learns the findings of chest radiographs.

    python datasets/iu_xray/prepare.py --source ../shared/data/iu_xray --out $MMFM_DATA/iu_xray
    python datasets/synthetic/prepare.py --out $MMFM_DATA/synthetic --train 720 --val 20 --size 256 --mirrored 0.5
    mmfm train experiments/mmfm_cxr_small_findings.py

The early layers of the ImageNet network stay as they are: they hold most of the arithmetic at these sizes and little
that radiographs change. The MeSH terms that people coded the studies with are learned too: they name what the
observations leave out, and so what is not normal. The heads go on in ``mmfm_cxr_small_heads.py``, and the report is
learned in ``mmfm_cxr_small.py``, when the pictures' features hold still.
"""

from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(
        train=(Source(name="iu_xray", splits=("train", "extra")), Source(name="synthetic")),
        measured_on=("iu_xray",),
        min_code_studies=20,
        batch_size=16,
    ),
    model=VLM.Config(
        encoder=Encoder2D.Config(name="tf_efficientnet_lite2", image_size=256),
        connector=Connector.Config(kind="mlp", num_tokens=16),
        language=LanguageModelConfig(name="scratch", hidden_size=256, num_layers=6, num_heads=4, max_length=384),
    ),
    task=SFTConfig(
        lr=3e-4,
        freeze=(
            "encoder.network.conv_stem",
            "encoder.network.bn1",
            "encoder.network.blocks.0",
            "encoder.network.blocks.1",
        ),
        codes_weight=3.0,
        report_weight=0.0,
    ),
    trainer=Trainer(max_epochs=6),
    summary="mmfm-cxr-small, first part: findings",
    license="CC BY-NC-ND 4.0 (Open-i data): research, non-commercial",
)
