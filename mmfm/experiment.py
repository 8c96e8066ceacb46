"""Experiment: one typed Python file that says what is learned, from what, and how.

    mmfm train experiments/forkme.py
    mmfm train experiments/forkme.py model.connector.kind=resampler trainer.max_steps=500

A run writes ``runs/<name>/<time>/``: ``experiment.py`` (the file as it ran), ``overrides.json``, ``provenance.json``,
``metrics.jsonl``, TensorBoard events and ``checkpoint/``; ``mmfm predict`` and ``mmfm evaluate`` then draft with it.
``mmfm train runs/<name>/<time>`` repeats it.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import shutil
import sys
import time
import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer as LightningTrainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar, Timer, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import ConcatDataset, DataLoader, Subset

from mmfm.batch import Inputs
from mmfm.data.cache import VolumeCache
from mmfm.data.collate import collate
from mmfm.data.datamodule import StudyDataModule
from mmfm.data.dataset import ManifestDataset
from mmfm.data.drawn import COUNTED, EXTENDED, PLACES, Drawn, DrawnDataset, drawn_texts
from mmfm.data.manifest import LABEL_NAMES, NORMAL, Manifest, ManifestRow, prepared, read_manifest
from mmfm.errors import ConfigError, MmfmError
from mmfm.evaluation.leaderboard import SUMMARY_BEGIN, SUMMARY_END
from mmfm.jsonable import to_json
from mmfm.models.checkpoint import (
    Checkpoint,
    Facts,
    Scope,
    Sensitivity,
    load_checkpoint,
    resolve_checkpoint,
    round_as_saved,
    save_checkpoint,
)
from mmfm.models.connector import Connector
from mmfm.models.encoder2d import Encoder2D
from mmfm.models.encoder3d import Encoder3D
from mmfm.models.language import SCRATCH, LanguageModelConfig
from mmfm.models.processor import Processor
from mmfm.models.recipes import RECIPES, Crops, Recipe
from mmfm.models.vlm import VLM
from mmfm.report import NOTICE, Status
from mmfm.text import REGIONS, observations
from mmfm.training.operating_points import (
    MIN_AUROC,
    MIN_POINT_POSITIVES,
    MIN_POSITIVES,
    MOST_FALSE_LESIONS,
    NEARLY_BEST,
    operating_points,
)
from mmfm.training.provenance import has_fast_bf16, provenance
from mmfm.training.sft import SELECTION_SCORE, SFTConfig

TINY_MM = 8.0
"""Between the voxels of volumes in ``Experiment.tiny``."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Studies of a prepared source."""

    name: str
    """A folder of ``MMFM_DATA`` such as ``iu_xray``, or the path of a ``manifest.jsonl``."""
    splits: tuple[str, ...] = ("train",)

    def manifest(self) -> Path:
        """Returns the path of the manifest.

        Raises:
            ConfigError: ``MMFM_DATA`` is unset, or holds no such source.
        """
        return Path(self.name) if self.name.endswith(".jsonl") else prepared(self.name)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is learned from."""

    train: tuple[Source, ...] = ()
    drawn: tuple[Drawn, ...] = ()
    """Volumes that are drawn for training, beside the studies of ``train``."""
    drawn_folder: str = "runs/drawn"
    """Keeps them once they are drawn, about 10 MB a volume at the spacing of a recipe."""
    recipes: tuple[Recipe, ...] = RECIPES
    """How volumes are read, where the model has a ``volume_encoder``. With ``init_from``, its recipes are kept."""
    crops: Crops | None = None
    """Parts of each drawn volume to learn lesions and masks from, since most of the whole is empty; ``None``
    gives the whole, which alone teaches findings and the report. Volumes set apart are always whole."""
    select_fraction: float = 0.1
    """Part of the patients that is set apart to select the best epoch and the operating points."""
    measured_on: tuple[str, ...] = ()
    """Values of ``source`` in the manifests whose set-apart studies select the epoch and give the sensitivities and,
    for observations that enough of them show, the operating points; all where empty. Drawn studies flatter: name the
    real sources here. Volumes drawn in memory select the epoch too, and give operating points; sensitivities only where
    this is empty."""
    min_code_studies: int | None = None
    """Codes of the sources that so many training studies carry are learned beside the observations, because they teach
    the encoder what else a picture shows; ``None`` learns none. With ``init_from``, its codes are kept."""
    prompt: str = "Write the findings and the impression."
    batch_size: int = 16
    num_workers: int = 0
    cache: str | None = None
    """A folder that keeps processed pictures for all workers and runs; ``None`` keeps them in the memory of each."""
    cache_gb: float = 100.0
    """Largest size of that folder in GB; what was not used for longest is deleted first."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How long, and on what."""

    max_epochs: int | None = None
    max_steps: int = -1
    precision: str = "auto"
    """A precision of Lightning; ``auto`` is bf16-mixed where that is faster, else float32."""
    accelerator: str = "auto"
    """``auto``, ``cuda``, ``mps`` or ``cpu``; one device of it is used."""
    gradient_clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The recipe of a run."""

    data: Data
    model: VLM.Config | None = None
    """None takes the parts of ``init_from``."""
    init_from: str | None = None
    """Checkpoint that gives the starting weights, processor and tokenizer."""
    task: SFTConfig = field(default_factory=SFTConfig)
    trainer: Trainer = field(default_factory=Trainer)
    scope: Scope = field(default_factory=Scope)
    seed: int = 1337
    summary: str = ""
    """What the checkpoint's card says first."""
    license: str = "Apache-2.0"
    """Terms of the weights; weights inherit those of the data."""

    def __post_init__(self) -> None:
        if self.model is None and self.init_from is None:
            raise ConfigError("experiment", expected="model or init_from", found="neither", fix="give one of them")
        if self.init_from is not None and self.data.min_code_studies is not None:
            raise ConfigError(
                "data.min_code_studies", expected="None, as the codes of init_from are kept",
                found=str(self.data.min_code_studies), fix="leave it out",
            )  # fmt: skip
        if self.data.crops is not None and self.task.report_weight:
            raise ConfigError(
                "data.crops", expected="task.report_weight=0, as a part of a volume has no report",
                found=str(self.task.report_weight), fix="set it to 0, or leave crops out",
            )  # fmt: skip

    def tiny(self, manifest: Path) -> Experiment:
        """Returns the same recipe with random two-layer weights, the studies of ``manifest`` and two CPU steps.

        Where volumes are drawn, it is a patient of each source and the mirror twin, on grids that are as large in mm
        and have few voxels.
        """
        kind = self.model.connector.kind if self.model is not None else "mlp"
        return replace(
            self,
            data=replace(
                self.data,
                train=(Source(name=str(manifest)),),
                drawn=tuple(
                    replace(source, count=2, apart=None, spacing_mm=(TINY_MM,) * 3) for source in self.data.drawn
                ),
                drawn_folder=str(manifest.parent / "drawn"),
                recipes=tuple(recipe.coarser(TINY_MM) for recipe in self.data.recipes),
                batch_size=2,
                num_workers=0,
                measured_on=(),
            ),
            model=VLM.Config(
                encoder=Encoder2D.Config(name="test_efficientnet", image_size=64, weights=None),
                connector=Connector.Config(kind=kind, num_tokens=4),
                volume_encoder=Encoder3D.Config(width=8) if self.data.drawn else None,
                tokens_per_slab=8,
                language=LanguageModelConfig(
                    name=SCRATCH, hidden_size=32, num_layers=2, num_heads=2, vocab_size=512, max_length=512
                ),
            ),
            init_from=None,
            task=replace(self.task, freeze=()),
            trainer=Trainer(max_steps=2, precision="32-true", accelerator="cpu"),
        )


