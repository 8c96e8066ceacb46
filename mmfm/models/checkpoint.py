"""Checkpoint: a folder that holds everything a draft needs, shared as safetensors and JSON, never pickle.

::

    config.json         the parts by name and size, scope, operating points, measured sensitivity
    model.safetensors   weights (matrices in bfloat16, vectors in float32)
    processor.json      preprocessing
    tokenizer/          of the language model
    language/           config of a language model that was not made from scratch
    provenance.json     seed, data, hardware, time, versions, commit of the training
    card.md  LICENSE    what it was trained on, its numbers, its terms
    SHA256SUMS          of all of them; checked when the folder is opened

Names resolve in this order: ``hf-hub:owner/name``, ``local-dir:path``, a path, then a shipped name in the folders of
``MMFM_CHECKPOINTS`` and in ``checkpoints/`` of the checkout.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmfm.errors import CheckpointError
from mmfm.files import write_whole
from mmfm.jsonable import from_json, to_json
from mmfm.models.language import SCRATCH
from mmfm.models.processor import Processor
from mmfm.models.vlm import VLM

FORMAT = 1
SUMS = "SHA256SUMS"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The studies that a checkpoint was made for."""

    modalities: tuple[str, ...] = ("CR", "DX")
    body_parts: tuple[str, ...] = ("CHEST",)
    views: tuple[str, ...] = ("frontal", "lateral")
    min_age_years: float | None = 18.0
    max_age_years: float | None = None
    caveats: tuple[str, ...] = ()
    """What every draft must say of itself, such as that only drawn studies were learned from."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Share of the studies with a finding in which it was named, on studies that the model was not trained on."""

    value: float
    positives: int
    """Studies with the finding that it was measured on."""


@dataclass(frozen=True, kw_only=True)
class VolumeFacts:
    """What was measured on volumes, whose heads are others than those of pictures."""

    operating_points: dict[str, float] = field(default_factory=dict)
    """As in ``Facts``, of observations that are not counted."""
    lesion_points: dict[str, float] = field(default_factory=dict)
    """P from which on a peak of a heat map is a lesion, by observation that is counted."""
    sensitivity: dict[str, Sensitivity] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a trained model besides its weights."""

    scope: Scope = Scope()
    operating_points: dict[str, float]
    """P(present) from which on a finding of pictures is stated, by observation; others are never stated."""
    sensitivity: dict[str, Sensitivity]
    volumes: VolumeFacts = VolumeFacts()
    """The same of volumes."""
    learned: tuple[str, ...] | None = None
    """Observations whose head saw both present and absent studies; the others get no probability. None: all did."""
    sensitivity_floor: float = 0.9
    """Negatives are shown only for observations that were measured above it."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint."""

    name: str
    sha256: str
    """Of ``model.safetensors``."""
    config: VLM.Config
    model: VLM
    processor: Processor
    facts: Facts
    card: str


