"""Does a draft know what it was given? Modality and body part of the cases of MedPix 2.0, beside controls.

    python benchmarks/medpix2.py --checkpoint mmfm-volume-small --data $MMFM_DATA/medpix2 --split dev

Right is a draft that names the same modalities, or the same parts of the body, as the case is coded with; one that
names none is wrong. "Most common" states for every case what most training cases are; "shuffled images" gives each case
the draft of the next one. Findings and their controls are scored by ``mmfm evaluate``.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmfm.data.manifest import read_manifest
from mmfm.errors import ScopeError
from mmfm.evaluation.intervals import wilson_interval
from mmfm.measure.drafts import draft_all, in_scope
from mmfm.models import load_checkpoint
from mmfm.models.processor import StudyPixels, kind_of

PARTS = ("modality", "body part")


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="mmfm-volume-small")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MMFM_DATA", "data")) / "medpix2")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.checkpoint)
    manifest = read_manifest(arguments.data / "manifest.jsonl")
    rows = [row for row in manifest.split(arguments.split) if kind_of(row.codes or ())]
    read = [in_scope(checkpoint, manifest.study(row), row.region) for row in rows]
    inside = [(row, item) for row, item in zip(rows, read, strict=True) if isinstance(item, StudyPixels)]
    drafts = draft_all(
        checkpoint, [row for row, _ in inside], [item for _, item in inside], batch_size=arguments.batch_size
    )
    stated = {draft.study_uid: draft.kind for draft in drafts}
    known = [kind_of(row.codes or ()) for row in rows]
    drafted = [stated.get(row.study_uid) for row in rows]
    trained = [kind for row in manifest.split("train") if (kind := kind_of(row.codes or ()))]
    print(f"{arguments.split}: {len(rows)} cases, {len(rows) - len(inside)} of them refused and counted as wrong")
    for refused in [item for item in read if isinstance(item, ScopeError)][:3]:
        print(f"  {refused}")
    print("\n| right | drafts | most common | shuffled images |\n| --- | --- | --- | --- |")
    for place, name in enumerate(PARTS):
        common = Counter(parts_of(kind)[place] for kind in trained).most_common(1)[0][0]
        truth = [parts_of(kind)[place] for kind in known]
        own = [parts_of(kind)[place] for kind in drafted]
        cells = [shares(truth, given) for given in (own, [common] * len(truth), [*own[1:], *own[:1]])]
        print(f"| {name} | {' | '.join(cells)} |")


def parts_of(kind: str | None) -> tuple[frozenset[str], frozenset[str]]:
    """Returns modalities and parts of the body of such as "CT and MR of the head"."""
    modalities, _, parts = (kind or "").partition(" of the ")
    return frozenset(modalities.split(" and ")) - {""}, frozenset(parts.split(" with ")[0].split(" and ")) - {""}


def shares(known: Sequence[frozenset[str]], stated: Sequence[frozenset[str]]) -> str:
    """Returns the share that is right with Wilson's interval."""
    right = sum(one == other for one, other in zip(known, stated, strict=True))
    low, high = wilson_interval(right / len(known), len(known))
    return f"{right / len(known):.3f} ({low:.3f} to {high:.3f}), {right} of {len(known)}"


if __name__ == "__main__":
    main()