def load_experiment(path: Path) -> Experiment:
    """Returns the ``experiment`` of a Python file.

    Raises:
        ConfigError: there is no such file, or it defines none.
    """
    if not path.is_file() or path.suffix != ".py":
        raise ConfigError(
            str(path), expected="an experiment file (.py) or the folder of a run", found="none there",
            fix="give a file such as experiments/forkme.py",
        )  # fmt: skip
    spec = spec_from_file_location(f"mmfm_experiment_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses of the file look their module up
    try:
        spec.loader.exec_module(module)
    except MmfmError:
        raise
    except Exception as error:
        raise ConfigError(
            str(path), expected="a Python file that runs", found=f"{type(error).__name__}: {error}", fix="mend the file"
        ) from error
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            str(path), expected="a variable named experiment that is an Experiment", found=type(experiment).__name__,
            fix="start from experiments/forkme.py",
        )  # fmt: skip
    return experiment


def override(config: Any, assignments: Sequence[str]) -> Any:
    """Returns a config with ``dotted.path=value`` applied, in order; values are Python literals, else text.

    Raises:
        ConfigError: a path does not exist, or the value is of another type than the field.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(
                assignment, expected="dotted.path=value", found="no =", fix="write for example trainer.max_steps=500"
            )
        try:
            value = ast.literal_eval(text)  # literals alone: nothing is run
        except (ValueError, SyntaxError):
            value = text
        config = _assign(config, path.split("."), value, path)
    return config


def _assign(config: Any, path: list[str], value: Any, whole: str) -> Any:
    name, rest = path[0], path[1:]
    names = [f.name for f in fields(config)] if is_dataclass(config) else []
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise ConfigError(
            whole,
            expected=f"a field of {type(config).__qualname__} ({', '.join(names) or 'it has none'})",
            found=repr(name),
            fix=f"did you mean {near[0]}?" if near else "name an existing field",
        )
    if rest:
        return replace(config, **{name: _assign(getattr(config, name), rest, value, whole)})
    kind = typing.get_type_hints(type(config))[name]
    if isinstance(value, list):
        value = tuple(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not _fits(value, kind):
        raise ConfigError(
            whole, expected=f"a value of type {getattr(kind, '__name__', kind)}", found=repr(value),
            fix="mend the value; quote text as Python does where it looks like a number",
        )  # fmt: skip
    return replace(config, **{name: value})


def _fits(value: Any, kind: Any) -> bool:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and (
            all(_fits(v, args[0]) for v in value)
            if args[-1] is Ellipsis
            else len(value) == len(args) and all(map(_fits, value, args))
        )
    if args:  # a union
        return any(_fits(value, a) or (a is float and type(value) is int) for a in args)
    return type(value) is kind


def train(path: Path, overrides: Sequence[str] = (), *, dry_run: bool = False, resume: bool = False) -> Path | None:
    """Trains an experiment file, or repeats the run of a folder, and returns the run's folder.

    Args:
        path: an experiment file, or the folder of an earlier run.
        overrides: ``dotted.path=value``, applied after those of an earlier run.
        dry_run: check the file, the overrides and the data, and print what would run.
        resume: go on with the run of the folder ``path`` from its last epoch.

    Raises:
        MmfmError: the experiment, its overrides or its data are wrong; nothing was written then.
    """
    path = path.resolve()
    file, name = path, path.stem
    if resume and not (path / "lightning" / "last.ckpt").is_file():
        raise ConfigError(
            str(path), expected="the folder of a run that finished an epoch", found="no lightning/last.ckpt",
            fix="leave --resume out to train from the start",
        )  # fmt: skip
    if resume and overrides:
        raise ConfigError(
            "overrides", expected="none with --resume", found=" ".join(overrides),
            fix="resume with the recipe as it was, or start a new run",
        )  # fmt: skip
    if path.is_dir():
        file, name = path / "experiment.py", path.parent.name
        kept = path / "overrides.json"
        overrides = [*(json.loads(kept.read_text()) if kept.is_file() else []), *overrides]
    experiment = override(load_experiment(file), overrides)
    if dry_run:
        train_rows, select_rows = split_rows(experiment)
        _, model, processor = _build(experiment, train_rows, _start_of(experiment))
        experiment.task.build(model, seed=experiment.seed, names=processor.config)
        drawn_train, drawn_apart = (len(part) for part in drawn_studies(experiment, processor))
        print(json.dumps(to_json(experiment), indent=2))
        train, apart = len(train_rows) + drawn_train, len(select_rows) + drawn_apart
        select = len(_measured_places(experiment, select_rows)) + drawn_apart
        print(f"{name}: {train} studies to train on, {apart} set apart, of which {select} select")
        return None
    if resume:
        run = path
    else:
        run = Path("runs") / name / time.strftime("%Y%m%d-%H%M%S")
    return fit(experiment, run, file=file, overrides=overrides, resume=resume)


def split_rows(
    experiment: Experiment,
) -> tuple[list[tuple[Manifest, ManifestRow]], list[tuple[Manifest, ManifestRow]]]:
    """Returns the rows to train on and those set apart by patient, chosen by a hash of the patient's identifier."""
    train_rows: list[tuple[Manifest, ManifestRow]] = []
    select_rows: list[tuple[Manifest, ManifestRow]] = []
    for source in experiment.data.train:
        manifest = read_manifest(source.manifest())
        for row in manifest.split(*source.splits):
            # Whatever the seed, so that a run that starts from another's weights keeps the same patients apart.
            digest = hashlib.sha256(row.patient_id.encode()).digest()
            share = int.from_bytes(digest[:8], "big") / 2**64
            (select_rows if share < experiment.data.select_fraction else train_rows).append((manifest, row))
    if experiment.data.train and not train_rows:
        raise ConfigError(
            "data.select_fraction", expected="studies left to train on", found="none",
            fix="lower data.select_fraction, or name sources with more patients",
        )  # fmt: skip
    return train_rows, select_rows


