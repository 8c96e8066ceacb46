"""The command of these tests is a test double: a small script that speaks the contract of docs/external_metrics.md."""

from __future__ import annotations

import json
import shlex
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmfm.evaluation import external
from mmfm.evaluation.external import FAMILIES, VARIABLE, ExternalScores, score_externally
from mmfm.evaluation.predictions import Prediction
from mmfm.evaluation.references import Reference
from mmfm.report import Sections

DOUBLE = """
import json, sys
drafts, references = ([json.loads(line) for line in open(path)] for path in sys.argv[1:3])
header = {"metrics": {"radgraph_words": "higher", "radcliq_words": "lower", "chexbert_f1": "higher"},
          "versions": {"double": "1"}, "not_run": {"green": "no GPU"}}
lines = [header]
for draft, reference in zip(drafts, references):
    assert draft["study_uid"] == reference["study_uid"]
    a, b = (set((text["findings"] or "").split()) for text in (draft, reference))
    share = len(a & b) / len(b) if b else 0
    lines.append({"study_uid": draft["study_uid"], "radgraph_words": share, "radcliq_words": 1 - share,
                  "chexbert_f1": {"tp": len(a & b), "fp": len(a - b), "fn": len(b - a)}})
EDIT
lines[1:] = reversed(lines[1:])
open(sys.argv[3], "w").write("".join(json.dumps(line) + "\\n" for line in lines))
"""

TEXTS = ["heart large", "lungs clear", None, "effusion left small"]
REFERENCES = [
    Reference(study_uid=f"secret-{i}", patient_id=f"p{i}", report=Sections(findings=text))
    for i, text in enumerate(TEXTS)
]


def drafted(*texts):
    return [
        Prediction(study_uid=r.study_uid, findings=text, impression=None)
        for r, text in zip(REFERENCES, texts, strict=True)
    ]


DRAFTS = {
    "drafts": drafted("heart large", "lungs clear effusion", "heart", "effusion right"),
    "constant": drafted(*["lungs clear"] * 4),
    "nothing": drafted(*[None] * 4),
}


@pytest.fixture
def command(tmp_path):
    """Writes the test double, with a line of its own where it is to misbehave, and returns how it is called."""

    def command(edit="", script=DOUBLE):
        path = tmp_path / "test double.py"
        path.write_text(script.replace("EDIT", edit))
        return shlex.join([sys.executable, str(path)])

    return command


def run(command, **changes):
    return score_externally(DRAFTS, REFERENCES, command=command, **changes)


def only_reason(found):
    """The one reason why none of the five was run."""
    assert found.scores == {}
    assert list(found.not_run) == list(FAMILIES.values())
    (reason,) = set(found.not_run.values())
    assert "\n" not in reason and "secret" not in reason
    return reason


def test_each_set_is_scored_in_one_call(command, tmp_path):
    log = tmp_path / "calls"
    found = run(command(f"open({str(log)!r}, 'a').write('called ')"))
    assert log.read_text() == "called "
    assert list(found.scores) == ["drafts", "constant", "nothing"]
    assert found.lower_is_better == {"external.radcliq_words"}
    assert found.versions == {"double": "1"}
    once = {name: {k: v[0] for k, v in s.scores(np.ones((1, 4))).items()} for name, s in found.scores.items()}
    assert once["drafts"]["external.radgraph_words"] == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert once["drafts"]["external.radcliq_words"] == pytest.approx((0 + 0 + 2 / 3) / 3)
    assert once["drafts"]["external.chexbert_f1"] == pytest.approx(2 * 5 / (2 * 5 + 2 + 2))
    assert once["constant"]["external.radgraph_words"] == pytest.approx(1 / 3)
    assert once["nothing"] == {
        "external.radgraph_words": 0,
        "external.radcliq_words": 1,
        "external.chexbert_f1": 0,
    }
    assert found.scores["drafts"].counts() == {
        "external.radgraph_words": (3, None),
        "external.radcliq_words": (3, None),
        "external.chexbert_f1": (3, 7),
    }


def test_scores_are_resampled_as_any_other(command):
    scores = run(command()).scores["drafts"]
    weights_RN = np.array([[1, 1, 1, 1], [2, 0, 5, 1], [0, 0, 3, 0]], float)
    drawn = scores.scores(weights_RN)
    assert drawn["external.radgraph_words"][1] == pytest.approx((2 * 1 + 1 / 3) / 3)
    assert drawn["external.chexbert_f1"][1] == pytest.approx(2 * 5 / (2 * 5 + 1 + 2)), "2 tp of twice 2, and 1"
    assert all(np.isnan(value[2]) for value in drawn.values()), "no study with a reference text was drawn"
    taken = scores.take(np.array([3, 2]))
    assert isinstance(taken, ExternalScores)
    assert taken.scores(np.ones((1, 2)))["external.radgraph_words"][0] == pytest.approx(1 / 3)
    assert taken.counts()["external.chexbert_f1"] == (1, 3)


