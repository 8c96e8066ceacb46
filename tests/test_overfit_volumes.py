"""The whole house in one go, for volumes: a drawn head and its mirror twin are learned by heart, then drafted."""

from dataclasses import replace
from pathlib import Path

import pytest

from mmfm.data.drawn import Drawn, kept_volume
from mmfm.evaluation.lesions import match_lesions
from mmfm.experiment import Data, Experiment, Trainer, fit
from mmfm.models import VLM, LanguageModelConfig, draft, load_checkpoint
from mmfm.models.checkpoint import VolumeFacts
from mmfm.models.encoder3d import Encoder3D
from mmfm.models.recipes import RECIPES, Jitter, sample
from mmfm.report import Status
from mmfm.text import label_report
from mmfm.training import SFTConfig

MM = 5.0


@pytest.mark.slow
def test_the_lesions_of_a_head_and_its_twin_are_learned_by_heart(tmp_path, monkeypatch):
    # A draft reads the eight ways to go half a patch, which is a voxel here, along some axes: these are learned.
    monkeypatch.setattr(
        Jitter, "draw", classmethod(lambda cls, rng: cls(shift_mm=tuple(MM * rng.integers(0, 2, 3).astype(float))))
    )
    source = Drawn(region="head", count=2, seed=3, spacing_mm=(MM,) * 3, share=0.6)
    experiment = Experiment(
        data=Data(
            drawn=(source,),
            drawn_folder=str(tmp_path / "drawn"),
            select_fraction=0.0,
            batch_size=2,
            recipes=tuple(recipe.coarser(MM) for recipe in RECIPES),
        ),
        model=VLM.Config(
            encoder=None,
            volume_encoder=Encoder3D.Config(width=8),
            tokens_per_slab=8,
            language=LanguageModelConfig(hidden_size=64, num_layers=2, num_heads=2, vocab_size=512, max_length=512),
            head_dropout=0.0,
        ),
        task=SFTConfig(lr=3e-3, weight_decay=0.0, augmentation=None, ema_decay=None, report_weight=0.0),
        trainer=Trainer(max_steps=320, precision="32-true", accelerator="cpu"),
    )
    run = fit(experiment, tmp_path / "runs" / "overfit" / "1", file=Path(__file__))

    checkpoint = load_checkpoint(str(run / "checkpoint"))
    points = VolumeFacts(lesion_points=dict.fromkeys(checkpoint.processor.config.lesions, 0.5))
    checkpoint = replace(checkpoint, facts=replace(checkpoint.facts, volumes=points))
    volumes = [kept_volume(source, number, tmp_path / "drawn") for number in range(source.count)]
    assert {f.laterality for f in volumes[0].findings} != {f.laterality for f in volumes[1].findings}
    recipe = checkpoint.processor.recipe("head")
    read = []
    for drawn in volumes:
        slabs, _ = sample({name: (array, drawn.affine) for name, array in drawn.images.items()}, recipe)
        read.append(checkpoint.processor._volume(slabs, recipe, drawn.images))
    drafts = draft(checkpoint, [(str(i), pixels, None) for i, pixels in enumerate(read)])
    for drawn, drafted in zip(volumes, drafts, strict=True):
        known = {finding.observation: finding for finding in drawn.findings if finding.lesions}
        found = {finding.observation: finding for finding in drafted.decisions}
        assert set(found) == set(known) and len(known) > 1
        for name, finding in found.items():
            match = match_lesions(known[name].lesions, finding.lesions)
            assert not match.missed and not match.false
            for truth, stated in match.hits:
                assert (stated.laterality, stated.location) == (truth.laterality, truth.location)
                assert abs(stated.diameter_mm - truth.diameter_mm) < 3
        told = {f.observation: f for f in label_report(drafted.findings, region="head") if f.status is Status.PRESENT}
        assert {name: f.laterality for name, f in told.items()} == {name: f.laterality for name, f in known.items()}
