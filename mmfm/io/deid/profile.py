"""What PS3.15 Annex E says of each attribute: table E.1-1 of edition 2026c, and the options that are built.

The table is ``profile.tsv``, one line an attribute; private attributes that the standard calls safe (table
E.3.10-1) are in ``safe_private.tsv``. An action that depends on the Type of an attribute ("X/Z/D") is resolved by
the IOD where its Type is known here, and otherwise by the part that keeps any IOD valid.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MRImageStorage,
)

from mmfm.errors import ConfigError

EDITION = "2026c"

FULL_DATES, MODIFIED_DATES, SAFE_PRIVATE = "longitudinal-full-dates", "longitudinal-modified-dates", "safe-private"

RETAIN = {
    "device-identity": ("113109", "Retain Device Identity Option"),
    "institution-identity": ("113112", "Retain Institution Identity Option"),
    FULL_DATES: ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    MODIFIED_DATES: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient-characteristics": ("113108", "Retain Patient Characteristics Option"),
    SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
    "uids": ("113110", "Retain UIDs Option"),
}
CLEAN = {
    "descriptors": ("113105", "Clean Descriptors Option"),
    "pixel-data": ("113101", "Clean Pixel Data Option"),
}
"""Name of the option -> its code of CID 7050 (PS3.16)."""
BASIC = ("113100", "Basic Application Confidentiality Profile")

_CLASSIC = {
    CTImageStorage,
    ComputedRadiographyImageStorage,
    MRImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
}
_TYPE_3 = {
    "AcquisitionDate",
    "AcquisitionDateTime",
    "AcquisitionDeviceProcessingDescription",
    "AcquisitionTime",
    "DateOfLastDetectorCalibration",
    "DetectorID",
    "DeviceSerialNumber",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "InstitutionCodeSequence",
    "InstitutionName",
    "OperatorIdentificationSequence",
    "OperatorsName",
    "ProtocolName",
    "ReferencedPerformedProcedureStepSequence",
    "ReferencedStudySequence",
    "SeriesDate",
    "SeriesTime",
    "StationName",
    "TimeOfLastDetectorCalibration",
}
_TYPE_2 = {"ContentDate", "ContentTime", "ContrastBolusAgent", "PatientSexNeutered"}
"""Types at the top level of the classic IODs above (PS3.3 A.2 to A.4, A.26, A.27)."""


class Action(StrEnum):
    """PS3.15 table E.1-1a."""

    DUMMY = "D"
    EMPTY = "Z"
    REMOVE = "X"
    KEEP = "K"
    CLEAN = "C"
    UID = "U"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One line of the table."""

    keyword: str
    basic: str
    options: dict[str, Action]

    def action(self, options: Collection[str], *, sop_class: str | None) -> Action:
        """Returns what is done; a retained attribute is not cleaned as well.

        A date of a device moves with all others: one that stayed beside them would tell by how much they moved.

        Args:
            options: names of the options in force.
            sop_class: of the object at whose top level the attribute stands, ``None`` inside a sequence.
        """
        chosen = {self.options[option] for option in options if option in self.options}
        if MODIFIED_DATES in options and MODIFIED_DATES in self.options:
            return Action.CLEAN
        return min(chosen, key="KCUX".index) if chosen else self.basic_action(sop_class=sop_class)

    def basic_action(self, *, sop_class: str | None) -> Action:
        """Returns what is done without any option."""
        codes = self.basic.rstrip("*").split("/")
        if len(codes) > 1 and sop_class in _CLASSIC:
            if self.keyword in _TYPE_3 and "X" in codes:
                return Action.REMOVE
            if self.keyword in _TYPE_2 and "Z" in codes:
                return Action.EMPTY
        return Action(codes[-1])


@cache
def table() -> dict[str, Rule]:
    """Returns the table: eight hexadecimal digits, "x" for any digit -> the rule."""
    rules = {}
    for line in Path(__file__).with_name("profile.tsv").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        tag, keyword, basic, options = line.split("\t")
        pairs = (option.split("=") for option in options.split(",") if "=" in option)
        rules[tag] = Rule(keyword=keyword, basic=basic, options={name: Action(code) for name, code in pairs})
    return rules


@cache
def safe_private() -> frozenset[tuple[str, int, int]]:
    """Returns private creator, group and element within its block of each private attribute that is safe."""
    lines = Path(__file__).with_name("safe_private.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return frozenset((creator, int(group, 16), int(element, 16)) for creator, group, element in rows)


def rule(tag: int) -> Rule | None:
    """Returns the line of the table for ``tag``, ``None`` where it has none."""
    name = f"{tag:08X}"
    if found := table().get(name):
        return found
    if name[:2] in ("50", "60"):  # the groups 5000 to 50FF and 6000 to 60FF repeat (PS3.5 7.6)
        return table().get("50xxxxxx" if name[:2] == "50" else f"60xx{name[4:]}")
    return None


def checked_options(*, retain: Collection[str], clean: Collection[str]) -> frozenset[str]:
    """Returns the options by name.

    Raises:
        ConfigError: a name is not among those that are built, or two contradict each other.
    """
    for flag, names, built in (("--retain", retain, RETAIN), ("--clean", clean, CLEAN)):
        for name in names:
            if name not in built:
                raise ConfigError(flag, expected=f"one of {', '.join(built)}", found=name, fix="see mmfm deid --help")
    options = frozenset([*retain, *clean])
    if {FULL_DATES, MODIFIED_DATES} <= options:
        raise ConfigError(
            "--retain", expected="dates kept or moved (PS3.15 E.3.6)", found="both options", fix="give one of them"
        )
    return options


def method_codes(options: Iterable[str]) -> list[tuple[str, str]]:
    """Returns code and meaning (CID 7050) of the profile and of each option."""
    return [BASIC, *sorted((RETAIN | CLEAN)[option] for option in options)]
