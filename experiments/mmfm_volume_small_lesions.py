"""First part of the shipped checkpoint mmfm-volume-small: the volume encoder learns what drawn CT and MR show where.

    mmfm train experiments/mmfm_volume_small_lesions.py

Every volume is drawn in memory at the resolution of the model, kept on disk, and laid otherwise in every epoch; heat
maps of lesions and masks of fluid and air teach far more a volume than its labels. Slices and the report follow in
``mmfm_volume_small_slices.py`` and ``mmfm_volume_small.py``.
"""

from mmfm.data.drawn import Drawn
from mmfm.experiment import Data, Experiment, Trainer
from mmfm.models import VLM, LanguageModelConfig
from mmfm.models.checkpoint import Scope
from mmfm.models.encoder3d import Encoder3D
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(
        drawn=(
            Drawn(region="chest_ct", count=360),
            Drawn(region="abdomen", count=300),
            Drawn(region="head", count=240, spacing_mm=(1.5, 1.5, 1.5)),
        ),
        batch_size=2,
        num_workers=2,
    ),
    model=VLM.Config(
        encoder=None,
        volume_encoder=Encoder3D.Config(name="SegResNet", width=16),
        language=LanguageModelConfig(name="scratch", hidden_size=256, num_layers=6, num_heads=4, max_length=512),
    ),
    task=SFTConfig(lr=2e-3, report_weight=0.0),
    trainer=Trainer(max_epochs=6),
    scope=Scope(modalities=("CT", "MR"), body_parts=("CHEST", "ABDOMEN", "HEAD"), views=(), min_age_years=18.0),
    summary="mmfm-volume-small, first part: lesions of drawn volumes",
)
