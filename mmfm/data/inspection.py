"""What ``mmfm inspect`` says of a folder, zip or file: an outcome for each file, a receipt for each series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmfm.errors import ReadError
from mmfm.imaging import Volume
from mmfm.io import FileOutcome, read
from mmfm.jsonable import to_json
from mmfm.study import Instance, Receipt, Series


def inspect(path: str | Path, *, headers_only: bool = False) -> dict[str, Any]:
    """Reads ``path`` and decodes every frame there.

    Args:
        path: a folder, a zip, a DICOMDIR or a file.
        headers_only: decode nothing: receipts are ``None``.

    Returns:
        JSON values: ``{"files": [{"file", "status", "reason", ...}], "studies": [{"study_uid", "series":
        [{"series_uid", "modality", "receipt"}]}]}``.
        A file that fails to decode is ``refused``, as are all files of a series that makes no volume; such a series is
        left out of ``studies``.

    Raises:
        ReadError: ``path`` does not exist.
    """
    reading = read(path, isolate=True)
    files = list(reading.files)
    # By instance, not by file name: names repeat within an archive.
    places = {outcome.sop_instance_uid: place for place, outcome in enumerate(files) if outcome.status == "ok"}
    studies = []
    for study in reading.studies:
        series: list[dict[str, Any]] = []
        for one in study.series:
            entry: dict[str, Any] = {"series_uid": one.series_uid, "modality": one.modality, "receipt": None}
            if headers_only:
                series.append(entry)
            elif receipt := _receipt(one, files, places):
                series.append(entry | {"receipt": receipt.to_json()})
        if series:
            studies.append({"study_uid": study.study_uid, "series": series})
    return {"files": [to_json(outcome) for outcome in files], "studies": studies}


def render(inspection: dict[str, Any]) -> str:
    """Returns the result of ``inspect`` as plain text for people; control characters in names are replaced."""
    return "\n".join(_printable(line) for line in _lines(inspection))


def _receipt(series: Series, files: list[FileOutcome], places: dict[str | None, int]) -> Receipt | None:
    decoded = []
    for instance in series.instances:
        try:
            decoded.append(_decoded(instance))
        except ReadError as error:
            _refuse(files, _place(places, instance), error)
    if not decoded:
        return None
    try:
        return Volume.from_series(replace(series, instances=tuple(decoded)))[1]
    except ReadError as error:
        for instance in decoded:
            _refuse(files, _place(places, instance), error)
        return None


def _place(places: dict[str | None, int], instance: Instance) -> int:
    return places[instance.sop_instance_uid.partition("#")[0]]  # an instance may be one volume of a file


def _decoded(instance: Instance) -> Instance:
    assert instance.load is not None, "read attaches pixels"
    array = instance.load()
    return replace(instance, load=lambda: array)


def _refuse(files: list[FileOutcome], place: int, error: ReadError) -> None:
    reason = f"expected {error.expected}, found {error.found}"
    files[place] = replace(files[place], status="refused", reason=reason)


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
                yield f"  series {series['series_uid']}: {series['modality'] or 'picture'}, not decoded"
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
