"""De-identification of DICOM files by PS3.15 Annex E: what ``mmfm deid IN OUT --key KEYFILE`` does.

Every file is read as untrusted, its data set walked by ``dataset``, its file meta information made anew and its
preamble zeroed. What may show identity in its pixels goes to ``OUT/quarantine``. ``docs/deidentification.md`` says what
is done and what is not; a person has to look before anything is given away.
"""

from __future__ import annotations

import hmac
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, MediaStorageDirectoryStorage

from mmfm import __version__
from mmfm.errors import ConfigError, ReadError
from mmfm.files import new_folder, write_whole
from mmfm.io.deid.dataset import deidentify_dataset, method_code
from mmfm.io.deid.key import Key
from mmfm.io.deid.pixels import clean_pixels, is_searchable, may_show_identity
from mmfm.io.deid.profile import BASIC, EDITION, FULL_DATES, MODIFIED_DATES, checked_options, method_codes
from mmfm.io.deid.streams import PIXEL_KEYWORDS, strip_pixels
from mmfm.io.dicom import read_header
from mmfm.io.nifti import is_nifti
from mmfm.io.parsing import guessed_syntax, inflated, is_dicom
from mmfm.io.sources import Refusal, Source, walk
from mmfm.io.worker import shared
from mmfm.jsonable import to_json

REPORT = "deid_report.json"
QUARANTINE = "quarantine"
NOTICE = (
    "De-identified by a program, research use only: a person has to look at headers and pixels before anything is "
    "given away. What is in quarantine is not clean."
)

_IMPLEMENTATION_UID = "2.25.307423716350841237045391274836180117273"
_SEAL = "seal "


@dataclass(frozen=True, kw_only=True)
class DeidReport:
    """How many of what were treated how; no original value, UID or file name."""

    notice: str = NOTICE
    profile: str = f"{BASIC[1]} (PS3.15 table E.1-1, edition {EDITION})"
    options: tuple[str, ...]
    written: int
    """Objects that stand in ``OUT`` itself."""
    quarantined: dict[str, int]
    """Why an object may show identity in pixels or a document -> how many."""
    unchanged: int
    """Of all that were written, those that this key had sealed under the same options before."""
    refused: dict[str, int]
    """Why a file was not written -> how many."""
    patients: int
    studies: int
    elements: dict[str, int]
    """What was done -> to how many elements of all objects."""
    blanked: int
    """Boxes blanked in pixels."""
    pixels_not_searched: dict[str, int]
    """What those of the objects in ``OUT`` itself say of burned-in text in whose pixels nothing looked for any -> how
    many."""
    without_pixels: int
    """Images of all that were written that had none: headers that were sent alone, or files that are cut short."""


@dataclass(kw_only=True)
class _Tally:
    pixels_not_searched: Counter[str] = field(default_factory=Counter)
    without_pixels: int = 0
    written: int = 0
    unchanged: int = 0
    blanked: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)
    patients: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)


def deidentify(
    path: str | Path, out: str | Path, *, key: str | Path, retain: Iterable[str] = (), clean: Iterable[str] = ()
) -> DeidReport:
    """Writes every DICOM object at ``path`` (a folder, a zip or a file) de-identified to the new folder ``out``.

    Args:
        path: what to read; left as it is.
        out: made whole or not at all; must not exist, or be empty.
        key: a file of at least 16 random bytes. The same key gives the same replacements.
        retain: options of PS3.15 E.3 that retain, as in ``profile.RETAIN``.
        clean: options of PS3.15 E.3 that clean, as in ``profile.CLEAN``.

    Raises:
        ConfigError: an option, the key or ``out`` cannot be used.
        ReadError: there is nothing at ``path``, or nothing that can be de-identified.
    """
    path, out = Path(path), Path(out)
    options = checked_options(retain=list(retain), clean=list(clean))
    secret = Key.from_file(Path(key))
    if out.resolve() == path.resolve() or path.resolve() in out.resolve().parents:
        raise ConfigError("OUT", expected="a folder outside IN", found="one inside it", fix="give another one")
    tally = _Tally()
    with new_folder(out) as folder:
        for entry in walk(path):
            if isinstance(entry, Refusal):
                tally.refused[_reason(entry.reason)] += 1
            else:
                _deidentify_file(*entry, folder=folder, key=secret, options=options, tally=tally)
        report = DeidReport(
            options=tuple(sorted(options)),
            written=tally.written,
            quarantined=dict(sorted(tally.quarantined.items())),
            unchanged=tally.unchanged,
            refused=dict(sorted(tally.refused.items())),
            patients=len(tally.patients),
            studies=len(tally.studies),
            elements=dict(sorted(tally.elements.items())),
            blanked=tally.blanked,
            pixels_not_searched=dict(sorted(tally.pixels_not_searched.items())),
            without_pixels=tally.without_pixels,
        )
        if not report.written and not report.quarantined:
            found = "; ".join(f"{count} refused: {reason}" for reason, count in report.refused.items()) or "no file"
            raise ReadError("IN", expected="at least one DICOM object", found=found, fix="see mmfm inspect")
        write_whole(folder / REPORT, json.dumps(to_json(report), indent=2) + "\n")
    return report


