"""manifest.jsonl: the one schema that every source of studies is prepared into, one JSON object a line and study.

    {"study_uid": "iu_xray-123", "patient_id", "source": "iu_xray", "split", "patient": {"sex", "age"},
     "series": [{"series_uid", "modality", "view", "path", "sha256"}], "region": "chest_ct",
     "report": {"indication", "comparison", "technique", "findings", "impression"}, "target": like report, or null,
     "labels": {"pneumothorax": "absent"}, "codes": ["Lung/hypoinflation"], "diagnosis", "differential", "truth",
     "questions", "prior_study_uid"}

A path is relative to the manifest and never leaves its folder. A label is present, absent, uncertain or null; null, or
a missing name, means that nobody said. ``report`` is the whole text; ``target`` is the text to train on. ``questions``
are ``[{"question", "answer", "kind", "question_id", "question_types", "organ"}]``, all of one study in its row. What is
not known may be left out; a key that the schema does not have is an error, because it is most often a misspelt one.

Messages name lines and fields, never a patient or a study.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from mmfm import io, text
from mmfm.errors import ConfigError, ManifestError, ReadError
from mmfm.files import sha256_of, write_whole
from mmfm.jsonable import to_json
from mmfm.report import Sections, Status
from mmfm.study import Patient, Series, Sex, Study, ViewPosition

NORMAL = "normal"
"""The label beside the observations: whether a person coded the whole study as normal."""

LABEL_NAMES = (*dict.fromkeys(name for region in text.REGIONS for name in text.observations(region)), NORMAL)
"""Of all regions; which of them a study can have is said by its ``region``."""

OTHER_REGION = "other"
"""Region of a study that no vocabulary was made for: its report is learned as text, and no finding is read in it."""

QUESTION_KINDS = ("closed", "open")

E = TypeVar("E", bound=Enum)


@dataclass(frozen=True, kw_only=True)
class ManifestPatient:
    """Who the study is of; ``None`` where the source does not say."""

    sex: Sex | None = None
    age: float | None = None
    """Years."""

    def __post_init__(self) -> None:
        if self.age is not None and (type(self.age) not in (int, float) or not 0 <= self.age <= 150):
            raise _wrong("patient.age", expected="years, 0 to 150, or null", found=_kind(self.age))


@dataclass(frozen=True, kw_only=True)
class ManifestSeries:
    """Where the pixels of one series lie, and what the source says of them."""

    series_uid: str
    path: str
    """A DICOM, NIfTI, PNG or JPEG file, or a folder with the DICOM files of one series; relative, forward slashes."""
    modality: str | None = None
    """DICOM Modality; ``None`` where the source does not state it."""
    view: ViewPosition | None = None
    sha256: str | None = None
    """Of the file; of a folder ``mmfm.files.sha256_of`` all files below it."""

    def __post_init__(self) -> None:
        _text("series_uid", self.series_uid)
        _text("path", self.path)
        parts = set(self.path.split("/"))
        absolute = self.path[0] == "/" or self.path[1:2] == ":"
        if absolute or ".." in parts or parts <= {"", "."} or set(self.path) & {"\\", "\0"}:
            raise _wrong(
                "path",
                expected="a path inside the manifest's folder, with forward slashes",
                found="one that is absolute or leaves it",
                fix="write it relative to the manifest, and put the files beside or below the manifest",
            )
        if self.modality is not None and not (isinstance(self.modality, str) and self.modality.isupper()):
            raise _wrong("modality", expected="a DICOM code such as CR, DX, CT, MR, or null", found=repr(self.modality))
        if self.sha256 is not None and not _is_sha256(self.sha256):
            raise _wrong("sha256", expected="64 hexadecimal digits, or null", found=_kind(self.sha256))


@dataclass(frozen=True, kw_only=True)
class ManifestQuestion:
    """A question about the study with its answer."""

    question: str
    answer: str
    kind: str | None = None
    """``closed`` where the question offers its answers (yes or no, left or right), ``open`` where it does not."""
    question_id: str | None = None
    """What an answer names it by; unlike that of any other question of the manifest."""
    question_types: tuple[str, ...] = ()
    """What is asked for, in the words of the source, such as ``PRES`` or ``PLANE``."""
    organ: str | None = None
    """What part of the body the image shows, in the words of the source."""

    def __post_init__(self) -> None:
        _text("question", self.question)
        _text("answer", self.answer)
        if self.kind not in (*QUESTION_KINDS, None):
            raise _wrong("kind", expected=f"one of {', '.join(QUESTION_KINDS)}, or null", found=repr(self.kind)[:40])
        for name in self.question_types:
            _text("question_types", name)
        for name in ("question_id", "organ"):
            _text_or_none(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One study."""

    study_uid: str
    patient_id: str
    source: str
    split: str
    series: tuple[ManifestSeries, ...]
    region: str = text.CHEST_RADIOGRAPH
    """Whose vocabulary its report is read with: one of ``mmfm.text.REGIONS``, or ``other`` where none fits."""
    patient: ManifestPatient = ManifestPatient()
    report: Sections = field(default_factory=Sections)
    """The whole text, as the source has it."""
    target: Sections | None = None
    """The text to train on; its sections are ``None`` where nothing is left to train on."""
    labels: dict[str, Status | None] = field(default_factory=dict)
    """By the names of ``LABEL_NAMES``."""
    codes: tuple[str, ...] | None = None
    """What a person coded the study with, in the words of the source, such as MeSH terms; ``None`` where nobody did."""
    diagnosis: str | None = None
    differential: tuple[str, ...] = ()
    truth: dict[str, Any] | None = None
    """What is known exactly (boxes, masks, sizes): free JSON, described by the card of the source."""
    questions: tuple[ManifestQuestion, ...] = ()
    prior_study_uid: str | None = None

    def __post_init__(self) -> None:
        for name in ("study_uid", "patient_id", "source", "split"):
            _text(name, getattr(self, name))
        for name in ("diagnosis", "prior_study_uid"):
            _text_or_none(name, getattr(self, name))
        if self.region not in (*text.REGIONS, OTHER_REGION):
            raise _wrong(
                "region", expected=f"one of {', '.join((*text.REGIONS, OTHER_REGION))}", found=repr(self.region)
            )
        if not self.series:
            raise _wrong("series", expected="at least one", found="none", fix="leave out studies that have no image")
        if len({s.series_uid for s in self.series}) != len(self.series):
            raise _wrong("series", expected="a series_uid of its own for each", found="a repeated one")
        unknown = sorted(set(self.labels) - set(LABEL_NAMES))
        if unknown:
            raise _wrong("labels", expected=f"names among {', '.join(LABEL_NAMES)}", found=", ".join(unknown))

    def to_json(self) -> dict[str, Any]:
        """Returns the row as JSON values; optional fields that are empty are left out."""
        value = to_json(self)
        for name in ("target", "diagnosis", "differential", "truth", "questions", "prior_study_uid"):
            if not value[name]:
                del value[name]
        if value["region"] == text.CHEST_RADIOGRAPH:
            del value["region"]
        if value["codes"] is None:  # an empty list says that a person found nothing to code
            del value["codes"]
        return value

    @classmethod
    def from_json(cls, value: Any) -> ManifestRow:
        """Returns the row of one line.

        Raises:
            ManifestError: a key is unknown or missing, or a value does not fit.
        """
        given = _known(cls, value, "row")
        given["series"] = tuple(
            ManifestSeries(
                **_known(ManifestSeries, item, f"series[{i}]", view=lambda v: _member(ViewPosition, v, "view"))
            )
            for i, item in enumerate(_list(given["series"], "series"))
        )
        if "patient" in given:
            given["patient"] = ManifestPatient(
                **_known(ManifestPatient, given["patient"], "patient", sex=lambda v: _member(Sex, v, "sex"))
            )
        if "report" in given:
            given["report"] = _sections(given["report"], "report")
        if given.get("target") is not None:
            given["target"] = _sections(given["target"], "target")
        if "labels" in given:
            labels = _object(given["labels"], "labels")
            given["labels"] = {k: _member(Status, v, f"labels.{k}") for k, v in labels.items()}
        for name in ("differential", "codes"):
            if name in given and (name, given[name]) != ("codes", None):
                given[name] = tuple(_list(given[name], name))
                for item in given[name]:
                    _text(name, item)
        if given.get("truth") is not None:
            _object(given["truth"], "truth")
        if "questions" in given:
            given["questions"] = tuple(
                ManifestQuestion(**_known(ManifestQuestion, item, f"questions[{i}]", question_types=_types))
                for i, item in enumerate(_list(given["questions"], "questions"))
            )
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The rows of a prepared source, and the folder that their paths are relative to.

    Raises:
        ManifestError: there is no row, a study_uid or question_id is repeated, or a patient is in two splits.
    """

    root: Path
    rows: tuple[ManifestRow, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise _wrong("manifest", expected="at least one study", found="none", fix="prepare the source again")
        studies: dict[str, int] = {}
        patients: dict[str, tuple[str, int]] = {}
        questions: dict[str, int] = {}
        for line, row in enumerate(self.rows, start=1):
            first = studies.setdefault(row.study_uid, line)
            if first != line:
                raise _wrong(
                    f"line {line}",
                    expected="a study_uid of its own",
                    found=f"the one of line {first}",
                    fix="keep one row for each study",
                )
            split, first = patients.setdefault(row.patient_id, (row.split, line))
            if split != row.split:
                raise _wrong(
                    f"line {line}",
                    expected="every patient in one split",
                    found=f"a patient in {row.split!r} here and in {split!r} on line {first}",
                    fix="split by patient, so that nobody is trained on and measured on",
                )
            for question in row.questions:
                if question.question_id is None:
                    continue
                if question.question_id in questions:
                    raise _wrong(
                        f"line {line}",
                        expected="a question_id of its own for each question",
                        found=f"one of line {questions[question.question_id]} again",
                        fix="number the questions over the whole manifest",
                    )
                questions[question.question_id] = line

    def split(self, *names: str) -> tuple[ManifestRow, ...]:
        """Returns the rows of these splits, in the order of the manifest.

        Raises:
            ManifestError: the manifest has no such split.
        """
        known = sorted({row.split for row in self.rows})
        for name in names:
            if name not in known:
                raise _wrong("split", expected=f"one of {', '.join(known)}", found=repr(name), fix="name one of these")
        return tuple(row for row in self.rows if row.split in names)

    def path(self, series: ManifestSeries) -> Path:
        """Returns where the series lies on this disk."""
        return self.root / series.path

    def study(self, row: ManifestRow) -> Study:
        """Returns the study of a row, its pixels to be loaded late.

        Identifiers are the row's. Headers are the file's; modality, view, sex, age and indication come from the row
        where the file states none.

        Raises:
            ManifestError: a file cannot be read, is not one series, or contradicts the row.
        """
        read = [self._series(series) for series in row.series]
        patients = [patient for _, patient in read]
        sexes = [p.sex for p in patients] + [row.patient.sex]
        ages = [p.age_years for p in patients] + [row.patient.age]
        return Study(
            study_uid=row.study_uid,
            series=tuple(series for series, _ in read),
            patient=Patient(
                patient_id=row.patient_id,
                sex=next((sex for sex in sexes if sex is not None), None),
                age_years=next((age for age in ages if age is not None), None),
            ),
            indication=row.report.indication,
        )

    def _series(self, series: ManifestSeries) -> tuple[Series, Patient]:
        try:
            reading = io.read(self.path(series))
        except ReadError as error:
            raise _wrong(series.path, expected=error.expected, found=error.found, fix=error.fix) from error
        for file in reading.files:
            if file.status == "refused":
                fix = "prepare the source again, or leave the study out"
                raise _wrong(series.path, expected="images that can be read", found=str(file.reason), fix=fix)
        studies = reading.studies
        if series.modality in ("CT", "MR") and any(
            s.source_format == "NIFTI" for study in studies for s in study.series
        ):
            studies = tuple(io.with_modality(study, series.modality) for study in studies)
        found = [(s, study.patient) for study in studies for s in study.series]
        if len(found) != 1:
            raise _wrong(series.path, expected="one series", found=f"{len(found)}", fix="give each series a path")
        (read, patient), stated = found[0], series.view
        if read.modality and series.modality and read.modality != series.modality:
            raise _contradiction(series.path, "modality", series.modality, read.modality)
        if read.view and stated and read.view != stated and not _says_the_same(read.view, stated):
            raise _contradiction(series.path, "view", stated, read.view)
        return (
            replace(
                read,
                series_uid=series.series_uid,
                modality=read.modality or series.modality,
                view=read.view or stated,
                sha256=series.sha256,
            ),
            patient,
        )


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Returns the manifest of a ``manifest.jsonl``; images are not looked at.

    Raises:
        ManifestError: the file is absent, a line breaks the schema (the message names the line and the field), a
            study_uid is repeated, or a patient is in two splits.
    """
    path = Path(path)
    try:
        # Not splitlines: U+2028 and its like may stand in a text.
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except OSError as error:
        raise _wrong(
            path.name,
            expected="a manifest.jsonl that can be read",
            found=error.strerror or type(error).__name__,
            fix="run the prepare.py of the source, and give the path of its manifest.jsonl",
        ) from error
    except UnicodeDecodeError as error:
        raise _wrong(path.name, expected="UTF-8 text", found="other bytes", fix="save it as UTF-8") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(ManifestRow.from_json(_loads(line)))
        except ManifestError as error:
            where = f"{path.name} line {number}, {error.where}"
            raise ManifestError(where, expected=error.expected, found=error.found, fix=error.fix) from None
    try:
        return Manifest(root=path.parent, rows=tuple(rows))
    except ManifestError as error:
        where = f"{path.name} {error.where}"
        raise ManifestError(where, expected=error.expected, found=error.found, fix=error.fix) from None


