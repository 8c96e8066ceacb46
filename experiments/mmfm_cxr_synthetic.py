"""A checkpoint of under 2 MB that has seen drawn radiographs alone: it shows the path, and says nothing of patients.

    python datasets/synthetic/prepare.py --out $MMFM_DATA/synthetic --train 500 --val 20 --test 100 --size 320
    mmfm train experiments/mmfm_cxr_synthetic.py

A few minutes on two CPU cores. Random weights at the start, no download.
"""

from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig
from mmfm.models.checkpoint import Scope
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(train=(Source(name="synthetic"),), select_fraction=0.2, batch_size=16),
    model=VLM.Config(
        encoder=Encoder2D.Config(name="mobilenetv3_small_050", image_size=160, weights=None),
        connector=Connector.Config(kind="linear", num_tokens=4),
        language=LanguageModelConfig(hidden_size=96, num_layers=2, num_heads=2, vocab_size=768, max_length=384),
        head_dropout=0.1,
    ),
    task=SFTConfig(lr=3e-3),
    trainer=Trainer(max_epochs=30),
    scope=Scope(
        caveats=("this checkpoint has seen drawn radiographs alone: what it says of a real one means nothing",)
    ),
    summary="mmfm-cxr-synthetic: a demonstration that has seen drawn radiographs alone",
)
