"""Does a draft know what it was given, and is the diagnosis on its list? Cases of MedPix 2.0, beside controls.

    python benchmarks/medpix2.py --checkpoint mmfm-volume-small --data $MMFM_DATA/medpix2 --split dev

Right is a draft that names the same modalities, or the same parts of the body, as the case is coded with; one that
names none is wrong, and so is a case outside the checkpoint's scope, but where those drafted are counted alone. A
differential hits where one of its first 1, 3 or 5 entries is the diagnosis of the case or one of its own differential
(``mmfm.evaluation.differential`` says when two terms are the same). "Most common" states for every case what most
training cases are, of the differential those of its region; "shuffled images" gives each case the draft of the next
one. Findings are scored by ``mmfm evaluate``.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmfm.data.manifest import Manifest, ManifestRow, read_manifest
from mmfm.errors import ScopeError
from mmfm.evaluation.differential import FIRST, hits, most_common
from mmfm.evaluation.intervals import wilson_interval
from mmfm.inference.differential import suggest
from mmfm.measure.drafts import draft_all, in_scope, those_in_scope
from mmfm.models import Draft, load_checkpoint
from mmfm.models.processor import StudyPixels, kind_of
from mmfm.text import REGIONS, label_report

PARTS = ("modality", "body part")
COLUMNS = ("drafts", "most common", "shuffled images")


def main() -> None:
    """Prints one table, and which parts of the body are taken for another."""
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
    inside, pixels = those_in_scope(rows, read)
    drafts = draft_all(checkpoint, inside, pixels, batch_size=arguments.batch_size)
    stated = {draft.study_uid: draft.kind for draft in drafts}
    known = [kind_of(row.codes or ()) for row in rows]
    drafted = [stated.get(row.study_uid) for row in rows]
    trained = [kind for row in manifest.split("train") if (kind := kind_of(row.codes or ()))]
    print(f"{arguments.split}: {len(rows)} cases, {len(rows) - len(inside)} of them refused and counted as wrong")
    for refused in [item for item in read if isinstance(item, ScopeError)][:3]:
        print(f"  {refused}")
    if not inside:
        return  # nothing was drafted: no row would say more
    print(f"\n| right | {' | '.join(COLUMNS)} |\n| --- | --- | --- | --- |")
    every = list(zip(known, drafted, strict=True))
    in_scope_alone = [pair for pair, item in zip(every, read, strict=True) if isinstance(item, StudyPixels)]
    for place, name in enumerate(PARTS):
        common = Counter(parts_of(kind)[place] for kind in trained).most_common(1)[0][0]
        for which, pairs in ((name, every), (f"{name}, of those drafted", in_scope_alone)):
            truth = [parts_of(kind)[place] for kind, _ in pairs]
            own = [parts_of(kind)[place] for _, kind in pairs]
            cells = [shares(truth, given) for given in (own, [common] * len(truth), [*own[1:], *own[:1]])]
            print(f"| {which} | {' | '.join(cells)} |")
    print_differentials(rows, drafts, manifest)
    print_confusions(in_scope_alone)


def print_differentials(rows: Sequence[ManifestRow], drafts: Sequence[Draft], manifest: Manifest) -> None:
    """Prints how often the first diagnoses of a draft hold one of its case, as further rows of the table."""
    with_terms = [row for row in rows if terms_of(row)]
    if not with_terms:
        print("\nno case has a diagnosis or a differential")
        return
    by_uid = {draft.study_uid: draft for draft in drafts}
    own_lists = [listed(by_uid.get(row.study_uid)) for row in with_terms]
    common_of = {
        region: most_common([terms_of(row) for row in manifest.split("train") if row.region == region])
        for region in {row.region for row in with_terms}
    }
    lists = (own_lists, [common_of[row.region] for row in with_terms], [*own_lists[1:], *own_lists[:1]])
    hit = [[hits(ranked, terms_of(row)) for ranked, row in zip(one, with_terms, strict=True)] for one in lists]
    for k in FIRST:
        print(f"| differential, first {k} | {' | '.join(share([one[k] for one in column]) for column in hit)} |")
    empty = sum(not one for one in own_lists)
    print(f"\n{len(with_terms)} cases with a diagnosis or a differential; {empty} drafts list nothing, which is no hit")


def print_confusions(pairs: Sequence[tuple[str | None, str | None]]) -> None:
    """Prints which part of the body was taken for which other one, most often first."""
    taken = Counter((parts_of(known)[1], parts_of(stated)[1]) for known, stated in pairs)
    told = [
        f"{count} {' and '.join(sorted(known))} for {' and '.join(sorted(stated)) or 'none'}"
        for (known, stated), count in taken.most_common()
        if known != stated
    ]
    print(f"\nparts of the body taken for another: {'; '.join(told) or 'none'}")


def terms_of(row: ManifestRow) -> tuple[str, ...]:
    """Returns the diagnosis of a case and its differential."""
    return (*filter(None, [row.diagnosis]), *row.differential)


def listed(drafted: Draft | None) -> tuple[str, ...]:
    """Returns the differential of a draft as its report shows it, most likely first; nothing of a refused study."""
    if drafted is None or drafted.region not in REGIONS:
        return ()
    findings = label_report(drafted.findings, drafted.impression, region=drafted.region)
    return tuple(one.diagnosis for one in suggest(findings, region=drafted.region)[0])


def parts_of(kind: str | None) -> tuple[frozenset[str], frozenset[str]]:
    """Returns modalities and parts of the body of such as "CT and MR of the head"."""
    modalities, _, parts = (kind or "").partition(" of the ")
    return frozenset(modalities.split(" and ")) - {""}, frozenset(parts.split(" with ")[0].split(" and ")) - {""}


def shares(known: Sequence[frozenset[str]], stated: Sequence[frozenset[str]]) -> str:
    """Returns the share of equal sets."""
    return share([one == other for one, other in zip(known, stated, strict=True)])


def share(right: Sequence[bool]) -> str:
    """Returns the share that is right with Wilson's interval."""
    value = sum(right) / len(right)
    low, high = wilson_interval(value, len(right))
    return f"{value:.3f} ({low:.3f} to {high:.3f}), {sum(right)} of {len(right)}"


if __name__ == "__main__":
    main()