def fit(experiment: Experiment, run: Path, *, file: Path, overrides: Sequence[str] = (), resume: bool = False) -> Path:
    """Trains ``experiment`` and writes its run folder; returns the folder.

    Args:
        experiment: the recipe, overrides applied.
        run: a new folder, or with ``resume`` the one to go on with.
        file: the experiment file, copied into the run.
        overrides: written beside it.
        resume: go on from ``last.ckpt``.
    """
    seed_everything(experiment.seed, verbose=False)
    train_rows, select_rows = split_rows(experiment)
    sources = {s.name: hashlib.sha256(s.manifest().read_bytes()).hexdigest() for s in experiment.data.train}
    start = _start_of(experiment)
    config, model, processor = _build(experiment, train_rows, start)
    # Read before the training: the ``latest`` run that it names may be another one when this one ends.
    seconds_before = 0.0 if experiment.init_from is None else _seconds_of(_record_of(experiment.init_from))
    if experiment.data.cache is not None:
        processor.cache = VolumeCache(experiment.data.cache, max_bytes=int(experiment.data.cache_gb * 1e9))
    apart = ManifestDataset(select_rows, processor, in_memory=processor.cache is None)
    drawn_train, drawn_apart = drawn_studies(experiment, processor)
    select: ConcatDataset[Inputs] = ConcatDataset(
        [Subset(apart, _measured_places(experiment, select_rows)), drawn_apart]
    )
    data = StudyDataModule(
        train=ConcatDataset([ManifestDataset(train_rows, processor, in_memory=processor.cache is None), drawn_train]),
        select=select if len(select) else None,
        batch_size=experiment.data.batch_size,
        pad_token_id=processor.tokenizer.pad_token_id,
        seed=experiment.seed,
        num_workers=experiment.data.num_workers,
    )
    task = experiment.task.build(model, seed=experiment.seed, names=processor.config)
    task.train()  # Lightning keeps the modes it finds, and an opened checkpoint is in evaluation mode

    best = ModelCheckpoint(
        dirpath=run / "lightning", filename="best", monitor=SELECTION_SCORE if len(select) else None, mode="max"
    )
    # Its own ``save_last`` writes only when a new best is, and a resumed run would lose the epochs since.
    last = ModelCheckpoint(dirpath=run / "lightning", filename="last", enable_version_counter=False)
    timer = Timer()  # goes on where a run is resumed
    callbacks: list[Callback] = [best, last, timer, RichProgressBar(), _MetricsFile(run / "metrics.jsonl")]
    if experiment.task.ema_decay is not None:
        # The rate of the average grows with the steps, so that a short run is not held at its start.
        callbacks.append(_WarmAverage(decay=experiment.task.ema_decay))
    settings = experiment.trainer
    try:
        trainer = LightningTrainer(
            max_epochs=settings.max_epochs,
            max_steps=settings.max_steps,
            precision=typing.cast(Any, _precision(settings)),
            accelerator=settings.accelerator,
            devices=1,
            gradient_clip_val=settings.gradient_clip,
            callbacks=callbacks,
            logger=TensorBoardLogger(run, name="", version="tensorboard"),
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(
            "trainer", expected="an accelerator and a precision that this machine has",
            found=str(error).splitlines()[0][:160], fix="leave trainer.accelerator and trainer.precision at auto",
        ) from None  # fmt: skip
    run.mkdir(parents=True, exist_ok=True)
    if file.resolve() != (run / "experiment.py").resolve():
        shutil.copyfile(file, run / "experiment.py")
    (run / "overrides.json").write_text(json.dumps(list(overrides)) + "\n")
    trainer.fit(task, data, ckpt_path=run / "lightning" / "last.ckpt" if resume else None, weights_only=True)
    if len(select) and best.best_model_path:
        # Lightning's own file of this run, tensors alone; what is shared is safetensors.
        state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"]
        task.load_state_dict(state)
    seconds = timer.time_elapsed()

    device = trainer.strategy.root_device
    model = task.model.eval().float().to(device)
    round_as_saved(model)
    facts = _measure(experiment, model, processor, apart, drawn_apart)
    facts = replace(facts, learned=_learned(train_rows, drawn_train, start))
    record = {
        **provenance(accelerator=device.type),
        "seconds": round(seconds, 1),
        "seconds_with_starts": None if seconds_before is None else round(seconds_before + seconds, 1),
        "seed": experiment.seed,
        "precision": _precision(settings),
        "studies": {
            "train": len(train_rows) + len(drawn_train),
            "apart": len(apart) + len(drawn_apart),
            "select": len(select),
        },
        "sources": sources,
        "init_from_sha256": None if start is None else start.sha256,
        "selection": None if best.best_model_score is None else float(best.best_model_score),
        "experiment": to_json(experiment),
    }
    (run / "provenance.json").write_text(json.dumps(record, indent=2) + "\n")
    save_checkpoint(
        run / "checkpoint",
        model=model,
        config=config,
        processor=processor,
        facts=facts,
        provenance=record,
        card=_card(experiment, record, facts),
        license_text=experiment.license + "\n",
    )
    latest = run.parent / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(run.name)
    return run


def _record_of(checkpoint: str) -> dict[str, Any]:
    """Returns how a checkpoint was trained."""
    record: dict[str, Any] = json.loads((resolve_checkpoint(checkpoint) / "provenance.json").read_text())
    return record


def _seconds_of(record: dict[str, Any]) -> float | None:
    """Returns the seconds of a training and of those that it starts from; ``None`` where not all are known."""
    if "seconds_with_starts" in record:
        seconds: float | None = record["seconds_with_starts"]
        return seconds
    return None if record.get("init_from_sha256") else record.get("seconds")


def _start_of(experiment: Experiment) -> Checkpoint | None:
    return None if experiment.init_from is None else load_checkpoint(experiment.init_from)


def _build(
    experiment: Experiment, train_rows: Sequence[tuple[Manifest, ManifestRow]], start: Checkpoint | None
) -> tuple[VLM.Config, VLM, Processor]:
    """Returns the parts of ``start``, to learn on, or without one new parts."""
    if start is not None and experiment.init_from is not None:
        data = _record_of(experiment.init_from).get("experiment", {}).get("data", {})
        apart = data.get("select_fraction", experiment.data.select_fraction)
        if apart != experiment.data.select_fraction:
            raise ConfigError(
                "data.select_fraction",
                expected=f"{apart}, as init_from set apart",
                found=str(experiment.data.select_fraction),
                fix="keep it, or the studies that select were trained on before",
            )
        if experiment.model is not None and experiment.model != start.config:
            raise ConfigError(
                "model", expected="None, or the parts of init_from", found="other parts",
                fix="leave model out, or train without init_from",
            )  # fmt: skip
        processor = Processor(replace(start.processor.config, prompt=experiment.data.prompt), start.processor.tokenizer)
        return start.config, start.model, processor
    config = experiment.model
    assert config is not None
    texts = [
        text
        for _, row in train_rows
        for sections in (row.target or row.report,)
        for text in (sections.findings, sections.impression, row.report.indication, experiment.data.prompt)
        if text
    ]
    texts += drawn_texts(experiment.data.drawn)
    names = [name for region in _regions(experiment, train_rows) for name in observations(region)]
    volumes = config.volume_encoder is not None
    processor = Processor(
        Processor.Config(
            image_size=0 if config.encoder is None else config.encoder.image_size,
            tokens_per_image=0 if config.encoder is None else config.connector.num_tokens,
            recipes=experiment.data.recipes if volumes else (),
            tokens_per_slab=config.tokens_per_slab if volumes else 0,
            max_length=config.language.max_length,
            prompt=experiment.data.prompt,
            observations=(*dict.fromkeys(names), NORMAL),
            codes=_codes(experiment, train_rows),
            lesions=COUNTED if volumes else (),
            masks=EXTENDED if volumes else (),
            places=PLACES if volumes else (),
        ),
        config.language.build_tokenizer(texts),
    )
    return config, config.build(processor), processor


def _regions(experiment: Experiment, train_rows: Sequence[tuple[Manifest, ManifestRow]]) -> list[str]:
    """Returns the regions of the training studies that have a vocabulary, in the order of ``REGIONS``."""
    there = {row.region for _, row in train_rows} | {source.region for source in experiment.data.drawn}
    return [region for region in REGIONS if region in there]


def drawn_studies(experiment: Experiment, processor: Processor) -> tuple[DrawnDataset, DrawnDataset]:
    """Returns the drawn volumes to train on, lying otherwise and noisy each time, and those set apart, as drawn.

    The last of each source are set apart, mirror twins together.

    Raises:
        ConfigError: a source sets all of its volumes apart.
    """
    train: list[tuple[Drawn, int]] = []
    apart: list[tuple[Drawn, int]] = []
    for source in experiment.data.drawn:
        first_apart = round(source.count * (1 - experiment.data.select_fraction) / 2) * 2
        if source.apart is not None:
            first_apart = max(0, source.count - source.apart) // 2 * 2
        if first_apart == 0:
            raise ConfigError(
                "data.drawn", expected=f"fewer volumes of {source.region} set apart than there are ({source.count})",
                found=str(source.count if source.apart is None else source.apart), fix="lower apart, or raise count",
            )  # fmt: skip
        for number in range(source.count):
            if number < first_apart:
                train.append((source, number))
            else:
                spacing_mm = source.apart_spacing_mm or source.spacing_mm
                apart.append((replace(source, share=None, spacing_mm=spacing_mm), number))

    process = partial(processor.drawn, crops=experiment.data.crops)
    folder = Path(experiment.data.drawn_folder)
    return (
        DrawnDataset(train, process, folder=folder, seed=experiment.seed),
        DrawnDataset(apart, process, folder=folder, seed=experiment.seed, vary=False),
    )


def _codes(experiment: Experiment, train_rows: Sequence[tuple[Manifest, ManifestRow]]) -> tuple[str, ...]:
    least = experiment.data.min_code_studies
    if least is None:
        return ()
    counts = Counter(code for _, row in train_rows for code in set(row.codes or ()))
    return tuple(sorted(code for code, count in counts.items() if count >= least))


class _WarmAverage(WeightAveraging):
    """Exponential moving average whose decay rises from 0.1 to ``decay`` as (1 + step) / (10 + step)."""

    def __init__(self, *, decay: float) -> None:
        def average(averaged: Sequence[Any], current: Sequence[Any], count: Any) -> None:
            rate = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
            for mean, value in zip(averaged, current, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value.to(mean), rate)
                else:
                    mean.copy_(value)

        super().__init__(multi_avg_fn=average)


class _MetricsFile(Callback):
    """Appends what was logged to ``metrics.jsonl`` after every epoch, and prints the main of it, in log files too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: LightningTrainer, pl_module: Any) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"epoch": trainer.current_epoch, "step": trainer.global_step, **values}) + "\n")
        score = f", {SELECTION_SCORE} {values[SELECTION_SCORE]:.4f}" if SELECTION_SCORE in values else ""
        print(f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}{score}", file=sys.stderr)


def _precision(settings: Trainer) -> str:
    if settings.precision != "auto":
        return settings.precision
    accelerator = settings.accelerator
    if accelerator in ("auto", "gpu"):
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return "bf16-mixed" if has_fast_bf16(accelerator) else "32-true"


def _measure(
    experiment: Experiment, model: VLM, processor: Processor, apart: ManifestDataset, drawn_apart: DrawnDataset
) -> Facts:
    studies: ConcatDataset[Inputs] = ConcatDataset([apart, drawn_apart])
    if not len(studies):
        return Facts(scope=experiment.scope, operating_points={}, sensitivity={})
    places, by_all = _measured_places(experiment, apart.rows), not experiment.data.measured_on
    loader = DataLoader(
        studies, batch_size=experiment.data.batch_size, num_workers=experiment.data.num_workers,
        collate_fn=partial(collate, pad_token_id=processor.tokenizer.pad_token_id),
    )  # fmt: skip
    return operating_points(
        model,
        processor,
        loader,
        measured=np.array([i in places if i < len(apart) else by_all for i in range(len(studies))]),
        scope=experiment.scope,
        by_all=by_all,
    )


def _measured_places(experiment: Experiment, rows: Sequence[tuple[Manifest, ManifestRow]]) -> list[int]:
    """Returns which of the rows set apart are of ``measured_on``."""
    chosen = experiment.data.measured_on
    places = [i for i, (_, row) in enumerate(rows) if not chosen or row.source in chosen]
    if rows and not places:
        raise ConfigError(
            "data.measured_on", expected=f"sources among {', '.join(sorted({row.source for _, row in rows}))}",
            found=", ".join(chosen), fix="name sources as the manifests do",
        )  # fmt: skip
    return places


def _learned(
    train_rows: Sequence[tuple[Manifest, ManifestRow]], drawn: DrawnDataset, start: Checkpoint | None
) -> tuple[str, ...]:
    """Returns the labels that the training studies, or those of the start, show both present and absent."""
    seen = {(name, state) for _, row in train_rows for name, state in row.labels.items()} | set(drawn.labels())
    before = () if start is None else LABEL_NAMES if start.facts.learned is None else start.facts.learned
    both = {name for name in LABEL_NAMES if {(name, Status.PRESENT), (name, Status.ABSENT)} <= seen}
    return tuple(name for name in LABEL_NAMES if name in both or name in before)


def _card(experiment: Experiment, record: dict[str, Any], facts: Facts) -> str:
    sources = "\n".join(
        [f"- {s.name}: splits {', '.join(s.splits)}" for s in experiment.data.train]
        + [f"- drawn volumes of {d.region}: {d.count}, seed {d.seed}" for d in experiment.data.drawn]
    )
    if facts.operating_points:
        rows = "\n".join(
            f"| {name} | {point:.3f} | {_measured(facts.sensitivity.get(name))} |"
            for name, point in facts.operating_points.items()
        )
        picture_part = f"""| observation | operating point | sensitivity (studies with it) |
| --- | --- | --- |
{rows}"""
    else:
        picture_part = "No finding of pictures has an operating point: none is ever stated."
    if facts.volumes.lesion_points or facts.volumes.operating_points:
        of_volumes = facts.volumes.lesion_points | facts.volumes.operating_points
        volume_rows = "\n".join(
            f"| {name} | {'lesions' if name in facts.volumes.lesion_points else 'whole study'} | {point:.3f} | "
            f"{_measured(facts.volumes.sensitivity.get(name))} |"
            for name, point in of_volumes.items()
        )
        volume_part = f"""
Of volumes; what is counted is stated lesion by lesion, with at most {MOST_FALSE_LESIONS} false ones of an observation
in a volume of those set apart:

| observation | stated by | operating point | sensitivity (studies with it) |
| --- | --- | --- | --- |
{volume_rows}
"""
    else:
        volume_part = ""
    scope, measured = facts.scope, ", ".join(experiment.data.measured_on) or "all sources"
    views = f"; views {', '.join(scope.views)}" if scope.views else ""
    seconds, with_starts = record["seconds"], record["seconds_with_starts"]
    hours = f"{(with_starts or seconds) / 3600:.2f} hours"
    if experiment.init_from is not None:
        hours += " in its last part" if with_starts is None else " with the parts before it"
    caveats = "".join(f"\n\n**{caveat[0].upper()}{caveat[1:]}.**" for caveat in scope.caveats)
    ages = f"from {scope.min_age_years:g} years" if scope.min_age_years is not None else "any age"
    return f"""# {experiment.summary or "A checkpoint of mmfm"}

{NOTICE}.

## Scope

Modality {", ".join(scope.modalities)}; body part {", ".join(scope.body_parts)}{views};
{ages}.{caveats}

## Training

{sources}

{record["studies"]["train"]} studies to train on, {record["studies"]["apart"]} set apart by patient, of which
{record["studies"]["select"]} select the epoch;
seed {record["seed"]}; {record["hardware"]}, {record["precision"]}, {hours};
commit {record["commit"]}. Terms of these weights: see LICENSE.

## Operating points

A finding is stated from this probability on: the middle of the longest run of those whose F1 on the studies set apart
of {measured} is within {1 - NEARLY_BEST:.0%} of the best, or on those of all sources for findings that fewer than
{MIN_POINT_POSITIVES} of those show. What has fewer positives even there, or an AUROC under {MIN_AUROC}, is never
stated. Sensitivity is that on {measured}; a negative is shown to a reader only where it is above
{facts.sensitivity_floor:g} on at least {MIN_POSITIVES} studies.

{picture_part}
{volume_part}
## Numbers

{SUMMARY_BEGIN}
Not measured yet: `mmfm evaluate --write-card` writes them here.
{SUMMARY_END}
"""


def _measured(sensitivity: Sensitivity | None) -> str:
    return "not measured" if sensitivity is None else f"{sensitivity.value:.2f} ({sensitivity.positives})"


__all__ = [
    "Data",
    "Experiment",
    "Source",
    "Trainer",
    "fit",
    "load_experiment",
    "override",
    "train",
]
