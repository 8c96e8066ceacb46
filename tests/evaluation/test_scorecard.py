import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import mmfm.text
from mmfm.errors import ManifestError
from mmfm.evaluation import Prediction, Scorecard, score_card
from mmfm.evaluation.controls import CONTROLS, shuffled
from mmfm.evaluation.page import render_page, shown
from mmfm.evaluation.policy import ABNORMAL, UNSEEN

LABELS = ("cardiomegaly", "pleural_effusion", "normal")


def _drafts(rows, sources, *, generator=None):
    """The report of each source for each row; with a generator, probabilities that lean to the source's labels."""
    drafts = []
    for row, source in zip(rows, sources, strict=True):
        probabilities = None
        if generator is not None:
            lean = {name: 0.5 * (source.labels[name] == "present") for name in LABELS}
            probabilities = {name: float(value + 0.5 * generator.random()) for name, value in lean.items()}
        drafts.append(
            Prediction(
                study_uid=row.study_uid,
                findings=source.report.findings,
                impression=source.report.impression,
                finding_probabilities=probabilities,
            )
        )
    return drafts


@pytest.fixture
def card(rows, provenance):
    """Drafts that are right in 4 of 5 studies, beside drafts from shuffled images."""
    generator = np.random.default_rng(0)
    val, train = rows[:100], rows[100:]
    sources = [val[i] if generator.random() < 0.8 else val[-i] for i in range(len(val))]
    other = shuffled([row.patient_id for row in val], generator)
    return score_card(
        predictions=_drafts(val, sources, generator=generator)[::-1],
        references=val,
        train=train,
        controls={
            "shuffled_images": _drafts(val, [val[i] for i in other], generator=generator),
            "linear_probe": [
                dataclasses.replace(d, findings=None, impression=None) for d in _drafts(val, val, generator=generator)
            ],
        },
        generator=generator,
        provenance=provenance,
    )


def test_drafts_that_follow_the_images_are_better_than_those_that_do_not(card):
    assert card.n == 100
    f1 = card.metrics["finding_f1_micro"]
    assert f1.low < f1.value < f1.high
    for control in ("constant_report", "shuffled_images"):
        difference = card.differences[control]["finding_f1_micro"]
        assert difference.better
        assert difference.low > 0
        assert difference.verdict == f"better than {control.replace('_', ' ')}"
        assert difference.value == pytest.approx(f1.value - card.controls[control]["finding_f1_micro"].value, abs=2e-6)
    assert card.metrics["auroc.cardiomegaly"].value > card.controls["shuffled_images"]["auroc.cardiomegaly"].high
    assert "wrong_side_rate" in card.metrics


def test_the_reference_is_the_ceiling_and_no_rival(card):
    ceiling = card.controls["reference_text"]
    for name in ("finding_f1_micro", "finding_f1_macro", "label_f1_micro", "bleu_4", "rouge_l"):
        assert ceiling[name].value == pytest.approx(1, abs=1e-6)
    assert "reference_text" not in card.differences


def test_a_system_is_not_better_than_itself(rows, train, provenance):
    drafts = _drafts(rows, rows[::-1])
    card = score_card(
        predictions=drafts,
        references=rows,
        train=train,
        controls={"mean_image": drafts},
        generator=np.random.default_rng(0),
        provenance=provenance,
    )
    same = card.differences["mean_image"]
    assert {d.verdict for d in same.values()} == {"not shown to be better than mean image"}
    assert {d.value for d in same.values()} == {0}
    assert set(card.controls_not_run) == {"shuffled_images", "text_only", "nearest_neighbour", "heads_template"}


@pytest.mark.parametrize("name", ["constant_report", "reference_text"])
def test_a_weaker_control_takes_no_place(rows, train, provenance, name):
    with pytest.raises(ManifestError, match=f"controls: .*found {name}"):
        score_card(
            predictions=_drafts(rows, rows),
            references=rows,
            train=train,
            controls={name: [Prediction(study_uid=rows[0].study_uid, findings="", impression="")]},
            generator=np.random.default_rng(0),
            provenance=provenance,
        )


