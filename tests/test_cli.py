import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from mmfm import cli
from mmfm.data.synthetic import draw_study, write_dicom
from mmfm.report import NOTICE, Report
from mmfm.ui.samples import synthetic_study

COMMANDS = ("inspect", "report", "predict", "train", "evaluate", "evaluate-answers", "leaderboard")
COMMANDS += ("deid", "pull", "push", "doctor", "demo")


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command line in this process; returns (exit code, stdout, stderr)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["mmfm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


def draw(path, *, blank=False):
    rows, columns = np.mgrid[-1:1:96j, -1:1:80j]
    lungs = np.exp(-((np.abs(columns) - 0.45) ** 2) / 0.05 - rows**2 / 0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(np.zeros_like(lungs) if blank else 255 * (1 - lungs))).save(path)


def test_help_is_quick_and_light():
    code = "import sys; sys.argv=['mmfm', '--help']\nfrom mmfm.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'gradio', 'transformers', 'numpy', 'rich'} & set(sys.modules)\nassert not heavy, heavy"
    seconds = []
    for _ in range(3):
        before = os.times()
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        after = os.times()  # processor time: a busy machine makes no command slow
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert all(command in out for command in COMMANDS)
    assert NOTICE in " ".join(out.split())
    assert min(seconds) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert command in out


def test_report_prints_json_that_is_a_report(run, tiny_checkpoint, tmp_path):
    draw(tmp_path / "a.png")
    code, out, err = run(
        "report", tmp_path / "a.png", "--checkpoint", tiny_checkpoint, "--format", "json", "--indication", "cough"
    )
    assert (code, err) == (0, "")
    report = Report.from_json(json.loads(out))
    assert report.sections.indication == "cough"
    assert report.notice == NOTICE


def test_deid_writes_a_folder_and_says_how_many(run, tmp_path):
    write_dicom(draw_study(7, size=64), tmp_path / "study")
    (tmp_path / "a.key").write_bytes(bytes(range(16)))
    code, out, err = run(
        "deid", tmp_path / "study", tmp_path / "out", "--key", tmp_path / "a.key", "--clean", "descriptors"
    )
    assert (code, err) == (0, "")
    assert "2 objects written, 0 in quarantine" in out
    assert "a person has to look" in out
    assert (tmp_path / "out" / "deid_report.json").is_file()


@pytest.mark.parametrize("words", [["--retain", "everything"], ["--clean", "faces"], ["--key", "short.key"]])
def test_deid_refuses_in_one_line(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    write_dicom(draw_study(7, size=64), tmp_path / "study")
    (tmp_path / "a.key").write_bytes(bytes(range(16)))
    (tmp_path / "short.key").write_bytes(b"short")
    code, out, err = run("deid", "study", "out", *(["--key", "a.key"] if "--key" not in words else []), *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"mmfm: {words[0]}: expected")


@pytest.mark.parametrize(
    ("format", "words"), [("text", ["FINDINGS", "NOT ASSESSED"]), ("md", ["## Findings", "## Not assessed"])]
)
def test_report_prints_for_people(run, tiny_checkpoint, tmp_path, format, words):
    draw(tmp_path / "a.png")
    code, out, _ = run("report", tmp_path / "a.png", "--checkpoint", tiny_checkpoint, "--format", format)
    assert code == 0
    assert NOTICE in out
    assert all(word in out for word in words)


def test_report_picks_the_checkpoint_of_each_study(
    run, tiny_checkpoint, tiny_volume_checkpoint, write_volume, tmp_path, monkeypatch
):
    shipped = tmp_path / "shipped"
    shutil.copytree(tiny_checkpoint, shipped / "tiny")
    shutil.copytree(tiny_volume_checkpoint, shipped / "tiny-volume")
    monkeypatch.setattr("mmfm.inference.choosing.shipped_folders", lambda: [shipped])
    monkeypatch.setenv("MMFM_CHECKPOINTS", str(shipped))
    synthetic_study(1, tmp_path / "studies")
    write_volume(tmp_path / "studies" / "ct")
    code, out, err = run("report", tmp_path / "studies", "--format", "json")
    assert (code, err) == (0, "")
    provenances = [Report.from_json(json.loads(line)).provenance for line in out.splitlines()]
    assert {p.checkpoint for p in provenances} == {"tiny", "tiny-volume"}
    assert all("chosen by scope among 2" in p.chosen for p in provenances)
    code, out, _ = run("report", tmp_path / "studies" / "ct", "--prior", write_volume(tmp_path / "prior", seed=2))
    assert code == 0
    assert "chosen by scope among 2: CT of the chest by its headers" in out
    assert "before (" in out
    assert one_line(*run("report", tmp_path / "studies", "--prior", tmp_path / "prior"))
    assert one_line(*run("report", tmp_path / "studies", "--series", "#1"))
    assert one_line(*run("report", tmp_path / "studies" / "ct", "--region", "abdomen"))
    assert one_line(*run("report", tmp_path / "studies" / "ct", "--modality", "CT"))


def one_line(code, out, err):
    """Whether a command ended as bad input has to."""
    return (
        code == 2
        and out == ""
        and err.count("\n") == 1
        and "expected" in err
        and "found" in err
        and "Traceback" not in err
    )


def test_bad_input_ends_in_one_line_and_exit_code_2(run, tiny_checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.dcm").write_text("This is no DICOM file.")
    draw(tmp_path / "blank" / "a.png", blank=True)
    draw(tmp_path / "a.png")
    for path in ("empty", "text.dcm", "absent", "blank"):
        assert one_line(*run("report", tmp_path / path, "--checkpoint", tiny_checkpoint)), path
    assert one_line(*run("report", tmp_path / "a.png", "--checkpoint", "no-such-checkpoint"))
    assert one_line(*run("report", tmp_path / "a.png", "--checkpoint", tiny_checkpoint, "--device", "abacus"))
    assert one_line(*run("inspect", tmp_path / "absent"))
    assert one_line(*run("inspect", tmp_path / "absent.jsonl"))
    assert one_line(*run("train", tmp_path / "absent.py"))


def test_report_tells_of_refused_files_and_goes_on_after_a_picture_that_fails(run, tiny_checkpoint, tmp_path):
    synthetic_study(1, tmp_path / "a")
    synthetic_study(2, tmp_path / "b")
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / name).write_text("This is no DICOM file.")
    code, out, err = run("report", tmp_path, "--checkpoint", tiny_checkpoint, "--format", "json")
    assert (code, out.count("\n")) == (0, 2)
    assert err == "2 of 6 files refused; the first: expected DICOM, NIfTI, PNG, JPEG or zip, found text\n"
    for path in (tmp_path / "a").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" * 20])
        dataset.save_as(path)
    code, out, err = run("report", tmp_path, "--checkpoint", tiny_checkpoint, "--format", "json")
    assert (code, out.count("\n"), err.count("\n")) == (2, 1, 2)
    assert "study 1 of 2: " in err


def test_wrong_manifests_and_experiments_end_in_one_line(run, tmp_path, monkeypatch, root):
    monkeypatch.delenv("MMFM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    row = {"patient_id": "p", "source": "made", "series": [{"series_uid": "s", "path": "a.png"}]}
    rows = [row | {"study_uid": "1", "split": "train"}, row | {"study_uid": "2", "split": "val"}]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert one_line(*run("inspect", "manifest.jsonl"))
    experiment = next((root / "experiments").glob("*.py"))
    assert one_line(*run("train", experiment, "model.no_such_field=3"))
    assert one_line(*run("train", experiment, "--dry-run"))
    assert not (tmp_path / "runs").exists()


def test_demo_drafts_its_samples(run, tiny_checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("MMFM_DATA", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    code, out, _ = run("demo", "--no-serve", "--checkpoint", tiny_checkpoint)
    assert code == 0
    assert out.count("drafted in") == out.count(NOTICE) >= 3
    assert "not a patient" in out


def test_inspect_prints_an_outcome_for_each_file_and_fails_without_an_image(run, tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "text.dcm").write_text("This is no DICOM file.")
    code, out, _ = run("inspect", tmp_path, "--json")
    found = json.loads(out)
    assert code == 0
    assert {f["status"] for f in found["files"]} == {"ok", "refused"}
    assert found["studies"][0]["series"][0]["receipt"]["source_format"] == "PNG"
    code, out, err = run("inspect", tmp_path)
    assert code == 0
    assert "text.dcm" in out
    (tmp_path / "a.png").unlink()
    code, out, err = run("inspect", tmp_path, "--json")
    assert code == 2
    assert [f["status"] for f in json.loads(out)["files"]] == ["refused"]
    assert err.count("\n") == 1


@pytest.fixture
def drafts(tmp_path):
    """Words of ``mmfm evaluate`` that score 12 made-up drafts into ``tmp_path / "out"``."""
    rows = [{"study_uid": f"secret-{i}", "findings": "The heart is normal.", "impression": None} for i in range(12)]
    for name in ("drafts.jsonl", "references.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *("--predictions", tmp_path / "drafts.jsonl", "--references", tmp_path / "references.jsonl"),
        *("--metrics", "findings", "--out", tmp_path / "out"),
    ]


def test_evaluate_scores_a_file_and_says_what_was_not_run(run, drafts, tmp_path):
    code, out, err = run("evaluate", *drafts)
    assert (code, err) == (0, "")
    assert "12 of 12 studies scored" in out
    assert "not run or not scored, the page says why: control constant report" in out
    assert "secret" not in out
    code, out, err = run("evaluate", "--compare", tmp_path / "out", tmp_path / "out", "--out", tmp_path / "c.json")
    assert (code, err) == (0, "")
    assert "no difference shown" in out
    assert json.loads((tmp_path / "c.json").read_text())["studies"] == 12


@pytest.mark.parametrize(
    "more",
    [
        ["--split", "val"],
        ["--robustness", "3"],
        ["--write-card"],
        ["--device", "cpu"],
        ["--checkpoint", "x"],
        ["--manifest", "m.jsonl"],
        ["--summary", "absent.md"],
        ["--leaderboard", "absent/page.md"],
        ["--out", "file"],
    ],
)
def test_evaluate_refuses_options_that_would_do_nothing_or_cannot_be_met(run, drafts, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert one_line(*run("evaluate", *drafts, *more))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--out", "out", "--manifest", "m", "--split", "val", "--train-manifest", "m", "--control", "a=b"],
        ["--out", "out", "--manifest", "m", "--split", "val", "--train-manifest", "m", "--thresholds", "t.json"],
        ["--compare", "a", "b", "--predictions", "p.jsonl"],
        ["--compare", "a", "b", "--out", "."],
        ["--compare", "a", "b"],
    ],
)
def test_evaluate_refuses_what_does_not_go_together(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert one_line(*run("evaluate", *words))
    assert os.listdir(tmp_path) == []