def save_checkpoint(
    folder: Path,
    *,
    model: VLM,
    config: VLM.Config,
    processor: Processor,
    facts: Facts,
    provenance: dict[str, Any],
    card: str,
    license_text: str,
) -> None:
    """Writes a checkpoint folder: all of it, or nothing.

    Raises:
        CheckpointError: ``folder`` exists already and is no checkpoint.
    """
    if folder.exists() and not (folder / SUMS).is_file():
        raise CheckpointError(
            str(folder),
            expected="a new folder, or a checkpoint to replace",
            found="other files",
            fix="choose another name",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        half.chmod(0o755)
        save_file({name: _packed(tensor) for name, tensor in _unique_state(model).items()}, half / "model.safetensors")
        values = {"format": FORMAT, "model": to_json(config), "facts": to_json(facts)}
        (half / "config.json").write_text(json.dumps(values, indent=2) + "\n")
        processor.save(half)
        if config.language.name != SCRATCH:
            model.language.config.save_pretrained(half / "language")
        (half / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
        (half / "card.md").write_text(card)
        (half / "LICENSE").write_text(license_text)
        for path in half.rglob("*"):
            if path.is_file():
                path.chmod(0o644)
        files = sorted(p for p in half.rglob("*") if p.is_file())
        (half / SUMS).write_text("".join(f"{_sha256(p)}  {p.relative_to(half).as_posix()}\n" for p in files))
        if folder.exists():
            shutil.rmtree(folder)
        half.rename(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def renew_card_sum(folder: Path) -> None:
    """Writes the SHA-256 of a card that was changed; those of the other files stay as they were."""
    lines = [line for line in (folder / SUMS).read_text().splitlines() if not line.endswith("  card.md")]
    lines.append(f"{_sha256(folder / 'card.md')}  card.md")
    write_whole(folder / SUMS, "".join(f"{line}\n" for line in lines))


def load_checkpoint(name: str, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Returns the checkpoint of that name with its model in evaluation mode.

    Raises:
        CheckpointError: no such checkpoint, a file is missing or altered, or a weight is missing, unexpected or of
            another shape.
    """
    folder = resolve_checkpoint(name)
    sums = verify_checkpoint(folder)
    try:
        values = json.loads((folder / "config.json").read_text())
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        config, facts = from_json(VLM.Config, values["model"]), from_json(Facts, values["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            str(folder / "config.json"), expected=f"a config of format {FORMAT}", found=str(error)[:160],
            fix="take a checkpoint that this version of mmfm wrote",
        ) from None  # fmt: skip
    processor = Processor.load(folder)
    built = config
    if config.language.name != SCRATCH:
        built = replace(config, language=replace(config.language, name=str(folder / "language")))
    model = built.build(processor, weights=False)
    load_weights(model, folder / "model.safetensors")
    return Checkpoint(
        name=folder.name,
        sha256=sums["model.safetensors"],
        config=config,
        model=model.eval().to(device),
        processor=processor,
        facts=facts,
        card=(folder / "card.md").read_text(),
    )


def resolve_checkpoint(name: str) -> Path:
    """Returns the folder of a checkpoint name; the module's docstring has the order.

    Raises:
        CheckpointError: there is none.
    """
    if name.startswith("hf-hub:"):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(name.removeprefix("hf-hub:")))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                name, expected="a repository of the hub that can be reached", found=str(error).splitlines()[0][:120],
                fix="check the name and the network, or download it and use local-dir:PATH",
            ) from None  # fmt: skip
    if name.startswith("local-dir:") or Path(name).is_dir():
        folder = Path(name.removeprefix("local-dir:"))
        if not folder.is_dir():
            raise CheckpointError(name, expected="a folder", found="none there", fix="check the path")
        return folder
    places = shipped_folders()
    for place in places:
        if (place / name / "config.json").is_file():
            return place / name
    known = sorted({p.name for place in places if place.is_dir() for p in place.iterdir() if (p / SUMS).is_file()})
    raise CheckpointError(
        name,
        expected=f"a folder, hf-hub:ID, local-dir:PATH or a shipped checkpoint ({', '.join(known) or 'none found'})",
        found="no such checkpoint",
        fix="check the name, or set MMFM_CHECKPOINTS to the checkpoints/ folder of a checkout of mmfm",
    )


def shipped_folders() -> list[Path]:
    """Returns the folders that may hold shipped checkpoints: ``MMFM_CHECKPOINTS``, then the checkout's."""
    named = [Path(p) for p in os.environ.get("MMFM_CHECKPOINTS", "").split(os.pathsep) if p]
    return [*named, Path(__file__).parents[2] / "checkpoints"]


def verify_checkpoint(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a checkpoint, once all of them fit.

    Raises:
        CheckpointError: a file is missing or altered.
    """

    def refuse(found: str) -> CheckpointError:
        return CheckpointError(
            str(folder), expected=f"the files of {SUMS}, unaltered", found=found,
            fix="take the checkpoint folder whole from where it was published",
        )  # fmt: skip

    if not (folder / SUMS).is_file():
        raise refuse(f"no {SUMS}")
    sums = {}
    for line in (folder / SUMS).read_text(errors="replace").splitlines():
        digest, _, file = line.partition("  ")
        if not (folder / file).is_file():
            raise refuse(f"no {file}")
        if _sha256(folder / file) != digest:
            raise refuse(f"{file} altered")
        sums[file] = digest
    for file in ("config.json", "model.safetensors", "processor.json", "provenance.json", "card.md", "LICENSE"):
        if file not in sums:
            raise refuse(f"no line for {file}")
    return sums


def load_weights(model: torch.nn.Module, file: Path) -> None:
    """Copies the weights of a safetensors file into ``model``, every one of them.

    Raises:
        CheckpointError: a weight is missing, unexpected or of another shape; the message names it.
    """
    wanted = _unique_state(model)
    try:
        with safe_open(file, framework="pt") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            str(file),
            expected="a safetensors file",
            found=str(error)[:160],
            fix="take the checkpoint folder whole again",
        ) from None
    faults = [f"missing {n}" for n in wanted if n not in found] + [f"unexpected {n}" for n in found if n not in wanted]
    faults += [
        f"{n} of shape {tuple(found[n].shape)} for {tuple(wanted[n].shape)}"
        for n in wanted
        if n in found and wanted[n].shape != found[n].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise CheckpointError(
            str(file), expected=f"the {len(wanted)} weights of the model in config.json",
            found="; ".join(faults[:3]) + more, fix="use weights and config.json of the same checkpoint",
        )  # fmt: skip
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])


def _unique_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Returns the state with tied weights once, under their first name."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.numel() == 0 or tensor.data_ptr() not in seen:
            state[name] = tensor
            seen.add(tensor.data_ptr())
    return state


def round_as_saved(model: torch.nn.Module) -> None:
    """Rounds the weights in place to what ``save_checkpoint`` keeps, so that what is measured is what is shipped."""
    with torch.no_grad():
        for tensor in _unique_state(model).values():
            tensor.copy_(_packed(tensor))


def _packed(tensor: Tensor) -> Tensor:
    is_matrix = tensor.is_floating_point() and tensor.ndim >= 2
    return tensor.detach().to("cpu", torch.bfloat16 if is_matrix else tensor.dtype).contiguous()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