def test_no_identifier_leaves_and_studies_without_a_reference_text_stay(command, tmp_path):
    seen = tmp_path / "seen"
    found = run(command(f"open({str(seen)!r}, 'w').write(json.dumps([drafts, references]))"))
    drafts, references = json.loads(seen.read_text())
    assert [line["study_uid"] for line in drafts] == [str(n) for n in range(1, 10)], "3 sets of 3 studies"
    assert all(set(line) == {"study_uid", "findings", "impression"} for line in drafts + references)
    assert "secret" not in seen.read_text()
    assert [line["findings"] for line in references[:3]] == ["heart large", "lungs clear", "effusion left small"]
    assert found.notes == ("1 references have neither findings nor impression: not scored externally",)


def test_the_folder_is_private_and_goes(command, tmp_path):
    seen = tmp_path / "seen"
    look = "import os; folder = os.path.dirname(sys.argv[1]); mode = os.stat(folder).st_mode"
    edit = f"{look}; open({str(seen)!r}, 'w').write(f'{{folder}} {{mode}}')"
    assert run(command(edit)).scores
    folder, mode = seen.read_text().split()
    assert stat.S_IMODE(int(mode)) == 0o700
    assert not Path(folder).exists()


def test_what_is_not_computed_is_named(command):
    found = run(command())
    assert found.not_run == {"GREEN": "no GPU", "RaTEScore": "the command does not compute it"}


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_command_is_named_as_what_is_missing(monkeypatch, value):
    if value is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, value)
    assert only_reason(run(None)) == f"{VARIABLE} is not set (docs/external_metrics.md)"


def test_the_command_of_the_environment_is_taken_and_sees_no_credentials(monkeypatch, command, tmp_path):
    seen = tmp_path / "seen"
    monkeypatch.setenv(VARIABLE, command(f"import os; open({str(seen)!r}, 'w').write(' '.join(os.environ))"))
    monkeypatch.setenv("MMFM_PACS_AUTH", "made-up:password")
    assert run(None).scores
    assert "MMFM_PACS_AUTH" not in seen.read_text().split()


def test_no_shell_reads_the_command(command, tmp_path):
    witness = tmp_path / "witness"
    assert run(command() + f" ; touch {witness}").scores == {}
    assert not witness.exists()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("raise RuntimeError('effusion left small')", "exit code 1"),
        ("del lines[2:4]", "2 of 9 studies are missing"),
        ("lines.append(lines[1])", "a study that was scored before"),
        ("lines[1]['study_uid'] = 'secret-1'", "no study that was sent"),
        ("lines[1]['study_uid'] = '10'", "no study that was sent"),
        ("lines[1]['study_uid'] = 1", "no study that was sent"),
        ("del lines[1]['radgraph_words']", "other metrics than the header"),
        ("lines[1] = 3", "no JSON object"),
        ("lines[0] = lines[1]", "line 1 is no header"),
        ("header['metrics']['radgraph_words'] = 'up'", "higher or lower"),
        ("header['metrics'] = ['radgraph']", "no object of texts"),
        ("lines[:] = []", "line 1 is no JSON"),
        ("sys.argv[3] += 'x'", "no file in UTF-8 (No such file or directory)"),
        ("open(sys.argv[3], 'wb').write(bytes([255])); sys.exit()", "other bytes"),
    ],
)
def test_a_failure_is_one_line_and_no_score(command, edit, says):
    assert says in only_reason(run(command(edit)))


@pytest.mark.parametrize(("words", "says"), [("/no/such/command", "No such file"), ("'", "cannot be split")])
def test_a_command_that_is_none_is_named(words, says):
    assert says in only_reason(run(words))


def test_a_command_that_hangs_is_killed_with_what_it_started(command, tmp_path):
    alive = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(1.5); pathlib.Path({str(alive)!r}).touch()"
    edit = f"import subprocess, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    start = time.monotonic()
    assert only_reason(run(command(edit), timeout_s=0.7)) == "the command took longer than 0.7 s"
    assert time.monotonic() - start < 10
    time.sleep(2)
    assert not alive.exists()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("float('nan')", "NaN or infinity"),
        ("float('inf')", "NaN or infinity"),
        ("10**400", "something other than a number"),
        ("True", "something other than a number"),
        ("'0.5'", "something other than a number"),
        ("{'tp': 1, 'fp': -1, 'fn': 0}", "something other than a number"),
        ("{'tp': 1, 'fp': 1}", "something other than a number"),
    ],
)
def test_a_value_that_is_none_costs_its_metric_alone(command, value, says):
    found = run(command(f"lines[2]['radgraph_words'] = {value}"))
    assert says in found.not_run["radgraph_words"]
    assert set(found.scores["drafts"].scores(np.ones((1, 4)))) == {"external.radcliq_words", "external.chexbert_f1"}


