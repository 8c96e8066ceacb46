"""Second part of the shipped checkpoint mmfm-volume-small: what CT and MR show, where, on whole volumes.

    mmfm train experiments/mmfm_volume_small_lesions.py
    mmfm train experiments/mmfm_volume_small_findings.py

Starts from the first part and learns findings, sides and grades of drawn volumes, which only the whole shows, with
lesions and masks as before. Slices learn in ``mmfm_volume_small_slices.py``, at a lower rate
and in larger batches; the report follows in ``mmfm_volume_small.py``.
"""

from mmfm.data.drawn import Drawn
from mmfm.experiment import Data, Experiment, Trainer
from mmfm.models.checkpoint import Scope
from mmfm.training import SFTConfig

experiment = Experiment(
    data=Data(
        drawn=(
            Drawn(region="chest_ct", count=2100, share=0.4, apart=40),
            Drawn(region="abdomen", count=2450, share=0.5, apart=50),
            Drawn(region="head", count=750, share=0.4, spacing_mm=(1.5, 1.5, 1.5), apart=30),
        ),
        batch_size=2,
        num_workers=1,
    ),
    init_from="runs/mmfm_volume_small_lesions/latest/checkpoint",
    task=SFTConfig(lr=1.5e-3, freeze=("encoder",), report_weight=0.0),
    trainer=Trainer(max_epochs=6),
    scope=Scope(modalities=("CT", "MR"), body_parts=("CHEST", "ABDOMEN", "HEAD"), views=(), min_age_years=18.0),
    summary="mmfm-volume-small, second part: findings",
    license="MedPix terms (non-commercial, attribution): research only",
)
