"""How long until a volume of a CT is in memory: decoded, from the VolumeCache, and its bare bytes by numpy.memmap?

    python benchmarks/cache.py --slices 300 --runs 5

Every way ends with the sum of all values, so that each has been read. Decoding and the cache are measured from the
Series on, without the scan of headers, which `benchmarks/dicom.py` measures. The floor is ``numpy.memmap`` over a file
of the same float32 values. All ways take turns; each figure is a median; no file is read from a cold disk.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from dicom import INTERCEPT, SYNTAXES, draw, machine, seconds, write

from mmfm.data.cache import VolumeCache
from mmfm.data.manifest import sha256
from mmfm.imaging import Volume
from mmfm.io import read_studies
from mmfm.study import Series


def series_at(folder: Path) -> Series:
    (study,) = read_studies(folder)
    return replace(study.series[0], sha256=sha256(folder))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    volume = draw(arguments.slices)
    hu = volume.astype(np.float32) + INTERCEPT
    with tempfile.TemporaryDirectory() as temporary:
        cache = VolumeCache(Path(temporary) / "cache", max_bytes=1 << 40)
        bare = Path(temporary) / "bare"
        hu.tofile(bare)
        floor = "numpy.memmap of the same bytes"
        ways: dict[str, Callable[[], np.ndarray]] = {floor: lambda: np.memmap(bare, "<f4", "r", shape=hu.shape)}
        for name in ("raw", "JPEG-LS"):
            folder = Path(temporary) / name
            syntax, encode, _ = SYNTAXES[name]
            write(folder, volume, syntax, encode)
            series = series_at(folder)
            ways[f"decoded, {name}"] = lambda series=series: Volume.from_series(series)[0].array
            ways[f"cached, from {name}"] = lambda series=series: cache.volume(series)[0].array
        for name, way in ways.items():  # fills the cache too
            if not np.array_equal(way(), hu):
                raise SystemExit(f"{name}: other values than were written")
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.runs):
            for name, way in ways.items():
                times[name].append(seconds(lambda way=way: way().sum()))
    least = statistics.median(times[floor])
    print(f"{arguments.slices} slices of 512 x 512 as float32, seconds, median of {arguments.runs}. {machine()}\n")
    print("| way | seconds | times the floor |\n| --- | --- | --- |")
    for name, values in sorted(times.items(), key=lambda item: statistics.median(item[1])):
        print(f"| {name} | {statistics.median(values):.4f} | {statistics.median(values) / least:.2f} |")


if __name__ == "__main__":
    main()
