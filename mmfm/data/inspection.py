"""What ``mmfm inspect`` says of a folder, zip or file: an outcome for each file, a receipt for each series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmfm.errors import ConfigError, ReadError
from mmfm.imaging import Volume
from mmfm.io import FileOutcome, read
from mmfm.jsonable import to_json
from mmfm.study import Geometry, Instance, Receipt, Series

MAX_KEPT_BYTES = 1 << 28
"""Stored values of one series that are kept from trying each file to making the volume; more is decoded again."""
_STATUSES: tuple[Literal["ok", "ignored", "refused"], ...] = ("ok", "ignored", "refused")
"""From best to worst."""


def inspect(path: str | Path, *, headers_only: bool = False) -> dict[str, Any]:
    """Reads ``path`` and decodes every frame there.

    Args:
        path: a folder, a zip, a DICOMDIR or a file.
        headers_only: decode nothing: receipts are ``None``.

    Returns:
        JSON values: ``{"files": [{"file", "status", "reason", ...}], "studies": [{"study_uid", "series":
        [{"series_uid", "modality", "receipt", "reason"}]}]}``.
        A file is ``refused`` where its own pixels cannot be decoded or shown, whatever lies beside it. A series whose
        files are ``ok`` but make no volume has no receipt, and says why in ``reason``; one that has no such file is
        left out of ``studies``. A second file of one SOP Instance UID is ``ok`` where it has the pixels of the first,
        and in no series. An archive is a file too, before its members: ``ok`` where one of them is.

    Raises:
        ReadError: ``path`` does not exist.
        ConfigError: the process that decodes does not start.
    """
    reading = read(path, isolate=True)
    files = list(reading.files)
    # By instance, not by file name: names repeat within an archive.
    places = {outcome.sop_instance_uid: place for place, outcome in enumerate(files) if outcome.status == "ok"}
    studies = []
    for study in reading.studies:
        series: list[dict[str, Any]] = []
        for one in study.series:
            entry = {"series_uid": one.series_uid, "modality": one.modality, "receipt": None, "reason": None}
            if headers_only:
                series.append(entry)
            elif outcome := _receipt(one, files, places):
                key, value = ("reason", outcome) if isinstance(outcome, str) else ("receipt", outcome.to_json())
                series.append(entry | {key: value})
        if series:
            studies.append({"study_uid": study.study_uid, "series": series})
    for repeat in () if headers_only else reading.repeats:
        pixels, first = _tried(repeat.instance), _tried(repeat.first)
        if isinstance(pixels, str):
            files[repeat.place] = replace(files[repeat.place], reason=pixels)
        elif places.get(repeat.first.sop_instance_uid) is None or isinstance(first, str):
            continue  # the first was refused
        elif np.array_equal(pixels, first):
            note = (
                "the pixels and the SOP Instance UID of a file before it: read once, other header values not compared"
            )
            files[repeat.place] = replace(files[repeat.place], status="ok", reason=note)
    return {"files": [to_json(outcome) for outcome in _with_archives(files)], "studies": studies}


def render(inspection: dict[str, Any]) -> str:
    """Returns the result of ``inspect`` as plain text for people; control characters in names are replaced."""
    return "\n".join(_printable(line) for line in _lines(inspection))


def _with_archives(files: list[FileOutcome]) -> Iterator[FileOutcome]:
    """Yields ``files`` with each archive before its members."""
    for archive, group in groupby(files, key=lambda file: file.archive):
        members = list(group)
        if archive is not None:
            best = next(status for status in _STATUSES if any(member.status == status for member in members))
            reason = {"ok": None, "ignored": "no member of it holds an image"}.get(
                best, f"none of its {len(members)} members can be read; the first: {members[0].reason}"
            )
            yield FileOutcome(file=archive, status=best, reason=reason)
        yield from members


def _receipt(series: Series, files: list[FileOutcome], places: dict[str | None, int]) -> Receipt | str | None:
    """Returns the receipt, or why there is none; ``None`` where no instance can be shown. Refuses those that cannot."""
    decoded, kept = [], 0
    for instance in series.instances:
        array = _tried(instance)
        if isinstance(array, str):
            _tell(files, _place(places, instance), array, refused=True)
            continue
        kept += array.nbytes
        decoded.append(replace(instance, load=partial(_same, array)) if kept <= MAX_KEPT_BYTES else instance)
    if not decoded:
        return None
    outcome = _volume(series, decoded)
    if isinstance(outcome, Receipt):
        return outcome
    shown = []
    for instance in decoded:
        alone = _volume(series, [_without_place(instance)])
        if isinstance(alone, str):
            _tell(files, _place(places, instance), alone, refused=True)
        else:
            shown.append(instance)
    if 0 < len(shown) < len(decoded):
        outcome = _volume(series, shown)
    if isinstance(outcome, str):
        for instance in shown:
            _tell(files, _place(places, instance), "its series makes no volume")
    return outcome if shown else None


def _place(places: dict[str | None, int], instance: Instance) -> int:
    return places[instance.sop_instance_uid.partition("#")[0]]  # an instance may be one volume of a file


def _tried(instance: Instance) -> np.ndarray | str:
    """Returns the stored values, or why there are none."""
    assert instance.load is not None, "read attaches pixels"
    try:
        return instance.load()
    except ConfigError:
        raise
    except Exception as error:  # what is wrong with one file, or too large, must not end the reading of the others
        return _words(error)


def _volume(series: Series, instances: list[Instance]) -> Receipt | str:
    """Returns the receipt of the Volume that these instances make, or why they make none."""
    try:
        return Volume.from_series(replace(series, instances=tuple(instances)))[1]
    except ConfigError:
        raise
    except Exception as error:  # as above
        return _words(error)


def _without_place(instance: Instance) -> Instance:
    """Returns ``instance`` such that its pixels alone decide whether it can be shown."""
    frames = tuple(replace(frame, geometry=Geometry(), kind=()) for frame in instance.frames)
    return replace(instance, geometry=Geometry(), kind=(), frames=frames)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _words(error: Exception) -> str:
    if isinstance(error, ReadError):
        return f"expected {error.expected}, found {error.found}"
    if isinstance(error, MemoryError):
        return "expected pixels that fit into memory, found more"
    return f"expected values that can be computed with, found others ({type(error).__name__})"


def _tell(files: list[FileOutcome], place: int, reason: str, *, refused: bool = False) -> None:
    """Adds ``reason`` to a file's outcome, once: a file may hold several volumes. A refusal stands for all of it."""
    earlier, status = files[place].reason, files[place].status
    if refused:
        files[place] = replace(files[place], status="refused", reason=reason)
    elif status == "ok" and reason not in (earlier or ""):
        files[place] = replace(files[place], reason=f"{earlier}; {reason}" if earlier else reason)


