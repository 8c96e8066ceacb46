import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from mmfm.data.manifest import ManifestRow, ManifestSeries, write_manifest
from mmfm.errors import CheckpointError, ManifestError
from mmfm.evaluation import Scorecard, read_predictions, score_card
from mmfm.experiment import fit, load_experiment
from mmfm.measure import evaluate, predict
from mmfm.models import load_checkpoint
from mmfm.report import Sections, Status


def test_predictions_are_one_line_a_study_with_every_probability(tiny_checkpoint, tiny_manifest, tmp_path):
    out = tmp_path / "new" / "predictions.jsonl"
    predict(manifest=tiny_manifest, split="train", checkpoint=str(tiny_checkpoint), out=out, batch_size=3)
    rows = [json.loads(line) for line in tiny_manifest.read_text().splitlines()]
    drafts = read_predictions(out)
    assert [d.study_uid for d in drafts] == [row["study_uid"] for row in rows]
    assert all(len(d.finding_probabilities) == 21 for d in drafts)


def test_nothing_is_written_for_an_unknown_split_or_checkpoint(tiny_checkpoint, tiny_manifest, tmp_path):
    out = tmp_path / "predictions.jsonl"
    with pytest.raises(ManifestError, match="'test'"):
        predict(manifest=tiny_manifest, split="test", checkpoint=str(tiny_checkpoint), out=out)
    with pytest.raises(CheckpointError):
        predict(manifest=tiny_manifest, split="train", checkpoint="not-there", out=out)
    assert not list(tmp_path.iterdir())


def test_a_score_card_stands_beside_its_controls(tiny_checkpoint, tiny_manifest, other_patients, tmp_path):
    board = tmp_path / "README.md"
    evaluate(
        checkpoint=str(tiny_checkpoint),
        manifest=tiny_manifest,
        split="train",
        train_manifest=other_patients,
        out=tmp_path / "scores",
        leaderboard=board,
    )
    card = Scorecard.read(tmp_path / "scores" / "scorecard.json")
    made = {"constant_report", "shuffled_images", "mean_image", "text_only", "heads_template", "reference_text"}
    assert made <= set(card.controls) and not made & set(card.controls_not_run)
    # What decoding is held to is what the template writes: the text loses nothing that the heads know.
    ours = card.metrics["finding_recall_micro"].value
    assert ours is not None and ours == pytest.approx(card.controls["heads_template"]["finding_recall_micro"].value)
    assert "tiny on synthetic train" in board.read_text()


def test_scores_stand_in_the_card_and_the_checkpoint_still_opens(tiny_manifest, other_patients, tmp_path, root):
    file = root / "experiments" / "forkme.py"
    folder = fit(load_experiment(file).tiny(tiny_manifest), tmp_path / "runs" / "1", file=file) / "checkpoint"
    given = {"manifest": tiny_manifest, "split": "train", "train_manifest": other_patients, "out": tmp_path / "scores"}
    assert "Not measured yet" in load_checkpoint(str(folder)).card
    evaluate(checkpoint=str(folder), **given, write_card=True)
    card = load_checkpoint(str(folder)).card
    assert "Not measured yet" not in card and "| finding F1, micro |" in card


def test_controls_are_drafted_from_other_pictures(tiny_checkpoint, tiny_manifest, other_patients, tmp_path):
    evaluate(
        checkpoint=str(tiny_checkpoint),
        manifest=tiny_manifest,
        split="train",
        train_manifest=other_patients,
        out=tmp_path,
    )

    def probabilities(name: str) -> np.ndarray:
        return np.array([list(p.finding_probabilities.values()) for p in read_predictions(Path(tmp_path / name))])

    own, shuffled = probabilities("predictions.jsonl"), probabilities("control_shuffled_images.jsonl")
    mean = probabilities("control_mean_image.jsonl")
    assert sorted(map(tuple, own.round(4))) == sorted(map(tuple, shuffled.round(4)))
    assert (np.abs(own - shuffled).max(1) > 1e-6).all()
    assert np.ptp(mean, axis=0).max() < 1e-5
    # Text alone has no heads that could decide anything: this checkpoint writes nothing unless they do.
    alone = read_predictions(tmp_path / "control_text_only.jsonl")
    assert all(p.finding_probabilities is None and not p.findings for p in alone)


