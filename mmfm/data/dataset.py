"""ManifestDataset: rows of prepared manifests as Examples, whose pictures are processed once."""

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

    def __init__(
        self,
        rows: Sequence[tuple[Manifest, ManifestRow]],
        process: Callable[[Example], Inputs],
        *,
        in_memory: bool = True,
    ) -> None:
        """Takes rows with their manifests.

        Args:
            rows: studies, from one manifest or several.
            process: the Processor; what it gives for a study must not change from call to call.
            in_memory: keep what it gives, in each worker, in half precision: about 0.1 MB a picture and 40 MB a slab
                of a volume. Without, it is asked each time, which is quick where it keeps pictures in a VolumeCache.
        """
        self.rows, self._process, self._in_memory = rows, process, in_memory
        self._examples: dict[int, Example] = {}
        self._kept: dict[int, Inputs] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Inputs:
        if not self._in_memory:
            if index not in self._examples:
                self._examples[index] = Example.from_row(*self.rows[index])
            return self._process(self._examples[index])
        if index not in self._kept:
            self._kept[index] = _with_pixels(self._process(Example.from_row(*self.rows[index])), torch.float16)
        return _with_pixels(self._kept[index], torch.float32)


def _with_pixels(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    volumes = tuple(volume.with_pixels(lambda pixels: pixels.to(dtype)) for volume in inputs.volumes)
    return replace(inputs, pixels_SCHW=inputs.pixels_SCHW.to(dtype), volumes=volumes)