def _deidentify_file(
    source: Source, stream: BinaryIO, *, folder: Path, key: Key, options: frozenset[str], tally: _Tally
) -> None:
    try:
        if is_nifti(stream):
            raise ReadError("", expected="a DICOM file: NIfTI is not de-identified here", found="NIfTI", fix="")
        if not is_dicom(stream):
            raise ReadError("", expected="a DICOM file", found="another one", fix="")
        header = read_header(source, stream, shared.decode)
        dataset = _parsed(stream)
        bare = not any(keyword in dataset for keyword in PIXEL_KEYWORDS)
        if header.refused and not bare:
            raise ReadError("", expected=header.refused.removeprefix("expected "), found="", fix="")
        content = _sealed(dataset, key, options)
        tally.unchanged += content is not None
        reason = may_show_identity(dataset)
        if content is None:
            _refuse_moved(dataset, key, options)
            elements = _treated(dataset, key, options)
            blanked = 0
            if "pixel-data" in options and header.instance and header.instance.load:
                blanked = clean_pixels(dataset, header.instance.load)
            reason = reason or ("text found in the pixels" if blanked else None)
            tally.elements += elements
            tally.blanked += blanked
            if reason and not may_show_identity(dataset):  # what said so was removed, such as an overlay's position
                dataset.BurnedInAnnotation = "YES"
            content = _with_seal(dataset, key, options)
    except ReadError as error:
        tally.refused[_reason(f"expected {error.expected}")] += 1
        return
    except ConfigError:
        raise
    except RecursionError:
        tally.refused["sequences nested too deep"] += 1
        return
    except Exception as error:  # untrusted bytes: whatever a parser or writer raises is the file's fault
        tally.refused[f"damage ({type(error).__name__})"] += 1
        return
    study = key.file_name(str(dataset.get("StudyInstanceUID", "")).encode())
    place = folder / QUARANTINE / study if reason else folder / study
    file = place / f"{key.file_name(content)}.dcm"
    if file.exists():
        tally.refused["expected another object in each file"] += 1
        return
    place.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    tally.patients.add(str(dataset.get("PatientID", "")))
    tally.studies.add(study)
    tally.without_pixels += bool(header.refused)
    if reason:
        tally.quarantined[reason] += 1
        return
    tally.written += 1
    if header.instance and not ("pixel-data" in options and is_searchable(dataset)):
        tally.pixels_not_searched[_statement(dataset)] += 1


def _statement(dataset: Dataset) -> str:
    says = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
    return "Burned In Annotation NO" if says == "NO" else "Burned In Annotation is not stated"


def _reason(words: str) -> str:
    """Returns what was expected, without what was found: that could be a value of the file."""
    return words.split(", found")[0].split(": found")[0]


def _parsed(stream: BinaryIO) -> Dataset:
    """Returns the data set with file meta information made anew.

    Raises:
        ReadError: it deflates too far, or is no single object.
    """
    stream, syntax = inflated(stream)
    dataset = dcmread(stream, force=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax or guessed_syntax(dataset))
    stated = dataset.file_meta.get("MediaStorageSOPClassUID")
    dataset.file_meta = meta
    if "DirectoryRecordSequence" in dataset or stated == MediaStorageDirectoryStorage:
        raise ReadError("", expected="an object: a DICOMDIR is not carried over", found="", fix="")
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if not dataset.get(keyword):
            raise ReadError("", expected=f"a {keyword}", found="none", fix="")
    return dataset


def _refuse_moved(dataset: Dataset, key: Key, options: frozenset[str]) -> None:
    """Refuses what this key has treated before where dates would move a second time."""
    patient, instance = (str(dataset.get(keyword) or "") for keyword in ("PatientID", "SOPInstanceUID"))
    if MODIFIED_DATES in options and (key.patient_id(patient) == patient or key.uid(instance) == instance):
        wanted = "an original: dates of what this key has treated under other options would move twice"
        raise ReadError("", expected=wanted, found="", fix="")


def _treated(dataset: Dataset, key: Key, options: frozenset[str]) -> Counter[str]:
    """De-identifies ``dataset`` in place, what can be read in its pixels apart; returns what was done how often."""
    elements = deidentify_dataset(dataset, key=key, options=options)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"mmfm, PS3.15 {EDITION}"
    claimed = options if is_searchable(dataset) else options - {"pixel-data"}
    dataset.DeidentificationMethodCodeSequence = Sequence([method_code(*code) for code in method_codes(claimed)])
    # PS3.15 E.3.6, and PS3.3 C.12.1.1.
    words = {FULL_DATES: "UNMODIFIED", MODIFIED_DATES: "MODIFIED"}
    dataset.LongitudinalTemporalInformationModified = next((words[o] for o in options if o in words), "REMOVED")
    strip_pixels(dataset)
    return elements


def _with_seal(dataset: Dataset, key: Key, options: frozenset[str]) -> bytes:
    """Returns the file, its De-identification Method ending in a seal over all the rest and the options."""
    method = str(dataset.DeidentificationMethod)
    dataset.DeidentificationMethod = [method, _SEAL + key.seal(_sealable(dataset, options))]
    return _encoded(dataset)


def _sealed(dataset: Dataset, key: Key, options: frozenset[str]) -> bytes | None:
    """Returns the file as it is, where this key has sealed exactly this content under these options."""
    stated = dataset.get("DeidentificationMethod")
    if not isinstance(stated, Iterable) or isinstance(stated, str) or len(method := list(stated)) != 2:
        return None
    if not str(method[1]).startswith(_SEAL):
        return None
    try:
        dataset.DeidentificationMethod = method[0]
        good = hmac.compare_digest(_SEAL + key.seal(_sealable(dataset, options)), str(method[1]))
        dataset.DeidentificationMethod = method
        return _encoded(dataset) if good else None
    except Exception:  # what cannot be written was not written by us
        dataset.DeidentificationMethod = method
        return None


def _sealable(dataset: Dataset, options: frozenset[str]) -> bytes:
    return ",".join(sorted(options)).encode() + b"\0" + _encoded(dataset)


def _encoded(dataset: Dataset) -> bytes:
    """Returns the whole file: a preamble of zeros, and no more file meta information than a reader needs."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    meta.ImplementationVersionName = f"MMFM {__version__}"[:16]
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