def _lines(inspection: dict[str, Any]) -> Iterator[str]:
    files = inspection["files"]
    counts = {status: sum(file["status"] == status for file in files) for status in ("ok", "refused", "ignored")}
    yield f"{len(files)} files: " + ", ".join(f"{count} {status}" for status, count in counts.items())
    for file in files:
        if file["reason"]:
            yield f"  {file['status']:8}{file['file']}: {file['reason']}"
    for study in inspection["studies"]:
        yield f"study {study['study_uid']}"
        for series in study["series"]:
            receipt = series["receipt"]
            if receipt is None:
                why = f"no volume: {series['reason']}" if series["reason"] else "not decoded"
                yield f"  series {series['series_uid']}: {series['modality'] or 'picture'}, {why}"
                continue
            shape = " x ".join(map(str, receipt["shape"]))
            view = f" {receipt['view']}" if receipt["view"] else ""
            yield f"  series {series['series_uid']}: {series['modality'] or receipt['source_format']}{view}, {shape}"
            yield f"    values: {receipt['quantity']}; window: {receipt['window']}"
            spacing = receipt["spacing"]
            millimetres = " x ".join(f"{value:g}" for value in spacing) + " mm" if spacing else "not stated"
            yield f"    orientation: {receipt['orientation']}; spacing: {millimetres}"
            yield from (f"    step: {step}" for step in receipt["steps"])
            yield from (f"    warning: {warning}" for warning in receipt["warnings"])


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
