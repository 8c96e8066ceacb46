"""The whole house in one go: four drawn studies are learned by heart, and the drafts then say what they show."""

import json
from dataclasses import replace
from pathlib import Path

from mmfm.data.manifest import read_manifest
from mmfm.experiment import Data, Experiment, Source, Trainer, fit
from mmfm.measure import draft_all
from mmfm.models import VLM, Connector, Encoder2D, LanguageModelConfig, load_checkpoint
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
