"""What drafting costs on this device: time, memory, and energy where the device tells it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch

from mmfm.evaluation.resources import Resources
from mmfm.models.checkpoint import Checkpoint
from mmfm.models.drafting import Draft
from mmfm.training.provenance import hardware

NOT_TOLD = "not told by this device"


class Meter:
    """Measures a block of work: ``with Meter(device) as meter: ...``, then ``meter.seconds`` and the others."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.joules: float | None = None
        """Used by the device, all that runs on it included."""
        self.energy = NOT_TOLD
        """Where ``joules`` comes from, or why there is none."""
        self.peak_device_bytes: int | None = None

    def __enter__(self) -> Meter:
        """Starts to measure."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._counter, self.energy = _energy_counter(self.device)
        self._start = self._counter() if self._counter is not None else 0.0
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends it, once the device has done what was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.peak_device_bytes = torch.cuda.max_memory_allocated(self.device)
        self.seconds = time.perf_counter() - self._started
        if self._counter is not None:
            self.joules = self._counter() - self._start


def resources_of(
    checkpoint: Checkpoint,
    drafts: Sequence[Draft],
    *,
    seconds_to_read: float,
    seconds_to_draft: float,
    drafting: Meter,
    batch_size: int,
    training: dict[str, Any],
) -> Resources:
    """Returns what the drafts cost.

    Args:
        checkpoint: that drafted.
        drafts: all of them, at least one.
        seconds_to_read: a study, on average.
        seconds_to_draft: all of ``drafts``, without reading.
        drafting: measured meanwhile; volumes are read meanwhile too.
        batch_size: studies drafted at once.
        training: ``provenance.json`` of the checkpoint.
    """
    seconds = training.get("seconds_with_starts") or training.get("seconds")
    return Resources(
        device=hardware(drafting.device.type),
        studies=len(drafts),
        batch_size=batch_size,
        seconds_per_report=seconds_to_read + seconds_to_draft / len(drafts),
        tokens_per_second=sum(one.num_tokens for one in drafts) / seconds_to_draft,
        parameters=sum(parameter.numel() for parameter in checkpoint.model.parameters()),
        peak_host_bytes=_peak_host_bytes(),
        peak_device_bytes=drafting.peak_device_bytes,
        joules_per_report=None if drafting.joules is None else drafting.joules / len(drafts),
        energy=drafting.energy,
        training_device=training.get("hardware", "not stated"),
        training_hours=None if seconds is None else seconds / 3600,
    )


def _energy_counter(device: torch.device) -> tuple[Callable[[], float] | None, str]:
    """Returns what reads the joules that a device used so far, or None, and where they come from or why there are none.

    NVML counts millijoules since the driver was loaded, from Volta on (nvmlDeviceGetTotalEnergyConsumption).
    """
    if device.type != "cuda":
        return None, NOT_TOLD
    try:
        import pynvml
    except ImportError:
        return None, "not asked: that needs the package nvidia-ml-py"
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None, NOT_TOLD
    return (lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000), "NVML, the whole device while drafting"


def _peak_host_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
