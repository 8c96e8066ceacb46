"""The planter: a string of its own in every attribute, and none of them in the bytes that come out.

What is planted comes from pydicom's dictionary and the table of dicom-anonymizer, nothing from the code under test.
"""

import importlib
import json
import re
import stat
import subprocess
import sys
from datetime import date, datetime, timedelta

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    generate_uid,
)

from mmfm.errors import ConfigError, ReadError
from mmfm.io import deidentify
from mmfm.io.deid.profile import safe_private, table

FULL_DATES, MODIFIED_DATES = "longitudinal-full-dates", "longitudinal-modified-dates"
CHARACTERISTICS = "patient-characteristics"
DATABASE = importlib.import_module("dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c")
TABLE = [
    tag
    for name in ("D", "Z", "X", "U", "Z_D", "X_Z", "X_D", "X_Z_D", "X_Z_U_STAR")
    for tag in getattr(DATABASE, f"{name}_TAGS")
]
"""The 655 entries of table E.1-1, edition 2026c: (group, element), of repeating groups with masks behind."""

BYTES_VRS = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "a.key"
    path.write_bytes(bytes(range(32)))
    return path


def objects(out):
    """The objects under ``out`` by their place, those in quarantine too."""
    return {path.relative_to(out).as_posix(): pydicom.dcmread(path) for path in sorted(out.rglob("*.dcm"))}


def one(out):
    (found,) = objects(out).values()
    return found


def report(out):
    return json.loads((out / "deid_report.json").read_text())


class Planter:
    """Makes values that are valid enough for their VR and hold a word found nowhere else."""

    def __init__(self):
        self.planted = []

    def word(self, form):
        self.planted.append(form.format(len(self.planted)))
        return self.planted[-1]

    def value(self, vr):
        if vr in BYTES_VRS:
            return self.word("Qz{:05}xk").encode()
        match vr:
            case "DA":  # a step of a week: moved by the days of this key, no date becomes another one
                return self.word(f"{date(1600, 1, 1) + timedelta(days=7 * len(self.planted)):%Y%m%d}")
            case "DT":
                return self.word("17010203040506.7{:05}")
            case "TM":
                return self.word("010203.7{:05}")
            case "UI":
                return self.word("1.2.999.77{:05}")
            case "IS" | "DS":  # long, or the digits of a UID would hold it by chance
                return self.word("19998{:05}")
            case "AS":
                return self.word("{:03}D")
            case "SQ":
                item = Dataset()
                item.add_new(0x0008103E, "LO", self.word("QZ{:05}XK"))
                item.add_new(0x00080018, "UI", self.word("1.2.999.77{:05}"))
                return Sequence([item])
            case "US" | "SS" | "UL" | "SL" | "FL" | "FD" | "AT" | "SV" | "UV":
                return 7
            case _:
                return self.word("QZ{:05}XK")

    def element(self, tag):
        vr = dictionary_VR(tag).split(" or ")[0] if dictionary_has_tag(tag) else "LO"
        value = self.value(vr)
        return DataElement(tag, vr, value)


def tags():
    for entry in TABLE:
        group, number = entry[:2]
        if len(entry) == 4:
            for repeat in (0, 2, 0x1E):
                yield Tag(group + repeat, number or 0x0010)
        elif group >= 8:
            yield Tag(group, number)


def plant(dataset, planter):
    """Plants every attribute of the table, and private ones of the same numbers."""
    for tag in tags():
        if tag in dataset and tag in (0x00080018, 0x0020000D, 0x0020000E):
            dataset[tag].value = planter.word("1.2.999.77{:05}")
        else:
            dataset.add(planter.element(tag))
    for number, tag in enumerate(tags()):
        private = Tag((tag.group | 1) if tag.group > 8 else 9, 0x1000 + (number & 0xFFF))
        if tag.group % 2 == 0 and private not in dataset:
            dataset.add_new(private, "LO", planter.word("QZ{:05}XK"))
    dataset.add_new(0x00091001, "SQ", Sequence([private_item(planter)]))
    dataset.add_new(0x00090010, "LO", planter.word("QZ{:05}XK"))


