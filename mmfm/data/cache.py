"""VolumeCache: what was decoded once is mapped into memory from then on, in every epoch, worker and run.

One entry is one safetensors file, ``<folder>/<first 2 digits>/<SHA-256>.safetensors``: the numbers as ``array``, and in
the metadata ``receipt``, the JSON of their Receipt. The name is the SHA-256 of the canonical JSON of all that the
numbers depend on:

    {"content": the SHA-256 that the manifest states, "modality": ..., "preprocessing": {...}, "view": ...}

``preprocessing`` holds what was chosen, the SHA-256 of the code that reads and renders, and the versions of the
decoders: whoever changes one of them need not remember to raise a version.

So nothing has to be looked up, hashed again or locked: a file that stands there is whole (it is renamed into its
place) and right, several processes may write it at once, and one may delete it while another reads. Entries that were
not used for longest go first when the folder outgrows its limit. The folder holds pictures of patients: only its owner
can read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from mmfm.errors import ConfigError
from mmfm.files import sha256_of
from mmfm.imaging import Volume
from mmfm.study import Receipt, Series

_DTYPES = {"F16": "<f2", "F32": "<f4", "I16": "<i2", "U8": "u1"}
_LONGEST_HEADER = 100 << 20
"""Of a safetensors file, by its specification."""
_DECODERS = ("imagecodecs", "numpy", "pillow", "pydicom", "pyjpegls", "pylibjpeg-openjpeg")
_ABANDONED_S = 24 * 3600.0
"""A part of a file that is so old was left by a process that was killed."""


class VolumeCache:
    """A folder of arrays that were made from series, with their receipts."""

    def __init__(self, folder: str | os.PathLike[str], *, max_bytes: int) -> None:
        """Takes a folder, and makes it where there is none.

        Args:
            folder: shared by as many processes as there are.
            max_bytes: size that entries may have together. Each process that writes looks at the size when it has
                added a hundredth of it.

        Raises:
            ConfigError: the folder cannot be made, or is readable by others.
        """
        self.folder, self.max_bytes = Path(folder), max_bytes
        self._unseen = max_bytes
        try:
            self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            mode = self.folder.stat().st_mode & 0o777
        except OSError as error:
            raise self._unusable(error) from None
        if mode & 0o077:
            raise ConfigError(
                "cache folder",
                expected="a folder that only its owner can read",
                found=f"mode {mode:o}",
                fix="chmod 700, or name a new folder",
            )

    def volume(self, series: Series) -> tuple[Volume, Receipt]:
        """Returns ``Volume.from_series(series)``, decoded at most once.

        Raises:
            ConfigError: the manifest states no SHA-256 for the series, or the folder cannot be written.
            ReadError: the pixels cannot be decoded.
        """

        def make() -> tuple[np.ndarray, Receipt]:
            volume, receipt = Volume.from_series(series)
            return volume.array, receipt

        array, receipt = self.get(series, {}, make)
        affine = None if receipt.affine is None else np.array(receipt.affine)
        return Volume(array=array, affine=affine, quantity=receipt.quantity), receipt

    def get(
        self, series: Series, preprocessing: Mapping[str, object], make: Callable[[], tuple[np.ndarray, Receipt]]
    ) -> tuple[np.ndarray, Receipt]:
        """Returns what ``make`` gives for ``series``, called at most once.

        Args:
            series: with ``sha256``, as ``Manifest.study`` gives it.
            preprocessing: JSON values on which the array depends besides the content and the code of ``mmfm.io`` and
                ``mmfm.imaging``.
            make: gives the array (float16, float32, int16 or uint8) and its receipt.

        Returns:
            The array, mapped into memory where it was kept before (writing to it changes no file), and its receipt.

        Raises:
            ConfigError: the manifest states no SHA-256 for the series, or the folder cannot be written.
        """
        place = self._place(series, preprocessing)
        found = _read(place)
        if found is None:
            found = make()
            self._write(place, *found)
        array, receipt = found
        return array, replace(receipt, series_uid=series.series_uid)

    def _place(self, series: Series, preprocessing: Mapping[str, object]) -> Path:
        if series.sha256 is None:
            raise ConfigError(
                "cache",
                expected="the SHA-256 of every series in the manifest",
                found="a series without",
                fix="prepare the source again, or train without a cache",
            )
        parts = {
            "content": series.sha256,
            "modality": series.modality,
            "preprocessing": {"code": _code(), "decoders": _decoders(), **preprocessing},
            "view": series.view,
        }
        name = hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _write(self, place: Path, array: np.ndarray, receipt: Receipt) -> None:
        if array.nbytes > self.max_bytes:
            return
        temporary = place.with_name(f".{place.stem}.{secrets.token_hex(8)}.partial")
        try:
            place.parent.mkdir(exist_ok=True)
            try:
                metadata = {"receipt": json.dumps(receipt.to_json())}
                save_file({"array": np.ascontiguousarray(array)}, temporary, metadata=metadata)
                temporary.replace(place)
            finally:
                temporary.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            raise self._unusable(error) from None
        self._unseen += array.nbytes
        if 100 * self._unseen >= self.max_bytes:
            self._unseen = 0
            self._make_room()

    def _make_room(self) -> None:
        """Deletes entries, those not used for longest first, until the others fit; and what killed processes left."""
        entries = []
        for path in self.folder.glob("??/*"):
            try:
                found = path.stat()
                if path.suffix == ".partial" and found.st_mtime < time.time() - _ABANDONED_S:
                    path.unlink()
            except FileNotFoundError:  # another process was faster
                continue
            if path.suffix == ".safetensors":
                entries.append((found.st_mtime_ns, found.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _unusable(self, error: Exception) -> ConfigError:
        found = getattr(error, "strerror", None) or type(error).__name__
        return ConfigError(
            "cache folder", expected="a folder with room to write", found=found, fix="free some, or name another folder"
        )


def _read(place: Path) -> tuple[np.ndarray, Receipt] | None:
    """Returns an entry and marks it as used; ``None`` where there is none, or one that is damaged.

    The file is opened once: safetensors would open it twice, and it may be replaced or deleted in between.
    """
    try:
        with place.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _LONGEST_HEADER)))
            array: np.ndarray = np.memmap(
                file,
                dtype=_DTYPES[header["array"]["dtype"]],
                mode="c",
                offset=8 + length + header["array"]["data_offsets"][0],
                shape=tuple(header["array"]["shape"]),
            )
        receipt = Receipt.from_json(json.loads(header["__metadata__"]["receipt"]))
        os.utime(place)
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return array, receipt


@cache
def _decoders() -> dict[str, str]:
    return {name: version(name) for name in _DECODERS}


@cache
def _code() -> str:
    """Returns the SHA-256 of the code between a file and a Volume."""
    folders = (resources.files("mmfm.io"), resources.files("mmfm.imaging"))
    files = [file for folder in folders for file in folder.iterdir() if file.name.endswith(".py")]
    return sha256_of([*files, resources.files("mmfm") / "study.py"])
