"""report.html: a score card as one page that needs nothing beside itself, with plots and the worst cases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmfm import __version__
from mmfm.evaluation import plots
from mmfm.evaluation.clinical_errors import ClinicalError
from mmfm.evaluation.controls import CEILING
from mmfm.evaluation.intervals import Estimate
from mmfm.evaluation.references import Reference
from mmfm.evaluation.scorecard import HEADLINE, LOWER_IS_BETTER, MORE_TITLES, TITLES, Scorecard, Scores, plain
from mmfm.evaluation.subgroups import ALPHA as FLAG_ALPHA
from mmfm.report import NOTICE, Sections

_KINDS = {"auroc": "AUROC", "auprc": "AUPRC", "ppv": "PPV", "npv": "NPV", "ece": "ECE", "brier": "Brier"}

_MEANING = {
    "constant_report": "the same report for every study: the training report that is most like the others",
    "shuffled_images": "the same system, shown the images of another patient",
    "mean_image": "the same system, shown the average of the training images",
    "text_only": "the same system, shown the indication and no image",
    "nearest_neighbour": "the report of the training study whose images look most alike",
    "heads_template": "a fixed sentence for each finding that the system's probabilities say is there",
    "reference_text": "the report as it was written, scored as if it were a draft: no rival, but what can be reached",
}
"""Control to what it is, for readers who did not make the card."""

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


@dataclass(frozen=True, kw_only=True)
class Case:
    """One draft beside its reference."""

    draft: Sections
    reference: Reference
    errors: tuple[ClinicalError, ...]


def render_page(card: Scorecard, cases: Sequence[Case]) -> str:
    """Returns the page as HTML. It loads nothing from anywhere, and runs no script.

    Args:
        card: what is shown.
        cases: the drafts, of which the worst are shown.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mmfm.evaluation", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    parts = (
        _controls(card),
        _findings(card),
        _errors(card),
        _probabilities(card),
        _subgroups(card),
        _subsets(card),
        _robustness(card),
        _leaks(card),
        _resources(card),
    )
    page = environment.get_template("page.html.j2").render(
        card=card,
        notice=NOTICE,
        version=__version__,
        parts=[part for part in parts if part.blocks],
        worst=_worst(cases),
        policy=json.dumps(card.policy, indent=1, sort_keys=True),
        plain=plain,
    )
    return page.encode(errors="replace").decode()  # half a surrogate pair may stand in a draft, and in no page


def shown(estimate: Any) -> str:
    """Returns value and interval, or that there is none."""
    if estimate is None:
        return "–"
    if estimate.value is None:
        return "undefined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} (no interval)"
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
            panels[TITLES[metric] + ("\n(lower is better)" if metric in LOWER_IS_BETTER else "")] = scores
    blocks = [
        Block(
            note="A control has not seen the image, or needs no model of its own. A score means something by how far "
            "it stands above them; the reference text shows what the labeller and the metrics can reach at most.",
            plot=_markup(plots.dots(panels, first="drafts", ceiling=plain(CEILING))) if panels else "",
        ),
        Block(
            title="What the controls are",
            lines=tuple(f"{plain(name)}: {what}" for name, what in _MEANING.items() if name in card.controls),
        ),
        Block(title="In words", lines=tuple(card.verdicts())),
        Block(
            title="All",
            note="Value and 95 % interval in brackets; – where there is nothing to score, undefined where it is 0 / 0. "
            "F1 is the harmonic mean of PPV (precision) and sensitivity (recall); micro pools all findings, macro is "
            "the mean over findings. BLEU, METEOR, ROUGE-L and CIDEr-D compare words, not meaning.",
            columns=columns,
            rows=rows,
        ),
    ]
    missing = {**{f"control {plain(k)}": v for k, v in card.controls_not_run.items()}, **card.not_scored}
    if missing:
        blocks.append(Block(title="Not run, not scored", lines=tuple(f"{plain(k)}: {v}" for k, v in missing.items())))
    blocks = [block for block in blocks if block.plot or block.lines or block.rows]
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