def private_item(planter):
    item = Dataset()
    item.PatientName = planter.word("QZ{:05}XK")
    return item


def leftovers(out, planted):
    """What of ``planted`` stands anywhere under ``out``, in names and bytes, in several encodings."""
    whole = b"".join(
        path.name.encode() + b"\0" + (path.read_bytes() if path.is_file() else b"") for path in out.rglob("*")
    )
    encodings = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "shift_jis", "cp037")
    return [word for word in planted if any(word.encode(encoding) in whole for encoding in encodings)]


@pytest.fixture
def planted(write_dicom, picture, tmp_path):
    """A file with a word of its own in every attribute: at the top, in a sequence, three deep, and as private."""

    def make(name="in/a.dcm", **attributes):
        planter = Planter()
        path = write_dicom(name, picture, **attributes)
        dataset = pydicom.dcmread(path)
        plant(dataset, planter)
        deep = Dataset()
        plant(deep, planter)
        middle = Dataset()
        middle.PurposeOfReferenceCodeSequence = Sequence([deep])
        inner = Dataset()
        plant(inner, planter)
        inner.DerivationCodeSequence = Sequence([middle])
        dataset.DerivationImageSequence = Sequence([inner])
        dataset.file_meta.SourceApplicationEntityTitle = planter.word("QZ{:05}XK")
        dataset.file_meta.SendingApplicationEntityTitle = planter.word("QZ{:05}XK")
        dataset.file_meta.PrivateInformationCreatorUID = planter.word("1.2.999.77{:05}")
        dataset.file_meta.PrivateInformation = planter.word("QZ{:05}XK").encode()
        dataset.file_meta.ImplementationVersionName = planter.word("QZ{:05}XK")
        dataset.preamble = planter.word("QZ{:05}XK").encode().ljust(128, b"\0")
        dataset.add_new(0xFFFCFFFC, "OB", planter.word("QZ{:05}XK").encode())
        dataset.add_new(0x00180FFF, "UN", planter.word("QZ{:05}XK").encode())
        dataset.PixelData = dataset.PixelData + planter.word("QZ{:05}XK").encode()
        dataset.save_as(path)
        return path, planter.planted

    return make


def test_the_table_is_that_of_the_edition():
    names = {
        ("50xxxxxx" if t[0] == 0x5000 else f"60xx{t[1]:04X}") if len(t) == 4 else f"{t[0]:04X}{t[1]:04X}" for t in TABLE
    }
    assert len(names) == 655
    assert set(table()) == names
    codes = {"D": "D", "Z": "Z", "X": "X", "U": "U", "Z_D": "Z/D", "X_Z": "X/Z", "X_D": "X/D", "X_Z_D": "X/Z/D"}
    for name, code in codes.items():
        for tag in getattr(DATABASE, f"{name}_TAGS"):
            if len(tag) == 2:
                assert table()[f"{tag[0]:04X}{tag[1]:04X}"].basic == code


@pytest.mark.parametrize("clean", [[], ["descriptors"]])
@pytest.mark.parametrize("retain", [[], [MODIFIED_DATES]])
def test_nothing_planted_remains_in_the_bytes(planted, key, tmp_path, retain, clean):
    path, words = planted()
    assert len(words) > 2500
    assert len(leftovers(path.parent, words)) > 2400, "the planter has to plant"
    deidentify(path, tmp_path / "out", key=key, retain=retain, clean=clean)
    left = leftovers(tmp_path / "out", words)
    # A time of day stays where dates are moved by whole days, and so does the time of a DT.
    assert [word for word in left if not (retain and re.fullmatch(r"0[14]0[25]0[36]\.7\d{5}", word))] == []


