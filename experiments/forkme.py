"""Draft chest radiograph reports with a small vision-language model. Fork me.

    mmfm train experiments/forkme.py
    mmfm train experiments/forkme.py model.connector.kind=resampler trainer.max_steps=500

Any timm or open_clip encoder and any causal language model of transformers fit in: change the names below, here or on
the command line. ``experiments/README.md`` has the scores of the runs that were scored.
"""

from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(train=(Source(name="synthetic"),), prompt="Write the findings and the impression.", batch_size=16),
    model=VLM.Config(
        encoder=Encoder2D.Config(name="tf_efficientnet_lite2", image_size=256),
        connector=Connector.Config(kind="mlp", num_tokens=16),
        language=LanguageModelConfig(name="scratch", hidden_size=256, num_layers=6, num_heads=4),
    ),
    task=SFTConfig(lr=3e-4, freeze=("encoder.network.conv_stem", "encoder.network.bn1")),
    trainer=Trainer(max_steps=2000),
    seed=1337,
)
