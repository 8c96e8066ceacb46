import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmfm.errors import CheckpointError
from mmfm.models.checkpoint import (
    Facts,
    Sensitivity,
    load_checkpoint,
    load_weights,
    resolve_checkpoint,
    save_checkpoint,
)

FACTS = Facts(
    operating_points={"cardiomegaly": 0.5}, sensitivity={"cardiomegaly": Sensitivity(value=0.9, positives=12)}
)


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_config, tiny_processor):
    folder = tmp_path / "tiny"
    save_checkpoint(
        folder, model=tiny_model, config=tiny_config, processor=tiny_processor, facts=FACTS, provenance={"seed": 1},
        card="# Card\n", license_text="Apache-2.0\n",
    )  # fmt: skip
    return folder


def test_a_checkpoint_opens_as_it_was_saved(folder, tiny_model):
    opened = load_checkpoint(str(folder))
    assert opened.facts == FACTS and opened.card == "# Card\n" and opened.name == "tiny"
    assert not opened.model.training
    for (name, ours), theirs in zip(opened.model.state_dict().items(), tiny_model.state_dict().values(), strict=True):
        wanted = theirs.bfloat16().float() if theirs.is_floating_point() and theirs.ndim >= 2 else theirs
        assert torch.equal(ours, wanted), name


def test_weights_are_half_size_and_nothing_is_pickled(folder):
    weights = load_file(folder / "model.safetensors")
    assert {t.dtype for t in weights.values() if t.is_floating_point() and t.ndim >= 2} == {torch.bfloat16}
    assert not [p for p in folder.rglob("*") if p.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl")]


def test_a_missing_and_an_unexpected_weight_are_named(folder, tiny_model):
    weights = load_file(folder / "model.safetensors")
    weights["heads.extra"] = weights.pop("heads.present.bias")
    save_file(weights, folder / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"missing heads\.present\.bias; unexpected heads\.extra"):
        load_weights(tiny_model, folder / "other.safetensors")


def test_a_weight_of_another_shape_is_named(folder, tiny_model):
    weights = load_file(folder / "model.safetensors")
    weights["heads.present.bias"] = torch.zeros(7)
    save_file(weights, folder / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"heads\.present\.bias of shape \(7,\) for \(3,\)"):
        load_weights(tiny_model, folder / "other.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "card.md"])
def test_an_altered_file_is_refused(folder, name):
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(CheckpointError, match=f"{name} altered"):
        load_checkpoint(str(folder))


def test_a_file_that_is_gone_is_named(folder):
    (folder / "processor.json").unlink()
    with pytest.raises(CheckpointError, match=r"no processor\.json"):
        load_checkpoint(str(folder))


def test_names_resolve_to_paths_then_to_shipped_folders(folder, monkeypatch):
    assert resolve_checkpoint(f"local-dir:{folder}") == folder
    monkeypatch.setenv("MMFM_CHECKPOINTS", str(folder.parent))
    assert resolve_checkpoint("tiny") == folder


def test_an_unknown_name_says_what_there_is(folder, monkeypatch):
    monkeypatch.setenv("MMFM_CHECKPOINTS", str(folder.parent))
    with pytest.raises(CheckpointError, match=r"tiny.*MMFM_CHECKPOINTS"):
        resolve_checkpoint("mmfm-that-is-not")


def test_saving_over_other_files_is_refused_and_leaves_them(folder, tiny_model, tiny_config, tiny_processor, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="other files"):
        save_checkpoint(
            other, model=tiny_model, config=tiny_config, processor=tiny_processor, facts=FACTS, provenance={},
            card="", license_text="",
        )  # fmt: skip
    assert (other / "thesis.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "tiny"]


def test_a_config_of_another_format_is_refused(folder):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "format": 99}))
    from mmfm.models.checkpoint import SUMS, _sha256

    lines = (folder / SUMS).read_text().splitlines()
    fresh = f"{_sha256(folder / 'config.json')}  config.json"
    (folder / SUMS).write_text("\n".join(fresh if line.endswith("  config.json") else line for line in lines) + "\n")
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(str(folder))
