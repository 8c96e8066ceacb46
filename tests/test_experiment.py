import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmfm.data.drawn import Drawn
from mmfm.errors import ConfigError
from mmfm.experiment import (
    Data,
    Experiment,
    Source,
    Trainer,
    drawn_studies,
    fit,
    load_experiment,
    override,
    split_rows,
    train,
)
from mmfm.imaging import Volume
from mmfm.measure import predict
from mmfm.models import VLM, LanguageModelConfig, load_checkpoint
from mmfm.training import SFT
from mmfm.training.sft import SELECTION_SCORE

FILES = sorted((Path(__file__).parents[1] / "experiments").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_experiment_runs_small_and_its_checkpoint_drafts(file, tiny_manifest, tmp_path):
    run = fit(load_experiment(file).tiny(tiny_manifest), tmp_path / "runs" / file.stem / "1", file=file)
    assert {p.name for p in run.iterdir()} >= {
        "experiment.py", "overrides.json", "provenance.json", "metrics.jsonl", "checkpoint",
    }  # fmt: skip
    assert (run / "experiment.py").read_text() == file.read_text()
    assert (run.parent / "latest").resolve() == run.resolve()
    drafts = predict(
        manifest=tiny_manifest, split="train", checkpoint=str(run / "checkpoint"), out=tmp_path / "p.jsonl"
    )
    assert len(drafts) == len(tiny_manifest.read_text().splitlines())


def test_a_run_with_a_cache_learns_the_same_and_the_next_one_decodes_nothing(tiny_manifest, tmp_path, monkeypatch):
    file = next(file for file in FILES if file.stem == "forkme")
    tiny = load_experiment(file).tiny(tiny_manifest)
    cached = override(tiny, [f"data.cache={tmp_path / 'cache'}", "data.cache_gb=1"])
    plain = fit(tiny, tmp_path / "runs" / "plain" / "1", file=file)
    first = fit(cached, tmp_path / "runs" / "cached" / "1", file=file)

    def decodes(series, **_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(Volume, "from_series", decodes)
    second = fit(cached, tmp_path / "runs" / "cached" / "2", file=file)
    weights = [(run / "checkpoint" / "model.safetensors").read_bytes() for run in (plain, first, second)]
    assert weights[0] == weights[1] == weights[2]


def test_three_overrides_swap_encoder_connector_and_language_model(tiny_manifest, tmp_path):
    small = LanguageModelConfig(hidden_size=48, num_layers=1, num_heads=2, vocab_size=400)
    tokenizer = small.build_tokenizer(["Small left pleural effusion."] * 20)
    small.build(tokenizer).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    tiny = load_experiment(FILES[0]).tiny(tiny_manifest)
    changed = override(
        tiny,
        [
            "model.encoder.name=test_vit",
            "model.connector.kind=resampler",
            f"model.language.name={tmp_path / 'llama'}",
        ],
    )
    run = fit(changed, tmp_path / "runs" / "swapped" / "1", file=FILES[0])
    opened = load_checkpoint(str(run / "checkpoint"))
    assert opened.config.encoder.name == "test_vit" and opened.config.connector.kind == "resampler"
    assert opened.model.language.config.hidden_size == 48


def test_an_interrupted_run_goes_on_from_its_last_epoch(tiny_manifest, tmp_path, monkeypatch, capsys):
    tiny = override(load_experiment(FILES[0]).tiny(tiny_manifest), ["trainer.max_steps=-1", "trainer.max_epochs=2"])
    run = tmp_path / "runs" / "resumed" / "1"
    step = SFT.training_step

    def breaks_in_the_second_epoch(task, batch, batch_idx):
        if task.current_epoch == 1:
            raise OSError("power cut")
        return step(task, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SFT, "training_step", breaks_in_the_second_epoch)
        with pytest.raises(OSError, match="power cut"):
            fit(tiny, run, file=FILES[0])
    assert not (run / "checkpoint").exists()
    capsys.readouterr()
    fit(tiny, run, file=FILES[0], resume=True)
    assert "epoch 2, step " in capsys.readouterr().err
    epochs = [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [0, 1] and (run / "checkpoint" / "model.safetensors").is_file()


def test_a_run_keeps_its_last_epoch_beside_its_best(tiny_manifest, tmp_path, monkeypatch):
    def sinks(task):
        task._scores.clear()
        task.log(SELECTION_SCORE, -float(task.current_epoch))

    monkeypatch.setattr(SFT, "on_validation_epoch_end", sinks)
    epochs = ["trainer.max_steps=-1", "trainer.max_epochs=2", "data.select_fraction=0.5"]
    tiny = override(load_experiment(FILES[0]).tiny(tiny_manifest), epochs)
    folder = fit(tiny, tmp_path / "runs" / "sinks" / "1", file=FILES[0]) / "lightning"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    kept = {name: torch.load(folder / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")}
    assert kept == {"best": 0, "last": 1}


def test_a_run_starts_from_the_weights_of_a_checkpoint(tiny_manifest, tmp_path, tiny_checkpoint):
    tiny = load_experiment(FILES[0]).tiny(tiny_manifest)
    start = replace(tiny, model=None, init_from=str(tiny_checkpoint), task=replace(tiny.task, lr=0.0, ema_decay=None))
    run = fit(start, tmp_path / "runs" / "started" / "1", file=FILES[0])
    ours, theirs = load_checkpoint(str(run / "checkpoint")).model, load_checkpoint(str(tiny_checkpoint)).model
    assert (ours.heads.present.weight == theirs.heads.present.weight).all()


def test_dry_run_prints_the_recipe_and_writes_nothing(tiny_manifest, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(
        "from mmfm.experiment import Data, Experiment, Source\n"
        "from mmfm.models import VLM\n"
        f"experiment = Experiment(data=Data(train=(Source(name={str(tiny_manifest)!r}),)), model=VLM.Config())\n"
    )
    assert train(file, ["trainer.max_steps=3"], dry_run=True) is None
    printed = capsys.readouterr().out
    assert '"max_steps": 3' in printed and "studies to train on" in printed
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("trainer.max_stepps=3", "did you mean max_steps"),
        ("model.connector.kind=perceiver", "'perceiver'"),
        ("trainer.max_steps=many", "'many'"),
        ("trainer", "no ="),
        ("seed.deeper=1", "it has none"),
    ],
)
def test_an_override_that_does_not_fit_is_one_line(assignment, words):
    with pytest.raises(ConfigError, match=words) as caught:
        override(Experiment(data=Data(train=()), model=VLM.Config()), [assignment])
    assert "\n" not in str(caught.value)


def test_overrides_take_literals_tuples_and_none():
    base = Experiment(data=Data(train=()), model=VLM.Config())
    changed = override(base, ["task.lr=1", "task.freeze=['encoder']", "task.ema_decay=None", "data.prompt=Draft it."])
    assert changed.task.lr == 1.0 and changed.task.freeze == ("encoder",)
    assert changed.task.ema_decay is None and changed.data.prompt == "Draft it."
    assert base.task.freeze == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [("experiment = (", "SyntaxError"), ("import not_there", "not_there"), ("1 / 0", "ZeroDivisionError")],
)
def test_a_file_that_does_not_run_is_refused_in_one_line(tmp_path, text, words):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_experiment(file)
    assert "\n" not in str(caught.value)


def test_an_accelerator_that_is_not_there_writes_nothing(tiny_manifest, tmp_path):
    absent = "mps" if not torch.backends.mps.is_available() else "tpu"
    tiny = override(load_experiment(FILES[0]).tiny(tiny_manifest), [f"trainer.accelerator={absent}"])
    with pytest.raises(ConfigError, match="accelerator"):
        fit(tiny, tmp_path / "runs" / "no" / "1", file=FILES[0])
    assert not (tmp_path / "runs").exists()


def test_resuming_what_never_ran_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"last\.ckpt"):
        train(FILES[0], resume=True)


def test_another_part_set_apart_than_the_start_had_is_refused(tiny_manifest, tmp_path):
    tiny = load_experiment(FILES[0]).tiny(tiny_manifest)
    run = fit(tiny, tmp_path / "runs" / "first" / "1", file=FILES[0])
    second = replace(tiny, model=None, init_from=str(run / "checkpoint"), data=replace(tiny.data, select_fraction=0.5))
    with pytest.raises(ConfigError, match="select_fraction"):
        fit(second, tmp_path / "runs" / "second" / "1", file=FILES[0])


@pytest.mark.parametrize("text", ["x = 1\n", "experiment = 3\n"])
def test_a_file_without_an_experiment_is_refused(tmp_path, text):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match="variable named experiment"):
        load_experiment(file)


def test_an_unset_data_folder_is_named(monkeypatch):
    monkeypatch.delenv("MMFM_DATA", raising=False)
    with pytest.raises(ConfigError, match="MMFM_DATA"):
        split_rows(Experiment(data=Data(train=(Source(name="iu_xray"),)), model=VLM.Config()))


def test_selection_is_set_apart_by_patient_and_repeatably(tiny_manifest):
    recipe = Experiment(
        data=Data(train=(Source(name=str(tiny_manifest)),), select_fraction=0.4), model=VLM.Config(), trainer=Trainer()
    )
    trained, selected = split_rows(recipe)
    assert trained and selected
    assert not {row.patient_id for _, row in trained} & {row.patient_id for _, row in selected}
    assert [row.study_uid for _, row in split_rows(recipe)[1]] == [row.study_uid for _, row in selected]


def test_only_the_sources_measured_on_select(tiny_manifest, tmp_path):
    tiny = load_experiment(FILES[0]).tiny(tiny_manifest)
    tiny = replace(tiny, data=replace(tiny.data, select_fraction=0.6))
    [(_, first), *_] = split_rows(tiny)[1]
    lines = [json.loads(line) for line in tiny_manifest.read_text().splitlines()]
    for line in lines:
        line["source"] = "real" if line["study_uid"] == first.study_uid else "synthetic"
    manifest = tiny_manifest.with_name("two_sources.jsonl")
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = replace(tiny, data=replace(tiny.data, train=(Source(name=str(manifest)),), measured_on=("real",)))
    run = fit(recipe, tmp_path / "runs" / "1", file=FILES[0])
    studies = json.loads((run / "provenance.json").read_text())["studies"]
    assert 0 < studies["select"] < studies["apart"]
    wrong = replace(recipe, data=replace(recipe.data, measured_on=("elsewhere",)))
    with pytest.raises(ConfigError, match=r"measured_on.*real, synthetic"):
        fit(wrong, tmp_path / "runs" / "2", file=FILES[0])
    assert not (tmp_path / "runs" / "2").exists()


def test_codes_that_enough_studies_carry_are_learned_and_never_drafted(tiny_manifest, tmp_path):
    lines = [json.loads(line) for line in tiny_manifest.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["codes"] = ["Spine"] if number else ["Spine", "Rare"]
    manifest = tiny_manifest.with_name("coded.jsonl")
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tiny = load_experiment(FILES[0]).tiny(manifest)
    run = fit(
        replace(tiny, data=replace(tiny.data, min_code_studies=2)), tmp_path / "runs" / "coded" / "1", file=FILES[0]
    )
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["train/codes"] > 0
    opened = load_checkpoint(str(run / "checkpoint"))
    assert opened.processor.config.codes == ("Spine",)
    drafts = predict(manifest=manifest, split="train", checkpoint=str(run / "checkpoint"), out=tmp_path / "p.jsonl")
    assert "Spine" not in drafts[0].finding_probabilities
    second = replace(tiny, model=None, init_from=str(run / "checkpoint"))
    again = fit(second, tmp_path / "runs" / "second" / "1", file=FILES[0])
    assert load_checkpoint(str(again / "checkpoint")).processor.config.codes == ("Spine",)
    first, last = (json.loads((one / "provenance.json").read_text()) for one in (run, again))
    assert first["seconds_with_starts"] == first["seconds"] > 0
    assert last["seconds_with_starts"] == pytest.approx(first["seconds"] + last["seconds"], abs=0.2)
    card = (again / "checkpoint" / "card.md").read_text()
    assert "hours with the parts before it" in card and "| observation | operating point |" not in card
    assert load_checkpoint(str(again / "checkpoint")).facts.operating_points == {}
    assert "none is ever stated" in card
    with pytest.raises(ConfigError, match="min_code_studies"):
        replace(second, data=replace(tiny.data, min_code_studies=2))


def test_parts_of_volumes_teach_no_report():
    path = next(file for file in FILES if file.stem == "mmfm_volume_small_lesions")
    experiment = load_experiment(path)
    assert experiment.data.crops is not None
    with pytest.raises(ConfigError, match=r"data\.crops: expected task\.report_weight=0.*found 1\.0"):
        replace(experiment, task=replace(experiment.task, report_weight=1.0))


def test_the_last_of_the_drawn_volumes_are_set_apart_with_their_mirror_twins():
    experiment = load_experiment(next(file for file in FILES if file.stem == "mmfm_volume_small_findings"))

    def numbers(**changed):
        source = Drawn(region="head", count=40, share=0.4, **changed)
        data = replace(experiment.data, drawn=(source,))
        parts = drawn_studies(replace(experiment, data=data), SimpleNamespace(drawn=print))
        return [[number for _, number in part.studies] for part in parts]

    assert numbers() == [list(range(36)), [36, 37, 38, 39]]
    for odd in (15, 17):  # takes the twin too
        first = 40 - odd - 1
        assert numbers(apart=odd) == [list(range(first)), list(range(first, 40))]
    finer = replace(experiment.data, drawn=(Drawn(region="head", count=40, share=0.4, apart_spacing_mm=(1.2, 1, 1)),))
    parts = drawn_studies(replace(experiment, data=finer), SimpleNamespace(drawn=print))
    assert [{(one.spacing_mm, one.share) for one, _ in part.studies} for part in parts] == [
        {((2.5, 2.5, 2.5), 0.4)}, {((1.2, 1, 1), None)},
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"fewer volumes of head set apart than there are \(40\); found 40"):
        numbers(apart=40)


def test_every_part_of_the_shipped_checkpoint_for_volumes_sets_the_same_apart():
    """What the last part measures on, no part before it was trained on."""
    files = [file for file in FILES if file.stem.startswith("mmfm_volume_small")]
    drawn = [drawn_studies(load_experiment(file), SimpleNamespace(drawn=print))[0].studies for file in files]
    trained = [Counter((source.region, source.seed) for source, _ in studies) for studies in drawn if studies]
    assert len(trained) == 3 and all(one == trained[0] for one in trained)


def test_heads_that_nothing_taught_give_no_probability(tiny_manifest, tmp_path):
    run = fit(load_experiment(FILES[0]).tiny(tiny_manifest), tmp_path / "runs" / "learned" / "1", file=FILES[0])
    drafts = predict(
        manifest=tiny_manifest, split="train", checkpoint=str(run / "checkpoint"), out=tmp_path / "p.jsonl"
    )
    taught = set(drafts[0].finding_probabilities)
    assert {"pleural_effusion", "normal"} <= taught
    assert not {"lung_opacity", "emphysema"} & taught  # drawn studies leave the one out and never show the other


def test_only_frozen_modules_stand_still_in_training(tiny_manifest, tmp_path, tiny_checkpoint, monkeypatch):
    tiny = load_experiment(FILES[0]).tiny(tiny_manifest)
    start = replace(
        tiny, model=None, init_from=str(tiny_checkpoint), task=replace(tiny.task, freeze=("encoder.network.conv_stem",))
    )
    modes = []
    step = SFT.training_step

    def look(task, batch, batch_idx):
        network = task.model.encoder.network
        modes.append((task.model.heads.training, network.blocks.training, network.conv_stem.training))
        return step(task, batch, batch_idx)

    monkeypatch.setattr(SFT, "training_step", look)
    fit(start, tmp_path / "runs" / "modes" / "1", file=FILES[0])
    assert set(modes) == {(True, True, False)}
