"""How long does a draft take? One table: `mmfm report` from a cold start, each further study, and the floor.

    python benchmarks/report_speed.py --checkpoint mmfm-cxr-small

The floor is the start of Python with torch and transformers imported, without any work of mmfm.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmfm.data.synthetic import draw_study, write_dicom
from mmfm.inference import Reporter
from mmfm.io import read_studies

REPORT = "from mmfm.cli import main; main()"
FLOOR = "import mmfm, torch, transformers.models.llama.modeling_llama"


def main() -> None:
    """Prints the median of several runs, in seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="mmfm-cxr-small")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(seed) for seed in range(arguments.runs + 1)]
        for seed, place in enumerate(places):
            write_dicom(draw_study(seed), place)
        cold = [
            _seconds([sys.executable, "-c", REPORT, "report", str(places[0]), "--checkpoint", arguments.checkpoint])
            for _ in range(arguments.runs)
        ]
        floor = [_seconds([sys.executable, "-c", FLOOR]) for _ in range(arguments.runs)]
        reporter = Reporter.from_pretrained(arguments.checkpoint)
        further = []
        for place in places:
            started = time.perf_counter()
            reporter.report(*read_studies(place))
            further.append(time.perf_counter() - started)
    print(f"{'mmfm report, cold start':36} {statistics.median(cold):6.2f} s")
    print(f"{'each further study, reading included':36} {statistics.median(further[1:]):6.2f} s")
    print(f"{'floor: imports alone':36} {statistics.median(floor):6.2f} s")


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
