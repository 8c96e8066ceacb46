"""Sample studies for a demo: a real one of the IU X-Ray ``val`` split where the data is at hand, and drawn ones."""

from __future__ import annotations

import csv
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmfm.data import synthetic_volumes
from mmfm.data.manifest import prepared, read_manifest
from mmfm.data.synthetic import draw_study, write_dicom
from mmfm.errors import ConfigError, ManifestError, ScopeError
from mmfm.io import read_studies
from mmfm.study import Study, ViewPosition
from mmfm.ui.render import finding_rows, readable

REAL_BADGE = "256 px, shape distorted, not diagnostic"
"""The pictures of this copy of IU X-Ray were squashed to squares of 256."""

_DATA_BESIDE_CHECKOUT = Path(__file__).parents[3] / "shared" / "data" / "iu_xray"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One study with the words that stand above its draft."""

    title: str
    study: Study


def synthetic_study(seed: int, folder: str | Path) -> Study:
    """Draws a study, writes it into ``folder`` as DICOM and reads it back. The same seed gives the same study."""
    folder = Path(folder) / f"synthetic-{seed}"
    folder.mkdir(parents=True)
    write_dicom(draw_study(seed), folder)
    [study] = read_studies(folder)
    return study


def real_study(folder: str | Path, *, source: Path | None = None) -> Study | None:
    """Returns the first ``val`` study of IU X-Ray that has a frontal and a lateral, or None without the data.

    Args:
        folder: where its pictures are put when they lie in archives.
        source: the downloaded source, or a prepared one (with ``manifest.jsonl``). Without it: the prepared source of
            ``MMFM_DATA``, then ``../shared/data/iu_xray`` beside the checkout.

    Raises:
        ConfigError: ``source`` is neither.
    """
    if source is not None:
        if (source / "manifest.jsonl").is_file():
            return _prepared_study(source / "manifest.jsonl")
        if (source / "images.csv").is_file():
            return _downloaded_study(source, Path(folder))
        raise ConfigError(
            "--data", expected="a folder with manifest.jsonl, or with images.csv and its archives", found="neither",
            fix="give the folder of IU X-Ray, downloaded or prepared",
        )  # fmt: skip
    try:
        return _prepared_study(prepared("iu_xray"))
    except ConfigError:
        pass  # no prepared source is no fault here
    beside = _DATA_BESIDE_CHECKOUT
    return _downloaded_study(beside, Path(folder)) if (beside / "images.csv").is_file() else None


def _prepared_study(path: Path) -> Study:
    manifest = read_manifest(path)
    for row in manifest.split("val"):
        sides = {series.view.is_lateral for series in row.series if series.view is not None}
        if sides == {False, True}:
            return manifest.study(row)
    raise ManifestError(path.name, expected="a val study of two views", found="none", fix="prepare the source again")


def _downloaded_study(source: Path, folder: Path) -> Study | None:
    pictures: dict[str, list[dict[str, str]]] = {}
    with (source / "images.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "val":
                pictures.setdefault(row["uid"], []).append(row)
    both = (uid for uid, rows in pictures.items() if {r["projection"] for r in rows} == {"Frontal", "Lateral"})
    uid = next(both, None)
    if uid is None:
        return None
    with (source / "reports.csv").open(encoding="utf-8", newline="") as file:
        indication = next((row["indication"] or None for row in csv.DictReader(file) if row["uid"] == uid), None)
    series = []
    for place, row in enumerate(pictures[uid]):
        path = folder / f"real-{place}.jpg"
        with tarfile.open(source / row["shard"]) as archive:
            picture = archive.extractfile(row["file"])
            assert picture is not None
            path.write_bytes(picture.read())
        [read] = read_studies(path)
        view = ViewPosition(row["projection"].lower())
        series.append(replace(read.series[0], series_uid=f"iu_xray-{uid}-{place}", view=view))
    return Study(study_uid=f"iu_xray-{uid}", series=tuple(series), indication=indication)


def samples(folder: str | Path, *, source: Path | None = None) -> Iterator[Sample]:
    """Yields the sample studies of a demo: the real one first where there is one, then three drawn ones.

    Raises:
        ConfigError: ``source`` is no IU X-Ray.
    """
    real = real_study(folder, source=source)
    if real is not None:
        yield Sample(title=f"real study of the IU X-Ray val split [{REAL_BADGE}]", study=real)
    for seed in (1, 2, 3):
        yield Sample(title=f"synthetic study, seed {seed} [drawn, not a patient]", study=synthetic_study(seed, folder))


def volume_samples(folder: str | Path) -> Iterator[Sample]:
    """Yields a drawn CT of the chest and a drawn MR of the head, written as DICOM and read back."""
    for region, findings, words in (
        ("chest_ct", ("nodule", "pleural_effusion"), "CT of the chest"),
        ("head", ("brain_mass",), "MR of the head"),
    ):
        place = Path(folder) / f"synthetic-{region}"
        synthetic_volumes.write_dicom(synthetic_volumes.draw_volume(region, 1, findings=findings), place)
        [study] = read_studies(place)
        shows = " and ".join(name.replace("_", " ") for name in findings)
        yield Sample(title=f"synthetic {words} that shows {shows} [drawn, not a patient]", study=study)


def print_drafts(reporter: Any, sampled: Iterator[Sample]) -> None:
    """Prints the draft of each sample with its findings, probabilities and time.

    Args:
        reporter: has ``report(study) -> Report``.
        sampled: what ``samples`` yields.
    """
    for sample in sampled:
        print(f"\n{'=' * 100}\n{sample.title}")
        started = time.perf_counter()
        try:
            report = reporter.report(sample.study)
        except ScopeError as error:
            print(f"no draft: {error}", flush=True)
            continue
        print(f"drafted in {time.perf_counter() - started:.2f} s; read: {report.coverage}; {report.notice}")
        for note in report.scope_notes:
            print(f"note: {note}")
        print(f"\nFindings:    {report.sections.findings}\nImpression:  {report.sections.impression}")
        for name, status, side, details, _ in finding_rows(report):
            print(f"  {status:<10} {side:<10} {name} {details}".rstrip())
        ranked = sorted(report.finding_probabilities.items(), key=lambda item: -item[1])
        print("P(present):  " + ", ".join(f"{readable(name)} {p:.2f}" for name, p in ranked[:8]))
        suggested = "; ".join(f"{entry.likelihood}: {entry.diagnosis}" for entry in report.differential)
        print(
            f"Differential ({'not calibrated' if suggested else report.differential_note}): {suggested or 'none'}",
            flush=True,
        )