@pytest.mark.parametrize("clean", [[], ["descriptors"]])
def test_nothing_planted_outside_the_table_remains(write_dicom, picture, key, tmp_path, clean):
    """Names, dates, typed text, addresses and numbers of orders of attributes that table E.1-1 does not name."""
    vrs, codes = ("PN", "DA", "DT", "LT", "ST", "UT", "UR"), ("URNCodeValue",)
    orders = (0x00401006, 0x00401007, 0x00402006, 0x00402007)
    listed = {Tag(*entry) for entry in TABLE if len(entry) == 2}
    outside = [
        Tag(number)
        for number, (vr, _, _, _, keyword) in DicomDictionary.items()
        if (vr in vrs or number in orders)
        and keyword not in codes
        and Tag(number) not in listed
        and number >= 0x00080000
    ]
    planter = Planter()
    path = write_dicom("in/a.dcm", picture)
    dataset, inner = pydicom.dcmread(path), Dataset()
    for tag in outside:
        dataset.add(planter.element(tag))
        inner.add(planter.element(tag))
    dataset.DerivationImageSequence = Sequence([inner])
    dataset.save_as(path)
    assert len(leftovers(path.parent, planter.planted)) == len(planter.planted) == 2 * len(outside) > 250
    deidentify(path, tmp_path / "out", key=key, clean=clean)
    assert leftovers(tmp_path / "out", planter.planted) == []


def test_dates_do_not_move_twice(write_dicom, picture, key, tmp_path):
    """An output that is run again with other options is refused where dates would move."""
    write_dicom("in/a.dcm", picture, StudyDate="20200202")
    write_dicom("in/b.dcm", picture, StudyDate="20200202", PatientID="")
    deidentify(tmp_path / "in", tmp_path / "out", key=key, retain=[MODIFIED_DATES])
    with pytest.raises(ReadError, match="2 refused: expected an original"):
        deidentify(tmp_path / "out", tmp_path / "again", key=key, retain=[MODIFIED_DATES, CHARACTERISTICS])
    deidentify(tmp_path / "out", tmp_path / "again", key=key, retain=[CHARACTERISTICS])
    assert {found.StudyDate for found in objects(tmp_path / "again").values()} == {""}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_nothing_planted_remains_in_other_syntaxes(planted, key, tmp_path, syntax):
    path, words = planted()
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True, force_encoding=True)
    deidentify(path, tmp_path / "out", key=key)
    assert leftovers(tmp_path / "out", words) == []


def test_a_second_pass_with_the_same_key_changes_nothing(planted, write_dicom, picture, key, tmp_path):
    planted()
    write_dicom("in/b.dcm", picture, Modality="CT", StudyDate="20200102", SeriesDescription="CT of Jane Doe")
    options = {"retain": [MODIFIED_DATES, CHARACTERISTICS], "clean": ["descriptors"]}
    deidentify(tmp_path / "in", tmp_path / "first", key=key, **options)
    deidentify(tmp_path / "first", tmp_path / "second", key=key, **options)

    def content(out):
        return {path.relative_to(out): path.read_bytes() for path in out.rglob("*.dcm")}

    assert len(content(tmp_path / "first")) == 2
    assert content(tmp_path / "first") == content(tmp_path / "second")
    assert report(tmp_path / "second")["unchanged"] == 2


def test_no_claim_of_a_file_is_believed(write_dicom, picture, key, tmp_path):
    """Neither the flag, nor a UID that this key made, nor a seal that was copied from another file lets a name pass."""
    write_dicom("in/a.dcm", picture)
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    (path,) = (tmp_path / "out").rglob("*.dcm")
    dataset = pydicom.dcmread(path)
    dataset.PatientName = "Doe^Jane"
    dataset.save_as(tmp_path / "claims.dcm")
    deidentify(tmp_path / "claims.dcm", tmp_path / "again", key=key)
    found = one(tmp_path / "again")
    assert report(tmp_path / "again")["unchanged"] == 0
    assert found.PatientName == ""
    assert (found.SOPInstanceUID, found.PatientID) == (dataset.SOPInstanceUID, dataset.PatientID)