def test_labels_without_threshold_and_thresholds_without_label_are_named(rows, train, provenance):
    def not_scored(thresholds):
        return score_card(
            predictions=_drafts(rows, rows, generator=np.random.default_rng(0)),
            references=rows,
            train=train,
            controls={},
            generator=np.random.default_rng(0),
            provenance=provenance,
            families=("probabilities",),
            thresholds=thresholds,
        ).not_scored

    decisions = "decisions at a frozen threshold"
    assert not_scored({})[decisions] == "no thresholds were given"
    few = not_scored({"cardiomegaly": 0.4, "edema": 0.5})
    assert few[decisions] == "none was given for normal, pleural_effusion"
    assert few["thresholds without use"] == "the drafts state no probability of edema"
    assert decisions not in not_scored(dict.fromkeys(LABELS, 0.5))


def test_a_part_without_studies_is_named(rows, provenance):
    card = score_card(
        predictions=_drafts(rows, rows),
        references=rows,
        train=[dataclasses.replace(r, study_uid=f"t{r.study_uid}", patient_id=f"t{r.patient_id}") for r in rows],
        controls={},
        generator=np.random.default_rng(0),
        provenance=provenance,
        families=("findings",),
    )
    assert UNSEEN not in card.subsets
    assert card.not_scored[f"scores of {UNSEEN}"] == "no study is one"


def test_the_page_says_where_patients_are_not_known_to_be_apart(rows, train, provenance):
    def page(references):
        card = score_card(
            predictions=_drafts(references, references),
            references=references,
            train=train,
            controls={},
            generator=np.random.default_rng(0),
            provenance=provenance,
            families=("findings",),
        )
        return render_page(card, [])

    assert "no patient is in both" in page(rows)
    assert "whether a patient is in both is not known" in page(
        [dataclasses.replace(rows[0], patient_id=None), *rows[1:]]
    )


def test_of_too_few_patients_nothing_is_shown(rows, train, provenance):
    def card(studies):
        return score_card(
            predictions=_drafts(studies, studies),
            references=studies,
            train=train,
            controls={},
            generator=np.random.default_rng(0),
            provenance=provenance,
        )

    few = card(rows[:9])
    f1 = few.metrics["finding_f1_micro"]
    assert (f1.value, f1.low, f1.high) == (1, None, None)
    assert shown(f1) == "1.000 (no interval)"
    assert not any(each.better for each in few.differences["constant_report"].values())
    note = "all studies: 9 patients, too few for intervals, and nothing is shown to be better"
    assert note in few.to_know()
    assert note in render_page(few, [])
    enough = card(rows[:10])
    assert enough.differences["constant_report"]["finding_f1_micro"].better
    assert not any(note.startswith("all studies") for note in enough.notes)


def test_controls_are_compared_on_what_they_have(card):
    probe = card.controls["linear_probe"]
    assert "bleu_4" not in probe
    assert "auroc.normal" in probe
    assert "auroc.normal" not in card.controls["constant_report"]
    assert set(card.controls_not_run) == set(CONTROLS) - set(card.controls)


def test_the_nearest_neighbour_is_made_from_features(rows, provenance):
    val, train = rows[:50], rows[50:80] + rows[100:]
    generator = np.random.default_rng(0)
    card = score_card(
        predictions=_drafts(val, val),
        references=val,
        train=train,
        controls={},
        generator=generator,
        provenance=provenance,
        features_NE=generator.normal(size=(50, 4)),
        train_features_NE=generator.normal(size=(50, 4)),
    )
    assert "nearest_neighbour" not in card.controls_not_run
    assert card.differences["nearest_neighbour"]["finding_f1_micro"].better


