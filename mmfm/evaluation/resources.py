"""What drafting costs: time, tokens, memory, energy, and what the training cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Measured while the studies of a score card were read and drafted, controls not included."""

    device: str
    """That drafted, in words."""
    studies: int
    batch_size: int
    seconds_per_report: float
    """Reading, decoding, finding heads and text: the time of all over the number of studies."""
    tokens_per_second: float
    """That the language model wrote, while drafting."""
    parameters: int
    peak_host_bytes: int | None
    """Most memory that the process held, since it was started; ``None`` where the system does not tell."""
    peak_device_bytes: int | None
    """Most memory that torch held on the device while drafting; ``None`` without one that tells."""
    joules_per_report: float | None
    """Of the device while drafting, all that runs on it included; volumes are read meanwhile."""
    energy: str
    """Where ``joules_per_report`` comes from, or why there is none."""
    training_device: str
    training_hours: float | None
    """``None`` where the checkpoint does not state it."""