def test_uids_and_patients_are_consistent_and_references_resolve(write_dicom, picture, key, tmp_path):
    shared = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "FrameOfReferenceUID": "1.2.9"}
    write_dicom("in/a.dcm", picture, SOPInstanceUID="1.2.3.4.1", **shared)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.1"
    write_dicom("in/b.dcm", picture, SOPInstanceUID="1.2.3.4.2", SourceImageSequence=[item], **shared)
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    deidentify(tmp_path / "in" / "a.dcm", tmp_path / "alone", key=key)
    other_key = tmp_path / "b.key"
    other_key.write_bytes(b"another key, 16+")
    deidentify(tmp_path / "in", tmp_path / "other", key=other_key)
    found = objects(tmp_path / "out").values()
    (referring,) = [each for each in found if "SourceImageSequence" in each]
    (referred,) = [each for each in found if "SourceImageSequence" not in each]
    assert referring.SourceImageSequence[0].ReferencedSOPInstanceUID == referred.SOPInstanceUID
    assert referring.SourceImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert referring[keyword].value == referred[keyword].value != shared.get(keyword, "P1")
    assert re.fullmatch(r"2\.25\.[1-9]\d{30,38}", referred.SOPInstanceUID)
    assert referred.file_meta.MediaStorageSOPInstanceUID == referred.SOPInstanceUID
    assert one(tmp_path / "alone") == referred, "the same key gives the same object, run by run"
    theirs = {each.SOPInstanceUID for each in objects(tmp_path / "other").values()}
    assert not theirs & {each.SOPInstanceUID for each in found}


def test_dates_of_a_patient_move_by_the_same_days(write_dicom, picture, key, tmp_path):
    days = ("20200131", "20200301", "20210101")
    for number, day in enumerate(days):
        write_dicom(
            f"in/{number}.dcm", picture, StudyDate=day, StudyTime="101112.5", AcquisitionDateTime=f"{day}0102+0100"
        )
    write_dicom("in/other.dcm", picture, StudyDate=days[0], PatientID="P2", PatientBirthDate="19500101")
    deidentify(tmp_path / "in", tmp_path / "out", key=key, retain=[MODIFIED_DATES])
    found = objects(tmp_path / "out").values()
    (mine,) = {each.PatientID for each in found if "AcquisitionDateTime" in each}

    def read(value):
        return datetime.strptime(value[:8], "%Y%m%d")

    moved = sorted(each.StudyDate for each in found if each.PatientID == mine)
    shifts = {(read(after) - read(before)).days for before, after in zip(days, moved, strict=True)}
    assert len(shifts) == 1
    assert -3653 <= shifts.pop() <= -365
    for each in found:
        if each.PatientID == mine:
            assert each.StudyTime == "101112.5"
            assert each.AcquisitionDateTime == f"{each.StudyDate}0102+0100"
        else:
            assert each.StudyDate not in (moved[0], days[0])
            assert each.PatientBirthDate == ""
        assert each.LongitudinalTemporalInformationModified == "MODIFIED"


def test_it_says_what_was_done(write_dicom, picture, key, tmp_path):
    write_dicom("in/a.dcm", picture)
    deidentify(tmp_path / "in", tmp_path / "out", key=key, retain=[CHARACTERISTICS], clean=["descriptors"])
    found = one(tmp_path / "out")
    assert found.PatientIdentityRemoved == "YES"
    assert found.DeidentificationMethod[0].startswith("mmfm")
    codes = {item.CodeValue for item in found.DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113108", "113105"}
    assert found.LongitudinalTemporalInformationModified == "REMOVED"
    assert "BurnedInAnnotation" not in found, "nobody has looked"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned-in annotation"),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}, "secondary capture or photograph"),
        ({"SOPClassUID": UltrasoundImageStorage, "Modality": "US"}, "ultrasound"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screenshot"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "derived image that does not say whether it is annotated"),
        ({"ConversionType": "WSD"}, "secondary capture or photograph"),
    ],
)
def test_what_may_show_identity_in_pixels_goes_to_quarantine(write_dicom, picture, key, tmp_path, attributes, reason):
    write_dicom("in/a.dcm", picture, **attributes)
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    ((place, found),) = objects(tmp_path / "out").items()
    assert place.startswith("quarantine/")
    assert found.PatientName == ""
    assert found.get("BurnedInAnnotation", "") == attributes.get("BurnedInAnnotation", "")
    assert report(tmp_path / "out")["quarantined"] == {reason: 1}


