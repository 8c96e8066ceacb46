"""What drafts are scored against: the report of each study as it was written, and what is known of the study.

References come from the split of a manifest, or from a file, one study a line:

    {"study_uid": "s1", "findings": "...", "impression": null, "labels": {"edema": "absent"}, "patient_id": "p1"}

``labels``, ``patient_id``, ``indication``, ``comparison``, ``prior_study_uid``, ``sex``, ``age`` (years), ``view``,
``scanner``, ``source`` and ``region`` (of ``mmfm.text.REGIONS``, or ``other``; ``chest_radiograph`` where it is not
stated) may be left out. Messages name lines and counts, never a study or a patient.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from mmfm.errors import ManifestError
from mmfm.files import write_whole
from mmfm.report import Sections, Status
from mmfm.text import CHEST_RADIOGRAPH, REGIONS

if TYPE_CHECKING:
    from mmfm.data.manifest import ManifestRow

AGE_BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 151))
"""Years: from, to before."""

MAX_LINE = 200_000
"""Characters of a line: many times the longest report, and what is compared sentence by sentence in seconds."""

GROUPINGS = ("sex", "age", "view", "scanner", "source")
"""By what studies can be told apart in subgroups."""

_TEXTS = ("findings", "impression", "indication", "comparison")
_NAMES = ("patient_id", "prior_study_uid", "sex", "view", "scanner", "source", "region")
_FIELDS = {"study_uid", "labels", "age", *_TEXTS, *_NAMES}

_LONGEST = 300
"""Characters of what was found, in a message."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One study as its report has it."""

    study_uid: str
    report: Sections
    patient_id: str | None = None
    """None where the source states none."""
    labels: Mapping[str, Status | None] = field(default_factory=dict)
    prior_study_uid: str | None = None
    sex: str | None = None
    age: float | None = None
    """Years."""
    view: str | None = None
    scanner: str | None = None
    source: str | None = None
    region: str = CHEST_RADIOGRAPH
    """With whose words its texts are read; of a region without a vocabulary, they are scored by their wording alone."""

    @property
    def has_vocabulary(self) -> bool:
        """Whether findings can be read from its texts."""
        return self.region in REGIONS

    @property
    def patient(self) -> str:
        """Who is drawn, with all studies, in a bootstrap: the study stands for a patient who is not stated."""
        return self.patient_id or self.study_uid

    @property
    def groups(self) -> dict[str, str]:
        """Of ``GROUPINGS``, which group the study is in; what is not known is left out."""
        groups = {name: getattr(self, name) for name in GROUPINGS if name != "age" and getattr(self, name)}
        if self.age is not None:
            low, high = next((low, high) for low, high in AGE_BANDS if low <= self.age < high)
            groups["age"] = f"{low} to {high - 1}" if high <= 80 else f"{low} and older"
        return groups

    @classmethod
    def from_row(cls, row: ManifestRow) -> Reference:
        """Returns the reference of a row of a manifest: its whole report, comparisons with a prior included."""
        views = sorted({series.view.value for series in row.series if series.view is not None})
        return cls(
            study_uid=row.study_uid,
            patient_id=row.patient_id,
            report=row.report,
            labels=row.labels,
            prior_study_uid=row.prior_study_uid,
            sex=row.patient.sex.value if row.patient.sex is not None else None,
            age=row.patient.age,
            view=", ".join(views) or None,
            source=row.source,
            region=row.region,
        )


def read_references(path: str | Path) -> tuple[Reference, ...]:
    """Returns the references of a file, in its order.

    Raises:
        ManifestError: the file is absent, a line breaks the schema (named by its number), or a study is repeated.
    """
    return read_lines(path, _reference, schema='an object {"study_uid", "findings", "impression", ...}')


def write_references(references: Iterable[Reference], path: str | Path) -> None:
    """Writes one line a study; what is not known is left out. The file appears whole or not at all."""
    lines = []
    for reference in references:
        values: dict[str, Any] = {"study_uid": reference.study_uid, "patient_id": reference.patient_id}
        values |= {name: getattr(reference.report, name) for name in _TEXTS}
        values |= {name: getattr(reference, name) for name in ("prior_study_uid", *GROUPINGS)}
        values["region"] = None if reference.region == CHEST_RADIOGRAPH else reference.region
        values["labels"] = dict(reference.labels)
        kept = {n: v for n, v in values.items() if n in ("findings", "impression") or v not in (None, {})}
        lines.append(json.dumps(kept) + "\n")
    write_whole(path, "".join(lines))


