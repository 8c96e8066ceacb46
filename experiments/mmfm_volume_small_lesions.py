"""First part of the shipped checkpoint mmfm-volume-small: the lesions of drawn volumes, learned from parts of them.

    python datasets/medpix2/prepare.py --source ../shared/data/medpix2 --out $MMFM_DATA/medpix2
    mmfm train experiments/mmfm_volume_small_lesions.py

Volumes are drawn in memory at the resolution of the model, kept on disk, and laid and noisy otherwise in every epoch.
Parts of 64 voxels a side, most of them with something that is outlined, three of a volume, have a third to a half of
its voxels and most of what there is to learn of where things are. Slices are those of MedPix 2.0, read by an encoder
that stays as it is until ``mmfm_volume_small_slices.py``.
"""

from mmfm.data.drawn import Drawn
from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig
from mmfm.models.checkpoint import Scope
from mmfm.models.encoder3d import Encoder3D
from mmfm.models.recipes import Crops
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(
        train=(Source(name="medpix2"),),
        drawn=(
            Drawn(region="chest_ct", count=2100, share=0.4, apart=40),
            Drawn(region="abdomen", count=2450, share=0.5, apart=50),
            Drawn(region="head", count=750, share=0.4, spacing_mm=(1.5, 1.5, 1.5), apart=30),
        ),
        min_code_studies=20,
        measured_on=("medpix2",),
        batch_size=2,
        num_workers=1,
        crops=Crops(count=3),
    ),
    model=VLM.Config(
        encoder=Encoder2D.Config(name="tf_efficientnet_lite2", image_size=256),
        connector=Connector.Config(kind="mlp", num_tokens=16),
        volume_encoder=Encoder3D.Config(name="DynUNet", width=16),
        language=LanguageModelConfig(name="scratch", hidden_size=256, num_layers=6, num_heads=4, max_length=512),
    ),
    task=SFTConfig(lr=2e-3, freeze=("encoder",), report_weight=0.0),
    trainer=Trainer(max_epochs=3),
    scope=Scope(modalities=("CT", "MR"), body_parts=("CHEST", "ABDOMEN", "HEAD"), views=(), min_age_years=18.0),
    summary="mmfm-volume-small, first part: lesions",
    license="MedPix terms (non-commercial, attribution): research only",
)
