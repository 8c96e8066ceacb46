"""How long, and how much memory, does `mmfm report` of a chest CT take? One row for each number of slices.

    python benchmarks/volume_report_speed.py --checkpoint mmfm-volume-small --slices 200 600

One drawn patient is written as slices of 512 x 512; each run is a process of its own. "After start" is the whole run
less the start of Python with torch and transformers imported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from mmfm.data.synthetic_volumes import draw_volume, write_dicom
from mmfm.data.synthetic_volumes.drawing import DrawnVolume

REPORT = "from mmfm.cli import main; main()"
FLOOR = "import mmfm, torch, transformers.models.llama.modeling_llama"
PIXELS = 512


def main() -> None:
    """Prints seconds and peak memory, medians of several runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="mmfm-volume-small")
    parser.add_argument("--slices", type=int, nargs="+", default=[200, 600])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    floor = statistics.median(_run([sys.executable, "-c", FLOOR])[0] for _ in range(arguments.runs))
    print(f"floor: imports alone, {floor:.1f} s\n")
    print("| slices | seconds | after start | peak memory |\n| --- | --- | --- | --- |")
    for slices in arguments.slices:
        with tempfile.TemporaryDirectory() as folder:
            write_dicom(large_ct(slices), Path(folder))
            command = [sys.executable, "-c", REPORT, "report", folder, "--checkpoint", arguments.checkpoint]
            seconds, memory = zip(*(_run(command) for _ in range(arguments.runs)), strict=True)
        whole = statistics.median(seconds)
        print(f"| {slices} | {whole:.1f} s | {whole - floor:.1f} s | {max(memory) / 1e9:.2f} GB |")


def large_ct(slices: int) -> DrawnVolume:
    """Returns a drawn chest with voxels repeated between, so that it has so many slices of 512 x 512."""
    drawn = draw_volume("chest_ct", 0, spacing=(2.0, 2.0, 2.0), findings=("nodule",))
    image = drawn.images["CT"]
    shape = (slices, PIXELS, PIXELS)
    scale = np.array(image.shape) / shape
    zoomed = ndimage.zoom(image, 1 / scale, order=1, mode="nearest", grid_mode=True)
    to_old = np.diag([*scale, 1.0])
    to_old[:3, 3] = (scale - 1) / 2
    return replace(
        drawn,
        images={"CT": zoomed},
        affine=drawn.affine @ to_old,
        segmentation=np.zeros(shape, np.uint8),
        segments=(),
    )


def _run(command: list[str]) -> tuple[float, int]:
    """Returns seconds and peak resident bytes of one command, with those it waited for."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