def write_manifest(rows: Iterable[ManifestRow], path: str | os.PathLike[str]) -> Manifest:
    """Writes the rows as ``manifest.jsonl`` and returns them as a manifest. The file appears whole or not at all.

    Raises:
        ManifestError: there is no row, a study_uid is repeated, or a patient is in two splits.
    """
    path = Path(path)
    manifest = Manifest(root=path.parent, rows=tuple(rows))
    lines = (json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False) for row in manifest.rows)
    write_whole(path, "".join(f"{line}\n" for line in lines))
    return manifest


def prepared(name: str) -> Path:
    """Returns the manifest of the prepared source ``name``: ``$MMFM_DATA/<name>/manifest.jsonl``.

    Raises:
        ConfigError: MMFM_DATA is unset, or has no such source.
    """
    folder = os.environ.get("MMFM_DATA")
    fix = f"run datasets/{name}/prepare.py with --out $MMFM_DATA/{name}"
    if not folder:
        expected = "the folder of the prepared sources in this environment variable"
        raise ConfigError("MMFM_DATA", expected=expected, found="it unset", fix=f"set it, then {fix}")
    path = Path(folder) / name / "manifest.jsonl"
    if not path.is_file():
        raise ConfigError("MMFM_DATA", expected=f"{name}/manifest.jsonl in it", found="no such file", fix=fix)
    return path