def test_a_study_that_one_set_has_no_number_for_is_left_out_of_all(command):
    found = run(command("lines[4]['radgraph_words'] = None"))  # the first study of the second set
    assert "radgraph_words: 1 of 3 studies have no number and are left out of it" in found.notes
    assert {s.counts()["external.radgraph_words"][0] for s in found.scores.values()} == {2}
    assert {s.counts()["external.radcliq_words"][0] for s in found.scores.values()} == {3}
    value = found.scores["drafts"].scores(np.ones((1, 4)))["external.radgraph_words"][0]
    assert value == pytest.approx((1 + 1 / 3) / 2)


def test_a_metric_without_any_number_is_not_run(command):
    found = run(command("for line in lines[1:]: line['radgraph_words'] = None"))
    assert found.not_run["radgraph_words"] == "the command gave no number for any study"


def test_references_without_text_call_nothing(command, tmp_path):
    empty = [Reference(study_uid="s", patient_id="p", report=Sections(findings=" "))]
    draft = {"drafts": [Prediction(study_uid="s", findings="x", impression=None)]}
    found = score_externally(draft, empty, command=command(f"open({str(tmp_path / 'called')!r}, 'w')"))
    assert only_reason(found) == "no reference has findings or impression"
    assert not (tmp_path / "called").exists()


RADEVAL = '''
"""A test double of RadEval 2.2.1: its interface, with scores that can be computed by hand."""

class Scorer:
    top5_idx = [0, 1]
    def get_labels(self, reports):
        return [[int(word in report) for word in ("heart", "effusion", "lungs")] for report in reports]

class RadEval:
    def __init__(self, metrics=None, per_sample=False, show_progress=True):
        assert per_sample and not show_progress
        (self.name,) = metrics
        if self.name == "ratescore":
            raise OSError("weights of a made-up hub")
        self.f1chexbert_scorer = Scorer()
    def __call__(self, refs, hyps):
        assert all(refs) and all(hyps), "no empty text"
        same = [float(a == b) for a, b in zip(refs, hyps)]
        if self.name == "green":
            open("explanations.txt", "w").write(refs[0])
            return {"green": [None, *same[1:]]}
        return {"radcliq_v1": [1 - s for s in same]} if self.name == "radcliq" else {"radgraph_partial": same}
'''


def test_the_adapter_of_the_docs_speaks_the_contract(monkeypatch, tmp_path, root):
    """With a test double of RadEval; its metadata are those of a package of that name."""
    (tmp_path / "radeval.py").write_text(RADEVAL)
    for name in ("radeval", "torch", "transformers"):
        (tmp_path / f"{name}-2.2.1.dist-info").mkdir()
        (tmp_path / f"{name}-2.2.1.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 2.2.1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    metrics = "radgraph,f1chexbert,radcliq,ratescore,green"
    words = [sys.executable, str(root / "docs" / "radeval_adapter.py"), "--metrics", metrics]
    found = run(shlex.join(words))
    assert found.not_run == {"RaTEScore": "RadEval raised OSError"}
    assert found.versions["radeval"] == "2.2.1"
    assert found.lower_is_better == {"external.radcliq_v1"}
    scores = {name: value[0] for name, value in found.scores["drafts"].scores(np.ones((1, 4))).items()}
    assert scores == {
        "external.radgraph_partial": pytest.approx(1 / 3),
        "external.chexbert_14_f1": pytest.approx(2 * 3 / (2 * 3 + 1)),
        "external.chexbert_5_f1": pytest.approx(2 * 2 / (2 * 2 + 1)),
        "external.radcliq_v1": pytest.approx(2 / 3),
        "external.green": 0.0,
    }
    assert found.scores["drafts"].counts()["external.green"] == (2, None)
    assert not (tmp_path / "explanations.txt").exists(), "what quotes reports goes with the temporary folder"


def test_the_docs_name_what_the_code_has(root):
    page = (root / "docs" / "external_metrics.md").read_text()
    assert VARIABLE in page and "six hours" in page and external.TIMEOUT_S == 6 * 3600
    for title in FAMILIES.values():
        assert title in page