def _probabilities(card: Scorecard) -> Part:
    labels = [name.partition(".")[2] for name in card.metrics if name.startswith("auroc.")]
    if not labels or card.curves is None:
        return Part(id="probabilities", title="Finding probabilities", blocks=())
    curves = card.curves
    panels: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]] = {
        "ROC": {
            f"{plain(c.label)} ({c.positives} of {c.n})": (c.false_positive_rate, c.true_positive_rate)
            for c in curves.roc
        },
        "precision and recall": {
            f"{plain(c.label)} ({c.positives} of {c.n})": (c.recall, c.precision) for c in curves.precision_recall
        },
    }
    calibrated: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]] = {
        "reliability": {
            f"{plain(c.label)} (base rate {c.prevalence:.2f})": (
                [b.predicted for b in c.bins],
                [b.observed for b in c.bins],
            )
            for c in curves.reliability
        }
    }
    axes = {
        "ROC": ("1 - specificity", "sensitivity"),
        "precision and recall": ("recall", "precision"),
        "reliability": ("P(present), mean of a bin", "share present"),
        "risk and coverage": ("share of decisions kept, most confident first", "share of wrong ones"),
    }
    levels = {}
    if curves.risk_coverage is not None:
        calibrated["risk and coverage"] = {"all labels": (curves.risk_coverage.coverage, curves.risk_coverage.risk)}
        levels["risk and coverage"] = curves.risk_coverage.aurc_random
    ranking, decided = ("auroc", "auprc"), ("sensitivity", "specificity", "ppv", "npv")
    honest = ("brier_skill", "brier", "ece", "calibration_slope", "calibration_intercept")
    blocks = [
        Block(plot=_markup(plots.lines(panels, axes_labels=axes, diagonal=["ROC"]))),
        _each_label(card, "How well they rank", ranking, labels),
        _each_label(
            card,
            "Decisions at a frozen threshold",
            decided,
            [label for label in labels if f"sensitivity.{label}" in card.metrics],
            note="Thresholds were chosen on other studies; they stand in the policy.",
        ),
        Block(
            plot=_markup(plots.lines(calibrated, axes_labels=axes, diagonal=["reliability"], levels=levels)),
            note="The dotted line of risk and coverage is the share of wrong ones where confidence knows nothing.",
        ),
        _each_label(
            card,
            "How far they can be believed",
            honest,
            labels,
            note="A low calibration error alone is reached by always saying the base rate: read it beside the Brier "
            "skill. A perfect slope is 1, a perfect intercept 0.",
        ),
        Block(
            title="Calibrated",
            note="Fitted on other patients than those scored (cross-fitted); none is as they came.",
            columns=("label", "method", "Brier skill", "Brier", "ECE", "slope"),
            rows=tuple(
                (
                    plain(row.label),
                    row.method,
                    *(shown(row.scores[kind]) for kind in ("brier_skill", "brier", "ece", "calibration_slope")),
                )
                for row in card.calibration
            ),
        ),
        Block(
            title="Conformal sets",
            note="Sets of present and absent that hold the truth in the share wanted; a mean over random splits by "
            "patient, and its standard deviation between them.",
            columns=("label", "variant", "wanted", "covered", "of the positive", "size", "only one", "both", "neither"),
            rows=tuple(
                (
                    plain(row.label),
                    plain(row.variant),
                    f"{1 - row.alpha:.2f}",
                    f"{row.coverage:.3f} (sd {row.coverage_sd:.3f})",
                    f"{row.coverage_positives:.3f} (sd {row.coverage_positives_sd:.3f})",
                    f"{row.set_size:.2f}",
                    f"{row.only_present + row.only_absent:.3f}",
                    f"{row.both:.3f}",
                    f"{row.neither:.3f}",
                )
                for row in card.conformal
            ),
        ),
    ]
    return Part(
        id="probabilities",
        title="Finding probabilities",
        blocks=tuple(block for block in blocks if block.plot or block.rows),
    )


def _each_label(card: Scorecard, title: str, kinds: Sequence[str], labels: Sequence[str], note: str = "") -> Block:
    rows = []
    for label in labels:
        auroc = card.metrics[f"auroc.{label}"]
        cells = (shown(card.metrics.get(f"{kind}.{label}")) for kind in kinds)
        rows.append((plain(label), f"{auroc.events} of {auroc.n}", *cells))
    titles = (_KINDS.get(kind, plain(kind)) for kind in kinds)
    return Block(title=title, note=note, columns=("label", "present of n", *titles), rows=tuple(rows))


def _subgroups(card: Scorecard) -> Part:
    columns = {"sensitivity": "sensitivity", "specificity": "specificity", "under_diagnosis": "under-diagnosis"}
    lines: list[tuple[str, Mapping[str, Any]]] = []
    rows, flagged = [], []
    for grouping in card.subgroups:
        unstated = f", {grouping.unstated} not stated" if grouping.unstated else ""
        lines.append((f"{plain(grouping.name)}{unstated}", {}))
        for group in grouping.groups:
            name = f"{group.group} ({group.n})"
            lines.append((name, {score: getattr(group, score) for score in columns}))
            flagged += [name] if any(gap.flagged for gap in group.gaps.values()) else []
            scores = (group.sensitivity, group.specificity, group.finding_f1, group.under_diagnosis)
            cells = (f"{shown(score)}, n {score.n}" for score in scores)
            gaps = "; ".join(f"{plain(score)}: {gap.verdict}" for score, gap in group.gaps.items())
            label = f"{plain(grouping.name)} {group.group}"
            rows.append((label, f"{group.n} of {group.patients} patients", str(group.positives), *cells, gaps))
    tests = sum(
        gap.p is not None for grouping in card.subgroups for group in grouping.groups for gap in group.gaps.values()
    )
    note = (
        f"Findings that the draft names against the reference text. Each group is tested against the rest of its "
        f"grouping, {tests} tests in all at alpha {FLAG_ALPHA}, by Holm within a grouping and score: of many "
        "tests one false flag is no surprise. Under-diagnosis is the share of studies with a finding whose draft names "
        "none. A flag says that drafts fare otherwise there, not why."
    )
    blocks = (
        Block(note=note, plot=_markup(plots.forest(lines, columns=columns, flagged=flagged)) if rows else ""),
        Block(
            columns=("group", "studies", "findings", "sensitivity", "specificity", "F1", "under-diagnosis", "gaps"),
            rows=tuple(rows),
        ),
    )
    return Part(id="subgroups", title="Subgroups", blocks=blocks if rows else ())


