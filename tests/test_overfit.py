"""The whole house in one go: four drawn studies are learned by heart, and the drafts then say what they show.

Once with radiographs and once with volumes.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mmfm.data.drawn import Drawn, kept_volume
from mmfm.data.manifest import read_manifest
from mmfm.evaluation.lesions import match_lesions
from mmfm.experiment import Data, Experiment, Source, Trainer, fit
from mmfm.measure import draft_all
from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig, draft, load_checkpoint
from mmfm.models.encoder3d import Encoder3D
from mmfm.models.processor import StudyPixels
from mmfm.models.recipes import RECIPES, Jitter, sample
from mmfm.report import Status
from mmfm.text import OBSERVATIONS, label_report
from mmfm.training import SFTConfig


def _present(findings, impression):
    return {(f.observation, f.laterality) for f in label_report(findings, impression) if f.status is Status.PRESENT}


def test_four_studies_are_learned_by_heart(tiny_manifest, tmp_path):
    lines = tiny_manifest.read_text().splitlines()[:4]
    four = tiny_manifest.with_name("four.jsonl")
    four.write_text("\n".join(lines) + "\n")
    experiment = Experiment(
        data=Data(train=(Source(name=str(four)),), select_fraction=0.0, batch_size=4),
        model=VLM.Config(
            encoder=Encoder2D.Config(name="test_efficientnet", image_size=64, weights=None),
            connector=Connector.Config(kind="mlp", num_tokens=4),
            language=LanguageModelConfig(hidden_size=64, num_layers=2, num_heads=2, vocab_size=512, max_length=384),
            head_dropout=0.0,
        ),
        task=SFTConfig(lr=5e-3, weight_decay=0.0, augmentation=None, ema_decay=None),
        trainer=Trainer(max_steps=150, precision="32-true", accelerator="cpu"),
    )
    run = fit(experiment, tmp_path / "runs" / "overfit" / "1", file=Path(__file__))
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1]["train/report"] < 0.05 and losses[-1]["train/findings"] < 0.02

    checkpoint = load_checkpoint(str(run / "checkpoint"))
    manifest = read_manifest(four)
    learned = {
        name
        for row in manifest.rows
        for name, state in row.labels.items()
        if state is not None and name in OBSERVATIONS
    }
    points = dict.fromkeys(learned, 0.5)
    checkpoint = replace(checkpoint, facts=replace(checkpoint.facts, operating_points=points))
    pixels = [checkpoint.processor.pixels(manifest.study(row)) for row in manifest.rows]
    drafts = draft_all(checkpoint, manifest.rows, pixels, batch_size=4)
    for row, drafted in zip(manifest.rows, drafts, strict=True):
        assert drafted.finished and "0 sentence(s) out, 0 in" in drafted.decoding
        assert _present(drafted.findings, drafted.impression) == _present(row.report.findings, row.report.impression)


def _read(processor, drawn) -> StudyPixels:
    """Returns a drawn volume as the processor would read its files."""
    recipe = processor.recipe(drawn.region)
    slabs, _ = sample({name: (array, drawn.affine) for name, array in drawn.images.items()}, recipe)
    return processor._volume(slabs, recipe, drawn.images)


@pytest.mark.slow
def test_the_lesions_of_four_volumes_are_learned_by_heart(tmp_path, monkeypatch):
    monkeypatch.setattr(Jitter, "draw", classmethod(lambda cls, rng: cls()))
    sources = tuple(
        Drawn(region=region, count=2, seed=seed, spacing_mm=(4.0,) * 3)
        for region, seed in (("head", 0), ("abdomen", 1))
    )
    experiment = Experiment(
        data=Data(
            drawn=sources, drawn_folder=str(tmp_path / "drawn"), select_fraction=0.0, batch_size=4,
            recipes=tuple(recipe.coarser(4.0) for recipe in RECIPES),
        ),
        model=VLM.Config(
            encoder=None,
            volume_encoder=Encoder3D.Config(width=8),
            tokens_per_slab=8,
            language=LanguageModelConfig(hidden_size=64, num_layers=2, num_heads=2, vocab_size=512, max_length=512),
            head_dropout=0.0,
        ),
        task=SFTConfig(lr=1e-2, weight_decay=0.0, augmentation=None, ema_decay=None),
        trainer=Trainer(max_steps=120, precision="32-true", accelerator="cpu"),
    )  # fmt: skip
    run = fit(experiment, tmp_path / "runs" / "overfit" / "1", file=Path(__file__))
    checkpoint = load_checkpoint(str(run / "checkpoint"))
    volumes = [kept_volume(source, number, tmp_path / "drawn") for source in sources for number in range(2)]
    counted = {finding.observation for drawn in volumes for finding in drawn.findings}
    assert counted == {"intracranial_hemorrhage", "liver_lesion", "pancreas_lesion"}
    config = checkpoint.processor.config
    facts = replace(
        checkpoint.facts, lesion_points=dict.fromkeys(config.lesions, 0.5), operating_points={"free_fluid": 0.5}
    )
    checkpoint = replace(checkpoint, facts=facts)
    read = [_read(checkpoint.processor, drawn) for drawn in volumes]
    drafts = draft(checkpoint, [(str(i), pixels, None) for i, pixels in enumerate(read)])
    for drawn, drafted in zip(volumes, drafts, strict=True):
        known = {finding.observation: finding for finding in drawn.findings}
        found = {finding.observation: finding for finding in drafted.decisions}
        assert set(found) == set(known), drafted.decoding
        for name, finding in found.items():
            match = match_lesions(known[name].lesions, finding.lesions)
            assert not match.missed and not match.false
            for truth, stated in match.hits:
                assert (stated.laterality, stated.location) == (truth.laterality, truth.location)
                assert abs(stated.diameter_mm - truth.diameter_mm) < 2
        for text in (drafted.findings, drafted.impression):
            stated = {f.observation: f for f in label_report(text, region=drawn.region) if f.status is Status.PRESENT}
            assert {name: f.laterality for name, f in stated.items()} == {
                name: f.laterality for name, f in known.items()
            }
