"""SFT: supervised fine-tuning of a VLM on reports and finding states together. A thin shell for Lightning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from mmfm.batch import IGNORE_INDEX, Batch
from mmfm.errors import ConfigError
from mmfm.models.heads import HeadLogits
from mmfm.models.processor import BODY_PART_CODE, MODALITY_CODE, Processor
from mmfm.models.vlm import VLM, Encoded
from mmfm.text.regions import observations as region_observations
from mmfm.training.augmentation import Augmentation, vary_brightness
from mmfm.training.volume_losses import volume_losses

SELECTION_SCORE = "select/score"
"""What the best epoch is chosen by: the mean AUROC of the finding heads on the studies set apart.

Where lesions or masks of volumes are learned, it is minus their loss instead, which goes on when every AUROC is 1;
where no observation has ``MIN_EACH`` positives and negatives, minus the loss of the codes, which every study has, or of
the findings where no codes are learned; where encoders and heads are frozen, and their scores stand still, minus the
loss of the report.
"""
MIN_EACH = 5


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """How a VLM is fine-tuned."""

    lr: float = 3e-4
    """Highest learning rate of one cosine cycle."""
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1
    """Part of the steps in which the rate rises."""
    freeze: tuple[str, ...] = ()
    """Modules that stay as they are, by dotted name, such as ``encoder`` or ``encoder.network.conv_stem``."""
    report_weight: float = 1.0
    """Of the cross-entropy of the report's tokens; 0 leaves the language model out."""
    findings_weight: float = 1.0
    """Of the binary cross-entropy of the finding states."""
    codes_weight: float = 1.0
    """Of that of the codes of the source, where the experiment learns any, and of what each picture is of."""
    lesions_weight: float = 1.0
    """Of the heat maps, sizes, offsets and places of lesions on volumes whose lesions are all known."""
    masks_weight: float = 1.0
    """Of the masks of what has an extent and no count."""
    severity_weight: float = 0.2
    side_weight: float = 0.2
    view_weight: float = 0.1
    ema_decay: float | None = 0.995
    """Decay of the averaged weights that are selected and saved; None saves the last step's."""
    augmentation: Augmentation | None = field(default_factory=Augmentation)

    def build(self, model: VLM, *, seed: int, names: Processor.Config) -> SFT:
        """Returns the task over ``model``, whose observations, lesions and masks ``names`` has."""
        return SFT(model=model, config=self, seed=seed, names=names)