def test_an_overlay_inside_the_pixels_stays_in_quarantine_in_a_second_pass(write_dicom, picture, key, tmp_path):
    path = write_dicom("in/a.dcm", picture)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 12)
    dataset.save_as(path)
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    deidentify(tmp_path / "out", tmp_path / "again", key=key)
    assert report(tmp_path / "out")["quarantined"] == {"overlay inside the pixels": 1}
    ((place, found),) = objects(tmp_path / "again").items()
    assert place.startswith("quarantine/")
    assert found.BurnedInAnnotation == "YES"


def test_an_encapsulated_document_is_emptied_and_quarantined(write_dicom, picture, key, tmp_path):
    path = write_dicom("in/a.dcm", picture)
    dataset = pydicom.dcmread(path)
    for keyword in ("PixelData", "Rows", "Columns"):
        del dataset[keyword]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    dataset.EncapsulatedDocument, dataset.MIMETypeOfEncapsulatedDocument = b"%PDF-1.4 Jane Doe", "application/pdf"
    dataset.save_as(path)
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    ((place, found),) = objects(tmp_path / "out").items()
    assert place.startswith("quarantine/")
    assert found.EncapsulatedDocument.startswith(b"%PDF")
    assert leftovers(tmp_path / "out", ["Jane", "Doe"]) == []


def test_names_and_the_report_hold_no_value_of_the_input(write_dicom, picture, key, tmp_path):
    write_dicom("in/Doe_Jane_P1/1.2.3.dcm", picture, StudyInstanceUID="1.2.3.99", AccessionNumber="ACC123456")
    (tmp_path / "in" / "Doe_Jane.txt").write_text("Jane Doe")
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    assert leftovers(tmp_path / "out", ["Doe", "Jane", "1.2.3.99", "ACC123456", "P1/"]) == []
    for path in (tmp_path / "out").rglob("*.dcm"):
        assert re.fullmatch(r"[0-9a-f]{24}/[0-9a-f]{24}\.dcm", path.relative_to(tmp_path / "out").as_posix())
        found = pydicom.dcmread(path)
        assert not any(str(uid) in str(path) for uid in (found.SOPInstanceUID, found.PatientID))
    done = report(tmp_path / "out")
    assert (done["written"], done["patients"], done["studies"]) == (1, 1, 1)
    assert done["refused"] == {"expected a DICOM file": 1}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_pixels_of_what_is_not_cleaned_stay_as_they_are(write_dicom, picture, key, tmp_path):
    picture = np.kron(picture, np.ones((4, 4), np.uint8))
    path = write_dicom("in/a.dcm", picture)
    packed = pydicom.dcmread(path)
    packed.SOPInstanceUID = packed.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    packed.compress(JPEG2000Lossless, generate_instance_uid=False)
    packed.save_as(tmp_path / "in" / "b.dcm")
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    found = objects(tmp_path / "out").values()
    assert {each.file_meta.TransferSyntaxUID for each in found} >= {JPEG2000Lossless}
    for each in found:
        assert np.array_equal(each.pixel_array, picture)


def test_known_names_are_taken_out_of_text_that_stays(write_dicom, picture, key, tmp_path):
    write_dicom(
        "in/a.dcm",
        picture,
        PatientName="Featherstone^Marigold",
        PatientID="MRN99123",
        BodyPartExamined="CHEST",
        FilterType="for FEATHERSTONE, marigold MRN99123",
    )
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    found = one(tmp_path / "out")
    assert found.BodyPartExamined == "CHEST"
    assert not re.search("feather|marigold|MRN99123", found.FilterType, re.IGNORECASE)