@dataclass(frozen=True, kw_only=True)
class ManifestSummary:
    """What is in a manifest, counted."""

    rows: int
    patients: int
    splits: dict[str, int]
    """Studies by split."""
    series: int
    views: dict[str, int]
    """Series by view; "not stated" where the row has none."""
    modalities: dict[str, int]
    """Series by modality; "not stated" where the row has none."""
    labels: dict[str, dict[str, int]]
    """By name: how many studies are present, absent and uncertain."""
    reports: int
    """Studies with findings or impression."""
    targets: int
    """Studies with a text to train on."""
    questions: int
    missing: tuple[str, ...]
    """Paths with no file or folder behind them."""
    altered: tuple[str, ...]
    """Paths whose file has another SHA-256 than the row says."""

    @property
    def ok(self) -> bool:
        """Whether every file is there and unaltered."""
        return not self.missing and not self.altered

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as JSON values."""
        return to_json(self)

    def to_text(self) -> str:
        """Returns the summary as lines to read."""
        lines = [f"studies    {self.rows} of {self.patients} patients ({_counts(self.splits)})"]
        lines.append(f"series     {self.series} ({_counts(self.views)}; modality {_counts(self.modalities)})")
        lines.append(f"texts      {self.reports} reports, {self.targets} targets to train on")
        if self.questions:
            lines.append(f"questions  {self.questions}")
        width = max((len(name) for name in self.labels), default=0)
        for name, states in self.labels.items():
            lines.append(f"label      {name:{width}}  {_counts(states)}")
        for title, paths in (("missing", self.missing), ("altered", self.altered)):
            lines.append(f"{title:10} {len(paths)}" + (f", first {paths[0]}" if paths else ""))
        return "\n".join(lines)


def check_manifest(path: str | os.PathLike[str]) -> ManifestSummary:
    """Returns what is in a manifest, with the files that are missing or altered (every file is read).

    Raises:
        ManifestError: as ``read_manifest``.
    """
    manifest = read_manifest(path)
    rows = manifest.rows
    series = [s for row in rows for s in row.series]
    states: dict[str, Counter[str]] = {}
    for row in rows:
        for name, status in row.labels.items():
            if status is not None:
                states.setdefault(name, Counter())[status.value] += 1
    found = [(s, manifest.path(s)) for s in series]
    return ManifestSummary(
        rows=len(rows),
        patients=len({row.patient_id for row in rows}),
        splits=dict(Counter(row.split for row in rows)),
        series=len(series),
        views=dict(Counter(s.view.value if s.view else "not stated" for s in series)),
        modalities=dict(Counter(s.modality or "not stated" for s in series)),
        labels={name: {s.value: states[name][s.value] for s in Status} for name in LABEL_NAMES if name in states},
        reports=sum(bool(row.report.findings or row.report.impression) for row in rows),
        targets=sum(bool(row.target and (row.target.findings or row.target.impression)) for row in rows),
        questions=sum(len(row.questions) for row in rows),
        missing=tuple(s.path for s, file in found if not file.exists()),
        altered=tuple(s.path for s, file in found if s.sha256 and file.exists() and sha256(file) != s.sha256),
    )


def sha256(path: Path) -> str:
    """Returns the SHA-256, in hexadecimal, of a file, or of the names and contents of all files below a folder."""
    if path.is_dir():
        return sha256_of(file for file in path.rglob("*") if file.is_file())
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _says_the_same(a: ViewPosition, b: ViewPosition) -> bool:
    """Whether one of them says only frontal or lateral, and the other does not gainsay it."""
    coarse = (ViewPosition.FRONTAL, ViewPosition.LATERAL)
    return (a in coarse or b in coarse) and a.is_lateral == b.is_lateral


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _loads(line: str) -> Any:
    try:
        return json.loads(line, parse_constant=_no_constant)
    except ValueError as error:
        found = "an empty line" if not line.strip() else f"no JSON ({error})"
        raise _wrong("row", expected="one JSON object", found=found, fix="write one study a line") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _known(cls: type, value: Any, where: str, **convert: Callable[[Any], Any]) -> dict[str, Any]:
    """Returns the keys of a JSON object, all of them fields of ``cls`` and none of the required ones missing."""
    given = dict(_object(value, where))
    names, required = _names(cls)
    unknown = sorted(given.keys() - names.keys())
    if unknown:
        fix = "correct or remove it"
        raise _wrong(where, expected=f"keys among {', '.join(names)}", found=", ".join(unknown), fix=fix)
    missing = [name for name in required if name not in given]
    if missing:
        raise _wrong(where, expected=f"the key {missing[0]!r}", found="none", fix="add it")
    for name, function in convert.items():
        if name in given:
            given[name] = function(given[name])
    return given


@functools.cache
def _names(cls: type) -> tuple[dict[str, None], tuple[str, ...]]:
    """Returns the names of the fields of a dataclass in order, and of those that have no default."""
    required = tuple(f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING)
    return {f.name: None for f in fields(cls)}, required


def _sections(value: Any, where: str) -> Sections:
    given = _known(Sections, value, where)
    for name, section in given.items():
        _text_or_none(f"{where}.{name}", section)
    return Sections(**given)


def _member(kind: type[E], value: Any, where: str) -> E | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        expected = f"one of {', '.join(str(member.value) for member in kind)}, or null"
        raise _wrong(where, expected=expected, found=json.dumps(value)[:40]) from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, expected="a JSON object", found=_kind(value))
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(where, expected="a list", found=_kind(value))
    return value


def _types(value: Any) -> tuple[Any, ...]:
    return tuple(_list(value, "question_types"))


def _text(where: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(where, expected="text that is not empty", found=_kind(value))


def _text_or_none(where: str, value: Any) -> None:
    if value is not None:
        _text(where, value)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _kind(value: Any) -> str:
    """Says what a value is without its content, which could identify a patient."""
    if isinstance(value, str):
        return "other text" if value.strip() else "empty text"
    return {type(None): "null", dict: "an object", list: "a list", bool: "a truth value"}.get(type(value), "a number")


def _wrong(where: str, *, expected: str, found: str, fix: str = "correct it") -> ManifestError:
    return ManifestError(where, expected=expected, found=found, fix=fix)


def _contradiction(where: str, name: str, stated: str, found: str) -> ManifestError:
    return _wrong(where, expected=f"{name} {stated} as its row states", found=f"{found} in the file")