def test_what_the_pictures_and_the_checkpoint_tell_stands_beside_the_scores(
    tiny_checkpoint, tiny_manifest, other_patients, tmp_path
):
    given = {"manifest": tiny_manifest, "split": "train", "train_manifest": other_patients}
    cards = [
        evaluate(checkpoint=str(tiny_checkpoint), **given, out=tmp_path / str(n), robustness=n, batch_size=4)
        for n in (0, 3)
    ]
    assert cards[0].metrics == cards[1].metrics and cards[0].differences == cards[1].differences
    without, beside = (Scorecard.read(tmp_path / str(n) / "scorecard.json") for n in (0, 3))
    assert without.not_scored["robustness"].startswith("not run") and not without.robustness
    panel = beside.robustness
    assert len(panel) == len({r.name for r in panel}) == 13 and {r.n for r in panel} == {3}
    assert beside.policy["probabilities"]["thresholds"] == {"pleural_effusion": 0.0, "cardiomegaly": 1.0}
    leaks = beside.leaks  # the same studies by other names
    assert leaks is not None
    assert (leaks.shared_patients, leaks.exact_texts, leaks.identical_images, leaks.near_images) == (0, 8, 8, 8)
    resources = beside.resources
    assert resources is not None
    assert (resources.studies, resources.batch_size) == (8, 4)
    assert resources.seconds_per_report > 0 and resources.training_hours is None


def test_the_card_gets_frozen_thresholds_and_what_only_the_files_state(
    tiny_checkpoint, tiny_manifest, other_patients, tmp_path, monkeypatch
):
    assert all(row["patient"] == {"sex": None, "age": None} for row in map(json.loads, tiny_manifest.open()))
    asked = {}

    def score(**given):
        asked.update(given)
        return score_card(**given)

    monkeypatch.setattr("mmfm.measure.evaluating.score_card", score)
    evaluate(
        checkpoint=str(tiny_checkpoint),
        manifest=tiny_manifest,
        split="train",
        train_manifest=other_patients,
        out=tmp_path,
    )
    assert asked["thresholds"] == load_checkpoint(str(tiny_checkpoint)).facts.operating_points
    assert len(asked["references"]) == len(asked["train"]) == 8
    for reference in asked["references"]:
        assert reference.sex in ("F", "M") and reference.age >= 18 and reference.view


