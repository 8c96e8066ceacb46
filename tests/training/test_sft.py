import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmfm.data.collate import collate
from mmfm.data.dataset import ManifestDataset
from mmfm.data.manifest import read_manifest
from mmfm.errors import ConfigError
from mmfm.models import VLM, Processor, load_checkpoint
from mmfm.training import sft
from mmfm.training.sft import SFTConfig


@pytest.fixture
def parts(tiny_checkpoint: Path, tiny_manifest: Path) -> tuple[VLM, Processor, list]:
    checkpoint = load_checkpoint(str(tiny_checkpoint))
    manifest = read_manifest(tiny_manifest)
    studies = ManifestDataset([(manifest, row) for row in manifest.rows], checkpoint.processor)
    return checkpoint.model, checkpoint.processor, [studies[i] for i in range(len(studies))]


def _task(parts, **changes):
    model, processor, _ = parts
    return SFTConfig(**changes).build(model, seed=0, names=processor.config)


def test_every_part_of_the_loss_teaches_something(parts):
    losses, _ = _task(parts).losses(collate(parts[2], pad_token_id=0))
    assert all(losses[name] > 0 for name in ("report", "findings", "side", "view"))
    losses["loss"].backward()
    without = {n for n, p in parts[0].named_parameters() if p.grad is None}
    assert without <= {"heads.missing_2E"}


def test_states_that_nobody_gave_teach_nothing(parts):
    batch = collate(parts[2], pad_token_id=0)
    silent = replace(batch, states_BO=torch.full_like(batch.states_BO, float("nan")))
    task = _task(parts)
    losses, _ = task.losses(silent)
    assert losses["findings"] == 0
    losses["findings"].backward()
    assert not parts[0].heads.present.weight.grad.any()


def test_the_loss_of_a_study_does_not_depend_on_padding(parts):
    task = _task(parts, augmentation=None).eval()
    alone, _ = task.losses(collate(parts[2][:1], pad_token_id=0))
    longest = max(parts[2], key=lambda item: len(item.input_ids_T))
    padded = collate([parts[2][0], longest], pad_token_id=0)
    first = replace(padded, labels_BT=padded.labels_BT.clone())
    first.labels_BT[1] = -100
    beside, _ = task.losses(first)
    torch.testing.assert_close(beside["report"], alone["report"], atol=1e-4, rtol=1e-4)


def test_frozen_modules_keep_their_weights_and_their_mode(parts):
    task = _task(parts, freeze=("encoder",))
    task.train()
    assert task.model.training and not task.model.encoder.training
    losses, _ = task.losses(collate(parts[2], pad_token_id=0))
    losses["loss"].backward()
    assert all(p.grad is None for p in task.model.encoder.parameters())


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_heads_leave_the_choice_of_the_epoch_to_the_report(parts, frozen, monkeypatch):
    monkeypatch.setattr(sft, "MIN_EACH", 1)
    task = _task(parts, freeze=("encoder", "heads") if frozen else ()).eval()
    logged = {}
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: value}))
    monkeypatch.setattr(task, "log_dict", lambda values, **_: logged.update(values))
    with torch.no_grad():
        task.validation_step(collate(parts[2], pad_token_id=0), 0)
        task.on_validation_epoch_end()
    aurocs = [value for name, value in logged.items() if name.startswith("select/auroc_")]
    expected = -float(logged["select/report"]) if frozen else sum(aurocs) / len(aurocs)
    assert logged[sft.SELECTION_SCORE] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("codes", "chosen_by"), [(0.4, "codes"), (0.0, "findings")])
def test_too_few_findings_leave_the_choice_of_the_epoch_to_the_codes(parts, codes, chosen_by, monkeypatch):
    monkeypatch.setattr(sft, "MIN_EACH", 99)
    task = _task(parts).eval()
    logged = {}
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: value}))
    monkeypatch.setattr(task, "log_dict", lambda values, **_: logged.update(values))
    with torch.no_grad():
        losses, heads = task.losses(collate(parts[2], pad_token_id=0))
    monkeypatch.setattr(task, "losses", lambda batch: (losses | {"codes": torch.tensor(codes)}, heads))
    with torch.no_grad():
        task.validation_step(collate(parts[2], pad_token_id=0), 0)
        task.on_validation_epoch_end()
    assert logged[sft.SELECTION_SCORE] == pytest.approx(-float(logged[f"select/{chosen_by}"]), abs=1e-4)


def test_each_picture_learns_its_own_modality_and_the_part_of_a_study_of_one(parts, monkeypatch):
    model, processor, items = parts
    codes = ("modality/CT", "modality/MR", "plane/Axial", "body_part/Head", "body_part/Thorax")
    task = SFTConfig(report_weight=0.0).build(model, seed=0, names=replace(processor.config, codes=codes))
    several = next(item for item in items if len(item.views_S) > 1)
    count = len(several.views_S)
    of_both = replace(several, modalities_S=torch.tensor([1] + [0] * (count - 1)))
    unsaid = replace(several, modalities_S=torch.full((count,), -1))
    batch = collate(
        [of_both, replace(several, modalities_S=torch.zeros(count, dtype=torch.long)), unsaid], pad_token_id=0
    )
    nan = float("nan")
    of_head, of_both_parts = [1.0, 1, 1, 1, 0], [1.0, 0, 0, 1, 1]
    batch = replace(batch, codes_BK=torch.tensor([of_head, of_both_parts, [nan] * 5]))
    of_each = torch.zeros(3 * count, 5, requires_grad=True)
    encoded = model.encode(batch)
    heads = replace(encoded.heads, codes_BK=torch.zeros(3, 5), codes_NK=of_each)
    monkeypatch.setattr(model, "encode", lambda batch: replace(encoded, heads=heads))

    losses, _ = task.losses(batch)

    assert losses["codes"].item() == pytest.approx(3 * math.log(2)), "of studies, modalities and parts of the body"
    (grad,) = torch.autograd.grad(losses["codes"], of_each)
    first, second, third = (part.sign() for part in grad.split(count))
    assert torch.equal(first[0], torch.tensor([1.0, -1, 0, -1, 1])), "an MR picture of a study of both"
    assert torch.equal(first[1:], torch.tensor([-1.0, 1, 0, -1, 1]).expand(count - 1, 5))
    assert torch.equal(second, torch.tensor([-1.0, 1, 0, 0, 0]).expand(count, 5)), "two parts: of which picture?"
    assert not third.any()


def test_freezing_what_is_not_there_is_refused(parts):
    with pytest.raises(ConfigError, match=r"task\.freeze.*encoder"):
        _task(parts, freeze=("vision_tower",))


def test_without_the_report_the_language_model_is_left_alone(parts):
    losses, _ = _task(parts, report_weight=0.0).losses(collate(parts[2], pad_token_id=0))
    losses["loss"].backward()
    assert all(p.grad is None for p in parts[0].language.parameters())