class SFT(LightningModule):
    """Learns report text and finding states together."""

    def __init__(self, *, model: VLM, config: SFTConfig, seed: int, names: Processor.Config) -> None:
        """Takes the model to train.

        Raises:
            ConfigError: ``freeze`` names no module of the model.
        """
        super().__init__()
        self.model, self.settings = model, config
        self.observations, self.lesions, self.masks = names.observations, names.lesions, names.masks
        self._modalities, self._parts = (
            [column for column, code in enumerate(names.codes) if code.startswith(prefix)]
            for prefix in (MODALITY_CODE, BODY_PART_CODE)
        )
        self._generator = torch.Generator().manual_seed(seed)
        self._frozen = [_module(model, name) for name in config.freeze]
        for module in self._frozen:
            module.requires_grad_(False)
        self._scores: list[tuple[Tensor, Tensor, Tensor]] = []

    def train(self, mode: bool = True) -> SFT:
        """Sets the mode; frozen modules keep evaluation mode, so that their running statistics stay too."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of one batch."""
        if self.settings.augmentation is not None and batch.volumes:
            batch = replace(batch, volumes=tuple(vary_brightness(v, self._generator) for v in batch.volumes))
        if self.settings.augmentation is not None and batch.image_mask_BS.any():
            mask = batch.image_mask_BS
            pixels = batch.pixels_BSCHW.clone()
            pixels[mask] = self.settings.augmentation(pixels[mask], self._generator)
            batch = replace(batch, pixels_BSCHW=pixels)
        losses, _ = self.losses(batch)
        self.log_dict({f"train/{k}": v for k, v in losses.items()}, prog_bar=True, batch_size=len(batch.study_uids))
        return losses["loss"]

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], HeadLogits]:
        """Returns each part of the loss with their weighted sum as ``loss``, and the finding logits.

        A part that nothing in the batch teaches is 0.
        """
        if self.settings.report_weight:
            encoded, token_logits = self.model(batch)
            report = F.cross_entropy(
                token_logits[:, :-1].flatten(0, 1).float(),
                batch.labels_BT[:, 1:].flatten(),
                ignore_index=IGNORE_INDEX,
                reduction="sum",
            ) / (batch.labels_BT != IGNORE_INDEX).sum().clamp(min=1)
        else:
            encoded, report = self.model.encode(batch), torch.zeros((), device=batch.pixels_BSCHW.device)
        heads = encoded.heads
        views_N = batch.views_BS[batch.image_mask_BS]
        parts = {
            "report": report,
            "findings": _masked_bce(heads.present_BO, batch.states_BO),
            "codes": _masked_bce(heads.codes_BK, batch.codes_BK) + self._kind_loss(batch, heads.codes_NK),
            "side": _masked_bce(
                heads.sides_BO2, batch.sides_BO2.masked_fill(~heads.sided_B[:, None, None], float("nan"))
            ),
            "view": _masked_bce(heads.lateral_N, torch.where(views_N < 0, float("nan"), views_N.float())),
            **self._volume_losses(batch, encoded),
        }
        s = self.settings
        weights = {
            "report": s.report_weight,
            "findings": s.findings_weight,
            "codes": s.codes_weight,
            "side": s.side_weight,
            "view": s.view_weight,
            "lesions": s.lesions_weight,
            "masks": s.masks_weight,
            "severity": s.severity_weight,
        }
        parts["loss"] = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return parts, heads

    def _kind_loss(self, batch: Batch, codes_NK: Tensor) -> Tensor:
        """Returns the loss of modality and part of the body of each picture: a modality is drafted of each.

        The modality is that of the picture, the part that of its study; of several a study does not say which picture
        shows which.
        """
        mask_BS = batch.image_mask_BS
        modality_N = batch.modalities_BS[mask_BS]
        stated_N = modality_N >= 0
        modality_NK = F.one_hot(modality_N[stated_N], max(1, codes_NK.shape[1])).float()
        part_NK = batch.codes_BK[mask_BS.nonzero()[:, 0]][:, self._parts]
        one_N = part_NK.sum(1) == 1
        return _masked_bce(codes_NK[stated_N][:, self._modalities], modality_NK[:, self._modalities]) + _masked_bce(
            codes_NK[one_N][:, self._parts], part_NK[one_N]
        )

    def _volume_losses(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        """Returns the losses of what volumes show where, each the mean over the slabs of the batch."""
        zero = encoded.heads.present_BO.new_zeros(())
        parts: dict[str, list[Tensor]] = {"lesions": [zero], "masks": [zero]}
        for row, logits, volume in zip(batch.volume_study_N.tolist(), encoded.volumes, batch.volumes, strict=True):
            names = region_observations(batch.regions[row])
            maps, masks = ([i for i, name in enumerate(own) if name in names] for own in (self.lesions, self.masks))
            losses = volume_losses(self.model, logits, volume, maps=maps, masks=masks)
            parts["masks"].append(losses.pop("mask"))
            parts["lesions"].append(torch.stack(list(losses.values())).sum())
        graded_BO = batch.severity_BO.masked_fill(~_has_volume(batch)[:, None], float("nan"))
        known_BO = ~graded_BO.isnan()
        severity = zero
        if known_BO.any():
            severity = F.cross_entropy(encoded.heads.severity_BOG[known_BO].float(), graded_BO[known_BO].long())
        count = max(1, len(batch.volumes))
        return {name: torch.stack(values).sum() / count for name, values in parts.items()} | {"severity": severity}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the finding probabilities and logs the losses of a batch that is set apart."""
        losses, heads = self.losses(batch)
        self.log_dict({f"select/{k}": v for k, v in losses.items()}, batch_size=len(batch.study_uids))
        # Volumes select by lesions, masks and findings together; pictures by their AUROC.
        read = losses["lesions"] + losses["masks"] + losses["findings"] * bool(batch.volumes)
        parts_B3 = torch.stack([losses["report"], read, losses["codes"]]).cpu()
        parts_B3 = parts_B3.expand(len(batch.study_uids), 3)
        self._scores.append((heads.present_BO.float().cpu(), batch.states_BO.cpu(), parts_B3))

    def on_validation_epoch_end(self) -> None:
        """Logs the selection score."""
        if self._scores:
            logits, states, parts = (torch.cat(part).float().numpy() for part in zip(*self._scores, strict=True))
            self._scores.clear()
            scores = {}
            for column, name in enumerate(self.observations):
                known = (states[:, column] == 0) | (states[:, column] == 1)
                truth = states[known, column]
                if min((truth == 0).sum(), (truth == 1).sum()) >= MIN_EACH:
                    scores[name] = float(roc_auc_score(truth, logits[known, column]))
            if not any(p.requires_grad for p in self.model.reading_parameters()):
                score = -float(parts[:, 0].mean())
            elif parts[:, 1].any() and any(p.requires_grad for p in self.model.volume_heads.parameters()):
                score = -float(parts[:, 1].mean())
            elif scores:
                score = sum(scores.values()) / len(scores)
            elif parts[:, 2].any():
                score = -float(parts[:, 2].mean())
            else:
                score = -float(_masked_bce(torch.from_numpy(logits), torch.from_numpy(states)))
            self.log(SELECTION_SCORE, score, prog_bar=True)
            self.log_dict({f"select/auroc_{name}": value for name, value in scores.items()})

    def configure_optimizers(self) -> Any:
        """Returns AdamW under one cosine cycle."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self.settings.lr,
            total_steps=max(2, int(self.trainer.estimated_stepping_batches)),
            pct_start=self.settings.warmup_fraction,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the generators of augmentation and dropout, so that a resumed run goes on as the unbroken one."""
        checkpoint["generator"] = self._generator.get_state()
        checkpoint["dropout_generator"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the generators back."""
        self._generator.set_state(checkpoint["generator"].cpu())
        torch.set_rng_state(checkpoint["dropout_generator"].cpu())


def _masked_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean binary cross-entropy where ``targets`` is a number; 0 where none is."""
    known = ~targets.isnan()
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def _has_volume(batch: Batch) -> Tensor:
    has_B = torch.zeros(len(batch.study_uids), dtype=torch.bool, device=batch.severity_BO.device)
    has_B[batch.volume_study_N] = True
    return has_B


def _module(model: VLM, name: str) -> torch.nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ConfigError(
            "task.freeze",
            expected=f"modules of the model, such as {', '.join(dict(model.named_children()))}",
            found=repr(name),
            fix="name a module by its dotted path",
        ) from None