def read_lines(
    path: str | Path, convert: Callable[[Any], Any], *, schema: str, key: str = "study_uid", noun: str = "study"
) -> tuple[Any, ...]:
    """Returns what ``convert`` makes of each line of a JSON Lines file, one study a line.

    Args:
        path: the file.
        convert: JSON value to something with a ``key``; raises ``ValueError`` for what it cannot use.
        schema: what a line is to be, in words.
        key: the attribute by which a repeated line is known.
        noun: what a line is about, in a message.

    Raises:
        ManifestError: the file is absent or empty, a line breaks the schema (named by its number), or a study is
            repeated.
    """
    path = Path(path)
    fix = f"write the file again, one JSON object a line and {noun}"
    try:
        # Not splitlines: U+2028 and its like may stand in a text.
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        found = (error.strerror or "unreadable") if isinstance(error, OSError) else "bytes that are not UTF-8"
        raise ManifestError(path.name, expected="a JSON Lines file in UTF-8", found=found, fix=fix) from None
    if lines == [""]:
        raise ManifestError(path.name, expected=f"one line a {noun}", found="no line", fix=fix)
    items: list[Any] = []
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{path.name} line {number}"
        if len(line) > MAX_LINE:
            found, most = f"{len(line):,} characters", f"{MAX_LINE:,}"
            raise ManifestError(where, expected=f"at most {most}", found=found, fix="leave out what is no report")
        try:
            item = convert(json.loads(line))
        except RecursionError:
            raise ManifestError(where, expected=schema, found="JSON that is nested too deeply", fix=fix) from None
        except ValueError as error:  # json.JSONDecodeError is one
            found = f"not JSON ({error.msg})" if isinstance(error, json.JSONDecodeError) else str(error)
            raise ManifestError(where, expected=schema, found=shorten(found, _LONGEST), fix=fix) from None
        name = getattr(item, key)
        if first.setdefault(name, number) != number:
            found = f"the {noun} of line {first[name]} again"
            raise ManifestError(where, expected=f"one line a {noun}", found=found, fix=fix)
        items.append(item)
    return tuple(items)


def _reference(value: Any) -> Reference:
    from mmfm.data.manifest import OTHER_REGION

    if not isinstance(value, dict):
        raise ValueError(f"a line of type {type(value).__name__}")
    # in this order: keys may be studies where a whole file is one object, and a message names no study
    if missing := [name for name in ("study_uid", "findings", "impression") if name not in value]:
        raise ValueError(f"no field {', '.join(missing)}")
    if unknown := sorted(set(value) - _FIELDS):
        raise ValueError(f"unknown fields {unknown}")
    if not isinstance(value["study_uid"], str) or not value["study_uid"]:
        raise ValueError("study_uid: expected text")
    for name in (*_TEXTS, *_NAMES):
        if not isinstance(value.get(name), str | None):
            raise ValueError(f"{name}: expected text or null, found {type(value[name]).__name__}")
    age = value.get("age")
    if age is not None and (type(age) not in (int, float) or not 0 <= age <= 150):
        raise ValueError("age: expected years, 0 to 150, or null")
    region = value.get("region") or CHEST_RADIOGRAPH
    if region not in (*REGIONS, OTHER_REGION):
        raise ValueError(f"region: expected one of {', '.join((*REGIONS, OTHER_REGION))}")
    return Reference(
        study_uid=value["study_uid"],
        patient_id=value.get("patient_id") or None,
        report=Sections(**{name: value.get(name) for name in _TEXTS}),
        labels=_labels(value.get("labels") or {}),
        prior_study_uid=value.get("prior_study_uid"),
        **{name: value.get(name) for name in GROUPINGS},
        region=region,
    )


def _labels(value: Any) -> dict[str, Status | None]:
    from mmfm.data.manifest import LABEL_NAMES

    if not isinstance(value, dict):
        raise ValueError("labels: expected an object")
    if unknown := sorted(set(value) - set(LABEL_NAMES)):
        raise ValueError(f"labels: unknown {unknown}; known are {', '.join(LABEL_NAMES)}")
    try:
        return {name: None if state is None else Status(state) for name, state in value.items()}
    except ValueError:
        raise ValueError("labels: expected present, absent, uncertain or null") from None