def test_ages_above_89_become_90(write_dicom, picture, key, tmp_path):
    write_dicom("in/a.dcm", picture, PatientAge="097Y", PatientSex="F", PatientWeight="60")
    deidentify(tmp_path / "in", tmp_path / "out", key=key, retain=[CHARACTERISTICS])
    found = one(tmp_path / "out")
    assert (found.PatientAge, found.PatientSex, found.PatientWeight) == ("090Y", "F", 60)


def test_retained_uids_stay(write_dicom, picture, key, tmp_path):
    path = write_dicom("in/a.dcm", picture)
    deidentify(tmp_path / "in", tmp_path / "out", key=key, retain=["uids"])
    assert one(tmp_path / "out").SOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID


def test_a_retained_device_and_institution_stay_and_its_dates_move_with_all_others(write_dicom, picture, key, tmp_path):
    stated = {
        "InstitutionName": "Larkspur Hollow Infirmary",
        "StationName": "CT-7",
        "DeviceSerialNumber": "SN-99123",
        "DateOfLastCalibration": "20200102",
        "StudyDate": "20200202",
        "StationAETitle": "QZ1XK",
        "OperatorsName": "Featherstone^Marigold",
        "ManufacturerModelName": "Larkspur Hollow Infirmary SN-99123 Marigold",
    }
    write_dicom("in/a.dcm", picture, **stated)
    retained = ["device-identity", "institution-identity"]
    deidentify(tmp_path / "in", tmp_path / "out", key=key, retain=retained)
    found = one(tmp_path / "out")
    for keyword in ("InstitutionName", "StationName", "DeviceSerialNumber", "DateOfLastCalibration"):
        assert found[keyword].value == stated[keyword]
    assert found.ManufacturerModelName == "Larkspur Hollow Infirmary SN-99123 [NAME]"
    assert (found.StudyDate, "StationAETitle" in found, "OperatorsName" in found) == ("", False, False)
    assert {item.CodeValue for item in found.DeidentificationMethodCodeSequence} == {"113100", "113109", "113112"}
    deidentify(tmp_path / "in", tmp_path / "moved", key=key, retain=[*retained, MODIFIED_DATES])
    found = one(tmp_path / "moved")
    days = [datetime.strptime(found[keyword].value, "%Y%m%d") for keyword in ("DateOfLastCalibration", "StudyDate")]
    assert (days[1] - days[0]).days == 31
    assert found.StudyDate != "20200202"


def test_full_dates_stay_where_they_are_dates(write_dicom, picture, key, tmp_path):
    stated = {"StudyDate": "20200202", "StudyTime": "101112.5", "PatientBirthDate": "19500203"}
    path = write_dicom("in/a.dcm", picture, ContentDate="20200203", TimezoneOffsetFromUTC="+0100", **stated)
    path.write_bytes(path.read_bytes().replace(b"20200203", b"Jane Doe"))
    deidentify(path, tmp_path / "out", key=key, retain=[FULL_DATES])
    found = one(tmp_path / "out")
    assert (found.StudyDate, found.StudyTime) == (stated["StudyDate"], stated["StudyTime"])
    assert (found.PatientBirthDate, found.ContentDate, found.TimezoneOffsetFromUTC) == ("", "", "+0100")
    assert found.LongitudinalTemporalInformationModified == "UNMODIFIED"


