"""The shipped checkpoint mmfm-volume-small: lesions, findings, report and differential of CT and MR of adults.

    mmfm train experiments/mmfm_volume_small_lesions.py
    mmfm train experiments/mmfm_volume_small_findings.py
    mmfm train experiments/mmfm_volume_small_slices.py
    mmfm train experiments/mmfm_volume_small.py

Starts from these three, whose encoders and heads stay as they are, and learns to write the report that states
the findings and lesions named in its prompt. More volumes are set apart than before, and finer ones, since operating
points rest on them. Scores: see ``benchmarks/README.md``.
"""

from mmfm.data.drawn import Drawn
from mmfm.experiment import Data, Experiment, Source, Trainer
from mmfm.models.checkpoint import Scope
from mmfm.training import SFTConfig

CT_MM = (1.6, 1.25, 1.25)
"""Of CT set apart: finer than the model reads, and that of ``benchmarks/synthetic_volumes.py``."""

experiment = Experiment(
    data=Data(
        train=(Source(name="medpix2"),),
        drawn=(
            Drawn(region="chest_ct", count=2140, share=0.4, apart=80, apart_spacing_mm=CT_MM),
            Drawn(region="abdomen", count=2460, share=0.5, apart=60, apart_spacing_mm=CT_MM),
            Drawn(
                region="head",
                count=780,
                share=0.4,
                spacing_mm=(1.5, 1.5, 1.5),
                apart=60,
                apart_spacing_mm=(1.2, 1.0, 1.0),
            ),
        ),
        measured_on=("medpix2",),
        batch_size=4,
        num_workers=1,
    ),
    init_from="runs/mmfm_volume_small_slices/latest/checkpoint",
    task=SFTConfig(
        lr=1e-3,
        freeze=("encoder", "heads", "volume_encoder", "volume_heads"),
    ),
    trainer=Trainer(max_epochs=2),
    scope=Scope(
        modalities=("CT", "MR"),
        body_parts=("CHEST", "ABDOMEN", "HEAD"),
        views=(),
        min_age_years=18.0,
        caveats=("volumes were learned from drawn patients alone: no real CT or MR volume was seen in training",),
    ),
    summary="mmfm-volume-small: drafts reports of CT of chest and abdomen and MR of the head of adults",
    license="MedPix terms (non-commercial, attribution): research only",
)
