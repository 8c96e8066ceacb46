"""experiments/README.md from score cards: one row an experiment, and one detailed part below. Never written by hand.

The rows and parts stand between markers; what lies outside them is left alone. Writing the same card twice changes
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmfm.errors import ManifestError
from mmfm.evaluation.page import robustness_table, score_table, shown
from mmfm.evaluation.probabilities import MIN_POSITIVES
from mmfm.evaluation.scorecard import HEADLINE, MORE_TITLES, TITLES, Scorecard, Scores, plain
from mmfm.files import write_whole

ROWS_BEGIN, ROWS_END = "<!-- leaderboard: written from score cards -->", "<!-- end of leaderboard -->"

SUMMARY_BEGIN, SUMMARY_END = "<!-- numbers: written from score cards -->", "<!-- end of numbers -->"

_COLUMNS = ("experiment", "data", *TITLES.values(), "controls", "hardware", "time", "date", "commit")


def update_leaderboard(readme: str | Path, card: Scorecard) -> None:
    """Writes the row and the detailed part of ``card``, in place of those of the same experiment and data.

    A file that does not exist yet, or has no markers yet, gets them at its end. The file changes whole or not at all.

    Raises:
        ManifestError: a begin marker stands without its end.
    """
    readme = Path(readme)
    page = _read(readme) if readme.exists() or not readme.parent.is_dir() else "# Experiments\n"
    name = f"{card.provenance.experiment} on {card.provenance.data}"
    begin, end = f"<!-- scores: {name} -->", f"<!-- end of scores: {name} -->"
    rows = _between(page, ROWS_BEGIN, ROWS_END, where=readme.name) or ""
    page = _put(page, ROWS_BEGIN, ROWS_END, _rows(rows, card))
    _between(page, begin, end, where=readme.name)
    page = _put(page, begin, end, _part(card))
    write_whole(readme, page)


def check_summary(readme: str | Path) -> str:
    """Returns what stands between the markers of a page for ``update_summary``.

    Raises:
        ManifestError: the page does not hold both markers once, in order.
    """
    readme = Path(readme)
    before = _between(_read(readme), SUMMARY_BEGIN, SUMMARY_END, where=readme.name)
    if before is None:
        raise ManifestError(
            readme.name,
            expected=f"`{SUMMARY_BEGIN}` and `{SUMMARY_END}`",
            found="neither",
            fix="write both where the table is to stand",
        )
    return before


def update_summary(readme: str | Path, card: Scorecard) -> None:
    """Writes the headline scores of ``card`` between the markers of a page that a newcomer reads, such as README.md.

    Tables of the same weights on other data stay; others go.

    Raises:
        ManifestError: the page does not hold both markers once, in order.
    """
    readme, origin = Path(readme), card.provenance
    before = check_summary(readme)
    start = f"`{origin.experiment}` (weights {origin.checkpoint_sha256[:12]}) on "
    kept = [part.strip() for part in re.split(r"\n(?=`)", before) if part.lstrip().startswith(start)]
    parts = {part.partition(", ")[0]: part for part in kept}
    table = _table(card, {metric: title for metric, title in TITLES.items() if metric in card.metrics})
    parts[f"{start}{origin.data}"] = "\n".join([f"{start}{origin.data}, {card.n} studies:", "", *table])
    page = readme.read_text(encoding="utf-8")
    write_whole(readme, _put(page, SUMMARY_BEGIN, SUMMARY_END, "\n\n".join(parts.values())))


def _read(page: Path) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = (error.strerror or "unreadable") if isinstance(error, OSError) else "bytes that are not UTF-8"
        raise ManifestError(page.name, expected="a page in UTF-8", found=found, fix="name another page") from None


def _between(page: str, begin: str, end: str, *, where: str) -> str | None:
    found = (page.count(begin), page.count(end))
    if found == (0, 0):
        return None
    if found != (1, 1) or page.index(begin) > page.index(end):
        raise ManifestError(
            where,
            expected=f"`{begin}` once, and behind it `{end}` once",
            found=f"{found[0]} and {found[1]}, or in another order",
            fix="restore the markers",
        )
    return page[page.index(begin) + len(begin) : page.index(end)]


def _put(page: str, begin: str, end: str, text: str) -> str:
    block = f"{begin}\n{text}\n{end}"
    if begin not in page:
        return f"{page.rstrip()}\n\n{block}\n"
    return page[: page.index(begin)] + block + page[page.index(end) + len(end) :]


def _rows(existing: str, card: Scorecard) -> str:
    kept = [line for line in existing.strip().splitlines()[2:] if line.startswith("|")]
    origin = card.provenance
    start = f"| {_cell(origin.experiment)} | {_cell(origin.data)} |"
    scores = [shown(card.metrics.get(metric)) for metric in HEADLINE]
    cells = ["<br>".join(_beaten(card)), origin.hardware, origin.time, origin.date, origin.commit[:12]]
    row = f"{start} {' | '.join(_cell(cell) for cell in scores + cells)} |"
    places = [i for i, line in enumerate(kept) if line.startswith(start)]
    if places:
        kept[places[0]] = row
    else:
        kept.append(row)
    return "\n".join([*_header(_COLUMNS), *kept])


def _beaten(card: Scorecard) -> list[str]:
    """The verdicts in words, one line a score, and what was not run."""
    return [*card.verdicts(), _not_run(card)]


def _not_run(card: Scorecard) -> str:
    return "controls not run: " + (", ".join(map(plain, card.controls_not_run)) or "none")


def _part(card: Scorecard) -> str:
    origin = card.provenance
    lines = [
        f"### {origin.experiment} on {origin.data}",
        "",
        f"{card.n} studies; value, then its 95 % interval (bootstrap over patients); – where a "
        f"set of drafts has no text or no probabilities. "
        f"{card.coverage.drafted} with drafted text. Trained on {origin.hardware} in {origin.time}; scored "
        f"{origin.date}; commit {origin.commit[:12]}; references {origin.references_sha256[:12]}, checkpoint "
        f"{origin.checkpoint_sha256[:12]}, policy {card.policy_sha256[:12]}.",
        "",
        *_table(card, {**TITLES, **MORE_TITLES}),
        "",
        "**Drafts minus control**, paired",
        "",
        *_differences(card),
        "",
        *(f"- {line}" for line in (*card.to_know(), *_beaten(card))),
    ]
    for name, scores in card.subsets.items():
        lines += ["", f"**{name.capitalize()}** ({scores.n})", "", *_table(scores, TITLES)]
        if "auroc_macro" in card.metrics and "auroc_macro" not in scores.metrics:
            lines += ["", f"No macro AUROC: not all of its labels have {MIN_POSITIVES} positives and negatives here."]
    aurocs = {
        name: f"{_of(name)} ({e.events} of {e.n})" for name, e in card.metrics.items() if name.startswith("auroc.")
    }
    if aurocs:
        lines += ["", "**AUROC of the finding probabilities** (positive of scored studies)", "", *_table(card, aurocs)]
    for kind, title in (("finding", "the reference text"), ("label", "the labels of the manifest")):
        found = [_of(name) for name in card.metrics if name.startswith(f"{kind}_f1.")]
        if found:
            lines += ["", f"**Findings named by the draft, against {title}**", "", *_each(card, kind, found)]
    columns, rows = robustness_table(card)
    if rows:
        lines += ["", "**Altered pictures and headers**, against the same studies as they are", "", *_header(columns)]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _table(scores: Scores, titles: dict[str, str]) -> list[str]:
    columns, rows = score_table(scores, titles)
    return [*_header(columns), *(f"| {' | '.join(row)} |" for row in rows)]


def _differences(card: Scorecard) -> list[str]:
    lines = [
        f"| {TITLES[metric]} | {' | '.join(shown(each.get(metric)) for each in card.differences.values())} |"
        for metric in HEADLINE
        if any(metric in each for each in card.differences.values())
    ]
    return [*_header(["", *map(plain, card.differences)]), *lines]


def _each(card: Scorecard, kind: str, observations: Iterable[str]) -> list[str]:
    lines = []
    for observation in observations:
        scores = [card.metrics[f"{kind}_{score}.{observation}"] for score in ("precision", "recall", "f1")]
        cells = " | ".join(map(shown, scores))
        lines.append(f"| {plain(observation)} | {scores[0].events} of {scores[0].n} | {cells} |")
    return [*_header(["observation", "positive", "precision", "recall", "F1"]), *lines]


def _header(columns: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]


def _of(metric: str) -> str:
    return metric.partition(".")[2]


def _cell(text: str) -> str:
    return re.sub(r"\s*\|\s*", "/", " ".join(text.split()))
