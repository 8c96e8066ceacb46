"""Provenance of a run: what it takes to make it again, and what it cost."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("mmfm", "torch", "timm", "open-clip-torch", "transformers", "tokenizers", "lightning", "numpy", "pydicom")


def provenance(*, accelerator: str) -> dict[str, Any]:
    """Returns commit, versions and hardware as JSON values.

    Args:
        accelerator: what the run uses: ``cuda``, ``mps`` or ``cpu``.
    """
    return {
        "commit": git_commit(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": hardware(accelerator),
    }


def hardware(accelerator: str) -> str:
    """Returns the device in words, such as ``NVIDIA H100 80GB HBM3`` or ``CPU (AMD EPYC, 2 threads)``."""
    if accelerator == "cuda":
        return torch.cuda.get_device_name()
    if accelerator == "mps":
        return f"Apple {platform.machine()}"
    return f"CPU ({_processor()}, {torch.get_num_threads()} threads)"


def git_commit() -> str | None:
    """Returns the commit of the checkout, with ``+`` where tracked files were changed; None outside a checkout."""
    folder = Path(__file__).parents[2]
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip()


def has_fast_bf16(accelerator: str) -> bool:
    """Returns whether bfloat16 is faster than float32 there: CUDA that supports it, CPUs with AVX512-BF16 or AMX."""
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported()
    return accelerator == "cpu" and torch.cpu._is_avx512_bf16_supported()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())
