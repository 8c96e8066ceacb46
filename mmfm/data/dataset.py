"""ManifestDataset: rows of prepared manifests as Examples, with the pictures processed once and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch.utils.data import Dataset

from mmfm.batch import Inputs
from mmfm.data.example import Example
from mmfm.data.manifest import Manifest, ManifestRow


class ManifestDataset(Dataset[Inputs]):
    """Gives the model inputs of each row. A study that cannot be read raises: dropping happens in ``prepare.py``."""

    def __init__(self, rows: Sequence[tuple[Manifest, ManifestRow]], process: Callable[[Example], Inputs]) -> None:
        """Takes rows with their manifests.

        Args:
            rows: studies, from one manifest or several.
            process: the Processor; what it gives for a study must not change from call to call.
        """
        self.rows, self._process = rows, process
        self._kept: dict[int, Inputs] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Inputs:
        if index not in self._kept:
            manifest, row = self.rows[index]
            self._kept[index] = _with_pixels(self._process(Example.from_row(manifest, row)), torch.float16)
        return _with_pixels(self._kept[index], torch.float32)


def _with_pixels(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return replace(inputs, pixels_SCHW=inputs.pixels_SCHW.to(dtype))