def test_a_study_out_of_scope_gets_a_line_without_text_and_is_counted(
    tiny_checkpoint, tiny_manifest, other_patients, tmp_path, capsys
):
    lines = [json.loads(line) for line in tiny_manifest.read_text().splitlines()[:3]]
    blank = tiny_manifest.with_name("blank.png")
    Image.fromarray(np.full((64, 64), 9, dtype=np.uint8)).save(blank)
    lines[1]["series"] = [{"series_uid": "1.2.3", "path": blank.name}]
    manifest = tiny_manifest.with_name("with_blank.jsonl")
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    drafts = predict(
        manifest=manifest, split="train", checkpoint=str(tiny_checkpoint), out=tmp_path / "predictions.jsonl"
    )
    assert [d.findings is None for d in drafts] == [False, True, False]
    assert "1 of 3 studies not drafted" in capsys.readouterr().err
    given = {"split": "train", "train_manifest": other_patients}
    card = evaluate(checkpoint=str(tiny_checkpoint), manifest=manifest, **given, out=tmp_path / "scores")
    assert "1 of 3 studies not drafted" in capsys.readouterr().err
    assert (card.coverage.studies, card.coverage.missing) == (3, 1)
    for name in ("predictions", "control_shuffled_images", "control_mean_image", "control_text_only"):
        drafted = [d.study_uid for d in read_predictions(tmp_path / "scores" / f"{name}.jsonl")]
        assert drafted == [lines[0]["study_uid"], lines[2]["study_uid"]]
    manifest.write_text(json.dumps(lines[1]) + "\n")
    with pytest.raises(ManifestError, match=r"in the checkpoint's scope.*found none; the first: one without"):
        evaluate(checkpoint=str(tiny_checkpoint), manifest=manifest, **given, out=tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def _slices(folder: Path, *, seed: int) -> Path:
    """Writes a manifest of eight cases, each a slice of MR as PNG, whose view nobody states."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(8):
        place = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(place)
        name = f"{seed}.{number}"
        series = ManifestSeries(series_uid=name, path=place.name, modality="MR", view=None)
        report = Sections(findings=f"Hydrocephalus, number {name}.")
        rows.append(
            ManifestRow(
                study_uid=name,
                patient_id=name,
                source="made",
                split="train",
                series=(series,),
                region="head",
                report=report,
                labels={"hydrocephalus": Status.PRESENT if number % 2 else Status.ABSENT},
            )
        )
    write_manifest(rows, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def test_slices_whose_view_nobody_states_have_the_same_controls(tiny_volume_checkpoint, tmp_path):
    scored, trained = _slices(tmp_path / "a", seed=1), _slices(tmp_path / "b", seed=2)
    given = {"manifest": scored, "split": "train", "train_manifest": trained, "out": tmp_path / "scores"}
    evaluate(checkpoint=str(tiny_volume_checkpoint), **given)
    mean = [p.finding_probabilities for p in read_predictions(tmp_path / "scores" / "control_mean_image.jsonl")]
    assert len(mean) == 8 and all(one == pytest.approx(mean[0], abs=1e-5) for one in mean)


def _volumes(folder: Path, write_volume, *, slices: int = 0) -> Path:
    """Writes a manifest of four patients with a CT each, and of some of the cases of ``_slices``.

    The second CT is NIfTI, which states no part of the body; the third is to be read as a head, which is refused.
    """
    manifest = _slices(folder, seed=1)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for number, row in enumerate(lines[:4]):
        place = f"ct{number}/ct"
        if number == 1:
            (folder / "ct1").mkdir()
            place = "ct1/ct.nii.gz"
            body = sum(axis**2 for axis in np.mgrid[-1:1:24j, -1:1:24j, -1:1:24j]) < 0.8
            values = np.where(body, 40, -1000).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(values, np.diag([5.0, 5.0, 5.0, 1.0])), folder / place)
        else:
            write_volume(folder / f"ct{number}", seed=number, patient_id=row["patient_id"])
        row["region"], row["labels"] = "head" if number == 2 else "chest_ct", {"pleural_effusion": "present"}
        row["report"]["findings"] = f"Pleural effusion, number {number}."
        row["series"][0] |= {"path": place, "modality": "CT"}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in lines[: 4 + slices]))
    return manifest


def test_volumes_are_scored_beside_the_controls_that_need_no_pictures(
    tiny_volume_checkpoint, write_volume, tmp_path, capsys
):
    manifest, trained = _volumes(tmp_path / "a", write_volume), _slices(tmp_path / "b", seed=2)
    given = {"checkpoint": str(tiny_volume_checkpoint), "manifest": manifest, "split": "train", "batch_size": 1}
    card = evaluate(**given, train_manifest=trained, out=tmp_path / "scores")

    assert "1 of 4 studies not drafted" in capsys.readouterr().err
    assert set(card.controls) == {
        "constant_report", "shuffled_images", "text_only", "heads_template", "reference_text"
    }  # fmt: skip
    why = "not run; of pictures alone, not of volumes"
    assert card.controls_not_run == {"mean_image": why, "nearest_neighbour": why}
    assert card.not_scored["robustness"] == why
    assert card.leaks.near_images is None and (card.coverage.drafted, card.coverage.missing) == (3, 1)
    assert card.policy["probabilities"]["thresholds"]["cardiomegaly"] == 1.0, "those of volumes"
    assert card.resources.seconds_per_report > 0 and card.resources.tokens_per_second > 0
    own, others = (
        {p.study_uid: p.finding_probabilities for p in read_predictions(tmp_path / "scores" / f"{name}.jsonl")}
        for name in ("predictions", "control_shuffled_images")
    )
    assert list(own) == list(others) == ["1.0", "1.1", "1.3"]
    assert all(own[uid] != others[uid] for uid in own)
    assert all(any(other == pytest.approx(one, abs=1e-6) for one in own.values()) for other in others.values())
    drafted = predict(**given, out=tmp_path / "predictions.jsonl")
    assert [p.finding_probabilities for p in drafted] == [
        None if uid == "1.2" else pytest.approx(own[uid], abs=1e-6) for uid in ("1.0", "1.1", "1.2", "1.3")
    ]


def test_volumes_beside_pictures_or_altered_are_refused(tiny_volume_checkpoint, write_volume, tmp_path):
    trained = _slices(tmp_path / "b", seed=2)
    given = {"checkpoint": str(tiny_volume_checkpoint), "split": "train", "train_manifest": trained}
    mixed = _volumes(tmp_path / "a", write_volume, slices=2)
    with pytest.raises(ManifestError, match=r"pictures or volumes.*found both among the first 5 studies"):
        evaluate(**given, manifest=mixed, out=tmp_path / "scores")
    with pytest.raises(ManifestError, match=r"--robustness: expected 0 for volumes"):
        evaluate(**given, manifest=mixed, out=tmp_path / "scores", robustness=2)
    assert not (tmp_path / "scores").exists()