def test_safe_private_attributes_stay_with_their_creators_and_no_others(write_dicom, picture, key, tmp_path):
    path = write_dicom("in/a.dcm", picture, PatientName="Featherstone^Marigold")
    dataset = pydicom.dcmread(path)
    siemens = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    siemens.add_new(0x0C, "IS", "1000")
    siemens.add_new(0x0F, "LO", "Jane Doe")
    philips = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
    philips.add_new(0x03, "FL", 500.0)
    philips.add_new(0x64, "SH", "of Marigold")
    philips.add_new(0x27, "UN", b"Jane Doe")
    inner = Dataset()
    inner.PatientName = "Doe^Jane"
    inner.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x0A, "IS", "7")
    inner.private_block(0x2003, "Jane Doe", create=True).add_new(0x0A, "IS", "7")
    philips.add_new(0x5F, "SQ", [inner])
    dataset.private_block(0x0019, "Jane Doe", create=True).add_new(0x0C, "IS", "1000")
    dataset.save_as(path)
    deidentify(path, tmp_path / "all", key=key)
    assert not [tag for tag in one(tmp_path / "all").keys() if tag.is_private]  # noqa: SIM118
    deidentify(path, tmp_path / "out", key=key, retain=["safe-private"])
    found = one(tmp_path / "out")
    siemens, philips = (
        found.private_block(0x0019, "SIEMENS MR HEADER"),
        found.private_block(0x2001, philips.private_creator),
    )
    assert (siemens[0x0C].value, philips[0x03].value, philips[0x64].value) == (1000, 500.0, "of [NAME]")
    assert philips[0x5F].value[0].private_block(0x2001, philips.private_creator)[0x0A].value == 7
    assert philips[0x5F].value[0].PatientName == ""
    assert 0x0F not in siemens
    assert 0x27 not in philips
    assert leftovers(tmp_path / "out", ["Jane", "Doe", "Marigold"]) == []
    assert "113111" in {item.CodeValue for item in found.DeidentificationMethodCodeSequence}
    deidentify(tmp_path / "out", tmp_path / "again", key=key, retain=["safe-private"])
    assert one(tmp_path / "again") == found


def test_the_safe_private_attributes_are_those_of_the_standard():
    """479 rows in table E.3.10-1 of edition 2026a, among them what diffusion and PET need."""
    assert len(safe_private()) == 479
    assert {
        ("SIEMENS MR HEADER", 0x0019, 0x0C),
        ("GEMS_PARM_01", 0x0043, 0x39),
        ("Philips Imaging DD 001", 0x2001, 0x03),
        ("Philips PET Private Group", 0x7053, 0x00),
    } <= safe_private()
    assert all(group % 2 and 0 <= element <= 0xFF for _, group, element in safe_private())


def test_the_report_says_in_which_pixels_nothing_looked_for_text(write_dicom, picture, key, tmp_path):
    write_dicom("in/a.dcm", picture)
    write_dicom("in/b.dcm", picture, BurnedInAnnotation="NO")
    write_dicom("in/c.dcm", picture, BurnedInAnnotation="YES")
    done = deidentify(tmp_path / "in", tmp_path / "out", key=key)
    assert done.pixels_not_searched == {"Burned In Annotation NO": 1, "Burned In Annotation is not stated": 1}
    assert report(tmp_path / "out")["pixels_not_searched"] == done.pixels_not_searched


def test_codes_beside_descriptors_stay_where_the_world_knows_them(write_dicom, picture, key, tmp_path):
    def code(value, scheme, meaning):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return item

    codes = [code("399173006", "SCT", "Left lateral"), code("QZ1XK", "99LOCAL", "Asked by Dr. Featherstone")]
    write_dicom("in/a.dcm", picture, ReasonForVisitCodeSequence=codes)
    deidentify(tmp_path / "in", tmp_path / "out", key=key, clean=["descriptors"])
    known, local = one(tmp_path / "out").ReasonForVisitCodeSequence
    assert (known.CodeValue, known.CodeMeaning) == ("399173006", "Left lateral")
    assert (local.CodeValue, local.CodeMeaning) == ("REMOVED", "Asked by Dr. [NAME]")


def test_a_comment_in_a_jpeg_stream_is_taken_out(write_dicom, picture, key, tmp_path):
    picture = np.kron(picture, np.ones((4, 4), np.uint8))
    path = write_dicom("in/a.dcm", picture)
    dataset = pydicom.dcmread(path)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    at = frame.index(b"\xff\x52")  # behind SIZ: a comment may stand anywhere in the main header
    comment = b"\xff\x64" + (4 + 8).to_bytes(2, "big") + b"\0\x01Jane Doe"
    dataset.PixelData = pydicom.encaps.encapsulate([frame[:at] + comment + frame[at:]])
    dataset.save_as(path)
    assert np.array_equal(pydicom.dcmread(path).pixel_array, picture)
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    assert leftovers(tmp_path / "out", ["Jane"]) == []
    assert np.array_equal(one(tmp_path / "out").pixel_array, picture)


