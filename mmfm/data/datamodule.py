"""StudyDataModule: batches of studies for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from mmfm.batch import Batch, Inputs
from mmfm.data.collate import collate
from mmfm.data.dataset import ManifestDataset


class StudyDataModule(LightningDataModule):
    """Training studies in an order drawn from the seed, selection studies in theirs."""

    def __init__(
        self,
        *,
        train: ManifestDataset,
        select: ManifestDataset | None,
        batch_size: int,
        pad_token_id: int,
        seed: int,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.train_studies, self.select_studies = train, select
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._collate = partial(collate, pad_token_id=pad_token_id)

    def train_dataloader(self) -> DataLoader[Inputs]:
        """Returns shuffled batches; a last one that is not full is left out unless it is the only one."""
        return DataLoader(
            self.train_studies,
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=len(self.train_studies) >= self.batch_size,
            collate_fn=self._collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def val_dataloader(self) -> DataLoader[Inputs] | Sequence[Batch]:
        """Returns the studies set apart for selection; none where there are none."""
        if self.select_studies is None:
            return []
        return DataLoader(
            self.select_studies, batch_size=self.batch_size, collate_fn=self._collate, num_workers=self.num_workers
        )
