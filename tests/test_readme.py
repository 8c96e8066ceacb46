"""What the README shows exists. `make demo SERVE=0` and `make test` themselves are run by .ci/run."""

import re
import shlex
import subprocess
import sys

import pydicom
import pytest
import typer

from mmfm.cli import app
from mmfm.data.synthetic import draw_study, write_dicom
from mmfm.imaging import volume as volumes
from mmfm.io import nesting, parsing, reading, sources, worker

COMMANDS = typer.main.get_command(app).commands


def shown(root, document, language="sh"):
    blocks = re.findall(rf"^```{language}\n(.*?)^```", (root / document).read_text(), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    return blocks


def commands(root, document):
    lines = "".join(shown(root, document)).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def check_mmfm(words):
    name, *arguments = words
    assert name in COMMANDS, f"mmfm has no command {name}"
    known = {option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert [a for a in arguments if a.startswith("--") and a not in known] == []


def check_make(root, words):
    makefile = (root / "Makefile").read_text()
    for word in words:
        target, is_variable, _ = word.partition("=")
        pattern = rf"\$\({target}\)" if is_variable else rf"^{target}:"
        assert re.search(pattern, makefile, flags=re.MULTILINE), f"the Makefile has no {word}"


def check_python(root, words):
    script, *arguments = words
    usage = subprocess.run(
        [sys.executable, root / script, "--help"], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert [a for a in arguments if a.startswith("--") and a not in usage] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/dicom.md", "docs/evaluation.md"])
def test_commands_shown_exist(root, document):
    for first, *words in commands(root, document):
        match first:
            case "mmfm":
                check_mmfm(words)
            case "make":
                check_make(root, words)
            case "python":
                check_python(root, words)
            case "bash":
                assert (root / words[0]).is_file()
            case "source" | "export":
                pass
            case _:
                raise AssertionError(f"{document} shows {first}, which nothing here checks")
        files = [w for w in words if re.match(r"(experiments|datasets|demos)/.*\.py$", w)]
        assert [f for f in files if not (root / f).is_file()] == []


def test_both_commands_stand_in_the_readme_and_run_in_ci(root):
    assert {"demo", "test"} <= {words[1] for words in commands(root, "README.md") if words[0] == "make"}
    ci = (root / ".ci" / "run").read_text()
    assert "\nmake demo SERVE=0\n" in ci
    assert "\nmake test\n" in ci


@pytest.mark.slow
def test_the_readme_runs_from_top_to_bottom(root, tmp_path, monkeypatch):
    """Every mmfm and python line, in order, in one folder; only what would take minutes is made smaller."""
    less = {
        "datasets/synthetic/prepare.py": ["--train", "24", "--val", "12", "--test", "0", "--size", "256"],
        "train": ["--dry-run"],
    }
    write_dicom(draw_study(7, size=256), tmp_path / "study")
    (tmp_path / "deid.key").write_bytes(bytes(range(32)))
    for folder in ("experiments", "datasets"):
        (tmp_path / folder).symlink_to(root / folder)
    monkeypatch.delenv("MMFM_DATA", raising=False)
    mmfm = "from mmfm.cli import main; main()"
    for first, *words in commands(root, "README.md"):
        if first == "export":
            monkeypatch.setenv(*words[0].split("=", 1))
        elif words[0] in ("pull", "push", "evaluate-answers"):
            continue  # tests/io runs them against a server; tests/evaluation with the pictures of VQA-RAD's like
        elif first in ("mmfm", "python"):
            start = [sys.executable, *(["-c", mmfm] if first == "mmfm" else [])]
            run([*start, *words, *[w for w in less.get(words[0], []) if w not in words]], tmp_path)
    for block in shown(root, "README.md", "python"):
        assert run([sys.executable, "-c", block], tmp_path).strip()


def test_the_page_on_dicom_runs_and_states_the_limits_that_hold(root, tmp_path):
    (first, *_) = write_dicom(draw_study(7, size=64), tmp_path / "drawn")
    dataset = pydicom.dcmread(first)
    dataset.Modality, dataset.SOPClassUID = "CT", pydicom.uid.CTImageStorage
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    (tmp_path / "study").mkdir()
    for z in range(3):
        dataset.ImagePositionPatient, dataset.SOPInstanceUID = [0, 0, z], f"1.2.3.{z + 1}"
        dataset.save_as(tmp_path / "study" / f"{z}.dcm")
    volume, boxes = (run([sys.executable, "-c", block], tmp_path) for block in shown(root, "docs/dicom.md", "python"))
    assert volume.startswith("(3, 64, 64) stored SPL")
    assert " ".join(boxes.split()) == "[[[ 0. 4. 4.] [ 1. 12. 12.]]]"
    page = " ".join((root / "docs/dicom.md").read_text().split())
    for limit in (
        f"fewer than {sources.MAX_MEMBERS:,} members, {sources.MAX_UNPACKED >> 30} GB unpacked",
        f"{sources.MAX_RATIO}:1 for each above {sources.RATIO_FREE >> 20} MB",
        f"{parsing.MAX_INFLATED >> 30} GB, {parsing.MAX_INFLATE_RATIO}:1",
        f"at most {nesting.MAX_DEPTH} deep, at most {nesting.MAX_ELEMENTS:,} elements",
        f"frames at most {sources.MAX_PIXEL_BYTES >> 30} GB",
        f"{volumes.MAX_VOLUME_BYTES >> 30} GB; at most {reading.MAX_VOLUMES:,} volumes",
        f"{worker.FRAME_SECONDS:g} s for each frame, {worker.FILE_SECONDS / 60:g} minutes for a file, "
        f"{worker.FRAME_BYTES / 2**30:g} GB",
        f"more than {volumes.TILT_TOLERANCE_DEGREES} degrees",
    ):
        assert limit in page


def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command[1:]}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_every_command_of_mmfm_is_shown_in_the_readme(root):
    named = {words[1] for words in commands(root, "README.md") if words[0] == "mmfm"} | {"demo"}
    assert set(COMMANDS) - named == set()


def test_research_use_only_is_said_before_anything_is_run(root):
    page = (root / "README.md").read_text()
    assert 0 < page.index("Research use only, not a medical device") < page.index("```sh")