def test_a_key_without_an_end_is_refused(write_dicom, picture, tmp_path):
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        deidentify(write_dicom("in/a.dcm", picture), tmp_path / "out", key="/dev/zero")


@pytest.mark.parametrize("content", [None, b"fifteen bytes !"])
def test_a_key_that_is_none_is_refused(write_dicom, picture, tmp_path, content):
    path, wrong = write_dicom("in/a.dcm", picture), tmp_path / "wrong.key"
    if content:
        wrong.write_bytes(content)
    with pytest.raises(ConfigError, match="16 random bytes"):
        deidentify(path, tmp_path / "out", key=wrong)
    assert not (tmp_path / "out").exists()


def test_dates_cannot_both_stay_and_move(write_dicom, picture, key, tmp_path):
    with pytest.raises(ConfigError, match="give one of them"):
        deidentify(
            write_dicom("in/a.dcm", picture), tmp_path / "out", key=key, retain=iter([FULL_DATES, MODIFIED_DATES])
        )


@pytest.mark.parametrize("options", [{"retain": ["everything"]}, {"clean": ["faces"]}])
def test_an_unknown_option_is_refused(write_dicom, picture, key, tmp_path, options):
    with pytest.raises(ConfigError, match="expected one of"):
        deidentify(write_dicom("in/a.dcm", picture), tmp_path / "out", key=key, **options)


def test_out_must_be_new_and_outside(write_dicom, picture, key, tmp_path):
    write_dicom("in/a.dcm", picture)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    with pytest.raises(ConfigError, match="new or empty"):
        deidentify(tmp_path / "in", tmp_path / "full", key=key)
    with pytest.raises(ConfigError, match="outside IN"):
        deidentify(tmp_path / "in", tmp_path / "in" / "out", key=key)
    (tmp_path / "empty").mkdir()
    deidentify(tmp_path / "in", tmp_path / "empty", key=key)
    assert len(objects(tmp_path / "empty")) == 1


def test_the_same_object_is_written_once_and_two_of_one_uid_are_both_kept(write_dicom, picture, key, tmp_path):
    path = write_dicom("in/a.dcm", picture, SOPInstanceUID="1.2.3.4.1")
    (tmp_path / "in" / "b.dcm").write_bytes(path.read_bytes())
    write_dicom("in/c.dcm", picture[::2], SOPInstanceUID="1.2.3.4.1")
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    assert len(objects(tmp_path / "out")) == 2
    assert report(tmp_path / "out")["refused"] == {"expected another object in each file": 1}


def test_nothing_of_a_file_is_printed(planted, key, tmp_path):
    """Neither by mmfm nor by the warnings and logs of what it uses: run as users run it."""
    path, words = planted()
    damaged = path.with_name("b.dcm")
    damaged.write_bytes(path.read_bytes().replace(b"1600", b"16X0")[:-900])
    path.write_bytes(path.read_bytes().replace(b"1600", b"16X0"))
    code = (
        f"from mmfm.io import deidentify; deidentify({str(path.parent)!r}, {str(tmp_path / 'out')!r}, key={str(key)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == ("", "")
    assert leftovers(tmp_path / "out", words) == []


def test_bad_files_are_counted_and_the_rest_is_written(write_dicom, picture, key, tmp_path):
    write_dicom("in/a.dcm", picture)
    cut = write_dicom("in/Doe.dcm", picture, PatientName="Planted^Name")
    cut.write_bytes(cut.read_bytes()[:-100])
    (tmp_path / "in" / "b.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 60)
    deidentify(tmp_path / "in", tmp_path / "out", key=key)
    assert len(objects(tmp_path / "out")) == 1
    assert sum(report(tmp_path / "out")["refused"].values()) == 2
    with pytest.raises(ReadError, match="at least one DICOM object"):
        deidentify(cut, tmp_path / "none", key=key)
    assert not (tmp_path / "none").exists()
    assert not list(tmp_path.glob(".*partial"))
