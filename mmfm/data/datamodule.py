"""StudyDataModule: batches of studies for Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, Sampler

from mmfm.batch import Batch, Inputs
from mmfm.data.collate import collate
from mmfm.data.dataset import ManifestDataset


class EpochShuffle(Sampler[int]):
    """An order for each epoch that follows from seed and epoch alone, so that a resumed run sees what it would have."""

    def __init__(self, count: int, *, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Is called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        yield from torch.randperm(self.count, generator=generator).tolist()


class StudyDataModule(LightningDataModule):
    """Training studies in an order drawn from the seed, selection studies in theirs."""

    def __init__(
        self,
        *,
        train: ManifestDataset | ConcatDataset[Inputs],
        select: ManifestDataset | ConcatDataset[Inputs] | None,
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
            sampler=EpochShuffle(len(self.train_studies), seed=self.seed),
            drop_last=len(self.train_studies) >= self.batch_size,
            collate_fn=self._collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Inputs] | Sequence[Batch]:
        """Returns the studies set apart for selection; none where there are none."""
        if self.select_studies is None:
            return []
        return DataLoader(
            self.select_studies, batch_size=self.batch_size, collate_fn=self._collate, num_workers=self.num_workers
        )
