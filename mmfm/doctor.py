"""What this installation is and can do: versions against security floors, devices, DICOM decoders, data, checkpoints.

``mmfm doctor`` prints the rows of ``diagnose()``. Heavy packages are imported when a check needs them.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path

from packaging.version import Version

import mmfm
from mmfm.errors import CheckpointError, ConfigError

FLOORS = {
    "torch": "2.10",
    "lightning": "2.6.6",
    "transformers": "5.3",
    "gradio": "6.16",
    "pydicom": "3.0.2",
    "pynetdicom": "3.0.4",
    "monai": "1.6.0",
}
"""Oldest release of each package without a published security hole."""

_SHOWN = ("torchvision", "timm", "open-clip-torch", "tokenizers", "safetensors", "numpy", "scikit-learn", "pillow")

TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.5",
)
"""Transfer syntaxes of still images that hold no video, PS3.5 section 10; the names are printed by ``mmfm doctor``."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of ``mmfm doctor``."""

    topic: str
    name: str
    found: str
    ok: bool | None = None
    """``None`` where there is nothing to be right or wrong."""
    fix: str | None = None
    """What to do about a row that is not ``ok``, in the imperative."""


def diagnose() -> list[Row]:
    """Returns everything there is to say about this installation, in the order of printing."""
    return [*_versions(), *_devices(), *_decoders(), *_pacs(), *_data(), *_checkpoints()]


def main() -> int:
    """Prints ``diagnose()`` and returns the exit code: 1 where something is wrong."""
    rows = diagnose()
    for topic, found in groupby(rows, key=lambda row: row.topic):
        group = list(found)
        width = max(len(row.name) for row in group)
        print(topic)
        for row in group:
            mark = {True: "ok", False: "WRONG", None: ""}[row.ok]
            print(f"  {row.name:<{width}}  {mark:<5}  {row.found}" + (f"; {row.fix}" if row.fix else ""))
    return int(any(row.ok is False for row in rows))


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions() -> Iterator[Row]:
    yield Row(topic="version", name="mmfm", found=mmfm.__version__)
    yield Row(
        topic="version", name="python", found=f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    for name, floor in FLOORS.items():
        found = _installed(name)
        if found is None:
            yield Row(topic="version", name=name, found="not installed", ok=False, fix="run make setup")
            continue
        ok = Version(found) >= Version(floor)
        fix = None if ok else f"install {name}>={floor}: older releases have published security holes"
        yield Row(topic="version", name=name, found=f"{found} (floor {floor})", ok=ok, fix=fix)
    for name in _SHOWN:
        found = _installed(name)
        yield Row(
            topic="version",
            name=name,
            found=found or "not installed",
            ok=None if found else False,
            fix=None if found else "run make setup",
        )


def _devices() -> Iterator[Row]:
    import torch

    from mmfm.training.provenance import has_fast_bf16

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if has_fast_bf16("cuda") else "no bf16"
            gib = properties.total_memory / 2**30
            yield Row(topic="device", name=f"cuda:{index}", found=f"{properties.name}, {gib:.0f} GiB, {bf16}", ok=True)
    else:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield Row(topic="device", name="cuda", found=f"none ({built})")
    yield Row(topic="device", name="mps", found="available" if torch.backends.mps.is_available() else "none")
    bf16 = "bf16" if has_fast_bf16("cpu") else "no fast bf16"
    threads = f"{torch.get_num_threads()} threads"
    yield Row(
        topic="device", name="cpu", found=f"{torch.backends.cpu.get_cpu_capability()}, {threads}, {bf16}", ok=True
    )


def _decoders() -> Iterator[Row]:
    from pydicom.uid import UID

    from mmfm.io.frames import decoders_of

    for uid in TRANSFER_SYNTAXES:
        found = {kind: ", ".join(decoders_of(uid, samples=n)) or "none" for kind, n in (("grey", 1), ("colour", 3))}
        ok = "none" not in found.values()
        yield Row(
            topic="DICOM",
            name=UID(uid).name,
            found="; ".join(f"{kind}: {names}" for kind, names in found.items()) + f" ({uid})",
            ok=ok,
            fix=None if ok else "run make setup: a decoder of mmfm's own dependencies is missing",
        )


def _pacs() -> Iterator[Row]:
    from mmfm.io.pacs import HOSTS, allowed_hosts

    try:
        count = len(allowed_hosts())
    except ConfigError as error:
        yield Row(topic="PACS", name=HOSTS, found=f"{error.found}, not {error.expected}", ok=False, fix=error.fix)
        return
    yield Row(topic="PACS", name=HOSTS, found=f"{count} allowed" if count else "unset: no server can be reached")


def _data() -> Iterator[Row]:
    folder = os.environ.get("MMFM_DATA")
    if not folder:
        yield Row(topic="data", name="MMFM_DATA", found="unset: needed to train on or evaluate prepared sources")
        return
    sources = sorted(p.parent.name for p in Path(folder).glob("*/manifest.jsonl"))
    yield Row(
        topic="data",
        name="MMFM_DATA",
        found=f"{folder}: {', '.join(sources) or 'no <source>/manifest.jsonl in it'}",
        ok=bool(sources),
        fix=None if sources else "run a datasets/<source>/prepare.py with --out $MMFM_DATA/<source>",
    )


def _checkpoints() -> Iterator[Row]:
    from mmfm.models.checkpoint import SUMS, shipped_folders, verify_checkpoint

    named = os.environ.get("MMFM_CHECKPOINTS")
    yield Row(
        topic="checkpoint", name="MMFM_CHECKPOINTS", found=named or "unset: the checkout's checkpoints/ is searched"
    )
    found = [path.parent for place in shipped_folders() for path in sorted(place.glob(f"*/{SUMS}"))]
    if not found:
        fix = "set MMFM_CHECKPOINTS to the checkpoints/ folder of a checkout of mmfm"
        yield Row(topic="checkpoint", name="shipped", found="none", ok=False, fix=fix)
    for folder in found:
        try:
            sha256 = verify_checkpoint(folder)["model.safetensors"]
        except CheckpointError as error:
            yield Row(topic="checkpoint", name=folder.name, found=error.found, ok=False, fix=error.fix)
        else:
            yield Row(topic="checkpoint", name=folder.name, found=f"whole, weights {sha256[:12]}", ok=True)
