"""The folder of an evaluation: the card, the page, and everything that it takes to score again.

scorecard.json  report.html  predictions.jsonl  references.jsonl  errors.jsonl  control_<name>.jsonl
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfm.errors import ConfigError
from mmfm.evaluation.clinical_errors import clinical_errors
from mmfm.evaluation.page import Case, render_page
from mmfm.evaluation.predictions import Prediction, in_order, read_predictions, write_predictions
from mmfm.evaluation.references import Reference, read_references, write_references
from mmfm.evaluation.scorecard import Scorecard
from mmfm.files import write_whole
from mmfm.jsonable import to_json
from mmfm.report import Sections

CARD, PAGE, ERRORS = "scorecard.json", "report.html", "errors.jsonl"
DRAFTS, REFERENCES = "predictions.jsonl", "references.jsonl"


@dataclass(frozen=True, kw_only=True)
class Results:
    """What such a folder holds, controls apart."""

    card: Scorecard
    predictions: tuple[Prediction, ...]
    references: tuple[Reference, ...]

    @classmethod
    def read(cls, folder: str | Path) -> Results:
        """Returns the results of a folder.

        Raises:
            ManifestError: a file is absent, or is not what its name says.
        """
        folder = Path(folder)
        return cls(
            card=Scorecard.read(folder / CARD),
            predictions=read_predictions(folder / DRAFTS),
            references=read_references(folder / REFERENCES),
        )


def check_folder(out: Path) -> None:
    """Makes the folder for results where there is none: its owner's alone, because it will hold texts of studies.

    Raises:
        ConfigError: it cannot be made, or written into.
    """
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        found = error.strerror or "none"
        raise ConfigError("--out", expected="a folder to write into", found=found, fix="name another one") from None


def write_results(
    out: str | Path,
    card: Scorecard,
    *,
    predictions: Sequence[Prediction],
    references: Sequence[Reference],
    controls: Mapping[str, Sequence[Prediction]],
) -> None:
    """Writes the folder, each file whole; files of an earlier evaluation there are replaced.

    The card comes last, and an earlier one goes first: where a card is, all that belongs to it is there too.
    """
    texts = [draft.sections if draft else Sections() for draft in in_order(predictions, references)]
    cases = [
        Case(draft=draft, reference=reference, errors=clinical_errors(draft, reference))
        for draft, reference in zip(texts, references, strict=True)
    ]
    errors = [
        json.dumps({"study_uid": case.reference.study_uid, **to_json(error)}) + "\n"
        for case in cases
        for error in case.errors
    ]
    page = render_page(card, cases)
    out = Path(out)
    check_folder(out)
    for name in (CARD, PAGE):
        (out / name).unlink(missing_ok=True)
    write_predictions(predictions, out / DRAFTS)
    write_references(references, out / REFERENCES)
    for name, drafts in controls.items():
        write_predictions(drafts, out / f"control_{name}.jsonl")
    write_whole(out / ERRORS, "".join(errors))
    write_whole(out / PAGE, page)
    card.write(out / CARD)
