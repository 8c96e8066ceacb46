"""First part of the shipped checkpoint mmfm-volume-small: what CT and MR show, where, on volumes and on slices.

    python datasets/medpix2/prepare.py --source ../shared/data/medpix2 --out $MMFM_DATA/medpix2
    mmfm train experiments/mmfm_volume_small_findings.py

Volumes are drawn in memory at the resolution of the model, kept on disk, and laid otherwise in every epoch: heat maps
of lesions and masks of fluid and air teach far more a volume than labels alone. Slices are those of MedPix 2.0, read
by an encoder that stays as it is here and learns in ``mmfm_volume_small_slices.py``, at a lower rate and in larger
batches; the report follows in ``mmfm_volume_small.py``.
"""

from mmfm.data.drawn import Drawn
from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig
from mmfm.models.checkpoint import Scope
from mmfm.models.encoder3d import Encoder3D
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(
        train=(Source(name="medpix2"),),
        drawn=(
            Drawn(region="chest_ct", count=300, share=0.4),
            Drawn(region="abdomen", count=240, share=0.5),
            Drawn(region="head", count=200, share=0.4, spacing_mm=(1.5, 1.5, 1.5)),
        ),
        min_code_studies=20,
        measured_on=("medpix2",),
        batch_size=2,
        num_workers=1,
    ),
    model=VLM.Config(
        encoder=Encoder2D.Config(name="tf_efficientnet_lite2", image_size=256),
        connector=Connector.Config(kind="mlp", num_tokens=16),
        volume_encoder=Encoder3D.Config(name="DynUNet", width=16),
        language=LanguageModelConfig(name="scratch", hidden_size=256, num_layers=6, num_heads=4, max_length=512),
    ),
    task=SFTConfig(lr=2e-3, freeze=("encoder",), report_weight=0.0),
    trainer=Trainer(max_epochs=5),
    scope=Scope(modalities=("CT", "MR"), body_parts=("CHEST", "ABDOMEN", "HEAD"), views=(), min_age_years=18.0),
    summary="mmfm-volume-small, first part: findings and lesions",
    license="MedPix terms (non-commercial, attribution): research only",
)
