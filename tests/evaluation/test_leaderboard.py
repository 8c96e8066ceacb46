import dataclasses

import numpy as np
import pytest

from mmfm.errors import ManifestError
from mmfm.evaluation import Prediction, score_card, update_leaderboard, update_summary
from mmfm.evaluation.intervals import Estimate
from mmfm.evaluation.leaderboard import SUMMARY_BEGIN, SUMMARY_END
from mmfm.evaluation.robustness import Robustness


@pytest.fixture
def card(rows, train, provenance):
    drafts = [Prediction(study_uid=r.study_uid, findings=r.report.findings, impression=None) for r in rows]
    return score_card(
        predictions=drafts,
        references=rows,
        train=train,
        controls={"mean_image": drafts},
        generator=np.random.default_rng(0),
        provenance=provenance,
    )


def _with(card, **changes):
    return dataclasses.replace(card, provenance=dataclasses.replace(card.provenance, **changes))


def test_a_page_is_started_and_writing_again_changes_nothing(card, tmp_path):
    page = tmp_path / "README.md"
    update_leaderboard(page, card)
    once = page.read_text()
    update_leaderboard(page, card)
    assert page.read_text() == once
    row = next(line for line in once.splitlines() if line.startswith("| made_up | made_up val |"))
    assert "1.000 (1.000 to 1.000)" in row
    assert "better than constant report; not shown to be better than mean image" in row
    assert "controls not run: shuffled images, text only, nearest neighbour, heads template" in row
    for fact in ("2 CPU cores", "1 h", "2026-11-22", "0123456789ab"):
        assert f"| {fact} |" in row
    assert [f.name for f in tmp_path.iterdir()] == ["README.md"]


def test_tables_have_as_many_cells_as_their_head(card, tmp_path):
    page = tmp_path / "README.md"
    update_leaderboard(page, _with(card, hardware="a | b"))
    width = None
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            width = None
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line


def test_words_outside_the_markers_and_other_rows_stay(card, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("# Experiments\n\nBefore.\n")
    update_leaderboard(page, card)
    update_leaderboard(page, _with(card, experiment="second"))
    page.write_text(page.read_text() + "\nAfter.\n")
    update_leaderboard(page, _with(card, date="2026-11-23"))
    text = page.read_text()
    assert text.startswith("# Experiments\n\nBefore.\n")
    assert text.endswith("\nAfter.\n")
    assert text.count("| made_up | made_up val |") == text.count("### made_up on made_up val") == 1
    assert text.count("| second | made_up val |") == text.count("### second on made_up val") == 1
    assert text.index("| made_up |") < text.index("| second |")
    assert "| 2026-11-23 |" in text


def test_a_lost_marker_is_an_error_and_the_page_stays(card, tmp_path):
    page = tmp_path / "README.md"
    update_leaderboard(page, card)
    page.write_text(page.read_text().replace("<!-- end of leaderboard -->", ""))
    before = page.read_text()
    with pytest.raises(ManifestError, match="restore the markers"):
        update_leaderboard(page, card)
    assert page.read_text() == before


def test_the_summary_stands_between_its_markers_and_is_idempotent(tmp_path, card):
    page = tmp_path / "README.md"
    page.write_text(f"# mmfm\n\n{SUMMARY_BEGIN}\nold\n{SUMMARY_END}\n\n## Limits\n")
    update_summary(page, card)
    first = page.read_text()
    update_summary(page, card)
    assert page.read_text() == first
    assert "old" not in first and "ROUGE-L" in first and first.endswith("## Limits\n")


def test_the_summary_keeps_the_tables_of_other_data_and_drops_other_weights(tmp_path, card):
    page = tmp_path / "README.md"
    page.write_text(f"{SUMMARY_BEGIN}\nNot measured yet.\n{SUMMARY_END}\n")
    update_summary(page, _with(card, checkpoint_sha256="f" * 64))
    update_summary(page, card)
    update_summary(page, _with(card, data="drawn test"))
    update_summary(page, card)
    titles = [line for line in page.read_text().splitlines() if line.startswith("`")]
    assert [t.partition(",")[0].partition(") ")[2] for t in titles] == ["on made_up val", "on drawn test"]
    assert "ffffffffffff" not in page.read_text()
    assert page.read_text().count("| ROUGE-L |") == 2 and "Not measured" not in page.read_text()


def test_a_page_without_markers_is_refused_and_left(tmp_path, card):
    page = tmp_path / "README.md"
    page.write_text("# mmfm\n")
    with pytest.raises(ManifestError, match="numbers"):
        update_summary(page, card)
    assert page.read_text() == "# mmfm\n"


def test_altered_pictures_stand_on_the_page_where_they_were_tried(card, tmp_path):
    share = Estimate(value=0.25, low=0.1, high=0.5, n=8, events=2)
    tried = Robustness(
        name="window_lower",
        amount="by a fifth",
        expected="the same draft",
        n=8,
        refused=share,
        scores={},
        changes={"finding_f1_micro": Estimate(value=-0.2, low=-0.3, high=-0.1, n=6)},
        agreement={"findings": share},
    )
    page = tmp_path / "README.md"
    update_leaderboard(page, card)
    assert "Altered pictures" not in page.read_text()
    update_leaderboard(page, dataclasses.replace(card, robustness=(tried,)))
    row = next(line for line in page.read_text().splitlines() if line.startswith("| window lower | by a fifth |"))
    assert "| 2 of 8 | 0.250 (0.100 to 0.500) | – | – | -0.200 (-0.300 to -0.100) |" in row