def test_subsets_are_the_abnormal_and_the_unseen(rows, row, provenance):
    seen = row("seen", rows[0].report.findings.upper().replace(".", ";"), "")
    unseen = [r for r in rows if r.report.findings != rows[0].report.findings]
    card = score_card(
        predictions=_drafts(rows, rows),
        references=rows,
        train=[seen, seen],
        controls={},
        generator=np.random.default_rng(0),
        provenance=provenance,
    )
    assert card.subsets[UNSEEN].n == len(unseen) < len(rows)
    assert card.subsets[ABNORMAL].n == sum(r.labels["normal"] == "absent" for r in rows)
    assert card.subsets[ABNORMAL].metrics["finding_f1_micro"].n == card.subsets[ABNORMAL].n


def test_the_card_is_a_file(card, tmp_path):
    path = tmp_path / "scorecard.json"
    card.write(path)
    assert Scorecard.read(path) == card
    value = json.loads(path.read_text())
    assert set(value["metrics"]["bleu_4"]) == {"value", "low", "high", "n", "events"}
    assert value["controls"]["constant_report"]["rouge_l"]["n"] == 100
    compact = json.dumps(value["policy"], sort_keys=True, separators=(",", ":")).encode()
    assert value["policy_sha256"] == hashlib.sha256(compact).hexdigest()
    assert value["policy"]["inputs"]["references_sha256"] == card.provenance.references_sha256
    path.write_text('{"n": 3}')
    with pytest.raises(ManifestError, match="expected a score card"):
        Scorecard.read(path)
    with pytest.raises(ManifestError, match="No such file"):
        Scorecard.read(tmp_path / "none.json")


def test_the_same_generator_gives_the_same_card_and_wording_sections_count(rows, train, provenance):
    def card(**more):
        return score_card(
            predictions=_drafts(rows, rows[::-1]),
            references=rows,
            train=train,
            controls={},
            generator=np.random.default_rng(5),
            provenance=provenance,
            **more,
        )

    assert card() == card()
    both = card(wording_sections=("findings", "impression"))
    assert both.metrics["bleu_4"].value > card().metrics["bleu_4"].value  # the impression is the same everywhere
    assert both.policy_sha256 != card().policy_sha256


def test_empty_drafts_are_counted_and_score_nothing(rows, train, provenance):
    drafts = _drafts(rows, rows)
    silent = [dataclasses.replace(d, findings="", impression=None) for d in drafts[:30]] + drafts[30:]
    card = score_card(
        predictions=silent,
        references=rows,
        train=train,
        controls={},
        generator=np.random.default_rng(0),
        provenance=provenance,
    )
    assert (card.coverage.drafted, card.coverage.empty, card.coverage.missing) == (90, 30, 0)
    assert card.metrics["rouge_l"].value == pytest.approx(0.75)
    assert card.metrics["rouge_l"].n == 120


@pytest.mark.parametrize("text", ["", None])
def test_drafts_without_any_text_score_nothing_and_hide_nothing(rows, train, provenance, text):
    silent = [Prediction(study_uid=row.study_uid, findings=text, impression=text) for row in rows]
    card = score_card(
        predictions=silent,
        references=rows,
        train=train,
        controls={"text_only": silent},
        generator=np.random.default_rng(0),
        provenance=provenance,
    )
    assert card.metrics["finding_f1_micro"].value == card.metrics["rouge_l"].value == 0
    assert card.differences["text_only"]["rouge_l"].value == 0


def test_missing_drafts_say_nothing_and_are_counted(rows, train, provenance):
    def card(drafts):
        return score_card(
            predictions=drafts,
            references=rows,
            train=train,
            controls={},
            generator=np.random.default_rng(0),
            provenance=provenance,
        )

    drafts = _drafts(rows, rows, generator=np.random.default_rng(0))
    lacking = card(drafts[30:])
    assert lacking.coverage.missing == 30
    assert "30 studies have no draft: scored as saying nothing" in lacking.coverage.lines()
    assert lacking.metrics["rouge_l"].value == pytest.approx(0.75)
    whole = card(drafts)
    for name in ("auroc.normal", "brier_skill.cardiomegaly"):
        assert lacking.metrics[name].n == 120
        assert lacking.metrics[name].value < whole.metrics[name].value  # to say nothing does not help
    refused = [dataclasses.replace(d, findings=None, impression=None, finding_probabilities=None) for d in drafts[:30]]
    assert card(refused + drafts[30:]).metrics == lacking.metrics  # as `mmfm predict` writes them
    with pytest.raises(ManifestError, match="1 of them unknown"):
        card([dataclasses.replace(drafts[0], study_uid="other"), *drafts[1:]])


