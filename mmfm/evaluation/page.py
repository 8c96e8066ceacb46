"""report.html: a score card as one page that needs nothing beside itself, with plots and the worst cases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmfm import __version__
from mmfm.evaluation import plots
from mmfm.evaluation.clinical_errors import clinical_errors
from mmfm.evaluation.controls import CEILING
from mmfm.evaluation.intervals import Estimate
from mmfm.evaluation.predictions import Prediction, in_order
from mmfm.evaluation.references import Reference
from mmfm.evaluation.scorecard import HEADLINE, LOWER_IS_BETTER, MORE_TITLES, TITLES, Scorecard, Scores, plain
from mmfm.report import NOTICE, Sections

WORST = 10
"""Studies shown with their texts."""

@dataclass(frozen=True, kw_only=True)
class Block:
    """One thing of a part: a picture, a list or a table."""

    title: str = ""
    note: str = ""
    plot: Any = ""
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Part:
    """What stands under one heading."""

    id: str
    title: str
    blocks: tuple[Block, ...]


def render_page(card: Scorecard, *, predictions: Sequence[Prediction], references: Sequence[Reference]) -> str:
    """Returns the page as HTML. It loads nothing from anywhere, and runs no script.

    Args:
        card: what is shown.
        predictions: the drafts, for the worst cases.
        references: theirs.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mmfm.evaluation", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    parts = [_controls(card), _subsets(card), _findings(card), _errors(card)]
    return environment.get_template("page.html.j2").render(
        card=card,
        notice=NOTICE,
        version=__version__,
        parts=[part for part in parts if part.blocks],
        worst=_worst(predictions, references),
        policy=json.dumps(card.policy, indent=1, sort_keys=True),
        plain=plain,
    )


def shown(estimate: Any) -> str:
    """Returns value and interval, or that there is none."""
    if estimate is None:
        return "–"
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "undefined"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def shown_with_events(metric: str, estimate: Estimate | None) -> str:
    """Returns the same, with the counts where they are of a handful and say more."""
    if estimate is not None and metric.startswith("wrong_"):
        return f"{estimate.events} of {estimate.n}: {shown(estimate)}"
    return shown(estimate)


def score_table(scores: Scores, titles: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Returns head and rows: one row a score, one column for the drafts and for each control that has any of them."""
    columns = {"drafts": scores.metrics, **{plain(name): each for name, each in scores.controls.items()}}
    columns = {name: each for name, each in columns.items() if name == "drafts" or titles.keys() & each.keys()}
    rows = tuple(
        (title, *(shown_with_events(metric, each.get(metric)) for each in columns.values()))
        for metric, title in titles.items()
        if any(metric in each for each in columns.values())
    )
    return ("", *columns), rows


def _controls(card: Scorecard) -> Part:
    columns, rows = score_table(card, TITLES | MORE_TITLES)
    panels = {}
    for metric in HEADLINE:
        everyone = {"drafts": card.metrics, **card.controls}
        scores = {plain(name): each[metric] for name, each in everyone.items() if metric in each}
        if metric in card.metrics:
            panels[TITLES[metric] + (" (lower: better)" if metric in LOWER_IS_BETTER else "")] = scores
    blocks = [
        Block(
            note="A control has not seen the image, or needs no model of its own. A score means something by how far "
            "it stands above them; the reference text shows what the labeller and the metrics can reach at most.",
            plot=_markup(plots.dots(panels, first="drafts", ceiling=plain(CEILING))) if panels else "",
        ),
        Block(title="In words", lines=tuple(card.verdicts())),
        Block(title="All", columns=columns, rows=rows),
    ]
    missing = {**{f"control {plain(k)}": v for k, v in card.controls_not_run.items()}, **card.not_scored}
    if missing:
        blocks.append(Block(title="Not run, not scored", lines=tuple(f"{plain(k)}: {v}" for k, v in missing.items())))
    return Part(id="controls", title="Beside the controls", blocks=tuple(blocks))


def _subsets(card: Scorecard) -> Part:
    blocks = []
    for name, scores in card.subsets.items():
        columns, rows = score_table(scores, TITLES)
        blocks.append(Block(title=f"{name.capitalize()} ({scores.n} of {card.n})", columns=columns, rows=rows))
    note = Block(note="Templates and texts learned by heart help least here.")
    return Part(id="subsets", title="Where templates do not help", blocks=(note, *blocks) if blocks else ())


def _findings(card: Scorecard) -> Part:
    blocks = []
    kinds = {"f1": "F1", "precision": "PPV", "recall": "sensitivity", "specificity": "specificity", "npv": "NPV"}
    for prefix, against in (("finding", "the reference text"), ("label", "the labels")):
        names = sorted(
            (name.partition(".")[2] for name in card.metrics if name.startswith(f"{prefix}_f1.")),
            key=lambda name: -(card.metrics[f"{prefix}_f1.{name}"].events or 0),
        )
        if not names:
            continue
        f1 = {name: card.metrics[f"{prefix}_f1.{name}"] for name in names}
        bars = {f"{plain(name)}, {each.events} of {each.n}": each for name, each in f1.items()}
        rows = tuple(
            (
                plain(name),
                f"{f1[name].events} of {f1[name].n}",
                *(shown(card.metrics.get(f"{prefix}_{kind}.{name}")) for kind in kinds),
            )
            for name in names
        )
        blocks.append(
            Block(
                title=f"Against {against}",
                plot=_markup(plots.bars(bars, label=f"F1 against {against}")),
                columns=("observation", "positive of n", *kinds.values()),
                rows=rows,
            )
        )
    return Part(id="findings", title="Findings that the drafts name", blocks=tuple(blocks))


def _errors(card: Scorecard) -> Part:
    names = [name for name in card.metrics if name.startswith("error_rate.")]
    titles = {name: plain(name.partition(".")[2]) for name in names}
    columns, rows = score_table(card, {**titles, "error_rate": "all kinds"})
    note = (
        "Errors a report, counted sentence by sentence against the reference, which itself may leave out what the "
        "image shows. Each of them, with its sentences, stands in errors.jsonl."
    )
    return Part(
        id="errors",
        title="Clinical errors",
        blocks=(Block(note=note, columns=columns, rows=rows),) if names else (),
    )


def _worst(predictions: Sequence[Prediction], references: Sequence[Reference]) -> list[dict[str, Any]]:
    """The studies with the most errors, the first such where there are ties."""
    cases = []
    for draft, reference in zip(in_order(predictions, references), references, strict=True):
        if draft is not None and (draft.findings or draft.impression):
            cases.append((clinical_errors(draft.sections, reference), draft.sections, reference))
    cases.sort(key=lambda case: -len(case[0]))
    return [
        {
            "study_uid": reference.study_uid,
            "errors": errors,
            "draft": _text(sections),
            "reference": _text(reference.report),
        }
        for errors, sections, reference in cases[:WORST]
        if errors
    ]


def _text(report: Sections) -> str:
    parts = (("Findings", report.findings), ("Impression", report.impression))
    return "\n".join(f"{title}: {text}" for title, text in parts if text)


def _markup(svg: str) -> Any:
    """The picture as it is; everything else on the page is escaped."""
    from jinja2.utils import markupsafe

    return markupsafe.Markup(svg)