def robustness_table(card: Scorecard) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Returns head and rows: one row an alteration of pictures or headers; no row where none was tried."""
    kinds = {
        "findings": "findings agree (F1)",
        "sides_swapped": "sides swapped",
        "probability_change": "mean change of P(present)",
    }
    scores = list(dict.fromkeys(name for each in card.robustness for name in each.changes))
    rows = tuple(
        (
            plain(each.name),
            each.amount,
            each.expected,
            f"{each.refused.events} of {each.n}",
            *(shown(each.agreement.get(kind)) for kind in kinds),
            *(shown(each.changes.get(name)) for name in scores),
        )
        for each in card.robustness
    )
    changed = (f"change of {TITLES.get(name, plain(name))}" for name in scores)
    return ("alteration", "amount", "expected", "refused", *kinds.values(), *changed), rows


def _robustness(card: Scorecard) -> Part:
    columns, rows = robustness_table(card)
    note = "Drafts of altered pictures and headers against those of the same studies as they are."
    block = Block(note=note, columns=columns, rows=rows)
    return Part(id="robustness", title="Robustness", blocks=(block,) if rows else ())


def _leaks(card: Scorecard) -> Part:
    leaks = card.leaks
    if leaks is None:
        return Part(id="leaks", title="Leaks", blocks=())
    images = "not looked at" if leaks.near_images is None else f"{leaks.near_images} of {leaks.studies} studies"
    identical = (
        "not known" if leaks.identical_images is None else f"{leaks.identical_images} of {leaks.studies} studies"
    )
    rows = (
        ("text word by word in train", f"{leaks.exact_texts} of {leaks.texts} studies with text"),
        ("text in train, or nearly", f"{leaks.near_texts} of {leaks.texts} studies with text"),
        ("image file in train", identical),
        ("image in train, or nearly", images),
    )
    apart = (
        "no patient is in both, else nothing would be scored"
        if card.coverage.patients_stated
        else "whether a patient is in both is not known, as patients are not all stated"
    )
    block = Block(
        note=f"Against {leaks.train_studies} training studies; {apart}.",
        columns=("what", "how many"),
        rows=rows,
    )
    return Part(id="leaks", title="Leaks", blocks=(block,))


def _resources(card: Scorecard) -> Part:
    used = card.resources
    if used is None:
        return Part(id="resources", title="Resources", blocks=())
    memory = f"{used.peak_host_bytes / 1e9:.2f} GB" if used.peak_host_bytes else "not told"
    device = f"{used.peak_device_bytes / 1e9:.2f} GB" if used.peak_device_bytes else "not told by this device"
    energy = f"{used.joules_per_report:.1f} J a report; " if used.joules_per_report is not None else ""
    hours = "not stated" if used.training_hours is None else f"{used.training_hours:.2f} h"
    rows = (
        ("drafted on", f"{used.device}, {used.batch_size} studies at a time"),
        ("seconds a report", f"{used.seconds_per_report:.2f}"),
        ("tokens a second", f"{used.tokens_per_second:.0f}"),
        ("peak memory of the process", memory),
        ("peak memory of the device", device),
        ("energy", f"{energy}{used.energy}"),
        ("parameters", f"{used.parameters / 1e6:.1f} million"),
        ("training", f"{hours} on {used.training_device}"),
    )
    return Part(id="resources", title="Resources", blocks=(Block(columns=("what", "how much"), rows=rows),))


def _worst(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """The studies with text whose drafts have the most errors, the first such where there are ties."""
    drafted = [case for case in cases if case.errors and (case.draft.findings or case.draft.impression)]
    return [
        {
            "study_uid": case.reference.study_uid,
            "errors": case.errors,
            "draft": _text(case.draft),
            "reference": _text(case.reference.report),
        }
        for case in sorted(drafted, key=lambda case: -len(case.errors))[:WORST]
    ]


def _text(report: Sections) -> str:
    parts = (("Findings", report.findings), ("Impression", report.impression))
    return "\n".join(f"{title}: {text}" for title, text in parts if text)


def _markup(svg: str) -> Any:
    """The picture as it is; everything else on the page is escaped."""
    from jinja2.utils import markupsafe

    return markupsafe.Markup(svg)