def test_what_one_draft_states_and_another_does_not_counts_as_0_and_is_told(rows, provenance):
    def card(left_out):
        drafts = _drafts(rows, rows, generator=np.random.default_rng(0))
        for i, draft in enumerate(drafts[:30]):
            stated = {name: p for name, p in draft.finding_probabilities.items() if name not in left_out}
            drafts[i] = dataclasses.replace(draft, finding_probabilities=stated or None)
        return score_card(
            predictions=drafts, references=rows, train=[], controls={}, generator=np.random.default_rng(0),
            provenance=provenance,
        )  # fmt: skip

    whole, lacking = card(()), card(("cardiomegaly",))
    assert lacking.metrics["auroc.cardiomegaly"].value < whole.metrics["auroc.cardiomegaly"].value
    assert lacking.metrics["auroc.normal"] == whole.metrics["auroc.normal"]
    told = "30 labels that the draft of their study gives no P count as P 0: other drafts state them"
    assert told in lacking.notes and not [note for note in whole.notes if "P 0" in note]
    silent = card(LABELS)
    known = sum(row.labels[name] is not None for row in rows[:30] for name in LABELS)
    assert told.replace("30 labels", f"{known} labels") in silent.notes, "a text without any P is told too"


def test_a_patient_in_train_is_refused(rows, provenance):
    with pytest.raises(ManifestError, match="20 patients and 20 studies in both"):
        score_card(
            predictions=_drafts(rows, rows),
            references=rows,
            train=rows[:20],
            controls={},
            generator=np.random.default_rng(0),
            provenance=provenance,
        )


def test_scoring_imports_no_torch():
    code = "import sys, mmfm.evaluation; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "file", ["labeller.py", "certainty.py", "vocabulary/en/chest_radiograph.toml", "vocabulary/en/cues.toml"]
)
def test_a_change_of_the_labeller_changes_the_policy(rows, provenance, tmp_path, monkeypatch, file):
    def card():
        return score_card(
            predictions=_drafts(rows[:4], rows[:4]),
            references=rows[:4],
            train=[],
            controls={},
            generator=np.random.default_rng(0),
            provenance=provenance,
        )

    before = card()
    copy, real = tmp_path / "text", resources.files
    shutil.copytree(Path(mmfm.text.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(
        "mmfm.evaluation.policy.resources.files", lambda name: copy if name == "mmfm.text" else real(name)
    )
    assert card().policy_sha256 == before.policy_sha256
    with (copy / file).open("a") as text:
        text.write("# one word more\n")
    assert card().policy_sha256 != before.policy_sha256
    assert card().metrics == before.metrics


def test_what_cannot_be_told_is_named(rows, row, train, provenance):
    def card(references, trained, **more):
        return score_card(
            predictions=_drafts(references, references),
            references=references,
            train=trained,
            controls={},
            generator=np.random.default_rng(0),
            provenance=provenance,
            **more,
        )

    found = card(rows, [row("only", "Clear lungs.")])
    assert "at least two" in found.controls_not_run["constant_report"]
    assert "hernia" in found.not_scored["findings against the labels"]
    assert "cardiomegaly" not in found.not_scored["findings against the labels"]
    assert found.not_scored["subgroups by sex"] == "no reference states it"
    assert found.not_scored["subgroups by source"] == "all that state it are made_up"
    normal = [r for r in rows if r.labels["normal"] == "present"]
    found = card([dataclasses.replace(r, labels={}) for r in normal], train)
    for name in ("cardiomegaly", "hernia"):
        assert name in found.not_scored["findings against the reference text"]
        assert name in found.not_scored["findings against the labels"]
    words = card(rows, train, families=("wording",))
    assert words.curves is None and not words.subgroups and "finding_f1_micro" not in words.metrics
